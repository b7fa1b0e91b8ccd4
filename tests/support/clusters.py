"""A whole control plane for one test, in virtual time, and what it must never do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from kcp.base.clock import Clock, LoopClock
from kcp.base.entropy import SeededEntropy
from kcp.base.loop import run_deterministic
from kcp.client.client import Client
from kcp.controlplane.cluster import ADMIN, Cluster, ClusterOptions
from kcp.machinery import meta
from kcp.store.open import open_store

Json = dict[str, Any]
Build = Callable[[ClusterOptions], Cluster]


def in_cluster(test: Callable[[Cluster, Client], Awaitable[None]], seed: int = 1, **options: Any) -> None:
    """Run `test` against a cluster of its own; afterwards no controller may have been refused anything."""

    async def run(clock: Clock, build: Build) -> None:
        cluster = build(ClusterOptions(**options))
        async with anyio.create_task_group() as group:
            await group.start(cluster.run)
            await test(cluster, cluster.client(ADMIN))
            group.cancel_scope.cancel()

    in_world(run, seed)


def in_world(run: Callable[[Clock, Build], Awaitable[None]], seed: int = 1) -> None:
    """Run `run` on a deterministic loop; it builds and starts its cluster itself. No controller may be refused."""
    decisions: list[Any] = []

    async def main() -> None:
        clock, entropy = LoopClock(), SeededEntropy(seed)
        store = open_store("memory:", clock=clock, inline=True, entropy=entropy.stream("store"))
        record = store.record

        def note(entry: Any) -> None:
            decisions.append(entry)
            record(entry)

        store.record = note  # type: ignore[method-assign]
        await run(clock, lambda options: Cluster.build(store, clock, entropy, options))

    run_deterministic(main, seed)
    assert refusals(decisions) == []


def refusals(decisions: list[Any]) -> list[str]:
    """Effects that the API forbade, and planners that raised."""
    found = []
    for decision in decisions:
        for effect in _flat(getattr(decision, "effects", ())):
            if effect.get("outcome") == "Forbidden" or effect["kind"] == "Exception":
                found.append(f"{decision.controller} {decision.key}: {effect}")
    return found


def _flat(effects: Any) -> list[Json]:
    flat: list[Json] = []
    for effect in effects:
        flat += _flat(effect["effects"]) if effect["kind"] == "All" else [effect]
    return flat


async def until(check: Callable[[], Awaitable[Any]], timeout_s: float = 60.0) -> Any:
    """The first true answer of `check`, asked ten times a second."""
    with anyio.fail_after(timeout_s):
        while True:
            answer = await check()
            if answer:
                return answer
            await anyio.sleep(0.1)


async def names(client: Client, resource: str, namespace: str = "") -> list[str]:
    return [meta.name(obj) for obj in (await client.list(resource, namespace)).items]
