"""Field sets in FieldsV1 form: set algebra, order, how paths print."""

from __future__ import annotations

import pytest

from kcp.machinery.paths import (
    Fields,
    FieldsError,
    canonical,
    contains,
    difference,
    format_path,
    from_paths,
    intersection,
    key_element,
    members,
    recursive_difference,
    union,
    value_element,
)

A: Fields = {"f:spec": {"f:replicas": {}, "f:ports": {".": {}, 'k:{"port":80}': {".": {}, "f:port": {}}}}}


def test_elements_are_canonical() -> None:
    assert key_element({"protocol": "TCP", "containerPort": 80}) == 'k:{"containerPort":80,"protocol":"TCP"}'
    assert value_element("kubernetes.io/x") == 'v:"kubernetes.io/x"'


def test_paths_print_as_in_conflicts() -> None:
    path = (
        "f:spec",
        "f:containers",
        'k:{"name":"app"}',
        "f:ports",
        'k:{"containerPort":80,"protocol":"TCP"}',
    )
    assert format_path(path) == '.spec.containers[name="app"].ports[containerPort=80,protocol="TCP"]'
    assert format_path(("f:metadata", "f:finalizers", 'v:"a/b"')) == '.metadata.finalizers[="a/b"]'
    assert format_path(("f:a", "i:3")) == ".a[3]"


def test_members_in_order() -> None:
    assert [format_path(path) for path in members(A)] == [
        ".spec.ports",
        ".spec.replicas",
        ".spec.ports[port=80]",
        ".spec.ports[port=80].port",
    ]
    keyed: Fields = {f'k:{{"port":{n}}}': {} for n in (443, 80, 9)}
    assert [format_path(path) for path in members(keyed)] == ["[port=9]", "[port=80]", "[port=443]"]


def test_union_keeps_both_memberships() -> None:
    assert union({"f:a": {}}, {"f:a": {"f:b": {}}}) == {"f:a": {".": {}, "f:b": {}}}
    assert union({"f:a": {"f:c": {}}}, {"f:a": {"f:b": {}}}) == {"f:a": {"f:b": {}, "f:c": {}}}
    assert union({}, A) is A


def test_intersection_needs_membership_in_both() -> None:
    assert intersection({"f:a": {}}, {"f:a": {"f:b": {}}}) == {}
    assert intersection({"f:a": {".": {}, "f:b": {}}}, {"f:a": {}}) == {"f:a": {}}
    assert intersection(A, A) == A


def test_difference_leaves_children_alone() -> None:
    assert difference({"f:a": {".": {}, "f:b": {}}}, {"f:a": {}}) == {"f:a": {"f:b": {}}}
    assert difference({"f:a": {"f:b": {}}}, {"f:a": {}}) == {"f:a": {"f:b": {}}}
    assert difference({"f:a": {}}, {"f:a": {"f:b": {}}}) == {"f:a": {}}
    assert difference(A, A) == {}
    assert difference(A, {"f:other": {}}) is A


def test_recursive_difference_takes_children_too() -> None:
    assert recursive_difference(A, from_paths([("spec", "ports")])) == {"f:spec": {"f:replicas": {}}}
    assert recursive_difference(A, from_paths([("spec",)])) == {}
    assert recursive_difference(A, from_paths([("status",)])) is A


def test_contains() -> None:
    assert contains(A, ("f:spec", "f:replicas"))
    assert not contains(A, ("f:spec",))
    assert contains(A, ("f:spec", "f:ports", 'k:{"port":80}'))
    assert not contains(A, ("f:spec", "f:nothing", "f:deeper"))


def test_foreign_sets_are_put_into_one_form() -> None:
    assert canonical({'k:{ "b": 1, "a": "x" }': {}, "v: true": {}}) == {'k:{"a":"x","b":1}': {}, "v:true": {}}
    assert canonical({"z:future": {}}) == {}


@pytest.mark.parametrize("bad", [[], {"f": {}}, {"spec": {}}, {"k:{": {}}, {"f:a": 3}])
def test_what_is_no_set_is_refused(bad: object) -> None:
    with pytest.raises(FieldsError):
        canonical(bad)
