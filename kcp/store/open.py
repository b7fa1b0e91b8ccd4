"""From a URL or a path to a Store: the lock, the schema, the driver.

memory:                        nothing on disk
DIR, FILE, sqlite:///FILE      SQLite; a directory means DIR/kcp.db (files end in .db, .sqlite or .kcp)
postgresql://USER@HOST/NAME    PostgreSQL, shared by any number of daemons
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from kcp.base.clock import Clock
from kcp.base.entropy import Entropy, SystemEntropy
from kcp.store import horizon, schema
from kcp.store.driver import Driver
from kcp.store.log import EventLog
from kcp.store.memory import MemoryDriver
from kcp.store.protocol import Locked, Projection, StoreError
from kcp.store.sqlite import SqliteDriver, connect, connect_read_only

FILE_NAME = "kcp.db"
_FILE_SUFFIXES = frozenset({".db", ".sqlite", ".sqlite3", ".kcp"})

_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "9p"}
    | {"fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.rclone"}
)


def open_store(
    url_or_path: str | Path,
    *,
    clock: Clock,
    inline: bool = False,
    read_only: bool = False,
    entropy: Entropy | None = None,
    projections: Sequence[Projection] = (),
    api_history_s: float = horizon.PERIOD_S,
    durable: bool = True,
    wrap_driver: Callable[[Driver], Driver] = lambda driver: driver,
) -> EventLog:
    """Open, or create, an event log. Blocks for migrations and for reading all live objects.

    `inline` keeps every commit and read on the loop's thread, for the deterministic loop. `read_only` takes no lock
    and shows the state as of now. `api_history_s` = 0 keeps the horizon where it is. `durable` False lets SQLite answer
    before the disk has it, for logs that need not outlive the machine. `wrap_driver` puts something between the log and
    its file, such as faults of a simulation.
    Raises Locked when another kcp holds the file, SchemaTooNew, or StoreError with a reason for people.
    """
    target = str(url_or_path)
    if target in ("memory:", ":memory:", "memory://"):
        driver = MemoryDriver((entropy or SystemEntropy()).uid())
        return EventLog(driver, clock, projections=projections, api_history_s=api_history_s)
    if is_postgres(target):
        from kcp.store.postgres import PostgresDriver

        shared = PostgresDriver(target, clock, entropy=entropy or SystemEntropy(), read_only=read_only)
        return EventLog(
            shared, clock, projections=projections, api_history_s=api_history_s, read_only=read_only
        )
    path = sqlite_path(target)
    if read_only:
        _check_readable(path)
        return EventLog(SqliteDriver(path, clock, inline=inline, read_only=True), clock, read_only=True)
    release = lock(path)
    try:
        _refuse_unfinished(path)
        _prepare(path, entropy or SystemEntropy())
        return EventLog(
            wrap_driver(SqliteDriver(path, clock, inline=inline, release=release, durable=durable)),
            clock,
            projections=projections,
            api_history_s=api_history_s,
        )
    except sqlite3.OperationalError as error:
        release()
        raise StoreError(f"cannot open {path}: {error}") from error
    except sqlite3.DatabaseError as error:
        release()
        raise StoreError(f"{path} is no event log, or damaged: {error}") from error
    except BaseException:
        release()
        raise


def is_postgres(url_or_path: str | Path) -> bool:
    return str(url_or_path).startswith(("postgresql://", "postgres://"))


def sqlite_path(url_or_path: str | Path) -> Path:
    """The file that a URL, a directory or a path means. Raises StoreError for other engines."""
    target = str(url_or_path)
    if target.startswith("sqlite:///"):
        target = target.removeprefix("sqlite:///")
    elif "://" in target:
        raise StoreError(
            f"no event log can be opened at {target.split('@')[-1]}: the engine is not supported"
        )
    path = Path(target)
    return path if path.is_file() or path.suffix in _FILE_SUFFIXES else path / FILE_NAME


def partial(path: Path) -> Path:
    """Where a file is made that takes the name `path` when it is whole."""
    return path.with_name(path.name + ".partial")


def _refuse_unfinished(path: Path) -> None:
    """An empty log in the place of one that was to be restored would be taken for it."""
    unfinished = partial(path)
    if unfinished.exists() and not path.exists():
        raise StoreError(
            f"a restore or import into {path} was not finished: run it again, or remove {unfinished}"
        )


def lock(path: Path) -> Callable[[], None]:
    """Take the file for this process, make its directory if need be. Returns what gives it back. Raises Locked."""
    lock_path = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _refuse_network(path.parent)
        descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(
            f"cannot write to {path.parent}: {(error.strerror or str(error)).lower()}"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        os.close(descriptor)
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise StoreError(f"cannot lock {path}: {error.strerror}") from error
        process = f" (process {holder})" if holder else ""
        raise Locked(f"{path} is in use by another kcp{process}") from None
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        os.close(descriptor)
        raise StoreError(f"cannot write to {path.parent}: {(error.strerror or '').lower()}") from error

    def release() -> None:
        nonlocal descriptor
        if descriptor >= 0:
            os.close(descriptor)
            descriptor = -1

    return release


def lock_existing(path: Path) -> Callable[[], None]:
    """As `lock`, for tools that change a log: raises StoreError, and makes nothing, when there is none."""
    if not path.is_file():
        raise StoreError(f"there is no event log at {path}")
    return lock(path)


def _refuse_network(directory: Path) -> None:
    """SQLite's locks and WAL do not hold on network file systems."""
    kind = _file_system(directory.resolve())
    if kind in _NETWORK_FILE_SYSTEMS:
        raise StoreError(f"{directory} lies on a network file system ({kind}): SQLite needs a local disk")


def _file_system(directory: Path) -> str:
    best, kind = "", ""
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        for line in mounts:
            fields = line.split()
            point = fields[4].encode().decode("unicode_escape")
            if directory.is_relative_to(point) and len(point) >= len(best):
                best, kind = point, fields[fields.index("-") + 1]
    return kind


def _check_readable(path: Path) -> None:
    connection = connect_read_only(path)
    try:
        schema.check(connection, path)
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path} is no event log: {error}") from error
    finally:
        connection.close()


_fresh_logs: list[bytes] = []
"""The bytes of a log with schema and views and nothing in it, once this process has made one."""


def _prepare(path: Path, entropy: Entropy) -> None:
    """Schema, views, and the head row of a new log."""
    fresh = _make_file(path)
    connection = connect(path)
    try:
        schema.upgrade(connection, path)
        if fresh and not _fresh_logs:
            _fresh_logs.append(connection.serialize())
        connection.execute(
            "INSERT OR IGNORE INTO head (id, rv, ts_us, epoch, horizon_rv, sealed_rv, unlogged, cluster_uid)"
            " VALUES (1, 0, 0, 0, 0, 0, 0, ?)",
            (entropy.uid(),),
        )
    finally:
        connection.close()


def _make_file(path: Path) -> bool:
    """Make the file, for its owner only, if it is not there. Returns whether it had no schema yet."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error
    try:
        fresh = os.fstat(descriptor).st_size == 0
        if fresh and _fresh_logs:
            _fill(descriptor, _fresh_logs[0])
        return fresh
    except OSError as error:
        raise StoreError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error
    finally:
        os.close(descriptor)


def _fill(descriptor: int, content: bytes) -> None:
    """All of it or, as on a full disk, nothing: half a log would be taken for a damaged one."""
    try:
        written = 0
        while written < len(content):
            written += os.write(descriptor, content[written:])
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, 0)
        raise
