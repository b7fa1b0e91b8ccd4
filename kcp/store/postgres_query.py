"""`kcp sql` on PostgreSQL: each statement in a read-only transaction of its own that is always rolled back.

With a moment the session has views of its own, in its temporary schema, that show the log as of then.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio.from_thread
import asyncpg

from kcp.base.clock import microseconds
from kcp.store import archive_postgres, views
from kcp.store import postgres_rows as rows
from kcp.store import postgres_schema as ddl
from kcp.store.archive import FOLDER, Archive
from kcp.store.archive_postgres import PostgresShelf
from kcp.store.protocol import StoreError
from kcp.store.query import QueryFailed, ResultTable, need_of

_READS = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*(select|with|values|table|explain|show)\b", re.I | re.S)
_NAMES = """
SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
 WHERE c.relkind IN ('r', 'v', 'p') AND a.attnum > 0 AND NOT a.attisdropped AND c.relname NOT IN ('alembic_version', 'asof', 'hot_events', 'sealed_events')
   AND (c.relnamespace = current_schema()::regnamespace OR c.relnamespace = pg_my_temp_schema())
 GROUP BY c.relname, c.relnamespace ORDER BY 1
"""


class PostgresSession:
    """One connection with the views of a moment."""

    def __init__(self, url: str, wanted: int | datetime | None, deadline_s: float) -> None:
        self._url = url
        self._deadline_s = deadline_s
        self._stack = contextlib.ExitStack()
        self._portal = self._stack.enter_context(anyio.from_thread.start_blocking_portal())
        try:
            self._connection: asyncpg.Connection = self._portal.call(self._open)
            self._stack.callback(self._portal.call, self._connection.close)
            self._prepared = False
            self._portal.call(self._prepare, wanted is not None)
            self._sealed = Archive(PostgresShelf(self._portal.call, self._connection), Path(FOLDER))
            self._past = wanted is not None
            self.rv: int = self._position(wanted)
            if self._past:
                self._portal.call(self._show, self.rv)
        except BaseException as error:
            self._stack.close()
            if isinstance(error, (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresError)):
                raise StoreError(f"cannot open {ddl.shown(url)}: {error}") from error
            raise

    async def _open(self) -> asyncpg.Connection:
        settings = ddl.options({"statement_timeout": f"{round(self._deadline_s * 1000)}ms"})
        connection = await asyncpg.connect(
            self._url, timeout=ddl.CONNECT_TIMEOUT_S, server_settings=settings, statement_cache_size=0
        )
        try:
            await ddl.check(connection, ddl.shown(self._url))
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _prepare(self, past: bool) -> bool:
        """Once something is sealed: the table for it. Returns whether it was made just now."""
        if self._prepared or not await archive_postgres.is_sealed(self._connection):
            return False
        await archive_postgres.prepare(self._connection, with_views=not past)
        self._prepared = True
        return True

    def _position(self, wanted: int | datetime | None) -> int:
        ((head,),) = self._fetch("SELECT rv FROM head WHERE id = 1")
        if wanted is None:
            return int(head)
        if isinstance(wanted, datetime):
            wanted = self._rv_at(microseconds(wanted))
        if wanted > head:
            raise QueryFailed(f"revision {wanted} is in the future: the log is at {head}")
        self._sealed.check(wanted)
        return wanted

    def _rv_at(self, ts_us: int) -> int:
        self._portal.call(self._begin)
        try:
            self._sealed.look()
            self._sealed.moment(ts_us)
            found = self._fetch(rows.RV_AT, ts_us)
        finally:
            self._portal.call(self._end)
        return int(found[0][0]) if found else 0

    def _fetch(self, sql: str, *arguments: Any) -> list[Any]:
        found: list[Any] = self._portal.call(self._connection.fetch, sql, *arguments)
        return found

    async def _show(self, rv: int) -> None:
        connection = self._connection
        await connection.execute("CREATE TEMP TABLE asof (rv bigint)")
        await connection.execute("INSERT INTO asof VALUES ($1)", rv)
        await connection.execute("ANALYZE asof")
        for name, select in views.as_of(views.POSTGRES):
            await connection.execute(f'CREATE OR REPLACE TEMP VIEW "{name}" AS {select}')

    def run(self, sql: str, parameters: tuple[Any, ...], limit: int | None) -> ResultTable:
        if not _READS.match(sql):
            raise QueryFailed("kcp sql only reads: a statement begins with SELECT, WITH, VALUES, TABLE, EXPLAIN or SHOW")  # fmt: skip
        try:
            self._begin_with_sealed(sql)
            try:
                table: ResultTable = self._portal.call(self._run, sql, parameters, limit)
            finally:
                self._portal.call(self._end)
        except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresError) as error:
            raise QueryFailed(self._explain(error)) from error
        return table

    def _begin_with_sealed(self, sql: str) -> None:
        """One snapshot for the statement and for what is read of the sealed files before it."""
        if self._portal.call(self._prepare, self._past):
            self._sealed = Archive(PostgresShelf(self._portal.call, self._connection), Path(FOLDER))
            if self._past:
                self._portal.call(self._show_again)
        self._portal.call(self._begin)
        try:
            self._sealed.look()
            need_of(self._sealed, sql, self.rv if self._past else None)
        except BaseException:
            self._portal.call(self._end)
            raise

    async def _show_again(self) -> None:
        """The views of a moment, now over the sealed events too."""
        await self._connection.execute("DROP TABLE asof CASCADE")
        await self._show(self.rv)

    async def _begin(self) -> None:
        self._transaction = self._connection.transaction(isolation="repeatable_read", readonly=True)
        await self._transaction.start()
        await self._connection.execute("SELECT 1")  # after it the transaction cannot be made to write

    async def _end(self) -> None:
        """What was read of the files stays for the next statement; nothing else was written."""
        await self._transaction.commit()

    async def _run(self, sql: str, parameters: tuple[Any, ...], limit: int | None) -> ResultTable:
        attempt = self._connection.transaction()
        await attempt.start()
        try:
            statement = await self._connection.prepare(sql)
            columns = tuple(attribute.name for attribute in statement.get_attributes())
            if limit is None:
                found = await statement.fetch(*parameters)
            else:
                found = await (await statement.cursor(*parameters)).fetch(limit)
        finally:
            await attempt.rollback()
        return ResultTable(columns, [tuple(_plain(value) for value in row) for row in found])

    def _explain(self, error: BaseException) -> str:
        if isinstance(error, asyncpg.QueryCanceledError):
            return f"the query took longer than {self._deadline_s:g} s and was stopped"
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            return f"kcp sql only reads: {error}"
        return str(error)

    def names(self) -> dict[str, tuple[str, ...]]:
        return {
            row[0]: tuple(row[1])
            for row in self._portal.call(_fetch(self._connection, _NAMES))
        }  # fmt: skip

    def close(self) -> None:
        self._stack.close()


def _fetch(connection: asyncpg.Connection, sql: str) -> Callable[[], Any]:
    async def run() -> Any:
        return await connection.fetch(sql)

    return run


def _plain(value: Any) -> Any:
    """Numbers as SQLite would show them."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bool):
        return int(value)
    return value
