"""Where a replay stops: a small expression over a decision, with the operators of CEL.

    stop = condition('controller == "deployment" && effects.exists(e, e.kind == "Create" && e.outcome != "ok")')
    stop(decision, frontier)

Names: controller (with or without `-controller`), key, trigger, id, rv (the newest revision it had seen), now (RFC 3339),
effects (as recorded, those of an All beside it), kinds, resources (what the effects touch), frontier (resource → revision).
Operators: == != < <= > >= in + - ! && || (or: not, and, or), ( ), [ ], .field, ? : is not there. Functions: size(x),
has(x.y), x.startsWith(s), x.endsWith(s), x.contains(s), x.matches(regex), list.exists(e, …), list.all(e, …).
It is parsed and walked, never executed: nothing else can be called or reached. What is missing is null and compares false.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from kcp.base.clock import moment
from kcp.store.protocol import Decision

Json = dict[str, Any]
Condition = Callable[[Decision, Mapping[str, int]], bool]
Names = Mapping[str, Any]
MAX_LENGTH = 2000

NAMES = ("controller", "key", "trigger", "id", "rv", "now", "effects", "kinds", "resources", "frontier")
_CONSTANTS = {"true": True, "false": False, "null": None}
_SYMBOL = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|&&|\|\||!(?!=)")
_WORDS = {"&&": " and ", "||": " or ", "!": " not "}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip
_STRINGS: dict[str, Callable[[str, str], Any]] = {
    "startsWith": str.startswith, "endsWith": str.endswith, "contains": lambda a, b: b in a,
    "matches": lambda a, b: re.search(b, a) is not None,
}  # fmt: skip
_MACROS: dict[str, Callable[[Iterator[bool]], bool]] = {"exists": any, "all": all}


class BadCondition(ValueError):
    """Raised for text that is no condition; says where, for people."""


class ControllerName(str):
    """Equal to a controller's name with and without `-controller`."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self._short(self) == self._short(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self._short(self))

    @staticmethod
    def _short(name: str) -> str:
        return str.removesuffix(str(name), "-controller")


def condition(text: str) -> Condition:
    """Raises BadCondition."""
    if len(text) > MAX_LENGTH:
        raise BadCondition(f"a condition has at most {MAX_LENGTH} characters")
    try:
        tree = ast.parse(_SYMBOL.sub(lambda m: _WORDS.get(m[0], m[0]), text).strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise BadCondition(
            f'{text!r} is no condition; an example: controller == "deployment" && rv > 100'
        ) from None
    _check(tree, NAMES)

    def holds(decision: Decision, frontier: Mapping[str, int]) -> bool:
        return bool(_value(tree, names_of(decision, frontier)))

    return holds


def names_of(decision: Decision, frontier: Mapping[str, int]) -> Json:
    """What a condition can speak of."""
    effects = list(flat(decision.effects))
    return {
        "controller": ControllerName(decision.controller),
        "key": decision.key,
        "trigger": decision.trigger,
        "id": decision.id,
        "rv": max(frontier.values(), default=0),
        "now": moment(decision.now_us).isoformat().replace("+00:00", "Z"),
        "effects": effects,
        "kinds": [effect["kind"] for effect in effects],
        "resources": [effect["resource"] for effect in effects if effect.get("resource")],
        "frontier": dict(frontier),
    }


def flat(effects: Sequence[Json]) -> Iterator[Json]:
    """Effects with the parts of each All after it."""
    for effect in effects:
        yield effect
        yield from flat(effect.get("effects", ()))


def _check(node: ast.expr, known: Sequence[str]) -> None:
    """Everything that can be known without a decision: names, functions, forms. Raises BadCondition."""
    match node:
        case ast.Constant(value=value) if value is None or isinstance(value, (str, int, float, bool)):
            return
        case ast.Name(id=name):
            if name not in known and name not in _CONSTANTS:
                raise BadCondition(f"there is no {name!r} to ask about; there are {', '.join(known)}")
        case ast.Call(func=ast.Name(id="size" | "has"), args=[argument], keywords=[]):
            _check(argument, known)
        case ast.Call(func=ast.Attribute(value=on, attr=name), args=[argument], keywords=[]) if (
            name in _STRINGS
        ):
            _check(on, known)
            _check(argument, known)
        case ast.Call(
            func=ast.Attribute(value=on, attr=name), args=[ast.Name(id=each), argument], keywords=[]
        ) if name in _MACROS:
            _check(on, known)
            _check(argument, [*known, each])
        case (
            ast.BoolOp()
            | ast.Compare()
            | ast.UnaryOp()
            | ast.BinOp()
            | ast.Attribute()
            | ast.Subscript()
            | ast.List()
        ):
            _check_parts(node, known)
        case _:
            raise BadCondition(f"a condition cannot have {ast.unparse(node)}")


def _check_parts(node: ast.expr, known: Sequence[str]) -> None:
    if isinstance(node, ast.UnaryOp) and not isinstance(node.op, (ast.Not, ast.USub)):
        raise BadCondition(f"a condition cannot have {ast.unparse(node)}")
    if isinstance(node, ast.BinOp) and not isinstance(node.op, (ast.Add, ast.Sub)):
        raise BadCondition(f"a condition cannot have {ast.unparse(node)}")
    if isinstance(node, ast.Compare) and not all(type(each) in _COMPARE for each in node.ops):
        raise BadCondition(f"a condition cannot have {ast.unparse(node)}")
    for part in ast.iter_child_nodes(node):
        if isinstance(part, ast.expr):
            _check(part, known)


def _value(node: ast.expr, names: Names) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return names[name] if name in names else _CONSTANTS[name]
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_value(part, names) for part in parts)
        case ast.BoolOp(values=parts):
            return any(_value(part, names) for part in parts)
        case ast.UnaryOp(op=ast.Not(), operand=part):
            return not _value(part, names)
        case ast.UnaryOp(operand=part):
            return _computed(operator.neg, _value(part, names))
        case ast.BinOp(left=left, op=op, right=right):
            function = operator.add if isinstance(op, ast.Add) else operator.sub
            return _computed(function, _value(left, names), _value(right, names))
        case ast.List(elts=parts):
            return [_value(part, names) for part in parts]
        case ast.Attribute(value=on, attr=field):
            return _field(_value(on, names), field)
        case ast.Subscript(value=on, slice=at):
            return _field(_value(on, names), _value(at, names))
        case ast.Compare():
            return _compared(node, names)
        case ast.Call():
            return _called(node, names)
    raise AssertionError(ast.dump(node))


def _compared(node: ast.Compare, names: Names) -> bool:
    left = _value(node.left, names)
    for compare, part in zip(node.ops, node.comparators, strict=True):
        right = _value(part, names)
        if not _computed(_COMPARE[type(compare)], left, right):
            return False
        left = right
    return True


def _called(node: ast.Call, names: Names) -> Any:
    if isinstance(node.func, ast.Name):
        argument = _value(node.args[0], names)
        return argument is not None if node.func.id == "has" else _computed(len, argument)
    assert isinstance(node.func, ast.Attribute)
    on, name = _value(node.func.value, names), node.func.attr
    if name in _STRINGS:
        argument = _value(node.args[0], names)
        return _computed(_STRINGS[name], on, argument) if isinstance(on, str) else False
    each = node.args[0]
    assert isinstance(each, ast.Name)
    items = on if isinstance(on, (list, dict)) else []
    return _MACROS[name](bool(_value(node.args[1], {**names, each.id: item})) for item in items)


def _field(on: Any, field: Any) -> Any:
    if isinstance(on, Mapping):
        return on.get(field)
    if isinstance(on, list) and isinstance(field, int) and -len(on) <= field < len(on):
        return on[field]
    return None


def _computed(function: Callable[..., Any], *arguments: Any) -> Any:
    """None where the values do not fit each other, a bad pattern included."""
    try:
        return function(*arguments)
    except (TypeError, ValueError, re.error):
        return None
