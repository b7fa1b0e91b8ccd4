"""The standard functions and operators of CEL.

Source: cel-spec doc/langdef.md (list of standard definitions); cel-go v0.26 common/{stdlib,types}.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from kcp.machinery.cel import times
from kcp.machinery.cel.functions import (
    LIGHT,
    Cost,
    Functions,
    Overload,
    heaviness,
    member,
    overload,
    regex_cost,
    size,
    tenth,
    walk,
)
from kcp.machinery.cel.regex import compiled
from kcp.machinery.cel.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    DYN,
    INT,
    STRING,
    TIMESTAMP,
    UINT,
    A,
    B,
    Type,
    list_of,
    map_of,
    optional_of,
    type_of,
)
from kcp.machinery.cel.values import (
    ABSENT,
    INT_MAX,
    INT_MIN,
    SECOND,
    UINT_MAX,
    CelError,
    Duration,
    KeyedList,
    Optional,
    Timestamp,
    TypeValue,
    Uint,
    as_duration,
    as_int,
    as_timestamp,
    as_uint,
    contains,
    equal,
    identity,
    key_in,
    kind_of,
    text_of,
)
from kcp.machinery.errors import go_quote

LIST_A: Final = list_of(A)
MAP_AB: Final = map_of(A, B)


def _add_int(a: int, b: int) -> int:
    total = a + b
    if INT_MIN <= total <= INT_MAX:
        return total
    raise CelError("integer overflow")


def _sub_int(a: int, b: int) -> int:
    return as_int(a - b)


def _mul_int(a: int, b: int) -> int:
    return as_int(a * b)


def _div_int(a: int, b: int) -> int:
    if not b:
        raise CelError("division by zero")
    quotient = abs(a) // abs(b)
    return as_int(quotient if (a < 0) == (b < 0) else -quotient)


def _mod_int(a: int, b: int) -> int:
    if not b:
        raise CelError("modulus by zero")
    if a == INT_MIN and b == -1:
        raise CelError("integer overflow")
    return int(math.copysign(1, a)) * (abs(a) % abs(b))


def _div_uint(a: int, b: int) -> Uint:
    if not b:
        raise CelError("division by zero")
    return Uint(int(a) // int(b))


def _mod_uint(a: int, b: int) -> Uint:
    if not b:
        raise CelError("modulus by zero")
    return Uint(int(a) % int(b))


def _div_double(a: float, b: float) -> float:
    if b:
        return a / b
    if not a or math.isnan(a):
        return math.nan
    return math.copysign(math.inf, a) * math.copysign(1, b)


def add_lists(a: list[Any], b: list[Any]) -> list[Any]:
    """`a + b`; keyed lists are merged: what has the key of an item of `a` takes its place, the rest follows.

    Source: k8s v1.36 apiserver/pkg/cel/common/values.go.
    """
    if not isinstance(a, KeyedList):
        return [*a, *b]
    merged = {identity(item, a.keys): item for item in a}
    merged.update((identity(item, a.keys), item) for item in b)
    return KeyedList(merged.values(), a.keys)


def _joined_cost(a: Any, b: Any) -> int:
    return tenth(len(a) + len(b))


def _smaller(a: Any, b: Any) -> int:
    """The cost of comparing: the shorter of the two is walked along."""
    if isinstance(a, (list, Mapping)):
        return tenth(min(size(a), size(b))) + heaviness(a)
    return tenth(min(size(a), size(b)))


def _listed(item: Any, items: list[Any]) -> int:
    """The cost of looking for an item."""
    return len(items) + (heaviness(items) if isinstance(item, (list, Mapping)) else 0)


def _appended(a: list[Any], b: list[Any]) -> int:
    """The cost of a new list; cel-go does not copy, so a long one costs more here."""
    total = len(a) + len(b)
    return 1 if total <= LIGHT else 1 + total // 10


_ARITHMETIC: Final[tuple[tuple[str, str, Type, Type, Type, Callable[[Any, Any], Any], Cost], ...]] = (
    ("_+_", "add_int64", INT, INT, INT, _add_int, 1),
    ("_+_", "add_uint64", UINT, UINT, UINT, lambda a, b: as_uint(int(a) + int(b)), 1),
    ("_+_", "add_double", DOUBLE, DOUBLE, DOUBLE, operator.add, 1),
    ("_+_", "add_string", STRING, STRING, STRING, operator.add, _joined_cost),
    ("_+_", "add_bytes", BYTES, BYTES, BYTES, operator.add, _joined_cost),
    ("_+_", "add_list", LIST_A, LIST_A, LIST_A, add_lists, _appended),
    ("_+_", "add_duration_duration", DURATION, DURATION, DURATION, lambda a, b: as_duration(a.ns + b.ns), 1),
    ("_+_", "add_duration_timestamp", DURATION, TIMESTAMP, TIMESTAMP, lambda a, b: as_timestamp(a.ns + b.ns), 1),
    ("_+_", "add_timestamp_duration", TIMESTAMP, DURATION, TIMESTAMP, lambda a, b: as_timestamp(a.ns + b.ns), 1),
    ("_-_", "subtract_int64", INT, INT, INT, _sub_int, 1),
    ("_-_", "subtract_uint64", UINT, UINT, UINT, lambda a, b: as_uint(int(a) - int(b)), 1),
    ("_-_", "subtract_double", DOUBLE, DOUBLE, DOUBLE, operator.sub, 1),
    ("_-_", "subtract_duration_duration", DURATION, DURATION, DURATION, lambda a, b: as_duration(a.ns - b.ns), 1),
    ("_-_", "subtract_timestamp_duration", TIMESTAMP, DURATION, TIMESTAMP, lambda a, b: as_timestamp(a.ns - b.ns), 1),
    ("_-_", "subtract_timestamp_timestamp", TIMESTAMP, TIMESTAMP, DURATION, lambda a, b: as_duration(a.ns - b.ns), 1),
    ("_*_", "multiply_int64", INT, INT, INT, _mul_int, 1),
    ("_*_", "multiply_uint64", UINT, UINT, UINT, lambda a, b: as_uint(int(a) * int(b)), 1),
    ("_*_", "multiply_double", DOUBLE, DOUBLE, DOUBLE, operator.mul, 1),
    ("_/_", "divide_int64", INT, INT, INT, _div_int, 1),
    ("_/_", "divide_uint64", UINT, UINT, UINT, _div_uint, 1),
    ("_/_", "divide_double", DOUBLE, DOUBLE, DOUBLE, _div_double, 1),
    ("_%_", "modulo_int64", INT, INT, INT, _mod_int, 1),
    ("_%_", "modulo_uint64", UINT, UINT, UINT, _mod_uint, 1),
)  # fmt: skip

_COMPARISONS: Final = (
    ("_<_", "less", operator.lt),
    ("_<=_", "less_equals", operator.le),
    ("_>_", "greater", operator.gt),
    ("_>=_", "greater_equals", operator.ge),
)
_ORDERED: Final[tuple[tuple[str, Type], ...]] = (
    ("bool", BOOL), ("int64", INT), ("uint64", UINT), ("double", DOUBLE), ("string", STRING), ("bytes", BYTES),
    ("timestamp", TIMESTAMP), ("duration", DURATION),
)  # fmt: skip
_NUMBERS: Final = (("int64", INT), ("uint64", UINT), ("double", DOUBLE))


def _comparisons() -> Iterator[tuple[str, Overload]]:
    for name, id, compare in _COMPARISONS:
        for label, type in _ORDERED:
            cost: Cost = _smaller if label in ("string", "bytes") else 1
            yield name, overload(f"{id}_{label}", (type, type), BOOL, compare, cost)
        for label, type in _NUMBERS:
            for other, second in _NUMBERS:
                if type is not second:
                    yield name, overload(f"{id}_{label}_{other}", (type, second), BOOL, compare)


def _to_int(value: float) -> int:
    if math.isnan(value) or not -9.223372036854775808e18 < value < 9.223372036854775807e18:
        raise CelError("integer overflow")
    return int(value)


def _to_uint(value: float) -> Uint:
    if math.isnan(value) or not 0 <= value < 1.8446744073709551615e19:
        raise CelError("unsigned integer overflow")
    return Uint(int(value))


_DIGITS: Final = re.compile(r"[+-]?[0-9]+", re.ASCII)
_FLOAT: Final = re.compile(
    r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?(?:inf|infinity|nan)", re.ASCII | re.I
)


def _parse_int(text: str) -> int:
    if not _DIGITS.fullmatch(text):
        raise CelError(f"strconv.ParseInt: parsing {go_quote(text)}: invalid syntax")
    value = int(text) if len(text) < 64 else 1 << 99
    if not INT_MIN <= value <= INT_MAX:
        raise CelError(f"strconv.ParseInt: parsing {go_quote(text)}: value out of range")
    return value


def _parse_uint(text: str) -> Uint:
    if not _DIGITS.fullmatch(text) or text[0] in "+-":
        raise CelError(f"strconv.ParseUint: parsing {go_quote(text)}: invalid syntax")
    value = int(text) if len(text) < 64 else 1 << 99
    if value > UINT_MAX:
        raise CelError(f"strconv.ParseUint: parsing {go_quote(text)}: value out of range")
    return Uint(value)


def _parse_double(text: str) -> float:
    if not _FLOAT.fullmatch(text):
        raise CelError(f"strconv.ParseFloat: parsing {go_quote(text)}: invalid syntax")
    value = float(text)
    if math.isinf(value) and "inf" not in text.lower():
        raise CelError(f"strconv.ParseFloat: parsing {go_quote(text)}: value out of range")
    return value


_TRUE: Final = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE: Final = frozenset(("0", "f", "F", "FALSE", "false", "False"))


def _parse_bool(text: str) -> bool:
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise CelError("type conversion error from 'string' to 'bool'")


def _bytes_text(value: bytes) -> str:
    return text_of(value)


def _same(value: Any) -> Any:
    return value


_CONVERSIONS: Final[tuple[tuple[str, str, Type, Type, Callable[[Any], Any], Cost], ...]] = (
    ("int", "int64_to_int64", INT, INT, _same, 1),
    ("int", "uint64_to_int64", UINT, INT, lambda value: as_int(int(value)), 1),
    ("int", "double_to_int64", DOUBLE, INT, _to_int, 1),
    ("int", "string_to_int64", STRING, INT, _parse_int, 1),
    ("int", "timestamp_to_int64", TIMESTAMP, INT, lambda value: value.ns // SECOND, 1),
    ("int", "duration_to_int64", DURATION, INT, lambda value: value.ns, 1),
    ("uint", "uint64_to_uint64", UINT, UINT, _same, 1),
    ("uint", "int64_to_uint64", INT, UINT, as_uint, 1),
    ("uint", "double_to_uint64", DOUBLE, UINT, _to_uint, 1),
    ("uint", "string_to_uint64", STRING, UINT, _parse_uint, 1),
    ("double", "double_to_double", DOUBLE, DOUBLE, _same, 1),
    ("double", "int64_to_double", INT, DOUBLE, float, 1),
    ("double", "uint64_to_double", UINT, DOUBLE, float, 1),
    ("double", "string_to_double", STRING, DOUBLE, _parse_double, 1),
    ("bool", "bool_to_bool", BOOL, BOOL, _same, 1),
    ("bool", "string_to_bool", STRING, BOOL, _parse_bool, 1),
    ("bytes", "bytes_to_bytes", BYTES, BYTES, _same, 1),
    ("bytes", "string_to_bytes", STRING, BYTES, str.encode, walk),
    ("string", "string_to_string", STRING, STRING, _same, 1),
    ("string", "bool_to_string", BOOL, STRING, text_of, 1),
    ("string", "int64_to_string", INT, STRING, text_of, 1),
    ("string", "uint64_to_string", UINT, STRING, text_of, 1),
    ("string", "double_to_string", DOUBLE, STRING, text_of, 1),
    ("string", "bytes_to_string", BYTES, STRING, _bytes_text, walk),
    ("string", "timestamp_to_string", TIMESTAMP, STRING, text_of, 1),
    ("string", "duration_to_string", DURATION, STRING, text_of, 1),
    ("timestamp", "timestamp_to_timestamp", TIMESTAMP, TIMESTAMP, _same, 1),
    ("timestamp", "int64_to_timestamp", INT, TIMESTAMP, lambda value: as_timestamp(value * SECOND), 1),
    ("timestamp", "string_to_timestamp", STRING, TIMESTAMP, times.parse_timestamp, 1),
    ("duration", "duration_to_duration", DURATION, DURATION, _same, 1),
    ("duration", "int64_to_duration", INT, DURATION, as_duration, 1),
    ("duration", "string_to_duration", STRING, DURATION, times.parse_duration, 1),
    ("dyn", "to_dyn", A, DYN, _same, 1),
)  # fmt: skip
FOLDED: Final = frozenset(
    ("int", "uint", "double", "bool", "bytes", "string", "timestamp", "duration", "dyn")
)
"""Conversions of constants are done at compile time and cost nothing."""


def _contains_cost(text: str, part: str) -> int:
    return tenth(len(text)) * tenth(len(part))


def _matches(text: str, pattern: str) -> bool:
    return compiled(pattern).matches(text)


def _timestamp_fields() -> Iterator[tuple[str, Overload]]:
    for name, field in times.TIMESTAMP_FIELDS.items():
        yield name, member(f"timestamp_to_{name}", (TIMESTAMP,), INT, _in_utc(field))
        yield name, member(f"timestamp_to_{name}_with_tz", (TIMESTAMP, STRING), INT, _in_zone(field))
    for name, unit in times.DURATION_FIELDS.items():
        yield name, member(f"duration_to_{name}", (DURATION,), INT, _in_units(unit))


def _in_utc(field: Callable[[Any], int]) -> Callable[[Timestamp], int]:
    return lambda moment: field(times.local(moment, ""))


def _in_zone(field: Callable[[Any], int]) -> Callable[[Timestamp, str], int]:
    return lambda moment, zone: field(times.local(moment, zone))


def _in_units(unit: int) -> Callable[[Duration], int]:
    return lambda duration: times.whole(duration, unit)


def index_list(items: list[Any], at: Any) -> Any:
    """`items[at]`. Raises CelError."""
    if type(at) is not int:
        at = _position(at)
    if 0 <= at < len(items):
        return items[at]
    raise CelError(f"index out of bounds: {at}")


def _position(at: Any) -> int:
    if isinstance(at, bool) or not isinstance(at, (int, float)):
        raise CelError(f"unsupported index type '{kind_of(at)}' in list")
    if isinstance(at, float) and not at.is_integer():
        raise CelError(f"unsupported index value {at} in list")
    return int(at)


def index_map(mapping: Any, key: Any) -> Any:
    """`mapping[key]`. Raises CelError."""
    try:
        return mapping[key if type(key) is str else key_in(key)]
    except KeyError:
        raise CelError(f"no such key: {shown_key(key)}") from None


def shown_key(key: Any) -> str:
    """A key as messages write it."""
    try:
        return text_of(key)
    except CelError:
        return kind_of(key)


def in_map(key: Any, mapping: Any) -> bool:
    try:
        return key_in(key) in mapping
    except CelError:
        return False


def optional_index(container: Any, key: Any) -> Optional:
    """`container[?key]`, which looks into an optional container too."""
    if isinstance(container, Optional):
        return optional_index(container.value, key) if container.present else ABSENT
    if isinstance(container, list):
        try:
            return Optional(index_list(container, key))
        except CelError as error:
            if str(error).startswith("index out of bounds"):
                return ABSENT
            raise
    return Optional(container[key_in(key)]) if key_in(key) in container else ABSENT


def _plain_index(container: Optional, key: Any) -> Optional:
    return optional_index(container, key)


def _negate(value: int) -> int:
    return as_int(-value)


_INDEX: Final = (
    overload("index_list", (LIST_A, INT), A, index_list),
    overload("index_map", (MAP_AB, A), B, index_map),
    overload("optional_list_index_int", (optional_of(LIST_A), INT), optional_of(A), _plain_index),
    overload("optional_map_index_value", (optional_of(MAP_AB), A), optional_of(B), _plain_index),
)
_OPTIONAL_INDEX: Final = (
    overload("list_optindex_optional_int", (LIST_A, INT), optional_of(A), optional_index),
    overload("map_optindex_optional_value", (MAP_AB, A), optional_of(B), optional_index),
    overload(
        "optional_list_optindex_optional_int", (optional_of(LIST_A), INT), optional_of(A), optional_index
    ),
    overload(
        "optional_map_optindex_optional_value", (optional_of(MAP_AB), A), optional_of(B), optional_index
    ),
)


def _never(*_: Any) -> Any:
    raise AssertionError("compiled by its own form")


def _table() -> Iterator[tuple[str, Overload]]:
    yield "_?_:_", overload("conditional", (BOOL, A, A), A, _never)
    yield "_&&_", overload("logical_and", (BOOL, BOOL), BOOL, _never)
    yield "_||_", overload("logical_or", (BOOL, BOOL), BOOL, _never)
    yield "!_", overload("logical_not", (BOOL,), BOOL, operator.not_)
    yield "-_", overload("negate_int64", (INT,), INT, _negate)
    yield "-_", overload("negate_double", (DOUBLE,), DOUBLE, operator.neg)
    yield "_==_", overload("equals", (A, A), BOOL, equal, _smaller)
    yield "_!=_", overload("not_equals", (A, A), BOOL, lambda a, b: not equal(a, b), _smaller)
    yield (
        "@in",
        overload(
            "in_list",
            (A, LIST_A),
            BOOL,
            lambda item, items: contains(items, item),
            _listed,
        ),
    )
    yield "@in", overload("in_map", (A, MAP_AB), BOOL, in_map)
    for name, id, left, right, result, run, cost in _ARITHMETIC:
        yield name, overload(id, (left, right), result, run, cost)
    yield from _comparisons()
    for name, id, given, result, convert, cost in _CONVERSIONS:
        yield name, overload(id, (given,), result, convert, cost)
    yield "type", overload("type", (A,), type_of(A), lambda value: TypeValue(kind_of(value)))
    for label, type in (("string", STRING), ("bytes", BYTES), ("list", LIST_A), ("map", MAP_AB)):
        yield "size", overload(f"size_{label}", (type,), INT, len)
        yield "size", member(f"{label}_size", (type,), INT, len)
    yield (
        "contains",
        member("contains_string", (STRING, STRING), BOOL, lambda text, part: part in text, _contains_cost),
    )
    yield "startsWith", member("starts_with_string", (STRING, STRING), BOOL, str.startswith, walk)
    yield "endsWith", member("ends_with_string", (STRING, STRING), BOOL, str.endswith, walk)
    yield "matches", overload("matches", (STRING, STRING), BOOL, _matches, regex_cost)
    yield "matches", member("matches_string", (STRING, STRING), BOOL, _matches, regex_cost)
    yield from _timestamp_fields()
    for each in _INDEX:
        yield "_[_]", each
    for each in _OPTIONAL_INDEX:
        yield "_[?_]", each


def _optional_value(optional: Optional) -> Any:
    if optional.present:
        return optional.value
    raise CelError("optional.none() dereference")


def _zero(value: Any) -> bool:
    return value is None or value in (False, 0, 0.0, "", b"", [], {}) or value in (Timestamp(0), Duration(0))


def _unwrapped(items: list[Any]) -> list[Any]:
    return [item.value for item in items if item.present]


def _edge(items: list[Any], at: int) -> Optional:
    return Optional(items[at]) if items else ABSENT


_OPT_A: Final = optional_of(A)
_OPTIONALS: Final = (
    ("optional.of", overload("optional_of", (A,), _OPT_A, Optional)),
    ("optional.ofNonZeroValue", overload("optional_ofNonZeroValue", (A,), _OPT_A, lambda value: ABSENT if _zero(value) else Optional(value))),
    ("optional.none", overload("optional_none", (), _OPT_A, lambda: ABSENT)),
    ("hasValue", member("optional_hasValue", (_OPT_A,), BOOL, lambda optional: optional.present)),
    ("value", member("optional_value", (_OPT_A,), A, _optional_value)),
    ("or", member("optional_or_optional", (_OPT_A, _OPT_A), _OPT_A, lambda optional, other: optional if optional.present else other)),
    ("orValue", member("optional_orValue_value", (_OPT_A, A), A, lambda optional, other: optional.value if optional.present else other)),
    ("optional.unwrap", overload("optional_unwrap", (list_of(_OPT_A),), LIST_A, _unwrapped)),
    ("unwrapOpt", member("optional_unwrapOpt", (list_of(_OPT_A),), LIST_A, _unwrapped)),
    ("first", member("list_first", (LIST_A,), _OPT_A, lambda items: _edge(items, 0))),
    ("last", member("list_last", (LIST_A,), _OPT_A, lambda items: _edge(items, -1))),
)  # fmt: skip


def grouped(rows: Iterable[tuple[str, Overload]]) -> Functions:
    """Rows of name and overload as a table."""
    found: dict[str, tuple[Overload, ...]] = {}
    for name, each in rows:
        found[name] = (*found.get(name, ()), each)
    return found


STANDARD: Final[Functions] = grouped(_table())
OPTIONALS: Final[Functions] = grouped(_OPTIONALS)
