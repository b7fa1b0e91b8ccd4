"""The event log: head, kinds, actors, objects, events, leases, decisions, inputs, facts, segments."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NAME = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
DOCUMENT = sa.Text().with_variant(postgresql.JSONB(), "postgresql")


def _key(name: str, kind: sa.types.TypeEngine = BIG) -> sa.Column:
    return sa.Column(name, kind, primary_key=True, autoincrement=False)


def _need(name: str, kind: sa.types.TypeEngine = BIG, default: str | None = None) -> sa.Column:
    return sa.Column(name, kind, nullable=False, server_default=default)


def _may(name: str, kind: sa.types.TypeEngine = BIG) -> sa.Column:
    return sa.Column(name, kind, nullable=True)


def _partial(name: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, unique=unique, sqlite_where=condition, postgresql_where=condition)


def upgrade() -> None:
    _log()
    _replay()
    _facts()


def _log() -> None:
    text, integer, small = sa.Text(), sa.Integer(), sa.SmallInteger()
    op.create_table(
        "head", _key("id", integer), _need("rv"), _need("ts_us"), _need("epoch"), _need("horizon_rv"),
        _need("sealed_rv"), _need("unlogged"), _need("cluster_uid", text),
    )  # fmt: skip
    op.create_table("about", sa.Column("key", text, primary_key=True), _need("value", text))
    op.create_table(
        "kinds", _key("kind_id", integer), _need("grp", text), _need("version", text), _need("kind", text),
        _need("plural", text), _need("namespaced", small), _need("history_class", text),
    )  # fmt: skip
    op.create_index("kinds_resource", "kinds", ["grp", "plural"], unique=True)
    op.create_table(
        "actors", _key("actor_id", integer), _need("username", text), _need("groups", text),
        _need("user_agent", text), _need("field_manager", text), _need("source_ip", text),
    )  # fmt: skip
    op.create_table(
        "objects", _key("oid"), _need("kind_id", integer), _need("ns", NAME), _need("name", NAME),
        _need("uid", text), _need("rv"), _may("delete_rv"), _may("expires_us"),
        postgresql_with={"fillfactor": 70},
    )  # fmt: skip
    _partial("objects_live", "objects", ["kind_id", "ns", "name"], "delete_rv IS NULL", unique=True)
    _partial("objects_dead", "objects", ["kind_id", "delete_rv"], "delete_rv IS NOT NULL")
    _partial("objects_expiring", "objects", ["expires_us"], "expires_us IS NOT NULL")
    op.create_index("objects_key", "objects", ["kind_id", "ns", "name", "oid"])
    op.create_table(
        "events", _key("rv"), _need("oid"), _need("op", small), _need("prev_rv"), _need("ts_us"),
        _may("actor_id", integer), _may("decision_id"), _may("request_id", text), _need("flags", small, "0"),
        _may("body", DOCUMENT), _may("body_raw", sa.LargeBinary()),
    )  # fmt: skip
    op.create_index("events_object", "events", ["oid", "rv"])
    op.create_table(
        "leases", _key("oid"), _need("rv"), _need("holder", text), _need("epoch"), _need("acquired_us"),
        _need("renewed_us"), _need("ttl_ms"), _need("body", DOCUMENT),
    )  # fmt: skip
    op.create_table("ticks", _key("second"), _need("rv"))
    op.create_table(
        "segments", _key("seg_id", integer), _need("first_rv"), _need("last_rv"), _need("codec", text),
        _need("uri", text), _need("sha256", text), _need("n"),
    )  # fmt: skip
    op.create_table(
        "data_keys", _key("key_id"), _may("oid"), _may("kind_id", integer), _may("wrapped_key", sa.LargeBinary()),
        _may("destroyed_us"),
    )  # fmt: skip


def _replay() -> None:
    text = sa.Text()
    op.create_table(
        "decisions", _key("decision_id"), _need("controller", text), _need("epoch"), _need("key", text),
        _need("trigger", text), _need("frontier", DOCUMENT), _need("now_us"), _need("duration_us"),
        _need("effects", DOCUMENT), _need("effects_digest", text), _may("memo", DOCUMENT), _may("memo_digest", text),
        _need("code_hash", text), _need("config_hash", text), _need("rv_after"), _need("first_rv"), _need("last_rv"),
    )  # fmt: skip
    op.create_index("decisions_position", "decisions", ["rv_after"])
    op.create_table(
        "inputs", _key("rv_after"), _key("seq"), _need("kind", text), _need("payload", DOCUMENT),
        sqlite_with_rowid=False,
    )  # fmt: skip


def _facts() -> None:
    text, integer, small = sa.Text(), sa.Integer(), sa.SmallInteger()
    op.create_table(
        "facts_pod", _key("oid"), _key("rv"), _may("node", text), _may("phase", text), _may("ready", small),
        _may("restarts", integer), _may("reason", text), _may("ip", text), _may("deleting", small),
        sqlite_with_rowid=False,
    )  # fmt: skip
    op.create_table(
        "facts_node", _key("oid"), _key("rv"), _may("ready", text), _may("unschedulable", small),
        _may("taints", text), _may("pressure", text), sqlite_with_rowid=False,
    )  # fmt: skip
    op.create_table(
        "facts_owner", _key("oid"), _key("rv"), sa.Column("owner_uid", text, primary_key=True),
        _may("controller", small), _may("block", small), sqlite_with_rowid=False,
    )  # fmt: skip
    op.create_index("facts_owner_uid", "facts_owner", ["owner_uid"])


def downgrade() -> None:
    raise NotImplementedError("the first schema has nothing below it")
