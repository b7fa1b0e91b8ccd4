"""Logs written from what others tell: revisions kept, gaps allowed, everything without one put where it can have been."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcp.base.clock import VirtualClock
from kcp.machinery.document import normal
from kcp.store import check
from kcp.store.foreign import Change, in_order, write_log
from kcp.store.protocol import Actor, Event, Key, KindRow, Op, StoreError
from kcp.store.reader import LogReader
from kcp.store.redaction import is_untold

KINDS = {
    "pods": KindRow("pods", "", "v1", "Pod", "pods", True),
    "leases.coordination.k8s.io": KindRow(
        "leases.coordination.k8s.io", "coordination.k8s.io", "v1", "Lease", "leases", True
    ),
}
S = 1_000_000


def pod(name: str, uid: str = "", rv: int = 0, at_s: float = 0, value: str = "", **fields: Any) -> Change:
    metadata = {"name": name, "namespace": "default", **({"uid": uid} if uid else {})}
    body = normal({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"nodeName": value}})
    return Change(Key("pods", "default", name), rv, int(at_s * S), body, uid, **fields)


def gone(name: str, rv: int = 0, at_s: float = 0, uid: str = "") -> Change:
    return Change(Key("pods", "default", name), rv, int(at_s * S), None, uid, removed=True)


def written(tmp_path: Path, *changes: Change, **options: Any) -> list[Event]:
    path = tmp_path / "log.db"
    write_log(path, changes, KINDS, clock=VirtualClock(), **options)
    assert check.problems(path) == []
    with LogReader(path) as log:
        return list(log.events(after=0))


def test_told_revisions_stay_and_gaps_are_unlogged(tmp_path: Path) -> None:
    events = written(tmp_path, pod("a", "u", 100, 1, created=True), pod("a", "u", 250, 2), gone("a", 300, 3))
    assert [(e.rv, e.op, e.record.oid) for e in events] == [
        (100, Op.ADDED, 100), (250, Op.MODIFIED, 100), (300, Op.DELETED, 100),
    ]  # fmt: skip
    assert [e.ts_us for e in events] == [S, 2 * S, 3 * S]
    with LogReader(tmp_path / "log.db") as log:
        assert log.get_at(Key("pods", "default", "a"), 99) is None
        assert log.get_at(Key("pods", "default", "a"), 299) is not None
        assert log.get_at(Key("pods", "default", "a"), 300) is None


def test_an_object_seen_late_was_not_created_then(tmp_path: Path) -> None:
    (event,) = written(tmp_path, pod("a", "u", 7, 1))
    assert event.op is Op.MODIFIED and event.previous is None


def test_what_has_no_revision_goes_by_its_time_into_a_gap(tmp_path: Path) -> None:
    events = written(
        tmp_path, pod("a", "u", 10, 1), gone("b", 0, 1.5), pod("a", "u", 12, 2), pod("c", "w", 13, 3)
    )
    assert [(e.rv, e.key.name) for e in events] == [(10, "a"), (11, "b"), (12, "a"), (13, "c")]


def test_the_nearest_gap_before_is_taken_when_there_is_none_after(tmp_path: Path) -> None:
    events = written(
        tmp_path, pod("a", "u", 10, 1), pod("b", "v", 8, 1), pod("c", "w", 11, 2), gone("d", 0, 1.5)
    )
    assert [(e.rv, e.key.name) for e in events] == [(8, "b"), (9, "d"), (10, "a"), (11, "c")]


def test_between_neighbours_of_one_object_there_may_be_no_room(tmp_path: Path) -> None:
    done = in_order([pod("a", "u", 10, 1), pod("a", "u", 11, 3), pod("a", "u", 0, 2)])
    assert [change.rv for change in done.changes] == [10, 11]
    assert done.left_out == 1


def test_a_name_that_comes_back_went_before(tmp_path: Path) -> None:
    events = written(tmp_path, pod("a", "u", 10, 1), pod("a", "v", 20, 2, created=True))
    assert [(e.rv, e.op, e.record.uid) for e in events] == [
        (10, Op.MODIFIED, "u"), (19, Op.DELETED, "u"), (20, Op.ADDED, "v"),
    ]  # fmt: skip


def test_keys_that_expired_in_one_revision(tmp_path: Path) -> None:
    told = [pod("a", "u", 1), pod("b", "v", 2), gone("a", 5), gone("b", 5), pod("c", "w", 6)]
    done = write_log(tmp_path / "log.db", told, KINDS, clock=VirtualClock())
    assert done.moved == 1
    with LogReader(tmp_path / "log.db") as log:
        assert [(e.rv, e.key.name) for e in log.events()] == [
            (1, "a"),
            (2, "b"),
            (5, "a"),
            (6, "c"),
            (7, "b"),
        ]


def test_two_accounts_of_one_change_are_one(tmp_path: Path) -> None:
    told = pod("a", "u", 5, 0, "n1"), Change(Key("pods", "default", "a"), 5, 9 * S, actor=Actor("alice"))
    for order in (told, told[::-1]):
        (event,) = in_order(order).changes
        assert (event.body, event.ts_us, event.actor.username) == (told[0].body, 9 * S, "alice")


def test_files_of_two_clusters_do_not_mix() -> None:
    with pytest.raises(StoreError, match="revision 5 is told of pods/default/a and of pods/default/b"):
        in_order([pod("a", "u", 5), pod("b", "v", 5)])


def test_a_change_without_a_body_is_flagged_and_says_so(tmp_path: Path) -> None:
    key = Key("pods", "default", "a")
    (event,) = written(tmp_path, Change(key, 5, S, uid="u", actor=Actor("alice")))
    assert is_untold(event.record.value)
    with sqlite3.connect(tmp_path / "log.db") as connection:
        assert connection.execute("SELECT flags FROM events").fetchone() == (4,)
    connection.close()


def test_a_removal_of_what_nobody_had_seen_keeps_its_last_state(tmp_path: Path) -> None:
    (event,) = written(tmp_path, pod("a", "u", 9, 1, "n1", removed=True))
    assert event.op is Op.DELETED and event.record.value["spec"] == {"nodeName": "n1"}


def test_leases_have_their_row(tmp_path: Path) -> None:
    key = Key("leases.coordination.k8s.io", "kube-system", "leader")

    def lease(rv: int, holder: str, **fields: Any) -> Change:
        metadata = {"name": key.name, "namespace": key.namespace, "uid": "l"}
        spec = {"holderIdentity": holder, "leaseDurationSeconds": 15}
        body = normal(
            {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
        )
        return Change(key, rv, rv * S, body, "l", **fields)

    events = written(tmp_path, lease(1, "a"), lease(2, "b"), lease(5, "b", removed=True), pod("a", "u", 6, 6))
    assert [e.op for e in events] == [Op.MODIFIED, Op.MODIFIED, Op.DELETED, Op.MODIFIED]


def test_nothing_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nothing in it"):
        write_log(tmp_path / "log.db", [], KINDS, clock=VirtualClock())
    assert not (tmp_path / "log.db").exists()


changes = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.one_of(st.just(0), st.integers(1, 40)), st.integers(1, 20), st.booleans(), st.sampled_from("uv")
    ),
    min_size=1,
    max_size=25,
)  # fmt: skip


@given(changes)
@settings(max_examples=60, deadline=None)
def test_every_order_is_a_history(told: list[tuple[str, int, int, bool, str]]) -> None:
    """Revisions ascend, told ones stay with their object, and no object dies twice or changes its uid alive."""
    one_object_a_revision: dict[int, str] = {}
    given_changes = []
    for name, rv, at_s, removed, uid in told:
        if rv and one_object_a_revision.setdefault(rv, name) != name:
            continue
        given_changes.append(gone(name, rv, at_s, uid) if removed else pod(name, uid, rv, at_s))
    ordered = in_order(given_changes).changes
    revisions = [change.rv for change in ordered]
    assert revisions == sorted(set(revisions)) and all(revisions)
    placed = {change.rv: change.key.name for change in ordered}
    assert all(placed[change.rv] == change.key.name for change in given_changes if change.rv)
