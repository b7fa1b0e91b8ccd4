"""What a pod says about where it may run: node and pod affinity, tolerations, topology spread, gates.

Source: k8s v1.36 pkg/apis/core/validation/validation.go.
"""

from __future__ import annotations

from collections.abc import Iterable

from kcp.apis.core import checks
from kcp.apis.core.checks import Errors, Json
from kcp.machinery.errors import FieldError, duplicate, forbidden, invalid, required, unsupported

TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_NO_OPERATOR = "not a valid selector operator"


def _requirement(errors: Errors, expression: Json, path: str, check_values: bool) -> None:
    operator, values = expression.get("operator") or "", expression.get("values") or []
    if operator in ("In", "NotIn"):
        if not values:
            text = "must be specified when `operator` is 'In' or 'NotIn'"
            errors.append(required(f"{path}.values", text))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            errors.append(forbidden(f"{path}.values", text))
    elif operator in ("Gt", "Lt"):
        if len(values) != 1:
            text = "must be specified single value when `operator` is 'Lt' or 'Gt'"
            errors.append(required(f"{path}.values", text))
    else:
        errors.append(invalid(f"{path}.operator", operator, _NO_OPERATOR))
    checks.qualified_name(errors, expression.get("key") or "", f"{path}.key")
    if check_values:
        for i, value in enumerate(values):
            checks.texts(errors, checks.label_value_texts(value), value, f"{path}.values[{i}]")


def _field_requirement(errors: Errors, expression: Json, path: str) -> None:
    operator, values = expression.get("operator") or "", expression.get("values") or []
    if operator not in ("In", "NotIn"):
        errors.append(invalid(f"{path}.operator", operator, _NO_OPERATOR))
    elif len(values) != 1:
        text = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
        errors.append(required(f"{path}.values", text))
    if expression.get("key") != "metadata.name":
        key = expression.get("key") or ""
        errors.append(invalid(f"{path}.key", key, "not a valid field selector key"))
        return
    for i, value in enumerate(values):
        checks.dns_subdomain(errors, value, f"{path}.values[{i}]")


def node_selector_term(errors: Errors, term: Json, path: str, check_values: bool = True) -> None:
    for i, expression in enumerate(term.get("matchExpressions") or ()):
        _requirement(errors, expression, f"{path}.matchExpressions[{i}]", check_values)
    for i, expression in enumerate(term.get("matchFields") or ()):
        _field_requirement(errors, expression, f"{path}.matchFields[{i}]")


def node_selector(errors: Errors, selector: Json, path: str) -> None:
    """A NodeSelector: at least one term."""
    terms = selector.get("nodeSelectorTerms") or []
    if not terms:
        text = "must have at least one node selector term"
        errors.append(required(f"{path}.nodeSelectorTerms", text))
    for i, term in enumerate(terms):
        node_selector_term(errors, term, f"{path}.nodeSelectorTerms[{i}]")


def _weight(errors: Errors, term: Json, path: str) -> None:
    weight = term.get("weight") or 0
    if not 0 < weight <= 100:
        errors.append(invalid(f"{path}.weight", weight, "must be in the range 1-100"))


_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def _node_affinity(errors: Errors, affinity: Json, path: str) -> None:
    if (selector := affinity.get(_REQUIRED)) is not None:
        node_selector(errors, selector, f"{path}.{_REQUIRED}")
    for i, term in enumerate(affinity.get(_PREFERRED) or ()):
        here = f"{path}.{_PREFERRED}[{i}]"
        _weight(errors, term, here)
        node_selector_term(errors, term.get("preference") or {}, f"{here}.preference", False)


def _label_keys(errors: Errors, keys: list[str], selector: Json | None, path: str) -> None:
    if keys and selector is None:
        errors.append(forbidden(path, "must not be specified when labelSelector is not set"))
        return
    for i, key in enumerate(keys):
        checks.qualified_name(errors, key, f"{path}[{i}]")


def _match_label_keys(errors: Errors, term: Json, path: str) -> None:
    match, mismatch = term.get("matchLabelKeys") or [], term.get("mismatchLabelKeys") or []
    if not match and not mismatch:
        return
    selector = term.get("labelSelector")
    _label_keys(errors, match, selector, f"{path}.matchLabelKeys")
    _label_keys(errors, mismatch, selector, f"{path}.mismatchLabelKeys")
    if selector is not None:
        known = set(selector.get("matchLabels") or ())
        for expression in selector.get("matchExpressions") or ():
            key = expression.get("key")
            if key in match and key in known:
                text = "exists in both matchLabelKeys and labelSelector"
                errors.append(invalid(f"{path}[{match.index(key)}]", key, text))
            known.add(key)
    for i, key in enumerate(match):
        if key in mismatch:
            text = "exists in both matchLabelKeys and mismatchLabelKeys"
            errors.append(invalid(f"{path}.matchLabelKeys[{i}]", key, text))


def _pod_affinity_term(errors: Errors, term: Json, path: str) -> None:
    checks.label_selector(errors, term.get("labelSelector"), f"{path}.labelSelector")
    checks.label_selector(errors, term.get("namespaceSelector"), f"{path}.namespaceSelector")
    for namespace in term.get("namespaces") or ():
        checks.dns_label(errors, namespace, f"{path}.namespace")
    _match_label_keys(errors, term, path)
    key = term.get("topologyKey") or ""
    if not key:
        errors.append(required(f"{path}.topologyKey", "can not be empty"))
    checks.qualified_name(errors, key, f"{path}.topologyKey")


def _pod_affinity(errors: Errors, affinity: Json, path: str) -> None:
    for i, term in enumerate(affinity.get(_REQUIRED) or ()):
        _pod_affinity_term(errors, term, f"{path}.{_REQUIRED}[{i}]")
    for i, weighted in enumerate(affinity.get(_PREFERRED) or ()):
        here = f"{path}.{_PREFERRED}[{i}]"
        _weight(errors, weighted, here)
        _pod_affinity_term(errors, weighted.get("podAffinityTerm") or {}, f"{here}.podAffinityTerm")


def affinity(errors: Errors, found: Json, path: str) -> None:
    if (node := found.get("nodeAffinity")) is not None:
        _node_affinity(errors, node, f"{path}.nodeAffinity")
    for field in ("podAffinity", "podAntiAffinity"):
        if (pod := found.get(field)) is not None:
            _pod_affinity(errors, pod, f"{path}.{field}")


_OPERATORS = ("Equal", "Exists")
_FOR_ALL_KEYS = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'


def tolerations(errors: Errors, found: Iterable[Json], path: str) -> None:
    for i, toleration in enumerate(found):
        key, operator = toleration.get("key"), toleration.get("operator") or ""
        value, effect = toleration.get("value") or "", toleration.get("effect") or ""
        if key:
            checks.qualified_name(errors, key, f"{path}[{i}].key")
        elif operator != "Exists":
            errors.append(invalid(f"{path}[{i}].operator", operator, _FOR_ALL_KEYS))
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            text = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            errors.append(invalid(f"{path}[{i}].effect", effect, text))
        if operator in ("", "Equal"):
            if wrong := checks.label_value_texts(value):
                errors.append(invalid(f"{path}[{i}].operator", value, ";".join(wrong)))
        elif operator == "Exists":
            if value:
                text = "value must be empty when `operator` is 'Exists'"
                errors.append(invalid(f"{path}[{i}].operator", value, text))
        else:
            errors.append(unsupported(f"{path}[{i}].operator", operator, _OPERATORS))
        if effect and effect not in TAINT_EFFECTS:
            errors.append(unsupported(f"{path}[{i}].effect", effect, TAINT_EFFECTS))


def _toleration_identity(toleration: Json) -> Json:
    return {k: v for k, v in toleration.items() if k != "tolerationSeconds" and v not in (None, "")}


def only_added_tolerations(errors: Errors, new: list[Json], old: list[Json], path: str) -> None:
    """An update may add tolerations and change tolerationSeconds."""
    if new == old:
        return
    known = [_toleration_identity(toleration) for toleration in new]
    if any(_toleration_identity(toleration) not in known for toleration in old):
        text = "existing toleration can not be modified except its tolerationSeconds"
        errors.append(forbidden(path, text))
    else:
        tolerations(errors, new, path)


def taints(errors: Errors, found: Iterable[Json], path: str) -> None:
    """Taints of a node. Source: validateNodeTaints."""
    seen: set[tuple[str, str]] = set()
    for i, taint in enumerate(found):
        key, value, effect = taint.get("key") or "", taint.get("value") or "", taint.get("effect") or ""
        checks.qualified_name(errors, key, f"{path}[{i}].key")
        if wrong := checks.label_value_texts(value):
            errors.append(invalid(f"{path}[{i}].value", value, ";".join(wrong)))
        if effect not in TAINT_EFFECTS:
            checks.one_of(errors, effect, TAINT_EFFECTS, f"{path}[{i}].effect")
        if (key, effect) in seen:
            text = "taints must be unique by key and effect pair"
            errors.append(FieldError("Duplicate value", f"{path}[{i}]", taint, text))
        seen.add((key, effect))


def scheduling_gates(errors: Errors, gates: list[Json], path: str) -> None:
    seen: set[str] = set()
    for i, gate in enumerate(gates):
        name = gate.get("name") or ""
        checks.qualified_name(errors, name, f"{path}[{i}]")
        if name in seen:
            errors.append(duplicate(f"{path}[{i}]", name))
        seen.add(name)


def only_deleted_gates(errors: Errors, new: list[Json], old: list[Json], path: str) -> None:
    known = {gate.get("name") for gate in old}
    for i, gate in enumerate(new):
        if gate.get("name") not in known:
            text = f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'"
            errors.append(forbidden(f"{path}[{i}].name", text))


_ACTIONS = ("DoNotSchedule", "ScheduleAnyway")
_INCLUSION = ("Honor", "Ignore")


def topology_spread(errors: Errors, constraints: list[Json], path: str) -> None:
    for i, constraint in enumerate(constraints):
        here = f"{path}[{i}]"
        skew, key = constraint.get("maxSkew") or 0, constraint.get("topologyKey") or ""
        action = constraint.get("whenUnsatisfiable") or ""
        if skew <= 0:
            errors.append(invalid(f"{here}.maxSkew", skew, checks.NOT_POSITIVE))
        if not key:
            errors.append(required(f"{here}.topologyKey", "can not be empty"))
        if action not in _ACTIONS:
            errors.append(unsupported(f"{here}.whenUnsatisfiable", action, _ACTIONS))
        pairs = [(c.get("topologyKey"), c.get("whenUnsatisfiable")) for c in constraints[i + 1 :]]
        if (key, action) in pairs:
            where = f"{here}.{{topologyKey, whenUnsatisfiable}}"
            errors.append(duplicate(where, f"{{{key}, {action}}}"))
        _min_domains(errors, constraint.get("minDomains"), action, f"{here}.minDomains")
        for field in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            policy = constraint.get(field)
            if policy is not None and policy not in _INCLUSION:
                errors.append(unsupported(f"{here}.{field}", policy, _INCLUSION))
        _spread_label_keys(errors, constraint, f"{here}.matchLabelKeys")
        checks.label_selector(errors, constraint.get("labelSelector"), f"{here}.labelSelector")


def _min_domains(errors: Errors, domains: int | None, action: str, path: str) -> None:
    if domains is None:
        return
    if domains <= 0:
        errors.append(invalid(path, domains, checks.NOT_POSITIVE))
    if action != "DoNotSchedule":
        text = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
        errors.append(invalid(path, domains, text))


def _spread_label_keys(errors: Errors, constraint: Json, path: str) -> None:
    keys = constraint.get("matchLabelKeys") or []
    if not keys:
        return
    selector = constraint.get("labelSelector")
    if selector is None:
        errors.append(forbidden(path, "must not be specified when labelSelector is not set"))
    known = set((selector or {}).get("matchLabels") or ())
    for i, key in enumerate(keys):
        checks.qualified_name(errors, key, f"{path}[{i}]")
        if key in known:
            text = "exists in both matchLabelKeys and labelSelector"
            errors.append(invalid(f"{path}[{i}]", key, text))


# -- what creation adds -----------------------------------------------------------------------------


def _with_keys(selector: Json, keys: Iterable[str], operator: str, labels: Json) -> None:
    for key in keys:
        if key in labels:
            expression = {"key": key, "operator": operator, "values": [labels[key]]}
            selector.setdefault("matchExpressions", []).append(expression)


def merge_label_keys(spec: Json, labels: Json) -> None:
    """Turn matchLabelKeys and mismatchLabelKeys into requirements on a pod that is being created.

    Source: k8s v1.36 pkg/registry/core/pod/strategy.go (mutatePodAffinity, mutateTopologySpreadConstraints).
    """
    found = spec.get("affinity") or {}
    terms = []
    for field in ("podAffinity", "podAntiAffinity"):
        pod = found.get(field) or {}
        terms += [weighted.get("podAffinityTerm") or {} for weighted in pod.get(_PREFERRED) or ()]
        terms += pod.get(_REQUIRED) or ()
    terms += spec.get("topologySpreadConstraints") or ()
    for term in terms:
        selector = term.get("labelSelector")
        if selector is not None:
            _with_keys(selector, term.get("matchLabelKeys") or (), "In", labels)
            _with_keys(selector, term.get("mismatchLabelKeys") or (), "NotIn", labels)


# -- what a gated pod may change --------------------------------------------------------------------


def selector_mutation(errors: Errors, new: Json, old: Json, path: str) -> None:
    if any(new.get(key) != value for key, value in old.items()):
        text = "only additions to spec.nodeSelector are allowed (no mutations or deletions)"
        errors.append(invalid(path, new or None, text))


def node_affinity_mutation(errors: Errors, new: Json, old: Json, path: str) -> None:
    """An update of a gated pod may only make its node affinity stricter."""
    old_terms = (old.get(_REQUIRED) or {}).get("nodeSelectorTerms") or []
    new_terms = (new.get(_REQUIRED) or {}).get("nodeSelectorTerms") or []
    where = f"{path}.{_REQUIRED}.nodeSelectorTerms"
    if not old_terms:
        return
    if len(old_terms) != len(new_terms):
        text = "no additions/deletions to non-empty NodeSelectorTerms list are allowed"
        errors.append(invalid(where, new_terms or None, text))
        return
    for i, (new_term, old_term) in enumerate(zip(new_terms, old_terms, strict=True)):
        if not _only_added(new_term, old_term):
            text = "only additions are allowed (no mutations or deletions)"
            errors.append(invalid(f"{where}[{i}]", new_term, text))


def _only_added(new: Json, old: Json) -> bool:
    fields = ("matchExpressions", "matchFields")
    if not any(old.get(field) for field in fields):
        return not any(new.get(field) for field in fields)
    for field in fields:
        before, after = old.get(field) or [], new.get(field) or []
        if not checks.semantic_equal(after[: len(before)], before):
            return False
    return True
