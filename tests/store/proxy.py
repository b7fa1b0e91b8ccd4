"""A proxy before a PostgreSQL server that breaks connections at a chosen message, for tests.

    async with Proxy(socket) as proxy:
        proxy.cut_at("server", 3, half=True)      the third message from now on is cut in two, and the connection ends

Messages are those of the protocol, version 3: a letter, a length, the rest. The first of a connection has no letter.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Literal

import attrs

Side = Literal["client", "server"]
_LENGTH = 4


@attrs.define
class Cut:
    """Break when that many messages of that side have been seen. `silent`: pass nothing on instead of breaking."""

    side: Side
    message: int
    half: bool = False
    silent: bool = False
    seen: int = 0


class Proxy:
    """Listens on 127.0.0.1; `port` is free to be chosen by the system."""

    def __init__(self, server: Path) -> None:
        self._server = server
        self._cut: Cut | None = None
        self._listening: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._muted: set[int] = set()
        self.cuts = 0
        self.port = 0

    async def __aenter__(self) -> Proxy:
        self._listening = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._listening.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._listening is not None
        self._listening.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def url(self, database: str) -> str:
        return f"postgresql://kcp@127.0.0.1:{self.port}/{database}?sslmode=disable"

    def cut_at(self, side: Side, message: int, *, half: bool = False, silent: bool = False) -> None:
        self._cut = Cut(side, message, half, silent)

    def disarm(self) -> None:
        self._cut = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        try:
            up_reader, up_writer = await asyncio.open_unix_connection(str(self._server))
        except OSError:
            writer.close()
            return
        number = id(writer)
        both = [
            asyncio.ensure_future(self._pass(reader, up_writer, "client", number)),
            asyncio.ensure_future(self._pass(up_reader, writer, "server", number)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._muted.discard(number)
            for one in both:
                one.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            for end in (writer, up_writer):
                end.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, side: Side, number: int
    ) -> None:
        """Until one end closes or the cut is reached."""
        first = side == "client"
        while True:
            try:
                message = await _message(reader, first)
            except (asyncio.IncompleteReadError, OSError):
                return
            first = False
            cut = self._reached(side)
            if cut is not None and cut.silent:
                self._muted.add(number)
            if number in self._muted:
                continue
            try:
                if cut is not None:
                    writer.write(message[: len(message) // 2] if cut.half else b"")
                    await writer.drain()
                    return
                writer.write(message)
                await writer.drain()
            except OSError:
                return

    def _reached(self, side: Side) -> Cut | None:
        cut = self._cut
        if cut is None or cut.side != side:
            return None
        cut.seen += 1
        if cut.seen < cut.message:
            return None
        self._cut = None
        self.cuts += 1
        return cut


async def _message(reader: asyncio.StreamReader, first: bool) -> bytes:
    head = await reader.readexactly(_LENGTH if first else 1 + _LENGTH)
    length = int.from_bytes(head[-_LENGTH:], "big") - _LENGTH
    return head + await reader.readexactly(length)
