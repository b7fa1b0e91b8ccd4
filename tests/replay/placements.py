"""A log of pods that were scheduled, refused, preempted and deleted, written by a control plane of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio

from kcp.apis.semantics.facts import FACTS
from kcp.base.clock import LoopClock
from kcp.base.entropy import SeededEntropy
from kcp.base.loop import run_deterministic
from kcp.client.client import Client
from kcp.controlplane.cluster import ADMIN, Cluster, ClusterOptions
from kcp.store.facts import projections
from kcp.store.open import open_store
from tests.scheduler.harness import node, pod

Json = dict[str, Any]
TAINT = {"key": "team", "value": "red", "effect": "NoSchedule"}
CLASSES = "priorityclasses.scheduling.k8s.io"
HIGH: Json = {
    "apiVersion": "scheduling.k8s.io/v1",
    "kind": "PriorityClass",
    "metadata": {"name": "high"},
    "value": 1000,
}
SETTLED_S = 3.0
"""Decisions are in the file a second after they were taken at the latest."""


def write_log(file: Path) -> None:
    """Nodes a, b (4 cpu), small (500m), red (tainted); later all that is there is deleted.

    web goes to a or b, fits-one (3900m) to the other one, big (64 cpu) nowhere; vip (3500m) preempts one of them and takes
    its place. last is never decided on: gated.
    """

    async def story(client: Client) -> None:
        for name, cpu in (("a", "4"), ("b", "4"), ("red", "4"), ("small", "500m")):
            await client.create("nodes", node(name, allocatable={"cpu": cpu}))
            taints = [TAINT] if name == "red" else None
            await client.patch("nodes", name, {"spec": {"taints": taints}}, "merge")
        await client.create(CLASSES, HIGH)
        await client.create("pods", pod("last", schedulingGates=[{"name": "wait"}]), "default")
        for name, cpu in (("web", "1"), ("fits-one", "3900m"), ("big", "64")):
            await client.create("pods", pod(name, cpu=cpu), "default")
            await anyio.sleep(SETTLED_S)
        await client.create("pods", pod("vip", cpu="3500m", priorityClassName="high"), "default")
        await anyio.sleep(SETTLED_S)
        for name in ("web", "fits-one"):
            await client.delete("pods", name, "default", grace_s=0)
        await anyio.sleep(SETTLED_S)
        for name in ("vip", "big", "last"):
            await client.delete("pods", name, "default", grace_s=0)
        for name in ("a", "b", "red", "small"):
            await client.delete("nodes", name)
        await anyio.sleep(SETTLED_S)

    record(file, story, ClusterOptions(controllers=()))


def record(file: Path, story: Callable[[Client], Awaitable[None]], options: ClusterOptions) -> None:
    """Write the log of a cluster in virtual time in which the administrator does what `story` says."""
    run_deterministic(lambda: _play(file, story, options), 1)


async def _play(file: Path, story: Callable[[Client], Awaitable[None]], options: ClusterOptions) -> None:
    clock, entropy = LoopClock(), SeededEntropy(1)
    store = open_store(
        file, clock=clock, inline=True, entropy=entropy.stream("store"), projections=projections(FACTS)
    )
    cluster = Cluster.build(store, clock, entropy, options)
    async with anyio.create_task_group() as group:
        await group.start(cluster.run)
        client = cluster.client(ADMIN)
        if not options.controllers:
            account: Json = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
            await client.create("serviceaccounts", account, "default")
        await story(client)
        group.cancel_scope.cancel()
