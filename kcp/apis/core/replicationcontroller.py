"""ReplicationController, PodTemplate and ComponentStatus.

Source: k8s v1.36 pkg/registry/core/{replicationcontroller,podtemplate,componentstatus},
pkg/apis/core/validation/validation.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kcp.apis.core import checks
from kcp.apis.core.checks import Errors, Json
from kcp.apis.core.pod_warnings import template_warnings
from kcp.apis.core.podspec import default_pod_spec, pod_template, selected_template
from kcp.apis.core.resources import handles_quantities
from kcp.apis.core.strategies import keep, spec_of, status_of, text_at
from kcp.apis.kind import Column, Printer, Strategy
from kcp.apis.printing import (
    AGE,
    CONTAINERS,
    IMAGES,
    NAME,
    age,
    format_labels,
    name_of,
    template_cells,
    wide,
)
from kcp.machinery.errors import FieldError, invalid, required
from kcp.machinery.labels import from_set

# -- ReplicationController --------------------------------------------------------------------------


@handles_quantities
def default_controller(controller: Json) -> None:
    spec = controller.setdefault("spec", {})
    template = spec.get("template")
    if template is not None:
        default_pod_spec(template.setdefault("spec", {}))
        labels = (template.get("metadata") or {}).get("labels")
        if labels:
            if not spec.get("selector"):
                spec["selector"] = dict(labels)
            metadata = controller.setdefault("metadata", {})
            if not metadata.get("labels"):
                metadata["labels"] = dict(labels)
    if spec.get("replicas") is None:
        spec["replicas"] = 1


def _validate_controller(controller: Json) -> list[FieldError]:
    errors: Errors = []
    spec = spec_of(controller)
    checks.nonnegative(errors, spec.get("minReadySeconds"), "spec.minReadySeconds")
    selector = spec.get("selector") or {}
    if not selector:
        errors.append(required("spec.selector"))
    checks.nonnegative(errors, spec.get("replicas"), "spec.replicas")
    template = spec.get("template")
    if template is None:
        errors.append(required("spec.template"))
    else:
        selected_template(errors, template, from_set(selector), "spec.template", "ReplicationController")
    return errors


_COUNTS = ("replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration")


def replica_counts(errors: Errors, status: Json) -> None:
    """Rules of a ReplicaSet's or ReplicationController's status."""
    checks.nonnegative_fields(errors, status, _COUNTS, "status")
    total, ready = status.get("replicas") or 0, status.get("readyReplicas") or 0
    for field in ("fullyLabeledReplicas", "readyReplicas", "availableReplicas"):
        value = status.get(field) or 0
        if value > total:
            errors.append(invalid(f"status.{field}", value, "cannot be greater than status.replicas"))
    available = status.get("availableReplicas") or 0
    if available > ready:
        errors.append(invalid("status.availableReplicas", available, "cannot be greater than readyReplicas"))


def _validate_status(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    replica_counts(errors, status_of(new))
    return errors


def _controller_cells(controller: Json, now: datetime) -> list[Any]:
    spec, status = spec_of(controller), status_of(controller)
    return [
        name_of(controller),
        spec.get("replicas") or 0,
        status.get("replicas") or 0,
        status.get("readyReplicas") or 0,
        age(controller, now),
        *template_cells(spec.get("template")),
        format_labels(spec.get("selector")),
    ]


def _controller_warnings(new: Json, old: Json | None) -> list[str]:
    return template_warnings(spec_of(new).get("template"), "spec.template")


# -- PodTemplate ------------------------------------------------------------------------------------


@handles_quantities
def default_pod_template(holder: Json) -> None:
    default_pod_spec(holder.setdefault("template", {}).setdefault("spec", {}))


def _validate_pod_template(holder: Json) -> list[FieldError]:
    errors: Errors = []
    pod_template(errors, holder.get("template") or {}, "template")
    return errors


def _pod_template_cells(holder: Json, now: datetime) -> list[Any]:
    template = holder.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels")
    return [name_of(holder), *template_cells(template), format_labels(labels)]


# -- ComponentStatus --------------------------------------------------------------------------------


def _component_cells(component: Json, now: datetime) -> list[Any]:
    status, message, error = "Unknown", "", ""
    for condition in component.get("conditions") or ():
        if condition.get("type") == "Healthy":
            status = "Healthy" if condition.get("status") == "True" else "Unhealthy"
            message, error = condition.get("message") or "", condition.get("error") or ""
            break
    return [name_of(component), status, message, error]


_COMPONENT_COLUMNS = (
    NAME,
    Column("Status", "string", "", "Status of the component conditions"),
    Column("Message", "string", "", "Message of the component conditions"),
    Column("Error", "string", "", "Error of the component conditions"),
)

_replicas_text = text_at("status", "replicas")

STRATEGIES: dict[str, Strategy] = {
    "ReplicationController": Strategy(
        default=default_controller,
        prepare_create=lambda controller: controller.update(status={"replicas": 0}),
        prepare_update=lambda new, old: keep(new, old, "status"),
        prepare_status=lambda new, old: keep(new, old, "spec"),
        validate_create=_validate_controller,
        validate_update=lambda new, old: _validate_controller(new),
        validate_status=_validate_status,
        warnings=_controller_warnings,
        selectable={"status.replicas": lambda controller: _replicas_text(controller) or "0"},
        default_propagation="Orphan",
        reset_fields={"": (("status",),), "status": (("spec",),)},
    ),
    "PodTemplate": Strategy(
        default=default_pod_template,
        validate_create=_validate_pod_template,
        validate_update=lambda new, old: _validate_pod_template(new),
        warnings=lambda new, old: template_warnings(new.get("template"), "template"),
        has_status=False,
    ),
    "ComponentStatus": Strategy(has_status=False, has_generation=False),
}
PRINTERS: dict[str, Printer] = {
    "ReplicationController": Printer(
        (
            NAME,
            Column("Desired", "integer"),
            Column("Current", "integer"),
            Column("Ready", "integer"),
            AGE,
            CONTAINERS,
            IMAGES,
            wide("Selector"),
        ),
        _controller_cells,
    ),
    "PodTemplate": Printer(
        (
            NAME,
            Column("Containers", "string", "", "Names of each container in the template."),
            Column("Images", "string", "", "Images referenced by each container in the template."),
            Column("Pod Labels", "string", "", "The labels for the pod template."),
        ),
        _pod_template_cells,
    ),
    "ComponentStatus": Printer(_COMPONENT_COLUMNS, _component_cells),
}
