"""A cluster on the running loop, without sockets and without files.

    async def main() -> None:
        async with cluster(nodes=3) as it:
            await it.client.create("pods", pod, "default")
            await it.wait_for(lambda: running(it.client))

On the loop of `run_deterministic` time is virtual (an hour of idle nodes takes about a second) and the same seed gives the
same run; on any other loop it is real.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import anyio

from kcp.base.clock import Clock, LoopClock, SystemClock
from kcp.base.entropy import Entropy, SeededEntropy, SystemEntropy
from kcp.base.loop import DetLoop
from kcp.base.values import frozen
from kcp.client.client import Client
from kcp.controlplane.cluster import ADMIN, Cluster, ClusterOptions
from kcp.machinery.errors import NotFound
from kcp.store.open import open_store
from kcp.testing.readiness import logs_to_logging, wait_until_usable

T = TypeVar("T")

WAIT_S = 30.0
_PAUSE_S = 0.02


@frozen
class InProcessCluster:
    """What `cluster` gives. `client` is the administrator's; what it answers is shared and read-only."""

    client: Client
    parts: Cluster
    clock: Clock

    async def wait_for(self, condition: Callable[[], Awaitable[T]], timeout_s: float = WAIT_S) -> T:
        """The first true answer of `condition`; NotFound counts as not yet. Raises TimeoutError."""
        with anyio.fail_after(timeout_s):
            while True:
                with suppress(NotFound):
                    answer = await condition()
                    if answer:
                        return answer
                await anyio.sleep(_PAUSE_S)


@asynccontextmanager
async def cluster(*, nodes: int = 1, seed: int = 1) -> AsyncIterator[InProcessCluster]:
    """A whole control plane with that many simulated nodes, all Ready. `seed` counts in virtual time only."""
    virtual = isinstance(asyncio.get_running_loop(), DetLoop)
    clock: Clock = LoopClock() if virtual else SystemClock()
    entropy: Entropy = SeededEntropy(seed) if virtual else SystemEntropy()
    store = open_store("memory:", clock=clock, inline=virtual, entropy=entropy.stream("store"))
    failure: Exception | None = None
    with logs_to_logging():
        parts = Cluster.build(store, clock, entropy, ClusterOptions(nodes=nodes))
        client = parts.client(ADMIN, "kcp-testing")
        async with anyio.create_task_group() as group:
            await group.start(parts.run)
            await wait_until_usable(client, nodes)
            try:
                yield InProcessCluster(client, parts, clock)
            except Exception as error:  # noqa: BLE001 the test's own: raised as it is, not in a group
                failure = error
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure
