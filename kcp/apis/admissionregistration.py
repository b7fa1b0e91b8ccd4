"""admissionregistration.k8s.io: webhook configurations, admission policies and their bindings.

CEL expressions are checked for presence here; whoever compiles them reports what is wrong inside.
Source: k8s v1.36 pkg/apis/admissionregistration/validation/validation.go, pkg/apis/admissionregistration/v1/defaults.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from kcp.apis.admission_rules import check_choice, check_match_conditions, check_rule, default_rules
from kcp.apis.core import checks
from kcp.apis.core.checks import Errors
from kcp.apis.kind import Column, Json, Printer, Strategy
from kcp.apis.preparing import STATUS_AND_METADATA_RESETS, keep_metadata
from kcp.apis.printing import AGE, NAME, UNSET, age, columns, format_label_selector, name_of
from kcp.apis.webhook_clients import (
    REVIEW_VERSIONS,
    check_client,
    check_review_versions,
    default_client,
    has_known_version,
)
from kcp.machinery import names
from kcp.machinery.errors import FieldError, duplicate, forbidden, invalid, required, unsupported
from kcp.machinery.gvk import GroupVersion
from kcp.machinery.meta import validate_conditions

MAX_AUDIT_ANNOTATIONS = 20
MAX_AUDIT_EXPRESSION_BYTES = 5 * 1024

_FAILURE_POLICIES = ("Fail", "Ignore")
_MATCH_POLICIES = ("Equivalent", "Exact")
_SIDE_EFFECTS = ("None", "NoneOnDryRun", "Some", "Unknown")
_NO_SIDE_EFFECTS = ("None", "NoneOnDryRun")
_REINVOCATION = ("IfNeeded", "Never")
_REASONS = ("Forbidden", "Invalid", "RequestEntityTooLarge")
_ACTIONS = ("Audit", "Deny", "Warn")
_NOT_FOUND_ACTIONS = ("Deny", "Allow")
_MUTATING_OPERATIONS = ("*", "CONNECT", "CREATE", "UPDATE")
_CEL_RESERVED = frozenset(
    [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ]
)
_CEL_IDENTIFIER = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")


def _fill(obj: Json, defaults: Mapping[str, Any]) -> None:
    for field, value in defaults.items():
        if obj.get(field) is None:
            obj[field] = {} if value == {} else value


_WEBHOOK_DEFAULTS: Mapping[str, Any] = {
    "failurePolicy": "Fail",
    "matchPolicy": "Equivalent",
    "namespaceSelector": {},
    "objectSelector": {},
    "timeoutSeconds": 10,
}
_MATCH_DEFAULTS: Mapping[str, Any] = {
    "matchPolicy": "Equivalent",
    "namespaceSelector": {},
    "objectSelector": {},
}


def _default_validating(configuration: Json) -> None:
    for hook in configuration.get("webhooks") or ():
        _fill(hook, _WEBHOOK_DEFAULTS)
        default_client(hook.get("clientConfig"))
        default_rules(hook.get("rules"))


def _default_mutating(configuration: Json) -> None:
    _default_validating(configuration)
    for hook in configuration.get("webhooks") or ():
        _fill(hook, {"reinvocationPolicy": "Never"})


def _default_match(match: Json | None) -> None:
    if match is not None:
        _fill(match, _MATCH_DEFAULTS)
        default_rules(match.get("resourceRules"))
        default_rules(match.get("excludeResourceRules"))


def _default_policy(policy: Json) -> None:
    spec = policy.setdefault("spec", {})
    _fill(spec, {"failurePolicy": "Fail"})
    _default_match(spec.get("matchConstraints"))


def _default_binding(binding: Json) -> None:
    _default_match(binding.setdefault("spec", {}).get("matchResources"))


def _check_hook(errors: Errors, hook: Json, path: str, *, side_effects: Sequence[str]) -> None:
    errors += names.is_fully_qualified_name(hook.get("name") or "", f"{path}.name")
    for index, rule in enumerate(hook.get("rules") or ()):
        check_rule(errors, rule, f"{path}.rules[{index}]")
    check_choice(errors, hook, "failurePolicy", _FAILURE_POLICIES, path)
    check_choice(errors, hook, "matchPolicy", _MATCH_POLICIES, path)
    if hook.get("sideEffects") is None:
        errors.append(required(f"{path}.sideEffects", f"must specify one of {', '.join(side_effects)}"))
    check_choice(errors, hook, "sideEffects", side_effects, path)
    timeout = hook.get("timeoutSeconds")
    if timeout is not None and not 1 <= timeout <= 30:
        text = "the timeout value must be between 1 and 30 seconds"
        errors.append(invalid(f"{path}.timeoutSeconds", timeout, text))
    for field in ("namespaceSelector", "objectSelector"):
        checks.label_selector(errors, hook.get(field), f"{path}.{field}")
    check_choice(errors, hook, "reinvocationPolicy", _REINVOCATION, path)
    check_client(errors, hook.get("clientConfig") or {}, f"{path}.clientConfig")
    check_match_conditions(errors, hook.get("matchConditions") or [], f"{path}.matchConditions")


def _hooks(configuration: Json | None) -> list[Json]:
    found: list[Json] = (configuration or {}).get("webhooks") or []
    return found


def _check_configuration(configuration: Json, old: Json | None) -> list[FieldError]:
    """What an older object already did may stay."""
    errors: Errors = []
    before = _hooks(old)
    quiet = all(hook.get("sideEffects") in _NO_SIDE_EFFECTS for hook in before)
    known = all(has_known_version(hook["admissionReviewVersions"]) for hook in before if hook.get("admissionReviewVersions"))  # fmt: skip
    unique = len({hook.get("name") for hook in before}) == len(before)
    missing = f"must specify one of {', '.join(REVIEW_VERSIONS)}"
    seen: set[str] = set()
    for index, hook in enumerate(_hooks(configuration)):
        path, name = f"webhooks[{index}]", hook.get("name") or ""
        _check_hook(errors, hook, path, side_effects=_NO_SIDE_EFFECTS if quiet else _SIDE_EFFECTS)
        versions = hook.get("admissionReviewVersions") or []
        check_review_versions(
            errors, versions, f"{path}.admissionReviewVersions", strict=known, missing=missing
        )
        if unique and name in seen:
            errors.append(duplicate(f"{path}.name", name))
        seen |= {name} if name else set()
    return errors


def validate_configuration(configuration: Json) -> list[FieldError]:
    return _check_configuration(configuration, None)


def validate_configuration_update(new: Json, old: Json) -> list[FieldError]:
    return _check_configuration(new, old)


def _check_named_rule(errors: Errors, rule: Json, path: str) -> None:
    found = rule.get("resourceNames") or []
    for index, name in enumerate(found):
        where = f"{path}.resourceNames[{index}]"
        checks.texts(errors, names.is_path_segment_name(name), name, where)
        if name in found[:index]:
            errors.append(duplicate(where, name))
    check_rule(errors, rule, path)


def _check_match(errors: Errors, match: Json, path: str) -> None:
    if match.get("matchPolicy") is None:
        errors.append(required(f"{path}.matchPolicy"))
    check_choice(errors, match, "matchPolicy", _MATCH_POLICIES, path)
    for field in ("namespaceSelector", "objectSelector"):
        if match.get(field) is None:
            errors.append(required(f"{path}.{field}"))
        else:
            checks.label_selector(errors, match[field], f"{path}.{field}")
    for field in ("resourceRules", "excludeResourceRules"):
        for index, rule in enumerate(match.get(field) or ()):
            _check_named_rule(errors, rule, f"{path}.{field}[{index}]")


def _check_param_version(errors: Errors, api_version: str, path: str) -> None:
    if not api_version:
        errors.append(required(path))
        return
    try:
        parsed = GroupVersion.parse(api_version)
    except ValueError as error:
        errors.append(invalid(path, api_version, str(error)))
        return
    if parsed.group and (faults := names.is_dns1123_subdomain(parsed.group)):
        errors.append(invalid(path, parsed.group, ",".join(faults)))
    if not parsed.version:
        errors.append(invalid(path, api_version, "version must be specified"))
    elif faults := names.is_dns1035_label(parsed.version):
        errors.append(invalid(path, parsed.version, ",".join(faults)))


def _check_param_kind(errors: Errors, param: Json, path: str) -> None:
    _check_param_version(errors, param.get("apiVersion") or "", f"{path}.apiVersion")
    kind = param.get("kind") or ""
    if not kind:
        errors.append(required(f"{path}.kind"))
    elif faults := names.is_dns1035_label(kind.lower()):
        text = f"may have mixed case, but should otherwise match: {','.join(faults)}"
        errors.append(invalid(f"{path}.kind", kind, text))


def _check_variable(errors: Errors, variable: Json, path: str) -> None:
    name = variable.get("name") or ""
    if not name.strip():
        errors.append(required(f"{path}.name", "name is not specified"))
    elif not _CEL_IDENTIFIER.fullmatch(name) or name in _CEL_RESERVED:
        errors.append(invalid(f"{path}.name", name, "must be a valid CEL identifier"))
    if not (variable.get("expression") or "").strip():
        errors.append(required(f"{path}.expression", "expression is not specified"))


def _check_policy_spec(errors: Errors, spec: Json) -> None:
    """What both kinds of policy share."""
    if spec.get("failurePolicy") is None:
        errors.append(required("spec.failurePolicy"))
    check_choice(errors, spec, "failurePolicy", _FAILURE_POLICIES, "spec")
    if spec.get("paramKind") is not None:
        _check_param_kind(errors, spec["paramKind"], "spec.paramKind")
    match = spec.get("matchConstraints")
    if match is None:
        errors.append(required("spec.matchConstraints"))
    else:
        _check_match(errors, match, "spec.matchConstraints")
        if not match.get("resourceRules"):
            errors.append(required("spec.matchConstraints.resourceRules"))
    check_match_conditions(errors, spec.get("matchConditions") or [], "spec.matchConditions")
    for index, variable in enumerate(spec.get("variables") or ()):
        _check_variable(errors, variable, f"spec.variables[{index}]")


def _check_validation(errors: Errors, validation: Json, path: str) -> None:
    if not (validation.get("expression") or "").strip():
        errors.append(required(f"{path}.expression", "expression is not specified"))
    expression, message = validation.get("messageExpression") or "", validation.get("message") or ""
    if expression and not expression.strip():
        errors.append(invalid(f"{path}.messageExpression", expression, "must be non-empty if specified"))
    if message and not message.strip():
        errors.append(invalid(f"{path}.message", message, "must be non-empty if specified"))
    elif "\n" in message.strip() or "\r" in message.strip():
        errors.append(invalid(f"{path}.message", message, "must not contain line breaks"))
    check_choice(errors, validation, "reason", _REASONS, path)


def _check_audit_annotations(errors: Errors, policy: Json, entries: Sequence[Json]) -> None:
    path, policy_name = "spec.auditAnnotations", policy["metadata"].get("name") or ""
    if len(entries) > MAX_AUDIT_ANNOTATIONS:
        errors.append(
            invalid(path, entries, f"must not have more than {MAX_AUDIT_ANNOTATIONS} auditAnnotations")
        )
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        where, key = f"{path}[{index}]", entry.get("key") or ""
        if policy_name:
            checks.qualified_name(errors, f"{policy_name}/{key}", f"{where}.key")
        else:
            errors.append(invalid(f"{where}.key", key, "requires metadata.name be non-empty"))
        expression = (entry.get("valueExpression") or "").strip()
        if not expression:
            errors.append(required(f"{where}.valueExpression", "valueExpression is not specified"))
        elif len(expression.encode()) > MAX_AUDIT_EXPRESSION_BYTES:
            text = f"must not exceed {MAX_AUDIT_EXPRESSION_BYTES} bytes in length"
            errors.append(required(f"{where}.valueExpression", text))
        if key in seen:
            errors.append(duplicate(f"{where}.key", key))
        seen.add(key)


def validate_validating_policy(policy: Json) -> list[FieldError]:
    errors: Errors = []
    spec = policy.get("spec") or {}
    _check_policy_spec(errors, spec)
    validations, annotations = spec.get("validations") or [], spec.get("auditAnnotations") or []
    if not validations and not annotations:
        text = "validations or auditAnnotations must contain at least one item"
        errors += [required("spec.validations", text), required("spec.auditAnnotations", text)]
    for index, validation in enumerate(validations):
        _check_validation(errors, validation, f"spec.validations[{index}]")
    _check_audit_annotations(errors, policy, annotations)
    return errors


_PATCH_FIELDS: Mapping[str, str] = {"ApplyConfiguration": "applyConfiguration", "JSONPatch": "jsonPatch"}


def _check_mutation(errors: Errors, mutation: Json, path: str) -> None:
    kind = mutation.get("patchType") or ""
    if kind not in _PATCH_FIELDS:
        checks.one_of(errors, kind, tuple(_PATCH_FIELDS), f"{path}.patchType")
        return
    for patch_type, field in _PATCH_FIELDS.items():
        patch, where = mutation.get(field), f"{path}.{field}"
        if patch_type != kind and patch is not None:
            text = f"must not be specified when patchType is {kind}"
            errors.append(invalid(where, f"{{{field}}}", text))
        elif patch_type == kind and patch is None:
            errors.append(required(where, f"must be specified when patchType is {kind}"))
        elif patch_type == kind and not ((patch or {}).get("expression") or "").strip():
            errors.append(required(f"{where}.expression"))


def _check_operations(errors: Errors, match: Json | None, path: str) -> None:
    """What is deleted cannot be mutated."""
    for rule in (match or {}).get("resourceRules") or ():
        for operation in rule.get("operations") or ():
            if operation not in _MUTATING_OPERATIONS:
                where = f"{path}.resourceRules.operations"
                errors.append(unsupported(where, operation, _MUTATING_OPERATIONS))


def validate_mutating_policy(policy: Json) -> list[FieldError]:
    errors: Errors = []
    spec = policy.get("spec") or {}
    _check_policy_spec(errors, spec)
    _check_operations(errors, spec.get("matchConstraints"), "spec.matchConstraints")
    mutations = spec.get("mutations") or []
    if not mutations:
        errors.append(required("spec.mutations", "mutations must contain at least one item"))
    for index, mutation in enumerate(mutations):
        _check_mutation(errors, mutation, f"spec.mutations[{index}]")
    checks.one_of(errors, spec.get("reinvocationPolicy"), _REINVOCATION, "spec.reinvocationPolicy")
    return errors


def _check_param_ref(errors: Errors, reference: Json, path: str) -> None:
    name, selector = reference.get("name") or "", reference.get("selector")
    both = "name and selector are mutually exclusive"
    if name:
        checks.texts(errors, names.is_path_segment_name(name), name, f"{path}.name")
        if selector is not None:
            errors.append(forbidden(f"{path}.name", both))
    if selector is not None:
        checks.label_selector(errors, selector, f"{path}.selector")
        if name:
            errors.append(forbidden(f"{path}.selector", both))
    if not name and selector is None:
        errors.append(required(path, "one of name or selector must be specified"))
    action = reference.get("parameterNotFoundAction")
    checks.one_of(errors, action, _NOT_FOUND_ACTIONS, f"{path}.parameterNotFoundAction")


def _check_actions(errors: Errors, actions: Sequence[str], path: str) -> None:
    for index, action in enumerate(actions):
        if action not in _ACTIONS:
            errors.append(unsupported(f"{path}[{index}]", action, _ACTIONS))
        if action in actions[:index]:
            errors.append(duplicate(f"{path}[{index}]", action))
    if "Deny" in actions and "Warn" in actions:
        text = (
            "must not contain both Deny and Warn (repeating the same validation failure information in the API"
            " response and headers serves no purpose)"
        )
        errors.append(invalid(path, actions, text))
    if not actions:
        errors.append(required(path, "at least one validation action is required"))


def _check_binding(errors: Errors, spec: Json, match_path: str) -> None:
    name = spec.get("policyName") or ""
    if not name:
        errors.append(required("spec.policyName"))
    else:
        checks.texts(errors, names.is_dns1123_subdomain(name), name, "spec.policyName")
    if spec.get("paramRef") is not None:
        _check_param_ref(errors, spec["paramRef"], "spec.paramRef")
    if spec.get("matchResources") is not None:
        _check_match(errors, spec["matchResources"], match_path)


def validate_validating_binding(binding: Json) -> list[FieldError]:
    errors: Errors = []
    spec = binding.get("spec") or {}
    # Kubernetes spells this path without the second r.
    _check_binding(errors, spec, "spec.matchResouces")
    _check_actions(errors, spec.get("validationActions") or [], "spec.validationActions")
    return errors


def validate_mutating_binding(binding: Json) -> list[FieldError]:
    errors: Errors = []
    spec = binding.get("spec") or {}
    _check_binding(errors, spec, "spec.matchResources")
    _check_operations(errors, spec.get("matchResources"), "spec.matchResources")
    return errors


def validate_policy_status(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    status = new.get("status") or {}
    for index, warning in enumerate((status.get("typeChecking") or {}).get("expressionWarnings") or ()):
        path = f"status.typeChecking.expressionWarnings[{index}]"
        for field in ("warning", "fieldRef"):
            if not (warning.get(field) or "").strip():
                errors.append(required(f"{path}.{field}"))
    return errors + validate_conditions(status.get("conditions"), "status.conditions")


def _param_kind(spec: Json) -> str:
    param = spec.get("paramKind")
    return UNSET if param is None else f"{param.get('apiVersion', '')}/{param.get('kind', '')}"


def _param_ref(spec: Json) -> str:
    reference = spec.get("paramRef") or {}
    if reference.get("name"):
        return f"{reference.get('namespace') or '*'}/{reference['name']}"
    return UNSET if reference.get("selector") is None else format_label_selector(reference["selector"])


def _configuration_cells(configuration: Json, now: datetime) -> list[Any]:
    return [name_of(configuration), len(_hooks(configuration)), age(configuration, now)]


def _policy_cells(field: str) -> Callable[[Json, datetime], list[Any]]:
    def cells(policy: Json, now: datetime) -> list[Any]:
        spec = policy.get("spec") or {}
        return [name_of(policy), len(spec.get(field) or ()), _param_kind(spec), age(policy, now)]

    return cells


def _binding_cells(binding: Json, now: datetime) -> list[Any]:
    spec = binding.get("spec") or {}
    return [name_of(binding), spec.get("policyName", ""), _param_ref(spec), age(binding, now)]


def _without_status(
    default: Callable[[Json], None],
    create: Callable[[Json], list[FieldError]],
    update: Callable[[Json, Json], list[FieldError]] | None = None,
) -> Strategy:
    return Strategy(
        default=default,
        validate_create=create,
        validate_update=update or (lambda new, old: create(new)),
        has_status=False,
        allow_unconditional_update=False,
    )


_CONFIGURATION_PRINTER = Printer(
    columns(
        NAME,
        Column(
            "Webhooks",
            "integer",
            description="Webhooks indicates the number of webhooks registered in this configuration",
        ),
        AGE,
    ),
    _configuration_cells,
)
_PARAM_KIND = Column(
    "ParamKind", description="ParamKind specifies the kind of resources used to parameterize this policy"
)
_BINDING_PRINTER = Printer(
    columns(
        NAME,
        Column(
            "PolicyName",
            description="PolicyName indicates the policy definition which the policy binding binded to",
        ),
        Column(
            "ParamRef", description="ParamRef indicates the param resource which sets the configration param"
        ),
        AGE,
    ),
    _binding_cells,
)

STRATEGIES: Mapping[str, Strategy] = {
    "ValidatingWebhookConfiguration": _without_status(
        _default_validating, validate_configuration, validate_configuration_update
    ),
    "MutatingWebhookConfiguration": _without_status(
        _default_mutating, validate_configuration, validate_configuration_update
    ),
    "ValidatingAdmissionPolicy": Strategy(
        default=_default_policy,
        prepare_status=keep_metadata,
        validate_create=validate_validating_policy,
        validate_update=lambda new, old: validate_validating_policy(new),
        validate_status=validate_policy_status,
        allow_unconditional_update=False,
        reset_fields=STATUS_AND_METADATA_RESETS,
    ),
    "ValidatingAdmissionPolicyBinding": _without_status(_default_binding, validate_validating_binding),
    "MutatingAdmissionPolicy": _without_status(_default_policy, validate_mutating_policy),
    "MutatingAdmissionPolicyBinding": _without_status(_default_binding, validate_mutating_binding),
}
PRINTERS: Mapping[str, Printer] = {
    "ValidatingWebhookConfiguration": _CONFIGURATION_PRINTER,
    "MutatingWebhookConfiguration": _CONFIGURATION_PRINTER,
    "ValidatingAdmissionPolicy": Printer(
        columns(
            NAME,
            Column(
                "Validations",
                "integer",
                description="Validations indicates the number of validation rules defined in this configuration",
            ),
            _PARAM_KIND,
            AGE,
        ),
        _policy_cells("validations"),
    ),
    "ValidatingAdmissionPolicyBinding": _BINDING_PRINTER,
    "MutatingAdmissionPolicy": Printer(
        columns(
            NAME,
            Column(
                "Mutations",
                "integer",
                description="Mutation indicates the number of mutations rules defined in this configuration",
            ),
            _PARAM_KIND,
            AGE,
        ),
        _policy_cells("mutations"),
    ),
    "MutatingAdmissionPolicyBinding": _BINDING_PRINTER,
}
