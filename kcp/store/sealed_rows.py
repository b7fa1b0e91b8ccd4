"""Reads of a SQLite log below its sealed revision: what `rows` does, after the archive has read what it needs."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from kcp.store import archive, rows
from kcp.store.archive import Archive
from kcp.store.protocol import Event, Record


def list_at(
    connection: sqlite3.Connection,
    sealed: Archive,
    kind: int,
    resource: str,
    rv: int,
    namespace: str | None,
    after: tuple[str, str] | None,
    limit: int | None,
) -> list[Record]:
    sealed.state(rv, archive.of_kind(kind, namespace))
    return rows.list_at(connection, kind, resource, rv, namespace, after, limit)


def get_at(
    connection: sqlite3.Connection,
    sealed: Archive,
    kind: int,
    resource: str,
    namespace: str,
    name: str,
    rv: int,
) -> Record | None:
    sealed.state(rv, archive.one(kind, namespace, name))
    return rows.get_at(connection, kind, resource, namespace, name, rv)


def events_since(
    connection: sqlite3.Connection,
    sealed: Archive,
    resources: Mapping[int, str],
    rv: int,
    until: int,
    kinds: Sequence[int] | None,
    limit: int,
) -> list[Event]:
    def page(after: int, end: int, count: int) -> list[Event]:
        return rows.events_since(connection, resources, after, end, kinds, count)

    return sealed.walk(rv, until, limit, page)


def rv_at(connection: sqlite3.Connection, sealed: Archive, ts_us: int) -> int:
    sealed.moment(ts_us)
    return rows.rv_at(connection, ts_us)
