"""What an admission rule matches: operations, groups, versions, resources, conditions. Shared by webhooks and policies.

Source: k8s v1.36 pkg/apis/admissionregistration/validation/validation.go.
"""

from __future__ import annotations

from collections.abc import Sequence

from kcp.apis.core import checks
from kcp.apis.core.checks import Errors
from kcp.apis.kind import Json
from kcp.machinery.errors import duplicate, invalid, required, too_many, unsupported

MAX_MATCH_CONDITIONS = 64
_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_SCOPES = ("*", "Cluster", "Namespaced")


def default_rules(rules: Sequence[Json] | None) -> None:
    for rule in rules or ():
        if rule.get("scope") is None:
            rule["scope"] = "*"


def _check_wildcard(errors: Errors, found: Sequence[str], others: str, path: str) -> None:
    if len(found) > 1 and "*" in found:
        errors.append(invalid(path, found, f"if '*' is present, must not specify other {others}"))


def _check_resources(errors: Errors, resources: Sequence[str], path: str) -> None:
    if not resources:
        errors.append(required(path))
    whole: set[str] = set()
    everywhere: set[str] = set()
    plain = False
    for index, entry in enumerate(resources):
        where = f"{path}[{index}]"
        resource, slash, sub = entry.partition("/")
        if not entry:
            errors.append(required(where))
        elif not slash:
            plain = entry != "*"
        else:
            if resource in whole:
                text = f"if '{resource}/*' is present, must not specify {entry}"
                errors.append(invalid(where, entry, text))
            if sub in everywhere:
                errors.append(invalid(where, entry, f"if '*/{sub}' is present, must not specify {entry}"))
            whole |= {resource} if sub == "*" else set()
            everywhere |= {sub} if resource == "*" else set()
    if len(resources) > 1 and "*/*" in resources:
        errors.append(invalid(path, resources, "if '*/*' is present, must not specify other resources"))
    if "*" in resources and plain:
        text = "if '*' is present, must not specify other resources without subresources"
        errors.append(invalid(path, resources, text))


def check_rule(errors: Errors, rule: Json, path: str) -> None:
    operations, groups, versions = (
        rule.get(field) or [] for field in ("operations", "apiGroups", "apiVersions")
    )
    if not operations:
        errors.append(required(f"{path}.operations"))
    _check_wildcard(errors, operations, "operations", f"{path}.operations")
    for index, operation in enumerate(operations):
        if operation not in _OPERATIONS:
            errors.append(unsupported(f"{path}.operations[{index}]", operation, _OPERATIONS))
    if not groups:
        errors.append(required(f"{path}.apiGroups"))
    _check_wildcard(errors, groups, "API groups", f"{path}.apiGroups")
    if not versions:
        errors.append(required(f"{path}.apiVersions"))
    _check_wildcard(errors, versions, "API versions", f"{path}.apiVersions")
    for index, version in enumerate(versions):
        if not version:
            errors.append(required(f"{path}.apiVersions[{index}]"))
    _check_resources(errors, rule.get("resources") or [], f"{path}.resources")
    scope = rule.get("scope")
    if scope is not None and scope not in _SCOPES:
        errors.append(unsupported(f"{path}.scope", scope, _SCOPES))


def check_match_conditions(errors: Errors, conditions: Sequence[Json], path: str) -> None:
    if len(conditions) > MAX_MATCH_CONDITIONS:
        errors.append(too_many(path, len(conditions), MAX_MATCH_CONDITIONS))
    seen: set[str] = set()
    for index, condition in enumerate(conditions):
        where, name = f"{path}[{index}]", condition.get("name") or ""
        if not (condition.get("expression") or "").strip():
            errors.append(required(f"{where}.expression"))
        if not name:
            errors.append(required(f"{where}.name"))
            continue
        checks.qualified_name(errors, name, f"{where}.name")
        if name in seen:
            errors.append(duplicate(f"{where}.name", name))
        seen.add(name)


def check_choice(errors: Errors, obj: Json, field: str, allowed: Sequence[str], path: str) -> None:
    value = obj.get(field)
    if value is not None and value not in allowed:
        errors.append(unsupported(f"{path}.{field}", value, allowed))
