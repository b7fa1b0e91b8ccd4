"""Is this log what it must be? Gapless, its head the newest event of every object, nothing damaged, no sealed file missing."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from kcp.store import archive, schema
from kcp.store.open import is_postgres, sqlite_path
from kcp.store.protocol import StoreError
from kcp.store.sqlite import connect_read_only

_LAWS: tuple[tuple[str, str], ...] = (
    (
        "{0} revisions are missing or too many (events + unlogged - head)",
        "SELECT (SELECT count(*) FROM events) + unlogged + (SELECT coalesce(sum(n), 0) FROM segments) - rv FROM head"
        " WHERE id = 1",
    ),
    (
        "{0} events lie beyond the head",
        "SELECT count(*) FROM events WHERE rv > (SELECT rv FROM head WHERE id = 1)",
    ),
    (
        "{0} objects do not point to their newest event",
        "SELECT count(*) FROM objects o WHERE o.rv IS NOT (SELECT max(e.rv) FROM events e WHERE e.oid = o.oid)"
        " AND (o.delete_rv IS NULL OR o.rv > (SELECT sealed_rv FROM head WHERE id = 1))",
    ),
    (
        "{0} objects disagree with their last event on whether they live",
        "SELECT count(*) FROM objects o JOIN events e ON e.rv = o.rv WHERE (e.op = 2) <> (o.delete_rv IS NOT NULL)"
        " OR o.delete_rv <> e.rv",
    ),
    (
        "{0} events belong to no object",
        "SELECT count(*) FROM events WHERE oid NOT IN (SELECT oid FROM objects)",
    ),
    (
        "{0} events have no body",
        "SELECT count(*) FROM events WHERE (op <> 2 AND body IS NULL) OR (body IS NOT NULL AND NOT json_valid(body))",
    ),
    (
        "{0} events are not later than the one before",
        "SELECT count(*) FROM (SELECT ts_us, lag(ts_us) OVER (ORDER BY rv) AS before FROM events) x WHERE ts_us <= before",
    ),
    (
        "{0} Leases have no row or a row too many",
        "SELECT count(*) FROM (SELECT o.oid FROM objects o JOIN kinds k ON k.kind_id = o.kind_id"
        " WHERE o.delete_rv IS NULL AND k.plural = 'leases' AND k.grp = 'coordination.k8s.io'"
        " EXCEPT SELECT oid FROM leases) x",
    ),
)


_ON_POSTGRESQL: tuple[tuple[str, str], ...] = (
    ("o.rv IS NOT (", "o.rv IS DISTINCT FROM ("),
    ("body IS NULL) OR (body IS NOT NULL AND NOT json_valid(body))", "body IS NULL AND body_raw IS NULL)"),
)
"""Where SQLite says it differently."""


def problems(url_or_path: str | Path) -> list[str]:
    """What is wrong with a log, in words; empty when all laws hold. Reads everything once."""
    if is_postgres(url_or_path):
        return _problems_of_postgres(str(url_or_path))
    path = sqlite_path(url_or_path)
    try:
        connection = connect_read_only(path)
    except StoreError as error:
        if path.is_file():
            return [str(error)]
        raise
    try:
        schema.check(connection, path)
        found = problems_in(connection)
        return [*found, *archive.problems(archive.SqliteShelf(connection), path.parent / archive.FOLDER)]
    except sqlite3.DatabaseError as error:
        return [str(error)]
    finally:
        connection.close()


def _problems_of_postgres(url: str) -> list[str]:
    from kcp.store.archive_postgres import PostgresShelf
    from kcp.store.postgres_reader import PostgresReader

    found: list[str] = []
    with PostgresReader(url, sealed=False) as log:
        for words, query in _LAWS:
            for ours, theirs in _ON_POSTGRESQL:
                query = query.replace(ours, theirs)
            count = log.value(query)
            if count:
                found.append(words.format(count))
        found += archive.problems(PostgresShelf(log.call, log.connection), Path(archive.FOLDER))
    return found


def problems_in(connection: sqlite3.Connection) -> list[str]:
    """The same of an open connection to a file, sealed files aside."""
    found: list[str] = []
    try:
        for (text,) in connection.execute("PRAGMA quick_check(20)"):
            if text != "ok":
                found.append(text)
        for words, query in _LAWS:
            (count,) = connection.execute(query).fetchone()
            if count:
                found.append(words.format(count))
    except sqlite3.DatabaseError as error:
        found.append(str(error))
    return found
