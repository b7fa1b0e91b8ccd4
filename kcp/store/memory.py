"""The event log in memory: no I/O, the same promises but durability. For simulation, tests and what-if."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import attrs

from kcp.machinery.document import Document
from kcp.store import leases
from kcp.store.driver import Batch, Done, Snapshot, Staged
from kcp.store.head import Place
from kcp.store.leases import LeaseRow
from kcp.store.protocol import Cause, Decision, Event, Input, KindRow, Op, Record, StoreError


@attrs.define(slots=True)
class Incarnation:
    """One life of an object: its event rows, oldest first."""

    place: Place
    oid: int
    rows: list[Event]
    deleted_rv: int | None = None

    def at(self, rv: int) -> Record | None:
        if rv < self.oid or (self.deleted_rv is not None and rv >= self.deleted_rv):
            return None
        index = bisect.bisect_right(self.rows, rv, key=_rv)
        return self.rows[index - 1].record


def _rv(event: Event) -> int:
    return event.rv


class MemoryDriver:
    """Keeps every event. `decisions` and `inputs` stay readable as lists.

    A log may start from a base: live `records` as of revision `base_rv`, with nothing known before.
    """

    shared = False
    ahead_us = 0
    depth = 1

    def __init__(
        self,
        cluster_uid: str,
        *,
        kinds: Sequence[KindRow] = (),
        records: Sequence[Record] = (),
        base_rv: int = 0,
        base_ts_us: int = 0,
        epoch: int = 1,
    ) -> None:
        self._cluster_uid = cluster_uid
        self._kinds = {row.resource: row for row in kinds}
        self._base = sorted(records, key=lambda r: (r.key.resource, r.key.namespace, r.key.name))
        self._base_rv, self._base_ts_us = base_rv, base_ts_us
        self._epoch = epoch
        self._rows: list[Event] = []
        self._by_oid: dict[int, Incarnation] = {}
        self._by_place: dict[str, dict[Place, list[Incarnation]]] = {}
        self._leases: dict[int, LeaseRow] = {row.oid: row for row in self._base_leases()}
        self._times: list[tuple[int, int]] = []
        self.decisions: list[tuple[int, Decision]] = []
        self.inputs: list[tuple[int, int, Input]] = []
        for record in sorted(self._base, key=lambda r: r.rv):
            event = Event(record.rv, Op.ADDED, record, None, base_ts_us, Cause())
            self._born(event, record.oid)
            self._rows.append(event)

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def life(self) -> int:
        return self._epoch

    def catch_up(self, base_rv: int, done: Done, *, decided: bool = False) -> None:
        """Nobody else writes."""
        del base_rv, decided
        done(None)

    async def news(self, timeout_s: float) -> int:
        await anyio.sleep(timeout_s)
        return 0

    def load(self) -> Snapshot:
        return Snapshot(
            self._base_rv, self._base_ts_us, self._epoch, self._base_rv, self._cluster_uid,
            list(self._kinds.values()), self._base, list(self._leases.values()),
        )  # fmt: skip

    def _base_leases(self) -> list[LeaseRow]:
        from_base = [record for record in self._base if record.key.resource == leases.RESOURCE]
        rows = []
        for record in from_base:
            body = record.document.body
            row, _ = leases.advance(
                None, record.oid, record.rv, self._base_ts_us, record.value, body, renewal=False
            )
            rows.append(row)
        return rows

    def register(self, kinds: Sequence[KindRow]) -> None:
        self._kinds.update((row.resource, row) for row in kinds)

    def commit(self, batch: Batch, done: Done) -> None:
        for staged in batch.staged:
            self._keep(staged)
        for oid, lease in batch.leases.items():
            if lease is None:
                self._leases.pop(oid, None)
            else:
                self._leases[oid] = lease
        if batch.rv > batch.base_rv:
            self._times.extend((staged.event.ts_us, staged.event.rv) for staged in batch.staged)
        self.decisions.extend(batch.decisions)
        self.inputs.extend(batch.inputs)
        done(None)

    def _keep(self, staged: Staged) -> None:
        event = staged.event
        oid = event.record.oid
        if event.op is Op.RENEWED:
            return
        logged = self._logged(event, staged.prev_rv)
        self._rows.append(logged)
        if event.op is Op.ADDED:
            self._born(logged, oid)
            return
        life = self._by_oid[oid]
        if event.op is Op.DELETED:
            life.deleted_rv = event.rv
        else:
            life.rows.append(logged)

    def _logged(self, event: Event, prev_rv: int) -> Event:
        """As history tells it: the previous state is the previous event row, renewals in between are gone."""
        if event.previous is None or event.previous.rv == prev_rv:
            return event
        return attrs.evolve(event, previous=self._by_oid[event.record.oid].at(prev_rv))

    def _born(self, event: Event, oid: int) -> None:
        key = event.record.key
        life = Incarnation((key.namespace, key.name), oid, [event])
        self._by_oid[oid] = life
        self._by_place.setdefault(key.resource, {}).setdefault(life.place, []).append(life)

    def chore(self, work: Callable[[Any], None], done: Done) -> None:
        del work
        done(StoreError("a log in memory is not sealed"))

    def idle(self, done: Done) -> bool:
        del done
        return False

    async def get_at(self, resource: str, namespace: str, name: str, rv: int) -> Record | None:
        lives = self._by_place.get(resource, {}).get((namespace, name), [])
        return next((record for life in reversed(lives) if (record := self._at(life, rv))), None)

    def _at(self, life: Incarnation, rv: int) -> Record | None:
        record = life.at(rv)
        lease = self._leases.get(life.oid)
        if record is None or lease is None or not record.rv < lease.rv <= rv:
            return record
        return attrs.evolve(record, rv=lease.rv, document=Document.at(lease.body, lease.rv))

    async def list_at(
        self,
        resource: str,
        rv: int,
        namespace: str | None,
        after: tuple[str, str] | None,
        limit: int | None,
    ) -> Sequence[Record]:
        found: list[Record] = []
        for place, lives in sorted(self._by_place.get(resource, {}).items()):
            if (namespace is not None and place[0] != namespace) or (after is not None and place <= after):
                continue
            if limit is not None and len(found) >= limit:
                break
            found.extend(record for life in lives if (record := self._at(life, rv)))
        return found

    async def events_since(
        self, rv: int, until: int, resources: Sequence[str] | None, limit: int
    ) -> Sequence[Event]:
        low = bisect.bisect_right(self._rows, rv, key=_rv)
        high = bisect.bisect_right(self._rows, until, key=_rv)
        rows = self._rows[low:high]
        if resources is not None:
            rows = [event for event in rows if event.key.resource in resources]
        if resources is None or leases.RESOURCE in resources:
            rows = sorted([*rows, *self._renewals(rv, until)], key=_rv)
        return rows[:limit]

    def _renewals(self, rv: int, until: int) -> list[Event]:
        found = []
        for lease in self._leases.values():
            if rv < lease.rv <= until and lease.rv != lease.logged_rv:
                last = self._by_oid[lease.oid].rows[-1].record
                record = attrs.evolve(last, rv=lease.rv, document=Document.at(lease.body, lease.rv))
                found.append(Event(lease.rv, Op.RENEWED, record, last, lease.renewed_us, Cause()))
        return found

    async def rv_at(self, ts_us: int) -> int:
        index = bisect.bisect_right(self._times, ts_us, key=lambda time: time[0])
        return self._times[index - 1][1] if index else self._base_rv if ts_us >= self._base_ts_us else 0

    def close(self) -> None: ...
