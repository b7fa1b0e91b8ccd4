"""ControllerRevision.

Source: k8s v1.36 pkg/registry/apps/controllerrevision/strategy.go, pkg/apis/apps/validation/validation.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kcp.apis.core import checks
from kcp.apis.core.checks import Errors, Json
from kcp.apis.kind import Column, Printer, Strategy
from kcp.apis.printing import AGE, NAME, age, name_of, or_none
from kcp.machinery.errors import FieldError, required
from kcp.machinery.meta import controller_of


def _validate(revision: Json) -> list[FieldError]:
    errors: Errors = []
    if revision.get("data") is None:
        errors.append(required("data", "data is mandatory"))
    checks.nonnegative(errors, revision.get("revision"), "revision")
    return errors


def _validate_update(new: Json, old: Json) -> list[FieldError]:
    errors = _validate(new)
    if new.get("data") != old.get("data"):
        checks.same(errors, new.get("data"), old.get("data"), "data")
    return errors


def _controller(revision: Json) -> str:
    """`statefulset.apps/web`"""
    owner = controller_of(revision)
    if owner is None:
        return ""
    group, slash, _ = str(owner.get("apiVersion") or "").partition("/")
    kind = str(owner.get("kind") or "").lower()
    return f"{kind}.{group}/{owner.get('name')}" if slash else f"{kind}/{owner.get('name')}"


def _cells(revision: Json, now: datetime) -> list[Any]:
    return [
        name_of(revision),
        or_none(_controller(revision)),
        revision.get("revision") or 0,
        age(revision, now),
    ]


_COLUMNS = (
    NAME,
    Column("Controller", "string", "", "Controller of the object"),
    Column("Revision", "string", "", "Revision indicates the revision of the state represented by Data."),
    AGE,
)

STRATEGIES: dict[str, Strategy] = {
    "ControllerRevision": Strategy(
        validate_create=_validate,
        validate_update=_validate_update,
        has_status=False,
        has_generation=False,
    )
}
PRINTERS: dict[str, Printer] = {"ControllerRevision": Printer(_COLUMNS, _cells)}
