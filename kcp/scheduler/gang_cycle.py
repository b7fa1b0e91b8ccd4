"""A gang's attempt: its pods are decided on one after the other, each counting on those before it; all or none.

    trial:  decide, count on a node, decide the next …      until minCount pods have a place, or cannot have one
    bound:  the minimum fits                                  volumes and devices of all, then one atomic batch; further
                                                              pods come after it, one by one
    room:   it fits once pods of lower priority are gone      they are evicted, the places are kept by nominations
    none:   it does not fit                                   nothing is evicted, nothing is kept, every pod waits

Only what the trial is committed to is evicted: a gang that would not fit anyway costs nobody a pod. A gang that has
waited for long may keep what it found, one gang at a time (`GangScheduling.reserves`).

Every decision of a trial is recorded, in its order, as it was taken: with the pods before it where the trial had put
them (`tried`) and without those that it had taken away (`taken`). Decisions that were not acted on are of the kind Wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import attrs

from kcp.machinery import meta
from kcp.machinery.errors import go_quote
from kcp.scheduler import profiles
from kcp.scheduler.binding import Binding
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.cycle import Answers, Decision
from kcp.scheduler.dra.binding import claims_to_bind
from kcp.scheduler.dra.claims import has_claims
from kcp.scheduler.events import Follower
from kcp.scheduler.framework.plugin import Cycle
from kcp.scheduler.framework.runtime import Framework
from kcp.scheduler.plugins.gang_scheduling import (
    MAKING_ROOM,
    NAME,
    UNPLACED,
    Committing,
    GangScheduling,
)
from kcp.scheduler.plugins.volume_binding import Provision, plans_for
from kcp.scheduler.pod_class import PodInfo
from kcp.scheduler.pre_bind import Gang
from kcp.scheduler.preemption import TERMINATING, not_eligible
from kcp.scheduler.queue import QueuedPod, SchedulingQueue
from kcp.scheduler.volumes import reserve, unreserve
from kcp.scheduler.writes import GroupStatusWrite, StatusWrite, Write, group_says

Json = dict[str, Any]
Outcome = Literal["bound", "room", "none"]


class Host(Protocol):
    """Who tries gangs: the scheduler, or somebody who asks what it would have done."""

    forgot: list[str]
    unschedulable: int
    gangs_to_prepare: list[Gang]

    @property
    def state(self) -> ClusterState: ...

    @property
    def queue(self) -> SchedulingQueue: ...

    @property
    def clock(self) -> Monotonic: ...

    @property
    def writes(self) -> Background: ...

    @property
    def follower(self) -> Follower: ...

    def framework(self, info: PodInfo) -> Framework: ...

    def decide(self, queued: QueuedPod, info: PodInfo, now_us: int) -> Decision | None: ...

    def record(
        self,
        queued: QueuedPod,
        info: PodInfo,
        decision: Decision,
        now_us: int,
        started_s: float,
        answers: Answers | None,
        extra: Json | None = None,
    ) -> int: ...

    def rejected(
        self, queued: QueuedPod, info: PodInfo, decision: Decision, number: int, now_us: int
    ) -> None: ...

    def error(self, queued: QueuedPod, pod: Json, text: str, now_us: int) -> None: ...

    def tell(self, pod: Json, reason: str, text: str, nominated: str | None, number: int) -> None: ...


class Monotonic(Protocol):
    def monotonic(self) -> float: ...


class Background(Protocol):
    def put(self, write: Write) -> None: ...


@attrs.define(eq=False)
class Member:
    """A pod of the gang in the trial. `place` is where it counts; "" before it was decided on, and where nothing fits."""

    queued: QueuedPod
    info: PodInfo
    decision: Decision | None = None
    place: str = ""
    plans: list[Provision] = attrs.field(factory=list)
    taken: list[tuple[PodInfo, str]] = attrs.field(factory=list)
    started_s: float = 0.0
    number: int = 0

    def put(self, scheduler: Host) -> None:
        """Count the pod on its place, and its victims no more."""
        state = scheduler.state
        assert self.decision is not None
        self.taken = [(victim, victim.node) for victim in self.decision.victims]
        for victim, _ in self.taken:
            state.take_from_node(victim)
        if self.decision.node:
            self.plans = plans_for(
                Cycle(state, self.info, scheduler.framework(self.info)), state.nodes[self.place]
            )
        state.assume(self.info.uid, self.place)
        state.devices.take(self.info.uid, self.decision.allocations)
        if self.plans:
            reserve(state, self.plans, self.place)

    def undo(self, scheduler: Host) -> None:
        state = scheduler.state
        if self.plans:
            unreserve(state, self.plans)
        state.forget(self.info.uid)
        for claim in self.decision.allocations if self.decision is not None else ():
            state.devices.give_back(claim)
        for victim, node in reversed(self.taken):
            state.add_to_node(victim, node)
        self.taken = []


@attrs.define(eq=False)
class Trial:
    """`missing` more pods of the gang need a place. `failed`: deciding broke down, and has been dealt with."""

    group: str
    missing: int
    members: list[Member]
    tried: list[Member] = attrs.field(factory=list)
    failed: Member | None = None

    @property
    def placed(self) -> list[Member]:
        return [member for member in self.tried if member.place]

    @property
    def rest(self) -> list[Member]:
        """Those that were not decided on."""
        tried = {member.info.uid for member in self.tried}
        return [m for m in self.members if m.info.uid not in tried and m is not self.failed]

    @property
    def outcome(self) -> Outcome:
        if len(self.placed) < self.missing:
            return "none"
        return "bound" if all(m.decision is not None and m.decision.node for m in self.placed) else "room"


def attempt(
    scheduler: Host, gangs: GangScheduling, group: str, first: QueuedPod, now_us: int
) -> list[list[Binding]]:
    """Try the gang whose pod came up. Returns bindings, each list to be committed by itself; the queue has everybody else."""
    if gangs.gate(scheduler.state.pods[first.uid].pod):
        scheduler.queue.keep_out(first)
        return []
    if any(queued.held for queued in _queued(scheduler, gangs, group)):
        scheduler.queue.back(first, (NAME,), now_us)
        return []
    members = _members(scheduler, gangs, group, first)
    missing = gangs.minimum(group) - gangs.placed(group)
    if not _one_profile(scheduler, members, now_us):
        return []
    trial = _try(scheduler, Trial(group, missing, members), now_us)
    for member in reversed(trial.placed):
        member.undo(scheduler)
    if trial.failed is not None:
        _broke_down(scheduler, trial, now_us)
        return []
    outcome = trial.outcome
    _record(scheduler, trial, outcome, now_us)
    return _ACT[outcome](scheduler, gangs, trial, now_us)


def _queued(scheduler: Host, gangs: GangScheduling, group: str) -> list[QueuedPod]:
    pods = scheduler.queue.pods
    return [pods[info.uid] for info in gangs.members(group) if info.uid in pods]


def _members(scheduler: Host, gangs: GangScheduling, group: str, first: QueuedPod) -> list[Member]:
    """Every pod of the gang that can be tried now, out of the queue, in the order in which they are decided on."""
    found = []
    for info in gangs.members(group):
        if info.uid == first.uid:
            found.append(Member(first, info))
        elif not info.node and "deletionTimestamp" not in info.pod["metadata"]:
            queued = scheduler.queue.take(info.uid)
            if queued is not None:
                found.append(Member(queued, info))
    return sorted(found, key=lambda m: (-m.info.priority, m.queued.added_us))


def _one_profile(scheduler: Host, members: Sequence[Member], now_us: int) -> bool:
    names = [m.info.pod["spec"].get("schedulerName") or profiles.DEFAULT_NAME for m in members]
    other = next((name for name in names if name != names[0]), None)
    if other is None:
        return True
    text = (
        "all pods in a single pod group should have the same .spec.schedulerName set, got: "
        f"{go_quote(names[0])} and {go_quote(other)}"
    )
    for member in members:
        scheduler.error(member.queued, member.info.pod, text, now_us)
    return False


# --- the trial ---


def _try(scheduler: Host, trial: Trial, now_us: int) -> Trial:
    """Decide until enough pods have a place, or too few can get one. Leaves the placed ones counted."""
    placed, left = 0, len(trial.members)
    state = scheduler.state
    for member in trial.members:
        if placed >= trial.missing or placed + left < trial.missing:
            break
        left -= 1
        member.started_s = member.queued.started_s = scheduler.clock.monotonic()
        state.together = frozenset(other.info.uid for other in trial.placed)
        member.decision = scheduler.decide(member.queued, member.info, now_us)
        state.together = frozenset()
        if member.decision is None:
            trial.failed = member
            break
        trial.tried.append(member)
        member.place = _place(scheduler, member)
        if member.place:
            placed += 1
            member.put(scheduler)
    return trial


def _place(scheduler: Host, member: Member) -> str:
    """Where the pod is to run: now, once its victims are gone, or once those of an earlier attempt are."""
    decision = member.decision
    assert decision is not None
    if decision.node:
        return decision.node
    if decision.victims:
        return decision.nominated or ""
    if not member.info.nominated or decision.diagnosis is None:
        return ""
    cycle = Cycle(scheduler.state, member.info, scheduler.framework(member.info))
    return member.info.nominated if not_eligible(cycle, decision.diagnosis) == TERMINATING else ""


def _broke_down(scheduler: Host, trial: Trial, now_us: int) -> None:
    assert trial.failed is not None
    text = f"failed to schedule other pod from a pod group: {trial.failed.queued.key}"
    for member in (*trial.tried, *trial.rest):
        scheduler.error(member.queued, member.info.pod, text, now_us)


def _record(scheduler: Host, trial: Trial, outcome: Outcome, now_us: int) -> None:
    """Go through the trial once more, this time for the log. Of what is bound, the pods stay counted."""
    taken: list[str] = []
    before: list[str] = []
    for member in trial.tried:
        extra: Json = {"gang": trial.group}
        if before and has_claims(member.info.pod):
            extra["together"] = list(before)
        if taken:
            extra["taken"] = list(taken)
        if outcome != "bound" and member.place:
            extra["tried"] = member.place
        acted = outcome == "bound" or (outcome == "room" and member.decision and member.decision.victims)
        assert member.decision is not None
        if not acted and (member.decision.node or member.decision.victims):
            extra["kind"] = "Wait"
        member.number = scheduler.record(
            member.queued, member.info, member.decision, now_us, member.started_s, None, extra
        )
        if member.place:
            member.put(scheduler)
            before.append(member.info.uid)
            taken += [victim.uid for victim, _ in member.taken]
    if outcome == "bound":
        return
    for member in reversed(trial.placed):
        member.undo(scheduler)
        scheduler.forgot.append(member.info.uid)


# --- what comes of it ---


def _bound(scheduler: Host, gangs: GangScheduling, trial: Trial, now_us: int) -> list[list[Binding]]:
    gangs.settled(trial.group)
    members: list[tuple[Binding, list[Provision]]] = []
    for member in trial.tried:
        assert member.decision is not None
        if not member.place:
            scheduler.rejected(member.queued, member.info, member.decision, member.number, now_us)
            continue
        claims = claims_to_bind(scheduler.state, member.info, member.place, member.decision.allocations)
        binding = Binding(member.queued, member.info.pod, member.place, member.number, trial.group, claims)
        members.append((binding, member.plans))
    bindings = [binding for binding, _ in members]
    waiting = [member.queued for member in trial.rest]
    uids = [binding.queued.uid for binding in bindings]
    gangs.committing[trial.group] = Committing(uids, waiting, _newest(trial))
    if any(plans or binding.claims for binding, plans in members):
        scheduler.gangs_to_prepare.append(members)
        return []
    return [bindings]


def go_on(scheduler: Host, gangs: GangScheduling) -> None:
    """Once a gang is in the log that is said, and pods beyond its minimum are tried; with the others again when it is not."""
    for group, under_way in list(gangs.committing.items()):
        pods = [scheduler.queue.pods.get(uid) for uid in under_way.uids]
        if any(queued is not None and queued.place == "flight" for queued in pods):
            continue
        del gangs.committing[group]
        if gangs.placed(group) >= gangs.minimum(group) > 0:
            _tell_group(scheduler, gangs, group, under_way.decision, "Scheduled", "")
        for queued in under_way.waiting:
            scheduler.queue.keep_out(queued)


def _room(scheduler: Host, gangs: GangScheduling, trial: Trial, now_us: int) -> list[list[Binding]]:
    for member in trial.tried:
        assert member.decision is not None
        if member.decision.victims or not member.place:
            scheduler.rejected(member.queued, member.info, member.decision, member.number, now_us)
        elif not member.decision.node:
            scheduler.state.nominate(member.info.uid, member.place)
            scheduler.rejected(member.queued, member.info, member.decision, member.number, now_us)
        else:
            _wait(scheduler, member, MAKING_ROOM, member.place, now_us)
    for member in trial.rest:
        _wait(scheduler, member, MAKING_ROOM, None, now_us)
    _tell_group(scheduler, gangs, trial.group, _newest(trial), "Unschedulable", MAKING_ROOM)
    return []


def _none(scheduler: Host, gangs: GangScheduling, trial: Trial, now_us: int) -> list[list[Binding]]:
    oldest = min(member.queued.added_us for member in trial.members)
    keeps = gangs.reserves(trial.group, oldest, now_us)
    for member in trial.tried:
        assert member.decision is not None
        if member.place:
            _wait(scheduler, member, UNPLACED, member.place if keeps else _no_more(member), now_us)
        else:
            scheduler.rejected(member.queued, member.info, member.decision, member.number, now_us)
    for member in trial.rest:
        _wait(scheduler, member, UNPLACED, None if keeps else _no_more(member), now_us)
    scheduled, left = gangs.placed(trial.group) + len(trial.placed), len(trial.rest)
    text = f"minCount ({gangs.minimum(trial.group)}) cannot be satisfied: {scheduled} scheduled, {left} remaining"
    _tell_group(scheduler, gangs, trial.group, _newest(trial), "Unschedulable", text)
    return []


_ACT = {"bound": _bound, "room": _room, "none": _none}


def _no_more(member: Member) -> str | None:
    """Withdraws a nomination, if there is one."""
    return "" if member.info.nominated else None


def _wait(scheduler: Host, member: Member, text: str, nominated: str | None, now_us: int) -> None:
    """Back into the queue, to be taken along when another pod of the gang comes up."""
    scheduler.unschedulable += 1
    if nominated:
        scheduler.state.nominate(member.info.uid, nominated)
    elif nominated is not None:
        _withdraw(scheduler, member.info)
    scheduler.queue.back(member.queued, (NAME,), now_us)
    scheduler.tell(member.info.pod, "Unschedulable", text, nominated, member.number)


def end_reservation(scheduler: Host, gangs: GangScheduling, now_us: int) -> None:
    """Give back the room that was kept for a gang."""
    for info in gangs.end_reservation(now_us):
        _withdraw(scheduler, info)
        scheduler.writes.put(StatusWrite(info.pod, "", "", "", 0))


def _withdraw(scheduler: Host, info: PodInfo) -> None:
    """The room that was kept for the pod is there for others, who are told so."""
    node = info.nominated
    scheduler.state.nominate(info.uid, "")
    if node:
        scheduler.follower.unassumed(info.pod, node)


def _newest(trial: Trial) -> int:
    return max((member.number for member in trial.tried), default=0)


def _tell_group(
    scheduler: Host, gangs: GangScheduling, group: str, decision: int, reason: str, message: str
) -> None:
    obj = gangs.object(group)
    if obj is None:
        return
    write = GroupStatusWrite(obj, reason, message, decision)
    if not group_says(obj, write):
        scheduler.writes.put(write)


def preemptor_of(gangs: GangScheduling, pod: Json) -> str:
    """Who evicts for the pod, as the victim's Event says it; "" for the pod itself."""
    group = gangs.group(meta.uid(pod))
    found = gangs.object(group) if group else None
    return f"podgroup {meta.uid(found)}" if found is not None else ""
