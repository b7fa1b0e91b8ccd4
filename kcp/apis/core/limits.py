"""LimitRange and ResourceQuota.

Source: k8s v1.36 pkg/apis/core/validation/validation.go, pkg/apis/core/helper/helpers.go, printers.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kcp.apis.core import checks
from kcp.apis.core.checks import Errors, Json
from kcp.apis.core.resources import (
    canonical,
    container_resource_name,
    default_list,
    handles_quantities,
    is_overcommit_allowed,
    is_quota_resource,
    quantity_value,
    quota_resource_name,
    resource_name,
)
from kcp.apis.core.strategies import STATUS_RESET, keep, spec_of, status_of
from kcp.apis.kind import Column, Printer, Strategy
from kcp.apis.printing import AGE, NAME, age, name_of
from kcp.machinery.errors import FieldError, duplicate, forbidden, invalid, required
from kcp.machinery.quantity import Quantity, parse

# -- LimitRange -------------------------------------------------------------------------------------

_LISTS = ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio")
_LIMIT_TYPES = ("Container", "PersistentVolumeClaim", "Pod")


@handles_quantities
def default_limit_range(limit_range: Json) -> None:
    for item in limit_range.setdefault("spec", {}).get("limits") or ():
        for field in _LISTS:
            default_list(item.get(field))
        if item.get("type") == "Container":
            _default_container_limits(item)


def _default_container_limits(item: Json) -> None:
    """Limits default to the maximum, requests to the limit or the minimum."""
    limits, requests = dict(item.get("default") or {}), dict(item.get("defaultRequest") or {})
    for source, target in ((item.get("max"), limits), (limits, requests), (item.get("min"), requests)):
        for name, value in (source or {}).items():
            target.setdefault(name, value)
    for field, found in (("default", limits), ("defaultRequest", requests)):
        if found or field in item:
            item[field] = found


def _validate_limit_range(limit_range: Json) -> list[FieldError]:
    errors: Errors = []
    seen: set[str] = set()
    for i, item in enumerate(spec_of(limit_range).get("limits") or ()):
        path, kind = f"spec.limits[{i}]", item.get("type") or ""
        _limit_type(errors, kind, f"{path}.type")
        if kind in seen:
            errors.append(duplicate(f"{path}.type", kind))
        seen.add(kind)
        _limit_names(errors, item, kind, path)
        if kind == "PersistentVolumeClaim" and not any(
            "storage" in (item.get(field) or {}) for field in ("min", "max")
        ):
            text = "either minimum or maximum storage value is required, but neither was provided"
            errors.append(required(f"{path}.limits", text))
        names = dict.fromkeys(name for field in _LISTS for name in item.get(field) or ())
        for name in names:
            _limit_values(errors, item, name, path)
    return errors


def _limit_type(errors: Errors, kind: str, path: str) -> None:
    before = len(errors)
    checks.qualified_name(errors, kind, path)
    if len(errors) == before and "/" not in kind and kind not in _LIMIT_TYPES:
        errors.append(invalid(path, kind, "must be a standard limit type or fully qualified"))


def _limit_names(errors: Errors, item: Json, kind: str, path: str) -> None:
    check = container_resource_name if kind in ("Pod", "Container") else resource_name
    for field in _LISTS:
        found = item.get(field) or {}
        if kind == "Pod" and field in ("default", "defaultRequest"):
            if found:
                text = "may not be specified when `type` is 'Pod'"
                errors.append(forbidden(f"{path}.{field}", text))
            continue
        for name in found:
            check(errors, name, f"{path}.{field}[{name}]")


_ORDER: tuple[tuple[str, str, str, str, str], ...] = (
    ("min", "max", "min", "min", "min value {} is greater than max value {}"),
    ("min", "defaultRequest", "defaultRequest", "defaultRequest",
     "min value {} is greater than default request value {}"),
    ("defaultRequest", "max", "defaultRequest", "defaultRequest",
     "default request value {} is greater than max value {}"),
    ("defaultRequest", "default", "defaultRequest", "defaultRequest",
     "default request value {} is greater than default limit value {}"),
    ("min", "default", "default", "min", "min value {} is greater than default value {}"),
    ("default", "max", "default", "max", "default value {} is greater than max value {}"),
)  # fmt: skip
"""Lower list, upper list, the list of the path, the list of the value shown, and the text."""


def _limit_values(errors: Errors, item: Json, name: str, path: str) -> None:
    values: dict[str, Quantity] = {
        field: parse(item[field][name]) for field in _LISTS if name in (item.get(field) or {})
    }
    if item.get("type") == "Pod":
        values.pop("default", None)
        values.pop("defaultRequest", None)
    for lower, upper, where, shown, text in _ORDER:
        if lower in values and upper in values and values[lower] > values[upper]:
            message = text.format(values[lower], values[upper])
            errors.append(invalid(f"{path}.{where}[{name}]", str(values[shown]), message))
    if (ratio := values.get("maxLimitRequestRatio")) is not None:
        _ratio(errors, ratio, values, f"{path}.maxLimitRequestRatio[{name}]")
    limit, request = values.get("default"), values.get("defaultRequest")
    if not is_overcommit_allowed(name) and limit is not None and request is not None and limit != request:
        text = f"default value {limit} must equal to defaultRequest value {request} in {name}"
        errors.append(invalid(f"{path}.defaultRequest[{name}]", str(request), text))


def _ratio(errors: Errors, ratio: Quantity, values: dict[str, Quantity], path: str) -> None:
    if ratio < parse("1"):
        errors.append(invalid(path, str(ratio), f"ratio {ratio} is less than 1"))
    low, high = values.get("min"), values.get("max")
    if low is not None and high is not None and low.milli_value():
        most = high.milli_value() / low.milli_value()
        if ratio.milli_value() / 1000 > most:
            text = f"ratio {ratio} is greater than max/min = {most:f}"
            errors.append(invalid(path, str(ratio), text))


# -- ResourceQuota ----------------------------------------------------------------------------------

_POD_SCOPES = ("Terminating", "NotTerminating", "NotBestEffort", "PriorityClass", "CrossNamespacePodAffinity")
_SCOPES = frozenset((*_POD_SCOPES, "BestEffort", "VolumeAttributesClass"))
_POD_COMPUTE = frozenset({"cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"})
_EXISTS_ONLY = frozenset(
    {"BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity"}
)
_CONFLICTS = ({"BestEffort", "NotBestEffort"}, {"Terminating", "NotTerminating"})
_EXISTS_TEXT = (
    "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, "
    "ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"
)


def scope_fits(scope: str, name: str) -> bool:
    """Whether a quota of this scope may count the resource."""
    if scope in _POD_SCOPES:
        return name == "pods" or name in _POD_COMPUTE
    if scope == "BestEffort":
        return name == "pods"
    if scope == "VolumeAttributesClass":
        return name in ("persistentvolumeclaims", "requests.storage")
    return True


@handles_quantities
def default_quota(quota: Json) -> None:
    for part in (quota.setdefault("spec", {}), quota.get("status") or {}):
        for field in ("hard", "used"):
            default_list(part.get(field))


def _amounts(errors: Errors, found: Json | None, path: str) -> None:
    for name, value in (found or {}).items():
        quota_resource_name(errors, name, f"{path}[{name}]")
        quantity_value(errors, name, value, f"{path}[{name}]")


def _scope_names(
    errors: Errors, scopes: list[str], hard: Json, path: str, shown: Any, name_path: str
) -> None:
    for scope in scopes:
        if scope not in _SCOPES:
            errors.append(invalid(name_path, shown if name_path == path else scope, "unsupported scope"))
        for name in sorted(hard):
            if is_quota_resource(name) and not scope_fits(scope, name):
                errors.append(invalid(path, shown, "unsupported scope applied to resource"))


def _conflicts(errors: Errors, scopes: list[str], path: str, shown: Any) -> None:
    for pair in _CONFLICTS:
        if pair <= set(scopes):
            errors.append(invalid(path, shown, "conflicting scopes"))


def _scope_selector(errors: Errors, selector: Json, spec: Json) -> None:
    path, hard = "spec.scopeSelector.matchExpressions", spec.get("hard") or {}
    expressions = selector.get("matchExpressions") or []
    for expression in expressions:
        scope, operator = expression.get("scopeName") or "", expression.get("operator") or ""
        values = expression.get("values") or []
        _scope_names(errors, [scope], hard, path, selector, f"{path}.scopeName")
        if scope in _EXISTS_ONLY and operator != "Exists":
            errors.append(invalid(f"{path}.operator", operator, _EXISTS_TEXT))
        if operator in ("In", "NotIn"):
            if not values:
                text = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
                errors.append(required(f"{path}.values", text))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                text = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
                errors.append(invalid(f"{path}.values", values, text))
        else:
            errors.append(invalid(f"{path}.operator", operator, "not a valid selector operator"))
    scopes = [expression.get("scopeName") or "" for expression in expressions]
    _conflicts(errors, scopes, "spec.scopes", spec.get("scopes"))


def _quota_spec(errors: Errors, spec: Json) -> None:
    hard = spec.get("hard") or {}
    _amounts(errors, hard, "spec.hard")
    if scopes := spec.get("scopes") or []:
        _scope_names(errors, scopes, hard, "spec.scopes", scopes, "spec.scopes")
        _conflicts(errors, scopes, "spec.scopes", scopes)
    if selector := spec.get("scopeSelector"):
        _scope_selector(errors, selector, spec)


def _validate_quota(quota: Json) -> list[FieldError]:
    errors: Errors = []
    _quota_spec(errors, spec_of(quota))
    return errors + _validate_quota_status(quota, quota)


def _validate_quota_update(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    _quota_spec(errors, spec_of(new))
    after, before = spec_of(new).get("scopes") or [], spec_of(old).get("scopes") or []
    if set(after) != set(before):
        errors.append(invalid("spec.scopes", after or None, checks.IMMUTABLE))
    return errors


def _validate_quota_status(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    for field in ("hard", "used"):
        _amounts(errors, status_of(new).get(field), f"status.{field}")
    return errors


def _quota_cells(quota: Json, now: datetime) -> list[Any]:
    """`cpu: 1/2` for each resource; limits stand apart. Source: printResourceQuota."""
    hard, used = status_of(quota).get("hard") or {}, status_of(quota).get("used") or {}
    requests: list[str] = []
    limits: list[str] = []
    for name in sorted(hard):
        text = f"{name}: {canonical(used.get(name, '0'))}/{canonical(hard[name])}"
        (limits if name.startswith("limits") else requests).append(text)
    return [name_of(quota), ", ".join(requests), ", ".join(limits), age(quota, now)]


_QUOTA_COLUMNS = (
    NAME,
    Column(
        "Request",
        "string",
        "",
        "Request represents a minimum amount of cpu/memory that a container may consume.",
    ),
    Column(
        "Limit",
        "string",
        "",
        "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
    ),
    AGE,
)

STRATEGIES: dict[str, Strategy] = {
    "LimitRange": Strategy(
        default=default_limit_range,
        validate_create=_validate_limit_range,
        validate_update=lambda new, old: _validate_limit_range(new),
        has_status=False,
        has_generation=False,
        allow_create_on_update=True,
    ),
    "ResourceQuota": Strategy(
        default=default_quota,
        prepare_create=lambda quota: quota.update(status={}),
        prepare_update=lambda new, old: keep(new, old, "status"),
        prepare_status=lambda new, old: keep(new, old, "spec"),
        validate_create=_validate_quota,
        validate_update=_validate_quota_update,
        validate_status=_validate_quota_status,
        has_generation=False,
        reset_fields=STATUS_RESET,
    ),
}
PRINTERS: dict[str, Printer] = {
    "ResourceQuota": Printer(_QUOTA_COLUMNS, _quota_cells),
}
