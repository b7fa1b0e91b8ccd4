"""Decisions that nobody recorded: inferred from who wrote what, and compared with what kcp's controllers would do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner

from kcp.base.clock import SystemClock
from kcp.base.loop import run_deterministic
from kcp.cli.main import kcp
from kcp.replay.importers.formats import import_incident
from kcp.replay.incident import Incident
from kcp.replay.inferred import Inference, imported_from, infer, writer_of
from kcp.replay.inferred_report import told
from kcp.store.protocol import Actor
from tests.replay.importers.auditing import audited_cluster
from tests.support.builders import deployment

Json = dict[str, Any]
WORKLOADS = ("deployment-controller", "replicaset-controller")


async def _play() -> list[Json]:
    async with audited_cluster() as (_, client, audit):
        await client.create("deployments.apps", deployment("web", replicas=2))
        await anyio.sleep(30)
        await client.patch("deployments.apps", "web", {"spec": {"replicas": 4}}, "merge", "default")
        await anyio.sleep(30)
        return audit.events


async def _play_ends() -> list[Json]:
    """What goes: a deployment with what it owns, one whose ReplicaSets are set free, a whole namespace."""
    async with audited_cluster() as (_, client, audit):
        await client.create(
            "namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
        )
        await anyio.sleep(5)
        for name, namespace in (("web", "default"), ("free", "default"), ("store", "shop")):
            await client.create("deployments.apps", deployment(name, namespace=namespace, replicas=2))
        await anyio.sleep(30)
        await client.delete("deployments.apps", "web", "default", propagation="Foreground")
        await client.delete("deployments.apps", "free", "default", propagation="Orphan")
        await anyio.sleep(30)
        await client.delete("namespaces", "shop")
        await anyio.sleep(60)
        return audit.events


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> list[Inference]:
    lines = run_deterministic(_play_ends, 7)
    return inferred(incident_of(tmp_path_factory.mktemp("ends"), lines))


def verdicts(found: list[Inference], controller: str) -> list[str]:
    return [each.verdict for each in found if each.controller == controller]


def test_the_garbage_collector_decides_for_the_owner_that_goes(ends: list[Inference]) -> None:
    found = verdicts(ends, "garbage-collector-controller")
    assert len(found) >= 4 and set(found) <= {"same", "older"}, found
    kinds = {event.key.resource for each in ends if "garbage" in each.controller for event in each.writes}
    assert kinds >= {"pods", "replicasets.apps", "deployments.apps"}


def test_the_namespace_controller_decides_for_the_namespace(ends: list[Inference]) -> None:
    mine = [each for each in ends if each.controller == "namespace-controller"]
    assert mine and {each.key for each in mine} == {"shop"}
    assert {each.verdict for each in mine} <= {"same", "older"}, [(e.verdict, e.guess) for e in mine]


def test_the_scheduler_took_one_of_the_best_nodes(ends: list[Inference], tmp_path: Path) -> None:
    found = [each for each in ends if each.controller == "default-scheduler"]
    assert len(found) == 6 and {each.verdict for each in found} <= {"same", "older"}
    assert all(each.guess.planned[0].text.startswith("Bind pods/") for each in found)


def too_large(event: Json) -> Json | None:
    """Pods that no node has room for, on a node all the same."""
    for field in ("requestObject", "responseObject"):
        for container in (event.get(field, {}).get("spec") or {}).get("containers") or ():
            container["resources"] = {"requests": {"cpu": "5000"}}
    return event


def test_a_node_that_kcp_would_not_have_taken_is_shown_with_the_reason(
    tmp_path: Path, lines: list[Json]
) -> None:
    place = incident_of(tmp_path, lines, too_large)
    found = inferred(place, "scheduler")
    assert found and {each.verdict for each in found} == {"other"}
    with Incident.open(place) as incident:
        text = "\n\n".join(told(incident, ["default-scheduler"]))
    assert "no node for pods/default/web-" in text and "NodeResourcesFit refuses it: Insufficient cpu" in text


def test_a_name_that_is_none_is_told(tmp_path: Path, lines: list[Json]) -> None:
    with pytest.raises(ValueError, match=r"there is no controller nobody; there are .*, default-scheduler"):
        inferred(incident_of(tmp_path, lines), "nobody")


@pytest.fixture(scope="module")
def lines() -> list[Json]:
    """The audit log of a cluster whose controllers are kcp's own: so each decision should be found to be the same."""
    return run_deterministic(_play, 5)


Change = Callable[[Json], Json | None]


def as_it_is(event: Json) -> Json:
    return event


def incident_of(tmp_path: Path, lines: list[Json], change: Change = as_it_is) -> Path:
    kept = [changed for changed in map(change, json.loads(json.dumps(lines))) if changed is not None]
    source = tmp_path / "audit.log"
    source.write_text("".join(json.dumps(event) + "\n" for event in kept))
    import_incident([source], str(tmp_path / "log"), clock=SystemClock())
    return tmp_path / "log"


def inferred(place: Path, *only: str) -> list[Inference]:
    with Incident.open(place) as incident:
        return list(infer(incident, only))


def test_kcps_own_decisions_are_found_to_be_its_own(tmp_path: Path, lines: list[Json]) -> None:
    found = inferred(incident_of(tmp_path, lines), *WORKLOADS)
    assert {each.controller for each in found} == set(WORKLOADS) and len(found) >= 8
    assert {each.verdict for each in found} <= {"same", "older"}
    assert sum(each.verdict == "same" for each in found) > len(found) / 2
    for each in found:
        assert each.earliest_rv <= each.latest_rv == each.writes[0].rv - 1
        assert each.guess.rv <= each.latest_rv


def test_each_write_is_in_one_decision(tmp_path: Path, lines: list[Json]) -> None:
    found = inferred(incident_of(tmp_path, lines))
    written = [event.rv for each in found for event in each.writes]
    assert len(written) == len(set(written)) > 20


def two_of_three(event: Json) -> Json | None:
    """A controller that made one pod more than its ReplicaSet asks for."""
    if event["objectRef"]["resource"] == "replicasets" and event["verb"] in ("create", "patch", "update"):
        for field in ("requestObject", "responseObject"):
            if event.get(field, {}).get("kind") == "ReplicaSet":
                event[field]["spec"]["replicas"] = 1
    return event


def test_what_kcp_would_not_have_done_is_shown(tmp_path: Path, lines: list[Json]) -> None:
    place = incident_of(tmp_path, lines, two_of_three)
    others = [each for each in inferred(place, "replicaset-controller") if each.verdict == "other"]
    assert others
    with Incident.open(place) as incident:
        text = "\n\n".join(told(incident, ["replicaset-controller"]))
    assert "nothing can be re-made" in text and "something else" in text
    assert "frontier  inferred: latest plausible rv" in text
    assert "kcp's controller would have decided" in text and "Delete pods/default/web-" in text
    assert "identical" not in text


def without_pods(event: Json) -> Json | None:
    if event["objectRef"]["resource"] == "pods":
        event.pop("requestObject", None)
        event.pop("responseObject", None)
    return event


def test_what_the_source_does_not_tell_is_no_difference(tmp_path: Path, lines: list[Json]) -> None:
    found = inferred(incident_of(tmp_path, lines, without_pods), "replicaset-controller")
    assert "other" not in {each.verdict for each in found}
    unclear = [each for each in found if each.verdict == "unclear"]
    assert unclear and all("the source " in each.guess.unclear for each in unclear)


@pytest.mark.parametrize(
    ("username", "agent"),
    [
        ("system:serviceaccount:kube-system:job-controller", "kube-controller-manager/v1.36.0"),
        ("system:kube-controller-manager", "kube-controller-manager/v1.36.0 (linux/amd64) kubernetes/3f9/job-controller"),
        ("system:kube-controller-manager", "kube-controller-manager/v1.36.0 (linux/amd64) kubernetes/3f9/system:serviceaccount:kube-system:job-controller"),
    ],
)  # fmt: skip
def test_a_controller_is_known_by_its_name_or_its_agent(username: str, agent: str) -> None:
    assert writer_of(Actor(username, user_agent=agent)) == "system:serviceaccount:kube-system:job-controller"


def test_the_command_tells_it_and_claims_nothing(tmp_path: Path, lines: list[Json]) -> None:
    place = incident_of(tmp_path, lines)
    done = CliRunner().invoke(kcp, ["replay", str(place)])
    assert done.exit_code == 0, done.output
    assert done.output.startswith(
        "This log was imported (audit log): nobody recorded how its changes were decided"
    )
    assert "kcp would have decided the same" in done.output and "identical" not in done.output


def test_a_log_of_kcp_is_not_inferred(tmp_path: Path) -> None:
    from kcp.replay.exploration import Scenario

    file = tmp_path / "own.kcp"
    Scenario(4, minutes=1).run(file)
    with Incident.open(file) as incident:
        assert imported_from(incident) == "" and list(told(incident)) == []
