"""Conversions between the served versions of the two kinds that have more than one.

Both functions of a pair take a whole object and return a new one; the parts that do not change are shared.
Source: k8s v1.36 pkg/apis/autoscaling/v1/conversion.go, pkg/apis/events/v1/conversion.go.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Json = dict[str, Any]

METRICS_ANNOTATION = "autoscaling.alpha.kubernetes.io/metrics"
CURRENT_METRICS_ANNOTATION = "autoscaling.alpha.kubernetes.io/current-metrics"
CONDITIONS_ANNOTATION = "autoscaling.alpha.kubernetes.io/conditions"
BEHAVIOR_ANNOTATION = "autoscaling.alpha.kubernetes.io/behavior"
ROUND_TRIP_ANNOTATIONS = (
    METRICS_ANNOTATION,
    CURRENT_METRICS_ANNOTATION,
    CONDITIONS_ANNOTATION,
    BEHAVIOR_ANNOTATION,
)

_EVENT_FIELDS: Mapping[str, str] = {
    "note": "message",
    "regarding": "involvedObject",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
"""events.k8s.io/v1 name -> core/v1 name; every other field has the same name in both."""
_CORE_EVENT_FIELDS: Mapping[str, str] = {core: events for events, core in _EVENT_FIELDS.items()}


def _rename(obj: Json, names: Mapping[str, str], api_version: str) -> Json:
    renamed = {names.get(key, key): value for key, value in obj.items()}
    renamed["apiVersion"] = api_version
    return renamed


def events_v1_to_core(event: Json) -> Json:
    return _rename(event, _EVENT_FIELDS, "v1")


def core_to_events_v1(event: Json) -> Json:
    """The newer form writes no empty reporter."""
    renamed = _rename(event, _CORE_EVENT_FIELDS, "events.k8s.io/v1")
    for field in ("reportingController", "reportingInstance"):
        if renamed.get(field) == "":
            del renamed[field]
    return renamed


def _without_none(**fields: Any) -> Json:
    return {key: value for key, value in fields.items() if value is not None}


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _decoded(text: str | None, kind: type) -> Any:
    """The JSON of an annotation; None when it is absent or not of that shape, as Kubernetes ignores it then."""
    if not text:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, kind) else None


def _utilization_or_value(source: Json) -> Json:
    """The target of a (container) resource metric of v1 in v2's form."""
    utilization = source.get("targetAverageUtilization")
    kind = "Utilization" if utilization is not None else "AverageValue"
    return _without_none(
        type=kind, averageUtilization=utilization, averageValue=source.get("targetAverageValue")
    )


def _value_target(source: Json, average: str) -> Json:
    """v1 always carries targetValue for object metrics, `0` when the average counts."""
    average_value = source.get(average)
    if average_value is not None:
        return {"type": "AverageValue", "averageValue": average_value}
    return _without_none(type="Value", value=source.get("targetValue"))


def _metric_up(source: Json, selector: str = "selector") -> Json:
    return _without_none(name=source.get("metricName", ""), selector=source.get(selector))


def _resource_up(source: Json) -> Json:
    return {"name": source.get("name", ""), "target": _utilization_or_value(source)}


def _container_up(source: Json) -> Json:
    return {"container": source.get("container", ""), **_resource_up(source)}


def _pods_up(source: Json) -> Json:
    target = {"type": "AverageValue", "averageValue": source.get("targetAverageValue", "0")}
    return {"metric": _metric_up(source), "target": target}


def _object_up(source: Json) -> Json:
    return {
        "describedObject": source.get("target", {}),
        "metric": _metric_up(source),
        "target": _value_target(source, "averageValue"),
    }


def _external_up(source: Json) -> Json:
    return {
        "metric": _metric_up(source, "metricSelector"),
        "target": _value_target(source, "targetAverageValue"),
    }


def _resource_down(source: Json) -> Json:
    target = source.get("target") or {}
    return _without_none(
        name=source.get("name", ""),
        targetAverageUtilization=target.get("averageUtilization"),
        targetAverageValue=target.get("averageValue"),
    )


def _container_down(source: Json) -> Json:
    return {**_resource_down(source), "container": source.get("container", "")}


def _pods_down(source: Json) -> Json:
    metric, target = source.get("metric") or {}, source.get("target") or {}
    return _without_none(
        metricName=metric.get("name", ""),
        targetAverageValue=target.get("averageValue", "0"),
        selector=metric.get("selector"),
    )


def _object_down(source: Json) -> Json:
    metric, target = source.get("metric") or {}, source.get("target") or {}
    return _without_none(
        target=source.get("describedObject", {}),
        metricName=metric.get("name", ""),
        targetValue=target.get("value", "0"),
        selector=metric.get("selector"),
        averageValue=target.get("averageValue"),
    )


def _external_down(source: Json) -> Json:
    metric, target = source.get("metric") or {}, source.get("target") or {}
    return _without_none(
        metricName=metric.get("name", ""),
        metricSelector=metric.get("selector"),
        targetValue=target.get("value"),
        targetAverageValue=target.get("averageValue"),
    )


def _current_up(source: Json) -> Json:
    current = _without_none(
        averageUtilization=source.get("currentAverageUtilization"),
        averageValue=source.get("currentAverageValue"),
    )
    return {"name": source.get("name", ""), "current": current}


def _current_container_up(source: Json) -> Json:
    return {"container": source.get("container", ""), **_current_up(source)}


def _current_pods_up(source: Json) -> Json:
    current = {"averageValue": source.get("currentAverageValue", "0")}
    return {"metric": _metric_up(source), "current": current}


def _current_object_up(source: Json) -> Json:
    current = _without_none(value=source.get("currentValue"), averageValue=source.get("averageValue"))
    return {"describedObject": source.get("target", {}), "metric": _metric_up(source), "current": current}


def _current_external_up(source: Json) -> Json:
    current = _without_none(value=source.get("currentValue"), averageValue=source.get("currentAverageValue"))
    return {"metric": _metric_up(source, "metricSelector"), "current": current}


def _current_down(source: Json) -> Json:
    current = source.get("current") or {}
    return _without_none(
        name=source.get("name", ""),
        currentAverageUtilization=current.get("averageUtilization"),
        currentAverageValue=current.get("averageValue", "0"),
    )


def _current_container_down(source: Json) -> Json:
    return {**_current_down(source), "container": source.get("container", "")}


def _current_pods_down(source: Json) -> Json:
    metric, current = source.get("metric") or {}, source.get("current") or {}
    return _without_none(
        metricName=metric.get("name", ""),
        currentAverageValue=current.get("averageValue", "0"),
        selector=metric.get("selector"),
    )


def _current_object_down(source: Json) -> Json:
    metric, current = source.get("metric") or {}, source.get("current") or {}
    return _without_none(
        target=source.get("describedObject", {}),
        metricName=metric.get("name", ""),
        currentValue=current.get("value", "0"),
        selector=metric.get("selector"),
        averageValue=current.get("averageValue"),
    )


def _current_external_down(source: Json) -> Json:
    metric, current = source.get("metric") or {}, source.get("current") or {}
    return _without_none(
        metricName=metric.get("name", ""),
        metricSelector=metric.get("selector"),
        currentValue=current.get("value", "0"),
        currentAverageValue=current.get("averageValue"),
    )


_Sources = Mapping[str, Callable[[Json], Json]]
_UP: _Sources = {
    "resource": _resource_up,
    "containerResource": _container_up,
    "pods": _pods_up,
    "object": _object_up,
    "external": _external_up,
}
_DOWN: _Sources = {
    "resource": _resource_down,
    "containerResource": _container_down,
    "pods": _pods_down,
    "object": _object_down,
    "external": _external_down,
}
_CURRENT_UP: _Sources = {
    "resource": _current_up,
    "containerResource": _current_container_up,
    "pods": _current_pods_up,
    "object": _current_object_up,
    "external": _current_external_up,
}
_CURRENT_DOWN: _Sources = {
    "resource": _current_down,
    "containerResource": _current_container_down,
    "pods": _current_pods_down,
    "object": _current_object_down,
    "external": _current_external_down,
}


def _metrics(metrics: Iterable[Json], table: _Sources) -> list[Json]:
    return [
        {
            key: table[key](value) if key in table and isinstance(value, dict) else value
            for key, value in metric.items()
        }
        for metric in metrics
    ]


def _capitals(value: Any) -> Any:
    """Keys as Go's untagged fields: Kubernetes writes the behavior annotation from its internal type."""
    if isinstance(value, dict):
        return {key[:1].upper() + key[1:]: _capitals(item) for key, item in value.items()}
    return [_capitals(item) for item in value] if isinstance(value, list) else value


def _behavior_annotation(behavior: Json) -> Json:
    rules = ("scaleUp", "scaleDown")
    fields = ("stabilizationWindowSeconds", "selectPolicy", "policies", "tolerance")
    full = {
        rule: {field: behavior[rule].get(field) for field in fields} if behavior.get(rule) else None
        for rule in rules
    }
    value: Json = _capitals(full)
    return value


def _small(value: Any) -> Any:
    if isinstance(value, dict):
        return {key[:1].lower() + key[1:]: _small(item) for key, item in value.items() if item is not None}
    return [_small(item) for item in value] if isinstance(value, list) else value


def _cpu_utilization(metric: Json, value: str) -> int | None:
    """The CPU utilization in percent of a resource metric of v2, or None for any other metric."""
    resource = metric.get("resource") or {}
    if metric.get("type") != "Resource" or resource.get("name") != "cpu":
        return None
    utilization: int | None = (resource.get(value) or {}).get("averageUtilization")
    return utilization


def _spec_up(spec: Json, annotations: Mapping[str, str]) -> Json:
    result = {key: value for key, value in spec.items() if key != "targetCPUUtilizationPercentage"}
    metrics = _metrics(_decoded(annotations.get(METRICS_ANNOTATION), list) or (), _UP)
    percentage = spec.get("targetCPUUtilizationPercentage")
    if percentage is not None:
        target = {"type": "Utilization", "averageUtilization": percentage}
        metrics.append({"type": "Resource", "resource": {"name": "cpu", "target": target}})
    if metrics:
        result["metrics"] = metrics
    behavior = _decoded(annotations.get(BEHAVIOR_ANNOTATION), dict)
    if behavior is not None:
        result["behavior"] = _small(behavior)
    return result


def _status_up(status: Json, annotations: Mapping[str, str]) -> Json:
    result = {key: value for key, value in status.items() if key != "currentCPUUtilizationPercentage"}
    percentage = status.get("currentCPUUtilizationPercentage")
    current = _decoded(annotations.get(CURRENT_METRICS_ANNOTATION), list)
    if current is not None:
        result["currentMetrics"] = _metrics(current, _CURRENT_UP)
    elif percentage is not None:
        usage = {"averageUtilization": percentage, "averageValue": "0"}
        result["currentMetrics"] = [{"type": "Resource", "resource": {"name": "cpu", "current": usage}}]
    conditions = _decoded(annotations.get(CONDITIONS_ANNOTATION), list)
    if conditions is not None:
        result["conditions"] = conditions
    return result


def _with_annotations(obj: Json, annotations: Mapping[str, str], api_version: str) -> Json:
    metadata = {key: value for key, value in obj.get("metadata", {}).items() if key != "annotations"}
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {**obj, "apiVersion": api_version, "metadata": metadata}


def _own_annotations(obj: Json) -> dict[str, str]:
    annotations = obj.get("metadata", {}).get("annotations") or {}
    return {key: value for key, value in annotations.items() if key not in ROUND_TRIP_ANNOTATIONS}


def hpa_v1_to_v2(hpa: Json) -> Json:
    """What v1 cannot say comes out of the annotations, which go away."""
    annotations = hpa.get("metadata", {}).get("annotations") or {}
    result = _with_annotations(hpa, _own_annotations(hpa), "autoscaling/v2")
    result["spec"] = _spec_up(hpa.get("spec") or {}, annotations)
    if "status" in hpa or any(key in annotations for key in ROUND_TRIP_ANNOTATIONS[1:3]):
        result["status"] = _status_up(hpa.get("status") or {}, annotations)
    return result


def hpa_v2_to_v1(hpa: Json) -> Json:
    """What v1 cannot say goes into annotations, so that nothing is lost on the way back."""
    spec, status = dict(hpa.get("spec") or {}), dict(hpa.get("status") or {})
    metrics, behavior = spec.pop("metrics", None) or [], spec.pop("behavior", None)
    current, conditions = status.pop("currentMetrics", None) or [], status.pop("conditions", None) or []
    annotations = _own_annotations(hpa)
    others = []
    for metric in metrics:
        percentage = _cpu_utilization(metric, "target")
        if percentage is None:
            others.append(metric)
        else:
            spec["targetCPUUtilizationPercentage"] = percentage
    for metric in current:
        percentage = _cpu_utilization(metric, "current")
        if percentage is not None:
            status["currentCPUUtilizationPercentage"] = percentage
    parts: tuple[tuple[str, Any], ...] = (
        (METRICS_ANNOTATION, _metrics(others, _DOWN)),
        (CURRENT_METRICS_ANNOTATION, _metrics(current, _CURRENT_DOWN)),
        (CONDITIONS_ANNOTATION, conditions),
        (BEHAVIOR_ANNOTATION, _behavior_annotation(behavior) if behavior is not None else None),
    )
    annotations |= {key: _compact(value) for key, value in parts if value}
    result = _with_annotations(hpa, annotations, "autoscaling/v1")
    result["spec"] = spec
    if "status" in hpa:
        result["status"] = {"currentReplicas": 0, "desiredReplicas": 0, **status}
    return result
