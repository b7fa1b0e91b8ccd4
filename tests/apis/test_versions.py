"""Conversions lose nothing: what goes up and down again is what it was."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from kcp.apis import versions
from kcp.apis.autoscaling import PRINTERS, default_autoscaler

Json = dict[str, Any]

SELECTOR = {"matchLabels": {"queue": "mail"}}
METRICS: list[Json] = [
    {
        "type": "Resource",
        "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}},
    },
    {
        "type": "ContainerResource",
        "containerResource": {
            "name": "cpu",
            "container": "app",
            "target": {"type": "Utilization", "averageUtilization": 60},
        },
    },
    {
        "type": "Pods",
        "pods": {
            "metric": {"name": "rps", "selector": SELECTOR},
            "target": {"type": "AverageValue", "averageValue": "10"},
        },
    },
    {
        "type": "Object",
        "object": {
            "describedObject": {"kind": "Ingress", "name": "web"},
            "metric": {"name": "hits"},
            "target": {"type": "Value", "value": "2k"},
        },
    },
    {
        "type": "External",
        "external": {
            "metric": {"name": "depth", "selector": SELECTOR},
            "target": {"type": "AverageValue", "averageValue": "30"},
        },
    },
]
CPU: Json = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}},
}
RULES: Json = {
    "stabilizationWindowSeconds": 60,
    "selectPolicy": "Max",
    "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}],
}


def _autoscaler(*metrics: Json, **more: Any) -> Json:
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "namespace": "shop", "annotations": {"team": "x"}},
        "spec": {
            "scaleTargetRef": {"kind": "Deployment", "name": "web"},
            "maxReplicas": 5,
            "metrics": list(metrics),
            **more,
        },
    }


def test_cpu_utilization_has_its_own_field_in_v1() -> None:
    old = versions.hpa_v2_to_v1(_autoscaler(CPU))
    assert old["apiVersion"] == "autoscaling/v1"
    assert old["spec"]["targetCPUUtilizationPercentage"] == 70
    assert "metrics" not in old["spec"]
    assert old["metadata"]["annotations"] == {"team": "x"}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: str(metric["type"]))
def test_every_metric_survives_the_way_through_v1(metric: Json) -> None:
    new = _autoscaler(metric, CPU)
    old = versions.hpa_v2_to_v1(new)
    assert versions.METRICS_ANNOTATION in old["metadata"]["annotations"]
    assert versions.hpa_v1_to_v2(old) == new


def test_metrics_stand_in_the_annotation_in_their_v1_form() -> None:
    old = versions.hpa_v2_to_v1(_autoscaler(METRICS[0], METRICS[4]))
    found = json.loads(old["metadata"]["annotations"][versions.METRICS_ANNOTATION])
    assert found == [
        {"type": "Resource", "resource": {"name": "memory", "targetAverageValue": "1Gi"}},
        {
            "type": "External",
            "external": {"metricName": "depth", "metricSelector": SELECTOR, "targetAverageValue": "30"},
        },
    ]


def test_behavior_and_status_survive() -> None:
    new = _autoscaler(CPU, behavior={"scaleUp": RULES, "scaleDown": RULES})
    new["status"] = {
        "currentReplicas": 2,
        "desiredReplicas": 0,
        "currentMetrics": [
            {
                "type": "Resource",
                "resource": {"name": "cpu", "current": {"averageUtilization": 50, "averageValue": "500m"}},
            },
            {
                "type": "External",
                "external": {"metric": {"name": "depth"}, "current": {"value": "0", "averageValue": "3"}},
            },
        ],
        "conditions": [{"type": "AbleToScale", "status": "True"}],
    }
    old = versions.hpa_v2_to_v1(new)
    assert old["status"] == {
        "currentReplicas": 2,
        "desiredReplicas": 0,
        "currentCPUUtilizationPercentage": 50,
    }
    behavior = json.loads(old["metadata"]["annotations"][versions.BEHAVIOR_ANNOTATION])
    assert behavior["ScaleUp"]["Policies"] == [{"Type": "Pods", "Value": 4, "PeriodSeconds": 15}]
    assert versions.hpa_v1_to_v2(old) == new


def test_a_broken_annotation_is_ignored() -> None:
    old = versions.hpa_v2_to_v1(_autoscaler(CPU))
    old["metadata"]["annotations"][versions.METRICS_ANNOTATION] = "{not json"
    assert versions.hpa_v1_to_v2(old) == _autoscaler(CPU)


def test_conversion_leaves_its_argument_alone() -> None:
    new = _autoscaler(*METRICS, CPU, behavior={"scaleUp": RULES})
    default_autoscaler(new)
    before = json.dumps(new)
    versions.hpa_v1_to_v2(versions.hpa_v2_to_v1(new))
    assert json.dumps(new) == before


def test_both_versions_print_alike() -> None:
    new = _autoscaler(METRICS[2], CPU, minReplicas=2)
    printer = PRINTERS["HorizontalPodAutoscaler"]
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert printer.cells(versions.hpa_v2_to_v1(new), now) == printer.cells(new, now)


def test_events_have_two_sets_of_names() -> None:
    event: Json = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": "shop"},
        "involvedObject": {"kind": "Pod", "name": "web"},
        "message": "Started container",
        "source": {"component": "kubelet"},
        "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": "2026-01-01T00:00:00Z",
        "count": 3,
        "type": "Normal",
        "reason": "Started",
        "eventTime": None,
        "reportingComponent": "kubelet",
        "reportingInstance": "n1",
    }
    other = versions.core_to_events_v1(event)
    assert other["apiVersion"] == "events.k8s.io/v1"
    assert other["note"] == "Started container"
    assert other["regarding"] == {"kind": "Pod", "name": "web"}
    assert other["deprecatedCount"] == 3
    assert other["reportingController"] == "kubelet"
    assert versions.events_v1_to_core(other) == event
