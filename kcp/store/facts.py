"""Projections: rows of the `facts_*` tables that follow from events, and their rebuilding from the log.

The functions that know kinds come from outside, as rows `(table, resource, facts, none)`: the store calls `facts` on
the decoded object after and before an event and writes rows only when they differ. So the newest rows of an object up to a
revision are its facts at that revision.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kcp.machinery.document import Json
from kcp.store import archive, rows, schema
from kcp.store.columns import FACTS
from kcp.store.driver import FactRow
from kcp.store.open import is_postgres, lock_existing, sqlite_path
from kcp.store.protocol import Event, Op, Projection, StoreError
from kcp.store.sqlite import connect
from kcp.store.stage import project

Facts = Callable[[Json], list[Json]]
FactsRow = tuple[str, "str | None", Facts, "Json | None"]

PAGE_EVENTS = 2000


def projections(found: Sequence[FactsRow]) -> list[Projection]:
    return [projection(*row) for row in found]


def projection(table: str, resource: str | None, facts: Facts, none: Json | None) -> Projection:
    """`none` is the row to write when an object had facts and has no more."""

    def project_event(event: Event) -> Sequence[tuple[str, dict[str, Any]]]:
        record = event.record
        if event.op is Op.DELETED or (resource is not None and record.key.resource != resource):
            return ()
        new = facts(record.value)
        old = [] if event.previous is None else facts(event.previous.value)
        if new == old:
            return ()
        if not new and none is not None:
            return ((table, none),)
        return [(table, row) for row in new]

    return project_event


def rebuild(url_or_path: str | Path, found: Sequence[Projection]) -> int:
    """Empty the facts tables and fold the log again; returns the rows written. Raises Locked while kcp runs on SQLite."""
    if is_postgres(url_or_path):
        from kcp.store.postgres_transfer import rebuild_facts

        return rebuild_facts(str(url_or_path), found)
    path = sqlite_path(url_or_path)
    release = lock_existing(path)
    try:
        connection = connect(path)
        try:
            schema.check(connection, path)
            archive.attach(connection, path)
            connection.execute("BEGIN IMMEDIATE")
            written = rebuild_over(connection, found)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise StoreError(f"cannot rebuild the facts of {path}: {error}") from error
        finally:
            connection.close()
    finally:
        release()
    return written


def rebuild_over(connection: sqlite3.Connection, found: Sequence[Projection]) -> int:
    """The same inside the caller's transaction."""
    for name in FACTS:
        connection.execute(f"DELETE FROM {name}")
    resources = {number: row.resource for number, row in rows.load_kinds(connection)}
    (last,) = connection.execute("SELECT coalesce(max(rv), 0) FROM events").fetchone()

    def page(position: int, limit: int) -> Sequence[Event]:
        return rows.events_since(connection, resources, position, last, None, limit)

    return fold(
        page, last, found, lambda table, facts: connection.executemany(rows.INSERT_FACT[table], facts)
    )


def fold(
    page: Callable[[int, int], Sequence[Event]],
    last: int,
    found: Sequence[Projection],
    write: Callable[[str, Sequence[FactRow]], object],
) -> int:
    """Project all events up to `last`; `page(position, limit)` gives those after a position. Returns the rows written."""
    position = written = 0
    while position < last:
        events = page(position, PAGE_EVENTS)
        for table, facts in project(events, found).items():
            write(table, facts)
            written += len(facts)
        position = events[-1].rv if len(events) == PAGE_EVENTS else last
    return written
