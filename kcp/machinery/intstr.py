"""IntOrString: a number, or a percentage of a total.

In JSON it is an int or a str. Source: k8s v1.36 apimachinery/pkg/util/intstr, pkg/apis/apps/validation.
"""

from __future__ import annotations

import re
from typing import Any

from kcp.machinery.errors import FieldError, go_quote, invalid
from kcp.machinery.names import is_percent

_ATOI = re.compile(r"[+-]?[0-9]+", re.ASCII).fullmatch
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 63) - 1

IntOrString = int | str


def scaled_value(value: IntOrString, total: int, round_up: bool) -> int:
    """The absolute number: an int as it is, `"25%"` of `total`, rounded up or down.

    Raises ValueError for a string that is no percentage (`"25"` is none), with Kubernetes' text.
    """
    if isinstance(value, int):
        return value
    parts = percent_of(value) * total
    return -(-parts // 100) if round_up else parts // 100


def percent_of(value: str) -> int:
    """The number before the percent sign; raises ValueError as `scaled_value` does."""
    if not value.endswith("%"):
        raise ValueError("invalid value for IntOrString: invalid type: string is not a percentage")
    digits = value[:-1]
    why = _atoi_fault(digits)
    if why:
        quoted = f"strconv.Atoi: parsing {go_quote(digits)}: {why}"
        raise ValueError(f"invalid value for IntOrString: invalid value {go_quote(value)}: {quoted}")
    return int(digits)


def _atoi_fault(digits: str) -> str:
    if not _ATOI(digits):
        return "invalid syntax"
    if len(digits) > 4000 or not _INT_MIN <= int(digits) <= _INT_MAX:
        return "value out of range"
    return ""


def validate_int_or_percent(value: Any, path: str) -> list[FieldError]:
    """A non-negative int, or a numeric string with a percent sign."""
    if isinstance(value, str):
        return [invalid(path, value, fault) for fault in is_percent(value)]
    if isinstance(value, int) and not isinstance(value, bool):
        return [] if value >= 0 else [invalid(path, value, "must be greater than or equal to 0")]
    return [invalid(path, value, "must be an integer or percentage (e.g '5%%')")]


def validate_at_most_100_percent(value: Any, path: str) -> list[FieldError]:
    """A percentage above 100 is refused; an int or a malformed string passes here."""
    if (
        isinstance(value, str)
        and not is_percent(value)
        and len(value.lstrip("0")) > 3
        and value.lstrip("0") != "100%"
    ):
        return [invalid(path, value, "must not be greater than 100%")]
    return []
