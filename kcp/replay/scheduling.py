"""The scheduler's decisions again: the same cluster state, the same cycle and seed; then compare."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from typing import Any

import orjson

from kcp.controllers.table import CONTROLLERS, OFF_BY_DEFAULT
from kcp.replay.decisions import Divergence, Result
from kcp.replay.incident import IDS_PER_RUN, Incident
from kcp.scheduler.profiles import Configuration, Profile, config_digest, parse_configuration
from kcp.scheduler.remake import WATCHED, Remaker
from kcp.scheduler.rows import code_digest
from kcp.store.protocol import Decision

Json = dict[str, Any]
Placed = tuple[Decision, dict[str, int]]
CONTROLLER_NAMES = frozenset(controller.name for controller in (*CONTROLLERS, *OFF_BY_DEFAULT))


def schedulers(incident: Incident) -> list[str]:
    """The profiles that decided something, by name."""
    return [name for name in incident.controllers if name not in CONTROLLER_NAMES]


def scheduling_rows(incident: Incident) -> list[Placed]:
    """The decisions of all profiles with their whole frontiers, in the order in which they were taken.

    Only together they tell what the state held: profiles of one scheduler share it.
    """
    rows = [row for name in schedulers(incident) for row in incident.decisions_of(name)]
    return sorted(rows, key=lambda row: row[0].id)


def newest_scheduling(incident: Incident, rv: int) -> Decision | None:
    """The last decision of any profile that had seen nothing newer than `rv`."""
    found: list[Decision] = []
    for name in schedulers(incident):
        rows = incident.decisions_of(name)
        place = bisect_right(rows, rv, key=lambda row: max(row[1].values()))
        if place:
            found.append(rows[place - 1][0])
    return max(found, key=lambda decision: decision.id, default=None)


class Profiles:
    """The profile that took a decision, as it was configured then."""

    def __init__(self, incident: Incident) -> None:
        self._incident = incident
        self._known: dict[bytes, Configuration] = {}

    def of(self, decision: Decision) -> Profile:
        """Raises ConfigError when a plugin of it is not to be had here."""
        try:
            return self.configuration(decision).profile(decision.controller)
        except KeyError:
            return Profile(name=decision.controller)

    def configuration(self, decision: Decision) -> Configuration:
        """Of the whole scheduler. Raises ConfigError."""
        started = self._incident.scheduler_of(decision)
        if started is None:
            return Configuration()
        key = orjson.dumps(started, option=orjson.OPT_SORT_KEYS)
        if key not in self._known:
            self._known[key] = parse_configuration(started["configuration"], started.get("base", ""))
        return self._known[key]


def replay_scheduler(incident: Incident, name: str) -> Iterator[Result]:
    """Re-make every decision of the scheduler profile `name`, in the order of its cycles, one daemon after the other."""
    profiles, code = Profiles(incident), code_digest()
    for _, rows in groupby(scheduling_rows(incident), key=lambda row: row[0].id // IDS_PER_RUN):
        yield from _replay_run(incident, list(rows), name, profiles, code)


def _replay_run(
    incident: Incident, rows: list[Placed], name: str, profiles: Profiles, code: str
) -> Iterator[Result]:
    """The rows of one daemon: what another one assumed meanwhile it did not know."""
    again = Remaker()
    folds = {resource: incident.log.fold(resource, partial(again.move, resource)) for resource in WATCHED}
    for decision, frontier in rows:
        for resource, rv in frontier.items():
            if folds[resource].rv != rv:
                folds[resource].move_to(rv)
        if decision.controller != name:
            again.follow(decision.effects)
            continue
        profile = profiles.of(decision)
        again.use(profile)
        changed = decision.code_hash != code or decision.config_hash != config_digest(profile)
        result = _remake(again, decision, frontier, changed)
        if result.divergence is not None and any(fold.hidden for fold in folds.values()):
            result = Result(decision, None, changed, purged=True)
        yield result


def _remake(again: Remaker, decision: Decision, frontier: dict[str, int], changed: bool) -> Result:
    ours, recorded = again.remake(decision.key, decision.frontier, decision.effects)
    if ours == recorded:
        return Result(decision, None, changed)
    return Result(decision, Divergence(decision, frontier, 0, _shown(ours), _shown(recorded), None), changed)


def _shown(effect: Json) -> Json:
    """In the form in which effects of controllers are shown."""
    return {"kind": effect["kind"], "name": effect.get("node", ""), "args": effect}
