"""A log at one of its revisions, as a store that only moves forward and takes no writes: what an API server of the past reads.

store = PastStore(LogReader(file), 812)
store.advance(830)         # listeners see the events 813 to 830
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import anyio
import attrs

from kcp.base.clock import SystemClock, moment
from kcp.store.feed import Feed
from kcp.store.head import Objects
from kcp.store.log import page
from kcp.store.protocol import (
    Committed,
    Decision,
    Event,
    FutureRevision,
    Input,
    Key,
    KindRow,
    Listener,
    Op,
    Operation,
    Record,
    Unavailable,
)
from kcp.store.reader import LogReader

Outcomes = list[Committed | Exception]
CLOSED = "this is the past: a recorded log cannot be written to"


@attrs.define
class PastClock:
    """Shows a moment of the log, so that ages are those of then; waiting takes real time."""

    now_us: int
    _real: SystemClock = attrs.field(factory=SystemClock)

    def now(self) -> datetime:
        return moment(self.now_us)

    def monotonic(self) -> float:
        return self._real.monotonic()


class PastStore:
    """The Store of one revision; `advance` publishes what follows. Its `rv` never falls: for that one makes another."""

    epoch = 0

    def __init__(self, reader: LogReader, rv: int) -> None:
        self._reader = reader
        self._feed = Feed()
        self._objects = Objects()
        self._rv = max(min(rv, reader.last_rv), reader.base_rv)
        for row in reader.kinds:
            self._objects.load(reader.list_at(row.resource, self._rv))

    @property
    def rv(self) -> int:
        return self._rv

    @property
    def horizon(self) -> int:
        """The whole file can be read."""
        return self._reader.base_rv

    @property
    def cluster_uid(self) -> str:
        return self._reader.cluster_uid

    def advance(self, rv: int) -> None:
        """Publish every event up to `rv`; what lies behind is no news."""
        rv = min(rv, self._reader.last_rv)
        events = list(self._reader.events(self._rv, rv)) if rv > self._rv else []
        for event in events:
            if event.op is Op.DELETED:
                self._objects.remove(event.key)
            else:
                self._objects.put(event.record)
        self._rv = max(rv, self._rv)
        if events:
            self._feed.publish(events)

    def get(self, key: Key) -> Record | None:
        return self._objects.get(key)

    def list(self, resource: str, namespace: str | None = None) -> Sequence[Record]:
        return self._objects.list(resource, namespace)

    async def get_at(self, key: Key, rv: int) -> Record | None:
        self._check_reached(rv)
        return self.get(key) if rv == self._rv else self._reader.get_at(key, rv)

    async def list_at(
        self,
        resource: str,
        rv: int,
        namespace: str | None = None,
        after: tuple[str, str] | None = None,
        limit: int | None = None,
    ) -> Sequence[Record]:
        self._check_reached(rv)
        here = rv == self._rv
        found = self.list(resource, namespace) if here else self._reader.list_at(resource, rv, namespace)
        return page(found, after, limit)

    async def events_since(
        self, rv: int, *, until: int | None = None, resources: Sequence[str] | None = None, limit: int = 1000
    ) -> Sequence[Event]:
        found: list[Event] = []
        last = self._rv if until is None else min(until, self._rv)
        if rv < last and limit > 0:
            for event in self._reader.events(rv, last, resources):
                found.append(event)
                if len(found) == limit:
                    break
        return found

    def listen(self, listener: Listener) -> Callable[[], None]:
        return self._feed.listen(listener)

    async def wait_for(self, rv: int, timeout_s: float = 3.0) -> None:
        """Nobody but the reader of the past moves it: what is not reached now is not reached in time."""
        del timeout_s
        self._check_reached(rv)

    def _check_reached(self, rv: int) -> None:
        if rv > self._rv:
            raise FutureRevision(rv, self._rv)

    async def append(self, operation: Operation) -> Committed:
        del operation
        raise Unavailable(CLOSED)

    async def append_all(self, operations: Sequence[Operation], *, atomic: bool = False) -> Outcomes:
        del atomic
        return [Unavailable(CLOSED) for _ in operations]

    def register(self, kinds: Sequence[KindRow]) -> None:
        """Kinds that the log does not have have no objects in it."""

    async def catch_up(self) -> None: ...

    def next_decision_id(self) -> int:
        raise Unavailable(CLOSED)

    def record(self, entry: Decision | Input) -> None:
        """Nothing is written down about looking at the past."""

    async def move_horizon(self, rv: int) -> None: ...

    def lease_epoch(self, key: Key) -> tuple[int, int] | None:
        """Nobody can hold a lease of the past."""
        del key
        return None

    async def run(self) -> None:
        await anyio.sleep_forever()

    async def close(self) -> None: ...
