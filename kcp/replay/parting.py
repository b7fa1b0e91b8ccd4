"""Where two runs part that were the same until then: the event, and the decision behind it with its causes.

Both runs are made on the deterministic loop from the same requests, so what differs follows from what was changed alone. The first
event that only one of them has says where; that others come in another order, or a moment later, is no news.
"""

from __future__ import annotations

from typing import Any

from kcp.base.clock import moment
from kcp.base.values import frozen
from kcp.controllers.table import CONTROLLERS, OFF_BY_DEFAULT
from kcp.replay import compare
from kcp.replay.equality import Difference, first_difference, without_counterpart
from kcp.replay.incident import IDS_PER_RUN, Incident
from kcp.store.protocol import Decision, Event
from kcp.store.reader import LogReader

Json = dict[str, Any]
NAMES = frozenset(controller.name for controller in (*CONTROLLERS, *OFF_BY_DEFAULT))
PLACED = ("feasible", "ties", "total", "text")
"""What a line about a scheduling decision says, besides the node."""


@frozen
class Parting:
    """The first event of each run that the other one does not have; both None when only the order is another one.

    `first` is the earlier one, `by_one` says in which run; `one` and `other` are the decisions about it, as far as there are any.
    """

    events: Difference
    first: Event | None = None
    by_one: bool = True
    one: Decision | None = None
    other: Decision | None = None


def parting(one: LogReader, other: LogReader) -> Parting | None:
    """None for runs that are the same."""
    if first_difference(one, other) is None:
        return None
    events = without_counterpart(one, other)
    a, b = events.one, events.other
    first, by_one = (b, False) if a is None or (b is not None and b.ts_us < a.ts_us) else (a, True)
    if first is None or first.cause.decision_id is None:
        return Parting(events, first, by_one)
    own, its = (one, other) if by_one else (other, one)
    decision = next(iter(own.decisions_between(first.cause.decision_id, first.cause.decision_id)), None)
    twin = None if decision is None else _twin(decision, its)
    return Parting(events, first, by_one, *((decision, twin) if by_one else (twin, decision)))


def _twin(decision: Decision, reader: LogReader) -> Decision | None:
    """What the other run decided about the same key at the same moment."""
    about = (decision.key, decision.now_us)
    life = decision.id // IDS_PER_RUN * IDS_PER_RUN
    found = reader.decisions_between(life, life + IDS_PER_RUN - 1, decision.controller)
    return next((each for each in found if (each.key, each.now_us) == about), None)


# --- for people ---


def told(found: Parting, one: Incident, other: Incident, names: tuple[str, str]) -> list[str]:
    """Lines; `names` are those of the two runs."""
    if found.first is None:
        return ["both runs do the same, some of it in another order or at other moments"]
    lines = [f"first divergence at {_time(found.first.ts_us)}"]
    width = max(map(len, names))
    for name, event in zip(names, (found.events.one, found.events.other), strict=True):
        lines.append(f"  {name.ljust(width)}  {_event(event)}")
    decision, incident = (found.one, one) if found.by_one else (found.other, other)
    if decision is None:
        return lines
    lines += ["", f"  decision {decision.id} of {decision.controller}"]
    try:
        _, frontier = incident.decision(decision.id)
        lines += [f"  {line}" for line in compare.about(incident, decision, frontier)]
    except KeyError:
        lines.append(f"  key       {decision.key}")
    return [*lines, "", *compare.side_by_side(_effects(found.one), _effects(found.other), names)]


def _effects(decision: Decision | None) -> list[str]:
    if decision is None:
        return ["(nothing was decided)"]
    if decision.controller not in NAMES:
        return [line for effect in decision.effects for line in compare.effect_lines(_placed(effect))]
    return [line for effect in decision.effects for line in compare.effect_lines(effect)]


def _placed(effect: Json) -> Json:
    said = {name: effect[name] for name in PLACED if effect.get(name) not in (None, "")}
    return {"kind": effect["kind"], "name": effect.get("node", ""), "args": said}


def _event(event: Event | None) -> str:
    if event is None:
        return "has nothing that the other one has not"
    via = f" (decision {event.cause.decision_id})" if event.cause.decision_id else ""
    return f"rv {event.rv} {event.op.name} {event.key} by {event.cause.actor.username}{via}"


def _time(ts_us: int) -> str:
    return moment(ts_us).isoformat().replace("+00:00", "Z")
