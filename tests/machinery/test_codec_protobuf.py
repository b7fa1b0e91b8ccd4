"""Protobuf bodies: the envelope, the traps of the wire format, and every built-in kind."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from kcp.machinery.codec.protobuf import (
    ProtobufError,
    UnknownProtobufKind,
    decode_protobuf,
    encode_protobuf,
    message_name,
)
from kcp.machinery.codec.protobuf_table import indexes, table
from kcp.machinery.gvk import GroupVersionKind
from kcp.schemas import load

POD = GroupVersionKind("", "v1", "Pod")


def tlv(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def num(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def varint(value: int) -> bytes:
    value %= 1 << 64
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    return (
        b"k8s\x00" + tlv(1, tlv(1, api_version.encode()) + tlv(2, kind.encode())) + tlv(2, raw) + tlv(3, b"")
    )


def pod_spec(spec: bytes) -> Any:
    return decode_protobuf(envelope("v1", "Pod", tlv(2, spec)))["spec"]


def round_trip(obj: dict[str, Any]) -> dict[str, Any]:
    return decode_protobuf(encode_protobuf(obj, zeros=False))


def test_type_and_version_come_from_the_envelope() -> None:
    body = envelope("apps/v1", "Deployment", tlv(1, tlv(1, b"web") + tlv(3, b"default")))
    assert decode_protobuf(body) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
    }
    assert list(decode_protobuf(body))[:2] == ["apiVersion", "kind"]


def test_the_expected_kind_fills_in_an_empty_envelope() -> None:
    assert decode_protobuf(envelope("", "", b""), POD) == {"apiVersion": "v1", "kind": "Pod"}
    assert decode_protobuf(envelope("", "Pod", b""), POD)["apiVersion"] == "v1"
    with pytest.raises(ProtobufError, match="Object 'Kind' is missing in"):
        decode_protobuf(envelope("v1", "", b""))
    with pytest.raises(ProtobufError, match="Object 'apiVersion' is missing in"):
        decode_protobuf(envelope("", "Pod", b""))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "empty data"),
        (b"k8s\x00", "empty body"),
        (
            b'{"kind":"Pod"}',
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
        ),
        (b"k8s\x00\x12\x05ab", "unexpected EOF"),
        (envelope("v1", "Pod", b"\x0a"), "unexpected EOF"),
        (envelope("v1", "Pod", b"\x0a\x05ab"), "unexpected EOF"),
        (envelope("v1", "Pod", b"\x80"), "unexpected EOF"),
        (envelope("v1", "Pod", b"\x80" * 11), "proto: integer overflow"),
        (envelope("v1", "Pod", b"\x0b"), "proto: illegal wireType 3"),
        (envelope("v1", "Pod", b"\x02\x00"), "proto: illegal tag 0 (wire type 2)"),
        (envelope("v1", "Pod", num(1, 5)), "proto: wrong wireType = 0 for field number 1"),
        (envelope("a/b/c", "Pod", b""), "unexpected GroupVersion string: a/b/c"),
        (envelope("v1", "Secret", tlv(2, tlv(1, b"k") + b"\x12\x05a")), "unexpected EOF"),
        (envelope("v1", "ConfigMap", tlv(1, tlv(8, tlv(1, b"")))), "proto: wrong wireType = 2"),
        (envelope("v1", "Pod", tlv(1, tlv(8, num(1, 1 << 62)))), f"time out of range: {1 << 62} seconds"),
    ],
)
def test_malformed_bodies(body: bytes, text: str) -> None:
    with pytest.raises(ProtobufError) as caught:
        decode_protobuf(body)
    assert str(caught.value) == text


def test_kinds_without_a_message() -> None:
    with pytest.raises(UnknownProtobufKind) as caught:
        decode_protobuf(envelope("example.com/v1", "Widget", b""))
    assert str(caught.value) == 'no kind "Widget" is registered for version "example.com/v1"'
    with pytest.raises(UnknownProtobufKind):
        encode_protobuf({"apiVersion": "example.com/v1", "kind": "Widget"})


def test_unknown_fields_are_skipped() -> None:
    junk = tlv(900, b"x") + num(901, 5) + varint(902 << 3 | 1) + b"12345678" + varint(903 << 3 | 5) + b"1234"
    assert decode_protobuf(envelope("v1", "Pod", junk + tlv(1, junk + tlv(1, b"a")) + junk))["metadata"] == {
        "name": "a"
    }


def test_a_zero_that_is_no_pointer_is_left_out() -> None:
    # hostNetwork is a bool, nodeName a string, terminationGracePeriodSeconds and priority are pointers
    spec = num(11, 0) + tlv(10, b"") + num(4, 0) + num(25, 0)
    assert pod_spec(spec) == {"terminationGracePeriodSeconds": 0, "priority": 0}
    assert pod_spec(num(11, 1) + tlv(10, b"n")) == {"hostNetwork": True, "nodeName": "n"}


def test_a_zero_that_go_prints_stays() -> None:
    # an OwnerReference's name and ContainerStatus.ready have no omitempty
    status = tlv(8, tlv(1, b"") + num(4, 0) + num(5, 0))
    decoded = decode_protobuf(envelope("v1", "Pod", tlv(3, status)))
    assert decoded["status"]["containerStatuses"] == [{"name": "", "ready": False, "restartCount": 0}]


def test_negative_numbers_are_ten_bytes_and_not_zigzag() -> None:
    assert pod_spec(varint(25 << 3) + b"\xfb" + b"\xff" * 8 + b"\x01") == {"priority": -5}
    assert pod_spec(num(4, -1)) == {"terminationGracePeriodSeconds": -1}


def test_members_of_embedded_structs_belong_to_the_parent() -> None:
    volume = tlv(1, b"v") + tlv(2, tlv(19, tlv(1, tlv(1, b"cm")) + num(3, 420)))
    assert pod_spec(tlv(1, volume)) == {
        "volumes": [{"name": "v", "configMap": {"name": "cm", "defaultMode": 420}}]
    }
    attachment = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "VolumeAttachment",
        "spec": {"attacher": "a", "nodeName": "n", "source": {"inlineVolumeSpec": {"csi": {"driver": "d", "volumeHandle": "h"}}}},
    }  # fmt: skip
    assert round_trip(attachment) == attachment


def test_times() -> None:
    metadata = tlv(8, num(1, 1767225600) + num(2, 5)) + tlv(9, b"")
    assert decode_protobuf(envelope("v1", "Pod", tlv(1, metadata)))["metadata"] == {
        "creationTimestamp": "2026-01-01T00:00:00Z"
    }
    before_1970 = decode_protobuf(envelope("v1", "Pod", tlv(1, tlv(8, num(1, -1)))))
    assert before_1970["metadata"] == {"creationTimestamp": "1969-12-31T23:59:59Z"}
    renewed = tlv(2, tlv(4, num(1, 1767225600) + num(2, 123456789)))
    lease = decode_protobuf(envelope("coordination.k8s.io/v1", "Lease", renewed))
    assert lease["spec"] == {"renewTime": "2026-01-01T00:00:00.123456Z"}


def test_quantities_and_int_or_string() -> None:
    requests = tlv(2, tlv(1, b"cpu") + tlv(2, tlv(1, b"100m"))) + tlv(2, tlv(1, b"memory") + tlv(2, b""))
    assert pod_spec(tlv(2, tlv(8, requests))) == {
        "containers": [{"resources": {"requests": {"cpu": "100m", "memory": "0"}}}]
    }
    port = {"port": 80, "targetPort": "http"}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "spec": {"ports": [port, {"port": 81, "targetPort": -1}]},
    }
    assert round_trip(service) == service


def test_maps_without_a_value_hold_the_zero_value() -> None:
    labels = tlv(11, tlv(1, b"a")) + tlv(11, tlv(2, b"v")) + tlv(11, tlv(1, b"b") + tlv(2, b"c"))
    assert decode_protobuf(envelope("v1", "Pod", tlv(1, labels)))["metadata"] == {
        "labels": {"a": "", "": "v", "b": "c"}
    }


def test_bytes_are_base64() -> None:
    secret = decode_protobuf(envelope("v1", "Secret", tlv(2, tlv(1, b"k") + tlv(2, b"\x00\xff"))))
    assert secret["data"] == {"k": base64.b64encode(b"\x00\xff").decode()}
    assert round_trip(secret) == secret


def test_lists_of_numbers_packed_or_not() -> None:
    groups = pod_spec(tlv(14, num(4, 1) + num(4, 300)))
    packed = pod_spec(tlv(14, tlv(4, varint(1) + varint(300))))
    assert groups == packed == {"securityContext": {"supplementalGroups": [1, 300]}}


def test_raw_json_is_spliced_in() -> None:
    fields: dict[str, Any] = {"f:spec": {"f:replicas": {}}}
    obj = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {"managedFields": [{"manager": "m", "fieldsV1": fields}]},
        "data": {"spec": [1, None, "x"]},
        "revision": 3,
    }
    assert round_trip(obj) == obj
    with pytest.raises(ProtobufError, match="invalid character 'x' looking for beginning of value"):
        decode_protobuf(envelope("apps/v1", "ControllerRevision", tlv(2, tlv(1, b"x"))))


def test_objects_within_a_list_may_have_envelopes_of_their_own() -> None:
    inner = envelope("v1", "Pod", tlv(1, tlv(1, b"a")))
    body = envelope("v1", "List", tlv(2, tlv(1, inner)) + tlv(2, tlv(1, b'{"kind":"Node"}')))
    assert decode_protobuf(body)["items"] == [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}},
        {"kind": "Node"},
    ]


def test_user_extra_is_a_map_of_lists() -> None:
    extra = tlv(5, tlv(1, b"scopes") + tlv(2, tlv(1, b"a") + tlv(1, b"b")))
    body = envelope("authorization.k8s.io/v1", "SubjectAccessReview", tlv(2, extra))
    assert decode_protobuf(body)["spec"] == {"extra": {"scopes": ["a", "b"]}}


def test_schemas_of_custom_resources() -> None:
    schema = {
        "type": "object",
        "properties": {
            "open": {"additionalProperties": True, "items": [{"type": "string"}, {"type": "integer"}]},
            "closed": {"additionalProperties": {"type": "string"}, "items": {"type": "string"}, "default": None},
            "x": {"enum": ["a", 1, None, {"b": []}], "minimum": 1.5, "maximum": 3, "dependencies": {"y": ["z"], "w": {"type": "object"}}},
        },
    }  # fmt: skip
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "spec": {"group": "a.b", "names": {"plural": "cs", "kind": "C"}, "scope": "Cluster",
                 "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema},
                               "subresources": {"status": {}, "scale": {"specReplicasPath": ".a", "statusReplicasPath": ".b"}}}]},
    }  # fmt: skip
    assert round_trip(crd) == crd


@pytest.mark.parametrize("depth", [300, 20_000])
def test_schemas_nest_no_deeper_than_json(depth: int) -> None:
    schema = b""
    for _ in range(depth):
        schema = tlv(28, schema)
    spec = tlv(7, tlv(4, tlv(1, schema)))
    with pytest.raises(ProtobufError):
        decode_protobuf(envelope("apiextensions.k8s.io/v1", "CustomResourceDefinition", tlv(2, spec)))


def test_durations_are_nanoseconds() -> None:
    """Only the kinds of metrics.k8s.io have one."""
    pods = {
        "apiVersion": "metrics.k8s.io/v1beta1",
        "kind": "PodMetrics",
        "window": "30s",
        "timestamp": "2026-01-01T00:00:00Z",
    }
    assert round_trip(pods) == pods


@pytest.mark.parametrize(
    ("group", "version", "kind", "name"),
    [
        ("", "v1", "Pod", "io.k8s.api.core.v1.Pod"),
        ("", "v1", "Binding", "io.k8s.api.core.v1.Binding"),
        ("apps", "v1", "DeleteOptions", "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"),
        ("example.com", "v1", "DeleteOptions", "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"),
        ("", "v1", "Status", "io.k8s.apimachinery.pkg.apis.meta.v1.Status"),
        ("", "v1", "List", "io.k8s.apimachinery.pkg.apis.meta.v1.List"),
        ("meta.k8s.io", "v1", "PartialObjectMetadata", "io.k8s.apimachinery.pkg.apis.meta.v1.PartialObjectMetadata"),
        ("autoscaling", "v1", "Scale", "io.k8s.api.autoscaling.v1.Scale"),
        ("policy", "v1", "Eviction", "io.k8s.api.policy.v1.Eviction"),
        ("authentication.k8s.io", "v1", "TokenRequest", "io.k8s.api.authentication.v1.TokenRequest"),
        ("internal.apiserver.k8s.io", "v1alpha1", "StorageVersion", "io.k8s.api.apiserverinternal.v1alpha1.StorageVersion"),
        ("apiregistration.k8s.io", "v1", "APIService", "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService"),
    ],
)  # fmt: skip
def test_messages_of_kinds(group: str, version: str, kind: str, name: str) -> None:
    assert message_name(GroupVersionKind(group, version, kind)) == name


def members(index: int) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for row in table()[1][index]:
        out.update({row[1]: row} if row[1] else members(row[2]))
    return out


def test_the_table_agrees_with_the_openapi_definitions() -> None:
    """Every kind has a message, and each message of the table the same fields as the definition of its name."""
    for gvk in load.gvks():
        assert message_name(GroupVersionKind(*gvk)) is not None, gvk
    compared = 0
    for name in load.names():
        definition = load.definition_by_name(name) or {}
        properties = definition.get("properties", {})
        if name not in indexes() or not properties:
            continue
        fields = members(indexes()[name])
        in_envelope = {"apiVersion", "kind"} if "x-kubernetes-group-version-kind" in definition else set()
        assert set(properties) - in_envelope == set(fields) - in_envelope, name
        for field, row in fields.items():
            if field in properties:
                assert agrees(row, properties[field]), (name, field)
        compared += 1
    assert compared > 700


def agrees(row: list[Any], schema: dict[str, Any]) -> bool:
    kind, flags = row[2], row[3] if len(row) > 3 else ""
    if kind in ("strings", "raw", "orArray", "orBool", "orStrings"):
        return True
    shape = "l" if schema.get("type") == "array" else "m" if "additionalProperties" in schema else ""
    if shape != flags.strip("pr"):
        return False
    element = schema["items"] if shape == "l" else schema["additionalProperties"] if shape == "m" else schema
    if isinstance(kind, int):
        target = element.get("$ref", "").rpartition("/")[2]
        return bool(target.rpartition(".")[2] == table()[0][kind].rpartition(".")[2])
    types = {"string": ("string", None), "bool": ("boolean", None), "int32": ("integer", "int32"),
             "int64": ("integer", "int64"), "bytes": ("string", "byte"), "float64": ("number", "double")}  # fmt: skip
    if kind in types:
        return (element.get("type"), element.get("format")) == types[kind] or kind == "string"
    return bool(element.get("$ref", "").endswith(f".{kind}"))


def test_everything_go_writes_for_a_small_pod() -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a"},
        "spec": {"containers": [{"name": "c"}]},
    }
    assert decode_protobuf(encode_protobuf(pod)) == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a"},
        "spec": {"containers": [{"name": "c", "resources": {}}]},
        "status": {},
    }
