"""The events of a batch, what they change in `objects`, and the head, as one SQLite statement.

A statement runs without the interpreter lock and asks for it once at its end. Two tables need a statement each, and so
does their head; but an INSERT into a view runs what its triggers say. View and triggers belong to the writing connection
(TEMP): the file knows nothing of them. A statement outside a transaction is one, with its commit, so that most batches
leave the loop alone from the first page to the disk.

    BORN     ADDED                            a row of events, a row of objects
    MOVED    MODIFIED                         a row of events, objects.rv
    EXPIRY   MODIFIED, other time of expiry   the same, objects.expires_us
    GONE     DELETED                          the same, objects.delete_rv
    HEAD     the last row                     head, if it is where the batch was staged

Rows take effect in their order, so a name may be removed and used again in one batch.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Mapping
from typing import Any

from kcp.store.driver import Batch
from kcp.store.protocol import Event, Op
from kcp.store.rows import Actors

BORN, MOVED, EXPIRY, GONE, HEAD = range(5)

_COLUMNS = (
    "what", "rv", "oid", "prev_rv", "ts_us", "actor_id", "decision_id", "request_id", "body", "expires_us", "kind_id", "ns", "name",
    "uid",
)  # fmt: skip
"""HEAD: `actor_id` is the epoch, `decision_id` counts revisions without an event, `expires_us` is the horizon."""

WIDTH = len(_COLUMNS)
_FILLER = (None,) * WIDTH
_WIDTHS = (*range(1, 34), 49, 65, 97, 129, 193, 257, 385, 513)
"""Statements have so many rows, the last ones empty: a prepared one keeps room for all its rows, and the values it had."""


def _event(op: Op) -> str:
    return (
        "INSERT INTO events (rv, oid, op, prev_rv, ts_us, actor_id, decision_id, request_id, flags, body)"
        f" VALUES (NEW.rv, NEW.oid, {op.value}, NEW.prev_rv, NEW.ts_us, NEW.actor_id, NEW.decision_id, NEW.request_id, 0,"
        " CAST(NEW.body AS TEXT))"
    )


_TRIGGERS: dict[int, tuple[str, ...]] = {
    BORN: (
        _event(Op.ADDED),
        "INSERT INTO objects (oid, kind_id, ns, name, uid, rv, expires_us)"
        " VALUES (NEW.oid, NEW.kind_id, NEW.ns, NEW.name, NEW.uid, NEW.rv, NEW.expires_us)",
    ),
    MOVED: (_event(Op.MODIFIED), "UPDATE objects SET rv = NEW.rv WHERE oid = NEW.oid"),
    EXPIRY: (
        _event(Op.MODIFIED),
        "UPDATE objects SET rv = NEW.rv, expires_us = NEW.expires_us WHERE oid = NEW.oid",
    ),
    GONE: (
        _event(Op.DELETED),
        "UPDATE objects SET rv = NEW.rv, delete_rv = NEW.rv, expires_us = NULL WHERE oid = NEW.oid",
    ),
    HEAD: (
        "UPDATE head SET rv = NEW.rv, ts_us = NEW.ts_us, unlogged = unlogged + NEW.decision_id,"
        " horizon_rv = max(horizon_rv, NEW.expires_us) WHERE id = 1 AND epoch = NEW.actor_id AND rv = NEW.prev_rv",
        "SELECT RAISE(ABORT, 'another writer has taken over') WHERE changes() <> 1",
    ),
}


def prepare(connection: sqlite3.Connection) -> None:
    """What `write` needs, for the life of the connection."""
    columns = ", ".join(f"NULL AS {name}" for name in _COLUMNS)
    connection.execute(f"CREATE TEMP VIEW changes AS SELECT {columns}")
    for what, statements in _TRIGGERS.items():
        body = "; ".join(statements)
        connection.execute(
            f"CREATE TEMP TRIGGER changes_{what} INSTEAD OF INSERT ON changes WHEN NEW.what = {what} BEGIN {body}; END"
        )


def values(batch: Batch, kind_ids: Mapping[str, int], actors: Actors, epoch: int) -> list[Any]:
    """The rows of a batch, one after the other."""
    found: list[Any] = []
    number = actors.number
    for staged in batch.staged:
        event = staged.event
        op, record, cause = event.op, event.record, event.cause
        if op is Op.RENEWED:
            continue
        if op is Op.ADDED:
            key = record.key
            found += (
                BORN, event.rv, record.oid, staged.prev_rv, event.ts_us, number(cause.actor), cause.decision_id,
                cause.request_id or None, staged.body, record.expires_us, kind_ids[key.resource], key.namespace, key.name,
                record.uid,
            )  # fmt: skip
        else:
            found += (
                _what(event), event.rv, record.oid, staged.prev_rv, event.ts_us, number(cause.actor), cause.decision_id,
                cause.request_id or None, staged.body, record.expires_us, None, None, None, None,
            )  # fmt: skip
    found += (
        HEAD, batch.rv, None, batch.base_rv, batch.ts_us, epoch, batch.unlogged, None, None, batch.horizon or 0, None, None,
        None, None,
    )  # fmt: skip
    return found


def _what(event: Event) -> int:
    if event.op is Op.DELETED:
        return GONE
    before = event.previous
    return MOVED if before is not None and before.expires_us == event.record.expires_us else EXPIRY


def statements(found: list[Any]) -> list[tuple[str, list[Any]]]:
    """What to execute for the rows that `values` gave. If that is one, it needs no transaction around it.

    Raises sqlite3.IntegrityError when executed and another writer has taken over.
    """
    most = _WIDTHS[-1] * WIDTH
    return [_padded(found[start : start + most]) for start in range(0, len(found), most)]


def _padded(found: list[Any]) -> tuple[str, list[Any]]:
    count = len(found) // WIDTH
    width = next(width for width in _WIDTHS if width >= count)
    found.extend(_FILLER * (width - count))
    return _statement(width), found


@functools.cache
def _statement(width: int) -> str:
    row = "({})".format(", ".join("?" * WIDTH))
    return f"INSERT INTO changes VALUES {', '.join([row] * width)}"
