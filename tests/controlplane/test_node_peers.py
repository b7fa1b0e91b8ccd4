"""A request for a node goes to the daemon that runs it, over TLS, under the daemons' own identity."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import attrs
import orjson
import pytest

from kcp.api import app
from kcp.api.auth.protocol import ALL_AUTHENTICATED, PEER, UserInfo
from kcp.api.context import Call, RequestInfo
from kcp.api.own_writes import IDENTITY
from kcp.base.certs import Authority, identity_of_der
from kcp.base.clock import SystemClock
from kcp.base.entropy import SeededEntropy
from kcp.client.client import Client
from kcp.client.leader_election import LEASES
from kcp.client.transport import InProcessTransport
from kcp.controlplane import node_peers
from kcp.controlplane.api_servers import Identity
from kcp.controlplane.node_peers import NodePeers
from kcp.machinery.errors import BadRequest, ServiceUnavailable
from kcp.wire.http import Handler, Request, Response
from kcp.wire.server import ServerTls, serve
from tests.api.harness import running_api

Json = dict[str, Any]
CLOCK = SystemClock()
NOW = "2026-01-01T00:00:00.000000Z"
PATH = "/api/v1/namespaces/default/pods/web/log"
USER = UserInfo("someone", groups=(ALL_AUTHENTICATED,))


@attrs.define
class Other:
    """The other daemon: what it was asked, and how it answers."""

    answer: Callable[[Request], Response]
    asked: list[Request] = attrs.field(factory=list)
    hang: bool = False

    async def __call__(self, request: Request) -> Response:
        self.asked.append(request)
        if self.hang:
            await anyio.sleep_forever()
        return self.answer(request)


@asynccontextmanager
async def listening(handler: Handler, authority: Authority, directory: Path) -> AsyncIterator[int]:
    """The port of a TLS server that takes this authority's client certificates."""
    pem, key = authority.issue("kube-apiserver", server=True, client=False, ips=("127.0.0.1",))
    paths = [directory / name for name in ("server.crt", "server.key", "ca.crt")]
    for path, data in zip(paths, (pem, key, authority.certificate_pem), strict=True):
        path.write_bytes(data)
    tls = ServerTls(str(paths[0]), str(paths[1]), (str(paths[2]),))
    ports: list[int] = []
    ready = anyio.Event()

    def announce(addresses: list[tuple[str, int]]) -> None:
        ports.append(addresses[0][1])
        ready.set()

    async def run() -> None:
        await serve(handler, tls=tls, on_ready=announce, drain_timeout_s=0.1)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        with anyio.fail_after(10):
            await ready.wait()
        yield ports[0]
        group.cancel_scope.cancel()


@asynccontextmanager
async def asking(holder: str, port: int, authority: Authority) -> AsyncIterator[NodePeers]:
    """A daemon on whose log `holder` runs the nodes, and `there` serves at that port."""
    async with running_api() as api:
        await api.create("/api/v1/namespaces", {"metadata": {"name": "kube-system"}})
        client = Client(InProcessTransport(app.build(api.server), IDENTITY), api.server.catalog)
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "nodes"}}
        await client.create(LEASES, {**lease, "spec": {"holderIdentity": holder}}, "kube-system")
        there = Identity("there", "host", f"127.0.0.1:{port}", "192.0.2.1:6443")
        await client.create(LEASES, there.lease(NOW))
        peers = NodePeers(client, authority, CLOCK, "nodes")
        try:
            yield peers
        finally:
            await peers.close()


def call(query: str = "container=web&tailLines=2") -> Call:
    info = RequestInfo(True, PATH, "get", "", "v1", "default", "pods", "log", "web")
    headers = {"authorization": "Bearer users-own", "x-remote-user": "admin", "impersonate-user": "admin"}
    return Call(Request("GET", PATH, query, headers), info, USER)


@pytest.fixture
def authority() -> Authority:
    return Authority.create("kubernetes", CLOCK, SeededEntropy(1))


async def body_of(response: Response) -> bytes:
    assert response.stream is not None
    return b"".join([chunk async for chunk in response.stream])


async def test_the_question_goes_on_and_the_answer_comes_back(authority: Authority, tmp_path: Path) -> None:
    other = Other(lambda request: Response(200, [("content-type", "text/plain")], b"hello\n"))
    async with listening(other, authority, tmp_path) as port, asking("there", port, authority) as peers:
        answer = await peers(call(), "node-1")
        assert answer is not None
        assert (answer.status, answer.headers) == (200, [("content-type", "text/plain")])
        assert await body_of(answer) == b"hello\n"
    (asked,) = other.asked
    assert (asked.method, asked.path, asked.query) == ("GET", PATH, "container=web&tailLines=2")


async def test_it_is_asked_in_the_daemons_own_name_and_in_nobody_elses(
    authority: Authority, tmp_path: Path
) -> None:
    """What the user sent to prove, or claim, who it is stays here."""
    other = Other(lambda request: Response(200, [], b""))
    async with listening(other, authority, tmp_path) as port, asking("there", port, authority) as peers:
        answer = await peers(call(), "node-1")
        assert answer is not None and await body_of(answer) == b""
    (asked,) = other.asked
    assert identity_of_der(asked.peer_certificate) == (PEER.name, ())
    assert not {"authorization", "x-remote-user", "impersonate-user"} & set(asked.headers)


async def test_an_error_comes_back_as_it_was(authority: Authority, tmp_path: Path) -> None:
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": "previous terminated container not found",
        "reason": "BadRequest",
        "code": 400,
    }
    other = Other(lambda request: Response(400, [], orjson.dumps(status)))
    async with listening(other, authority, tmp_path) as port, asking("there", port, authority) as peers:
        with pytest.raises(BadRequest, match=r"^previous terminated container not found$"):
            await peers(call(), "node-1")


@pytest.mark.parametrize("holder", ["", "nobody-known"])
async def test_nobody_is_asked_when_nobody_known_runs_the_nodes(holder: str, authority: Authority) -> None:
    async with asking(holder, 1, authority) as peers:
        assert await peers(call(), "node-1") is None
        peers.lease = "no-such-lease"
        assert await peers(call(), "node-1") is None


async def test_a_daemon_that_is_gone_is_named(authority: Authority) -> None:
    async with asking("there", 1, authority) as peers:
        with pytest.raises(ServiceUnavailable) as refused:
            await peers(call(), "node-1")
        assert refused.value.message == (
            f'Get "https://127.0.0.1:1{PATH}": dial tcp 127.0.0.1:1: connect: connection refused'
        )


async def test_a_daemon_that_hangs_is_waited_for_so_long(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_peers, "ANSWER_S", 0.3)
    other = Other(lambda request: Response(), hang=True)
    async with listening(other, authority, tmp_path) as port, asking("there", port, authority) as peers:
        with pytest.raises(ServiceUnavailable, match=r"/log\": context deadline exceeded$"):
            await peers(call(), "node-1")


async def test_a_daemon_of_another_cluster_is_not_believed(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority.create("kubernetes", CLOCK, SeededEntropy(2))
    other = Other(lambda request: Response(200, [], b"lies"))
    async with listening(other, stranger, tmp_path) as port, asking("there", port, authority) as peers:
        with pytest.raises(ServiceUnavailable, match="TLS with 127"):
            await peers(call(), "node-1")
    assert other.asked == []
