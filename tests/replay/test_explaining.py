"""Decisions explained from the log alone, when pods and nodes are long gone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from kcp.base.clock import moment
from kcp.replay.explaining import NothingToExplain, explain_pod
from kcp.replay.exploration import Scenario
from kcp.replay.incident import Incident
from tests.replay.placements import TAINT, write_log


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("explaining") / "log.kcp"
    write_log(file)
    return file


@pytest.fixture
def incident(log: Path) -> Iterator[Incident]:
    with Incident.open(log) as opened:
        yield opened


def test_a_deleted_pod_on_deleted_nodes_has_its_verdicts(incident: Incident) -> None:
    found = explain_pod(incident, "default/web")
    recorded = found.recorded
    assert recorded is not None and found.agrees
    assert (recorded["feasible"], recorded["ties"]) == (2, 2)
    assert found.explanation.best == ("a", "b") and found.chosen in ("a", "b")
    assert found.on(found.chosen).total == recorded["total"]
    assert found.ranked[0].node == found.chosen
    assert [v.node for v in found.ranked][2:] == ["red", "small"]
    assert found.on("red").refusals[0].details == {"taint": TAINT}
    assert found.on("small").refusals[0].details["cpu"] == {
        "needs": 1000, "free": 500, "allocatable": 500, "held by": [],
    }  # fmt: skip


def test_every_plugin_that_scores_stands_alone_and_they_add_up(incident: Incident) -> None:
    verdict = explain_pod(incident, "default/web").on("a")
    assert sum(verdict.scores.values()) == verdict.total
    assert verdict.scores["TaintToleration"] == 300
    assert verdict.scores["NodeResourcesFit"] == (75 + 99) // 2
    assert 0 < verdict.scores["NodeResourcesBalancedAllocation"] < 100


def test_the_state_is_that_of_the_decision_with_what_it_found_there(incident: Incident) -> None:
    web = explain_pod(incident, "default/web").chosen
    found = explain_pod(incident, "default/fits-one")
    assert found.chosen == ({"a", "b"} - {web}).pop()
    cpu = found.on(web).refusals[0].details["cpu"]
    assert (cpu["free"], cpu["held by"]) == (3000, ["default/web"])


def test_the_last_decision_counts_or_the_last_one_before_a_moment(incident: Incident) -> None:
    rows = [row for row in incident.decisions_of("default-scheduler") if row[0].key == "default/big"]
    assert len(rows) > 1
    first, frontier = rows[0]
    last = explain_pod(incident, "default/big").decision
    assert last is not None and last.id == rows[-1][0].id
    for at in (max(frontier.values()), moment(first.now_us)):
        found = explain_pod(incident, "default/big", at=at)
        assert found.decision is not None and found.decision.id == first.id
        assert found.recorded is not None and found.recorded["text"].startswith("0/4 nodes are available")


def test_a_preemption_and_what_came_of_it(incident: Incident) -> None:
    bound = explain_pod(incident, "default/vip")
    assert bound.chosen == bound.nominated != ""
    row = next(r for r in incident.decisions_of("default-scheduler") if r[0].effects[0]["kind"] == "Preempt")
    found = explain_pod(incident, "default/vip", at=max(row[1].values()))
    assert found.agrees and found.recorded is not None
    assert found.recorded["nominated"] == bound.chosen
    lacking = found.on(bound.chosen).refusals[0]
    assert (lacking.plugin, lacking.unresolvable) == ("NodeResourcesFit", False)
    assert lacking.details["cpu"]["held by"] == [v["key"] for v in found.recorded["victims"]]


def test_a_pod_that_nobody_decided_about_is_asked_for_where_it_last_was(incident: Incident) -> None:
    found = explain_pod(incident, "default/last")
    assert (found.decision, found.recorded, found.chosen, found.gates) == (None, None, "", ("wait",))
    deleted = incident.log.written[found.rv + 1]
    assert (deleted.key.resource, deleted.key.name) == ("pods", "last")
    assert [v.node for v in found.explanation.nodes if v.feasible] == ["a", "b", "small"]


def test_before_its_first_decision_a_pod_is_asked_for_on_the_state_of_the_moment(incident: Incident) -> None:
    created = next(step.rv for step in incident.log.steps["pods"] if step.key == "default/fits-one")
    found = explain_pod(incident, "default/fits-one", at=created)
    assert found.rv >= created
    assert len(found.explanation.nodes) == 4


def test_what_the_log_has_not_is_said(incident: Incident) -> None:
    with pytest.raises(NothingToExplain, match='the log has no pod "default/nobody"'):
        explain_pod(incident, "default/nobody")
    with pytest.raises(NothingToExplain, match='the log has no pod "default/web"'):
        explain_pod(incident, "default/web", at=1)
    early = moment(incident.decisions_of("default-scheduler")[0][0].now_us) - timedelta(days=1)
    with pytest.raises(NothingToExplain):
        explain_pod(incident, "default/web", at=early)
    found = explain_pod(incident, "default/web")
    with pytest.raises(NothingToExplain, match='node "c" is not there'):
        found.on("c")


def test_every_decision_of_a_simulation_is_explained_as_it_was_taken(tmp_path: Path) -> None:
    file = tmp_path / "log.kcp"
    assert not Scenario(4, minutes=0.5, faults="restart=0.4,watch-delay").run(file).violations
    with Incident.open(file) as incident:
        keys = sorted({decision.key for decision, _ in incident.decisions_of("default-scheduler")})
        assert len(keys) > 3
        for key in keys:
            found = explain_pod(incident, key)
            assert found.agrees
            assert not found.chosen or found.on(found.chosen).feasible
            if found.recorded is not None and found.recorded.get("feasible", 0) > 1:
                assert found.chosen in found.explanation.best
                assert found.on(found.chosen).total == found.recorded["total"]
