"""Field selectors: `spec.nodeName=n1,status.phase!=Running`. All terms must hold; an absent field is "".

Which fields a kind offers is the kind's business. Source: k8s v1.36 apimachinery/pkg/fields/selector.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Literal

from kcp.base.values import frozen

_TERM = re.compile(r"(?:[^\\,]|\\.)*(?:\\\Z)?", re.DOTALL)
_OPERATOR = re.compile("!=|==|=")
_ESCAPED = str.maketrans({"\\": "\\\\", ",": "\\,", "=": "\\="})


class FieldSelectorError(ValueError):
    """Raised when a field selector cannot be read; the message is Kubernetes'."""


@frozen
class Term:
    field: str
    op: Literal["=", "!="]
    value: str

    def __str__(self) -> str:
        return f"{self.field}{self.op}{self.value.translate(_ESCAPED)}"


@frozen
class FieldSelector:
    terms: tuple[Term, ...] = ()

    @property
    def empty(self) -> bool:
        return not self.terms

    def matches(self, fields: Mapping[str, str]) -> bool:
        get = fields.get
        for term in self.terms:  # noqa: SIM110 - a generator costs more
            if (get(term.field, "") == term.value) != (term.op == "="):
                return False
        return True

    def exact(self, field: str) -> str | None:
        """The value that `field` must have, when a term says so."""
        return next((t.value for t in self.terms if t.op == "=" and t.field == field), None)

    def fields(self) -> list[str]:
        """The fields asked for, in the order of the terms."""
        return list(dict.fromkeys(term.field for term in self.terms))

    def transform(self, convert: Callable[[str, str], tuple[str, str]]) -> FieldSelector:
        """With each field and value converted; a term that becomes two empty strings is dropped."""
        terms = []
        for term in self.terms:
            field, value = convert(term.field, term.value)
            if field or value:
                terms.append(Term(field, term.op, value))
        return FieldSelector(tuple(terms))

    def __str__(self) -> str:
        return ",".join(map(str, self.terms))


@lru_cache(maxsize=2048)
def parse_field_selector(text: str) -> FieldSelector:
    """Terms are sorted; `\\,`, `\\=` and `\\\\` stand for themselves in a value.

    Raises FieldSelectorError: `invalid selector: '…'; can't understand '…'`, or about escapes.
    """
    terms = [_term(part, text) for part in sorted(_split(text)) if part]
    return FieldSelector(tuple(term for term in terms if term.field or term.value))


def _split(text: str) -> list[str]:
    parts, at = [], 0
    while at <= len(text):
        match = _TERM.match(text, at)
        end = match.end() if match else len(text)
        parts.append(text[at:end])
        at = end + 1
    return parts


def _term(part: str, whole: str) -> Term:
    match = _OPERATOR.search(part)
    if match is None:
        raise FieldSelectorError(f"invalid selector: '{whole}'; can't understand '{part}'")
    value = _unescape(part[match.end() :])
    return Term(part[: match.start()], "!=" if match[0] == "!=" else "=", value)


def _unescape(value: str) -> str:
    if "\\" not in value and "=" not in value:
        return value
    out: list[str] = []
    chars = iter(value)
    for char in chars:
        if char == "\\":
            following = next(chars, "")
            if following not in ("\\", ",", "="):
                raise FieldSelectorError(f"invalid field selector: invalid escape sequence: \\{following}")
            out.append(following)
        elif char in ",=":
            # Go prints the character's number here.
            raise FieldSelectorError(f"invalid field selector: unescaped character in value: {ord(char)}")
        else:
            out.append(char)
    return "".join(out)
