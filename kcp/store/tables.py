"""The tables of the event log, one `MetaData` for both engines.

`events` holds each body once, `objects` only points to it: `oid` is the revision that created an incarnation, `rv`
its newest event row. Two incarnations of one name are two rows. A body has no resourceVersion in it: the row's `rv` is.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

metadata = MetaData()

BIG: TypeEngine[int] = BigInteger().with_variant(Integer(), "sqlite")
"""64 bits on both engines; plain INTEGER on SQLite, so that `rv` is the rowid."""

NAME: TypeEngine[str] = Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
"""Sorts by bytes on both engines, as etcd's keys do."""

DOCUMENT: TypeEngine[str] = Text().with_variant(postgresql.JSONB(), "postgresql")

LIVE = text("delete_rv IS NULL")
DEAD = text("delete_rv IS NOT NULL")
EXPIRING = text("expires_us IS NOT NULL")


def _partial(name: str, *columns: str, where: object, unique: bool = False) -> Index:
    return Index(name, *columns, unique=unique, sqlite_where=where, postgresql_where=where)


head = Table(
    "head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("rv", BIG, nullable=False),
    Column("ts_us", BIG, nullable=False),
    Column("epoch", BIG, nullable=False),
    Column("horizon_rv", BIG, nullable=False),
    Column("sealed_rv", BIG, nullable=False),
    Column("unlogged", BIG, nullable=False),
    Column("cluster_uid", Text, nullable=False),
)
"""One row. `rv` = rows in events, hot and sealed, + `unlogged` (renewals of Leases, the jump of a restore)."""

about = Table(
    "about",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
"""Facts on this file itself: what an incident file covers, who wrote it, its checksum."""

kinds = Table(
    "kinds",
    metadata,
    Column("kind_id", Integer, primary_key=True, autoincrement=False),
    Column("grp", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("plural", Text, nullable=False),
    Column("namespaced", SmallInteger, nullable=False),
    Column("history_class", Text, nullable=False),
    Index("kinds_resource", "grp", "plural", unique=True),
)

actors = Table(
    "actors",
    metadata,
    Column("actor_id", Integer, primary_key=True, autoincrement=False),
    Column("username", Text, nullable=False),
    Column("groups", Text, nullable=False),
    Column("user_agent", Text, nullable=False),
    Column("field_manager", Text, nullable=False),
    Column("source_ip", Text, nullable=False),
)
"""Who wrote, interned; `groups` is a JSON list."""

objects = Table(
    "objects",
    metadata,
    Column("oid", BIG, primary_key=True, autoincrement=False),
    Column("kind_id", Integer, nullable=False),
    Column("ns", NAME, nullable=False),
    Column("name", NAME, nullable=False),
    Column("uid", Text, nullable=False),
    Column("rv", BIG, nullable=False),
    Column("delete_rv", BIG),
    Column("expires_us", BIG),
    _partial("objects_live", "kind_id", "ns", "name", where=LIVE, unique=True),
    _partial("objects_dead", "kind_id", "delete_rv", where=DEAD),
    _partial("objects_expiring", "expires_us", where=EXPIRING),
    Index("objects_key", "kind_id", "ns", "name", "oid"),
    postgresql_with={"fillfactor": 70},
)
"""Every incarnation ever. `objects_dead` keeps a list at an old revision independent of all older deletions."""

events = Table(
    "events",
    metadata,
    Column("rv", BIG, primary_key=True, autoincrement=False),
    Column("oid", BIG, nullable=False),
    Column("op", SmallInteger, nullable=False),
    Column("prev_rv", BIG, nullable=False),
    Column("ts_us", BIG, nullable=False),
    Column("actor_id", Integer),
    Column("decision_id", BIG),
    Column("request_id", Text),
    Column("flags", SmallInteger, nullable=False, server_default="0"),
    Column("body", DOCUMENT),
    Column("body_raw", LargeBinary),
    Index("events_object", "oid", "rv"),
)
"""One change each. A DELETED row has no body (`prev_rv` has the last one), except that of a Lease."""

leases = Table(
    "leases",
    metadata,
    Column("oid", BIG, primary_key=True, autoincrement=False),
    Column("rv", BIG, nullable=False),
    Column("holder", Text, nullable=False),
    Column("epoch", BIG, nullable=False),
    Column("acquired_us", BIG, nullable=False),
    Column("renewed_us", BIG, nullable=False),
    Column("ttl_ms", BIG, nullable=False),
    Column("body", DOCUMENT, nullable=False),
)
"""The newest state of each Lease; a renewal changes only this row."""

decisions = Table(
    "decisions",
    metadata,
    Column("decision_id", BIG, primary_key=True, autoincrement=False),
    Column("controller", Text, nullable=False),
    Column("epoch", BIG, nullable=False),
    Column("key", Text, nullable=False),
    Column("trigger", Text, nullable=False),
    Column("frontier", DOCUMENT, nullable=False),
    Column("now_us", BIG, nullable=False),
    Column("duration_us", BIG, nullable=False),
    Column("effects", DOCUMENT, nullable=False),
    Column("effects_digest", Text, nullable=False),
    Column("memo", DOCUMENT),
    Column("memo_digest", Text),
    Column("code_hash", Text, nullable=False),
    Column("config_hash", Text, nullable=False),
    Column("rv_after", BIG, nullable=False),
    Column("first_rv", BIG, nullable=False),
    Column("last_rv", BIG, nullable=False),
    Index("decisions_position", "rv_after"),
)
"""One reconcile each. `rv_after` is the published revision when it was recorded."""

inputs = Table(
    "inputs",
    metadata,
    Column("rv_after", BIG, primary_key=True, autoincrement=False),
    Column("seq", BIG, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("payload", DOCUMENT, nullable=False),
    sqlite_with_rowid=False,
)

ticks = Table(
    "ticks",
    metadata,
    Column("second", BIG, primary_key=True, autoincrement=False),
    Column("rv", BIG, nullable=False),
)
"""The head before the first change of a second: turns a time into a revision without an index on events.ts_us."""

facts_pod = Table(
    "facts_pod",
    metadata,
    Column("oid", BIG, primary_key=True, autoincrement=False),
    Column("rv", BIG, primary_key=True, autoincrement=False),
    Column("node", Text),
    Column("phase", Text),
    Column("ready", SmallInteger),
    Column("restarts", Integer),
    Column("reason", Text),
    Column("ip", Text),
    Column("deleting", SmallInteger),
    sqlite_with_rowid=False,
)

facts_node = Table(
    "facts_node",
    metadata,
    Column("oid", BIG, primary_key=True, autoincrement=False),
    Column("rv", BIG, primary_key=True, autoincrement=False),
    Column("ready", Text),
    Column("unschedulable", SmallInteger),
    Column("taints", Text),
    Column("pressure", Text),
    sqlite_with_rowid=False,
)

facts_owner = Table(
    "facts_owner",
    metadata,
    Column("oid", BIG, primary_key=True, autoincrement=False),
    Column("rv", BIG, primary_key=True, autoincrement=False),
    Column("owner_uid", Text, primary_key=True),
    Column("controller", SmallInteger),
    Column("block", SmallInteger),
    Index("facts_owner_uid", "owner_uid"),
    sqlite_with_rowid=False,
)
"""All owners of an object as of `rv`; an empty `owner_uid` says that none is left."""

FACTS: dict[str, Table] = {table.name: table for table in (facts_pod, facts_node, facts_owner)}

segments = Table(
    "segments",
    metadata,
    Column("seg_id", Integer, primary_key=True, autoincrement=False),
    Column("first_rv", BIG, nullable=False),
    Column("last_rv", BIG, nullable=False),
    Column("codec", Text, nullable=False),
    Column("uri", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("n", BIG, nullable=False),
)
"""Sealed ranges of the log."""

data_keys = Table(
    "data_keys",
    metadata,
    Column("key_id", BIG, primary_key=True, autoincrement=False),
    Column("oid", BIG),
    Column("kind_id", Integer),
    Column("wrapped_key", LargeBinary),
    Column("destroyed_us", BIG),
)
