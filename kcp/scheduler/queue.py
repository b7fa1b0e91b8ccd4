"""Pods that wait for a node: active, backing off, unschedulable, gated; and which events bring them back.

    add -> active -> pop -> (decision) -> done
                        \\-> unschedulable --event with a hint--> backoff -> active

Time comes in as `now_us`; the queue never reads a clock. Order of the active queue: priority, then time, then arrival.
While a pod is decided or bound it is in flight: events of that time are remembered and replayed when it comes back.
Source: k8s v1.36 pkg/scheduler/backend/queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Literal

import attrs

from kcp.apis.semantics.resource_claims import claim_statuses
from kcp.base.heap import KeyedHeap
from kcp.machinery import meta
from kcp.scheduler.event_labels import (
    BACKOFF_OVER,
    FAILURE,
    OWN_UPDATE,
    POD_ADD,
    TOO_LONG,
    UNGATED,
    VICTIMS_GONE,
    event_label,
)
from kcp.scheduler.hints import OWN_CHANGES, ClusterEvent, interested, own_changes

Json = dict[str, Any]
Place = Literal["active", "backoff", "errors", "unschedulable", "gated", "flight"]

SECOND_US = 1_000_000
MAX_UNSCHEDULABLE_US = 300 * SECOND_US
FLUSH_EVERY_US = 30 * SECOND_US
MAX_IN_FLIGHT_EVENTS = 20_000
"""What a pod in flight may miss; one that missed more, as one that waits for its volumes can, is tried again."""
SCHEDULING_GATES = ("SchedulingGates",)


@attrs.define(eq=False, slots=True)
class QueuedPod:
    """One waiting pod. `failures` counts unschedulable outcomes, `errors` consecutive errors."""

    uid: str
    key: str
    pod: Json
    priority: int
    timestamp_us: int
    added_us: int
    place: Place = "active"
    attempts: int = 0
    failures: int = 0
    errors: int = 0
    rejected_by: tuple[str, ...] = ()
    held: bool = False
    woken: bool = False
    trigger: str = "event"
    why: str = ""
    """What keeps a gated pod out."""
    first_us: int = -1
    """Since when it may be tried."""
    started_s: float = 0.0
    """When the attempt under way began, on the monotonic clock."""


Gate = Callable[[Json], tuple[str, str] | None]
"""pod -> (plugin, why) when it must not enter the active queue yet."""
HintCheck = Callable[[QueuedPod, ClusterEvent, list[Any]], bool]
"""(pod, event, hints of the rejecting plugin) -> whether the event can help. The owner knows the state."""


def _nobody_counts(queue: str, event: str) -> None: ...


class SchedulingQueue:
    """Owned by the scheduler's task."""

    def __init__(
        self,
        check: HintCheck,
        initial_backoff_s: float = 1.0,
        max_backoff_s: float = 10.0,
        gate: Gate | None = None,
        active: KeyedHeap[str, QueuedPod] | None = None,
        came: Callable[[str, str], None] = _nobody_counts,
    ) -> None:
        """`active` is an order of the active queue other than by priority and time; `came` counts who comes where and why."""
        self._came = came
        self._check = check
        self._gate = gate
        self._initial_us = int(initial_backoff_s * SECOND_US)
        self._max_us = int(max_backoff_s * SECOND_US)
        self.pods: dict[str, QueuedPod] = {}
        self._active: KeyedHeap[str, QueuedPod] = KeyedHeap(by_priority) if active is None else active
        self._ordered = active is not None
        self._backoff: KeyedHeap[str, QueuedPod] = KeyedHeap(self._backoff_order)
        self._errors: KeyedHeap[str, QueuedPod] = KeyedHeap(self._backoff_order)
        self._waiting: dict[str, QueuedPod] = {}
        self._by_plugin: dict[str, dict[str, QueuedPod]] = {}
        self._flight: dict[str, int] = {}
        """Since which event, by its number, each pod is in flight; the first has been there for longest."""
        self._events: deque[ClusterEvent] = deque()
        self._dropped = 0
        """How many events came before those that are kept."""
        self._flushed_us = 0

    def __len__(self) -> int:
        return len(self.pods)

    @property
    def has_active(self) -> bool:
        """Whether a pod waits for nothing but its attempt."""
        return len(self._active) > 0

    def sizes(self) -> dict[str, int]:
        """How many pods are where; `in_flight_events` is 0 when the queue is idle."""
        gated = sum(1 for p in self.pods.values() if p.place == "gated")
        return {
            "active": len(self._active),
            "backoff": len(self._backoff) + len(self._errors),
            "unschedulable": len(self._waiting),
            "gated": gated,
            "in_flight": len(self._flight),
            "in_flight_events": len(self._events),
        }

    # --- pods come and go ---

    def add(self, pod: Json, priority: int, now_us: int) -> None:
        uid = meta.uid(pod)
        if uid in self.pods:
            self.update(self.pods[uid].pod, pod, priority, now_us)
            return
        queued = QueuedPod(uid, meta.key_of(pod), pod, priority, now_us, now_us)
        self.pods[uid] = queued
        self._enqueue(queued, now_us, POD_ADD)

    def _enqueue(self, queued: QueuedPod, now_us: int, why: str) -> None:
        if queued.pod["spec"].get("schedulingGates"):
            queued.place = "gated"
            queued.rejected_by = SCHEDULING_GATES
        elif not self._gated(queued):
            queued.place = "active"
            if queued.first_us < 0:
                queued.first_us = now_us
            self._active.push(queued.uid, queued)
            self._came("active", why)

    def _gated(self, queued: QueuedPod) -> bool:
        """Whether a plugin keeps the pod out; it is in no part of the queue then."""
        found = self._gate(queued.pod) if self._gate is not None else None
        if found is None:
            return False
        queued.place, queued.rejected_by, queued.why = "gated", (found[0],), found[1]
        return True

    def recheck(self, uids: Iterable[str], now_us: int) -> None:
        """What kept these pods out, or was against them, may have changed."""
        for uid in uids:
            queued = self.pods.get(uid)
            if queued is not None and queued.place == "gated" and queued.rejected_by != SCHEDULING_GATES:
                queued.rejected_by = ()
                self._enqueue(queued, now_us, UNGATED)
            elif queued is not None and queued.place == "unschedulable":
                self._wake(queued, now_us, UNGATED)

    def update(self, old: Json, new: Json, priority: int, now_us: int) -> None:
        """The waiting pod itself changed."""
        uid = meta.uid(new)
        queued = self.pods.get(uid)
        if queued is None:
            self.add(new, priority, now_us)
            return
        queued.pod, queued.priority = new, priority
        if queued.place == "active":
            self._active.push(uid, queued)
        elif queued.place == "gated":
            if not new["spec"].get("schedulingGates"):
                if queued.rejected_by == SCHEDULING_GATES:
                    queued.timestamp_us = now_us
                queued.rejected_by = ()
                self._enqueue(queued, now_us, OWN_UPDATE)
        elif queued.place == "unschedulable" and self._helps(queued, old, new):
            self._wake(queued, now_us, OWN_UPDATE)

    def _helps(self, queued: QueuedPod, old: Json, new: Json) -> bool:
        if (
            old["spec"] == new["spec"]
            and meta.labels(old) == meta.labels(new)
            and claim_statuses(old) == claim_statuses(new)
        ):
            return False
        changes = own_changes(old, new)
        if not queued.rejected_by:
            return True
        return any(
            change in OWN_CHANGES.get(plugin, ()) for plugin in queued.rejected_by for change in changes
        )

    def remove(self, uid: str) -> None:
        """The pod is gone or bound."""
        queued = self.pods.pop(uid, None)
        if queued is None:
            return
        self._leave(queued)
        self._land(uid)

    def _leave(self, queued: QueuedPod) -> None:
        uid, place = queued.uid, queued.place
        if place == "active":
            self._active.delete(uid)
        elif place == "backoff":
            self._backoff.delete(uid)
        elif place == "errors":
            self._errors.delete(uid)
        elif place == "unschedulable":
            del self._waiting[uid]
            for plugin in queued.rejected_by:
                there = self._by_plugin[plugin]
                del there[uid]
                if not there:
                    del self._by_plugin[plugin]

    # --- attempts ---

    def pop(self, now_us: int) -> QueuedPod | None:
        """The next pod to decide on, now in flight; from the backoff queue when nothing else is active."""
        if self._ordered and not len(self._active):
            self._activate_backoff()
        heap = self._active if len(self._active) else self._backoff
        if not len(heap):
            return None
        uid, queued = heap.pop()
        return self._take_off(uid, queued)

    def _activate_backoff(self) -> None:
        """Those that back off are next, and an order of its own goes for them too."""
        while len(self._backoff):
            uid, queued = self._backoff.pop()
            queued.place = "active"
            self._active.push(uid, queued)

    def take(self, uid: str) -> QueuedPod | None:
        """A certain pod, to be decided on now; None when it is held, kept out, or not here."""
        queued = self.pods.get(uid)
        if queued is None or queued.held or queued.place in ("gated", "flight"):
            return None
        self._leave(queued)
        return self._take_off(uid, queued)

    def _take_off(self, uid: str, queued: QueuedPod) -> QueuedPod:
        queued.place = "flight"
        queued.attempts += 1
        queued.rejected_by = ()
        self._flight[uid] = self._dropped + len(self._events)
        return queued

    def done(self, uid: str) -> None:
        """The attempt ended well: the pod needs no node any more."""
        self.pods.pop(uid, None)
        self._land(uid)

    def back(
        self, queued: QueuedPod, rejected_by: Iterable[str], now_us: int, *, error: bool = False
    ) -> None:
        """The attempt failed. Events that came meanwhile are replayed against the pod."""
        forgotten, missed = self._missed(queued.uid)
        self._land(queued.uid)
        if queued.uid not in self.pods or queued.place != "flight":
            return
        queued.timestamp_us = now_us
        queued.rejected_by = tuple(rejected_by)
        if error or not queued.rejected_by:
            queued.errors += 1
            self._to_backoff(queued, "errors" if error else "backoff", FAILURE)
            return
        queued.errors = 0
        queued.failures += 1
        if forgotten or any(self._hinted(queued, event) for event in missed):
            self._wake_from_nowhere(queued, now_us, FAILURE)
        else:
            self._park(queued)

    def _missed(self, uid: str) -> tuple[bool, list[ClusterEvent]]:
        """(whether there were more than are kept, the events since the pod took off)."""
        if not self._events:
            return False, []
        since = self._flight.get(uid, self._dropped + len(self._events)) - self._dropped
        return since < 0, list(islice(self._events, max(since, 0), None))

    def keep_out(self, queued: QueuedPod) -> None:
        """The pod in flight turns out to be one that must not be tried yet."""
        self._land(queued.uid)
        if queued.uid in self.pods and queued.place == "flight":
            self._enqueue(queued, queued.timestamp_us, UNGATED)

    def land_all(self, now_us: int) -> None:
        """Nobody works on any pod any more: those in flight are to be tried again."""
        for queued in [p for p in self.pods.values() if p.place == "flight"]:
            self.back(queued, (), now_us)
        for queued in self.pods.values():
            queued.held = False

    def _land(self, uid: str) -> None:
        """Events from before the pod that is in flight for longest are of no use to anybody."""
        if self._flight.pop(uid, None) is None or not self._events:
            return
        first = next(iter(self._flight.values()), self._dropped + len(self._events))
        while self._dropped < first:
            self._events.popleft()
            self._dropped += 1

    def _park(self, queued: QueuedPod) -> None:
        queued.place = "unschedulable"
        self._waiting[queued.uid] = queued
        for plugin in queued.rejected_by:
            self._by_plugin.setdefault(plugin, {})[queued.uid] = queued
        self._came("unschedulable", FAILURE)

    # --- backoff ---

    def backoff_until_us(self, queued: QueuedPod) -> int:
        """Whole seconds, so that priority orders the pods that become ready within one second."""
        count = queued.errors or queued.failures
        if not count or not self._max_us:
            return queued.timestamp_us
        duration = min(self._initial_us << min(count - 1, 20), self._max_us)
        return (queued.timestamp_us + duration) // SECOND_US * SECOND_US

    def _backoff_order(self, queued: QueuedPod) -> tuple[int, int, int]:
        return self.backoff_until_us(queued), -queued.priority, queued.timestamp_us

    def _to_backoff(self, queued: QueuedPod, place: Literal["backoff", "errors"], why: str) -> None:
        queued.place = place
        (self._backoff if place == "backoff" else self._errors).push(queued.uid, queued)
        self._came("backoff", why)

    def _wake(self, queued: QueuedPod, now_us: int, why: str) -> None:
        if queued.held:
            queued.woken = True
            return
        self._leave(queued)
        self._wake_from_nowhere(queued, now_us, why)

    def _wake_from_nowhere(self, queued: QueuedPod, now_us: int, why: str) -> None:
        queued.trigger = "event"
        if self._gate is not None and self._gated(queued):
            return
        if self.backoff_until_us(queued) > now_us:
            self._to_backoff(queued, "backoff", why)
        else:
            queued.place = "active"
            self._active.push(queued.uid, queued)
            self._came("active", why)

    def hold(self, uid: str) -> None:
        """Keep the pod from being tried again while its victims are being removed."""
        queued = self.pods.get(uid)
        if queued is not None:
            queued.held = True

    def release(self, uid: str, now_us: int) -> None:
        queued = self.pods.get(uid)
        if queued is None or not queued.held:
            return
        queued.held = False
        if queued.woken and queued.place == "unschedulable":
            self._wake(queued, now_us, VICTIMS_GONE)
        queued.woken = False

    # --- events ---

    def move(self, event: ClusterEvent, now_us: int) -> None:
        """Something changed in the cluster: wake the pods it can help."""
        if self._flight:
            self._events.append(event)
            if len(self._events) > MAX_IN_FLIGHT_EVENTS:
                self._events.popleft()
                self._dropped += 1
        if not self._by_plugin:
            return
        woken: dict[str, QueuedPod] = {}
        for plugin, hints in interested(event).items():
            for uid, queued in self._by_plugin.get(plugin, {}).items():
                if uid not in woken and self._check(queued, event, hints):
                    woken[uid] = queued
        if woken:
            why = event_label(event)
            for queued in woken.values():
                self._wake(queued, now_us, why)

    def _hinted(self, queued: QueuedPod, event: ClusterEvent) -> bool:
        found = interested(event)
        return any(
            plugin in found and self._check(queued, event, found[plugin]) for plugin in queued.rejected_by
        )

    def tick(self, now_us: int) -> None:
        """Let time pass: ended backoffs become active, pods that waited too long are tried again."""
        for heap in (self._backoff, self._errors):
            while (first := heap.peek()) is not None and self.backoff_until_us(first[1]) <= now_us:
                uid, queued = heap.pop()
                queued.place, queued.trigger = "active", "timer"
                self._active.push(uid, queued)
                self._came("active", BACKOFF_OVER)
        if now_us - self._flushed_us >= FLUSH_EVERY_US:
            self._flushed_us = now_us
            late = now_us - MAX_UNSCHEDULABLE_US
            for queued in [p for p in self._waiting.values() if p.timestamp_us < late]:
                self._wake(queued, now_us, TOO_LONG)

    def due_us(self) -> int | None:
        """When `tick` has something to do next; None while nothing waits for time."""
        due = [self.backoff_until_us(first[1]) for h in (self._backoff, self._errors) if (first := h.peek())]
        if self._waiting:
            due.append(self._flushed_us + FLUSH_EVERY_US)
        return min(due) if due else None


def by_priority(queued: QueuedPod) -> tuple[int, int]:
    """Higher priority first, then earlier time."""
    return -queued.priority, queued.timestamp_us
