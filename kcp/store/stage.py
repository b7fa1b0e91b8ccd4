"""The staged head: what the log will be once the present batch is durable. Closures run against it.

    stage = Stage(published, now_us)
    stage.run(operation) -> Committed          raises what fails this operation alone
    stage.run_atomic(operations)               all or, after the first failure, none
    stage.batch(...)                           what the driver writes
    ahead = Stage(published, now_us, stage)    on top of a batch that is on its way to the disk
    ahead.settle()                             that batch was published

Thrown away after the batch, whether it was published or failed; what was staged on a failed one is thrown away too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog

from kcp.machinery.document import Document
from kcp.store import leases
from kcp.store.columns import COLUMNS, FACTS
from kcp.store.driver import Batch, FactRow, Staged
from kcp.store.head import Place, Published, at_revision
from kcp.store.leases import LeaseRow
from kcp.store.protocol import (
    MAX_BODY_BYTES,
    Committed,
    Decision,
    Event,
    Input,
    Key,
    Op,
    Operation,
    Projection,
    Put,
    Record,
    Remove,
    StoreError,
    TooLarge,
)

log = structlog.get_logger(__name__)

Outcomes = list[Committed | Exception]

_MISSING: Any = object()
_FACT_COLUMNS = {table: COLUMNS[table][2:] for table in FACTS}


class Stage:
    """The `Head` of the protocol."""

    __slots__ = (
        "_base_rv", "_below", "_changed", "_leases", "_now_us", "_published", "_undo", "rv", "size_bytes", "staged", "ticks",
        "ts_us", "unlogged",
    )  # fmt: skip

    def __init__(self, published: Published, now_us: int, below: Stage | None = None) -> None:
        self._published = published
        self._below = below
        self._now_us = now_us
        self._changed: dict[str, dict[Place, Record | None]] = {}
        self._leases: dict[int, LeaseRow | None] = {}
        self._undo: list[tuple[dict[Any, Any], Any, Any]] | None = None
        self.rv: int = published.rv if below is None else below.rv
        self.ts_us: int = published.ts_us if below is None else below.ts_us
        self._base_rv = self.rv
        self.unlogged = 0
        self.size_bytes = 0
        self.staged: list[Staged] = []
        self.ticks: list[tuple[int, int]] = []

    def get(self, key: Key) -> Record | None:
        changed = self._changed.get(key.resource)
        if changed is not None:
            record: Record | None = changed.get((key.namespace, key.name), _MISSING)
            if record is not _MISSING:
                return record
        if self._below is not None:
            return self._below.get(key)
        return self._published.objects.get(key)

    def settle(self) -> None:
        """What this stage stands on is published."""
        self._below = None

    def list(self, resource: str, namespace: str | None = None) -> Sequence[Record]:
        below = self._published.objects if self._below is None else self._below
        base = below.list(resource, namespace)
        changed = self._changed.get(resource)
        if not changed:
            return base
        merged: dict[Place, Record] = {(r.key.namespace, r.key.name): r for r in base}
        for place, record in changed.items():
            if namespace is not None and place[0] != namespace:
                continue
            if record is None:
                merged.pop(place, None)
            else:
                merged[place] = record
        return [merged[place] for place in sorted(merged)]

    def lease(self, oid: int) -> LeaseRow | None:
        lease: LeaseRow | None = self._leases.get(oid, _MISSING)
        if lease is not _MISSING:
            return lease
        return self._published.leases.get(oid) if self._below is None else self._below.lease(oid)

    def run(self, operation: Operation) -> Committed:
        """Decide one operation. Raises what the closure raises, Fenced, TooLarge; then nothing is staged of it."""
        if operation.fence is not None:
            leases.check_fence(operation.fence, self.lease)
        current = self.get(operation.key)
        verdict = operation.change(current, self)
        if isinstance(verdict, Put):
            return self._put(operation, current, verdict)
        if isinstance(verdict, Remove):
            return self._remove(operation, current)
        return Committed(self.rv if current is None else current.rv, None, current, current)

    def run_atomic(self, operations: Sequence[Operation]) -> Outcomes:
        """Decide several; the first failure undoes all and becomes everyone's outcome."""
        before = (self.rv, self.ts_us, self.unlogged, self.size_bytes, len(self.staged), len(self.ticks))
        self._undo = []
        try:
            return [self.run(operation) for operation in operations]
        except Exception as error:  # noqa: BLE001 a closure may raise anything; it is the outcome
            for table, key, old in reversed(self._undo):
                if old is _MISSING:
                    del table[key]
                else:
                    table[key] = old
            self.rv, self.ts_us, self.unlogged, self.size_bytes, staged, ticks = before
            del self.staged[staged:], self.ticks[ticks:]
            return [error] * len(operations)
        finally:
            self._undo = None

    def _put(self, operation: Operation, current: Record | None, put: Put) -> Committed:
        key, body, value = operation.key, put.body, put.value
        resource = key.resource
        if len(body) > MAX_BODY_BYTES:
            raise TooLarge("etcdserver: request is too large")
        if resource not in self._published.kinds:
            raise StoreError(f"the resource {resource} is not registered")
        uid = value["metadata"]["uid"]
        rv, ts_us = self.rv + 1, self._next_ts()
        if current is None:
            oid, op, prev_rv = rv, Op.ADDED, 0
        elif uid == current.uid:
            oid, op, prev_rv = current.oid, Op.MODIFIED, current.rv
        else:
            raise StoreError(f"{key}: an object cannot change its uid; remove it first")
        record = Record(key, uid, oid, rv, Document.at(body, rv, value), put.expires_us)
        if resource == leases.RESOURCE:
            before = None if current is None else self.lease(oid)
            lease, renewal = leases.advance(before, oid, rv, ts_us, value, body, renewal=put.renewal)
            self._set(self._leases, oid, lease)
            prev_rv = 0 if before is None else before.logged_rv
            if renewal:
                op, self.unlogged = Op.RENEWED, self.unlogged + 1
        self._stage(Event(rv, op, record, current, ts_us, operation.cause), prev_rv, body, record)
        return Committed(rv, op, record, current)

    def _remove(self, operation: Operation, current: Record | None) -> Committed:
        if current is None:
            return Committed(self.rv, None, None, None)
        key, rv = operation.key, self.rv + 1
        ts_us = self._next_ts()
        prev_rv, body = current.rv, None
        if key.resource == leases.RESOURCE:
            lease = self.lease(current.oid)
            if lease is not None:
                prev_rv, body = lease.logged_rv, lease.body
            self._set(self._leases, current.oid, None)
        last = at_revision(current, rv)
        self._stage(Event(rv, Op.DELETED, last, current, ts_us, operation.cause), prev_rv, body, None)
        return Committed(rv, Op.DELETED, last, current)

    def _next_ts(self) -> int:
        after = self.ts_us + 1
        return after if after > self._now_us else self._now_us

    def _stage(self, event: Event, prev_rv: int, body: bytes | None, state: Record | None) -> None:
        second = event.ts_us // 1_000_000
        if second > self.ts_us // 1_000_000:
            self.ticks.append((second, self.rv))
        self.rv, self.ts_us = event.rv, event.ts_us
        self.staged.append(Staged(event, prev_rv, body))
        self.size_bytes += 200 if body is None else 200 + len(body)
        key = event.record.key
        changed = self._changed.get(key.resource)
        if changed is None:
            changed = self._changed[key.resource] = {}
        if self._undo is None:
            changed[key.namespace, key.name] = state
        else:
            self._set(changed, (key.namespace, key.name), state)

    def _set(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        if self._undo is not None:
            self._undo.append((table, key, table.get(key, _MISSING)))
        table[key] = value

    def batch(
        self,
        projections: Sequence[Projection],
        decisions: Sequence[tuple[int, Decision]],
        inputs: Sequence[tuple[int, int, Input]],
        horizon: int | None,
    ) -> Batch:
        return Batch(
            self._base_rv,
            self.rv,
            self.ts_us,
            self.unlogged,
            self.staged,
            self._leases,
            self.ticks,
            project([staged.event for staged in self.staged], projections) if projections else {},
            decisions,
            inputs,
            horizon,
            self.size_bytes,
        )


def project(events: Sequence[Event], projections: Sequence[Projection]) -> dict[str, list[FactRow]]:
    """The rows of the `facts_*` tables that follow from events, by table.

    A projection that fails loses its row (`rebuild` brings it back once repaired), never the event.
    """
    rows: dict[str, list[FactRow]] = {}
    for event in events:
        if event.op is Op.RENEWED:
            continue
        for projection in projections:
            try:
                facts = projection(event)
            except Exception as error:  # noqa: BLE001 facts are derived; the event must not suffer
                log.warning("projection failed", rv=event.rv, key=str(event.key), error=repr(error))
                continue
            for table, values in facts:
                row = (event.record.oid, event.rv, *[values.get(column) for column in _FACT_COLUMNS[table]])
                rows.setdefault(table, []).append(row)
    return rows
