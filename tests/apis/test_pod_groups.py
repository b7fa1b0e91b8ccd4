"""PodGroup and Workload of scheduling.k8s.io/v1alpha2: served on demand, and their rules."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from kcp.apis import scheduling
from kcp.apis.catalog import ALPHA_VERSIONS, POD_GROUPS, build_catalog

Json = dict[str, Any]
BASIC: Json = {"schedulingPolicy": {"basic": {}}}
GANG: Json = {"schedulingPolicy": {"gang": {"minCount": 2}}}


def _group(**spec: Any) -> Json:
    return {"metadata": {"name": "g", "namespace": "default"}, "spec": spec}


def _workload(*templates: Json, **spec: Any) -> Json:
    return {"metadata": {"name": "w"}, "spec": {"podGroupTemplates": list(templates), **spec}}


def test_alpha_versions_are_served_when_asked_for_behind_the_others_of_their_group() -> None:
    assert all(kind.version != "v1alpha2" for kind in build_catalog().kinds())
    with_alpha = build_catalog((POD_GROUPS,)).kinds()
    group = [(k.version, k.kind) for k in with_alpha if k.group == "scheduling.k8s.io"]
    assert group == [("v1", "PriorityClass"), ("v1alpha2", "PodGroup"), ("v1alpha2", "Workload")]
    stable = [k.gvk for k in with_alpha if k.version != "v1alpha2"]
    assert stable == [k.gvk for k in build_catalog().kinds()]
    assert ALPHA_VERSIONS == (POD_GROUPS,)


@pytest.mark.parametrize(
    ("spec", "texts"),
    [
        (BASIC, []),
        (GANG, []),
        ({}, ['spec.schedulingPolicy: Invalid value: "": must specify one of: `basic`, `gang`']),
        (
            {"schedulingPolicy": {"basic": {}, "gang": {"minCount": 1}}},
            [
                'spec.schedulingPolicy: Invalid value: "{`basic`, `gang`}": exactly one of `basic`, `gang` is '
                "required, but multiple fields are set"
            ],
        ),
        (
            {"schedulingPolicy": {"gang": {"minCount": 0}}},
            ["spec.schedulingPolicy.gang.minCount: Required value"],
        ),
        (
            {"schedulingPolicy": {"gang": {"minCount": -1}}},
            ["spec.schedulingPolicy.gang.minCount: Invalid value: -1: must be greater than or equal to 1"],
        ),
        (
            {**GANG, "schedulingConstraints": {"topology": [{"key": "a"}, {"key": "b"}]}},
            ["spec.schedulingConstraints.topology: Too many: 2: must have at most 1 item"],
        ),
        (
            {**GANG, "disruptionMode": "None"},
            ['spec.disruptionMode: Unsupported value: "None": supported values: "Pod", "PodGroup"'],
        ),
        (
            {**GANG, "podGroupTemplateRef": {"workload": {"workloadName": "W", "podGroupTemplateName": ""}}},
            [
                "spec.podGroupTemplateRef.workload.workloadName: Invalid value",
                "spec.podGroupTemplateRef.workload.podGroupTemplateName: Required value",
            ],
        ),
    ],
)
def test_a_pod_group_has_one_policy(spec: Json, texts: list[str]) -> None:
    found = [str(error) for error in scheduling.validate_pod_group(_group(**spec))]
    assert len(found) == len(texts)
    assert all(text in said for text, said in zip(texts, found, strict=True)), found


def test_what_a_pod_group_asks_for_stays() -> None:
    more = {"schedulingPolicy": {"gang": {"minCount": 3}}}
    (error,) = scheduling.validate_pod_group_update(_group(**more), _group(**GANG))
    assert str(error).endswith("field is immutable") and error.field == "spec.schedulingPolicy"
    assert scheduling.validate_pod_group_update(_group(**GANG, priority=1), _group(**GANG)) == []


def test_a_workload_has_templates_with_names_of_their_own() -> None:
    assert scheduling.validate_workload(_workload({"name": "a", **GANG}, {"name": "b", **BASIC})) == []
    twice = scheduling.validate_workload(_workload({"name": "a", **GANG}, {"name": "a", **GANG}))
    assert [error.field for error in twice] == ["spec.podGroupTemplates[1]"]
    nobody = _workload({"name": "a", **GANG}, controllerRef={"kind": "", "name": "x/y"})
    fields = [error.field for error in scheduling.validate_workload(nobody)]
    assert fields == ["spec.controllerRef.kind", "spec.controllerRef.name"]
    nine = [{"name": f"t{number}", **GANG} for number in range(9)]
    many, none = (scheduling.validate_workload(_workload(*templates)) for templates in (nine, []))
    assert "must have at most 8 items" in str(many[0])
    assert str(none[0]) == "spec.podGroupTemplates: Required value: must have at least one item"
    changed = scheduling.validate_workload_update(
        _workload({"name": "b", **GANG}), _workload({"name": "a", **GANG})
    )
    assert [error.field for error in changed] == ["spec.podGroupTemplates"]


def test_a_pod_group_prints_its_policy() -> None:
    kind = build_catalog((POD_GROUPS,)).by_kind("scheduling.k8s.io", "v1alpha2", "PodGroup")
    assert kind is not None and kind.printer is not None
    now = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
    group = _group(**GANG)
    group["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    assert kind.printer.cells(group, now) == ["g", "Gang", "60s"]
