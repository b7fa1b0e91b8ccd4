"""JSON as CEL values where a schema says that a text or number stands for something else.

`date-time` and `date` are timestamps, `duration` is a duration, `byte` is bytes, a `number` is a double even when it
has no fraction, and lists of type set and map compare and add up in their own way. Objects are converted field by
field, when an expression asks for one.

Source: k8s v1.36 apiserver/pkg/cel/common/values.go.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any, Final

from kcp.machinery.cel.times import parse_format_duration, parse_format_time
from kcp.machinery.cel.types import Type
from kcp.machinery.cel.values import CelError, KeyedList

Convert = Callable[[Any], Any]


def _timestamp(value: Any) -> Any:
    return parse_format_time(value) if isinstance(value, str) else value


def _duration(value: Any) -> Any:
    return parse_format_duration(value) if isinstance(value, str) else value


def _bytes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise CelError("expected base64 string") from None


def _double(value: Any) -> Any:
    return float(value) if type(value) is int else value


_SCALARS: Final[dict[str, Convert]] = {
    "timestamp": _timestamp,
    "duration": _duration,
    "bytes": _bytes,
    "double": _double,
}


def converter(type: Type) -> Convert | None:
    """What turns a document's value into the value of this type; None when it is that already."""
    if type.kind in _SCALARS:
        return _SCALARS[type.kind]
    if type.kind == "list":
        inner = converter(type.params[0])
        return _list(inner, type.list_keys) if inner is not None or type.list_keys is not None else None
    if type.kind == "map":
        inner = converter(type.params[1])
        return None if inner is None else _map(inner)
    return None


def _list(inner: Convert | None, keys: tuple[str, ...] | None) -> Convert:
    def convert(value: Any) -> Any:
        if not isinstance(value, list):
            return value
        items = value if inner is None else [inner(item) for item in value]
        return items if keys is None else KeyedList(items, keys)

    return convert


def _map(inner: Convert) -> Convert:
    def convert(value: Any) -> Any:
        return {key: inner(item) for key, item in value.items()} if isinstance(value, Mapping) else value

    return convert
