"""Node selectors, node affinity, topology."""

from typing import Any

import pytest

from kcp.apis.semantics import affinity, nodes, topology
from kcp.machinery.labels import from_label_selector

Json = dict[str, Any]
LABELS = {"zone": "a", "cores": "16", "empty": ""}


@pytest.mark.parametrize(
    ("key", "operator", "values", "matches"),
    [
        ("zone", "In", ["a", "b"], True),
        ("zone", "In", ["b"], False),
        ("zone", "NotIn", ["b"], True),
        ("absent", "NotIn", ["b"], True),
        ("empty", "Exists", [], True),
        ("absent", "Exists", [], False),
        ("absent", "DoesNotExist", [], True),
        ("cores", "Gt", ["8"], True),
        ("cores", "Gt", ["16"], False),
        ("cores", "Lt", ["17"], True),
        ("zone", "Gt", ["8"], False),
        ("absent", "Lt", ["8"], False),
        ("zone", "Near", ["a"], False),
    ],
)
def test_expression(key: str, operator: str, values: list[str], matches: bool) -> None:
    requirement = {"key": key, "operator": operator, "values": values}
    assert affinity.requirement_matches(requirement, LABELS) is matches


def test_terms_are_alternatives_and_an_empty_one_matches_nothing() -> None:
    here = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
    elsewhere = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["z"]}]}
    assert affinity.node_selector_matches({"nodeSelectorTerms": [elsewhere, here]}, LABELS, "n")
    assert not affinity.node_selector_matches({"nodeSelectorTerms": [{}]}, LABELS, "n")
    assert not affinity.node_selector_matches({"nodeSelectorTerms": []}, LABELS, "n")
    assert affinity.node_selector_matches(None, LABELS, "n")


def _pinned(*names: str) -> Json:
    return {"matchFields": [{"key": "metadata.name", "operator": "In", "values": list(names)}]}


def _pod(*terms: Json, **spec: Any) -> Json:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}
    return {"spec": {"affinity": {"nodeAffinity": required}, **spec}}


def test_selector_and_affinity_must_both_match() -> None:
    assert affinity.pod_matches_node(_pod(_pinned("n1"), nodeSelector={"zone": "a"}), LABELS, "n1")
    assert not affinity.pod_matches_node(_pod(_pinned("n1"), nodeSelector={"zone": "b"}), LABELS, "n1")
    assert not affinity.pod_matches_node(_pod(_pinned("n1")), LABELS, "n2")


def test_names_are_known_only_when_every_term_pins_them() -> None:
    assert affinity.pinned_names(_pod(_pinned("a", "b"), _pinned("c"))) == frozenset("abc")
    free = {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}
    assert affinity.pinned_names(_pod(_pinned("a"), free)) is None
    assert affinity.pinned_names({"spec": {}}) is None


def test_preferred_terms_add_their_weights() -> None:
    here = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
    terms = [
        {"weight": 5, "preference": here},
        {"weight": 7, "preference": here},
        {"weight": 9, "preference": {}},
    ]
    assert affinity.preferred_weight(terms, LABELS, "n") == 12


def test_zone_keys_tell_regions_apart() -> None:
    one = {topology.REGION: "eu", topology.ZONE: "a"}
    other = {topology.REGION: "us", topology.ZONE: "a"}
    assert topology.zone_key(one) != topology.zone_key(other)
    assert topology.zone_key({}) == ""
    assert topology.zone({topology.ZONE_BETA: "old", topology.ZONE: "new"}) == "new"


def test_label_keys_are_merged_once() -> None:
    labels = {"app": "web", "pod-template-hash": "abc"}
    constraint = {
        "labelSelector": {"matchLabels": {"app": "web"}},
        "matchLabelKeys": ["pod-template-hash", "absent"],
    }
    merged = topology.constraint_selector(constraint, labels)
    again = topology.constraint_selector({**constraint, "labelSelector": merged}, labels)
    assert merged == again
    assert str(from_label_selector(merged)) == "app=web,pod-template-hash in (abc)"
    assert topology.constraint_selector({"matchLabelKeys": ["app"]}, labels) is None


def test_mismatching_keys_exclude() -> None:
    term = {"labelSelector": {}, "matchLabelKeys": ["app"], "mismatchLabelKeys": ["tenant"]}
    selector = from_label_selector(topology.term_selector(term, {"app": "web", "tenant": "x"}))
    assert selector.matches({"app": "web", "tenant": "y"})
    assert not selector.matches({"app": "web", "tenant": "x"})


def _node(**status: Any) -> Json:
    return {
        "metadata": {
            "name": "n",
            "labels": {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "gpu"},
        },
        "status": status,
    }


def test_node_readiness_and_room() -> None:
    node = _node(
        conditions=[{"type": "Ready", "status": "True"}],
        capacity={"cpu": "4"},
        allocatable={"cpu": "3500m", "pods": "110"},
    )
    assert nodes.is_ready(node) and nodes.is_schedulable(node)
    assert nodes.allocatable_amounts(node) == {"cpu": 3500, "pods": 110}
    assert nodes.roles(node) == ["gpu", "worker"]
    assert nodes.ready_status(_node()) == "Unknown"


def test_a_cordoned_or_tainted_node_takes_no_ordinary_pods() -> None:
    assert not nodes.is_schedulable({**_node(), "spec": {"unschedulable": True}})
    assert not nodes.is_schedulable({**_node(), "spec": {"taints": [{"key": "a", "effect": "NoExecute"}]}})
    assert nodes.is_schedulable({**_node(), "spec": {"taints": [{"key": "a", "effect": "PreferNoSchedule"}]}})
