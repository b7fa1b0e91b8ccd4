"""What a component has around it that runs apart from the API server: connections, its turn, probes, an orderly end.

    await run(ComponentSettings("kube-scheduler", kubeconfig="kubeconfig"), lead)

`lead` gets a `Component` with everything it needs and runs until it is cancelled: when the turn is over, when a signal
comes. Nothing here needs what only our API server has; where it is ours, a leader's writes are fenced by its Lease.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import attrs
import structlog
from anyio.abc import TaskStatus

from kcp.base.backoff import Backoff
from kcp.base.clock import Clock, SystemClock
from kcp.base.entropy import Entropy, SystemEntropy
from kcp.base.metrics import Metrics
from kcp.base.tasks import restart_with_backoff
from kcp.base.values import frozen
from kcp.client import kubeconfig
from kcp.client.client import Client
from kcp.client.credentials import Credentials
from kcp.client.kubeconfig import Kubeconfig
from kcp.client.leader_election import LeaderElector, Timing
from kcp.client.mapper import DiscoveryMapper
from kcp.client.transport import Transport
from kcp.controllers.decisions import Decided
from kcp.controlplane.election import identity
from kcp.controlplane.probes import Door, Reviewer, serve_door
from kcp.controlplane.sink import LogSink
from kcp.machinery.errors import Conflict
from kcp.machinery.fence import LeaseFence
from kcp.store.open import open_store

log = structlog.get_logger()

KUBERNETES = "v1.36.0"
LATE_S = 20.0
"""How long after its Lease has run out a leader that still leads counts as sick."""


@frozen
class ComponentSettings:
    """One process. `lease` is the Lease that it stands for, and "" stands for none: it just runs."""

    name: str
    kubeconfig: str = ""
    """Empty: the pod that this runs in."""
    context: str = ""
    lease: str = ""
    lease_namespace: str = "kube-system"
    timing: Timing = attrs.field(factory=Timing)
    identity: str = ""
    bind_address: str = "127.0.0.1"
    secure_port: int = 0
    """Where probes and metrics are served; 0: nowhere."""
    tls_cert_file: str = ""
    tls_private_key_file: str = ""
    record: str = ""
    """A log of its own for the decisions; empty: they are not written down."""


@attrs.define
class Connections:
    """To one API server, one transport per identity; closed together."""

    config: Kubeconfig
    component: str
    clock: Clock
    mapper: DiscoveryMapper = attrs.field(init=False)
    _context: str = ""
    _transports: dict[str, Transport] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.mapper = DiscoveryMapper(self.transport(), self.clock)

    def transport(self, part: str = "", credentials: Credentials | None = None) -> Transport:
        """The transport of a part of the component; the first call says with which credentials."""
        found = self._transports.get(part)
        if found is None:
            agent = f"{self.component}/{KUBERNETES} (kcp)"
            found = self._transports[part] = kubeconfig.connect(
                self.config,
                context=self._context,
                clock=self.clock,
                user_agent=f"{agent} {part}" if part else agent,
                credentials=credentials,
            )
        return found

    def client(
        self,
        part: str = "",
        credentials: Credentials | None = None,
        fence: Callable[[], LeaseFence | None] | None = None,
    ) -> Client:
        return Client(self.transport(part, credentials), self.mapper, fence=fence)

    async def close(self) -> None:
        for transport in self._transports.values():
            await transport.close()


@attrs.define
class Claim:
    """A leader's claim for as long as it may write. Raises Conflict from then on, so that nothing late leaves here.

    Whether it is late is judged by the Lease as this process last saw it renewed, before it can have heard that another
    one leads: a process that was stopped and goes on finds its Lease run out.
    """

    elector: LeaderElector

    def __call__(self) -> LeaseFence:
        claim = self.elector.fence()
        if claim is None or self.elector.expires_in_s() <= 0:
            text = "this process does not lead any more"
            error = Conflict.of("coordination.k8s.io", "leases", self.elector.name, text)
            error.details["causes"] = [{"reason": "LeaseFenced", "message": text}]
            raise error
        return claim


@attrs.define
class CountedSink:
    """Decisions are numbered and forgotten."""

    _last: int = 0

    def next_id(self) -> int:
        self._last += 1
        return self._last

    def record(self, decided: Decided) -> None:
        del decided


@frozen
class Component:
    """What `lead` works with during one turn."""

    settings: ComponentSettings
    connections: Connections
    clock: Clock
    entropy: Entropy
    sink: LogSink | CountedSink
    metrics: Metrics
    door: Door
    fence: Callable[[], LeaseFence] | None = None
    epoch: int = 0

    async def forever(self, name: str, run: Callable[[], Awaitable[Any]]) -> None:
        """A part that crashes is restarted alone, with backoff."""
        await restart_with_backoff(name, run, backoff=Backoff(0.2, 2.0, 30.0), clock=self.clock)


Lead = Callable[[Component], Awaitable[None]]


def configuration(settings: ComponentSettings) -> Kubeconfig:
    """Raises KubeconfigError."""
    if settings.kubeconfig:
        return kubeconfig.load([Path(part) for part in settings.kubeconfig.split(":") if part])
    return kubeconfig.in_cluster()


async def run(settings: ComponentSettings, lead: Lead, on_ready: Callable[[str], None]) -> None:
    """Run until SIGINT or SIGTERM; a Lease that is held is given back. `on_ready` gets what to tell a person.

    Raises KubeconfigError, ListenError or StoreError when it cannot start.
    """
    clock, entropy = SystemClock(), SystemEntropy()
    settings = attrs.evolve(settings, identity=settings.identity or identity(entropy))
    connections = Connections(configuration(settings), settings.name, clock, settings.context)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(connections.close)
        group = await stack.enter_async_context(anyio.create_task_group())
        metrics = Metrics()
        door = Door(metrics, Reviewer(connections.client("probes"), clock))
        component = Component(
            settings, connections, clock, entropy, await _sink(settings, clock, group), metrics, door
        )
        where = await serve_door(
            door, settings.bind_address, settings.secure_port, settings.tls_cert_file,
            settings.tls_private_key_file, clock, group,
        )  # fmt: skip
        with anyio.CancelScope() as working:
            await group.start(_stop_on_signal, working)
            on_ready(_ready(settings, where))
            await _take_turns(component, lead)
        group.cancel_scope.cancel()


def _ready(settings: ComponentSettings, where: str) -> str:
    probes = f", probes and metrics at {where}" if where else ""
    return f"{settings.name} runs as {settings.identity}{probes}"


async def _sink(
    settings: ComponentSettings, clock: Clock, group: anyio.abc.TaskGroup
) -> LogSink | CountedSink:
    if not settings.record:
        return CountedSink()
    store = open_store(settings.record, clock=clock)
    group.start_soon(store.run)
    return LogSink(store)


async def _stop_on_signal(
    scope: anyio.CancelScope, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    """The first signal stops in order; a second one ends the process at once."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            break
    scope.cancel()


async def _take_turns(component: Component, lead: Lead) -> None:
    """Lead whenever the Lease is held; without election, always. Ends when cancelled."""
    settings = component.settings
    if not settings.lease:
        await component.forever(settings.name, partial(lead, component))
        return
    elector = LeaderElector(
        component.connections.client("leader-election"),
        settings.lease_namespace,
        settings.lease,
        settings.identity,
        clock=component.clock,
        entropy=component.entropy,
        timing=settings.timing,
    )
    component.door.checks["leaderElection"] = partial(_election_problem, elector)
    leads = component.metrics.gauge(
        "leader_election_master_status",
        "Gauge of if the reporting system is master of the relevant lease, 0 indicates backup, 1 indicates master. "
        "'name' is the string used to identify the lease. Please make sure to group by name.",
        ("name",),
    ).of(settings.lease)

    async def turn() -> None:
        claim = elector.fence()
        assert claim is not None
        leads.set(1)
        mine = attrs.evolve(component, fence=Claim(elector), epoch=claim.epoch)
        try:
            await component.forever(settings.name, partial(lead, mine))
        finally:
            leads.set(0)

    leads.set(0)
    while True:
        await elector.run(turn)


def _election_problem(elector: LeaderElector) -> str:
    """Source: k8s v1.36 client-go/tools/leaderelection/healthzadaptor.go."""
    if elector.leading and elector.expires_in_s() < -LATE_S:
        return f"failed election to renew leadership on lease {elector.name}"
    return ""
