"""Gangs, tenants and the guard in a log: every decision of theirs is made again from the file alone, and explained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner

from kcp.cli.explain import command as explain
from kcp.client.client import Client
from kcp.controlplane.cluster import ClusterOptions
from kcp.replay.explaining import explain_pod
from kcp.replay.incident import Incident
from kcp.replay.placement import remake_placement
from kcp.replay.run import remake_all
from kcp.scheduler.profiles import API_VERSION, Configuration, parse_configuration
from tests.replay.placements import CLASSES, HIGH, record
from tests.scheduler.harness import node, pod

Json = dict[str, Any]


def configuration() -> Configuration:
    names = ("GangScheduling", "TenantQueue", "NodeFailureGuard")
    plugins = {"enabled": [{"name": name} for name in names], "disabled": [{"name": "PrioritySort"}]}
    queues = [{"name": "limited", "namespaces": ["default"], "capability": {"cpu": "6"}}]
    profile = {
        "plugins": {"multiPoint": plugins},
        "pluginConfig": [
            {"name": "TenantQueue", "args": {"queues": queues}},
            {"name": "NodeFailureGuard", "args": {"suspectWorkloads": 1}},
        ],
    }
    document = {"apiVersion": API_VERSION, "kind": "KubeSchedulerConfiguration", "profiles": [profile]}
    return parse_configuration(document)


async def group(client: Client, name: str, minimum: int, members: int, **spec: Any) -> None:
    gang = {"schedulingPolicy": {"gang": {"minCount": minimum}}}
    kind = {"apiVersion": "scheduling.k8s.io/v1alpha2", "kind": "PodGroup"}
    await client.create(
        "podgroups.scheduling.k8s.io", {**kind, "metadata": {"name": name}, "spec": gang}, "default"
    )
    for number in range(members):
        obj = pod(f"{name}-{number}", cpu="1", schedulingGroup={"podGroupName": name}, **spec)
        await client.create("pods", obj, "default")


async def story(client: Client) -> None:
    """fits is bound, large does not fit, few lacks a pod; vip's victims are those of fits. A node fails a pod meanwhile."""
    for name in ("a", "b"):
        await client.create("nodes", node(name, allocatable={"cpu": "2"}))
        await client.patch("nodes", name, {"spec": {"taints": None}}, "merge")
    await client.create(CLASSES, HIGH)
    await group(client, "fits", 2, 2)
    await anyio.sleep(3)
    await group(client, "large", 3, 3)
    await group(client, "few", 2, 1)
    await anyio.sleep(10)
    waiting = {"name": "main", "image": "x:1", "imageID": "", "ready": False, "restartCount": 0}
    status = {"containerStatuses": [{**waiting, "state": {"waiting": {"reason": "ErrImagePull"}}}]}
    await client.patch("pods", "fits-0", {"status": status}, "merge", "default", subresource="status")
    await group(client, "vip", 4, 4, priorityClassName="high")
    await anyio.sleep(3)
    for name in ("fits-0", "fits-1"):
        await client.delete("pods", name, "default", grace_s=0)
    await anyio.sleep(10)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gangs") / "log.kcp"
    record(file, story, ClusterOptions(controllers=(), scheduler_configuration=configuration()))
    return file


@pytest.fixture(scope="module")
def incident(log: Path) -> Iterator[Incident]:
    with Incident.open(str(log)) as opened:
        yield opened


def test_every_decision_is_made_again_one_after_the_other_and_each_alone(incident: Incident) -> None:
    results = list(remake_all(incident))
    assert results and all(result.identical and not result.code_changed for result in results)
    rows = [result.decision for result in results]
    assert {(row.effects[0]["kind"], row.effects[0].get("gang", "")) for row in rows} >= {
        ("Bind", "default/fits"), ("Wait", "default/large"), ("Status", "default/large"),
        ("Preempt", "default/vip"), ("Wait", "default/vip"), ("Bind", "default/vip"),
    }  # fmt: skip
    assert any("guard" in row.effects[0] for row in rows)
    assert all(remake_placement(incident, row.id).identical for row in rows)


def test_a_pod_says_what_its_gang_waits_for(log: Path, incident: Incident) -> None:
    def text(name: str, *options: str) -> str:
        done = CliRunner().invoke(explain, ["pod", name, "--data", str(log), *options])
        assert done.exit_code == 0, done.output
        return done.output

    few = explain_pod(incident, "default/few-0")
    assert few.kept_out == "waiting for minCount pods from a gang to appear in scheduling queue"
    assert f"is kept out of the queue: {few.kept_out}. If it were not, " in text("few-0")
    assert "bound to" in text("vip-0")
    first = next(r for r in incident.decisions_of("default-scheduler") if r[0].key == "default/large-0")
    said = text("large-0", "--at", str(max(first[1].values())))
    assert "waits, though it would go to " in said
    assert "its gang default/large does not fit as a whole" in said
