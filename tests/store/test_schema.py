"""Migrations: the tables they make are the tables of the code; views follow the code."""

from __future__ import annotations

import importlib.util
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import alembic.autogenerate
import alembic.migration

from kcp.store import schema, tables, views
from kcp.store.columns import COLUMNS, FACTS
from kcp.store.tables import metadata
from tests.store.changes import create, key, open_for_test


def fresh_log() -> str:
    """What tools/build_fresh_log.py writes."""
    tool = Path(schema.__file__).parents[2] / "tools" / "build_fresh_log.py"
    spec = importlib.util.spec_from_file_location("build_fresh_log", tool)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.fresh_log())


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


def test_a_new_log_starts_from_what_the_migrations_make(tmp_path: Path) -> None:
    """Stale? Run tools/build_fresh_log.py."""
    assert schema.fresh_log().read_text("utf-8") == fresh_log()
    connection = sqlite3.connect(tmp_path / "new.db", isolation_level=None)
    schema.upgrade(connection, tmp_path / "new.db")
    assert schema.revision(connection) == schema.HEAD
    assert schema.tables_of(connection) == fresh_log()
    connection.close()


def test_columns_are_those_of_the_tables() -> None:
    for table, names in COLUMNS.items():
        assert list(names) == metadata.tables[table].columns.keys()
    assert [*FACTS] == [*tables.FACTS]


def test_a_daemon_on_sqlite_loads_no_sqlalchemy(tmp_path: Path) -> None:
    """It is 20 MiB of memory, and a third of a second at the first start."""
    code = (
        "import sys, kcp.cli.up; from kcp.base.clock import SystemClock; from kcp.store.open import open_store;"
        " open_store(sys.argv[1], clock=SystemClock()); print([*{'sqlalchemy', 'alembic'} & {*sys.modules}])"
    )
    root = Path(schema.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "new.db")], cwd=root, capture_output=True, text=True, check=True
    )  # fmt: skip
    assert done.stdout == "[]\n"


def test_an_installed_package_carries_its_migrations(tmp_path: Path) -> None:
    """The wheel maps migrations to kcp/store/_migrations; nothing beside the package is needed."""
    root = Path(schema.__file__).parents[2]
    ignore = shutil.ignore_patterns("__pycache__")
    for room in ("store", "base", "machinery"):
        shutil.copytree(root / "kcp" / room, tmp_path / "kcp" / room, ignore=ignore)
    shutil.copy(root / "kcp" / "__init__.py", tmp_path / "kcp")
    shutil.copytree(schema.migrations(), tmp_path / "kcp" / "store" / "_migrations", ignore=ignore)
    code = (
        "import kcp.store.schema as s; from kcp.base.clock import SystemClock; from kcp.store.open import open_store;"
        " print(s.migrations()); print(open_store('new.db', clock=SystemClock()).rv)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True
    )  # fmt: skip
    assert done.stdout.split() == [str(tmp_path / "kcp" / "store" / "_migrations"), "0"]


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
