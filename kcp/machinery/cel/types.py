"""CEL's static types: what an expression's value will be, unified and printed as cel-go does.

Source: cel-spec doc/langdef.md (gradual type checking); cel-go v0.26 checker/types.go, common/types/types.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs

from kcp.base.values import frozen
from kcp.machinery.cel.values import kind_of

Kind = Literal[
    "dyn", "error", "bool", "int", "uint", "double", "string", "bytes", "null_type", "timestamp", "duration", "list",
    "map", "type", "object", "opaque", "param",
]  # fmt: skip


@frozen(cache_hash=True)
class Type:
    """A type. `name` is the message's or opaque type's; `params` those of list, map, type and opaque types."""

    kind: Kind
    name: str = ""
    params: tuple[Type, ...] = ()
    fields: Mapping[str, Field] | None = attrs.field(default=None, eq=False, repr=False)
    """Of an object: what it may be asked for, by the name that expressions use; None: any field, of dyn."""
    list_keys: tuple[str, ...] | None = attrs.field(default=None, eq=False, repr=False)
    """Of a list of x-kubernetes-list-type map: its keys; () for a set; None for any other."""
    max_size: int | None = attrs.field(default=None, eq=False, repr=False)
    """The most items or characters that a value of this type can have, where the schema says so."""

    def __str__(self) -> str:
        """As cel-go's Type.String, which results are reported with."""
        return shown(self, _WELL_KNOWN)


@frozen
class Field:
    """A field of an object: its JSON name, its type and whether it is always there."""

    name: str
    type: Type
    required: bool = False


_WELL_KNOWN: Final = {"timestamp": "google.protobuf.Timestamp", "duration": "google.protobuf.Duration"}
_CHECKED: Final = {"null_type": "null", "error": "!error!"}

DYN: Final = Type("dyn")
ERROR: Final = Type("error")
BOOL: Final = Type("bool")
INT: Final = Type("int")
UINT: Final = Type("uint")
DOUBLE: Final = Type("double")
STRING: Final = Type("string")
BYTES: Final = Type("bytes")
NULL: Final = Type("null_type")
TIMESTAMP: Final = Type("timestamp")
DURATION: Final = Type("duration")
ANY_TYPE: Final = Type("type")
A: Final = Type("param", "A")
B: Final = Type("param", "B")


def list_of(item: Type, *, keys: tuple[str, ...] | None = None, max_size: int | None = None) -> Type:
    return Type("list", "list", (item,), None, keys, max_size)


def map_of(key: Type, value: Type, *, max_size: int | None = None) -> Type:
    return Type("map", "map", (key, value), None, None, max_size)


def type_of(inner: Type) -> Type:
    return Type("type", "type", (inner,))


def opaque(name: str, *params: Type) -> Type:
    return Type("opaque", name, params)


def optional_of(inner: Type) -> Type:
    return Type("opaque", "optional_type", (inner,))


def object_type(name: str, fields: Mapping[str, Field] | None) -> Type:
    """A message type; without fields it has any."""
    return Type("object", name, (), fields)


def runtime_name(type: Type) -> str:
    """What `values.kind_of` says of this type's values."""
    if type.kind in ("timestamp", "duration"):
        return _WELL_KNOWN[type.kind]
    return type.name if type.kind in ("object", "opaque") else type.kind


def shown(type: Type, names: Mapping[str, str] = _CHECKED) -> str:
    """A type as the checker's messages write it: `list(int)`, `map(string, dyn)`, `null`, `timestamp`."""
    head = names.get(type.kind) or type.name or type.kind
    if not type.params:
        return head
    return f"{head}({', '.join(shown(param, names) for param in type.params)})"


def is_dyn(type: Type) -> bool:
    return type.kind == "dyn" or type.kind == "error"


def is_optional(type: Type) -> bool:
    return type.kind == "opaque" and type.name == "optional_type"


Mapped = dict[str, Type]
"""What the type parameters met so far stand for."""


def assignable(mapped: Mapped, given: tuple[Type, ...], wanted: tuple[Type, ...]) -> Mapped | None:
    """The mapping under which all of `given` fit `wanted`, or None."""
    if len(given) != len(wanted):
        return None
    trial = dict(mapped)
    return trial if all(_fits(trial, a, b) for a, b in zip(given, wanted, strict=True)) else None


def _fits(mapped: Mapped, given: Type, wanted: Type) -> bool:
    if wanted.kind == "param":
        valid, known = _substitutes(mapped, given, wanted)
        if valid or known:
            return valid
    if given.kind == "param":
        return _substitutes(mapped, wanted, given)[0]
    if is_dyn(given) or is_dyn(wanted):
        return True
    if given.kind == "null_type":
        return wanted.kind in ("null_type", "object", "opaque", "timestamp", "duration")
    if given.kind != wanted.kind or given.name != wanted.name:
        return False
    if given.kind == "type":
        return True
    return len(given.params) == len(wanted.params) and all(
        _fits(mapped, a, b) for a, b in zip(given.params, wanted.params, strict=True)
    )


def _substitutes(mapped: Mapped, type: Type, parameter: Type) -> tuple[bool, bool]:
    """Whether the parameter can stand for the type, and whether it already stood for one."""
    known = mapped.get(parameter.name)
    if known is None:
        if type == parameter:
            return True, False
        if _occurs(mapped, parameter, type):
            return False, False
        mapped[parameter.name] = type
        return True, False
    if type == known:
        return True, True
    if _fits(mapped, type, known):
        mapped[parameter.name] = most_general(type, known)
        return True, True
    return False, True


def _occurs(mapped: Mapped, parameter: Type, within: Type) -> bool:
    if parameter == within:
        return True
    if within.kind == "param":
        known = mapped.get(within.name)
        return known is not None and _occurs(mapped, parameter, known)
    return any(_occurs(mapped, parameter, each) for each in within.params)


def most_general(a: Type, b: Type) -> Type:
    """The less specific of two types that fit each other."""
    return a if _less_specific(a, b) else b


def _less_specific(a: Type, b: Type) -> bool:
    if a.kind in ("dyn", "param"):
        return True
    if b.kind in ("dyn", "param") or a.kind != b.kind:
        return False
    if a.kind == "type":
        return True
    return (
        a.name == b.name
        and len(a.params) == len(b.params)
        and all(_less_specific(x, y) for x, y in zip(a.params, b.params, strict=True))
    )


def substitute(mapped: Mapped, type: Type, *, final: bool = False) -> Type:
    """The type with its parameters replaced; those that stand for nothing become dyn when `final`."""
    if type.kind == "param":
        known = mapped.get(type.name)
        if known is not None and known != type:
            return substitute(mapped, known, final=final)
        return DYN if final else type
    if not type.params:
        return type
    params = tuple(substitute(mapped, each, final=final) for each in type.params)
    return type if params == type.params else attrs.evolve(type, params=params)


def renamed(types: tuple[Type, ...], suffix: int) -> tuple[Type, ...]:
    """The types with fresh parameters."""
    return tuple(_renamed(each, suffix) for each in types)


def _renamed(type: Type, suffix: int) -> Type:
    if type.kind == "param":
        return Type("param", f"{type.name}{suffix}")
    if not type.params:
        return type
    return attrs.evolve(type, params=tuple(_renamed(each, suffix) for each in type.params))


def type_named(value: Any) -> Type:
    """The type of a constant."""
    return _BY_NAME[kind_of(value)]


_BY_NAME: Final[dict[str, Type]] = {
    "bool": BOOL, "int": INT, "uint": UINT, "double": DOUBLE, "string": STRING, "bytes": BYTES, "null_type": NULL,
    "google.protobuf.Timestamp": TIMESTAMP, "google.protobuf.Duration": DURATION,
}  # fmt: skip
NAMED: Final[dict[str, Type]] = {
    **_BY_NAME, "dyn": DYN, "list": list_of(DYN), "map": map_of(DYN, DYN), "type": ANY_TYPE, "optional_type": optional_of(DYN),
}  # fmt: skip
"""The types that expressions can name: `type(x) == int`."""
