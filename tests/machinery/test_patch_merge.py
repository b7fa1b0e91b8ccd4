"""JSON merge patch: the examples of RFC 7386, appendix A."""

from __future__ import annotations

from typing import Any

import pytest

from kcp.machinery.patch.merge_patch import apply_merge_patch, diff_merge_patch


@pytest.mark.parametrize(
    ("doc", "patch", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_examples_of_the_rfc(doc: Any, patch: Any, expected: Any) -> None:
    assert apply_merge_patch(doc, patch) == expected


def test_a_patch_without_effect_returns_the_document() -> None:
    doc = {"a": {"b": {"c": 1}}, "d": [1]}
    assert apply_merge_patch(doc, {"a": {"b": {"x": None}}}) is doc
    assert apply_merge_patch(doc, {}) is doc


def test_what_the_patch_does_not_touch_is_shared() -> None:
    doc = {"a": {"b": 1}, "c": {"d": 1}}
    out = apply_merge_patch(doc, {"c": {"d": 2}})
    assert out["a"] is doc["a"]
    assert doc["c"] == {"d": 1}


def test_differences() -> None:
    old = {"a": 1, "b": {"c": 1, "d": 2}, "e": [1], "f": True}
    new = {"a": 1, "b": {"c": 1, "d": 3}, "e": [2], "g": {}, "f": 1}
    assert diff_merge_patch(old, new) == {"b": {"d": 3}, "e": [2], "g": {}, "f": 1}
    assert diff_merge_patch(old, old) == {}
    assert diff_merge_patch({"a": {"b": 1}}, {"a": 2}) == {"a": 2}
    assert diff_merge_patch({"a": 1}, {}) == {"a": None}
