"""Discovery: legacy and aggregated, as kubectl and client-go read it."""

from __future__ import annotations

from typing import Any

import pytest

from kcp.api.discovery import Discovery, storage_version_hash
from kcp.apis.catalog import build_catalog
from kcp.apis.kind import Kind
from kcp.machinery.gvk import GroupVersionKind
from kcp.wire.http import Request, Response
from tests.api.support import as_json

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList"
KUBECTL = f"{AGGREGATED.format('v2')},{AGGREGATED.format('v2beta1')},application/json"


def discovery() -> Discovery:
    return Discovery(build_catalog(), "10.0.0.1:6443")


def get(found: Discovery, path: str, accept: str = "application/json", **headers: str) -> Response:
    response = found.serve(Request("GET", path, headers={"accept": accept, **headers}))
    assert response is not None
    return response


def row(value: Any, name: str) -> Any:
    return next(each for each in value["resources"] if each["name"] == name)


def test_the_roots() -> None:
    api = as_json(get(discovery(), "/api"))
    assert (api["kind"], api["versions"]) == ("APIVersions", ["v1"])
    assert api["serverAddressByClientCIDRs"][0]["serverAddress"] == "10.0.0.1:6443"
    groups = as_json(get(discovery(), "/apis"))["groups"]
    autoscaling = next(group for group in groups if group["name"] == "autoscaling")
    assert [version["version"] for version in autoscaling["versions"]] == ["v2", "v1"]
    assert autoscaling["preferredVersion"] == {"groupVersion": "autoscaling/v2", "version": "v2"}


def test_resources_and_their_subresources_are_rows() -> None:
    core = as_json(get(discovery(), "/api/v1"))
    assert core["groupVersion"] == "v1"
    assert row(core, "pods") == {
        "name": "pods",
        "singularName": "pod",
        "namespaced": True,
        "kind": "Pod",
        "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        "shortNames": ["po"],
        "categories": ["all"],
        "storageVersionHash": "xPOwRZ+Yhw8=",
    }
    eviction = row(core, "pods/eviction")
    assert (eviction["group"], eviction["version"], eviction["kind"]) == ("policy", "v1", "Eviction")
    assert row(core, "pods/log")["kind"] == "Pod"
    names = [each["name"] for each in core["resources"]]
    assert names == sorted(names)
    assert as_json(get(discovery(), "/apis/apps/v1"))["apiVersion"] == "v1"
    assert as_json(get(discovery(), "/apis/apps"))["kind"] == "APIGroup"


@pytest.mark.parametrize(
    ("group", "version", "plural", "expected"),
    [
        ("", "v1", "configmaps", "qFsyl6wFWjQ="),
        ("", "v1", "namespaces", "Q3oi5N2YM8M="),
        ("events.k8s.io", "v1", "events", "r2yiGXH7wu8="),
        ("", "v1", "componentstatuses", ""),
        ("authorization.k8s.io", "v1", "subjectaccessreviews", ""),
    ],
)
def test_storage_version_hashes_are_those_of_kubernetes(
    group: str, version: str, plural: str, expected: str
) -> None:
    kind = build_catalog().by_resource(group, version, plural)
    assert kind is not None
    assert storage_version_hash(kind) == expected


@pytest.mark.parametrize("version", ["v2", "v2beta1"])
def test_the_aggregated_form_says_so_in_its_content_type(version: str) -> None:
    response = get(discovery(), "/apis", AGGREGATED.format(version))
    assert response.header("content-type") == AGGREGATED.format(version)
    value = as_json(response)
    assert (value["kind"], value["apiVersion"]) == (
        "APIGroupDiscoveryList",
        f"apidiscovery.k8s.io/{version}",
    )
    apps = next(item for item in value["items"] if item["metadata"]["name"] == "apps")
    (served,) = apps["versions"]
    deployments = next(each for each in served["resources"] if each["resource"] == "deployments")
    assert (served["version"], served["freshness"], deployments["scope"]) == ("v1", "Current", "Namespaced")
    scale = next(sub for sub in deployments["subresources"] if sub["subresource"] == "scale")
    assert scale["responseKind"] == {"group": "autoscaling", "version": "v1", "kind": "Scale"}


def test_the_client_s_first_choice_wins() -> None:
    found = discovery()
    assert get(found, "/api", KUBECTL).header("content-type") == AGGREGATED.format("v2")
    assert get(found, "/api", "*/*").header("content-type") == "application/json"
    legacy_first = f"application/json,{AGGREGATED.format('v2')}"
    assert get(found, "/api", legacy_first).header("content-type") == "application/json"


def test_unchanged_documents_are_not_sent_again_until_the_catalog_changes() -> None:
    found = discovery()
    tag = get(found, "/apis", KUBECTL).header("etag")
    known = {"if-none-match": tag}
    assert get(found, "/apis", KUBECTL, **known).status == 304
    verbs = ("create", "get", "list", "watch")
    found.catalog.add(Kind(GroupVersionKind("example.com", "v1", "Thing"), "things", "thing", True, verbs))
    fresh = get(found, "/apis", KUBECTL, **known)
    assert fresh.status == 200
    assert as_json(fresh)["items"][-1]["metadata"]["name"] == "example.com"
    assert found.serves("example.com", "v1")
    assert as_json(get(found, "/apis/example.com/v1"))["resources"][0]["name"] == "things"


def test_what_is_not_served() -> None:
    assert discovery().serve(Request("GET", "/apis/nonsense")) is None
    assert not discovery().serves("apps", "v1beta1")


def test_yaml_on_request() -> None:
    response = get(discovery(), "/apis/apps", "application/yaml")
    assert response.header("content-type") == "application/yaml"
    assert response.body.startswith(b"apiVersion: v1\nkind: APIGroup\n")
