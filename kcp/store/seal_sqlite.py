"""Sealing on SQLite: what the steps read and write through."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from kcp.base.clock import Clock, SystemClock
from kcp.store import parquet
from kcp.store.sealing import Transaction

T = TypeVar("T")

_COLUMNS = ", ".join(parquet.COLUMNS)
_RV = parquet.RV


def fetch(connection: sqlite3.Connection, sql: str) -> list[tuple[Any, ...]]:
    return connection.execute(sql.replace("{log}", "main.")).fetchall()


class SqliteLog:
    """Reads through a connection of its own, each statement for itself: what is below the horizon stands still."""

    engine = "sqlite"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        return fetch(self._connection, sql)

    def bodies(self, rvs: Sequence[int]) -> dict[int, tuple[Any, ...]]:
        found = self._connection.execute(
            f"SELECT {_COLUMNS} FROM events WHERE rv IN ({', '.join(map(str, rvs))})"
        )
        return {row[_RV]: row for row in found}


class SqliteTransaction:
    """One transaction of the writing connection, begun by its owner."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock) -> None:
        self._connection, self._clock = connection, clock
        self._began_s = clock.monotonic()

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        return fetch(self._connection, sql)

    def run(self, sql: str) -> int:
        cursor = self._connection.execute(sql.replace("{log}", "main."))
        cursor.fetchall()
        return cursor.rowcount

    def elapsed_s(self) -> float:
        return self._clock.monotonic() - self._began_s


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, clock: Clock) -> Iterator[SqliteTransaction]:
    """Committed unless the caller raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield SqliteTransaction(connection, clock)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def transact(connection: sqlite3.Connection, step: Callable[[Transaction], T]) -> T:
    with transaction(connection, SystemClock()) as within:
        return step(within)
