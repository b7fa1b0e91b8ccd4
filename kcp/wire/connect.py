"""Client connections: pooled keep-alive HTTP/1.1 over TCP, TLS or unix sockets, with a deadline on every request.

`Pool.send` waits for the whole answer, or with `stream=True` for its head; `Pool.upgrade` leaves HTTP.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import tempfile
from collections import deque
from collections.abc import AsyncIterator
from urllib.parse import quote

import attrs
import httptools

from kcp.base.values import frozen
from kcp.wire.http import Request, Response
from kcp.wire.protocol import encode_head
from kcp.wire.tunnel import READ_BUFFER_BYTES, Tunnel

IDLE_S = 30.0
"""Shorter than any server's idle timeout, so that a pooled connection is rarely found closed."""
KEEP_ALIVE_S, KEEP_ALIVE_PROBES = 15, 4
"""How long a peer may be silent before it is asked for a sign of life, how far apart, and how often in vain.

A watch of which nothing arrives looks like one of which nothing can. Source of the times: Go's net.Dialer.
"""
MAX_IDLE_PER_TARGET = 32
MAX_BODY_BYTES = 256 * 1024 * 1024
_SAFE = "/:@!$&'()*+,;=~-._"
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})


class ConnectError(OSError):
    """Raised when the server cannot be reached, or breaks off before it answered."""


class RequestTimeout(Exception):
    """Raised when the answer (its head, for streams) did not arrive in time."""


@frozen
class Target:
    """Where to connect. `unix_path` wins over host and port; `tls` None means plain HTTP."""

    host: str = ""
    port: int = 0
    tls: ssl.SSLContext | None = None
    server_name: str = ""
    unix_path: str = ""

    @property
    def authority(self) -> str:
        if self.unix_path:
            return "localhost"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def client_tls(
    *, ca_pem: str = "", certificate_pem: str = "", key_pem: str = "", verify: bool = True
) -> ssl.SSLContext:
    """A client context from PEM texts; without a CA the system's are trusted."""
    context = ssl.create_default_context(cadata=ca_pem or None)
    if hasattr(ssl, "VERIFY_X509_STRICT"):
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate_pem:
        _load_pair(context, certificate_pem, key_pem)
    return context


def _load_pair(context: ssl.SSLContext, certificate_pem: str, key_pem: str) -> None:
    """Python's ssl takes key pairs from files only: a private file that lives for the call."""
    descriptor, path = tempfile.mkstemp(prefix="kcp-client-")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{certificate_pem}\n{key_pem}\n")
        context.load_cert_chain(path)
    finally:
        os.unlink(path)


class Connection(asyncio.Protocol):
    """One connection; carries one request at a time. Owned by the Pool while idle, by its request otherwise."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.idle_since = 0.0
        self.lost = False
        self.tunnel: Tunnel | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._reset("GET")

    def _reset(self, method: str) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.method = method
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.got_bytes = False
        self.complete = False
        self.keep_alive = True
        self.failure: Exception | None = None
        self.head: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.chunks: deque[bytes] = deque()
        self.size = 0
        self.rest = b""
        self.readable = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.got_bytes = True
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.rest = data[upgrade.args[0] :]
            self._wake()
        except httptools.HttpParserError as error:
            self._fail(ConnectError(f"malformed HTTP response: {error}"))

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()
        self.keep_alive = self.parser.should_keep_alive()
        if self.method == "HEAD":
            self.keep_alive = False
            self.complete = True
        if self.status != 100 and not self.head.done():
            self.head.set_result(None)

    def on_body(self, body: bytes) -> None:
        self.chunks.append(body)
        self.size += len(body)
        if self.size > READ_BUFFER_BYTES and self.transport is not None:
            self.transport.pause_reading()
        self.readable.set()

    def on_message_complete(self) -> None:
        if self.status == 100:
            self.headers = []
            return
        self.complete = True
        self.readable.set()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if not self.complete and self.status and "transfer-encoding" not in dict(self.headers):
            self.complete = "content-length" not in dict(self.headers)
        if not self.complete:
            self._fail(ConnectError(f"connection closed by the server: {exc or 'EOF'}"))
        self._wake()

    def _fail(self, error: Exception) -> None:
        self.failure = self.failure or error
        if not self.head.done():
            self.head.set_exception(error)
            self.head.exception()  # nobody may be waiting any more
        self.keep_alive = False
        self._wake()

    def _wake(self) -> None:
        self.readable.set()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def exchange(self, request: Request, authority: str) -> None:
        """Send the request and wait for the head of the answer."""
        self._reset(request.method)
        assert self.transport is not None
        self.transport.write(_encode(request, authority))
        await self._writable.wait()
        await self.head

    async def body(self) -> AsyncIterator[bytes]:
        """The chunks of the body as they arrive. Raises ConnectError when it breaks off."""
        while True:
            while self.chunks:
                chunk = self.chunks.popleft()
                self.size -= len(chunk)
                yield chunk
            if self.failure is not None:
                raise self.failure
            if self.complete or self.lost:
                return
            assert self.transport is not None
            self.transport.resume_reading()
            self.readable.clear()
            await self.readable.wait()

    def into_tunnel(self) -> Tunnel:
        assert self.transport is not None
        tunnel = Tunnel(self.transport, self.rest)
        self.transport.set_protocol(tunnel)
        return tunnel

    def close(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


def _encode(request: Request, authority: str) -> bytes:
    path = quote(request.path, safe=_SAFE) + (f"?{request.query}" if request.query else "")
    headers = [("host", authority)]
    for name, joined in request.headers.items():
        headers.extend((name, value) for value in joined.split("\n"))
    if request.body or request.method in ("POST", "PUT", "PATCH"):
        headers.append(("content-length", str(len(request.body))))
    line = f"{request.method} {path} HTTP/1.1\r\n".encode("latin-1")
    return encode_head(line, headers, ()) + request.body


@attrs.define
class Pool:
    """Idle connections by target. Owned by one client; close it when the client is done."""

    _idle: dict[Target, list[Connection]] = attrs.field(factory=dict)
    _closed: bool = False

    async def send(
        self, request: Request, target: Target, timeout_s: float, *, stream: bool = False
    ) -> Response:
        """The answer; with `stream`, once its head is there, and `Response.stream` yields the body.

        Raises ConnectError or RequestTimeout. A request that a pooled connection swallowed is sent once more if it is
        idempotent and nothing of an answer had arrived.
        """
        connection: Connection | None = None
        try:
            async with asyncio.timeout(timeout_s):
                connection = await self._exchange(request, target)
                if stream:
                    taken, connection = connection, None
                    return Response(taken.status, taken.headers, stream=self._stream(taken, target))
                body = await _collect(connection)
                self._give_back(connection, target)
                response, connection = Response(connection.status, connection.headers, body), None
                return response
        except TimeoutError:
            raise RequestTimeout(f"no answer from {target.authority} within {timeout_s:g} s") from None
        finally:
            if connection is not None:
                connection.abort()

    async def upgrade(
        self, request: Request, target: Target, timeout_s: float
    ) -> tuple[Response, Tunnel | None]:
        """Ask to leave HTTP: (the answer, the tunnel), or the refusal with its body and None."""
        connection: Connection | None = None
        try:
            async with asyncio.timeout(timeout_s):
                connection = await _connect(target)
                await connection.exchange(request, target.authority)
                if connection.status == 101:
                    response = Response(101, connection.headers)
                    tunnel, connection = connection.into_tunnel(), None
                    return response, tunnel
                body = await _collect(connection)
                return Response(connection.status, connection.headers, body), None
        except TimeoutError:
            raise RequestTimeout(f"no answer from {target.authority} within {timeout_s:g} s") from None
        finally:
            if connection is not None:
                connection.abort()

    async def close(self) -> None:
        self._closed = True
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()
        await asyncio.sleep(0)

    async def _exchange(self, request: Request, target: Target) -> Connection:
        connection = self._pooled(target)
        if connection is not None:
            try:
                return await _exchange(connection, request, target)
            except ConnectError:
                if connection.got_bytes or request.method not in _IDEMPOTENT:
                    raise
        return await _exchange(await _connect(target), request, target)

    def _pooled(self, target: Target) -> Connection | None:
        now = asyncio.get_running_loop().time()
        idle = self._idle.get(target, [])
        while idle:
            connection = idle.pop()
            if not connection.lost and now - connection.idle_since < IDLE_S:
                return connection
            connection.close()
        return None

    def _give_back(self, connection: Connection, target: Target) -> None:
        idle = self._idle.setdefault(target, [])
        if self._closed or connection.lost or not connection.keep_alive or len(idle) >= MAX_IDLE_PER_TARGET:
            connection.close()
            return
        connection.idle_since = asyncio.get_running_loop().time()
        idle.append(connection)

    async def _stream(self, connection: Connection, target: Target) -> AsyncIterator[bytes]:
        try:
            async for chunk in connection.body():
                yield chunk
        finally:
            if connection.complete and not connection.chunks:
                self._give_back(connection, target)
            else:
                connection.abort()


async def _exchange(connection: Connection, request: Request, target: Target) -> Connection:
    try:
        await connection.exchange(request, target.authority)
    except BaseException:
        connection.abort()
        raise
    return connection


async def _collect(connection: Connection) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for chunk in connection.body():
        parts.append(chunk)
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise ConnectError(f"the answer exceeds {MAX_BODY_BYTES} bytes")
    return b"".join(parts)


async def _connect(target: Target) -> Connection:
    loop = asyncio.get_running_loop()
    try:
        if target.unix_path:
            _, connection = await loop.create_unix_connection(Connection, target.unix_path)
            return connection
        name = (target.server_name or target.host) if target.tls is not None else None
        transport, connection = await loop.create_connection(
            Connection, target.host, target.port, ssl=target.tls, server_hostname=name
        )
        _keep_alive(transport.get_extra_info("socket"))
    except ssl.SSLError as error:
        raise ConnectError(f"TLS with {target.authority} failed: {error.reason or error}") from error
    except OSError as error:
        raise ConnectError(f"cannot connect to {target.unix_path or target.authority}: {error}") from error
    return connection


def _keep_alive(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", KEEP_ALIVE_S),
        ("TCP_KEEPINTVL", KEEP_ALIVE_S),
        ("TCP_KEEPCNT", KEEP_ALIVE_PROBES),
    ):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


async def send(request: Request, target: Target, timeout_s: float) -> Response:
    """One request on a connection of its own. Clients with many requests keep a Pool."""
    pool = Pool()
    try:
        return await pool.send(request, target, timeout_s)
    finally:
        await pool.close()
