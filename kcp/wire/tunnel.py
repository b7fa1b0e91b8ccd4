"""A connection after an HTTP upgrade: raw bytes both ways, for either end.

Reading is bounded: the peer is paused while `READ_BUFFER_BYTES` wait to be received.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

READ_BUFFER_BYTES = 256 * 1024


class TunnelClosed(ConnectionError):
    """Raised when bytes are sent into a tunnel whose other end has gone."""


class Tunnel(asyncio.Protocol):
    """Owned by the handler that upgraded the connection; it must call `close`."""

    def __init__(
        self,
        transport: asyncio.Transport,
        early: bytes = b"",
        on_lost: Callable[[Tunnel], None] | None = None,
    ) -> None:
        self._transport = transport
        self._chunks: deque[bytes] = deque([early] if early else [])
        self._size = len(early)
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._eof = False
        self._lost = False
        self._on_lost = on_lost
        if early:
            self._readable.set()

    @property
    def closed(self) -> bool:
        return self._lost or self._transport.is_closing()

    async def receive(self) -> bytes:
        """The next bytes, `b""` at the end. The caller sets its own deadline."""
        while not self._chunks:
            if self._eof or self._lost:
                return b""
            self._readable.clear()
            await self._readable.wait()
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        if not self._lost:
            self._transport.resume_reading()
        return data

    async def send(self, data: bytes) -> None:
        """Write, and wait while the peer does not keep up. Raises TunnelClosed when it has gone."""
        if self.closed:
            raise TunnelClosed("the peer closed the connection")
        self._transport.write(data)
        await self._writable.wait()

    def close(self) -> None:
        if not self._transport.is_closing():
            self._transport.close()

    shutdown = close

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        if self._size > READ_BUFFER_BYTES:
            self._transport.pause_reading()
        self._readable.set()

    def eof_received(self) -> bool:
        self._eof = True
        self._readable.set()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._lost = True
        self._readable.set()
        self._writable.set()
        if self._on_lost is not None:
            self._on_lost(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()
