"""Bring a document into the form its schema describes: unknown fields out, defaults in, nulls and empty lists gone.

All functions return the same object where nothing changes and share what does not; inputs are never touched.
Source: k8s v1.36 apiextensions-apiserver/pkg/apiserver/schema/{pruning,defaulting}; encoding/json for nulls and omitempty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kcp.machinery.schema.compile import UNSET, Schema
from kcp.machinery.schema.validate import is_free

_ROOT_KEYS = frozenset({"apiVersion", "kind", "metadata"})


def prune(schema: Schema, value: Any) -> Any:
    """Drop the fields that the schema does not know and does not preserve."""
    if isinstance(value, dict):
        return value if schema.special else _prune_object(schema, value)
    if isinstance(value, list) and schema.items is not None:
        items = [prune(schema.items, item) for item in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value


def _prune_object(schema: Schema, value: dict[str, Any]) -> dict[str, Any]:
    free = is_free(schema)
    out: dict[str, Any] = {}
    changed = False
    for key, member in value.items():
        inner = schema.fields.get(key) or schema.additional
        if inner is not None:
            out[key] = new = prune(inner, member)
            changed = changed or new is not member
        elif free or (schema.embedded and key in _ROOT_KEYS):
            out[key] = member
        else:
            changed = True
    return out if changed else value


def apply_defaults(schema: Schema, value: Any) -> Any:
    """Fill in the defaults of the schema: for members that are missing, and for nulls where null is not allowed.

    A default is only looked at where its parent exists: defaults do not create objects by themselves.
    """
    if isinstance(value, dict):
        return _default_object(schema, value)
    if isinstance(value, list) and schema.items is not None:
        items = [apply_defaults(schema.items, _or_default(schema.items, item)) for item in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value


def _or_default(schema: Schema, value: Any) -> Any:
    replaces = value is None and not schema.nullable and schema.default is not UNSET
    return schema.default if replaces else value


def _default_object(schema: Schema, value: dict[str, Any]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for key, field in schema.fields.items():
        if key not in value and field.default is not UNSET:
            changes[key] = apply_defaults(field, field.default)
    for key, member in value.items():
        inner = schema.fields.get(key) or schema.additional
        if inner is not None:
            new = apply_defaults(inner, _or_default(inner, member))
            if new is not member:
                changes[key] = new
    return {**value, **changes} if changes else value


_EMPTY: tuple[Any, ...] = ({}, [])
_ZERO_OF: Mapping[str, Any] = {"string": "", "boolean": False, "integer": 0, "number": 0}


def drop_voids(schema: Schema, value: Any) -> Any:
    """The document as Go writes it: null members of structs are gone, and so are their empty lists and maps; null items
    are the zero value of their type.

    Inside raw JSON nulls stay. Returns the same object where nothing changes.
    """
    if isinstance(value, dict):
        return _object_without_voids(schema, value)
    if isinstance(value, list) and schema.items is not None:
        items = [_zero(schema.items) if v is None else drop_voids(schema.items, v) for v in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value


def _object_without_voids(schema: Schema, value: dict[str, Any]) -> dict[str, Any]:
    if schema.special or not schema.builtin:
        return value if schema.special else _structural_without_voids(schema, value)
    out: dict[str, Any] = {}
    changed = False
    for key, member in value.items():
        field = schema.fields.get(key)
        if member is None and field is not None:
            changed = True
            continue
        inner = field or schema.additional
        if inner is None:
            out[key] = member
            continue
        new = _zero(inner) if member is None else drop_voids(inner, member)
        changed = changed or new is not member
        if field is not None and new in _EMPTY and schema.omits_empty(key, field):
            changed = True
        else:
            out[key] = new
    return out if changed else value


def _structural_without_voids(schema: Schema, value: dict[str, Any]) -> dict[str, Any]:
    """A custom resource keeps its nulls; only the built-in parts inside (metadata) lose theirs."""
    changes: dict[str, Any] = {}
    for key, field in schema.fields.items():
        member = value.get(key)
        if isinstance(member, (dict, list)) and (new := drop_voids(field, member)) is not member:
            changes[key] = new
    return {**value, **changes} if changes else value


def _zero(schema: Schema) -> Any:
    if schema.special == "quantity":
        return "0"
    if schema.special == "int_or_string":
        return 0
    if schema.special or not schema.type:
        return None
    if schema.type == "object":
        return {}
    return [] if schema.type == "array" else _ZERO_OF[schema.type]
