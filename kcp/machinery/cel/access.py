"""Closures that look into values: selections, indexes, `has()`, and the maps that expressions make.

Source: cel-go v0.26 interpreter/attributes.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kcp.machinery.cel.closures import Code, Frame
from kcp.machinery.cel.convert import converter
from kcp.machinery.cel.standard import shown_key
from kcp.machinery.cel.types import Type
from kcp.machinery.cel.values import ABSENT, CelError, Optional, Struct, key_in, kind_of, no_overload


def json_name(operand: Type, field: str) -> str:
    """The key of a field in the document: an object may write it in another way in expressions."""
    if operand.kind == "object" and operand.fields is not None and field in operand.fields:
        return operand.fields[field].name
    return field


def chain(slot: int, keys: tuple[str, ...]) -> Code:
    """`variable.a.b` over dicts."""

    def one(frame: Frame) -> Any:
        try:
            return frame[slot][first]
        except KeyError as error:
            raise CelError(f"no such key: {error.args[0]}") from None

    def two(frame: Frame) -> Any:
        try:
            return frame[slot][first][second]
        except KeyError as error:
            raise CelError(f"no such key: {error.args[0]}") from None

    def many(frame: Frame) -> Any:
        value = frame[slot]
        try:
            for key in keys:
                value = value[key]
        except KeyError as error:
            raise CelError(f"no such key: {error.args[0]}") from None
        return value

    first, second = keys[0], keys[1] if len(keys) > 1 else ""
    return one if len(keys) == 1 else two if len(keys) == 2 else many


def selection(operand: Code, field: str, type: Type) -> Code:
    if type.kind not in ("object", "map"):
        return lambda frame: _field(operand(frame), field)

    def run(frame: Frame) -> Any:
        value = operand(frame)
        try:
            return value[field]
        except KeyError:
            raise CelError(f"no such key: {field}") from None
        except TypeError:
            return _field(value, field)

    return run


def keyed(operand: Code, key: Code) -> Code:
    def run(frame: Frame) -> Any:
        mapping, wanted = operand(frame), key(frame)
        try:
            return mapping[wanted]
        except KeyError:
            raise CelError(f"no such key: {shown_key(wanted)}") from None

    return run


def _field(value: Any, field: str) -> Any:
    """`value.field` where only the value says what it is."""
    if isinstance(value, Optional):
        return optional_field(value, field)
    if isinstance(value, Struct):
        value = value.fields
    if not isinstance(value, Mapping):
        raise no_overload()
    try:
        return value[field]
    except KeyError:
        raise CelError(f"no such key: {field}") from None


def optional_field(value: Any, field: str) -> Optional:
    while isinstance(value, Optional):
        if not value.present:
            return ABSENT
        value = value.value
    if isinstance(value, Struct):
        value = value.fields
    if not isinstance(value, Mapping):
        raise CelError(f"no such key: {field}")
    return Optional(value[field]) if field in value else ABSENT


def presence(operand: Code, field: str, known: bool) -> Code:
    """`has(operand.field)`; a null field of an object counts as not there."""
    if known:

        def of_object(frame: Frame) -> bool:
            value = operand(frame)
            return (value.get(field) is not None) if type(value) is dict else _has(value, field)

        return of_object
    return lambda frame: _has(operand(frame), field)


def _has(value: Any, field: str) -> bool:
    if isinstance(value, Optional):
        return value.present and _has(value.value, field)
    if isinstance(value, Struct):
        return field in value.fields
    if not isinstance(value, Mapping):
        raise no_overload()
    own = getattr(value, "has_field", None)
    return bool(own(field)) if own is not None else field in value


def member_of(code: Code, wanted: frozenset[str]) -> Code:
    def run(frame: Frame) -> bool:
        value = code(frame)
        return type(value) is str and value in wanted

    return run


def converted(code: Code, type: Type) -> Code:
    convert = converter(type)
    return code if convert is None else lambda frame: convert(code(frame))


def optional_of(value: Any) -> Optional:
    if isinstance(value, Optional):
        return value
    raise CelError(f"cannot initialize optional entry from non-optional value {kind_of(value)}")


def mapping_of(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """A map of its entries. Raises CelError for a key that comes twice."""
    found: dict[Any, Any] = {}
    for key, value in pairs:
        inner = key_in(key)
        if inner in found:
            raise CelError(f"Failed with repeated key: {shown_key(key)}")
        found[inner] = value
    return found
