"""OpenAPI: what kubectl explain, apply, create --validate and client-go look up in it."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from kcp.api.openapi import OpenApi
from kcp.apis.catalog import build_catalog
from kcp.apis.kind import Kind
from kcp.machinery.errors import NotAcceptable
from kcp.machinery.gvk import GroupVersionKind
from kcp.wire.http import Response
from tests.api.support import as_json, call

Json = dict[str, Any]
PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"


@pytest.fixture(scope="module")
def openapi() -> OpenApi:
    return OpenApi(build_catalog(), "v1.36.2")


def get(openapi: OpenApi, target: str, accept: str = "application/json", **headers: str) -> Response:
    response = openapi.serve(call("GET", target, accept, **headers))
    assert response is not None
    return response


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def test_the_index_leads_to_every_group_version(openapi: OpenApi) -> None:
    paths = as_json(get(openapi, "/openapi/v3"))["paths"]
    assert {"api/v1", "apis/apps/v1", "apis/autoscaling/v2"} <= set(paths)
    for name, entry in paths.items():
        assert entry["serverRelativeURL"].startswith(f"/openapi/v3/{name}?hash=")
        response = get(openapi, entry["serverRelativeURL"])
        assert "immutable" in response.header("cache-control")
    assert openapi.serve(call("GET", "/openapi/v3/apis/nonsense/v1")) is None


@pytest.mark.parametrize("name", ["api/v1", "apis/apps/v1", "apis/apiextensions.k8s.io/v1"])
def test_version_3_is_closed_under_references(openapi: OpenApi, name: str) -> None:
    value = as_json(get(openapi, f"/openapi/v3/{name}"))
    schemas = value["components"]["schemas"]
    wanted = {reference.removeprefix("#/components/schemas/") for reference in references(value)}
    assert wanted <= set(schemas)
    assert value["openapi"] == "3.0.0"


def test_patches_take_field_validation_and_dry_run(openapi: OpenApi) -> None:
    """What kubectl's query parameter verifier walks the paths for."""
    value = as_json(get(openapi, "/openapi/v3/apis/apps/v1"))
    patch = value["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert patch["x-kubernetes-group-version-kind"] == {
        "group": "apps",
        "version": "v1",
        "kind": "Deployment",
    }
    assert patch["x-kubernetes-action"] == "patch"
    assert {"fieldValidation", "dryRun", "force"} <= {each["name"] for each in patch["parameters"]}
    assert "application/apply-patch+yaml" in patch["requestBody"]["content"]
    listing = value["paths"]["/apis/apps/v1/deployments"]["get"]
    assert (listing["x-kubernetes-action"], listing["operationId"]) == (
        "list",
        "listAppsV1DeploymentForAllNamespaces",
    )


def test_schemas_keep_descriptions_and_marks(openapi: OpenApi) -> None:
    schemas = as_json(get(openapi, "/openapi/v3/api/v1"))["components"]["schemas"]
    containers = schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]
    assert containers["description"].startswith("List of containers belonging to the pod.")
    assert containers["x-kubernetes-patch-merge-key"] == "name"
    pod = schemas["io.k8s.api.core.v1.Pod"]
    assert pod["x-kubernetes-group-version-kind"] == [{"group": "", "kind": "Pod", "version": "v1"}]
    assert pod["properties"]["spec"]["allOf"] == [{"$ref": "#/components/schemas/io.k8s.api.core.v1.PodSpec"}]
    quantity = schemas["io.k8s.apimachinery.pkg.api.resource.Quantity"]
    assert quantity["oneOf"] == [{"type": "string"}, {"type": "number"}]
    assert not any("x-go-" in key for schema in schemas.values() for key in schema)


def test_version_2_is_closed_under_references(openapi: OpenApi) -> None:
    value = as_json(get(openapi, "/openapi/v2"))
    wanted = {reference.removeprefix("#/definitions/") for reference in references(value)}
    assert wanted <= set(value["definitions"])
    assert "/api/v1/namespaces/{namespace}/pods/{name}/exec" in value["paths"]


def test_operation_ids_are_unique(openapi: OpenApi) -> None:
    paths = as_json(get(openapi, "/openapi/v2"))["paths"]
    ids = [op["operationId"] for item in paths.values() for key, op in item.items() if key != "parameters"]
    assert len(ids) == len(set(ids))
    assert "createCoreV1NamespacedPod" in ids
    assert "patchAppsV1NamespacedDeploymentScale" in ids


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a protobuf message: (number, bytes or int)."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = varint()
        if tag & 7 == 0:
            yield tag >> 3, varint()
        else:
            assert tag & 7 == 2
            size = varint()
            yield tag >> 3, data[at : at + size]
            at += size


def test_the_protobuf_form_holds_the_same_names(openapi: OpenApi) -> None:
    response = get(openapi, "/openapi/v2", PROTOBUF)
    assert response.header("content-type") == PROTOBUF.replace("@", ".")
    document = dict(fields(response.body))
    swagger = as_json(get(openapi, "/openapi/v2"))
    assert document[1] == b"2.0"

    def names(message: bytes, number: int) -> list[str]:
        return [dict(fields(entry))[1].decode() for key, entry in fields(message) if key == number]

    assert names(document[9], 1) == list(swagger["definitions"])
    assert names(document[8], 2) == list(swagger["paths"])
    entries = {dict(fields(e))[1].decode(): dict(fields(e))[2] for _, e in fields(document[9])}
    pod_spec = dict(fields(entries["io.k8s.api.core.v1.PodSpec"]))
    assert names(pod_spec[25], 1) == list(swagger["definitions"]["io.k8s.api.core.v1.PodSpec"]["properties"])
    extensions = dict(fields(entries["io.k8s.api.core.v1.Pod"]))[31]
    (name, any_value) = dict(fields(extensions))[1], dict(fields(extensions))[2]
    assert name == b"x-kubernetes-group-version-kind"
    assert orjson.loads(dict(fields(any_value))[2]) == [{"group": "", "kind": "Pod", "version": "v1"}]


def test_etags_and_compression(openapi: OpenApi) -> None:
    response = get(openapi, "/openapi/v3/api/v1")
    tag = response.header("etag")
    assert get(openapi, "/openapi/v3/api/v1", **{"if-none-match": tag}).status == 304
    packed = get(openapi, "/openapi/v3/api/v1", **{"accept-encoding": "gzip"})
    assert packed.header("content-encoding") == "gzip"
    assert gzip.decompress(packed.body) == response.body


def test_other_types_are_406(openapi: OpenApi) -> None:
    with pytest.raises(NotAcceptable):
        get(openapi, "/openapi/v2", "text/html")


def test_custom_kinds_join_in() -> None:
    openapi = OpenApi(
        build_catalog(),
        "v1.36.2",
        lambda kind: {"type": "object", "properties": {"spec": {"type": "object"}}},
    )
    before = as_json(get(openapi, "/openapi/v3"))["paths"]
    verbs = ("create", "delete", "get", "list", "patch", "update", "watch")
    gvk = GroupVersionKind("stable.example.com", "v1", "CronTab")
    openapi.catalog.add(Kind(gvk, "crontabs", "crontab", True, verbs, custom=True))
    after = as_json(get(openapi, "/openapi/v3"))["paths"]
    assert set(after) - set(before) == {"apis/stable.example.com/v1"}
    assert after["api/v1"] == before["api/v1"]
    schemas = as_json(get(openapi, "/openapi/v3/apis/stable.example.com/v1"))["components"]["schemas"]
    assert set(schemas["com.example.stable.v1.CronTab"]["properties"]) == {
        "apiVersion",
        "kind",
        "metadata",
        "spec",
    }
    assert "com.example.stable.v1.CronTabList" in schemas


def test_an_outdated_hash_is_sent_to_the_current_address(openapi: OpenApi) -> None:
    address = as_json(get(openapi, "/openapi/v3"))["paths"]["apis/apps/v1"]["serverRelativeURL"]
    moved = get(openapi, "/openapi/v3/apis/apps/v1?hash=OLD")
    assert (moved.status, moved.header("location")) == (301, address)
    assert "immutable" in get(openapi, address).header("cache-control")
    assert "immutable" not in get(openapi, "/openapi/v3/apis/apps/v1").header("cache-control")
