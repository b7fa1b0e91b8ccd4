"""The server's side of one connection: uvicorn's httptools protocol with what Kubernetes clients need on top.

Added: the peer certificate, limits on headers and on idle and slow peers, one write for head and body of an answer,
streams that go straight to the transport and pause when the peer does, and upgrades (WebSocket, SPDY) that hand the
connection over. A request becomes a Request without a scope between, and gets a task only when its answer has to wait
for something. It leans on uvicorn's internals, hence the narrow version pin; tests/wire/test_server.py covers each.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from kcp.base.values import frozen
from kcp.wire.http import Request, Response
from kcp.wire.tunnel import Tunnel

PLAIN_URL_BYTES = 8 * 1024
"""Longer targets are left to the URL parser, which refuses those beyond 64 KiB."""
SLICE_BYTES = 256 * 1024
"""Larger bodies go out in slices of this size, so that encrypting one never holds the loop for long."""


@frozen
class Limits:
    """What one peer may cost. Times are Go's server defaults in kube-apiserver 1.36."""

    header_bytes: int = 1024 * 1024
    body_bytes: int = 3 * 1024 * 1024
    header_timeout_s: float = 32.0
    idle_timeout_s: float = 90.0
    body_timeout_s: float = 60.0
    write_timeout_s: float = 60.0
    connections: int = 20_000


class PeerGone(Exception):
    """Raised inside an answer when the client went away or stopped reading."""


class KcpProtocol(HttpToolsProtocol):
    """One connection. Its tasks are one per request that waits; pipelined requests wait for their turn."""

    cycle: Exchange  # type: ignore[assignment]
    pipeline: deque[Exchange]  # type: ignore[assignment]

    def __init__(
        self,
        config: Config,
        state: ServerState,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        serve: Callable[[Exchange, bool], None],
    ) -> None:
        super().__init__(config, state, {}, loop)
        self.access_log = False
        self.limits = limits
        self.serve = serve
        self.peer_certificate = b""
        self.peer_address = ""
        self.streaming: asyncio.Task[Any] | None = None
        self._ready: Exchange | None = None
        """The request whose turn it is and that was not begun yet: until its body is here, or the data is used up."""
        self._quick = False
        """Whether the next request may be answered at once: the first of each piece of data, so that no peer with a
        thousand requests in one piece holds the loop."""
        self._head_bytes = 0
        self._in_head = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._idle_since_s: float | None = None
        self._idle_limit_s = limits.header_timeout_s
        self._upgrading = False
        self.early = b""
        self._lines: list[tuple[bytes, bytes]] = []
        self._joined: dict[str, str] = {}

    def joined_headers(self) -> dict[str, str]:
        """The headers of the request just read; the very same dict again while the peer sends the same lines."""
        if self.headers != self._lines:
            self._lines, self._joined = self.headers, join_headers(self.headers)
        return self._joined

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            transport.abort()
            return
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            self.peer_certificate = tls.getpeercert(True) or b""
        self.peer_address = self.client[0] if self.client else ""
        self._idles()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        self.connections.discard(self)
        for exchange in (self.cycle, *self.pipeline):
            if exchange is not None:
                exchange.lost()
        self.flow.resume_writing()
        if exc is None:
            self.transport.close()
        self.parser = None  # type: ignore[assignment]
        if self.streaming is not None:
            self.streaming.cancel()

    def _idles(self) -> None:
        """From now on the peer may take so long to ask for something. One timer serves all of a connection's pauses."""
        self._idle_since_s = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self._idle_limit_s, self._idled)

    def _idled(self) -> None:
        self._idle_timer = None
        if self._idle_since_s is None or self.transport.is_closing():
            return
        left_s = self._idle_since_s + self._idle_limit_s - self.loop.time()
        if left_s <= 0:
            self.transport.close()
        else:
            self._idle_timer = self.loop.call_later(left_s, self._idled)

    def data_received(self, data: bytes) -> None:
        if self.parser is None or self._upgrading:
            self._before_upgrade(data)
            return
        self._idle_since_s = None
        self._quick = True
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade_asked(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._ready = None
            self._refuse(400, "Invalid HTTP request received.")
            return
        if self._ready is not None:
            self._begin(self._ready)
        self._quick = False
        if self._in_head:
            self._head_grows(len(data))

    def _begin(self, exchange: Exchange) -> None:
        self._ready = None
        quick, self._quick = self._quick, False
        self.serve(exchange, quick)

    def _upgrade_asked(self, rest: bytes) -> None:
        """The request's task decides; until then, whatever follows the head belongs to the new protocol."""
        self._upgrading = True
        self.cycle.keep_alive = False
        self._before_upgrade(rest)

    def _before_upgrade(self, data: bytes) -> None:
        self.early += data
        if len(self.early) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()

    def _head_grows(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self.limits.header_bytes:
            self._refuse(431, "Request Header Fields Too Large")
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.header_timeout_s, self._head_too_slow)

    def _head_too_slow(self) -> None:
        self._refuse(408, "Request Timeout")

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: int, text: str) -> None:
        """Answer a request that could not even be read, and close."""
        self._stop_head_timer()
        if self.transport.is_closing():
            return
        body = text.encode()
        self.transport.write(
            b"%bcontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (STATUS_LINE[status], len(body), body)
        )
        self.transport.close()

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self._in_head = True
        self._head_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._stop_head_timer()
        busy = self.cycle is not None and not self.cycle.response_complete
        self.cycle = exchange = Exchange(self)
        if busy:
            self.flow.pause_reading()
            self.pipeline.appendleft(exchange)
        else:
            self._ready = exchange

    def on_body(self, body: bytes) -> None:
        exchange = self.cycle
        if exchange.response_complete:
            return
        exchange.received += body
        if len(exchange.received) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        exchange.notify()

    def on_message_complete(self) -> None:
        exchange = self.cycle
        exchange.more_body = False
        exchange.notify()
        if exchange is self._ready:
            self._begin(exchange)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self._idle_limit_s = self.limits.idle_timeout_s
        self.flow.resume_reading()
        if self.pipeline:
            self._begin(self.pipeline.pop())
        elif self.cycle.response_complete:
            self._idles()

    def shutdown(self) -> None:
        """Close when idle; else let the request in flight finish first."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self.cycle.keep_alive = False


def split_target(url: bytes) -> tuple[str, str]:
    """Path, percent-decoded, and raw query of a request's target. Raises for one that is none."""
    if url[:1] == b"/" and b"#" not in url and len(url) <= PLAIN_URL_BYTES:
        raw_path, _, query = url.partition(b"?")
    else:
        parsed = httptools.parse_url(url)
        raw_path, query = parsed.path, parsed.query or b""
    path = raw_path.decode("ascii")
    return unquote(path) if "%" in path else path, query.decode("latin-1")


def join_headers(lines: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Values by lower-case name; those of a header that was sent several times are joined by newlines."""
    headers: dict[str, str] = {}
    repeated: dict[str, list[str]] = {}
    for raw_name, raw_value in lines:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name in headers:
            repeated.setdefault(name, [headers[name]]).append(value)
        else:
            headers[name] = value
    for name, values in repeated.items():
        headers[name] = "\n".join(values)
    return headers


def slices(parts: Sequence[bytes]) -> Iterator[bytes | memoryview]:
    """The parts in pieces of at most SLICE_BYTES, small ones joined.

    Joined so few at a time they lie in the processor's cache until they are encrypted, in memory that is used again.
    """
    gathered: list[bytes] = []
    size = 0
    for part in parts:
        if size and size + len(part) > SLICE_BYTES:
            yield b"".join(gathered)
            gathered, size = [], 0
        if len(part) <= SLICE_BYTES:
            gathered.append(part)
            size += len(part)
            continue
        view = memoryview(part)
        yield from (view[start : start + SLICE_BYTES] for start in range(0, len(part), SLICE_BYTES))
    if size:
        yield b"".join(gathered)


class Exchange:
    """One request's end of its connection: what came of it so far, and the way to write the answer or take over."""

    __slots__ = (
        "_arrived",
        "disconnected",
        "expects_continue",
        "headers",
        "http_version",
        "keep_alive",
        "method",
        "more_body",
        "path",
        "protocol",
        "query",
        "received",
        "response_complete",
        "response_started",
        "upgrade_protocol",
        "upgraded",
    )

    def __init__(self, protocol: KcpProtocol) -> None:
        """The head that the connection's parser has just read."""
        parser, headers = protocol.parser, protocol.joined_headers()
        self.protocol = protocol
        self.method: str = parser.get_method().decode("ascii")
        self.http_version: str = parser.get_http_version()
        self.path, self.query = split_target(protocol.url)
        self.headers = headers
        self.keep_alive: bool = self.http_version != "1.0" and parser.should_keep_alive()
        self.expects_continue = headers.get("expect", "").lower() == "100-continue"
        self.upgrade_protocol = _upgrade(headers) if parser.should_upgrade() else ""
        self.received = b""
        """The part of the body that nobody has taken yet."""
        self.more_body = True
        self.disconnected = False
        self.response_started = False
        self.response_complete = False
        self.upgraded: Tunnel | None = None
        self._arrived: asyncio.Future[None] | None = None

    def notify(self) -> None:
        """Something happened that `receive` may wait for."""
        arrived = self._arrived
        if arrived is not None and not arrived.done():
            arrived.set_result(None)

    def lost(self) -> None:
        if not self.response_complete:
            self.disconnected = True
        self.notify()

    async def receive(self) -> bytes:
        """What came of the body since the last call; waits for something while more is to come. Raises PeerGone."""
        protocol = self.protocol
        if self.expects_continue and self.more_body and not protocol.transport.is_closing():
            protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.expects_continue = False
        protocol.flow.resume_reading()
        while not self.received and self.more_body and not self.disconnected:
            self._arrived = protocol.loop.create_future()
            await self._arrived
        if self.disconnected:
            raise PeerGone
        piece, self.received = self.received, b""
        return piece

    def request(self, body: bytes) -> Request:
        protocol = self.protocol
        return Request(
            method=self.method,
            path=self.path,
            query=self.query,
            headers=self.headers,
            body=body,
            peer_certificate=protocol.peer_certificate,
            peer_address=protocol.peer_address,
            upgrade=self if self.upgrade_protocol else None,
        )

    async def respond(self, response: Response) -> None:
        """Write the whole answer. Returns early when the peer has gone."""
        try:
            if response.stream is not None:
                await self._stream(response, response.stream)
            elif not self.respond_now(response):
                await self._large(response)
        except PeerGone:
            self.disconnected = True
            self.protocol.transport.abort()

    def respond_now(self, response: Response) -> bool:
        """Write an answer that needs no waiting, head and body at once. False: it is too large, or the peer is slow."""
        protocol, body = self.protocol, response.body
        if response.parts or len(body) > SLICE_BYTES or protocol.flow.write_paused:
            return False
        if self.disconnected:
            return True
        head = self._sized_head(response, len(body))
        self.response_started = True
        protocol.transport.write(head + body if self._has_body(response) else head)
        self._complete()
        return True

    def _sized_head(self, response: Response, size: int) -> bytes:
        """The head of an answer with a length."""
        unsized = response.status in (204, 304)
        return self._head(response, () if unsized else (("content-length", str(size)),))

    def _has_body(self, response: Response) -> bool:
        return self.method != "HEAD" and response.status not in (204, 304)

    async def _large(self, response: Response) -> None:
        if self.protocol.flow.write_paused:
            await self._drained()
        parts = response.parts or (response.body,)
        head = self._sized_head(response, sum(map(len, parts)))
        self.response_started = True
        self.protocol.transport.write(head)
        if self._has_body(response):
            await self._slices(parts)
        self._complete()

    async def _slices(self, parts: Sequence[bytes]) -> None:
        for piece in slices(parts):
            if self.disconnected:
                raise PeerGone
            self.protocol.transport.write(piece)
            if self.protocol.flow.write_paused:
                await self._drained()
            else:
                await asyncio.sleep(0)

    async def _stream(self, response: Response, chunks: AsyncIterator[bytes]) -> None:
        """Chunked while the iterator yields. The peer's disappearance cancels the iterator at its await."""
        chunked = self.http_version != "1.0"
        if not chunked:
            self.keep_alive = False
        head = self._head(response, (("transfer-encoding", "chunked"),) if chunked else ())
        self.protocol.streaming = asyncio.current_task()
        try:
            if self.disconnected:
                return
            self.response_started = True
            self.protocol.transport.write(head)
            if self.method != "HEAD":
                await self._chunks(chunks, chunked)
            self._complete(b"0\r\n\r\n" if chunked and self.method != "HEAD" else b"")
        except asyncio.CancelledError:
            if not self.disconnected:
                raise
        finally:
            self.protocol.streaming = None
            close = getattr(chunks, "aclose", None)
            if close is not None:
                with contextlib.suppress(asyncio.CancelledError):
                    await close()

    async def _chunks(self, chunks: AsyncIterator[bytes], chunked: bool) -> None:
        write, flow = self.protocol.transport.write, self.protocol.flow
        async for chunk in chunks:
            if self.disconnected:
                raise PeerGone
            if chunk:
                write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
                if flow.write_paused:
                    await self._drained()

    async def _drained(self) -> None:
        try:
            await asyncio.wait_for(self.protocol.flow.drain(), self.protocol.limits.write_timeout_s)
        except TimeoutError:
            raise PeerGone from None
        if self.disconnected:
            raise PeerGone

    def _head(self, response: Response, framing: tuple[tuple[str, str], ...]) -> bytes:
        return encode_head(
            STATUS_LINE[response.status],
            [*response.headers, *framing, *(() if self.keep_alive else (("connection", "close"),))],
            self.protocol.server_state.default_headers,
        )

    def _complete(self, tail: bytes = b"") -> None:
        transport = self.protocol.transport
        if tail and not self.disconnected:
            transport.write(tail)
        self.response_complete = True
        if not self.keep_alive:
            transport.close()
        self.protocol.on_response_complete()

    def accept(self, headers: Sequence[tuple[str, str]], *, cancel_when_lost: bool = False) -> Tunnel:
        """Answer 101 and hand the connection to the caller, who closes it.

        `cancel_when_lost` cancels the calling task when the peer goes away, for callers that never read.
        """
        assert self.upgrade_protocol, "no upgrade was asked for"
        protocol = self.protocol
        lines = [("upgrade", self.upgrade_protocol), ("connection", "Upgrade"), *headers]
        self.response_started = self.response_complete = True
        task = asyncio.current_task() if cancel_when_lost else None

        def lost(tunnel: Tunnel) -> None:
            protocol.connections.discard(tunnel)
            if task is not None:
                task.cancel()

        tunnel = Tunnel(protocol.transport, protocol.early, lost)
        protocol.connections.discard(protocol)
        protocol.connections.add(tunnel)  # type: ignore[arg-type]
        protocol.transport.set_protocol(tunnel)
        protocol.transport.write(encode_head(STATUS_LINE[101], lines, ()))
        protocol.flow.resume_reading()
        self.upgraded = tunnel
        return tunnel

    def abort(self) -> None:
        self.protocol.transport.abort()


def _upgrade(headers: Mapping[str, str]) -> str:
    """The protocol that the peer wants to go on with; empty when its Connection header does not ask for it."""
    tokens = headers.get("connection", "").rpartition("\n")[2].split(",")
    asked = any(token.strip().lower() == "upgrade" for token in tokens)
    return headers.get("upgrade", "").rpartition("\n")[2].lower() if asked else ""


def encode_head(
    status_line: bytes, headers: Sequence[tuple[str, str]], extra: Sequence[tuple[bytes, bytes]]
) -> bytes:
    """Status line and headers. Raises ValueError when a value would smuggle in another line."""
    text = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if text.count("\n") != len(headers) or text.count("\r") != len(headers):
        raise ValueError("a header contains a line break")
    lines = b"".join([b"%b: %b\r\n" % pair for pair in extra])
    return b"%b%b%b\r\n" % (status_line, text.encode(), lines)
