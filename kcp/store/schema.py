"""The schema's life: migrations applied at open, views written anew when they changed.

alembic owns the tables, on both engines. In a checkout the migrations lie beside the package, in an installed wheel
inside it; both ways `migrations()` finds them. A new SQLite file starts from what they make of an empty one, kept as
SQL beside them (`tools/build_fresh_log.py` writes it, a test compares), and one that is up to date needs nothing: so
neither alembic nor SQLAlchemy, 20 MiB of a daemon's memory, is loaded before an older file has to be upgraded.
"""

from __future__ import annotations

import sqlite3
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from kcp.store import views
from kcp.store.protocol import SchemaTooNew, StoreError

if TYPE_CHECKING:
    import sqlalchemy

HEAD = "0001"
"""The newest revision this version knows."""


def migrations() -> Path:
    """The folder with env.py and versions/."""
    for folder in (Path(__file__).parent / "_migrations", Path(__file__).parents[2] / "migrations"):
        if (folder / "env.py").is_file():
            return folder
    raise StoreError("the migrations are missing from this installation")


def fresh_log() -> Path:
    """SQL of the file's tables and indexes at HEAD."""
    return migrations() / f"{HEAD}.sql"


def known_revisions() -> list[str]:
    """Oldest first: file names begin with the revision."""
    return sorted(path.name.split("_")[0] for path in (migrations() / "versions").glob("[0-9]*.py"))


def revision(connection: sqlite3.Connection, database: str = "main") -> str | None:
    """The schema revision of a file; None for an empty one."""
    tables = f"SELECT 1 FROM {database}.sqlite_master WHERE name = 'alembic_version'"
    if not connection.execute(tables).fetchone():
        return None
    found = connection.execute(f"SELECT version_num FROM {database}.alembic_version").fetchone()
    return found[0] if found else None


def check(connection: sqlite3.Connection, path: Path, database: str = "main") -> None:
    """For readers. Raises SchemaTooNew, or StoreError when the file has no or an older schema."""
    found = revision(connection, database)
    if found is None:
        raise StoreError(f"{path} is no event log")
    check_revision(found, str(path))


def check_revision(found: str, place: str) -> None:
    """Raises SchemaTooNew, or StoreError when the schema is an older one."""
    if found == HEAD:
        return
    if found in known_revisions():
        raise StoreError(f"{place} has the older schema {found}: start kcp once to upgrade it")
    raise SchemaTooNew(f"{place} was written by a newer kcp (schema {found}, this one knows {HEAD})")


def upgrade(connection: sqlite3.Connection, path: Path) -> None:
    """Bring a file to HEAD, and its views. The caller holds the lock. Raises SchemaTooNew."""
    found = revision(connection)
    if found != HEAD:
        if found is not None and found not in known_revisions():
            raise SchemaTooNew(f"{path} was written by a newer kcp (schema {found}, this one knows {HEAD})")
        if found is None and fresh_log().is_file():
            _make_tables(connection, fresh_log().read_text("utf-8"))
        else:
            _run_migrations(connection)
    _replace_views(connection)


def _make_tables(connection: sqlite3.Connection, statements: str) -> None:
    """All of them or, when the process ends meanwhile, none."""
    connection.execute("BEGIN IMMEDIATE")
    for statement in statements.split(";\n"):
        connection.execute(statement)
    connection.execute("COMMIT")


def tables_of(connection: sqlite3.Connection) -> str:
    """The statements that make the tables and indexes of a file, and say which revision they are."""
    made = connection.execute(
        "SELECT sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql IS NOT NULL"
        " AND name NOT LIKE 'sqlite_%' ORDER BY rowid"
    ).fetchall()
    found = f"INSERT INTO alembic_version (version_num) VALUES ('{revision(connection)}')"
    return "".join(f"{_trimmed(sql)};\n" for sql in [*(sql for (sql,) in made), found])


def _trimmed(sql: str) -> str:
    return "\n".join(line.rstrip() for line in sql.strip().splitlines())


def engine_over(connection: sqlite3.Connection) -> sqlalchemy.Engine:
    """An SQLAlchemy engine whose only connection is this one."""
    import sqlalchemy
    from sqlalchemy.pool import StaticPool

    return sqlalchemy.create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)


def _run_migrations(connection: sqlite3.Connection) -> None:
    with engine_over(connection).connect() as bound:
        connection.execute("BEGIN IMMEDIATE")
        run_migrations(bound)
        bound.commit()


def run_migrations(connection: sqlalchemy.Connection) -> None:
    """Inside the caller's transaction and lock, on either engine."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations()).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _replace_views(connection: sqlite3.Connection) -> None:
    """`user_version` holds a checksum of the views, so that an unchanged set costs one pragma."""
    wanted = views.persistent()
    checksum = zlib.crc32("".join(sql for _, sql in wanted).encode()) & 0x7FFFFFFF
    if connection.execute("PRAGMA user_version").fetchone()[0] == checksum:
        return
    connection.execute("BEGIN IMMEDIATE")
    old = connection.execute("SELECT name FROM sqlite_master WHERE type = 'view' ORDER BY name").fetchall()
    for (name,) in old:
        connection.execute(f'DROP VIEW "{name}"')
    for name, select in wanted:
        connection.execute(f'CREATE VIEW "{name}" AS {select}')
    connection.execute(f"PRAGMA user_version = {checksum}")
    connection.execute("COMMIT")
