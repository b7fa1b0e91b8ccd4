"""The policies of a Job: what a failed pod means, and when enough indexes have succeeded.

Source: k8s v1.36 pkg/apis/batch/validation/validation.go (validatePodFailurePolicy, validateSuccessPolicy).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from kcp.apis.core import checks
from kcp.apis.core.checks import Errors, Json
from kcp.machinery.errors import (
    OMITTED,
    FieldError,
    duplicate,
    go_quote,
    invalid,
    required,
    too_long,
    too_many,
    unsupported,
)

_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
_OPERATORS = ("In", "NotIn")
_STATUSES = ("False", "True", "Unknown")
_MAX_RULES = 20
_MAX_CODES = 255
_MAX_INDEXES_TEXT = 64 * 1024


def _choice(errors: Errors, value: str, allowed: Sequence[str], path: str) -> None:
    if not value:
        shown = " ".join(map(go_quote, allowed))
        errors.append(required(path, f"valid values: [{shown}]"))
    elif value not in allowed:
        errors.append(unsupported(path, value, allowed))


def pod_failure_policy(errors: Errors, policy: Json, spec: Json, path: str) -> None:
    rules = policy.get("rules") or []
    if len(rules) > _MAX_RULES:
        errors.append(too_many(f"{path}.rules", len(rules), _MAX_RULES))
    pod = (spec.get("template") or {}).get("spec") or {}
    names = {
        container.get("name")
        for field in ("containers", "initContainers")
        for container in pod.get(field) or ()
    }
    for i, rule in enumerate(rules):
        here, action = f"{path}.rules[{i}]", rule.get("action") or ""
        if action == "FailIndex" and spec.get("backoffLimitPerIndex") is None:
            text = "requires the backoffLimitPerIndex to be set"
            errors.append(invalid(f"{here}.action", action, text))
        else:
            _choice(errors, action, _ACTIONS, f"{here}.action")
        codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions") or []
        if codes is not None:
            _exit_codes(errors, codes, names, f"{here}.onExitCodes")
        if conditions:
            _conditions(errors, conditions, f"{here}.onPodConditions")
        if codes is not None and conditions:
            text = "specifying both OnExitCodes and OnPodConditions is not supported"
            errors.append(FieldError("Invalid value", here, OMITTED, text))
        if codes is None and not conditions:
            text = "specifying one of OnExitCodes and OnPodConditions is required"
            errors.append(FieldError("Invalid value", here, OMITTED, text))


def _exit_codes(errors: Errors, codes: Json, names: set[str | None], path: str) -> None:
    operator, values = codes.get("operator") or "", codes.get("values") or []
    _choice(errors, operator, _OPERATORS, f"{path}.operator")
    container = codes.get("containerName")
    if container is not None and container not in names:
        text = "must be one of the container or initContainer names in the pod template"
        errors.append(invalid(f"{path}.containerName", container, text))
    where = f"{path}.values"
    if not values:
        errors.append(invalid(where, values, "at least one value is required"))
    elif len(values) > _MAX_CODES:
        errors.append(too_many(where, len(values), _MAX_CODES))
    for i, value in enumerate(values):
        if operator == "In" and value == 0:
            errors.append(invalid(f"{where}[{i}]", value, "must not be 0 for the In operator"))
        if value in values[:i]:
            errors.append(duplicate(f"{where}[{i}]", value))
    if values != sorted(values):
        errors.append(invalid(where, values, "must be ordered"))


def _conditions(errors: Errors, patterns: list[Json], path: str) -> None:
    if len(patterns) > _MAX_RULES:
        errors.append(too_many(path, len(patterns), _MAX_RULES))
    for i, pattern in enumerate(patterns):
        checks.qualified_name(errors, pattern.get("type") or "", f"{path}[{i}].type")
        _choice(errors, pattern.get("status") or "", _STATUSES, f"{path}[{i}].status")


def success_policy(errors: Errors, policy: Json, spec: Json, path: str) -> None:
    rules = policy.get("rules") or []
    if not rules:
        text = "at least one rules must be specified when the successPolicy is specified"
        errors.append(required(f"{path}.rules", text))
    if len(rules) > _MAX_RULES:
        errors.append(too_many(f"{path}.rules", len(rules), _MAX_RULES))
    completions = spec.get("completions") or 0
    for i, rule in enumerate(rules):
        _success_rule(errors, rule, completions, f"{path}.rules[{i}]")


def _success_rule(errors: Errors, rule: Json, completions: int, path: str) -> None:
    count, indexes = rule.get("succeededCount"), rule.get("succeededIndexes")
    if count is None and indexes is None:
        text = "at least one of succeededCount or succeededIndexes must be specified"
        errors.append(required(path, text))
    total = 0
    if indexes is not None:
        if len(indexes) > _MAX_INDEXES_TEXT:
            errors.append(too_long(f"{path}.succeededIndexes", _MAX_INDEXES_TEXT))
        try:
            total = count_indexes(indexes, completions)
        except ValueError as error:
            text = f"error parsing succeededIndexes: {error}"
            errors.append(invalid(f"{path}.succeededIndexes", indexes, text))
    if count is None:
        return
    where = f"{path}.succeededCount"
    checks.nonnegative(errors, count, where)
    if count > completions:
        text = f"must be less than or equal to {completions} (the number of specified completions)"
        errors.append(invalid(where, count, text))
    if indexes is not None and count > total:
        text = f"must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
        errors.append(invalid(where, count, text))


def count_indexes(text: str, completions: int) -> int:
    """How many indexes `0,2-4` names. Raises ValueError with Kubernetes' text."""
    total, last = 0, -1
    for part in text.split(",") if text else ():
        start, end = _interval(part, completions)
        if last >= start:
            raise ValueError(f"non-increasing order, previous: {last}, current: {start}")
        total, last = total + end - start + 1, end
    return total


def _intervals(text: str, completions: int) -> Iterator[tuple[int, int]]:
    """The well-formed intervals of `0,2-4`."""
    for part in text.split(","):
        try:
            yield _interval(part, completions)
        except ValueError:
            continue


def first_overlap(done: str, failed: str, completions: int) -> int | None:
    """The lowest index that both texts name; malformed parts count for nothing."""
    pairs = product(_intervals(done, completions), _intervals(failed, completions))
    shared = [
        max(first[0], second[0]) for first, second in pairs if first[0] <= second[1] and second[0] <= first[1]
    ]
    return min(shared, default=None)


def _interval(text: str, completions: int) -> tuple[int, int]:
    limits = text.split("-")
    if len(limits) > 2:
        raise ValueError(
            f"the fragment {go_quote(text)} violates the requirement that an index interval can have at most two "
            "parts separated by '-'"
        )
    numbers = [_index(limit, completions) for limit in limits]
    if len(numbers) == 2 and numbers[0] >= numbers[1]:
        raise ValueError(f"non-increasing order, previous: {numbers[0]}, current: {numbers[1]}")
    return numbers[0], numbers[-1]


def _index(text: str, completions: int) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"cannot convert string to integer for index: {go_quote(text)}")
    if int(text) >= completions:
        raise ValueError(f"too large index: {go_quote(text)}")
    return int(text)
