"""From bodies to objects."""

from __future__ import annotations

import pytest

from kcp.machinery.codec.protobuf import encode_protobuf
from kcp.machinery.errors import BadRequest, RequestEntityTooLarge, UnsupportedMediaType
from tests.api.harness import CONFIG_MAPS, DEPLOYMENTS, PODS, config_map, deployment, pod, running_api


async def test_kind_and_version_may_be_left_out() -> None:
    async with running_api() as api:
        created = await api.create(CONFIG_MAPS, {"metadata": {"name": "x"}})
        assert (created["apiVersion"], created["kind"]) == ("v1", "ConfigMap")


async def test_yaml_and_protobuf_bodies() -> None:
    async with running_api() as api:
        text = b"metadata:\n  name: text\ndata:\n  a: '1'\n"
        created = await api.create(CONFIG_MAPS, text, content_type="application/yaml")
        assert created["data"] == {"a": "1"}
        body = encode_protobuf(pod("p"))
        made = await api.create(PODS, body, content_type="application/vnd.kubernetes.protobuf")
        assert made["spec"]["containers"][0]["image"] == "registry.example/web:1"


async def test_objects_from_inside_are_copied_not_changed() -> None:
    async with running_api() as api:
        obj = pod("inside")
        before = repr(obj)
        await api.create(PODS, obj, document=True)
        assert repr(obj) == before


@pytest.mark.parametrize(
    ("obj", "text"),
    [
        (
            {"apiVersion": "v1", "kind": "Foo"},
            'Foo in version "v1" cannot be handled as a Pod: no kind "Foo" is registered for version "v1"'
            ' in scheme "pkg/api/legacyscheme/scheme.go:30"',
        ),
        (
            {"apiVersion": "v1", "kind": "Service"},
            'Service in version "v1" cannot be handled as a Pod: converting (v1.Service) to (core.Pod):'
            " unknown conversion",
        ),
        (
            {"apiVersion": "a/b/c", "kind": "Pod"},
            "unexpected GroupVersion string: a/b/c",
        ),
    ],
)
async def test_another_kind_than_the_path_is_refused(obj: dict[str, str], text: str) -> None:
    async with running_api() as api:
        with pytest.raises(BadRequest) as caught:
            await api.create(PODS, obj)
        assert caught.value.message == text


async def test_another_version_of_the_kind_is_refused() -> None:
    async with running_api() as api:
        path = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"
        with pytest.raises(BadRequest) as caught:
            await api.create(path, {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler"})
        assert caught.value.message == (
            "the API version in the data (autoscaling/v2) does not match the expected API version (autoscaling/v1)"
        )


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            b"",
            "the object provided is unrecognized (must be of type Pod): couldn't get version/kind;"
            " json parse error: unexpected end of JSON input (<empty>)",
        ),
        (
            b'{"kind": }',
            "the object provided is unrecognized (must be of type Pod): couldn't get version/kind;"
            " json parse error: invalid character '}' looking for beginning of value ({\"kind\": })",
        ),
    ],
)
async def test_bodies_that_are_no_json(body: bytes, text: str) -> None:
    async with running_api() as api:
        with pytest.raises(BadRequest) as caught:
            await api.create(PODS, body)
        assert caught.value.message == text


async def test_a_wrong_type_is_named_as_go_names_it() -> None:
    async with running_api() as api:
        obj = deployment()
        obj["spec"]["replicas"] = "three"
        with pytest.raises(BadRequest) as caught:
            await api.create(DEPLOYMENTS, obj)
        assert caught.value.message == (
            'Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal string into'
            " Go struct field DeploymentSpec.spec.replicas of type int32"
        )


async def test_strict_refuses_warn_warns_ignore_ignores() -> None:
    async with running_api() as api:
        body = b'{"metadata":{"name":"%s"},"data":{"a":"1","a":"2"},"foo":1}'
        with pytest.raises(BadRequest) as caught:
            await api.create(CONFIG_MAPS, body % b"s", params={"fieldValidation": "Strict"})
        assert caught.value.message == (
            'ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error:'
            ' unknown field "foo", duplicate field "data.a"'
        )
        warned = await api.call("POST", CONFIG_MAPS, body % b"w")
        assert warned.warnings == ['unknown field "foo"', 'duplicate field "data.a"']
        assert "foo" not in warned.value
        ignored = await api.call("POST", CONFIG_MAPS, body % b"i", params={"fieldValidation": "Ignore"})
        assert ignored.warnings == []
        assert ignored.value["data"] == {"a": "2"}


async def test_null_means_absent() -> None:
    async with running_api() as api:
        obj = config_map("n")
        obj["data"] = None
        obj["metadata"]["labels"] = None
        created = await api.create(CONFIG_MAPS, obj)
        assert "data" not in created
        assert "labels" not in created["metadata"]


async def test_large_bodies_and_foreign_types() -> None:
    async with running_api() as api:
        with pytest.raises(RequestEntityTooLarge, match=r"^Request entity too large: limit is 3145728$"):
            await api.create(CONFIG_MAPS, b" " * (3 * 1024 * 1024 + 1))
        with pytest.raises(UnsupportedMediaType, match=r"accepted media types include: application/json"):
            await api.create(CONFIG_MAPS, b"x", content_type="application/cbor")
