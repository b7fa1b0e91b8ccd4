"""ReplicaSet.

Source: k8s v1.36 pkg/registry/apps/replicaset/strategy.go, pkg/apis/apps/validation/validation.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kcp.apis.apps.workload import selector_of, workload_warnings
from kcp.apis.core import checks
from kcp.apis.core.checks import Errors, Json
from kcp.apis.core.podspec import default_template, selected_template
from kcp.apis.core.replicationcontroller import replica_counts
from kcp.apis.core.resources import handles_quantities
from kcp.apis.core.strategies import STATUS_RESET, keep, spec_of, status_of
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
from kcp.machinery.errors import FieldError


@handles_quantities
def default_replica_set(replica_set: Json) -> None:
    spec = replica_set.setdefault("spec", {})
    default_template(spec)
    if spec.get("replicas") is None:
        spec["replicas"] = 1


def _prepare_create(replica_set: Json) -> None:
    replica_set["status"] = {"replicas": 0}


def _validate(replica_set: Json) -> list[FieldError]:
    errors: Errors = []
    spec = spec_of(replica_set)
    checks.nonnegative_fields(errors, spec, ("replicas", "minReadySeconds"), "spec")
    selector = selector_of(errors, spec, "deployment", "invalid label selector")
    if selector is not None:
        selected_template(errors, spec.get("template") or {}, selector, "spec.template", "ReplicaSet")
    return errors


def _validate_update(new: Json, old: Json) -> list[FieldError]:
    errors = _validate(new)
    checks.same(errors, spec_of(new).get("selector"), spec_of(old).get("selector"), "spec.selector")
    return errors


def _validate_status(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    replica_counts(errors, status_of(new))
    checks.nonnegative(errors, status_of(new).get("terminatingReplicas"), "status.terminatingReplicas")
    return errors


_COLUMNS = (
    NAME,
    Column("Desired", "integer"),
    Column("Current", "integer"),
    Column("Ready", "integer"),
    AGE,
    CONTAINERS,
    IMAGES,
    wide("Selector"),
)


def _cells(replica_set: Json, now: datetime) -> list[Any]:
    spec, status = spec_of(replica_set), status_of(replica_set)
    return [
        name_of(replica_set),
        spec.get("replicas") or 0,
        status.get("replicas") or 0,
        status.get("readyReplicas") or 0,
        age(replica_set, now),
        *template_cells(spec.get("template")),
        format_label_selector(spec.get("selector")),
    ]


STRATEGIES: dict[str, Strategy] = {
    "ReplicaSet": Strategy(
        default=default_replica_set,
        prepare_create=_prepare_create,
        prepare_update=lambda new, old: keep(new, old, "status"),
        prepare_status=lambda new, old: keep(new, old, "spec"),
        validate_create=_validate,
        validate_update=_validate_update,
        validate_status=_validate_status,
        warnings=workload_warnings,
        reset_fields=STATUS_RESET,
    )
}
PRINTERS: dict[str, Printer] = {"ReplicaSet": Printer(_COLUMNS, _cells)}
