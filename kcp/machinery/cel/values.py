"""What a CEL expression computes with, and the errors it can end in.

| CEL | Python |
|---|---|
| bool, string, bytes, null, list, map | bool, str, bytes, None, list, dict |
| int, double | int (64 bits, checked), float |
| uint | `Uint` |
| timestamp, duration | `Timestamp`, `Duration`: nanoseconds |
| optional | `Optional` |
| type | `TypeValue` |
| message | `Struct`, or the library's own class |

JSON documents are CEL values as they are. A map made by an expression may have boolean keys, which a dict would mix up
with 0 and 1: they stand in it as `TRUE_KEY` and `FALSE_KEY`.

Source: cel-spec doc/langdef.md (values, equality, ordering); cel-go v0.26 common/types.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any, Final

import attrs

from kcp.base.values import frozen
from kcp.machinery.quantity import Quantity

INT_MIN: Final = -(1 << 63)
INT_MAX: Final = (1 << 63) - 1
UINT_MAX: Final = (1 << 64) - 1
SECOND: Final = 1_000_000_000
TIMESTAMP_MIN: Final = -62135596800 * SECOND
TIMESTAMP_MAX: Final = 253402300799 * SECOND + SECOND - 1
NO_OVERLOAD: Final = "no such overload"


class CelError(Exception):
    """Raised when an expression has no value; the text is cel-go's. `cost` is what was spent until then."""

    cost: int = 0


class BudgetExceeded(CelError):
    """Raised when an evaluation costs more than it may; nothing inside the expression absorbs it."""


class Uint(int):
    """An unsigned 64-bit number; equal to the int of the same value, but of another type."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{int(self)}u"


@attrs.frozen(order=True, slots=True)
class Timestamp:
    """A moment of the years 1 to 9999, in nanoseconds since 1970, UTC."""

    ns: int


@attrs.frozen(order=True, slots=True)
class Duration:
    ns: int


@frozen
class TypeValue:
    """The value of `type(x)` and of `int`, `string`, …"""

    name: str


@frozen
class Optional:
    """`optional.of(value)`, or `optional.none()` when `present` is false."""

    value: Any = None
    present: bool = True


ABSENT: Final = Optional(None, False)


@frozen
class Struct:
    """A message made by `Name{field: value}` for which no library has a class of its own."""

    name: str
    fields: dict[str, Any]


class KeyedList(list[Any]):
    """A list of x-kubernetes-list-type set (`keys` empty) or map: equal whatever the order, merged by `+`."""

    __slots__ = ("keys",)

    def __init__(self, items: Any, keys: tuple[str, ...]) -> None:
        super().__init__(items)
        self.keys = keys


@frozen
class BoolKey:
    value: bool


TRUE_KEY: Final = BoolKey(True)
FALSE_KEY: Final = BoolKey(False)

_KINDS: dict[type, str] = {
    bool: "bool", int: "int", Uint: "uint", float: "double", str: "string", bytes: "bytes", type(None): "null_type",
    list: "list", KeyedList: "list", tuple: "list", dict: "map", Timestamp: "google.protobuf.Timestamp",
    Duration: "google.protobuf.Duration", TypeValue: "type", Optional: "optional_type", Quantity: "kubernetes.Quantity",
}  # fmt: skip
WEIGHT_LIMIT: Final = 1_000_000
_NUMBERS: Final = frozenset((int, Uint, float))
_PLAIN_DIGITS: Final = 6


def kind_of(value: Any) -> str:
    """The name of a value's type, without parameters: `list`, `google.protobuf.Timestamp`, `kubernetes.Quantity`."""
    known = _KINDS.get(type(value))
    if known is not None:
        return known
    if isinstance(value, Struct):
        return value.name
    own = getattr(type(value), "cel_type", None)
    if own is not None:
        return str(own)
    return "map" if isinstance(value, Mapping) else "list" if isinstance(value, list) else "dyn"


def no_overload(*_: Any) -> CelError:
    return CelError(NO_OVERLOAD)


def key_in(value: Any) -> Any:
    """A CEL value as the key of a dict. Raises CelError for a type that is no key."""
    if type(value) is str or type(value) is int or type(value) is Uint:
        return value
    if value is True:
        return TRUE_KEY
    if value is False:
        return FALSE_KEY
    if type(value) is float and not math.isnan(value):
        return value
    raise CelError(f"unsupported key type: {kind_of(value)}")


def key_out(key: Any) -> Any:
    """The CEL value of a dict's key."""
    return key.value if type(key) is BoolKey else key


def equal(a: Any, b: Any) -> bool:
    """CEL's equality: numbers by value whatever their type, other types never equal, nan not even to itself."""
    kind = type(a)
    if kind is type(b) and (kind is str or kind is int or kind is bool or kind is float):
        return bool(a == b)
    if kind in _NUMBERS and type(b) in _NUMBERS:
        return bool(a == b)
    if isinstance(a, list) and isinstance(b, list):
        return _lists_equal(a, b)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return len(a) == len(b) and all(key in b and equal(value, b[key]) for key, value in a.items())
    if isinstance(a, Optional) and isinstance(b, Optional):
        return a.present == b.present and (not a.present or equal(a.value, b.value))
    if isinstance(a, Struct) and isinstance(b, Struct):
        return a.name == b.name and equal(a.fields, b.fields)
    return kind is type(b) and bool(a == b)


def _lists_equal(a: list[Any], b: list[Any]) -> bool:
    if len(a) != len(b):
        return False
    keyed = a if isinstance(a, KeyedList) else b if isinstance(b, KeyedList) else None
    if keyed is None:
        return all(map(equal, a, b))
    others = {identity(item, keyed.keys): item for item in b}
    return all((key := identity(item, keyed.keys)) in others and equal(item, others[key]) for item in a)


def identity(item: Any, keys: tuple[str, ...]) -> Any:
    """What tells an item of a set or map list from the others, hashable; a true is not a 1."""
    if keys:
        return tuple(identity(item.get(key) if isinstance(item, Mapping) else None, ()) for key in keys)
    if isinstance(item, bool):
        return key_in(item)
    if isinstance(item, list):
        return ("list", *(identity(each, ()) for each in item))
    if isinstance(item, Mapping):
        return ("map", *sorted(((str(key), identity(value, ())) for key, value in item.items()), key=repr))
    return item


def weight(value: Any, limit: int = WEIGHT_LIMIT) -> int:
    """How many values there are in a value, itself included; counting ends at `limit`.

    An expression can put the same list into itself again and again, so that what is small to hold is endless to walk
    through: what is too heavy is paid for, or refused, before it is compared or written out.
    """
    if not isinstance(value, (list, Mapping, Optional, Struct)):
        return 1
    count, stack = 0, [value]
    while stack and count < limit:
        each = stack.pop()
        count += 1
        if isinstance(each, list):
            stack.extend(each)
        elif isinstance(each, Mapping):
            stack.extend(each.values())
        elif isinstance(each, Optional):
            stack.append(each.value)
        elif isinstance(each, Struct):
            stack.append(each.fields)
    return count


def contains(items: list[Any], wanted: Any) -> bool:
    """Whether a list has an item equal to `wanted`."""
    if type(wanted) is str:
        return wanted in items
    return any(equal(item, wanted) for item in items)


def plain(value: Any) -> Any:
    """A value as JSON: uint and int as numbers, timestamps and durations as text, messages as objects.

    Raises CelError for what JSON has not (types, absent optionals), and for what is too large."""
    if weight(value) >= WEIGHT_LIMIT:
        raise CelError("the value is too large")
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key_out(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, Struct):
        return _plain(value.fields)
    if isinstance(value, Uint):
        return int(value)
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Optional) and value.present:
        return _plain(value.value)
    if isinstance(value, (Timestamp, Duration)):
        return text_of(value)
    if hasattr(value, "__str__") and hasattr(type(value), "cel_type"):
        return str(value)
    raise CelError(f"unsupported conversion to JSON: {kind_of(value)}")


def text_of(value: Any) -> str:
    """`string(value)` for the types that have it. Raises CelError."""
    if type(value) is str:
        return value
    if type(value) is bool:
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return double_text(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise CelError("invalid UTF-8 in bytes, cannot convert to string") from None
    if isinstance(value, Timestamp):
        return timestamp_text(value)
    if isinstance(value, Duration):
        return duration_text(value)
    raise no_overload()


def double_text(value: float) -> str:
    """As Go's strconv.FormatFloat(value, 'g', -1, 64): the shortest digits, an exponent from 1e+06 on."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    head, point = "-" if sign else "", len(digits) + exponent
    text = "".join(map(str, digits))
    if not value:
        return head + "0"
    if -4 <= point - 1 < _PLAIN_DIGITS:
        return head + decimal_text(text, point)
    rest = "." + text[1:] if len(text) > 1 else ""
    return f"{head}{text[0]}{rest}e{'+' if point > 0 else '-'}{abs(point - 1):02d}"


def decimal_text(digits: str, point: int) -> str:
    """Digits with the decimal point after the first `point` of them."""
    if point <= 0:
        return "0." + "0" * -point + digits
    if point >= len(digits):
        return digits + "0" * (point - len(digits))
    return f"{digits[:point]}.{digits[point:]}"


def duration_text(value: Duration) -> str:
    seconds, rest = divmod(abs(value.ns), SECOND)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{'-' if value.ns < 0 else ''}{seconds}{fraction}s"


def timestamp_text(value: Timestamp) -> str:
    seconds, rest = divmod(value.ns, SECOND)
    days, second = divmod(seconds, 86400)
    year, month, day = civil(days)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    hour, minute = divmod(second // 60, 60)
    return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second % 60:02d}{fraction}Z"


def civil(days: int) -> tuple[int, int, int]:
    """Year, month and day of a number of days since 1970-01-01."""
    moment = date.fromordinal(days + 719163)
    return moment.year, moment.month, moment.day


def as_int(value: int) -> int:
    if INT_MIN <= value <= INT_MAX:
        return value
    raise CelError("integer overflow")


def as_uint(value: int) -> Uint:
    if 0 <= value <= UINT_MAX:
        return Uint(value)
    raise CelError("unsigned integer overflow")


def as_timestamp(ns: int) -> Timestamp:
    if TIMESTAMP_MIN <= ns <= TIMESTAMP_MAX:
        return Timestamp(ns)
    raise CelError("timestamp overflow")


def as_duration(ns: int) -> Duration:
    if INT_MIN <= ns <= INT_MAX:
        return Duration(ns)
    raise CelError("duration overflow")
