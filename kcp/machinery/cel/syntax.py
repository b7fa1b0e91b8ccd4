"""The syntax tree of an expression, macros already recognised, and its text.

`at` is the offset that messages point at: the operator, the opening bracket of a call, the dot of a selection.
The checker writes `type` into every node and the chosen overloads into calls.

Source: cel-go v0.26 common/ast, parser/unparser.go.
"""

from __future__ import annotations

from typing import Any, TypeAlias
from typing import Literal as Choice

import attrs

from kcp.machinery.cel.types import DYN, Type
from kcp.machinery.cel.values import Uint, double_text


@attrs.define(slots=True, eq=False)
class Literal:
    at: int
    value: Any
    type: Type = DYN


@attrs.define(slots=True, eq=False)
class Ident:
    """A name; `constant` is its value when the checker found that it names a type."""

    at: int
    name: str
    type: Type = DYN
    constant: Any = None


@attrs.define(slots=True, eq=False)
class Select:
    """`operand.field`, or `has(operand.field)` when `test` is set."""

    at: int
    operand: Node
    field: str
    test: bool = False
    type: Type = DYN
    constant: Any = None


@attrs.define(slots=True, eq=False)
class Call:
    """A function or operator (`_+_`, `_?_:_`, `_[_]`, `_?._`, `_[?_]`); `target` is what a method is called on."""

    at: int
    function: str
    target: Node | None
    args: list[Node]
    type: Type = DYN
    overloads: list[Any] = attrs.field(factory=list)


@attrs.define(slots=True, eq=False)
class ListNode:
    """`[a, ?b]`; `optional` has the indices of the elements with a question mark."""

    at: int
    items: list[Node]
    optional: frozenset[int] = frozenset()
    type: Type = DYN


@attrs.define(slots=True, eq=False)
class Entry:
    """An entry of a map (`key` is a node) or of a message (`key` is the field's name)."""

    at: int
    key: Any
    value: Node
    optional: bool = False


@attrs.define(slots=True, eq=False)
class MapNode:
    at: int
    entries: list[Entry]
    type: Type = DYN


@attrs.define(slots=True, eq=False)
class Message:
    """`Name{field: value}`."""

    at: int
    name: str
    entries: list[Entry]
    type: Type = DYN


Macro = Choice[
    "all", "exists", "existsOne", "map", "filter", "transformList", "transformMap", "transformMapEntry", "bind",
    "optMap", "optFlatMap",
]  # fmt: skip


@attrs.define(slots=True, eq=False)
class Comprehension:
    """A macro over `range` (a list, a map, or the one value of bind, optMap and optFlatMap).

    `names` are the variables of `filter` and `body`; `filter` is the condition of map, filter and the transforms.
    """

    at: int
    macro: Macro
    range: Node
    names: tuple[str, ...]
    filter: Node | None
    body: Node
    type: Type = DYN
    written: str = ""
    """The macro's name as it stood in the text: `exists_one`."""


Node: TypeAlias = Literal | Ident | Select | Call | ListNode | MapNode | Message | Comprehension

PRECEDENCE: dict[str, int] = {
    "_||_": 1, "_&&_": 2, "_<_": 3, "_<=_": 3, "_>_": 3, "_>=_": 3, "_==_": 3, "_!=_": 3, "@in": 3, "_+_": 4, "_-_": 4,
    "_*_": 5, "_/_": 5, "_%_": 5,
}  # fmt: skip
_UNARY = {"!_": "!", "-_": "-"}
_TIGHT = 7


def symbol(function: str) -> str:
    """`_+_` -> `+`."""
    return "in" if function == "@in" else function.strip("_")


def unparse(node: Node) -> str:
    """Text that parses to the same tree; only the brackets that are needed."""
    return _text(node, 0)


def _text(node: Node, tightness: int) -> str:
    match node:
        case Literal(value=value):
            text = literal_text(value)
            return f"({text})" if text.startswith("-") and tightness > 5 else text
        case Ident(name=name):
            return name
        case Select(operand=operand, field=field, test=test):
            text = f"{_text(operand, _TIGHT)}.{field}"
            return f"has({text})" if test else text
        case Call():
            return _call_text(node, tightness)
        case ListNode(items=items, optional=optional):
            return f"[{', '.join(('?' if i in optional else '') + _text(item, 0) for i, item in enumerate(items))}]"
        case MapNode(entries=entries):
            return (
                "{"
                + ", ".join(f"{'?' * e.optional}{_text(e.key, 0)}: {_text(e.value, 0)}" for e in entries)
                + "}"
            )
        case Message(name=name, entries=entries):
            return (
                name
                + "{"
                + ", ".join(f"{'?' * e.optional}{e.key}: {_text(e.value, 0)}" for e in entries)
                + "}"
            )
        case Comprehension():
            return _comprehension_text(node)


def _call_text(node: Call, tightness: int) -> str:
    args, name = node.args, node.function
    if name == "_?_:_":
        text = f"{_text(args[0], 1)} ? {_text(args[1], 1)} : {_text(args[2], 0)}"
        return f"({text})" if tightness > 0 else text
    if name in PRECEDENCE:
        level = PRECEDENCE[name]
        text = f"{_text(args[0], level)} {symbol(name)} {_text(args[1], level + 1)}"
        return f"({text})" if tightness > level else text
    if name in _UNARY:
        inner = _text(args[0], _TIGHT)
        signed = name == "-_" and inner[0] in "0123456789."
        text = _UNARY[name] + (f"({inner})" if signed else inner)
        return f"({text})" if tightness > 5 else text
    if name in ("_[_]", "_[?_]"):
        return f"{_text(args[0], _TIGHT)}[{'?' * (name == '_[?_]')}{_text(args[1], 0)}]"
    if name == "_?._":
        assert isinstance(args[1], Literal)
        return f"{_text(args[0], _TIGHT)}.?{args[1].value}"
    inner = ", ".join(_text(arg, 0) for arg in args)
    return f"{_text(node.target, _TIGHT)}.{name}({inner})" if node.target is not None else f"{name}({inner})"


def _comprehension_text(node: Comprehension) -> str:
    if node.macro == "bind":
        return f"cel.bind({node.names[0]}, {_text(node.range, 0)}, {_text(node.body, 0)})"
    parts = [*node.names]
    if node.filter is not None:
        parts.append(_text(node.filter, 0))
    if node.macro != "filter":
        parts.append(_text(node.body, 0))
    return f"{_text(node.range, _TIGHT)}.{node.written}({', '.join(parts)})"


def literal_text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Uint):
        return repr(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        text = double_text(value)
        return text if "e" in text or "." in text else text + ".0"
    if isinstance(value, bytes):
        return (
            'b"'
            + "".join(
                f"\\x{byte:02x}" if byte < 32 or byte > 126 or byte in b'"\\' else chr(byte) for byte in value
            )
            + '"'
        )
    return quoted(value)


_ESCAPES = {
    "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\", '"': '\\"',
}  # fmt: skip


def quoted(text: str) -> str:
    """A string literal of the text."""
    return '"' + "".join(_ESCAPES.get(char, char) for char in text) + '"'
