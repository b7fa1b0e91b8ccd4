"""Sealing on PostgreSQL: a connection of its own, beside whatever daemons write.

Rows are deleted in bounded steps, not by dropping partitions: some rows of every range stay hot, and taking a partition
away would hold up every append. Autovacuum makes the room usable again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, TypeVar

import anyio.from_thread
import asyncpg

from kcp.base.clock import Clock
from kcp.store import parquet
from kcp.store import postgres_rows as rows
from kcp.store import postgres_schema as ddl
from kcp.store.protocol import Locked, StoreError
from kcp.store.sealing import Moved, Transaction

T = TypeVar("T")

SEAL_LOCK = 0x6B6370_7365616C
"""The advisory lock of the one that seals."""
_SETTINGS = {"lock_timeout": "5s", "statement_timeout": "60s"}
_FAILURES = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresError)
_COLUMNS = ", ".join(parquet.COLUMNS)
_BODY = parquet.COLUMNS.index("body")


class PostgresLog:
    """Holds the lock while it is open. Raises Locked when another one seals, StoreError with a reason for people."""

    engine = "postgresql"

    def __init__(self, url: str, clock: Clock) -> None:
        self.place, self._url, self._clock = ddl.shown(url), url, clock
        self._stack = contextlib.ExitStack()
        try:
            self._portal = self._stack.enter_context(anyio.from_thread.start_blocking_portal())
            self._connection: asyncpg.Connection = self._call(self._open)
            self._stack.callback(self._portal.call, self._connection.close)
            ((self._epoch,),) = self.fetch("SELECT epoch FROM head WHERE id = 1")
        except BaseException:
            self._stack.close()
            raise

    async def _open(self) -> asyncpg.Connection:
        connection = await asyncpg.connect(
            self._url, timeout=ddl.CONNECT_TIMEOUT_S, server_settings=ddl.options(_SETTINGS)
        )
        try:
            await ddl.check(connection, self.place)
            if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", SEAL_LOCK):
                raise Locked(f"another kcp is sealing {self.place}")
        except BaseException:
            await connection.close()
            raise
        return connection

    def _call(self, work: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
        try:
            found: T = self._portal.call(work, *arguments)
        except _FAILURES as error:
            raise StoreError(f"{self.place}: {error}") from error
        return found

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self._call(self._connection.fetch, sql.replace("{log}", ""))]

    def bodies(self, rvs: Sequence[int]) -> dict[int, tuple[Any, ...]]:
        found = self._call(
            self._connection.fetch,
            f"SELECT {_COLUMNS}, body_raw FROM events WHERE rv = ANY($1::bigint[])",
            list(rvs),
        )
        return {row[parquet.RV]: _sealed(tuple(row)) for row in found}

    def transact(self, step: Callable[[Transaction], T]) -> T:
        transaction = self._connection.transaction()
        self._call(transaction.start)
        try:
            within = _Transaction(self)
            if within.fetch("SELECT epoch FROM head WHERE id = 1") != [(self._epoch,)]:
                raise Moved("the log was restored meanwhile")
            found = step(within)
        except BaseException:
            with contextlib.suppress(StoreError):
                self._call(transaction.rollback)
            raise
        self._call(transaction.commit)
        return found

    def run(self, sql: str) -> int:
        status = self._call(self._connection.execute, sql.replace("{log}", ""))
        count = status.split()[-1]
        return int(count) if count.isdigit() else 0

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> PostgresLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Transaction:
    def __init__(self, log: PostgresLog) -> None:
        self._log = log
        self._began_s = log.monotonic()

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        return self._log.fetch(sql)

    def run(self, sql: str) -> int:
        return self._log.run(sql)

    def elapsed_s(self) -> float:
        return self._log.monotonic() - self._began_s


def _sealed(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row as it lies in a file: the body in normal form."""
    values = list(row[:-1])
    body = rows.normal_body(values[_BODY], row[-1])
    values[_BODY] = None if body is None else body.decode()
    return tuple(values)
