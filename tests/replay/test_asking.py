"""Recorded changes, made of something that is not what it was then."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcp.machinery.patch.merge_patch import apply_merge_patch
from kcp.replay.asking import extract, patch_of, rebased, user_of
from kcp.store.protocol import Actor

Json = dict[str, Any]


def obj(**more: Any) -> Json:
    return {"metadata": {"name": "x"}, **more}


def names(*items: str) -> list[Json]:
    return [{"name": item, "value": item} for item in items]


def test_only_what_was_changed_then_is_changed_now() -> None:
    before, after = obj(spec={"replicas": 1, "paused": False}), obj(spec={"replicas": 3, "paused": False})
    current = obj(spec={"replicas": 1, "paused": True}, status={"replicas": 1})
    assert patch_of(before, after, current) == {"spec": {"replicas": 3}}


def test_a_field_that_was_taken_away_goes() -> None:
    assert patch_of(obj(spec={"a": 1, "b": 2}), obj(spec={"b": 2}), obj(spec={"a": 5, "c": 1})) == {
        "spec": {"a": None}
    }


def test_what_is_there_already_needs_no_request() -> None:
    assert patch_of(obj(a=1), obj(a=2), obj(a=2)) == {}


def test_what_only_the_server_writes_is_not_asked_for() -> None:
    before = {"metadata": {"name": "x", "resourceVersion": "1", "generation": 1}}
    after = {"metadata": {"name": "x", "resourceVersion": "2", "generation": 2, "labels": {"a": "b"}}}
    current = {"metadata": {"name": "x", "resourceVersion": "9", "generation": 7}}
    assert patch_of(before, after, current) == {"metadata": {"labels": {"a": "b"}}}


@pytest.mark.parametrize(
    ("before", "after", "current", "wanted"),
    [
        (["a"], ["a", "mine"], ["a", "theirs"], ["a", "theirs", "mine"]),
        (["a", "gone"], ["a"], ["a", "gone", "theirs"], ["a", "theirs"]),
        (names("a"), names("a", "mine"), names("theirs", "a"), names("theirs", "a", "mine")),
        (names("a", "b"), names("b"), names("a", "b", "theirs"), names("b", "theirs")),
        ([[1]], [[1], [2]], [[3]], [[1], [2]]),
    ],
)
def test_items_of_others_stay_in_a_list(before: Any, after: Any, current: Any, wanted: Any) -> None:
    assert rebased(before, after, current) == wanted


def test_an_item_is_changed_where_it_stands() -> None:
    before = [{"key": "k", "effect": "NoSchedule"}]
    after = [{"key": "k", "effect": "NoExecute"}]
    current = [
        {"key": "other", "effect": "NoSchedule"},
        {"key": "k", "effect": "NoSchedule", "timeAdded": "t"},
    ]
    assert rebased(before, after, current) == [
        {"key": "other", "effect": "NoSchedule"},
        {"key": "k", "effect": "NoExecute", "timeAdded": "t"},
    ]


JSON: st.SearchStrategy[Any] = st.recursive(
    st.integers(0, 3) | st.booleans() | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("pqr"), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from("pqr"), JSON, max_size=3)


@given(OBJECTS, OBJECTS)
def test_a_change_of_what_it_was_made_of_gives_what_it_gave(before: Json, after: Json) -> None:
    assert rebased(before, after, before) == after
    assert apply_merge_patch(obj(x=before), patch_of(obj(x=before), obj(x=after), obj(x=before))) == obj(
        x=after
    )


@given(OBJECTS, OBJECTS, OBJECTS)
def test_a_change_that_changed_nothing_changes_nothing(before: Json, after: Json, current: Json) -> None:
    assert rebased(before, before, current) == current
    once = rebased(before, after, current)
    assert set(once) <= set(current) | set(after)


FIELDS = {
    "f:data": {".": {}, "f:mine": {}},
    "f:spec": {
        "f:containers": {'k:{"name":"main"}': {".": {}, "f:image": {}, "f:name": {}}},
        "f:finalizers": {'v:"mine"': {}},
        "f:empty": {".": {}},
    },
}


def test_what_a_manager_applied_is_what_its_fields_name() -> None:
    full = {
        "data": {"mine": "1", "theirs": "2"},
        "spec": {
            "containers": [{"name": "other"}, {"name": "main", "image": "a", "tty": True}],
            "finalizers": ["theirs", "mine"],
            "empty": {"theirs": 1},
            "replicas": 3,
        },
    }
    assert extract(full, FIELDS) == {
        "data": {"mine": "1"},
        "spec": {"containers": [{"name": "main", "image": "a"}], "finalizers": ["mine"], "empty": {}},
    }


def test_who_asks_has_the_groups_of_then() -> None:
    assert user_of(Actor("jane", ("devs",))).groups == ("devs",)
    assert user_of(Actor("imported")).groups == ("system:masters",)
