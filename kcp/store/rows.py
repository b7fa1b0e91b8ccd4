"""Rows of the SQLite tables: batches to statements, rows to records, reads at a revision.

Raw SQL on purpose: these are the append, the snapshot load and the tail reads. Column lists come from
`columns`, so the schema has one source. Bodies are TEXT for the SQL views and are read as BLOB, to get the bytes as they are.

The objects alive at a revision R are those that are alive now and were born by R, and those that died after R:
two indexes, so the cost does not grow with older history. Each then needs one seek for its newest event up to R.
"""

from __future__ import annotations

import functools
import hashlib
import heapq
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import orjson

from kcp.base.interpreter import collection_put_off
from kcp.machinery.document import Document
from kcp.machinery.gvk import group_resource
from kcp.store import leases
from kcp.store.columns import COLUMNS, FACTS
from kcp.store.driver import Batch, Staged
from kcp.store.leases import LeaseRow
from kcp.store.protocol import (
    Actor,
    Cause,
    Decision,
    Event,
    HistoryClass,
    Input,
    Key,
    KindRow,
    Op,
    Record,
    StoreError,
)

Rows = list[tuple[Any, ...]]


def insert(table: str, *, bodies: Sequence[str] = (), or_: str = "", leave: Sequence[str] = ()) -> str:
    """INSERT of all columns but `leave`, in their order. `bodies` are bound as bytes and stored as TEXT."""
    columns = [name for name in COLUMNS[table] if name not in leave]
    marks = ["CAST(? AS TEXT)" if name in bodies else "?" for name in columns]
    names = ", ".join(f'"{name}"' for name in columns)
    return f"INSERT {or_}INTO {table} ({names}) VALUES ({', '.join(marks)})"


INSERT_EVENT = insert("events", bodies=("body",), leave=("body_raw",))
INSERT_OBJECT = insert("objects")
PUT_LEASE = insert("leases", bodies=("body",), or_="OR REPLACE ")
DROP_LEASE = "DELETE FROM leases WHERE oid = ?"
INSERT_ACTOR = insert("actors")
INSERT_TICK = insert("ticks", or_="OR IGNORE ")
INSERT_DECISION = insert("decisions", bodies=("frontier", "effects", "memo"), or_="OR REPLACE ")
INSERT_INPUT = insert("inputs", bodies=("payload",), or_="OR REPLACE ")
UPSERT_KIND = insert("kinds", or_="OR REPLACE ")
INSERT_FACT = {table: insert(table, or_="OR REPLACE ") for table in FACTS}


WIDE_FROM = 4
WIDEST = 256
WIDE_STEP = 32
"""A wide statement has a multiple of so many rows, or fewer than these: so few are prepared, and two do for most batches."""


@functools.cache
def _wide(statement: str, width: int) -> str:
    """The statement for `width` rows at once: SQLite runs it without the interpreter lock, and asks for it once."""
    head, mark, row = statement.partition("VALUES ")
    return head + mark + ", ".join([row] * width)


def execute(connection: sqlite3.Connection, statement: str, values: Rows) -> None:
    """`executemany`, in few steps."""
    if len(values) < WIDE_FROM or not statement.startswith("INSERT"):
        connection.executemany(statement, values)
        return
    at, end = 0, len(values)
    while at < end:
        left = min(end - at, WIDEST)
        width = left if left < WIDE_STEP else left - left % WIDE_STEP
        connection.execute(_wide(statement, width), list(chain.from_iterable(values[at : at + width])))
        at += width


class Actors:
    """Actors to their numbers. Forgetting an entry costs a second row for the same actor, nothing else."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._ids: dict[Actor, int] = {}
        self._new: dict[Actor, int] = {}
        self._last = 0
        self._latest: tuple[Actor | None, int] = (None, 0)

    def load(self, connection: sqlite3.Connection) -> None:
        (self._last,) = connection.execute("SELECT coalesce(max(actor_id), 0) FROM actors").fetchone()
        found = connection.execute(
            "SELECT actor_id, username, groups, user_agent, field_manager, source_ip FROM actors"
            " ORDER BY actor_id DESC LIMIT ?",
            (self._kept // 2,),
        )
        self._ids = {actor_of(values): number for number, *values in found}

    def number(self, actor: Actor) -> int:
        latest, number = self._latest
        if latest is not actor:
            number = self._number(actor)
            self._latest = actor, number
        return number

    def _number(self, actor: Actor) -> int:
        number = self._ids.get(actor)
        if number is None:
            if len(self._ids) >= self._kept:
                self._ids.clear()
            self._last += 1
            number = self._ids[actor] = self._new[actor] = self._last
        return number

    def new_rows(self) -> Rows:
        return [
            (number, actor.username, orjson.dumps(actor.groups).decode(), actor.user_agent, actor.field_manager, actor.source_ip)
            for actor, number in self._new.items()
        ]  # fmt: skip

    def keep_new(self) -> None:
        self._new = {}

    def forget_new(self) -> None:
        for actor in self._new:
            self._ids.pop(actor, None)
        self._new = {}
        self._latest = (None, 0)


def actor_of(values: Sequence[Any]) -> Actor:
    username, groups, user_agent, field_manager, source_ip = values
    return Actor(username, tuple(orjson.loads(groups)), user_agent, field_manager, source_ip)


def kind_values(kind_id: int, row: KindRow) -> tuple[Any, ...]:
    return (kind_id, row.group, row.version, row.kind, row.plural, int(row.namespaced), row.history_class)


def statements(batch: Batch, actors: Actors) -> list[tuple[str, Rows]]:
    """What to execute beside the changes themselves (`sqlite_append`), with its rows. `actors` has numbered the batch's."""
    found = [(INSERT_ACTOR, actors.new_rows())]
    if batch.leases:
        kept = [lease for lease in batch.leases.values() if lease is not None]
        found.append((PUT_LEASE, [lease_values(lease) for lease in kept]))
        found.append((DROP_LEASE, [(oid,) for oid, lease in batch.leases.items() if lease is None]))
    found.append((INSERT_TICK, list(batch.ticks)))
    found.extend((INSERT_FACT[table], list(facts)) for table, facts in batch.facts.items())
    found.append((INSERT_DECISION, [decision_values(rv, decision) for rv, decision in batch.decisions]))
    found.append((INSERT_INPUT, [input_values(rv, seq, entry) for rv, seq, entry in batch.inputs]))
    return [(statement, values) for statement, values in found if values]


def lease_values(lease: LeaseRow) -> tuple[Any, ...]:
    return (
        lease.oid, lease.rv, lease.holder, lease.epoch, lease.acquired_us, lease.renewed_us, lease.ttl_ms, lease.body,
    )  # fmt: skip


def digest(value: Any) -> str:
    """Sixteen hex digits that name a JSON value."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def decision_values(rv: int, d: Decision) -> tuple[Any, ...]:
    memo = None if d.memo_before is None else orjson.dumps(d.memo_before, option=orjson.OPT_SORT_KEYS)
    return (
        d.id, d.controller, d.epoch, d.key, d.trigger, orjson.dumps(d.frontier, option=orjson.OPT_SORT_KEYS),
        d.now_us, d.duration_us, orjson.dumps(d.effects, option=orjson.OPT_SORT_KEYS), digest(d.effects),
        memo, None if memo is None else digest(d.memo_before), d.code_hash, d.config_hash, rv, d.first_rv, d.last_rv,
    )  # fmt: skip


def input_values(rv: int, seq: int, entry: Input) -> tuple[Any, ...]:
    return (rv, seq, entry.kind, orjson.dumps(entry.payload, option=orjson.OPT_SORT_KEYS))


def load_kinds(connection: sqlite3.Connection) -> Iterator[tuple[int, KindRow]]:
    found = connection.execute(
        "SELECT kind_id, grp, version, kind, plural, namespaced, history_class FROM kinds ORDER BY kind_id"
    )
    for kind_id, group, version, kind, plural, namespaced, history_class in found:
        keep: HistoryClass = history_class
        resource = group_resource(group, plural)
        yield kind_id, KindRow(resource, group, version, kind, plural, bool(namespaced), keep)


def load_leases(connection: sqlite3.Connection) -> dict[int, LeaseRow]:
    found = connection.execute(
        "SELECT l.oid, l.rv, o.rv, holder, epoch, acquired_us, renewed_us, ttl_ms, CAST(body AS BLOB)"
        " FROM leases l JOIN objects o ON o.oid = l.oid ORDER BY l.oid"
    )
    return {values[0]: LeaseRow(*values) for values in found}


def load_records(
    connection: sqlite3.Connection,
    resources: Mapping[int, str],
    kind_ids: Mapping[str, int],
    live_leases: Mapping[int, LeaseRow],
) -> list[Record]:
    """Every live object, by kind, namespace, name. Raises StoreError when a body is missing."""
    found = connection.execute(
        "SELECT o.kind_id, o.ns, o.name, o.uid, o.oid, o.rv, o.expires_us, CAST(e.body AS BLOB)"
        " FROM objects o INDEXED BY objects_live LEFT JOIN events e ON e.rv = o.rv"
        " WHERE o.delete_rv IS NULL ORDER BY o.kind_id, o.ns, o.name"
    )
    lease_kind = kind_ids.get(leases.RESOURCE)
    records: list[Record] = []
    for kind_id, ns, name, uid, oid, rv, expires_us, body in found:
        key = Key(resources[kind_id], ns, name)
        if kind_id == lease_kind and oid in live_leases:
            rv, body = live_leases[oid].rv, live_leases[oid].body
        if body is None:
            raise StoreError(f"the event log is damaged: revision {rv} of {key} is missing")
        document = Document.at(body, rv)
        try:
            document.encoded  # noqa: B018 made here, so that damage is found at the start
        except ValueError:
            raise StoreError(f"the event log is damaged: revision {rv} of {key} is no object") from None
        records.append(Record(key, uid, oid, rv, document, expires_us))
    return records


_LIFE_AT = """
SELECT oid, ns, name, uid, expires_us FROM objects INDEXED BY objects_live
 WHERE kind_id = :kind AND delete_rv IS NULL AND oid <= :rv {range}
UNION ALL
SELECT oid, ns, name, uid, expires_us FROM objects INDEXED BY objects_dead
 WHERE kind_id = :kind AND delete_rv > :rv AND oid <= :rv {range}
 ORDER BY ns, name LIMIT :limit
"""

_NEWEST = (
    " CROSS JOIN events e ON e.rv = (SELECT max(z.rv) FROM events z WHERE z.oid = o.oid AND z.rv <= :rv)"
)
_LEASE = " LEFT JOIN leases l ON l.oid = o.oid AND l.rv <= :rv AND l.rv > e.rv"
_OBJECT = "o.oid, o.ns, o.name, o.uid, o.expires_us"


def _seek(resource: str) -> tuple[str, str]:
    """The join from `o` to the newest state up to :rv, and its columns."""
    if resource == leases.RESOURCE:
        return _NEWEST + _LEASE, f"{_OBJECT}, coalesce(l.rv, e.rv), CAST(coalesce(l.body, e.body) AS BLOB)"
    return _NEWEST, f"{_OBJECT}, e.rv, CAST(e.body AS BLOB)"


def _record(resource: str, values: Sequence[Any]) -> Record:
    oid, ns, name, uid, expires_us, rv, body = values
    return Record(Key(resource, ns, name), uid, oid, rv, Document.at(body, rv), expires_us)


def _place(record: Record) -> tuple[str, str]:
    return record.key.namespace, record.key.name


def list_at(
    connection: sqlite3.Connection,
    kind: int,
    resource: str,
    rv: int,
    namespace: str | None,
    after: tuple[str, str] | None,
    limit: int | None,
) -> list[Record]:
    """The join comes in the order of the inner select, so an ORDER BY would only copy all bodies into a sorter."""
    conditions = ""
    if namespace is not None:
        conditions += " AND ns = :ns"
    if after is not None:
        conditions += " AND (ns, name) > (:after_ns, :after_name)"
    join, columns = _seek(resource)
    after_ns, after_name = after or ("", "")
    found = connection.execute(
        f"SELECT {columns} FROM ({_LIFE_AT.format(range=conditions)}) o {join}",
        {
            "kind": kind, "rv": rv, "ns": namespace, "after_ns": after_ns, "after_name": after_name,
            "limit": -1 if limit is None else limit,
        },
    )  # fmt: skip
    with collection_put_off():
        records = [_record(resource, values) for values in found]
    records.sort(key=_place)
    return records


def get_at(
    connection: sqlite3.Connection, kind: int, resource: str, namespace: str, name: str, rv: int
) -> Record | None:
    join, columns = _seek(resource)
    query = (
        f"SELECT {columns} FROM (SELECT oid, ns, name, uid, expires_us, delete_rv FROM objects"
        " WHERE kind_id = :kind AND ns = :ns AND name = :name AND oid <= :rv ORDER BY oid DESC LIMIT 1) o"
        f" {join} WHERE o.delete_rv IS NULL OR o.delete_rv > :rv"
    )
    values = connection.execute(query, {"kind": kind, "ns": namespace, "name": name, "rv": rv}).fetchone()
    return None if values is None else _record(resource, values)


_EVENTS = """
SELECT e.rv, e.oid, e.op, e.prev_rv, e.ts_us, e.decision_id, e.request_id, CAST(e.body AS BLOB), CAST(p.body AS BLOB),
       o.kind_id, o.ns, o.name, o.uid, o.expires_us, e.actor_id
  FROM events e CROSS JOIN objects o ON o.oid = e.oid LEFT JOIN events p ON p.rv = e.prev_rv
 WHERE e.rv > ? AND e.rv <= ? {kinds} ORDER BY e.rv LIMIT ?
"""

_RENEWALS = """
SELECT l.rv, l.oid, 3, o.rv, l.renewed_us, NULL, NULL, CAST(l.body AS BLOB), CAST(p.body AS BLOB),
       o.kind_id, o.ns, o.name, o.uid, o.expires_us, NULL
  FROM leases l CROSS JOIN objects o ON o.oid = l.oid LEFT JOIN events p ON p.rv = o.rv
 WHERE l.rv > ? AND l.rv <= ? AND l.rv <> o.rv ORDER BY l.rv LIMIT ?
"""


def events_since(
    connection: sqlite3.Connection,
    resources: Mapping[int, str],
    rv: int,
    until: int,
    kinds: Sequence[int] | None,
    limit: int,
) -> list[Event]:
    wanted = "" if kinds is None else f"AND o.kind_id IN ({','.join(str(kind) for kind in kinds)})"
    rows = connection.execute(_EVENTS.format(kinds=wanted), (rv, until, limit)).fetchall()
    if kinds is None or any(resources[kind] == leases.RESOURCE for kind in kinds):
        renewals = connection.execute(_RENEWALS, (rv, until, limit)).fetchall()
        if renewals:
            rows = list(heapq.merge(rows, renewals, key=lambda row: row[0]))
            rows = rows if limit < 0 else rows[:limit]
    actors = _actors(connection, sorted({row[14] for row in rows if row[14] is not None}))
    return [_event(row, resources, actors) for row in rows]


def _actors(connection: sqlite3.Connection, numbers: Sequence[int]) -> dict[int | None, Actor]:
    found: dict[int | None, Actor] = {None: Actor("")}
    for start in range(0, len(numbers), 500):
        some = numbers[start : start + 500]
        rows = connection.execute(
            "SELECT actor_id, username, groups, user_agent, field_manager, source_ip FROM actors"
            f" WHERE actor_id IN ({','.join('?' * len(some))})",
            some,
        )
        found.update((number, actor_of(values)) for number, *values in rows)
    return found


def _event(row: Sequence[Any], resources: Mapping[int, str], actors: Mapping[int | None, Actor]) -> Event:
    (
        rv,
        oid,
        op_number,
        prev_rv,
        ts_us,
        decision_id,
        request_id,
        body,
        prev_body,
        kind,
        ns,
        name,
        uid,
        expires,
        actor,
    ) = row
    op, key = Op(op_number), Key(resources[kind], ns, name)
    previous = None
    if prev_body is not None:
        previous = Record(key, uid, oid, prev_rv, Document.at(prev_body, prev_rv), expires)
    if op is Op.DELETED and body is None:
        body = prev_body
    if body is None:
        raise StoreError(f"the event log is damaged: revision {rv} of {key} has no body")
    record = Record(key, uid, oid, rv, Document.at(body, rv), expires)
    cause = Cause() if op is Op.RENEWED else Cause(actors[actor], request_id or "", decision_id)
    return Event(rv, op, record, previous, ts_us, cause)


def load_tail(connection: sqlite3.Connection, base_rv: int, resources: Mapping[int, str]) -> Batch:
    """What the file holds beyond `base_rv`, as a batch to publish."""
    rv, ts_us, horizon = connection.execute("SELECT rv, ts_us, horizon_rv FROM head WHERE id = 1").fetchone()
    events = events_since(connection, resources, base_rv, rv, None, -1) if rv > base_rv else []
    staged = [Staged(event, event.previous.rv if event.previous else 0, None) for event in events]
    touched: dict[int, LeaseRow | None] = {}
    live = load_leases(connection)
    for event in events:
        if event.key.resource == leases.RESOURCE:
            touched[event.record.oid] = live.get(event.record.oid)
    return Batch(base_rv, rv, ts_us, 0, staged, touched, horizon=horizon)


def same_changes(tail: Batch, batch: Batch) -> bool:
    """Whether the tail found in the file is this batch, which was committed although the engine said otherwise."""
    told = [(e.rv, e.op, e.record.oid, e.record.uid, e.ts_us) for e in (s.event for s in batch.staged)]
    found = {e.rv: (e.rv, e.op, e.record.oid, e.record.uid, e.ts_us) for e in (s.event for s in tail.staged)}
    return tail.rv == batch.rv and all(found.get(values[0], values) == values for values in told)


_RV_AT = """
SELECT max(t.rv, coalesce((SELECT max(e.rv) FROM events e WHERE e.rv > t.rv AND e.ts_us <= :ts_us
         AND e.rv <= coalesce((SELECT n.rv FROM ticks n WHERE n.second > t.second ORDER BY n.second LIMIT 1),
                              9223372036854775807)), 0))
  FROM ticks t WHERE t.second <= :ts_us / 1000000 ORDER BY t.second DESC LIMIT 1
"""


def rv_at(connection: sqlite3.Connection, ts_us: int) -> int:
    """The newest event row whose time is not after `ts_us`; 0 before the first."""
    found = connection.execute(_RV_AT, {"ts_us": ts_us}).fetchone()
    return 0 if found is None else int(found[0])
