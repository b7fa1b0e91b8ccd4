"""The macros that go over a list or map, each as a loop of its own.

What a round costs follows from cel-go's expansion of the macro into a fold: `all` asks in each round whether to go on
(2) and reads the result so far (1); the others likewise.

Source: cel-go v0.26 parser/macro.go, ext/{bindings,comprehensions}.go, interpreter/interpretable.go (evalFold).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from kcp.machinery.cel.closures import FAULTS, OVER_BUDGET, Code, Costed, Frame, paid, spend
from kcp.machinery.cel.syntax import Comprehension
from kcp.machinery.cel.values import (
    ABSENT,
    BudgetExceeded,
    CelError,
    Optional,
    key_in,
    key_out,
    kind_of,
    no_overload,
    text_of,
)

if TYPE_CHECKING:
    from kcp.machinery.cel.compile import Compiler

_GO_NAMES: Final = {
    "bool": "types.Bool", "int": "types.Int", "uint": "types.Uint", "double": "types.Double", "string": "types.String",
    "bytes": "types.Bytes", "null_type": "types.Null", "google.protobuf.Timestamp": "types.Timestamp",
    "google.protobuf.Duration": "types.Duration", "optional_type": "*types.Optional", "kubernetes.Semver": "cel.Semver",
    "kubernetes.Quantity": "cel.Quantity",
}  # fmt: skip
Rounds = Callable[["Frame"], list[Any]]
Loop = Callable[["Frame", list[Any]], Any]


def comprehension(compiler: Compiler, node: Comprehension) -> Costed:
    if node.macro == "bind":
        return _bind(compiler, node)
    if node.macro in ("optMap", "optFlatMap"):
        return _opt_map(compiler, node)
    over, cost = compiler.expression(node.range)
    slots = compiler.declare(node.names)
    loop = _MACROS[node.macro](compiler, node, slots)
    compiler.leave()
    rounds = _pairs if len(slots) == 2 else _items
    return (lambda frame: loop(frame, rounds(over(frame)))), cost + 1


def _items(value: Any) -> list[Any]:
    """What one variable goes over: the items of a list, the keys of a map."""
    if isinstance(value, list):
        return value
    if isinstance(value, Mapping):
        return [key_out(key) for key in value]
    raise CelError(f"got '{_GO_NAMES.get(kind_of(value), kind_of(value))}', expected iterable type")


def _pairs(value: Any) -> list[Any]:
    """What two variables go over: index and item, key and value."""
    if isinstance(value, list):
        return list(enumerate(value))
    if isinstance(value, Mapping):
        return [(key_out(key), item) for key, item in value.items()]
    raise CelError(f"got '{_GO_NAMES.get(kind_of(value), kind_of(value))}', expected iterable type")


def _setter(slots: list[int]) -> Callable[[Frame, Any], None]:
    if len(slots) == 1:
        return lambda frame, item: frame.__setitem__(slots[0], item)

    def both(frame: Frame, item: Any) -> None:
        frame[slots[0]], frame[slots[1]] = item

    return both


def _quantifier(compiler: Compiler, node: Comprehension, slots: list[int]) -> Loop:
    """all and exists: the first false or true decides, whatever errors came before; else the first error."""
    body, cost = compiler.expression(node.body)
    deciding = node.macro == "exists"
    asking = 3 if deciding else 2
    each = cost + asking + 1
    place = _setter(slots)
    single = slots[0] if len(slots) == 1 else None

    def run(frame: Frame, items: list[Any]) -> Any:
        failed: Exception | None = None
        last = len(items) - 1
        for index, item in enumerate(items):
            frame[0] -= each
            if frame[0] < 0:
                raise BudgetExceeded(OVER_BUDGET)
            if single is not None:
                frame[single] = item
            else:
                place(frame, item)
            try:
                value = body(frame)
            except BudgetExceeded:
                raise
            except FAULTS as error:
                failed = failed or error
                continue
            if value is deciding:
                if index < last:
                    frame[0] -= asking
                return deciding
            if value is not (not deciding):
                failed = failed or no_overload()
        if failed is not None:
            raise failed
        return not deciding

    return run


def _exists_one(compiler: Compiler, node: Comprehension, slots: list[int]) -> Loop:
    body, cost = compiler.expression(node.body)
    place = _setter(slots)

    def run(frame: Frame, items: list[Any]) -> bool:
        count = 0
        for item in items:
            spend(frame, cost)
            place(frame, item)
            value = body(frame)
            if value is True:
                count += 1
                frame[0] -= 2
            elif value is not False:
                raise no_overload()
        frame[0] -= 1
        return count == 1

    return run


def _list(compiler: Compiler, node: Comprehension, slots: list[int]) -> Loop:
    """map, filter and transformList: twelve for each item that is added, the condition for each that is not."""
    condition, condition_cost = compiler.expression(node.filter) if node.filter is not None else (None, 0)
    place = _setter(slots)
    body: Code
    if node.macro == "filter":
        slot = slots[0]
        body, cost = (lambda frame: frame[slot]), 1
    else:
        body, cost = compiler.expression(node.body)
    adding = cost + 12

    def run(frame: Frame, items: list[Any]) -> list[Any]:
        found: list[Any] = []
        for item in items:
            spend(frame, condition_cost)
            place(frame, item)
            if condition is not None:
                value = condition(frame)
                if value is False:
                    continue
                if value is not True:
                    raise no_overload()
            spend(frame, adding)
            found.append(body(frame))
        return found

    return run


def _map(compiler: Compiler, node: Comprehension, slots: list[int]) -> Loop:
    """transformMap: the keys stay; transformMapEntry: each round gives the entries of a map."""
    condition, condition_cost = compiler.expression(node.filter) if node.filter is not None else (None, 0)
    body, cost = compiler.expression(node.body)
    place = _setter(slots)
    entries = node.macro == "transformMapEntry"
    adding = cost + (2 if entries else 3)

    def run(frame: Frame, items: list[Any]) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for item in items:
            spend(frame, condition_cost)
            place(frame, item)
            if condition is not None and condition(frame) is not True:
                continue
            spend(frame, adding)
            value = body(frame)
            for key, inner in value.items() if entries else ((key_in(item[0]), value),):
                if key in found:
                    raise CelError(f"insert failed: key {text_of(key_out(key))} already exists")
                found[key] = inner
        return found

    return run


def _bind(compiler: Compiler, node: Comprehension) -> Costed:
    value, cost = compiler.expression(node.range)
    (slot,) = compiler.declare(node.names)
    body, body_cost = compiler.expression(node.body)
    compiler.leave()

    def run(frame: Frame) -> Any:
        frame[slot] = value(frame)
        return body(frame)

    return run, cost + body_cost


def _opt_map(compiler: Compiler, node: Comprehension) -> Costed:
    """optMap and optFlatMap look at their target twice, which is paid for twice."""
    target, cost = compiler.expression(node.range)
    (slot,) = compiler.declare(node.names)
    inner, inner_cost = compiler.expression(node.body)
    compiler.leave()
    wrap = node.macro == "optMap"
    body = paid(inner, inner_cost + cost + 1 + wrap)

    def run(frame: Frame) -> Optional:
        optional = target(frame)
        if not isinstance(optional, Optional):
            raise no_overload()
        if not optional.present:
            frame[0] -= 1
            return ABSENT
        frame[slot] = optional.value
        value = body(frame)
        if wrap:
            return Optional(value)
        if not isinstance(value, Optional):
            raise no_overload()
        return value

    return run, cost + 1


_MACROS: Final[dict[str, Callable[[Compiler, Comprehension, list[int]], Loop]]] = {
    "all": _quantifier,
    "exists": _quantifier,
    "existsOne": _exists_one,
    "map": _list,
    "filter": _list,
    "transformList": _list,
    "transformMap": _map,
    "transformMapEntry": _map,
}
