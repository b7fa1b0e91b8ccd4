"""Writes migrations/<revision>.sql: the tables of a new SQLite log, as the migrations make them. Run after adding one.

python tools/build_fresh_log.py
"""

from __future__ import annotations

import sqlite3

from kcp.store import schema


def fresh_log() -> str:
    """What alembic makes of an empty file."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        with schema.engine_over(connection).connect() as bound:
            schema.run_migrations(bound)
            bound.commit()
        return schema.tables_of(connection)
    finally:
        connection.close()


if __name__ == "__main__":
    schema.fresh_log().write_text(fresh_log(), "utf-8")
