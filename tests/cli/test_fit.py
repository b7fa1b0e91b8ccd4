"""`kcp fit` on the command line."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result

from kcp.cli.fit import command
from tests.replay.scattered import bound_at, write_log

POD = """
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  containers: [{name: main, image: x, resources: {requests: {cpu: CPU}}}]
"""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("fit") / "log.kcp"
    write_log(file)
    return str(file)


def pod(name: str, cpu: str) -> str:
    return POD.replace("NAME", name).replace("CPU", cpu)


def run(log: str, text: str, *arguments: str) -> Result:
    return CliRunner().invoke(command, ["-f", "-", "--data", log, *arguments], input=text)


def test_each_document_in_turn(log: str) -> None:
    done = run(log, f"{pod('small', '500m')}---{pod('large', '2')}---{pod('huge', '3')}")
    assert done.exit_code == 0, done.output
    heads = [part.splitlines()[0] for part in done.output.split("\n\n") if part.startswith("default/")]
    assert heads == ["default/small: 12 more fit", "default/large: 3 more fit", "default/huge: no more fits"]
    assert "then: 0/3 nodes are available: 3 Insufficient cpu." in done.output


def test_json_for_programs(log: str) -> None:
    (found,) = orjson.loads(run(log, pod("large", "2"), "--format", "json").output)
    assert (found["fit"], found["complete"], found["reasons"]) == (3, True, {"Insufficient cpu": 3})
    assert [node["node"] for node in found["nodes"]] == ["n1", "n2", "n3"]
    assert found["nodes"][0]["refusals"][0]["details"]["cpu"] == {
        "needs": 2000, "free": 0, "allocatable": 4000, "held by": found["nodes"][0]["refusals"][0]["details"]["cpu"]["held by"],
    }  # fmt: skip


def test_no_further_than_asked(log: str) -> None:
    assert run(log, pod("small", "500m"), "--most", "4").output.startswith(
        "default/small: at least 4 more fit\n"
    )


def test_another_moment_and_another_configuration(log: str, tmp_path: Path) -> None:
    earlier = run(log, pod("large", "3"), "--at", str(bound_at(Path(log), "web-1")))
    assert earlier.output.startswith("default/large: 3 more fit\n"), "one on each node, even where web-1 runs"
    configuration = tmp_path / "no-fit.yaml"
    configuration.write_text(
        "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nprofiles:\n"
        "- {schedulerName: mine, pluginConfig: [{name: NodeResourcesFit, args: {ignoredResources: [example.com/x]}}]}\n"
    )
    done = run(log, pod("large", "3"), "--scheduler-config", str(configuration))
    assert done.exit_code == 1 and "there is mine" in done.output


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "Error: "),
        ("kind: Service", "Error: there is nothing in it that makes pods"),
        (pod("x", "much"), "Error: "),
    ],
)
def test_what_cannot_be_answered_is_one_line(log: str, text: str, says: str) -> None:
    done = run(log, text)
    assert done.exit_code == 1 and done.output.startswith(says)
