"""StatefulSet.

Source: k8s v1.36 pkg/registry/apps/statefulset/strategy.go, pkg/apis/apps/validation/validation.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kcp.apis.apps.workload import not_decremented, selector_of
from kcp.apis.core import checks
from kcp.apis.core.checks import Errors, Json
from kcp.apis.core.claim_spec import default_claim_spec
from kcp.apis.core.pod_warnings import template_warnings
from kcp.apis.core.podspec import default_template, selected_template
from kcp.apis.core.resources import handles_quantities
from kcp.apis.core.strategies import STATUS_RESET, keep, spec_of, status_of
from kcp.apis.kind import Column, Printer, Strategy
from kcp.apis.printing import AGE, CONTAINERS, IMAGES, NAME, age, name_of, template_cells
from kcp.apis.zero_values import write_ordinals
from kcp.machinery.errors import FieldError, forbidden, invalid, required, unsupported


@handles_quantities
def default_stateful_set(stateful_set: Json) -> None:
    spec = stateful_set.setdefault("spec", {})
    default_template(spec)
    for claim in spec.get("volumeClaimTemplates") or ():
        claim.setdefault("apiVersion", "v1")
        claim.setdefault("kind", "PersistentVolumeClaim")
        default_claim_spec(claim.setdefault("spec", {}))
        claim.setdefault("status", {}).setdefault("phase", "Pending")
    if not spec.get("podManagementPolicy"):
        spec["podManagementPolicy"] = "OrderedReady"
    _default_update_strategy(spec)
    retention = spec.get("persistentVolumeClaimRetentionPolicy")
    if retention is None:
        retention = spec["persistentVolumeClaimRetentionPolicy"] = {}
    for field in ("whenDeleted", "whenScaled"):
        if not retention.get(field):
            retention[field] = "Retain"
    if spec.get("replicas") is None:
        spec["replicas"] = 1
    if spec.get("revisionHistoryLimit") is None:
        spec["revisionHistoryLimit"] = 10


def _default_update_strategy(spec: Json) -> None:
    strategy = spec.get("updateStrategy")
    if strategy is None:
        strategy = spec["updateStrategy"] = {}
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
        if strategy.get("rollingUpdate") is None:
            strategy["rollingUpdate"] = {}
    rolling = strategy.get("rollingUpdate")
    if strategy["type"] == "RollingUpdate" and rolling is not None and rolling.get("partition") is None:
        rolling["partition"] = 0


def _drop_max_unavailable(spec: Json, old: Json) -> None:
    """maxUnavailable belongs to a feature that is off; who has it already keeps it."""
    before = (old.get("updateStrategy") or {}).get("rollingUpdate") or {}
    rolling: Json = (spec.get("updateStrategy") or {}).get("rollingUpdate") or {}
    if before.get("maxUnavailable") is None:
        rolling.pop("maxUnavailable", None)


def _prepare_create(stateful_set: Json) -> None:
    stateful_set["status"] = {"replicas": 0, "availableReplicas": 0}
    _drop_max_unavailable(stateful_set["spec"], {})
    write_ordinals(stateful_set)


def _prepare_update(new: Json, old: Json) -> None:
    keep(new, old, "status")
    _drop_max_unavailable(new["spec"], spec_of(old))
    write_ordinals(new)


def _update_strategy(errors: Errors, strategy: Json) -> None:
    path = "spec.updateStrategy"
    kind, rolling = strategy.get("type") or "", strategy.get("rollingUpdate")
    if not kind:
        errors.append(required(path))
    elif kind == "OnDelete":
        if rolling is not None:
            text = "only allowed for updateStrategy 'RollingUpdate'"
            errors.append(invalid(f"{path}.rollingUpdate", rolling, text))
    elif kind == "RollingUpdate":
        checks.nonnegative(errors, (rolling or {}).get("partition"), f"{path}.rollingUpdate.partition")
    else:
        errors.append(invalid(path, strategy, "must be 'RollingUpdate' or 'OnDelete'"))


_RETENTION = ("Retain", "Delete")


def _validate(stateful_set: Json) -> list[FieldError]:
    errors: Errors = []
    spec = spec_of(stateful_set)
    policy = spec.get("podManagementPolicy") or ""
    if not policy:
        errors.append(required("spec.podManagementPolicy"))
    elif policy not in ("OrderedReady", "Parallel"):
        errors.append(invalid("spec.podManagementPolicy", policy, "must be 'OrderedReady' or 'Parallel'"))
    _update_strategy(errors, spec.get("updateStrategy") or {})
    retention: Json | None = spec.get("persistentVolumeClaimRetentionPolicy")
    for field in ("whenDeleted", "whenScaled"):
        value = (retention or {}).get(field) or ""
        if retention is not None and value not in _RETENTION:
            where = f"spec.persistentVolumeClaimRetentionPolicy.{field}"
            errors.append(unsupported(where, value, _RETENTION))
    checks.nonnegative_fields(errors, spec, ("replicas", "minReadySeconds"), "spec")
    if (ordinals := spec.get("ordinals")) is not None:
        checks.nonnegative(errors, ordinals.get("start"), "spec.ordinals.start")
    if name := spec.get("serviceName"):
        checks.dns_label(errors, name, "spec.serviceName")
    selector = selector_of(errors, spec, "statefulset")
    if selector is not None:
        # The PodSpec is not checked: its volume mounts may name the claims.
        template = spec.get("template") or {}
        selected_template(errors, template, selector, "spec.template", "StatefulSet", check=False)
    return errors


_UPDATABLE = (
    "replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
)  # fmt: skip
_UPDATE_TEXT = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)


def _fixed(obj: Json) -> Json:
    return {key: value for key, value in spec_of(obj).items() if key not in _UPDATABLE}


def _validate_update(new: Json, old: Json) -> list[FieldError]:
    errors = _validate(new)
    if not checks.semantic_equal(_fixed(new), _fixed(old)):
        errors.append(forbidden("spec", _UPDATE_TEXT))
    return errors


_COUNTS = (
    "replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas", "observedGeneration",
    "collisionCount",
)  # fmt: skip


def _validate_status(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    status = status_of(new)
    checks.nonnegative_fields(errors, status, _COUNTS, "status")
    total, ready = status.get("replicas") or 0, status.get("readyReplicas") or 0
    for field in ("readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"):
        value = status.get(field) or 0
        if value > total:
            errors.append(invalid(f"status.{field}", value, "cannot be greater than status.replicas"))
    available = status.get("availableReplicas") or 0
    if available > ready:
        text = "cannot be greater than status.readyReplicas"
        errors.append(invalid("status.availableReplicas", available, text))
    not_decremented(errors, status, status_of(old))
    return errors


def _warnings(new: Json, old: Json | None) -> list[str]:
    spec = spec_of(new)
    if old is not None and spec == spec_of(old):
        return []
    found = template_warnings(spec.get("template"), "spec.template")
    limit = spec.get("revisionHistoryLimit")
    if limit is not None and limit < 0:
        found.append(
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is "
            "recommended"
        )
    return found


def _cells(stateful_set: Json, now: datetime) -> list[Any]:
    spec = spec_of(stateful_set)
    return [
        name_of(stateful_set),
        f"{status_of(stateful_set).get('readyReplicas') or 0}/{spec.get('replicas') or 0}",
        age(stateful_set, now),
        *template_cells(spec.get("template")),
    ]


STRATEGIES: dict[str, Strategy] = {
    "StatefulSet": Strategy(
        default=default_stateful_set,
        prepare_create=_prepare_create,
        prepare_update=_prepare_update,
        prepare_status=lambda new, old: keep(new, old, "spec"),
        validate_create=_validate,
        validate_update=_validate_update,
        validate_status=_validate_status,
        warnings=_warnings,
        name_rule="dns_label",
        reset_fields=STATUS_RESET,
    )
}
PRINTERS: dict[str, Printer] = {
    "StatefulSet": Printer(
        (NAME, Column("Ready", "string", "", "Number of the pod with ready state"), AGE, CONTAINERS, IMAGES),
        _cells,
    )
}
