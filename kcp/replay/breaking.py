"""Where a replay stops: a CEL expression over a decision.

    stop = condition('controller == "deployment" && effects.exists(e, e.kind == "Create" && e.outcome != "ok")')
    stop(decision, frontier)

Names: controller (with or without `-controller`), key, trigger, id, rv (the newest revision it had seen), now (RFC 3339),
effects (as recorded, those of an All beside it), kinds, resources (what the effects touch), frontier (resource → revision).
The language is CEL's: its operators (&& || ! may be written and, or, not), literals, `?:`, has() and macros. Functions:
size(x), x.startsWith(s), x.endsWith(s), x.contains(s), x.matches(regex). Unlike in CEL, what is missing is null, and
values that do not fit each other compare false; a condition that has no value does not hold.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from kcp.base.clock import moment
from kcp.machinery.cel.environment import RUNTIME_BUDGET, Environment, WrongType, compile_tree
from kcp.machinery.cel.functions import Functions, member, overload, regex_cost, size, walk
from kcp.machinery.cel.lexer import EOF, Token, tokens
from kcp.machinery.cel.parse import parse, replaced
from kcp.machinery.cel.regex import compiled
from kcp.machinery.cel.source import CompileError
from kcp.machinery.cel.standard import STANDARD
from kcp.machinery.cel.syntax import Call, Literal, Node, Select
from kcp.machinery.cel.types import BOOL, DYN, INT
from kcp.machinery.cel.values import CelError, equal
from kcp.store.protocol import Decision

Json = dict[str, Any]
Condition = Callable[[Decision, Mapping[str, int]], bool]
MAX_LENGTH = 2000

NAMES = ("controller", "key", "trigger", "id", "rv", "now", "effects", "kinds", "resources", "frontier")
_PAIR: Final = (DYN, DYN)
_WORDS: Final = {"and": "&&", "or": "||"}
_ENDS: Final = frozenset(("&&", "||", ")", "]", "}", ",", "?", ":"))
_UNKNOWN: Final = "undeclared reference to '"


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
        source = _symbols(text)
        program = compile_tree(_ENVIRONMENT, replaced(parse(source, presence=False), _lenient), source, BOOL)
    except CompileError as error:
        raise BadCondition(_told(text, error)) from None

    def holds(decision: Decision, frontier: Mapping[str, int]) -> bool:
        try:
            return program(names_of(decision, frontier), RUNTIME_BUDGET) is True
        except CelError:
            return False

    return holds


def _told(text: str, error: CompileError) -> str:
    first = error.issues[0].message
    if first.startswith(_UNKNOWN):
        name = first.removeprefix(_UNKNOWN).partition("'")[0]
        return f"there is no {name!r} to ask about; there are {', '.join(NAMES)}"
    shown = first if isinstance(error, WrongType) else str(error)
    return f'{text!r} is no condition; an example: controller == "deployment" && rv > 100\n{shown}'


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


def _symbols(text: str) -> str:
    """The text with `and`, `or` and `not` as symbols; a `not` reaches as far as it does in Python."""
    found, issues = tokens(text)
    if issues or not any(token.text in ("and", "or", "not") for token in found):
        return text
    parts: list[str] = []
    open_nots: list[int] = []
    depth, at = 0, 0
    for before, token in zip([None, *found], found, strict=False):
        word = token.kind == "IDENTIFIER" and not (before is not None and before.text == ".")
        symbol = _WORDS.get(token.text, token.text) if word else token.text
        while open_nots and _ends(token, symbol, depth, open_nots[-1]):
            parts.append(")")
            open_nots.pop()
        depth += (token.text in ("(", "[", "{")) - (token.text in (")", "]", "}"))
        parts.append(text[at : token.at])
        at = token.at + len(token.text)
        if word and token.text == "not":
            open_nots.append(depth)
            symbol = "!("
        parts.append("" if token.kind == EOF else symbol)
    return "".join(parts)


def _ends(token: Token, symbol: str, depth: int, opened: int) -> bool:
    """Whether a `not` that stands `opened` brackets deep reaches only up to this token."""
    return token.kind == EOF or (symbol in _ENDS and depth <= opened)


def _lenient(node: Node) -> Node:
    """Selections as calls that answer null for what is not there."""
    if isinstance(node, Select):
        return Call(node.at, "_[_]", None, [node.operand, Literal(node.at, node.field)])
    return node


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, ControllerName) or isinstance(b, ControllerName):
        return bool(a == b)
    return equal(a, b)


def _within(item: Any, container: Any) -> bool:
    if isinstance(container, list):
        return any(_same(item, each) for each in container)
    return isinstance(item, str) and isinstance(container, (str, dict)) and item in container


def _field(on: Any, field: Any) -> Any:
    if isinstance(on, Mapping):
        return on.get(field) if isinstance(field, (str, int)) else None
    if isinstance(on, list) and isinstance(field, int) and -len(on) <= field < len(on):
        return on[field]
    return None


def _or(otherwise: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, or `otherwise` where the values do not fit it or each other."""

    def run(*values: Any) -> Any:
        try:
            return function(*values)
        except (TypeError, ValueError, AttributeError, CelError):
            return otherwise

    return run


_OPERATORS: Final[tuple[tuple[str, Callable[..., Any]], ...]] = (
    ("_<_", operator.lt),
    ("_<=_", operator.le),
    ("_>_", operator.gt),
    ("_>=_", operator.ge),
    ("_==_", _same),
    ("_!=_", lambda a, b: not _same(a, b)),
    ("@in", _within),
)
_STRINGS: Final[tuple[tuple[str, Callable[..., Any], Any], ...]] = (
    ("startsWith", str.startswith, walk),
    ("endsWith", str.endswith, walk),
    ("contains", lambda text, part: isinstance(text, str) and part in text, lambda a, b: 1 + size(a) // 10),
    ("matches", lambda text, pattern: compiled(pattern).matches(text), regex_cost),
)
_FUNCTIONS: Final[Functions] = {
    **{name: STANDARD[name] for name in ("_&&_", "_||_", "!_", "_?_:_")},
    **{name: (overload(f"lenient{name}", _PAIR, BOOL, _or(False, run)),) for name, run in _OPERATORS},
    **{name: (member(name, _PAIR, BOOL, _or(False, run), cost),) for name, run, cost in _STRINGS},
    "_+_": (overload("lenient_add", _PAIR, DYN, _or(None, operator.add)),),
    "_-_": (overload("lenient_subtract", _PAIR, DYN, _or(None, operator.sub)),),
    "-_": (overload("lenient_negate", (DYN,), DYN, _or(None, operator.neg)),),
    "_[_]": (overload("lenient_field", _PAIR, DYN, _field),),
    "has": (overload("lenient_has", (DYN,), BOOL, lambda value: value is not None),),
    "size": (
        overload("lenient_size", (DYN,), INT, _or(None, len)),
        member("lenient_size", (DYN,), INT, _or(None, len)),
    ),
}
_ENVIRONMENT: Final = Environment(dict.fromkeys(NAMES, DYN), _FUNCTIONS)
