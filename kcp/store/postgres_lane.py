"""A connection that writes to PostgreSQL, one batch after the other, and what waits for it."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import asyncpg
import attrs

from kcp.store.driver import Batch, Done
from kcp.store.protocol import Unavailable

LOCK_TIMEOUT_S = 20.0

LOST = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
)
"""After these nobody knows whether a commit happened."""


class Unknown(Unavailable):
    """Raised when a batch may or may not be in the log."""


@attrs.define(slots=True, eq=False)
class Job:
    """Something to do on a lane, for a batch or to look. `below` is the batch that this one was staged on, if it is on its way.

    `error` is what became of it, once it is `settled`.
    """

    work: Work
    done: Done
    batch: Batch | None
    below: Job | None
    error: BaseException | None = None
    settled: anyio.Event = attrs.field(factory=anyio.Event)

    async def fate_below(self) -> BaseException | None:
        """Wait for the outcome of the batch below: None when all is well."""
        if self.below is None:
            return None
        await self.below.settled.wait()
        if self.below.error is None:
            self.below = None
            return None
        return self.below.error

    def settle(self, error: BaseException | None) -> None:
        self.error = error
        self.settled.set()


Work = Callable[["Lane", Job], Awaitable[None]]


class Lane:
    """Owned by the task that holds `working`. `next` is what that task does after it has handed over an answer.

    `tasks` counts those that hold it or wait for it.
    """

    def __init__(
        self, connect: Callable[..., Awaitable[asyncpg.Connection]], commit_timeout_s: float
    ) -> None:
        self._connect = connect
        self._commit_timeout_s = commit_timeout_s
        self._connection: asyncpg.Connection | None = None
        self._held: Any = None
        self.working = anyio.Lock(fast_acquire=True)
        self.next: Job | None = None
        self.tasks = 0

    async def connection(self) -> asyncpg.Connection:
        """Open, and made anew when it is not."""
        connection = self._connection
        if connection is None or connection.is_closed():
            self._held = None
            connection = self._connection = await self._connect(
                lock_timeout=f"{LOCK_TIMEOUT_S:g}s",
                statement_timeout=f"{self._commit_timeout_s:g}s",
                idle_in_transaction_session_timeout="5s",
            )
            if await connection.fetchval("SHOW synchronous_commit") == "off":
                await connection.execute("SET synchronous_commit = on")
        return connection

    @property
    def holding(self) -> bool:
        """Whether locks outlive the statement that took them."""
        return self._held is not None

    async def hold(self) -> None:
        if self._held is None:
            self._held = (await self.connection()).transaction()
            await self._held.start()

    async def commit_held(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            await held.commit()

    async def let_go(self) -> None:
        """Give back what is held."""
        held, self._held = self._held, None
        if held is not None:
            try:
                await held.rollback()
            except (*LOST, asyncpg.PostgresError):
                await self.drop()

    async def drop(self) -> None:
        """Never trust the connection again; end its work on the server, if the server can be reached."""
        connection, self._connection, self._held = self._connection, None, None
        if connection is None:
            return
        pid = connection.get_server_pid()
        connection.terminate()
        with contextlib.suppress(*LOST, asyncpg.PostgresError):
            other = await self._connect()
            try:
                await other.execute("SELECT pg_terminate_backend($1)", pid)
            finally:
                await other.close()

    def terminate(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
