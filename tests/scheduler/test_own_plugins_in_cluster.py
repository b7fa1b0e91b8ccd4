"""Gangs and tenants in a whole control plane: controllers make the pods of the examples, simulated nodes run them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import yaml

from kcp.client.client import Client
from kcp.controlplane.cluster import Cluster
from kcp.scheduler.profiles import Configuration, read_configuration
from tests.support.clusters import in_cluster, until

Json = dict[str, Any]
EXAMPLES = Path(__file__).parents[2] / "examples"
RESOURCES = {
    "PodGroup": "podgroups.scheduling.k8s.io",
    "Job": "jobs.batch",
    "Deployment": "deployments.apps",
    "Namespace": "namespaces",
}


def configured(folder: str) -> Configuration:
    return read_configuration(str(EXAMPLES / folder / "scheduler.yaml"))


async def apply(client: Client, file: str) -> None:
    for document in yaml.safe_load_all((EXAMPLES / file).read_text(encoding="utf-8")):
        kind, metadata = document["kind"], document["metadata"]
        namespace = "" if kind == "Namespace" else metadata.get("namespace", "default")
        await client.create(RESOURCES[kind], document, namespace)


async def running(client: Client, namespace: str) -> int:
    found = (await client.list("pods", namespace)).items
    return sum(1 for p in found if p["spec"].get("nodeName") and "deletionTimestamp" not in p["metadata"])


def test_the_training_job_starts_when_all_four_workers_can() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        await apply(client, "gang/training.yaml")
        await anyio.sleep(20)
        assert await running(client, "default") == 0, "three workers would have room"
        group = await client.get("podgroups.scheduling.k8s.io", "training", "default")
        (says,) = group["status"]["conditions"]
        assert says["message"] == "minCount (4) cannot be satisfied: 3 scheduled, 0 remaining"
        nodes = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "more"}}
        amounts = {"cpu": "2", "memory": "8Gi", "pods": "10"}
        await client.create("nodes", {**nodes, "status": {"capacity": amounts, "allocatable": amounts}})
        await client.patch("nodes", "more", {"spec": {"taints": None}}, "merge")
        await until(lambda: _count(client, 4))

    in_cluster(check, nodes=3, node_cpu="2", scheduler_configuration=configured("gang"))


async def _count(client: Client, wanted: int) -> bool:
    return (
        len([p for p in (await client.list("pods", "default")).items if p["spec"].get("nodeName")]) == wanted
    )


def test_a_deployment_names_its_group_by_label() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        await apply(client, "gang/coscheduling.yaml")
        await until(lambda: _count(client, 2))
        await anyio.sleep(1)
        (group,) = (await client.list("podgroups.scheduling.k8s.io", "default")).items
        assert [c["status"] for c in group["status"]["conditions"]] == ["True"]

    in_cluster(check, nodes=2, scheduler_configuration=configured("gang"))


def test_research_borrows_and_serving_takes_back_what_is_its_due() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        await apply(client, "tenants/workloads.yaml")
        await anyio.sleep(10)
        assert await running(client, "research") == 6
        await apply(client, "tenants/serving.yaml")
        await anyio.sleep(60)
        assert (await running(client, "research"), await running(client, "serving")) == (4, 4)
        await client.delete("deployments.apps", "frontend", "serving")
        await anyio.sleep(60)
        assert (await running(client, "research"), await running(client, "serving")) == (6, 0)

    in_cluster(check, nodes=2, scheduler_configuration=configured("tenants"))


def test_the_guards_example_is_a_configuration() -> None:
    file = EXAMPLES / "scheduler-plugins/node-failure-guard.yaml"
    (profile,) = read_configuration(str(file)).profiles
    assert ("NodeFailureGuard", 10) in profile.scores


# --- a pod that takes its node down ---

BOMB: Json = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "bomb"},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "bomb"}},
        "template": {
            "metadata": {"labels": {"app": "bomb"}},
            "spec": {
                "containers": [{"name": "main", "image": "registry.example.com/bomb:1"}],
                "tolerations": [
                    {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
                    for key in ("node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready")
                ],
            },
        },
    },
}


async def bombed(cluster: Cluster, client: Client) -> tuple[list[str], list[Json]]:
    """Ten minutes in which a node goes down whenever the bomb has run on it for twenty seconds: (nodes, the bomb's pods)."""
    assert cluster.fleet is not None
    await client.create("deployments.apps", BOMB, "default")
    dead: list[str] = []
    for _ in range(30):
        await anyio.sleep(20)
        for found in (await client.list("pods", "default")).items:
            node = found["spec"].get("nodeName")
            if found["status"].get("phase") == "Running" and node not in dead:
                cluster.fleet.power_off_node(node)
                dead.append(node)
    return dead, list((await client.list("pods", "default")).items)


def test_a_deployment_that_takes_down_node_after_node_is_held() -> None:
    """Heartbeats stop, the node is not ready, the pod is evicted, another one made: until the second node is lost."""

    async def check(cluster: Cluster, client: Client) -> None:
        dead, pods = await bombed(cluster, client)
        assert len(dead) == 2
        (waiting,) = [p for p in pods if not p["spec"].get("nodeName")]
        says = next(c for c in waiting["status"]["conditions"] if c["type"] == "PodScheduled")
        assert says["message"] == f"workload killed nodes {dead[0]}, {dead[1]}: rescheduling held"

    guard = read_configuration(str(EXAMPLES / "scheduler-plugins/node-failure-guard.yaml"))
    in_cluster(check, nodes=4, scheduler_configuration=guard)


def test_without_the_guard_it_goes_on() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        dead, _ = await bombed(cluster, client)
        assert len(dead) > 2, "until so many nodes are gone that nobody is evicted any more"

    in_cluster(check, nodes=4)
