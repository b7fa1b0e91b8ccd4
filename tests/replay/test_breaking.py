"""Conditions: what they can ask, and that they can do nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcp.replay.breaking import BadCondition, condition
from kcp.store.protocol import Decision

Json = dict[str, Any]
EFFECTS: list[Json] = [
    {"kind": "All", "effects": [{"kind": "Create", "resource": "pods", "outcome": "ok", "rv": 9}]},
    {"kind": "Status", "resource": "replicasets.apps", "name": "web", "outcome": "Conflict"},
]
DECISION = Decision(
    7, "replicaset-controller", "shop/web", "event", {}, 1_767_225_600_000_000, EFFECTS, None, "", ""
)
FRONTIER = {"pods": 12, "replicasets.apps": 8}


def holds(text: str) -> bool:
    return condition(text)(DECISION, FRONTIER)


@pytest.mark.parametrize(
    "text",
    [
        'controller == "replicaset" and key == "shop/web"',
        'controller == "replicaset-controller" && !(key != "shop/web")',
        'controller in ["deployment", "replicaset"]',
        "key.startsWith(\"shop/\") && trigger == 'event'",
        'key.matches("^sh.p/w") || false',
        "rv > 10 and rv - 2 <= 10 && id == 7",
        'now >= "2026-01-01" && now < "2026-01-02"',
        '"Create" in kinds && kinds.exists(k, k == "Status")',
        'effects.exists(e, e.kind == "Create" && e.resource == "pods")',
        'effects.all(e, e.outcome != "Timeout")',
        'effects[2].name == "web" && effects[9].name == null',
        'frontier["pods"] == 12 && size(resources) == 2',
        "has(effects[0].effects) && !has(effects[0].error)",
        'key == "a && b" || key.contains("web")',
        'not key == "a" and not (rv < 5 or id == 1)',
        "not rv < key && not has(effects[9].name)",
        "has(key) && has(effects[0]) && !has(effects[9])",
        'rv > 100 ? false : controller in ["x", "replicaset"]',
        'effects.filter(e, e.outcome == "Conflict").map(e, e.name) == ["web"]',
        "kinds.size() == 3 && 'status' + 'x' != key",
    ],
)
def test_what_holds(text: str) -> None:
    assert holds(text)


@pytest.mark.parametrize(
    "text",
    [
        'controller == "deployment"',
        "rv < key",
        "effects[1].nothing > 3",
        "rv.exists(x, true)",
        'not key.startsWith("shop")',
        "rv > 100 ? true : id == 8",
    ],
)
def test_what_does_not_hold(text: str) -> None:
    assert not holds(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "==", "foo == 1", "__import__('os')", "key.__class__()", "(lambda: 1)()", "[x for x in effects]", "f'{key}'",
        "key if rv else id", "effects.map(e, e)", "rv ** 9", "rv << 99", "key.format(1)", "effects.exists(1, true)",
        "key is null", "(rv := 1)", "*key", "size(key, key)", "open('/etc/passwd')", "1" * 3000, 'key.matches("(")',
    ],
)  # fmt: skip
def test_what_is_no_condition_is_refused_before_anything_runs(text: str) -> None:
    with pytest.raises(BadCondition):
        condition(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("foo == 1", "there is no 'foo' to ask about; there are controller, key, trigger"),
        ("rv >", "mismatched input '<EOF>' expecting"),
        ('key.matches("(")', "invalid matches argument\n | key.matches"),
        ("effects.map(e, e.kind)", "must evaluate to bool"),
    ],
)
def test_what_is_wrong_with_it_is_said(text: str, says: str) -> None:
    with pytest.raises(BadCondition) as caught:
        condition(text)
    assert says in str(caught.value)


@given(st.text(alphabet="controlekyfs.()[]{}=!<>&|\"' 0129+-*:,_xz\\", max_size=60))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    try:
        found = condition(text)
    except BadCondition:
        return
    assert found(DECISION, FRONTIER) in (True, False)
