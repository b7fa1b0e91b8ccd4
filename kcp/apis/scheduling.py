"""scheduling.k8s.io: PriorityClass; PodGroup and Workload of v1alpha2.

Source: k8s v1.36 pkg/apis/scheduling/validation/validation.go, pkg/apis/scheduling/v1/helpers.go,
staging/src/k8s.io/api/scheduling/v1alpha2/types.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kcp.apis.core import checks
from kcp.apis.core.checks import Errors
from kcp.apis.kind import Json, Printer, Strategy
from kcp.apis.preparing import STATUS_RESETS
from kcp.apis.printing import AGE, NAME, age, columns, name_of
from kcp.base.values import frozen
from kcp.machinery.errors import FieldError, duplicate, forbidden, invalid, required, too_many, unsupported
from kcp.machinery.names import is_dns1123_subdomain, is_path_segment_name

SYSTEM_PREFIX = "system-"
HIGHEST_USER_PRIORITY = 1_000_000_000
SYSTEM_CRITICAL_PRIORITY = 2 * HIGHEST_USER_PRIORITY
POLICIES = ("PreemptLowerPriority", "Never")
MAX_TEMPLATES = 8
MAX_TOPOLOGY_CONSTRAINTS = 1
DISRUPTION_MODES = ("Pod", "PodGroup")


@frozen
class SystemPriorityClass:
    name: str
    value: int
    description: str


SYSTEM_PRIORITY_CLASSES = (
    SystemPriorityClass(
        "system-node-critical",
        SYSTEM_CRITICAL_PRIORITY + 1000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    SystemPriorityClass(
        "system-cluster-critical",
        SYSTEM_CRITICAL_PRIORITY,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
)
"""What every cluster has; the API server creates them."""


def _system_fault(name: str, value: int, global_default: bool) -> str:
    """Why a class with the system prefix is none of Kubernetes' own; empty when it is."""
    known = next((own for own in SYSTEM_PRIORITY_CLASSES if own.name == name), None)
    if known is None:
        return f"{name} is not a known system priority class"
    if known.value != value:
        return f"value of {name} PriorityClass must be {known.value}"
    return f"globalDefault of {name} PriorityClass must be false" if global_default else ""


def _default_priority_class(priority_class: Json) -> None:
    priority_class.setdefault("value", 0)
    if priority_class.get("preemptionPolicy") is None:
        priority_class["preemptionPolicy"] = "PreemptLowerPriority"


def _check_policy(errors: Errors, policy: str, path: str) -> None:
    if not policy:
        errors.append(required(path))
    elif policy not in POLICIES:
        errors.append(unsupported(path, policy, POLICIES))


def validate_priority_class(priority_class: Json) -> list[FieldError]:
    errors: Errors = []
    name, value = priority_class["metadata"].get("name", ""), priority_class.get("value") or 0
    if name.startswith(SYSTEM_PREFIX):
        fault = _system_fault(name, value, bool(priority_class.get("globalDefault")))
        if fault:
            text = f"priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only. error: {fault}"
            errors.append(forbidden("metadata.name", text))
    elif value > HIGHEST_USER_PRIORITY:
        text = f"maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}"
        errors.append(forbidden("value", text))
    policy = priority_class.get("preemptionPolicy")
    if policy is not None:
        _check_policy(errors, policy, "preemptionPolicy")
    return errors


def validate_priority_class_update(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    if (new.get("value") or 0) != (old.get("value") or 0):
        errors.append(forbidden("value", "may not be changed in an update."))
    checks.same(errors, new.get("preemptionPolicy"), old.get("preemptionPolicy"), "preemptionPolicy")
    return errors


def _priority_class_cells(priority_class: Json, now: datetime) -> list[Any]:
    return [
        name_of(priority_class),
        priority_class.get("value", 0),
        bool(priority_class.get("globalDefault")),
        age(priority_class, now),
        priority_class.get("preemptionPolicy") or "",
    ]


# --- PodGroup, Workload ---


def _check_policy_union(errors: Errors, policy: Json, path: str) -> None:
    chosen = [name for name in ("basic", "gang") if policy.get(name) is not None]
    if not chosen:
        errors.append(invalid(path, "", "must specify one of: `basic`, `gang`"))
    elif len(chosen) > 1:
        text = "exactly one of `basic`, `gang` is required, but multiple fields are set"
        errors.append(invalid(path, "{`basic`, `gang`}", text))
    elif chosen == ["gang"]:
        _check_gang(errors, policy["gang"], f"{path}.gang")


def _check_gang(errors: Errors, gang: Json, path: str) -> None:
    count = gang.get("minCount") or 0
    if count == 0:
        errors.append(required(f"{path}.minCount"))
    elif count < 0:
        errors.append(invalid(f"{path}.minCount", count, "must be greater than or equal to 1"))


def _check_group(errors: Errors, group: Json, path: str) -> None:
    """What a PodGroup's spec and a template of one have in common."""
    _check_policy_union(errors, group.get("schedulingPolicy") or {}, f"{path}.schedulingPolicy")
    topology = (group.get("schedulingConstraints") or {}).get("topology") or []
    if len(topology) > MAX_TOPOLOGY_CONSTRAINTS:
        where = f"{path}.schedulingConstraints.topology"
        errors.append(too_many(where, len(topology), MAX_TOPOLOGY_CONSTRAINTS))
    mode = group.get("disruptionMode")
    if mode is not None and mode not in DISRUPTION_MODES:
        errors.append(unsupported(f"{path}.disruptionMode", mode, DISRUPTION_MODES))


def validate_pod_group(group: Json) -> list[FieldError]:
    errors: Errors = []
    spec = group.get("spec") or {}
    reference = spec.get("podGroupTemplateRef")
    if reference is not None:
        _check_template_reference(errors, reference, "spec.podGroupTemplateRef")
    _check_group(errors, spec, "spec")
    return errors


def _check_template_reference(errors: Errors, reference: Json, path: str) -> None:
    workload = reference.get("workload")
    if workload is None:
        errors.append(invalid(path, "", "must specify one of: `workload`"))
        return
    for field in ("workloadName", "podGroupTemplateName"):
        if not workload.get(field):
            errors.append(required(f"{path}.workload.{field}"))
        else:
            checks.dns_label(errors, workload[field], f"{path}.workload.{field}")


def validate_pod_group_update(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    after, before = new.get("spec") or {}, old.get("spec") or {}
    for field in ("podGroupTemplateRef", "schedulingPolicy", "schedulingConstraints"):
        checks.same(errors, after.get(field), before.get(field), f"spec.{field}")
    return errors


def _check_controller(errors: Errors, reference: Json, path: str) -> None:
    group = reference.get("apiGroup") or ""
    if group:
        checks.texts(errors, is_dns1123_subdomain(group), group, f"{path}.apiGroup")
    for field in ("kind", "name"):
        value = reference.get(field) or ""
        if not value:
            errors.append(required(f"{path}.{field}"))
        else:
            checks.texts(errors, is_path_segment_name(value), value, f"{path}.{field}")


def validate_workload(workload: Json) -> list[FieldError]:
    errors: Errors = []
    spec, path = workload.get("spec") or {}, "spec.podGroupTemplates"
    if spec.get("controllerRef") is not None:
        _check_controller(errors, spec["controllerRef"], "spec.controllerRef")
    templates = spec.get("podGroupTemplates") or []
    if not templates:
        errors.append(required(path, "must have at least one item"))
    elif len(templates) > MAX_TEMPLATES:
        errors.append(too_many(path, len(templates), MAX_TEMPLATES))
    seen: list[str] = []
    for number, template in enumerate(templates[:MAX_TEMPLATES]):
        name, here = template.get("name") or "", f"{path}[{number}]"
        if not name:
            errors.append(required(f"{here}.name"))
        else:
            checks.dns_label(errors, name, f"{here}.name")
        if name in seen:
            errors.append(duplicate(here, {"name": name}))
        seen.append(name)
        _check_group(errors, template, here)
    return errors


def validate_workload_update(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    after, before = new.get("spec") or {}, old.get("spec") or {}
    if before.get("controllerRef") is not None:
        checks.same(errors, after.get("controllerRef"), before["controllerRef"], "spec.controllerRef")
    checks.same(
        errors, after.get("podGroupTemplates"), before.get("podGroupTemplates"), "spec.podGroupTemplates"
    )
    return errors


def _pod_group_cells(group: Json, now: datetime) -> list[Any]:
    policy = (group.get("spec") or {}).get("schedulingPolicy") or {}
    kind = "Gang" if policy.get("gang") is not None else "Basic"
    return [name_of(group), kind, age(group, now)]


STRATEGIES: Mapping[str, Strategy] = {
    "PodGroup": Strategy(
        validate_create=validate_pod_group,
        validate_update=validate_pod_group_update,
        reset_fields=STATUS_RESETS,
    ),
    "Workload": Strategy(
        validate_create=validate_workload,
        validate_update=validate_workload_update,
        has_status=False,
    ),
    "PriorityClass": Strategy(
        default=_default_priority_class,
        validate_create=validate_priority_class,
        validate_update=validate_priority_class_update,
        has_status=False,
    ),
}
PRINTERS: Mapping[str, Printer] = {
    "PodGroup": Printer(columns(NAME, "Policy", AGE), _pod_group_cells),
    "PriorityClass": Printer(
        columns(NAME, ("Value", "integer"), ("Global-Default", "boolean"), AGE, "PreemptionPolicy"),
        _priority_class_cells,
    ),
}
