"""Laws of the codecs: what is written reads back, whatever was written is read or refused, never worse."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from functools import cache
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcp.machinery.codec.json import JsonError, decode_json, syntax_fault
from kcp.machinery.codec.protobuf import ProtobufError, decode_protobuf, encode_protobuf, message_name
from kcp.machinery.codec.protobuf_table import indexes, table
from kcp.machinery.codec.yaml import YamlError, decode_yaml, encode_yaml
from kcp.machinery.gvk import GroupVersionKind
from kcp.machinery.times import format_go_duration_ns, format_micro_time, format_time

LAWS = settings(max_examples=150, deadline=None)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
tricky = st.sampled_from(
    ["", " ", "yes", "1", "1e3", "0x1", "~", "null", "2026-01-01", "1:30", "a: b", "- a", "#", "x\ny\n", "\n", "'", '"', "é", "\\u0022", '":', "<<", "=", "%", "@", "|", "\t"]
)  # fmt: skip
whole = st.integers(-(2**63), 2**63 - 1)
fractions = st.floats(allow_nan=False, allow_infinity=False).filter(lambda f: not f.is_integer())
json_values = st.recursive(
    st.none() | st.booleans() | whole | fractions | text | tricky,
    lambda v: st.lists(v, max_size=4) | st.dictionaries(text | tricky, v, max_size=4),
    max_leaves=12,
)


@given(json_values)
@LAWS
def test_json_reads_back(value: Any) -> None:
    for body in (
        orjson.dumps(value),
        json.dumps(value).encode(),
        json.dumps(value, indent=1).encode(),
        json.dumps(value, separators=(" , ", " : ")).encode(),
    ):
        assert decode_json(body) == (value, [])


@given(st.lists(st.tuples(st.sampled_from(["a", "b", '"', ":"]), json_values), max_size=6))
@LAWS
def test_json_repeated_keys_are_all_found(pairs: list[tuple[str, Any]]) -> None:
    body = "{" + ",".join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in pairs) + "}"
    value, duplicates = decode_json(body.encode())
    assert value == dict(pairs)
    assert len(duplicates) == len({k for i, (k, _) in enumerate(pairs) if k in [p[0] for p in pairs[:i]]})


@given(
    st.binary(max_size=24)
    | st.text(alphabet='{}[]",:0123456789.eE+-truefalsn\\ u\n', max_size=24).map(str.encode)
)
@settings(max_examples=600, deadline=None)
def test_any_bytes_are_json_or_a_fault_that_go_would_name(body: bytes) -> None:
    try:
        value, _ = decode_json(body)
    except JsonError as error:
        assert str(error).startswith(("invalid character ", "unexpected end of JSON input", "json: cannot "))
        assert str(error).startswith("json: ") or str(error) == syntax_fault(body)
    else:
        assert syntax_fault(body) == ""
        orjson.dumps(value)


@given(json_values)
@LAWS
def test_yaml_reads_back(value: Any) -> None:
    assert decode_yaml(encode_yaml(value)) == (value, [])


@given(json_values)
@LAWS
def test_json_is_yaml(value: Any) -> None:
    ascii_only = json.dumps(value, ensure_ascii=True)
    if "\\ud" in ascii_only or len(ascii_only) > 900:
        return
    assert decode_yaml(ascii_only.encode())[0] == value


@given(st.text(alphabet="ab:- \n[]{}&*?|>'\"#%!,~1<\t", max_size=24))
@settings(max_examples=500, deadline=None)
def test_any_text_is_yaml_or_a_fault(document: str) -> None:
    try:
        value, _ = decode_yaml(document.encode())
    except YamlError as error:
        assert str(error).startswith("error converting YAML to JSON: ")
    else:
        orjson.dumps(value)


KINDS = [
    ("v1", "Pod"), ("v1", "Service"), ("v1", "Secret"), ("v1", "ConfigMap"), ("v1", "Node"), ("v1", "Event"),
    ("v1", "PersistentVolume"), ("v1", "PersistentVolumeClaim"), ("v1", "Namespace"), ("v1", "Binding"),
    ("v1", "Endpoints"), ("v1", "ServiceAccount"), ("v1", "ResourceQuota"), ("v1", "LimitRange"), ("v1", "PodList"),
    ("v1", "Status"), ("apps/v1", "Deployment"), ("apps/v1", "StatefulSet"), ("apps/v1", "DaemonSet"),
    ("apps/v1", "ControllerRevision"), ("apps/v1", "DeleteOptions"), ("batch/v1", "Job"), ("batch/v1", "CronJob"),
    ("autoscaling/v1", "Scale"), ("autoscaling/v2", "HorizontalPodAutoscaler"), ("policy/v1", "Eviction"),
    ("policy/v1", "PodDisruptionBudget"), ("networking.k8s.io/v1", "Ingress"), ("networking.k8s.io/v1", "NetworkPolicy"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"), ("coordination.k8s.io/v1", "Lease"),
    ("storage.k8s.io/v1", "StorageClass"), ("storage.k8s.io/v1", "VolumeAttachment"), ("storage.k8s.io/v1", "CSINode"),
    ("discovery.k8s.io/v1", "EndpointSlice"), ("events.k8s.io/v1", "Event"), ("resource.k8s.io/v1", "ResourceClaim"),
    ("resource.k8s.io/v1", "ResourceSlice"), ("authentication.k8s.io/v1", "TokenRequest"),
    ("authorization.k8s.io/v1", "SubjectAccessReview"), ("certificates.k8s.io/v1", "CertificateSigningRequest"),
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"), ("flowcontrol.apiserver.k8s.io/v1", "FlowSchema"),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"), ("apiregistration.k8s.io/v1", "APIService"),
]  # fmt: skip

moments = st.datetimes(datetime(1000, 1, 1), datetime(9998, 1, 1), timezones=st.just(UTC))
raw_json: st.SearchStrategy[Any] = st.dictionaries(
    st.text("abf:", min_size=1, max_size=3), st.integers(0, 3) | st.just({}), min_size=1, max_size=2
)
names = st.text("abc", min_size=1, max_size=3)
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4),
    "bytes": st.binary(min_size=1, max_size=4).map(lambda b: base64.b64encode(b).decode()),
    "bool": st.just(True),
    "int32": st.integers(-(2**31), 2**31 - 1).filter(bool),
    "int64": whole.filter(bool),
    "float64": st.sampled_from([1.5, -0.25, 3, 1e300]),
    "Time": moments.map(format_time),
    "MicroTime": moments.map(format_micro_time),
    "Duration": st.integers(0, 10**15).map(format_go_duration_ns),
    "Quantity": st.sampled_from(["1", "100m", "1Gi", "0"]),
    "IntOrString": st.integers(-(2**31), 2**31 - 1) | st.sampled_from(["http", "25%", ""]),
    "strings": st.lists(names, min_size=1, max_size=2),
    "raw": raw_json,
    "orArray": st.just({"type": "string"}) | st.just([{"type": "string"}, {}]),
    "orBool": st.booleans() | st.just({"type": "string"}),
    "orStrings": st.just(["a"]) | st.just({"type": "object"}),
}
ZEROS: dict[str, Any] = {"string": "", "bool": False, "int32": 0, "int64": 0, "float64": 0, "bytes": ""}


@cache
def objects_of(index: int, depth: int) -> st.SearchStrategy[dict[str, Any]]:
    """JSON objects of a message as Go prints them: zeros only where a pointer or a missing omitempty shows them."""
    fields: dict[str, st.SearchStrategy[Any]] = {}
    inlined: list[st.SearchStrategy[dict[str, Any]]] = []
    for row in table()[1][index]:
        name, kind, flags = row[1], row[2], row[3] if len(row) > 3 else ""
        if isinstance(kind, int):
            if depth == 0:
                continue
            element = objects_of(kind, depth - 1)
        else:
            element = SCALARS[kind]
            if flags in ("p", "r") and kind in ZEROS:
                element = element | st.just(ZEROS[kind])
        if not name:
            inlined.append(element)
        elif "l" in flags:
            fields[name] = st.lists(element, min_size=1, max_size=2)
        elif "m" in flags:
            fields[name] = st.dictionaries(names, element, min_size=1, max_size=2)
        else:
            fields[name] = element
    own = st.fixed_dictionaries({}, optional=fields)
    if not inlined:
        return own
    return st.tuples(own, *inlined).map(
        lambda parts: {k: v for part in reversed(parts) for k, v in part.items()}
    )


def index_of(api_version: str, kind: str) -> int:
    group, _, version = api_version.rpartition("/")
    name = message_name(GroupVersionKind(group, version, kind))
    assert name is not None
    return indexes()[name]


@pytest.mark.parametrize(("api_version", "kind"), KINDS)
def test_protobuf_reads_back(api_version: str, kind: str) -> None:
    @given(objects_of(index_of(api_version, kind), 4))
    @settings(max_examples=8, deadline=None, database=None)
    def law(fields: dict[str, Any]) -> None:
        obj = {"apiVersion": api_version, "kind": kind, **fields}
        assert decode_protobuf(encode_protobuf(obj, zeros=False)) == obj
        as_go = decode_protobuf(encode_protobuf(obj))
        assert contains(as_go, obj)
        assert decode_protobuf(encode_protobuf(as_go)) == as_go

    law()


def contains(whole: Any, part: Any) -> bool:
    """Whether `whole` has everything of `part`, and besides only what Go prints for absent structs."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and contains(whole[key], value) for key, value in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return len(whole) == len(part) and all(map(contains, whole, part))
    return bool(whole == part)


@given(st.binary(max_size=40), st.sampled_from(KINDS))
@settings(max_examples=400, deadline=None)
def test_any_bytes_are_protobuf_or_a_fault(raw: bytes, kind: tuple[str, str]) -> None:
    group, _, version = kind[0].rpartition("/")
    body = b"k8s\x00\x12" + bytes([len(raw)]) + raw
    try:
        obj = decode_protobuf(body, GroupVersionKind(group, version, kind[1]))
    except ProtobufError:
        return
    assert orjson.loads(orjson.dumps(obj)) == obj


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_protobuf_is_read_or_refused(data: st.DataObject) -> None:
    fields = data.draw(objects_of(index_of("v1", "Pod"), 4))
    body = bytearray(encode_protobuf({"apiVersion": "v1", "kind": "Pod", **fields}))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(4, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        obj = decode_protobuf(bytes(body))
    except ProtobufError:
        return
    orjson.dumps(obj)
