"""A log that fails, and a log that several daemons share, for simulations.

`FaultyDriver` stands before any driver: commits that take long, batches that fail as a whole. `Daemon` is one daemon's
driver on a log in memory that others write to as well, as on PostgreSQL: whoever decided on an old head is handed what
the others wrote (`Behind`), news of them may be late, and a batch may be stored although it was reported as failed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import anyio
import attrs

from kcp.replay.faults import SIMULATED, Faults
from kcp.store.driver import Batch, Behind, Done, Driver, Snapshot
from kcp.store.memory import MemoryDriver
from kcp.store.protocol import Event, KindRow, Record, StoreError, Unavailable

SLOW_COMMIT_S = 2.0
LATE_NEWS_S = 15.0
Later = Callable[[float, Callable[[], None]], None]
"""Do something after so many seconds, or at once when the simulation ends."""


@attrs.define
class FaultyDriver:
    """Everything but `commit` goes straight through. `name` is the component of its faults."""

    inner: Driver
    faults: Faults
    later: Later
    name: str = "store"

    shared: bool = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.shared = self.inner.shared

    def commit(self, batch: Batch, done: Done) -> None:
        if self.faults.draw("store-fail", self.name, "") is not None:
            done(Unavailable(f"{SIMULATED} the disk is full"))
            return
        slow = self.faults.draw("store-slow", self.name, "")
        if slow is None:
            self.inner.commit(batch, done)
        else:
            self.later(slow * SLOW_COMMIT_S, lambda: self.inner.commit(batch, done))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@attrs.define
class SharedLog:
    """What the daemons have in common: the log, and who wants to hear of news."""

    memory: MemoryDriver
    batches: list[Batch] = attrs.field(factory=list)
    """In the order of their revisions."""
    rv: int = 0
    records: set[tuple[int, ...]] = attrs.field(factory=set)
    """The decisions and inputs that are there: after an unknown outcome they are given again."""
    written: anyio.Event = attrs.field(factory=anyio.Event)

    def write(self, batch: Batch) -> None:
        decisions = [row for row in batch.decisions if self._is_new((row[1].id,))]
        inputs = [row for row in batch.inputs if self._is_new((row[0], row[1]))]
        self.memory.commit(attrs.evolve(batch, decisions=decisions, inputs=inputs), lambda error: None)
        if batch.rv > batch.base_rv or batch.horizon is not None:
            self.batches.append(batch)
        self.rv = batch.rv
        self.written.set()
        self.written = anyio.Event()

    def _is_new(self, identity: tuple[int, ...]) -> bool:
        if identity in self.records:
            return False
        self.records.add(identity)
        return True

    def tail(self, base_rv: int) -> Batch | None:
        """All that was written since, as one batch."""
        news = self.batches[bisect_right(self.batches, base_rv, key=attrgetter("rv")) :]
        if not news:
            return None
        return Batch(
            base_rv=base_rv,
            rv=news[-1].rv,
            ts_us=news[-1].ts_us,
            unlogged=sum(batch.unlogged for batch in news),
            staged=[staged for batch in news for staged in batch.staged],
            leases={oid: lease for batch in news for oid, lease in batch.leases.items()},
            ticks=[tick for batch in news for tick in batch.ticks],
            horizon=max((batch.horizon for batch in news if batch.horizon is not None), default=None),
        )


@attrs.define
class Daemon:
    """The driver of the daemon with this number on a shared log."""

    log: SharedLog
    number: int
    faults: Faults
    shared: bool = True
    ahead_us: int = 0
    depth: int = 1

    @property
    def name(self) -> str:
        return f"store-{self.number}"

    @property
    def epoch(self) -> int:
        return self.log.memory.epoch

    @property
    def life(self) -> int:
        return self.number

    def load(self) -> Snapshot:
        return self.log.memory.load()

    def register(self, kinds: Sequence[KindRow]) -> None:
        self.log.memory.register(kinds)

    def commit(self, batch: Batch, done: Done) -> None:
        tail = self.log.tail(batch.base_rv)
        if tail is not None:
            done(Behind(tail))
            return
        self.log.write(batch)
        if self.faults.draw("store-unknown", self.name, "") is not None:
            done(Unavailable(f"{SIMULATED} the connection was lost; the outcome is unknown"))
        else:
            done(None)

    def catch_up(self, base_rv: int, done: Done, *, decided: bool = False) -> None:
        del decided
        tail = self.log.tail(base_rv)
        done(Behind(tail) if tail is not None else None)

    async def news(self, timeout_s: float) -> int:
        """The others are heard of at once, unless this daemon is one of those that lag."""
        with anyio.move_on_after(timeout_s):
            await self.log.written.wait()
        late = self.faults.draw("stale", self.name, "")
        if late is not None:
            await anyio.sleep(late * LATE_NEWS_S)
        return self.log.rv

    def chore(self, work: Callable[[Any], None], done: Done) -> None:
        del work
        done(StoreError("a log in memory is not sealed"))

    def idle(self, done: Done) -> bool:
        del done
        return False

    async def get_at(self, resource: str, namespace: str, name: str, rv: int) -> Record | None:
        return await self.log.memory.get_at(resource, namespace, name, rv)

    async def list_at(
        self, resource: str, rv: int, namespace: str | None, after: tuple[str, str] | None, limit: int | None
    ) -> Sequence[Record]:
        return await self.log.memory.list_at(resource, rv, namespace, after, limit)

    async def events_since(
        self, rv: int, until: int, resources: Sequence[str] | None, limit: int
    ) -> Sequence[Event]:
        return await self.log.memory.events_since(rv, until, resources, limit)

    async def rv_at(self, ts_us: int) -> int:
        return await self.log.memory.rv_at(ts_us)

    def close(self) -> None: ...
