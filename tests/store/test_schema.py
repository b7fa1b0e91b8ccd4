"""Migrations: the tables they make are the tables of the code; views follow the code."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import alembic.autogenerate
import alembic.migration

from kcp.store import schema, views
from kcp.store.tables import metadata
from tests.store.changes import create, key, open_for_test


async def _make(tmp_path: Path) -> sqlite3.Connection:
    async with open_for_test(tmp_path) as store:
        await store.append(create(key("a")))
    return sqlite3.connect(tmp_path / "kcp.db", isolation_level=None)


async def test_autogenerate_finds_no_difference(tmp_path: Path) -> None:
    connection = await _make(tmp_path)
    with schema.engine_over(connection).connect() as bound:
        context = alembic.migration.MigrationContext.configure(bound, opts={"compare_type": True})
        assert alembic.autogenerate.compare_metadata(context, metadata) == []
    connection.close()


def test_the_head_is_the_newest_migration() -> None:
    assert schema.known_revisions()[-1] == schema.HEAD
    assert (schema.migrations() / "env.py").is_file()


async def test_partial_indexes_are_partial(tmp_path: Path) -> None:
    connection = await _make(tmp_path)
    found = dict(
        connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
    )
    connection.close()
    assert found["objects_live"].endswith("WHERE delete_rv IS NULL") and "UNIQUE" in found["objects_live"]
    assert found["objects_dead"].endswith("WHERE delete_rv IS NOT NULL")


async def test_views_are_written_anew_when_they_change(tmp_path: Path) -> None:
    connection = await _make(tmp_path)
    connection.execute("DROP VIEW pods")
    connection.execute("CREATE VIEW stale AS SELECT 1")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    async with open_for_test(tmp_path):
        pass
    connection = sqlite3.connect(tmp_path / "kcp.db")
    found = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'view'")}
    connection.close()
    assert found == {name for name, _ in views.persistent()}


async def test_the_file_gives_freed_pages_back_in_steps(tmp_path: Path) -> None:
    connection = await _make(tmp_path)
    assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
