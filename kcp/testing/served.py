"""A cluster for real clients: HTTPS on a free port of the loopback device, in a thread with a loop of its own.

with serve(tmp_path, nodes=3) as cluster:
    subprocess.run(["kubectl", "--kubeconfig", cluster.kubeconfig, "get", "nodes"], check=True)
    assert cluster.sql("SELECT count(*) AS n FROM nodes") == [{"n": 3}]
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import attrs
from anyio.abc import TaskStatus
from anyio.from_thread import start_blocking_portal

from kcp.api.allocation import first_address, parse_ranges
from kcp.api.context import ServerSettings
from kcp.apis.semantics.facts import FACTS
from kcp.base.clock import SystemClock
from kcp.base.entropy import SystemEntropy
from kcp.base.interpreter import collection_put_off
from kcp.base.values import frozen
from kcp.client.client import Client
from kcp.controlplane import pki
from kcp.controlplane.cluster import ADMIN, Cluster, ClusterOptions
from kcp.store.facts import projections
from kcp.store.open import open_store
from kcp.store.query import Session
from kcp.testing.client import BlockingClient
from kcp.testing.readiness import START_TIMEOUT_S, logs_to_logging, wait_until_usable
from kcp.wire.server import ServerTls, address, bind, primary_address
from kcp.wire.server import serve as serve_https

HOST = "127.0.0.1"
DRAIN_S = 1.0


@frozen
class ServedCluster:
    """A running cluster. `kubeconfig` is the administrator's; `directory` holds it, the keys and the log."""

    url: str
    kubeconfig: Path
    directory: Path
    client: BlockingClient
    _stack: ExitStack

    def sql(self, query: str, *parameters: Any) -> list[dict[str, Any]]:
        """Rows of a read-only statement over the log, as `kcp sql` takes it; also after `stop`. Raises QueryFailed."""
        with Session(self.directory, SystemClock()) as session:
            table = session.run(query, parameters)
        return [dict(zip(table.columns, row, strict=True)) for row in table.rows]

    def stop(self) -> None:
        """Drain and stop; the files stay. Stopping twice is stopping once."""
        self._stack.close()


@contextmanager
def serve(
    directory: Path,
    *,
    nodes: int = 1,
    node_cpu: str = "4",
    node_memory: str = "16Gi",
    node_pods: int = 110,
) -> Iterator[ServedCluster]:
    """Start a cluster on `directory`, ready with all its nodes, and stop it in the end.

    A directory that was used before goes on where it stopped.
    """
    size = ClusterOptions(nodes=nodes, node_cpu=node_cpu, node_memory=node_memory, node_pods=node_pods)
    stack = ExitStack()
    try:
        stack.enter_context(logs_to_logging())
        portal = stack.enter_context(
            start_blocking_portal(backend_options={"use_uvloop": True}, name="kcp-testing")
        )
        with collection_put_off():
            url, client = stack.enter_context(portal.wrap_async_context_manager(_running(directory, size)))
        yield ServedCluster(url, directory / "kubeconfig", directory, BlockingClient(client, portal), stack)
    finally:
        stack.close()  # what failed is the test's affair: the cluster stops the same way


@asynccontextmanager
async def _running(directory: Path, size: ClusterOptions) -> AsyncIterator[tuple[str, Client]]:
    """The control plane behind its socket, on the running loop: its URL and a client in process."""
    clock, entropy = SystemClock(), SystemEntropy()
    with bind(HOST, 0) as sock:
        port = sock.getsockname()[1]
        settings = ServerSettings(external_address=primary_address(), external_port=port)
        service_ip = first_address(parse_ranges(settings.service_cidr)[0])
        keys = pki.ensure(directory, hosts=(HOST,), service_ip=service_ip, clock=clock, entropy=entropy)
        store = open_store(
            directory, clock=clock, entropy=entropy, projections=projections(FACTS), durable=False
        )
        options = attrs.evolve(
            size,
            server=settings,
            client_ca_pem=keys.authority.certificate_pem,
            authority=keys.authority,
            service_account_key=keys.service_account_key,
        )
        cluster = Cluster.build(store, clock, entropy, options)
        url = f"https://{address(HOST, port)}"
        pki.write_admin_kubeconfig(directory / "kubeconfig", keys, url, clock)
        client = cluster.client(ADMIN, "kcp-testing")

        async def serve_until_cancelled(
            *, task_status: TaskStatus[anyio.CancelScope] = anyio.TASK_STATUS_IGNORED
        ) -> None:
            certificate, key = keys.serving_paths
            with anyio.CancelScope() as scope:
                await serve_https(
                    cluster.handler,
                    sockets=[sock],
                    tls=ServerTls(str(certificate), str(key), (str(keys.ca_path),)),
                    on_ready=lambda _: task_status.started(scope),
                    on_drain=cluster.server.caches.drain,
                    drain_timeout_s=DRAIN_S,
                )
            group.cancel_scope.cancel()  # requests are drained: now the rest stops, the log's writer last

        async with anyio.create_task_group() as group:
            with anyio.fail_after(START_TIMEOUT_S):
                await group.start(cluster.run)
                serving = await group.start(serve_until_cancelled)
                await wait_until_usable(client, size.nodes)
            yield url, client
            serving.cancel()
