"""The event log: every change of every object is one event, one revision, one row.

What a store promises (tests/contracts/test_store.py runs it on every implementation):

- Revisions come in commit order from one sequence, starting at 1, without holes. N visible means all below N
  are visible. Every revision is exactly one change; all but renewals of Leases have an event row.
- An answer goes out, and readers and watchers see a change, only when it is durable.
- A failed operation fails alone; a failed batch leaves nothing and burns no revision.

A worked example, one ConfigMap (`oid` is the revision that created an incarnation):

    rv 7   ADDED     oid 7   body A      head: a -> rv 7
    rv 9   MODIFIED  oid 7   body B      head: a -> rv 9
    rv 12  DELETED   oid 7   no body     head: -            watchers see DELETED with body B at rv 12
    rv 15  ADDED     oid 15  body C      head: a -> rv 15
    get_at(a, 8) = A · get_at(a, 11) = B · get_at(a, 13) = None · events_since(8) = [9, 12, 15]

Writes are closures (`Change`) that run inside the single writer: current object in, new object or error out. So a
guaranteed update, server-side apply, a quota or an address allocation needs no conflict loop. A closure is pure
and short; it may be run again on a newer object.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, Literal, Protocol

from kcp.base.values import frozen
from kcp.machinery.document import Document, Json

MAX_BODY_BYTES = 1_572_864
"""etcd's request limit, 1.5 MiB: a larger object is refused with `etcdserver: request is too large`."""

HistoryClass = Literal["full", "sampled", "latest"]


class Op(IntEnum):
    ADDED = 0
    MODIFIED = 1
    DELETED = 2
    RENEWED = 3
    """A renewal of a Lease: takes a revision, reaches watchers as MODIFIED, writes no event row."""


@frozen(cache_hash=True)
class Key:
    """Where an object lives. `resource` is the group resource: `pods`, `deployments.apps`."""

    resource: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return (
            f"{self.resource}/{self.namespace}/{self.name}"
            if self.namespace
            else f"{self.resource}/{self.name}"
        )


@frozen
class KindRow:
    """What the SQL views need to know of a resource; registered before its first write."""

    resource: str
    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    history_class: HistoryClass = "full"


@frozen
class Record:
    """A live object at one revision. `rv` equals `document.rv`; `oid` is the revision that created it."""

    key: Key
    uid: str
    oid: int
    rv: int
    document: Document
    expires_us: int | None = None

    @property
    def value(self) -> Json:
        return self.document.value


@frozen(cache_hash=True)
class Actor:
    """Who asks. Interned by the store."""

    username: str
    groups: tuple[str, ...] = ()
    user_agent: str = ""
    field_manager: str = ""
    source_ip: str = ""


SYSTEM = Actor("system:kcp")


@frozen
class Cause:
    """Why a change happened: the request, and the decision when a controller's effect made it."""

    actor: Actor = SYSTEM
    request_id: str = ""
    decision_id: int | None = None


@frozen
class Fence:
    """A leader's claim: refused with `Fenced` unless the Lease `oid` still has this epoch and a holder."""

    lease_oid: int
    epoch: int


@frozen
class Put:
    """Write this object. `body` is `normal(value)`; `value` is the decoded object, uid and name set.

    `renewal` marks a Lease whose holder did not change: it takes a revision but writes no event row.
    """

    body: bytes
    value: Json
    expires_us: int | None = None
    renewal: bool = False


@frozen
class Remove:
    """Remove the object. Watchers see its last state at the revision of the removal."""


@frozen
class Keep:
    """Change nothing, take no revision: the answer is the current object."""


class Head(Protocol):
    """The staged state inside the writer: everything decided so far, the present batch included."""

    @property
    def rv(self) -> int: ...

    def get(self, key: Key) -> Record | None: ...

    def list(self, resource: str, namespace: str | None = None) -> Sequence[Record]:
        """All live objects of a resource, ordered by namespace, then name; None means every namespace."""
        ...


Change = Callable[[Record | None, Head], Put | Remove | Keep]
"""Current object (None: absent) and the staged head in, verdict out. Whatever it raises fails this operation."""


@frozen
class Operation:
    key: Key
    change: Change
    cause: Cause = Cause()
    fence: Fence | None = None


@frozen
class Committed:
    """A durable outcome. `op` is None when nothing changed (`Keep`); then `rv` is the current object's.

    `record` is the new state; after a removal the last state at the removal's revision; None after Keep of nothing.
    """

    rv: int
    op: Op | None
    record: Record | None
    previous: Record | None = None


@frozen
class Event:
    """One change as watchers and history see it.

    `record` is the object after the change (DELETED: its last state, at this revision); `previous` the one before.
    """

    rv: int
    op: Op
    record: Record
    previous: Record | None
    ts_us: int
    cause: Cause

    @property
    def key(self) -> Key:
        return self.record.key


@frozen
class Decision:
    """One reconcile of one key, as spec'd in docs/reference/decisions.md.

    `frontier` maps each watched resource to the revision its cache had; `effects` are JSON documents
    `{"kind", "args", "outcome", "rv" | "error", "frontier"?}`; `trigger` is `event`, `timer`, `retry`, `barrier`, `resync`.
    """

    id: int
    controller: str
    key: str
    trigger: str
    frontier: dict[str, int]
    now_us: int
    effects: list[Json]
    memo_before: Json | None
    code_hash: str
    config_hash: str
    epoch: int = 0
    first_rv: int = 0
    last_rv: int = 0
    duration_us: int = 0


@frozen
class Input:
    """Something from outside the log that a decision used: live reads, leadership, starts, random seeds."""

    kind: str
    payload: Json


class StoreError(Exception):
    """Any failure of the store itself."""


class Fenced(StoreError):
    """Raised when the writer is no longer the leader it claims to be."""


class TooLarge(StoreError):
    """Raised when a body exceeds MAX_BODY_BYTES: `etcdserver: request is too large`."""


class Compacted(StoreError):
    """Raised when a revision lies below the API horizon. `horizon` is the oldest revision still served."""

    def __init__(self, asked: int, horizon: int) -> None:
        super().__init__(f"revision {asked} lies below the horizon {horizon}")
        self.asked, self.horizon = asked, horizon


class FutureRevision(StoreError):
    """Raised when a revision is not reached within the wait. `current` is the published revision."""

    def __init__(self, asked: int, current: int) -> None:
        super().__init__(f"revision {asked} is not reached, current {current}")
        self.asked, self.current = asked, current


class Unavailable(StoreError):
    """Raised when the batch failed as a whole: disk full, connection lost, closing. Nothing was written."""


class Locked(StoreError):
    """Raised at open when another daemon holds the data directory."""


class SchemaTooNew(StoreError):
    """Raised at open when the database comes from a newer version."""


Listener = Callable[[Sequence[Event]], None]
"""Called synchronously, in revision order, right when a batch becomes visible; must not block or raise."""

Projection = Callable[[Event], "Sequence[tuple[str, dict[str, Any]]]"]
"""Rows for `facts_*` tables that follow from an event: (table, column values). Pure."""


class Store(Protocol):
    """One event log. Everything without `async` answers from memory at the published revision."""

    @property
    def rv(self) -> int:
        """The published revision: the newest that readers may see."""
        ...

    @property
    def horizon(self) -> int:
        """The API answers 410 for revisions below it. History stays readable in SQL."""
        ...

    @property
    def epoch(self) -> int:
        """Raised at each start (SQLite) and each restore: the generation of the log."""
        ...

    @property
    def cluster_uid(self) -> str: ...

    def register(self, kinds: Sequence[KindRow]) -> None:
        """Make resources known; needed before their first write. Idempotent."""
        ...

    async def append(self, operation: Operation) -> Committed:
        """Run one change and wait until it is durable.

        Raises what the change raises, Fenced, TooLarge, or Unavailable. Cancelled while queued: nothing happens;
        cancelled during the commit: the change may still become durable.
        """
        ...

    async def append_all(
        self, operations: Sequence[Operation], *, atomic: bool = False
    ) -> list[Committed | Exception]:
        """Run several changes in one transaction, in order, each with its own outcome.

        `atomic`: the first failure undoes all; every other outcome is then that same exception.
        """
        ...

    def get(self, key: Key) -> Record | None: ...

    def list(self, resource: str, namespace: str | None = None) -> Sequence[Record]:
        """Live objects ordered by namespace, then name."""
        ...

    async def get_at(self, key: Key, rv: int) -> Record | None:
        """The object as of a revision. Raises FutureRevision. Knows no horizon."""
        ...

    async def list_at(
        self,
        resource: str,
        rv: int,
        namespace: str | None = None,
        after: tuple[str, str] | None = None,
        limit: int | None = None,
    ) -> Sequence[Record]:
        """Objects as of a revision, ordered by (namespace, name), strictly after `after`. Knows no horizon."""
        ...

    async def events_since(
        self, rv: int, *, until: int | None = None, resources: Sequence[str] | None = None, limit: int = 1000
    ) -> Sequence[Event]:
        """Events with revision > rv (and <= until), in order; renewals appear only as the newest state. Knows no horizon."""
        ...

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every batch published from now on. Returns the function that ends it."""
        ...

    async def wait_for(self, rv: int, timeout_s: float = 3.0) -> None:
        """Return once `rv` is published. Raises FutureRevision when that takes longer."""
        ...

    async def catch_up(self) -> None:
        """Return once everything that was durable when called is published here.

        On an engine of one daemon that is always so and costs nothing. Where several daemons share a log it costs one
        round trip, and a read after it sees what any of them acknowledged before. Raises Unavailable.
        """
        ...

    def next_decision_id(self) -> int: ...

    def record(self, entry: Decision | Input) -> None:
        """Write with the next batch, at the latest after a second. Lost in a crash without harm."""
        ...

    async def move_horizon(self, rv: int) -> None: ...

    def lease_epoch(self, key: Key) -> tuple[int, int] | None:
        """(oid, epoch) of a Lease, for building a Fence; None when absent."""
        ...

    async def run(self) -> None:
        """The writer and housekeeping; runs until cancelled, then commits what is queued and closes."""
        ...

    async def close(self) -> None: ...
