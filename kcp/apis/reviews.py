"""The virtual, create-only kinds of authentication and authorization: what is a well-formed question.

The answers are computed by the API server; nothing of them is stored.
Source: k8s v1.36 pkg/apis/authorization/validation/validation.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kcp.apis.kind import Json, Printer, Strategy
from kcp.machinery.errors import FieldError, invalid, required, unsupported

_FIELD_OPERATORS = ("DoesNotExist", "Exists", "In", "NotIn")


def _metadata_errors(obj: Json, *, but_namespace: bool = False) -> list[FieldError]:
    allowed = {"managedFields", "creationTimestamp"} | ({"namespace"} if but_namespace else set())
    metadata = obj.get("metadata") or {}
    if all(key in allowed for key, value in metadata.items() if value):
        return []
    text = "must be empty except for namespace" if but_namespace else "must be empty"
    return [invalid("metadata", metadata, text)]


def _selector_errors(selector: Json, path: str) -> list[FieldError]:
    raw, requirements = selector.get("rawSelector") or "", selector.get("requirements") or []
    if raw and requirements:
        return [invalid(f"{path}.rawSelector", raw, "may not specified at the same time as requirements")]
    if not raw and not requirements:
        return [
            required(
                f"{path}.requirements", f"when {path} is specified, requirements or rawSelector is required"
            )
        ]
    errors: list[FieldError] = []
    for index, requirement in enumerate(requirements):
        errors += _requirement_errors(requirement, f"{path}.requirements[{index}]")
    return errors


def _requirement_errors(requirement: Json, path: str) -> list[FieldError]:
    operator, values = requirement.get("operator", ""), requirement.get("values") or []
    errors: list[FieldError] = []
    if not requirement.get("key"):
        errors.append(required(f"{path}.key", "must be specified"))
    if operator in ("In", "NotIn") and not values:
        errors.append(required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
    if operator in ("Exists", "DoesNotExist") and values:
        text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
        errors.append(FieldError("Forbidden", f"{path}.values", "", text))
    if operator not in _FIELD_OPERATORS:
        errors.append(unsupported(f"{path}.operator", operator, _FIELD_OPERATORS))
    return errors


def _attributes_errors(attributes: Json | None, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for name in ("fieldSelector", "labelSelector"):
        selector = (attributes or {}).get(name)
        if selector is not None:
            errors += _selector_errors(selector, f"{path}.{name}")
    return errors


def _which_errors(spec: Json) -> list[FieldError]:
    resource, other = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if resource is not None and other is not None:
        text = "cannot be specified in combination with resourceAttributes"
        return [invalid("spec.nonResourceAttributes", other, text)]
    if resource is None and other is None:
        text = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        return [invalid("spec.resourceAttributes", None, text)]
    return []


def _subject_errors(spec: Json) -> list[FieldError]:
    if spec.get("user") or spec.get("groups"):
        return []
    return [invalid("spec.user", "", "at least one of user or group must be specified")]


def validate_subject_access_review(obj: Json) -> list[FieldError]:
    spec = obj.get("spec") or {}
    attributes = _attributes_errors(spec.get("resourceAttributes"), "spec.resourceAttributes")
    return _which_errors(spec) + _subject_errors(spec) + attributes + _metadata_errors(obj)


def validate_self_subject_access_review(obj: Json) -> list[FieldError]:
    spec = obj.get("spec") or {}
    attributes = _attributes_errors(spec.get("resourceAttributes"), "spec.resourceAttributes")
    return _which_errors(spec) + attributes + _metadata_errors(obj)


def validate_local_subject_access_review(obj: Json) -> list[FieldError]:
    spec = obj.get("spec") or {}
    attributes = spec.get("resourceAttributes")
    errors = _which_errors(spec) + _subject_errors(spec)
    errors += _attributes_errors(attributes, "spec.resourceAttributes")
    errors += _metadata_errors(obj, but_namespace=True)
    namespace = (attributes or {}).get("namespace", "")
    if attributes is not None and namespace != (obj.get("metadata") or {}).get("namespace", ""):
        errors.append(
            invalid("spec.resourceAttributes.namespace", namespace, "must match metadata.namespace")
        )
    if spec.get("nonResourceAttributes") is not None:
        text = "disallowed on this kind of request"
        errors.append(invalid("spec.nonResourceAttributes", spec["nonResourceAttributes"], text))
    return errors


def _review(**rules: Any) -> Strategy:
    return Strategy(name_rule="any", has_status=False, has_generation=False, **rules)


STRATEGIES: Mapping[str, Strategy] = {
    "LocalSubjectAccessReview": _review(validate_create=validate_local_subject_access_review),
    "SelfSubjectAccessReview": _review(validate_create=validate_self_subject_access_review),
    "SelfSubjectReview": _review(),
    "SelfSubjectRulesReview": _review(),
    "SubjectAccessReview": _review(validate_create=validate_subject_access_review),
    "TokenReview": _review(),
}
PRINTERS: Mapping[str, Printer] = {}
