"""What only PostgreSQL has beside the tables: the append function, settings of hot tables, and opening a database.

kcp_append     one call per batch: under the lock of the head row everything is written, or, when the head is not
               where the batch was staged, nothing; the answer is the head that was found
kcp_register   numbers for resources, agreed between daemons
kcp_life       a number for each start of a daemon
"""

from __future__ import annotations

import errno
import os
import zlib
from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from kcp.base.entropy import Entropy
from kcp.store import schema, tables, views
from kcp.store.protocol import SchemaTooNew, StoreError

CHANNEL = "kcp"
STALE_EPOCH = "KC001"
UPGRADE_LOCK = 0x6B6370_6C6F67
"""The advisory lock under which one daemon at a time looks after the schema."""

OPTIONS = {"application_name": "kcp", "jit": "off", "default_transaction_isolation": "read committed"}

_FACTS = "".join(
    f"""
    IF p_more ? '{table}' THEN
      INSERT INTO {table} SELECT * FROM jsonb_populate_recordset(NULL::{table}, p_more->'{table}') ON CONFLICT DO NOTHING;
    END IF;"""
    for table in tables.FACTS
)

APPEND = f"""
CREATE OR REPLACE FUNCTION kcp_append(
  p_epoch bigint, p_base bigint, p_rv bigint, p_ts bigint, p_unlogged bigint, p_horizon bigint,
  e_rv bigint[], e_oid bigint[], e_op smallint[], e_prev bigint[], e_ts bigint[], e_actor int[], e_decision bigint[],
  e_request text[], e_body jsonb[], e_raw bytea[],
  c_oid bigint[], c_rv bigint[], c_delete bigint[], c_expires bigint[],
  b_oid bigint[], b_kind int[], b_ns text[], b_name text[], b_uid text[], b_rv bigint[], b_delete bigint[],
  b_expires bigint[], p_more jsonb,
  OUT head_rv bigint, OUT actor_base int, OUT now_us bigint)
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE h head%ROWTYPE;
BEGIN
  SELECT * INTO STRICT h FROM head WHERE id = 1 FOR UPDATE;
  IF h.epoch <> p_epoch THEN
    RAISE EXCEPTION 'the log is in epoch %, this writer in %', h.epoch, p_epoch USING ERRCODE = '{STALE_EPOCH}';
  END IF;
  head_rv := h.rv;
  actor_base := 0;
  now_us := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
  IF h.rv <> p_base THEN RETURN; END IF;
  IF p_more ? 'actors' THEN
    SELECT coalesce(max(actor_id), 0) INTO actor_base FROM actors;
    INSERT INTO actors (actor_id, username, groups, user_agent, field_manager, source_ip)
      SELECT actor_base + i, a->>'username', a->>'groups', a->>'user_agent', a->>'field_manager', a->>'source_ip'
        FROM jsonb_array_elements(p_more->'actors') WITH ORDINALITY AS x(a, i);
  END IF;
  IF cardinality(e_rv) > 0 THEN
    INSERT INTO events (rv, oid, op, prev_rv, ts_us, actor_id, decision_id, request_id, flags, body, body_raw)
      SELECT rv, oid, op, prev, ts, CASE WHEN actor < 0 THEN actor_base - actor ELSE actor END, decision, request, 0, body, raw
        FROM unnest(e_rv, e_oid, e_op, e_prev, e_ts, e_actor, e_decision, e_request, e_body, e_raw)
          AS x(rv, oid, op, prev, ts, actor, decision, request, body, raw);
  END IF;
  IF cardinality(c_oid) > 0 THEN
    UPDATE objects o SET rv = x.rv, delete_rv = x.delete_rv, expires_us = x.expires
      FROM unnest(c_oid, c_rv, c_delete, c_expires) AS x(oid, rv, delete_rv, expires) WHERE o.oid = x.oid;
  END IF;
  IF cardinality(b_oid) > 0 THEN
    INSERT INTO objects (oid, kind_id, ns, name, uid, rv, delete_rv, expires_us)
      SELECT * FROM unnest(b_oid, b_kind, b_ns, b_name, b_uid, b_rv, b_delete, b_expires);
  END IF;
  IF p_more IS NOT NULL THEN
    INSERT INTO ticks SELECT second, rv FROM jsonb_to_recordset(p_more->'ticks') AS x(second bigint, rv bigint)
      ON CONFLICT DO NOTHING;
    IF p_more ? 'leases' THEN
      INSERT INTO leases SELECT * FROM jsonb_populate_recordset(NULL::leases, p_more->'leases')
        ON CONFLICT (oid) DO UPDATE SET rv = excluded.rv, holder = excluded.holder, epoch = excluded.epoch,
          acquired_us = excluded.acquired_us, renewed_us = excluded.renewed_us, ttl_ms = excluded.ttl_ms, body = excluded.body;
      DELETE FROM leases WHERE oid IN (SELECT d::bigint FROM jsonb_array_elements_text(p_more->'dropped') AS d);
    END IF;{_FACTS}
    IF p_more ? 'decisions' THEN
      INSERT INTO decisions SELECT * FROM jsonb_populate_recordset(NULL::decisions, p_more->'decisions') ON CONFLICT DO NOTHING;
    END IF;
    IF p_more ? 'inputs' THEN
      INSERT INTO inputs (rv_after, seq, kind, payload)
        SELECT rv, coalesce((SELECT max(i.seq) FROM inputs i WHERE i.rv_after = rv), 0)
                   + row_number() OVER (PARTITION BY rv ORDER BY n), entry->>'kind', entry->'payload'
          FROM (SELECT entry, n, (entry->>'rv_after')::bigint AS rv
                  FROM jsonb_array_elements(p_more->'inputs') WITH ORDINALITY AS y(entry, n)) x;
    END IF;
  END IF;
  IF p_rv > p_base OR p_horizon > h.horizon_rv THEN
    UPDATE head SET rv = p_rv, ts_us = p_ts, unlogged = unlogged + p_unlogged, horizon_rv = greatest(horizon_rv, p_horizon)
      WHERE id = 1;
    PERFORM pg_notify('{CHANNEL}', p_rv::text);
  END IF;
END $$
"""

REGISTER = """
CREATE OR REPLACE FUNCTION kcp_register(p_kinds jsonb) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE k kinds%ROWTYPE;
BEGIN
  PERFORM 1 FROM head WHERE id = 1 FOR UPDATE;
  FOR k IN SELECT * FROM jsonb_populate_recordset(NULL::kinds, p_kinds) LOOP
    INSERT INTO kinds (kind_id, grp, version, kind, plural, namespaced, history_class)
      SELECT coalesce(max(kind_id), 0) + 1, k.grp, k.version, k.kind, k.plural, k.namespaced, k.history_class FROM kinds
      ON CONFLICT (grp, plural) DO UPDATE SET version = excluded.version, kind = excluded.kind,
        namespaced = excluded.namespaced, history_class = excluded.history_class;
  END LOOP;
END $$
"""

_BUSY = "autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02"

DDL: tuple[str, ...] = (
    "CREATE SEQUENCE IF NOT EXISTS kcp_life",
    "ALTER TABLE head SET (fillfactor = 10, autovacuum_vacuum_threshold = 1000)",
    f"ALTER TABLE objects SET (fillfactor = 70, {_BUSY})",
    f"ALTER TABLE leases SET (fillfactor = 50, {_BUSY})",
    "ALTER TABLE events ALTER COLUMN body SET COMPRESSION lz4",
    APPEND,
    REGISTER,
)
_OPTIONAL = frozenset({DDL[4]})
"""Left out by a server that was built without it."""


def engine(url: str) -> AsyncEngine:
    """SQLAlchemy over connections made from the URL as the user wrote it."""
    return create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(url, timeout=CONNECT_TIMEOUT_S, server_settings=OPTIONS), poolclass=NullPool
    )  # fmt: skip


CONNECT_TIMEOUT_S = 10.0


def words(error: BaseException) -> str:
    """What happened, in a line without numbers."""
    if isinstance(error, FileNotFoundError):
        return "no server listens at its socket"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno).lower()
    return str(error).partition("\n")[0] or type(error).__name__


def shown(url: str) -> str:
    """The URL without user and password, for messages."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.split('@')[-1].split('?')[0]}"


async def prepare(url: str, entropy: Entropy) -> None:
    """Bring a database to the schema of this version, once for all daemons that start at the same time.

    Raises SchemaTooNew, or StoreError with a reason for people.
    """
    opened = engine(url)
    try:
        async with opened.connect() as connection:
            await connection.run_sync(_prepare, shown(url), entropy)
            await connection.commit()
    except (sa.exc.DBAPIError, asyncpg.PostgresError, OSError, TimeoutError) as error:
        reason = getattr(error, "orig", None) or error
        raise StoreError(f"cannot open {shown(url)}: {words(reason)}") from error
    finally:
        await opened.dispose()


def _prepare(connection: sa.Connection, place: str, entropy: Entropy) -> None:
    if connection.execute(sa.text("SHOW server_encoding")).scalar_one() != "UTF8":
        raise StoreError(f"the database at {place} must have the encoding UTF8")
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": UPGRADE_LOCK})
    found = revision(connection)
    if found is not None and found not in schema.known_revisions():
        raise SchemaTooNew(
            f"{place} was written by a newer kcp (schema {found}, this one knows {schema.HEAD})"
        )
    if found != schema.HEAD:
        schema.run_migrations(connection)
    _replace(connection)
    connection.execute(
        sa.text(
            "INSERT INTO head (id, rv, ts_us, epoch, horizon_rv, sealed_rv, unlogged, cluster_uid)"
            " VALUES (1, 0, 0, 1, 0, 0, 0, :uid) ON CONFLICT DO NOTHING"
        ),
        {"uid": entropy.uid()},
    )


def revision(connection: sa.Connection) -> str | None:
    if connection.execute(sa.text("SELECT to_regclass('alembic_version')")).scalar_one() is None:
        return None
    found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return None if found is None else str(found)


def _replace(connection: sa.Connection) -> None:
    """Functions, settings and views, when they differ from those of the last upgrade."""
    wanted = views.persistent(views.POSTGRES)
    checksum = str(zlib.crc32("".join([*DDL, *[sql for _, sql in wanted]]).encode()))
    found = connection.execute(
        sa.text("SELECT value FROM about WHERE key = 'postgresql'")
    ).scalar_one_or_none()
    if found == checksum:
        return
    for statement in DDL:
        _run(connection, statement)
    old = connection.execute(
        sa.text("SELECT viewname FROM pg_views WHERE schemaname = current_schema() ORDER BY viewname")
    ).scalars()
    for name in list(old):
        connection.exec_driver_sql(f'DROP VIEW IF EXISTS "{name}" CASCADE')
    for name, select in wanted:
        connection.exec_driver_sql(f'CREATE VIEW "{name}" AS {select}')
    connection.execute(
        sa.text(
            "INSERT INTO about (key, value) VALUES ('postgresql', :c) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
        ),
        {"c": checksum},
    )


def _run(connection: sa.Connection, statement: str) -> None:
    if statement not in _OPTIONAL:
        connection.exec_driver_sql(statement)
        return
    with connection.begin_nested() as attempt:
        try:
            connection.exec_driver_sql(statement)
        except sa.exc.DBAPIError:
            attempt.rollback()


async def check(connection: asyncpg.Connection, place: str) -> None:
    """For readers. Raises SchemaTooNew, or StoreError when there is no log or an older schema."""
    found = None
    if await connection.fetchval("SELECT to_regclass('alembic_version')") is not None:
        found = await connection.fetchval("SELECT version_num FROM alembic_version")
    if found is None:
        raise StoreError(f"there is no event log at {place}")
    schema.check_revision(found, place)


def options(settings: dict[str, Any]) -> dict[str, str]:
    return {**OPTIONS, **{name: str(value) for name, value in settings.items()}}
