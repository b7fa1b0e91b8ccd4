"""A log written from what another Kubernetes left behind: its own revisions, with gaps where it did not tell.

    write_log(target, [Change(...), ...], kinds, ...)       changes in any order

A change names its revision when its source does; the others are put by their time into the gaps between those.
The file is an ordinary log at rest: `unlogged` counts the gaps, nothing below its head is served to watchers.

    told      rv 7 a created · rv 9 a changed · (no rv, 12:00:03) b changed · rv 15 (12:00:04) a, with another uid
    written   rv 7 ADDED a · rv 9 MODIFIED a · rv 10 MODIFIED b · rv 14 DELETED a · rv 15 ADDED a

The first event of an object that was not created before our eyes is MODIFIED without a previous row.
"""

from __future__ import annotations

import hashlib
import sqlite3
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import orjson

from kcp.base.clock import Clock
from kcp.base.values import frozen
from kcp.machinery.document import Document, normal
from kcp.store import leases, rows, schema
from kcp.store.columns import UNTOLD
from kcp.store.leases import LeaseRow
from kcp.store.protocol import (
    MAX_BODY_BYTES,
    Actor,
    Cause,
    Event,
    Input,
    Key,
    KindRow,
    Op,
    Projection,
    Record,
    StoreError,
)
from kcp.store.redaction import UNTOLD_ANNOTATION, blank
from kcp.store.stage import project
from kcp.store.transfer import history_checksum, new_file, tell, version

NOBODY = Actor("")
PAGE_ROWS = 2000


@frozen
class Change:
    """One change as a source told it.

    `body` is the normal form of the object after it; None for a removal, and where the source told no body. A removal
    may carry the object's last state, for when nothing else tells it. `rv` 0, `ts_us` 0: not told. `created`: the
    source saw the object come into being here. `created_rv`: the revision that made it, where that is told.
    """

    key: Key
    rv: int = 0
    ts_us: int = 0
    body: bytes | None = None
    uid: str = ""
    removed: bool = False
    created: bool = False
    created_rv: int = 0
    actor: Actor = NOBODY
    request_id: str = ""


@frozen
class Written:
    """`untold` counts events without a body, `moved` removals told at a revision that another change has, `left_out` changes
    that found no place between the neighbours of their object.

    `first_rv` is the oldest of its events; `gaps` revisions between it and the last are of changes that nobody told.
    """

    base_rv: int
    first_rv: int
    last_rv: int
    gaps: int
    events: int
    untold: int
    moved: int
    left_out: int
    checksum: str


# --- order ---


@frozen
class Order:
    """`moved` and `left_out` count as in Written."""

    changes: Sequence[Change]
    moved: int = 0
    left_out: int = 0


def in_order(changes: Sequence[Change], *, base_rv: int = 0) -> Order:
    """Every change with a revision of its own, ascending; what was told twice is there once.

    A change without one takes the free revision that is nearest to those told before it, between the neighbours of its own
    object; where these leave no room, what it did is in the later of them, and it is left out. So does a removal whose
    revision is taken, later: a store that lets several keys expire at once gives them all the same revision.
    """
    fixed, loose = _fixed(changes)
    places = _Places({change.rv for change in fixed}, base_rv)
    known: dict[Key, list[int]] = {}
    for change in fixed:
        known.setdefault(change.key, []).append(change.rv)
    placed: list[Change] = []
    clock_us, at, cursor = 0, 0, base_rv
    latest: dict[Key, int] = {}
    for change in sorted(loose, key=lambda change: (change.ts_us, change.rv)):
        while at < len(fixed) and _is_earlier(fixed[at], change, clock_us):
            told = fixed[at]
            clock_us, cursor = max(clock_us, told.ts_us), max(cursor, told.rv)
            latest[told.key] = max(told.rv, latest.get(told.key, 0))
            at += 1
        low = max(base_rv, change.rv, latest.get(change.key, 0))
        rv = places.take(max(cursor, low), low, _next(known.get(change.key, ()), low))
        if rv:
            latest[change.key], cursor = rv, max(cursor, rv)
            placed.append(attrs.evolve(change, rv=rv))
    ordered = sorted([*fixed, *placed], key=lambda change: change.rv)
    moved = sum(1 for change in loose if change.rv)
    return Order(_with_untold_removals(ordered, places), moved, len(loose) - len(placed))


def _next(revisions: Sequence[int], after: int) -> int:
    """The first of these above `after`; 0 when there is none."""
    at = bisect_right(revisions, after)
    return revisions[at] if at < len(revisions) else 0


class _Places:
    """Which revisions are taken; finds the free ones on either side of one in almost constant time."""

    def __init__(self, taken: set[int], base_rv: int) -> None:
        self._base_rv = base_rv
        self._above = {rv: rv + 1 for rv in taken}
        self._below = {rv: rv - 1 for rv in taken}

    def take(self, near: int, low: int, high: int = 0) -> int:
        """Takes the free revision nearest to `near` with low < rv (< high, unless 0); 0 when there is none."""
        above, below = self._free(self._above, near + 1), self._free(self._below, near)
        fits_above, fits_below = not high or above < high, below > max(low, self._base_rv)
        if not fits_above and not fits_below:
            return 0
        rv = below if fits_below and (not fits_above or near - below < above - near) else above
        self._above[rv], self._below[rv] = rv + 1, rv - 1
        return rv

    def take_below(self, high: int, low: int) -> int:
        """Takes the highest free revision with low < rv < high; 0 when there is none."""
        rv = self._free(self._below, high - 1)
        if rv <= low:
            return 0
        self._above[rv], self._below[rv] = rv + 1, rv - 1
        return rv

    @staticmethod
    def _free(links: dict[int, int], rv: int) -> int:
        passed = []
        while rv in links:
            passed.append(rv)
            rv = links[rv]
        for each in passed:
            links[each] = rv
        return rv


def _is_earlier(fixed: Change, loose: Change, clock_us: int) -> bool:
    if loose.rv:
        return fixed.rv <= loose.rv
    return max(fixed.ts_us, clock_us) <= loose.ts_us


def _fixed(changes: Sequence[Change]) -> tuple[list[Change], list[Change]]:
    """Those that keep their revision, ascending, and the others."""
    known: dict[int, Change] = {}
    loose = []
    for change in changes:
        before = known.get(change.rv) if change.rv else None
        if change.rv and before is None:
            known[change.rv] = change
        elif before is not None and before.key == change.key:
            known[change.rv] = _better(before, change)
        elif change.rv and not change.removed:
            raise StoreError(
                f"revision {change.rv} is told of {known[change.rv].key} and of {change.key}:"
                " these sources are not of one cluster"
            )
        else:
            loose.append(change)
    return [known[rv] for rv in sorted(known)], loose


def _better(one: Change, other: Change) -> Change:
    """Of two accounts of the same change the one that tells more, with what only the other knows."""
    if one.removed != other.removed:
        return one if one.removed else other
    first, second = (one, other) if one.body is not None or other.body is None else (other, one)
    return attrs.evolve(
        first,
        ts_us=first.ts_us or second.ts_us,
        created=first.created or second.created,
        actor=first.actor if first.actor != NOBODY else second.actor,
        request_id=first.request_id or second.request_id,
    )


def _with_untold_removals(ordered: Sequence[Change], places: _Places) -> list[Change]:
    """Where a name comes back with another uid, the object before it went: as late as there is room."""
    found: list[Change] = []
    live: dict[Key, Change] = {}
    for change in ordered:
        before = live.get(change.key)
        another = before is not None and _is_another(before, change)
        if before is not None and another:
            rv = places.take_below(change.rv, before.rv)
            if rv:
                found.append(Change(change.key, rv, 0, None, before.uid, removed=True))
        if change.removed:
            live.pop(change.key, None)
        else:
            known = change.uid or (before.uid if before is not None and not another else "")
            live[change.key] = attrs.evolve(change, uid=known)
        found.append(change)
    return sorted(found, key=lambda change: change.rv)


def _is_another(before: Change, change: Change) -> bool:
    """Whether the object of a name is not the one that was there before."""
    if before.uid and change.uid:
        return before.uid != change.uid
    return change.created


# --- writing ---


@attrs.define
class _Life:
    """One incarnation while it is written."""

    oid: int
    uid: str
    rv: int
    body: bytes
    document: Document


@attrs.define
class _Writer:
    connection: sqlite3.Connection
    kinds: Mapping[str, KindRow]
    projections: Sequence[Projection]
    ts_us: int
    kind_ids: dict[str, int] = attrs.field(factory=dict)
    actors: rows.Actors = attrs.field(factory=lambda: rows.Actors(50_000))
    live: dict[Key, _Life] = attrs.field(factory=dict)
    leases: dict[int, LeaseRow] = attrs.field(factory=dict)
    objects: dict[int, tuple[Any, ...]] = attrs.field(factory=dict)
    events: rows.Rows = attrs.field(factory=list)
    facts: dict[str, list[Any]] = attrs.field(factory=dict)
    ticks: rows.Rows = attrs.field(factory=list)
    rv: int = 0
    untold: int = 0

    def write(self, change: Change) -> None:
        life = self.live.get(change.key)
        ts_us = max(self.ts_us + 1, change.ts_us)
        if ts_us // 1_000_000 > self.ts_us // 1_000_000:
            self.ticks.append((ts_us // 1_000_000, self.rv))
        event, body = self._removal(change, life, ts_us) if change.removed else self._put(change, life, ts_us)
        self.rv, self.ts_us = change.rv, ts_us
        flags = UNTOLD if change.body is None and not change.removed else 0
        self.untold += bool(flags)
        self.events.append(
            (event.rv, event.record.oid, event.op.value, event.previous.rv if event.previous else 0, ts_us,
             None if change.actor == NOBODY else self.actors.number(change.actor), None, change.request_id or None, flags, body)
        )  # fmt: skip
        for table, found in project([event], self.projections).items():
            self.facts.setdefault(table, []).extend(found)
        if len(self.events) >= PAGE_ROWS:
            self.flush()

    def _put(self, change: Change, life: _Life | None, ts_us: int) -> tuple[Event, bytes | None]:
        row = self.kinds[change.key.resource]
        uid = change.uid or (life.uid if life else invented_uid(change.key, change.rv))
        body = change.body or _blank(change.key, row, uid)
        if change.body is not None and not change.uid:
            body = _with_uid(body, uid)
        if len(body) > 2 * MAX_BODY_BYTES:
            raise StoreError(f"revision {change.rv} of {change.key} is larger than any object can be")
        previous = None if life is None else _record(change.key, life)
        oid = self._oid(change) if life is None else life.oid
        life = self.live[change.key] = _Life(oid, uid, change.rv, body, Document.at(body, change.rv))
        op = Op.ADDED if previous is None and change.created else Op.MODIFIED
        self._remember(change.key, life, None)
        if change.key.resource == leases.RESOURCE:
            before, value = self.leases.get(life.oid), life.document.value
            self.leases[life.oid], _ = leases.advance(
                before, life.oid, change.rv, ts_us, value, body, renewal=False
            )
        return Event(change.rv, op, _record(change.key, life), previous, ts_us, Cause()), body

    def _removal(self, change: Change, life: _Life | None, ts_us: int) -> tuple[Event, bytes | None]:
        key, row = change.key, self.kinds[change.key.resource]
        previous = None if life is None else _record(key, life)
        body = None
        if life is None:
            uid = change.uid or invented_uid(key, change.rv)
            body = change.body or _blank(key, row, uid)
            life = _Life(self._oid(change), uid, change.rv, body, Document.at(body, change.rv))
        elif key.resource == leases.RESOURCE:
            body = self.leases.pop(life.oid).body
        self.live.pop(key, None)
        last = _Life(life.oid, life.uid, change.rv, life.body, Document.at(life.body, change.rv))
        self._remember(key, last, change.rv)
        return Event(change.rv, Op.DELETED, _record(key, last), previous, ts_us, Cause()), body

    def _oid(self, change: Change) -> int:
        """The revision that made it, where that is told and nothing else was made there."""
        told = change.created_rv
        return told if 0 < told <= change.rv and told not in self.objects else change.rv

    def _remember(self, key: Key, life: _Life, delete_rv: int | None) -> None:
        kind = self.kind_ids[key.resource]
        self.objects[life.oid] = (
            life.oid,
            kind,
            key.namespace,
            key.name,
            life.uid,
            life.rv,
            delete_rv,
            None,
        )

    def flush(self) -> None:
        self.connection.executemany(rows.INSERT_ACTOR, self.actors.new_rows())
        self.actors.keep_new()
        self.connection.executemany(rows.INSERT_EVENT, self.events)
        for table, found in self.facts.items():
            self.connection.executemany(rows.INSERT_FACT[table], found)
        self.events, self.facts = [], {}

    def finish(self) -> None:
        self.flush()
        put = self.connection.executemany
        put(rows.INSERT_OBJECT, [self.objects[oid] for oid in sorted(self.objects)])
        put(rows.INSERT_TICK, self.ticks)
        put(rows.PUT_LEASE, [rows.lease_values(self.leases[oid]) for oid in sorted(self.leases)])


def _record(key: Key, life: _Life) -> Record:
    return Record(key, life.uid, life.oid, life.rv, life.document)


def _blank(key: Key, row: KindRow, uid: str) -> bytes:
    return normal(blank(key, row.kind, row.group, row.version, uid, UNTOLD_ANNOTATION))


def _with_uid(body: bytes, uid: str) -> bytes:
    value = orjson.loads(body)
    return normal({**value, "metadata": {**value["metadata"], "uid": uid}})


def invented_uid(key: Key, rv: int) -> str:
    """For an object whose source strips uids: the same for the same file, in the form of a UUID."""
    text = hashlib.sha256(f"{key} {rv}".encode()).hexdigest()
    return f"{text[:8]}-{text[8:12]}-8{text[13:16]}-8{text[17:20]}-{text[20:32]}"


def write_log(
    target: Path,
    changes: Sequence[Change],
    kinds: Mapping[str, KindRow],
    *,
    clock: Clock,
    base_rv: int = 0,
    projections: Sequence[Projection] = (),
    inputs: Sequence[Input] = (),
    about: Mapping[str, str] | None = None,
) -> Written:
    """Write `changes` as a new log. `base_rv`: the state up to there is what was found, not what happened.

    Raises StoreError when the target exists, when there is nothing to write, or two changes claim one revision.
    """
    order = in_order(changes, base_rv=base_rv)
    ordered = order.changes
    if not ordered:
        raise StoreError("there is nothing in it that changed an object")
    with new_file(target) as connection:
        connection.execute("BEGIN IMMEDIATE")
        writer = _Writer(connection, kinds, projections, _start_us(ordered))
        _write_kinds(writer, ordered)
        for change in ordered:
            writer.write(change)
        writer.finish()
        _write_inputs(connection, base_rv, inputs)
        _write_head(connection, writer, base_rv)
        checksum = history_checksum(connection, base_rv)
        connection.execute("COMMIT")
        (events,) = connection.execute("SELECT count(*) FROM events WHERE rv > ?", (base_rv,)).fetchone()
        facts = {
            "first_rv": str(base_rv + 1), "last_rv": str(writer.rv), "events": str(events),
            "history_checksum": checksum, "imported_at": clock.now().isoformat(), "kcp_version": version(),
            "schema": schema.HEAD, **({"base_rv": str(base_rv)} if base_rv else {}), **(about or {}),
        }  # fmt: skip
        tell(connection, facts)
    first = next((change.rv for change in ordered if change.rv > base_rv), writer.rv + 1)
    gaps = writer.rv - first + 1 - events
    return Written(
        base_rv, first, writer.rv, gaps, len(ordered), writer.untold, order.moved, order.left_out, checksum
    )


def _start_us(ordered: Sequence[Change]) -> int:
    """A time before the first change: those before the first known time come just before it."""
    for index, change in enumerate(ordered):
        if change.ts_us:
            return max(0, change.ts_us - index - 1)
    return 0


def _write_kinds(writer: _Writer, ordered: Sequence[Change]) -> None:
    for resource in sorted({change.key.resource for change in ordered}):
        number = writer.kind_ids[resource] = len(writer.kind_ids) + 1
        writer.connection.execute(rows.UPSERT_KIND, rows.kind_values(number, writer.kinds[resource]))


def _write_inputs(connection: sqlite3.Connection, rv: int, inputs: Sequence[Input]) -> None:
    values = [rows.input_values(rv, seq, entry) for seq, entry in enumerate(inputs, 1)]
    connection.executemany(rows.INSERT_INPUT, values)


def _write_head(connection: sqlite3.Connection, writer: _Writer, base_rv: int) -> None:
    """Nobody has watched this log: its API history begins at its end."""
    last = max(writer.rv, base_rv)
    count = connection.execute("SELECT count(*) FROM events").fetchone()[0]
    connection.execute(
        "INSERT INTO head (id, rv, ts_us, epoch, horizon_rv, sealed_rv, unlogged, cluster_uid) VALUES (1, ?, ?, 1, ?, 0, ?, ?)",
        (last, writer.ts_us, last, last - count, _cluster_uid(writer)),
    )


def _cluster_uid(writer: _Writer) -> str:
    """What people take for it: the uid of kube-system; else one that follows from the newest object."""
    system = writer.live.get(Key("namespaces", "", "kube-system"))
    return system.uid if system is not None else invented_uid(Key("", "", str(writer.ts_us)), writer.rv)
