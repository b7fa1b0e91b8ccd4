"""The same arrivals twice: nothing differs with the same configuration, and what differs with another one is told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kcp.replay.exploration import Scenario
from kcp.replay.incident import Incident
from kcp.replay.whatif.arrivals import Arrivals, read_arrivals
from kcp.replay.whatif.comparison import Comparison, Side, compare, configured_as_recorded
from kcp.replay.whatif.deciding import decide_by
from kcp.replay.whatif.machines import Machines, parse_machines
from kcp.scheduler.profiles import Configuration, parse_configuration
from tests.replay import crowded, placements
from tests.replay.whatif.hand_made import Script

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[3]
PACKING = parse_configuration({
    "apiVersion": "kubescheduler.config.k8s.io/v1",
    "kind": "KubeSchedulerConfiguration",
    "profiles": [{
        "pluginConfig": [{
            "name": "NodeResourcesFit",
            "args": {"scoringStrategy": {"type": "MostAllocated", "resources": [{"name": "cpu", "weight": 1}]}},
        }]
    }],
})  # fmt: skip


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("whatif") / "log.kcp"
    crowded.write_log(file)
    return file


@pytest.fixture
def incident(log: Path) -> Iterator[Incident]:
    with Incident.open(log) as opened:
        yield opened


def against_the_record(incident: Incident, arrivals: Arrivals, nodes: str = "", **side: Any) -> Comparison:
    recorded = configured_as_recorded(incident)
    machines = parse_machines([nodes], arrivals)
    after = Side("after", **{"profile_of": recorded, "machines": machines, **side})
    return compare(arrivals, Side("recorded", recorded, follows=True), after)


def test_the_same_configuration_decides_the_same_from_wherever_one_begins(incident: Incident) -> None:
    last = incident.log.last_rv
    for first in [0, *range(200, last, 47)]:
        found = against_the_record(incident, read_arrivals(incident, first))
        assert found.same and found.before.decisions == found.after.decisions, first
        assert found.before.waited_us == found.after.waited_us
        assert found.before.usage == found.after.usage
    whole = against_the_record(incident, read_arrivals(incident))
    assert whole.before.decisions > 25 and whole.before.preemptions == 2


def test_so_it_does_with_every_version_of_every_object(incident: Incident) -> None:
    every = read_arrivals(incident, whole=True)
    assert len(every.items) > len(read_arrivals(incident).items)
    assert against_the_record(incident, every).same


@pytest.mark.parametrize("seed", [4, 11])
def test_so_it_does_on_simulated_logs_with_faults(seed: int, tmp_path: Path) -> None:
    file = tmp_path / "log.kcp"
    assert not Scenario(seed, minutes=0.7, faults="restart=0.4,watch-delay").run(file).violations
    with Incident.open(file) as incident:
        for first in range(0, incident.log.last_rv, 301):
            found = against_the_record(incident, read_arrivals(incident, first))
            assert found.same, first


def test_so_it_does_where_pods_are_refused_and_preempt(tmp_path: Path) -> None:
    placements.write_log(tmp_path / "log.kcp")
    with Incident.open(tmp_path / "log.kcp") as incident:
        found = against_the_record(incident, read_arrivals(incident))
        assert (
            found.same and found.after.preemptions == 1 and found.after.decisions == found.arrivals.attempts
        )


def test_another_configuration_is_told_by_its_first_difference(incident: Incident) -> None:
    found = against_the_record(incident, read_arrivals(incident), profile_of=decide_by(PACKING))
    assert not found.same and found.elsewhere
    first = found.first
    assert first is not None and first.before is not None and first.after is not None
    ours, theirs = first.after.node, first.before.node
    assert ours != theirs and first.pod in {each.pod for each in found.elsewhere}
    weighed = {(each.side, each.node): each.verdict for each in first.weighed}
    assert set(weighed) == {(side, node) for side in ("recorded", "after") for node in (ours, theirs)}
    for side, best in (("recorded", theirs), ("after", ours)):
        totals = {
            node: verdict.total for (name, node), verdict in weighed.items() if name == side and verdict
        }
        assert max(totals, key=lambda node: totals[node] or 0) == best
    for verdict in weighed.values():
        assert verdict is not None and sum(verdict.scores.values()) == verdict.total
    recorded = incident.decision(first.decision or 0)[0]
    assert recorded.effects[0]["node"] == theirs


def test_more_nodes_leave_nobody_evicted_and_nothing_to_replace(incident: Incident) -> None:
    arrivals = read_arrivals(incident)
    found = against_the_record(incident, arrivals, "+2")
    assert len(found.evicted_only_before) == 2 and found.after.evicted == 0
    replacements = [life for life in arrivals.lives.values() if life.replaces]
    assert len(replacements) == 2
    assert found.after.decisions < found.before.decisions
    assert not set(found.after.waiting) and found.after.busy_nodes[1] == 6


def test_fewer_nodes_leave_pods_waiting_with_the_reason(incident: Incident) -> None:
    found = against_the_record(incident, read_arrivals(incident), "-node-1")
    assert found.after.waiting and not found.before.waiting
    assert all("Insufficient cpu" in text for text in found.after.waiting.values())
    assert "node-1" not in {each.after for each in found.elsewhere}
    assert found.after.usage["cpu"].requested.mean > found.before.usage["cpu"].requested.mean


def test_two_configurations_with_each_other(incident: Incident) -> None:
    arrivals = read_arrivals(incident)
    default = Side("default", decide_by(Configuration()))
    assert compare(arrivals, default, Side("again", decide_by(Configuration()))).same
    found = compare(arrivals, default, Side("packing", decide_by(PACKING)))
    against = against_the_record(incident, arrivals, profile_of=decide_by(PACKING))
    assert found.elsewhere == against.elsewhere, "the defaults are what was recorded"


def test_any_process_gives_the_same_answer(log: Path) -> None:
    code = "from kcp.cli.main import main; main()"
    arguments = [sys.executable, "-c", code, "whatif", str(log), "--nodes", "-node-1", "--format", "json"]
    answers = {
        subprocess.run(
            arguments,
            cwd=ROOT,
            capture_output=True,
            check=True,
            timeout=60,
            env={"PYTHONHASHSEED": seed, "PATH": ""},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(answers) == 1


def test_a_log_without_decisions_is_compared_with_what_came_of_it() -> None:
    script = Script().node("a", "1").node("b", "1")
    script.pod("one", "1", "a", at_s=1, ends_s=11).pod("two", "1", "b", at_s=2, ends_s=7)
    arrivals = script.arrivals(20)
    recorded = Side("recorded", lambda scheduler, decision: None, follows=True)
    default = Side("default", decide_by(Configuration()))
    assert compare(arrivals, recorded, default).same
    fewer = Side("fewer", decide_by(Configuration()), machines=Machines(without=frozenset({"b"})))
    found = compare(arrivals, recorded, fewer)
    assert [(each.pod, each.before, each.after) for each in found.elsewhere] == [("default/two", "b", "a")]
    assert found.first is not None and found.first.pod == "default/two"
    assert found.first.before is not None and found.first.before.node == "b"
