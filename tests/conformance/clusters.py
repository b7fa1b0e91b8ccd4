"""The clusters that scenarios run on, in virtual time: a fresh one for one scenario, or one that stands for many."""

from __future__ import annotations

import functools
from asyncio import Runner, Task, create_task
from collections.abc import Awaitable, Callable
from types import TracebackType

import anyio
import attrs
from cryptography.hazmat.primitives.serialization import Encoding

from kcp.base.certs import Authority, load_certificate
from kcp.base.clock import LoopClock, VirtualClock
from kcp.base.entropy import SeededEntropy
from kcp.base.loop import DetLoop, run_deterministic
from kcp.controllers.sources import Controller
from kcp.controllers.table import CONTROLLERS
from kcp.controlplane.cluster import Cluster, ClusterOptions
from kcp.store.open import open_store
from tests.conformance.door import Door

Scenario = Callable[[Door], Awaitable[None]]
STANDING_NODES = 3


@functools.cache
def _identities() -> tuple[Authority, bytes]:
    """An authority, and the certificate (DER) of an administrator that it signed."""
    authority = Authority.create("conformance", VirtualClock(), SeededEntropy(1))
    pem, _ = authority.issue("kubernetes-admin", ["kubeadm:cluster-admins"])
    return authority, load_certificate(pem).public_bytes(Encoding.DER)


def _build(options: ClusterOptions) -> Cluster:
    clock, entropy = LoopClock(), SeededEntropy(1)
    store = open_store("memory:", clock=clock, inline=True, entropy=entropy.stream("store"))
    authority, _ = _identities()
    known = attrs.evolve(options, client_ca_pem=authority.certificate_pem, authority=authority)
    return Cluster.build(store, clock, entropy, known)


async def _play(cluster: Cluster, scenario: Scenario, *, clean: bool = False) -> None:
    """Run the scenario with watches of its own; its failure is raised as it is, not in a group."""
    failure: Exception | None = None
    async with anyio.create_task_group() as group:
        door = Door(cluster, _identities()[1], group)
        try:
            await scenario(door)
        except Exception as error:  # noqa: BLE001 - raised below
            failure = error
        if clean:
            for namespace in door.namespaces:
                await door.ask("DELETE", f"/api/v1/namespaces/{namespace}")
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure


def ask_cluster(scenario: Scenario, controllers: tuple[Controller, ...] = (), nodes: int = 0) -> None:
    """Run a scenario against a fresh control plane. With nodes it has a scheduler and every controller."""
    options = ClusterOptions(controllers=controllers, scheduler=False)
    if nodes:
        options = ClusterOptions(nodes=nodes, controllers=CONTROLLERS)

    async def main() -> None:
        cluster = _build(options)
        failure: Exception | None = None
        async with anyio.create_task_group() as group:
            await group.start(cluster.run)
            try:
                await _play(cluster, scenario)
            except Exception as error:  # noqa: BLE001 - raised below
                failure = error
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure

    run_deterministic(main, 1)


class StandingCluster:
    """A whole cluster with nodes whose loop goes on only while a scenario runs.

    with StandingCluster() as cluster:
        cluster.run(scenario)
        cluster.run(another)        # hours later, if the first one took hours
    """

    def __init__(self) -> None:
        self._runner = Runner(loop_factory=lambda: DetLoop(1))
        self._host: Task[None] | None = None
        self._cluster: Cluster | None = None
        self._end: anyio.Event | None = None

    def __enter__(self) -> StandingCluster:
        self._runner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._host is not None:
            self._runner.run(self._stop(self._host))
        self._runner.__exit__(kind, error, trace)

    def run(self, scenario: Scenario) -> None:
        """The cluster starts with the first one."""
        if self._host is None:
            self._host = self._runner.run(self._start())
        assert self._cluster is not None and not self._host.done(), self._host
        self._runner.run(_play(self._cluster, scenario, clean=True))

    async def _start(self) -> Task[None]:
        self._cluster = _build(ClusterOptions(nodes=STANDING_NODES, node_cpu="64", node_memory="256Gi"))
        ready, self._end = anyio.Event(), anyio.Event()
        host = create_task(self._hold(self._cluster, ready, self._end))
        await ready.wait()
        return host

    async def _hold(self, cluster: Cluster, ready: anyio.Event, end: anyio.Event) -> None:
        async with anyio.create_task_group() as group:
            await group.start(cluster.run)
            ready.set()
            await end.wait()
            group.cancel_scope.cancel()

    async def _stop(self, host: Task[None]) -> None:
        assert self._end is not None
        self._end.set()
        await host
