"""One recorded decision again: the same view, the same time, the same memo, the recorded outcomes; then compare.

    with Incident.open(path) as incident:
        for result in replay(incident):
            ...    # identical, or a Divergence that says where and how

A decision whose code or settings have another digest than recorded is re-made all the same: if it says the same,
nothing that matters has changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kcp.base.clock import moment
from kcp.base.values import frozen
from kcp.controllers import effects as fx
from kcp.controllers.decisions import code_hash, describe, same_effect
from kcp.controllers.sources import Controller
from kcp.machinery import errors
from kcp.replay.cursor import Caches
from kcp.replay.incident import Incident
from kcp.store.protocol import Decision, Key
from kcp.store.redaction import is_purged

Json = dict[str, Any]

LEASES = "leases.coordination.k8s.io"
ABORTED = frozenset({"Timeout", "Exception"})
"""Recorded in place of an effect when the driver cut a decision off."""


@frozen
class Divergence:
    """Where a decision first says something else. `ours` or `recorded` is None when that side had already ended."""

    decision: Decision
    frontier: dict[str, int]
    index: int
    ours: Json | None
    recorded: Json | None
    effect: fx.Effect | None
    error: str = ""


@frozen
class Result:
    decision: Decision
    divergence: Divergence | None = None
    code_changed: bool = False
    purged: bool = False
    """It cannot be re-made: what it saw or wrote was purged."""

    @property
    def identical(self) -> bool:
        return self.divergence is None and not self.purged


def has_purged(incident: Incident, effects: Sequence[Json]) -> bool:
    """Whether a version that these effects wrote, or their part in it, was purged."""
    for effect in effects:
        record = incident.log.written.get(effect.get("rv", 0))
        if (record is not None and is_purged(record.value)) or has_purged(
            incident, effect.get("effects", ())
        ):
            return True
    return False


def alike(ours: Json, recorded: Json) -> bool:
    """As `same_effect`. A renewal of a Lease moves its resourceVersion and leaves no event: a precondition on it is no part."""
    if ours["kind"] == recorded["kind"] == "All":
        mine, theirs = ours["effects"], recorded["effects"]
        return len(mine) == len(theirs) and all(map(alike, mine, theirs))
    if same_effect(ours, recorded):
        return True
    if ours["kind"] != recorded["kind"] or recorded.get("resource") != LEASES:
        return False
    one, other = ours.get("args"), recorded.get("args")
    return one is not None and other is not None and {**one, "rv": ""} == {**other, "rv": ""}


class Remaker:
    """Re-makes the decisions of one controller, in the order in which they began.

    `settings` are used instead of those recorded.
    """

    def __init__(
        self, incident: Incident, controller: Controller, settings: Mapping[str, Any] | None = None
    ) -> None:
        self.incident = incident
        self.controller = controller
        self._settings = settings or {}
        self.caches = Caches(controller, incident.log, incident.resources)
        self._code_hash = code_hash(controller.plan)

    def remake(self, decision: Decision, frontier: dict[str, int]) -> Result:
        self.caches.move_to(frontier)
        changed = decision.code_hash != self._code_hash
        try:
            found = self._run(decision, frontier)
        except Exception as bug:  # noqa: BLE001 - a planner that raises now but did not then has diverged
            if decision.effects and decision.effects[-1]["kind"] == "Exception":
                return Result(decision, None, changed)
            found = Divergence(decision, frontier, 0, None, None, None, error=repr(bug))
        if found is not None and (self.caches.purged or has_purged(self.incident, decision.effects)):
            return Result(decision, None, changed, purged=True)
        return Result(decision, found, changed)

    def _run(self, decision: Decision, frontier: dict[str, int]) -> Divergence | None:
        plan = self.controller.plan(decision.key, self.caches.view, self._env(decision))
        outcome: fx.Outcome | None = None
        for index, recorded in enumerate(decision.effects):
            if recorded["kind"] in ABORTED:
                return None
            effect = fx.advance(plan, outcome)
            if effect is None:
                return Divergence(decision, frontier, index, None, recorded, None)
            ours = describe(effect)
            if not alike(ours, recorded):
                return Divergence(decision, frontier, index, ours, recorded, effect)
            outcome = self._outcome(effect, recorded)
            if "frontier" in recorded:
                self.caches.move_to(recorded["frontier"])
        extra = fx.advance(plan, outcome)
        if extra is None:
            return None
        return Divergence(decision, frontier, len(decision.effects), describe(extra), None, extra)

    def _env(self, decision: Decision) -> fx.Env:
        settings = {**self.incident.settings_of(decision, self.controller), **self._settings}
        return fx.Env(moment(decision.now_us), decision.memo_before, settings, self.controller.name)

    def _outcome(self, effect: fx.Effect, recorded: Json) -> fx.Outcome:
        """The outcome as the planner got it then."""
        if isinstance(effect, fx.All):
            parts = zip(effect.effects, recorded["effects"], strict=True)
            return fx.Outcome(all=[self._outcome(part, its) for part, its in parts])
        if recorded["outcome"] == "skipped":
            return fx.Outcome(skipped=True)
        if "error" in recorded:
            return fx.Outcome(error=errors.from_status(recorded["error"]))
        rv = recorded.get("rv", 0)
        if rv:
            record = self.incident.log.written.get(rv)
            return fx.Outcome(object=record.value if record else None, rv=rv)
        if isinstance(effect, fx.Status):
            return fx.Outcome(object=effect.object)
        if isinstance(effect, fx.LiveList):
            seen = [self._seen(effect.resource, each) for each in recorded["saw"]]
            return fx.Outcome(items=[obj for obj in seen if obj is not None])
        if isinstance(effect, fx.Live):
            saw = recorded["saw"]
            return fx.Outcome(object=self._seen(effect.resource, saw) if saw is not None else None)
        return fx.Outcome(object=recorded.get("saw"))

    def _seen(self, resource: str, saw: Json) -> Json | None:
        if "metadata" in saw:
            return saw
        record = self.incident.reader.get_at(Key(resource, saw["namespace"], saw["name"]), int(saw["rv"]))
        return record.value if record is not None else None


def replay(incident: Incident, controllers: Mapping[str, Controller]) -> Iterator[Result]:
    """Re-make every decision of these controllers, controller by controller, each in the order in which it began."""
    for name, controller in controllers.items():
        decisions = incident.decisions_of(name)
        if not decisions:
            continue
        remaker = Remaker(incident, controller)
        for decision, frontier in decisions:
            yield remaker.remake(decision, frontier)
