"""`kcp explain` on the command line."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from kcp.cli.explain import command
from kcp.cli.export import command as export
from kcp.replay.incident import Incident
from tests.replay.placements import write_log


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("explain") / "log.kcp"
    write_log(file)
    return str(file)


def explain(*arguments: str) -> str:
    done = CliRunner().invoke(command, ["pod", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_bound_pod_has_its_reason_first_and_a_line_per_node(log: str) -> None:
    lines = explain("web", "--data", log).splitlines()
    assert lines[0].startswith("default/web bound to ")
    assert "is the highest of 2 feasible nodes of 4; 2 nodes have it, the seed took this one" in lines[0]
    assert lines[3].split() == ["NODE", "SCORE", "WHY"]
    chosen, other, red, small = lines[4:]
    assert chosen.split()[0] == lines[0].split()[3].rstrip(":") != other.split()[0]
    assert "TaintToleration 300, NodeResourcesFit 87, NodeResourcesBalancedAllocation " in chosen
    assert red.endswith("TaintToleration: node(s) had untolerated taint(s) (taint team=red:NoSchedule)")
    assert small.endswith("NodeResourcesFit: Insufficient cpu (cpu: needs 1, free 500m of 500m)")


def test_other_outcomes(log: str) -> None:
    assert "the only feasible node of 4\n" in explain("fits-one", "--data", log)
    assert explain("big", "--data", log).startswith("default/big unschedulable: 0/4 nodes are available: 1 ")
    gated = explain("last", "--data", log)
    assert "is held by its scheduling gates wait; without them 3 of 4 nodes are feasible" in gated
    assert "no decision recorded; the state at revision" in gated


def test_the_pod_may_be_said_in_one_word_and_nothing_else_can_be_asked(log: str) -> None:
    done = CliRunner().invoke(command, ["pod/web", "--data", log])
    assert done.output == explain("web", "--data", log)
    refused = CliRunner().invoke(command, ["deploy/web", "--data", log])
    assert refused.exit_code == 2
    assert "only the scheduling of pods can be explained, not that of 'deploy'" in refused.output


def test_who_makes_room_and_who_takes_it(log: str) -> None:
    assert "it was nominated to it, and passes every filter there\n" in explain("vip", "--data", log)
    with Incident.open(log) as incident:
        rows = incident.decisions_of("default-scheduler")
        at = next(max(f.values()) for d, f in rows if d.effects[0]["kind"] == "Preempt")
    text = explain("vip", "--data", log, "--at", str(at))
    assert text.startswith("default/vip unschedulable: 0/4 nodes are available: ")
    assert "\nroom is made on " in text and ": default/" in text


def test_one_node_in_detail(log: str) -> None:
    text = explain("big", "--data", log, "--node", "small")
    assert "NodeResourcesFit refuses: Insufficient cpu; removing pods would not help" in text
    assert "memory: needs 100Mi, free 32Gi of 32Gi" in text
    scores = explain("web", "--data", log, "--node", "a").splitlines()
    assert scores[-1].split()[0] == "total"
    assert sum(int(line.split()[1]) for line in scores[4:-1]) == int(scores[-1].split()[1])


def test_json_has_all_of_it(log: str) -> None:
    found = orjson.loads(explain("web", "--data", log, "--format", "json"))
    assert found["best"] == ["a", "b"] and found["decision"]["agrees"]
    assert {node["node"]: node["feasible"] for node in found["nodes"]} == {
        "a": True, "b": True, "red": False, "small": False,
    }  # fmt: skip


def test_a_part_of_a_log_answers_from_what_it_has(log: str, tmp_path: Path) -> None:
    with Incident.open(log) as incident:
        rows = incident.decisions_of("default-scheduler")
        first_rv = next(max(f.values()) for d, f in rows if d.effects[0]["kind"] == "Preempt")
    part = str(tmp_path / "part.kcp")
    done = CliRunner().invoke(export, [part, "--data", log, "--from", str(first_rv)])
    assert done.exit_code == 0, done.output
    text = explain("big", "--data", part)
    assert text.startswith("default/big 0 of 4 nodes are feasible\nno decision recorded (")
    assert explain("web", "--data", part).startswith("default/web runs on ")
    early = CliRunner().invoke(command, ["pod", "web", "--data", part, "--at", "100"])
    assert early.output.startswith("Error: the log begins at revision ")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("nobody",), 'the log has no pod "default/nobody"'),
        (("web", "--node", "c"), 'node "c" is not there'),
        (("web", "--at", "noon"), "'noon' is neither a revision"),
        (("web", "--at", "1"), 'the log has no pod "default/web"'),
    ],
)
def test_what_cannot_be_answered_is_one_line(log: str, arguments: tuple[str, ...], text: str) -> None:
    done = CliRunner().invoke(command, ["pod", *arguments, "--data", log])
    assert done.exit_code == 1
    assert done.output.startswith(f"Error: {text}") and done.output.count("\n") == 1
