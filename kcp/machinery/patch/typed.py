"""Merge, remove and check by schema: the value side of server-side apply (ownership.py is the other one).

Source: sigs.k8s.io/structured-merge-diff/v6/typed (merge.go, remove.go, validate.go, reconcile_schema.go).
"""

from __future__ import annotations

from typing import Any

from kcp.machinery.patch.ownership import (
    MISSING,
    KeyFault,
    form,
    item_element,
    item_schema,
    member_schema,
)
from kcp.machinery.paths import (
    MEMBER,
    SELF,
    Fields,
    field_element,
    format_element,
    is_member,
)
from kcp.machinery.schema.compile import DEDUCED, Schema

Json = dict[str, Any]


def merge(schema: Schema, live: Any, config: Any) -> Any:
    """`live` with everything that `config` says; nothing is removed. Raises KeyFault for repeated keys in `config`.

    Lists with keys keep the order of `live` where `config` agrees with it, else `config`'s order wins.
    """
    if live is MISSING or config is MISSING:
        return config if live is MISSING else live
    if live is config or (type(live) is type(config) and live == config):
        return live
    kind = form(schema, config)
    if kind != form(schema, live) or kind == "leaf" or (not live and not config):
        return config
    if kind == "list":
        return _merge_lists(schema, live or [], config or [])
    if not isinstance(config, dict):
        return live if config is None else config
    out = dict(live or {})
    for key, value in config.items():
        out[key] = merge(member_schema(schema, key), out.get(key, MISSING), value)
    return out


def _merge_lists(schema: Schema, live: list[Any], config: list[Any]) -> list[Any]:
    """Both orders at once: what both have stands in `config`'s order, what only one has stays near its neighbours.

    Items of `live` that share a key are replaced by `config`'s item of that key, and all kept when it has none.
    """
    old_keys = [item_element(schema, item) for item in live]
    new_keys = [item_element(schema, item) for item in config]
    wanted = _by_key(new_keys, config)
    single = {key: item for key, item in zip(old_keys, live, strict=True) if old_keys.count(key) == 1}
    shared = [key for key in new_keys if key in set(old_keys)]
    inner = item_schema(schema)
    out: list[Any] = []
    merged: set[str] = set()
    at_old = at_new = at_shared = 0
    while at_old < len(old_keys) or at_new < len(new_keys):
        old = old_keys[at_old] if at_old < len(old_keys) else None
        new = new_keys[at_new] if at_new < len(new_keys) else None
        awaited = shared[at_shared] if at_shared < len(shared) else None
        if old is not None and old != new:
            if old not in wanted:
                out.append(live[at_old])
                at_old += 1
                continue
            if new is not None and awaited is not None and old != awaited:
                at_old += 1
                continue
        if old is not None and (old == new or old in merged):
            at_old += 1
        if new is not None:
            out.append(merge(inner, single.get(new, MISSING), wanted[new]))
            merged.add(new)
            at_new += 1
            at_shared += new == awaited
    return out


def _by_key(keys: list[str], items: list[Any]) -> dict[str, Any]:
    by_key = dict(zip(keys, items, strict=True))
    if len(by_key) < len(keys):
        repeated = next(key for i, key in enumerate(keys) if key in keys[:i])
        raise KeyFault(f"duplicate entries for key {format_element(repeated)}")
    return by_key


def remove_items(schema: Schema, value: Any, fields: Fields) -> Any:
    """`value` without the members of `fields`; MISSING when nothing is left of it. Shares what does not change."""
    kind = form(schema, value)
    if kind == "leaf":
        return MISSING if isinstance(value, (dict, list)) else value
    if not value:
        return value
    if kind == "list":
        return _remove_from_list(schema, value, fields)
    out: Json = {}
    changed = False
    for key, member in value.items():
        node = fields.get(field_element(key))
        rest = member if node is None else _rest(member_schema(schema, key), member, node)
        changed = changed or rest is not member
        if rest is not MISSING:
            out[key] = rest
    return (out or MISSING) if changed else value


def _rest(schema: Schema, value: Any, node: Fields) -> Any:
    return MISSING if is_member(node) else remove_items(schema, value, node)


def _remove_from_list(schema: Schema, value: list[Any], fields: Fields) -> Any:
    inner = item_schema(schema)
    out = []
    changed = False
    for item in value:
        node = fields.get(_element_or_none(schema, item) or "")
        rest = item if node is None else _rest(inner, item, node)
        changed = changed or rest is not item
        if rest is not MISSING:
            out.append(rest)
    return (out or MISSING) if changed else value


def _element_or_none(schema: Schema, item: Any) -> str | None:
    try:
        return item_element(schema, item)
    except KeyFault:
        return None


def named_members(schema: Schema, fields: Fields) -> Fields:
    """The set with every named field on the way to a member as a member too: giving up the last leaf of a struct
    gives up the struct."""
    out: Fields = {}
    for element, node in fields.items():
        if not node or element == SELF:
            out[element] = node
            continue
        inner = _schema_at(schema, element)
        children = named_members(inner or DEDUCED, node)
        named = element.startswith("f:") and element[2:] in schema.fields
        out[element] = {SELF: MEMBER, **children} if named else children
    return out


def _schema_at(schema: Schema, element: str) -> Schema | None:
    """The schema behind a path element; None where it is not allowed."""
    if element.startswith("f:"):
        return schema.child(element[2:]) if schema.ownership != "list" else None
    return item_schema(schema) if schema.ownership == "list" else None


def reconcile(schema: Schema, fields: Fields) -> Fields:
    """A set that was written by an older schema: where a type has become atomic, who owned parts owns the whole."""
    out: Fields = {}
    changed = False
    for element, node in fields.items():
        inner = _schema_at(schema, element) if node and element != SELF else None
        new = node
        if inner is not None:
            atomic = inner.ownership == "leaf" and inner.type in ("object", "array")
            new = MEMBER if atomic else reconcile(inner, node)
        changed = changed or new is not node
        out[element] = new
    return out if changed else fields


def faults(schema: Schema, value: Any, path: str = "") -> list[str]:
    """What makes `value` no document of this type, each as `.spec.foo: field not declared in schema`."""
    if value is None or schema.special == "raw":
        return []
    kind = form(schema, value)
    if kind == "list" or (schema.type == "array" and kind == "leaf"):
        return _list_faults(schema, value, path)
    if kind == "map" or (schema.type == "object" and kind == "leaf"):
        return _map_faults(schema, value, path)
    return _fault(path, _scalar_fault(schema, value))


def _fault(path: str, text: str) -> list[str]:
    if not text:
        return []
    return [f"{path}: {text}" if path else text]


def _map_faults(schema: Schema, value: Any, path: str) -> list[str]:
    if not isinstance(value, dict):
        return _fault(path, f"expected map, got &{{{go_value(value)}}}")
    out: list[str] = []
    for key, member in value.items():
        inner = schema.child(key)
        if inner is None:
            return [*out, *_fault(f"{path}.{key}", "field not declared in schema")]
        out += faults(inner, member, f"{path}.{key}")
    return out


def _list_faults(schema: Schema, value: Any, path: str) -> list[str]:
    if not isinstance(value, list):
        return _fault(path, f"expected list, got &{{{go_value(value)}}}")
    out: list[str] = []
    seen: set[str] = set()
    for index, item in enumerate(value):
        label = f"[{index}]"
        if schema.ownership == "list":
            try:
                element = item_element(schema, item)
            except KeyFault as fault:
                return [*out, *_fault(path, f"element {index}: {fault}")]
            label = format_element(element)
            if element in seen:
                out += _fault(path, f"duplicate entries for key {label}")
            seen.add(element)
        out += faults(item_schema(schema), item, path + label)
    return out


_SCALARS: dict[str, tuple[type, ...]] = {"integer": (int, float), "number": (int, float), "boolean": (bool,)}


def _scalar_fault(schema: Schema, value: Any) -> str:
    """Source: typed/validate.go validateScalar; strings of a format, and numbers or strings, take any scalar."""
    kind = schema.type
    if schema.special or (kind == "string" and schema.format not in ("", "byte")):
        scalar = isinstance(value, (str, int, float, bool))
        return "" if scalar else f"expected any scalar, got &{{{go_value(value)}}}"
    if kind in ("integer", "number") and (type(value) not in _SCALARS[kind]):
        return f"expected numeric (int or float), got {_go_type(value)}"
    if kind == "string" and not isinstance(value, str):
        return f"expected string, got &value.valueUnstructured{{Value:{_go_syntax(value)}}}"
    if kind == "boolean" and not isinstance(value, bool):
        return f"expected boolean, got &{{{go_value(value)}}}"
    return ""


def go_value(value: Any) -> str:
    """A JSON value as Go's %v prints it: `map[a:1 b:[x y]]`."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{k}:{go_value(value[k])}" for k in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(go_value(item) for item in value) + "]"
    return str(value)


def _go_type(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, dict):
        return "map[string]interface {}"
    return "[]interface {}" if isinstance(value, list) else "string"


def _go_syntax(value: Any) -> str:
    """As %#v prints it."""
    if isinstance(value, dict):
        inner = ", ".join(f'"{k}":{_go_syntax(value[k])}' for k in sorted(value))
        return f"map[string]interface {{}}{{{inner}}}"
    if isinstance(value, list):
        return f"[]interface {{}}{{{', '.join(_go_syntax(item) for item in value)}}}"
    if isinstance(value, str):
        return f'"{value}"'
    return go_value(value)
