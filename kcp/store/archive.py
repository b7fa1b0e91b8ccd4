"""Sealing: old ranges of the log move from the hot table to parquet files beside it. Needs the extra `kcp[archive]`.

    seal(path)            write a file, read it back, and only when it equals the table let go of the hot rows
    attach(connection)    a reader's connection shows hot and sealed events as one table

Nothing is rewritten: revisions, order and bytes stay, `segments` says where they are. Two sorts of rows never leave the
hot table: the newest event of a live object, and an event that a hot one has as its predecessor. They are in the file too.
`segments.n` counts the rows that left, so that hot + sealed + unlogged stays the head.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import structlog

from kcp.base.clock import Clock, microseconds
from kcp.store import rows, schema
from kcp.store.open import is_postgres, lock, sqlite_path
from kcp.store.protocol import StoreError
from kcp.store.sqlite import connect

log = structlog.get_logger(__name__)

HOT_S = 86_400.0
"""Younger events stay in the hot table."""
ROW_GROUP = 8192
DROP_STEP = 20_000
FOLDER = "archive"
IN_MEMORY_EVENTS = 200_000
"""A reader's copy of more sealed events goes to a temporary file."""

COLUMNS = (
    "rv", "oid", "op", "prev_rv", "ts_us", "actor_id", "decision_id", "request_id", "flags", "body",
)  # fmt: skip
_SELECT = f"SELECT {', '.join(COLUMNS)} FROM events WHERE rv > ? AND rv <= ? ORDER BY oid, rv"


@attrs.frozen(slots=True)
class Sealed:
    """What one call moved: `events` are in the file, `dropped` of them left the hot table."""

    first_rv: int
    last_rv: int
    events: int
    dropped: int
    file: Path


def parquet() -> Any:
    """The library, or StoreError with what to install."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise StoreError(
            "sealed events are parquet files: pip install 'kcp-controlplane[archive]'"
        ) from error
    return pyarrow


def seal(url_or_path: str | Path, *, clock: Clock, hot_s: float = HOT_S) -> Sealed | None:
    """Move what is older than `hot_s` and below the API's horizon; None when there is nothing.

    Raises Locked while kcp runs, StoreError when the file written does not equal the table: then nothing was dropped.
    """
    if is_postgres(url_or_path):
        raise StoreError(
            "sealing is for logs on SQLite; PostgreSQL has partitions and table spaces of its own"
        )
    parquet()
    path = sqlite_path(url_or_path)
    release = lock(path)
    try:
        connection = connect(path)
        try:
            schema.check(connection, path)
            found = _seal(connection, path, microseconds(clock.now()) - int(hot_s * 1e6))
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            connection.close()
    finally:
        release()
    return found


def _seal(connection: sqlite3.Connection, path: Path, until_us: int) -> Sealed | None:
    sealed, horizon = connection.execute("SELECT sealed_rv, horizon_rv FROM head WHERE id = 1").fetchone()
    last = min(rows.rv_at(connection, until_us), horizon)
    if last <= sealed:
        return None
    name = f"{FOLDER}/events-{sealed + 1:015d}-{last:015d}.parquet"
    file = path.parent / name
    count, digest = _write(connection, sealed, last, file)
    if (count, digest) != _fingerprint(_read(file)):
        file.unlink()
        raise StoreError(f"{file} does not read as it was written: nothing was moved")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(
        "INSERT INTO segments (seg_id, first_rv, last_rv, codec, uri, sha256, n)"
        " SELECT coalesce(max(seg_id), 0) + 1, ?, ?, 'parquet', ?, ?, 0 FROM segments",
        (sealed + 1, last, name, digest),
    )
    connection.execute("UPDATE head SET sealed_rv = ? WHERE id = 1", (last,))
    connection.execute("COMMIT")
    return Sealed(sealed + 1, last, count, drop(connection), file)


def _write(connection: sqlite3.Connection, after: int, last: int, file: Path) -> tuple[int, str]:
    """Rows sorted by object, then revision; under its name only when it is whole and on the disk."""
    arrow = parquet()
    names = dict.fromkeys(COLUMNS, arrow.int64()) | {
        "op": arrow.int8(), "flags": arrow.int16(), "request_id": arrow.string(), "body": arrow.large_string(),
    }  # fmt: skip
    layout = arrow.schema(list(names.items()))
    file.parent.mkdir(mode=0o700, exist_ok=True)
    partial = file.with_name(file.name + ".partial")
    fingerprint = Fingerprint()
    with arrow.parquet.ParquetWriter(partial, layout, compression="zstd", compression_level=3) as writer:
        cursor = connection.execute(_SELECT, (after, last))
        while page := cursor.fetchmany(ROW_GROUP):
            fingerprint.add(page)
            columns = [list(column) for column in zip(*page, strict=True)]
            writer.write_table(arrow.table(columns, schema=layout), row_group_size=ROW_GROUP)
    for place in (partial, file.parent):
        descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        os.fsync(descriptor)
        os.close(descriptor)
    partial.chmod(0o600)
    partial.rename(file)
    return fingerprint.count, fingerprint.digest.hexdigest()


class Fingerprint:
    """Number and SHA-256 of rows in their order."""

    def __init__(self) -> None:
        self.count = 0
        self.digest = hashlib.sha256()

    def add(self, page: Sequence[Sequence[Any]]) -> None:
        self.count += len(page)
        for row in page:
            self.digest.update(repr(tuple(row)).encode())


def _fingerprint(pages: Iterable[Sequence[Sequence[Any]]]) -> tuple[int, str]:
    found = Fingerprint()
    for page in pages:
        found.add(page)
    return found.count, found.digest.hexdigest()


def _read(file: Path) -> Iterator[list[tuple[Any, ...]]]:
    arrow = parquet()
    try:
        with arrow.parquet.ParquetFile(file) as opened:
            for batch in opened.iter_batches(batch_size=ROW_GROUP, columns=list(COLUMNS)):
                yield list(zip(*[column.to_pylist() for column in batch.columns], strict=True))
    except (OSError, arrow.ArrowException) as error:
        raise StoreError(f"the sealed events in {file} cannot be read: {error}") from error


def drop(connection: sqlite3.Connection) -> int:
    """Let go of hot rows that are sealed and not needed hot, earlier survivors too; returns their number."""
    (sealed,) = connection.execute("SELECT sealed_rv FROM head WHERE id = 1").fetchone()
    dropped = 0
    for number, first, last in connection.execute(
        "SELECT seg_id, first_rv, last_rv FROM segments"
    ).fetchall():
        for start in range(first - 1, last, DROP_STEP):
            connection.execute("BEGIN IMMEDIATE")
            gone = connection.execute(
                "DELETE FROM events WHERE rv > :after AND rv <= :until"
                " AND NOT EXISTS (SELECT 1 FROM objects o WHERE o.oid = events.oid AND o.rv = events.rv AND o.delete_rv IS NULL)"
                " AND rv NOT IN (SELECT h.prev_rv FROM events h WHERE h.rv > :sealed)",
                {"after": start, "until": min(start + DROP_STEP, last), "sealed": sealed},
            ).rowcount
            connection.execute("UPDATE segments SET n = n + ? WHERE seg_id = ?", (gone, number))
            connection.execute("COMMIT")
            dropped += gone
    connection.execute("PRAGMA incremental_vacuum").fetchall()
    return dropped


def attach(connection: sqlite3.Connection, path: Path) -> None:
    """Make `events` of a reader's connection the hot and the sealed ones, if there are any. Reads all files once."""
    files = _segments(connection, path)
    if files:
        _fill(connection, files)
        connection.execute(
            f"CREATE TEMP VIEW events AS SELECT {_ALL} FROM main.events UNION ALL SELECT {_ALL} FROM temp.sealed_events"
        )


_ALL = ", ".join((*COLUMNS, "body_raw"))


def _segments(
    connection: sqlite3.Connection, path: Path, database: str = "main"
) -> list[tuple[Path, str, int]]:
    found = connection.execute(f"SELECT uri, sha256, n FROM {database}.segments ORDER BY first_rv").fetchall()
    return [(path.parent / uri, digest, n) for uri, digest, n in found]


def _fill(
    connection: sqlite3.Connection, files: Sequence[tuple[Path, str, int]], database: str = "main"
) -> None:
    if sum(n for _, _, n in files) > IN_MEMORY_EVENTS:
        connection.execute("PRAGMA temp_store=FILE")
    connection.execute(
        "CREATE TEMP TABLE sealed_events (rv INTEGER PRIMARY KEY, oid INTEGER, op INTEGER, prev_rv INTEGER, ts_us INTEGER,"
        " actor_id INTEGER, decision_id INTEGER, request_id TEXT, flags INTEGER, body TEXT, body_raw BLOB)"
    )
    marks = ", ".join("?" * len(COLUMNS))
    for file, digest, _ in files:
        fingerprint = Fingerprint()
        for page in _read(file):
            fingerprint.add(page)
            connection.executemany(f"INSERT INTO sealed_events ({', '.join(COLUMNS)}) VALUES ({marks})", page)
        if fingerprint.digest.hexdigest() != digest:
            raise StoreError(f"the sealed events in {file} are not those that were sealed")
    connection.execute(f"DELETE FROM sealed_events WHERE rv IN (SELECT rv FROM {database}.events)")
    connection.execute("CREATE INDEX temp.sealed_object ON sealed_events (oid, rv)")


def attach_source(connection: sqlite3.Connection, path: Path) -> str:
    """For an export, where the log is attached as `src`: the name under which all its events can be read."""
    files = _segments(connection, path, "src")
    if not files:
        return "src.events"
    _fill(connection, files, "src")
    connection.execute(
        f"CREATE TEMP VIEW src_events AS SELECT {_ALL} FROM src.events UNION ALL SELECT {_ALL} FROM temp.sealed_events"
    )
    return "src_events"
