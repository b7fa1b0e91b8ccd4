"""Deployment.

Source: k8s v1.36 pkg/registry/apps/deployment/strategy.go, pkg/apis/apps/validation/validation.go, v1/defaults.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kcp.apis.apps.workload import int_or_percent, not_decremented, selector_of, workload_warnings
from kcp.apis.core import checks
from kcp.apis.core.checks import Errors, Json
from kcp.apis.core.podspec import default_template, selected_template
from kcp.apis.core.resources import handles_quantities
from kcp.apis.core.strategies import STATUS_RESET, empty_status, keep, metadata_of, spec_of, status_of
from kcp.apis.kind import Column, Printer, Strategy
from kcp.apis.printing import (
    AGE,
    CONTAINERS,
    IMAGES,
    NAME,
    age,
    format_label_selector,
    name_of,
    template_cells,
    wide,
)
from kcp.machinery.errors import FieldError, forbidden, invalid, required, unsupported
from kcp.machinery.intstr import validate_at_most_100_percent


@handles_quantities
def default_deployment(deployment: Json) -> None:
    spec = deployment.setdefault("spec", {})
    default_template(spec)
    if spec.get("replicas") is None:
        spec["replicas"] = 1
    strategy = spec.get("strategy")
    if strategy is None:
        strategy = spec["strategy"] = {}
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.get("rollingUpdate")
        if rolling is None:
            rolling = strategy["rollingUpdate"] = {}
        for field in ("maxUnavailable", "maxSurge"):
            if rolling.get(field) is None:
                rolling[field] = "25%"
    if spec.get("revisionHistoryLimit") is None:
        spec["revisionHistoryLimit"] = 10
    if spec.get("progressDeadlineSeconds") is None:
        spec["progressDeadlineSeconds"] = 600


def _prepare_status(new: Json, old: Json) -> None:
    keep(new, old, "spec")
    keep(new["metadata"], metadata_of(old), "labels")


def _rollout(errors: Errors, strategy: Json) -> None:
    path = "spec.strategy"
    kind, rolling = strategy.get("type") or "", strategy.get("rollingUpdate")
    if kind == "Recreate":
        if rolling is not None:
            text = "may not be specified when strategy `type` is 'Recreate'"
            errors.append(forbidden(f"{path}.rollingUpdate", text))
    elif kind != "RollingUpdate":
        errors.append(unsupported(path, strategy, ("Recreate", "RollingUpdate")))
    elif rolling is None:
        errors.append(required(f"{path}.rollingUpdate", "this should be defaulted and never be nil"))
    else:
        _rolling_update(errors, rolling, f"{path}.rollingUpdate")


def _rolling_update(errors: Errors, rolling: Json, path: str) -> None:
    where = f"{path}.maxUnavailable"
    unavailable = int_or_percent(errors, rolling.get("maxUnavailable"), where)
    surge = int_or_percent(errors, rolling.get("maxSurge"), f"{path}.maxSurge")
    if not unavailable and not surge:
        shown = rolling.get("maxUnavailable")
        errors.append(invalid(where, shown, "may not be 0 when `maxSurge` is 0"))
    errors.extend(validate_at_most_100_percent(rolling.get("maxUnavailable"), where))


def _validate(deployment: Json) -> list[FieldError]:
    errors: Errors = []
    spec = spec_of(deployment)
    checks.nonnegative(errors, spec.get("replicas"), "spec.replicas")
    selector = selector_of(errors, spec, "deployment", "invalid label selector")
    if selector is not None:
        selected_template(errors, spec.get("template") or {}, selector, "spec.template", "ReplicaSet")
    _rollout(errors, spec.get("strategy") or {})
    checks.nonnegative_fields(errors, spec, ("minReadySeconds", "revisionHistoryLimit"), "spec")
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None:
        checks.nonnegative(errors, deadline, "spec.progressDeadlineSeconds")
        if deadline <= (spec.get("minReadySeconds") or 0):
            text = "must be greater than minReadySeconds"
            errors.append(invalid("spec.progressDeadlineSeconds", deadline, text))
    return errors


def _validate_update(new: Json, old: Json) -> list[FieldError]:
    errors = _validate(new)
    checks.same(errors, spec_of(new).get("selector"), spec_of(old).get("selector"), "spec.selector")
    return errors


_COUNTS = (
    "observedGeneration", "replicas", "updatedReplicas", "readyReplicas", "availableReplicas",
    "unavailableReplicas", "terminatingReplicas", "collisionCount",
)  # fmt: skip


def _validate_status(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    status = status_of(new)
    checks.nonnegative_fields(errors, status, _COUNTS, "status")
    total, ready = status.get("replicas") or 0, status.get("readyReplicas") or 0
    for field in ("updatedReplicas", "readyReplicas", "availableReplicas"):
        value = status.get(field) or 0
        if value > total:
            errors.append(invalid(f"status.{field}", value, "cannot be greater than status.replicas"))
    available = status.get("availableReplicas") or 0
    if available > ready:
        errors.append(invalid("status.availableReplicas", available, "cannot be greater than readyReplicas"))
    not_decremented(errors, status, status_of(old))
    return errors


_COLUMNS = (
    NAME,
    Column("Ready", "string", "", "Number of the pod with ready state"),
    Column(
        "Up-to-date",
        "string",
        "",
        "Total number of non-terminating pods targeted by this deployment that have the desired template spec.",
    ),
    Column(
        "Available",
        "string",
        "",
        "Total number of available non-terminating pods (ready for at least minReadySeconds) targeted by this "
        "deployment.",
    ),
    AGE,
    CONTAINERS,
    IMAGES,
    wide("Selector", description="Label selector for pods. Existing ReplicaSets whose pods are selected by this will be the ones affected by this deployment."),
)  # fmt: skip


def _cells(deployment: Json, now: datetime) -> list[Any]:
    spec, status = spec_of(deployment), status_of(deployment)
    return [
        name_of(deployment),
        f"{status.get('readyReplicas') or 0}/{spec.get('replicas') or 0}",
        status.get("updatedReplicas") or 0,
        status.get("availableReplicas") or 0,
        age(deployment, now),
        *template_cells(spec.get("template")),
        format_label_selector(spec.get("selector")),
    ]


STRATEGIES: dict[str, Strategy] = {
    "Deployment": Strategy(
        default=default_deployment,
        prepare_create=empty_status,
        prepare_update=lambda new, old: keep(new, old, "status"),
        prepare_status=_prepare_status,
        validate_create=_validate,
        validate_update=_validate_update,
        validate_status=_validate_status,
        warnings=workload_warnings,
        reset_fields={**STATUS_RESET, "status": (("spec",), ("metadata", "labels"))},
    )
}
PRINTERS: dict[str, Printer] = {"Deployment": Printer(_COLUMNS, _cells)}
