"""Reads application/vnd.kubernetes.protobuf, as Go clients send it.

The result is the JSON object that the same Go client would have sent as JSON: a field that is no pointer and zero is
left out where Go's JSON leaves it out; empty structs, quantities and durations stay. Readers of a message are
compiled at its first use from the table in `protobuf_table`. Unknown field numbers are skipped.
Source: k8s v1.36 apimachinery/pkg/runtime/serializer/protobuf, the generated.proto files; protobuf encoding (proto2).
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from math import isfinite
from typing import Any

import orjson

from kcp.machinery.codec.json import JsonError, decode_json
from kcp.machinery.codec.protobuf_encode import encode_protobuf
from kcp.machinery.codec.protobuf_table import (
    ABSENT,
    BYTES,
    FIXED32,
    FIXED64,
    MAGIC,
    NUMBER_WIRE,
    VARINT,
    WORD,
    Kind,
    ProtobufError,
    UnknownProtobufKind,
    indexes,
    json_schema_index,
    message_name,
    table,
)
from kcp.machinery.gvk import GroupVersion, GroupVersionKind
from kcp.machinery.times import format_go_duration_ns

__all__ = [
    "ProtobufError", "UnknownProtobufKind", "decode_protobuf", "encode_protobuf", "members_of", "message_name",
]  # fmt: skip

Json = dict[str, Any]


def decode_protobuf(body: bytes, expected: GroupVersionKind | None = None) -> Json:
    """The object in an envelope, with apiVersion and kind; `expected` fills in what the envelope leaves out.

    Raises ProtobufError for a malformed body and UnknownProtobufKind for a kind without a message.
    Cost: about 60 µs per pod.
    """
    if not body:
        raise ProtobufError("empty data")
    if body[:4] != MAGIC:
        prefix = "[107 56 115 0]"
        raise ProtobufError(
            f"provided data does not appear to be a protobuf message, expected prefix {prefix}"
        )
    if len(body) == 4:
        raise ProtobufError("empty body")
    try:
        out = _decode_envelope(body, expected)
        orjson.dumps(out)
    except RecursionError:
        raise ProtobufError("exceeded max depth") from None
    except TypeError as error:
        raise ProtobufError(str(error)) from None
    return out


def _decode_envelope(body: bytes, expected: GroupVersionKind | None) -> Json:
    envelope = members_of(body, 4, len(body))
    type_meta, raw = _bytes_of(envelope.get(1)), _bytes_of(envelope.get(2))
    names = members_of(type_meta, 0, len(type_meta))
    gvk = _defaulted(_text_of(names.get(1)), _text_of(names.get(2)), expected)
    if not gvk.kind or not gvk.version:
        missing = "apiVersion" if gvk.kind else "Kind"
        shown = f'runtime.TypeMeta{{APIVersion:"{gvk.api_version}", Kind:"{gvk.kind}"}}'
        raise ProtobufError(f"Object '{missing}' is missing in '{shown}'")
    name = message_name(gvk)
    if name is None:
        raise UnknownProtobufKind(gvk)
    return _fill(
        {"apiVersion": gvk.api_version, "kind": gvk.kind}, _readers(indexes()[name]), raw, 0, len(raw)
    )


def _defaulted(api_version: str, kind: str, expected: GroupVersionKind | None) -> GroupVersionKind:
    try:
        group_version = GroupVersion.parse(api_version)
    except ValueError as error:
        raise ProtobufError(str(error)) from None
    if expected is not None:
        kind = kind or expected.kind
        if not group_version.version:
            group_version = expected.group_version
    return GroupVersionKind(group_version.group, group_version.version, kind)


# Reads a field: into `out`, from `buf[at:stop]`; a varint or fixed64 comes as a number in `at`.
_FieldReader = Callable[[Json, bytes, int, int], None]
_Reader = Callable[[bytes, int, int], Any]
_Readers = dict[int, _FieldReader]


@cache
def _readers(index: int) -> _Readers:
    """The compiled readers of a message, by tag."""
    readers: _Readers = {}
    for row in table()[1][index]:
        number, name, kind = row[:3]
        readers.update(_field_readers(number, name, kind, row[3] if len(row) > 3 else ""))
    return readers


def _fill(out: Json, readers: _Readers, buf: bytes, at: int, stop: int) -> Json:
    """Read a message's fields into `out`; unknown ones are skipped."""
    while at < stop:
        tag = buf[at]
        at += 1
        if tag > 127:
            tag, at = _varint(buf, at - 1, stop)
        wire = tag & 7
        if wire == BYTES:
            if at >= stop:
                raise ProtobufError("unexpected EOF")
            size = buf[at]
            at += 1
            if size > 127:
                size, at = _varint(buf, at - 1, stop)
            end = at + size
            if end > stop:
                raise ProtobufError("unexpected EOF")
            reader = readers.get(tag)
            if reader is not None:
                reader(out, buf, at, end)
            else:
                _check_unknown(readers, tag)
            at = end
        elif wire == VARINT:
            value, at = _varint(buf, at, stop)
            reader = readers.get(tag)
            if reader is not None:
                reader(out, buf, value, 0)
            else:
                _check_unknown(readers, tag)
        else:
            at = _fixed(out, buf, at, stop, tag, readers)
    return out


def _fixed(out: Json, buf: bytes, at: int, stop: int, tag: int, readers: _Readers) -> int:
    wire = tag & 7
    if wire not in (FIXED64, FIXED32):
        raise ProtobufError(f"proto: illegal wireType {wire}")
    end = at + (8 if wire == FIXED64 else 4)
    if end > stop:
        raise ProtobufError("unexpected EOF")
    reader = readers.get(tag)
    if reader is not None:
        reader(out, buf, int.from_bytes(buf[at:end], "little"), 0)
    else:
        _check_unknown(readers, tag)
    return end


def _check_unknown(readers: _Readers, tag: int) -> None:
    """An unknown field may be skipped; a known one of another wire type is a fault, as is the number zero."""
    number, wire = tag >> 3, tag & 7
    if number == 0:
        raise ProtobufError(f"proto: illegal tag {number} (wire type {wire})")
    if any(number << 3 | other in readers for other in (VARINT, FIXED64, BYTES)):
        raise ProtobufError(f"proto: wrong wireType = {wire} for field number {number}")


def _varint(buf: bytes, at: int, stop: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= stop:
            raise ProtobufError("unexpected EOF")
        byte = buf[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (WORD - 1), at
        shift += 7
        if shift >= 64:
            raise ProtobufError("proto: integer overflow")


def _int64(value: int) -> int:
    return value - WORD if value >= WORD >> 1 else value


def _int32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


def _float(bits: int) -> float | int:
    (value,) = struct.unpack("<d", bits.to_bytes(8, "little"))
    if not isfinite(value):
        raise ProtobufError(f"json: unsupported value: {value}")
    return int(value) if value.is_integer() and abs(value) < 1 << 63 else value


_NUMBERS: dict[Kind, Callable[[int], Any]] = {
    "bool": bool,
    "int32": _int32,
    "int64": _int64,
    "float64": _float,
}


def _field_readers(number: int, name: str, kind: Kind, flags: str) -> list[tuple[int, _FieldReader]]:
    """The readers of a field with the tags they answer to: two for a list of numbers, which may come packed."""
    tag = number << 3
    if kind in _NUMBERS and "m" not in flags:
        wire, convert = NUMBER_WIRE[kind], _NUMBERS[kind]
        if "l" in flags:
            return [
                (tag | wire, _number_item(name, convert)),
                (tag | BYTES, _packed(name, wire, convert)),
            ]
        return [(tag | wire, _number_field(name, convert, bool(flags)))]
    return [(tag | BYTES, _bytes_reader(name, kind, flags))]


def _bytes_reader(name: str, kind: Kind, flags: str) -> _FieldReader:
    if not name and isinstance(kind, int):
        return _inline_field(kind)
    if "m" in flags:
        return _map_field(name, kind)
    if "l" in flags:
        return _list_field(name, _reader(kind))
    if isinstance(kind, int):
        return _message_field(name, kind)
    if kind == "string":
        return _string_field(name, bool(flags))
    return _value_field(name, _reader(kind), keep=bool(flags) or kind not in ("bytes", "strings"))


def _number_field(name: str, convert: Callable[[int], Any], keep_zero: bool) -> _FieldReader:
    def read(out: Json, buf: bytes, at: int, stop: int) -> None:
        value = convert(at)
        if value or keep_zero:
            out[name] = value
        else:
            out.pop(name, None)

    return read


def _number_item(name: str, convert: Callable[[int], Any]) -> _FieldReader:
    def read(out: Json, buf: bytes, at: int, stop: int) -> None:
        out.setdefault(name, []).append(convert(at))

    return read


def _packed(name: str, wire: int, convert: Callable[[int], Any]) -> _FieldReader:
    def read(out: Json, buf: bytes, at: int, stop: int) -> None:
        items = out.setdefault(name, [])
        while at < stop:
            if wire == VARINT:
                value, at = _varint(buf, at, stop)
            elif at + 8 <= stop:
                value, at = int.from_bytes(buf[at : at + 8], "little"), at + 8
            else:
                raise ProtobufError("unexpected EOF")
            items.append(convert(value))

    return read


def _string_field(name: str, keep_zero: bool) -> _FieldReader:
    def read(out: Json, buf: bytes, at: int, stop: int) -> None:
        if at < stop or keep_zero:
            out[name] = buf[at:stop].decode("utf-8", "replace")
        else:
            out.pop(name, None)

    return read


def _value_field(name: str, reader: _Reader, keep: bool) -> _FieldReader:
    def read(out: Json, buf: bytes, at: int, stop: int) -> None:
        value = reader(buf, at, stop)
        if value is ABSENT or not (value or keep):
            out.pop(name, None)
        else:
            out[name] = value

    return read


def _list_field(name: str, reader: _Reader) -> _FieldReader:
    def read(out: Json, buf: bytes, at: int, stop: int) -> None:
        value = reader(buf, at, stop)
        out.setdefault(name, []).append(None if value is ABSENT else value)

    return read


def _message_field(name: str, kind: int) -> _FieldReader:
    readers: _Readers | None = None

    def read(out: Json, buf: bytes, at: int, stop: int) -> None:
        nonlocal readers
        if readers is None:
            readers = _readers(kind)
        out[name] = _fill(out.get(name) or {}, readers, buf, at, stop)

    return read


def _inline_field(kind: int) -> _FieldReader:
    def read(out: Json, buf: bytes, at: int, stop: int) -> None:
        _fill(out, _readers(kind), buf, at, stop)

    return read


def _map_field(name: str, kind: Kind) -> _FieldReader:
    """An entry message {1 key, 2 value}; an absent value is the zero of its kind."""
    by_number = kind in _NUMBERS
    reader = _number_reader(kind) if by_number else _reader(kind)
    empty = _empty(kind)

    def read(out: Json, buf: bytes, at: int, stop: int) -> None:
        key, value = "", empty
        while at < stop:
            tag, at = _varint(buf, at, stop)
            if tag & 7 == VARINT:
                start, end = at, _varint(buf, at, stop)[1]
            elif tag & 7 == FIXED64:
                start, end = at, at + 8
            else:
                size, start = _varint(buf, at, stop)
                end = start + size
            if end > stop:
                raise ProtobufError("unexpected EOF")
            if tag >> 3 == 1:
                key = buf[start:end].decode("utf-8", "replace")
            elif tag >> 3 == 2:
                value = reader(buf, start, end)
            at = end
        if value is empty:
            value = _copy_empty(empty)
        out.setdefault(name, {})[key] = None if value is ABSENT else value

    return read


def _empty(kind: Kind) -> Any:
    if isinstance(kind, int):
        return {}
    zeros = {"string": "", "bytes": "", "bool": False, "strings": [], "Quantity": "0", "Duration": "0s"}
    return zeros.get(kind, ABSENT if kind in ("Time", "MicroTime", "raw") else 0)


def _copy_empty(empty: Any) -> Any:
    return type(empty)() if isinstance(empty, (dict, list)) else empty


def _number_reader(kind: Kind) -> _Reader:
    wire, convert = NUMBER_WIRE[kind], _NUMBERS[kind]

    def read(buf: bytes, at: int, stop: int) -> Any:
        value = _varint(buf, at, stop)[0] if wire == VARINT else int.from_bytes(buf[at:stop], "little")
        return convert(value)

    return read


def _reader(kind: Kind) -> _Reader:
    """Reads one length-delimited value of a kind."""
    if isinstance(kind, int):
        return lambda buf, at, stop: _fill({}, _readers(kind), buf, at, stop)
    return _READERS[kind]


def _read_string(buf: bytes, at: int, stop: int) -> str:
    return buf[at:stop].decode("utf-8", "replace")


def _read_bytes(buf: bytes, at: int, stop: int) -> str:
    return base64.b64encode(buf[at:stop]).decode()


def members_of(buf: bytes, at: int, stop: int) -> dict[int, int | bytes]:
    """The fields of a small message by number: numbers, or slices of bytes; of repeated ones the last. Raises ProtobufError."""
    return dict(_each(buf, at, stop))


def _each(buf: bytes, at: int, stop: int) -> list[tuple[int, int | bytes]]:
    found: list[tuple[int, int | bytes]] = []
    while at < stop:
        tag, at = _varint(buf, at, stop)
        wire = tag & 7
        if wire in (VARINT, BYTES):
            value, at = _varint(buf, at, stop)
            if wire == VARINT:
                found.append((tag >> 3, value))
                continue
            end = at + value
        elif wire in (FIXED64, FIXED32):
            end = at + (8 if wire == FIXED64 else 4)
        else:
            raise ProtobufError(f"proto: illegal wireType {wire}")
        if end > stop:
            raise ProtobufError("unexpected EOF")
        found.append((tag >> 3, buf[at:end]))
        at = end
    return found


def _bytes_of(value: int | bytes | None) -> bytes:
    if isinstance(value, int):
        raise ProtobufError("proto: wrong wireType = 0")
    return value or b""


def _text_of(value: int | bytes | None) -> str:
    return _bytes_of(value).decode("utf-8", "replace")


def _int_of(value: int | bytes | None) -> int:
    if isinstance(value, bytes):
        raise ProtobufError("proto: wrong wireType = 2")
    return value or 0


def _read_moment(buf: bytes, at: int, stop: int) -> datetime | None:
    if at == stop:
        return None
    members = members_of(buf, at, stop)
    seconds, nanos = _int64(_int_of(members.get(1))), _int32(_int_of(members.get(2)))
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        raise ProtobufError(f"time out of range: {seconds} seconds") from None
    return moment.replace(microsecond=nanos // 1000) if nanos > 0 else moment


def _read_time(buf: bytes, at: int, stop: int) -> Any:
    moment = _read_moment(buf, at, stop)
    return ABSENT if moment is None else moment.isoformat()[:19] + "Z"


def _read_micro_time(buf: bytes, at: int, stop: int) -> Any:
    moment = _read_moment(buf, at, stop)
    return ABSENT if moment is None else moment.isoformat(timespec="microseconds")[:26] + "Z"


def _read_duration(buf: bytes, at: int, stop: int) -> str:
    return format_go_duration_ns(_int64(_int_of(members_of(buf, at, stop).get(1))))


def _read_quantity(buf: bytes, at: int, stop: int) -> str:
    return _text_of(members_of(buf, at, stop).get(1)) or "0"


def _read_int_or_string(buf: bytes, at: int, stop: int) -> int | str:
    members = members_of(buf, at, stop)
    if members.get(1) == 1:
        return _text_of(members.get(3))
    return _int32(_int_of(members.get(2)))


def _read_strings(buf: bytes, at: int, stop: int) -> list[str]:
    return [_text_of(value) for number, value in _each(buf, at, stop) if number == 1]


def _read_raw(buf: bytes, at: int, stop: int) -> Any:
    """RawExtension, FieldsV1, JSON: the text itself is JSON, or an object in an envelope of its own."""
    raw = _bytes_of(members_of(buf, at, stop).get(1))
    if not raw:
        return ABSENT
    if raw[:4] == MAGIC:
        return decode_protobuf(raw)
    try:
        return decode_json(raw)[0]
    except JsonError as error:
        raise ProtobufError(str(error)) from None


def _read_schema(value: int | bytes) -> Json:
    raw = _bytes_of(value)
    return _fill({}, _readers(json_schema_index()), raw, 0, len(raw))


def _read_schema_or_array(buf: bytes, at: int, stop: int) -> Any:
    members = _each(buf, at, stop)
    several = [_read_schema(value) for number, value in members if number == 2]
    one = [_read_schema(value) for number, value in members if number == 1]
    return several or (one[-1] if one else ABSENT)


def _read_schema_or_bool(buf: bytes, at: int, stop: int) -> Any:
    members = members_of(buf, at, stop)
    return _read_schema(members[2]) if 2 in members else bool(members.get(1))


def _read_schema_or_strings(buf: bytes, at: int, stop: int) -> Any:
    members = _each(buf, at, stop)
    names = [_text_of(value) for number, value in members if number == 2]
    one = [_read_schema(value) for number, value in members if number == 1]
    return names or (one[-1] if one else ABSENT)


_READERS: dict[str, _Reader] = {
    "string": _read_string,
    "bytes": _read_bytes,
    "Time": _read_time,
    "MicroTime": _read_micro_time,
    "Duration": _read_duration,
    "Quantity": _read_quantity,
    "IntOrString": _read_int_or_string,
    "strings": _read_strings,
    "raw": _read_raw,
    "orArray": _read_schema_or_array,
    "orBool": _read_schema_or_bool,
    "orStrings": _read_schema_or_strings,
}
