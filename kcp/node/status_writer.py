"""Writes pod statuses, and deletes pods whose containers are gone. One cell per pod; the newest status wins.

Cells share a work loop, so as many writes are under way at once as that loop has tasks.
Source: k8s v1.36 pkg/kubelet/status/status_manager.go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import structlog

from kcp.client.client import Client, PatchType
from kcp.machinery.errors import ApiError, Conflict, NotFound
from kcp.node.status import KUBELET_CONDITIONS, OPTIONAL_CONDITIONS
from kcp.node.timers import Timers
from kcp.node.work_loop import WorkLoop

log = structlog.get_logger()
Json = dict[str, Any]
RETRY_S, RETRY_CAP_S = 0.5, 10.0
_CLEARED = ("reason", "message")


def status_patch(uid: str, status: Json, seen: Json) -> Json:
    """A strategic merge patch that makes `seen`, the API's status, into `status`, keeping others' conditions."""
    wanted = dict(status)
    for field in _CLEARED:
        if field in seen and field not in status:
            wanted[field] = None
    have = {entry["type"] for entry in status["conditions"]}
    stale = [
        {"type": entry["type"], "$patch": "delete"}
        for entry in seen.get("conditions") or ()
        if entry["type"] in OPTIONAL_CONDITIONS and entry["type"] not in have
    ]
    if stale:
        wanted["conditions"] = [*status["conditions"], *stale]
    if seen.get("podIPs") and seen["podIPs"] != status.get("podIPs"):
        wanted["podIPs"] = [*(status.get("podIPs") or ()), {"$patch": "replace"}]
    return {"metadata": {"uid": uid}, "status": wanted}


def exact_patch(uid: str, rv: str, status: Json, seen: Json) -> Json:
    """A merge patch to the same end, for exactly the version whose status is `seen`: cheaper, refused on any other."""
    ours = {entry["type"]: entry for entry in status["conditions"]}
    kept = [
        ours.pop(entry["type"], entry)
        for entry in seen.get("conditions") or ()
        if entry["type"] in ours or entry["type"] not in OPTIONAL_CONDITIONS
    ]
    wanted = {**status, "conditions": [*kept, *ours.values()]}
    for field in _CLEARED:
        if field in seen and field not in status:
            wanted[field] = None
    return {"metadata": {"uid": uid, "resourceVersion": rv}, "status": wanted}


def same_status(status: Json, seen: Json) -> bool:
    """Whether the API shows what the node says; conditions of others do not count."""
    for field, value in status.items():
        if field == "conditions":
            if not _same_conditions(value, seen.get("conditions") or ()):
                return False
        elif seen.get(field) != value:
            return False
    return not any(field in seen and field not in status for field in _CLEARED)


def _same_conditions(ours: Any, seen: Any) -> bool:
    found = {entry["type"]: entry for entry in seen}
    for entry in ours:
        other = found.get(entry["type"])
        if other is None or any(
            (other.get(key) or None) != (value or None)
            for key, value in entry.items()
            if key != "lastProbeTime"
        ):
            return False
    have = {entry["type"] for entry in ours}
    return not any(type_ in found and type_ not in have for type_ in OPTIONAL_CONDITIONS)


def same_in_short(status: Json, seen: Json) -> bool:
    """A quick look for changes that somebody else made to what the node has written."""
    if status["phase"] != seen.get("phase"):
        return False
    found = {entry["type"]: entry.get("status") for entry in seen.get("conditions") or ()}
    return all(
        found.get(entry["type"]) == entry["status"]
        for entry in status["conditions"]
        if entry["type"] in KUBELET_CONDITIONS
    )


@attrs.define(slots=True, eq=False)
class StatusCell:
    """What one pod's status should be in the API. `silent` is asked before every request."""

    client: Client
    loop: WorkLoop
    timers: Timers
    silent: Callable[[], bool]
    namespace: str
    name: str
    uid: str
    seen: Json
    seen_rv: str = ""
    wanted: Json | None = None
    delete_wanted: bool = False
    gone: bool = False
    queued: bool = False
    busy: bool = False
    again: bool = False
    _retry_s: float = RETRY_S

    def put(self, status: Json) -> None:
        """Write this status, unless the API shows it already."""
        if self.gone or (self.wanted is None and not self.busy and same_status(status, self.seen)):
            return
        self.wanted = status
        self.loop.add(self)

    def delete(self) -> None:
        """Remove the pod once its last status is written."""
        if not self.delete_wanted and not self.gone:
            self.delete_wanted = True
            self.loop.add(self)

    def kick(self) -> None:
        if self.wanted is not None or self.delete_wanted:
            self.loop.add(self)

    async def step(self) -> None:
        if self.silent() or self.gone:
            return
        try:
            await self._write()
            self._retry_s = RETRY_S
        except ApiError as error:
            if await self._is_replaced(error):
                self.gone = True
                self.wanted = None
                return
            log.debug("pod status not written", pod=self.name, error=str(error))
            self._try_again()
        except Exception:
            self._try_again()
            raise

    async def _is_replaced(self, error: ApiError) -> bool:
        """Whether the pod is gone; a conflict may mean another pod of this name, or only that somebody was faster."""
        if not isinstance(error, Conflict):
            return isinstance(error, NotFound)
        try:
            pod = await self.client.get("pods", self.name, self.namespace)
        except ApiError as failed:
            return isinstance(failed, NotFound)
        return bool(pod["metadata"]["uid"] != self.uid)

    def _try_again(self) -> None:
        self.timers.after(self._retry_s, self.kick)
        self._retry_s = min(self._retry_s * 2, RETRY_CAP_S)

    async def _write(self) -> None:
        status = self.wanted
        if status is not None:
            pod = await self._patch(status)
            self.seen, self.seen_rv = pod.get("status") or {}, pod["metadata"]["resourceVersion"]
            if self.wanted is not status:
                self.loop.add(self)
                return
            self.wanted = None
        if self.delete_wanted:
            await self.client.delete("pods", self.name, self.namespace, uid=self.uid, grace_s=0)
            self.delete_wanted, self.gone = False, True

    async def _patch(self, status: Json) -> Json:
        """Patch the version we know; when somebody was faster, whatever version there is now."""
        if self.seen_rv:
            patch, self.seen_rv = exact_patch(self.uid, self.seen_rv, status, self.seen), ""
            try:
                return await self._send(patch, "merge")
            except Conflict as error:
                log.debug("pod status is newer than ours", pod=self.name, error=str(error))
        return await self._send(status_patch(self.uid, status, self.seen), "strategic")

    async def _send(self, patch: Json, form: PatchType) -> Json:
        done = await self.client.patch("pods", self.name, patch, form, self.namespace, subresource="status")
        return done.object
