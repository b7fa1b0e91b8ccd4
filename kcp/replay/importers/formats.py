"""The formats an incident can come in, how each is told by its first bytes, and the way from files to a log."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path

import orjson

from kcp.apis.semantics.facts import FACTS
from kcp.base.clock import Clock
from kcp.base.values import frozen
from kcp.replay.importers import audit, etcd, kine, kwok, simkube, watch
from kcp.replay.importers.bbolt import is_bbolt
from kcp.replay.importers.kinds import Kinds
from kcp.replay.importers.reading import Faults, Malformed, beginning
from kcp.replay.importers.source import Reader, Told
from kcp.store.facts import projections
from kcp.store.foreign import Written, write_log
from kcp.store.open import FILE_NAME, is_postgres, lock, sqlite_path
from kcp.store.protocol import StoreError
from kcp.store.transfer import Restored, restore

READERS: dict[str, Reader] = {
    "audit": audit.read,
    "watch": watch.read,
    "kine": kine.read,
    "etcd": etcd.read,
    "kwok": kwok.read,
    "simkube": simkube.read,
}
OURS = "kcp"
FORMATS = ("auto", OURS, *READERS)
TITLES = {
    "audit": "audit log",
    "watch": "watch capture",
    "kine": "kine database",
    "etcd": "etcd snapshot",
    "kwok": "KWOK recording",
    "simkube": "SimKube trace",
}
ABOUT_FORMAT = "imported_format"
"""The key of a log's `about` that says that it is somebody else's, and from which format it came."""


@frozen
class Imported:
    """`restored`: what came of it on PostgreSQL."""

    format: str
    written: Written
    faults: Faults
    notes: Sequence[str]
    restored: Restored | None = None


def detect(file: Path) -> str:
    """The format of a file or data directory. Raises Malformed when it is none of them."""
    if file.is_dir():
        return "etcd" if etcd.database_of(file) != file else OURS
    head = beginning(file)
    if head.startswith(b"SQLite format 3\0"):
        return "kine" if _has_kine(file) else OURS
    if is_bbolt(head):
        return "etcd"
    if simkube.is_trace(head):
        return "simkube"
    return _of_text(file, head)


def _has_kine(file: Path) -> bool:
    connection = sqlite3.connect(f"file:{file.resolve().as_posix().replace('?', '%3f')}?mode=ro", uri=True)
    try:
        return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'kine'").fetchone())
    except sqlite3.DatabaseError:
        return False
    finally:
        connection.close()


def _of_text(file: Path, head: bytes) -> str:
    text = head.lstrip()
    if text[:1] == b"{":
        return "audit" if b"audit.k8s.io/" in _first_document(file, text) else "watch"
    if kwok.GROUP in head or b"apiVersion:" in head:
        return "kwok"
    known = ", ".join(TITLES.values())
    raise Malformed(f"{file}: not a log of kcp, and none of these: {known}; --format says which it is")


def _first_document(file: Path, head: bytes) -> bytes:
    """Its beginning; audit events begin with their kind and apiVersion, the order of which is not fixed."""
    line = head.split(b"\n", 1)[0]
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return head
    return str(value.get("apiVersion", "")).encode() if isinstance(value, dict) else b""


def import_incident(
    files: Sequence[Path],
    target: str,
    *,
    clock: Clock,
    format: str = "auto",
    skip_bad: bool = False,
    start_us: int = 0,
) -> Imported:
    """Read `files`, all of one format, and write the log at `target` (directory, file, or URL of PostgreSQL).

    Raises Malformed with the place and the reason unless `skip_bad`, StoreError when the target holds a log.
    """
    chosen = detect(files[0]) if format == "auto" else format
    faults, kinds = Faults(skip_bad), Kinds()
    told = (
        kwok.read(files, faults, kinds, start_us)
        if chosen == "kwok"
        else READERS[chosen](files, faults, kinds)
    )
    if not told.changes:
        raise Malformed(f"{files[0]}: nothing in it tells of a change of an object{_blame(faults)}")
    about = {
        ABOUT_FORMAT: chosen,
        "imported_from": ", ".join(file.name for file in files),
        **({"imported_notes": "; ".join(told.notes)} if told.notes else {}),
    }
    written, restored = _write(target, told, kinds, clock, about)
    return Imported(chosen, written, faults, told.notes, restored)


def _blame(faults: Faults) -> str:
    return f"; {faults.count} faults were skipped, first {faults.kept[0]}" if faults.count else ""


def _write(
    target: str, told: Told, kinds: Kinds, clock: Clock, about: dict[str, str]
) -> tuple[Written, Restored | None]:
    def write(path: Path) -> Written:
        return write_log(
            path, told.changes, kinds.rows, clock=clock, base_rv=told.base_rv, inputs=told.inputs, about=about,
            projections=projections(FACTS),
        )  # fmt: skip

    if is_postgres(target):
        with tempfile.TemporaryDirectory(prefix="kcp-import-") as directory:
            path = Path(directory) / FILE_NAME
            written = write(path)
            return written, restore(path, target)
    path = sqlite_path(target)
    release = lock(path)
    try:
        if path.exists():
            raise StoreError(f"{path} exists already: import into a new place")
        return write(path), None
    finally:
        release()
