"""A control plane with a scheduler and no nodes but those a test makes, on the deterministic loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import attrs
from anyio.abc import TaskGroup

from kcp.base.clock import Clock, LoopClock, SystemClock
from kcp.base.entropy import SeededEntropy
from kcp.base.loop import run_deterministic
from kcp.client.cache.shared_informer import InformerFactory
from kcp.client.client import Client
from kcp.client.recorder import EventRecorder
from kcp.controlplane.cluster import ADMIN, SCHEDULER, Cluster, ClusterOptions
from kcp.machinery import meta
from kcp.scheduler.profiles import Configuration
from kcp.scheduler.rows import Decided
from kcp.scheduler.scheduler import Scheduler
from kcp.store.open import open_store

Json = dict[str, Any]


@attrs.define
class Written:
    """A sink that also keeps the rows for the test to read."""

    inner: Any
    rows: list[Decided] = attrs.field(factory=list)

    def next_id(self) -> int:
        return int(self.inner.next_id())

    def record(self, decided: Any) -> None:
        self.rows.append(decided)
        self.inner.record(decided)


@attrs.define
class Bench:
    """What a test holds in its hands."""

    cluster: Cluster
    client: Client
    scheduler: Scheduler
    sink: Written
    group: TaskGroup
    running: anyio.CancelScope = attrs.field(factory=anyio.CancelScope)

    async def run(self) -> None:
        with self.running:
            await self.scheduler.run()

    def restart(self) -> None:
        """Cut the scheduler off where it stands and run it again."""
        self.running.cancel()
        self.running = anyio.CancelScope()
        self.group.start_soon(self.run)

    async def node(self, name: str, *, taints: list[Json] | None = None, **allocatable: str) -> None:
        """A node that is ready: without the taint that admission gives to new ones."""
        await self.client.create("nodes", node(name, allocatable=allocatable))
        await self.client.patch("nodes", name, {"spec": {"taints": taints or None}}, "merge")

    async def pod(self, name: str, **spec: Any) -> Json:
        return (await self.client.create("pods", pod(name, **spec), "default")).object or {}

    async def get(self, name: str) -> Json:
        return await self.client.get("pods", name, "default")

    async def node_of(self, name: str) -> str:
        return str((await self.get(name))["spec"].get("nodeName", ""))

    async def events(self, reason: str) -> list[str]:
        page = await self.client.list("events.events.k8s.io", "default")
        return [e["note"] for e in page.items if e["reason"] == reason]


def node(
    name: str,
    *,
    taints: list[Json] | None = None,
    labels: Json | None = None,
    allocatable: dict[str, str] | None = None,
) -> Json:
    amounts = {"cpu": "4", "memory": "32Gi", "pods": "110", **(allocatable or {})}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "spec": {"taints": taints} if taints else {},
        "status": {"capacity": amounts, "allocatable": amounts},
    }


def pod(
    name: str, *, cpu: str = "100m", memory: str = "100Mi", labels: Json | None = None, **spec: Any
) -> Json:
    container = {"name": "main", "image": "x:1", "resources": {"requests": {"cpu": cpu, "memory": memory}}}
    metadata: Json = {"name": name, "namespace": "default"}
    if labels:
        metadata["labels"] = labels
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [container], "automountServiceAccountToken": False, **spec},
    }


def scheduled(
    test: Callable[[Bench], Awaitable[None]], seed: int = 1, configuration: Configuration | None = None
) -> Bench:
    """Run `test` beside a scheduler, in virtual time; returns the bench as the test left it."""
    made: list[Bench] = []

    async def main() -> None:
        clock = LoopClock()
        made.append(await _beside_scheduler(test, clock, seed, configuration, inline=True))

    run_deterministic(main, seed)
    return made[0]


async def scheduled_in_real_time(
    test: Callable[[Bench], Awaitable[None]], configuration: Configuration, timeout_s: float = 30
) -> Bench:
    """As `scheduled`, with sockets: for what talks to somebody outside."""
    with anyio.fail_after(timeout_s):
        return await _beside_scheduler(test, SystemClock(), 1, configuration, inline=False)


async def _beside_scheduler(
    test: Callable[[Bench], Awaitable[None]],
    clock: Clock,
    seed: int,
    configuration: Configuration | None,
    *,
    inline: bool,
) -> Bench:
    entropy = SeededEntropy(seed)
    store = open_store("memory:", clock=clock, inline=inline, entropy=entropy.stream("store"))
    options = ClusterOptions(
        controllers=(), scheduler=False, scheduler_configuration=configuration or Configuration()
    )
    cluster = Cluster.build(store, clock, entropy, options)
    async with anyio.create_task_group() as group:
        await group.start(cluster.run)
        bench = await _start(cluster, group, seed, configuration)
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        await bench.client.create("serviceaccounts", account, "default")
        await test(bench)
        group.cancel_scope.cancel()
    return bench


async def _start(cluster: Cluster, group: Any, seed: int, configuration: Configuration | None) -> Bench:
    client = cluster.client(SCHEDULER, "kube-scheduler")
    entropy = cluster.entropy.stream("scheduler")
    informers = InformerFactory(client, clock=cluster.clock, entropy=entropy)
    recorder = EventRecorder(
        client, "default-scheduler", form="events.k8s.io", clock=cluster.clock, entropy=entropy
    )
    sink = Written(cluster.sink)
    scheduler = Scheduler(
        client,
        informers,
        cluster.clock,
        sink,
        recorder.event,  # type: ignore[arg-type]
        seed=seed,
        configuration=configuration or Configuration(),
    )
    bench = Bench(cluster, cluster.client(ADMIN), scheduler, sink, group)
    for run in (informers.run, recorder.run, bench.run):
        group.start_soon(run)
    return bench


def condition(obj: Json) -> tuple[str, str, str]:
    found = meta.condition(obj, "PodScheduled") or {}
    return found.get("status", ""), found.get("reason", ""), found.get("message", "")
