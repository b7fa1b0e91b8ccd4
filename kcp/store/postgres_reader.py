"""A log on PostgreSQL for code without an event loop: one read-only snapshot, or one transaction of a tool that writes.

The connection lives in a loop of its own thread; every call waits for its answer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, cast

import anyio.from_thread
import asyncpg
import sqlalchemy as sa

from kcp.store import archive, archive_postgres
from kcp.store import postgres_rows as rows
from kcp.store import postgres_schema as ddl
from kcp.store.archive import FOLDER, Archive
from kcp.store.archive_postgres import PostgresShelf
from kcp.store.protocol import Event, KindRow, Record, StoreError

T = TypeVar("T")

_FAILURES = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresError)


async def _begin(connection: asyncpg.Connection, writing: bool, sealed: bool) -> Any:
    """With the table for sealed events, if it is wanted and there are any."""
    mode = {} if writing else {"isolation": "repeatable_read", "readonly": True}
    prepared = False
    while True:
        transaction = connection.transaction(**mode)
        await transaction.start()
        if writing:
            await connection.execute("SELECT 1 FROM head WHERE id = 1 FOR UPDATE")
        if prepared or not sealed or not await archive_postgres.is_sealed(connection):
            return transaction
        await transaction.rollback()
        await archive_postgres.prepare(connection)
        prepared = True


class PostgresReader:
    """`writing` makes it an ordinary transaction that holds the head row, so that no daemon writes meanwhile.

    `sealed`: `events` is not the table but shows it and what `self.sealed` read of the files; so it is when nobody writes.
    Leaving it by an exception undoes what was done. Raises StoreError with a reason for people.
    """

    def __init__(self, url: str, *, writing: bool = False, sealed: bool | None = None) -> None:
        self.place = ddl.shown(url)
        self._url = url
        self._stack = contextlib.ExitStack()
        try:
            self._portal = self._stack.enter_context(anyio.from_thread.start_blocking_portal())
            self.connection: asyncpg.Connection = self._portal.call(
                self._open, writing, not writing if sealed is None else sealed
            )
            shelf = PostgresShelf(self.call, self.connection)
            self.sealed = Archive(shelf, Path(FOLDER))
        except BaseException as error:
            self._stack.close()
            if isinstance(error, _FAILURES):
                raise StoreError(f"cannot open {self.place}: {error}") from error
            raise

    async def _open(self, writing: bool, sealed: bool) -> asyncpg.Connection:
        connection = await asyncpg.connect(
            self._url, timeout=ddl.CONNECT_TIMEOUT_S, server_settings=ddl.OPTIONS
        )
        try:
            await ddl.check(connection, self.place)
            self._transaction = await _begin(connection, writing, sealed)
        except BaseException:
            await connection.close()
            raise
        return connection

    def call(self, work: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
        try:
            found: T = self._portal.call(work, *arguments)
        except _FAILURES as error:
            raise StoreError(f"{self.place}: {error}") from error
        return found

    def fetch(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self.call(self.connection.fetch, sql, *arguments)]

    def value(self, sql: str, *arguments: Any) -> Any:
        return self.call(self.connection.fetchval, sql, *arguments)

    def many(self, sql: str, arguments: Sequence[Sequence[Any]]) -> None:
        self.call(self.connection.executemany, sql, arguments)

    def pages(self, sql: str, *arguments: Any, size: int = 2000) -> Iterator[list[tuple[Any, ...]]]:
        """The rows of a query that may be too many for the memory."""

        async def declare() -> Any:
            return await self.connection.cursor(sql, *arguments)

        cursor = self.call(declare)
        while page := self.call(cursor.fetch, size):
            yield [tuple(row) for row in page]

    def about(self) -> dict[str, str]:
        return dict(self.fetch("SELECT key, value FROM about ORDER BY key"))

    def head(self) -> tuple[int, str]:
        """(revision, uid of the cluster)."""
        rv, uid = self.fetch("SELECT rv, cluster_uid FROM head WHERE id = 1")[0]
        return rv, uid

    def kinds(self) -> list[tuple[int, KindRow]]:
        return [(row[0], rows.kind_row(row)) for row in self.fetch(rows.KINDS)]

    def list_at(
        self,
        kind: int,
        resource: str,
        rv: int,
        namespace: str | None,
        after: tuple[str, str] | None = None,
        limit: int | None = None,
    ) -> list[Record]:
        self.sealed.state(rv, archive.of_kind(kind, namespace))
        sql, arguments = rows.list_at(kind, resource, rv, namespace, after, limit)
        return [rows.record(resource, row) for row in self.fetch(sql, *arguments)]

    def get_at(self, kind: int, resource: str, namespace: str, name: str, rv: int) -> Record | None:
        self.sealed.state(rv, archive.one(kind, namespace, name))
        sql, arguments = rows.get_at(kind, resource, namespace, name, rv)
        found = self.fetch(sql, *arguments)
        return rows.record(resource, found[0]) if found else None

    def events_since(
        self, resources: dict[int, str], rv: int, until: int, kinds: Sequence[int] | None, limit: int
    ) -> list[Event]:
        def page(after: int, end: int, count: int) -> list[Event]:
            sql, arguments = rows.events_since(after, end, kinds, count if count >= 0 else None)
            return [rows.event(row, resources) for row in self.fetch(sql, *arguments)]

        return self.sealed.walk(rv, until, limit, page)

    def rv_at(self, ts_us: int) -> int:
        self.sealed.moment(ts_us)
        return self.value(rows.RV_AT, ts_us) or 0

    def close(self, *, undo: bool = True) -> None:
        async def end() -> None:
            try:
                await (self._transaction.rollback() if undo else self._transaction.commit())
            finally:
                await self.connection.close()

        try:
            self.call(end)
        finally:
            self._stack.close()

    def __enter__(self) -> PostgresReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(undo=kind is not None)


@contextlib.contextmanager
def sqlalchemy_reader(url: str) -> Iterator[sa.Connection]:
    """What SQLAlchemy statements can be executed on; of a Connection only `execute` and `info` are there."""

    class Executing:
        def __init__(self) -> None:
            self.info: dict[str, Any] = {}

        def execute(self, statement: sa.Executable) -> Any:
            return portal.call(connection.execute, statement)

    place = ddl.shown(url)
    with contextlib.ExitStack() as stack:
        portal = stack.enter_context(anyio.from_thread.start_blocking_portal())
        engine = ddl.engine(url)
        stack.callback(lambda: portal.call(engine.dispose))
        try:
            connection = portal.call(engine.connect().start)
            stack.callback(lambda: portal.call(connection.close))
            raw = portal.call(connection.get_raw_connection)
            driver = raw.driver_connection
            portal.call(ddl.check, driver, place)
            if portal.call(archive_postgres.is_sealed, driver):
                portal.call(archive_postgres.prepare, driver)
            portal.call(
                connection.execute,
                sa.text(
                    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, ISOLATION LEVEL REPEATABLE READ"
                ),
            )
            portal.call(connection.commit)
        except (sa.exc.DBAPIError, *_FAILURES) as error:
            raise StoreError(f"cannot open {place}: {getattr(error, 'orig', None) or error}") from error
        executing = Executing()
        executing.execute(sa.text("SELECT 1"))  # begins the transaction that the archive reads in
        executing.info["sealed"] = Archive(PostgresShelf(portal.call, driver), Path(FOLDER))
        yield cast(sa.Connection, executing)
