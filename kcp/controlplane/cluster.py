"""A whole control plane in one process, without sockets: what the daemon serves and what a simulation runs.

    cluster = Cluster.build(store, clock, entropy, ClusterOptions(nodes=3))
    async with anyio.create_task_group() as group:
        await group.start(cluster.run)          # returns once everything is there
        client = cluster.client(ADMIN)

Start order: the log's writer, bootstrap objects, informers, controllers, scheduler, nodes. They stop in reverse.
Where several daemons share a log (`ClusterOptions.election`) controllers, scheduler and nodes run in one of them at a
time; a start does not wait for its turn.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import structlog
from anyio.abc import TaskStatus

from kcp.api import app, bootstrap
from kcp.api.admission.order import default_chain
from kcp.api.allocation import Allocator
from kcp.api.auth.legacy_tokens import LegacyTokens
from kcp.api.auth.protocol import ALL_AUTHENTICATED, UserInfo
from kcp.api.auth.service_account import ServiceAccountTokens, SigningKey, TokenIssuer
from kcp.api.auth.setup import live_objects, setup
from kcp.api.component_status import RUNNING
from kcp.api.context import Server, ServerSettings
from kcp.api.filters.audit import Trail
from kcp.api.filters.authorization import AUDIT
from kcp.api.filters.telemetry import metrics_of
from kcp.api.own_writes import IDENTITY, MANAGER
from kcp.api.upkeep.all import Upkeep
from kcp.api.watch_cache import WatchCaches
from kcp.apis.catalog import POD_GROUPS, build_catalog
from kcp.apis.kind import Catalog
from kcp.base.background import Background
from kcp.base.backoff import Backoff
from kcp.base.certs import Authority, generate_key, private_key_pem
from kcp.base.clock import Clock
from kcp.base.entropy import Entropy
from kcp.base.settings import host_name
from kcp.base.tasks import restart_with_backoff
from kcp.base.values import frozen
from kcp.client.cache.shared_informer import InformerFactory
from kcp.client.client import Client
from kcp.client.mapper import CatalogMapper
from kcp.client.recorder import EventRecorder
from kcp.client.transport import InProcessTransport, Transport
from kcp.client.workqueue.rate_limiting import RateLimitingQueue, controller_rate_limiter
from kcp.controllers.device_metrics import CLAIMS, MEASURED, DeviceMeter
from kcp.controllers.driver import ControllerRun
from kcp.controllers.execute import External
from kcp.controllers.sources import Controller
from kcp.controllers.table import CONTROLLERS
from kcp.controlplane.api_servers import ApiServers, Identity
from kcp.controlplane.controller_manager import effect_writer
from kcp.controlplane.election import Election, Turn
from kcp.controlplane.kube_scheduler import event_writer
from kcp.controlplane.providers import providers
from kcp.controlplane.sink import LogSink
from kcp.controlplane.token_tracking import TokenTracking
from kcp.scheduler.metrics import Measured, series
from kcp.scheduler.profiles import Configuration
from kcp.scheduler.scheduler import Scheduler
from kcp.store.log import DECISIONS_PER_LIFE
from kcp.store.protocol import Input, Keep, Key, Operation, Store, StoreError
from kcp.wire.http import Handler
from kcp.wire.server import address

if TYPE_CHECKING:
    from kcp.node.fleet import Fleet, NodeSpec
    from kcp.node.runtime.sim import Programs

Json = dict[str, Any]
log = structlog.get_logger()

CONTROLLER_MANAGER = UserInfo("system:kube-controller-manager", groups=(ALL_AUTHENTICATED,))
SCHEDULER = UserInfo("system:kube-scheduler", groups=(ALL_AUTHENTICATED,))
SIMULATED_NODES = UserInfo("system:kcp:simulated-nodes", groups=(ALL_AUTHENTICATED,))
ALONE = Turn()
WRITES_DEADLINE_S = 30.0
"""How long controllers that start wait for what the log was asked before."""
ADMIN = UserInfo("kubernetes-admin", groups=("kubeadm:cluster-admins", ALL_AUTHENTICATED))


NODES_LEASE = "kcp-simulated-nodes"
Component = Callable[[anyio.Event, Turn], Awaitable[None]]
"""Sets the event once it is put together; runs until its turn is over, which cancels it."""

CANDIDATES = {
    "kube-controller-manager": (CONTROLLER_MANAGER, "kube-controller-manager"),
    "kube-scheduler": (SCHEDULER, "kube-scheduler"),
    "simulated-nodes": (IDENTITY, NODES_LEASE),
}
"""Who holds which Lease for a component. For the nodes it is the daemon itself: theirs is no role of Kubernetes."""


def service_account(name: str) -> UserInfo:
    """The identity of a controller: its own service account in kube-system."""
    groups = ("system:serviceaccounts", "system:serviceaccounts:kube-system", ALL_AUTHENTICATED)
    return UserInfo(f"system:serviceaccount:kube-system:{name}", groups=groups)


def controller_user(controller: Controller) -> UserInfo:
    """Under whose name a controller's requests are made."""
    if controller.username == controller.identity:
        return UserInfo(controller.username, groups=(ALL_AUTHENTICATED,))
    return service_account(controller.identity)


def node_identity(name: str) -> UserInfo:
    return UserInfo(f"system:node:{name}", groups=("system:nodes", ALL_AUTHENTICATED))


@frozen
class ClusterOptions:
    """What a cluster is made of. Empty keys and certificates mean: made up on the spot, from the entropy."""

    server: ServerSettings = attrs.field(factory=ServerSettings)
    client_ca_pem: bytes = b""
    authority: Authority | None = None
    """Signs approved certificate requests."""
    service_account_key: bytes = b""
    nodes: int = 0
    node_cpu: str = "4"
    node_memory: str = "16Gi"
    node_pods: int = 110
    machines: tuple[NodeSpec, ...] | None = None
    """The simulated nodes one by one, instead of `nodes` equal ones."""
    programs: Programs | None = None
    """What containers on simulated nodes do; None: what their commands tell."""
    controllers: tuple[Controller, ...] = CONTROLLERS
    scheduler: bool = True
    scheduler_configuration: Configuration = attrs.field(factory=Configuration)
    alpha_versions: frozenset[str] = frozenset()
    """API versions that are served beside the stable ones."""
    controller_settings: Mapping[str, Mapping[str, Any]] = {}
    election: Election | None = None
    """Makes this one of several daemons on the log; None: it is alone there, and every component just runs."""
    peer_address: str = ""
    """HOST:PORT where the other daemons reach this one; empty means where everybody does."""
    host: str = ""
    """The machine's name among the daemons; empty: what it calls itself."""
    audit: Trail | None = None
    """Where requests are told to; whoever gives it runs its log."""
    sealing: Callable[[], Awaitable[None]] | None = None
    """Moves old events out of the hot table, in one daemon at a time."""
    wrap_transport: Callable[[InProcessTransport], Transport] = lambda transport: transport
    """Puts something between every component and the API: where a simulation lets requests and watches fail."""
    wrap_queue: Callable[[str, RateLimitingQueue], RateLimitingQueue] = lambda controller, queue: queue
    """Says when a controller takes up a key: where a second run of a log keeps the pace of the first one."""

    @property
    def alpha(self) -> frozenset[str]:
        """The alpha versions to serve: those asked for, and what the scheduler's plugins look at."""
        gangs = self.scheduler_configuration.schedules_gangs
        return self.alpha_versions | ({POD_GROUPS} if gangs else frozenset())

    def node_specs(self) -> list[NodeSpec]:
        """Those given, or node-1, node-2, … of equal size."""
        if self.machines is not None:
            return list(self.machines)
        from kcp.node.fleet import NodeSpec

        width = len(str(self.nodes))
        return [
            NodeSpec(
                f"node-{number:0{width}d}", cpu=self.node_cpu, memory=self.node_memory, pods=self.node_pods
            )
            for number in range(1, self.nodes + 1)
        ]


@attrs.define
class Cluster:
    """Owned by the task that runs `run`. `restart` ends a component as a crash would; it starts with empty caches."""

    store: Store
    clock: Clock
    entropy: Entropy
    options: ClusterOptions
    catalog: Catalog
    server: Server
    handler: Handler
    sink: LogSink
    externals: Mapping[str, External] = attrs.field(init=False)
    """What controllers reach outside the API, by name."""
    informers: InformerFactory = attrs.field(init=False)
    runs: list[ControllerRun] = attrs.field(factory=list)
    devices: DeviceMeter = attrs.field(factory=DeviceMeter)
    scheduler: Scheduler | None = None
    scheduler_seed: int = 0
    fleet: Fleet | None = None
    api_servers: ApiServers | None = attrs.field(init=False)
    """The daemons on this log; None when there is but one."""
    mapper: CatalogMapper = attrs.field(init=False)
    """One for all clients: thousands of nodes have one each."""
    background: Background = attrs.field(init=False)
    """Events, and what pods do on simulated nodes, give way to requests from outside and to scheduling."""
    _components: dict[str, anyio.CancelScope] = attrs.field(factory=dict)
    _streams: dict[str, int] = attrs.field(factory=dict)

    @classmethod
    def build(cls, store: Store, clock: Clock, entropy: Entropy, options: ClusterOptions) -> Cluster:
        catalog = build_catalog(options.alpha)
        server = build_server(store, clock, entropy, catalog, options)
        return cls(store, clock, entropy, options, catalog, server, app.build(server), LogSink(store))

    def __attrs_post_init__(self) -> None:
        self.mapper = CatalogMapper(self.catalog)
        self.background = Background(self.clock, self._is_busy)
        self.informers = self._new_informers()
        self.api_servers = self._api_servers()
        authority = self.options.authority or Authority.create(
            "kubernetes", self.clock, self.entropy.stream("signer")
        )
        self.externals = providers(authority, self.server.extras["token_issuer"].key)
        self.server.extras[RUNNING] = lambda: self.components
        self.scheduler_seed = self.entropy.stream("scheduler").below(2**63)

    def _is_busy(self) -> bool:
        in_flight = self.server.extras["in_flight"]
        if in_flight.writing or in_flight.reading:
            return True
        return self.scheduler is not None and self.scheduler.busy

    def _new_informers(self) -> InformerFactory:
        client = self.client(CONTROLLER_MANAGER, "kube-controller-manager")
        return InformerFactory(client, clock=self.clock, entropy=self._stream("informers"))

    def client(self, user: UserInfo, user_agent: str = "kcp", turn: Turn = ALONE) -> Client:
        """A client with that identity, through the same door as everyone; its writes hold while the turn does."""
        transport = InProcessTransport(self.handler, user, user_agent)
        return Client(self.options.wrap_transport(transport), self.mapper, fence=turn.fence)

    def _api_servers(self) -> ApiServers | None:
        if self.options.election is None:
            return None
        settings = self.options.server
        endpoint = address(settings.external_address, settings.external_port)
        me = Identity(
            self.options.election.identity,
            self.options.host or host_name(),
            self.options.peer_address or endpoint,
            endpoint,
        )
        return ApiServers(self.client(IDENTITY, MANAGER), me, self.clock)

    def _stream(self, name: str) -> Entropy:
        """A component's chance; another one after each restart, or what it names would bear the names of before."""
        self._streams[name] = life = self._streams.get(name, 0) + 1
        return self.entropy.stream(name if life == 1 else f"{name}/{life}")

    @property
    def components(self) -> list[str]:
        """What can be restarted."""
        return list(self._components)

    def restart(self, component: str) -> None:
        """End a component where it stands and start it anew, with nothing but the log to go by."""
        self._components[component].cancel()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run everything until cancelled. Started: bootstrap objects exist, caches are filled, nodes are registered."""
        async with anyio.create_task_group() as group:
            writing = anyio.CancelScope(shield=True)
            group.start_soon(self._write, writing)
            try:
                await bootstrap.ensure(self.server, shared=self.api_servers is not None)
                async with anyio.create_task_group() as components:
                    await self._start(components)
                    task_status.started()
                    await anyio.sleep_forever()
            finally:
                writing.cancel()

    async def _write(self, scope: anyio.CancelScope) -> None:
        """The log's writer outlives everyone who writes: it is cancelled last, and by name."""
        with scope:
            await self.store.run()

    async def _start(self, group: anyio.abc.TaskGroup) -> None:
        tracking = partial(self.server.extras["token_tracking"].run, self.client(IDENTITY, MANAGER))
        group.start_soon(self._forever, "token tracking", tracking)
        group.start_soon(self._forever, "upkeep", Upkeep.of(self.server).run)
        if self.api_servers is not None:
            await self.api_servers.look()
            group.start_soon(self._forever, "api servers", self.api_servers.run)
        parts: list[tuple[str, Component]] = []
        if self.options.controllers:
            parts.append(("kube-controller-manager", self._run_controllers))
        else:
            self._note_start()
        if self.options.scheduler:
            parts.append(("kube-scheduler", self._run_scheduler))
        if self.options.machines is not None or self.options.nodes:
            parts.append(("simulated-nodes", self._run_nodes))
        if self.options.sealing is not None:
            parts.append(("sealing", self._run_sealing))
        for name, run in parts:
            started = anyio.Event()
            group.start_soon(self._component, name, run, started)
            await started.wait()
            if run == self._run_controllers:
                self._note_start()

    async def _run_scheduler(self, started: anyio.Event, turn: Turn) -> None:
        """The scheduler on caches of its own, under its own identity."""
        client = self.client(SCHEDULER, "kube-scheduler", turn)
        informers = InformerFactory(client, clock=self.clock, entropy=self._stream("scheduler/informers"))
        recorder = EventRecorder(
            client,
            "default-scheduler",
            form="events.k8s.io",
            linger_s=0.5,
            clock=self.clock,
            entropy=self._stream("default-scheduler"),
            background=self.background,
        )

        rows = self.scheduler.rows if self.scheduler is not None else {}
        self.scheduler = Scheduler(
            client,
            informers,
            self.clock,
            self.sink,
            event_writer(recorder),
            seed=self.scheduler_seed,
            configuration=self.options.scheduler_configuration,
            epoch=turn.epoch,
            recorded=rows,
            measured=self.scheduler.measured if self.scheduler is not None else Measured(),
        )
        metrics_of(self.server).collect("scheduler", partial(series, self.scheduler))
        async with anyio.create_task_group() as group:
            group.start_soon(self._forever, "scheduler events", recorder.run)
            group.start_soon(self._forever, "scheduler informers", informers.run)
            self._note_scheduler()
            started.set()
            await self.scheduler.run()

    async def _run_sealing(self, started: anyio.Event, turn: Turn) -> None:
        """Whoever lost its turn is kept out by the log's own lock."""
        del turn
        assert self.options.sealing is not None
        started.set()
        await self.options.sealing()

    async def _run_nodes(self, started: anyio.Event, turn: Turn) -> None:
        """The simulated nodes: each acts under its own identity, all follow one watch."""
        from kcp.node.fleet import Fleet, recorders  # a process without nodes does without the code too
        from kcp.node.renewals import Renewals
        from kcp.node.runtime.sim import default_program

        client = self.client(SIMULATED_NODES, "kcp-simulated-nodes", turn)
        entropy = self._stream("nodes")
        informers = InformerFactory(client, clock=self.clock, entropy=entropy.stream("informers"))

        def client_for(name: str) -> Client:
            return self.client(node_identity(name), "kubelet", turn)

        fleet = self.fleet = Fleet(
            client_for=client_for,
            pods=informers.informer("pods"),
            nodes=informers.informer("nodes"),
            recorder_for=recorders(client_for, self.clock, entropy, self.background),
            clock=self.clock,
            entropy=entropy,
            programs=self.options.programs or default_program,
            background=self.background,
            renewals=Renewals(client, node_identity),
        )
        self.server.extras["pod_logs"] = fleet.logs
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(informers.run)
                group.start_soon(fleet.run)
                await informers.wait_for_sync()
                await fleet.add_nodes(self.options.node_specs())
                started.set()
        finally:
            del self.server.extras["pod_logs"]

    async def _component(self, name: str, run: Component, started: anyio.Event) -> None:
        """Run a component, each time anew after `restart`. `run` sets `started` once it is put together."""
        while True:
            with anyio.CancelScope() as self._components[name]:
                await self._forever(name, partial(self._in_turn, name, run, started))

    async def _in_turn(self, name: str, run: Component, started: anyio.Event) -> None:
        """Run it at once when this daemon is alone, else whenever it is elected; that may be never."""
        election = self.options.election
        if election is None:
            await run(started, ALONE)
            return
        started.set()
        user, lease = CANDIDATES[name]
        await election.take_turns(
            self.client(user, lease),
            lease,
            partial(run, anyio.Event()),
            clock=self.clock,
            entropy=self._stream(f"{name}/election"),
        )

    async def _run_controllers(self, started: anyio.Event, turn: Turn) -> None:
        """All controllers on one set of caches."""
        rows = {run.controller.name: run.recorded for run in self.runs}
        if self.runs:
            await self._await_writes()
            self.informers = self._new_informers()
        self.runs = []
        async with anyio.create_task_group() as group:
            for controller in self.options.controllers:
                recorder = self._recorder(controller, turn)
                group.start_soon(self._forever, f"{controller.name} events", recorder.run)
                run = self._controller_run(controller, recorder, rows.get(controller.name, 0), turn)
                self.runs.append(run)
                group.start_soon(self._forever, controller.name, run.run)
            group.start_soon(self._forever, "informers", self.informers.run)
            if any(controller.name in MEASURED for controller in self.options.controllers):
                claims = self.informers.informer(CLAIMS).indexer
                metrics_of(self.server).collect("devices", lambda: self.devices.series(claims))
            started.set()
            if turn.elected:
                self._note_start()

    async def _await_writes(self) -> None:
        """Until what was asked of the log before is in it or refused.

        A crash forgets for which writes the barrier waits; one that is still on its way to the disk would not be in the
        new caches, and be made a second time.
        """
        with suppress(StoreError), anyio.move_on_after(WRITES_DEADLINE_S):
            await self.store.append(Operation(Key("namespaces", "", "default"), lambda current, head: Keep()))

    async def _forever(self, name: str, run: Callable[[], Any]) -> None:
        """A component that crashes is restarted alone, with backoff."""
        await restart_with_backoff(name, run, backoff=Backoff(0.2, 2.0, 30.0), clock=self.clock)

    def _controller_run(
        self, controller: Controller, recorder: EventRecorder, recorded: int, turn: Turn
    ) -> ControllerRun:
        settings = dict(self.options.controller_settings.get(controller.name, {}))
        if "root_ca" in controller.settings:
            settings.setdefault("root_ca", self.options.client_ca_pem.decode())
        if "service_cidrs" in controller.settings:
            settings.setdefault("service_cidrs", self.options.server.service_cidr.split(","))
        return ControllerRun(
            controller=controller,
            client=self.client(controller_user(controller), controller.name, turn),
            informers=self.informers,
            clock=self.clock,
            queue=self.options.wrap_queue(
                controller.name,
                RateLimitingQueue(
                    clock=self.clock, limiter=controller_rate_limiter(self.clock, controller.retry_base_s)
                ),
            ),
            sink=self.devices.around(self.sink) if controller.name in MEASURED else self.sink,
            write_event=effect_writer(recorder),
            resources=self.resources,
            settings=settings,
            externals=self.externals,
            epoch=turn.epoch,
            recorded=recorded,
        )

    def _recorder(self, controller: Controller, turn: Turn) -> EventRecorder:
        return EventRecorder(
            self.client(controller_user(controller), controller.name, turn),
            controller.reporter,
            clock=self.clock,
            entropy=self._stream(controller.name),
            background=self.background,
        )

    def resources(self) -> list[Json]:
        """The served, stored resources, one row each, as controllers get them in their settings."""
        return resource_rows(self.catalog)

    def _note_start(self) -> None:
        """What replay needs to know about this process, under the number that its decisions start with."""
        settings = {
            r.controller.name: {k: v for k, v in r.settings.items() if k != "resources"} for r in self.runs
        }
        self.store.record(
            Input(
                "start",
                {
                    "epoch": self._life(),
                    "resources": self.resources(),
                    "settings": settings,
                    "scheduler_seed": self.scheduler_seed,
                },
            )
        )

    def _note_scheduler(self) -> None:
        """What decides, when it is not the default: no decision of the scheduler can be made again without it."""
        configuration = self.options.scheduler_configuration
        if configuration.document is not None:
            scheduler = {"configuration": configuration.document, "base": configuration.base}
            self.store.record(Input("start", {"epoch": self._life(), "scheduler": scheduler}))

    def _life(self) -> int:
        """The number that this process's decisions start with."""
        if self.options.election is None:
            return self.store.epoch
        return self.store.next_decision_id() // DECISIONS_PER_LIFE


def resource_rows(catalog: Catalog) -> list[Json]:
    rows: dict[str, Json] = {}
    for kind in catalog.kinds():
        if not kind.stored or kind.storage_resource or kind.resource in rows:
            continue
        rows[kind.resource] = {
            "resource": kind.resource,
            "group": kind.group,
            "version": kind.version,
            "kind": kind.kind,
            "plural": kind.plural,
            "namespaced": kind.namespaced,
            "verbs": list(kind.verbs),
        }
    return list(rows.values())


def build_server(
    store: Store, clock: Clock, entropy: Entropy, catalog: Catalog, options: ClusterOptions
) -> Server:
    """The API server's parts, wired."""
    settings = options.server
    key_pem = options.service_account_key or private_key_pem(
        generate_key(entropy.stream("service-account-key"))
    )
    key = SigningKey.load(key_pem)
    issuer = TokenIssuer(settings.service_account_issuer, key, clock, entropy.stream("tokens"))
    tokens = ServiceAccountTokens((settings.service_account_issuer,), (key,), clock, live_objects(store))
    tracking = TokenTracking(clock)
    legacy = LegacyTokens((key,), clock, live_objects(store), settings.api_audiences, tracking.note)
    auth = setup(
        store,
        clock,
        client_ca_pems=[options.client_ca_pem] if options.client_ca_pem else [],
        tokens=[tokens, legacy],
        audiences=settings.api_audiences,
        anonymous=settings.anonymous_auth,
    )
    audit = {} if options.audit is None else {AUDIT: options.audit}
    return Server(
        store=store,
        catalog=catalog,
        clock=clock,
        entropy=entropy.stream("api"),
        caches=WatchCaches(store, catalog, clock, settings, entropy.stream("watch-cache")),
        admission=default_chain(store, entropy.stream("admission"), auth.authorizer, clock=clock),
        allocator=Allocator(
            store, entropy.stream("allocator"), [settings.service_cidr], settings.node_port_range
        ),
        authenticator=auth.authenticator,
        authorizer=auth.authorizer,
        settings=settings,
        extras={"rbac": auth.rbac, "token_issuer": issuer, "token_tracking": tracking, **audit},
    )
