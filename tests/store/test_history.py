"""History for people: versions, diffs, blame, the SQL views, the read-only session."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcp.apis.semantics.facts import FACTS
from kcp.base.clock import EPOCH_OF_SIMULATION, VirtualClock
from kcp.store import facts, history
from kcp.store.protocol import Op, StoreError
from kcp.store.query import QueryFailed, Session, run_query
from tests.store.incident import NODE, POD, SECRET, open_log, play


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def log(tmp_path: Path, clock: VirtualClock) -> AsyncIterator[Path]:
    """The log of a daemon that still runs."""
    async with open_log(tmp_path, clock) as store:
        await play(store, clock)
        yield tmp_path


def one(table: Any) -> tuple[Any, ...]:
    assert len(table.rows) == 1
    row: tuple[Any, ...] = table.rows[0]
    return row


class TestVersions:
    def test_who_changed_what(self, log: Path) -> None:
        with history.reader(log) as connection:
            found = history.versions(connection, "pods", POD.namespace, POD.name)
        assert [(v.rv, v.verb, v.username, v.manager) for v in found] == [
            (2, "created", "alice", "kubectl-create"),
            (3, "changed", "system:kube-scheduler", "kube-scheduler"),
            (4, "changed", "system:node:n1", "kubelet"),
            (8, "changed", "system:node:n1", "kubelet"),
            (9, "changed", "system:node:n1", "kubelet"),
            (11, "deleted", "alice", "kubectl-create"),
        ]
        assert [str(change) for change in found[1].changes] == ["+ spec.nodeName: n1"]
        assert (found[1].decision_id, found[1].request_id) == (42, "req-2")
        assert [str(change) for change in found[3].changes] == [
            "~ status.conditions[type=Ready].status: True → False",
            "~ status.containerStatuses[name=main].ready: true → false",
            "~ status.containerStatuses[name=main].restartCount: 0 → 1",
        ]
        assert found[-1].object["status"]["phase"] == "Running"

    def test_ranges_and_limits(self, log: Path) -> None:
        with history.reader(log) as connection:
            found = history.versions(connection, "Pod", "shop", "web-1", first=4, last=9, limit=2)
            assert [v.rv for v in found] == [8, 9]
            assert len(found[0].changes) == 3
            assert history.versions(connection, "pods", "shop", "nobody") == []
            assert history.versions(connection, "nothing", "shop", "nobody") == []

    def test_object_at_a_revision(self, log: Path) -> None:
        with history.reader(log) as connection:
            assert history.object_at(connection, "pods", "shop", "web-1", 1) is None
            at_three = history.object_at(connection, "pods", "shop", "web-1", 3)
            assert at_three is not None and at_three[0] == 3 and at_three[1]["spec"]["nodeName"] == "n1"
            at_six = history.object_at(connection, "pods", "shop", "web-1", 6)
            assert at_six is not None and at_six[0] == 4
            assert history.object_at(connection, "pods", "shop", "web-1", 11) is None

    def test_last_state_of_a_deleted_object(self, log: Path) -> None:
        with history.reader(log) as connection:
            found = history.last_state(connection, "pods", "shop", "web-1")
            assert found is not None and found[0] == 11 and found[1]["status"]["phase"] == "Running"
            alive = history.last_state(connection, "nodes", "", "n1")
            assert alive is not None and alive[0] == 12
            assert history.last_state(connection, "pods", "shop", "nobody") is None

    def test_blame(self, log: Path) -> None:
        with history.reader(log) as connection:
            found = {b.path: (b.rv, b.manager) for b in history.blame(connection, "pods", "shop", "web-1")}
        assert found["spec.nodeName"] == (3, "kube-scheduler")
        assert found["spec.containers[name=main].image"] == (2, "kubectl-create")
        assert found["status.phase"] == (4, "kubelet")
        assert found["status.containerStatuses[name=main].restartCount"] == (8, "kubelet")
        assert found["status.containerStatuses[name=main].ready"] == (9, "kubelet")

    def test_kinds_by_any_name(self, log: Path) -> None:
        with history.reader(log) as connection:
            for text in ("deployment", "Deployments", "deployments.apps", "deployment.apps"):
                assert [row.resource for _, row in history.find_kinds(connection, text)] == [
                    "deployments.apps"
                ]
            assert history.find_kinds(connection, "gadget") == []

    def test_no_log(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError), history.reader(tmp_path / "nothing"):
            pass


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "a", "b.c", "d"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


class TestDiff:
    @given(st.dictionaries(st.sampled_from(["a", "b", "metadata"]), JSON))
    def test_equal_objects_have_no_difference(self, value: Any) -> None:
        assert history.diff(value, value) == []

    @given(JSON, JSON)
    def test_different_objects_have_one(self, old: Any, new: Any) -> None:
        changes = history.diff({"spec": old}, {"spec": new})
        same_kind = type(old) is type(new)
        if not (same_kind and isinstance(old, list)):
            assert (changes == []) == (same_kind and old == new)
        assert all(change.path.startswith("spec") for change in changes)

    def test_noise_is_left_out(self) -> None:
        old = {"metadata": {"managedFields": [1], "labels": {"a": "1"}}}
        new = {"metadata": {"managedFields": [2], "labels": {"a": "2"}}}
        assert [c.path for c in history.diff(old, new)] == ["metadata.labels.a"]
        assert len(history.diff(old, new, noise=True)) == 2

    def test_items_are_matched_by_name(self) -> None:
        old = {"c": [{"name": "x", "v": 1}, {"name": "y", "v": 1}]}
        new = {"c": [{"name": "y", "v": 2}, {"name": "x", "v": 1}, {"name": "z"}]}
        assert [str(c) for c in history.diff(old, new)] == [
            "~ c[name=y].v: 1 → 2",
            '+ c[name=z]: {"name":"z"}',
        ]

    def test_keys_that_need_quotes(self) -> None:
        assert [c.path for c in history.diff({}, {"labels": {"a.b/c": 1}})] == ["labels"]
        assert [c.path for c in history.diff({"l": {}}, {"l": {"a.b/c": 1}})] == ['l."a.b/c"']


class TestViews:
    def test_every_view_can_be_read(self, log: Path, clock: VirtualClock) -> None:
        for at in (None, "4"):
            with Session(log, clock, at=at) as session:
                for name in session.names():
                    table = session.run(f'SELECT * FROM "{name}" LIMIT 3')
                    assert table.columns

    def test_history_has_the_promised_columns(self, log: Path, clock: VirtualClock) -> None:
        table = run_query(log, "SELECT * FROM history ORDER BY rv", clock=clock)
        promised = "rv prev_rv at ts_us op kind grp ns name uid username manager user_agent decision_id request_id object"
        assert table.columns[:16] == tuple(promised.split())
        assert [row[0] for row in table.rows] == [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12]
        assert table.rows[1][2] == "2026-01-01T00:00:01.000Z"

    def test_state_now_and_then(self, log: Path, clock: VirtualClock) -> None:
        query = "SELECT kind, name, rv FROM state ORDER BY kind"
        now = run_query(log, query, clock=clock).rows
        assert now == [("Lease", "leader", 7), ("Node", "n1", 12), ("Secret", "db", 10)]
        then = run_query(log, query, clock=clock, at="6").rows
        assert then == [("Lease", "leader", 6), ("Node", "n1", 1), ("Pod", "web-1", 4), ("Secret", "db", 5)]
        assert run_query(log, query, clock=clock, at="0").rows == []

    @pytest.mark.parametrize(
        ("at", "phase"), [("2", "Pending"), ("2026-01-01T00:00:03.5Z", "Running"), ("2026-01-01 00:00:01.5", "Pending"), ("10s", "Pending"), ("-8s ago", "Running")]
    )  # fmt: skip
    def test_pods_at_a_moment(self, log: Path, clock: VirtualClock, at: str, phase: str) -> None:
        assert one(run_query(log, "SELECT name, phase, app FROM pods", clock=clock, at=at)) == (
            "web-1",
            phase,
            "web",
        )

    def test_guessable_columns(self, log: Path, clock: VirtualClock) -> None:
        pods = "SELECT ns, name, phase, ready, restarts, node, owner, images FROM pods"
        row = one(run_query(log, pods, clock=clock, at="9"))
        assert row == ("shop", "web-1", "Running", "1/1", 1, "n1", "ReplicaSet/web", "web:1")
        assert one(run_query(log, "SELECT name, ready, cpu FROM nodes", clock=clock, at="5")) == (
            "n1",
            "True",
            "4",
        )
        assert one(run_query(log, "SELECT name, ready FROM nodes", clock=clock)) == ("n1", "Unknown")

    def test_pod_history(self, log: Path, clock: VirtualClock) -> None:
        table = run_query(
            log, "SELECT rv, op, node, phase, restarts, ready, app FROM pod_history ORDER BY rv", clock=clock
        )
        assert table.rows[:4] == [
            (2, "ADDED", None, "Pending", None, None, "web"),
            (3, "MODIFIED", "n1", "Pending", None, None, "web"),
            (4, "MODIFIED", "n1", "Running", 0, 1, "web"),
            (8, "MODIFIED", "n1", "Running", 1, 0, "web"),
        ]
        assert len(run_query(log, "SELECT * FROM pod_history", clock=clock, at="4").rows) == 3

    def test_why(self, log: Path, clock: VirtualClock) -> None:
        query = (
            "SELECT h.rv, h.op, d.controller, d.key, d.trigger, d.frontier FROM history h JOIN decisions d USING (decision_id)"
            " WHERE h.kind = 'Pod' ORDER BY h.rv"
        )
        row = one(run_query(log, query, clock=clock))
        assert row == (3, "MODIFIED", "scheduler", "shop/web-1", "event", '{"nodes":1,"pods":2}')

    def test_flapping_pods_from_facts(self, log: Path, clock: VirtualClock) -> None:
        query = (
            "SELECT o.ns, o.name, count(*) AS flips FROM (SELECT oid, ready, lag(ready) OVER (PARTITION BY oid ORDER BY rv)"
            " AS before FROM facts_pod WHERE rv > 0) f JOIN objects o USING (oid)"
            " WHERE f.before IS NOT NULL AND f.ready <> f.before GROUP BY 1, 2 ORDER BY flips DESC, o.ns, o.name LIMIT 10"
        )
        assert run_query(log, query, clock=clock).rows == [("shop", "web-1", 3)]

    def test_other_sql_clients_see_the_head(self, log: Path) -> None:
        connection = sqlite3.connect(f"file:{log}/kcp.db?mode=ro", uri=True)
        assert connection.execute("SELECT name, ready FROM nodes").fetchall() == [("n1", "Unknown")]
        connection.close()


class TestSession:
    @pytest.mark.parametrize(
        "sql",
        [
            "DELETE FROM events",
            "INSERT INTO about VALUES ('a', 'b')",
            "CREATE TABLE x (y)",
            "CREATE TEMP TABLE x (y)",
            "UPDATE asof SET rv = 1",
            "DROP VIEW pods",
            "ATTACH 'other.db' AS other",
            "PRAGMA query_only = OFF",
            "PRAGMA wal_checkpoint(TRUNCATE)",
            "VACUUM",
        ],
    )
    def test_nothing_can_be_written(self, log: Path, clock: VirtualClock, sql: str) -> None:
        with Session(log, clock) as session:
            with pytest.raises(QueryFailed):
                session.run(sql)
            assert session.run("SELECT count(*) FROM events").rows == [(11,)]
        assert not (log / "other.db").exists()

    @pytest.mark.parametrize("sql", ["SELEC 1", "SELECT nothing FROM pods", "SELECT 1; SELECT 2"])
    def test_mistakes_are_told_in_words(self, log: Path, clock: VirtualClock, sql: str) -> None:
        with pytest.raises(QueryFailed, match=r"syntax error|no such column|one statement"):
            run_query(log, sql, clock=clock)

    def test_a_query_has_a_deadline(self, log: Path) -> None:
        class Racing(VirtualClock):
            def monotonic(self) -> float:
                self.advance(10)
                return super().monotonic()

        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        with pytest.raises(QueryFailed, match="longer than 30 s"):
            run_query(log, endless, clock=Racing())

    def test_limit_and_parameters(self, log: Path, clock: VirtualClock) -> None:
        with Session(log, clock) as session:
            assert len(session.run("SELECT rv FROM history", limit=2).rows) == 2
            assert session.run("SELECT ? + 1", (1,)).rows == [(2,)]

    def test_names_for_completion(self, log: Path, clock: VirtualClock) -> None:
        with Session(log, clock) as session:
            names = session.names()
        assert {
            "history",
            "state",
            "live",
            "pods",
            "nodes",
            "pod_history",
            "node_history",
            "decisions",
        } <= set(names)
        assert "phase" in names["pods"]

    @pytest.mark.parametrize("at", ["99", "soon", "2026-13-01"])
    def test_moments_that_are_none(self, log: Path, clock: VirtualClock, at: str) -> None:
        with pytest.raises(QueryFailed):
            Session(log, clock, at=at)

    async def test_a_stopped_log(self, tmp_path: Path, clock: VirtualClock) -> None:
        async with open_log(tmp_path, clock) as store:
            await play(store, clock)
        assert one(run_query(tmp_path, "SELECT count(*) FROM history", clock=clock)) == (11,)
        moment = (EPOCH_OF_SIMULATION + timedelta(seconds=4.5)).isoformat()
        assert one(run_query(tmp_path, "SELECT max(rv) FROM history", clock=clock, at=moment)) == (5,)


class TestFacts:
    async def test_rebuilding_gives_the_same_rows(self, tmp_path: Path, clock: VirtualClock) -> None:
        async with open_log(tmp_path, clock) as store:
            await play(store, clock)
        tables = ("facts_pod", "facts_node", "facts_owner")
        before = [
            run_query(tmp_path, f"SELECT * FROM {t} ORDER BY oid, rv", clock=clock).rows for t in tables
        ]
        written = facts.rebuild(tmp_path, facts.projections(FACTS))
        after = [run_query(tmp_path, f"SELECT * FROM {t} ORDER BY oid, rv", clock=clock).rows for t in tables]
        assert before == after and written == sum(len(rows) for rows in before) == 8

    def test_rows_are_written_only_when_facts_change(self, log: Path, clock: VirtualClock) -> None:
        pods = run_query(
            log, "SELECT rv, node, phase, ready, restarts FROM facts_pod ORDER BY rv", clock=clock
        )
        assert pods.rows == [
            (2, None, "Pending", 0, 0), (3, "n1", "Pending", 0, 0), (4, "n1", "Running", 1, 0),
            (8, "n1", "Running", 0, 1), (9, "n1", "Running", 1, 1),
        ]  # fmt: skip
        nodes = run_query(log, "SELECT rv, ready FROM facts_node ORDER BY rv", clock=clock)
        assert nodes.rows == [(1, "True"), (12, "Unknown")]
        owners = run_query(log, "SELECT oid, owner_uid, controller FROM facts_owner", clock=clock)
        assert owners.rows == [(2, "rs-1", 1)]


def test_the_incident_is_what_the_tests_say(log: Path, clock: VirtualClock) -> None:
    assert (POD.resource, NODE.resource, SECRET.resource) == ("pods", "nodes", "secrets")
    with history.reader(log) as connection:
        assert [v.op for v in history.versions(connection, "secrets", "shop", "db")] == [
            Op.ADDED,
            Op.MODIFIED,
        ]
