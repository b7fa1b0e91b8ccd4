"""The seam between the event log and an engine: what a batch holds, what a driver must do with it.

The log decides (staged head, revisions, outcomes), a driver makes it durable and reads history. Only differences
between engines live in drivers.

An engine that several processes share (PostgreSQL) finds out under its own lock that others wrote meanwhile. It then
hands `Behind(tail)` to `done`; the writer publishes the tail and runs the same operations again on the newer head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import attrs

from kcp.base.values import frozen
from kcp.store.leases import LeaseRow
from kcp.store.protocol import Decision, Event, Input, KindRow, Record


@frozen
class Staged:
    """An event with what its row needs beyond it.

    `prev_rv` is the event row before it in its incarnation (0: none). `body` is the normal form without
    resourceVersion; None for a removal, except that of a Lease.
    """

    event: Event
    prev_rv: int
    body: bytes | None


FactRow = tuple[Any, ...]
"""Values in the order of the table's columns: oid, rv, then the facts."""


@frozen
class Batch:
    """One transaction. `base_rv` is the head it was staged on, `rv` the head after it.

    `leases` holds the final state of each Lease the batch touched, None for a removed one. `facts` maps a table of
    `tables.FACTS` to its new rows. `horizon` is the new one or None.
    """

    base_rv: int
    rv: int
    ts_us: int
    unlogged: int
    staged: Sequence[Staged]
    leases: Mapping[int, LeaseRow | None]
    ticks: Sequence[tuple[int, int]] = ()
    facts: Mapping[str, Sequence[FactRow]] = attrs.field(factory=dict)
    decisions: Sequence[tuple[int, Decision]] = ()
    inputs: Sequence[tuple[int, int, Input]] = ()
    horizon: int | None = None
    size_bytes: int = 0


@frozen
class Snapshot:
    """The state at start. `records` come ordered by kind, namespace, name; `input_seq` is the last used at `rv`."""

    rv: int
    ts_us: int
    epoch: int
    horizon: int
    cluster_uid: str
    kinds: Sequence[KindRow]
    records: Iterable[Record]
    leases: Sequence[LeaseRow]
    input_seq: int = 0


class Behind(Exception):
    """Raised when the engine holds changes that this process has not published: `tail` has them, nothing was written.

    `whole`: the tail reaches to the end of the log as it was when it was read.
    """

    def __init__(self, tail: Batch, *, whole: bool = True) -> None:
        super().__init__(f"the log is at {tail.rv}, this writer at {tail.base_rv}")
        self.tail, self.whole = tail, whole


class Superseded(Exception):
    """Raised when a batch was handed over on top of one that failed: nothing was written of it."""


Done = Callable[[BaseException | None], None]
"""Called once on the loop's thread: None = durable, Behind, or the reason why nothing was written."""


class Driver(Protocol):
    shared: bool
    """Whether other processes may write to the same log; then `catch_up` and `news` are used."""

    def load(self) -> Snapshot: ...

    def register(self, kinds: Sequence[KindRow]) -> None:
        """Written at the latest with the next batch."""
        ...

    def commit(self, batch: Batch, done: Done) -> None:
        """Make the batch durable, whole or not at all, then call `done`, maybe before returning.

        At most `depth` are on their way at once, each staged on the one before; `done` is called in their order. When one
        fails, those on top of it fail too, with `Superseded` if surely nothing was written of them. After a failure the
        driver recovers by itself at the next call.
        """
        ...

    @property
    def depth(self) -> int:
        """How many batches may be on their way, now: at least one. Nothing else is asked of the driver meanwhile."""
        ...

    def idle(self, done: Done) -> bool:
        """Do housekeeping if there is any and then call `done`; False: there was none, `done` is not called."""
        ...

    def chore(self, work: Callable[[Any], None], done: Done) -> None:
        """Run one short transaction on what the driver writes through, then call `done`; StoreError where it has none."""
        ...

    @property
    def epoch(self) -> int: ...

    @property
    def life(self) -> int:
        """A number that no other start of a daemon on this log has."""
        ...

    @property
    def ahead_us(self) -> int:
        """How far the engine's clock is ahead of the daemon's."""
        ...

    def catch_up(self, base_rv: int, done: Done, *, decided: bool = False) -> None:
        """Call `done`: None when nothing lies beyond `base_rv`, Behind with what does, or the reason why nobody knows.

        `decided`: operations were decided on `base_rv` and will be again; a log that keeps moving may be held still.
        """
        ...

    async def news(self, timeout_s: float) -> int:
        """Wait until another process may have written: the revision heard of, or 0 when the time is up."""
        ...

    async def get_at(self, resource: str, namespace: str, name: str, rv: int) -> Record | None: ...

    async def list_at(
        self,
        resource: str,
        rv: int,
        namespace: str | None,
        after: tuple[str, str] | None,
        limit: int | None,
    ) -> Sequence[Record]: ...

    async def events_since(
        self, rv: int, until: int, resources: Sequence[str] | None, limit: int
    ) -> Sequence[Event]: ...

    async def rv_at(self, ts_us: int) -> int:
        """The newest revision whose time is not after `ts_us`."""
        ...

    def close(self) -> None: ...
