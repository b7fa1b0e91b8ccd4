"""The scheduler's decisions again: the same cluster state, the same cycle and seed; then compare."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from kcp.replay.decisions import Divergence, Result
from kcp.replay.incident import Incident
from kcp.scheduler.remake import WATCHED, Remaker
from kcp.scheduler.rows import code_digest
from kcp.store.protocol import Decision

Json = dict[str, Any]


def replay_scheduler(incident: Incident, name: str) -> Iterator[Result]:
    """Re-make every decision of the scheduler profile `name`, in the order of its cycles."""
    again = Remaker()
    folds = {resource: incident.log.fold(resource, partial(again.move, resource)) for resource in WATCHED}
    code = code_digest()
    for decision, frontier in incident.decisions_of(name):
        for resource, rv in frontier.items():
            if folds[resource].rv != rv:
                folds[resource].move_to(rv)
        yield _remake(again, decision, frontier, decision.code_hash != code)


def _remake(again: Remaker, decision: Decision, frontier: dict[str, int], changed: bool) -> Result:
    ours, recorded = again.remake(decision.key, decision.frontier, decision.effects)
    if ours == recorded:
        return Result(decision, None, changed)
    return Result(decision, Divergence(decision, frontier, 0, _shown(ours), _shown(recorded), None), changed)


def _shown(effect: Json) -> Json:
    """In the form in which effects of controllers are shown."""
    return {"kind": effect["kind"], "name": effect.get("node", ""), "args": effect}
