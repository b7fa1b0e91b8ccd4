"""The tools on PostgreSQL tell what they tell on SQLite: one incident, played on both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from kcp.apis.semantics.facts import FACTS
from kcp.base.clock import SystemClock, VirtualClock
from kcp.store import check, facts, history, transfer, views
from kcp.store.open import open_store
from kcp.store.protocol import Decision, Input, Op, StoreError
from kcp.store.purge import purge
from kcp.store.query import QueryFailed, Session, run_query
from kcp.store.reader import LogReader
from tests.store import postgres
from tests.store.changes import create, delete, key, open_for_test, plain, told, update
from tests.store.incident import LEASE, NODE, POD, SECRET, open_log, play

pytestmark = pytest.mark.real


@attrs.frozen
class Logs:
    sqlite: Path
    shared: str


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


async def _play(found: Logs) -> Logs:
    for where in (found.sqlite, found.shared):
        clock = VirtualClock()
        async with open_log(where, clock) as store:
            await play(store, clock)
    return found


@pytest.fixture
async def logs(tmp_path: Path) -> Logs:
    """Two logs that the test may change."""
    return await _play(Logs(tmp_path / "data", postgres.database()))


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Logs:
    """Two logs that nobody changes."""
    found = Logs(tmp_path_factory.mktemp("engines") / "data", postgres.database())
    played: Logs = postgres.asyncio_run(_play(found))
    return played


def same(value: Any) -> Any:
    """JSON texts as values, so that spaces and the order of keys do not count."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        return json.loads(value)
    return value


def rows_of(where: Path | str, query: str, at: str | None = None) -> list[list[Any]]:
    found = run_query(where, query, clock=VirtualClock(), at=at)
    return [[same(value) for value in row] for row in found.rows]


NAMES = [name for name, _ in views.persistent()]


class TestSql:
    @pytest.mark.parametrize("at", [None, "3", "8", "12", "2026-01-01T00:00:04.5Z"])
    def test_every_view_shows_the_same(self, past: Logs, at: str | None) -> None:
        clock = VirtualClock()
        with Session(past.sqlite, clock, at=at) as ours, Session(past.shared, clock, at=at) as theirs:
            for name in NAMES:
                query = f"SELECT * FROM {name} ORDER BY rv, name"
                expected, found = ours.run(query), theirs.run(query)
                assert found.columns == expected.columns
                assert [[same(v) for v in row] for row in found.rows] == [
                    [same(v) for v in row] for row in expected.rows
                ], name

    def test_fields_of_every_type(self, past: Logs) -> None:
        query = "SELECT name, phase, ready, restarts, node, owner, images, app FROM pods"
        expected = [["web-1", "Running", "1/1", 1, "n1", "ReplicaSet/web", "web:1", "web"]]
        assert rows_of(past.shared, query, "9") == expected
        assert rows_of(past.shared, "SELECT ready, restarts FROM pod_history WHERE rv = 8") == [[0, 1]]
        assert rows_of(past.shared, "SELECT name, ready, cpu FROM nodes", "5") == [["n1", "True", "4"]]
        assert rows_of(past.shared, "SELECT sum(rv), avg(rv) FROM history WHERE rv < 3") == [[3, 1.5]]

    @pytest.mark.parametrize(
        "sql",
        [
            "DELETE FROM events",
            "INSERT INTO about VALUES ('a', 'b')",
            "CREATE TABLE x (y int)",
            "CREATE TEMP TABLE x (y int)",
            "WITH gone AS (DELETE FROM events RETURNING rv) SELECT count(*) FROM gone",
            "SELECT nextval('kcp_life')",
            "SELECT setval('kcp_life', 1)",
            "EXPLAIN ANALYZE DELETE FROM events",
            "SELECT 1; DELETE FROM events",
            "SET default_transaction_read_only = off",
            "COMMIT",
            "COPY events TO '/tmp/x'",
        ],
    )
    def test_nothing_can_be_written(self, past: Logs, clock: VirtualClock, sql: str) -> None:
        with Session(past.shared, clock) as session:
            with pytest.raises(QueryFailed):
                session.run(sql)
            with pytest.raises(QueryFailed):
                session.run("WITH x AS (DELETE FROM events RETURNING 1) SELECT * FROM x")
            assert session.run("SELECT count(*) FROM events").rows == [(11,)]

    def test_mistakes_deadlines_limits_and_names(self, past: Logs) -> None:
        with Session(past.shared, SystemClock(), deadline_s=0.2) as session:
            with pytest.raises(QueryFailed, match="syntax error"):
                session.run("SELECT FROM WHERE")
            with pytest.raises(QueryFailed, match='"nothing" does not exist'):
                session.run("SELECT nothing FROM pods")
            with pytest.raises(QueryFailed, match=r"longer than 0\.2 s"):
                session.run("SELECT pg_sleep(9)")
            assert len(session.run("SELECT rv FROM history", limit=2).rows) == 2
            assert session.run("SELECT $1::int + 1", (1,)).rows == [(2,)]
            names = session.names()
        assert {"history", "state", "pods", "decisions", "facts_pod"} <= set(names)
        assert "phase" in names["pods"] and "asof" not in names

    @pytest.mark.parametrize("at", ["99", "soon"])
    def test_moments_that_are_none(self, past: Logs, clock: VirtualClock, at: str) -> None:
        with pytest.raises(QueryFailed):
            Session(past.shared, clock, at=at)

    def test_no_log(self, clock: VirtualClock) -> None:
        empty = postgres.database(empty=True)
        with pytest.raises(StoreError, match="there is no event log at"):
            Session(empty, clock)
        with pytest.raises(StoreError, match="there is no event log at"):
            LogReader(empty)
        with pytest.raises(StoreError, match="there is no event log at"), history.reader(empty):
            pass


class TestHistory:
    def test_versions_diffs_and_blame(self, past: Logs) -> None:
        with history.reader(past.sqlite) as ours, history.reader(past.shared) as theirs:
            for at in (POD, NODE, SECRET, LEASE):
                place = (at.resource, at.namespace, at.name)
                assert history.versions(theirs, *place) == history.versions(ours, *place)
                assert history.blame(theirs, *place) == history.blame(ours, *place)
                assert history.last_state(theirs, *place) == history.last_state(ours, *place)
                for rv in range(13):
                    assert history.object_at(theirs, *place, rv) == history.object_at(ours, *place, rv)
            assert history.find_kinds(theirs, "deployment")[0][1].resource == "deployments.apps"

    async def test_a_document_that_jsonb_refuses(self, logs: Logs) -> None:
        async with open_for_test(logs.shared) as store:
            await store.append(create(key("nul"), data={"v": "\0"}))
            await store.append(update(key("nul"), data={"v": "\0\0"}))
            await store.append(delete(key("nul")))
        with history.reader(logs.shared) as connection:
            found = history.versions(connection, "configmaps", "default", "nul")
            assert [v.object["data"]["v"] for v in found] == ["\0", "\0\0", "\0\0"]

    def test_reading_in_order(self, past: Logs) -> None:
        with LogReader(past.sqlite) as ours, LogReader(past.shared) as theirs:
            assert [told(e) for e in theirs.events()] == [told(e) for e in ours.events()]
            assert list(theirs.decisions()) == list(ours.decisions())
            assert list(theirs.inputs()) == list(ours.inputs())
            for rv in range(13):
                for resource in (POD.resource, NODE.resource, LEASE.resource):
                    found = [plain(r) for r in theirs.list_at(resource, rv)]
                    assert found == [plain(r) for r in ours.list_at(resource, rv)]
                assert plain(theirs.get_at(POD, rv)) == plain(ours.get_at(POD, rv))


class TestMoving:
    def test_the_history_has_one_checksum(self, past: Logs) -> None:
        assert transfer.checksum_of(past.shared) == transfer.checksum_of(past.sqlite)
        assert transfer.checksum_of(past.shared, 3, 9) == transfer.checksum_of(past.sqlite, 3, 9)

    @pytest.mark.parametrize(("first", "last"), [(1, None), (4, 9), (8, 12), (12, 12)])
    def test_an_incident_file_is_the_same(
        self, past: Logs, tmp_path: Path, first: int, last: int | None
    ) -> None:
        done = [
            transfer.export_incident(
                str(where), tmp_path / f"{i}.kcp", clock=VirtualClock(), mask_key=b"k" * 32, first_rv=first, last_rv=last
            )
            for i, where in enumerate([past.sqlite, past.shared])
        ]  # fmt: skip
        assert done[0] == done[1]
        assert check.problems(tmp_path / "1.kcp") == []
        for name in [*NAMES, "facts_pod", "facts_owner", "decisions", "inputs", "ticks"]:
            query = f"SELECT * FROM {name} ORDER BY 1, 2"
            assert rows_of(tmp_path / "1.kcp", query) == rows_of(tmp_path / "0.kcp", query)

    async def test_there_and_back_again(self, logs: Logs, clock: VirtualClock, tmp_path: Path) -> None:
        checksum = transfer.checksum_of(logs.sqlite)
        transfer.backup(logs.sqlite, tmp_path / "one.db", clock=clock)
        moved = postgres.database(empty=True)
        went_on = transfer.restore(tmp_path / "one.db", moved).rv
        assert went_on == 12 + transfer.RESTORE_JUMP
        assert check.problems(moved) == [] and transfer.checksum_of(moved) == checksum
        transfer.backup(moved, tmp_path / "two.db", clock=clock)
        assert (
            check.problems(tmp_path / "two.db") == []
            and transfer.checksum_of(tmp_path / "two.db") == checksum
        )
        async with open_for_test(moved) as store:
            assert store.rv == store.horizon == went_on and store.epoch == 3
            assert (await store.append(update(NODE))).rv == went_on + 1
        with pytest.raises(StoreError, match="holds a log already"):
            transfer.restore(tmp_path / "one.db", moved)
        assert check.problems(moved) == []

    async def test_restore_to_a_revision(self, logs: Logs, clock: VirtualClock, tmp_path: Path) -> None:
        transfer.backup(logs.shared, tmp_path / "copy.db", clock=clock)
        target = postgres.database(empty=True)
        transfer.restore(tmp_path / "copy.db", target, at=7)
        async with open_store(target, clock=SystemClock()) as store:
            record = store.get(POD)
            assert record is not None and record.rv == 4
            assert store.get(LEASE) is not None
        assert check.problems(target) == []

    def test_facts_can_be_made_again(self, logs: Logs) -> None:
        query = "SELECT * FROM facts_pod ORDER BY oid, rv"
        before = rows_of(logs.shared, query)
        assert before == rows_of(logs.sqlite, query)
        assert facts.rebuild(logs.shared, facts.projections(FACTS)) == 8
        assert rows_of(logs.shared, query) == before

    def test_a_broken_law_is_told(self, logs: Logs) -> None:
        assert check.problems(logs.shared) == []
        postgres.server().execute("DELETE FROM events WHERE rv = 8", logs.shared.split("/")[3].split("?")[0])
        assert check.problems(logs.shared) == [
            "-1 revisions are missing or too many (events + unlogged - head)",
        ]


class TestPurge:
    @pytest.mark.parametrize("engine", ["sqlite", "shared"])
    async def test_a_secret_leaves_no_value_anywhere(
        self, logs: Logs, clock: VirtualClock, engine: str
    ) -> None:
        where: Path | str = getattr(logs, engine)
        db = create(key("db2", "shop", "secrets"), data={"password": "czNjcjN0"})
        async with open_for_test(where) as store:
            await store.append(db)
            live = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db", "namespace": "shop"}, "data": {"p": "dG9wc2VjcmV0"}}  # fmt: skip
            store.record(Input("live", {"answer": [live]}))
            effects = [{"kind": "Update", "args": {"object": live}, "outcome": "ok", "rv": 3}]
            store.record(Decision(43, "c", "k", "event", {}, 5, effects, live, "c", "f"))
            await store.append(update(NODE))
        done = purge(where, SECRET, clock=clock, who="root", why="leaked", history_only=True)
        assert (done.versions, done.live_rv) == (1, 10)
        assert check.problems(where) == []
        with LogReader(where) as reader:
            past, now = reader.get_at(SECRET, 5), reader.get_at(SECRET, 12)
            assert past is not None and "data" not in past.value
            assert now is not None and now.value["data"] == {"password": "bmV3"}
            told_of = json.dumps([entry.payload for _, _, entry in reader.inputs()])
            told_of += json.dumps([[d.effects, d.memo_before] for _, d in reader.decisions()])
            assert "dG9wc2VjcmV0" not in told_of.replace('{"token": "dG9wc2VjcmV0"}', "")
            (mark,) = [entry for _, _, entry in reader.inputs() if entry.kind == "purge"]
            assert mark.payload["who"] == "root" and mark.payload["rows"] == 1
            assert [e.op for e in reader.events(resources=["secrets"])] == [Op.ADDED, Op.MODIFIED, Op.ADDED]
