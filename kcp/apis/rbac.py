"""rbac.authorization.k8s.io: Role, ClusterRole and their bindings.

Source: k8s v1.36 pkg/apis/rbac/validation/validation.go, pkg/apis/rbac/v1/defaults.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from kcp.apis.core import checks
from kcp.apis.core.checks import Errors
from kcp.apis.kind import Json, Printer, Strategy
from kcp.apis.printing import AGE, NAME, age, columns, name_of, wide
from kcp.apis.zero_values import write_rules
from kcp.machinery import names
from kcp.machinery.errors import FieldError, invalid, required, unsupported
from kcp.machinery.labels import SelectorError, from_label_selector

GROUP = "rbac.authorization.k8s.io"
_SUBJECT_KINDS = ("ServiceAccount", "User", "Group")


def _check_rule(errors: Errors, rule: Json, path: str, *, namespaced: bool) -> None:
    urls, groups, resources, resource_names = (
        rule.get(field) or [] for field in ("nonResourceURLs", "apiGroups", "resources", "resourceNames")
    )
    if not rule.get("verbs"):
        errors.append(required(f"{path}.verbs", "verbs must contain at least one value"))
    if urls:
        where = f"{path}.nonResourceURLs"
        if namespaced:
            errors.append(invalid(where, urls, "namespaced rules cannot apply to non-resource URLs"))
        if groups or resources or resource_names:
            text = "rules cannot apply to both regular resources and non-resource URLs"
            errors.append(invalid(where, urls, text))
        return
    if not groups:
        errors.append(required(f"{path}.apiGroups", "resource rules must supply at least one api group"))
    if not resources:
        errors.append(required(f"{path}.resources", "resource rules must supply at least one resource"))


def _check_rules(role: Json, *, namespaced: bool) -> list[FieldError]:
    errors: Errors = []
    for index, rule in enumerate(role.get("rules") or ()):
        _check_rule(errors, rule, f"rules[{index}]", namespaced=namespaced)
    return errors


def validate_role(role: Json) -> list[FieldError]:
    return _check_rules(role, namespaced=True)


def _check_aggregation(errors: Errors, rule: Json) -> None:
    path, selectors = "aggregationRule.clusterRoleSelectors", rule.get("clusterRoleSelectors") or []
    if not selectors:
        text = "at least one clusterRoleSelector required if aggregationRule is non-nil"
        errors.append(required(path, text))
    for index, selector in enumerate(selectors):
        checks.label_selector(errors, selector, f"{path}[{index}]")
        try:
            from_label_selector(selector)
        except SelectorError:
            errors.append(invalid(f"{path}[{index}]", selector, "invalid label selector."))


def validate_cluster_role(role: Json) -> list[FieldError]:
    errors = _check_rules(role, namespaced=False)
    if role.get("aggregationRule") is not None:
        _check_aggregation(errors, role["aggregationRule"])
    return errors


def _check_role_ref(errors: Errors, reference: Json, kinds: tuple[str, ...]) -> None:
    group, kind, name = (reference.get(field) or "" for field in ("apiGroup", "kind", "name"))
    if group != GROUP:
        errors.append(unsupported("roleRef.apiGroup", group, (GROUP,)))
    if kind not in kinds:
        errors.append(unsupported("roleRef.kind", kind, kinds))
    if not name:
        errors.append(required("roleRef.name"))
    else:
        checks.texts(errors, names.is_path_segment_name(name), name, "roleRef.name")


def _check_account(errors: Errors, subject: Json, path: str, *, namespaced: bool) -> None:
    name, group = subject.get("name") or "", subject.get("apiGroup") or ""
    if name:
        checks.texts(errors, names.is_dns1123_subdomain(name), name, f"{path}.name")
    if group:
        errors.append(unsupported(f"{path}.apiGroup", group, ("",)))
    if not namespaced and not subject.get("namespace"):
        errors.append(required(f"{path}.namespace"))


def _check_subject(errors: Errors, subject: Json, path: str, *, namespaced: bool) -> None:
    kind, name, group = (subject.get(field) or "" for field in ("kind", "name", "apiGroup"))
    if not name:
        errors.append(required(f"{path}.name"))
    if kind == "ServiceAccount":
        _check_account(errors, subject, path, namespaced=namespaced)
    elif kind in ("User", "Group"):
        if not name:
            errors.append(invalid(f"{path}.name", name, f"{kind.lower()} name cannot be empty"))
        if group != GROUP:
            errors.append(unsupported(f"{path}.apiGroup", group, (GROUP,)))
    else:
        errors.append(unsupported(f"{path}.kind", kind, _SUBJECT_KINDS))


def _check_binding(binding: Json, kinds: tuple[str, ...], *, namespaced: bool) -> list[FieldError]:
    errors: Errors = []
    _check_role_ref(errors, binding.get("roleRef") or {}, kinds)
    for index, subject in enumerate(binding.get("subjects") or ()):
        _check_subject(errors, subject, f"subjects[{index}]", namespaced=namespaced)
    return errors


def validate_role_binding(binding: Json) -> list[FieldError]:
    return _check_binding(binding, ("Role", "ClusterRole"), namespaced=True)


def validate_cluster_role_binding(binding: Json) -> list[FieldError]:
    return _check_binding(binding, ("ClusterRole",), namespaced=False)


def _role_ref_change(new: Json, old: Json) -> list[FieldError]:
    if (new.get("roleRef") or {}) == (old.get("roleRef") or {}):
        return []
    return [invalid("roleRef", new.get("roleRef"), "cannot change roleRef")]


def validate_role_binding_update(new: Json, old: Json) -> list[FieldError]:
    return validate_role_binding(new) + _role_ref_change(new, old)


def validate_cluster_role_binding_update(new: Json, old: Json) -> list[FieldError]:
    return validate_cluster_role_binding(new) + _role_ref_change(new, old)


def _default_binding(binding: Json) -> None:
    reference = binding.setdefault("roleRef", {})
    if not reference.get("apiGroup"):
        reference["apiGroup"] = GROUP
    for subject in binding.get("subjects") or ():
        if not subject.get("apiGroup") and subject.get("kind") in ("User", "Group"):
            subject["apiGroup"] = GROUP


def subject_names(subjects: list[Json] | None) -> tuple[list[str], list[str], list[str]]:
    """Users, groups and `namespace/name` of service accounts."""
    users: list[str] = []
    groups: list[str] = []
    accounts: list[str] = []
    for subject in subjects or ():
        kind, name = subject.get("kind"), subject.get("name", "")
        if kind == "User":
            users.append(name)
        elif kind == "Group":
            groups.append(name)
        elif kind == "ServiceAccount":
            accounts.append(f"{subject.get('namespace', '')}/{name}")
    return users, groups, accounts


def _binding_cells(binding: Json, now: datetime) -> list[Any]:
    reference = binding.get("roleRef") or {}
    role = f"{reference.get('kind', '')}/{reference.get('name', '')}"
    subjects = [", ".join(found) for found in subject_names(binding.get("subjects"))]
    return [name_of(binding), role, age(binding, now), *subjects]


def _role(validate: Callable[[Json], list[FieldError]]) -> Strategy:
    return _strategy(
        prepare_create=write_rules,
        prepare_update=lambda new, old: write_rules(new),
        validate_create=validate,
        validate_update=lambda new, old: validate(new),
    )


def _strategy(**rules: Any) -> Strategy:
    return Strategy(
        name_rule="path_segment",
        has_status=False,
        has_generation=False,
        allow_create_on_update=True,
        **rules,
    )


_BINDING_PRINTER = Printer(
    columns(
        NAME,
        "Role",
        AGE,
        wide("Users", description="Users in the roleBinding"),
        wide("Groups", description="Groups in the roleBinding"),
        wide("ServiceAccounts", description="ServiceAccounts in the roleBinding"),
    ),
    _binding_cells,
)

STRATEGIES: Mapping[str, Strategy] = {
    "Role": _role(validate_role),
    "ClusterRole": _role(validate_cluster_role),
    "RoleBinding": _strategy(
        default=_default_binding,
        validate_create=validate_role_binding,
        validate_update=validate_role_binding_update,
    ),
    "ClusterRoleBinding": _strategy(
        default=_default_binding,
        validate_create=validate_cluster_role_binding,
        validate_update=validate_cluster_role_binding_update,
    ),
}
PRINTERS: Mapping[str, Printer] = {
    "RoleBinding": _BINDING_PRINTER,
    "ClusterRoleBinding": _BINDING_PRINTER,
}
