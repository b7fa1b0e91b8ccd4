"""Schema upgrades, on both engines: a log of the first release opens with all it holds, once, under a lock, or not at all.

log_0001.sql holds, as rows of schema 0001, the log that tests/store/incident.py tells, and one revision more.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import alembic.autogenerate
import alembic.command
import alembic.config
import alembic.migration
import asyncpg
import attrs
import pytest
import sqlalchemy as sa

from kcp.apis.semantics.facts import FACTS
from kcp.base.clock import SystemClock, VirtualClock
from kcp.store import check, postgres_schema, schema
from kcp.store.facts import projections, rebuild
from kcp.store.log import EventLog
from kcp.store.open import open_store
from kcp.store.protocol import Locked, SchemaTooNew, StoreError
from kcp.store.reader import LogReader
from kcp.store.sqlite import connect
from kcp.store.tables import metadata
from kcp.store.transfer import checksum_of
from tests.store import postgres
from tests.store.changes import create, key, open_for_test, told, update
from tests.store.incident import open_log, play

FIRST = "0001"
ROWS = Path(__file__).with_name("log_0001.sql")

NEXT = '''
"""A side table, filled from the log."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("notes", sa.Column("rv", sa.BigInteger(), primary_key=True), sa.Column("text", sa.Text(), nullable=False))
    op.execute("INSERT INTO notes SELECT rv, 'seen' FROM events")
    {then}
'''


@attrs.frozen
class Place:
    """A database for one log. Statements are of both dialects."""

    where: Path | str

    @property
    def shared(self) -> bool:
        return isinstance(self.where, str)

    def make(self, revision: str) -> None:
        """The schema as it was at a revision."""
        if self.shared:
            postgres.asyncio_run(self._make_shared(revision))
            return
        assert isinstance(self.where, Path)
        connection = connect(self.where)
        with schema.engine_over(connection).connect() as bound:
            connection.execute("BEGIN IMMEDIATE")
            _upgrade(bound, revision)
            bound.commit()
        connection.close()

    async def _make_shared(self, revision: str) -> None:
        engine = postgres_schema.engine(str(self.where))
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade, revision)
        await engine.dispose()

    def execute(self, statements: str) -> None:
        if self.shared:
            postgres.asyncio_run(self._execute(statements))
            return
        connection = sqlite3.connect(self.where)
        connection.executescript(statements)
        connection.close()

    async def _execute(self, statements: str) -> None:
        connection = await asyncpg.connect(str(self.where))
        await connection.execute(statements)
        await connection.close()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        if self.shared:
            found: list[tuple[Any, ...]] = postgres.asyncio_run(self._rows(query))
            return found
        connection = sqlite3.connect(self.where)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()

    async def _rows(self, query: str) -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(str(self.where))
        try:
            return [tuple(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()

    def open(self) -> EventLog:
        return open_for_test(self.where)


def _upgrade(connection: sa.Connection, revision: str) -> None:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(schema.migrations()).replace("%", "%%"))
    config.attributes["connection"] = connection
    alembic.command.upgrade(config, revision)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.real)])
def first(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A log as the first release left it."""
    shared = request.param == "postgresql"
    place = Place(postgres.database(empty=True) if shared else tmp_path / "kcp.db")
    place.make(FIRST)
    place.execute(ROWS.read_text())
    return place


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Makes this version one that knows a schema more. Returns the file of its migration."""
    folder = tmp_path / "migrations"
    shutil.copytree(schema.migrations(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    last = schema.known_revisions()[-1]
    added = folder / "versions" / f"{int(last) + 1:04}_side_table.py"
    added.write_text(
        NEXT.format(then="").replace('"0002"', f'"{int(last) + 1:04}"').replace('"0001"', f'"{last}"')
    )
    monkeypatch.setattr(schema, "migrations", lambda: folder)
    monkeypatch.setattr(schema, "HEAD", f"{int(last) + 1:04}")
    return added


async def _anew(where: Path) -> Path:
    """The same story, written by this version."""
    clock = VirtualClock()
    async with open_log(where, clock) as store:
        await play(store, clock)
        await store.append(create(key("text", "shop"), data={"v": "é'\n\\\" $1 ?"}))
    return where


class TestFromTheFirstRelease:
    async def test_everything_is_there(self, first: Place, tmp_path: Path) -> None:
        anew = await _anew(tmp_path / "anew.db")
        async with first.open() as store, open_store(anew, clock=SystemClock(), read_only=True) as now:
            assert (store.rv, store.horizon, now.rv) == (13, 3, 13)
            ours, theirs = await store.events_since(0), await now.events_since(0)
            assert [told(event) for event in ours] == [told(event) for event in theirs]
        assert checksum_of(first.where) == checksum_of(anew)
        assert check.problems(first.where) == []

    async def test_it_goes_on(self, first: Place) -> None:
        async with first.open() as store:
            done = await store.append(update(key("text", "shop"), rv=13, data={"v": "2"}))
            assert done.rv == 14 and done.previous is not None
            lease = key("leader", "kube-system", "leases.coordination.k8s.io")
            assert store.lease_epoch(lease) == (6, 0)
        assert check.problems(first.where) == []
        async with first.open() as store:
            assert store.rv == 14 and len(await store.events_since(0)) == 14

    async def test_decisions_and_inputs_are_read(self, first: Place) -> None:
        await first.open().close()
        with LogReader(first.where) as log:
            ((rv, decision),) = log.decisions()
            ((_, _, entry),) = log.inputs()
        assert (rv, decision.id, decision.frontier) == (2, 42, {"pods": 2, "nodes": 1})
        assert entry.kind == "live" and entry.payload["answer"]["kind"] == "Secret"

    async def test_facts_are_those_of_today(self, first: Place) -> None:
        await first.open().close()
        query = "SELECT oid, rv, node, phase, ready, restarts FROM facts_pod ORDER BY oid, rv"
        before = first.rows(query)
        rebuild(first.where, projections(FACTS))
        assert first.rows(query) == before and len(before) == 5

    async def test_views_are_those_of_today(self, first: Place) -> None:
        first.execute("CREATE VIEW history AS SELECT 1 AS stale")
        await first.open().close()
        assert len(first.rows("SELECT rv, kind, ns, name, manager FROM history")) == 12

    async def test_no_difference_to_the_tables_of_today(self, first: Place) -> None:
        await first.open().close()
        if first.shared:
            engine = postgres_schema.engine(str(first.where))
            async with engine.connect() as connection:
                assert await connection.run_sync(_differences) == []
            await engine.dispose()
        else:
            opened = sqlite3.connect(first.where)
            with schema.engine_over(opened).connect() as bound:
                assert _differences(bound) == []
            opened.close()


def _differences(connection: sa.Connection) -> list[Any]:
    context = alembic.migration.MigrationContext.configure(connection, opts={"compare_type": True})
    found: list[Any] = alembic.autogenerate.compare_metadata(context, metadata)
    return found


class TestToTheNextRelease:
    async def test_a_migration_sees_the_data_and_leaves_it(self, first: Place, newer: Path) -> None:
        async with first.open() as store:
            assert store.rv == 13
            await store.append(create(key("later")))
        assert len(first.rows("SELECT rv FROM notes")) == 12
        assert first.rows("SELECT version_num FROM alembic_version") == [(schema.HEAD,)]
        assert check.problems(first.where) == []

    async def test_an_upgrade_that_fails_leaves_nothing(self, first: Place, newer: Path) -> None:
        good = newer.read_text()
        newer.write_text(good.rstrip() + "\n    raise RuntimeError('half way')\n")
        events = first.rows("SELECT rv, oid, op, prev_rv, ts_us FROM events ORDER BY rv")
        with pytest.raises(RuntimeError, match="half way"):
            first.open()
        assert first.rows("SELECT version_num FROM alembic_version") == [(FIRST,)]
        assert first.rows("SELECT rv, oid, op, prev_rv, ts_us FROM events ORDER BY rv") == events
        newer.write_text(good)
        async with first.open() as store:
            assert store.rv == 13
        assert len(first.rows("SELECT rv FROM notes")) == 12

    async def test_a_reader_asks_for_the_upgrade(self, first: Place, newer: Path) -> None:
        with pytest.raises(StoreError, match=f"has the older schema {FIRST}: start kcp once to upgrade it"):
            open_store(first.where, clock=SystemClock(), read_only=True)

    async def test_those_who_start_at_once_upgrade_once(self, first: Place, newer: Path) -> None:
        """On PostgreSQL they wait for each other; the second one on a file is refused."""

        def start() -> EventLog | Locked:
            try:
                return first.open()
            except Locked as error:
                return error

        found = await asyncio.gather(*[asyncio.to_thread(start) for _ in range(3)])
        opened = [each for each in found if isinstance(each, EventLog)]
        assert len(opened) == (3 if first.shared else 1)
        for store in opened:
            assert store.rv == 13
            await store.close()
        assert len(first.rows("SELECT rv FROM notes")) == 12

    async def test_the_older_version_refuses_it(
        self, first: Place, newer: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await first.open().close()
        head = schema.HEAD
        monkeypatch.undo()
        for read_only in (False, True):
            with pytest.raises(
                SchemaTooNew, match=rf"newer kcp \(schema {head}, this one knows {schema.HEAD}\)"
            ):
                open_store(first.where, clock=SystemClock(), read_only=read_only)
