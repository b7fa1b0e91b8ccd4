"""Moving a log into and out of PostgreSQL. The portable form is the incident file, a log on SQLite.

copy_range    PostgreSQL ──▶ the tables of a new file
fill          a file ──▶ an empty database
"""

from __future__ import annotations

import itertools
import re
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import asyncpg
import orjson

from kcp.base.entropy import Entropy
from kcp.store import postgres_rows, postgres_schema, tables
from kcp.store.facts import fold
from kcp.store.log import DECISIONS_PER_LIFE
from kcp.store.postgres import in_a_loop_of_its_own
from kcp.store.postgres_reader import PostgresReader
from kcp.store.protocol import Projection, StoreError
from kcp.store.source import plain_json

_ALIVE = "o.oid <= $2 AND (o.delete_rv IS NULL OR o.delete_rv > $1)"
_BASE = (
    "FROM objects o CROSS JOIN LATERAL (SELECT z.* FROM events z WHERE z.oid = o.oid AND z.rv <= $1"
    " ORDER BY z.rv DESC LIMIT 1) e WHERE o.oid <= $1 AND (o.delete_rv IS NULL OR o.delete_rv > $1) AND $2::bigint >= 0"
)

_STARTED = (
    f"SELECT d.decision_id / {DECISIONS_PER_LIFE} FROM decisions d WHERE d.rv_after >= $1 AND d.rv_after <= $2 UNION (SELECT"
    " (i.payload->>'epoch')::bigint FROM inputs i WHERE i.kind = 'start' AND i.rv_after <= $1"
    " ORDER BY i.rv_after DESC, i.seq DESC LIMIT 1)"
)
"""The processes that ran in the range, by the number that they started with."""

_RANGE: tuple[tuple[str, str], ...] = (
    ("kinds", "FROM kinds e WHERE $1::bigint <= $2::bigint"),
    ("objects", f"FROM objects o JOIN objects e ON e.oid = o.oid WHERE {_ALIVE}"),
    ("events", "FROM events e WHERE e.rv > $1 AND e.rv <= $2"),
    ("events", _BASE),
    ("leases", "FROM leases e WHERE $1::bigint <= $2::bigint AND e.oid <= $2"),
    ("actors", "FROM actors e WHERE $1::bigint <= $2::bigint"),
    ("decisions", "FROM decisions e WHERE e.rv_after >= $1 AND e.rv_after <= $2"),
    (
        "inputs",
        "FROM inputs e WHERE e.rv_after <= $2 AND (e.rv_after >= $1 OR (e.kind = 'start' AND"
        f" (e.payload->>'epoch')::bigint IN ({_STARTED})))",
    ),
    (
        "ticks",
        "FROM ticks e WHERE e.rv <= $2 AND e.rv >= coalesce((SELECT max(t.rv) FROM ticks t WHERE t.rv <= $1), 0)",
    ),
    *(
        (
            table,
            f"FROM {table} e JOIN objects o ON o.oid = e.oid WHERE {_ALIVE} AND e.rv <= $2"
            f" AND e.rv >= coalesce((SELECT max(z.rv) FROM {table} z WHERE z.oid = e.oid AND z.rv <= $1), 0)",
        )
        for table in tables.FACTS
    ),
)

_AFTERWARDS: tuple[str, ...] = (
    "UPDATE objects SET delete_rv = NULL WHERE delete_rv > :last",
    "UPDATE objects SET rv = (SELECT max(z.rv) FROM events z WHERE z.oid = objects.oid) WHERE rv > :last",
    "DELETE FROM actors WHERE actor_id NOT IN (SELECT actor_id FROM events WHERE actor_id IS NOT NULL)",
)


def _columns(table: str) -> list[str]:
    return [str(column.name) for column in tables.metadata.tables[table].columns]


def copy_range(source: PostgresReader, target: sqlite3.Connection, base: int, last: int) -> None:
    """The state at `base`, everything after it up to `last`; the head row too."""
    source.sealed.everything()
    for table, where in _RANGE:
        columns = _columns(table)
        wanted = ", ".join(f'e."{name}"' for name in columns)
        marks = ", ".join("CAST(? AS TEXT)" if name in _JSON.get(table, ()) else "?" for name in columns)
        statement = f"INSERT INTO {table} VALUES ({marks})"
        for page in source.pages(f"SELECT {wanted} {where}", base, last):
            target.executemany(statement, [_to_sqlite(table, columns, row) for row in page])
    for statement in _AFTERWARDS:
        target.execute(statement, {"last": last})
    (epoch, uid) = source.fetch("SELECT epoch, cluster_uid FROM head WHERE id = 1")[0]
    target.execute(
        "INSERT INTO head SELECT 1, :last, coalesce((SELECT max(ts_us) FROM events), 0), :epoch, :base, 0,"
        " :last - (SELECT count(*) FROM events), :uid",
        {"last": last, "base": base, "epoch": epoch, "uid": uid},
    )


_JSON: dict[str, tuple[str, ...]] = {
    "events": ("body",),
    "leases": ("body",),
    "decisions": ("frontier", "effects", "memo"),
    "inputs": ("payload",),
}


def _to_sqlite(table: str, columns: Sequence[str], row: Sequence[Any]) -> list[Any]:
    values = list(row)
    if table == "events":
        text, raw = values[-2:]
        values[-2:] = postgres_rows.normal_body(text, raw), None
    elif table == "leases":
        values[-1] = postgres_rows.normal_body(values[-1], None)
    else:
        for name in _JSON.get(table, ()):
            at = columns.index(name)
            if values[at] is not None:
                values[at] = orjson.dumps(plain_json(values[at]), option=orjson.OPT_SORT_KEYS)
    return values


_FILLED = (
    "kinds", "actors", "objects", "events", "leases", "decisions", "inputs", "ticks", *tables.FACTS, "data_keys",
)  # fmt: skip


def fill(url: str, source: sqlite3.Connection, entropy: Entropy) -> None:
    """All of a file into a database that holds no log yet, in one transaction. Raises StoreError."""
    in_a_loop_of_its_own(lambda: _fill(url, source, entropy))


async def _fill(url: str, source: sqlite3.Connection, entropy: Entropy) -> None:
    await postgres_schema.prepare(url, entropy)
    place = postgres_schema.shown(url)
    try:
        connection = await asyncpg.connect(url, timeout=postgres_schema.CONNECT_TIMEOUT_S)
        try:
            async with connection.transaction():
                await _fill_over(connection, source, place)
            await connection.execute("ANALYZE")
        finally:
            await connection.close()
    except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresError) as error:
        raise StoreError(f"cannot write to {place}: {error}") from error


async def _fill_over(connection: asyncpg.Connection, source: sqlite3.Connection, place: str) -> None:
    found = await connection.fetchrow("SELECT rv, epoch FROM head WHERE id = 1 FOR UPDATE")
    if found["rv"] > 0:
        raise StoreError(f"{place} holds a log already: restore into an empty database")
    await connection.execute("DELETE FROM kinds")
    for table in _FILLED:
        columns = _columns(table)
        for records in _pages(source, table, columns):
            await connection.copy_records_to_table(table, records=records, columns=columns)
    rv, ts_us, epoch, horizon, unlogged, uid = source.execute(
        "SELECT rv, ts_us, epoch, horizon_rv, unlogged, cluster_uid FROM head WHERE id = 1"
    ).fetchone()
    await connection.execute(
        "UPDATE head SET rv = $1, ts_us = $2, epoch = $3, horizon_rv = $4, unlogged = $5, cluster_uid = $6 WHERE id = 1",
        rv, ts_us, max(epoch, found["epoch"]) + 1, horizon, unlogged, uid,
    )  # fmt: skip
    await connection.executemany(
        "INSERT INTO about VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        source.execute("SELECT key, value FROM about ORDER BY key").fetchall(),
    )


def _pages(
    source: sqlite3.Connection, table: str, columns: Sequence[str], size: int = 2000
) -> Iterator[list[list[Any]]]:
    wanted = [f'CAST("{name}" AS BLOB)' if name in _JSON.get(table, ()) else f'"{name}"' for name in columns]
    cursor = source.execute(f"SELECT {', '.join(wanted)} FROM {table}")
    while page := cursor.fetchmany(size):
        yield [_to_postgres(table, columns, row) for row in page]


def _to_postgres(table: str, columns: Sequence[str], row: Sequence[Any]) -> list[Any]:
    values = list(row)
    if table == "events":
        if values[-2] is not None:
            values[-2:] = postgres_rows.storable(values[-2])
        return values
    for name in _JSON.get(table, ()):
        at = columns.index(name)
        if values[at] is not None:
            values[at] = orjson.dumps(postgres_rows.storable_json(values[at])).decode()
    return values


def history_rows(
    source: PostgresReader, after: int, until: int
) -> Iterator[tuple[Sequence[Any], bytes | None]]:
    """(fields, body in normal form) of each event, as `transfer.history_checksum` wants them."""
    source.sealed.everything()
    query = (
        "SELECT e.rv, e.op, e.prev_rv, e.ts_us, e.oid, k.grp, k.plural, o.ns, o.name, o.uid, a.username, a.field_manager,"
        " e.request_id, e.decision_id, e.body, e.body_raw FROM events e JOIN objects o ON o.oid = e.oid"
        " JOIN kinds k ON k.kind_id = o.kind_id LEFT JOIN actors a ON a.actor_id = e.actor_id"
        " WHERE e.rv > $1 AND e.rv <= $2 ORDER BY e.rv"
    )
    for page in source.pages(query, after, until):
        for *fields, text, raw in page:
            yield fields, postgres_rows.normal_body(text, raw)


def rebuild_facts(url: str, found: Sequence[Projection]) -> int:
    """Empty the facts tables and fold the log again; daemons wait meanwhile. Returns the rows written."""
    with PostgresReader(url, writing=True, sealed=True) as log:
        log.sealed.everything()
        for name in tables.FACTS:
            log.value(f"DELETE FROM {name}")
        resources = {number: row.resource for number, row in log.kinds()}
        last = log.value("SELECT coalesce(max(rv), 0) FROM events")

        def page(position: int, limit: int) -> Any:
            return log.events_since(resources, position, last, None, limit)

        return fold(page, last, found, lambda table, facts: log.many(_insert(table), facts))


def _insert(table: str) -> str:
    marks = ", ".join(f"${i}" for i in range(1, len(_columns(table)) + 1))
    return f"INSERT INTO {table} VALUES ({marks}) ON CONFLICT DO NOTHING"


class PostgresEditor:
    """What `purge` edits with: `?` becomes `$1`, `$2` …"""

    mentions = "(strpos({column}::text, ?) > 0 OR jsonb_exists({column}, '$raw'))"

    def __init__(self, log: PostgresReader) -> None:
        self._log = log

    def fetch(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        return self._log.fetch(_numbered(sql), *arguments)

    def run(self, sql: str, rows: Sequence[Sequence[Any]]) -> object:
        self._log.many(_numbered(sql), rows)
        return None

    def json(self, value: Any) -> str:
        body = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        return orjson.dumps(postgres_rows.storable_json(body)).decode()


def _numbered(sql: str) -> str:
    numbers = itertools.count(1)
    return re.sub(r"\?", lambda _: f"${next(numbers)}", sql)
