"""Namespace: its phase and the finalizers in its spec.

Source: k8s v1.36 pkg/registry/core/namespace/strategy.go, pkg/apis/core/validation/validation.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kcp.apis.core import checks
from kcp.apis.core.checks import Errors, Json
from kcp.apis.core.strategies import STATUS_RESET, keep, metadata_of, spec_of, status_of, text_at
from kcp.apis.kind import Column, Printer, Strategy
from kcp.apis.printing import AGE, NAME, age, name_of
from kcp.machinery.errors import FieldError, invalid
from kcp.machinery.meta import kube_finalizer_faults

NAME_LABEL = "kubernetes.io/metadata.name"
FINALIZER = "kubernetes"


def default_namespace(namespace: Json) -> None:
    metadata = namespace.setdefault("metadata", {})
    if name := metadata.get("name"):
        labels = metadata.get("labels")
        if labels is None:
            labels = metadata["labels"] = {}
        labels[NAME_LABEL] = name
    status = namespace.get("status")
    if status is None:
        status = namespace["status"] = {}
    if not status.get("phase"):
        status["phase"] = "Active"


def _prepare_create(namespace: Json) -> None:
    namespace["status"] = {"phase": "Active"}
    spec = namespace.get("spec") or {}
    finalizers = spec.get("finalizers") or []
    if FINALIZER not in finalizers:
        finalizers = [*finalizers, FINALIZER]
    namespace["spec"] = {**spec, "finalizers": finalizers}
    if name := metadata_of(namespace).get("name"):
        namespace["metadata"].setdefault("labels", {})[NAME_LABEL] = name


def _prepare_update(new: Json, old: Json) -> None:
    """Finalizers change through the finalize subresource only."""
    keep(new, old, "status")
    finalizers = spec_of(old).get("finalizers")
    spec = {key: value for key, value in spec_of(new).items() if key != "finalizers"}
    new["spec"] = {**spec, "finalizers": finalizers} if finalizers else spec


def _prepare_status(new: Json, old: Json) -> None:
    keep(new, old, "spec")


def prepare_finalize(new: Json, old: Json) -> None:
    """For namespaces/finalize: only the spec's finalizers change."""
    keep(new, old, "status")


def finalizer_name(errors: Errors, name: str, path: str) -> None:
    checks.qualified_name(errors, name, path)
    errors += [invalid(path, name, fault) for fault in kube_finalizer_faults(name)]


def _validate(namespace: Json) -> list[FieldError]:
    errors: Errors = []
    for name in spec_of(namespace).get("finalizers") or ():
        finalizer_name(errors, name, "spec.finalizers")
    return errors


def validate_finalize(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    for i, name in enumerate(spec_of(new).get("finalizers") or ()):
        finalizer_name(errors, name, f"spec.finalizers[{i}]")
    return errors


def _validate_status(new: Json, old: Json) -> list[FieldError]:
    phase = status_of(new).get("phase") or ""
    deleting = bool(metadata_of(new).get("deletionTimestamp"))
    if not deleting and phase != "Active":
        text = "may only be 'Active' if `deletionTimestamp` is empty"
        return [invalid("status.Phase", phase, text)]
    if deleting and phase != "Terminating":
        text = "may only be 'Terminating' if `deletionTimestamp` is not empty"
        return [invalid("status.Phase", phase, text)]
    return []


def _cells(namespace: Json, now: datetime) -> list[Any]:
    return [name_of(namespace), status_of(namespace).get("phase") or "", age(namespace, now)]


STRATEGIES: dict[str, Strategy] = {
    "Namespace": Strategy(
        default=default_namespace,
        prepare_create=_prepare_create,
        prepare_update=_prepare_update,
        prepare_status=_prepare_status,
        validate_create=_validate,
        validate_status=_validate_status,
        selectable={"status.phase": text_at("status", "phase"), "name": text_at("metadata", "name")},
        name_rule="dns_label",
        has_generation=False,
        reset_fields=STATUS_RESET,
    )
}
PRINTERS: dict[str, Printer] = {
    "Namespace": Printer((NAME, Column("Status", "string", "", "The status of the namespace"), AGE), _cells)
}
