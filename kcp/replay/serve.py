"""kubectl in the past: the API server over the log at the revision where a session stands, read-only.

    with serving("incident.kcplog", "127.0.0.1:0") as past:
        past.kubeconfig                   # for kubectl
        past.go(812, now_us)              # forward: watches see the events; back: watches end, and clients list anew

Who may ask is who has the kubeconfig: it holds the only certificate that the server accepts.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
from anyio.abc import TaskStatus
from anyio.from_thread import BlockingPortal, start_blocking_portal

from kcp.api import app
from kcp.api.auth.protocol import ALL_AUTHENTICATED, MASTERS, UserInfo
from kcp.api.context import Server
from kcp.api.negotiation import error_response
from kcp.api.request_info import parse_query, request_info
from kcp.apis.catalog import ALPHA_VERSIONS, build_catalog
from kcp.base.certs import Authority
from kcp.base.clock import SystemClock
from kcp.base.entropy import SystemEntropy
from kcp.base.values import frozen
from kcp.controlplane import pki
from kcp.controlplane.cluster import ClusterOptions, build_server
from kcp.machinery.errors import ApiError, Expired, MethodNotAllowed
from kcp.replay.past import PastClock, PastStore
from kcp.store.reader import LogReader
from kcp.wire.http import Handler, Request, Response
from kcp.wire.server import ServerTls, address, bind, serve

USER = "kcp-replay"
DRAIN_S = 1.0
MAX_PORT = 65_535
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_REVIEWS = ("/apis/authorization.k8s.io/", "/apis/authentication.k8s.io/")
"""What is asked by POST and changes nothing."""
_ALIVE = frozenset({"log", "exec", "attach", "portforward", "proxy"})
"""Subresources that a running pod or node would have to answer."""


class Owner:
    """Whoever has a certificate of our authority, which TLS has checked, may see everything."""

    async def authenticate(self, request: Request) -> UserInfo | None:
        return UserInfo(USER, groups=(MASTERS, ALL_AUTHENTICATED)) if request.peer_certificate else None


class PastServer:
    """The handler of the moment. Owned by the loop that serves."""

    def __init__(self, place: str, rv: int = 0) -> None:
        self._reader = LogReader(place)
        self.clock = PastClock(0)
        self._build(rv)

    def _build(self, rv: int) -> None:
        self.store = PastStore(self._reader, rv)
        options = ClusterOptions()
        catalog = build_catalog(ALPHA_VERSIONS)
        self.server: Server = build_server(self.store, self.clock, SystemEntropy(), catalog, options)
        self.server.authenticator = Owner()
        self._handler: Handler = app.build(self.server)

    def go(self, rv: int, now_us: int) -> None:
        """Show another moment. Back means a new server: nothing of what was to come may linger in its caches."""
        self.clock.now_us = now_us
        if rv >= self.store.rv:
            self.store.advance(rv)
            return
        self.server.caches.close()
        self._build(rv)

    def drain(self) -> None:
        self.server.caches.drain()

    def close(self) -> None:
        self._reader.close()

    async def __call__(self, request: Request) -> Response:
        refusal = self._refusal(request)
        return error_response(None, refusal) if refusal is not None else await self._handler(request)

    def _refusal(self, request: Request) -> ApiError | None:
        params, _ = parse_query(request.query)
        try:
            info = request_info(request, params)
        except ApiError as error:
            return error
        if info.subresource in _ALIVE:
            return MethodNotAllowed(
                f"this is the past: nothing runs here that could answer {info.subresource}"
            )
        if request.method not in _READING and not request.path.startswith(_REVIEWS):
            text = (
                f"this is the past, revision {self.store.rv} of a recorded log: nothing can be changed here"
            )
            return MethodNotAllowed(text)
        asked = params.get("resourceVersion", "")
        if info.verb == "watch" and asked.isdecimal() and int(asked) > self.store.rv:
            return Expired(f"too old resource version: {asked} ({self.store.rv})")
        return None


@frozen
class Past:
    """A server of the past in a thread of its own."""

    kubeconfig: Path
    url: str
    _portal: BlockingPortal
    _server: PastServer

    def go(self, rv: int, now_us: int) -> None:
        self._portal.call(self._server.go, rv, now_us)

    @property
    def rv(self) -> int:
        return self._server.store.rv


@contextlib.contextmanager
def serving(place: str, listen: str) -> Iterator[Past]:
    """Serve the log at `place` on HOST:PORT (port 0: a free one) until the block is left. Raises ValueError, OSError."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > MAX_PORT:
        raise ValueError(f"{listen!r} is not HOST:PORT")
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kcp-replay-")))
        portal = stack.enter_context(start_blocking_portal(name="kcp-replay"))
        running = _running(place, host.strip("[]"), int(port), directory)
        url, server = stack.enter_context(portal.wrap_async_context_manager(running))
        yield Past(directory / "kubeconfig", url, portal, server)


@contextlib.asynccontextmanager
async def _running(
    place: str, host: str, port: int, directory: Path
) -> AsyncIterator[tuple[str, PastServer]]:
    with bind(host, port) as sock, contextlib.closing(PastServer(place)) as server:
        url = f"https://{address(host, sock.getsockname()[1])}"
        tls = _keys(directory, host, url)

        async def serve_until_cancelled(*, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
            await serve(
                server,
                sockets=[sock],
                tls=tls,
                on_ready=lambda _: task_status.started(),
                on_drain=server.drain,
                drain_timeout_s=DRAIN_S,
            )

        async with anyio.create_task_group() as group:
            await group.start(serve_until_cancelled)
            yield url, server
            group.cancel_scope.cancel()


def _keys(directory: Path, host: str, url: str) -> ServerTls:
    """An authority for this session alone, its server's pair, and the one kubeconfig that it accepts."""
    authority = Authority.create("kcp-replay", SystemClock(), SystemEntropy())
    certificate, key = authority.issue(
        "kube-apiserver",
        server=True,
        client=False,
        dns_names=("localhost", host),
        ips=("127.0.0.1", *_ips(host)),
    )
    client, client_key = authority.issue(USER, [MASTERS])
    config = pki.kubeconfig(url, authority.certificate_pem, client, client_key, USER)
    files = {
        "ca.crt": authority.certificate_pem, "server.crt": certificate, "server.key": key, "kubeconfig": config,
    }  # fmt: skip
    for name, content in files.items():
        pki.write_private(directory / name, content)
    return ServerTls(
        str(directory / "server.crt"), str(directory / "server.key"), (str(directory / "ca.crt"),)
    )


def _ips(host: str) -> tuple[str, ...]:
    return (host,) if host.replace(".", "").isdecimal() or ":" in host else ()
