"""`kcp whatif` on the command line; what it finds is tested with `kcp.replay.whatif`."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result

from kcp.cli.whatif import command
from tests.replay.scattered import bound_at, write_log

PACKING = """
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- pluginConfig:
  - name: NodeResourcesFit
    args: {scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 1}]}}
"""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("whatif") / "log.kcp"
    write_log(file)
    (file.parent / "packing.yaml").write_text(PACKING)
    (file.parent / "default.yaml").write_text(PACKING.partition("profiles")[0])
    return file


def run(log: Path, *arguments: str) -> Result:
    named = [str(log.parent / argument) if argument.endswith(".yaml") else argument for argument in arguments]
    return CliRunner().invoke(command, [str(log), *named])


def test_without_a_change_nothing_differs(log: Path) -> None:
    done = run(log)
    assert done.exit_code == 0, done.output
    assert done.output.endswith("\nNothing differs: every pod is where it was.\n")


def test_json_has_both_sides_and_why_they_part(log: Path) -> None:
    found = orjson.loads(run(log, "--scheduler-config", "packing.yaml", "--format", "json").output)
    recorded, packing = found["courses"]
    assert (recorded["name"], packing["name"]) == ("recorded", "packing.yaml")
    assert (recorded["placed"], packing["placed"]) == (6, 7)
    assert list(recorded["waiting"]) == ["default/big"] and packing["waiting"] == {}
    assert found["only_after"] == [{
        "pod": "default/big", "before": "", "after": found["only_after"][0]["after"],
        "before_text": recorded["waiting"]["default/big"], "after_text": "",
    }]  # fmt: skip
    assert found["first"]["before"]["node"] != found["first"]["after"]["node"]
    assert {each["side"] for each in found["first"]["weighed"]} == {"recorded", "packing.yaml"}
    assert 0 < packing["usage"]["cpu"]["requested"]["mean"] < 1


def test_two_configurations_and_a_part_of_the_log(log: Path) -> None:
    last = bound_at(log, "web-6")
    done = run(log, "--config", "default.yaml", "--config", "packing.yaml", "--to", str(last))
    assert done.exit_code == 0, done.output
    assert "DEFAULT.YAML  PACKING.YAML" in done.output and "default/big" not in done.output
    late = run(log, "--config", "packing.yaml", "--from", str(last))
    assert "\nelsewhere" not in late.output, "what is placed before the part begins stays there"


def test_nodes_come_and_go(log: Path) -> None:
    fewer = run(log, "--nodes", "-n1,-n2").output
    assert "pending at the end with nodes -n1,-n2: 2 pods\n" in fewer
    more = run(log, "--nodes", "5", "--config", "packing.yaml").output
    assert "\npods pending at the end  1         0" in more


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--nodes", "-n7"), "Error: there is no node 'n7' in this part of the log"),
        (("--config", "none.yaml"), "Error: cannot read "),
        (("--from", "noon"), "Error: 'noon' is neither a revision"),
        (("--config", "a.yaml", "--config", "b.yaml", "--config", "c.yaml"), "Usage: "),
    ],
)
def test_what_cannot_be_answered_is_said(log: Path, arguments: tuple[str, ...], says: str) -> None:
    done = run(log, *arguments)
    assert done.exit_code in (1, 2) and done.output.startswith(says)
