"""Sealed events on PostgreSQL's side: a table and a view in a reader's temporary schema, found before the log's own.

A read-only transaction may write to a temporary table but not create one. So `prepare` comes before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import asyncpg

from kcp.store import parquet, views
from kcp.store import postgres_rows as rows

Call = Callable[..., Any]
"""Runs a coroutine function with its arguments on the connection's loop and gives what it gives."""

_TYPES = (
    "bigint", "bigint", "smallint", "bigint", "bigint", "int", "bigint", "text", "smallint", "jsonb", "bytea",
)  # fmt: skip
_NAMES = (*parquet.COLUMNS, "body_raw")
_ALL = ", ".join(_NAMES)
_BODY = parquet.COLUMNS.index("body")


async def is_sealed(connection: asyncpg.Connection) -> bool:
    """Whether a reader needs the table; more may be sealed any moment."""
    return bool(await connection.fetchval("SELECT EXISTS (SELECT 1 FROM segments)"))


async def prepare(connection: asyncpg.Connection, *, with_views: bool = False) -> None:
    """Make `events` show the hot rows and those read of the files. `with_views`: the views for people too."""
    schema = await connection.fetchval("SELECT quote_ident(current_schema())")
    columns = ", ".join(f"{name} {type_}" for name, type_ in zip(_NAMES, _TYPES, strict=True))
    await connection.execute(
        f"CREATE TEMP TABLE sealed_events ({columns}, PRIMARY KEY (rv));"
        "CREATE INDEX sealed_object ON pg_temp.sealed_events (oid, rv);"
        f"CREATE TEMP VIEW hot_events AS SELECT {_ALL} FROM {schema}.events;"
        f"CREATE TEMP VIEW events AS SELECT {_ALL} FROM {schema}.events UNION ALL SELECT {_ALL} FROM pg_temp.sealed_events"
    )
    for name, select in views.persistent(views.POSTGRES) if with_views else ():
        await connection.execute(f'CREATE TEMP VIEW "{name}" AS {select}')


async def hot_name(connection: asyncpg.Connection) -> str:
    """What to read the hot rows from, prepared or not."""
    there = await connection.fetchval("SELECT to_regclass('pg_temp.hot_events')")
    return "hot_events" if there else "events"


class PostgresShelf:
    """On a prepared connection, or on one that only looks at segments."""

    def __init__(self, call: Call, connection: asyncpg.Connection) -> None:
        self._call, self._connection = call, connection
        self._hot: str = call(hot_name, connection)

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        hot = sql.replace("{log}events", self._hot).replace("{log}", "")
        return [tuple(row) for row in self._call(self._connection.fetch, hot)]

    def prepare(self) -> None:
        """Has happened: a transaction that only reads cannot."""

    def clear(self) -> None:
        self._call(self._connection.execute, "DELETE FROM pg_temp.sealed_events")

    def put(self, page: parquet.Page) -> None:
        columns = [list(column) for column in zip(*map(_stored, page), strict=True)]
        arrays = ", ".join(f"${i}::{type_}[]" for i, type_ in enumerate(_TYPES, 1))
        self._call(
            self._connection.execute,
            f"INSERT INTO pg_temp.sealed_events SELECT * FROM unnest({arrays}) AS x({_ALL})"
            f" WHERE NOT EXISTS (SELECT 1 FROM {self._hot} h WHERE h.rv = x.rv) ON CONFLICT DO NOTHING",
            *columns,
        )


def _stored(row: Sequence[Any]) -> list[Any]:
    values: list[Any] = [*row, None]
    if values[_BODY] is not None:
        values[_BODY], values[-1] = rows.storable(values[_BODY].encode())
    return values
