"""What came from outside in a recorded log, and what of it only chance had decided: what a second run has to be given.

    given = read(reader)
    given.asked        requests of users and of programs that are no part of the control plane, in order
    given.names        what generated names were given out, by what they begin with
    given.nodes        machines that came, fell silent, came back and went
    given.lives        when the control plane ran, and what its scheduler threw

A log has events, not requests: what was asked follows from who changed what. Controllers, the scheduler, the API server and
kubelets are run again; everybody else is outside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from kcp.api.own_writes import IDENTITY
from kcp.base.values import frozen
from kcp.controllers.node_lifecycle.controller import GRACE_S
from kcp.controllers.table import CONTROLLERS, OFF_BY_DEFAULT
from kcp.controlplane.cluster import CONTROLLER_MANAGER, SCHEDULER, SIMULATED_NODES
from kcp.replay.incident import IDS_PER_RUN, Positions
from kcp.replay.machines import KUBELET, Machines, Step, boot_id, is_kubelet, node_spec, ready_status
from kcp.replay.pace import Pace, Sights
from kcp.replay.scheduling import CONTROLLER_NAMES
from kcp.store.protocol import SYSTEM, Actor, Decision, Event, Input, Key, Op, Record
from kcp.store.reader import LogReader
from kcp.store.redaction import is_purged

Json = dict[str, Any]
COMPANIONS = frozenset({"resourcequotas", "ipaddresses.networking.k8s.io", "poddisruptionbudgets.policy"})
"""Written by the API server beside what was asked for, under the name of who asked."""
STEP_US, STEP_OFF_US = 1_000, 10
"""What a decision of a simulation takes is whole milliseconds, within so many microseconds; of others one in fifty does."""
ENOUGH, QUICK, MAX_LATENCY_US = 1000, 10, 250_000
"""Of so many writes the one is taken that a tenth are quicker than."""
USERNAMES = {controller.name: controller.username for controller in (*CONTROLLERS, *OFF_BY_DEFAULT)}
INSIDE = frozenset(
    {*USERNAMES.values()}
    | {CONTROLLER_MANAGER.name, SCHEDULER.name, SIMULATED_NODES.name, IDENTITY.name, SYSTEM.username}
)


@frozen
class Asked:
    """One object's part in a request: `before` and `after` are its states, None where there was none."""

    rv: int
    ts_us: int
    actor: Actor
    key: Key
    before: Json | None
    after: Json | None

    @property
    def last(self) -> Json:
        found = self.after if self.after is not None else self.before
        assert found is not None, "a change has at least one side"
        return found


@frozen
class Cycles:
    """The scheduler's dice: the seed, and the numbers of the cycles in which each pod had its turns.

    The number of a cycle decides between equal nodes, so a pod that has its recorded number is put where it was put as long
    as the choice is the same.
    """

    seed: int
    numbers: dict[str, list[int]] = attrs.field(factory=dict)
    """By namespace/name; used up."""
    last: int = 0

    def number(self, key: str, attempts: int) -> int:
        """Of the next turn of a pod; beyond the recorded ones the count of attempts goes on behind them."""
        left = self.numbers.get(key)
        return left.pop(0) if left else self.last + attempts


@frozen
class Life:
    """The control plane ran from `start_us` to `end_us`; `started` is what its start said of itself."""

    start_us: int
    end_us: int
    started: Json
    cycles: Cycles | None = None


@attrs.define
class Outside:
    """Everything that a second run of a log is given. `untold` counts requests whose body the log does not have."""

    start_us: int = 0
    end_us: int = 0
    asked: list[Asked] = attrs.field(factory=list)
    names: dict[tuple[str, str, str], list[str]] = attrs.field(factory=dict)
    """(resource, namespace, generateName) -> names, in the order in which they were given."""
    uids: dict[str, Key] = attrs.field(factory=dict)
    machines: Machines = attrs.field(factory=Machines)
    lives: list[Life] = attrs.field(factory=list)
    pace: Pace = attrs.field(factory=Pace)
    latency_us: int = 0
    untold: int = 0
    events: int = 0


def read(reader: LogReader, until: int | None = None) -> Outside:
    """One pass over the log, up to a revision."""
    outside = Outside()
    told = _Decided(outside.pace)
    for _, decision in reader.decisions():
        told.see(decision)
    if told.in_no_time:
        outside.pace = Pace()
    sights = Sights() if told.in_no_time else told.sights()
    outside.latency_us = told.latency_us
    for record in reader.base():
        outside.uids[record.uid] = record.key
        if record.key.resource == "nodes" and not is_purged(record.value):
            outside.machines.present[record.key.name] = node_spec(record.value)
        elif record.key.resource == "pods" and not is_purged(record.value):
            outside.machines.lifetimes.see(record.value)
    request: list[Event] = []
    marks = _Marks(reader)
    for event in reader.events(until=until):
        if outside.start_us == 0:
            outside.start_us = event.ts_us
        outside.end_us = max(outside.end_us, event.ts_us)
        outside.events += 1
        marks.see(event)
        _note(outside, event)
        if request and (not _outside(event) or event.cause.request_id != request[0].cause.request_id):
            outside.asked += _asked(outside, request, sights)
            request = []
        if _outside(event):
            request.append(event)
        elif not told.in_no_time:
            outside.pace.see(event, sights.since_us(event))
    outside.asked += _asked(outside, request, sights)
    outside.pace.in_order()
    if outside.start_us:
        outside.lives = marks.lives(outside.start_us, outside.end_us, told.cycles)
    return outside


def _outside(event: Event) -> bool:
    """Whether somebody who is not run again did it."""
    name = event.cause.actor.username
    return event.op is not Op.RENEWED and name not in INSIDE and not is_kubelet(name)


def _note(outside: Outside, event: Event) -> None:
    """What chance had decided, and what machines did."""
    key, machines = event.key, outside.machines
    if is_kubelet(event.cause.actor.username) and not (key.resource == "nodes" and event.op is Op.ADDED):
        machines.heard_of(event.cause.actor.username.removeprefix(KUBELET), event.ts_us)
    if event.op is Op.ADDED:
        outside.uids[event.record.uid] = key
        _note_name(outside, event)
    if key.resource == "nodes":
        _note_node(machines, event)
    elif key.resource == "pods" and not is_purged(event.record.value):
        machines.lifetimes.see(event.record.value)
        machines.ears.see_pod(event)


def _note_name(outside: Outside, event: Event) -> None:
    if _outside(event):
        return
    base = (event.record.value.get("metadata") or {}).get("generateName")
    if base:
        place = (event.key.resource, event.key.namespace, base)
        outside.names.setdefault(place, []).append(event.key.name)


def _note_node(machines: Machines, event: Event) -> None:
    name, by_kubelet = event.key.name, is_kubelet(event.cause.actor.username)
    if is_purged(event.record.value):
        return
    if event.op is Op.DELETED:
        machines.note_gone(event.ts_us, event.rv, name)
    elif event.op is Op.ADDED:
        if by_kubelet:
            machines.steps.append(Step(event.ts_us, event.rv, "new", name, node_spec(event.record.value)))
    elif event.previous is not None:
        _note_report(machines, event, event.previous.value, by_kubelet)


def _note_report(machines: Machines, event: Event, before: Json, by_kubelet: bool) -> None:
    """What a change of a Node tells of its machine."""
    after, name = event.record.value, event.key.name
    was, is_ = ready_status(before), ready_status(after)
    rebooted = by_kubelet and boot_id(before) != boot_id(after)
    if is_ == "Unknown" and was != "Unknown":
        silent_us = machines.ears.silent_since_us(name, event.ts_us - round(GRACE_S * 1e6))
        machines.steps.append(Step(silent_us, event.rv, "silent", name))
        return
    if rebooted:
        machines.note_reboot(event.ts_us, event.rv, name)
    if by_kubelet and (rebooted or was == "Unknown") and is_ != "Unknown":
        machines.steps.append(Step(event.ts_us, event.rv, "back", name))


def _asked(outside: Outside, events: Sequence[Event], sights: Sights) -> Iterator[Asked]:
    """What one request asked for, a part per object; what the API server wrote beside it is left out."""
    wanted = [event for event in events if event.key.resource not in COMPANIONS] or events
    parts: dict[tuple[Key, str], list[Event]] = {}
    for event in wanted:
        parts.setdefault((event.key, event.record.uid), []).append(event)
    for (key, _), own in parts.items():
        before = None if own[0].op is Op.ADDED else _value(own[0].previous)
        after = None if own[-1].op is Op.DELETED else own[-1].record.value
        if own[0].op is not Op.ADDED and before is None and after is None:
            before = own[-1].record.value
        if any(side is not None and is_purged(side) for side in (before, after)):
            outside.untold += 1
            continue
        yield Asked(own[0].rv, sights.since_us(own[0]), own[0].cause.actor, key, before, after)


def _value(record: Record | None) -> Json | None:
    return None if record is None else record.value


@attrs.define
class _Marks:
    """Where the control plane was started again, in time: between the last event before and the first one after."""

    reader: LogReader
    _starts: list[tuple[int, Json]] = attrs.field(init=False)
    _gaps: list[tuple[int, int, Json]] = attrs.field(factory=list)
    _first: Json = attrs.field(factory=dict)
    _at: int = 0
    _stopped_us: int = 0
    """The last event that was not the API server's own."""
    _starting_us: int = 0
    """Since when the API server has been alone: it makes what is missing before anybody else starts."""

    def __attrs_post_init__(self) -> None:
        self._starts = _starts(self.reader.inputs("start"))
        if self._starts:
            self._first, self._at = self._starts[0][1], 1

    def see(self, event: Event) -> None:
        while self._at < len(self._starts) and event.rv > self._starts[self._at][0]:
            begun_us = self._starting_us or event.ts_us
            self._gaps.append((self._stopped_us or begun_us, begun_us, self._starts[self._at][1]))
            self._at += 1
        if event.cause.actor.username != IDENTITY.name:
            self._stopped_us, self._starting_us = event.ts_us, 0
        elif not self._starting_us:
            self._starting_us = event.ts_us

    def lives(self, start_us: int, end_us: int, cycles: Mapping[int, Cycles]) -> list[Life]:
        found, started = [], self._first
        for stopped_us, again_us, next_ in self._gaps:
            found.append(Life(start_us, stopped_us, started))
            start_us, started = again_us, next_
        found.append(Life(start_us, end_us, started))
        first = next(iter(cycles), 0)
        return [attrs.evolve(life, cycles=cycles.get(life.started.get("epoch", first))) for life in found]


def _starts(inputs: Iterator[tuple[int, int, Input]]) -> list[tuple[int, Json]]:
    """(revision, what it said) per start; a start that says more than one thing is one."""
    found: dict[int, tuple[int, Json]] = {}
    for rv, _, given in inputs:
        epoch = given.payload["epoch"]
        first, known = found.get(epoch, (rv, {}))
        found[epoch] = (first, {**known, **given.payload})
    return list(found.values())


@attrs.define
class _Decided:
    """What the decisions of a log tell, in one pass."""

    pace: Pace
    cycles: dict[int, Cycles] = attrs.field(factory=dict)
    """By epoch, in their order."""
    _timed: int = 0
    _in_steps: int = 0
    _took_us: list[int] = attrs.field(factory=list)
    _positions: dict[str, Positions] = attrs.field(factory=dict)
    _began_us: dict[int, int] = attrs.field(factory=dict)

    def see(self, decision: Decision) -> None:
        self._positions.setdefault(decision.controller, Positions()).add(decision.id, decision.frontier)
        self._began_us[decision.id] = decision.now_us
        if decision.controller not in CONTROLLER_NAMES:
            self._note_cycles(decision)
            return
        if decision.duration_us:
            self._timed += 1
            self._in_steps += (
                abs((decision.duration_us + STEP_US // 2) % STEP_US - STEP_US // 2) <= STEP_OFF_US
            )
        self.pace.decided(decision, USERNAMES[decision.controller])
        writes = sum(1 for effect in decision.effects if effect.get("rv"))
        if writes and decision.duration_us and len(self._took_us) < ENOUGH:
            self._took_us.append(decision.duration_us // writes)

    @property
    def in_no_time(self) -> bool:
        """Whether time went in steps, as it does in a simulation, where only waiting takes any."""
        return self._in_steps * 10 >= self._timed * 9

    def sights(self) -> Sights:
        found = Sights()
        for positions in self._positions.values():
            for number in positions.placed:
                found.see(self._began_us[number], positions.frontier(number))
        return found

    @property
    def latency_us(self) -> int:
        """What a write took a component when it was quick; 0 when no decision tells it.

        People act on what they see: a second run must not be later with it than the first one was.
        """
        took = sorted(self._took_us)
        return min(took[len(took) // QUICK], MAX_LATENCY_US) if took else 0

    def _note_cycles(self, decision: Decision) -> None:
        for told in decision.effects:
            if "seed" not in told or "cycle" not in told:
                continue
            epoch = decision.id // IDS_PER_RUN
            cycles = self.cycles.get(epoch) or Cycles(told["seed"])
            cycles.numbers.setdefault(decision.key, []).append(told["cycle"])
            self.cycles[epoch] = attrs.evolve(cycles, last=max(cycles.last, told["cycle"]))
