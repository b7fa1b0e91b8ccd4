"""coordination.k8s.io: Lease.

Source: k8s v1.36 pkg/apis/coordination/validation/validation.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kcp.apis.core import checks
from kcp.apis.core.checks import Errors
from kcp.apis.kind import Json, Printer, Strategy
from kcp.apis.printing import AGE, NAME, age, columns, name_of
from kcp.machinery import names
from kcp.machinery.errors import FieldError, forbidden, invalid, unsupported

_STRATEGIES = ("OldestEmulationVersion",)


def _check_strategy(errors: Errors, strategy: str, path: str) -> None:
    """One of Kubernetes' own names, or a qualified name of somebody else's."""
    if "/" in strategy:
        checks.texts(errors, names.is_qualified_name(strategy), strategy, f"{path}.strategy")
    elif strategy not in _STRATEGIES:
        errors.append(unsupported(f"{path}.strategy", strategy, _STRATEGIES))


def validate_lease(lease: Json) -> list[FieldError]:
    errors: Errors = []
    spec = lease.get("spec") or {}
    duration, transitions, strategy = (
        spec.get(field) for field in ("leaseDurationSeconds", "leaseTransitions", "strategy")
    )
    if duration is not None and duration <= 0:
        errors.append(invalid("spec.leaseDurationSeconds", duration, "must be greater than 0"))
    checks.nonnegative(errors, transitions, "spec.leaseTransitions")
    if strategy is not None:
        _check_strategy(errors, strategy, "spec.strategy")
    if spec.get("preferredHolder") and not strategy:
        errors.append(forbidden("spec.preferredHolder", "may only be specified if `strategy` is defined"))
    return errors


def _lease_cells(lease: Json, now: datetime) -> list[Any]:
    holder = (lease.get("spec") or {}).get("holderIdentity") or ""
    return [name_of(lease), holder, age(lease, now)]


STRATEGIES: Mapping[str, Strategy] = {
    "Lease": Strategy(
        validate_create=validate_lease,
        validate_update=lambda new, old: validate_lease(new),
        has_status=False,
        has_generation=False,
        allow_unconditional_update=False,
        allow_create_on_update=True,
    ),
}
PRINTERS: Mapping[str, Printer] = {"Lease": Printer(columns(NAME, "Holder", AGE), _lease_cells)}
