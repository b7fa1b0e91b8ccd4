"""One write as one transaction: planned on what is published, committed if it still fits what is staged.

first = planner(published)                       outside the writer: costs nobody else's time
inside the writer:  same object?  take `first`   else plan again on the newer one
                    exact plugins agree?         else the whole thing starts over (Replan)
commit, together with the companions             all or nothing
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from kcp.api.admission.plugin import Attributes as AdmissionAttributes
from kcp.api.admission.plugin import Companion
from kcp.api.context import Call, Server
from kcp.api.documents import unsaved
from kcp.api.options import WriteOptions
from kcp.apis.kind import Json, Kind
from kcp.base.values import frozen
from kcp.machinery.document import Document, normal
from kcp.machinery.errors import ApiError, Conflict, FieldError, ServiceUnavailable
from kcp.store.protocol import (
    Committed,
    Fenced,
    Head,
    Keep,
    Key,
    Op,
    Operation,
    Put,
    Record,
    Remove,
    TooLarge,
    Unavailable,
)

REPLANS = 8

Verdict = Put | Remove | Keep


@frozen
class Rules:
    """What an update through one door may change, and what must then hold.

    `prepare` (kind, new, old) puts back what this door does not open; `validate` gives field errors.
    `raises_generation`: whether a changed spec counts as a new generation.
    """

    prepare: Callable[[Kind, Json, Json], None]
    validate: Callable[[Kind, Json, Json], list[FieldError]]
    raises_generation: bool = True


@frozen
class Write:
    """One write request: the server's parts, who asks, of what kind, through which door."""

    server: Server
    call: Call
    kind: Kind
    options: WriteOptions
    moment: datetime
    now: str
    namespace: str
    rules: Rules
    subresource: str = ""
    applied: bool = False
    """Server-side apply: managedFields are already those of the result."""

    def key(self, name: str) -> Key:
        return Key(self.kind.resource, self.namespace, name)


@frozen
class Plan:
    """What to do to one object. `attributes` are what exact plugins are asked about inside the writer.

    `finish`, when given, makes the Put there (addresses are allocated against the head).
    """

    verdict: Verdict
    attributes: AdmissionAttributes | None = None
    finish: Callable[[Head], Put] | None = None
    leaving: Json | None = None
    """What an update that removes made of the object: its answer, since clients expect the object that they sent."""
    companions: Sequence[Companion] = ()
    """What changes with it of its own accord: the addresses of a Service."""


Planner = Callable[[Record | None, Head], Plan]


@frozen
class Written:
    """The outcome of a write, in the stored version. `op` is None when nothing changed."""

    document: Document
    revision: int
    op: Op | None

    @property
    def removed(self) -> bool:
        return self.op is Op.DELETED


class Replan(Exception):
    """Raised inside the writer when the objects that must change together are not those planned for."""


def _same(current: Record | None, seen: Record | None) -> bool:
    if current is None or seen is None:
        return current is seen
    return current.rv == seen.rv


def _settle(write: Write, plan: Plan, head: Head) -> Sequence[Companion]:
    if plan.attributes is None:
        return plan.companions
    settled = write.server.admission.settle(plan.attributes, head)
    return [*settled, *plan.companions] if plan.companions else settled


def _verdict(plan: Plan, head: Head) -> Verdict:
    return plan.verdict if plan.finish is None else plan.finish(head)


def store_failure(error: Exception) -> Exception:
    """A failure of the store as the client sees it; any other error unchanged."""
    if isinstance(error, TooLarge):
        return ApiError("etcdserver: request is too large")
    if isinstance(error, Unavailable):
        return ServiceUnavailable(f"the store is unavailable: {error}")
    if isinstance(error, Fenced):
        return Conflict(f"leader election lost: {error}")
    return error


async def append_together(write: Write, operation: Operation, companions: Sequence[Companion]) -> Committed:
    """Commit one operation, with its companions in one transaction. Raises what refuses it."""
    store = write.server.store
    try:
        if not companions:
            return await store.append(operation)
        others = [Operation(c.key, c.change, operation.cause, operation.fence) for c in companions]
        outcomes = await store.append_all([operation, *others], atomic=True)
    except (TooLarge, Unavailable, Fenced) as error:
        raise store_failure(error) from error
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise store_failure(outcome)
    first = outcomes[0]
    assert isinstance(first, Committed)
    return first


def _answer(document: Document, rv: int, op: Op | None, leaving: Json | None) -> Document:
    """Source: k8s v1.36 apiserver/pkg/registry/generic/registry/store.go deleteWithoutFinalizers."""
    if leaving is None or op is not Op.DELETED:
        return document
    return Document.at(normal(leaving), rv, leaving)


def _rehearse(verdict: Verdict, seen: Record | None, leaving: Json | None) -> Written:
    """The outcome of a dry run."""
    if isinstance(verdict, Put):
        rv = seen.rv if seen is not None else 0
        return Written(unsaved(verdict.body, verdict.value, rv), rv, Op.MODIFIED if seen else Op.ADDED)
    assert seen is not None
    op = Op.DELETED if isinstance(verdict, Remove) else None
    return Written(_answer(seen.document, seen.rv, op, leaving), seen.rv, op)


async def transact(write: Write, name: str, planner: Planner, extra: Sequence[Companion] = ()) -> Written:
    """Plan on what is published, commit what still fits. `extra` changes are made in the same transaction.

    Raises what the planner or an exact plugin raises.
    """
    key, store = write.key(name), write.server.store
    for _ in range(REPLANS):
        seen = store.get(key)
        first = planner(seen, store)
        companions = _settle(write, first, store)
        if write.options.dry_run:
            return _rehearse(_verdict(first, store), seen, first.leaving)
        try:
            committed = await append_together(
                write, _operation(write, key, planner, seen, first, companions), [*companions, *extra]
            )
        except Replan:
            continue
        record = committed.record
        assert record is not None, "a write of an object that exists leaves a record"
        document = _answer(record.document, committed.rv, committed.op, first.leaving)
        return Written(document, committed.rv, committed.op)
    raise Conflict.of(write.kind.group, write.kind.plural, name)


def operation_of(write: Write, name: str, planner: Planner) -> Operation | None:
    """The write as one operation among others; None when it has companions, or is only rehearsed.

    Raises what the planner or an exact plugin raises.
    """
    key, store = write.key(name), write.server.store
    seen = store.get(key)
    first = planner(seen, store)
    if write.options.dry_run or _settle(write, first, store):
        return None
    return _operation(write, key, planner, seen, first, ())


def _operation(
    write: Write,
    key: Key,
    planner: Planner,
    seen: Record | None,
    first: Plan,
    companions: Sequence[Companion],
) -> Operation:
    keys = [companion.key for companion in companions]

    def change(current: Record | None, head: Head) -> Verdict:
        plan = first if _same(current, seen) else planner(current, head)
        if [companion.key for companion in _settle(write, plan, head)] != keys:
            raise Replan
        return _verdict(plan, head)

    return Operation(key, change, write.call.cause, write.call.fence)
