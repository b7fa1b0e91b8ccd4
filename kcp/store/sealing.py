"""Sealing and retention as a sequence of short transactions, each of which leaves a log that reads the same.

    write a file of the oldest hot range, read it back      nothing in the log says so yet
    register it, raise `head.sealed_rv`                     its events are in the file and hot; readers take the hot ones
    drop hot rows, a few at a time, counted in `segments.n`  hot + left + unlogged stays the head at each commit
    (retention) write the state at the end of the ranges to let go of, register it in their place, remove their files

Two sorts of rows stay hot, and are in a file too: the newest event of a live object, and an event that a hot one has as its
predecessor. Once a row is neither, it never is again, so drops need no lock and survivors are looked at in each pass.

The steps come out of a generator; whoever runs it decides where each transaction happens: `seal` on a stopped log, the
writing connection of a daemon between two batches, a connection of its own to PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from kcp.base.values import frozen
from kcp.store import archive, parquet
from kcp.store.archive import BASE, DROPPED, PARQUET, Segment, quoted
from kcp.store.protocol import StoreError

HOT_S = 86_400.0
"""Younger events stay in the hot table."""
SEGMENT_EVENTS = 100_000
"""At most so many events go into one file: a reader of a stretch reads whole files."""
ROWS_PER_READ = 1000
FIRST_DROP = 32
MAX_DROP = 5_000
STEP_S = 0.003
"""How long a transaction that others wait for may take up to its commit; the number of rows follows from it."""
VACUUM_PAGES = 256


class Moved(StoreError):
    """Raised when someone else sealed, restored or purged meanwhile: nothing was done, the next pass will."""


class Log(Protocol):
    """Reads of committed state, outside any step. `{log}` stands before the tables as in `archive.Shelf`."""

    engine: str

    def fetch(self, sql: str) -> list[tuple[Any, ...]]: ...

    def bodies(self, rvs: Sequence[int]) -> dict[int, tuple[Any, ...]]:
        """Rows of `events` by revision, in the columns of a file."""
        ...


class Transaction(Protocol):
    """What a step may do; all of it is committed, or, when the step raises, none."""

    def fetch(self, sql: str) -> list[tuple[Any, ...]]: ...

    def run(self, sql: str) -> int:
        """Returns the number of rows."""
        ...

    def elapsed_s(self) -> float:
        """Since the step began."""
        ...


Step = Callable[[Transaction], Any]
Steps = Generator[Step, Any, "Done"]


@frozen
class Range:
    """What became of a range: its events are in `file`, or were dropped."""

    first_rv: int
    last_rv: int
    events: int
    file: Path


@frozen
class Done:
    """One pass. `left` rows left the hot table; `dropped` ranges are no more, history begins at `floor`."""

    sealed: tuple[Range, ...] = ()
    left: int = 0
    dropped: tuple[Segment, ...] = ()
    floor: int = 0

    def __bool__(self) -> bool:
        return bool(self.sealed or self.left or self.dropped)


def steps(
    log: Log,
    folder: Path,
    *,
    beside: bool,
    seal_before_us: int | None,
    drop_before_us: int | None,
    gather_until_us: int | None = None,
) -> Steps:
    """Seal what is older than one moment and below the API's horizon, let go of sealed ranges that ended before another.

    `gather_until_us`: a file that would not be full waits until its first event is older than that, so that passes every
    few minutes do not make a file each. `beside`: the folder is the one that readers look in by themselves; else its place is told in the log.
    Raises StoreError when a file cannot be written or read again, Moved when someone else was faster.
    """
    parquet.require()
    place = None if beside else folder
    if beside:
        _tidy(log, folder)
    for segment in _segments(log):
        if segment.codec != DROPPED:
            segment.file(folder)
    sealed: list[Range] = []
    if seal_before_us is not None:
        while (stretch := _next(log, seal_before_us, gather_until_us)) is not None:
            sealed.append((yield from _seal(log, folder, place, *stretch)))
    left = yield from _drop(log)
    dropped: tuple[Segment, ...] = ()
    if drop_before_us is not None:
        dropped = yield from _forget(log, folder, place, drop_before_us)
    if log.engine == "sqlite" and (left or dropped):
        yield from _vacuum(log)
    return Done(tuple(sealed), left, dropped, archive.floor_of(_segments(log)))


def _segments(log: Log | Transaction) -> list[Segment]:
    return [Segment(*row) for row in log.fetch(archive.SEGMENTS.format("{log}"))]


def _tidy(log: Log, folder: Path) -> None:
    """Remove files that a pass which was cut short left: the folder is this log's alone, and they are registered nowhere."""
    known = {Path(segment.uri).name for segment in _segments(log)}
    for file in sorted(folder.glob("*.parquet*")) if folder.is_dir() else []:
        if file.name not in known and file.name.startswith(("events-", "state-")):
            file.unlink(missing_ok=True)


def _next(log: Log, before_us: int, gather_us: int | None) -> tuple[int, int, int] | None:
    """(sealed so far, end of the next range, head); None when nothing is old enough."""
    ((sealed, horizon, head),) = log.fetch("SELECT sealed_rv, horizon_rv, rv FROM {log}head WHERE id = 1")
    last = min(_older(log, before_us), horizon)
    if last <= sealed:
        return None
    found = log.fetch(
        f"SELECT rv FROM {{log}}events WHERE rv > {sealed} AND rv <= {last} ORDER BY rv LIMIT 1 OFFSET {SEGMENT_EVENTS - 1}"
    )
    if not found and gather_us is not None and _older(log, gather_us) <= sealed:
        return None
    return sealed, found[0][0] if found else last, head


def _older(log: Log, before_us: int) -> int:
    """The newest revision of which it is sure, without looking at events, that it is older than a moment."""
    ((rv,),) = log.fetch(
        "SELECT coalesce((SELECT t.rv FROM {log}ticks t"
        f" WHERE t.second >= {before_us // 1_000_000} ORDER BY t.second LIMIT 1), h.rv) FROM {{log}}head h WHERE h.id = 1"
    )
    return int(rv)


def _purges(head: int) -> str:
    """How many purges there were since the log was at `head`."""
    return f"SELECT count(*) FROM {{log}}inputs WHERE rv_after >= {head} AND kind = 'purge'"


def _unused(folder: Path, name: str) -> Path:
    """A folder may hold the files of several logs: never one in place of another."""
    found, number = folder / f"{name}.parquet", 1
    while found.exists():
        number += 1
        found = folder / f"{name}-{number}.parquet"
    return found


def _seal(
    log: Log, folder: Path, place: Path | None, sealed: int, last: int, head: int
) -> Generator[Step, Any, Range]:
    file = _unused(folder, f"events-{sealed + 1:015d}-{last:015d}")
    purges = log.fetch(_purges(head))
    order = log.fetch(
        f"SELECT oid, rv FROM {{log}}events WHERE rv > {sealed} AND rv <= {last} ORDER BY oid, rv"
    )
    written = parquet.write(file, _rows(log, [rv for _, rv in order]))

    def register(within: Transaction) -> None:
        moved = within.run(
            f"UPDATE {{log}}head SET sealed_rv = {last} WHERE id = 1 AND sealed_rv = {sealed} AND horizon_rv >= {last}"
        )
        if moved != 1 or within.fetch(_purges(head)) != purges:
            raise Moved("the log was sealed, restored or purged meanwhile: nothing was moved")
        ((number,),) = within.fetch("SELECT coalesce(max(seg_id), 0) + 1 FROM {log}segments")
        within.run(
            "INSERT INTO {log}segments (seg_id, first_rv, last_rv, codec, uri, sha256, n) VALUES"
            f" ({number}, {sealed + 1}, {last}, {quoted(PARQUET)}, {quoted(file.name)}, {quoted(written.sha256)}, 0)"
        )
        _tell_place(within, place)

    yield register
    return Range(sealed + 1, last, written.count, file)


def _tell_place(within: Transaction, place: Path | None) -> None:
    within.run(f"DELETE FROM {{log}}about WHERE key = {quoted(archive.PLACE)}")
    if place is not None:
        within.run(
            f"INSERT INTO {{log}}about (key, value) VALUES ({quoted(archive.PLACE)}, {quoted(str(place))})"
        )


def _rows(log: Log, rvs: Sequence[int]) -> Iterator[list[tuple[Any, ...]]]:
    for start in range(0, len(rvs), ROWS_PER_READ):
        some = rvs[start : start + ROWS_PER_READ]
        found = log.bodies(some)
        if len(found) != len(some):
            raise Moved("the log was sealed meanwhile: nothing was moved")
        yield [found[rv] for rv in some]


_NEEDED = """
SELECT e.rv,
       EXISTS (SELECT 1 FROM {log}objects o WHERE o.oid = e.oid AND o.rv = e.rv AND o.delete_rv IS NULL)
       OR e.rv = (SELECT h.prev_rv FROM {log}events h WHERE h.oid = e.oid AND h.rv > SEALED ORDER BY h.rv LIMIT 1)
  FROM {log}events e WHERE e.rv > AFTER AND e.rv <= UNTIL ORDER BY e.rv LIMIT COUNT
"""
"""Hot rows and whether each must stay: one seek for its object, one for the first hot event after the sealed revision."""


def _drop(log: Log) -> Generator[Step, Any, int]:
    """Let go of hot rows that are sealed and not needed hot, in steps of about STEP_S."""
    left, count = 0, FIRST_DROP
    for segment in _segments(log):
        after = segment.first_rv - 1
        while after < segment.last_rv:
            after, gone, took_s = yield _drop_some(segment, after, count)
            left += gone
            count = max(FIRST_DROP, min(MAX_DROP, int(count * min(2.0, STEP_S / max(took_s, 1e-6)))))
    return left


def _drop_some(segment: Segment, after: int, count: int) -> Step:
    def step(within: Transaction) -> tuple[int, int, float]:
        """(how far it came, rows that left, seconds)."""
        ((sealed,),) = within.fetch("SELECT sealed_rv FROM {log}head WHERE id = 1")
        if sealed < segment.last_rv:
            raise Moved("the log was restored meanwhile")
        query = _NEEDED
        for word, number in (
            ("SEALED", sealed),
            ("AFTER", after),
            ("UNTIL", segment.last_rv),
            ("COUNT", count),
        ):
            query = query.replace(word, str(number))
        found = within.fetch(query)
        free = [rv for rv, needed in found if not needed]
        if free:
            gone = within.run(f"DELETE FROM {{log}}events WHERE rv IN ({', '.join(map(str, free))})")
            within.run(f"UPDATE {{log}}segments SET n = n + {gone} WHERE seg_id = {segment.number}")
        end = found[-1][0] if len(found) == count else segment.last_rv
        return end, len(free), within.elapsed_s()

    return step


def _forget(
    log: Log, folder: Path, place: Path | None, before_us: int
) -> Generator[Step, Any, tuple[Segment, ...]]:
    """Let go of whole sealed ranges that ended before a moment; the state at their end stays."""
    segments = _segments(log)
    until = _older(log, before_us)
    old = [segment for segment in segments if segment.last_rv <= until]
    going = [segment for segment in old if segment.whole]
    if not going:
        return ()
    last = going[-1]
    file = _unused(folder, f"state-{last.last_rv:015d}")
    written = parquet.write(file, _state(log, folder, old, last.last_rv))

    def register(within: Transaction) -> None:
        if _segments(within) != segments:
            raise Moved("the log was sealed meanwhile: nothing was dropped")
        within.run(
            f"UPDATE {{log}}segments SET codec = {quoted(DROPPED)}, uri = '', sha256 = '' WHERE last_rv < {last.last_rv}"
        )
        within.run(
            f"UPDATE {{log}}segments SET codec = {quoted(BASE)}, uri = {quoted(file.name)}, sha256 = {quoted(written.sha256)}"
            f" WHERE seg_id = {last.number}"
        )
        within.run("DELETE FROM {log}about WHERE key = 'base_rv'")
        within.run(f"INSERT INTO {{log}}about (key, value) VALUES ('base_rv', '{last.last_rv}')")
        _tell_place(within, place)

    yield register
    yield from _drop_decisions(last.last_rv)
    for segment in old:
        if segment.uri:
            (folder / Path(segment.uri).name).unlink(missing_ok=True)
    return tuple(going)


def _state(log: Log, folder: Path, old: Sequence[Segment], rv: int) -> Iterable[list[tuple[Any, ...]]]:
    """The newest event of each object that lived at `rv`, sorted as files are."""
    lived = [
        oid
        for (oid,) in log.fetch(
            f"SELECT oid FROM {{log}}objects WHERE oid <= {rv} AND (delete_rv IS NULL OR delete_rv > {rv}) ORDER BY oid"
        )
    ]
    for start in range(0, len(lived), parquet.ROW_GROUP):
        missing = set(lived[start : start + parquet.ROW_GROUP])
        rows: list[tuple[Any, ...]] = []
        for segment in reversed(old):
            if segment.codec != DROPPED and missing:
                for page in parquet.newest_rows(segment.file(folder), missing, rv):
                    rows += page
                    missing -= {row[parquet.OID] for row in page}
        if missing:
            raise StoreError(f"revision {rv} is not whole in {folder}: object {min(missing)} is missing")
        yield sorted(rows, key=lambda row: (row[parquet.OID], row[parquet.RV]))


def _drop_decisions(rv: int) -> Generator[Step, Any, None]:
    """Decisions on events that are gone cannot be re-made."""

    def step(within: Transaction) -> int:
        return within.run(
            "DELETE FROM {log}decisions WHERE decision_id IN (SELECT decision_id FROM {log}decisions"
            f" WHERE rv_after < {rv} ORDER BY rv_after LIMIT {FIRST_DROP * 8})"
        )

    while (yield step):
        pass


def _vacuum(log: Log) -> Generator[Step, Any, None]:
    """Give pages back to the file system, but keep a tenth for what comes next."""

    def step(within: Transaction) -> None:
        for _ in range(VACUUM_PAGES):
            within.run("PRAGMA incremental_vacuum(1)")  # the driver takes one step of it, which is one page
            if within.elapsed_s() > STEP_S:
                return

    while True:
        ((free,),) = log.fetch("PRAGMA freelist_count")
        ((pages,),) = log.fetch("PRAGMA page_count")
        if free <= pages // 10 or free < VACUUM_PAGES:
            return
        yield step
        ((now,),) = log.fetch("PRAGMA freelist_count")
        if now >= free:
            return


def run(passing: Steps, transact: Callable[[Step], Any]) -> Done:
    """Run all steps where the caller is."""
    answer: Any = None
    try:
        while True:
            answer = transact(passing.send(answer))
    except StopIteration as end:
        done: Done = end.value
        return done
