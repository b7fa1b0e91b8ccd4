"""What must hold at every revision, as functions over the events of the log.

Each invariant sees every event once, in order, and yields a text when it is broken. Bounds that a controller can only
keep as far as it knows of them (replicas + surge) count from what the object said within the last two minutes: caches
may be late in a simulation, the API may not be wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import attrs

from kcp.apis.semantics import pods as pod_facts
from kcp.apis.semantics import services, workloads
from kcp.base.values import frozen
from kcp.machinery import meta
from kcp.store.log import DECISIONS_PER_LIFE
from kcp.store.protocol import Event, Op

Json = dict[str, Any]
LATE_US = 120 * 1_000_000
"""How old the specification may be by which a controller acts."""
REPORTED_US = 10 * 1_000_000
DEPLOYMENTS, REPLICASETS = "deployments.apps", "replicasets.apps"


@frozen
class Violation:
    """An invariant that broke. `rv` 0: found at the end, when everything had come to rest."""

    invariant: str
    rv: int
    text: str

    def __str__(self) -> str:
        at = f"rv {self.rv}" if self.rv else "at rest"
        return f"{self.invariant} ({at}): {self.text}"


class Invariant(Protocol):
    """`as_stamped`: sees the time that the event bears; else the time at which it happened, whatever clocks said."""

    name: str
    as_stamped: bool

    def see(self, event: Event) -> Iterator[str]: ...


@attrs.define
class Revisions:
    """Gapless, in commit order, time never runs back; each change follows the one that it says it follows."""

    name = "revisions"
    as_stamped = True
    last_rv: int = 0
    last_us: int = 0
    rv_of: dict[str, int] = attrs.field(factory=dict)
    uids: set[str] = attrs.field(factory=set)

    def see(self, event: Event) -> Iterator[str]:
        if event.rv != self.last_rv + 1:
            yield f"revision {event.rv} follows {self.last_rv}"
        if event.ts_us < self.last_us:
            yield f"{event.key}: time runs back by {self.last_us - event.ts_us} µs"
        self.last_rv, self.last_us = event.rv, event.ts_us
        key, uid = str(event.key), event.record.uid
        before = self.rv_of.pop(key, 0)
        previous = event.previous.rv if event.previous is not None else 0
        if before != previous:
            yield f"{key}: the change follows {previous}, the last one seen was {before}"
        if event.op is Op.ADDED:
            if uid in self.uids:
                yield f"{key}: uid {uid} was given before"
            self.uids.add(uid)
        if event.op is not Op.DELETED:
            self.rv_of[key] = event.rv


@attrs.define
class Limit:
    """A number that changes, and the largest that it was within the last `LATE_US`."""

    now: int = 0
    past: list[tuple[int, int]] = attrs.field(factory=list)
    """(until when, value)"""

    def set(self, value: int, at_us: int) -> None:
        if value != self.now:
            self.past.append((at_us, self.now))
            self.now = value

    def allow(self, value: int, at_us: int) -> None:
        """It was `value` for a moment: that counts for a while, too."""
        self.past.append((at_us, value))

    def largest(self, at_us: int) -> int:
        self.past = [(until, value) for until, value in self.past if until >= at_us - LATE_US]
        return max([self.now, *(value for _, value in self.past)])


@attrs.define
class Owner:
    """A ReplicaSet with its active pods, or a Deployment with the wanted sizes of its ReplicaSets, by uid."""

    key: str
    limit: Limit = attrs.field(factory=Limit)
    parts: dict[str, int] = attrs.field(factory=dict)

    def excess(self, at_us: int) -> str | None:
        total, limit = sum(self.parts.values()), self.limit.largest(at_us)
        return f"{self.key} has {total}, at most {limit} are allowed" if total > limit else None


@attrs.define
class Replicas:
    """A ReplicaSet never has more active pods than replicas; those of a Deployment never want more than replicas + surge."""

    name = "replicas"
    as_stamped = False
    owners: dict[str, Owner] = attrs.field(factory=dict)
    owner_of: dict[str, str] = attrs.field(factory=dict)

    def see(self, event: Event) -> Iterator[str]:
        resource, obj = event.key.resource, event.record.value
        if resource == "pods":
            yield from self._part(event, int(pod_facts.is_active(obj)))
        elif resource == REPLICASETS:
            self._whole(event, workloads.replicas(obj))
            yield from self._part(event, workloads.replicas(obj))
        elif resource == DEPLOYMENTS:
            self._whole(event, workloads.replicas(obj) + workloads.max_surge(obj))

    def _whole(self, event: Event, limit: int) -> None:
        uid = event.record.uid
        if event.op is Op.DELETED:
            self.owners.pop(uid, None)  # what it leaves behind is the garbage collector's
        else:
            self.owners.setdefault(uid, Owner(str(event.key))).limit.set(limit, event.ts_us)

    def _part(self, event: Event, size: int) -> Iterator[str]:
        """An object counts `size` for its controller; one that is adopted may be too many for a while."""
        uid = event.record.uid
        controller = meta.controller_of(event.record.value)
        owner_uid = controller["uid"] if controller and event.op is not Op.DELETED else ""
        before = self.owner_of.pop(uid, "")
        previous = self.owners.get(before)
        was = previous.parts.pop(uid, 0) if previous is not None else 0
        owner = self.owners.get(owner_uid)
        if owner is None:
            return
        self.owner_of[uid] = owner_uid
        owner.parts[uid] = size
        if before != owner_uid:
            if event.op is not Op.ADDED:
                owner.limit.allow(sum(owner.parts.values()), event.ts_us)
            was = 0
        text = owner.excess(event.ts_us) if size > was else None
        if text is not None:
            yield text


def _pod_addresses(pod: Json) -> list[str]:
    if pod_facts.is_terminal(pod) or pod["spec"].get("hostNetwork"):
        return []
    return [f"pod IP {ip}" for ip in pod_facts.pod_ips(pod)]


def _service_addresses(service: Json) -> list[str]:
    ips = [] if services.is_headless(service) else services.cluster_ips(service)
    ports = service["spec"].get("ports", ())
    numbers = [(p.get("protocol", "TCP"), p["nodePort"]) for p in ports if p.get("nodePort")]
    return [f"cluster IP {ip}" for ip in ips if ip] + [f"node port {n}/{p}" for p, n in numbers]


_ADDRESSES = {"pods": _pod_addresses, "services": _service_addresses}


@attrs.define
class Addresses:
    """A cluster IP, a node port is held by one object at a time; a pod IP too, but for a node that was switched off
    and on: what its pods had before may show for `REPORTED_US` until the node has said what they have now.
    """

    name = "addresses"
    as_stamped = False
    holders: dict[str, dict[str, str]] = attrs.field(factory=dict)
    """address -> uid -> key"""
    held: dict[str, list[str]] = attrs.field(factory=dict)
    shared_since_us: dict[str, int] = attrs.field(factory=dict)

    def see(self, event: Event) -> Iterator[str]:
        addresses_of = _ADDRESSES.get(event.key.resource)
        if addresses_of is not None:
            self._move(event, [] if event.op is Op.DELETED else addresses_of(event.record.value))
        for address, since_us in list(self.shared_since_us.items()):
            if event.ts_us - since_us >= (REPORTED_US if address.startswith("pod") else 0):
                del self.shared_since_us[address]
                yield f"{' and '.join(self.holders[address].values())} hold {address}"

    def _move(self, event: Event, addresses: list[str]) -> None:
        uid = event.record.uid
        for address in self.held.pop(uid, ()):
            del self.holders[address][uid]
            if len(self.holders[address]) < 2:
                self.shared_since_us.pop(address, None)
        for address in addresses:
            holders = self.holders.setdefault(address, {})
            holders[uid] = str(event.key)
            if len(holders) > 1:
                self.shared_since_us.setdefault(address, event.ts_us)
        if addresses:
            self.held[uid] = addresses


@attrs.define
class Namespaces:
    """An object lives in a namespace that exists; a namespace that goes leaves nothing behind."""

    name = "namespaces"
    as_stamped = False
    living: set[str] = attrs.field(factory=set)
    objects: Counter[str] = attrs.field(factory=Counter)

    def see(self, event: Event) -> Iterator[str]:
        key = event.key
        if key.resource == "namespaces":
            if event.op is not Op.DELETED:
                self.living.add(key.name)
                return
            self.living.discard(key.name)
            if self.objects[key.name]:
                yield f"namespace {key.name} is removed while {self.objects[key.name]} objects are in it"
        elif key.namespace and event.op is Op.ADDED:
            self.objects[key.namespace] += 1
            if key.namespace not in self.living:
                yield f"{key} is created in a namespace that is not there"
        elif key.namespace and event.op is Op.DELETED:
            self.objects[key.namespace] -= 1


LEASES = "leases.coordination.k8s.io"


@attrs.define
class Leaders:
    """Where daemons take turns: what a decision writes is written while its daemon holds the Lease.

    `lease_of` gives the Lease's name for a user agent (empty: none is needed), `identities` the holder that a daemon
    is, by the number that its decisions begin with.
    """

    name = "leaders"
    as_stamped = False
    lease_of: Callable[[str], str]
    identities: Mapping[int, str]
    holders: dict[str, str] = attrs.field(factory=dict)

    def see(self, event: Event) -> Iterator[str]:
        if event.key.resource == LEASES and event.key.namespace == "kube-system":
            self.holders[event.key.name] = event.record.value["spec"].get("holderIdentity") or ""
        decision = event.cause.decision_id
        lease = self.lease_of(event.cause.actor.user_agent)
        if decision is None or not lease:
            return
        writer = self.identities.get(decision // DECISIONS_PER_LIFE, "")
        if self.holders.get(lease) != writer:
            yield f"{event.key} is written by {writer} while {self.holders.get(lease)} holds {lease}"


def all_invariants() -> list[Invariant]:
    return [Revisions(), Replicas(), Addresses(), Namespaces()]
