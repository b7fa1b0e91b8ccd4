"""Pruning and defaulting by structural schema."""

from __future__ import annotations

from kcp.machinery.gvk import GroupVersionKind
from kcp.machinery.schema.compile import compile_custom_resource, compile_definition, schema_for
from kcp.machinery.schema.defaults import apply_defaults, prune

PARTS = compile_definition(
    {
        "type": "object",
        "properties": {
            "a": {"type": "string", "default": "x"},
            "deep": {"type": "object", "properties": {"n": {"type": "integer", "default": 5}}},
            "made": {"type": "object", "default": {"m": 1}, "properties": {"n": {"default": 2}, "m": {}}},
            "list": {
                "type": "array",
                "items": {"type": "object", "properties": {"n": {"type": "integer", "default": 7}}},
            },
            "maybe": {"type": "string", "nullable": True, "default": "d"},
            "free": {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": True,
                "properties": {"known": {"type": "object", "properties": {}}},
            },
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"k": {}}}},
        },
    }
)


def test_unknown_fields_go_and_what_is_preserved_stays() -> None:
    document = {
        "a": "1",
        "b": 2,
        "free": {"x": {"y": 1}, "known": {"z": 1}},
        "map": {"one": {"k": 1, "l": 2}},
        "list": [{"n": 1, "o": 2}],
    }
    assert prune(PARTS, document) == {
        "a": "1",
        "free": {"x": {"y": 1}, "known": {}},
        "map": {"one": {"k": 1}},
        "list": [{"n": 1}],
    }


def test_nothing_to_prune_returns_the_same_object() -> None:
    document = {"a": "1", "free": {"x": 1}}
    assert prune(PARTS, document) is document


def test_an_embedded_resource_keeps_its_root_fields() -> None:
    schema = compile_definition({"type": "object", "x-kubernetes-embedded-resource": True, "properties": {}})
    document = {"apiVersion": "v1", "kind": "X", "metadata": {"name": "a", "odd": 1}, "spec": {}}
    assert prune(schema, document) == {"apiVersion": "v1", "kind": "X", "metadata": {"name": "a"}}


def test_built_in_kinds_lose_what_go_does_not_know() -> None:
    schema = schema_for(GroupVersionKind("", "v1", "Service"))
    assert schema is not None
    assert prune(schema, {"spec": {"ports": [{"port": 80, "porto": 1}], "x": 1}}) == {
        "spec": {"ports": [{"port": 80}]}
    }


def test_defaults_fill_what_is_missing_where_the_parent_exists() -> None:
    assert apply_defaults(PARTS, {"list": [{}, {"n": 1}]}) == {
        "a": "x",
        "made": {"m": 1, "n": 2},
        "maybe": "d",
        "list": [{"n": 7}, {"n": 1}],
    }
    assert apply_defaults(PARTS, {"deep": {}})["deep"] == {"n": 5}


def test_null_takes_the_default_unless_null_is_allowed() -> None:
    out = apply_defaults(PARTS, {"a": None, "maybe": None})
    assert (out["a"], out["maybe"]) == ("x", None)


def test_complete_documents_are_returned_as_they_are() -> None:
    document = {"a": "1", "made": {"m": 0, "n": 0}, "maybe": "m"}
    assert apply_defaults(PARTS, document) is document


def test_keys_of_lists_get_their_default() -> None:
    schema = schema_for(GroupVersionKind("", "v1", "Service"))
    assert schema is not None
    assert apply_defaults(schema, {"spec": {"ports": [{"port": 80}]}})["spec"]["ports"] == [
        {"port": 80, "protocol": "TCP"}
    ]


def test_a_custom_resource_without_properties_keeps_only_the_root() -> None:
    schema = compile_custom_resource({"type": "object"})
    document = {"apiVersion": "e/v1", "kind": "T", "metadata": {"name": "a"}, "spec": {"a": 1}}
    assert prune(schema, document) == {"apiVersion": "e/v1", "kind": "T", "metadata": {"name": "a"}}
