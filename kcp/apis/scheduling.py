"""scheduling.k8s.io: PriorityClass.

Source: k8s v1.36 pkg/apis/scheduling/validation/validation.go, pkg/apis/scheduling/v1/helpers.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs

from kcp.apis.core import checks
from kcp.apis.core.checks import Errors
from kcp.apis.kind import Json, Printer, Strategy
from kcp.apis.printing import AGE, NAME, age, columns, name_of
from kcp.machinery.errors import FieldError, forbidden, required, unsupported

SYSTEM_PREFIX = "system-"
HIGHEST_USER_PRIORITY = 1_000_000_000
SYSTEM_CRITICAL_PRIORITY = 2 * HIGHEST_USER_PRIORITY
POLICIES = ("PreemptLowerPriority", "Never")


@attrs.frozen(slots=True)
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


STRATEGIES: Mapping[str, Strategy] = {
    "PriorityClass": Strategy(
        default=_default_priority_class,
        validate_create=validate_priority_class,
        validate_update=validate_priority_class_update,
        has_status=False,
    ),
}
PRINTERS: Mapping[str, Printer] = {
    "PriorityClass": Printer(
        columns(NAME, ("Value", "integer"), ("Global-Default", "boolean"), AGE, "PreemptionPolicy"),
        _priority_class_cells,
    ),
}
