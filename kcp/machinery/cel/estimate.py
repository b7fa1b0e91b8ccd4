"""What an expression may cost at least and at most, from the sizes that its variables' types allow.

Kubernetes refuses rules and selectors that could cost too much before they ever run. Sizes come from `Type.max_size`;
what a schema does not bound counts as what fits into a request.

Source: cel-go v0.26 checker/cost.go; k8s v1.36 apiserver/pkg/cel/library/cost.go,
apiextensions-apiserver/pkg/apiserver/schema/cel/compilation.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from kcp.base.values import frozen
from kcp.machinery.cel.environment import Program
from kcp.machinery.cel.libraries.authorizer import CHECK_COST
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
from kcp.machinery.cel.types import Type
from kcp.machinery.cel.values import UINT_MAX

_SCALARS: Final = frozenset(("bool", "int", "uint", "double", "timestamp", "duration", "type"))
_OPENED: Final = frozenset(("list", "map", "object"))
"""Kinds whose types say what is in them."""
_LIST_COST, _MAP_COST, _MESSAGE_COST = 10, 30, 40


@frozen(slots=True)
class Range:
    """Least and most of a size or cost; what is beyond 64 bits counts as the largest number of them."""

    low: int
    high: int

    def __add__(self, other: Range) -> Range:
        return _range(self.low + other.low, self.high + other.high)

    def __mul__(self, other: Range) -> Range:
        return _range(self.low * other.low, self.high * other.high)

    def either(self, other: Range) -> Range:
        return Range(min(self.low, other.low), max(self.high, other.high))

    def tenths(self, count: int = 1) -> Range:
        return _range(-(-self.low * count // 10), -(-self.high * count // 10))

    def quarter(self) -> Range:
        return Range(-(-self.low // 4), -(-self.high // 4))


def _range(low: int, high: int) -> Range:
    return Range(min(low, UINT_MAX), min(high, UINT_MAX))


RULE_LIMIT: Final = 10_000_000
"""What one rule of a CRD may cost at most, times how often it could run. Source: StaticEstimatedCostLimit."""
CRD_LIMIT: Final = 100_000_000
"""What all rules of a CRD may cost at most together. Source: StaticEstimatedCRDCostLimit."""
ZERO: Final = Range(0, 0)
ONE: Final = Range(1, 1)
UNKNOWN: Final = Range(0, UINT_MAX)


@frozen(slots=True)
class Estimate:
    """Of one node: what it costs, how large its value is, and how large the keys and values in it are.

    `reachable` says that the value is part of a variable, so that its type knows its size.
    """

    cost: Range
    size: Range | None = None
    key: Range | None = None
    value: Range | None = None
    reachable: bool = False

    def bound(self) -> Range:
        return self.size if self.size is not None else UNKNOWN


def estimate(program: Program) -> Range:
    """The least and the most that an evaluation costs."""
    return _Estimator().of(program.tree).cost


def _sized(node: Node, found: Estimate) -> Estimate:
    """With the size that the type gives, where the expression itself gives none."""
    if found.size is not None:
        return found
    return attrs.evolve(found, size=_type_size(node.type, found.reachable))


def _type_size(type: Type, reachable: bool) -> Range | None:
    """Texts of variables without a bound, such as the keys of a map, count as empty, as in Kubernetes."""
    if reachable and type.max_size is not None:
        return Range(0, type.max_size)
    if type.kind in _SCALARS:
        return ONE
    return ZERO if reachable else None


class _Estimator:
    """Belongs to one estimate."""

    def __init__(self) -> None:
        self._scopes: list[Mapping[str, Estimate]] = []

    def of(self, node: Node) -> Estimate:
        match node:
            case Literal(value=value):
                return Estimate(ZERO, _literal_size(value))
            case Ident():
                return _sized(node, self._ident(node))
            case Select():
                return _sized(node, self._select(node))
            case Call():
                return _sized(node, self._call(node))
            case ListNode():
                return self._list(node)
            case MapNode():
                return self._map(node)
            case Message(entries=entries):
                return Estimate(
                    _total(self.of(each.value) for each in entries) + Range(_MESSAGE_COST, _MESSAGE_COST)
                )
            case Comprehension():
                return self._comprehension(node)
        raise AssertionError(node)

    def _ident(self, node: Ident) -> Estimate:
        for scope in reversed(self._scopes):
            if node.name in scope:
                return attrs.evolve(scope[node.name], cost=ONE)
        return Estimate(ONE, reachable=node.constant is None)

    def _select(self, node: Select) -> Estimate:
        if node.constant is not None:
            return Estimate(ONE, ONE)
        operand = self.of(node.operand)
        if not node.field:
            return operand
        if node.test:
            return Estimate(operand.cost, ONE)
        own = ONE if node.operand.type.kind in ("map", "object", "param", "opaque") else ZERO
        known = operand.reachable and node.operand.type.kind in _OPENED
        return Estimate(operand.cost + own, operand.value, reachable=known)

    def _call(self, node: Call) -> Estimate:
        args = [self.of(each) for each in ([node.target] if node.target is not None else []) + node.args]
        spent = _total(args)
        name = node.function
        if name == "_?_:_":
            either = args[1].bound().either(args[2].bound())
            return Estimate(args[0].cost + args[1].cost.either(args[2].cost), either)
        if name in ("_&&_", "_||_"):
            return Estimate(Range(args[0].cost.low, spent.high), ONE)
        if name in ("_[_]", "_[?_]", "_?._"):
            known = args[0].reachable and name == "_[_]" and node.args[0].type.kind in _OPENED
            return Estimate(spent + ONE, args[0].value, reachable=known)
        if name == "dyn":
            return attrs.evolve(args[0], cost=spent + ONE)
        rule = _RULES.get(name)
        if rule is None:
            return Estimate(spent + ONE)
        own, size = rule(node, args)
        if name != "_+_":
            return Estimate(spent + own, size)
        return Estimate(spent + own, size, ONE, _joined_entries(node, args))

    def _list(self, node: ListNode) -> Estimate:
        items = [self.of(item) for item in node.items]
        entry = _union([item.bound() for item in items])
        size = Range(len(items) - len(node.optional), len(items))
        return Estimate(_total(items) + Range(_LIST_COST, _LIST_COST), size, ONE, entry)

    def _map(self, node: MapNode) -> Estimate:
        keys, values = (
            [self.of(each.key) for each in node.entries],
            [self.of(each.value) for each in node.entries],
        )
        size = Range(sum(not each.optional for each in node.entries), len(keys))
        cost = _total(keys) + _total(values) + Range(_MAP_COST, _MAP_COST)
        return Estimate(
            cost, size, _union([each.bound() for each in keys]), _union([each.bound() for each in values])
        )

    def _comprehension(self, node: Comprehension) -> Estimate:
        over = self.of(node.range)
        if node.macro in ("bind", "optMap", "optFlatMap"):
            return self._bound(node, over)
        scope = self._variables(node, over)
        self._scopes.append(scope)
        condition = self.of(node.filter) if node.filter is not None else Estimate(ZERO)
        body = self.of(node.body) if node.macro != "filter" else next(iter(scope.values()), Estimate(ONE))
        self._scopes.pop()
        return _loop(node, over, condition, body)

    def _bound(self, node: Comprehension, over: Estimate) -> Estimate:
        value = over if node.macro == "bind" else Estimate(ZERO, over.value, reachable=over.reachable)
        self._scopes.append({node.names[0]: value})
        body = self.of(node.body)
        self._scopes.pop()
        empty = Range(_LIST_COST, _LIST_COST)
        if node.macro == "bind":
            return attrs.evolve(body, cost=over.cost + empty + body.cost)
        inner = over.cost + ONE + empty + body.cost + (ONE if node.macro == "optMap" else ZERO)
        return Estimate(over.cost + ONE + inner.either(ONE))

    def _variables(self, node: Comprehension, over: Estimate) -> dict[str, Estimate]:
        """The variables of a macro with the sizes that items of its range have."""
        kind = node.range.type
        item = _part(kind, -1, over.value, over.reachable)
        key = ONE if kind.kind == "list" else _part(kind, 0, over.key, over.reachable)
        first = Estimate(ONE, key, reachable=over.reachable and kind.kind == "map")
        second = Estimate(ONE, item, reachable=over.reachable and kind.kind in _OPENED)
        if len(node.names) == 2:
            return dict(zip(node.names, (first, second), strict=True))
        return {node.names[0]: second if kind.kind != "map" else first}


def _joined_entries(node: Call, args: list[Estimate]) -> Range | None:
    """How large the items of a sum of two lists are."""
    found = [
        _part(arg.type, -1, each.value, each.reachable) for arg, each in zip(node.args, args, strict=True)
    ]
    known = [item for item in found if item is not None]
    return _union(known) if len(known) == len(found) else None


def _part(type: Type, index: int, entry: Range | None, reachable: bool) -> Range | None:
    if entry is not None or not type.params:
        return entry
    return _type_size(type.params[index], reachable)


def _total(parts: Any) -> Range:
    cost = ZERO
    for part in parts:
        cost = cost + part.cost
    return cost


def _union(sizes: list[Range]) -> Range:
    if not sizes:
        return ZERO
    return Range(min(size.low for size in sizes), max(size.high for size in sizes))


def _literal_size(value: Any) -> Range:
    size = len(value) if isinstance(value, (str, bytes)) else 1
    return Range(size, size)


def _loop(node: Comprehension, over: Estimate, condition: Estimate, body: Estimate) -> Estimate:
    """A fold as cel-go's macros expand to: each round costs its condition and its step."""
    rounds = over.bound()
    match node.macro:
        case "all":
            each, start, end = Range(3, 3 + body.cost.high), ZERO, ONE
        case "exists":
            each, start, end = Range(4, 4 + body.cost.high), ZERO, ONE
        case "existsOne":
            each, start, end = body.cost + Range(1, 2), ZERO, Range(2, 2)
        case "transformMap" | "transformMapEntry":
            step = body.cost + Range(3, 3)
            each, start, end = _guarded(node, condition, step), Range(_MAP_COST, _MAP_COST), ONE
        case _:
            step = body.cost + Range(12, 12)
            each, start, end = _guarded(node, condition, step), Range(_LIST_COST, _LIST_COST), ONE
    cost = over.cost + start + rounds * each + end
    if node.macro in ("all", "exists", "existsOne"):
        return Estimate(cost, ONE)
    return Estimate(cost, rounds, ONE, body.bound())


def _guarded(node: Comprehension, condition: Estimate, step: Range) -> Range:
    return condition.cost + (step.either(ONE) if node.filter is not None else step)


Rule = Callable[[Call, list[Estimate]], tuple[Range, Range | None]]
"""The cost of the call itself, and the size of its result where that is not its type's."""


def _walk(count: int = 1, *, same: bool = False, argument: int = 0) -> Rule:
    """Walking `count` times along an argument; the result can be as large as that."""

    def rule(_: Call, args: list[Estimate]) -> tuple[Range, Range | None]:
        size = args[min(argument, len(args) - 1)].bound()
        return size.tenths(count), size if same else None

    return rule


def _fixed(cost: int) -> Rule:
    return lambda _, args: (Range(cost, cost), None)


def _compared(node: Call, args: list[Estimate]) -> tuple[Range, Range | None]:
    """Texts are compared along the shorter one, numbers at once; equality looks at sizes whatever the types."""
    most = min(args[0].bound().high, args[1].bound().high)
    along = Range(1 if most else 0, most).tenths()
    if node.function in ("_==_", "_!=_"):
        return along, ONE
    texts = {each.args[0].kind in ("string", "bytes") for each in node.overloads}
    return (along.either(ONE) if len(texts) == 2 else along if True in texts else ONE), ONE


def _added(node: Call, args: list[Estimate]) -> tuple[Range, Range | None]:
    kinds = {each.args[0].kind for each in node.overloads}
    if not kinds & {"string", "bytes", "list"}:
        return ONE, None
    size = args[0].bound() + args[1].bound()
    walked = size.tenths()
    return (
        ONE if kinds == {"list"} else walked if kinds <= {"string", "bytes"} else walked.either(ONE)
    ), size


def _within(node: Call, args: list[Estimate]) -> tuple[Range, Range | None]:
    """A list is gone through, a map looked up."""
    ids = [each.id for each in node.overloads]
    listed = args[1].bound()
    return (ONE if ids == ["in_map"] else listed if ids == ["in_list"] else listed.either(ONE)), ONE


def _searched(_: Call, args: list[Estimate]) -> tuple[Range, Range | None]:
    return args[0].bound().tenths() * args[1].bound().tenths(), ONE


def _matched(node: Call, args: list[Estimate]) -> tuple[Range, Range | None]:
    cost = (args[0].bound() + ONE).tenths() * args[1].bound().quarter()
    return cost, Range(
        0, args[0].bound().high
    ) if node.function == "findAll" else ONE if node.function == "matches" else None


def _listed(node: Call, args: list[Estimate]) -> tuple[Range, Range | None]:
    """isSorted, sum, min, max, indexOf, lastIndexOf: each item is looked at, texts among them walked along."""
    target = node.target.type if node.target is not None else node.type
    if target.kind != "list":
        return args[0].bound().tenths(), None
    each = ONE
    if target.params[0].kind in ("string", "bytes"):
        item = _part(target, 0, args[0].value, args[0].reachable) or UNKNOWN
        each = each + item.tenths()
    return args[0].bound() * each, None


def _replaced(_: Call, args: list[Estimate]) -> tuple[Range, Range | None]:
    text, old, new = (each.bound() for each in args[:3])
    most = _replaced_size(text.high, old.low, new.high, new.high <= old.low)
    least = _replaced_size(text.low, old.high, new.low, old.high <= new.low)
    return text.tenths(2), _range(least, most)


def _replaced_size(text: int, old: int, new: int, kept: bool) -> int:
    if not old:
        return text + (text + 1) * new
    return text if kept else -(-text // old) * new


def _split(_: Call, args: list[Estimate]) -> tuple[Range, Range | None]:
    return args[0].bound().tenths(2), Range(0, args[0].bound().high)


def _joined(_: Call, args: list[Estimate]) -> tuple[Range, Range | None]:
    items = args[0].bound()
    size = items * (args[0].value or UNKNOWN)
    if len(args) > 1:
        size = size + args[1].bound() * Range(max(items.low - 1, 0), max(items.high - 1, 0))
    return size.tenths(), size


def _sets(factor: int) -> Rule:
    return lambda _, args: (ONE + args[0].bound() * args[1].bound() * Range(factor, factor), ONE)


def _to_bytes(node: Call, args: list[Estimate]) -> tuple[Range, Range | None]:
    if node.args[0].type.kind != "string":
        return ONE, None
    size = args[0].bound()
    return size.tenths(), _range(size.low, size.high * 4)


def _to_string(node: Call, args: list[Estimate]) -> tuple[Range, Range | None]:
    if node.args[0].type.kind != "bytes":
        return ONE, None
    size = args[0].bound()
    return size.tenths(), Range(size.low // 4, size.high)


def _contains_network(node: Call, args: list[Estimate]) -> tuple[Range, Range | None]:
    """Addresses have 4 to 16 bytes; a text is parsed first."""
    cost = Range(8, 32).tenths()
    if node.function == "containsCIDR":
        cost = cost + Range(4, 16).tenths() + ONE
    if node.args[0].type.kind == "string":
        cost = cost + args[1].bound().tenths()
    return cost, ONE


def _ip(node: Call, args: list[Estimate]) -> tuple[Range, Range | None]:
    return (ONE if node.target is not None else args[0].bound().tenths()), None


_RULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"), _compared),
    **dict.fromkeys(("isSorted", "sum", "min", "max", "indexOf", "lastIndexOf"), _listed),
    **dict.fromkeys(("lowerAscii", "upperAscii", "substring", "trim"), _walk(same=True)),
    **dict.fromkeys(
        ("url", "isURL", "quantity", "isQuantity", "cidr", "isIP", "isCIDR", "semver", "isSemver"), _walk()
    ),
    **dict.fromkeys(("startsWith", "endsWith"), _walk(argument=1)),
    **dict.fromkeys(("matches", "find", "findAll"), _matched),
    **dict.fromkeys(("containsIP", "containsCIDR"), _contains_network),
    **dict.fromkeys(("sets.contains", "sets.intersects"), _sets(1)),
    "sets.equivalent": _sets(2),
    "_+_": _added,
    "@in": _within,
    "contains": _searched,
    "replace": _replaced,
    "split": _split,
    "join": _joined,
    "bytes": _to_bytes,
    "string": _to_string,
    "ip": _ip,
    "ip.isCanonical": _walk(2),
    "check": _fixed(CHECK_COST),
    "includes": _fixed(48),
    "size": _fixed(1),
}
