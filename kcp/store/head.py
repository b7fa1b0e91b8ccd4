"""The published head: every live object at the newest durable revision, in memory, as bytes.

Objects     the live records of all resources, each resource with its sorted keys
Published   Objects, Leases, revision, horizon; changed only by `publish`, batch by batch
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Iterable, Sequence

import attrs

from kcp.machinery.document import Document
from kcp.store import leases
from kcp.store.driver import Batch, Snapshot
from kcp.store.leases import LeaseRow
from kcp.store.protocol import Key, KindRow, Op, Record

Place = tuple[str, str]
"""(namespace, name)."""

_FEW = 16
"""Up to so many new keys are inserted one by one; beyond, sorting the whole order is cheaper."""


def at_revision(record: Record, rv: int) -> Record:
    """The same state under another revision: what a removal shows."""
    document = record.document
    value = document.value if document.decoded else None
    return attrs.evolve(record, rv=rv, document=Document.at(document.body, rv, value))


class Table:
    """The live records of one resource, and their order.

    Writers only note which keys came and went; the order is brought up to date by the next reader who needs it.
    """

    __slots__ = ("_came", "_everything", "_gone", "_order", "records")

    def __init__(self) -> None:
        self.records: dict[Place, Record] = {}
        self._order: list[Place] = []
        self._came: dict[Place, None] = {}
        self._gone: set[Place] = set()
        self._everything: list[Record] | None = None

    def put(self, place: Place, record: Record) -> None:
        if place not in self.records:
            if place in self._gone:
                self._gone.remove(place)
            else:
                self._came[place] = None
        self.records[place] = record
        self._everything = None

    def remove(self, place: Place) -> None:
        del self.records[place]
        if place in self._came:
            del self._came[place]
        else:
            self._gone.add(place)
        self._everything = None

    def load(self, place: Place, record: Record) -> None:
        """Append a record whose place comes after all others."""
        self.records[place] = record
        self._order.append(place)

    def order(self) -> list[Place]:
        if self._gone:
            gone = self._gone
            self._order = [place for place in self._order if place not in gone]
            self._gone = set()
        if self._came:
            if len(self._came) <= _FEW:
                for place in self._came:
                    bisect.insort(self._order, place)
            else:
                self._order.extend(self._came)
                self._order.sort()
            self._came = {}
        return self._order

    def list(self, namespace: str | None) -> Sequence[Record]:
        order, records = self.order(), self.records
        if namespace is None:
            if self._everything is None:
                self._everything = [records[place] for place in order]
            return self._everything
        low = bisect.bisect_left(order, (namespace, ""))
        high = bisect.bisect_left(order, (namespace + "\0", ""), low)
        return [records[place] for place in order[low:high]]


class Objects:
    """Live records by resource, namespace, name."""

    __slots__ = ("_tables",)

    def __init__(self) -> None:
        self._tables: dict[str, Table] = {}

    def table(self, resource: str) -> Table:
        table = self._tables.get(resource)
        if table is None:
            table = self._tables[resource] = Table()
        return table

    def get(self, key: Key) -> Record | None:
        table = self._tables.get(key.resource)
        return None if table is None else table.records.get((key.namespace, key.name))

    def list(self, resource: str, namespace: str | None = None) -> Sequence[Record]:
        """Shared until the next change of the resource: not to be changed by the caller."""
        table = self._tables.get(resource)
        return () if table is None else table.list(namespace)

    def put(self, record: Record) -> None:
        key = record.key
        self.table(key.resource).put((key.namespace, key.name), record)

    def remove(self, key: Key) -> None:
        self._tables[key.resource].remove((key.namespace, key.name))

    def load(self, records: Iterable[Record]) -> None:
        """Fill from records that come in order, resource by resource."""
        resource, table = None, Table()
        for record in records:
            key = record.key
            if key.resource != resource:
                resource, table = key.resource, self.table(key.resource)
            table.load((key.namespace, key.name), record)


class Published:
    """What readers may see. Owned by the writer, which changes it between two awaits of everyone else."""

    __slots__ = ("_expiring", "cluster_uid", "horizon", "kinds", "leases", "objects", "rv", "ts_us")

    def __init__(self, snapshot: Snapshot) -> None:
        self.rv = snapshot.rv
        self.ts_us = snapshot.ts_us
        self.horizon = snapshot.horizon
        self.cluster_uid = snapshot.cluster_uid
        self.kinds: dict[str, KindRow] = {row.resource: row for row in snapshot.kinds}
        self.objects = Objects()
        records = list(snapshot.records)
        self.objects.load(records)
        self.leases: dict[int, LeaseRow] = {row.oid: row for row in snapshot.leases}
        self._expiring: list[tuple[int, str, str, str]] = []
        for record in records:
            if record.expires_us is not None:
                self._note_expiry(record)

    def lease_of(self, key: Key) -> LeaseRow | None:
        if key.resource != leases.RESOURCE:
            return None
        record = self.objects.get(key)
        return None if record is None else self.leases.get(record.oid)

    def publish(self, batch: Batch) -> None:
        resource, table = "", Table()
        for staged in batch.staged:
            event = staged.event
            record = event.record
            key = record.key
            if key.resource != resource:
                resource, table = key.resource, self.objects.table(key.resource)
            if event.op is Op.DELETED:
                table.remove((key.namespace, key.name))
            else:
                table.put((key.namespace, key.name), record)
                if record.expires_us is not None:
                    self._note_expiry(record)
        for oid, lease in batch.leases.items():
            if lease is None:
                self.leases.pop(oid, None)
            else:
                self.leases[oid] = lease
        self.rv, self.ts_us = batch.rv, batch.ts_us
        if batch.horizon is not None:
            self.horizon = max(self.horizon, batch.horizon)

    def _note_expiry(self, record: Record) -> None:
        if record.expires_us is not None:
            key = record.key
            heapq.heappush(self._expiring, (record.expires_us, key.resource, key.namespace, key.name))

    def expired(self, now_us: int, limit: int) -> list[Key]:
        """Keys whose time has come, earliest first; each is given out once."""
        due: list[Key] = []
        while self._expiring and self._expiring[0][0] <= now_us and len(due) < limit:
            expires_us, *place = heapq.heappop(self._expiring)
            key = Key(*place)
            record = self.objects.get(key)
            if record is not None and record.expires_us == expires_us:
                due.append(key)
        return due
