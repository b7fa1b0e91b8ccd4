from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcp.apis.batch.job import STRATEGIES
from kcp.apis.batch.job_policies import count_indexes, first_overlap
from kcp.apis.batch.job_status import is_finished

Json = dict[str, Any]

_JOB = STRATEGIES["Job"]


def _job(**spec: Any) -> Json:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "app", "image": "busybox:1"}]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "once", "namespace": "default", "uid": "9d0f2c9e-0d3a-4a64-9a43-2f1f2f6f7d11"},
        "spec": {"template": template, **spec},
    }


def test_a_job_selects_its_pods_by_its_own_uid() -> None:
    job = _job()
    _JOB.default(job)
    _JOB.prepare_create(job)
    uid = job["metadata"]["uid"]
    assert job["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    assert job["spec"]["template"]["metadata"]["labels"] == {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": "once",
        "controller-uid": uid,
        "job-name": "once",
    }
    assert _JOB.validate_create(job) == []


def test_a_manual_selector_is_left_alone() -> None:
    selector = {"matchLabels": {"mine": "yes"}}
    job = _job(manualSelector=True, selector=selector)
    job["spec"]["template"]["metadata"] = {"labels": {"mine": "yes"}}
    _JOB.default(job)
    _JOB.prepare_create(job)
    assert job["spec"]["selector"] == selector
    assert job["spec"]["template"]["metadata"]["labels"] == {"mine": "yes"}


def test_pods_of_a_job_outlive_it_by_default() -> None:
    assert _JOB.default_propagation == "Orphan"


@pytest.mark.parametrize(
    ("conditions", "finished"),
    [
        ([], False),
        ([{"type": "Complete", "status": "True"}], True),
        ([{"type": "Failed", "status": "True"}], True),
        ([{"type": "Complete", "status": "False"}], False),
        ([{"type": "Suspended", "status": "True"}], False),
    ],
)
def test_when_a_job_is_finished(conditions: list[Json], finished: bool) -> None:
    assert is_finished({"status": {"conditions": conditions}}) is finished


def _intervals(indexes: set[int]) -> str:
    """The indexes as a job status writes them: neighbours joined."""
    parts: list[list[int]] = []
    for index in sorted(indexes):
        if parts and parts[-1][-1] == index - 1:
            parts[-1] = [parts[-1][0], index]
        else:
            parts.append([index])
    return ",".join("-".join(map(str, part)) for part in parts)


@given(st.sets(st.integers(0, 99), max_size=40))
def test_intervals_name_each_index_once(indexes: set[int]) -> None:
    assert count_indexes(_intervals(indexes), 100) == len(indexes)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("3,1", "non-increasing order, previous: 3, current: 1"),
        ("2-2", "non-increasing order, previous: 2, current: 2"),
        ("0-9", 'too large index: "9"'),
        ("a", 'cannot convert string to integer for index: "a"'),
    ],
)
def test_intervals_that_cannot_be_read(text: str, fault: str) -> None:
    with pytest.raises(ValueError) as raised:
        count_indexes(text, 5)
    assert str(raised.value) == fault


@st.composite
def _index_sets(draw: st.DrawFn) -> tuple[set[int], str]:
    """Some of the indexes 0 to 19, and the text that names them."""
    found = draw(st.sets(st.integers(0, 19)))
    starts = [index for index in sorted(found) if index - 1 not in found]
    ends = [index for index in sorted(found) if index + 1 not in found]
    parts = [str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True)]
    return found, ",".join(parts)


@given(_index_sets(), _index_sets())
def test_the_first_index_that_is_both_done_and_failed(
    done: tuple[set[int], str], failed: tuple[set[int], str]
) -> None:
    assert count_indexes(done[1], 20) == len(done[0])
    assert first_overlap(done[1], failed[1], 20) == min(done[0] & failed[0], default=None)
