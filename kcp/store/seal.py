"""Sealing a log: from the side, or by its daemon.

seal(url, clock=clock)                          a stopped log on SQLite, or PostgreSQL beside its daemons
async with store: await keep_sealing(…)         what a daemon runs all its life
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.to_thread
import structlog

from kcp.base.clock import Clock, microseconds
from kcp.base.values import frozen
from kcp.store import parquet, schema, sealing
from kcp.store.archive import FOLDER
from kcp.store.open import is_postgres, lock, sqlite_path
from kcp.store.protocol import StoreError
from kcp.store.seal_sqlite import SqliteLog, transact
from kcp.store.sealing import HOT_S, Done, Log, Step
from kcp.store.sqlite import connect, connect_read_only

log = structlog.get_logger(__name__)

PAUSE_S = 0.02
"""Between two transactions of a daemon's sealing: others go first."""
SHORTEST_PERIOD_S, LONGEST_PERIOD_S = 1.0, 600.0


@frozen
class Policy:
    """What becomes of old events. `seal_after_s` None: nothing is sealed; `keep_s` None: sealed ranges stay for ever."""

    seal_after_s: float | None = HOT_S
    keep_s: float | None = None
    folder: Path | None = None
    """None: beside the log."""

    def steps(self, source: Log, beside: Path | None, clock: Clock, *, gather: bool = False) -> sealing.Steps:
        """`gather`: a file waits until it is full or its first event twice as old as it must be.

        Raises StoreError when a log that has no place of its own got no folder."""
        folder = self.folder or beside
        if folder is None:
            raise StoreError(
                "sealing a log that daemons share needs --archive: a folder that all of them see at the same path"
            )
        now_us = microseconds(clock.now())
        return sealing.steps(
            source,
            folder.absolute(),
            beside=beside is not None and folder.absolute() == beside.absolute(),
            seal_before_us=_before(now_us, self.seal_after_s),
            drop_before_us=_before(now_us, self.keep_s),
            gather_until_us=_before(now_us, 2 * self.seal_after_s) if gather and self.seal_after_s else None,
        )

    @property
    def period_s(self) -> float:
        spans = [span for span in (self.seal_after_s, self.keep_s) if span is not None]
        return min(max(min(spans, default=LONGEST_PERIOD_S) / 4, SHORTEST_PERIOD_S), LONGEST_PERIOD_S)


def _before(now_us: int, span_s: float | None) -> int | None:
    return None if span_s is None else now_us - int(span_s * 1e6)


def seal(url_or_path: str | Path, *, clock: Clock, policy: Policy | None = None) -> Done:
    """One pass. Raises Locked while kcp runs on SQLite or another one seals PostgreSQL, StoreError when a file
    does not equal the table: then nothing was dropped."""
    policy = policy or Policy()
    parquet.require()
    if is_postgres(url_or_path):
        from kcp.store.seal_postgres import PostgresLog

        with PostgresLog(str(url_or_path), clock) as shared:
            return sealing.run(policy.steps(shared, None, clock), shared.transact)
    path = sqlite_path(url_or_path)
    if not path.is_file():
        raise StoreError(f"there is no event log at {path}")
    release = lock(path)
    try:
        with contextlib.closing(connect(path)) as connection:
            schema.check(connection, path)
            steps = policy.steps(SqliteLog(connection), path.parent / FOLDER, clock)
            done = sealing.run(steps, partial(transact, connection))
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        release()
    return done


class Housekept(Protocol):
    """A log that runs short transactions between its batches."""

    async def chore(self, step: Step) -> Any: ...


async def keep_sealing(store: Housekept, url_or_path: str | Path, clock: Clock, policy: Policy) -> None:
    """Seal in passes until cancelled. What goes wrong is told once, and tried again."""
    said = ""
    while True:
        try:
            done = await seal_running(store, url_or_path, clock, policy)
        except (StoreError, OSError) as error:
            if str(error) != said:
                said = str(error)
                log.warning("events are not sealed", reason=said)
        else:
            said = ""
            if done:
                log.info("events sealed", ranges=len(done.sealed), left=done.left, dropped=len(done.dropped), floor=done.floor)  # fmt: skip
        await anyio.sleep(policy.period_s)


async def seal_running(
    store: Housekept, url_or_path: str | Path, clock: Clock, policy: Policy, pause_s: float = PAUSE_S
) -> Done:
    """One pass beside the daemon's own work: files in a thread, transactions between its batches."""
    with _opened(url_or_path, clock) as (source, beside, transact_there):
        steps = policy.steps(source, beside, clock, gather=True)
        answer: Any = None
        while True:
            step = await anyio.to_thread.run_sync(_advance, steps, answer)
            if isinstance(step, Done):
                return step
            answer = await (store.chore(step) if transact_there is None else transact_there(step))
            await anyio.sleep(pause_s)


def _advance(steps: sealing.Steps, answer: Any) -> Step | Done:
    try:
        return steps.send(answer)
    except StopIteration as end:
        done: Done = end.value
        return done


Transacting = Callable[[Step], Awaitable[Any]] | None


@contextlib.contextmanager
def _opened(url_or_path: str | Path, clock: Clock) -> Iterator[tuple[Log, Path | None, Transacting]]:
    """The log to read from, the folder beside it, and how to run steps when the store's writer is not to."""
    if is_postgres(url_or_path):
        from kcp.store.seal_postgres import PostgresLog

        with PostgresLog(str(url_or_path), clock) as shared:

            async def transact_there(step: Step) -> Any:
                return await anyio.to_thread.run_sync(lambda: shared.transact(step))

            yield shared, None, transact_there
        return
    path = sqlite_path(url_or_path)
    with contextlib.closing(connect_read_only(path)) as connection:
        yield SqliteLog(connection), path.parent / FOLDER, None
