"""A log in which small pods lie about so that a large one finds no room: three nodes of 4 cpu, six pods of 1, one of 3."""

from __future__ import annotations

from pathlib import Path

import anyio

from kcp.client.client import Client
from kcp.controlplane.cluster import ClusterOptions
from kcp.replay.incident import Incident
from tests.replay.placements import record
from tests.scheduler.harness import node, pod


def write_log(file: Path) -> None:
    """web-1 to web-6 end up in pairs on n1, n2 and n3; big, ten seconds later, waits."""

    async def story(client: Client) -> None:
        for name in ("n1", "n2", "n3"):
            await client.create("nodes", node(name))
            await client.patch("nodes", name, {"spec": {"taints": None}}, "merge")
        for number in range(1, 7):
            await client.create("pods", pod(f"web-{number}", cpu="1", memory="1Gi"), "default")
            await anyio.sleep(1)
        await anyio.sleep(4)
        await client.create("pods", pod("big", cpu="3", memory="3Gi"), "default")
        await anyio.sleep(10)

    record(file, story, ClusterOptions(controllers=()))


def bound_at(file: Path, name: str) -> int:
    """The revision that put a pod of that log onto a node."""
    with Incident.open(file) as incident:
        steps = [step for step in incident.log.steps["pods"] if step.key == f"default/{name}"]
    return next(
        step.rv for step in steps if step.record is not None and step.record.value["spec"].get("nodeName")
    )
