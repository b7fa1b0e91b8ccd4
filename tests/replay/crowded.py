"""A log of a cluster that is too small: Deployments and Jobs, preemption, a node that goes, pods that wait and get room later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio

from kcp.client.client import Client
from kcp.controlplane.cluster import ClusterOptions
from tests.replay.placements import CLASSES, HIGH, record

Json = dict[str, Any]
OPTIONS = ClusterOptions(nodes=4, node_cpu="4")


def write_log(file: Path) -> None:
    """Four nodes of 4 cpu. `low` has ten pods of 1 cpu, `batch` six runs of 20 s of 500m; `high` (eight of 1 cpu) evicts some of
    `low` after 30 s; node-4 is deleted after 60 s, `low` shrinks after 90 s.
    """

    async def story(client: Client) -> None:
        await client.create(CLASSES, HIGH)
        await client.create("deployments.apps", deployment("low", 10, "1"), "default")
        await anyio.sleep(10)
        await client.create("jobs.batch", job("batch", 6, "sleep 20", "500m"), "default")
        await anyio.sleep(20)
        await client.create(
            "deployments.apps", deployment("high", 8, "1", priorityClassName="high"), "default"
        )
        await anyio.sleep(30)
        await client.delete("nodes", "node-4")
        await anyio.sleep(30)
        await client.patch("deployments.apps", "low", {"spec": {"replicas": 4}}, "merge", "default")
        await anyio.sleep(30)

    record(file, story, OPTIONS)


def deployment(name: str, replicas: int, cpu: str, **spec: Any) -> Json:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": _pod(cpu, **spec)}
    wanted = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": wanted}


def job(name: str, runs: int, command: str, cpu: str) -> Json:
    template = {"spec": _pod(cpu, command=["sh", "-c", command], restartPolicy="Never")}
    wanted = {"completions": runs, "parallelism": runs, "template": template}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": wanted}


def _pod(cpu: str, command: list[str] | None = None, **spec: Any) -> Json:
    container: Json = {
        "name": "main",
        "image": "app:1",
        "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}},
    }
    if command:
        container["command"] = command
    return {"containers": [container], "terminationGracePeriodSeconds": 2, **spec}
