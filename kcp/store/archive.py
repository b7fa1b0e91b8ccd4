"""Reading sealed events: a reader's connection shows hot and sealed ones as one table, and reads of the files what it needs.

    archive = opened(connection, path)          nothing is read yet
    archive.state(rv, where)                    now `events` answers for the state of some objects at a revision
    archive.objects(where)                      … for every version of some objects
    archive.events(after, until)                … for a stretch of the log, segment by segment
    archive.everything()

`segments` says where ranges are: `codec` is `parquet`; `dropped` for a range that retention let go of; `base` for the
last of those, whose file holds the state at its end, so that every later moment is still whole. A row may lie in a
file and in the hot table at once, before it is dropped there or because it is needed there; then the hot one counts. So
whatever step sealing is at, a snapshot of the tables tells each event exactly once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from kcp.base.values import frozen
from kcp.store import parquet
from kcp.store.protocol import StoreError

T = TypeVar("T")

FOLDER = "archive"
PLACE = "archive"
"""Key in `about`: the folder of the files, when it is not the one beside the log."""
IN_MEMORY_EVENTS = 100_000
"""A reader's copy of more sealed events goes to a temporary file."""

SHORT_STRETCH = 10_000
"""A stretch of at most so many revisions is read alone; a longer one with the whole of each file."""

PARQUET, DROPPED, BASE = "parquet", "dropped", "base"
SEGMENTS = "SELECT seg_id, first_rv, last_rv, codec, uri, sha256, n FROM {}segments ORDER BY first_rv"


class Dropped(StoreError):
    """Raised for a moment of which history was dropped. `floor` is the oldest revision that can be told."""

    def __init__(self, floor: int) -> None:
        super().__init__(f"history before revision {floor} was dropped")
        self.floor = floor


@frozen
class Segment:
    """`left` rows of the range are no longer in the hot table."""

    number: int
    first_rv: int
    last_rv: int
    codec: str
    uri: str
    sha256: str
    left: int

    @property
    def whole(self) -> bool:
        """Whether its file has every event of the range."""
        return self.codec == PARQUET

    def file(self, folder: Path) -> Path:
        """Raises StoreError when the file is not there."""
        found = folder / Path(self.uri).name
        if not found.is_file():
            raise StoreError(
                f"the sealed events up to revision {self.last_rv} are in {found.name}, which is not in {folder}:"
                " copy or mount it there"
            )
        return found


class Shelf(Protocol):
    """A reader's connection: the tables of the log, and one of its own for what was read of the files."""

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        """SQL that both engines understand, without arguments. `{log}` stands before the log's own tables."""
        ...

    def prepare(self) -> None:
        """Make `events` show the hot rows and the table's."""
        ...

    def clear(self) -> None: ...

    def put(self, page: parquet.Page) -> None:
        """Add rows that are not there yet, then leave out those that are hot."""
        ...


def quoted(text: str) -> str:
    """A string in SQL."""
    return "'" + text.replace("'", "''") + "'"


def one(kind: int, namespace: str, name: str) -> str:
    """The condition for all incarnations of an object."""
    return f"o.kind_id = {kind} AND o.ns = {quoted(namespace)} AND o.name = {quoted(name)}"


def of_kind(kind: int, namespace: str | None) -> str:
    within = "" if namespace is None else f" AND o.ns = {quoted(namespace)}"
    return f"o.kind_id = {kind}{within}"


def segments_of(shelf: Shelf) -> list[Segment]:
    return [Segment(*row) for row in shelf.fetch(SEGMENTS.format("{log}"))]


def floor_of(segments: Sequence[Segment]) -> int:
    """The oldest revision whose state can be told; 0: all can."""
    return max((segment.last_rv for segment in segments if not segment.whole), default=0)


class Archive:
    """Owned by whoever owns the connection, whose snapshot must not move, or `look` is called when it did."""

    def __init__(self, shelf: Shelf, folder: Path) -> None:
        self._shelf, self._beside = shelf, folder
        self._segments: list[Segment] = []
        self._holds: tuple[Any, ...] = ()
        self.look()

    def look(self) -> None:
        """See what is sealed by now."""
        found = segments_of(self._shelf)
        if found != self._segments:
            if self._holds:
                self._shelf.clear()
            elif found and not self._segments:
                self._shelf.prepare()
            self._segments, self._holds = found, ()
        self.floor = floor_of(found)
        self.sealed = max((segment.last_rv for segment in found), default=0)
        placed = self._shelf.fetch("SELECT value FROM {log}about WHERE key = " + quoted(PLACE))
        self.folder = Path(placed[0][0]) if placed else self._beside

    def check(self, rv: int) -> None:
        """Raises Dropped for a moment that can no longer be told."""
        if rv < self.floor:
            raise Dropped(self.floor)

    def everything(self) -> None:
        """Reads all files, and checks that their rows are those that were sealed."""
        if self._segments:
            self._hold(("everything",), self._read_all)

    def _read_all(self) -> None:
        for segment in self._files():
            file = segment.file(self.folder)
            found = parquet.Fingerprint()
            for page in parquet.read(file):
                found.add(page)
                self._shelf.put(page)
            if found.sha256 != segment.sha256:
                raise StoreError(f"the sealed events in {file} are not those that were sealed")

    def state(self, rv: int, where: str = "1 = 1") -> None:
        """The newest version up to `rv` of the objects (as `o`) that lived then. Raises Dropped.

        From the sealed revision on the hot table has it, and it has the newest version of what lives now.
        """
        self.check(rv)
        if rv < self.sealed:
            self._hold(("state", rv, where), lambda: self._read_state(rv, where))

    def _read_state(self, rv: int, where: str) -> None:
        missing = {
            oid
            for (oid,) in self._shelf.fetch(
                f"SELECT o.oid FROM {{log}}objects o WHERE o.oid <= {rv} AND (o.delete_rv > {rv} OR o.delete_rv IS NULL AND o.rv > {rv})"
                f" AND {where}"
            )
        }
        for segment in reversed(self._files()):
            if not missing:
                return
            if segment.first_rv > rv and segment.whole:
                continue
            for page in parquet.newest_rows(segment.file(self.folder), missing, rv):
                self._shelf.put(page)
                missing -= {row[parquet.OID] for row in page}

    def objects(self, where: str) -> None:
        """Every version of the objects (as `o`) with this condition."""
        if self._segments:
            self._hold(("objects", where), lambda: self._read_objects(where))

    def _read_objects(self, where: str) -> None:
        lives = self._shelf.fetch(f"SELECT o.oid, o.delete_rv FROM {{log}}objects o WHERE {where}")
        for segment in self._files():
            first = segment.first_rv if segment.whole else 0
            wanted = [oid for oid, end in lives if oid <= segment.last_rv and (end is None or end >= first)]
            if wanted:
                for page in parquet.rows_where(segment.file(self.folder), "oid", wanted):
                    self._shelf.put(page)

    def events(self, after: int, until: int) -> int:
        """The events of a stretch that begins after `after`, and the versions before them; returns its end, at most `until`."""
        if after >= self.sealed or self._holds == ("everything",):
            return until
        self.check(after)
        segment = next(s for s in self._segments if s.last_rv > after)
        end = min(until, segment.last_rv)
        first = after if end - after <= SHORT_STRETCH else segment.first_rv - 1
        last = end if end - after <= SHORT_STRETCH else segment.last_rv
        self._hold(("events", first, last), lambda: self._read_events(segment, first, last))
        return end

    def _read_events(self, segment: Segment, after: int, until: int) -> None:
        before: set[int] = set()
        for page in parquet.rows_between(segment.file(self.folder), after, until):
            self._shelf.put(page)
            before.update(row[parquet.PREV_RV] for row in page if 0 < row[parquet.PREV_RV] <= after)
        for older in self._files():
            first = older.first_rv if older.whole else 0
            wanted = [rv for rv in before if first <= rv <= older.last_rv]
            if wanted:
                for page in parquet.rows_where(older.file(self.folder), "rv", wanted):
                    self._shelf.put(page)

    def walk(self, after: int, until: int, limit: int, page: Callable[[int, int, int], list[T]]) -> list[T]:
        """`page(after, until, limit)` over one stretch after the other until there are enough; a negative limit means all."""
        found: list[T] = []
        while True:
            end = self.events(after, until)
            found += page(after, end, limit - len(found) if limit >= 0 else limit)
            if end >= until or 0 <= limit <= len(found):
                return found
            after = end

    def moment(self, ts_us: int) -> None:
        """What turning a time into a revision looks at: the events of one second."""
        if not self._segments:
            return
        second = ts_us // 1_000_000
        ((after, until),) = self._shelf.fetch(
            f"SELECT coalesce((SELECT t.rv FROM {{log}}ticks t WHERE t.second <= {second} ORDER BY t.second DESC LIMIT 1), 0),"
            f" coalesce((SELECT t.rv FROM {{log}}ticks t WHERE t.second > {second} ORDER BY t.second LIMIT 1), {self.sealed})"
        )
        if self.floor <= after < self.sealed:
            self._hold(("moment", after), lambda: self._read_stretch(after, until))

    def _read_stretch(self, after: int, until: int) -> None:
        for segment in self._files():
            if segment.last_rv > after and segment.first_rv <= until:
                for page in parquet.rows_between(segment.file(self.folder), after, until):
                    self._shelf.put(page)

    def _files(self) -> list[Segment]:
        return [segment for segment in self._segments if segment.codec != DROPPED]

    def _hold(self, what: tuple[Any, ...], fill: Callable[[], None]) -> None:
        if self._holds in (what, ("everything",)):
            return
        if self._holds:
            self._shelf.clear()
        self._holds = ("part",)
        fill()
        self._holds = what


_ALL = ", ".join((*parquet.COLUMNS, "body_raw"))
_NAMES = ", ".join(parquet.COLUMNS)
_MARKS = ", ".join("?" * len(parquet.COLUMNS))


class SqliteShelf:
    """`database` is the name under which the log is attached; `view` the name that shows all events."""

    def __init__(self, connection: sqlite3.Connection, database: str = "main", view: str = "events") -> None:
        self._connection, self._database, self._view = connection, database, view

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql.replace("{log}", f"{self._database}.")).fetchall()

    def prepare(self) -> None:
        self._connection.execute(
            "CREATE TEMP TABLE sealed_events (rv INTEGER PRIMARY KEY, oid INTEGER, op INTEGER, prev_rv INTEGER,"
            " ts_us INTEGER, actor_id INTEGER, decision_id INTEGER, request_id TEXT, flags INTEGER, body TEXT, body_raw BLOB)"
        )
        self._connection.execute("CREATE INDEX temp.sealed_object ON sealed_events (oid, rv)")
        self._connection.execute(
            f"CREATE TEMP VIEW {self._view} AS SELECT {_ALL} FROM {self._database}.events"
            f" UNION ALL SELECT {_ALL} FROM temp.sealed_events"
        )

    def clear(self) -> None:
        self._connection.execute("DELETE FROM temp.sealed_events")

    def put(self, page: parquet.Page) -> None:
        self._connection.executemany(
            f"INSERT OR IGNORE INTO temp.sealed_events ({_NAMES}) SELECT {_MARKS}"
            f" WHERE NOT EXISTS (SELECT 1 FROM {self._database}.events WHERE rv = ?)",
            [(*row, row[parquet.RV]) for row in page],
        )


def make_room(connection: sqlite3.Connection, database: str = "main") -> None:
    """For a new connection, before anything temporary is in it: copies of many sealed events go to a file."""
    (left,) = connection.execute(f"SELECT coalesce(sum(n), 0) FROM {database}.segments").fetchone()
    if left > IN_MEMORY_EVENTS and not connection.in_transaction:
        connection.execute("PRAGMA temp_store=FILE")


def opened(connection: sqlite3.Connection, path: Path) -> Archive:
    """For a reader that says what it needs; from now on its transaction holds the tables still."""
    if not connection.in_transaction:
        make_room(connection)
        connection.execute("BEGIN")
    return Archive(SqliteShelf(connection), path.parent / FOLDER)


def attach(connection: sqlite3.Connection, path: Path) -> Archive:
    """Make `events` of a connection the hot and the sealed ones, all of them; nobody may seal meanwhile or later."""
    make_room(connection)
    archive = Archive(SqliteShelf(connection), path.parent / FOLDER)
    archive.everything()
    return archive


def attach_source(connection: sqlite3.Connection, path: Path) -> str:
    """For an export, where the log is attached as `src`: the name under which all its events can be read."""
    archive = Archive(SqliteShelf(connection, "src", "src_events"), path.parent / FOLDER)
    archive.everything()
    return "src_events" if archive.sealed else "src.events"


def problems(shelf: Shelf, folder: Path) -> Iterable[str]:
    """What is wrong with the sealed ranges: a file that is missing, damaged, or not what was sealed; a range that is not whole."""
    archive = Archive(shelf, folder)
    last = 0
    for segment in segments_of(shelf):
        if segment.first_rv != last + 1:
            yield f"the sealed ranges do not follow one another: revision {segment.first_rv} after {last}"
        last = segment.last_rv
        if segment.codec != DROPPED:
            yield from _problems_of(shelf, segment, archive.folder)
    ((sealed,),) = shelf.fetch("SELECT sealed_rv FROM {log}head WHERE id = 1")
    if sealed != last:
        yield f"events are sealed up to revision {last}, the head says {sealed}"


def _problems_of(shelf: Shelf, segment: Segment, folder: Path) -> Iterable[str]:
    try:
        file = segment.file(folder)
        count, digest = parquet.fingerprint(file)
    except StoreError as error:
        yield str(error)
        return
    if digest != segment.sha256:
        yield f"the sealed events in {file} are not those that were sealed"
    elif segment.whole:
        ((hot,),) = shelf.fetch(
            f"SELECT count(*) FROM {{log}}events WHERE rv >= {segment.first_rv} AND rv <= {segment.last_rv}"
        )
        if count != segment.left + hot:
            yield f"{file} holds {count} events, {segment.left} left the hot table and {hot} are in it"
