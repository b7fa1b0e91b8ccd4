"""Read-only SQL over a log, for people: `kcp sql`.

    with Session(path, clock, at="10m") as session:
        table = session.run("SELECT name, phase, node FROM pods WHERE phase <> 'Running'")

Works beside a running daemon and on the file of a stopped one. Nothing can be written: on SQLite the file is opened
read-only, the connection is `query_only`, ATTACH is refused. With `at` the views show that moment.
"""

from __future__ import annotations

import re
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from kcp.base.clock import Clock, microseconds
from kcp.base.values import frozen
from kcp.store import archive, rows, schema, views
from kcp.store.open import is_postgres, sqlite_path
from kcp.store.protocol import StoreError
from kcp.store.sqlite import connect_read_only

DEADLINE_S = 30.0
_STEPS_BETWEEN_CHECKS = 20_000
_AGO = re.compile(r"-?(\d+)(s|m|h|d)(?:\s+ago)?")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_READING_PRAGMAS = frozenset(
    {"table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "compile_options"}
    | {"database_list", "function_list", "user_version", "page_count", "page_size", "freelist_count"}
)
_ALLOWED = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)


class QueryFailed(StoreError):
    """Raised when the SQL is wrong, takes too long, or tries to write; the text is for people."""


@frozen
class ResultTable:
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def span_s(text: str) -> float | None:
    """The seconds in `90s`, `10m`, `24h` or `30d`; None for anything else."""
    found = _AGO.fullmatch(text.strip())
    return None if found is None else float(int(found[1]) * _UNIT_S[found[2]])


def parse_at(text: str, clock: Clock) -> int | datetime:
    """A revision (`1234`), a moment (RFC 3339, UTC unless it says otherwise) or a span back from now (`10m`, `-2h`)."""
    text = text.strip()
    if text.isdigit():
        return int(text)
    back_s = span_s(text)
    if back_s is not None:
        return clock.now() - timedelta(seconds=back_s)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise QueryFailed(f"{text!r} is neither a revision, nor a time, nor a span such as 10m") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


_WORDS = re.compile(r"\w+")
_HISTORY = frozenset({"events", *views.over_history()})
_STATE = frozenset(views.over_state())


def need_of(sealed: archive.Archive, sql: str, at: int | None) -> None:
    """Read what a statement may look at: everything where it names a view of all versions, one moment, or nothing.

    `at` is the moment that the views of the state show; None: now, which is never sealed.
    """
    words = {word.lower() for word in _WORDS.findall(sql)}
    if words & _HISTORY:
        sealed.everything()
    elif at is not None and words & _STATE:
        sealed.state(at)


class Engine(Protocol):
    """What a session needs of an engine. `rv` is the revision that its views show."""

    rv: int

    def run(self, sql: str, parameters: tuple[Any, ...], limit: int | None) -> ResultTable: ...

    def names(self) -> dict[str, tuple[str, ...]]: ...

    def close(self) -> None: ...


class Session:
    """One read-only connection with the views of a moment. Not for use by two threads at once."""

    def __init__(
        self, url_or_path: str | Path, clock: Clock, *, at: str | None = None, deadline_s: float = DEADLINE_S
    ) -> None:
        wanted = None if at is None else parse_at(at, clock)
        self._engine: Engine
        if is_postgres(url_or_path):
            from kcp.store.postgres_query import PostgresSession

            self._engine = PostgresSession(str(url_or_path), wanted, deadline_s)
        else:
            self._engine = SqliteSession(sqlite_path(url_or_path), clock, wanted, deadline_s)
        self.rv = self._engine.rv

    def run(self, sql: str, parameters: tuple[Any, ...] = (), *, limit: int | None = None) -> ResultTable:
        """One statement; parameters stand where the engine wants them (`?` on SQLite, `$1` on PostgreSQL).

        Raises QueryFailed.
        """
        return self._engine.run(sql, parameters, limit)

    def names(self) -> dict[str, tuple[str, ...]]:
        """Tables and views with their columns, for completion."""
        return self._engine.names()

    def close(self) -> None:
        self._engine.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class SqliteSession:
    """On the file of a running or stopped daemon."""

    def __init__(self, path: Path, clock: Clock, wanted: int | datetime | None, deadline_s: float) -> None:
        self._clock = clock
        self._deadline_s = deadline_s
        self._until_s = 0.0
        self._connection = connect_read_only(path)
        try:
            schema.check(self._connection, path)
            archive.make_room(self._connection)
            self._connection.execute("BEGIN")
            self._sealed = archive.opened(self._connection, path)
            self._past = wanted is not None
            self.rv = self._position(wanted)
            self._create_views(self._past)
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.close()
            raise
        self._connection.execute(
            "SELECT 1 FROM json_each('1'), json_tree('1')"
        ).fetchone()  # they declare themselves
        self._guard(True)
        self._connection.set_progress_handler(self._late, _STEPS_BETWEEN_CHECKS)

    def _position(self, wanted: int | datetime | None) -> int:
        (head,) = self._connection.execute("SELECT rv FROM head WHERE id = 1").fetchone()
        if wanted is None:
            return int(head)
        if isinstance(wanted, datetime):
            moment_us = microseconds(wanted.astimezone(UTC))
            self._sealed.moment(moment_us)
            wanted = rows.rv_at(self._connection, moment_us)
        if wanted > head:
            raise QueryFailed(f"revision {wanted} is in the future: the log is at {head}")
        self._sealed.check(wanted)
        return wanted

    def _guard(self, on: bool) -> None:
        """On: nothing can be written, attached or set."""
        self._connection.set_authorizer(None)
        self._connection.execute(f"PRAGMA query_only={'ON' if on else 'OFF'}")
        if on:
            self._connection.set_authorizer(_authorize)

    def _begin(self, sql: str) -> None:
        """Hold the tables still, and read of the sealed files what the statement may look at."""
        self._guard(False)
        try:
            self._connection.execute("BEGIN")
            self._sealed.look()
            need_of(self._sealed, sql, self.rv if self._past else None)
        finally:
            self._guard(True)

    def _end(self) -> None:
        """What was read of the files stays for the next statement."""
        if self._connection.in_transaction:
            self._guard(False)
            self._connection.execute("COMMIT")
            self._guard(True)

    def _create_views(self, past: bool) -> None:
        self._connection.execute("CREATE TEMP TABLE asof (rv INTEGER)")
        self._connection.execute("INSERT INTO asof VALUES (?)", (self.rv,))
        for name, select in views.as_of() if past else views.persistent():
            self._connection.execute(f'CREATE TEMP VIEW "{name}" AS {select}')

    def run(self, sql: str, parameters: tuple[Any, ...], limit: int | None) -> ResultTable:
        try:
            self._begin(sql)
            self._until_s = self._clock.monotonic() + self._deadline_s
            cursor = self._connection.execute(sql, parameters)
            found = cursor.fetchall() if limit is None else cursor.fetchmany(limit)
            columns = tuple(column[0] for column in cursor.description or ())
            cursor.close()
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise QueryFailed(self._explain(error)) from error
        finally:
            self._until_s = 0.0
            self._end()
        return ResultTable(columns, found)

    def _explain(self, error: Exception) -> str:
        text = str(error)
        if text == "interrupted":
            return f"the query took longer than {self._deadline_s:g} s and was stopped"
        if "not authorized" in text or "prohibited" in text or "readonly" in text or "read-only" in text:
            return f"kcp sql only reads: {text}"
        return text

    def names(self) -> dict[str, tuple[str, ...]]:
        found = self._connection.execute(
            "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"
            " AND name <> 'alembic_version' UNION SELECT name FROM temp.sqlite_master WHERE type = 'view' ORDER BY 1"
        ).fetchall()
        return {
            name: tuple(row[1] for row in self._connection.execute(f'PRAGMA table_info("{name}")'))
            for (name,) in found
        }

    def _late(self) -> int:
        return int(self._clock.monotonic() > self._until_s > 0)

    def close(self) -> None:
        self._connection.close()


def _authorize(action: int, first: str | None, second: str | None, _db: str | None, _by: str | None) -> int:
    if action in _ALLOWED:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_PRAGMA and first in _READING_PRAGMAS:
        return sqlite3.SQLITE_OK
    del second
    return sqlite3.SQLITE_DENY


def run_query(
    url_or_path: str | Path,
    sql: str,
    *,
    clock: Clock,
    at: str | None = None,
    deadline_s: float = DEADLINE_S,
    limit: int | None = None,
) -> ResultTable:
    """One query in a session of its own."""
    with Session(url_or_path, clock, at=at, deadline_s=deadline_s) as session:
        return session.run(sql, limit=limit)
