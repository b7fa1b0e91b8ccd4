"""A checked tree to Python closures.

A closure gets the frame, a list: the first item is what may still be spent, the next ones are the variables. Costs are
those of Kubernetes' runtime. What an expression costs for certain is added up when it is compiled and charged at the
start of each part that is always evaluated as a whole: the program, the branches of `&&`, `||` and `?:`, the round of a
loop. So a program with an error is charged as if it had run on, and the budget ends a loop one round early, never late.

Source: cel-spec doc/langdef.md (evaluation, errors); cel-go v0.26 interpreter/{planner,interpretable,runtimecost}.go;
k8s v1.36 apiserver/pkg/cel/{environment/base,library/cost}.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from kcp.machinery.cel.access import (
    chain,
    converted,
    json_name,
    keyed,
    mapping_of,
    member_of,
    optional_field,
    optional_of,
    presence,
    selection,
)
from kcp.machinery.cel.closures import Code, Costed, Frame, both, dispatch, either, invoke, measured, paid
from kcp.machinery.cel.convert import converter
from kcp.machinery.cel.functions import Overload, accepts
from kcp.machinery.cel.loops import comprehension
from kcp.machinery.cel.standard import FOLDED, optional_index
from kcp.machinery.cel.syntax import (
    Call,
    Comprehension,
    Ident,
    ListNode,
    Literal,
    MapNode,
    Message,
    Node,
    Select,
)
from kcp.machinery.cel.values import CelError, Optional, kind_of, no_overload

Build = Callable[[str, dict[str, Any]], Any]
"""Makes the value of a message from its name and its fields. Raises CelError."""

_LIST_COST, _MAP_COST, _MESSAGE_COST = 10, 30, 40
_NOTHING: Final = object()
_FIXED: Final = frozenset(
    ("bool", "int", "uint", "double", "timestamp", "duration", "null_type", "type", "opaque")
)
"""Kinds whose values have no size: to compare two costs one."""


class Compiler:
    """Belongs to one compilation. `slots` is the size of the frame when it is done."""

    def __init__(self, variables: Mapping[str, int], build: Build) -> None:
        self._scopes: list[Mapping[str, int]] = [variables]
        self._build = build
        self.slots = len(variables) + 1

    def expression(self, node: Node) -> Costed:
        constant = self._constant(node)
        if constant is not _NOTHING:
            return (lambda _: constant), 0
        match node:
            case Ident():
                slot = self._slot(node.name)
                return (lambda frame: frame[slot]), 1
            case Select():
                return self._select(node)
            case Call():
                return self._call(node)
            case ListNode():
                return self._list(node)
            case MapNode():
                return self._map(node)
            case Message():
                return self._message(node)
            case Comprehension():
                return comprehension(self, node)
        raise AssertionError(node)

    def charged(self, node: Node, *, branch: bool = False) -> Code:
        """The node's code, which pays for itself when it runs.

        In a branch of `?:` a mere name or selection costs one less, as in cel-go.
        """
        code, cost = self.expression(node)
        if branch and cost and _is_attribute(node):
            cost -= 1
        return paid(code, cost)

    def _slot(self, name: str) -> int:
        name = name.removeprefix(".")
        for scope in reversed(self._scopes):
            if name in scope:
                return scope[name]
        raise AssertionError(name)

    def declare(self, names: tuple[str, ...]) -> list[int]:
        """Give variables places in the frame and open their scope; `leave` closes it."""
        slots = list(range(self.slots, self.slots + len(names)))
        self.slots += len(names)
        self._scopes.append(dict(zip(names, slots, strict=True)))
        return slots

    def leave(self) -> None:
        self._scopes.pop()

    def _constant(self, node: Node) -> Any:
        """The value of a literal, of lists and maps of literals and of converted literals; else _NOTHING."""
        match node:
            case Literal(value=value):
                return value
            case Ident(constant=constant) | Select(constant=constant) if constant is not None:
                return constant
            case ListNode(items=items, optional=optional) if not optional:
                values = [self._constant(item) for item in items]
                return _NOTHING if any(value is _NOTHING for value in values) else values
            case MapNode(entries=entries) if not any(entry.optional for entry in entries):
                return self._constant_map(node)
            case Call(function=function, args=[argument], overloads=[overload]) if function in FOLDED:
                value = self._constant(argument)
                if value is _NOTHING or not accepts(overload, (kind_of(value),)):
                    return _NOTHING
                try:
                    return overload.run(value)
                except CelError:
                    return _NOTHING
        return _NOTHING

    def _constant_map(self, node: MapNode) -> Any:
        pairs = [(self._constant(entry.key), self._constant(entry.value)) for entry in node.entries]
        if any(key is _NOTHING or value is _NOTHING for key, value in pairs):
            return _NOTHING
        try:
            return mapping_of(pairs)
        except CelError:
            return _NOTHING

    def _select(self, node: Select) -> Costed:
        if not node.field:
            return self.expression(node.operand)
        path = self._path(node)
        if path is not None:
            slot, keys = path
            return chain(slot, keys), 1 + len(keys)
        operand, cost = self.expression(node.operand)
        field = json_name(node.operand.type, node.field)
        own = 1 if _is_attribute(node.operand) else 2
        if node.test:
            known = node.operand.type.kind == "object"
            return presence(operand, field, known), cost + own - 1
        return converted(selection(operand, field, node.operand.type), node.type), cost + own

    def _path(self, node: Select) -> tuple[int, tuple[str, ...]] | None:
        """Slot and keys of `variable.field.field` where nothing needs a second look."""
        keys: list[str] = []
        each: Node = node
        while isinstance(each, Select):
            if each.test or each.constant is not None or not each.field or converter(each.type) is not None:
                return None
            if each.operand.type.kind not in ("object", "map"):
                return None
            keys.append(json_name(each.operand.type, each.field))
            each = each.operand
        if not isinstance(each, Ident) or each.constant is not None:
            return None
        return self._slot(each.name), tuple(reversed(keys))

    def _call(self, node: Call) -> Costed:
        special = _SPECIAL.get(node.function)
        if special is not None:
            return special(self, node)
        codes, cost = self._arguments(([node.target] if node.target is not None else []) + node.args)
        overload = _static(node)
        if overload is None:
            return dispatch(node.overloads, codes), cost
        if node.function in ("_==_", "_!=_") and all(arg.type.kind in _FIXED for arg in node.args):
            return invoke(overload.run, codes), cost + 1
        if isinstance(overload.cost, int):
            return invoke(overload.run, codes), cost + overload.cost
        return measured(overload.run, overload.cost, codes), cost

    def _arguments(self, nodes: list[Node]) -> tuple[list[Code], int]:
        costed = [self.expression(node) for node in nodes]
        return [code for code, _ in costed], sum(cost for _, cost in costed)

    def _logical(self, node: Call) -> Costed:
        left, cost = self.expression(node.args[0])
        right = self.charged(node.args[1])
        return (both if node.function == "_&&_" else either)(left, right), cost

    def _conditional(self, node: Call) -> Costed:
        condition, cost = self.expression(node.args[0])
        yes, no = self.charged(node.args[1], branch=True), self.charged(node.args[2], branch=True)

        def run(frame: Frame) -> Any:
            value = condition(frame)
            if value is True:
                return yes(frame)
            if value is False:
                return no(frame)
            raise no_overload()

        return run, cost

    def _index(self, node: Call) -> Costed:
        operand, cost = self.expression(node.args[0])
        key, key_cost = self.expression(node.args[1])
        if key_cost and _is_attribute(node.args[1]):
            key_cost -= 1
        cost += key_cost + (1 if _is_attribute(node.args[0]) else 2)
        overload = _static(node)
        if overload is None:
            return converted(dispatch(node.overloads, [operand, key], 0), node.type), cost
        if overload.id == "index_map" and node.args[1].type.kind == "string":
            constant = self._constant(node.args[1])
            code = (
                selection(operand, constant, node.args[0].type)
                if constant is not _NOTHING
                else keyed(operand, key)
            )
        else:
            code = invoke(overload.run, [operand, key])
        return converted(code, node.type), cost

    def _optional_select(self, node: Call) -> Costed:
        operand, cost = self.expression(node.args[0])
        field = node.args[1]
        assert isinstance(field, Literal)
        inner = node.args[0].type
        name = json_name(inner.params[0] if inner.kind == "opaque" else inner, field.value)
        convert = converter(node.type.params[0])

        def run(frame: Frame) -> Any:
            found = optional_field(operand(frame), name)
            return Optional(convert(found.value)) if convert is not None and found.present else found

        return run, cost + (1 if _is_attribute(node.args[0]) else 2)

    def _in(self, node: Call) -> Costed:
        items = self._constant(node.args[1])
        known = node.overloads[0].id == "in_list"
        if known and isinstance(items, list) and all(type(item) is str for item in items):
            code, cost = self.expression(node.args[0])
            wanted = frozenset(items)
            return member_of(code, wanted), cost
        return self._call_plain(node, free=isinstance(items, list))

    def _call_plain(self, node: Call, *, free: bool) -> Costed:
        codes, cost = self._arguments(node.args)
        overload = _static(node)
        if overload is None:
            return dispatch(node.overloads, codes), cost
        if free or isinstance(overload.cost, int):
            return invoke(overload.run, codes), cost + (0 if free else 1)
        return measured(overload.run, overload.cost, codes), cost

    def _list(self, node: ListNode) -> Costed:
        codes, cost = self._arguments(node.items)
        if not node.optional:
            return (lambda frame: [code(frame) for code in codes]), cost + _LIST_COST
        optional = node.optional

        def run(frame: Frame) -> list[Any]:
            items: list[Any] = []
            for index, code in enumerate(codes):
                value = code(frame)
                if index not in optional:
                    items.append(value)
                elif optional_of(value).present:
                    items.append(value.value)
            return items

        return run, cost + _LIST_COST

    def _map(self, node: MapNode) -> Costed:
        keys, key_cost = self._arguments([entry.key for entry in node.entries])
        values, cost = self._arguments([entry.value for entry in node.entries])
        parts = list(zip(keys, values, (entry.optional for entry in node.entries), strict=True))

        if not any(entry.optional for entry in node.entries):
            plain = [(key, value) for key, value, _ in parts]
            return (
                lambda frame: mapping_of([(key(frame), value(frame)) for key, value in plain])
            ), cost + key_cost + _MAP_COST

        def run(frame: Frame) -> dict[Any, Any]:
            pairs: list[tuple[Any, Any]] = []
            for key, code, optional in parts:
                value = code(frame)
                if not optional:
                    pairs.append((key(frame), value))
                elif optional_of(value).present:
                    pairs.append((key(frame), value.value))
            return mapping_of(pairs)

        return run, cost + key_cost + _MAP_COST

    def _message(self, node: Message) -> Costed:
        codes, cost = self._arguments([entry.value for entry in node.entries])
        parts = [(entry.key, code, entry.optional) for entry, code in zip(node.entries, codes, strict=True)]
        name, build = node.name.removeprefix("."), self._build

        def run(frame: Frame) -> Any:
            fields: dict[str, Any] = {}
            for key, code, optional in parts:
                value = code(frame)
                if not optional:
                    fields[key] = value
                elif optional_of(value).present:
                    fields[key] = value.value
            return build(name, fields)

        return run, cost + _MESSAGE_COST


def _is_attribute(node: Node) -> bool:
    """A name, a selection or an index: what cel-go resolves as one, for one unit at its root."""
    if isinstance(node, (Ident, Select)):
        return node.constant is None
    return isinstance(node, Call) and node.function in ("_[_]", "_[?_]", "_?._")


def _static(node: Call) -> Overload | None:
    """The overload to call without looking at the values; None when they decide."""
    if len(node.overloads) != 1:
        return None
    overload: Overload = node.overloads[0]
    nodes = ([node.target] if node.target is not None else []) + node.args
    for wanted, arg in zip(overload.args, nodes, strict=True):
        if wanted.kind not in ("dyn", "param") and arg.type.kind == "dyn":
            return None
    return overload


def _optional_index(compiler: Compiler, node: Call) -> Costed:
    operand, cost = compiler.expression(node.args[0])
    key, key_cost = compiler.expression(node.args[1])
    convert = converter(node.type.params[0]) if node.type.params else None

    def run(frame: Frame) -> Any:
        found = optional_index(operand(frame), key(frame))
        return Optional(convert(found.value)) if convert is not None and found.present else found

    return run, cost + key_cost + 1


_SPECIAL: Final[dict[str, Callable[[Compiler, Call], Costed]]] = {
    "_&&_": Compiler._logical,
    "_||_": Compiler._logical,
    "_?_:_": Compiler._conditional,
    "_[_]": Compiler._index,
    "_[?_]": _optional_index,
    "_?._": Compiler._optional_select,
    "@in": Compiler._in,
}
