"""Moving a log: incident files, backup, restore, purge, the history's checksum.

An incident file is an ordinary event log in one SQLite file: the base state at `base_rv` (the newest row of each object
alive then), every event after it up to `last_rv`, decisions, inputs, facts, our views. So whatever reads a log reads it,
and importing is restoring from it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs
import orjson

from kcp.base.clock import Clock, microseconds
from kcp.base.entropy import SystemEntropy
from kcp.machinery.document import normal
from kcp.store import archive, leases, rows, schema
from kcp.store.open import is_postgres, lock, sqlite_path
from kcp.store.protocol import Key, StoreError
from kcp.store.redaction import blank, blank_columns, keyed_mask, redact_rows
from kcp.store.sqlite import connect, connect_read_only, read_only_uri
from kcp.store.tables import REDACTED

RESTORE_JUMP = 1_000_000
"""A restored log goes on this much further up, so that clients who had seen more than it holds must list anew."""


@attrs.frozen(slots=True)
class Exported:
    base_rv: int
    last_rv: int
    events: int
    redacted: int
    checksum: str


_LIFE = "o.oid <= :last AND (o.delete_rv IS NULL OR o.delete_rv > :base)"
_NEWEST_BASE = "(SELECT max(z.rv) FROM src.events z WHERE z.oid = o.oid AND z.rv <= :base)"

_COPY: tuple[str, ...] = (
    "INSERT INTO kinds SELECT * FROM src.kinds",
    f"INSERT INTO objects SELECT * FROM src.objects o WHERE {_LIFE}",
    "INSERT INTO events SELECT * FROM src.events WHERE rv > :base AND rv <= :last",
    f"INSERT INTO events SELECT e.* FROM src.objects o JOIN src.events e ON e.rv = {_NEWEST_BASE}"
    " WHERE o.oid <= :base AND (o.delete_rv IS NULL OR o.delete_rv > :base)",
    "UPDATE objects SET delete_rv = NULL WHERE delete_rv > :last",
    "UPDATE objects SET rv = (SELECT max(z.rv) FROM events z WHERE z.oid = objects.oid) WHERE rv > :last",
    "INSERT INTO leases SELECT l.* FROM src.leases l JOIN objects o ON o.oid = l.oid WHERE o.delete_rv IS NULL",
    "INSERT INTO actors SELECT * FROM src.actors WHERE actor_id IN (SELECT actor_id FROM events)",
    "INSERT INTO decisions SELECT * FROM src.decisions WHERE rv_after >= :base AND rv_after <= :last",
    "INSERT INTO inputs SELECT * FROM src.inputs WHERE rv_after >= :base AND rv_after <= :last",
    "INSERT INTO ticks SELECT * FROM src.ticks WHERE rv <= :last"
    " AND rv >= coalesce((SELECT max(t.rv) FROM src.ticks t WHERE t.rv <= :base), 0)",
    *(
        f"INSERT INTO {table} SELECT f.* FROM src.{table} f JOIN objects o ON o.oid = f.oid WHERE f.rv <= :last AND f.rv >="
        f" coalesce((SELECT max(z.rv) FROM src.{table} z WHERE z.oid = f.oid AND z.rv <= :base), 0)"
        for table in ("facts_pod", "facts_node", "facts_owner")
    ),
    "INSERT INTO head SELECT id, :last, coalesce((SELECT max(ts_us) FROM events), 0), epoch, :base, 0,"
    " :last - (SELECT count(*) FROM events), cluster_uid FROM src.head",
)


def export_incident(
    source: str | Path,
    target: Path,
    *,
    clock: Clock,
    mask_key: bytes,
    first_rv: int = 1,
    last_rv: int | None = None,
    redact: bool = True,
    about: Mapping[str, str] | None = None,
) -> Exported:
    """Write the range as one self-contained file. Secrets are masked under `mask_key`, which nobody keeps.

    Works beside a running daemon, on one snapshot. Raises StoreError when the target exists or the range is empty.
    """
    with _new_file(target) as connection, _copied(source, connection, first_rv, last_rv) as (base, last):
        _rewind_leases(connection, last)
        redacted = redact_rows(connection, keyed_mask(mask_key)) if redact else 0
        checksum = history_checksum(connection, base, last)
        (count,) = connection.execute("SELECT count(*) FROM events WHERE rv > ?", (base,)).fetchone()
        facts = {
            "base_rv": str(base), "first_rv": str(base + 1), "last_rv": str(last), "events": str(count),
            "history_checksum": checksum, "redacted": str(redacted), "exported_at": clock.now().isoformat(),
            "kcp_version": version(), "schema": schema.HEAD, **(about or {}),
        }  # fmt: skip
        _tell(connection, facts)
    return Exported(base, last, count, redacted, checksum)


@contextlib.contextmanager
def _copied(
    source: str | Path, connection: sqlite3.Connection, first_rv: int, last_rv: int | None
) -> Iterator[tuple[int, int]]:
    """In one transaction: copy the range from either engine, let the caller finish, commit. Gives (base, last)."""
    if is_postgres(source):
        from kcp.store.postgres_reader import PostgresReader
        from kcp.store.postgres_transfer import copy_range

        with PostgresReader(str(source)) as log:
            connection.execute("BEGIN IMMEDIATE")
            base, last = _range(log.head()[0], first_rv, last_rv)
            copy_range(log, connection, base, last)
        yield base, last
        connection.execute("COMMIT")
        return
    uri = read_only_uri(sqlite_path(source))
    connection.execute("ATTACH ? AS src", (uri,))
    schema.check(connection, sqlite_path(source), "src")
    connection.execute("BEGIN IMMEDIATE")
    (head,) = connection.execute("SELECT rv FROM src.head WHERE id = 1").fetchone()
    base, last = _range(head, first_rv, last_rv)
    events = archive.attach_source(connection, sqlite_path(source))
    for statement in _COPY:
        connection.execute(statement.replace("src.events", events), {"base": base, "last": last})
    yield base, last
    connection.execute("COMMIT")
    connection.execute("DETACH src")


def _range(head: int, first_rv: int, last_rv: int | None) -> tuple[int, int]:
    last = head if last_rv is None else min(last_rv, head)
    base = max(0, first_rv - 1)
    if base > last:
        raise StoreError(f"there is nothing to export: the log ends at {last}, before {first_rv}")
    return base, last


def version() -> str:
    try:
        return metadata.version("kcp-controlplane")
    except metadata.PackageNotFoundError:
        return "unknown"


def _tell(connection: sqlite3.Connection, facts: Mapping[str, str]) -> None:
    connection.executemany("INSERT OR REPLACE INTO about (key, value) VALUES (?, ?)", sorted(facts.items()))


@contextlib.contextmanager
def _new_file(target: Path) -> Iterator[sqlite3.Connection]:
    """A fresh log that becomes visible under its name only when it is complete and on the disk."""
    if target.exists():
        raise StoreError(f"{target} exists already")
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    try:
        os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreError(f"cannot write {target}: {(error.strerror or str(error)).lower()}") from error
    connection = sqlite3.connect(partial, isolation_level=None, uri=True)
    try:
        connection.execute("PRAGMA journal_mode=MEMORY")
        connection.execute("PRAGMA synchronous=OFF")
        schema.upgrade(connection, partial)
        yield connection
        connection.execute("ANALYZE")
        connection.close()
        _sync(partial)
        partial.rename(target)
        _sync(target.parent)
    except sqlite3.Error as error:
        raise StoreError(f"cannot write {target}: {error}") from error
    finally:
        connection.close()
        partial.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rewind_leases(connection: sqlite3.Connection, last: int) -> None:
    """Leases renewed after `last` go back to their newest event row up to it."""
    found = connection.execute(
        "SELECT l.oid, l.epoch, e.rv, e.ts_us, CAST(e.body AS BLOB) FROM leases l"
        " JOIN objects o ON o.oid = l.oid JOIN events e ON e.rv = o.rv WHERE l.rv > ? ORDER BY l.oid",
        (last,),
    ).fetchall()
    for oid, epoch, rv, ts_us, body in found:
        row, _ = leases.advance(None, oid, rv, ts_us, orjson.loads(body), body, renewal=False)
        connection.execute(rows.PUT_LEASE, rows.lease_values(attrs.evolve(row, epoch=epoch)))


def import_incident(source: Path, target: str | Path) -> int:
    """Make a log for a daemon out of an incident file; returns its revision. Raises when the target exists."""
    return restore(source, target)


def backup(source: str | Path, target: Path) -> None:
    """A consistent copy, made while the daemon runs. Raises StoreError when the target exists.

    Of a log on PostgreSQL it is a file on SQLite with the whole history; `restore` takes it to either engine.
    """
    if target.exists():
        raise StoreError(f"{target} exists already")
    if is_postgres(source):
        with _new_file(target) as connection, _copied(source, connection, 1, None):
            pass
        return
    reader = connect_read_only(sqlite_path(source))
    try:
        schema.check(reader, sqlite_path(source))
        _copy(reader, target)
    finally:
        reader.close()


def _copy(reader: sqlite3.Connection, target: Path) -> None:
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    copy = sqlite3.connect(target, isolation_level=None)
    try:
        reader.backup(copy, pages=4096)
        copy.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        raise StoreError(f"cannot write {target}: {error}") from error
    finally:
        copy.close()
    _sync(target)


def restore(backup_file: Path, target: str | Path, *, rv: int | None = None) -> int:
    """Make a new log at `target` from a backup, as of revision `rv`; returns the revision it goes on from.

    It gets a new epoch, jumps by RESTORE_JUMP, and its horizon lies at the jump: whoever holds an older revision
    or one from the lost future is told to list anew. Raises StoreError when the target exists.
    """
    if is_postgres(target):
        return _restore_to_postgres(backup_file, str(target), rv)
    path = sqlite_path(target)
    release = lock(path)
    try:
        if path.exists():
            raise StoreError(f"{path} exists already: restore into a new place")
        reader = connect_read_only(backup_file)
        try:
            schema.check(reader, backup_file)
            _copy(reader, path)
        finally:
            reader.close()
        connection = connect(path)
        try:
            connection.execute("BEGIN IMMEDIATE")
            went_on = _rewind(connection, backup_file, rv)
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StoreError(f"cannot restore {backup_file}: {error}") from error
    finally:
        release()
    return went_on


def _restore_to_postgres(backup_file: Path, url: str, rv: int | None) -> int:
    from kcp.store.postgres_transfer import fill

    with tempfile.TemporaryDirectory(prefix="kcp-restore-") as directory:
        rewound = Path(directory) / "kcp.db"
        went_on = restore(backup_file, rewound, rv=rv)
        reader = connect_read_only(rewound)
        try:
            fill(url, reader, SystemEntropy())
        finally:
            reader.close()
    return went_on


_FORGET_AFTER: tuple[str, ...] = (
    "DELETE FROM events WHERE rv > :rv",
    "DELETE FROM leases WHERE oid > :rv",
    "DELETE FROM objects WHERE oid > :rv",
    "UPDATE objects SET delete_rv = NULL WHERE delete_rv > :rv",
    "UPDATE objects SET rv = (SELECT max(z.rv) FROM events z WHERE z.oid = objects.oid) WHERE rv > :rv",
    "DELETE FROM decisions WHERE rv_after > :rv",
    "DELETE FROM inputs WHERE rv_after > :rv",
    "DELETE FROM ticks WHERE rv > :rv",
    "DELETE FROM facts_pod WHERE rv > :rv",
    "DELETE FROM facts_node WHERE rv > :rv",
    "DELETE FROM facts_owner WHERE rv > :rv",
)


def _rewind(connection: sqlite3.Connection, source: Path, rv: int | None) -> int:
    (head,) = connection.execute("SELECT rv FROM head WHERE id = 1").fetchone()
    about = dict(connection.execute("SELECT key, value FROM about").fetchall())
    oldest = int(about.get("base_rv", "0"))
    if rv is not None and not oldest <= rv <= head:
        raise StoreError(f"{source} holds revisions {oldest} to {head}, not {rv}")
    (sealed,) = connection.execute("SELECT sealed_rv FROM head WHERE id = 1").fetchone()
    if rv is not None and rv < sealed:
        raise StoreError(f"{source} has sealed its events up to {sealed}: export up to {rv} and import that")
    if rv is not None:
        for statement in _FORGET_AFTER:
            connection.execute(statement, {"rv": rv})
        _revive_leases(connection)
        _rewind_leases(connection, rv)
    went_on: int = head + RESTORE_JUMP
    connection.execute(
        "UPDATE head SET rv = :rv, horizon_rv = :rv, epoch = epoch + 1,"
        " ts_us = coalesce((SELECT max(ts_us) FROM events), ts_us),"
        " unlogged = :rv - (SELECT count(*) FROM events) - (SELECT coalesce(sum(n), 0) FROM segments) WHERE id = 1",
        {"rv": went_on},
    )
    _tell(connection, {"restored_from": str(source.name), "restored_rv": str(head if rv is None else rv)})
    return went_on


def _revive_leases(connection: sqlite3.Connection) -> None:
    """Rows for Leases that were deleted after the revision restored to."""
    found = connection.execute(
        "SELECT o.oid, e.rv, e.ts_us, CAST(e.body AS BLOB) FROM objects o JOIN kinds k ON k.kind_id = o.kind_id"
        " JOIN events e ON e.rv = o.rv WHERE o.delete_rv IS NULL AND k.grp = 'coordination.k8s.io' AND k.plural = 'leases'"
        " AND o.oid NOT IN (SELECT oid FROM leases) ORDER BY o.oid"
    ).fetchall()
    for oid, rv, ts_us, body in found:
        row, _ = leases.advance(None, oid, rv, ts_us, orjson.loads(body), body, renewal=False)
        connection.execute(rows.PUT_LEASE, rows.lease_values(row))


def history_checksum(connection: sqlite3.Connection, after: int = 0, until: int | None = None) -> str:
    """SHA-256 over the events of a range: equal on every engine and in every copy that holds the same history."""
    found = connection.execute(
        "SELECT e.rv, e.op, e.prev_rv, e.ts_us, e.oid, k.grp, k.plural, o.ns, o.name, o.uid, a.username, a.field_manager,"
        " e.request_id, e.decision_id, CAST(e.body AS BLOB) FROM events e CROSS JOIN objects o ON o.oid = e.oid"
        " JOIN kinds k ON k.kind_id = o.kind_id LEFT JOIN actors a ON a.actor_id = e.actor_id"
        " WHERE e.rv > ? AND e.rv <= ? ORDER BY e.rv",
        (after, 2**62 if until is None else until),
    )
    return _digest((fields, body) for *fields, body in found)


def _digest(found: Iterable[tuple[Sequence[Any], bytes | None]]) -> str:
    digest = hashlib.sha256()
    for fields, body in found:
        digest.update(orjson.dumps(fields))
        digest.update(body or b"-")
        digest.update(b"\n")
    return digest.hexdigest()


def checksum_of(url_or_path: str | Path, after: int | None = None, until: int | None = None) -> str:
    """The checksum of a log's history; by default of all after its base."""
    if is_postgres(url_or_path):
        from kcp.store.postgres_reader import PostgresReader
        from kcp.store.postgres_transfer import history_rows

        with PostgresReader(str(url_or_path)) as log:
            base = int(log.about().get("base_rv", "0")) if after is None else after
            return _digest(history_rows(log, base, 2**62 if until is None else until))
    path = sqlite_path(url_or_path)
    connection = connect_read_only(path)
    try:
        archive.attach(connection, path)
        about = dict(connection.execute("SELECT key, value FROM about").fetchall())
        return history_checksum(connection, int(about.get("base_rv", "0")) if after is None else after, until)
    finally:
        connection.close()


def purge(url_or_path: str | Path, key: Key, *, clock: Clock, who: str, why: str) -> int:
    """Blank every past version of an object and say so in `inputs`; returns the rows blanked.

    Versions that decisions and inputs carry are blanked with them. The live version stays: delete or change the object
    first. Revision, key, time and actor of each row stay. The only act that changes history.
    Raises Locked while kcp runs on SQLite, StoreError for an unknown object.
    """
    if is_postgres(url_or_path):
        from kcp.store import postgres_transfer

        return postgres_transfer.purge(str(url_or_path), key, clock=clock, who=who, why=why, mark=_mark)
    path = sqlite_path(url_or_path)
    release = lock(path)
    try:
        connection = connect(path)
        try:
            schema.check(connection, path)
            connection.execute("PRAGMA secure_delete=ON")
            connection.execute("BEGIN IMMEDIATE")
            blanked = _blank(connection, key)
            _leave_mark(connection, key, blanked, clock, who, why)
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            connection.close()
    finally:
        release()
    return blanked


def _blank(connection: sqlite3.Connection, key: Key) -> int:
    plural, _, group = key.resource.partition(".")
    found = connection.execute(
        "SELECT e.rv, k.kind, k.grp, k.version, o.uid FROM objects o JOIN kinds k ON k.kind_id = o.kind_id"
        " JOIN events e ON e.oid = o.oid WHERE k.plural = ? AND k.grp = ? AND o.ns = ? AND o.name = ?"
        " AND e.body IS NOT NULL AND NOT (o.delete_rv IS NULL AND e.rv = o.rv) ORDER BY e.rv",
        (plural, group, key.namespace, key.name),
    ).fetchall()
    for rv, *kind in found:
        connection.execute(
            "UPDATE events SET body = CAST(? AS TEXT), body_raw = NULL, flags = flags | ? WHERE rv = ?",
            (normal(blank(key, *kind)), REDACTED, rv),
        )
    if not found:
        raise StoreError(f"there is no past version of {key}")
    blank_columns(connection, found[0][1], key)
    return len(found)


def _leave_mark(
    connection: sqlite3.Connection, key: Key, blanked: int, clock: Clock, who: str, why: str
) -> None:
    (rv,) = connection.execute("SELECT rv FROM head WHERE id = 1").fetchone()
    (seq,) = connection.execute(
        "SELECT coalesce(max(seq), 0) FROM inputs WHERE rv_after = ?", (rv,)
    ).fetchone()
    body = _mark(key, blanked, who, why, microseconds(clock.now()))
    connection.execute(rows.INSERT_INPUT, (rv, seq + 1, "purge", body))


def _mark(key: Key, blanked: int, who: str, why: str, at_us: int) -> bytes:
    payload = {"key": str(key), "rows": blanked, "who": who, "why": why, "at_us": at_us}
    return orjson.dumps(payload, option=orjson.OPT_SORT_KEYS)
