"""policy: PodDisruptionBudget, and the Eviction that pods/eviction takes.

Source: k8s v1.36 pkg/apis/policy/validation/validation.go, pkg/registry/policy/poddisruptionbudget/strategy.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kcp.apis.core import checks
from kcp.apis.core.checks import Errors
from kcp.apis.kind import Column, Json, Printer, Strategy
from kcp.apis.preparing import STATUS_RESETS, zero_status
from kcp.apis.printing import AGE, NAME, age, columns, name_of
from kcp.machinery.errors import FieldError, invalid, unsupported
from kcp.machinery.intstr import validate_at_most_100_percent, validate_int_or_percent
from kcp.machinery.meta import validate_conditions

_EVICTION_POLICIES = ("AlwaysAllow", "IfHealthyBudget")
_COUNTS = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")


def validate_budget(budget: Json) -> list[FieldError]:
    errors: Errors = []
    spec = budget.get("spec") or {}
    bounds = {field: spec.get(field) for field in ("minAvailable", "maxUnavailable")}
    if None not in bounds.values():
        errors.append(invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set"))
    for field, value in bounds.items():
        if value is not None:
            errors += validate_int_or_percent(value, f"spec.{field}")
            errors += validate_at_most_100_percent(value, f"spec.{field}")
    checks.label_selector(errors, spec.get("selector"), "spec.selector")
    policy = spec.get("unhealthyPodEvictionPolicy")
    if policy is not None and policy not in _EVICTION_POLICIES:
        errors.append(unsupported("spec.unhealthyPodEvictionPolicy", policy, _EVICTION_POLICIES))
    return errors


def validate_budget_status(new: Json, old: Json) -> list[FieldError]:
    status = new.get("status") or {}
    errors: Errors = validate_conditions(status.get("conditions"), "status.conditions")
    checks.nonnegative_fields(errors, status, _COUNTS, "status")
    return errors


def _bound(spec: Json, field: str) -> str:
    value = spec.get(field)
    return "N/A" if value is None else str(value)


def _budget_cells(budget: Json, now: datetime) -> list[Any]:
    spec, status = budget.get("spec") or {}, budget.get("status") or {}
    bounds = [_bound(spec, field) for field in ("minAvailable", "maxUnavailable")]
    return [name_of(budget), *bounds, status.get("disruptionsAllowed", 0), age(budget, now)]


STRATEGIES: Mapping[str, Strategy] = {
    "PodDisruptionBudget": Strategy(
        prepare_create=zero_status(**dict.fromkeys(_COUNTS, 0)),
        validate_create=validate_budget,
        validate_update=lambda new, old: validate_budget(new),
        validate_status=validate_budget_status,
        name_rule="path_segment",
        allow_unconditional_update=False,
        reset_fields=STATUS_RESETS,
    ),
}
PRINTERS: Mapping[str, Printer] = {
    "PodDisruptionBudget": Printer(
        columns(
            NAME,
            Column("Min Available", description="The minimum number of pods that must be available."),
            Column("Max Unavailable", description="The maximum number of pods that may be unavailable."),
            Column(
                "Allowed Disruptions",
                "integer",
                description="Calculated number of pods that may be disrupted at this time.",
            ),
            AGE,
        ),
        _budget_cells,
    ),
}
