"""EventLog: the Store over a driver. Reads answer from the published head, writes go through the single writer."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import anyio
import anyio.lowlevel

from kcp.base.clock import Clock
from kcp.base.interpreter import collection_put_off
from kcp.store import horizon, ttl
from kcp.store.driver import Batch, Driver
from kcp.store.feed import Feed
from kcp.store.head import Published
from kcp.store.protocol import (
    Committed,
    Decision,
    Event,
    FutureRevision,
    Input,
    Key,
    KindRow,
    Listener,
    Operation,
    Projection,
    Record,
    Unavailable,
)
from kcp.store.writer import Writer

DECISIONS_PER_LIFE = 10**12
POLL_S = 1.0
CLOSE_DEADLINE_S = 30.0
"""How long a stop waits for the disk."""


class EventLog:
    """One event log on one engine. `async with` closes it; `run` is its housekeeping.

    Appending works without `run`; then the horizon stands still and nothing expires.
    """

    def __init__(
        self,
        driver: Driver,
        clock: Clock,
        *,
        projections: Sequence[Projection] = (),
        api_history_s: float = horizon.PERIOD_S,
        read_only: bool = False,
    ) -> None:
        with collection_put_off():
            snapshot = driver.load()
            self._published = Published(snapshot)
        self._driver = driver
        self._clock = clock
        self._api_history_s = api_history_s
        self._feed = Feed()
        self._writer = Writer(driver, self._published, clock, self._publish, projections, snapshot.input_seq)
        self._writer.closing = read_only
        self._waiters: list[tuple[int, int, anyio.Event]] = []
        self._waits = 0
        self._decisions = 0
        self._closed = False

    @property
    def rv(self) -> int:
        return self._published.rv

    @property
    def horizon(self) -> int:
        return self._published.horizon

    @property
    def epoch(self) -> int:
        return self._driver.epoch

    @property
    def cluster_uid(self) -> str:
        return self._published.cluster_uid

    @property
    def kinds(self) -> list[KindRow]:
        """The registered resources, those of earlier lives included."""
        return list(self._published.kinds.values())

    def register(self, kinds: Sequence[KindRow]) -> None:
        news = [row for row in kinds if self._published.kinds.get(row.resource) != row]
        if news:
            self._published.kinds.update((row.resource, row) for row in news)
            self._driver.register(news)

    async def append(self, operation: Operation) -> Committed:
        outcome = (await self._writer.submit((operation,)))[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def append_all(
        self, operations: Sequence[Operation], *, atomic: bool = False
    ) -> list[Committed | Exception]:
        if not operations:
            return []
        return await self._writer.submit(tuple(operations), atomic=atomic)

    def get(self, key: Key) -> Record | None:
        return self._published.objects.get(key)

    def list(self, resource: str, namespace: str | None = None) -> Sequence[Record]:
        return self._published.objects.list(resource, namespace)

    async def get_at(self, key: Key, rv: int) -> Record | None:
        self._check_reached(rv)
        if rv == self.rv:
            return self.get(key)
        return await self._driver.get_at(key.resource, key.namespace, key.name, rv)

    async def list_at(
        self,
        resource: str,
        rv: int,
        namespace: str | None = None,
        after: tuple[str, str] | None = None,
        limit: int | None = None,
    ) -> Sequence[Record]:
        self._check_reached(rv)
        if rv == self.rv:
            return page(self.list(resource, namespace), after, limit)
        return await self._driver.list_at(resource, rv, namespace, after, limit)

    async def events_since(
        self, rv: int, *, until: int | None = None, resources: Sequence[str] | None = None, limit: int = 1000
    ) -> Sequence[Event]:
        """Fewer than `limit` events: all up to `until` (default: the revision published when called) were given."""
        until = self.rv if until is None else min(until, self.rv)
        if rv >= until or limit <= 0:
            return ()
        return await self._driver.events_since(rv, until, resources, limit)

    async def rv_at(self, ts_us: int) -> int:
        """The newest published revision whose time is not after `ts_us`; 0 before the first."""
        return min(await self._driver.rv_at(ts_us), self.rv)

    def listen(self, listener: Listener) -> Callable[[], None]:
        return self._feed.listen(listener)

    async def wait_for(self, rv: int, timeout_s: float = 3.0) -> None:
        if rv <= self.rv:
            return
        reached = anyio.Event()
        self._waits += 1
        waiter = (rv, self._waits, reached)
        heapq.heappush(self._waiters, waiter)
        try:
            with anyio.move_on_after(timeout_s):
                await reached.wait()
        finally:
            if not reached.is_set():
                self._waiters.remove(waiter)
                heapq.heapify(self._waiters)
        if rv > self.rv:
            raise FutureRevision(rv, self.rv)

    def next_decision_id(self) -> int:
        """The number of this start × 10¹² + a counter: unique over restarts without a write."""
        self._decisions += 1
        return self._driver.life * DECISIONS_PER_LIFE + self._decisions

    def record(self, entry: Decision | Input) -> None:
        self._writer.record(entry)

    async def move_horizon(self, rv: int) -> None:
        """Never moves back, never beyond the published revision."""
        if self.horizon < rv:
            await self._writer.submit((), horizon=min(rv, self.rv))

    async def chore(self, step: Callable[[Any], Any]) -> Any:
        """A short transaction of housekeeping (`sealing.Step`) between two batches; on SQLite only."""
        return await self._writer.chore(step)

    def lease_epoch(self, key: Key) -> tuple[int, int] | None:
        lease = self._published.lease_of(key)
        return None if lease is None else (lease.oid, lease.epoch)

    async def catch_up(self) -> None:
        """Return once everything durable when called, by whichever daemon, is published. Raises Unavailable."""
        await self._writer.catch_up()

    async def _follow(self) -> None:
        """Publish what other daemons write: when they say so, and every POLL_S in case nobody does."""
        while True:
            heard = await self._driver.news(POLL_S)
            if heard and heard <= self.rv:
                continue
            with contextlib.suppress(Unavailable):
                await self._writer.catch_up()

    async def run(self) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                if self._driver.shared:
                    tasks.start_soon(self._follow)
                if self._api_history_s > 0:
                    tasks.start_soon(horizon.keep_moving, self, self._api_history_s)
                tasks.start_soon(ttl.sweep, self, self._clock, self._published.expired)
        finally:
            with anyio.CancelScope(shield=True):
                await self.close()

    async def close(self) -> None:
        """Commit what is queued, then let go of the engine. Later appends raise Unavailable."""
        if self._closed:
            return
        self._closed = True
        with anyio.move_on_after(CLOSE_DEADLINE_S):
            await self._writer.drain()
        self._driver.close()
        await anyio.lowlevel.checkpoint()  # the loop lets go of sockets in its next turn

    async def __aenter__(self) -> EventLog:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self.close()

    def _publish(self, batch: Batch) -> None:
        self._published.publish(batch)
        if batch.staged:
            self._feed.publish([staged.event for staged in batch.staged])
        while self._waiters and self._waiters[0][0] <= batch.rv:
            heapq.heappop(self._waiters)[2].set()

    def _check_reached(self, rv: int) -> None:
        if rv > self.rv:
            raise FutureRevision(rv, self.rv)


def page(records: Sequence[Record], after: tuple[str, str] | None, limit: int | None) -> Sequence[Record]:
    """The next `limit` of ordered records, strictly after a (namespace, name)."""
    if after is not None:
        start = _first_after(records, after)
        records = records[start:]
    return records if limit is None else records[:limit]


def _first_after(records: Sequence[Record], after: tuple[str, str]) -> int:
    low, high = 0, len(records)
    while low < high:
        middle = (low + high) // 2
        key = records[middle].key
        if (key.namespace, key.name) > after:
            high = middle
        else:
            low = middle + 1
    return low
