"""The server's side of one connection: uvicorn's httptools protocol with what Kubernetes clients need on top.

Added: the peer certificate, limits on headers and on idle and slow peers, one write for head and body of an answer,
streams that go straight to the transport and pause when the peer does, and upgrades (WebSocket, SPDY) that hand the
connection over. It leans on uvicorn's internals, hence the narrow version pin; tests/wire/test_server.py covers each.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import attrs
import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from kcp.wire.http import Response
from kcp.wire.tunnel import Tunnel

SLICE_BYTES = 256 * 1024
"""Larger bodies go out in slices of this size, so that encrypting one never holds the loop for long."""


@attrs.frozen(slots=True)
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
    """One connection. Its tasks are one per request in flight; pipelined requests wait for their turn."""

    def __init__(
        self, config: Config, state: ServerState, loop: asyncio.AbstractEventLoop, limits: Limits
    ) -> None:
        super().__init__(config, state, {}, loop)
        self.access_log = False
        self.limits = limits
        self.peer_certificate = b""
        self.streaming: asyncio.Task[Any] | None = None
        self._head_bytes = 0
        self._in_head = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._upgrading = False
        self.early = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            transport.abort()
            return
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            self.peer_certificate = tls.getpeercert(True) or b""
        self.timeout_keep_alive_task = self.loop.call_later(
            self.limits.header_timeout_s, self.timeout_keep_alive_handler
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        if self.streaming is not None:
            self.streaming.cancel()

    def data_received(self, data: bytes) -> None:
        if self.parser is None or self._upgrading:
            self._before_upgrade(data)
            return
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade_asked(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(400, "Invalid HTTP request received.")
            return
        if self._in_head:
            self._head_grows(len(data))

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

    def _should_upgrade(self) -> bool:
        return False

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._stop_head_timer()
        upgrade = self.parser.should_upgrade()
        super().on_headers_complete()
        wanted = self._get_upgrade() if upgrade else None
        exchange = Exchange(self, self.cycle, (wanted or b"").decode("latin-1"))
        self.scope["extensions"] = {"kcp.exchange": exchange}  # type: ignore[dict-item]

    def on_response_complete(self) -> None:
        super().on_response_complete()
        timer = self.timeout_keep_alive_task
        if timer is not None:
            timer.cancel()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.limits.idle_timeout_s, self.timeout_keep_alive_handler
            )

    def shutdown(self) -> None:
        """Close when idle; else let the request in flight finish first."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self.cycle.keep_alive = False


class Exchange:
    """One request's end of its connection: writes the answer, or takes the connection over."""

    __slots__ = ("cycle", "protocol", "upgrade_protocol", "upgraded")

    def __init__(self, protocol: KcpProtocol, cycle: RequestResponseCycle, upgrade_protocol: str) -> None:
        self.protocol = protocol
        self.cycle = cycle
        self.upgrade_protocol = upgrade_protocol
        self.upgraded: Tunnel | None = None

    @property
    def disconnected(self) -> bool:
        return self.cycle.disconnected

    async def respond(self, response: Response) -> None:
        """Write the whole answer. Returns early when the peer has gone."""
        try:
            if response.stream is not None:
                await self._stream(response, response.stream)
            else:
                await self._whole(response)
        except PeerGone:
            self.cycle.disconnected = True
            self.protocol.transport.abort()

    async def _whole(self, response: Response) -> None:
        cycle, transport = self.cycle, self.protocol.transport
        body = response.body
        bodiless = response.status in (204, 304)
        lines = [] if bodiless else [("content-length", str(len(body)))]
        head = self._head(response, lines)
        if bodiless or cycle.scope["method"] == "HEAD":
            body = b""
        if cycle.disconnected:
            return
        cycle.response_started = True
        if len(body) <= SLICE_BYTES:
            transport.write(head + body)
        else:
            transport.write(head)
            await self._slices(body)
        self._complete()

    async def _slices(self, body: bytes) -> None:
        view = memoryview(body)
        for start in range(0, len(body), SLICE_BYTES):
            if self.cycle.disconnected:
                raise PeerGone
            self.protocol.transport.write(view[start : start + SLICE_BYTES])
            if self.protocol.flow.write_paused:
                await self._drained()
            else:
                await asyncio.sleep(0)

    async def _stream(self, response: Response, chunks: AsyncIterator[bytes]) -> None:
        """Chunked while the iterator yields. The peer's disappearance cancels the iterator at its await."""
        chunked = self.cycle.scope["http_version"] != "1.0"
        if not chunked:
            self.cycle.keep_alive = False
        head = self._head(response, [("transfer-encoding", "chunked")] if chunked else [])
        self.protocol.streaming = asyncio.current_task()
        try:
            if self.cycle.disconnected:
                return
            self.cycle.response_started = True
            self.protocol.transport.write(head)
            if self.cycle.scope["method"] != "HEAD":
                await self._chunks(chunks, chunked)
            self._complete(b"0\r\n\r\n" if chunked and self.cycle.scope["method"] != "HEAD" else b"")
        except asyncio.CancelledError:
            if not self.cycle.disconnected:
                raise
        finally:
            self.protocol.streaming = None
            close = getattr(chunks, "aclose", None)
            if close is not None:
                with contextlib.suppress(asyncio.CancelledError):
                    await close()

    async def _chunks(self, chunks: AsyncIterator[bytes], chunked: bool) -> None:
        write, flow, cycle = self.protocol.transport.write, self.protocol.flow, self.cycle
        async for chunk in chunks:
            if cycle.disconnected:
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
        if self.cycle.disconnected:
            raise PeerGone

    def _head(self, response: Response, framing: list[tuple[str, str]]) -> bytes:
        return encode_head(
            STATUS_LINE[response.status],
            [*response.headers, *framing, *(() if self.cycle.keep_alive else (("connection", "close"),))],
            self.protocol.server_state.default_headers,
        )

    def _complete(self, tail: bytes = b"") -> None:
        cycle, transport = self.cycle, self.protocol.transport
        if tail and not cycle.disconnected:
            transport.write(tail)
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            transport.close()
        cycle.on_response()

    def accept(self, headers: Sequence[tuple[str, str]], *, cancel_when_lost: bool = False) -> Tunnel:
        """Answer 101 and hand the connection to the caller, who closes it.

        `cancel_when_lost` cancels the calling task when the peer goes away, for callers that never read.
        """
        assert self.upgrade_protocol, "no upgrade was asked for"
        protocol, cycle = self.protocol, self.cycle
        lines = [("upgrade", self.upgrade_protocol), ("connection", "Upgrade"), *headers]
        cycle.response_started = cycle.response_complete = True
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


def encode_head(
    status_line: bytes, headers: Sequence[tuple[str, str]], extra: Sequence[tuple[bytes, bytes]]
) -> bytes:
    """Status line and headers. Raises ValueError when a value would smuggle in another line."""
    text = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if text.count("\n") != len(headers) or text.count("\r") != len(headers):
        raise ValueError("a header contains a line break")
    lines = b"".join([b"%b: %b\r\n" % pair for pair in extra])
    return b"%b%b%b\r\n" % (status_line, text.encode(), lines)
