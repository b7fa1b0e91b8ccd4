"""Small objects and the operations that write them, for tests of the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from kcp.base.clock import Clock, SystemClock
from kcp.base.entropy import SeededEntropy
from kcp.machinery.document import normal
from kcp.machinery.errors import AlreadyExists, Conflict, NotFound
from kcp.store.log import EventLog
from kcp.store.open import open_store
from kcp.store.protocol import (
    SYSTEM,
    Actor,
    Cause,
    Event,
    Fence,
    Head,
    Keep,
    Key,
    KindRow,
    Operation,
    Put,
    Record,
    Remove,
)

Json = dict[str, Any]
Verdict = Put | Remove | Keep

CONFIG_MAPS = KindRow("configmaps", "", "v1", "ConfigMap", "configmaps", True)
PODS = KindRow("pods", "", "v1", "Pod", "pods", True)
NODES = KindRow("nodes", "", "v1", "Node", "nodes", False)
SECRETS = KindRow("secrets", "", "v1", "Secret", "secrets", True)
DEPLOYMENTS = KindRow("deployments.apps", "apps", "v1", "Deployment", "deployments", True)
LEASES = KindRow("leases.coordination.k8s.io", "coordination.k8s.io", "v1", "Lease", "leases", True)
KINDS = (CONFIG_MAPS, PODS, NODES, SECRETS, DEPLOYMENTS, LEASES)
_KINDS = {row.resource: row for row in KINDS}

ALICE = Actor("alice", ("system:authenticated", "devs"), "kubectl/v1.36.0", "kubectl-edit", "10.0.0.7")


def open_for_test(where: Path | str, clock: Clock | None = None, **options: Any) -> EventLog:
    store = open_store(where, clock=clock or SystemClock(), entropy=SeededEntropy(1), **options)
    store.register(KINDS)
    return store


def key(name: str, namespace: str = "default", resource: str = "configmaps") -> Key:
    return Key(resource, namespace if _KINDS[resource].namespaced else "", name)


def build(at: Key, uid: str, **fields: Any) -> Json:
    row = _KINDS[at.resource]
    metadata: Json = {"name": at.name, "uid": uid, **fields.pop("metadata", {})}
    if at.namespace:
        metadata["namespace"] = at.namespace
    api_version = f"{row.group}/{row.version}" if row.group else row.version
    return {"apiVersion": api_version, "kind": row.kind, "metadata": metadata, **fields}


def put_value(value: Json, **options: Any) -> Put:
    return Put(normal(value), value, **options)


def create(at: Key, *, uid: str | None = None, cause: Cause | None = None, expires_us: int | None = None, fence: Fence | None = None, **fields: Any) -> Operation:  # fmt: skip
    def change(current: Record | None, head: Head) -> Verdict:
        if current is not None:
            raise AlreadyExists.of("", at.resource, at.name)
        value = build(at, uid or f"uid-{at.name}-{head.rv + 1}", **fields)
        return put_value(value, expires_us=expires_us)

    return Operation(at, change, cause or Cause(SYSTEM), fence)


def update(at: Key, *, rv: int | None = None, cause: Cause | None = None, expires_us: int | None = None, fence: Fence | None = None, renewal: bool = False, **fields: Any) -> Operation:  # fmt: skip
    """Replace all but metadata; `rv` is the precondition."""

    def change(current: Record | None, head: Head) -> Verdict:
        del head
        if current is None:
            raise NotFound.of("", at.resource, at.name)
        if rv is not None and current.rv != rv:
            raise Conflict.of("", at.resource, at.name)
        metadata = {**current.value["metadata"], **fields.get("metadata", {})}
        value = build(at, current.uid, **{**fields, "metadata": metadata})
        return put_value(value, expires_us=expires_us, renewal=renewal)

    return Operation(at, change, cause or Cause(SYSTEM), fence)


def delete(
    at: Key, *, rv: int | None = None, cause: Cause | None = None, fence: Fence | None = None
) -> Operation:
    def change(current: Record | None, head: Head) -> Verdict:
        del head
        if current is None:
            raise NotFound.of("", at.resource, at.name)
        if rv is not None and current.rv != rv:
            raise Conflict.of("", at.resource, at.name)
        return Remove()

    return Operation(at, change, cause or Cause(SYSTEM), fence)


def write(verb: str, at: Key, **data: str) -> Operation:
    """create, update or delete by name."""
    if verb == "delete":
        return delete(at)
    return {"create": create, "update": update}[verb](at, data=data)


def put(at: Key, value: Json) -> Operation:
    """Write exactly this, whatever is there."""
    return operation(at, lambda current, head: put_value(value))


def operation(at: Key, change: Callable[[Record | None, Head], Verdict]) -> Operation:
    return Operation(at, change)


def lease_spec(holder: str, **more: Any) -> Json:
    return {"holderIdentity": holder, "leaseDurationSeconds": 15, **more}


def plain(record: Record | None) -> tuple[Any, ...] | None:
    """What must be equal wherever a record comes from: memory or the table."""
    if record is None:
        return None
    return (str(record.key), record.uid, record.oid, record.rv, record.document.rv, record.document.encoded)


def told(event: Event) -> tuple[Any, ...]:
    return (event.rv, event.op, plain(event.record), plain(event.previous), event.ts_us, event.cause)


@attrs.define
class Heard:
    """A listener that keeps what it hears."""

    events: list[Event] = attrs.field(factory=list)
    batches: list[int] = attrs.field(factory=list)

    def __call__(self, events: Any) -> None:
        self.events.extend(events)
        self.batches.append(len(events))
