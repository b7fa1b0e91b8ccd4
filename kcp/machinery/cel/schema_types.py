"""Types of documents from their schemas, with the field names that expressions use and the sizes that values can have.

A name that CEL cannot have is written another way: `my-field` is `my__dash__field`, `namespace` is `__namespace__`.
What no schema describes (preserve-unknown-fields without a type, lists without items) has no type and cannot be used.

Source: k8s v1.36 apiserver/pkg/cel/{common/schemas,escaping,limits}.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import attrs

from kcp.machinery.cel.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    DYN,
    INT,
    STRING,
    TIMESTAMP,
    Field,
    Type,
    list_of,
    map_of,
    object_type,
)
from kcp.machinery.schema.compile import Schema

Json = Mapping[str, Any]

RESERVED: Final = frozenset((
    "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let",
    "loop", "package", "namespace", "return", "var", "void", "while",
))  # fmt: skip
MAX_REQUEST_BYTES: Final = 3 * 1024 * 1024
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_WRITABLE: Final = re.compile(r"[A-Za-z_.\-/][A-Za-z0-9_.\-/]*", re.ASCII)
_ESCAPES: Final = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}
_ESCAPED: Final = re.compile(r"__|\.|-|/")
_SCALARS: Final[dict[str, Type]] = {"boolean": BOOL, "number": DOUBLE, "integer": INT, "string": STRING}
_FORMATS: Final[dict[str, Type]] = {
    "byte": BYTES,
    "duration": DURATION,
    "date": TIMESTAMP,
    "date-time": TIMESTAMP,
}
_FORMAT_SIZES: Final = {"duration": 32, "date": 12, "date-time": 37}
_SMALLEST: Final = {"boolean": 4, "number": 1, "integer": 1, "string": 2}
"""Bytes of the shortest JSON of a type."""
_SPECIALS: Final[dict[str, Type]] = {
    "int_or_string": DYN, "quantity": DYN, "time": TIMESTAMP, "micro_time": TIMESTAMP,
}  # fmt: skip
_LIST_KEYS: Final[dict[str, tuple[str, ...]]] = {"set": ()}
_META: Final[Json] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "generateName": {"type": "string"}},
}


def escaped(name: str) -> str | None:
    """How expressions write a field's name; None when they cannot."""
    if name in RESERVED:
        return f"__{name}__"
    if _NAME.fullmatch(name) and "__" not in name:
        return name
    if not _WRITABLE.fullmatch(name):
        return None
    return _ESCAPED.sub(lambda match: _ESCAPES[match[0]], name)


def openapi_type(openapi: Json, name: str = "object", *, root: bool = False) -> Type | None:
    """The type of documents of a structural schema, as a CustomResourceDefinition has it, without references.

    `name` is what messages call it; the type of the field `spec` then is `name.spec`. `root` adds apiVersion, kind,
    metadata.name and metadata.generateName. None when the schema describes nothing.
    """
    found = _openapi(openapi, name, root or bool(openapi.get("x-kubernetes-embedded-resource")))
    return None if found is None else found[0]


_Sized = tuple[Type, int]
"""A type and the bytes of its shortest JSON."""


def _openapi(openapi: Json, name: str, root: bool) -> _Sized | None:
    if openapi.get("x-kubernetes-int-or-string"):
        return attrs.evolve(DYN, max_size=_text_size(openapi, MAX_REQUEST_BYTES - 2)), 1
    kind = openapi.get("type", "")
    if kind == "array":
        return _openapi_list(openapi, name)
    if kind == "object":
        more = openapi.get("additionalProperties")
        return (
            _openapi_map(openapi, more, name)
            if isinstance(more, Mapping)
            else _openapi_object(openapi, name, root)
        )
    if kind == "string":
        return _openapi_string(openapi)
    return (_SCALARS[kind], _SMALLEST[kind]) if kind in _SCALARS else None


def _openapi_string(openapi: Json) -> _Sized:
    format = openapi.get("format", "")
    largest = _FORMAT_SIZES.get(format, MAX_REQUEST_BYTES - 2)
    if format not in _FORMATS and openapi.get("enum") and "maxLength" not in openapi:
        largest = max((len(each) for each in openapi["enum"] if isinstance(each, str)), default=0)
    smallest = (
        _FORMAT_SIZES[format] if format == "date" else 21 if format == "date-time" else _SMALLEST["string"]
    )
    if format == "byte" and "maxLength" in openapi:
        return attrs.evolve(BYTES, max_size=max(openapi["maxLength"], 0)), smallest
    size = largest if format in _FORMAT_SIZES else _text_size(openapi, largest)
    return attrs.evolve(_FORMATS.get(format, STRING), max_size=size), smallest


def _text_size(openapi: Json, otherwise: int) -> int:
    """The most bytes of a text: four for each character that the schema allows."""
    return max(openapi["maxLength"], 0) * 4 if "maxLength" in openapi else otherwise


def _child(openapi: Any, name: str) -> _Sized | None:
    if not isinstance(openapi, Mapping):
        return None
    return _openapi(openapi, name, bool(openapi.get("x-kubernetes-embedded-resource")))


def _openapi_list(openapi: Json, name: str) -> _Sized | None:
    item = _child(openapi.get("items"), f"{name}.@items")
    if item is None:
        return None
    most = max(openapi["maxItems"], 0) if "maxItems" in openapi else (MAX_REQUEST_BYTES - 2) // (item[1] + 1)
    kind = openapi.get("x-kubernetes-list-type")
    keys = (
        tuple(openapi.get("x-kubernetes-list-map-keys", ())) if kind == "map" else _LIST_KEYS.get(kind or "")
    )
    return list_of(item[0], keys=keys, max_size=most), 2


def _openapi_map(openapi: Json, more: Json, name: str) -> _Sized | None:
    value = _child(more, f"{name}.@values")
    if value is None:
        return None
    most = (
        max(openapi["maxProperties"], 0)
        if "maxProperties" in openapi
        else (MAX_REQUEST_BYTES - 2) // (value[1] + 6)
    )
    return map_of(STRING, value[0], max_size=most), 2


def _openapi_object(openapi: Json, name: str, root: bool) -> _Sized:
    properties: dict[str, Any] = dict(openapi.get("properties") or {})
    if root:
        properties.setdefault("kind", {"type": "string"})
        properties.setdefault("apiVersion", {"type": "string"})
        properties["metadata"] = _META
    required = openapi.get("required") or ()
    fields: dict[str, Field] = {}
    smallest = 2
    for key, child in properties.items():
        written = escaped(key)
        found = _child(child, f"{name}.{written}")
        if found is None:
            continue
        if written is not None:
            fields[written] = Field(key, found[0], key in required)
        if key in required and "default" not in child:
            smallest += len(key) + found[1] + 4
    return object_type(name, fields), smallest


def schema_type(schema: Schema, name: str = "object", *, root: bool = False) -> Type | None:
    """`openapi_type` for a compiled schema, as built-in kinds have it; sizes are not known.

    Types of schemas that contain themselves end in dyn.
    """
    return _compiled(schema, name, root, ())


def _compiled(schema: Schema, name: str, root: bool, within: tuple[Schema, ...]) -> Type | None:
    if schema.special in _SPECIALS:
        return _SPECIALS[schema.special]
    if any(schema is each for each in within):
        return DYN
    within = (*within, schema)
    if schema.type == "array":
        item = _compiled(schema.items, f"{name}.@items", False, within) if schema.items is not None else None
        keys = schema.list_map_keys if schema.list_type == "map" else _LIST_KEYS.get(schema.list_type)
        return None if item is None else list_of(item, keys=keys)
    if schema.type == "object" or schema.fields:
        if schema.additional is not None and not schema.fields:
            value = _compiled(schema.additional, f"{name}.@values", False, within)
            return None if value is None else map_of(STRING, value)
        return _compiled_object(schema, name, root or schema.embedded, within)
    if schema.type == "string" and schema.format in _FORMATS:
        return _FORMATS[schema.format]
    return _SCALARS.get(schema.type)


def _compiled_object(schema: Schema, name: str, root: bool, within: tuple[Schema, ...]) -> Type:
    fields: dict[str, Field] = {}
    for key, child in schema.fields.items():
        written = escaped(key)
        type = _compiled(child, f"{name}.{written}", False, within) if written is not None else None
        if written is not None and type is not None:
            fields[written] = Field(key, type, key in schema.required)
    if root:
        fields.setdefault("apiVersion", Field("apiVersion", STRING))
        fields.setdefault("kind", Field("kind", STRING))
    return object_type(name, fields)


def open_object(name: str, fields: Mapping[str, Type]) -> Type:
    """An object of the given field types, for variables such as `request` that no schema describes."""
    return object_type(name, {key: Field(key, type) for key, type in fields.items()})
