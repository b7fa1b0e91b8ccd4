"""What happened to an object: its versions, what each changed, who did it. Behind `kcp history` and `kcp diff`.

Functions over an SQLAlchemy connection, so that they serve both engines; `reader(url)` opens one, read-only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import sqlalchemy as sa

from kcp.base.values import frozen
from kcp.machinery.document import Json
from kcp.machinery.gvk import group_resource
from kcp.store import archive, schema, tables
from kcp.store.archive import Archive
from kcp.store.open import is_postgres, sqlite_path
from kcp.store.protocol import HistoryClass, KindRow, Op
from kcp.store.redaction import is_purged
from kcp.store.sqlite import connect_read_only

objects, events, kinds, actors, leases = (
    tables.objects,
    tables.events,
    tables.kinds,
    tables.actors,
    tables.leases,
)

NOISE = frozenset({"managedFields"})
"""Keys of metadata that a diff leaves out unless asked."""

_ABSENT: Any = object()
_ITEM_KEYS = (
    "name",
    "uid",
    "type",
    "key",
    "containerPort",
    "port",
    "mountPath",
    "devicePath",
    "topologyKey",
    "ip",
)
_VERBS = {Op.ADDED: "created", Op.MODIFIED: "changed", Op.DELETED: "deleted"}


@frozen
class FieldChange:
    """One field: `old` or `new` is None where `had` or `has` is False."""

    path: str
    old: Any
    new: Any
    had: bool = True
    has: bool = True

    def __str__(self) -> str:
        if not self.had:
            return f"+ {self.path}: {_short(self.new)}"
        if not self.has:
            return f"- {self.path}: {_short(self.old)}"
        return f"~ {self.path}: {_short(self.old)} → {_short(self.new)}"


@frozen
class Version:
    """One change of an object. `object` is its state after it; for a removal its last state."""

    rv: int
    op: Op
    ts_us: int
    oid: int
    uid: str
    username: str
    manager: str
    user_agent: str
    request_id: str
    decision_id: int | None
    object: Json
    changes: tuple[FieldChange, ...] = ()
    purged: bool = False
    """What it said was purged; so nobody knows what it, or the version after it, changed."""

    @property
    def verb(self) -> str:
        return _VERBS[self.op]


@frozen
class Blame:
    """Who gave a field of the object its present value."""

    path: str
    value: Any
    rv: int
    ts_us: int
    username: str
    manager: str


@contextlib.contextmanager
def reader(url_or_path: str | Path) -> Iterator[sa.Connection]:
    """A read-only connection to the log of a running or stopped daemon, one snapshot for its whole life."""
    if is_postgres(url_or_path):
        from kcp.store.postgres_reader import sqlalchemy_reader

        with sqlalchemy_reader(str(url_or_path)) as shared:
            yield shared
        return
    path = sqlite_path(url_or_path)
    raw = connect_read_only(path)
    try:
        schema.check(raw, path)
        with schema.engine_over(raw).connect() as connection:
            connection.info[_SEALED] = archive.opened(raw, path)
            yield connection
    finally:
        raw.close()


_SEALED = "sealed"
"""Where a connection's `info` has its archive."""


def begins_at(connection: sa.Connection) -> int:
    """The revision before which history was dropped; 0 when none was."""
    sealed: Archive | None = connection.info.get(_SEALED)
    return 0 if sealed is None else sealed.floor


def read_dependents(connection: sa.Connection, owner_uid: str) -> None:
    """Before a look at the events of all that an owner ever had: reads what is sealed of them."""
    sealed: Archive | None = connection.info.get(_SEALED)
    if sealed is not None:
        owned = f"SELECT f.oid FROM {{log}}facts_owner f WHERE f.owner_uid = {archive.quoted(owner_uid)}"
        sealed.objects(f"o.oid IN ({owned})")


def find_kinds(connection: sa.Connection, text: str) -> list[tuple[int, KindRow]]:
    """Kinds that a person may mean: `Pod`, `pods`, `deployments.apps`; several groups may share a name."""
    wanted = text.lower()
    found = []
    for row in connection.execute(sa.select(kinds).order_by(kinds.c.kind_id)):
        resource = group_resource(row.grp, row.plural)
        if wanted in (row.kind.lower(), row.plural, resource, f"{row.kind.lower()}.{row.grp}"):
            keep: HistoryClass = row.history_class
            kind = KindRow(resource, row.grp, row.version, row.kind, row.plural, bool(row.namespaced), keep)
            found.append((row.kind_id, kind))
    return found


def _kind_id(connection: sa.Connection, resource: str) -> int:
    found = find_kinds(connection, resource)
    return found[0][0] if found else -1


def _incarnations(kind_id: int, namespace: str, name: str) -> sa.ColumnElement[bool]:
    return sa.and_(objects.c.kind_id == kind_id, objects.c.ns == namespace, objects.c.name == name)


def _every_life(
    connection: sa.Connection, resource: str, namespace: str, name: str
) -> sa.ColumnElement[bool]:
    """The condition for a name's incarnations, of which every version can then be read, sealed or not."""
    kind_id = _kind_id(connection, resource)
    sealed: Archive | None = connection.info.get(_SEALED)
    if sealed is not None:
        sealed.objects(archive.one(kind_id, namespace, name))
    return _incarnations(kind_id, namespace, name)


def _document(body: Any) -> Json:
    value = orjson.loads(body) if isinstance(body, (str, bytes)) else body
    return value if isinstance(value, dict) else {}


def versions(
    connection: sa.Connection,
    resource: str,
    namespace: str,
    name: str,
    *,
    first: int = 0,
    last: int | None = None,
    limit: int | None = None,
    noise: bool = False,
) -> list[Version]:
    """All versions of a name, every incarnation, oldest first, each with what it changed; `limit` keeps the newest."""
    where = _every_life(connection, resource, namespace, name)
    query = (
        sa.select(
            events.c.rv, events.c.op, events.c.ts_us, events.c.oid, events.c.prev_rv, events.c.request_id,
            events.c.decision_id, events.c.body, events.c.body_raw, objects.c.uid, actors.c.username, actors.c.field_manager, actors.c.user_agent,
        )
        .select_from(objects.join(events, events.c.oid == objects.c.oid).outerjoin(actors, actors.c.actor_id == events.c.actor_id))
        .where(where, events.c.rv >= first, events.c.rv <= (last or 2**62))
        .order_by(events.c.rv.desc())
    )  # fmt: skip
    rows = list(reversed(connection.execute(query.limit(limit) if limit else query).all()))
    return _with_changes(connection, rows, noise)


def _with_changes(connection: sa.Connection, rows: Sequence[Any], noise: bool) -> list[Version]:
    found: list[Version] = []
    previous: Json | None = None
    previous_rv = 0
    for row in rows:
        if row.prev_rv and row.prev_rv != previous_rv:
            previous = _body(connection, row.prev_rv)
        before = previous if row.prev_rv else None
        value = _document_of(row) or before or {}
        unknown = is_purged(value) or (before is not None and is_purged(before))
        known = row.op != Op.DELETED and not unknown and (before is not None or not row.prev_rv)
        changes = tuple(diff(before or {}, value, noise=noise)) if known else ()
        found.append(
            Version(
                row.rv, Op(row.op), row.ts_us, row.oid, row.uid, row.username or "", row.field_manager or "",
                row.user_agent or "", row.request_id or "", row.decision_id, value, changes, is_purged(value),
            )
        )  # fmt: skip
        previous, previous_rv = value, row.rv
    return found


def _document_of(row: Any) -> Json | None:
    body = row.body if row.body_raw is None else row.body_raw
    return None if body is None else _document(body)


def _body(connection: sa.Connection, rv: int) -> Json | None:
    found = connection.execute(sa.select(events.c.body, events.c.body_raw).where(events.c.rv == rv))
    row = found.one_or_none()
    return None if row is None else _document_of(row)


def object_at(
    connection: sa.Connection, resource: str, namespace: str, name: str, rv: int
) -> tuple[int, Json] | None:
    """(revision, object) as of `rv`, without resourceVersion; None when it did not exist then. Raises Dropped."""
    sealed: Archive | None = connection.info.get(_SEALED)
    if sealed is not None:
        sealed.check(rv)
    alive = sa.or_(objects.c.delete_rv.is_(None), objects.c.delete_rv > rv)
    where = _every_life(connection, resource, namespace, name)
    life = connection.execute(
        sa.select(objects.c.oid)
        .where(where, objects.c.oid <= rv, alive)
        .order_by(objects.c.oid.desc())
        .limit(1)
    ).scalar_one_or_none()
    if life is None:
        return None
    lease = connection.execute(
        sa.select(leases.c.rv, leases.c.body, sa.null().label("body_raw")).where(
            leases.c.oid == life, leases.c.rv <= rv
        )
    ).one_or_none()
    row = (
        lease
        or connection.execute(
            sa.select(events.c.rv, events.c.body, events.c.body_raw)
            .where(events.c.oid == life, events.c.rv <= rv)
            .order_by(events.c.rv.desc())
            .limit(1)
        ).one()
    )
    return row.rv, _document_of(row) or {}


def last_state(
    connection: sa.Connection, resource: str, namespace: str, name: str
) -> tuple[int, Json] | None:
    """(revision, object) as it is, or as it was when it was deleted (then the revision of the deletion)."""
    where = _every_life(connection, resource, namespace, name)
    life = connection.execute(
        sa.select(objects.c.oid, objects.c.rv, objects.c.delete_rv)
        .where(where)
        .order_by(objects.c.oid.desc())
        .limit(1)
    ).one_or_none()
    if life is None:
        return None
    if life.delete_rv is None:
        return object_at(connection, resource, namespace, name, 2**62)
    row = connection.execute(
        sa.select(events.c.body, events.c.body_raw, events.c.prev_rv).where(events.c.rv == life.delete_rv)
    ).one()
    return life.delete_rv, _document_of(row) or _body(connection, row.prev_rv) or {}


def blame(connection: sa.Connection, resource: str, namespace: str, name: str) -> list[Blame]:
    """For each field of the newest state who set it last, and at which revision; ordered by path."""
    setters: dict[str, Blame] = {}
    for version in versions(connection, resource, namespace, name):
        if version.op is Op.ADDED:
            setters = {}
        for change in version.changes:
            _forget_below(setters, change.path)
            if change.has:
                for path, value in leaves(change.new, change.path):
                    setters[path] = Blame(
                        path, value, version.rv, version.ts_us, version.username, version.manager
                    )
    return [setters[path] for path in sorted(setters)]


def _forget_below(setters: dict[str, Blame], path: str) -> None:
    for known in [p for p in setters if p == path or p.startswith((f"{path}.", f"{path}["))]:
        del setters[known]


def diff(old: Json, new: Json, *, noise: bool = False) -> list[FieldChange]:
    """Fields that differ, in the order of their paths. List items are matched by name, type, port … where they have one."""
    if not noise:
        old, new = _without_noise(old), _without_noise(new)
    changes: list[FieldChange] = []
    _compare("", old, new, changes)
    return changes


def _without_noise(obj: Json) -> Json:
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict) or not NOISE & metadata.keys():
        return obj
    return {**obj, "metadata": {key: value for key, value in metadata.items() if key not in NOISE}}


def _compare(path: str, old: Any, new: Any, changes: list[FieldChange]) -> None:
    if old is _ABSENT:
        changes.append(FieldChange(path, None, new, had=False))
    elif new is _ABSENT:
        changes.append(FieldChange(path, old, None, has=False))
    elif isinstance(old, dict) and isinstance(new, dict):
        _compare_maps(path, old, new, changes, _step)
    elif isinstance(old, list) and isinstance(new, list):
        old_items, new_items = _items(old, new)
        _compare_maps(path, old_items, new_items, changes, _index)
    elif type(old) is not type(new) or old != new:
        changes.append(FieldChange(path, old, new))


def _compare_maps(
    path: str, old: Mapping[Any, Any], new: Mapping[Any, Any], changes: list[FieldChange], step: Any
) -> None:
    keys = sorted({**old, **new}, key=lambda key: (isinstance(key, str), key))
    for key in keys:
        _compare(step(path, key), old.get(key, _ABSENT), new.get(key, _ABSENT), changes)


def _items(old: list[Any], new: list[Any]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Both lists as maps by the first key that tells all items of both apart, else by position."""
    for key in _ITEM_KEYS:
        named = [_named(items, key) for items in (old, new)]
        if named[0] is not None and named[1] is not None:
            return named[0], named[1]
    return dict(enumerate(old)), dict(enumerate(new))


def _named(items: list[Any], key: str) -> dict[str, Any] | None:
    named = {f"{key}={item[key]}": item for item in items if isinstance(item, dict) and key in item}
    return named if len(named) == len(items) else None


def _step(path: str, key: str) -> str:
    plain = key.replace("-", "").replace("_", "").isalnum()
    name = key if plain else f'"{key}"'
    return f"{path}.{name}" if path else name


def _index(path: str, key: Any) -> str:
    return f"{path}[{key}]"


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of every field that holds no further fields; empty maps and lists count."""
    if isinstance(value, dict) and value:
        for key in sorted(value):
            yield from leaves(value[key], _step(path, key))
    elif isinstance(value, list) and value:
        items, _ = _items(value, [])
        for key, item in items.items():
            yield from leaves(item, _index(path, key))
    else:
        yield path, value


def _short(value: Any, limit: int = 120) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def revision_at(connection: sa.Connection, ts_us: int) -> int:
    """The newest revision whose time is not after `ts_us`; 0 before the first."""
    ticks, second = tables.ticks, ts_us // 1_000_000
    sealed: Archive | None = connection.info.get(_SEALED)
    if sealed is not None:
        sealed.moment(ts_us)
    began = connection.execute(
        sa.select(ticks.c.rv).where(ticks.c.second <= second).order_by(ticks.c.second.desc()).limit(1)
    ).scalar_one_or_none()
    if began is None:
        return 0
    ends = connection.execute(
        sa.select(ticks.c.rv).where(ticks.c.second > second).order_by(ticks.c.second).limit(1)
    ).scalar_one_or_none()
    newest = sa.select(sa.func.max(events.c.rv)).where(
        events.c.rv > began, events.c.rv <= (2**62 if ends is None else ends), events.c.ts_us <= ts_us
    )
    return max(int(began), int(connection.execute(newest).scalar_one() or 0))
