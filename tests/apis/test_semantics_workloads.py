"""Template hashes, surge arithmetic, the order of deletion."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcp.apis.semantics import workloads
from kcp.machinery.times import format_time

Json = dict[str, Any]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
TEMPLATE: Json = {
    "metadata": {"labels": {"app": "web"}},
    "spec": {"containers": [{"name": "c", "image": "i"}]},
}


def test_the_hash_ignores_key_order_and_its_own_label() -> None:
    turned = {"spec": TEMPLATE["spec"], "metadata": {"labels": {"pod-template-hash": "x", "app": "web"}}}
    assert workloads.pod_template_hash(TEMPLATE) == workloads.pod_template_hash(turned)
    assert workloads.equal_templates(TEMPLATE, turned)


def test_the_hash_is_the_same_in_every_process() -> None:
    assert workloads.pod_template_hash(TEMPLATE) == "57c7869594"


def test_a_collision_count_gives_another_hash() -> None:
    hashes = {workloads.pod_template_hash(TEMPLATE, count) for count in (None, 0, 1, 2)}
    assert len(hashes) == 4


@given(
    st.recursive(
        st.text() | st.integers(-(2**53), 2**53),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_hashes_are_fit_for_names(value: Any) -> None:
    text = workloads.stable_hash(value)
    assert 0 < len(text) <= 10
    assert set(text) <= set("bcdfghjklmnpqrstvwxz2456789")


@pytest.mark.parametrize(
    ("surge", "unavailable", "desired", "wanted"),
    [
        ("25%", "25%", 4, (1, 1)),
        ("25%", "25%", 10, (3, 2)),
        (0, "25%", 3, (0, 1)),
        (0, 0, 5, (0, 1)),
        ("50%", 0, 1, (1, 0)),
        (None, None, 1, (0, 1)),
    ],
)
def test_surge_rounds_up_unavailable_down_and_one_of_them_is_positive(
    surge: Any, unavailable: Any, desired: int, wanted: tuple[int, int]
) -> None:
    assert workloads.resolve_fenceposts(surge, unavailable, desired) == wanted


def _deployment(replicas: int, **rolling: Any) -> Json:
    return {"spec": {"replicas": replicas, "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}}


def test_four_replicas_with_a_quarter_unavailable_keep_three() -> None:
    deployment = _deployment(4, maxSurge="25%", maxUnavailable="25%")
    assert workloads.max_unavailable(deployment) == 1
    assert workloads.min_available(deployment) == 3
    assert workloads.max_surge(deployment) == 1


def test_unavailable_is_capped_and_zero_without_replicas() -> None:
    assert workloads.max_unavailable(_deployment(2, maxUnavailable=5)) == 2
    assert workloads.max_unavailable(_deployment(0, maxUnavailable=5)) == 0
    assert workloads.max_surge({"spec": {"replicas": 3, "strategy": {"type": "Recreate"}}}) == 0


def _pod(
    name: str,
    *,
    node: str = "n",
    phase: str = "Running",
    ready_s: float | None = 100,
    created_s: float = 1000,
    cost: str = "",
    restarts: int = 0,
) -> Json:
    conditions = []
    if ready_s is not None:
        since = format_time(NOW - timedelta(seconds=ready_s))
        conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": since}]
    metadata: Json = {
        "name": name,
        "uid": name,
        "creationTimestamp": format_time(NOW - timedelta(seconds=created_s)),
    }
    if cost:
        metadata["annotations"] = {"controller.kubernetes.io/pod-deletion-cost": cost}
    return {
        "metadata": metadata,
        "spec": {"nodeName": node} if node else {},
        "status": {
            "phase": phase,
            "conditions": conditions,
            "containerStatuses": [{"name": "c", "restartCount": restarts}],
        },
    }


FIRST_TO_GO = [
    (_pod("a", node=""), 1),
    (_pod("b", phase="Pending", ready_s=None), 1),
    (_pod("c", phase="Unknown"), 1),
    (_pod("d", ready_s=None), 1),
    (_pod("e", cost="-5"), 1),
    (_pod("f"), 3),
    (_pod("g", ready_s=1), 1),
    (_pod("h", restarts=4), 1),
    (_pod("i", created_s=500), 1),
    (_pod("j"), 1),
]
"""Each differs from the ones after it in one rule; the rules in their order."""


@given(st.randoms(use_true_random=False), st.integers(0, 12))
def test_the_least_valuable_pods_go_first(chance: random.Random, count: int) -> None:
    entries = list(FIRST_TO_GO)
    chance.shuffle(entries)
    pods, ranks = [pod for pod, _ in entries], [rank for _, rank in entries]
    assert [p["metadata"]["name"] for p in workloads.deletion_order(pods, ranks, NOW)] == list("abcdefghij")
    first = workloads.deletion_order(pods, ranks, NOW, count)
    assert [pod["metadata"]["name"] for pod in first] == list("abcdefghij")[:count]


def test_pods_of_about_the_same_age_are_told_apart_by_uid() -> None:
    older, younger = _pod("a", ready_s=101), _pod("b", ready_s=100)
    assert [pod["metadata"]["name"] for pod in workloads.deletion_order([younger, older], [1, 1], NOW)] == [
        "a",
        "b",
    ]


def test_a_deployment_hands_on_only_its_own_annotations() -> None:
    owner = {
        "metadata": {"annotations": {"team": "x", workloads.REVISION: "3", workloads.LAST_APPLIED: "{}"}}
    }
    assert workloads.inherited_annotations(owner) == {"team": "x"}
    assert workloads.revision(owner) == 3
    assert workloads.revision({"metadata": {"annotations": {workloads.REVISION: "x"}}}) == 0
