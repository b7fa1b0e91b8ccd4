"""Checking documents: unknown fields with paths, type errors in Go's words, key counts, nulls."""

from __future__ import annotations

import weakref
from typing import Any

import orjson
import pytest

from kcp.machinery.gvk import GroupVersionKind
from kcp.machinery.schema.compile import Schema, compile_custom_resource, schema_for
from kcp.machinery.schema.defaults import drop_voids
from kcp.machinery.schema.validate import base64_error, check, count_keys, time_error

Json = dict[str, Any]


def schema_of(kind: str, group: str = "", version: str = "v1") -> Schema:
    schema = schema_for(GroupVersionKind(group, version, kind))
    assert schema is not None
    return schema


DEPLOYMENT = schema_of("Deployment", "apps")
POD = schema_of("Pod")

WEB: Json = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "labels": {"app": "web"}, "creationTimestamp": "2026-01-01T00:00:00Z"},
    "spec": {
        "containers": [
            {
                "name": "web",
                "image": "nginx",
                "command": ["sh", "-c"],
                "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "100m", "memory": 1048576}},
                "livenessProbe": {"httpGet": {"port": "http"}, "periodSeconds": 5},
            }
        ],
        "terminationGracePeriodSeconds": 30,
    },
}


def pod_spec(**fields: Any) -> Json:
    return {"spec": {"template": {"spec": fields}}}


def test_a_right_document_has_nothing_to_report() -> None:
    report = check(POD, WEB)
    assert (report.unknown, report.errors, report.has_voids) == ([], [], False)
    assert report.key_count == count_keys(WEB) == orjson.dumps(WEB).count(b'":')


def test_unknown_fields_are_named_by_path() -> None:
    document = {
        "spec": {"foo": {"a": 1}, "template": {"spec": {"containers": [{"name": "a"}, {"bar": 1}]}}},
        "metadata": {"nmae": "x"},
    }
    report = check(DEPLOYMENT, document)
    assert report.unknown == ["spec.foo", "spec.template.spec.containers[1].bar", "metadata.nmae"]
    assert report.errors == []
    assert report.key_count == count_keys(document)


def test_names_are_case_sensitive() -> None:
    assert check(POD, {"spec": {"Containers": []}}).unknown == ["spec.Containers"]


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (
            {"spec": {"replicas": "3"}},
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            {"spec": {"replicas": 1.5}},
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            {"spec": {"replicas": 3000000000}},
            "json: cannot unmarshal number 3000000000 into Go struct field "
            "DeploymentSpec.spec.replicas of type int32",
        ),
        (
            {"spec": {"paused": 1}},
            "json: cannot unmarshal number into Go struct field DeploymentSpec.spec.paused of type bool",
        ),
        (
            pod_spec(containers={}),
            "json: cannot unmarshal object into Go struct field "
            "PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (
            pod_spec(containers=[{"ports": ["80"]}]),
            "json: cannot unmarshal string into Go struct field "
            "Container.spec.template.spec.containers.ports of type v1.ContainerPort",
        ),
        (
            pod_spec(containers=[{"ports": [{"containerPort": "80"}]}]),
            "json: cannot unmarshal string into Go struct field "
            "ContainerPort.spec.template.spec.containers.ports.containerPort of type int32",
        ),
        (
            pod_spec(containers=[{"env": [{"value": 5}]}]),
            "json: cannot unmarshal number into Go struct field "
            "EnvVar.spec.template.spec.containers.env.value of type string",
        ),
        (
            pod_spec(containers=[{"command": [1]}]),
            "json: cannot unmarshal number into Go struct field "
            "Container.spec.template.spec.containers.command of type string",
        ),
        (
            pod_spec(restartPolicy=4),
            "json: cannot unmarshal number into Go struct field "
            "PodSpec.spec.template.spec.restartPolicy of type v1.RestartPolicy",
        ),
        (
            {"spec": []},
            "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec",
        ),
        (
            {"metadata": {"labels": {"a": True}}},
            "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            {"metadata": {"creationTimestamp": 5}},
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.creationTimestamp of type string",
        ),
        (
            {"metadata": {"creationTimestamp": "yesterday"}},
            'parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006"',
        ),
        (
            pod_spec(containers=[{"resources": {"limits": {"cpu": "1x"}}}]),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            pod_spec(containers=[{"livenessProbe": {"httpGet": {"port": True}}}]),
            "json: cannot unmarshal bool into Go struct field "
            "HTTPGetAction.spec.template.spec.containers.livenessProbe.httpGet.port of type int32",
        ),
    ],
)
def test_wrong_types_read_as_go_reports_them(document: Json, error: str) -> None:
    assert check(DEPLOYMENT, document).errors == [error]


def test_the_first_wrong_type_comes_first_but_a_failing_decoder_wins() -> None:
    document = {
        "spec": {"replicas": "3", "paused": "no"},
        "metadata": {"creationTimestamp": "yesterday"},
    }
    errors = check(DEPLOYMENT, document).errors
    assert errors[0].startswith("parsing time")
    assert [error.rsplit(" ", 1)[1] for error in errors[1:]] == ["int32", "bool"]


def test_secret_data_must_be_base64() -> None:
    secret = schema_of("Secret")
    assert check(secret, {"data": {"a": "aGVsbG8="}}).errors == []
    assert check(secret, {"data": {"a": "a$b"}}).errors == ["illegal base64 data at input byte 1"]
    assert base64_error("aGVs\nbG8=") == ""


def test_raw_json_is_taken_as_it_is() -> None:
    revision = schema_of("ControllerRevision", "apps")
    report = check(revision, {"data": {"spec": {"template": None, "x": [1, {"y": 2}]}}, "revision": 1})
    assert (report.unknown, report.errors, report.key_count) == ([], [], 6)


def test_micro_times_have_six_digits() -> None:
    lease = schema_of("Lease", "coordination.k8s.io")
    assert check(lease, {"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}}).errors == []
    assert check(lease, {"spec": {"renewTime": "2026-01-01T00:00:00Z"}}).errors == [
        'parsing time "2026-01-01T00:00:00Z" as "2006-01-02T15:04:05.000000Z07:00": '
        'cannot parse "Z" as ".000000"'
    ]
    assert (
        time_error("2026-02-30T00:00:00Z", False) == 'parsing time "2026-02-30T00:00:00Z": day out of range'
    )


def test_nulls_are_absent() -> None:
    document = {
        "metadata": {"creationTimestamp": None, "labels": {"a": None, "b": "c"}, "finalizers": [None, "x"]},
        "spec": {"replicas": None, "template": {"spec": {"containers": [None]}}},
        "status": {},
    }
    assert check(DEPLOYMENT, document).has_voids
    clean = drop_voids(DEPLOYMENT, document)
    assert clean == {
        "metadata": {"labels": {"a": "", "b": "c"}, "finalizers": ["", "x"]},
        "spec": {"template": {"spec": {"containers": [{}]}}},
        "status": {},
    }
    assert not check(DEPLOYMENT, clean).has_voids
    assert clean["status"] is document["status"]
    assert drop_voids(DEPLOYMENT, clean) is clean


def test_empty_lists_and_maps_are_absent_unless_go_writes_them() -> None:
    document = {
        "metadata": {"labels": {}, "annotations": {"a": ""}, "finalizers": []},
        "spec": {
            "selector": {"matchLabels": {}, "matchExpressions": []},
            "template": {
                "spec": {
                    "containers": [],
                    "nodeSelector": {},
                    "volumes": [{"name": "v", "emptyDir": {}}, {"name": "c", "configMap": {"items": []}}],
                }
            },
        },
    }
    assert check(DEPLOYMENT, document).has_voids
    clean = drop_voids(DEPLOYMENT, document)
    assert clean == {
        "metadata": {"annotations": {"a": ""}},
        "spec": {
            "selector": {},
            "template": {
                "spec": {
                    "containers": [],
                    "volumes": [{"name": "v", "emptyDir": {}}, {"name": "c", "configMap": {}}],
                }
            },
        },
    }
    assert not check(DEPLOYMENT, clean).has_voids
    assert drop_voids(DEPLOYMENT, clean) is clean


def test_a_map_s_values_are_kept_when_they_are_empty() -> None:
    """omitempty is for the fields of structs."""
    review = schema_for(GroupVersionKind("authorization.k8s.io", "v1", "SubjectAccessReview"))
    assert review is not None
    document = {"spec": {"user": "u", "extra": {"scopes": []}, "groups": []}}
    assert drop_voids(review, document) == {"spec": {"user": "u", "extra": {"scopes": []}}}


def test_custom_resources_report_only_unknown_fields() -> None:
    schema = compile_custom_resource(
        {
            "type": "object",
            "properties": {
                "spec": {
                    "type": "object",
                    "properties": {
                        "size": {"type": "integer"},
                        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        "parts": {"type": "array", "items": {"type": "object", "properties": {"a": {}}}},
                    },
                }
            },
        }
    )
    document = {
        "apiVersion": "example.com/v1",
        "kind": "Thing",
        "metadata": {"name": "a", "extra": 1},
        "spec": {"size": "wrong", "free": {"x": {"y": 1}}, "parts": [{"a": 1}, {"b": 1}], "z": None},
    }
    report = check(schema, document)
    assert report.unknown == ["metadata.extra", "spec.parts[1].b", "spec.z"]
    assert report.errors == []
    assert report.key_count == count_keys(document)


def test_both_passes_count_the_same_keys() -> None:
    """A null sends the document to the second pass; the count must not depend on it."""
    with_null = {**WEB, "status": None}
    assert check(POD, with_null).key_count == check(POD, WEB).key_count + 1


def test_what_was_odd_is_not_kept() -> None:
    """A checker that raised the same exception each time kept, in its traceback, all documents that were ever odd."""

    class Value:
        """Stands for what a document may not hold."""

    value = Value()
    gone = weakref.ref(value)
    assert not check(POD, {"spec": {"containers": [{"name": value}]}, "metadata": value}).has_voids
    del value
    assert gone() is None
