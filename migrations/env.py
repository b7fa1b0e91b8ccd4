"""alembic's entry: runs the migrations over the connection that the store hands in.

By hand, for a new migration: alembic -x url=sqlite:///some.db revision --autogenerate -m "what changes".
"""

from __future__ import annotations

from typing import Any

import sqlalchemy
from alembic import context

from kcp.store.tables import metadata


def _include(thing: Any, name: str | None, kind: str, reflected: bool, compare_to: Any) -> bool:
    del thing, reflected, compare_to
    return not (kind == "table" and name is not None and name.startswith("sqlite_"))


def _run(connection: sqlalchemy.Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=True,
        compare_type=True,
        include_object=_include,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:
    engine = sqlalchemy.create_engine(context.get_x_argument(as_dictionary=True)["url"])
    with engine.begin() as opened:
        _run(opened)
