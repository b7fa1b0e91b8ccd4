"""flowcontrol.apiserver.k8s.io: FlowSchema and PriorityLevelConfiguration.

Source: k8s v1.36 pkg/apis/flowcontrol/validation/validation.go, pkg/apis/flowcontrol/v1/defaults.go.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from kcp.apis.core import checks
from kcp.apis.core.checks import Errors
from kcp.apis.kind import Column, Json, Printer, Strategy
from kcp.apis.preparing import STATUS_AND_METADATA_RESETS, keep_metadata
from kcp.apis.printing import AGE, NAME, NONE, age, columns, name_of
from kcp.machinery import names
from kcp.machinery.errors import FieldError, duplicate, forbidden, invalid, required, unsupported

EXEMPT, CATCH_ALL = "exempt", "catch-all"
MAX_PRECEDENCE = 10_000
MAX_QUEUES = 10_000_000
MAX_HASH_BITS = 60

_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch")
_DISTINGUISHERS = ("ByNamespace", "ByUser")
_SUBJECT_KINDS = ("Group", "ServiceAccount", "User")
_LEVEL_TYPES = ("Exempt", "Limited")
_RESPONSE_TYPES = ("Queue", "Reject")
_NAMESPACE_INTRO = "each member of this list must be '*' or a DNS-1123 label; "

_ALL_RESOURCES: Json = {
    "verbs": ["*"],
    "apiGroups": ["*"],
    "resources": ["*"],
    "clusterScope": True,
    "namespaces": ["*"],
}
_ALL_PATHS: Json = {"verbs": ["*"], "nonResourceURLs": ["*"]}


def _everything_of(*groups: str) -> list[Json]:
    subjects = [{"kind": "Group", "group": {"name": group}} for group in groups]
    return [{"subjects": subjects, "resourceRules": [_ALL_RESOURCES], "nonResourceRules": [_ALL_PATHS]}]


MANDATORY_FLOW_SCHEMAS: Mapping[str, Json] = {
    EXEMPT: {
        "priorityLevelConfiguration": {"name": EXEMPT},
        "matchingPrecedence": 1,
        "rules": _everything_of("system:masters"),
    },
    CATCH_ALL: {
        "priorityLevelConfiguration": {"name": CATCH_ALL},
        "matchingPrecedence": MAX_PRECEDENCE,
        "distinguisherMethod": {"type": "ByUser"},
        "rules": _everything_of("system:unauthenticated", "system:authenticated"),
    },
}
"""Name -> spec that it must have. Source: pkg/apis/flowcontrol/bootstrap/default.go."""
MANDATORY_PRIORITY_LEVELS: Mapping[str, Json] = {
    EXEMPT: {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}},
    CATCH_ALL: {
        "type": "Limited",
        "limited": {"nominalConcurrencyShares": 5, "limitResponse": {"type": "Reject"}, "lendablePercent": 0},
    },
}


def _default_flow_schema(schema: Json) -> None:
    spec = schema.setdefault("spec", {})
    if not spec.get("matchingPrecedence"):
        spec["matchingPrecedence"] = 1000
    for rules in spec.get("rules") or ():
        for rule in rules.get("resourceRules") or ():
            rule.setdefault("namespaces", None)


def _fill(obj: Json, defaults: Mapping[str, int]) -> None:
    for field, value in defaults.items():
        if obj.get(field) is None:
            obj[field] = value


def _default_priority_level(level: Json) -> None:
    spec = level.setdefault("spec", {})
    exempt, limited = spec.get("exempt"), spec.get("limited")
    if exempt is not None:
        _fill(exempt, {"nominalConcurrencyShares": 0, "lendablePercent": 0})
    if limited is not None:
        _fill(limited, {"nominalConcurrencyShares": 30, "lendablePercent": 0})
        queuing = limited.setdefault("limitResponse", {}).get("queuing")
        if queuing is not None:
            for field, value in (("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)):
                queuing[field] = queuing.get(field) or value


def _check_account(errors: Errors, subject: Json, path: str) -> None:
    name, namespace = subject.get("name") or "", subject.get("namespace") or ""
    if not name:
        errors.append(required(f"{path}.name"))
    elif name != "*":
        checks.texts(errors, names.is_dns1123_subdomain(name), name, f"{path}.name")
    if namespace:
        checks.texts(errors, names.is_dns1123_label(namespace), namespace, f"{path}.namespace")
    else:
        errors.append(required(f"{path}.namespace", "must specify namespace for service account"))


def _check_named(errors: Errors, subject: Json, path: str) -> None:
    if not subject.get("name"):
        errors.append(required(f"{path}.name"))


_SUBJECTS: Mapping[str, tuple[str, Callable[[Errors, Json, str], None]]] = {
    "ServiceAccount": ("serviceAccount", _check_account),
    "User": ("user", _check_named),
    "Group": ("group", _check_named),
}


def _check_subject(errors: Errors, subject: Json, path: str) -> None:
    kind = subject.get("kind") or ""
    if kind not in _SUBJECTS:
        errors.append(unsupported(f"{path}.kind", kind, _SUBJECT_KINDS))
        return
    field, check = _SUBJECTS[kind]
    if subject.get(field) is None:
        errors.append(required(f"{path}.{field}", f"{field} is required when subject kind is '{kind}'"))
    else:
        check(errors, subject[field], f"{path}.{field}")
    for other, (foreign, _) in _SUBJECTS.items():
        if other != kind and subject.get(foreign) is not None:
            text = f"{foreign} is forbidden when subject kind is not '{other}'"
            errors.append(forbidden(f"{path}.{foreign}", text))


def _check_verbs(errors: Errors, verbs: Sequence[str], path: str) -> None:
    if not verbs:
        errors.append(required(f"{path}.verbs", "verbs must contain at least one value"))
    elif "*" in verbs:
        if len(verbs) > 1:
            text = "if '*' is present, must not specify other verbs"
            errors.append(invalid(f"{path}.verbs", verbs, text))
    elif any(verb not in _VERBS for verb in verbs):
        errors.append(unsupported(f"{path}.verbs", verbs, _VERBS))


def _path_fault(path: str) -> str:
    """Why a non-resource URL is malformed; empty when it is not."""
    if not path:
        return "must not be empty"
    if path == "/":
        return ""
    if not path.startswith("/"):
        return "must start with slash"
    if " " in path:
        return "must not contain white-space"
    if "//" in path:
        return "must not contain double slash"
    if path.count("*") > 1 or ("*" in path and not path.endswith("/*")):
        return "wildcard can only do suffix matching"
    return ""


def _check_path_rule(errors: Errors, rule: Json, path: str) -> None:
    _check_verbs(errors, rule.get("verbs") or [], path)
    where, urls = f"{path}.nonResourceURLs", rule.get("nonResourceURLs") or []
    if not urls:
        errors.append(required(where, "nonResourceURLs must contain at least one value"))
    elif "*" in urls:
        if len(urls) > 1:
            text = "if '*' is present, must not specify other non-resource URLs"
            errors.append(invalid(where, urls, text))
    else:
        for index, url in enumerate(urls):
            if fault := _path_fault(url):
                errors.append(invalid(f"{where}[{index}]", url, fault))


def _check_namespaces(errors: Errors, rule: Json, path: str) -> None:
    where, found = f"{path}.namespaces", rule.get("namespaces") or []
    if not found and not rule.get("clusterScope"):
        text = "resource rules that are not cluster scoped must supply at least one namespace"
        errors.append(required(where, text))
    elif "*" in found:
        if len(found) > 1:
            errors.append(invalid(where, found, "if '*' is present, must not specify other namespaces"))
    else:
        for index, namespace in enumerate(found):
            faults = [_NAMESPACE_INTRO + fault for fault in names.is_dns1123_label(namespace)]
            checks.texts(errors, faults, namespace, f"{where}[{index}]")


def _check_resource_rule(errors: Errors, rule: Json, path: str) -> None:
    _check_verbs(errors, rule.get("verbs") or [], path)
    for field, one, others in (
        ("apiGroups", "api group", "api groups"),
        ("resources", "resource", "resources"),
    ):
        found = rule.get(field) or []
        if not found:
            errors.append(required(f"{path}.{field}", f"resource rules must supply at least one {one}"))
        elif len(found) > 1 and "*" in found:
            text = f"if '*' is present, must not specify other {others}"
            errors.append(invalid(f"{path}.{field}", found, text))
    _check_namespaces(errors, rule, path)


def _check_rule(errors: Errors, rule: Json, path: str) -> None:
    subjects, resource_rules, path_rules = (
        rule.get(field) or [] for field in ("subjects", "resourceRules", "nonResourceRules")
    )
    if not subjects:
        errors.append(required(f"{path}.subjects", "subjects must contain at least one value"))
    for index, subject in enumerate(subjects):
        _check_subject(errors, subject, f"{path}.subjects[{index}]")
    if not resource_rules and not path_rules:
        text = "at least one of resourceRules and nonResourceRules has to be non-empty"
        errors.append(required(path, text))
    for index, entry in enumerate(resource_rules):
        _check_resource_rule(errors, entry, f"{path}.resourceRules[{index}]")
    for index, entry in enumerate(path_rules):
        _check_path_rule(errors, entry, f"{path}.nonResourceRules[{index}]")


def _check_precedence(errors: Errors, name: str, precedence: int) -> None:
    path = "spec.matchingPrecedence"
    if precedence <= 0:
        errors.append(invalid(path, precedence, "must be a positive value"))
    if precedence > MAX_PRECEDENCE:
        errors.append(invalid(path, precedence, f"must not be greater than {MAX_PRECEDENCE}"))
    if precedence == 1 and name != EXEMPT:
        text = "only the schema named 'exempt' may have matchingPrecedence 1"
        errors.append(invalid(path, precedence, text))


def _check_condition_types(errors: Errors, obj: Json) -> None:
    seen: set[str] = set()
    for index, entry in enumerate((obj.get("status") or {}).get("conditions") or ()):
        path, kind = f"status.conditions[{index}].type", entry.get("type") or ""
        if kind in seen:
            errors.append(duplicate(path, kind))
        seen.add(kind)
        if not kind:
            errors.append(required(path, "must not be empty"))


def validate_flow_schema(schema: Json) -> list[FieldError]:
    errors: Errors = []
    name, spec = schema["metadata"].get("name", ""), schema.get("spec") or {}
    _check_precedence(errors, name, spec.get("matchingPrecedence") or 0)
    method = spec.get("distinguisherMethod")
    if method is not None and method.get("type") not in _DISTINGUISHERS:
        errors.append(unsupported("spec.distinguisherMethod.type", method, _DISTINGUISHERS))
    level = (spec.get("priorityLevelConfiguration") or {}).get("name") or ""
    if level:
        checks.texts(errors, names.is_dns1123_subdomain(level), level, "spec.priorityLevelConfiguration.name")
    else:
        errors.append(required("spec.priorityLevelConfiguration.name", "must reference a priority level"))
    for index, rule in enumerate(spec.get("rules") or ()):
        _check_rule(errors, rule, f"spec.rules[{index}]")
    mandatory = MANDATORY_FLOW_SCHEMAS.get(name)
    if mandatory is not None and not checks.semantic_equal(spec, mandatory):
        errors.append(invalid("spec", spec, f"spec of '{name}' must equal the fixed value"))
    _check_condition_types(errors, schema)
    return errors


def validate_conditions_status(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    _check_condition_types(errors, new)
    return errors


def _check_shares(errors: Errors, part: Json, path: str) -> None:
    shares, lendable = part.get("nominalConcurrencyShares"), part.get("lendablePercent")
    if shares is not None and shares < 0:
        errors.append(invalid(f"{path}.nominalConcurrencyShares", shares, "must be a non-negative integer"))
    if lendable is not None and not 0 <= lendable <= 100:
        errors.append(invalid(f"{path}.lendablePercent", lendable, "must be between 0 and 100, inclusive"))


def _entropy_bits(queues: int, hand: int) -> int:
    """How many bits of hash it takes to deal `hand` of `queues` cards. Source: util/shufflesharding."""
    return math.ceil(sum(math.log2(queues - index) for index in range(hand)))


def _check_queuing(errors: Errors, queuing: Json, path: str) -> None:
    limit, queues, hand = (queuing.get(field) or 0 for field in ("queueLengthLimit", "queues", "handSize"))
    if limit <= 0:
        errors.append(invalid(f"{path}.queueLengthLimit", limit, "must be positive"))
    if queues <= 0:
        errors.append(invalid(f"{path}.queues", queues, "must be positive"))
    elif queues > MAX_QUEUES:
        errors.append(invalid(f"{path}.queues", queues, f"must not be greater than {MAX_QUEUES}"))
    where = f"{path}.handSize"
    if hand <= 0:
        errors.append(invalid(where, hand, "must be positive"))
    elif hand > queues:
        errors.append(invalid(where, hand, f"should not be greater than queues ({queues})"))
    elif _entropy_bits(queues, hand) > MAX_HASH_BITS:
        text = f"required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {MAX_HASH_BITS}"
        errors.append(invalid(where, hand, text))


def _check_response(errors: Errors, response: Json, path: str) -> None:
    kind, queuing = response.get("type") or "", response.get("queuing")
    if kind not in _RESPONSE_TYPES:
        errors.append(unsupported(f"{path}.type", kind, _RESPONSE_TYPES))
    elif kind == "Reject" and queuing is not None:
        text = "must be nil if limited.limitResponse.type is not Limited"
        errors.append(forbidden(f"{path}.queuing", text))
    elif kind == "Queue" and queuing is None:
        text = "must not be empty if limited.limitResponse.type is Limited"
        errors.append(required(f"{path}.queuing", text))
    elif kind == "Queue":
        _check_queuing(errors, queuing or {}, f"{path}.queuing")


def _check_limited(errors: Errors, limited: Json, path: str) -> None:
    _check_shares(errors, limited, path)
    _check_response(errors, limited.get("limitResponse") or {}, f"{path}.limitResponse")
    borrowing = limited.get("borrowingLimitPercent")
    if borrowing is not None and borrowing < 0:
        text = "if specified, must be a non-negative integer"
        errors.append(invalid(f"{path}.borrowingLimitPercent", borrowing, text))


def _check_level_type(errors: Errors, name: str, spec: Json) -> None:
    kind, exempt, limited = spec.get("type") or "", spec.get("exempt"), spec.get("limited")
    if (name == EXEMPT) != (kind == "Exempt"):
        errors.append(invalid("spec.type", kind, "type must be 'Exempt' if and only if name is 'exempt'"))
    if kind not in _LEVEL_TYPES:
        errors.append(unsupported("spec.type", kind, _LEVEL_TYPES))
    elif kind == "Exempt":
        if limited is not None:
            errors.append(forbidden("spec.limited", "must be nil if the type is not Limited"))
        if exempt is not None:
            _check_shares(errors, exempt, "spec.exempt")
    else:
        if exempt is not None:
            errors.append(forbidden("spec.exempt", "must be nil if the type is Limited"))
        if limited is None:
            errors.append(required("spec.limited", "must not be empty when type is Limited"))
        else:
            _check_limited(errors, limited, "spec.limited")


def _check_mandatory_level(errors: Errors, name: str, spec: Json) -> None:
    """`exempt` may be given other shares; nothing else of the mandatory levels may change."""
    mandatory = MANDATORY_PRIORITY_LEVELS.get(name)
    if mandatory is None:
        return
    if name == EXEMPT:
        own = {key: value for key, value in spec.items() if key != "exempt"}
        if not checks.semantic_equal(own, {"type": "Exempt"}):
            text = f"spec of '{name}' except the 'spec.exempt' field must equal the fixed value"
            errors.append(invalid("spec", spec, text))
    elif not checks.semantic_equal(spec, mandatory):
        errors.append(invalid("spec", spec, f"spec of '{name}' must equal the fixed value"))


def validate_priority_level(level: Json) -> list[FieldError]:
    errors: Errors = []
    name, spec = level["metadata"].get("name", ""), level.get("spec") or {}
    _check_level_type(errors, name, spec)
    _check_mandatory_level(errors, name, spec)
    _check_condition_types(errors, level)
    return errors


def _flow_schema_cells(schema: Json, now: datetime) -> list[Any]:
    spec = schema.get("spec") or {}
    method = spec.get("distinguisherMethod")
    conditions = (schema.get("status") or {}).get("conditions") or ()
    dangling = next((entry.get("status", "") for entry in conditions if entry.get("type") == "Dangling"), "?")
    return [
        name_of(schema),
        (spec.get("priorityLevelConfiguration") or {}).get("name", ""),
        spec.get("matchingPrecedence", 0),
        NONE if method is None else method.get("type", ""),
        age(schema, now),
        dangling,
    ]


def _priority_level_cells(level: Json, now: datetime) -> list[Any]:
    spec = level.get("spec") or {}
    limited = spec.get("limited")
    shares: Any = NONE if limited is None else limited.get("nominalConcurrencyShares", 0)
    queuing = ((limited or {}).get("limitResponse") or {}).get("queuing")
    fields = ("queues", "handSize", "queueLengthLimit")
    sizes = [NONE if queuing is None else queuing.get(field, 0) for field in fields]
    return [name_of(level), spec.get("type", ""), shares, *sizes, age(level, now)]


STRATEGIES: Mapping[str, Strategy] = {
    "FlowSchema": Strategy(
        default=_default_flow_schema,
        prepare_status=keep_metadata,
        validate_create=validate_flow_schema,
        validate_update=lambda new, old: validate_flow_schema(new),
        validate_status=validate_conditions_status,
        reset_fields=STATUS_AND_METADATA_RESETS,
    ),
    "PriorityLevelConfiguration": Strategy(
        default=_default_priority_level,
        prepare_status=keep_metadata,
        validate_create=validate_priority_level,
        validate_update=lambda new, old: validate_priority_level(new),
        validate_status=validate_conditions_status,
        reset_fields=STATUS_AND_METADATA_RESETS,
    ),
}
PRINTERS: Mapping[str, Printer] = {
    "FlowSchema": Printer(
        columns(
            NAME,
            "PriorityLevel",
            "MatchingPrecedence",
            "DistinguisherMethod",
            AGE,
            Column("MissingPL", description="references a broken or non-existent PriorityLevelConfiguration"),
        ),
        _flow_schema_cells,
    ),
    "PriorityLevelConfiguration": Printer(
        columns(NAME, "Type", "NominalConcurrencyShares", "Queues", "HandSize", "QueueLengthLimit", AGE),
        _priority_level_cells,
    ),
}
