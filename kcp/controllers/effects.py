"""What a planner may yield. The driver executes each effect, with a deadline, and sends its outcome back in.

    def plan(key, view, env):
        pod = view.pods.get(key)
        created = yield Create("pods", namespace, pod_from(pod))     # an Outcome
        if created.error is not None: ...

Effects carry plain JSON, so that a decision can be recorded, compared and replayed. Resources are group resources
(`pods`, `replicasets.apps`); the driver knows their versions. Objects that come from the view are read-only.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Protocol

from kcp.base.values import frozen
from kcp.machinery.errors import ApiError

Json = dict[str, Any]
PatchType = Literal["merge", "json", "strategic", "apply"]


@frozen
class Create:
    resource: str
    namespace: str
    object: Json


@frozen
class Update:
    """Replace the object (its resourceVersion is the precondition)."""

    resource: str
    object: Json
    subresource: str = ""


@frozen
class Status:
    """Update `/status`. `object` is the read object; `status` replaces its status.

    The driver skips the write when `status` equals what the object has.
    """

    resource: str
    object: Json
    status: Json


@frozen
class Patch:
    """`uid` and `rv`, when given, are preconditions."""

    resource: str
    namespace: str
    name: str
    patch: Any
    type: PatchType = "merge"
    subresource: str = ""
    uid: str = ""
    rv: str = ""
    field_manager: str = ""
    force: bool = False


@frozen
class Delete:
    resource: str
    namespace: str
    name: str
    uid: str = ""
    rv: str = ""
    propagation: Literal["", "Background", "Foreground", "Orphan"] = ""
    grace_s: int | None = None


@frozen
class Event:
    """An API Event about `regarding`; best effort, correlated and rate limited by the recorder, not by the planner."""

    regarding: Json
    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    action: str = ""
    related: Json | None = None


@frozen
class RequeueAfter:
    """Plan this key again after `seconds` (0: as soon as possible)."""

    seconds: float


@frozen
class Live:
    """Read past the cache: the outcome's `object` is the present object or None. Recorded as an input."""

    resource: str
    namespace: str
    name: str


@frozen
class LiveList:
    """List past the cache: the outcome's `items` are the present objects. Recorded as an input."""

    resource: str
    namespace: str = ""
    label_selector: str = ""
    field_selector: str = ""


@frozen
class Request:
    """A raw call of the API for what has no effect of its own (finalize, deletecollection, approval)."""

    method: str
    path: str
    body: Json | None = None
    query: str = ""


@frozen
class External:
    """Call the outside world through a named provider; recorded as an input, bounded by the provider's bulkhead."""

    provider: str
    call: str
    args: Json
    timeout_s: float = 30.0


@frozen
class Memo:
    """Remember `value` for this key: what the next plan gets as `env.memo`. None forgets."""

    value: Json | None


@frozen
class All:
    """Several independent effects; the outcome's `all` has their outcomes in order.

    `slow_start` runs them in batches of 1, 2, 4, 8 …; the first batch with a failure stops the rest
    (their outcomes are `skipped`). Otherwise they run concurrently and all of them run.
    """

    effects: Sequence[Effect]
    slow_start: bool = False


Effect = (
    Create
    | Update
    | Status
    | Patch
    | Delete
    | Event
    | RequeueAfter
    | Live
    | LiveList
    | Request
    | External
    | Memo
    | All
)


@frozen
class Outcome:
    """What became of an effect. `rv` is the revision of the write, 0 when nothing was written."""

    object: Json | None = None
    rv: int = 0
    error: ApiError | None = None
    items: Sequence[Json] = ()
    all: Sequence[Outcome] = ()
    skipped: bool = False

    @property
    def ok(self) -> bool:
        return self.error is None and not self.skipped


Plan = Generator[Effect, Outcome, None]


class Abandoned(Exception):
    """Raised inside a plan that cannot go on because an effect failed: its key is planned again, as after any failure."""


def advance(plan: Plan, outcome: Outcome | None) -> Effect | None:
    """The next effect of a plan, None when it has ended. `outcome` is that of the effect before, None at the start."""
    try:
        return next(plan) if outcome is None else plan.send(outcome)
    except (StopIteration, Abandoned):
        return None


@frozen
class Env:
    """What a planner knows besides its view: everything else would make it impure."""

    now: datetime
    memo: Json | None
    settings: Mapping[str, Any]
    controller: str


class Reader(Protocol):
    """The cached objects of one resource at the view's frontier. Objects are shared and read-only."""

    def get(self, key: str) -> Json | None:
        """By `namespace/name`, or `name` for cluster-scoped resources."""
        ...

    def list(self, namespace: str | None = None) -> Sequence[Json]:
        """Ordered by key; None means every namespace."""
        ...

    def count(self) -> int:
        """How many there are, in every namespace."""
        ...

    def index(self, name: str, value: str) -> Sequence[Json]:
        """Objects whose index function gave `value`, ordered by key."""
        ...

    def tally(self, name: str, value: str) -> Mapping[Any, int]:
        """How many objects there are of each sort among those of `value`, in no order. Not to be kept: it moves."""
        ...


class View(Protocol):
    """Attribute access by the names a controller declared in `watches`: `view.pods`, `view.replicasets`."""

    def __getattr__(self, name: str) -> Reader: ...


class Planner(Protocol):
    def __call__(self, key: str, view: View, env: Env, /) -> Plan: ...
