"""Moving a log: incident files, backup, restore, import, the history's checksum.

An incident file is an ordinary event log in one SQLite file: the base state at `base_rv` (the newest row of each object
alive then), every event after it up to `last_rv`, decisions, inputs, facts, our views. So whatever reads a log reads it,
and importing is restoring from it. A backup is such a file too, of everything; sealed events are in the table again.

    export, backup     log on either engine ──▶ FILE.partial ──▶ FILE
    restore, import    FILE ──▶ kcp.db.partial, verified and rewound ──▶ kcp.db, or one transaction into PostgreSQL

What is killed half-way leaves at most a `.partial` file, which nothing opens.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import attrs
import orjson

from kcp.base.clock import Clock, microseconds
from kcp.base.entropy import SystemEntropy
from kcp.base.values import frozen
from kcp.store import archive, check, leases, rows, schema
from kcp.store.log import DECISIONS_PER_LIFE
from kcp.store.open import FILE_NAME, is_postgres, lock, partial, sqlite_path
from kcp.store.protocol import StoreError
from kcp.store.redaction import keyed_mask, redact_rows
from kcp.store.sqlite import connect_read_only, read_only_uri

RESTORE_JUMP = 1_000_000
"""A restored log goes on this much further up, so that clients who had seen more than it holds must list anew."""


@frozen
class Exported:
    base_rv: int
    last_rv: int
    events: int
    redacted: int
    checksum: str


_LIFE = "o.oid <= :last AND (o.delete_rv IS NULL OR o.delete_rv > :base)"
_NEWEST_BASE = "(SELECT max(z.rv) FROM src.events z WHERE z.oid = o.oid AND z.rv <= :base)"

_STARTED = (
    f"SELECT decision_id / {DECISIONS_PER_LIFE} FROM src.decisions WHERE rv_after >= :base AND rv_after <= :last UNION SELECT * FROM"
    " (SELECT json_extract(payload, '$.epoch') FROM src.inputs WHERE kind = 'start' AND rv_after <= :base"
    " ORDER BY rv_after DESC, seq DESC LIMIT 1)"
)
"""The processes that ran in the range: what each said of itself at its start goes along, from however long before."""

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
    "INSERT INTO inputs SELECT * FROM src.inputs WHERE rv_after <= :last AND (rv_after >= :base"
    f" OR (kind = 'start' AND json_extract(payload, '$.epoch') IN ({_STARTED})))",
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
    with new_file(target) as connection, _copied(source, connection, first_rv, last_rv) as (base, last):
        _rewind_leases(connection, last)
        redacted = redact_rows(connection, keyed_mask(mask_key)) if redact else 0
        checksum = history_checksum(connection, base, last)
        (count,) = connection.execute("SELECT count(*) FROM events WHERE rv > ?", (base,)).fetchone()
        facts = {
            "base_rv": str(base), "first_rv": str(base + 1), "last_rv": str(last), "events": str(count),
            "history_checksum": checksum, "redacted": str(redacted), "exported_at": clock.now().isoformat(),
            "kcp_version": version(), "schema": schema.HEAD, **(about or {}),
        }  # fmt: skip
        tell(connection, facts)
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
            about = log.about()
            base, last = _range(log.head()[0], _base_of(about), first_rv, last_rv)
            log.sealed.everything()
            copy_range(log, connection, base, last)
        tell(connection, {**_lasting(about), **_begin(base)})
        yield base, last
        connection.execute("COMMIT")
        return
    uri = read_only_uri(sqlite_path(source))
    connection.execute("ATTACH ? AS src", (uri,))
    schema.check(connection, sqlite_path(source), "src")
    connection.execute("BEGIN IMMEDIATE")
    (head,) = connection.execute("SELECT rv FROM src.head WHERE id = 1").fetchone()
    about = dict(connection.execute("SELECT key, value FROM src.about").fetchall())
    base, last = _range(head, _base_of(about), first_rv, last_rv)
    events = archive.attach_source(connection, sqlite_path(source))
    for statement in _COPY:
        connection.execute(statement.replace("src.events", events), {"base": base, "last": last})
    tell(connection, {**_lasting(about), **_begin(base)})
    yield base, last
    connection.execute("COMMIT")
    connection.execute("DETACH src")


def _range(head: int, oldest: int, first_rv: int, last_rv: int | None) -> tuple[int, int]:
    """(base, last). A log that was itself imported knows nothing before `oldest`."""
    last = head if last_rv is None else min(last_rv, head)
    base = max(oldest, first_rv - 1)
    if base > last:
        where = f"the log ends at {head}" if last == head else f"the range ends at {last}"
        raise StoreError(f"there is nothing to export: {where}, before {first_rv}")
    return base, last


def _begin(base: int) -> dict[str, str]:
    return {"base_rv": str(base)} if base else {}


_OF_ONE_FILE = frozenset(
    {"postgresql", archive.PLACE, "history_checksum", "exported_at", "events", "first_rv", "last_rv"}
)
"""What `about` says of one copy and not of the history in it."""


def _base_of(about: Mapping[str, str]) -> int:
    return int(about.get("base_rv", "0"))


def _lasting(about: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in about.items() if key not in _OF_ONE_FILE}


def version() -> str:
    try:
        return metadata.version("kcp-controlplane")
    except metadata.PackageNotFoundError:
        return "unknown"


def tell(connection: sqlite3.Connection, facts: Mapping[str, str]) -> None:
    connection.executemany("INSERT OR REPLACE INTO about (key, value) VALUES (?, ?)", sorted(facts.items()))


@contextlib.contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A fresh file beside `target`, which takes its name only when the caller is done and it is on the disk."""
    unfinished = partial(target)
    _forget(unfinished)
    try:
        os.close(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreError(f"cannot write {target}: {(error.strerror or str(error)).lower()}") from error
    try:
        yield unfinished
        _sync(unfinished)
        unfinished.rename(target)
        _sync(target.parent)
    finally:
        _forget(unfinished)


def _forget(unfinished: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(f"{unfinished}{suffix}").unlink(missing_ok=True)


@contextlib.contextmanager
def _writing(file: Path) -> Iterator[sqlite3.Connection]:
    """Fast and without files beside it: whoever made the file syncs it, or throws it away."""
    connection = sqlite3.connect(file, isolation_level=None, uri=True)
    try:
        connection.execute("PRAGMA journal_mode=MEMORY")
        connection.execute("PRAGMA synchronous=OFF")
        yield connection
    finally:
        connection.close()


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[sqlite3.Connection]:
    """A fresh log that becomes visible under its name only when it is complete and on the disk."""
    _refuse(target)
    try:
        with _appearing(target) as fresh, _writing(fresh) as connection:
            schema.upgrade(connection, fresh)
            yield connection
            connection.execute("ANALYZE")
    except sqlite3.Error as error:
        raise StoreError(f"cannot write {target}: {error}") from error


def _refuse(target: Path, advice: str = "") -> None:
    """Raises StoreError when something has the name, or SQLite would take something there for a part of the file."""
    for path in (target, Path(f"{target}-wal")):
        if path.exists():
            raise StoreError(f"{path} exists already{advice}")


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


@frozen
class BackedUp:
    """`checksum` is that of the history in the file."""

    rv: int
    events: int
    size_bytes: int
    checksum: str


def backup(source: str | Path, target: Path, *, clock: Clock) -> BackedUp:
    """All of a log in one file, made while the daemon runs. Raises StoreError when the target exists.

    It holds sealed events as well, from either engine; `restore` takes it to either engine.
    """
    _refuse(target)
    try:
        with _appearing(target) as fresh:
            _copy_all(source, fresh)
            with _writing(fresh) as connection:
                done = _label(connection, clock)
        return attrs.evolve(done, size_bytes=target.stat().st_size)
    except sqlite3.Error as error:
        raise StoreError(f"cannot write {target}: {error}") from error


def _label(connection: sqlite3.Connection, clock: Clock) -> BackedUp:
    """Write what the file holds into it, so that a restore can tell whether it still does."""
    (rv,) = connection.execute("SELECT rv FROM head WHERE id = 1").fetchone()
    base = _base_of(_about(connection))
    checksum = history_checksum(connection, base)
    (events,) = connection.execute("SELECT count(*) FROM events WHERE rv > ?", (base,)).fetchone()
    tell(connection, {"backed_up_at": clock.now().isoformat(), "history_checksum": checksum})
    return BackedUp(rv, events, 0, checksum)


def _copy_all(source: str | Path, file: Path) -> None:
    """The whole log into an empty file, as of one moment."""
    if is_postgres(source):
        _fold(source, file)
        return
    path = sqlite_path(source)
    reader = connect_read_only(path)
    try:
        _expect_log(reader, path)
        reader.execute("BEGIN")
        if reader.execute("SELECT 1 FROM segments").fetchone():
            _fold(path, file)
        else:
            _copy_pages(reader, file)
    finally:
        reader.close()


def _expect_log(reader: sqlite3.Connection, path: Path) -> None:
    try:
        found = schema.revision(reader)
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path} is no event log, or damaged: {error}") from error
    if found is None:
        raise StoreError(f"{path} is no event log")


def _fold(source: str | Path, file: Path) -> None:
    """Row by row, so that what lies in sealed files comes back into the table."""
    with _writing(file) as connection:
        schema.upgrade(connection, file)
        with _copied(source, connection, 1, None):
            pass
        connection.execute("ANALYZE")


def _copy_pages(reader: sqlite3.Connection, file: Path) -> None:
    """The reader's open transaction keeps SQLite from starting over whenever the daemon writes."""
    copy = sqlite3.connect(file, isolation_level=None)
    try:
        reader.backup(copy, pages=4096)
        copy.execute("PRAGMA journal_mode=DELETE")
        schema.upgrade(copy, file)
    finally:
        copy.close()


@frozen
class Restored:
    """`rv` is where the log goes on, `restored_rv` the revision whose state it has.

    `checksum` is that of the history after `base_rv`; `redacted` says how many Secrets came as digests only.
    """

    rv: int
    restored_rv: int
    base_rv: int
    events: int
    redacted: int
    checksum: str


def restore(file: Path, target: str | Path, *, at: int | datetime | None = None) -> Restored:
    """Make a new log at `target` from a backup or an incident file, as of a revision or a time.

    It gets a new epoch, jumps by RESTORE_JUMP, and its horizon lies at the jump: whoever holds an older revision
    or one from the lost future is told to list anew. Raises StoreError when the target holds a log, when the file
    does not hold what it was written with, or does not reach back to `at`.
    """
    if is_postgres(target):
        return _restore_to_postgres(file, str(target), at)
    path = sqlite_path(target)
    release = lock(path)
    try:
        _refuse(path, ": restore into a new place")
        with _appearing(path) as fresh:
            return _rewound(file, fresh, at)
    finally:
        release()


def _restore_to_postgres(file: Path, url: str, at: int | datetime | None) -> Restored:
    from kcp.store.postgres_transfer import fill

    with tempfile.TemporaryDirectory(prefix="kcp-restore-") as directory:
        rewound = Path(directory) / FILE_NAME
        done = _rewound(file, rewound, at)
        reader = connect_read_only(rewound)
        try:
            fill(url, reader, SystemEntropy())
        finally:
            reader.close()
    arrived = checksum_of(url)
    if arrived != done.checksum:
        raise StoreError(f"the history that arrived has the checksum {arrived}, not {done.checksum}")
    return done


def _rewound(file: Path, copy: Path, at: int | datetime | None) -> Restored:
    try:
        _copy_all(file, copy)
        with _writing(copy) as connection:
            _verify(connection, file)
            connection.execute("BEGIN IMMEDIATE")
            done = _rewind(connection, file, at)
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise StoreError(f"cannot restore {file}: {error}") from error
    return done


def _verify(connection: sqlite3.Connection, file: Path) -> None:
    broken = check.problems_in(connection)
    if broken:
        raise StoreError(f"{file} is damaged: {'; '.join(broken)}")
    about = _about(connection)
    wanted = about.get("history_checksum")
    if wanted is not None and history_checksum(connection, _base_of(about)) != wanted:
        raise StoreError(f"{file} is damaged: its history is not the one that was written into it")


def _about(connection: sqlite3.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT key, value FROM about").fetchall())


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


def _rewind(connection: sqlite3.Connection, file: Path, at: int | datetime | None) -> Restored:
    (head,) = connection.execute("SELECT rv FROM head WHERE id = 1").fetchone()
    about = _about(connection)
    base = _base_of(about)
    rv = _revision(connection, at, head)
    if not base <= rv <= head:
        what = f"revision {at}" if isinstance(at, int) else f"the moment {at}"
        raise StoreError(f"{file} holds revisions {base} to {head}, not {what}")
    if rv < head:
        for statement in _FORGET_AFTER:
            connection.execute(statement, {"rv": rv})
        _revive_leases(connection)
        _rewind_leases(connection, rv)
    went_on: int = head + RESTORE_JUMP
    connection.execute(
        "UPDATE head SET rv = :rv, horizon_rv = :rv, epoch = epoch + 1,"
        " ts_us = coalesce((SELECT max(ts_us) FROM events), ts_us),"
        " unlogged = :rv - (SELECT count(*) FROM events) WHERE id = 1",
        {"rv": went_on},
    )
    connection.executemany("DELETE FROM about WHERE key = ?", [(key,) for key in sorted(_OF_ONE_FILE)])
    tell(connection, {"restored_from": file.name, "restored_rv": str(rv)})
    (events,) = connection.execute("SELECT count(*) FROM events WHERE rv > ?", (base,)).fetchone()
    redacted = int(about.get("redacted", "0"))
    return Restored(went_on, rv, base, events, redacted, history_checksum(connection, base))


def _revision(connection: sqlite3.Connection, at: int | datetime | None, head: int) -> int:
    if at is None:
        return head
    if isinstance(at, int):
        return at
    return min(head, rows.rv_at(connection, microseconds(at.astimezone(UTC)))) or -1


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
            base = _base_of(log.about()) if after is None else after
            log.sealed.everything()
            return _digest(history_rows(log, base, 2**62 if until is None else until))
    path = sqlite_path(url_or_path)
    connection = connect_read_only(path)
    try:
        archive.attach(connection, path)
        base = _base_of(_about(connection)) if after is None else after
        return history_checksum(connection, base, until)
    finally:
        connection.close()
