"""Label selectors: read, checked, matched, written.

    Selector          requirements, all of which must hold; `matches` is compiled once
    parse_selector    from a query string: `app=web,tier in (a, b),!canary`
    from_label_selector, from_set    from objects
Source: k8s v1.36 apimachinery/pkg/labels/selector.go, pkg/apis/meta/v1/{helpers,validation}.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import attrs

from kcp.base.values import frozen
from kcp.machinery.errors import FieldError, forbidden, go_quote, invalid, required, unsupported
from kcp.machinery.names import is_label_value, is_qualified_name

Labels = Mapping[str, str]
Match = Callable[[Labels], bool]

_SYMBOLS: dict[str, str] = {
    "=": "=", "==": "==", "!=": "!=", "in": " in ", "notin": " notin ", "gt": ">", "lt": "<",
}  # fmt: skip
_EXACT = frozenset({"=", "==", "in"})
_BINARY_OPERATORS = ("in", "notin", "=", "==", "!=", "gt", "lt")
_UNARY_OPERATORS = ("exists", "!")
_INT = re.compile(r"[+-]?[0-9]{1,30}", re.ASCII).fullmatch


class SelectorError(ValueError):
    """Raised when a selector cannot be read; the message is Kubernetes'."""


@frozen
class Requirement:
    """One condition on one key. Operators: `= == != in notin gt lt exists !`."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.operator == "!":
            return f"!{self.key}"
        if self.operator == "exists":
            return self.key
        joined = ",".join(sorted(self.values))
        if self.operator in ("in", "notin"):
            joined = f"({joined})"
        return f"{self.key}{_SYMBOLS[self.operator]}{joined}"


@frozen
class Selector:
    """All `requirements` must hold. Equal when the requirements are; `nothing` matches no labels at all.

    `matches(labels)` is a compiled function, fit for hot loops.
    """

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False
    matches: Match = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        compiled = _never if self.nothing else _compile(self.requirements)
        object.__setattr__(self, "matches", compiled)

    @property
    def empty(self) -> bool:
        """Whether it selects everything."""
        return not self.nothing and not self.requirements

    def exact(self, key: str) -> str | None:
        """The one value that `key` must have, when the selector says so: for index look-ups."""
        for requirement in self.requirements:
            if requirement.key == key:
                exact = requirement.operator in _EXACT and len(requirement.values) == 1
                return requirement.values[0] if exact else None
        return None

    def plus(self, *requirements: Requirement) -> Selector:
        """This selector with more requirements."""
        return self if self.nothing else Selector(_sorted([*self.requirements, *requirements]))

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))


def _never(labels: Labels) -> bool:
    return False


def _always(labels: Labels) -> bool:
    return True


def _compile(requirements: Sequence[Requirement]) -> Match:
    if not requirements:
        return _always
    if len(requirements) == 1:
        return _compile_one(requirements[0])
    if all(r.operator in ("=", "==") for r in requirements):
        pairs = tuple((r.key, r.values[0]) for r in requirements)

        def equal(labels: Labels) -> bool:
            get = labels.get
            for key, value in pairs:  # noqa: SIM110 - a generator costs more
                if get(key) != value:
                    return False
            return True

        return equal
    tests = tuple(_compile_one(r) for r in requirements)

    def every(labels: Labels) -> bool:
        for test in tests:  # noqa: SIM110 - a generator costs more
            if not test(labels):
                return False
        return True

    return every


def _compile_one(requirement: Requirement) -> Match:
    key = requirement.key
    match requirement.operator:
        case "exists":
            return lambda labels: key in labels
        case "!":
            return lambda labels: key not in labels
        case "=" | "==":
            value = requirement.values[0]
            return lambda labels: labels.get(key) == value
        case "!=":
            value = requirement.values[0]
            return lambda labels: labels.get(key) != value
        case "in":
            values = frozenset(requirement.values)
            return lambda labels: labels.get(key) in values
        case "notin":
            values = frozenset(requirement.values)
            return lambda labels: labels.get(key) not in values
        case _:
            return _compile_order(requirement)


def _compile_order(requirement: Requirement) -> Match:
    key, bound, above = requirement.key, _int64(requirement.values[0]), requirement.operator == "gt"

    def ordered(labels: Labels) -> bool:
        value = _int64(labels.get(key, ""))
        if value is None or bound is None:
            return False
        return value > bound if above else value < bound

    return ordered


def _int64(text: str) -> int | None:
    if not _INT(text):
        return None
    value = int(text)
    return value if -(1 << 63) <= value < 1 << 63 else None


EVERYTHING = Selector()
NOTHING = Selector(nothing=True)


def _sorted(requirements: Sequence[Requirement]) -> tuple[Requirement, ...]:
    return tuple(sorted(requirements, key=lambda r: r.key))


def requirement(key: str, operator: str, values: Sequence[str]) -> Requirement:
    """A checked requirement; raises SelectorError with every fault, as labels.NewRequirement."""
    errors = []
    if faults := is_qualified_name(key):
        errors.append(invalid("key", key, "; ".join(faults)))
    errors += _operator_errors(operator, values)
    for i, value in enumerate(values):
        if faults := is_label_value(value):
            errors.append(invalid(f"values[{i}][{key}]", value, "; ".join(faults)))
    if errors:
        raise SelectorError(_aggregate(errors))
    return Requirement(key, operator, tuple(values))


def _operator_errors(operator: str, values: Sequence[str]) -> list[FieldError]:
    match operator:
        case "in" | "notin":
            text = "" if values else "for 'in', 'notin' operators, values set can't be empty"
        case "=" | "==" | "!=":
            text = "" if len(values) == 1 else "exact-match compatibility requires one single value"
        case "exists" | "!":
            text = "values set must be empty for exists and does not exist" if values else ""
        case "gt" | "lt":
            return _order_errors(values)
        case _:
            return [unsupported("operator", operator, _BINARY_OPERATORS + _UNARY_OPERATORS)]
    return [invalid("values", list(values), text)] if text else []


def _order_errors(values: Sequence[str]) -> list[FieldError]:
    errors = []
    if len(values) != 1:
        errors.append(
            invalid("values", list(values), "for 'Gt', 'Lt' operators, exactly one value is required")
        )
    for i, value in enumerate(values):
        if _int64(value) is None:
            errors.append(
                invalid(f"values[{i}]", value, "for 'Gt', 'Lt' operators, the value must be an integer")
            )
    return errors


def _aggregate(errors: Sequence[FieldError]) -> str:
    texts = list(dict.fromkeys(map(str, errors)))
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


def from_set(labels: Labels | None) -> Selector:
    """Exactly these labels; nothing is checked. None and {} select everything."""
    if not labels:
        return EVERYTHING
    return Selector(tuple(Requirement(key, "=", (labels[key],)) for key in sorted(labels)))


_LABEL_SELECTOR_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}


def from_label_selector(selector: Mapping[str, Any] | None) -> Selector:
    """From a metav1.LabelSelector. None selects nothing, {} everything.

    Raises SelectorError: `"x" is not a valid label selector operator`, or as `requirement`.
    """
    if selector is None:
        return NOTHING
    labels, expressions = selector.get("matchLabels") or {}, selector.get("matchExpressions") or []
    if not labels and not expressions:
        return EVERYTHING
    requirements = [requirement(key, "=", [value]) for key, value in labels.items()]
    for expression in expressions:
        name = expression.get("operator", "")
        operator = _LABEL_SELECTOR_OPERATORS.get(name)
        if operator is None:
            raise SelectorError(f"{go_quote(name)} is not a valid label selector operator")
        requirements.append(requirement(expression.get("key", ""), operator, expression.get("values") or []))
    return Selector(_sorted(requirements))


def validate_labels(labels: Labels | None, path: str) -> list[FieldError]:
    """Keys are qualified names, values label values."""
    errors: list[FieldError] = []
    for key, value in (labels or {}).items():
        for fault in is_qualified_name(key):
            errors.append(invalid(path, key, fault))
        for fault in is_label_value(value):
            errors.append(invalid(path, value, fault))
    return errors


def validate_label_selector(
    selector: Mapping[str, Any] | None,
    path: str,
    *,
    allow_invalid_values: bool = False,
    allow_unknown_operator: bool = False,
) -> list[FieldError]:
    """The faults of a metav1.LabelSelector; the two allowances are for objects stored before a rule existed."""
    if selector is None:
        return []
    errors = validate_labels(selector.get("matchLabels"), f"{path}.matchLabels")
    for i, expression in enumerate(selector.get("matchExpressions") or []):
        where = f"{path}.matchExpressions[{i}]"
        errors += _expression_errors(expression, where, allow_unknown_operator)
        errors += [
            invalid(f"{where}.key", _key(expression), fault) for fault in is_qualified_name(_key(expression))
        ]
        if not allow_invalid_values:
            for j, value in enumerate(expression.get("values") or []):
                errors += [invalid(f"{where}.values[{j}]", value, fault) for fault in is_label_value(value)]
    return errors


def _key(expression: Mapping[str, Any]) -> str:
    return str(expression.get("key") or "")


def _expression_errors(expression: Mapping[str, Any], path: str, allow_unknown: bool) -> list[FieldError]:
    operator, values = expression.get("operator") or "", expression.get("values")
    if operator in ("In", "NotIn"):
        text = "must be specified when `operator` is 'In' or 'NotIn'"
        return [] if values else [required(f"{path}.values", text)]
    if operator in ("Exists", "DoesNotExist"):
        text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
        return [forbidden(f"{path}.values", text)] if values else []
    return [] if allow_unknown else [invalid(f"{path}.operator", operator, "not a valid selector operator")]


_TOKEN = re.compile(r"[ \t\r\n]*(?:([=!(),<>]+)|([^=!(),<> \t\r\n\0]+)|(\0)|$)")
_SPECIAL = {
    ")": ")", ",": ",", "!": "!", "==": "==", "=": "=", ">": "gt", "<": "lt", "!=": "!=", "(": "(",
}  # fmt: skip
_WORDS = {"in", "notin"}


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """Kind and literal of each token: `word`, `end`, `error`, `in`, `notin` or an operator's name."""
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match[3] or not match[0]:
            break
        at = match.end()
        if word := match[2]:
            yield (word if word in _WORDS else "word"), word
        elif match[1]:
            yield from _special_tokens(match[1])
    yield "end", ""


def _special_tokens(run: str) -> Iterator[tuple[str, str]]:
    """Splits a run of operator characters, the longest operator first."""
    while run:
        size = 2 if run[:2] in _SPECIAL else 1
        yield _SPECIAL[run[:size]], run[:size]
        run = run[size:]


class _Parser:
    """Reads tokens from left to right; `in` and `notin` are words wherever a word may stand."""

    def __init__(self, text: str) -> None:
        self.tokens = list(_tokens(text))
        self.at = 0

    def peek(self) -> tuple[str, str]:
        kind, literal = self.tokens[min(self.at, len(self.tokens) - 1)]
        return ("word" if kind in _WORDS else kind), literal

    def take(self) -> tuple[str, str]:
        token = self.peek()
        self.at += 1
        return token

    def take_operator(self) -> tuple[str, str]:
        token = self.tokens[min(self.at, len(self.tokens) - 1)]
        self.at += 1
        return token

    def selector(self) -> list[Requirement]:
        requirements: list[Requirement] = []
        while True:
            kind, literal = self.peek()
            if kind == "end":
                return requirements
            if kind not in ("word", "!"):
                raise SelectorError(f"found '{literal}', expected: !, identifier, or 'end of string'")
            try:
                requirements.append(self.requirement())
            except SelectorError as error:
                raise SelectorError(f"unable to parse requirement: {error}") from None
            kind, literal = self.take()
            if kind == "end":
                return requirements
            if kind != ",":
                raise SelectorError(f"found '{literal}', expected: ',' or 'end of string'")
            kind, literal = self.peek()
            if kind not in ("word", "!"):
                raise SelectorError(f"found '{literal}', expected: identifier after ','")

    def requirement(self) -> Requirement:
        kind, key = self.take()
        negated = kind == "!"
        if negated:
            kind, key = self.take()
        if kind != "word":
            raise SelectorError(f"found '{key}', expected: identifier")
        if faults := is_qualified_name(key):
            raise SelectorError(str(invalid("<nil>", key, "; ".join(faults))))
        if negated:
            return requirement(key, "!", [])
        if self.peek()[0] in ("end", ","):
            return requirement(key, "exists", [])
        operator, literal = self.take_operator()
        if operator not in _BINARY_OPERATORS:
            raise SelectorError(f"found '{literal}', expected: {', '.join(_BINARY_OPERATORS)}")
        values = self.values() if operator in ("in", "notin") else [self.exact_value()]
        return requirement(key, operator, sorted(set(values)))

    def exact_value(self) -> str:
        if self.peek()[0] in ("end", ","):
            return ""
        kind, literal = self.take()
        if kind != "word":
            raise SelectorError(f"found '{literal}', expected: identifier")
        return literal

    def values(self) -> list[str]:
        kind, literal = self.take()
        if kind != "(":
            raise SelectorError(f"found '{literal}' expected: '('")
        kind, literal = self.peek()
        if kind == ")":
            self.take()
            return [""]
        if kind not in ("word", ","):
            raise SelectorError(f"found '{literal}', expected: ',', ')' or identifier")
        return self.identifiers()

    def identifiers(self) -> list[str]:
        """Up to and with the closing parenthesis; an empty place between commas is the empty value."""
        values: list[str] = []
        while True:
            kind, literal = self.take()
            if kind == "word":
                values.append(literal)
                kind, literal = self.peek()
                if kind == ")":
                    self.take()
                    return values
                if kind != ",":
                    raise SelectorError(f"found '{literal}', expected: ',' or ')'")
            elif kind == ",":
                following = self.peek()[0]
                if not values or following in (",", ")"):
                    values.append("")
                if following == ")":
                    self.take()
                    return values
            else:
                raise SelectorError(f"found '{literal}', expected: ',', or identifier")


@lru_cache(maxsize=2048)
def parse_selector(text: str) -> Selector:
    """From the syntax of the labelSelector parameter. Raises SelectorError with Kubernetes' text.

    `a`, `!a`, `a=b`, `a==b`, `a!=b`, `a in (b,c)`, `a notin (b)`, `a>1`, `a<9`, joined by commas. Empty: everything.
    """
    if not text:
        return EVERYTHING
    return Selector(_sorted(_Parser(text).selector()))
