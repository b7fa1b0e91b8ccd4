"""JSON patch: the RFC's examples, the library's ways, limits and texts."""

from __future__ import annotations

from typing import Any

import pytest

from kcp.machinery.errors import BadRequest, Invalid, RequestEntityTooLarge
from kcp.machinery.patch.json_patch import MAX_OPERATIONS, apply_json_patch, unknown_members


@pytest.mark.parametrize(
    ("doc", "operations", "expected"),
    [
        ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"foo": "bar", "baz": "qux"}),
        ({"foo": ["a", "b"]}, [{"op": "add", "path": "/foo/1", "value": "x"}], {"foo": ["a", "x", "b"]}),
        ({"foo": ["a"]}, [{"op": "add", "path": "/foo/-", "value": "b"}], {"foo": ["a", "b"]}),
        ({"a": 1, "b": 2}, [{"op": "remove", "path": "/a"}], {"b": 2}),
        ({"a": [1, 2, 3]}, [{"op": "remove", "path": "/a/1"}], {"a": [1, 3]}),
        ({"a": [1, 2, 3]}, [{"op": "remove", "path": "/a/-1"}], {"a": [1, 2]}),
        ({"a": 1}, [{"op": "replace", "path": "/a", "value": {"b": 2}}], {"a": {"b": 2}}),
        (
            {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
            [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
            {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
        ),
        (
            {"a": ["all", "grass", "cows"]},
            [{"op": "move", "from": "/a/1", "path": "/a/2"}],
            {"a": ["all", "cows", "grass"]},
        ),
        ({"a": {"b": 1}}, [{"op": "copy", "from": "/a", "path": "/c"}], {"a": {"b": 1}, "c": {"b": 1}}),
        ({"baz": "qux"}, [{"op": "test", "path": "/baz", "value": "qux"}], {"baz": "qux"}),
        ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
        ({"a": 1}, [{"op": "test", "path": "/missing", "value": None}], {"a": 1}),
        ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 1}}], {"b": 1}),
        ({"a": 1}, [{"op": "replace", "path": "/new", "value": 1}], {"a": 1, "new": 1}),
        (
            {"metadata": {"labels": {}}},
            [{"op": "add", "path": "/metadata/labels/example.com~1a", "value": "b"}],
            {"metadata": {"labels": {"example.com/a": "b"}}},
        ),
    ],
)
def test_operations(doc: Any, operations: list[dict[str, Any]], expected: Any) -> None:
    assert apply_json_patch(doc, operations) == expected


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (
            {"op": "remove", "path": "/x"},
            "error in remove for path: '/x': Unable to remove nonexistent key: x: missing value",
        ),
        (
            {"op": "add", "path": "/x/y", "value": 1},
            'add operation does not apply: doc is missing path: "/x/y": missing value',
        ),
        (
            {"op": "add", "path": "/list/9", "value": 1},
            "error in add for path: '/list/9': Unable to access invalid index: 9: invalid index referenced",
        ),
        (
            {"op": "add", "path": "/list/x", "value": 1},
            "error in add for path: '/list/x': value was not a proper array index: 'x': "
            'strconv.Atoi: parsing "x": invalid syntax',
        ),
        (
            {"op": "replace", "path": "/list/7", "value": 1},
            "replace operation does not apply: doc is missing key: /list/7: missing value",
        ),
        ({"op": "test", "path": "/a", "value": 2}, "testing value /a failed: test failed"),
        ({"op": "test", "path": "/a", "value": True}, "testing value /a failed: test failed"),
        (
            {"op": "move", "path": "/b"},
            "move operation failed to decode from: operation, missing from field: missing value",
        ),
        ({"op": "add", "value": 1}, "add operation failed to decode path: missing value"),
        ({"op": "spin", "path": "/a"}, "Unexpected kind: spin"),
        ({"path": "/a"}, "Unexpected kind: unknown"),
    ],
)
def test_what_does_not_apply_is_invalid(operation: dict[str, Any], reason: str) -> None:
    with pytest.raises(Invalid) as caught:
        apply_json_patch({"a": 1, "list": [1]}, [operation])
    assert caught.value.message == "the server rejected our request due to an error in our request"
    assert str(caught.value.__cause__) == reason


def test_a_failing_operation_changes_nothing() -> None:
    doc = {"a": [1]}
    with pytest.raises(Invalid):
        apply_json_patch(
            doc, [{"op": "add", "path": "/a/-", "value": 2}, {"op": "test", "path": "/a", "value": 0}]
        )
    assert doc == {"a": [1]}


def test_what_is_no_patch_is_a_bad_request() -> None:
    with pytest.raises(BadRequest) as caught:
        apply_json_patch({}, {"op": "add"})
    assert caught.value.message == (
        "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"
    )
    with pytest.raises(
        BadRequest, match=r"cannot unmarshal string into Go value of type handlers\.jsonPatchOp"
    ):
        apply_json_patch({}, ["add"])


def test_limits() -> None:
    test = {"op": "test", "path": "/a", "value": 1}
    with pytest.raises(RequestEntityTooLarge) as caught:
        apply_json_patch({"a": 1}, [test] * (MAX_OPERATIONS + 1))
    assert caught.value.message == "The allowed maximum operations in a JSON patch is 10000, got 10001"
    copies = [{"op": "copy", "from": "/a", "path": f"/b{n}"} for n in range(4)]
    with pytest.raises(Invalid) as refused:
        apply_json_patch({"a": "x" * 1024 * 1024}, copies)
    assert str(refused.value.__cause__) == (
        "Unable to complete the copy, the accumulated size increase of copy is 3145734, exceeding the limit 3145728"
    )


def test_untouched_parts_are_shared() -> None:
    doc: dict[str, Any] = {"a": {"x": 1}, "b": {"y": {"z": 1}}}
    out = apply_json_patch(doc, [{"op": "replace", "path": "/b/y/z", "value": 2}])
    assert out["a"] is doc["a"]
    assert doc["b"]["y"]["z"] == 1


def test_unknown_members_are_reported() -> None:
    assert unknown_members([{"op": "add", "foo": 1}]) == ['json patch unknown field "[0].foo"']
