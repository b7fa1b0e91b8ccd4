"""A log on either engine for code without an event loop: read-only, one snapshot for its whole life."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import orjson

from kcp.store import archive, rows, schema, sealed_rows
from kcp.store.open import is_postgres, sqlite_path
from kcp.store.protocol import Event, KindRow, Record
from kcp.store.sqlite import connect_read_only

_RAW = "$raw"


class Source(Protocol):
    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        """SQL that both engines understand, without arguments."""
        ...

    def about(self) -> dict[str, str]: ...

    def head(self) -> tuple[int, str]:
        """(revision, uid of the cluster)."""
        ...

    def kinds(self) -> list[tuple[int, KindRow]]: ...

    def list_at(self, kind: int, resource: str, rv: int, namespace: str | None) -> list[Record]: ...

    def get_at(self, kind: int, resource: str, namespace: str, name: str, rv: int) -> Record | None: ...

    def events_since(
        self, resources: dict[int, str], rv: int, until: int, kinds: Sequence[int] | None, limit: int
    ) -> list[Event]: ...

    def close(self) -> None: ...


class SqliteSource:
    """The file of a running or stopped daemon, or an incident file."""

    def __init__(self, url_or_path: str | Path) -> None:
        path = sqlite_path(url_or_path)
        self.connection = connect_read_only(path)
        try:
            schema.check(self.connection, path)
            self._sealed = archive.opened(self.connection, path)
        except BaseException:
            self.connection.close()
            raise

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql).fetchall()

    def about(self) -> dict[str, str]:
        return dict(self.fetch("SELECT key, value FROM about ORDER BY key"))

    def head(self) -> tuple[int, str]:
        rv, uid = self.fetch("SELECT rv, cluster_uid FROM head WHERE id = 1")[0]
        return rv, uid

    def kinds(self) -> list[tuple[int, KindRow]]:
        return list(rows.load_kinds(self.connection))

    def list_at(self, kind: int, resource: str, rv: int, namespace: str | None) -> list[Record]:
        return sealed_rows.list_at(self.connection, self._sealed, kind, resource, rv, namespace, None, None)

    def get_at(self, kind: int, resource: str, namespace: str, name: str, rv: int) -> Record | None:
        return sealed_rows.get_at(self.connection, self._sealed, kind, resource, namespace, name, rv)

    def events_since(
        self, resources: dict[int, str], rv: int, until: int, kinds: Sequence[int] | None, limit: int
    ) -> list[Event]:
        return sealed_rows.events_since(self.connection, self._sealed, resources, rv, until, kinds, limit)

    def close(self) -> None:
        self.connection.close()


def open_source(url_or_path: str | Path) -> Source:
    """Raises StoreError when there is no log, or one of another version."""
    if is_postgres(url_or_path):
        from kcp.store.postgres_reader import PostgresReader

        return PostgresReader(str(url_or_path))
    return SqliteSource(url_or_path)


def plain_json(text: str | bytes | None) -> Any:
    """The value in a JSON column of `decisions`, `inputs` or `leases`, on either engine."""
    if text is None:
        return None
    value = orjson.loads(text)
    if isinstance(value, dict) and _RAW in value:
        return orjson.loads(base64.b64decode(value[_RAW]))
    return value
