"""Field sets in the form of FieldsV1, and how their paths print.

A set is the JSON that managedFields carry, used as it is, without a second representation:

    {"f:spec": {"f:replicas": {}, "f:ports": {".": {}, "k:{\\"port\\":80}": {".": {}, "f:port": {}}}}}

A key is a path element: `f:` a field, `k:` a list item by its key fields, `v:` a list item by its value, `i:` one by
its index. An element belongs to the set when its value is `{}` or contains `.`; what else its value contains are
deeper elements. The set above has four members: spec.replicas, spec.ports, spec.ports[port=80] and its port.
Nothing here changes its arguments; results share what they can.
Source: sigs.k8s.io/structured-merge-diff/v6/fieldpath (set.go, serialize.go, serialize-pe.go, element.go).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import orjson

from kcp.machinery.errors import go_quote

Fields = dict[str, Any]
Path = tuple[str, ...]

SELF: Final = "."
MEMBER: Final[Fields] = {}
"""The node of an element that is a member without deeper ones. Shared: sets are never changed in place."""

_SORTED = orjson.OPT_SORT_KEYS
_ORDER = {"f": 0, "k": 1, "v": 2, "i": 3}


class FieldsError(ValueError):
    """Raised when FieldsV1 from outside is not a field set."""


def field_element(name: str) -> str:
    return "f:" + name


def key_element(keys: Mapping[str, Any]) -> str:
    """The element of a list item: its key fields, sorted: `k:{"containerPort":80,"protocol":"TCP"}`."""
    return "k:" + orjson.dumps(keys, option=_SORTED).decode()


def value_element(value: Any) -> str:
    return "v:" + orjson.dumps(value, option=_SORTED).decode()


def from_paths(paths: Iterable[Iterable[str]]) -> Fields:
    """The set of the fields that these paths of plain names lead to: `[("spec", "replicas")]`."""
    out: Fields = {}
    for path in paths:
        out = union(out, _chain([field_element(name) for name in path]))
    return out


def _chain(elements: list[str]) -> Fields:
    node: Fields = MEMBER
    for element in reversed(elements):
        node = {element: node}
    return node


def is_member(node: Fields) -> bool:
    return not node or SELF in node


def _node(member: bool, children: Fields) -> Fields | None:
    """A node from its parts; None when nothing is left of it."""
    if not children:
        return MEMBER if member else None
    return {SELF: MEMBER, **children} if member else children


def union(a: Fields, b: Fields) -> Fields:
    """What is in either set."""
    if not a or a is b:
        return b
    if not b:
        return a
    out = dict(a)
    for element, node in b.items():
        mine = out.get(element)
        out[element] = node if mine is None else join_nodes(mine, node)
    return out


def join_nodes(a: Fields, b: Fields) -> Fields:
    """The union of two nodes; unlike an empty set, an empty node is a member."""
    if not a and not b:
        return MEMBER
    if not a or not b:
        some = a or b
        return some if SELF in some else {SELF: MEMBER, **some}
    return union(a, b)


def intersection(a: Fields, b: Fields) -> Fields:
    """What is in both sets."""
    out: Fields = {}
    for element, node in a.items():
        other = b.get(element)
        if other is not None:
            common = _node_intersection(node, other)
            if common is not None:
                out[element] = common
    return out


def _node_intersection(a: Fields, b: Fields) -> Fields | None:
    if not a or not b:
        return MEMBER if is_member(a) and is_member(b) else None
    children = intersection(a, b)
    member = children.pop(SELF, None) is not None
    return _node(member, children)


def difference(a: Fields, b: Fields) -> Fields:
    """What is in `a` and not in `b`, element by element: a field of `b` does not take its children out of `a`."""
    return _minus(a, b, recursive=False)


def recursive_difference(a: Fields, b: Fields) -> Fields:
    """What is in `a`, without the members of `b` and everything below them."""
    return _minus(a, b, recursive=True)


def _minus(a: Fields, b: Fields, *, recursive: bool) -> Fields:
    out: Fields = {}
    changed = False
    for element, node in a.items():
        other = b.get(element) if element != SELF else None
        if other is None:
            out[element] = node
            continue
        rest = None if recursive and is_member(other) else _node_minus(node, other, recursive)
        changed = changed or rest is not node
        if rest is not None:
            out[element] = rest
    return out if changed else a


def _node_minus(a: Fields, b: Fields, recursive: bool) -> Fields | None:
    member = is_member(a) and not is_member(b)
    children = {e: n for e, n in a.items() if e != SELF}
    rest = _minus(children, b, recursive=recursive)
    if rest is children and member == is_member(a):
        return a
    return _node(member, rest)


def contains(fields: Fields, path: Path) -> bool:
    """Whether the element at the end of the path is a member."""
    node: Fields | None = fields
    for element in path:
        node = node.get(element) if node else None
        if node is None:
            return False
    return bool(path) and is_member(node or MEMBER)


def members(fields: Fields, prefix: Path = ()) -> Iterator[Path]:
    """The paths of all members: those of one level first, in order, then level by level what is below."""
    elements = sorted((e for e in fields if e != SELF), key=_sort_key)
    for element in elements:
        if is_member(fields[element]):
            yield (*prefix, element)
    for element in elements:
        yield from members(fields[element], (*prefix, element))


def _sort_key(element: str) -> tuple[int, Any]:
    kind, _, text = element.partition(":")
    if kind == "i":
        return _ORDER[kind], int(text)
    if kind in ("k", "v"):
        return _ORDER[kind], _comparable(json.loads(text))
    return _ORDER.get(kind, 4), text


def _comparable(value: Any) -> Any:
    """Values of any JSON type in one order: numbers, strings, booleans, lists, maps, null."""
    if isinstance(value, bool):
        return (2, value)
    if isinstance(value, (int, float)):
        return (0, value)
    if isinstance(value, str):
        return (1, value)
    if isinstance(value, list):
        return (3, [_comparable(item) for item in value])
    if isinstance(value, dict):
        return (4, [(key, _comparable(member)) for key, member in sorted(value.items())])
    return (5, 0)


def format_path(path: Path) -> str:
    """As conflicts print it: `.spec.template.spec.containers[name="app"].image`."""
    return "".join(format_element(element) for element in path)


def format_element(element: str) -> str:
    kind, _, text = element.partition(":")
    if kind == "f":
        return "." + text
    if kind == "k":
        keys = json.loads(text)
        return "[" + ",".join(f"{name}={format_value(keys[name])}" for name in sorted(keys)) + "]"
    return f"[={format_value(json.loads(text))}]" if kind == "v" else f"[{text}]"


def format_value(value: Any) -> str:
    """Source: structured-merge-diff value.ToString."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return go_quote(value)
    if isinstance(value, list):
        return "[" + ",".join(format_value(item) for item in value) + "]"
    if isinstance(value, dict):
        return "".join(f"{key}={format_value(member)}" for key, member in value.items())
    return str(value)


def canonical(fields: Any) -> Fields:
    """A set that came from a client, with its keys in the one form that this module makes.

    Elements of unknown kinds are dropped, as Kubernetes does. Raises FieldsError for what is no set.
    """
    if not isinstance(fields, dict):
        raise FieldsError("fieldsV1 must be an object")
    out: Fields = {}
    for key, node in fields.items():
        element = _canonical_element(key)
        if element is not None:
            inner = canonical(node)
            out[element] = join_nodes(out[element], inner) if element in out else inner
    return out


def _canonical_element(key: str) -> str | None:
    if key == SELF or key.startswith("f:"):
        return key
    if len(key) < 2:
        raise FieldsError("key must be 2 characters long:")
    if key[1] != ":":
        raise FieldsError(f"missing colon: {key}")
    try:
        if key[0] == "k":
            return key_element(json.loads(key[2:]))
        if key[0] == "v":
            return value_element(json.loads(key[2:]))
        return f"i:{int(key[2:])}" if key[0] == "i" else None
    except ValueError as error:
        raise FieldsError(str(error)) from None
