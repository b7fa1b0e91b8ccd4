"""The daemon: data directory, keys, log, control plane, HTTPS; one line when it is ready, one line when it cannot start."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import anyio
import attrs
import structlog
from anyio.abc import TaskGroup, TaskStatus

from kcp.api.allocation import first_address, parse_ranges
from kcp.api.context import ServerSettings
from kcp.api.health import Health
from kcp.api.own_writes import IDENTITY, MANAGER
from kcp.apis.semantics.facts import FACTS
from kcp.base import interpreter
from kcp.base.clock import Clock, SystemClock
from kcp.base.entropy import Entropy, SystemEntropy
from kcp.base.values import frozen
from kcp.controllers.table import CONTROLLERS
from kcp.controlplane import pki
from kcp.controlplane.cluster import CONTROLLER_MANAGER, NODES_LEASE, SCHEDULER, Cluster, ClusterOptions
from kcp.controlplane.election import Election, identity
from kcp.controlplane.node_peers import NodePeers
from kcp.controlplane.settings import DaemonSettings
from kcp.controlplane.shared_keys import SharedKeys, agree
from kcp.machinery.errors import ServiceUnavailable
from kcp.scheduler.profiles import Configuration, read_configuration
from kcp.store.facts import projections
from kcp.store.open import is_postgres, open_store
from kcp.store.protocol import Store, StoreError
from kcp.store.seal import keep_sealing
from kcp.wire.server import ServerTls, address, bind, primary_address, serve

log = structlog.get_logger()
START_TIMEOUT_S = 60.0
START_TIMEOUT_PER_NODE_S = 0.03
APART = (
    ("controllers", "controller-manager", CONTROLLER_MANAGER.name),
    ("scheduler", "scheduler", SCHEDULER.name),
)
"""What can run apart: its name among the components, that of its kubeconfig, its user."""


@frozen
class Ready:
    """What a person wants to know once the daemon serves."""

    url: str
    kubeconfig: Path
    took_s: float
    rv: int


async def run(settings: DaemonSettings, on_ready: Callable[[Ready], None]) -> None:
    """Run until SIGINT or SIGTERM, then stop in order.

    Raises OSError, ValueError or StoreError, each with a text for people, when it cannot start.
    """
    clock, entropy = SystemClock(), SystemEntropy()
    started_s = clock.monotonic()
    policy = settings.sealing
    data_dir = Path(settings.data).absolute()
    sock = bind(settings.host, settings.port)
    try:
        host, port = sock.getsockname()[:2]
        store = open_store(
            settings.store_url,
            clock=clock,
            entropy=entropy,
            projections=projections(FACTS),
            api_history_s=settings.api_history_s,
        )
        keys = await _keys(data_dir, host, settings, store, clock, entropy)
        options = _options(settings, keys, host, port, entropy)
        options = attrs.evolve(options, audit=settings.audit(clock))
        if policy is not None:
            sealing = partial(keep_sealing, store, settings.store_url, clock, policy)
            options = attrs.evolve(options, sealing=sealing)
        cluster = Cluster.build(store, clock, entropy, options)
        peers = _join_others(cluster, keys)
    except BaseException:
        sock.close()
        raise
    url = f"https://{address(_reachable(host), port)}"
    kubeconfig = data_dir / "kubeconfig"
    pki.write_admin_kubeconfig(kubeconfig, keys, url, clock)
    _write_component_kubeconfigs(data_dir, keys, url, clock, settings)

    def announce(addresses: list[tuple[str, int]]) -> None:
        del addresses
        on_ready(Ready(url, kubeconfig, clock.monotonic() - started_s, store.rv))

    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as serving:
            if options.audit is not None:
                group.start_soon(options.audit.log.run)
            await group.start(_stop_on_signal, serving, cluster)
            await _start(group, cluster)
            certificate, key = keys.serving_paths
            interpreter.settle()
            await serve(
                cluster.handler,
                sockets=[sock],
                tls=ServerTls(str(certificate), str(key), (str(keys.ca_path),)),
                on_ready=announce,
                on_drain=cluster.server.caches.drain,
            )
        await peers.close()
        group.cancel_scope.cancel()  # requests are drained: now the rest stops, the log's writer last


def _write_component_kubeconfigs(
    data_dir: Path, keys: pki.Pki, url: str, clock: Clock, settings: DaemonSettings
) -> None:
    """For the components that are to run as processes of their own, under their own names."""
    for part, name, user in APART:
        if part not in settings.parts:
            pki.write_kubeconfig(data_dir / f"{name}.kubeconfig", keys, url, clock, name, user)


async def _start(group: TaskGroup, cluster: Cluster) -> None:
    """Raises StoreError when the database went away meanwhile, or everything takes too long."""
    options = cluster.options
    nodes = options.nodes if options.machines is None else len(options.machines)
    limit_s = START_TIMEOUT_S + START_TIMEOUT_PER_NODE_S * nodes
    try:
        with anyio.fail_after(limit_s):
            await group.start(cluster.run)
    except* TimeoutError:
        raise StoreError(f"the control plane did not start within {limit_s:g} s") from None
    except* ServiceUnavailable as refused:
        why: BaseException = refused
        while isinstance(why, BaseExceptionGroup):
            why = why.exceptions[0]
        raise StoreError(f"the control plane did not start: {why}") from None


def _join_others(cluster: Cluster, keys: pki.Pki) -> NodePeers:
    """What a daemon has that is not alone on its log: others to ask about nodes, and a database that can be away."""
    client = cluster.client(IDENTITY, MANAGER)
    peers = NodePeers(client, keys.authority, cluster.clock, NODES_LEASE)
    servers = cluster.api_servers
    if servers is not None:
        cluster.server.extras["node_peer"] = peers
        Health.of(cluster.server).add("etcd", lambda: servers.problem)
    return peers


async def _stop_on_signal(
    scope: anyio.CancelScope,
    cluster: Cluster,
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """The first signal stops in order; a second one ends the process at once. Started: signals are received.

    Load balancers and the other daemons hear of it first, while requests that are on their way are still answered.
    """
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            break
    Health.of(cluster.server).draining = True
    if cluster.api_servers is not None:
        await cluster.api_servers.leave()
    scope.cancel()


async def _keys(
    data_dir: Path, host: str, settings: DaemonSettings, store: Store, clock: Clock, entropy: Entropy
) -> pki.Pki:
    """Keys from files, or, where daemons share the log, those that they share."""
    service_ip = first_address(parse_ranges(settings.service_cidr)[0])
    try:
        shared = is_postgres(settings.store_url)
        keys = pki.ensure_roots(data_dir, clock, entropy, replace_damaged=shared)
        if shared:
            authority = keys.authority
            own = SharedKeys(authority.certificate_pem, authority.key_pem, keys.service_account_key)
            agreed = await agree(store, own, clock, entropy)
            keys = pki.adopt(keys, agreed.ca_certificate, agreed.ca_key, agreed.token_key)
        hosts = (host, settings.advertise or _advertised(host))
        pki.ensure_serving(keys, hosts=hosts, service_ip=service_ip, clock=clock)
    except OSError as error:
        raise OSError(f"cannot write to {data_dir}: {(error.strerror or str(error)).lower()}") from error
    return keys


def _options(
    settings: DaemonSettings, keys: pki.Pki, host: str, port: int, entropy: Entropy
) -> ClusterOptions:
    parts = settings.parts
    return ClusterOptions(
        server=ServerSettings(
            service_cidr=settings.service_cidr,
            external_address=settings.advertise or _advertised(host),
            external_port=port,
        ),
        client_ca_pem=keys.authority.certificate_pem,
        authority=keys.authority,
        service_account_key=keys.service_account_key,
        nodes=settings.nodes if "nodes" in parts else 0,
        controllers=CONTROLLERS if "controllers" in parts else (),
        scheduler="scheduler" in parts,
        node_cpu=settings.node_cpu,
        node_memory=settings.node_memory,
        node_pods=settings.node_pods,
        scheduler_configuration=_scheduler_configuration(settings),
        alpha_versions=settings.alpha_versions,
        election=Election(identity(entropy)) if is_postgres(settings.store_url) else None,
        peer_address=address(_peer_host(host, settings), port),
    )


def _scheduler_configuration(settings: DaemonSettings) -> Configuration:
    """Raises ConfigError."""
    if not settings.scheduler_config:
        return Configuration()
    found = read_configuration(settings.scheduler_config)
    for note in found.notes:
        log.warning("scheduler configuration", note=note)
    return found


def _peer_host(host: str, settings: DaemonSettings) -> str:
    """Where other daemons reach this one: where it listens. On loopback these can only be on the same machine."""
    return (settings.advertise or _advertised(host)) if host in ("0.0.0.0", "::") else host


def _reachable(host: str) -> str:
    """The address that clients on this machine use for a listener on all addresses."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _advertised(host: str) -> str:
    """What others are told: Kubernetes takes no loopback address for an endpoint."""
    anywhere = host in ("0.0.0.0", "::") or ip_address(host).is_loopback
    return primary_address() if anywhere else host
