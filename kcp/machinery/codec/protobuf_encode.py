"""Writes objects as application/vnd.kubernetes.protobuf: the inverse of `protobuf.decode_protobuf`."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

import orjson

from kcp.machinery.codec.protobuf_table import (
    ABSENT,
    BYTES,
    MAGIC,
    NUMBER_WIRE,
    WORD,
    Kind,
    UnknownProtobufKind,
    indexes,
    json_schema_index,
    message_name,
    table,
)
from kcp.machinery.gvk import GroupVersion, GroupVersionKind
from kcp.machinery.times import parse_go_duration_ns, parse_time

_FieldWriter = Callable[[bytearray, Mapping[str, Any], bool], None]
_Writer = Callable[[Any, bool], bytes]


def encode_protobuf(obj: dict[str, Any], *, zeros: bool = True) -> bytes:
    """The object in an envelope. With `zeros` as Go writes it: a field that is no pointer is written even when zero.

    Fields that the message does not have are dropped. Raises UnknownProtobufKind.
    """
    group_version = GroupVersion.parse(obj["apiVersion"])
    gvk = GroupVersionKind(group_version.group, group_version.version, obj["kind"])
    name = message_name(gvk)
    if name is None:
        raise UnknownProtobufKind(gvk)
    raw = _write(indexes()[name], obj, zeros)
    type_meta = _delimited(1, gvk.api_version.encode()) + _delimited(2, gvk.kind.encode())
    tail = _delimited(3, b"") + _delimited(4, b"")
    return MAGIC + _delimited(1, type_meta) + _delimited(2, raw) + tail


@cache
def _writers(index: int) -> list[_FieldWriter]:
    """The writers of a message's fields in the order of their numbers."""
    return [
        _field_writer(row[0], row[1], row[2], row[3] if len(row) > 3 else "") for row in table()[1][index]
    ]


def _write(index: int, obj: Mapping[str, Any], zeros: bool) -> bytes:
    out = bytearray()
    for write in _writers(index):
        write(out, obj, zeros)
    return bytes(out)


def _encode_varint(value: int) -> bytes:
    value &= WORD - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _delimited(number: int, payload: bytes) -> bytes:
    return _encode_varint(number << 3 | BYTES) + _encode_varint(len(payload)) + payload


def _tagged(number: int, kind: Kind, value: Any, writer: _Writer, zeros: bool) -> bytes:
    payload = writer(value, zeros)
    if kind in NUMBER_WIRE:
        return _encode_varint(number << 3 | NUMBER_WIRE[kind]) + payload
    return _delimited(number, payload)


def _field_writer(number: int, name: str, kind: Kind, flags: str) -> _FieldWriter:
    writer = _writer(kind)
    if not name:
        return _inline_writer(number, writer)
    if "l" in flags:
        return _list_writer(number, name, kind, writer)
    if "m" in flags:
        return _map_writer(number, name, kind, writer)
    pointer, zero = "p" in flags, _go_zero(kind)

    def write(out: bytearray, obj: Mapping[str, Any], zeros: bool) -> None:
        value = obj.get(name, ABSENT)
        if value is None and kind != "raw":
            value = ABSENT
        if value is ABSENT:
            if pointer or not zeros:
                return
            value = zero
        out += _tagged(number, kind, value, writer, zeros)

    return write


def _inline_writer(number: int, writer: _Writer) -> _FieldWriter:
    def write(out: bytearray, obj: Mapping[str, Any], zeros: bool) -> None:
        payload = writer(obj, zeros)
        if payload or zeros:
            out += _delimited(number, payload)

    return write


def _list_writer(number: int, name: str, kind: Kind, writer: _Writer) -> _FieldWriter:
    def write(out: bytearray, obj: Mapping[str, Any], zeros: bool) -> None:
        for value in obj.get(name) or ():
            out += _tagged(number, kind, value, writer, zeros)

    return write


def _map_writer(number: int, name: str, kind: Kind, writer: _Writer) -> _FieldWriter:
    def write(out: bytearray, obj: Mapping[str, Any], zeros: bool) -> None:
        for key, value in (obj.get(name) or {}).items():
            entry = _delimited(1, key.encode()) + _tagged(2, kind, value, writer, zeros)
            out += _delimited(number, entry)

    return write


def _go_zero(kind: Kind) -> Any:
    if isinstance(kind, int):
        return {}
    zeros = {"string": "", "bytes": "", "strings": [], "Quantity": "0", "Duration": "0s"}
    return zeros.get(kind, None if kind in ("Time", "MicroTime") else ABSENT if kind == "raw" else 0)


def _writer(kind: Kind) -> _Writer:
    """Makes the payload of one value, without tag and length."""
    if isinstance(kind, int):
        return lambda value, zeros: _write(kind, value, zeros)
    return _WRITERS[kind]


def _write_number(value: Any, zeros: bool) -> bytes:
    return _encode_varint(int(value))


def _write_moment(value: Any, zeros: bool) -> bytes:
    if not value:
        return b""
    moment = parse_time(value)
    seconds = int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() // 1)
    return b"\x08" + _encode_varint(seconds) + b"\x10" + _encode_varint(moment.microsecond * 1000)


def _write_int_or_string(value: Any, zeros: bool) -> bytes:
    text, number = (value, 0) if isinstance(value, str) else ("", int(value))
    kind = b"\x08\x01" if isinstance(value, str) else b"\x08\x00"
    return kind + b"\x10" + _encode_varint(number) + _delimited(3, text.encode())


def _write_raw(value: Any, zeros: bool) -> bytes:
    return b"" if value is ABSENT else _delimited(1, orjson.dumps(value))


def _write_schema(value: Any, zeros: bool) -> bytes:
    return _write(json_schema_index(), value, zeros)


def _write_schema_or_array(value: Any, zeros: bool) -> bytes:
    if isinstance(value, list):
        return b"".join(_delimited(2, _write_schema(item, zeros)) for item in value)
    return _delimited(1, _write_schema(value, zeros))


def _write_schema_or_bool(value: Any, zeros: bool) -> bytes:
    if isinstance(value, bool):
        return b"\x08\x01" if value else b"\x08\x00"
    return b"\x08\x01" + _delimited(2, _write_schema(value, zeros))


def _write_schema_or_strings(value: Any, zeros: bool) -> bytes:
    if isinstance(value, list):
        return b"".join(_delimited(2, item.encode()) for item in value)
    return _delimited(1, _write_schema(value, zeros))


_WRITERS: dict[str, _Writer] = {
    "bool": _write_number,
    "int32": _write_number,
    "int64": _write_number,
    "float64": lambda value, zeros: struct.pack("<d", value),
    "string": lambda value, zeros: str(value).encode("utf-8", "replace"),
    "bytes": lambda value, zeros: base64.b64decode(value),
    "Time": _write_moment,
    "MicroTime": _write_moment,
    "Duration": lambda value, zeros: b"\x08" + _encode_varint(parse_go_duration_ns(value)),
    "Quantity": lambda value, zeros: _delimited(1, str(value).encode()),
    "IntOrString": _write_int_or_string,
    "strings": lambda value, zeros: b"".join(_delimited(1, item.encode()) for item in value),
    "raw": _write_raw,
    "orArray": _write_schema_or_array,
    "orBool": _write_schema_or_bool,
    "orStrings": _write_schema_or_strings,
}
