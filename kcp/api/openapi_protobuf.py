"""The swagger document as gnostic's protobuf, which kubectl before 1.27 and client-go's OpenAPISchema() ask for.

Only the messages and fields that Kubernetes' documents use are written. Field numbers are gnostic's.
Source: https://github.com/google/gnostic openapiv2/OpenAPIv2.proto.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import orjson

Json = dict[str, Any]

CONTENT_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
"""What is answered. Clients ask with an `@` in it, which Go's own mime package cannot parse."""

_METHOD_FIELDS = {"get": 2, "put": 3, "post": 4, "delete": 5, "options": 6, "head": 7, "patch": 8}
_QUERY, _PATH = 3, 4
_BODY_PARAMETER, _NON_BODY_PARAMETER = 1, 2


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str | None) -> bytes:
    return _bytes(field, value.encode()) if value else b""


def _texts(field: int, values: Iterable[str]) -> bytes:
    return b"".join([_bytes(field, value.encode()) for value in values])


def _flag(field: int, value: Any) -> bytes:
    return _varint(field << 3) + b"\x01" if value else b""


def _any(value: Any) -> bytes:
    """gnostic's Any: YAML text, of which JSON is a part."""
    return _bytes(2, orjson.dumps(value) + b"\n")


def _extensions(field: int, value: Json) -> bytes:
    marks = [(name, item) for name, item in value.items() if name.startswith("x-")]
    return b"".join([_bytes(field, _text(1, name) + _bytes(2, _any(item))) for name, item in marks])


def _named(field: int, values: Json, encode: Callable[[Any], bytes]) -> bytes:
    return b"".join(
        [_bytes(field, _text(1, name) + _bytes(2, encode(value))) for name, value in values.items()]
    )


def document(swagger: Json) -> bytes:
    """The whole document. Cost: about half a second for all of Kubernetes; keep the result."""
    info = swagger["info"]
    return b"".join(
        [
            _text(1, swagger["swagger"]),
            _bytes(2, _text(1, info["title"]) + _text(2, info["version"])),
            _bytes(8, _named(2, swagger["paths"], _path_item)),
            _bytes(9, _named(1, swagger["definitions"], schema)),
            *[_bytes(12, _named(1, each, _string_array)) for each in swagger["security"]],
            _bytes(13, _named(1, swagger["securityDefinitions"], _security)),
        ]
    )


def _string_array(values: list[str]) -> bytes:
    return _texts(1, values)


def _security(value: Json) -> bytes:
    fields = (value["type"], value["name"], value["in"], value["description"])
    return _bytes(2, b"".join([_text(number, text) for number, text in enumerate(fields, 1)]))


def _path_item(item: Json) -> bytes:
    methods = [
        _bytes(_METHOD_FIELDS[name], _operation(value))
        for name, value in item.items()
        if name in _METHOD_FIELDS
    ]
    return b"".join([*methods, *[_bytes(9, _parameter(each)) for each in item.get("parameters", ())]])


def _operation(value: Json) -> bytes:
    return b"".join(
        [
            _texts(1, value["tags"]),
            _text(3, value["description"]),
            _text(5, value["operationId"]),
            _texts(6, value["produces"]),
            _texts(7, value["consumes"]),
            *[_bytes(8, _parameter(each)) for each in value["parameters"]],
            _bytes(9, _named(1, value["responses"], _response)),
            _texts(10, value["schemes"]),
            _extensions(13, value),
        ]
    )


def _response(value: Json) -> bytes:
    body = _text(1, value["description"])
    if "schema" in value:
        body += _bytes(2, _bytes(1, schema(value["schema"])))
    return _bytes(1, body)


def _parameter(value: Json) -> bytes:
    """A ParametersItem."""
    if value["in"] == "body":
        body = b"".join(
            [
                _text(2, value["name"]),
                _text(3, "body"),
                _flag(4, value.get("required")),
                _bytes(5, schema(value["schema"])),
            ]
        )
        return _bytes(1, _bytes(_BODY_PARAMETER, body))
    where, kind, unique = (_QUERY, 6, 20) if value["in"] == "query" else (_PATH, 5, 19)
    fields = b"".join(
        [
            _flag(1, value.get("required")),
            _text(2, value["in"]),
            _text(3, value["description"]),
            _text(4, value["name"]),
            _text(kind, value["type"]),
            _flag(unique, value.get("uniqueItems")),
        ]
    )
    return _bytes(1, _bytes(_NON_BODY_PARAMETER, _bytes(where, fields)))


def schema(value: Json) -> bytes:
    """A Schema message."""
    extra = value.get("additionalProperties")
    parts = [
        _text(1, value.get("$ref")),
        _text(2, value.get("format")),
        _text(4, value.get("description")),
        _bytes(5, _any(value["default"])) if "default" in value else b"",
        _texts(19, value.get("required", ())),
        *[_bytes(20, _any(each)) for each in value.get("enum", ())],
    ]
    if isinstance(extra, dict):
        parts.append(_bytes(21, _bytes(1, schema(extra))))
    elif extra is not None:
        parts.append(_bytes(21, _varint(2 << 3) + (b"\x01" if extra else b"\x00")))
    if "type" in value:
        parts.append(_bytes(22, _text(1, value["type"])))
    if "items" in value:
        parts.append(_bytes(23, _bytes(1, schema(value["items"]))))
    if "properties" in value:
        parts.append(_bytes(25, _named(1, value["properties"], schema)))
    parts.append(_extensions(31, value))
    return b"".join(parts)
