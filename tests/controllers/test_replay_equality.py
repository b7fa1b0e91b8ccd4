"""The description of an effect is what replay compares: equal effects are equal, different ones are not."""

from __future__ import annotations

from typing import Any

import pytest

from kcp.controllers import effects as fx
from kcp.controllers.decisions import INLINE_BYTES, describe, record_outcome, same_effect
from kcp.machinery.errors import NotFound
from tests.support.builders import pod

BIG = pod("x", spec={"tolerations": [{"key": f"k{i}", "operator": "Exists"} for i in range(40)]})
EFFECTS: list[fx.Effect] = [
    fx.Create("pods", "default", pod("a")),
    fx.Create("pods", "default", pod("b")),
    fx.Create("pods", "default", BIG),
    fx.Delete("pods", "default", "a"),
    fx.Delete("pods", "default", "a", uid="u"),
    fx.Patch("pods", "default", "a", {"metadata": {"labels": {"x": "1"}}}),
    fx.RequeueAfter(1.0),
    fx.RequeueAfter(2.0),
    fx.Memo({"n": 1}),
    fx.All([fx.Delete("pods", "default", "a")]),
    fx.All([fx.Delete("pods", "default", "a"), fx.Delete("pods", "default", "b")]),
]


@pytest.mark.parametrize("index", range(len(EFFECTS)))
def test_an_effect_equals_only_itself(index: int) -> None:
    described = [describe(effect) for effect in EFFECTS]
    equal = [other for other, each in enumerate(described) if same_effect(described[index], each)]
    assert equal == [index]


def test_large_effects_are_recorded_by_digest_small_ones_in_full() -> None:
    small, large = describe(fx.Delete("pods", "default", "a")), describe(fx.Create("pods", "default", BIG))
    assert small["args"] == {"resource": "pods", "namespace": "default", "name": "a"}
    assert "args" not in large and len(str(large)) < INLINE_BYTES
    assert (large["resource"], large["namespace"], large["name"]) == ("pods", "default", "x")


def test_the_order_of_keys_means_nothing() -> None:
    forward: dict[str, Any] = {"metadata": {"labels": {"a": "1", "b": "2"}}}
    backward: dict[str, Any] = {"metadata": {"labels": {"b": "2", "a": "1"}}}
    one, other = (describe(fx.Patch("pods", "d", "n", patch)) for patch in (forward, backward))
    assert same_effect(one, other)


def test_outcomes_do_not_take_part_in_the_comparison() -> None:
    effect = fx.Delete("pods", "default", "a")
    failed = record_outcome(describe(effect), fx.Outcome(error=NotFound.of("", "pods", "a")))
    assert failed["outcome"] == "NotFound" and failed["error"]["code"] == 404
    assert same_effect(describe(effect), failed)


def test_a_live_read_keeps_the_revision_it_saw() -> None:
    seen = {"metadata": {"name": "a", "namespace": "default", "resourceVersion": "7"}}
    recorded = record_outcome(describe(fx.Live("pods", "default", "a")), fx.Outcome(object=seen))
    assert recorded["saw"] == {"name": "a", "namespace": "default", "rv": "7"}
