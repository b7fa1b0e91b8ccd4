"""One scheduling decision again, anywhere in the log: what was assumed then follows from the nearest row that tells it all."""

from __future__ import annotations

from bisect import bisect_left
from functools import partial
from typing import Any

from kcp.replay.decisions import Divergence, Result
from kcp.replay.incident import IDS_PER_RUN, Incident
from kcp.replay.scheduling import Placed, Profiles, schedulers
from kcp.scheduler.profiles import config_digest
from kcp.scheduler.remake import WATCHED, Remaker
from kcp.scheduler.rows import code_digest

Json = dict[str, Any]


def remake_placement(incident: Incident, number: int) -> Result:
    """Re-make the scheduling decision with this id. Raises KeyError when the log has none."""
    *before, (decision, frontier) = _rows(incident, number)
    again = Remaker()
    folds = {resource: incident.log.fold(resource, partial(again.move, resource)) for resource in WATCHED}
    for earlier, at in before:
        _move(folds, at)
        again.follow(earlier.effects)
    _move(folds, frontier)
    profile = Profiles(incident).of(decision)
    again.use(profile)
    changed = decision.code_hash != code_digest() or decision.config_hash != config_digest(profile)
    ours, recorded = again.remake(decision.key, decision.frontier, decision.effects)
    if ours == recorded:
        return Result(decision, None, changed)
    if any(fold.hidden for fold in folds.values()):
        return Result(decision, None, changed, purged=True)
    return Result(decision, Divergence(decision, frontier, 0, _shown(ours), _shown(recorded), None), changed)


def _rows(incident: Incident, number: int) -> list[Placed]:
    """The rows of all profiles of that scheduler from the nearest whole one to this one."""
    ids = incident.ids(schedulers(incident))
    at = bisect_left(ids, number)
    rows = [incident.decision(number)]
    while "*" not in rows[0][0].frontier and at and ids[at - 1] // IDS_PER_RUN == number // IDS_PER_RUN:
        at -= 1
        rows.insert(0, incident.decision(ids[at]))
    return rows


def _move(folds: dict[str, Any], frontier: dict[str, int]) -> None:
    for resource, rv in frontier.items():
        if resource in folds and folds[resource].rv != rv:
            folds[resource].move_to(rv)


def _shown(effect: Json) -> Json:
    """In the form in which effects of controllers are shown."""
    return {"kind": effect["kind"], "name": effect.get("node", ""), "args": effect}
