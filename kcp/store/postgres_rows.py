"""Rows of the PostgreSQL tables: a batch to the arguments of `kcp_append`, rows to records, reads at a revision.

A body lies in `jsonb`, which keeps the value but not the bytes. Reading makes the normal form again, when someone asks
for it. A body that jsonb refuses (U+0000) or would change (a float like -0.0) lies in `body_raw`, byte by byte.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import attrs
import orjson

from kcp.machinery.codec.json import decode_json
from kcp.machinery.document import Document, Json, normal
from kcp.machinery.gvk import group_resource
from kcp.store import leases, rows, tables
from kcp.store.driver import Batch, Staged
from kcp.store.leases import LeaseRow
from kcp.store.protocol import Actor, Cause, Event, HistoryClass, Key, KindRow, Op, Record, StoreError

Row = Sequence[Any]
Query = tuple[str, tuple[Any, ...]]
"""SQL with $1, $2 …, and its arguments."""

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_FOLDED = bytes.maketrans(b"e[", b".,")
_RAW = "$raw"


def storable(body: bytes) -> tuple[str | None, bytes | None]:
    """(for the jsonb column, for body_raw): exactly what reading needs to give the same bytes."""
    if _has_nul(body):
        return None, body
    if _may_have_floats(body) and _normal_again(body) != body:
        return body.decode(), body
    return body.decode(), None


def _has_nul(body: bytes) -> bool:
    return b"\\" in body and _NUL.search(body) is not None


def _may_have_floats(compact: bytes) -> bool:
    """Without digits and signs a float begins with a dot, wherever it stands; so do a few words in strings."""
    folded = compact.translate(_FOLDED, b"-0123456789")
    return b'":.' in folded or b",." in folded


def _normal_again(body: bytes) -> bytes:
    return normal(decode_json(body)[0])


def normal_body(text: str | None, raw: bytes | None) -> bytes | None:
    """The normal form of what `storable` put away."""
    if raw is not None:
        return raw
    if text is None:
        return None
    value, _ = decode_json(text.encode())
    if isinstance(value, dict) and _RAW in value:
        return base64.b64decode(value[_RAW])
    return normal(value)


def storable_json(value: bytes) -> Any:
    """JSON that goes into a jsonb column without a raw sibling: wrapped when jsonb would refuse it."""
    if _has_nul(value):
        return {_RAW: base64.b64encode(value).decode()}
    return orjson.Fragment(value)


def storable_text(text: str) -> str:
    """Text columns cannot hold U+0000."""
    return text.replace("\0", "\ufffd") if "\0" in text else text


class StoredDocument(Document):
    """A document whose normal form is made from the database's text when first asked for."""

    __slots__ = ("_raw", "_text")

    def __init__(self, text: str | None, raw: bytes | None, rv: int) -> None:
        self._text, self._raw = text, raw
        self._body = None
        self.rv = rv
        self._value = None

    def _normal(self) -> bytes:
        body = normal_body(self._text, self._raw)
        assert body is not None
        self._text = self._raw = None
        return body


def document(text: str | None, raw: bytes | None, rv: int) -> Document:
    if raw is not None:
        return Document.at(raw, rv)
    return StoredDocument(text, raw, rv)


class Actors:
    """Actors to their numbers. Several daemons number actors, so new ones get theirs inside the append."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._ids: dict[Actor, int] = {}

    def numbering(self) -> Numbering:
        """For one batch."""
        return Numbering(self._ids)

    def keep(self, found: Numbering, base: int) -> None:
        """A batch is in the log: its new actors got the numbers after `base`."""
        if len(self._ids) + len(found.new) > self._kept:
            self._ids.clear()
        self._ids.update((actor, base - number) for actor, number in found.new.items())


class Numbering:
    """The actors of one batch: those that are known with their numbers, new ones with -1, -2 …"""

    def __init__(self, known: Mapping[Actor, int]) -> None:
        self._known = known
        self.new: dict[Actor, int] = {}

    def number(self, actor: Actor) -> int:
        number = self._known.get(actor) or self.new.get(actor)
        if number is None:
            number = self.new[actor] = -1 - len(self.new)
        return number

    def new_rows(self) -> list[Json]:
        return [
            {
                "username": storable_text(actor.username), "groups": orjson.dumps(actor.groups).decode(),
                "user_agent": storable_text(actor.user_agent), "field_manager": storable_text(actor.field_manager),
                "source_ip": storable_text(actor.source_ip),
            }
            for actor in self.new
        ]  # fmt: skip


_NAMES = {table.name: [str(c.name) for c in table.columns] for table in tables.metadata.sorted_tables}


def _named(table: str, values: Iterable[Any]) -> Json:
    return dict(zip(_NAMES[table], values, strict=True))


def _lease_row(lease: LeaseRow) -> Json:
    *plain, body = rows.lease_values(attrs.evolve(lease, holder=storable_text(lease.holder)))
    return _named("leases", [*plain, storable_json(body)])


def _decision_row(values: Sequence[Any]) -> Json:
    return _named("decisions", [_storable_value(v) for v in values])


def _storable_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return storable_json(value)
    return storable_text(value) if isinstance(value, str) else value


def append_arguments(
    batch: Batch, kind_ids: Mapping[str, int], actors: Numbering, epoch: int
) -> tuple[Any, ...]:
    """The arguments of `kcp_append`, in its order."""
    *events, bodies, raw = _columns(_event_rows(batch.staged, actors), 10)
    changed, born = _object_rows(batch.staged, kind_ids)
    more: Json = {}
    if new_actors := actors.new_rows():
        more["actors"] = new_actors
    if batch.ticks:
        more["ticks"] = [{"second": second, "rv": rv} for second, rv in batch.ticks]
    if batch.leases:
        more["leases"] = [_lease_row(lease) for lease in batch.leases.values() if lease is not None]
        more["dropped"] = [oid for oid, lease in batch.leases.items() if lease is None]
    for table, found in batch.facts.items():
        if found:
            more[table] = [_named(table, row) for row in found]
    if batch.decisions:
        more["decisions"] = [_decision_row(rows.decision_values(rv, d)) for rv, d in batch.decisions]
    if batch.inputs:
        more["inputs"] = [
            {
                "rv_after": rv,
                "kind": storable_text(entry.kind),
                "payload": storable_json(rows.input_values(rv, seq, entry)[3]),
            }
            for rv, seq, entry in batch.inputs
        ]
    return (
        epoch, batch.base_rv, batch.rv, batch.ts_us, batch.unlogged, batch.horizon or 0,
        *map(_array, events), bodies, raw, *map(_array, _columns(changed, 4)), *map(_array, _columns(born, 8)),
        orjson.dumps(more).decode() if more else None,
    )  # fmt: skip


APPEND = (
    "SELECT head_rv, actor_base, now_us FROM kcp_append($1, $2, $3, $4, $5, $6,"
    " $7::text::bigint[], $8::text::bigint[], $9::text::smallint[], $10::text::bigint[], $11::text::bigint[],"
    " $12::text::int[], $13::text::bigint[], $14::text::text[], $15, $16,"
    " $17::text::bigint[], $18::text::bigint[], $19::text::bigint[], $20::text::bigint[],"
    " $21::text::bigint[], $22::text::int[], $23::text::text[], $24::text::text[], $25::text::text[],"
    " $26::text::bigint[], $27::text::bigint[], $28::text::bigint[], $29)"
)
"""Takes `append_arguments`. Columns other than bodies come as array literals: made at once, not element by element."""


def _array(column: Sequence[int | str | None]) -> str:
    """A column as PostgreSQL's array literal. JSON is one, but for its brackets and its escapes of control characters."""
    literal = orjson.dumps(column)
    if b"\\" in literal:
        return "{" + ",".join(map(_element, column)) + "}"
    return "{" + literal[1:-1].decode() + "}"


def _element(value: int | str | None) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return str(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _columns(found: Sequence[Row], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*found, strict=True)] if found else [[] for _ in range(width)]


def _event_rows(staged_events: Sequence[Staged], actors: Numbering) -> list[Row]:
    found: list[Row] = []
    for staged in staged_events:
        event = staged.event
        if event.op is Op.RENEWED:
            continue
        cause = event.cause
        text, raw = (None, None) if staged.body is None else storable(staged.body)
        found.append(
            (event.rv, event.record.oid, event.op.value, staged.prev_rv, event.ts_us, actors.number(cause.actor),
             cause.decision_id, storable_text(cause.request_id) or None, text, raw)
        )  # fmt: skip
    return found


def _object_rows(staged_events: Sequence[Staged], kind_ids: Mapping[str, int]) -> tuple[list[Row], list[Row]]:
    born: dict[int, list[Any]] = {}
    changed: dict[int, Row] = {}
    for staged in staged_events:
        event, record = staged.event, staged.event.record
        oid, rv, key = record.oid, event.rv, record.key
        if event.op is Op.RENEWED:
            continue
        delete_rv = rv if event.op is Op.DELETED else None
        expires_us = record.expires_us if delete_rv is None else None
        if event.op is Op.ADDED:
            kind = kind_ids[key.resource]
            born[oid] = [oid, kind, key.namespace, key.name, record.uid, rv, None, expires_us]
        elif oid in born:
            born[oid][5:] = rv, delete_rv, expires_us
        else:
            changed[oid] = (oid, rv, delete_rv, expires_us)
    return list(changed.values()), list(born.values())


KINDS = "SELECT kind_id, grp, version, kind, plural, namespaced, history_class FROM kinds ORDER BY kind_id"


def kind_row(row: Row) -> KindRow:
    _, group, version, kind, plural, namespaced, history_class = row
    keep: HistoryClass = history_class
    return KindRow(group_resource(group, plural), group, version, kind, plural, bool(namespaced), keep)


LEASES = (
    "SELECT l.oid, l.rv, o.rv, holder, epoch, acquired_us, renewed_us, ttl_ms, body"
    " FROM leases l JOIN objects o ON o.oid = l.oid"
)


def lease_row(row: Row) -> LeaseRow:
    oid, rv, logged_rv, holder, epoch, acquired_us, renewed_us, ttl_ms, text = row
    body = normal_body(text, None) or b""
    return LeaseRow(oid, rv, logged_rv, holder, epoch, acquired_us, renewed_us, ttl_ms, body)


RECORDS = """
SELECT o.kind_id, o.ns, o.name, o.uid, o.oid, o.rv, o.expires_us, e.body, e.body_raw
  FROM objects o LEFT JOIN events e ON e.rv = o.rv WHERE o.delete_rv IS NULL
"""


def live_records(
    found: Iterable[Row], resources: Mapping[int, str], live_leases: Mapping[int, LeaseRow]
) -> list[Record]:
    """Every live object, by kind, namespace, name. Raises StoreError when a body is missing.

    Put into order here: the database would have to hold all bodies back until it has sorted them.
    """
    records: list[Record] = []
    for kind_id, ns, name, uid, oid, rv, expires_us, text, raw in sorted(found, key=itemgetter(0, 1, 2)):
        key = Key(resources[kind_id], ns, name)
        if key.resource == leases.RESOURCE and oid in live_leases:
            lease = live_leases[oid]
            records.append(Record(key, uid, oid, lease.rv, Document.at(lease.body, lease.rv), expires_us))
            continue
        if text is None and raw is None:
            raise StoreError(f"the event log is damaged: revision {rv} of {key} is missing")
        records.append(Record(key, uid, oid, rv, document(text, raw, rv), expires_us))
    return records


_LIVES = """
SELECT oid, ns, name, uid, expires_us FROM objects WHERE kind_id = $1 AND delete_rv IS NULL AND oid <= $2 {range}
UNION ALL
SELECT oid, ns, name, uid, expires_us FROM objects WHERE kind_id = $1 AND delete_rv > $2 AND oid <= $2 {range}
 ORDER BY ns, name LIMIT $3
"""

_NEWEST = """
 CROSS JOIN LATERAL (SELECT z.rv, z.body, z.body_raw FROM events z WHERE z.oid = o.oid AND z.rv <= $2
                      ORDER BY z.rv DESC LIMIT 1) e
"""

_LEASE = " LEFT JOIN leases l ON l.oid = o.oid AND l.rv <= $2 AND l.rv > e.rv"
_OF_LEASE = "coalesce(l.rv, e.rv), coalesce(l.body, e.body), CASE WHEN l.rv IS NULL THEN e.body_raw END"


def _seek(resource: str) -> tuple[str, str]:
    """The join to the newest state and its columns."""
    if resource == leases.RESOURCE:
        return _NEWEST + _LEASE, _OF_LEASE
    return _NEWEST, "e.rv, e.body, e.body_raw"


def list_at(
    kind: int,
    resource: str,
    rv: int,
    namespace: str | None,
    after: tuple[str, str] | None,
    limit: int | None,
) -> Query:
    arguments: list[Any] = [kind, rv, limit]
    condition = ""
    if namespace is not None:
        arguments.append(namespace)
        condition += f" AND ns = ${len(arguments)}"
    if after is not None:
        arguments += after
        condition += f" AND (ns, name) > (${len(arguments) - 1}, ${len(arguments)})"
    join, columns = _seek(resource)
    return (
        f"SELECT o.oid, o.ns, o.name, o.uid, o.expires_us, {columns} FROM ({_LIVES.format(range=condition)}) o {join}"
        " ORDER BY o.ns, o.name"
    ), tuple(arguments)


def get_at(kind: int, resource: str, namespace: str, name: str, rv: int) -> Query:
    join, columns = _seek(resource)
    return (
        f"SELECT o.oid, o.ns, o.name, o.uid, o.expires_us, {columns} FROM (SELECT oid, ns, name, uid, expires_us, delete_rv"
        " FROM objects WHERE kind_id = $1 AND ns = $3 AND name = $4 AND oid <= $2 ORDER BY oid DESC LIMIT 1) o"
        f" {join} WHERE o.delete_rv IS NULL OR o.delete_rv > $2"
    ), (kind, rv, namespace, name)


def record(resource: str, row: Row) -> Record:
    oid, ns, name, uid, expires_us, rv, text, raw = row
    return Record(Key(resource, ns, name), uid, oid, rv, document(text, raw, rv), expires_us)


_EVENT = (
    "e.rv, e.oid, e.op, e.prev_rv, e.ts_us, e.decision_id, e.request_id, e.body, e.body_raw, p.body, p.body_raw,"
    " o.kind_id, o.ns, o.name, o.uid, o.expires_us, a.username, a.groups, a.user_agent, a.field_manager, a.source_ip"
)
_RENEWAL = (
    "l.rv, l.oid, 3::smallint, o.rv, l.renewed_us, NULL::bigint, NULL, l.body, NULL::bytea, p.body, p.body_raw,"
    " o.kind_id, o.ns, o.name, o.uid, o.expires_us, NULL, NULL, NULL, NULL, NULL"
)
_UNION = """
(SELECT {event} FROM events e JOIN objects o ON o.oid = e.oid LEFT JOIN events p ON p.rv = e.prev_rv
   LEFT JOIN actors a ON a.actor_id = e.actor_id WHERE e.rv > $1 AND e.rv <= $2 {kinds} ORDER BY e.rv LIMIT $3)
UNION ALL
(SELECT {renewal} FROM leases l JOIN objects o ON o.oid = l.oid LEFT JOIN events p ON p.rv = o.rv
  WHERE l.rv > $1 AND l.rv <= $2 AND l.rv <> o.rv {kinds} ORDER BY l.rv LIMIT $3)
 ORDER BY 1 LIMIT $3
"""


def events_since(rv: int, until: int, kinds: Sequence[int] | None, limit: int | None) -> Query:
    wanted = "" if kinds is None else "AND o.kind_id = ANY($4::int[])"
    arguments = (rv, until, limit) if kinds is None else (rv, until, limit, list(kinds))
    return _UNION.format(event=_EVENT, renewal=_RENEWAL, kinds=wanted), arguments


TAIL = (
    "SELECT h.rv, h.ts_us, h.horizon_rv, h.epoch, x.* FROM head h LEFT JOIN LATERAL ("
    + _UNION.replace("$2", "h.rv")
    .replace("LIMIT $3", "LIMIT $2")
    .format(event=_EVENT, renewal=_RENEWAL, kinds="")
    + ") x ON true WHERE h.id = 1 ORDER BY x.rv"
)
"""Everything beyond revision $1, at most $2 rows, in one statement: head, events and Leases of one snapshot."""


def event(row: Row, resources: Mapping[int, str]) -> Event:
    (rv, oid, op_number, prev_rv, ts_us, decision_id, request_id, text, raw, prev_text, prev_raw, kind, ns, name, uid,
     expires_us, username, groups, user_agent, field_manager, source_ip) = row  # fmt: skip
    op, key = Op(op_number), Key(resources[kind], ns, name)
    previous = None
    if prev_text is not None or prev_raw is not None:
        previous = Record(key, uid, oid, prev_rv, document(prev_text, prev_raw, prev_rv), expires_us)
    if op is Op.DELETED and text is None and raw is None:
        text, raw = prev_text, prev_raw
    if text is None and raw is None:
        raise StoreError(f"the event log is damaged: revision {rv} of {key} has no body")
    state = Record(key, uid, oid, rv, document(text, raw, rv), expires_us)
    if op is Op.RENEWED:
        return Event(rv, op, state, previous, ts_us, Cause())
    actor = Actor("")
    if username is not None:
        actor = rows.actor_of((username, groups, user_agent, field_manager, source_ip))
    return Event(rv, op, state, previous, ts_us, Cause(actor, request_id or "", decision_id))


RV_AT = """
SELECT greatest(t.rv, coalesce((SELECT max(e.rv) FROM events e WHERE e.rv > t.rv AND e.ts_us <= $1
         AND e.rv <= coalesce((SELECT n.rv FROM ticks n WHERE n.second > t.second ORDER BY n.second LIMIT 1),
                              9223372036854775807)), 0))
  FROM ticks t WHERE t.second <= $1 / 1000000 ORDER BY t.second DESC LIMIT 1
"""


def stored_by_us(tail: Sequence[Event], batch: Batch, live_leases: Mapping[int, LeaseRow]) -> bool:
    """Whether a batch whose answer was lost is in the log: its events are, or the Lease it alone renewed is.

    Other daemons may have written after it. Time, request and bytes tell our change from someone else's.
    """
    found = {event.rv: event for event in tail}
    logged = [staged for staged in batch.staged if staged.event.op is not Op.RENEWED]
    if logged:
        return all(_same_change(found.get(staged.event.rv), staged.event) for staged in logged)
    return any(
        lease is not None and oid in live_leases and live_leases[oid].rv == lease.rv and live_leases[oid].body == lease.body
        for oid, lease in batch.leases.items()
    )  # fmt: skip


def _same_change(found: Event | None, ours: Event) -> bool:
    return (
        found is not None
        and (found.op, found.ts_us, found.record.uid, found.cause) == (ours.op, ours.ts_us, ours.record.uid, ours.cause)
        and found.record.document.encoded == ours.record.document.encoded
    )  # fmt: skip
