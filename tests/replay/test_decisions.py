"""Replay: every decision of a log is re-made and found identical, and the first that differs is shown for what it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from kcp.controllers import effects as fx
from kcp.controllers import replicaset
from kcp.controllers.decisions import describe
from kcp.controllers.table import CONTROLLERS
from kcp.replay.compare import report
from kcp.replay.decisions import Result, alike, replay
from kcp.replay.exploration import Scenario
from kcp.replay.incident import Incident
from kcp.replay.run import remake_all

Json = dict[str, Any]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two minutes with restarts, lost answers and late watches."""
    file = tmp_path_factory.mktemp("replay") / "log.kcp"
    run = Scenario(4, minutes=2, faults="restart=0.4,lost-answer,watch-delay,conflict").run(file)
    assert not run.violations, run.violations
    return file


@pytest.fixture
def incident(log: Path) -> Iterator[Incident]:
    with Incident.open(log) as opened:
        yield opened


def diverging(incident: Incident, plan: Any) -> Result:
    """The first decision of the ReplicaSet controller that says something else with another planner."""
    changed = attrs.evolve(replicaset.CONTROLLER, plan=plan)
    results = replay(incident, {changed.name: changed})
    return next(result for result in results if not result.identical)


def test_every_decision_is_identical(incident: Incident) -> None:
    results = list(remake_all(incident))
    assert len(results) > 50
    assert not [result for result in results if not result.identical]
    assert {result.decision.controller for result in results} >= {
        "deployment-controller", "replicaset-controller", "default-scheduler",
    }  # fmt: skip


def test_one_controller_can_be_chosen(incident: Incident) -> None:
    chosen = list(remake_all(incident, ["deployment"]))
    assert len(chosen) == incident.count("deployment-controller") > 0
    with pytest.raises(ValueError, match="the log has no decisions of nobody"):
        list(remake_all(incident, ["nobody"]))


def test_a_changed_constant_is_found_at_the_effect_it_changes(incident: Incident) -> None:
    def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
        effects = replicaset.plan(key, view, env)
        effect = fx.advance(effects, None)
        while effect is not None:
            if isinstance(effect, fx.Status):
                effect = attrs.evolve(effect, status={**effect.status, "replicas": 77})
            outcome = yield effect
            effect = fx.advance(effects, outcome)

    result = diverging(incident, plan)
    divergence = result.divergence
    assert divergence is not None and divergence.ours is not None and divergence.recorded is not None
    assert divergence.ours["kind"] == divergence.recorded["kind"] == "Status"
    assert result.code_changed
    told = report(incident, divergence, result.code_changed)
    assert f"first divergence: decision {result.decision.id} of replicaset-controller" in told
    assert "changed since the recording" in told
    assert "because" in told


def test_a_planner_that_does_nothing_diverges_at_its_first_effect(incident: Incident) -> None:
    def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
        del key, view, env
        yield from ()

    divergence = diverging(incident, plan).divergence
    assert divergence is not None
    assert (divergence.index, divergence.ours) == (0, None)


def test_a_planner_that_goes_on_diverges_after_its_last_effect(incident: Incident) -> None:
    def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
        yield from replicaset.plan(key, view, env)
        yield fx.RequeueAfter(1)

    result = diverging(incident, plan)
    assert result.divergence is not None
    assert result.divergence.recorded is None
    assert result.divergence.index == len(result.decision.effects)


def test_a_planner_that_raises_has_diverged(incident: Incident) -> None:
    def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
        raise ZeroDivisionError(key)
        yield

    result = diverging(incident, plan)
    assert result.divergence is not None
    assert result.divergence.error.startswith("ZeroDivisionError")


def test_frontiers_are_whole_and_never_beyond_what_the_decision_wrote(incident: Incident) -> None:
    for controller in CONTROLLERS:
        for decision, frontier in incident.decisions_of(controller.name):
            assert frontier
            if decision.first_rv:
                assert max(frontier.values()) < decision.last_rv
    assert incident.skipped == 0


@pytest.mark.parametrize(
    ("resource", "name", "same"),
    [
        ("leases.coordination.k8s.io", "node-1", True),
        ("leases.coordination.k8s.io", "node-2", False),
        ("configmaps", "node-1", False),
    ],
)
def test_a_renewal_that_left_no_event_is_no_difference(resource: str, name: str, same: bool) -> None:
    recorded = fx.Delete(resource, "kube-node-lease", "node-1", uid="u", rv="900")
    ours = fx.Delete(resource, "kube-node-lease", name, uid="u", rv="12")
    assert alike(describe(ours), describe(recorded)) is same
    assert alike(describe(fx.All([ours])), describe(fx.All([recorded]))) is same
