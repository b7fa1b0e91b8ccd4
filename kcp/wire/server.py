"""The HTTP server: sockets in, `Handler` calls out.

`serve` runs until it is cancelled, then drains: no new connections, streams are told to end, requests in flight may
finish until the deadline, whatever is left is cut.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from email.utils import formatdate
from typing import Any

import anyio
from uvicorn.config import Config
from uvicorn.server import ServerState

from kcp.base.values import frozen
from kcp.wire.http import Handler, Request, Response
from kcp.wire.protocol import Exchange, KcpProtocol, Limits, PeerGone

TLS_HANDSHAKE_TIMEOUT_S = 10.0
BACKLOG = 2048
DISCARD_FACTOR = 4
"""A body over the limit is read and dropped up to this many limits, so that the client sees the answer."""

_log = logging.getLogger(__name__)


class ListenError(OSError):
    """Raised when an address cannot be listened on; the text names the address and why."""


@frozen
class ServerTls:
    """Serving certificate and the CAs whose client certificates are taken.

    A client certificate is optional; one of an unknown CA fails the handshake.
    """

    certificate_path: str
    key_path: str
    client_ca_paths: tuple[str, ...] = ()

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(self.certificate_path, self.key_path)
        for path in self.client_ca_paths:
            context.load_verify_locations(path)
        if self.client_ca_paths:
            context.verify_mode = ssl.CERT_OPTIONAL
        return context


def bind(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises ListenError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        number = error.errno or errno.EINVAL
        reason = os.strerror(number).lower()
        raise ListenError(number, f"cannot listen on {address(host, port)}: {reason}") from error
    return sock


def primary_address() -> str:
    """The address from which this machine would reach others; TEST-NET-1's first when it has no route. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "192.0.2.1"
        return str(probe.getsockname()[0])


def address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def serve(
    handler: Handler,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    sockets: Sequence[socket.socket] | None = None,
    tls: ServerTls | None = None,
    limits: Limits | None = None,
    on_ready: Callable[[list[tuple[str, int]]], None] | None = None,
    on_drain: Callable[[], None] | None = None,
    drain_timeout_s: float = 10.0,
) -> None:
    """Serve until cancelled, on `sockets` (see `bind`) or on one of its own.

    `on_ready` gets the addresses once connections are accepted; `on_drain` must make long-running streams end.
    Raises ListenError before anything is served. After cancellation it returns within `drain_timeout_s` plus a second.
    """
    listener = Listener(handler, limits or Limits())
    await listener.start(list(sockets) if sockets is not None else [bind(host, port)], tls)
    try:
        if on_ready is not None:
            on_ready(listener.addresses)
        await listener.keep_date()
    finally:
        with anyio.move_on_after(drain_timeout_s + 2.0, shield=True):
            await listener.drain(on_drain, drain_timeout_s)


class Listener:
    """Listening sockets and the connections they accepted. Owned by `serve`."""

    def __init__(self, handler: Handler, limits: Limits) -> None:
        self.limits = limits
        self.state = ServerState()
        self.addresses: list[tuple[str, int]] = []
        self._servers: list[asyncio.Server] = []
        self._application = Application(handler, limits, self.state.tasks)
        self._config = Config(
            self._application,
            http=KcpProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        self._config.load()

    async def start(self, sockets: Sequence[socket.socket], tls: ServerTls | None) -> None:
        loop = asyncio.get_running_loop()
        context = tls.context() if tls is not None else None
        self._set_date()
        for sock in sockets:
            server = await loop.create_server(
                lambda: KcpProtocol(self._config, self.state, loop, self.limits, self._application.begin),
                sock=sock,
                ssl=context,
                backlog=BACKLOG,
                ssl_handshake_timeout=TLS_HANDSHAKE_TIMEOUT_S if context is not None else None,
            )
            self._servers.append(server)
            self.addresses.append(sock.getsockname()[:2])

    def _set_date(self) -> None:
        self.state.default_headers = [(b"date", formatdate(usegmt=True).encode())]

    async def keep_date(self) -> None:
        """Refresh the Date header once a second, until cancelled."""
        while True:
            await asyncio.sleep(1)
            self._set_date()

    async def drain(self, on_drain: Callable[[], None] | None, timeout_s: float) -> None:
        for server in self._servers:
            server.close()
        if on_drain is not None:
            on_drain()
        connections = self.state.connections
        for connection in list(connections):
            connection.shutdown()
        if self.state.tasks:
            await asyncio.wait(list(self.state.tasks), timeout=timeout_s)
        for task in list(self.state.tasks):
            task.cancel()
        await asyncio.sleep(0)
        for connection in list(connections):
            connection.shutdown()
        await self._closed(1.0)

    async def _closed(self, timeout_s: float) -> None:
        """Wait until written answers are out and connections closed; cut what does not close."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while (self.state.connections or self.state.tasks) and loop.time() < deadline:
            await asyncio.sleep(0.01)
        for connection in list(self.state.connections):
            transport = getattr(connection, "transport", None) or getattr(connection, "_transport", None)
            if transport is not None:
                transport.abort()


class Application:
    """Hands requests to the handler and writes its answers: at once where nothing has to be waited for, else in a task."""

    def __init__(self, handler: Handler, limits: Limits, tasks: set[asyncio.Task[None]]) -> None:
        self.handler = handler
        self.limits = limits
        self.tasks = tasks
        self._at_once: Callable[[Request], Response | None] | None = getattr(handler, "at_once", None)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Uvicorn wants an ASGI application; KcpProtocol calls `begin` instead."""
        raise NotImplementedError

    def begin(self, exchange: Exchange, quick: bool) -> None:
        at_once = self._at_once if quick and exchange.method == "GET" else None
        if at_once is None or not self._answered(exchange, at_once):
            task = exchange.protocol.loop.create_task(self._run(exchange))
            task.add_done_callback(self.tasks.discard)
            self.tasks.add(task)

    def _answered(self, exchange: Exchange, at_once: Callable[[Request], Response | None]) -> bool:
        """Whether the answer is out already. No for bodies, upgrades and peers that are behind with reading."""
        if exchange.more_body or exchange.received or exchange.upgrade_protocol:
            return False
        if exchange.disconnected or exchange.protocol.flow.write_paused:
            return False
        try:
            response = at_once(exchange.request(b""))
        except Exception:  # noqa: BLE001  the last door: logged and answered
            _log.exception("request failed")
            response = _plain(500, "Internal Server Error")
        return response is not None and exchange.respond_now(response)

    async def _run(self, exchange: Exchange) -> None:
        try:
            await self._serve(exchange)
        except asyncio.CancelledError:
            exchange.disconnected = True
            exchange.abort()
        except Exception:  # noqa: BLE001  the last door: logged, answered or cut
            _log.exception("request failed")
            if exchange.response_started:
                exchange.abort()
            else:
                await exchange.respond(_plain(500, "Internal Server Error"))

    async def _serve(self, exchange: Exchange) -> None:
        if exchange.more_body:
            body = await self._read_body(exchange)
            if body is None:
                return
        else:
            body, exchange.received = exchange.received[: self.limits.body_bytes + 1], b""
        response = await self.handler(exchange.request(body))
        if exchange.upgraded is not None:
            exchange.upgraded.close()
        elif not exchange.disconnected:
            await exchange.respond(response)
        else:
            await _discard(response)

    async def _read_body(self, exchange: Exchange) -> bytes | None:
        """The body, cut one byte behind the limit when it is longer; None when the peer has gone or was too slow."""
        timer = exchange.protocol.loop.call_later(self.limits.body_timeout_s, exchange.abort)
        limit = self.limits.body_bytes
        body, size = bytearray(), 0
        try:
            while (exchange.more_body or exchange.received) and size <= limit * DISCARD_FACTOR:
                piece = await exchange.receive()
                size += len(piece)
                body += piece[: limit + 1 - len(body)]
        except PeerGone:
            return None
        finally:
            timer.cancel()
        if exchange.more_body:
            exchange.keep_alive = False
        return bytes(body)


async def _discard(response: Response) -> None:
    """Nobody reads the answer any more: let its stream release what it holds."""
    close = getattr(response.stream, "aclose", None)
    if close is not None:
        await close()


def _plain(status: int, text: str) -> Response:
    return Response(status, [("content-type", "text/plain; charset=utf-8")], text.encode())
