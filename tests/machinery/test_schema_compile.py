"""Compiled schemas carry what OpenAPI and the Go types say."""

from __future__ import annotations

import pytest

from kcp.machinery.gvk import GroupVersionKind
from kcp.machinery.schema.compile import (
    DEDUCED,
    Schema,
    compile_custom_resource,
    compile_definition,
    named_schema,
    schema_for,
)
from kcp.schemas import load

DEPLOYMENT = GroupVersionKind("apps", "v1", "Deployment")
POD = GroupVersionKind("", "v1", "Pod")


def at(schema: Schema | None, *path: str) -> Schema:
    for name in path:
        assert schema is not None
        schema = schema.items if name == "[]" else schema.fields[name]
    assert schema is not None
    return schema


def test_every_definition_compiles() -> None:
    for gvk in load.gvks():
        assert schema_for(GroupVersionKind(*gvk)) is not None


def test_an_unknown_kind_has_no_schema() -> None:
    assert schema_for(GroupVersionKind("example.com", "v1", "Nothing")) is None


def test_a_list_knows_its_keys_and_its_patch_marks() -> None:
    containers = at(schema_for(POD), "spec", "containers")
    assert (containers.list_type, containers.list_map_keys) == ("map", ("name",))
    assert (containers.patch_strategies, containers.patch_merge_key) == (("merge",), "name")
    ports = at(containers, "[]", "ports")
    assert ports.list_map_keys == ("containerPort", "protocol")
    assert at(ports, "[]", "protocol").default == "TCP"


def test_a_field_may_mark_what_it_refers_to() -> None:
    """The type is unmarked; the field that refers to it says how it merges."""
    strategy = at(schema_for(DEPLOYMENT), "spec", "strategy")
    assert strategy.patch_strategies == ("retainKeys",)
    assert named_schema("io.k8s.api.apps.v1.DeploymentStrategy").patch_strategies == ()
    claim = at(schema_for(GroupVersionKind("", "v1", "PersistentVolume")), "spec", "claimRef")
    assert claim.ownership == "map"
    assert named_schema("io.k8s.api.core.v1.ObjectReference").ownership == "leaf"


@pytest.mark.parametrize(
    ("path", "ownership"),
    [
        (("spec", "selector"), "leaf"),
        (("spec", "strategy"), "map"),
        (("spec", "template", "spec", "nodeSelector"), "leaf"),
        (("spec", "template", "spec", "tolerations"), "leaf"),
        (("spec", "template", "spec", "volumes"), "list"),
        (("metadata", "finalizers"), "list"),
        (("metadata", "labels"), "map"),
        (("spec", "replicas"), "leaf"),
    ],
)
def test_ownership_follows_the_marks(path: tuple[str, ...], ownership: str) -> None:
    assert at(schema_for(DEPLOYMENT), *path).ownership == ownership


def test_structs_that_are_no_pointers_are_in_the_zero_value() -> None:
    spec = at(schema_for(DEPLOYMENT), "spec")
    assert {"strategy", "template", "selector"} <= spec.in_zero
    assert "rollingUpdate" not in at(spec, "strategy").in_zero
    assert "resources" in at(spec, "template", "spec", "containers", "[]").in_zero


def test_go_types_are_named_as_errors_name_them() -> None:
    spec = at(schema_for(DEPLOYMENT), "spec")
    assert (spec.name, spec.go_type) == ("DeploymentSpec", "v1.DeploymentSpec")
    assert at(spec, "template", "spec", "containers").go_type == "[]v1.Container"
    assert at(spec, "template", "spec", "restartPolicy").go_type == "v1.RestartPolicy"
    assert at(schema_for(GroupVersionKind("", "v1", "Secret")), "data").go_type == "map[string][]uint8"


def test_a_recursive_type_is_a_cycle() -> None:
    props = named_schema("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
    assert at(props, "not") is props
    assert at(props, "allOf").items is props


def test_special_types() -> None:
    limits = at(schema_for(POD), "spec", "containers", "[]", "resources", "limits")
    assert limits.additional is not None and limits.additional.special == "quantity"
    service = schema_for(GroupVersionKind("", "v1", "Service"))
    assert at(service, "spec", "ports", "[]", "targetPort").special == "int_or_string"
    assert at(service, "metadata", "creationTimestamp").special == "time"
    revision = schema_for(GroupVersionKind("apps", "v1", "ControllerRevision"))
    assert at(revision, "data").special == "raw"


def test_a_custom_resource_has_the_metadata_of_every_object() -> None:
    schema = compile_custom_resource({"type": "object", "properties": {"spec": {"type": "object"}}})
    assert at(schema, "metadata", "labels").go_type == "map[string]string"
    assert not at(schema, "spec").builtin


def test_marks_of_custom_resources() -> None:
    schema = compile_definition(
        {
            "type": "object",
            "properties": {
                "any": {"x-kubernetes-preserve-unknown-fields": True},
                "port": {"x-kubernetes-int-or-string": True},
                "set": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                "one": {"type": "object", "x-kubernetes-map-type": "atomic"},
                "pod": {"type": "object", "x-kubernetes-embedded-resource": True},
                "free": {"type": "object", "additionalProperties": {"type": "integer"}},
            },
        }
    )
    assert at(schema, "any").ownership == "any"
    assert at(schema, "any").element is DEDUCED
    assert at(schema, "port").special == "int_or_string"
    assert (at(schema, "set").list_type, at(schema, "set").ownership) == ("set", "list")
    assert at(schema, "one").ownership == "leaf"
    assert "metadata" in at(schema, "pod").fields
    assert at(schema, "free").child("x") is at(schema, "free").additional


def test_references_of_other_schemas_are_resolved() -> None:
    known = {"Leaf": {"type": "string"}}
    schema = compile_definition(
        {"type": "object", "properties": {"a": {"$ref": "#/components/schemas/Leaf"}}}, known.__getitem__
    )
    assert at(schema, "a").type == "string"
    with pytest.raises(ValueError, match="no references"):
        compile_definition({"$ref": "#/definitions/Leaf"})
