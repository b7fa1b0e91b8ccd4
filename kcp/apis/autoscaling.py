"""autoscaling: HorizontalPodAutoscaler, in the form of v2, and Scale.

Strategies see the stored form, which is that of v2; only tables are also made of v1.
Source: k8s v1.36 pkg/apis/autoscaling/validation/validation.go, pkg/apis/autoscaling/v2/defaults.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from kcp.apis.core import checks, resources
from kcp.apis.core.checks import Errors
from kcp.apis.kind import Column, Json, Printer, Strategy
from kcp.apis.preparing import STATUS_RESETS, zero_status
from kcp.apis.printing import AGE, NAME, NONE, UNKNOWN, UNSET, age, columns, name_of
from kcp.apis.versions import hpa_v1_to_v2
from kcp.machinery import names
from kcp.machinery.errors import FieldError, forbidden, invalid, required, unsupported
from kcp.machinery.quantity import parse

MAX_PERIOD_S = 1800
MAX_STABILIZATION_S = 3600
DEFAULT_CPU_UTILIZATION = 80

_SELECT_POLICIES = ("Disabled", "Max", "Min")
_POLICY_TYPES = ("Percent", "Pods")
_TARGET_TYPES = ("Utilization", "Value", "AverageValue")
_POPULATE = "must populate information for the given metric source"
_POPULATE_ONLY = "must populate the given metric source only"

_SOURCES: Mapping[str, str] = {
    "ContainerResource": "containerResource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}
"""Metric source type -> the field that describes it."""


def _scale_up_rules(own: Json | None) -> Json:
    policies = [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ]
    rules: Json = {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": policies}
    return {**rules, **(own or {})}


def _scale_down_rules(own: Json | None) -> Json:
    rules: Json = {
        "selectPolicy": "Max",
        "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
    }
    return {**rules, **(own or {})}


def _amounts(metrics: list[Json] | None, key: str) -> Iterator[Json]:
    for metric in metrics or ():
        for field in _SOURCES.values():
            amount = (metric.get(field) or {}).get(key)
            if amount:
                yield amount


def _canonical_amounts(metrics: list[Json] | None, key: str) -> None:
    for amount in _amounts(metrics, key):
        for field in ("value", "averageValue"):
            resources.canonical_field(amount, field)


@resources.handles_quantities
def default_autoscaler(autoscaler: Json) -> None:
    spec = autoscaler.setdefault("spec", {})
    if spec.get("minReplicas") is None:
        spec["minReplicas"] = 1
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": DEFAULT_CPU_UTILIZATION}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    behavior = spec.get("behavior")
    if behavior is not None:
        behavior["scaleUp"] = _scale_up_rules(behavior.get("scaleUp"))
        behavior["scaleDown"] = _scale_down_rules(behavior.get("scaleDown"))
        for rules in (behavior["scaleUp"], behavior["scaleDown"]):
            resources.canonical_field(rules, "tolerance")
    _canonical_amounts(spec["metrics"], "target")
    _canonical_amounts((autoscaler.get("status") or {}).get("currentMetrics"), "current")


def _check_reference(errors: Errors, reference: Json, path: str) -> None:
    for field in ("kind", "name"):
        value = reference.get(field) or ""
        if not value:
            errors.append(required(f"{path}.{field}"))
        else:
            checks.texts(errors, names.is_path_segment_name(value), value, f"{path}.{field}")


def _check_metric_name(errors: Errors, metric: Json, path: str) -> None:
    name = metric.get("name") or ""
    if not name:
        errors.append(required(f"{path}.name", "must specify a metric name"))
    else:
        checks.texts(errors, names.is_path_segment_name(name), name, f"{path}.name")


def _check_target(errors: Errors, target: Json, path: str) -> None:
    kind = target.get("type") or ""
    if not kind:
        errors.append(required(f"{path}.type", "must specify a metric target type"))
    if kind not in _TARGET_TYPES:
        errors.append(invalid(f"{path}.type", kind, "must be either Utilization, Value, or AverageValue"))
    for field in ("value", "averageValue"):
        amount = target.get(field)
        if amount is not None and parse(amount).sign() != 1:
            errors.append(invalid(f"{path}.{field}", amount, "must be positive"))
    utilization = target.get("averageUtilization")
    if utilization is not None and utilization < 1:
        errors.append(invalid(f"{path}.averageUtilization", utilization, "must be greater than 0"))


def _check_object(errors: Errors, source: Json, path: str) -> None:
    target = source.get("target") or {}
    _check_reference(errors, source.get("describedObject") or {}, f"{path}.describedObject")
    _check_metric_name(errors, source.get("metric") or {}, f"{path}.metric")
    _check_target(errors, target, f"{path}.target")
    if target.get("value") is None and target.get("averageValue") is None:
        text = "must set either a target value or averageValue"
        errors.append(required(f"{path}.target.averageValue", text))


def _check_external(errors: Errors, source: Json, path: str) -> None:
    target = source.get("target") or {}
    _check_metric_name(errors, source.get("metric") or {}, f"{path}.metric")
    _check_target(errors, target, f"{path}.target")
    value, average = target.get("value"), target.get("averageValue")
    if value is None and average is None:
        text = "must set either a target value for metric or a per-pod target"
        errors.append(required(f"{path}.target.averageValue", text))
    if value is not None and average is not None:
        text = "may not set both a target value for metric and a per-pod target"
        errors.append(forbidden(f"{path}.target.value", text))


def _check_pods(errors: Errors, source: Json, path: str) -> None:
    target = source.get("target") or {}
    _check_metric_name(errors, source.get("metric") or {}, f"{path}.metric")
    _check_target(errors, target, f"{path}.target")
    if target.get("averageValue") is None:
        text = "must specify a positive target averageValue"
        errors.append(required(f"{path}.target.averageValue", text))


def _check_resource_name(errors: Errors, source: Json, path: str) -> None:
    if not source.get("name"):
        errors.append(required(f"{path}.name", "must specify a resource name"))


def _check_resource_target(errors: Errors, source: Json, path: str) -> None:
    target = source.get("target") or {}
    _check_target(errors, target, f"{path}.target")
    utilization, average = target.get("averageUtilization"), target.get("averageValue")
    if utilization is None and average is None:
        text = "must set either a target raw value or a target utilization"
        errors.append(required(f"{path}.target.averageUtilization", text))
    if utilization is not None and average is not None:
        text = "may not set both a target raw value and a target utilization"
        errors.append(forbidden(f"{path}.target.averageValue", text))


def _check_resource(errors: Errors, source: Json, path: str) -> None:
    _check_resource_name(errors, source, path)
    _check_resource_target(errors, source, path)


def _check_container_resource(errors: Errors, source: Json, path: str) -> None:
    container = source.get("container") or ""
    _check_resource_name(errors, source, path)
    if source.get("name"):
        resources.container_resource_name(errors, source["name"], f"{path}.name")
    if not container:
        errors.append(required(f"{path}.container", "must specify a container"))
    else:
        checks.dns_label(errors, container, f"{path}.container")
    _check_resource_target(errors, source, path)


_SOURCE_CHECKS: Mapping[str, Callable[[Errors, Json, str], None]] = {
    "object": _check_object,
    "external": _check_external,
    "pods": _check_pods,
    "resource": _check_resource,
    "containerResource": _check_container_resource,
}
"""In the order in which Kubernetes looks; only the first source that is set gets checked."""


def _check_metric(errors: Errors, metric: Json, path: str) -> None:
    kind = metric.get("type") or ""
    if not kind:
        errors.append(required(f"{path}.type", "must specify a metric source type"))
    if kind not in _SOURCES:
        errors.append(unsupported(f"{path}.type", kind, tuple(_SOURCES)))
    present = [field for field in _SOURCE_CHECKS if metric.get(field) is not None]
    if present:
        _SOURCE_CHECKS[present[0]](errors, metric[present[0]], f"{path}.{present[0]}")
    expected = _SOURCES.get(kind)
    if expected is None:
        errors.append(unsupported(f"{path}.type", kind, tuple(_SOURCES)))
    elif expected not in present:
        errors.append(required(f"{path}.{expected}", _POPULATE))
    if len(present) != 1:
        errors.extend(forbidden(f"{path}.{field}", _POPULATE_ONLY) for field in present if field != expected)


def _check_scaling_policy(errors: Errors, policy: Json, path: str) -> None:
    kind, period = policy.get("type") or "", policy.get("periodSeconds") or 0
    if kind not in _POLICY_TYPES:
        errors.append(unsupported(f"{path}.type", kind, _POLICY_TYPES))
    for field in ("value", "periodSeconds"):
        if (policy.get(field) or 0) <= 0:
            errors.append(invalid(f"{path}.{field}", policy.get(field) or 0, checks.NOT_POSITIVE))
    if period > MAX_PERIOD_S:
        errors.append(
            invalid(f"{path}.periodSeconds", period, f"must be less than or equal to {MAX_PERIOD_S}")
        )


def _check_rules(errors: Errors, rules: Json, path: str) -> None:
    window, select, tolerance = (
        rules.get(field) for field in ("stabilizationWindowSeconds", "selectPolicy", "tolerance")
    )
    where = f"{path}.stabilizationWindowSeconds"
    if window is not None and window < 0:
        errors.append(invalid(where, window, "must be greater than or equal to zero"))
    if window is not None and window > MAX_STABILIZATION_S:
        errors.append(invalid(where, window, f"must be less than or equal to {MAX_STABILIZATION_S}"))
    if select is not None and select not in _SELECT_POLICIES:
        errors.append(unsupported(f"{path}.selectPolicy", select, _SELECT_POLICIES))
    policies = rules.get("policies") or []
    if not policies:
        errors.append(required(f"{path}.policies", "must specify at least one Policy"))
    for index, policy in enumerate(policies):
        _check_scaling_policy(errors, policy, f"{path}.policies[{index}]")
    if tolerance is not None and parse(tolerance).sign() < 0:
        errors.append(invalid(f"{path}.tolerance", tolerance, checks.NOT_NEGATIVE))


def _check_autoscaler(errors: Errors, autoscaler: Json, lowest: int) -> None:
    spec = autoscaler.get("spec") or {}
    least, most = spec.get("minReplicas"), spec.get("maxReplicas") or 0
    if least is not None and least < lowest:
        errors.append(invalid("spec.minReplicas", least, f"must be greater than or equal to {lowest}"))
    if most < 1:
        errors.append(invalid("spec.maxReplicas", most, "must be greater than 0"))
    if least is not None and most < least:
        errors.append(invalid("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`"))
    _check_reference(errors, spec.get("scaleTargetRef") or {}, "spec.scaleTargetRef")
    metrics = spec.get("metrics") or []
    for index, metric in enumerate(metrics):
        _check_metric(errors, metric, f"spec.metrics[{index}]")
    if least == 0 and not any(metric.get("type") in ("Object", "External") for metric in metrics):
        text = "must specify at least one Object or External metric to support scaling to zero replicas"
        errors.append(forbidden("spec.metrics", text))
    for field in ("scaleUp", "scaleDown"):
        rules = (spec.get("behavior") or {}).get(field)
        if rules is not None:
            _check_rules(errors, rules, f"spec.behavior.{field}")


def validate_autoscaler(autoscaler: Json) -> list[FieldError]:
    errors: Errors = []
    _check_autoscaler(errors, autoscaler, 1)
    return errors


def validate_autoscaler_update(new: Json, old: Json) -> list[FieldError]:
    """minReplicas 0 stays allowed for an object that has it already."""
    errors: Errors = []
    _check_autoscaler(errors, new, 0 if (old.get("spec") or {}).get("minReplicas") == 0 else 1)
    return errors


def validate_autoscaler_status(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    fields = ("currentReplicas", "desiredReplicas")
    checks.nonnegative_fields(errors, new.get("status") or {}, fields, "status")
    return errors


def validate_scale(scale: Json) -> list[FieldError]:
    """A Scale, for every kind that has the subresource."""
    errors: Errors = []
    checks.nonnegative(errors, (scale.get("spec") or {}).get("replicas"), "spec.replicas")
    return errors


def _source_text(metric: Json, status: Json) -> str:
    """`current/target` of one metric."""
    field = _SOURCES.get(metric.get("type", ""))
    if field is None:
        return "<unknown type>"
    source = metric.get(field) or {}
    target, current = source.get("target") or {}, (status.get(field) or {}).get("current") or {}
    per_pod = target.get("averageValue") is not None
    if field in ("external", "object"):
        key = "averageValue" if per_pod else "value"
        suffix = " (avg)" if per_pod else ""
        return f"{current.get(key, UNKNOWN)}/{target.get(key, '0')}{suffix}"
    if field == "pods":
        return f"{current.get('averageValue', UNKNOWN)}/{target.get('averageValue', '0')}"
    if per_pod:
        return f"{source.get('name', '')}: {current.get('averageValue', UNKNOWN)}/{target['averageValue']}"
    used = _percent(current.get("averageUtilization"), UNKNOWN)
    return f"{source.get('name', '')}: {used}/{_percent(target.get('averageUtilization'), '<auto>')}"


def _percent(value: int | None, otherwise: str) -> str:
    return otherwise if value is None else f"{value}%"


def _format_metrics(metrics: list[Json], statuses: list[Json]) -> str:
    if not metrics:
        return NONE
    texts = [
        _source_text(metric, statuses[index] if index < len(statuses) else {})
        for index, metric in enumerate(metrics)
    ]
    text = ", ".join(texts[:2])
    return f"{text} + {len(texts) - 2} more..." if len(texts) > 2 else text


def _autoscaler_cells(autoscaler: Json, now: datetime) -> list[Any]:
    """The same cells for both versions."""
    if autoscaler.get("apiVersion") == "autoscaling/v1":
        autoscaler = hpa_v1_to_v2(autoscaler)
    spec, status = autoscaler.get("spec") or {}, autoscaler.get("status") or {}
    target, least = spec.get("scaleTargetRef") or {}, spec.get("minReplicas")
    return [
        name_of(autoscaler),
        f"{target.get('kind', '')}/{target.get('name', '')}",
        _format_metrics(spec.get("metrics") or [], status.get("currentMetrics") or []),
        UNSET if least is None else str(least),
        spec.get("maxReplicas", 0),
        status.get("currentReplicas", 0),
        age(autoscaler, now),
    ]


def _scale_cells(scale: Json, now: datetime) -> list[Any]:
    spec, status = scale.get("spec") or {}, scale.get("status") or {}
    return [name_of(scale), spec.get("replicas", 0), status.get("replicas", 0), age(scale, now)]


STRATEGIES: Mapping[str, Strategy] = {
    "HorizontalPodAutoscaler": Strategy(
        default=default_autoscaler,
        prepare_create=zero_status(currentMetrics=None, desiredReplicas=0),
        validate_create=validate_autoscaler,
        validate_update=validate_autoscaler_update,
        validate_status=validate_autoscaler_status,
        has_generation=False,
        reset_fields=STATUS_RESETS,
    ),
}
PRINTERS: Mapping[str, Printer] = {
    "HorizontalPodAutoscaler": Printer(
        columns(
            NAME,
            "Reference",
            "Targets",
            "MinPods",
            "MaxPods",
            Column("Replicas", description="current number of replicas of pods managed by this autoscaler."),
            AGE,
        ),
        _autoscaler_cells,
    ),
    "Scale": Printer(columns(NAME, ("Desired", "integer"), ("Available", "integer"), AGE), _scale_cells),
}
