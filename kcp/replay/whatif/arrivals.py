"""A log as what comes to a scheduler from outside: nodes and pods that come, change and go, and when it was tried.

    arrivals = read_arrivals(incident)
    arrivals.base                # objects at the start
    arrivals.items               # Change and Attempt in the order in which the scheduler met them
    arrivals.lives[uid]          # what became of each pod

The order is the recorded one: an attempt stands behind every change that its frontier had, before every other. Versions that
no decision can tell from the one before are left out, and of pods what no decision looks at, so that a day of a cluster fits
into memory. One reading serves any number of what-ifs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from kcp.apis.semantics import pods as pod_facts
from kcp.base.values import frozen
from kcp.machinery import meta
from kcp.replay.cursor import cache_key
from kcp.replay.incident import Incident
from kcp.replay.scheduling import Placed, scheduling_rows
from kcp.scheduler.preemption import is_being_preempted
from kcp.scheduler.profiles import DEFAULT_NAME
from kcp.scheduler.remake import WATCHED
from kcp.store.protocol import Decision, Event, Op
from kcp.store.redaction import is_purged

Json = dict[str, Any]
NODE_LOSS_ACTORS = frozenset(
    f"system:serviceaccount:kube-system:{name}" for name in ("node-controller", "pod-garbage-collector")
)
"""Who deletes pods since something happened to their node."""
_RESIZED = ("resources", "allocatedResources")
_STATUS = (
    "phase",
    "startTime",
    "nominatedNodeName",
    "conditions",
    "resourceClaimStatuses",
    "extendedResourceClaimStatus",
)
_WATCHED = frozenset(WATCHED)
LOOK_BACK = 2000
"""A decision is written before so many others have been taken."""
_ONLY_SPEC = frozenset({"services", "replicationcontrollers", "replicasets.apps", "statefulsets.apps"})


@frozen
class Change:
    """An object of the log came (`old` None), changed, or went (`new` None)."""

    rv: int
    ts_us: int
    resource: str
    old: Json | None
    new: Json | None

    @property
    def object(self) -> Json:
        found = self.new if self.new is not None else self.old
        assert found is not None
        return found


@frozen
class Attempt:
    """A recorded decision about a pod; `effect` is its only one."""

    decision: Decision
    rv: int

    @property
    def effect(self) -> Json:
        return self.decision.effects[0]

    @property
    def ts_us(self) -> int:
        return self.decision.now_us


Item = Change | Attempt


@attrs.define(eq=False, slots=True)
class Life:
    """What the log tells of one pod. Times in µs, -1: it did not happen (or before the log began).

    `ended` is when it was over by itself, Succeeded or Failed before anybody deleted it. `decided` says whether it has recorded decisions. `lost_to` is why it went
    if it was not deleted on its own account: "preemption", or "node" for what befell its node; its controller makes another
    one then, whose `replaces` is this pod's uid.
    """

    uid: str
    key: str
    scheduler: str
    owner: str
    created_us: int = -1
    bound_us: int = -1
    node: str = ""
    ended_us: int = -1
    deleted_us: int = -1
    decided: bool = False
    lost_to: str = ""
    replaces: str = ""

    @property
    def run_us(self) -> int:
        """How long it ran until it was over by itself, -1 if it was not."""
        return self.ended_us - self.bound_us if self.ended_us >= 0 and self.bound_us >= 0 else -1


@attrs.frozen(eq=False)
class Arrivals:
    """`schedulers` took decisions in this log; a log without any (an imported one) tells only where pods were bound.

    `base` has the objects at the start, by resource; `assumed` (uid -> node) what was decided then and not written yet.
    """

    base: Sequence[tuple[str, Json]]
    assumed: dict[str, str]
    items: Sequence[Item]
    lives: dict[str, Life]
    first_rv: int
    last_rv: int
    start_us: int
    end_us: int
    schedulers: frozenset[str]
    grace_us: int

    @property
    def attempts(self) -> int:
        return sum(isinstance(item, Attempt) for item in self.items)


def read_arrivals(
    incident: Incident, first: int | None = None, last: int | None = None, *, whole: bool = False
) -> Arrivals:
    """The part of a log between two revisions; by default all of it. `whole`: leave nothing out, for plugins that may look at anything."""
    log = incident.log
    start = log.first_rv if first is None else max(first, log.first_rv)
    end = log.last_rv if last is None else min(last, log.last_rv)
    reading = _Reading(whole)
    base = [(resource, obj) for resource in WATCHED for obj in _state(incident, resource, start)]
    base = [(resource, reading.first(resource, obj)) for resource, obj in base]
    every = scheduling_rows(incident)
    rows = [row for row in every if start <= max(row[1].values()) <= end]
    reading.evicted = _evictions(rows) if rows else None
    items = list(_in_order(rows, reading.changes(log.events(start, end))))
    for item in items:
        if isinstance(item, Attempt):
            reading.decided(item)
    times = [item.ts_us for item in items]
    return Arrivals(
        base,
        _assumed([row for row in every if max(row[1].values()) < start], base),
        items,
        reading.lives,
        start,
        end,
        min(times, default=0),
        max(times, default=0),
        frozenset(decision.controller for decision, _ in rows),
        reading.median_grace_us(),
    )


def _state(incident: Incident, resource: str, rv: int) -> list[Json]:
    fold = incident.log.fold(resource)
    fold.move_to(rv)
    return list(fold.indexer)


def _assumed(rows: Sequence[Placed], base: Sequence[tuple[str, Json]]) -> dict[str, str]:
    waiting = {
        meta.uid(obj) for resource, obj in base if resource == "pods" and not pod_facts.is_assigned(obj)
    }
    found: dict[str, str] = {}
    for decision, _ in rows[-LOOK_BACK:]:
        effect = decision.effects[0]
        for uid in effect.get("forgot") or ():
            found.pop(uid, None)
        if effect["kind"] == "Bind" and effect["uid"] in waiting:
            found[effect["uid"]] = effect["node"]
    return found


def _evictions(rows: Sequence[Placed]) -> frozenset[str]:
    return frozenset(
        victim["uid"] for decision, _ in rows for victim in decision.effects[0].get("victims") or ()
    )


def _in_order(rows: Sequence[Placed], changes: Iterator[Change]) -> Iterator[Item]:
    """Each decision behind what it had seen; what it had not seen yet waits for a later one."""
    waiting: deque[Change] = deque()
    ahead = next(changes, None)
    for decision, frontier in rows:
        reach = max(frontier.values())
        while ahead is not None and ahead.rv <= reach:
            waiting.append(ahead)
            ahead = next(changes, None)
        unseen: deque[Change] = deque()
        for change in waiting:
            if change.rv <= frontier.get(change.resource, reach):
                yield change
            else:
                unseen.append(change)
        waiting = unseen
        yield Attempt(decision, reach)
    yield from waiting
    if ahead is not None:
        yield ahead
    yield from changes


class _Reading:
    """Pairs versions, leaves out what makes no difference, and notes what becomes of each pod."""

    def __init__(self, whole: bool) -> None:
        self.lives: dict[str, Life] = {}
        self.evicted: frozenset[str] | None = frozenset()
        """Victims of the recorded decisions; None: there are none, so that only the pods tell."""
        self._whole = whole
        self._known: dict[tuple[str, str], Json] = {}
        self._to_replace: dict[str, deque[str]] = {}
        self._terminating_us: dict[str, int] = {}
        self._graces_us: list[int] = []

    def first(self, resource: str, obj: Json) -> Json:
        """An object of the base."""
        key = meta.key_of(obj)
        kept = self._known[(resource, key)] = self._kept(resource, obj)
        if resource == "pods":
            self._live(kept, -1)
        return kept

    def changes(self, events: Iterator[Event]) -> Iterator[Change]:
        for event in events:
            resource = event.key.resource
            if resource not in _WATCHED:
                continue
            place = resource, cache_key(event.record)
            old = self._known.get(place)
            gone = event.op is Op.DELETED or is_purged(event.record.value)
            new = None if gone else self._kept(resource, event.record.value)
            if old is None and new is None:
                continue
            if old is not None and new is not None:
                if meta.uid(old) != meta.uid(new):
                    yield self._change(event, resource, old, None)
                    old = None
                elif self._same(resource, old, new):
                    continue
            if new is None:
                del self._known[place]
            else:
                self._known[place] = new
            yield self._change(event, resource, old, new)

    def _change(self, event: Event, resource: str, old: Json | None, new: Json | None) -> Change:
        if resource == "pods":
            self._follow(event, old, new)
        return Change(event.rv, event.ts_us, resource, old, new)

    def _kept(self, resource: str, obj: Json) -> Json:
        return trimmed(obj) if resource == "pods" and not self._whole else obj

    def _same(self, resource: str, old: Json, new: Json) -> bool:
        """Whether deciding cannot tell the two versions apart."""
        if self._whole:
            return False
        if resource == "pods":
            return _pod_facts(old) == _pod_facts(new)
        if resource == "nodes":
            return _node_facts(old) == _node_facts(new)
        ignored = ("metadata", "status") if resource in _ONLY_SPEC else ("metadata",)
        return _about(old) == _about(new) and _without(old, ignored) == _without(new, ignored)

    # --- what becomes of pods ---

    def _follow(self, event: Event, old: Json | None, new: Json | None) -> None:
        obj, now_us = (new if new is not None else old) or {}, event.ts_us
        uid = meta.uid(obj)
        life = self._live(obj, now_us) if old is None else self.lives[uid]
        if new is None:
            life.deleted_us = now_us
            self._lost(life, obj, event)
            if uid in self._terminating_us:
                self._graces_us.append(now_us - self._terminating_us[uid])
            return
        if not life.node and pod_facts.is_assigned(new):
            life.node = pod_facts.node_name(new)
            life.bound_us = now_us
        if life.ended_us < 0 and pod_facts.is_terminal(new) and uid not in self._terminating_us:
            life.ended_us = now_us
        if "deletionTimestamp" in new["metadata"] and uid not in self._terminating_us:
            self._terminating_us[uid] = now_us
            self._lost(life, new, event)

    def _live(self, pod: Json, now_us: int) -> Life:
        owner = meta.controller_of(pod)
        scheduler = pod["spec"].get("schedulerName") or DEFAULT_NAME
        owned_by = str(owner["uid"]) if owner is not None else ""
        life = Life(
            meta.uid(pod), meta.key_of(pod), scheduler, owned_by, now_us, node=pod_facts.node_name(pod)
        )
        self.lives[life.uid] = life
        waiting = self._to_replace.get(life.owner)
        if waiting and life.owner:
            life.replaces = waiting.popleft()
        return life

    def _lost(self, life: Life, pod: Json, event: Event) -> None:
        """Whether it goes for another reason than its own."""
        if life.lost_to or life.ended_us >= 0:
            return
        if is_being_preempted(pod) if self.evicted is None else life.uid in self.evicted:
            life.lost_to = "preemption"
        elif event.cause.actor.username in NODE_LOSS_ACTORS:
            life.lost_to = "node"
        if life.lost_to and life.owner:
            self._to_replace.setdefault(life.owner, deque()).append(life.uid)

    def decided(self, attempt: Attempt) -> None:
        life = self.lives.get(attempt.effect["uid"])
        if life is None:
            return
        life.decided = True
        if attempt.effect["kind"] == "Bind" and attempt.effect["node"] == life.node:
            life.bound_us = attempt.ts_us

    def median_grace_us(self) -> int:
        """How long a deleted pod takes to go, in the middle of all that did."""
        times = sorted(self._graces_us)
        return times[len(times) // 2] if times else 0


def trimmed(pod: Json) -> Json:
    """What decisions look at; the amounts of containers only where they differ from the spec's."""
    metadata = {key: value for key, value in pod["metadata"].items() if key != "managedFields"}
    given = pod.get("status") or {}
    status = {key: given[key] for key in _STATUS if key in given}
    containers = given.get("containerStatuses")
    if containers and any(field in entry for entry in containers for field in _RESIZED):
        status["containerStatuses"] = [
            {key: entry[key] for key in ("name", *_RESIZED) if key in entry} for entry in containers
        ]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod["spec"], "status": status}


def _pod_facts(pod: Json) -> tuple[Any, ...]:
    status = pod["status"]
    return (
        pod["spec"],
        pod_facts.is_terminal(pod),
        _about(pod),
        [
            status.get(field)
            for field in (
                "startTime",
                "nominatedNodeName",
                "containerStatuses",
                "resourceClaimStatuses",
                "extendedResourceClaimStatus",
            )
        ],
        is_being_preempted(pod),
        (meta.condition(pod, "PodResizePending") or {}).get("reason"),
    )


def _node_facts(node: Json) -> tuple[Any, ...]:
    status = node.get("status") or {}
    told = [status.get(field) for field in ("allocatable", "capacity", "images", "declaredFeatures")]
    return node.get("spec"), _about(node), told


def _without(obj: Json, fields: Sequence[str]) -> Json:
    return {key: value for key, value in obj.items() if key not in fields}


def _about(obj: Json) -> tuple[Any, ...]:
    metadata = obj["metadata"]
    return (
        metadata.get("labels"), metadata.get("annotations"), metadata.get("ownerReferences"),
        "deletionTimestamp" in metadata,
    )  # fmt: skip
