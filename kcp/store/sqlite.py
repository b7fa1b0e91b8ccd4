"""The event log on SQLite: one file, one writing and checkpointing connection, WAL, `synchronous=FULL`.

Every other connection, here and in other processes, is read-only: the known ways to damage a WAL need two
connections that write or checkpoint at once. So `wal_autocheckpoint` is off and the writer checkpoints, in idle
moments or when the log has grown by CHECKPOINT_BYTES.

A batch is put into the transaction and committed by the one worker thread, in few and wide statements that run without
the interpreter lock, so that the next batch is decided meanwhile; or right on the loop when it is small and the disk
answers fast. With `inline` always on the loop, and reads too, for the deterministic loop.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import anyio
import structlog

from kcp.base.clock import Clock
from kcp.store import archive, rows, sealed_rows, sqlite_append
from kcp.store.archive import Archive
from kcp.store.driver import Batch, Behind, Done, Snapshot, Superseded
from kcp.store.protocol import Event, KindRow, Record, StoreError, Unavailable
from kcp.store.seal_sqlite import transaction

log = structlog.get_logger(__name__)

T = TypeVar("T")

CHORE_LOG_BYTES = 256 * 1024
"""What a transaction of sealing adds to the write-ahead log, about."""
CHECKPOINT_BYTES = 32 * 1024 * 1024
INLINE_BYTES = 96 * 1024
"""A larger batch is committed by the worker thread."""
COMMIT_LOG_BYTES = 56 * 1024
"""What the smallest commit adds to the write-ahead log: a page of each table and index that it touches."""
FAST_COMMIT_S = 0.002
ASK_AGAIN_S = 5.0
"""How long commits stay in the worker before the disk is asked again."""
_MEASURED = 64
WORKER_BATCHES = 2
"""So many the worker may have, so that it need not wait for the loop between two."""
READERS = 2
ACTORS_KEPT = 20_000

_PRAGMAS = (
    "PRAGMA page_size=8192",
    "PRAGMA auto_vacuum=INCREMENTAL",
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA wal_autocheckpoint=0",
    "PRAGMA busy_timeout=5000",
    "PRAGMA cache_size=-65536",
    "PRAGMA temp_store=MEMORY",
    "PRAGMA foreign_keys=OFF",
)


def connect(path: Path) -> sqlite3.Connection:
    """The writing connection. `page_size` and `auto_vacuum` count only before the first table exists.

    Pages of 8 KiB keep twice as many versions of 1.5 KiB together as those of 4 KiB: a fifth less to write, half the calls.
    """
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    try:
        for pragma in _PRAGMAS:
            connection.execute(pragma)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _writing(path: Path) -> sqlite3.Connection:
    connection = connect(path)
    sqlite_append.prepare(connection)
    return connection


def read_only_uri(path: Path) -> str:
    """How SQLite can open the file for reading. Raises StoreError when it cannot.

    Without a -wal file in a directory that may not be written, only `immutable` works: nobody else writes it either.
    """
    if not path.is_file():
        raise StoreError(f"there is no event log at {path}")
    failure: sqlite3.Error | None = None
    for mode in ("mode=ro",) if Path(f"{path}-wal").exists() else ("mode=ro", "immutable=1"):
        uri = f"{path.absolute().as_uri()}?{mode}"
        connection = sqlite3.connect(uri, uri=True)
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error as error:
            failure = error
        else:
            return uri
        finally:
            connection.close()
    raise StoreError(f"cannot read {path}: {failure}")


def connect_read_only(path: Path) -> sqlite3.Connection:
    """A reader, of a running or a stopped daemon's file. Raises StoreError when there is nothing to read."""
    connection = sqlite3.connect(read_only_uri(path), uri=True, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA busy_timeout=5000")
    connection.execute("PRAGMA temp_store=MEMORY")
    return connection


class SqliteDriver:
    """Owns the writing connection; the lock file is the caller's."""

    shared = False
    ahead_us = 0

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        inline: bool = False,
        read_only: bool = False,
        release: Callable[[], None] = lambda: None,
        durable: bool = True,
    ) -> None:
        self._path = path
        self._durable = durable
        self._clock = clock
        self._inline = inline
        self._read_only = read_only
        self._release = release
        self._connection: sqlite3.Connection | None = None
        self._worker = None if inline else ThreadPoolExecutor(1, "kcp-store-writer")
        self._reading = None if inline else ThreadPoolExecutor(READERS, "kcp-store-reader")
        self._readers: deque[sqlite3.Connection] = deque()
        self._commit_s: deque[float] = deque(maxlen=_MEASURED)
        self._threaded_until_s = 0.0
        self._epoch = 0
        self._kind_ids: dict[str, int] = {}
        self._resources: dict[int, str] = {}
        self._new_kinds: dict[str, KindRow] = {}
        self._in_worker_now = 0
        self._failures = self._failures_told = 0
        self._interned = rows.Actors(ACTORS_KEPT)
        self._since_checkpoint = 0
        self._analyzed_rv = 0
        self._rv = 0
        self._sealed_rv = 0
        self._closed = False

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def life(self) -> int:
        return self._epoch

    @property
    def depth(self) -> int:
        return 1 if self._worker is None else WORKER_BATCHES

    def catch_up(self, base_rv: int, done: Done, *, decided: bool = False) -> None:
        """Nobody else writes."""
        del base_rv, decided
        done(None)

    async def news(self, timeout_s: float) -> int:
        await anyio.sleep(timeout_s)
        return 0

    def load(self) -> Snapshot:
        """Take over the file: raise the epoch, read every live object as bytes."""
        connection = connect_read_only(self._path) if self._read_only else self._writer()
        try:
            return self._load(connection)
        except BaseException as error:
            connection.close()
            self._connection = None
            if isinstance(error, sqlite3.DatabaseError):
                raise StoreError(f"{self._path} is damaged: {error}") from error
            raise

    def _load(self, connection: sqlite3.Connection) -> Snapshot:
        connection.execute("BEGIN" if self._read_only else "BEGIN IMMEDIATE")
        if not self._read_only:
            connection.execute("UPDATE head SET epoch = epoch + 1 WHERE id = 1")
        found = connection.execute(
            "SELECT rv, ts_us, epoch, horizon_rv, cluster_uid, sealed_rv FROM head WHERE id = 1"
        ).fetchone()
        if found is None:
            raise StoreError(f"{self._path} is damaged: the head row is missing")
        rv, ts_us, self._epoch, horizon, cluster_uid, self._sealed_rv = found
        self._rv = rv
        kinds = self._load_kinds(connection)
        self._interned.load(connection)
        leases = rows.load_leases(connection)
        records = rows.load_records(connection, self._resources, self._kind_ids, leases)
        newest = connection.execute("SELECT coalesce(max(rv), 0) FROM events").fetchone()[0]
        (seq,) = connection.execute(
            "SELECT coalesce(max(seq), 0) FROM inputs WHERE rv_after = ?", (rv,)
        ).fetchone()
        connection.execute("COMMIT")
        if newest > rv:
            raise StoreError(f"{self._path} is damaged: it holds revision {newest} beyond its head {rv}")
        if self._read_only:
            self._readers.append(connection)
        return Snapshot(
            rv, ts_us, self._epoch, horizon, cluster_uid, kinds, records, list(leases.values()), seq
        )

    def _load_kinds(self, connection: sqlite3.Connection) -> list[KindRow]:
        kinds = []
        for kind_id, row in rows.load_kinds(connection):
            kinds.append(row)
            self._kind_ids[row.resource] = kind_id
            self._resources[kind_id] = row.resource
        return kinds

    def _writer(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = _writing(self._path)
            if not self._durable:
                self._connection.execute("PRAGMA synchronous=OFF")
        return self._connection

    def register(self, kinds: Sequence[KindRow]) -> None:
        for row in kinds:
            if row.resource not in self._kind_ids:
                kind_id = max(self._resources, default=0) + 1
                self._kind_ids[row.resource] = kind_id
                self._resources[kind_id] = row.resource
            self._new_kinds[row.resource] = row

    def commit(self, batch: Batch, done: Done) -> None:
        kinds, self._new_kinds = self._new_kinds, {}

        failures = self._failures_told

        def concluded(error: BaseException | None) -> None:
            if error is not None:
                self._failures_told += 1
                self._new_kinds = {**kinds, **self._new_kinds}
            done(error)

        def landed(error: BaseException | None) -> None:
            self._in_worker_now -= 1
            concluded(error)

        if self._worker is None or self._fits_loop(batch):
            error = self._attempt(lambda: self._write(batch, kinds, failures))
            self._judge_disk()
            concluded(error)
        else:
            self._in_worker_now += 1
            self._in_worker(lambda: self._write(batch, kinds, failures), landed)

    def _fits_loop(self, batch: Batch) -> bool:
        if self._connection is None or self._in_worker_now:
            return False
        return batch.size_bytes <= INLINE_BYTES and self._may_block()

    def _may_block(self) -> bool:
        """Whether the disk has answered fast enough, when last asked, to wait for it on the loop."""
        return self._clock.monotonic() >= self._threaded_until_s

    def _judge_disk(self) -> None:
        """After a commit on the loop: two slow ones among the recent send commits to the worker for a while.

        Only commits on the loop tell: in the worker a commit also waits for the interpreter lock, which a busy loop gives
        up every few milliseconds at most. For the same reason the worker is the slower place while the disk is fast.
        """
        slow = sum(took_s > FAST_COMMIT_S for took_s in self._commit_s)
        if self._worker is not None and slow >= 2:
            self._threaded_until_s = self._clock.monotonic() + ASK_AGAIN_S
            self._commit_s.clear()

    def _in_worker(self, work: Callable[[], None], done: Done) -> None:
        assert self._worker is not None
        loop = asyncio.get_running_loop()

        def finish(error: BaseException | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(done, error)

        self._worker.submit(lambda: finish(self._attempt(work)))

    def _attempt(self, work: Callable[[], None]) -> BaseException | None:
        try:
            work()
        except (Behind, Superseded, StoreError) as error:
            return error
        except Exception as error:  # noqa: BLE001 whatever it is, the batch failed and everyone must hear of it
            return Unavailable(f"cannot write {self._path}: {error}")
        return None

    def _write(self, batch: Batch, kinds: Mapping[str, KindRow], failures: int) -> None:
        """`failures`: how many batches had failed, as far as the loop knew when it handed this one over."""
        if failures != self._failures:
            self._failures += 1
            raise Superseded
        try:
            self._write_on_top(batch, kinds)
        except BaseException:
            self._failures += 1
            raise

    def _write_on_top(self, batch: Batch, kinds: Mapping[str, KindRow]) -> None:
        if self._read_only or self._closed:
            raise Unavailable(f"{self._path} is open read-only")
        if self._connection is None:
            self._recover(batch.base_rv)
        try:
            self._execute(self._writer(), batch, kinds)
        except Exception as error:  # noqa: BLE001 whatever it is, the transaction must not stay open
            self._look_after_failure(batch, error)
        self._interned.keep_new()
        self._rv = batch.rv
        self._since_checkpoint += batch.size_bytes + batch.size_bytes // 4 + COMMIT_LOG_BYTES
        if self._since_checkpoint > CHECKPOINT_BYTES:
            self._checkpoint("PASSIVE")

    def _execute(self, connection: sqlite3.Connection, batch: Batch, kinds: Mapping[str, KindRow]) -> None:
        """All of a transaction, with its end."""
        found = sqlite_append.values(batch, self._kind_ids, self._interned, self._epoch)
        changes = sqlite_append.statements(found)
        more = rows.statements(batch, self._interned)
        if kinds:
            numbered = [rows.kind_values(self._kind_ids[name], row) for name, row in kinds.items()]
            more.append((rows.UPSERT_KIND, numbered))
        before = self._clock.monotonic()
        if more or len(changes) > 1:
            connection.execute("BEGIN IMMEDIATE")
            for statement, values in more:
                rows.execute(connection, statement, values)
            for statement, flat in changes:
                connection.execute(statement, flat)
            before = self._clock.monotonic()
            connection.execute("COMMIT")
        else:
            connection.execute(*changes[0])
        if self._may_block():
            self._commit_s.append(self._clock.monotonic() - before)

    def _look_after_failure(self, batch: Batch, error: Exception) -> None:
        """Never trust the handle again: reopen and see whether the batch is there after all."""
        self._interned.forget_new()
        self._drop_connection()
        try:
            self._recover(batch.base_rv)
        except Behind as behind:
            if not rows.same_changes(behind.tail, batch):
                raise
            self._checkpoint("FULL")
            return
        except sqlite3.Error as again:
            raise Unavailable(f"cannot write {self._path}: {error}; on a second look: {again}") from error
        raise Unavailable(f"cannot write {self._path}: {error}") from error

    def _recover(self, base_rv: int) -> None:
        """Open again under a higher epoch. Raises Behind when the file holds more than was published."""
        connection = _writing(self._path)
        try:
            connection.execute("BEGIN IMMEDIATE")
            taken = connection.execute(
                "UPDATE head SET epoch = epoch + 1 WHERE id = 1 AND epoch = ?", (self._epoch,)
            )
            if taken.rowcount != 1:
                raise Unavailable(f"another writer has taken over {self._path}")
            tail = rows.load_tail(connection, base_rv, self._resources)
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        self._epoch += 1
        self._connection = connection
        log.warning("event log opened again", path=str(self._path), epoch=self._epoch, rv=tail.rv)
        if tail.rv > base_rv:
            raise Behind(tail)

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error as error:
                log.warning("cannot close the event log", path=str(self._path), error=str(error))

    def idle(self, done: Done) -> bool:
        if self._read_only or self._connection is None:
            return False
        if self._since_checkpoint == 0 and self._rv < self._analyze_at():
            return False
        if self._worker is None:
            done(self._attempt(self._tidy))
        else:
            self._in_worker(self._tidy, done)
        return True

    def chore(self, work: Callable[[Any], None], done: Done) -> None:
        if self._worker is None:
            done(self._attempt(lambda: self._housekeep(work)))
        else:
            self._in_worker(lambda: self._housekeep(work), done)

    def _housekeep(self, work: Callable[[Any], None]) -> None:
        """One transaction of sealing, if the log still is ours. After a failure the next batch opens it again."""
        if self._read_only or self._closed or self._connection is None:
            raise Unavailable(f"{self._path} is not open for writing")
        try:
            with transaction(self._connection, self._clock) as within:
                if within.fetch("SELECT epoch FROM {log}head WHERE id = 1") != [(self._epoch,)]:
                    raise Unavailable(f"another writer has taken over {self._path}")
                work(within)
                ((sealed_rv,),) = within.fetch("SELECT sealed_rv FROM {log}head WHERE id = 1")
        except sqlite3.Error:
            self._drop_connection()
            raise
        self._sealed_rv = sealed_rv
        self._since_checkpoint += CHORE_LOG_BYTES
        if self._since_checkpoint > CHECKPOINT_BYTES // 16:
            self._checkpoint("PASSIVE")

    def _analyze_at(self) -> int:
        return max(1000, self._analyzed_rv * 10)

    def _tidy(self) -> None:
        if self._rv >= self._analyze_at():
            self._analyze()
        self._checkpoint("PASSIVE")

    def _analyze(self) -> None:
        """Without statistics SQLite answers an object's timeline by walking the whole log."""
        connection = self._writer()
        connection.execute("PRAGMA analysis_limit=1000")
        connection.execute("ANALYZE")
        self._analyzed_rv = self._rv

    def _checkpoint(self, mode: str) -> None:
        self._since_checkpoint = 0
        self._writer().execute(f"PRAGMA wal_checkpoint({mode})").fetchone()

    async def _read(
        self,
        query: Callable[[sqlite3.Connection], T],
        sealed: Callable[[sqlite3.Connection, Archive], T],
        rv: int,
    ) -> T:
        """`rv`: the oldest revision that the query looks at; when events after it are sealed, `sealed` reads instead."""

        def read() -> T:
            found = self._with_reader(query, rv)
            return self._with_archive(sealed) if found is None else found[0]

        if self._reading is None:
            return read()
        return await asyncio.get_running_loop().run_in_executor(self._reading, read)

    def _with_archive(self, query: Callable[[sqlite3.Connection, Archive], T]) -> T:
        """Below the API's horizon, so rare: each such read opens the files anew."""
        connection = connect_read_only(self._path)
        try:
            return query(connection, archive.opened(connection, self._path))
        except sqlite3.Error as error:
            raise Unavailable(f"cannot read {self._path}: {error}") from error
        finally:
            connection.close()

    def _with_reader(self, query: Callable[[sqlite3.Connection], T], rv: int) -> tuple[T] | None:
        """None when in this snapshot events after `rv` are sealed."""
        found: tuple[T] | None = None
        try:
            connection = self._reader()
            try:
                connection.execute("BEGIN")
                (sealed_rv,) = connection.execute("SELECT sealed_rv FROM head WHERE id = 1").fetchone()
                if rv >= sealed_rv:
                    found = (query(connection),)
                connection.execute("COMMIT")
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:
            raise Unavailable(f"cannot read {self._path}: {error}") from error
        if self._closed:
            connection.close()
        else:
            self._readers.append(connection)
        return found

    def _reader(self) -> sqlite3.Connection:
        try:
            return self._readers.pop()
        except IndexError:
            return connect_read_only(self._path)

    async def get_at(self, resource: str, namespace: str, name: str, rv: int) -> Record | None:
        kind = self._kind_ids.get(resource)
        if kind is None:
            return None
        return await self._read(
            lambda c: rows.get_at(c, kind, resource, namespace, name, rv),
            lambda c, a: sealed_rows.get_at(c, a, kind, resource, namespace, name, rv),
            rv,
        )

    async def list_at(
        self,
        resource: str,
        rv: int,
        namespace: str | None,
        after: tuple[str, str] | None,
        limit: int | None,
    ) -> Sequence[Record]:
        kind = self._kind_ids.get(resource)
        if kind is None:
            return ()
        return await self._read(
            lambda c: rows.list_at(c, kind, resource, rv, namespace, after, limit),
            lambda c, a: sealed_rows.list_at(c, a, kind, resource, rv, namespace, after, limit),
            rv,
        )

    async def events_since(
        self, rv: int, until: int, resources: Sequence[str] | None, limit: int
    ) -> Sequence[Event]:
        kinds = None
        if resources is not None:
            kinds = [self._kind_ids[resource] for resource in resources if resource in self._kind_ids]
        names = dict(self._resources)
        return await self._read(
            lambda c: rows.events_since(c, names, rv, until, kinds, limit),
            lambda c, a: sealed_rows.events_since(c, a, names, rv, until, kinds, limit),
            rv,
        )

    async def rv_at(self, ts_us: int) -> int:
        def look(connection: sqlite3.Connection, sealed: Archive) -> int:
            return sealed_rows.rv_at(connection, sealed, ts_us)

        found = await self._read(lambda c: rows.rv_at(c, ts_us), look, 2**62)
        return found if found >= self._sealed_rv else await self._read(lambda c: found, look, found)

    def close(self) -> None:
        if self._closed:
            return
        if self._connection is not None:
            try:
                self._checkpoint("TRUNCATE")
            except sqlite3.Error as error:
                log.warning("cannot checkpoint the event log", path=str(self._path), error=str(error))
        self._closed = True
        self._drop_connection()
        for pool in (self._worker, self._reading):
            if pool is not None:
                pool.shutdown(wait=True, cancel_futures=True)
        while self._readers:
            self._readers.pop().close()
        self._release()
