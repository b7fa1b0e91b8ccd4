"""The daemons that serve one log, as all of them see it: who lives, and where.

    servers = ApiServers(client, Identity.of(...), clock)
    await servers.look()            # this one is known now, and in the endpoints
    group.start_soon(servers.run)
    await servers.leave()           # and now it is neither

Each keeps a Lease in kube-system, as kube-apiserver does: named after the server, found by label, with its address.
The Service `kubernetes` names all whose Lease lives. In Kubernetes these are two things, the identity lease (an hour)
and a master lease in etcd (15 s) that nobody sees; here one Lease of 15 s is both.

Clocks of other machines do not matter: a Lease is dead when it did not change for its duration, as seen from here.
Whoever sees that deletes it first and then corrects the endpoints, so that two who look at once do not disagree. A
server that could not look for a while (paused, or the database was away) begins its count anew: what it did not see
change, others may not have been able to change.
Source: k8s v1.36 pkg/controlplane/reconcilers/{lease,endpointsadapter}.go, pkg/controlplane/apiserver/server.go.
"""

from __future__ import annotations

import hashlib
from base64 import b32encode
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

import anyio
import attrs
import structlog

from kcp.api.bootstrap import endpoints_of, following_addresses
from kcp.base.clock import Clock
from kcp.base.values import frozen
from kcp.client.client import Client
from kcp.client.leader_election import LEASES
from kcp.machinery.errors import AlreadyExists, ApiError, Conflict, NotFound
from kcp.machinery.times import format_micro_time

Json = dict[str, Any]
log = structlog.get_logger()

NAMESPACE = "kube-system"
COMPONENT_LABEL, COMPONENT = "apiserver.kubernetes.io/identity", "kube-apiserver"
HOST_LABEL = "kubernetes.io/hostname"
PEER_ADDRESS = "kubernetes.io/peer-advertise-address"
"""Where other servers reach this one."""
ENDPOINT = "apiserver.kcp.io/endpoint"
"""Where pods reach it: its address in the Service `kubernetes`."""
SELECTOR = f"{COMPONENT_LABEL}={COMPONENT}"

DURATION_S, RENEW_S, LOOK_S = 15, 5.0, 2.0
DEADLINE_S = 10.0
"""For one look; a database that hangs costs a look, not the loop."""
LEAVE_S = 3.0
ENDPOINTS, SLICES = "endpoints", "endpointslices.discovery.k8s.io"


@frozen
class Identity:
    """One server. `holder` is unique for each start, `name` for its host and address: a restart takes its Lease over."""

    holder: str
    host: str
    peer_address: str
    endpoint: str

    @property
    def name(self) -> str:
        digest = hashlib.sha256(f"{self.host}/{self.peer_address}".encode()).digest()
        return f"apiserver-{b32encode(digest[:16]).decode().rstrip('=').lower()}"

    def lease(self, now: str) -> Json:
        spec = {"holderIdentity": self.holder, "leaseDurationSeconds": DURATION_S, "renewTime": now}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self.name,
                "namespace": NAMESPACE,
                "labels": {COMPONENT_LABEL: COMPONENT, HOST_LABEL: self.host},
                "annotations": {PEER_ADDRESS: self.peer_address, ENDPOINT: self.endpoint},
            },
            "spec": spec,
        }


def split_address(text: str) -> tuple[str, int] | None:
    """Host and port of what is written in an annotation; None when it is no address."""
    try:
        parts = urlsplit(f"//{text}")
        return (parts.hostname, parts.port) if parts.hostname and parts.port else None
    except ValueError:
        return None


def annotation(lease: Json, name: str) -> str:
    return str((lease["metadata"].get("annotations") or {}).get(name) or "")


@attrs.define
class Watchman:
    """Tells the living from the dead by when each Lease was last seen to change."""

    clock: Clock
    _seen: dict[str, tuple[str, float]] = attrs.field(factory=dict)

    def forget(self) -> None:
        self._seen.clear()

    def dead(self, leases: Sequence[Json]) -> list[Json]:
        """Those that did not change for their duration. To be asked with every list."""
        now_s = self.clock.monotonic()
        seen: dict[str, tuple[str, float]] = {}
        for lease in leases:
            name, rv = lease["metadata"]["name"], lease["metadata"]["resourceVersion"]
            before = self._seen.get(name)
            seen[name] = before if before is not None and before[0] == rv else (rv, now_s)
        self._seen = seen
        return [each for each in leases if now_s - seen[each["metadata"]["name"]][1] >= _duration_s(each)]


def _duration_s(lease: Json) -> int:
    return int((lease.get("spec") or {}).get("leaseDurationSeconds") or DURATION_S)


@attrs.define
class ApiServers:
    """Owned by the task that runs `run`. `look` and `leave` may be called by anyone, one at a time goes on."""

    client: Client
    me: Identity
    clock: Clock
    _watchman: Watchman = attrs.field(init=False)
    _lease: Json | None = None
    _renewed_s: float = float("-inf")
    _left: bool = False
    problem: str = ""
    """Why the last look failed; empty when it did not. The health check of the database, seen by every look."""
    _turn: anyio.Lock = attrs.field(factory=anyio.Lock)

    def __attrs_post_init__(self) -> None:
        self._watchman = Watchman(self.clock)

    async def run(self) -> None:
        """Look again and again, until cancelled; then leave."""
        try:
            while True:
                await anyio.sleep(LOOK_S)
                await self.look()
        except anyio.get_cancelled_exc_class():
            await self.leave()
            raise

    async def look(self) -> None:
        """Renew the own Lease when it is time, bury the dead, correct the endpoints. Failures wait for the next look."""
        try:
            with anyio.fail_after(DEADLINE_S):
                async with self._turn:
                    if not self._left:
                        await self._look()
        except (ApiError, TimeoutError) as error:
            self.problem = str(error) or "timed out"
            log.info("api servers not looked after", error=self.problem)
        else:
            self.problem = ""

    async def _look(self) -> None:
        since_s = self.clock.monotonic() - self._renewed_s
        if since_s >= RENEW_S:
            if since_s >= DURATION_S:
                self._watchman.forget()
            await self._renew()
            self._renewed_s = self.clock.monotonic()
        leases = (await self.client.list(LEASES, NAMESPACE, label_selector=SELECTOR)).items
        dead = self._watchman.dead(leases)
        for lease in dead:
            log.warning("api server is gone", lease=lease["metadata"]["name"])
            await self._delete(lease)
        gone = [lease["metadata"]["name"] for lease in dead]
        await self._correct(each for each in leases if each["metadata"]["name"] not in gone)

    async def leave(self) -> None:
        """Take this server out of the endpoints and give its Lease up, within `LEAVE_S`; nothing brings it back."""
        if self._left:
            return
        self._left = True
        with anyio.move_on_after(LEAVE_S, shield=True):
            try:
                async with self._turn:
                    await self._leave()
            except ApiError as error:
                log.info("api server did not leave in order", error=str(error))

    async def _leave(self) -> None:
        leases = (await self.client.list(LEASES, NAMESPACE, label_selector=SELECTOR)).items
        mine = [each for each in leases if each["spec"].get("holderIdentity") == self.me.holder]
        for lease in mine:
            await self._delete(lease)
        await self._correct(each for each in leases if each not in mine)

    async def _renew(self) -> None:
        """A renewal writes no event; the Lease is read again only when somebody else wrote it."""
        wanted = self.me.lease(format_micro_time(self.clock.now()))
        if self._lease is not None:
            try:
                await self._put(wanted, self._lease)
            except (Conflict, NotFound):
                self._lease = None
        if self._lease is None:
            try:
                found = await self.client.get(LEASES, self.me.name, NAMESPACE)
            except NotFound:
                self._lease = (await self.client.create(LEASES, wanted)).object
            else:
                await self._put(wanted, found)

    async def _put(self, wanted: Json, found: Json) -> None:
        held = found["metadata"]
        metadata = {**held, "labels": wanted["metadata"]["labels"]}
        metadata["annotations"] = wanted["metadata"]["annotations"]
        self._lease = (await self.client.update(LEASES, {**wanted, "metadata": metadata})).object

    async def _delete(self, lease: Json) -> None:
        """Only as it was seen: one that was renewed meanwhile stays."""
        metadata = lease["metadata"]
        try:
            await self.client.delete(
                LEASES, metadata["name"], NAMESPACE, uid=metadata["uid"], rv=metadata["resourceVersion"]
            )
        except (NotFound, Conflict):
            log.debug("lease is another one already", lease=metadata["name"])

    async def _correct(self, living: Iterable[Json]) -> None:
        """Make the endpoints what the living are. Nobody living: left as it is, as in Kubernetes."""
        addresses = [split_address(annotation(lease, ENDPOINT)) for lease in living]
        wanted = endpoints_of([each for each in addresses if each is not None])
        if not wanted:
            return
        await self._correct_one(ENDPOINTS, wanted[0])
        page = await self.client.list(
            SLICES,
            "default",
            label_selector="kubernetes.io/service-name=kubernetes",
            resource_version="0",
        )
        kinds = {each["metadata"]["name"]: each["addressType"] for each in wanted[1:]}
        for found in page.items:
            name = found["metadata"]["name"]
            if kinds.get(name) != found["addressType"]:
                await self._delete_slice(name)
        for each in wanted[1:]:
            await self._correct_one(SLICES, each)

    async def _correct_one(self, resource: str, wanted: Json) -> None:
        """Whoever else wrote at the same time wins until the next look."""
        name, namespace = wanted["metadata"]["name"], wanted["metadata"]["namespace"]
        try:
            found = await self.client.get(resource, name, namespace, resource_version="0")
            changed = following_addresses(wanted, found)
            if changed is not None:
                await self.client.update(resource, changed)
        except NotFound:
            try:
                await self.client.create(resource, wanted)
            except AlreadyExists:
                return
        except Conflict:
            return

    async def _delete_slice(self, name: str) -> None:
        try:
            await self.client.delete(SLICES, name, "default")
        except NotFound:
            return
