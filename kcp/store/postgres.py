"""The event log on PostgreSQL: one function call per batch under the lock of the head row, several daemons on one log.

Every daemon keeps the full head in memory. A batch is staged on a head and written only if the log still is there;
otherwise the driver reads what others wrote (`Behind`) and the writer decides the same operations again. From the second
loss in a row on it keeps the lock while the writer decides, so that a busy neighbour cannot starve it.

What others write is heard by LISTEN, or a second later by looking. Connections are made on the loop that needs them;
opening reads everything in a loop of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.from_thread
import asyncpg
import orjson
import structlog

from kcp.base.clock import Clock, SystemClock, microseconds
from kcp.base.entropy import Entropy
from kcp.store import leases
from kcp.store import postgres_rows as rows
from kcp.store import postgres_schema as ddl
from kcp.store.driver import Batch, Behind, Done, Snapshot, Staged, Superseded
from kcp.store.leases import LeaseRow
from kcp.store.postgres_lane import LOST, Job, Lane, Unknown, Work
from kcp.store.protocol import Event, KindRow, Record, StoreError, Unavailable

if TYPE_CHECKING:
    from kcp.store.postgres_reader import PostgresReader

log = structlog.get_logger(__name__)

T = TypeVar("T")

READERS = 4
TAIL_EVENTS = 1000
ACTORS_KEPT = 20_000
COMMIT_TIMEOUT_S = 30.0
READ_TIMEOUT_S = 30.0
LANES = 2
"""So many batches may be on their way, each on a connection of its own: the database reads one while it writes another."""
LOAD_WORK_MEM = "256MB"
"""So that the join of all live objects at the start needs no temporary files."""
FIRST_ANALYZE_RV = 200
CLOCK_SAMPLE_S = 10.0


async def _append(connection: asyncpg.Connection, arguments: tuple[Any, ...]) -> tuple[int, int, int]:
    """(the head that was found, what new actors are numbered from, the database's clock)."""
    found = await connection.fetchrow(rows.APPEND, *arguments, timeout=COMMIT_TIMEOUT_S)
    return tuple(found)


def in_a_loop_of_its_own(work: Callable[[], Awaitable[T]]) -> T:
    """Run it to its end, whether or not this thread has a loop."""
    with anyio.from_thread.start_blocking_portal() as portal:
        return portal.call(work)


class PostgresDriver:
    """One daemon's view of a shared log. `life` numbers its starts, `epoch` the generations of the log itself."""

    shared = True

    def __init__(self, url: str, clock: Clock, *, entropy: Entropy, read_only: bool = False) -> None:
        self._url = url
        self._clock = clock
        self._entropy = entropy
        self._read_only = read_only
        self._epoch = 0
        self._life = 0
        self._kind_ids: dict[str, int] = {}
        self._resources: dict[int, str] = {}
        self._new_kinds: dict[str, KindRow] = {}
        self._interned = rows.Actors(ACTORS_KEPT)
        self._lanes = [Lane(self._connect, COMMIT_TIMEOUT_S) for _ in range(LANES)]
        self._newest: Job | None = None
        self._losses = 0
        self._pool: asyncpg.Pool | None = None
        self._listening: asyncpg.Connection | None = None
        self._heard_rv = 0
        self._news = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening = asyncio.Lock()
        self._telling: Lane | None = None
        self._analyzed_rv = 0
        self._ahead_us = 0
        self._sampled_s = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def life(self) -> int:
        return self._life

    @property
    def ahead_us(self) -> int:
        """How far the database's clock is ahead of the machine's; a clock that is not the machine's is left alone."""
        return self._ahead_us

    @property
    def depth(self) -> int:
        """One while others win, since what stands on a batch that is decided again was sent for nothing; and one while
        kinds have no number yet.
        """
        return 1 if self._losses or self._new_kinds else LANES

    def load(self) -> Snapshot:
        """Upgrade the schema if need be, then read every live object, as text."""
        try:
            return in_a_loop_of_its_own(self._load)
        except (*LOST, asyncpg.PostgresError) as error:
            raise StoreError(f"cannot open {ddl.shown(self._url)}: {ddl.words(error)}") from error

    async def _load(self) -> Snapshot:
        if not self._read_only:
            await ddl.prepare(self._url, self._entropy)
        connection = await self._connect()
        try:
            await ddl.check(connection, ddl.shown(self._url))
            if not self._read_only:
                self._life = await connection.fetchval("SELECT nextval('kcp_life')")
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                await connection.execute(f"SET LOCAL work_mem = '{LOAD_WORK_MEM}'")
                return await self._read_snapshot(connection)
        finally:
            await connection.close()

    async def _read_snapshot(self, connection: asyncpg.Connection) -> Snapshot:
        found = await connection.fetchrow(
            "SELECT rv, ts_us, epoch, horizon_rv, cluster_uid, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
            " FROM head WHERE id = 1"
        )
        if found is None:
            raise StoreError(f"{ddl.shown(self._url)} is damaged: the head row is missing")
        rv, ts_us, self._epoch, horizon, cluster_uid, now_us = found
        self._set_clock(now_us)
        kinds = await self._load_kinds(connection)
        live = {row[0]: rows.lease_row(row) for row in await connection.fetch(rows.LEASES)}
        records = rows.live_records(await connection.fetch(rows.RECORDS), self._resources, live)
        newest = await connection.fetchval("SELECT coalesce(max(rv), 0) FROM events")
        if newest > rv:
            raise StoreError(
                f"{ddl.shown(self._url)} is damaged: it holds revision {newest} beyond its head {rv}"
            )
        self._analyzed_rv = rv
        return Snapshot(rv, ts_us, self._epoch, horizon, cluster_uid, kinds, records, list(live.values()))

    async def _load_kinds(self, connection: asyncpg.Connection) -> list[KindRow]:
        kinds = []
        for row in await connection.fetch(rows.KINDS):
            kind = rows.kind_row(row)
            kinds.append(kind)
            self._kind_ids[kind.resource] = row[0]
            self._resources[row[0]] = kind.resource
        return kinds

    def _set_clock(self, now_us: int) -> None:
        if isinstance(self._clock, SystemClock):
            self._ahead_us = now_us - microseconds(self._clock.now())
            self._sampled_s = self._clock.monotonic()

    async def _connect(self, **settings: Any) -> asyncpg.Connection:
        return await asyncpg.connect(
            self._url, timeout=ddl.CONNECT_TIMEOUT_S, server_settings=ddl.options(settings)
        )

    def register(self, kinds: Sequence[KindRow]) -> None:
        self._new_kinds.update((row.resource, row) for row in kinds)

    def commit(self, batch: Batch, done: Done) -> None:
        self._start(lambda lane, job: self._write(lane, job, batch), done, batch)

    def catch_up(self, base_rv: int, done: Done, *, decided: bool = False) -> None:
        self._start(lambda lane, _: self._look(lane, base_rv, decided), done)

    def _start(self, work: Work, done: Done, batch: Batch | None = None) -> None:
        """In the task that hands over the last answer, if there is one: then the server gets it in this turn of the loop."""
        self._loop = asyncio.get_running_loop()
        below = self._newest
        if below is not None and below.settled.is_set():
            below = None
        job = self._newest = Job(work, done, batch, below)
        lane = self._telling
        if lane is not None and lane.next is None:
            lane.next = job
            return
        lane = min(self._lanes, key=lambda lane: lane.tasks)
        lane.tasks += 1
        task = self._loop.create_task(self._serve(lane, job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, lane: Lane, first: Job) -> None:
        try:
            async with lane.working:
                job: Job | None = first
                while job is not None:
                    job = await self._do(lane, job)
                await lane.let_go()
        finally:
            lane.tasks -= 1

    async def _do(self, lane: Lane, job: Job) -> Job | None:
        """Returns what came of handing over the answer."""
        error = await self._attempt(lane, job)
        job.settle(error)
        lane.next, self._telling = None, lane
        try:
            job.done(error)
        finally:
            self._telling = None
        if self._newest is job:
            self._newest = None
        return lane.next

    async def _attempt(self, lane: Lane, job: Job) -> BaseException | None:
        error = await self._work(lane, job)
        if await job.fate_below() is None or isinstance(error, Unknown):
            return error
        if error is None:
            return Unknown(f"{ddl.shown(self._url)} has the change, and may have the one before it")
        return Superseded()

    async def _work(self, lane: Lane, job: Job) -> BaseException | None:
        try:
            if self._read_only or self._closed:
                raise Unavailable(f"{ddl.shown(self._url)} is open read-only")
            await self._reach(lane)
            await job.work(lane, job)
        except (Behind, Superseded, StoreError) as error:
            return error
        except LOST as error:
            await lane.drop()
            return await self._after_loss(lane, job, error)
        except asyncpg.PostgresError as error:
            await lane.let_go()
            return self._refused(error)
        except Exception as error:  # noqa: BLE001 whatever it is, the batch failed and everyone must hear of it
            await lane.drop()
            return Unknown(f"cannot write to {ddl.shown(self._url)}: {error}")
        return None

    def _refused(self, error: asyncpg.PostgresError) -> Unavailable:
        if error.sqlstate == ddl.STALE_EPOCH:
            return Unavailable(f"{ddl.shown(self._url)} was restored meanwhile: start kcp again ({error})")
        return Unavailable(f"cannot write to {ddl.shown(self._url)}: {ddl.words(error)}")

    async def _reach(self, lane: Lane) -> None:
        """Raises Unavailable when there is no connection: then surely nothing was written."""
        try:
            await lane.connection()
        except (*LOST, asyncpg.PostgresError) as error:
            raise Unavailable(f"cannot reach {ddl.shown(self._url)}: {ddl.words(error)}") from error

    async def _write(self, lane: Lane, job: Job, batch: Batch) -> None:
        connection = await lane.connection()
        if self._new_kinds:
            await self._register(connection)
        actors = self._interned.numbering()
        arguments = rows.append_arguments(batch, self._kind_ids, actors, self._epoch)
        await self._hold_if_losing(lane)
        head_rv, actor_base, now_us = await _append(connection, arguments)
        if head_rv < batch.base_rv and job.below is not None:
            if await job.fate_below() is not None:
                raise Superseded
            # It had overtaken the one below, which is there now.
            head_rv, actor_base, now_us = await _append(connection, arguments)
        if head_rv != batch.base_rv:
            self._losses += 1
            await self._behind(connection, batch.base_rv, head_rv)
        await lane.commit_held()
        self._losses = 0
        self._interned.keep(actors, actor_base)
        if self._clock.monotonic() - self._sampled_s > CLOCK_SAMPLE_S:
            self._set_clock(now_us)
        if batch.rv >= max(FIRST_ANALYZE_RV, self._analyzed_rv * 10):
            self._analyzed_rv = batch.rv
            await self._analyze(lane)

    async def _analyze(self, lane: Lane) -> None:
        """Plans made while the tables were small would scan. Its failure is not the batch's, which is committed."""
        try:
            connection = await lane.connection()
            await connection.execute("ANALYZE objects, leases, events", timeout=COMMIT_TIMEOUT_S)
        except (*LOST, asyncpg.PostgresError) as error:
            log.warning("cannot analyze the event log", error=ddl.words(error))
            if isinstance(error, LOST):
                await lane.drop()

    async def _hold_if_losing(self, lane: Lane) -> None:
        """Open the transaction in which the lock of the head row outlives a loss."""
        if self._losses > 1:
            await lane.hold()

    async def _look(self, lane: Lane, base_rv: int, decided: bool) -> None:
        connection = await lane.connection()
        if decided:
            await self._hold_if_losing(lane)
        lock = " FOR UPDATE" if lane.holding else ""
        head_rv = await connection.fetchval(f"SELECT rv FROM head WHERE id = 1{lock}", timeout=READ_TIMEOUT_S)
        if head_rv != base_rv:
            self._losses += decided
            await self._behind(connection, base_rv, head_rv)
        if decided:
            self._losses = 0
        await lane.let_go()

    async def _behind(self, connection: asyncpg.Connection, base_rv: int, head_rv: int) -> None:
        if head_rv < base_rv:
            raise Unavailable(
                f"{ddl.shown(self._url)} is at revision {head_rv} and was at {base_rv}: it lost changes, start kcp again"
            )
        tail, _ = await self._tail(connection, base_rv)
        raise Behind(tail, whole=len(tail.staged) < TAIL_EVENTS)

    async def _tail(
        self, connection: asyncpg.Connection, base_rv: int, limit: int = TAIL_EVENTS
    ) -> tuple[Batch, dict[int, LeaseRow]]:
        """What lies beyond `base_rv`, as a batch to publish, and all Leases."""
        found = await connection.fetch(rows.TAIL, base_rv, limit, timeout=READ_TIMEOUT_S)
        head_rv, ts_us, horizon, epoch = found[0][:4]
        if epoch != self._epoch:
            raise Unavailable(f"{ddl.shown(self._url)} was restored meanwhile: start kcp again")
        events = [tuple(row)[4:] for row in found if row[4] is not None]
        if any(row[11] not in self._resources for row in events):
            await self._load_kinds(connection)
        told = [rows.event(row, self._resources) for row in events]
        live: dict[int, LeaseRow] = {}
        touched: dict[int, LeaseRow | None] = {}
        if any(event.key.resource == leases.RESOURCE for event in told):
            live = {row[0]: rows.lease_row(row) for row in await connection.fetch(rows.LEASES)}
            touched = {
                e.record.oid: live.get(e.record.oid) for e in told if e.key.resource == leases.RESOURCE
            }
        if len(told) >= limit:
            head_rv, ts_us = told[-1].rv, told[-1].ts_us
        staged = [Staged(event, event.previous.rv if event.previous else 0, None) for event in told]
        return Batch(base_rv, head_rv, ts_us, 0, staged, touched, horizon=horizon), live

    async def _register(self, connection: asyncpg.Connection) -> None:
        news = dict(self._new_kinds)
        kinds = [
            {
                "kind_id": 0, "grp": row.group, "version": row.version, "kind": row.kind, "plural": row.plural,
                "namespaced": int(row.namespaced), "history_class": row.history_class,
            }
            for row in news.values()
        ]  # fmt: skip
        await connection.execute("SELECT kcp_register($1)", orjson.dumps(kinds).decode())
        await self._load_kinds(connection)
        self._new_kinds = {name: row for name, row in self._new_kinds.items() if news.get(name) != row}

    async def _after_loss(self, lane: Lane, job: Job, error: BaseException) -> BaseException | None:
        """The answer was lost: wait until the old connection's work is decided, then see whether the batch is there."""
        place = ddl.shown(self._url)
        lost = Unavailable(f"cannot reach {place}: {ddl.words(error)}")
        batch = job.batch
        if batch is None:
            return lost
        await job.fate_below()
        try:
            connection = await lane.connection()
            async with connection.transaction():
                await connection.execute("SELECT 1 FROM head WHERE id = 1 FOR UPDATE")
                limit = max(TAIL_EVENTS, 2 * len(batch.staged))
                tail, live = await self._tail(connection, batch.base_rv, limit)
        except Exception as again:  # noqa: BLE001 whatever it is, those who wait must hear of it
            await lane.drop()
            return Unknown(
                f"cannot reach {place}: {ddl.words(error)}; on a second look: {ddl.words(again)}; the outcome is unknown"
            )
        log.warning("event log reached again", place=place, rv=tail.rv)
        told = [staged.event for staged in tail.staged]
        return None if rows.stored_by_us(told, batch, live) else lost

    def chore(self, work: Callable[[Any], None], done: Done) -> None:
        del work
        done(StoreError("a log on PostgreSQL is sealed through a connection of its own"))

    def idle(self, done: Done) -> bool:
        del done
        return False

    async def news(self, timeout_s: float) -> int:
        """Wait for word from another daemon, or until the time has come to look; the revision heard of, 0 after a timeout."""
        self._loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._listen()
                await self._news.wait()
        self._news.clear()
        heard, self._heard_rv = self._heard_rv, 0
        return heard

    async def _listen(self) -> None:
        if self._closed or (self._listening is not None and not self._listening.is_closed()):
            return
        try:
            self._listening = await self._connect()
            await self._listening.add_listener(ddl.CHANNEL, self._hear)
        except (OSError, asyncpg.InterfaceError, asyncpg.PostgresError) as error:
            log.debug("cannot listen; looking every second instead", error=ddl.words(error))
            await asyncio.sleep(3600)

    def _hear(self, connection: Any, pid: int, channel: str, payload: str) -> None:
        del connection, pid, channel
        self._heard_rv = max(self._heard_rv, int(payload))
        self._news.set()

    async def _read(self, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        try:
            if self._closed:
                raise Unavailable(f"{ddl.shown(self._url)} is closed")
            pool = await self._opened()
            async with pool.acquire(timeout=READ_TIMEOUT_S) as connection:
                return await work(connection)
        except (*LOST, asyncpg.PostgresError) as error:
            raise Unavailable(f"cannot read {ddl.shown(self._url)}: {ddl.words(error)}") from error

    async def _opened(self) -> asyncpg.Pool:
        async with self._opening:
            if self._pool is None:
                self._loop = asyncio.get_running_loop()
                settings = {
                    "statement_timeout": f"{READ_TIMEOUT_S:g}s",
                    "default_transaction_read_only": "on",
                    "plan_cache_mode": "force_custom_plan",
                }
                self._pool = await asyncpg.create_pool(
                    self._url, min_size=0, max_size=READERS, timeout=ddl.CONNECT_TIMEOUT_S, server_settings=ddl.options(settings)
                )  # fmt: skip
            return self._pool

    async def get_at(self, resource: str, namespace: str, name: str, rv: int) -> Record | None:
        kind = self._kind_ids.get(resource)
        if kind is None:
            return None
        sql, arguments = rows.get_at(kind, resource, namespace, name, rv)
        row, sealed = await self._read_from(rv, lambda c: c.fetchrow(sql, *arguments, timeout=READ_TIMEOUT_S))
        if sealed:
            return await self._read_sealed(lambda r: r.get_at(kind, resource, namespace, name, rv))
        return None if row is None else rows.record(resource, row)

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
        sql, arguments = rows.list_at(kind, resource, rv, namespace, after, limit)
        found, sealed = await self._read_from(rv, lambda c: c.fetch(sql, *arguments, timeout=READ_TIMEOUT_S))
        if sealed:
            return await self._read_sealed(lambda r: r.list_at(kind, resource, rv, namespace, after, limit))
        return [rows.record(resource, row) for row in found]

    async def events_since(
        self, rv: int, until: int, resources: Sequence[str] | None, limit: int
    ) -> Sequence[Event]:
        kinds = None
        if resources is not None:
            kinds = [self._kind_ids[resource] for resource in resources if resource in self._kind_ids]
        sql, arguments = rows.events_since(rv, until, kinds, limit if limit >= 0 else None)
        found, sealed = await self._read_from(rv, lambda c: c.fetch(sql, *arguments, timeout=READ_TIMEOUT_S))
        if sealed:
            names = dict(self._resources)
            return await self._read_sealed(lambda r: r.events_since(names, rv, until, kinds, limit))
        return [rows.event(row, self._resources) for row in found]

    async def rv_at(self, ts_us: int) -> int:
        found: int = await self._read(lambda c: c.fetchval(rows.RV_AT, ts_us)) or 0
        _, sealed = await self._read_from(found, lambda c: c.fetchval("SELECT 1"))
        return await self._read_sealed(lambda r: r.rv_at(ts_us)) if sealed else found

    async def _read_from(self, rv: int, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> tuple[T, bool]:
        """What `work` found, and whether events after `rv` are sealed by now, so that it may not be all."""

        async def both(connection: asyncpg.Connection) -> tuple[T, bool]:
            found = await work(connection)
            sealed = await connection.fetchval("SELECT sealed_rv FROM head WHERE id = 1")
            return found, rv < sealed

        return await self._read(both)

    async def _read_sealed(self, work: Callable[[PostgresReader], T]) -> T:
        """Below the API's horizon, so rare: each such read opens the files anew, in a thread."""
        from kcp.store.postgres_reader import PostgresReader

        def read() -> T:
            with PostgresReader(self._url) as reader:
                return work(reader)

        return await asyncio.get_running_loop().run_in_executor(None, read)

    def close(self) -> None:
        """Let go of the database at once; what was acknowledged is there."""
        if self._closed:
            return
        self._closed = True
        opened: Iterable[Any] = (*self._lanes, self._listening, self._pool)
        if self._loop is None or self._loop.is_closed():
            return
        for thing in opened:
            if thing is not None:
                thing.terminate()
