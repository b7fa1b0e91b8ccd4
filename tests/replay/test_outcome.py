"""What a log came to, counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcp.base.clock import SystemClock
from kcp.replay.outcome import Outcome, Rollout, is_through, outcome, percentile, shown, table
from kcp.store.protocol import Key
from kcp.store.query import Session
from kcp.store.reader import LogReader
from tests.replay import stories

Json = dict[str, Any]
WEB = Key("deployments.apps", "default", "web")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """web: three pods, another image, gone."""
    return stories.rollout(tmp_path_factory.mktemp("outcome") / "log.kcp")


def found(log: Path, until: int | None = None) -> Outcome:
    with LogReader(log) as reader:
        return outcome(reader, until)


def test_what_came_and_went_is_counted(log: Path) -> None:
    result = found(log)
    assert (result.created["pods"], result.deleted["pods"]) == (6, 6)
    assert (result.created["deployments.apps"], result.deleted["deployments.apps"]) == (1, 1)
    assert not {"events", "leases.coordination.k8s.io"} & set(result.created)
    with Session(log, SystemClock()) as session:
        (counts,) = session.run("SELECT count(DISTINCT uid) FROM pod_history", ()).rows
    assert counts == (6,)


def test_both_rollouts_came_through_and_all_pods_became_ready(log: Path) -> None:
    result = found(log)
    assert [rollout.key for rollout in result.rollouts] == [WEB, WEB]
    assert len(result.ready_us) == 6 and result.never_ready == 0
    assert all(took >= 0 for took in result.ready_us) and not result.pending


def test_a_log_that_ends_in_the_middle_tells_what_waits(log: Path) -> None:
    with LogReader(log) as reader:
        first_pod = next(event.rv for event in reader.events(resources=["pods"]))
    result = found(log, until=first_pod)
    assert (len(result.pending), result.never_ready) == (1, 1)
    assert [rollout.took_us for rollout in result.unfinished] == [None]


@pytest.mark.parametrize(
    ("status", "through"),
    [
        ({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3}, True),
        ({"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3}, False),
        ({"observedGeneration": 2, "replicas": 4, "updatedReplicas": 3, "availableReplicas": 3}, False),
        ({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 2}, False),
        ({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 1, "availableReplicas": 3}, False),
    ],
)
def test_a_rollout_is_through_when_the_new_template_runs_alone(status: Json, through: bool) -> None:
    obj = {"metadata": {"generation": 2}, "spec": {"replicas": 3}, "status": status}
    assert is_through("deployments.apps", obj) is through


def test_of_daemons_the_nodes_count() -> None:
    status = {
        "observedGeneration": 1,
        "desiredNumberScheduled": 2,
        "updatedNumberScheduled": 2,
        "numberAvailable": 1,
    }
    obj = {"metadata": {"generation": 1}, "spec": {}, "status": status}
    assert not is_through("daemonsets.apps", obj)
    assert is_through("daemonsets.apps", {**obj, "status": {**status, "numberAvailable": 2}})


@given(st.lists(st.integers(0, 1000), min_size=1), st.integers(1, 100))
def test_a_percentile_is_a_value_that_enough_do_not_exceed(values: list[int], share: int) -> None:
    result = percentile(values, share)
    assert result in values
    assert sum(1 for value in values if value <= result) * 100 >= share * len(values)
    assert all(
        sum(1 for value in values if value <= other) * 100 < share * len(values)
        for other in values
        if other < result
    )


def test_nothing_has_no_percentile() -> None:
    assert percentile([], 50) is None
    assert shown(None) == "-"


@pytest.mark.parametrize(("time_us", "text"), [(0, "0.00 s"), (1_234_000, "1.23 s"), (185_400_000, "3m05s")])
def test_times_are_short(time_us: int, text: str) -> None:
    assert shown(time_us) == text


def test_the_table_names_what_differs_and_always_pods() -> None:
    same = {"nodes": 3, "pods": 2}
    one = Outcome(same, {}, (), (10,), 0, (Rollout(WEB, 0, 5),))
    other = Outcome({**same, "jobs.batch": 1}, {}, (), (10,), 0, (Rollout(WEB, 0, None),))
    columns, rows = table(("a", "b"), (one, other))
    told = {row[0].strip(): row[1:] for row in rows}
    assert columns == ("", "a", "b")
    assert told["created"] == ["5", "6"]
    assert told["pods"] == ["2", "2"] or told["deleted"] == ["0", "0"]
    assert told["jobs.batch"] == ["0", "1"]
    assert "nodes" not in told
    assert told["rollouts under way at the end"] == ["0", "1"]
