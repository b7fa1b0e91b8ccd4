"""What a DELETE does to an object: marks it, shortens its grace, or removes it.

Worked out on (object, options) alone, so the same rules serve delete, deletecollection and eviction:

    no finalizers, not graceful                 removed at once
    graceful with a period (a running pod)      deletionTimestamp = now + period; its node removes it later
    finalizers, or a policy that adds one       deletionTimestamp = now, period 0; the last finalizer's update removes it
    already being deleted                       only a shorter period changes anything

Source: k8s v1.36 apiserver/pkg/registry/generic/registry/store.go (Delete, updateForGracefulDeletionAndFinalizers),
apiserver/pkg/registry/rest/delete.go, pkg/registry/core/namespace/storage/storage.go.
"""

from __future__ import annotations

from datetime import timedelta

from kcp.api.options import DeleteOptions
from kcp.api.registry import attributes_of, leaving_with, not_found
from kcp.api.transaction import Plan, Planner, Write
from kcp.apis.kind import Json, Kind
from kcp.base.values import frozen
from kcp.machinery.document import normal
from kcp.machinery.errors import Conflict
from kcp.machinery.times import format_time, parse_time
from kcp.store.protocol import Head, Keep, Put, Record, Remove

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
_COLLECTED = (ORPHAN, FOREGROUND)
_NOT_COLLECTED = frozenset({"events"})
"""Resources without garbage collection: the policy of a delete means nothing to them."""


def _check_preconditions(kind: Kind, current: Record, options: DeleteOptions) -> None:
    """Raises Conflict; it names the kind, not the resource, as Kubernetes does here."""
    name = current.key.name
    if options.uid is not None and options.uid != current.uid:
        why = (
            f"the UID in the precondition ({options.uid}) does not match the UID in record ({current.uid})."
            " The object might have been deleted and then recreated"
        )
        raise Conflict.of(kind.group, kind.kind, name, why)
    if options.resource_version is not None and options.resource_version != str(current.rv):
        why = (
            f"the ResourceVersion in the precondition ({options.resource_version}) does not match"
            f" the ResourceVersion in record ({current.rv}). The object might have been modified"
        )
        raise Conflict.of(kind.group, kind.kind, name, why)


def _orphans(kind: Kind, finalizers: list[str], options: DeleteOptions) -> bool:
    if options.orphan_dependents is not None:
        return options.orphan_dependents
    if options.propagation is not None:
        return options.propagation == "Orphan"
    for finalizer in finalizers:
        if finalizer in _COLLECTED:
            return finalizer == ORPHAN
    return kind.strategy.default_propagation == "Orphan"


def _waits_for_dependents(finalizers: list[str], options: DeleteOptions) -> bool:
    if options.orphan_dependents is not None:
        return False
    if options.propagation is not None:
        return options.propagation == "Foreground"
    for finalizer in finalizers:
        if finalizer in _COLLECTED:
            return finalizer == FOREGROUND
    return False


def finalizers_after(kind: Kind, finalizers: list[str], options: DeleteOptions) -> list[str]:
    """The finalizers once the propagation policy is written among them; unchanged order when nothing changes."""
    if kind.resource in _NOT_COLLECTED:
        return finalizers
    wanted = [finalizer for finalizer in finalizers if finalizer not in _COLLECTED]
    if _orphans(kind, finalizers, options):
        wanted.append(ORPHAN)
    if _waits_for_dependents(finalizers, options):
        wanted.append(FOREGROUND)
    return finalizers if sorted(wanted) == sorted(finalizers) else wanted


def _with_metadata(obj: Json, **changes: object) -> Json:
    """A copy with metadata fields set; None removes one."""
    metadata = {**obj["metadata"], **changes}
    return {**obj, "metadata": {key: value for key, value in metadata.items() if value is not None}}


def _put(obj: Json) -> Put:
    return Put(normal(obj), obj)


@frozen
class _Grace:
    """`period_s` None: the kind knows no grace. `pending`: nothing left to do but wait."""

    period_s: int | None = None
    pending: bool = False
    timestamp: str | None = None


def _grace(write: Write, obj: Json, options: DeleteOptions) -> _Grace:
    graceful = write.kind.strategy.graceful
    if graceful is None:
        return _Grace()
    metadata = obj["metadata"]
    if metadata.get("deletionTimestamp"):
        before = metadata.get("deletionGracePeriodSeconds")
        if before is None:
            return _Grace()
        if options.grace_s is None or options.grace_s >= before:
            return _Grace(before, pending=True)
        moment = parse_time(metadata["deletionTimestamp"]) - timedelta(seconds=before - options.grace_s)
        return _Grace(options.grace_s, timestamp=format_time(moment))
    period = graceful(obj, options.grace_s)
    moment = write.moment + timedelta(seconds=period)
    return _Grace(period, timestamp=format_time(moment))


def _next_generation(metadata: Json) -> int | None:
    """Marking for deletion is a change of what is wanted; 0 stays 0."""
    generation = metadata.get("generation")
    return generation + 1 if generation and not metadata.get("deletionTimestamp") else generation


def _marked(write: Write, obj: Json, finalizers: list[str], grace: _Grace) -> Json:
    metadata = obj["metadata"]
    generation = _next_generation(metadata)
    if grace.period_s:
        timestamp, period = grace.timestamp, grace.period_s
    else:
        timestamp, period = metadata.get("deletionTimestamp"), 0
        if timestamp is None or timestamp > write.now:
            timestamp = write.now
    return _with_metadata(
        obj,
        finalizers=finalizers or None,
        deletionTimestamp=timestamp,
        deletionGracePeriodSeconds=period,
        generation=generation,
    )


def _plan_namespace(write: Write, obj: Json, finalizers: list[str]) -> Plan:
    """The first delete starts termination; the last one, when its content is gone, removes."""
    if not obj["metadata"].get("deletionTimestamp"):
        marked = _with_metadata(obj, finalizers=finalizers or None, deletionTimestamp=write.now)
        marked["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
        return Plan(_put(marked))
    if (obj.get("spec") or {}).get("finalizers") or finalizers:
        return Plan(Keep())
    return Plan(Remove())


def plan_delete(write: Write, current: Record, options: DeleteOptions) -> Plan:
    """What deleting this object does now. Raises Conflict when a precondition does not hold."""
    kind, obj = write.kind, current.value
    _check_preconditions(kind, current, options)
    before = list(obj["metadata"].get("finalizers") or ())
    finalizers = finalizers_after(kind, before, options)
    if kind.resource == "namespaces":
        return _plan_namespace(write, obj, finalizers)
    grace = _grace(write, obj, options)
    if grace.pending:
        return Plan(Keep())
    if not grace.period_s and not finalizers:
        return Plan(Remove())
    marked = _marked(write, obj, finalizers, grace)
    return Plan(Keep() if marked == obj else _put(marked))


def deleting(write: Write, name: str, options: DeleteOptions, *, admit: bool = True) -> Planner:
    """The planner of a delete. Admission sees the object that is about to go."""

    def planner(current: Record | None, head: Head) -> Plan:
        if current is None:
            raise not_found(write.kind, name)
        if admit:
            attributes = attributes_of(write, "DELETE", name, None, current.value)
            write.server.admission.mutate(attributes)
            write.server.admission.validate(attributes)
        plan = plan_delete(write, current, options)
        if isinstance(plan.verdict, Remove):
            gone = attributes_of(write, "DELETE", name, None, current.value)
            return Plan(plan.verdict, gone, companions=leaving_with(write, current.value))
        return plan

    return planner
