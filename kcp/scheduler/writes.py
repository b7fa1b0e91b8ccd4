"""What the scheduler writes beside bindings: conditions and nominations of waiting pods, and the removal of victims.

Writes run in the background, in order for one pod, so that deciding never waits for them.
Source: k8s v1.36 pkg/scheduler/schedule_one.go (updatePod), framework/preemption (PreemptPod).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import anyio
import attrs
import structlog

from kcp.base.clock import Clock
from kcp.base.values import frozen
from kcp.client.client import Client
from kcp.client.transport import Unreachable
from kcp.machinery import meta
from kcp.machinery.errors import ApiError, Conflict, NotFound
from kcp.machinery.times import format_time
from kcp.scheduler.dra.binding import free

Json = dict[str, Any]
EventWriter = Callable[[Json, str, str, str, str, Json | None], None]
"""(regarding, type, reason, message, action, related)"""
log = structlog.get_logger()

BATCH = 64
CAPACITY = 100_000
VICTIM_DEADLINE_S = 60.0


@frozen
class StatusWrite:
    """Set PodScheduled=False with this reason and text, and the nomination unless it is None."""

    pod: Json
    reason: str
    text: str
    nominated: str | None
    decision: int


@frozen
class Eviction:
    """Victims that must go for a preemptor; `done` is called when all deletions have been asked for, or failed."""

    preemptor: Json
    node: str
    victims: tuple[Json, ...]
    decision: int
    done: Callable[[], None]
    preempted_by: str = ""
    """Who, in the victims' Events; "": the preemptor itself."""


@frozen
class GroupStatusWrite:
    """Set PodGroupScheduled of a PodGroup: True with reason Scheduled, else False."""

    group: Json
    reason: str
    message: str
    decision: int


@frozen
class Deallocation:
    """A claim that loses its devices, so that its pod can get others elsewhere; one of extended resources is deleted."""

    claim: Json
    decision: int


@frozen
class Memory:
    """An object in which a plugin keeps what the next scheduler must know; it replaces the one before of that manager."""

    object: Json
    manager: str


Write = StatusWrite | Eviction | GroupStatusWrite | Deallocation | Memory
GROUP_CONDITION = "PodGroupScheduled"


def group_says(group: Json, write: GroupStatusWrite) -> bool:
    """Whether there is nothing to write: the group says this already, or that it was scheduled once."""
    present = meta.condition(group, GROUP_CONDITION)
    if present is None:
        return False
    if present.get("status") == "True":
        return True
    return present.get("reason") == write.reason and (present.get("message") or "") == write.message


def group_patch(write: GroupStatusWrite, now: str) -> Json:
    """A merge patch of the group's status."""
    group = write.group
    scheduled = write.reason == "Scheduled"
    present = meta.condition(group, GROUP_CONDITION)
    condition: Json = {
        "type": GROUP_CONDITION,
        "status": "True" if scheduled else "False",
        "reason": write.reason,
        "message": write.message,
        "lastTransitionTime": now if present is None or scheduled else present.get("lastTransitionTime", now),
    }
    if meta.generation(group):
        condition["observedGeneration"] = meta.generation(group)
    others = [
        c for c in (group.get("status") or {}).get("conditions") or () if c.get("type") != GROUP_CONDITION
    ]
    return {"metadata": {"uid": meta.uid(group)}, "status": {"conditions": [*others, condition]}}


def unchanged(pod: Json, write: StatusWrite) -> bool:
    """Whether the pod says all this already."""
    status = pod.get("status") or {}
    if write.nominated is not None and (status.get("nominatedNodeName") or "") != write.nominated:
        return False
    present = meta.condition(pod, "PodScheduled")
    if not write.reason:
        return True
    return (
        present is not None
        and present.get("status") == "False"
        and present.get("reason") == write.reason
        and present.get("message") == write.text
    )


def status_patch(write: StatusWrite, now: str) -> Json:
    """A strategic merge patch of the pod's status; the uid is its precondition. No reason: only the nomination."""
    pod = write.pod
    status: Json = {}
    if write.reason:
        status["conditions"] = [_condition(pod, write, now)]
    if write.nominated is not None:
        status["nominatedNodeName"] = write.nominated or None
    return {"metadata": {"uid": meta.uid(pod)}, "status": status}


def _condition(pod: Json, write: StatusWrite, now: str) -> Json:
    present = meta.condition(pod, "PodScheduled") or {}
    since = present.get("lastTransitionTime") if present.get("status") == "False" else None
    condition: Json = {
        "type": "PodScheduled",
        "status": "False",
        "reason": write.reason,
        "message": write.text,
        "lastProbeTime": None,
        "lastTransitionTime": since or now,
    }
    if meta.generation(pod):
        condition["observedGeneration"] = meta.generation(pod)
    return condition


@attrs.define(eq=False)
class Writes:
    """The queue of background writes. The task of `run` owns it; `put` may be called from the scheduler's."""

    client: Client
    clock: Clock
    write_event: EventWriter
    dropped: int = 0
    _queue: deque[Write] = attrs.field(factory=deque)
    _wake: anyio.Event = attrs.field(factory=anyio.Event)

    def put(self, write: Write) -> None:
        if len(self._queue) >= CAPACITY:
            self.dropped += 1
            if isinstance(write, Eviction):
                write.done()
            return
        self._queue.append(write)
        self._wake.set()

    async def run(self) -> None:
        while True:
            self._wake = anyio.Event()
            while self._queue:
                await self._write_some()
            await self._wake.wait()

    async def _write_some(self) -> None:
        """Up to a batch at once; of several status writes for one pod only the last."""
        batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
        statuses = {meta.uid(w.pod): w for w in batch if isinstance(w, StatusWrite)}
        groups = {meta.uid(w.group): w for w in batch if isinstance(w, GroupStatusWrite)}
        evictions = [w for w in batch if isinstance(w, Eviction)]
        async with anyio.create_task_group() as group:
            for write in statuses.values():
                group.start_soon(self._write_status, write)
            for told in groups.values():
                group.start_soon(self._write_group, told)
            for eviction in evictions:
                group.start_soon(self._evict, eviction)
            for memory in {meta.key_of(w.object): w for w in batch if isinstance(w, Memory)}.values():
                group.start_soon(self._write_memory, memory)
            for freed in [w for w in batch if isinstance(w, Deallocation)]:
                group.start_soon(free, self.client, freed.claim, freed.decision)

    async def _write_status(self, write: StatusWrite) -> None:
        patch = status_patch(write, format_time(self.clock.now()))
        try:
            await self.client.patch(
                "pods",
                meta.name(write.pod),
                patch,
                "strategic",
                meta.namespace(write.pod),
                subresource="status",
                cause=write.decision or None,
            )
        except (NotFound, Conflict):
            pass  # it is gone, or another pod of that name came
        except (ApiError, Unreachable) as error:
            log.warning("pod status not written", pod=meta.key_of(write.pod), error=str(error))

    async def _write_group(self, write: GroupStatusWrite) -> None:
        group = write.group
        patch = group_patch(write, format_time(self.clock.now()))
        try:
            await self.client.patch(
                "podgroups.scheduling.k8s.io",
                meta.name(group),
                patch,
                "merge",
                meta.namespace(group),
                subresource="status",
                cause=write.decision or None,
            )
        except (NotFound, Conflict):
            pass  # it is gone, or another one of that name came
        except (ApiError, Unreachable) as error:
            log.warning("pod group status not written", group=meta.key_of(group), error=str(error))

    async def _write_memory(self, memory: Memory) -> None:
        obj = memory.object
        try:
            await self.client.patch(
                "configmaps", meta.name(obj), obj, "apply", meta.namespace(obj), field_manager=memory.manager,
                force=True,
            )  # fmt: skip
        except (ApiError, Unreachable) as error:
            log.warning("memory not written", object=meta.key_of(obj), error=str(error))

    async def _evict(self, eviction: Eviction) -> None:
        """The last victim is deleted last: its end is what wakes the preemptor."""
        try:
            with anyio.move_on_after(VICTIM_DEADLINE_S):
                *others, last = eviction.victims
                async with anyio.create_task_group() as group:
                    for victim in others:
                        group.start_soon(self._remove, eviction, victim)
                await self._remove(eviction, last)
        finally:
            eviction.done()

    async def _remove(self, eviction: Eviction, victim: Json) -> None:
        if "deletionTimestamp" in victim["metadata"]:
            return
        name, namespace, uid = meta.name(victim), meta.namespace(victim), meta.uid(victim)
        cause = eviction.decision or None
        try:
            patch = disruption_patch(victim, eviction.preemptor, format_time(self.clock.now()))
            await self.client.patch(
                "pods", name, patch, "strategic", namespace, subresource="status", cause=cause
            )
            await self.client.delete("pods", name, namespace, uid=uid, cause=cause)
        except (NotFound, Conflict):
            return
        except (ApiError, Unreachable) as error:
            log.warning("victim not removed", pod=meta.key_of(victim), error=str(error))
            return
        preemptor = eviction.preempted_by or f"pod {meta.uid(eviction.preemptor)}"
        text = f"Preempted by {preemptor} on node {eviction.node}"
        self.write_event(victim, "Normal", "Preempted", text, "Preempting", eviction.preemptor)


def disruption_patch(victim: Json, preemptor: Json, now: str) -> Json:
    scheduler = preemptor["spec"].get("schedulerName") or "default-scheduler"
    condition: Json = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "PreemptionByScheduler",
        "message": f"{scheduler}: preempting to accommodate a higher priority pod",
        "lastTransitionTime": now,
    }
    if meta.generation(victim):
        condition["observedGeneration"] = meta.generation(victim)
    return {"metadata": {"uid": meta.uid(victim)}, "status": {"conditions": [condition]}}
