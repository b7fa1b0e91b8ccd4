"""Check a decoded document against a schema: unknown fields, wrong types in the words of Go's decoder, key count.

Two passes. The fast one is a closure per type, compiled on first use: it counts keys and gives up at the first thing
that is not plainly right (about 5 µs for a full pod). Then a walker goes over the document once more and finds
everything, with paths. Most documents never see the walker.

    unknown    `spec.containers[0].foo`, as `unknown field "…"` names it
    errors     `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`
    key_count  members of all objects; equal to the number of keys in the text unless it repeats some

For custom resources there is no Go type: only unknown fields and keys are reported, types are left to their own
validation; their metadata is ObjectMeta, which Go decodes.
Source: k8s v1.36 sigs.k8s.io/json (decode.go, kubernetes_patch.go); apimachinery Time, Quantity, IntOrString.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import orjson

from kcp.base.values import frozen
from kcp.machinery import quantity, times
from kcp.machinery.errors import go_quote
from kcp.machinery.schema.compile import Schema

Checker = Callable[[Any], int]

MAX_UNKNOWN = 100
"""The decoder stops collecting after so many. Source: sigs.k8s.io/json saveStrictError."""


@frozen
class Report:
    """What `check` found. `errors` holds Go's texts, the one that Go would report first."""

    unknown: list[str]
    errors: list[str]
    key_count: int
    has_voids: bool = False
    """Whether Go would drop or zero something that is null or empty: run `defaults.drop_voids` before storing."""


class _Odd(Exception):
    """Raised inside the fast pass: have the walker look. A new one each time: one that is raised again keeps the frames
    of every time, with the documents that they held.
    """


def check(schema: Schema, value: Any) -> Report:
    """Unknown fields, type errors and key count of a document. Never raises for what the document holds."""
    try:
        return Report([], [], _checker(schema)(value))
    except (_Odd, KeyError, TypeError):
        walk = _Walk()
        walk.visit(schema, value, "", "", ())
        return Report(walk.unknown[:MAX_UNKNOWN], walk.hard[:1] + walk.soft, walk.key_count, walk.has_voids)


def count_keys(value: Any) -> int:
    """How many members all objects inside have together."""
    if type(value) is dict:
        return len(value) + sum(count_keys(v) for v in value.values() if type(v) in _CONTAINERS)
    if type(value) is list:
        return sum(count_keys(v) for v in value if type(v) in _CONTAINERS)
    return 0


_CONTAINERS = frozenset({dict, list})


def _checker(schema: Schema) -> Checker:
    if schema.checker is None:
        schema.checker = _build(schema)
    checker: Checker = schema.checker
    return checker


def _build(schema: Schema) -> Checker:
    if not schema.builtin:
        return _structural(schema)
    if schema.special:
        return _SPECIAL_CHECKERS[schema.special]
    if schema.fields or (schema.type == "object" and schema.additional is None):
        return _struct(schema)
    if schema.additional is not None:
        return _map_of(schema.additional)
    if schema.items is not None:
        return _list_of(schema.items)
    return _SCALAR_CHECKERS.get((schema.type, schema.format), count_keys)


_PLAIN: Mapping[tuple[str, str], type] = {("string", ""): str, ("boolean", ""): bool}
"""Scalars for which the class of the value says it all."""


def _plain(schema: Schema) -> type | None:
    return None if schema.special else _PLAIN.get((schema.type, schema.format))


def _struct(schema: Schema) -> Checker:
    """Per member one dict lookup and one comparison.

    An unknown key ends in KeyError; a member that should be a string ends in TypeError, as `str` is then called in
    the place of a checker and its result is no number. `check` takes both for odd.
    """
    table: dict[str, Any] = {}

    def check_struct(value: Any) -> int:
        if type(value) is not dict:
            raise _Odd
        count = len(value)
        for key, member in value.items():
            expected = table[key]
            if type(member) is not expected:
                count += expected(member)
        return count

    schema.checker = check_struct
    for name, field in schema.fields.items():
        table[name] = str if _plain(field) is str else _member_checker(schema, name, field)
    return check_struct


def _member_checker(schema: Schema, name: str, field: Schema) -> Checker:
    """As the field's own; an empty list or map that Go would leave out is odd."""
    if not schema.omits_empty(name, field):
        return _checker(field)
    if field.items is not None:
        return _list_of(field.items, may_be_empty=False)
    assert field.additional is not None
    return _map_of(field.additional, may_be_empty=False)


def _map_of(values: Schema, may_be_empty: bool = True) -> Checker:
    plain = _plain(values)
    inner = None if plain else _checker(values)

    def check_map(value: Any) -> int:
        if type(value) is not dict:
            raise _Odd
        count = len(value)
        if not count and not may_be_empty:
            raise _Odd
        if inner is None:
            for member in value.values():
                if type(member) is not plain:
                    raise _Odd
        else:
            count += sum(map(inner, value.values()))
        return count

    return check_map


def _list_of(items: Schema, may_be_empty: bool = True) -> Checker:
    plain = _plain(items)

    def check_plain_list(value: Any) -> int:
        if type(value) is not list or not (value or may_be_empty):
            raise _Odd
        for item in value:
            if type(item) is not plain:
                raise _Odd
        return 0

    def check_list(value: Any) -> int:
        if type(value) is not list or not (value or may_be_empty):
            raise _Odd
        return sum(map(items.checker or _checker(items), value))

    return check_plain_list if plain else check_list


def _structural(schema: Schema) -> Checker:
    """For custom resources: unknown fields and keys only."""
    fields, items, additional, free = schema.fields, schema.items, schema.additional, is_free(schema)

    def check_structural(value: Any) -> int:
        if type(value) is list:
            return sum(_checker(items)(v) for v in value) if items else count_keys(value)
        if type(value) is not dict:
            return 0
        count = len(value)
        for key, member in value.items():
            known = fields.get(key) or additional
            if known is not None:
                count += _checker(known)(member)
            elif free:
                count += count_keys(member)
            else:
                raise _Odd
        return count

    return check_structural


def is_free(schema: Schema) -> bool:
    """Whether keys that nobody declared are kept."""
    return schema.preserve_unknown or (not schema.type and not schema.fields)


def _int32(value: Any) -> int:
    if type(value) is int and -(2**31) <= value < 2**31:
        return 0
    raise _Odd


def _int64(value: Any) -> int:
    if type(value) is int and -(2**63) <= value < 2**63:
        return 0
    raise _Odd


def _number(value: Any) -> int:
    if type(value) is float or type(value) is int:
        return 0
    raise _Odd


def _bytes(value: Any) -> int:
    if type(value) is str and base64_error(value) == "":
        return 0
    raise _Odd


def _quantity(value: Any) -> int:
    if type(value) is str:
        if not quantity_error(value):
            return 0
    elif type(value) is int or type(value) is float:
        return 0
    raise _Odd


def _int_or_string(value: Any) -> int:
    return 0 if type(value) is str else _int32(value)


def _time(value: Any) -> int:
    if type(value) is str and not time_error(value, False):
        return 0
    raise _Odd


def _micro_time(value: Any) -> int:
    if type(value) is str and not time_error(value, True):
        return 0
    raise _Odd


def _raw(value: Any) -> int:
    if value is None:
        raise _Odd
    return count_keys(value)


def _text(value: Any) -> int:
    if type(value) is str:
        return 0
    raise _Odd


def _boolean(value: Any) -> int:
    if type(value) is bool:
        return 0
    raise _Odd


_SPECIAL_CHECKERS: Mapping[str, Checker] = {
    "quantity": _quantity,
    "int_or_string": _int_or_string,
    "time": _time,
    "micro_time": _micro_time,
    "raw": _raw,
}
_SCALAR_CHECKERS: Mapping[tuple[str, str], Checker] = {
    ("string", ""): _text,
    ("string", "byte"): _bytes,
    ("boolean", ""): _boolean,
    ("integer", "int32"): _int32,
    ("integer", "int64"): _int64,
    ("integer", ""): _int64,
    ("number", "double"): _number,
    ("number", ""): _number,
}


_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")


def base64_error(text: str) -> str:
    """Go's complaint about base64 text, "" when it is right. Line breaks are allowed."""
    try:
        binascii.a2b_base64(text.replace("\n", "").replace("\r", ""), strict_mode=True)
    except (binascii.Error, ValueError):
        good = _BASE64.match(text)
        end = good.end() if good else 0
        at = end if end < len(text) else len(text) // 4 * 4
        return f"illegal base64 data at input byte {at}"
    return ""


@lru_cache(maxsize=8192)
def quantity_error(text: str) -> str:
    """Go's complaint about a quantity, "" when it parses."""
    try:
        quantity.parse(text)
    except quantity.QuantityError as error:
        return str(error)
    return ""


_SECONDS = "2006-01-02T15:04:05Z07:00"
_MICROSECONDS = "2006-01-02T15:04:05.000000Z07:00"
_FRACTION = re.compile(r"[0-9-]{10}T[0-9]{1,2}:[0-9]{2}:[0-9]{2}(\.[0-9]{6})?", re.ASCII)


@lru_cache(maxsize=4096)
def time_error(text: str, micro: bool) -> str:
    """What time.Parse says of a text that should be a Time, or a MicroTime; "" when it parses."""
    try:
        times.parse_time(text)
    except ValueError as error:
        return str(error).replace(go_quote(_SECONDS), go_quote(_MICROSECONDS)) if micro else str(error)
    head = _FRACTION.match(text)
    if not micro or head is None:
        return ""
    rest, wanted = text[head.end() :], "Z07:00" if head.group(1) else ".000000"
    if head.group(1) and not rest[0].isdigit():
        return ""
    layout = go_quote(_MICROSECONDS)
    return f"parsing time {go_quote(text)} as {layout}: cannot parse {go_quote(rest)} as {go_quote(wanted)}"


def _json_kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, (int, float)):
        return "number"
    return "array" if isinstance(value, list) else "object"


def _json_text(value: Any) -> str:
    return orjson.dumps(value).decode()


class _Walk:
    """Finds everything that is odd. `hard` errors end Go's decoding at once, of `soft` ones it reports the first."""

    def __init__(self) -> None:
        self.unknown: list[str] = []
        self.hard: list[str] = []
        self.soft: list[str] = []
        self.key_count = 0
        self.has_voids = False

    def visit(self, schema: Schema, value: Any, path: str, struct: str, stack: tuple[str, ...]) -> None:
        """`path` has indexes and map keys; `stack` the Go field names, `struct` the innermost Go struct."""
        if value is None:
            self.has_voids = self.has_voids or schema.builtin
        elif schema.special:
            self._special(schema, value, struct, stack)
        elif isinstance(value, dict):
            self._object(schema, value, path, struct, stack)
        elif isinstance(value, list):
            self._array(schema, value, path, struct, stack)
        elif schema.builtin:
            self._scalar(schema, value, struct, stack)

    def _object(
        self, schema: Schema, value: dict[str, Any], path: str, struct: str, stack: tuple[str, ...]
    ) -> None:
        if schema.builtin and schema.type not in ("object", ""):
            self._mismatch(schema, value, struct, stack)
            return
        self.key_count += len(value)
        for key, member in value.items():
            inner = f"{path}.{key}" if path else key
            field = schema.fields.get(key)
            if field is not None:
                if not member and isinstance(member, (dict, list)) and schema.omits_empty(key, field):
                    self.has_voids = True
                self.visit(field, member, inner, schema.name or struct, (*stack, key))
            elif schema.additional is not None:
                self.visit(schema.additional, member, inner, struct, stack)
            else:
                self.key_count += count_keys(member)
                if not is_free(schema):
                    self.unknown.append(inner)

    def _array(
        self, schema: Schema, value: list[Any], path: str, struct: str, stack: tuple[str, ...]
    ) -> None:
        if schema.items is not None:
            for index, item in enumerate(value):
                self.visit(schema.items, item, f"{path}[{index}]", struct, stack)
        elif schema.builtin and schema.type:
            self._mismatch(schema, value, struct, stack)
        else:
            self.key_count += count_keys(value)

    def _scalar(self, schema: Schema, value: Any, struct: str, stack: tuple[str, ...]) -> None:
        fits = _SCALAR_CHECKERS.get((schema.type, schema.format))
        if fits is None:
            if schema.type:
                self._mismatch(schema, value, struct, stack)
            return
        try:
            fits(value)
        except _Odd:
            if schema.format == "byte" and isinstance(value, str):
                self.soft.append(base64_error(value))
            else:
                self._mismatch(schema, value, struct, stack)

    def _special(self, schema: Schema, value: Any, struct: str, stack: tuple[str, ...]) -> None:
        self.key_count += count_keys(value)
        kind = schema.special
        if kind == "quantity":
            text = value if isinstance(value, str) else _json_text(value)
            if error := quantity_error(text):
                self.hard.append(error)
        elif kind in ("time", "micro_time"):
            if not isinstance(value, str):
                self.hard.append(_type_error(value, "string", struct, stack))
            elif error := time_error(value, kind == "micro_time"):
                self.hard.append(error)
        elif kind == "int_or_string" and schema.builtin and not isinstance(value, str):
            try:
                _int32(value)
            except _Odd:
                self.hard.append(_type_error(value, "int32", struct, stack))

    def _mismatch(self, schema: Schema, value: Any, struct: str, stack: tuple[str, ...]) -> None:
        if isinstance(value, (dict, list)):
            self.key_count += count_keys(value)
        self.soft.append(_type_error(value, schema.go_type, struct, stack))


def _type_error(value: Any, go_type: str, struct: str, stack: tuple[str, ...]) -> str:
    """UnmarshalTypeError's text."""
    what = _json_kind(value)
    if what == "number" and go_type in ("int32", "int64"):
        what = f"number {value}"
    where = f"Go struct field {struct}.{'.'.join(stack)}" if struct else "Go value"
    return f"json: cannot unmarshal {what} into {where} of type {go_type}"
