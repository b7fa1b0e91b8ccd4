"""Taints and tolerations."""

from typing import Any

import pytest

from kcp.apis.semantics import taints

Json = dict[str, Any]
TAINT: Json = {"key": "gpu", "value": "a100", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        ({"key": "gpu", "value": "a100", "effect": "NoSchedule"}, True),
        ({"key": "gpu", "operator": "Equal", "value": "a100"}, True),
        ({"key": "gpu", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "gpu", "value": "v100"}, False),
        ({"key": "gpu"}, False),
        ({"key": "cpu", "operator": "Exists"}, False),
        ({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "gpu", "operator": "Lt", "value": "a100"}, False),
    ],
)
def test_toleration_of_a_taint(toleration: Json, tolerated: bool) -> None:
    assert taints.tolerates(toleration, TAINT) is tolerated


def test_the_first_untolerated_hard_taint_is_found() -> None:
    soft = {"key": "a", "effect": "PreferNoSchedule"}
    hard = {"key": "b", "effect": "NoExecute"}
    assert taints.find_untolerated([soft, TAINT, hard], [{"key": "gpu", "operator": "Exists"}]) is hard
    assert taints.find_untolerated([soft], []) is None


def test_soft_taints_count_against_soft_tolerations_only() -> None:
    soft = [{"key": "a", "effect": "PreferNoSchedule"}, {"key": "b", "effect": "PreferNoSchedule"}]
    by = [{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists", "effect": "NoSchedule"}]
    assert taints.count_intolerable_prefer(soft, by) == 1


def test_how_long_a_pod_stays() -> None:
    down = [{"key": taints.UNREACHABLE, "effect": "NoExecute"}, {"key": "x", "effect": "NoSchedule"}]
    short = {"key": taints.UNREACHABLE, "operator": "Exists", "tolerationSeconds": 300}
    forever = {"operator": "Exists"}
    assert taints.min_toleration_s(down, []) == 0
    assert taints.min_toleration_s(down, [short]) == 300
    assert taints.min_toleration_s(down, [short, forever]) == 300
    assert taints.min_toleration_s(down, [forever]) is None
    assert taints.min_toleration_s(down, [{**short, "tolerationSeconds": -5}]) == 0
    assert taints.min_toleration_s([], []) is None


def test_adding_a_toleration_replaces_its_equal() -> None:
    first = {"key": "a", "operator": "Exists", "tolerationSeconds": 5}
    second = {"key": "a", "operator": "Exists"}
    assert taints.add_toleration([first], second) == [second]
    assert taints.add_toleration([first], {"key": "b"}) == [first, {"key": "b"}]
