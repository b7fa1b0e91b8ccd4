"""`"%s has %d".format([name, count])`.

As in the first version of cel-go's formatter, which Kubernetes uses: numbers of `%f` and `%e` are written as in American
English (`1,234.500000`, `1.052033 × 10⁰³`), and values inside lists and maps as CEL literals (`["a", 1.500000]`).

Source: cel-go v0.26 ext/formatting.go; golang.org/x/text/message (locale en_US).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from kcp.machinery.cel.values import (
    CelError,
    Duration,
    Timestamp,
    TypeValue,
    Uint,
    key_out,
    kind_of,
    text_of,
)
from kcp.machinery.errors import go_quote

_CLAUSE: Final = re.compile(r"%(?:(%)|(?:\.([0-9]+))?(.?))", re.DOTALL)
_MAX_PRECISION: Final = 1000
_DEFAULT_PRECISION: Final = 6
_SUPERSCRIPT: Final = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_NARROW_SPACE: Final = "\u202f"
_DOUBLES: Final[dict[Any, float]] = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""Texts that %f and %e take for the numbers they name."""


def format_text(text: str, args: list[Any]) -> str:
    """Raises CelError for a clause that is none, an argument too few, or one of the wrong type."""
    used = 0

    def clause(match: re.Match[str]) -> str:
        nonlocal used
        if match[1]:
            return "%"
        verb = match[3]
        if not verb:
            raise CelError("unexpected end of string")
        if used >= len(args):
            raise CelError(f"index {used} out of range")
        value = args[used]
        used += 1
        if verb not in _VERBS:
            raise CelError(f'could not parse formatting clause: unrecognized formatting clause "{verb}"')
        precision = min(int(match[2]), _MAX_PRECISION) if match[2] else _DEFAULT_PRECISION
        return _VERBS[verb](value, precision)

    return _CLAUSE.sub(clause, text)


def _wrong(text: str, value: Any) -> CelError:
    return CelError(f"error during formatting: {text}, was given {kind_of(value)}")


def _string(value: Any, _: int) -> str:
    if isinstance(value, (list, Mapping)):
        return _literal(value)
    if value is None:
        return "null"
    if isinstance(value, TypeValue):
        return value.name
    if isinstance(value, (str, int, float, bytes, Timestamp, Duration)):
        return text_of(value)
    raise _wrong(
        "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps",
        value,
    )


def _literal(value: Any) -> str:
    """A value inside a list or map, as CEL would write it."""
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, Mapping):
        pairs = sorted((_literal(key_out(key)), _literal(item)) for key, item in value.items())
        return "{" + ", ".join(f"{key}:{item}" for key, item in pairs) + "}"
    if isinstance(value, str):
        return go_quote(value)
    if isinstance(value, bytes):
        return "b" + go_quote(text_of(value))
    if isinstance(value, Timestamp):
        return f"timestamp({go_quote(text_of(value))})"
    if isinstance(value, Duration):
        return f"duration({go_quote(text_of(value))})"
    if isinstance(value, float):
        return f"{value:.6f}" if math.isfinite(value) else go_quote(text_of(value))
    if value is not None and not isinstance(value, (int, TypeValue)):
        raise CelError(f"error during formatting: no formatting function for {kind_of(value)}")
    return _string(value, 0)


def _is_integer(value: Any) -> bool:
    return type(value) is int or type(value) is Uint


def _decimal(value: Any, _: int) -> str:
    if not _is_integer(value):
        raise _wrong("decimal clause can only be used on integers", value)
    return str(int(value))


def _double(clause: str, value: Any) -> float:
    number = _DOUBLES.get(value, value) if isinstance(value, str) else value
    if not isinstance(number, float):
        raise _wrong(f"{clause} clause can only be used on doubles", value)
    return number


def _special(value: float) -> str | None:
    if math.isnan(value):
        return "NaN"
    return ("∞" if value > 0 else "-∞") if math.isinf(value) else None


def _fixed(value: Any, precision: int) -> str:
    number = _double("fixed-point", value)
    return _special(number) or f"{number:,.{precision}f}"


def _scientific(value: Any, precision: int) -> str:
    number = _double("scientific", value)
    special = _special(number)
    if special is not None:
        return special
    mantissa, _, exponent = f"{number:.{precision}e}".partition("e")
    raised = f"{int(exponent):03d}" if exponent[0] == "-" else f"{int(exponent):02d}"
    return f"{mantissa}{_NARROW_SPACE}×{_NARROW_SPACE}10{raised.translate(_SUPERSCRIPT)}"


def _binary(value: Any, _: int) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if not _is_integer(value):
        raise _wrong("only integers and bools can be formatted as binary", value)
    return format(int(value), "b")


def _octal(value: Any, _: int) -> str:
    if not _is_integer(value):
        raise _wrong("octal clause can only be used on integers", value)
    return format(int(value), "o")


def _hexadecimal(value: Any, _: int) -> str:
    if isinstance(value, (str, bytes)):
        return (value.encode() if isinstance(value, str) else value).hex()
    if not _is_integer(value):
        raise _wrong("only integers, byte buffers, and strings can be formatted as hex", value)
    return format(int(value), "x")


_VERBS: Final[dict[str, Callable[[Any, int], str]]] = {
    "s": _string,
    "d": _decimal,
    "f": _fixed,
    "e": _scientific,
    "b": _binary,
    "o": _octal,
    "x": _hexadecimal,
    "X": lambda value, precision: _hexadecimal(value, precision).upper(),
}
