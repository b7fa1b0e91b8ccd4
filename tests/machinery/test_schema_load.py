"""The schema data that an install builds."""

from __future__ import annotations

from pathlib import Path

import pytest

from kcp.machinery.gvk import GroupVersionKind
from kcp.schemas import load


def test_definitions_by_kind_and_by_name() -> None:
    found = load.definition(GroupVersionKind("apps", "v1", "Deployment"))
    assert found is not None
    name, definition = found
    assert name == "io.k8s.api.apps.v1.Deployment"
    assert load.definition_by_name(name) is definition
    assert load.definition_by_name(f"#/definitions/{name}") is definition
    assert load.definition(GroupVersionKind("apps", "v2", "Deployment")) is None
    assert load.definition_by_name("nothing") is None
    assert ("", "v1", "Pod") in load.gvks()
    assert len(load.names()) == 771


def test_what_the_package_lost_is_repaired() -> None:
    assert load.definition_by_name("io.k8s.apimachinery.pkg.api.resource.Quantity") == {"type": "string"}
    assert load.definition_by_name("io.k8s.apimachinery.pkg.util.intstr.IntOrString") == {
        "type": "string",
        "format": "int-or-string",
    }
    pod = load.definition_by_name("io.k8s.api.core.v1.Pod")
    assert pod is not None
    assert pod["properties"]["kind"] == {"type": "string"}
    assert pod["type"] == "object"


def test_published_definitions_have_descriptions_and_no_keys_of_ours() -> None:
    port = load.published("io.k8s.api.core.v1.ContainerPort")
    assert port["description"] == "ContainerPort represents a network port in a single container."
    assert port["properties"]["protocol"]["default"] == "TCP"
    assert "x-go-type" not in port["properties"]["protocol"]
    assert "x-go-value" not in str(load.published("io.k8s.api.apps.v1.DeploymentSpec"))


def test_descriptions() -> None:
    text = load.description("io.k8s.api.core.v1.PodSpec", "containers")
    assert text.startswith("List of containers belonging to the pod.")
    assert load.description("io.k8s.api.core.v1.PodSpec") == "PodSpec is a description of a pod."
    assert load.description("io.k8s.api.core.v1.PodSpec", "nothing") == ""


def test_missing_data_says_what_to_do() -> None:
    error = load.SchemaDataMissing(Path("/somewhere/definitions.json.zst"))
    assert "definitions.json.zst" in str(error)
    assert "make update" in str(error)
    with pytest.raises(load.SchemaDataMissing):
        load._read("nothing.json.zst")
