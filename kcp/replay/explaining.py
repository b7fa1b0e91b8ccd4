"""Why a pod is where it is, or nowhere: its last scheduling decision taken apart, from the log alone.

    with Incident.open(file) as incident:
        found = explain_pod(incident, "default/web")

The state is the one the scheduler decided on: the objects at the recorded frontier and what it had assumed by then. It does
not matter whether the pod, the nodes or the cluster still exist.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from kcp.apis.semantics.pods import is_terminal
from kcp.base.clock import microseconds
from kcp.base.values import frozen
from kcp.machinery import meta
from kcp.replay.incident import Incident
from kcp.replay.scheduling import Placed, Profiles, scheduling_rows
from kcp.scheduler.cycle import Answers
from kcp.scheduler.explain import Draw, Explanation, NodeVerdict, explain
from kcp.scheduler.pod_class import PodInfo
from kcp.scheduler.profiles import Profile
from kcp.scheduler.remake import WATCHED, Remaker
from kcp.store.protocol import Decision

Json = dict[str, Any]


class NothingToExplain(ValueError):
    """Raised when the log has no such pod or node at that moment; the text is for people."""


@frozen
class Explained:
    """A pod on all nodes of a moment.

    `decision` is the recorded one, None when the log has none for this pod until then; its only effect is `recorded`.
    `agrees` tells whether deciding again gives the same. `rv` is the newest revision that the state has. `node` is where
    the pod ran at that moment, `nominated` where it was to run, "" for nowhere. While the pod has `gates`, nobody decides;
    nor while a plugin of the scheduler keeps it out of the queue, which `kept_out` tells in the words of the pod's condition.
    """

    rv: int
    decision: Decision | None
    agrees: bool
    node: str
    nominated: str
    gates: tuple[str, ...]
    explanation: Explanation
    kept_out: str = ""

    @property
    def pod(self) -> str:
        return self.explanation.pod

    @property
    def recorded(self) -> Json | None:
        return self.decision.effects[0] if self.decision is not None else None

    @property
    def chosen(self) -> str:
        """The node that the decision took; "" for none."""
        return str((self.recorded or {}).get("node", ""))

    @property
    def ranked(self) -> list[NodeVerdict]:
        """The chosen node, then the best totals; nodes that refuse the pod come last, each by name."""
        return sorted(
            self.explanation.nodes,
            key=lambda v: (v.node != self.chosen, not v.feasible, -(v.total or 0), v.node),
        )

    def on(self, node: str) -> NodeVerdict:
        """Raises NothingToExplain."""
        for verdict in self.explanation.nodes:
            if verdict.node == node:
                return verdict
        raise NothingToExplain(f'node "{node}" is not there at revision {self.rv}')


def explain_pod(
    incident: Incident,
    key: str,
    *,
    at: int | datetime | None = None,
    profile: Profile | None = None,
) -> Explained:
    """Explain the newest decision about the pod `namespace/name`, or the newest one not after `at`.

    It is taken apart by the profile that took it, or by `profile` if one is given. A decision is not after a revision when it had seen nothing newer. A pod that nobody decided about is asked for on the
    state of that moment, or of the last one in which it was there and had not ended. Raises NothingToExplain.
    """
    again = Remaker(profile)
    move = _mover(incident, again)
    placed = scheduling_rows(incident)
    index = _newest(placed, key, at)
    if index is None:
        return _on_the_state(incident, again, move, key, at)
    again.use(profile or Profiles(incident).of(placed[index][0]))
    return _of_the_decision(again, move, placed[_whole_before(placed, index) : index + 1])


def _mover(incident: Incident, again: Remaker) -> Callable[[dict[str, int]], None]:
    """Moves the state of `again` to a frontier."""
    folds = {resource: incident.log.fold(resource, partial(again.move, resource)) for resource in WATCHED}

    def move(frontier: dict[str, int]) -> None:
        for resource, rv in frontier.items():
            if resource in folds and folds[resource].rv != rv:
                folds[resource].move_to(rv)

    return move


# --- a recorded decision ---


def _newest(placed: list[Placed], key: str, at: int | datetime | None) -> int | None:
    for index in range(len(placed) - 1, -1, -1):
        decision, frontier = placed[index]
        if decision.key == key and _not_after(decision, frontier, at):
            return index
    return None


def _not_after(decision: Decision, frontier: dict[str, int], at: int | datetime | None) -> bool:
    if at is None:
        return True
    if isinstance(at, datetime):
        return decision.now_us <= microseconds(at)
    return max(frontier.values()) <= at


def _whole_before(placed: list[Placed], index: int) -> int:
    """The nearest row that tells all that was assumed; what follows it are differences."""
    while index and "*" not in placed[index][0].frontier:
        index -= 1
    return index


def _of_the_decision(again: Remaker, move: Callable[[dict[str, int]], None], rows: list[Placed]) -> Explained:
    for decision, frontier in rows[:-1]:
        move(frontier)
        again.follow(decision.effects)
    decision, frontier = rows[-1]
    move(frontier)
    ours, recorded = again.remake(decision.key, decision.frontier, decision.effects)
    agrees = ours == recorded
    info = again.state.pods.get(decision.effects[0]["uid"])
    if info is None:
        raise NothingToExplain(f'the log lacks pod "{decision.key}" as decision {decision.id} saw it')
    return _explained(again, info, max(frontier.values()), decision, agrees)


# --- a pod without one ---


def _on_the_state(
    incident: Incident,
    again: Remaker,
    move: Callable[[dict[str, int]], None],
    key: str,
    at: int | datetime | None,
) -> Explained:
    uid, rv = _last_seen(incident, key, revision_at(incident, at))
    move(dict.fromkeys(WATCHED, rv))
    return _explained(again, again.state.pods[uid], rv, None, True)


def revision_at(incident: Incident, at: int | datetime | None) -> int:
    """The revision that `at` means, at most the newest. Raises NothingToExplain before the first."""
    first = max((record.rv for records in incident.log.base.values() for record in records), default=0)
    newest = incident.log.last_rv
    if at is None:
        return newest
    found = min(at, newest) if isinstance(at, int) else _revision_of(incident, microseconds(at), first)
    if found < first:
        raise NothingToExplain(f"the log begins at revision {first}")
    return found


def _revision_of(incident: Incident, until_us: int, first: int) -> int:
    found = first
    for event in incident.reader.events():
        if event.ts_us > until_us:
            break
        found = event.rv
    return found


def _last_seen(incident: Incident, key: str, until: int) -> tuple[str, int]:
    """(uid, revision): the newest revision up to `until` at which the pod was there and had not ended."""
    log = incident.log
    for step in reversed(log.steps.get("pods", ())):
        if step.rv > until or step.key != key:
            continue
        if step.record is not None and not is_terminal(step.record.value):
            return step.record.uid, until
        until = step.rv - 1
    for record in log.base.get("pods", ()):
        if f"{record.key.namespace}/{record.key.name}" == key and not is_terminal(record.value):
            return record.uid, until
    raise NothingToExplain(f'the log has no pod "{key}" to be scheduled at that moment')


def _explained(again: Remaker, info: PodInfo, rv: int, decision: Decision | None, agrees: bool) -> Explained:
    gates = tuple(gate["name"] for gate in info.pod["spec"].get("schedulingGates") or ())
    node, nominated = info.node, info.nominated
    effect = decision.effects[0] if decision is not None else {}
    found = explain(
        again.framework,
        info,
        answers=Answers.of(effect.get("extenders")),
        draw=Draw(effect["cycle"], effect["seed"]) if effect else None,
    )
    said = meta.condition(info.pod, "PodScheduled") or {}
    kept_out = said.get("message", "") if said.get("reason") == "SchedulingGated" and not gates else ""
    return Explained(rv, decision, agrees, node, nominated, gates, found, kept_out)
