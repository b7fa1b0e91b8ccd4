"""The daemon: data directory, keys, log, control plane, HTTPS; one line when it is ready, one line when it cannot start."""

from __future__ import annotations

import signal
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path

import anyio
import attrs
from anyio.abc import TaskStatus

from kcp.api.context import ServerSettings
from kcp.apis.semantics.facts import FACTS
from kcp.base import memory
from kcp.base.clock import Clock, SystemClock
from kcp.base.entropy import Entropy, SystemEntropy
from kcp.controlplane import pki
from kcp.controlplane.cluster import Cluster, ClusterOptions
from kcp.controlplane.election import Election, identity
from kcp.controlplane.settings import DaemonSettings
from kcp.controlplane.shared_keys import SharedKeys, agree
from kcp.store.facts import projections
from kcp.store.open import is_postgres, open_store
from kcp.store.protocol import Store
from kcp.wire.server import ServerTls, address, bind, primary_address, serve

START_TIMEOUT_S = 60.0


@attrs.frozen
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
        cluster = Cluster.build(store, clock, entropy, _options(settings, keys, host, port, entropy))
    except BaseException:
        sock.close()
        raise
    url = f"https://{address(_reachable(host), port)}"
    kubeconfig = data_dir / "kubeconfig"
    pki.write_admin_kubeconfig(kubeconfig, keys, url, clock)

    def announce(addresses: list[tuple[str, int]]) -> None:
        del addresses
        on_ready(Ready(url, kubeconfig, clock.monotonic() - started_s, store.rv))

    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as serving:
            await group.start(_stop_on_signal, serving)
            with anyio.fail_after(START_TIMEOUT_S):
                await group.start(cluster.run)
            certificate, key = keys.serving_paths
            memory.settle()
            await serve(
                cluster.handler,
                sockets=[sock],
                tls=ServerTls(str(certificate), str(key), (str(keys.ca_path),)),
                on_ready=announce,
                on_drain=cluster.server.caches.drain,
            )
        group.cancel_scope.cancel()  # requests are drained: now the rest stops, the log's writer last


async def _stop_on_signal(
    scope: anyio.CancelScope, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    """The first signal stops in order; a second one ends the process at once. Started: signals are received."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()
            return


async def _keys(
    data_dir: Path, host: str, settings: DaemonSettings, store: Store, clock: Clock, entropy: Entropy
) -> pki.Pki:
    """Keys from files, or, where daemons share the log, those that they share."""
    service_ip = str(next(ip_network(settings.service_cidr).hosts()))
    try:
        keys = pki.ensure_roots(data_dir, clock, entropy)
        if is_postgres(settings.store_url):
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
    return ClusterOptions(
        server=ServerSettings(
            service_cidr=settings.service_cidr,
            external_address=settings.advertise or _advertised(host),
            external_port=port,
        ),
        client_ca_pem=keys.authority.certificate_pem,
        authority=keys.authority,
        service_account_key=keys.service_account_key,
        nodes=settings.nodes,
        node_cpu=settings.node_cpu,
        node_memory=settings.node_memory,
        node_pods=settings.node_pods,
        election=Election(identity(entropy)) if is_postgres(settings.store_url) else None,
    )


def _reachable(host: str) -> str:
    """The address that clients on this machine use for a listener on all addresses."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _advertised(host: str) -> str:
    """What others are told: Kubernetes takes no loopback address for an endpoint."""
    anywhere = host in ("0.0.0.0", "::") or ip_address(host).is_loopback
    return primary_address() if anywhere else host
