"""A TCP proxy that can stop forwarding: a network that is cut, and later heals with what was still on its way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Literal

import attrs

Side = Literal["client", "server"]
CHUNK_BYTES = 65536
LINGER_S = 2.0
"""How long the server may still answer what was delivered late, after its sender has gone."""


@attrs.define
class Proxy:
    """Forwards 127.0.0.1:`port` to a port, in a thread of its own.

    While a side is held, what it sends is kept, at most a chunk per connection, and connections stay open; `heal` lets it
    all go on, also what comes from connections that have been given up meanwhile.
    """

    upstream: int
    port: int = 0
    _loop: asyncio.AbstractEventLoop = attrs.field(factory=asyncio.new_event_loop)
    held: int = 0
    """How many connections have something that waits for `heal`."""
    _open: dict[Side, asyncio.Event] = attrs.field(factory=dict)
    _tasks: set[asyncio.Task[None]] = attrs.field(factory=set)
    _thread: threading.Thread | None = None

    def start(self) -> Proxy:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="proxy", daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        assert self._thread is not None
        self._thread.join(10)

    def hold(self, sides: Sequence[Side]) -> None:
        for side in sides:
            self._loop.call_soon_threadsafe(self._open[side].clear)

    def heal(self) -> None:
        for gate in self._open.values():
            self._loop.call_soon_threadsafe(gate.set)

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        for side in ("client", "server"):
            self._open[side] = asyncio.Event()
            self._open[side].set()
        listening = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", self.port))
        self.port = listening.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()
        listening.close()
        for task in self._tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
        self._loop.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await self._open["client"].wait()
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        except OSError:
            writer.transport.abort()
            return
        down = asyncio.ensure_future(self._pass(up_reader, writer, "server"))
        try:
            await self._pass(reader, up_writer, "client")
            await asyncio.wait([down], timeout=LINGER_S)
        except asyncio.CancelledError:
            pass  # the proxy stops; asyncio.streams of Python 3.11 logs a connection's task that was cancelled
        finally:
            down.cancel()
            await asyncio.gather(down, return_exceptions=True)
            for end in (writer, up_writer):
                end.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, side: Side) -> None:
        while True:
            try:
                chunk = await reader.read(CHUNK_BYTES)
                await self._passable(side)
                if not chunk:
                    return
                writer.write(chunk)
                await writer.drain()
            except OSError:
                return

    async def _passable(self, side: Side) -> None:
        self.held += 1
        try:
            await self._open[side].wait()
        finally:
            self.held -= 1
