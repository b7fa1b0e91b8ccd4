"""node.k8s.io: RuntimeClass.

Source: k8s v1.36 pkg/apis/node/validation/validation.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kcp.apis.core import checks, resources
from kcp.apis.core.checks import Errors
from kcp.apis.core.scheduling import tolerations as check_tolerations
from kcp.apis.kind import Json, Printer, Strategy
from kcp.apis.printing import AGE, NAME, age, columns, name_of
from kcp.machinery import names
from kcp.machinery.errors import FieldError
from kcp.machinery.labels import validate_labels


@resources.handles_quantities
def _default_runtime_class(runtime_class: Json) -> None:
    resources.default_list((runtime_class.get("overhead") or {}).get("podFixed"))


def validate_runtime_class(runtime_class: Json) -> list[FieldError]:
    errors: Errors = []
    handler = runtime_class.get("handler") or ""
    checks.texts(errors, names.is_dns1123_label(handler), handler, "handler")
    overhead, scheduling = runtime_class.get("overhead"), runtime_class.get("scheduling")
    if overhead is not None:
        resources.requirements(errors, {"limits": overhead.get("podFixed")}, "overhead")
    if scheduling is not None:
        errors += validate_labels(scheduling.get("nodeSelector"), "scheduling.nodeSelector")
        check_tolerations(errors, scheduling.get("tolerations") or [], "scheduling.tolerations")
    return errors


def validate_runtime_class_update(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    checks.same(errors, new.get("handler"), old.get("handler"), "handler")
    return errors


def _runtime_class_cells(runtime_class: Json, now: datetime) -> list[Any]:
    return [name_of(runtime_class), runtime_class.get("handler", ""), age(runtime_class, now)]


STRATEGIES: Mapping[str, Strategy] = {
    "RuntimeClass": Strategy(
        default=_default_runtime_class,
        validate_create=validate_runtime_class,
        validate_update=validate_runtime_class_update,
        has_status=False,
        has_generation=False,
        allow_unconditional_update=False,
        allow_create_on_update=True,
    ),
}
PRINTERS: Mapping[str, Printer] = {
    "RuntimeClass": Printer(columns(NAME, "Handler", AGE), _runtime_class_cells)
}
