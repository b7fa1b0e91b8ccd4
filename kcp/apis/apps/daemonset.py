"""DaemonSet.

Source: k8s v1.36 pkg/registry/apps/daemonset/strategy.go, pkg/apis/apps/validation/validation.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kcp.apis.apps.workload import int_or_percent, not_decremented, workload_warnings
from kcp.apis.core import checks
from kcp.apis.core.checks import Errors, Json
from kcp.apis.core.podspec import default_template, selected_template
from kcp.apis.core.resources import handles_quantities
from kcp.apis.core.strategies import STATUS_RESET, keep, metadata_of, spec_of, status_of
from kcp.apis.kind import Column, Printer, Strategy
from kcp.apis.printing import (
    AGE,
    CONTAINERS,
    IMAGES,
    NAME,
    age,
    format_label_selector,
    format_labels,
    name_of,
    template_cells,
    wide,
)
from kcp.machinery.errors import FieldError, invalid, required, unsupported
from kcp.machinery.intstr import validate_at_most_100_percent
from kcp.machinery.labels import SelectorError, from_label_selector

TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
"""Counts the changes of the template; a field of older versions that lives on as an annotation."""


@handles_quantities
def default_daemon_set(daemon_set: Json) -> None:
    spec = daemon_set.setdefault("spec", {})
    default_template(spec)
    strategy = spec.get("updateStrategy")
    if strategy is None:
        strategy = spec["updateStrategy"] = {}
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.get("rollingUpdate")
        if rolling is None:
            rolling = strategy["rollingUpdate"] = {}
        for field, value in (("maxUnavailable", 1), ("maxSurge", 0)):
            if rolling.get(field) is None:
                rolling[field] = value
    if spec.get("revisionHistoryLimit") is None:
        spec["revisionHistoryLimit"] = 10


_STATUS = ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady")


def template_generation(daemon_set: Json) -> int:
    """How often the template changed, from 1; 0 when unknown."""
    text = (metadata_of(daemon_set).get("annotations") or {}).get(TEMPLATE_GENERATION) or ""
    return int(text) if text.isascii() and text.isdigit() else 0


def _set_template_generation(daemon_set: Json, generation: int) -> None:
    metadata = daemon_set["metadata"]
    metadata["annotations"] = {**(metadata.get("annotations") or {}), TEMPLATE_GENERATION: str(generation)}


def _prepare_create(daemon_set: Json) -> None:
    daemon_set["status"] = dict.fromkeys(_STATUS, 0)
    _set_template_generation(daemon_set, max(1, template_generation(daemon_set)))


def _prepare_update(new: Json, old: Json) -> None:
    keep(new, old, "status")
    changed = not checks.semantic_equal(spec_of(new).get("template"), spec_of(old).get("template"))
    generation = template_generation(old) + changed
    if generation:
        _set_template_generation(new, generation)


def _rolling_update(errors: Errors, rolling: Json, path: str) -> None:
    fields = ("maxUnavailable", "maxSurge")
    numbers = [int_or_percent(errors, rolling.get(field), f"{path}.{field}") for field in fields]
    for field in fields:
        errors.extend(validate_at_most_100_percent(rolling.get(field), f"{path}.{field}"))
    if all(numbers):
        text = "may not be set when maxUnavailable is non-zero"
        errors.append(invalid(f"{path}.maxSurge", rolling.get("maxSurge"), text))
    elif not any(numbers):
        errors.append(required(f"{path}.maxUnavailable", "cannot be 0 when maxSurge is 0"))


def _update_strategy(errors: Errors, strategy: Json) -> None:
    path, kind = "spec.updateStrategy", strategy.get("type") or ""
    if kind == "RollingUpdate":
        if (rolling := strategy.get("rollingUpdate")) is None:
            errors.append(required(f"{path}.rollingUpdate"))
        else:
            _rolling_update(errors, rolling, f"{path}.rollingUpdate")
    elif kind != "OnDelete":
        errors.append(unsupported(path, strategy, ("RollingUpdate", "OnDelete")))


def _validate(daemon_set: Json) -> list[FieldError]:
    errors: Errors = []
    spec = spec_of(daemon_set)
    found, template = spec.get("selector"), spec.get("template") or {}
    checks.label_selector(errors, found, "spec.selector")
    labels = (template.get("metadata") or {}).get("labels")
    try:
        selects = from_label_selector(found).matches(labels or {})
    except SelectorError:
        selects = True
    if not selects:
        text = "`selector` does not match template `labels`"
        errors.append(invalid("spec.template.metadata.labels", labels, text))
    if found is not None and not found.get("matchLabels") and not found.get("matchExpressions"):
        errors.append(invalid("spec.selector", found, "empty selector is invalid for daemonset"))
    everything = from_label_selector({})
    selected_template(errors, template, everything, "spec.template", "DaemonSet")
    checks.nonnegative(errors, spec.get("minReadySeconds"), "spec.minReadySeconds")
    _update_strategy(errors, spec.get("updateStrategy") or {})
    checks.nonnegative(errors, spec.get("revisionHistoryLimit"), "spec.revisionHistoryLimit")
    return errors


def _validate_update(new: Json, old: Json) -> list[FieldError]:
    errors = _validate(new)
    checks.same(errors, spec_of(new).get("selector"), spec_of(old).get("selector"), "spec.selector")
    return errors


_COUNTS = (
    *_STATUS, "observedGeneration", "updatedNumberScheduled", "numberAvailable", "numberUnavailable",
    "collisionCount",
)  # fmt: skip


def _validate_status(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    checks.nonnegative_fields(errors, status_of(new), _COUNTS, "status")
    not_decremented(errors, status_of(new), status_of(old))
    return errors


_NUMBERS = (
    ("Desired", "desiredNumberScheduled"),
    ("Current", "currentNumberScheduled"),
    ("Ready", "numberReady"),
    ("Up-to-date", "updatedNumberScheduled"),
    ("Available", "numberAvailable"),
)
_COLUMNS = (
    NAME,
    *(Column(name, "integer") for name, _ in _NUMBERS),
    Column(
        "Node Selector",
        "string",
        "",
        "NodeSelector is a selector which must be true for the pod to fit on a node. Selector which must match a "
        "node's labels for the pod to be scheduled on that node. More info: "
        "https://kubernetes.io/docs/concepts/configuration/assign-pod-node/",
    ),
    AGE,
    CONTAINERS,
    IMAGES,
    wide("Selector"),
)


def _cells(daemon_set: Json, now: datetime) -> list[Any]:
    spec, status = spec_of(daemon_set), status_of(daemon_set)
    template = spec.get("template") or {}
    return [
        name_of(daemon_set),
        *(status.get(field) or 0 for _, field in _NUMBERS),
        format_labels((template.get("spec") or {}).get("nodeSelector")),
        age(daemon_set, now),
        *template_cells(template),
        format_label_selector(spec.get("selector")),
    ]


STRATEGIES: dict[str, Strategy] = {
    "DaemonSet": Strategy(
        default=default_daemon_set,
        prepare_create=_prepare_create,
        prepare_update=_prepare_update,
        prepare_status=lambda new, old: keep(new, old, "spec"),
        validate_create=_validate,
        validate_update=_validate_update,
        validate_status=_validate_status,
        warnings=workload_warnings,
        reset_fields=STATUS_RESET,
    )
}
PRINTERS: dict[str, Printer] = {"DaemonSet": Printer(_COLUMNS, _cells)}
