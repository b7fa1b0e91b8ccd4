"""The type checker: gives every node its type and every call its overloads, or says what does not fit.

Source: cel-go v0.26 checker/checker.go, cel/validator.go (literals); its messages letter for letter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from kcp.machinery.cel import times
from kcp.machinery.cel.functions import Functions, Overload
from kcp.machinery.cel.parse import children, qualified_name
from kcp.machinery.cel.regex import compiled
from kcp.machinery.cel.source import CompileError, Issue
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
from kcp.machinery.cel.types import (
    BOOL,
    DYN,
    ERROR,
    INT,
    NAMED,
    STRING,
    Mapped,
    Type,
    assignable,
    is_dyn,
    is_optional,
    list_of,
    map_of,
    most_general,
    optional_of,
    renamed,
    runtime_name,
    shown,
    substitute,
    type_named,
    type_of,
)
from kcp.machinery.cel.values import CelError, TypeValue

Messages = Callable[[str], Type | None]
"""The message type of a name, for `Name{…}` and for `type(x) == Name`."""


def check(
    node: Node, source: str, variables: Mapping[str, Type], functions: Functions, messages: Messages
) -> Type:
    """Check a tree in place; the type of its value. Raises CompileError with everything that does not fit."""
    checker = _Checker(variables, functions, messages)
    try:
        checker.check(node)
        checker.finish(node)
    except RecursionError:
        checker.issues.append(Issue(0, "expression recursion limit exceeded"))
    if checker.issues:
        raise CompileError(source, checker.issues)
    return node.type


class _Checker:
    """Belongs to one call of `check`."""

    def __init__(self, variables: Mapping[str, Type], functions: Functions, messages: Messages) -> None:
        self._scopes: list[Mapping[str, Type]] = [variables]
        self._functions = functions
        self._messages = messages
        self._mapped: Mapped = {}
        self._fresh = 0
        self.issues: list[Issue] = []

    def check(self, node: Node) -> Type:
        match node:
            case Literal():
                node.type = type_named(node.value)
            case Ident():
                node.type = self._ident(node)
            case Select():
                node.type = self._select(node)
            case Call():
                node.type = self._call(node)
            case ListNode():
                node.type = self._list(node)
            case MapNode():
                node.type = self._map(node)
            case Message():
                node.type = self._message(node)
            case Comprehension():
                node.type = self._comprehension(node)
        return node.type

    def finish(self, node: Node) -> None:
        """Replace what type parameters came to stand for, everywhere; look at literals that functions parse."""
        stack = [node]
        while stack:
            each = stack.pop()
            each.type = substitute(self._mapped, each.type, final=True)
            if isinstance(each, Call):
                self._literals(each)
            stack.extend(children(each))

    def _report(self, at: int, message: str) -> Type:
        self.issues.append(Issue(at, message))
        return ERROR

    def _undeclared(self, at: int, name: str) -> Type:
        return self._report(at, f"undeclared reference to '{name}' (in container '')")

    def _known(self, name: str) -> tuple[Type, TypeValue | None] | None:
        """A variable or the name of a type, from the innermost scope outwards."""
        if name.startswith("."):
            name, scopes = name[1:], self._scopes[:1]
        else:
            scopes = self._scopes
        for scope in reversed(scopes):
            found = scope.get(name)
            if found is not None:
                return found, None
        named = NAMED.get(name) or self._messages(name)
        return None if named is None else (type_of(named), TypeValue(runtime_name(named)))

    def _ident(self, node: Ident) -> Type:
        found = self._known(node.name)
        if found is None:
            return self._undeclared(node.at, node.name.removeprefix("."))
        node.constant = found[1]
        return found[0]

    def _select(self, node: Select) -> Type:
        name = qualified_name(node) if not node.test else None
        if name is not None and not any(name.partition(".")[0] in scope for scope in self._scopes[1:]):
            found = self._known(name)
            if found is not None:
                node.constant = found[1]
                if found[1] is None:
                    node.operand = Ident(node.at, name)
                    node.field = ""
                return found[0]
        operand = self._substituted(self.check(node.operand))
        if is_optional(operand):
            result = optional_of(self._field(node.at, operand.params[0], node.field))
        else:
            result = self._field(node.at, operand, node.field)
        return BOOL if node.test else result

    def _field(self, at: int, operand: Type, field: str) -> Type:
        operand = self._substituted(operand)
        if is_dyn(operand) or operand.kind == "param":
            return DYN
        if operand.kind == "map":
            return operand.params[1]
        if operand.kind != "object":
            return self._report(at, f"type '{shown(operand)}' does not support field selection")
        if operand.fields is None:
            return DYN
        found = operand.fields.get(field)
        return found.type if found is not None else self._report(at, f"undefined field '{field}'")

    def _substituted(self, type: Type) -> Type:
        return substitute(self._mapped, type)

    def _call(self, node: Call) -> Type:
        for arg in node.args:
            self.check(arg)
        if node.function == "_?._":
            return self._optional_select(node)
        if node.target is not None:
            name = qualified_name(node.target)
            if name is not None and f"{name}.{node.function}" in self._functions:
                node.function, node.target = f"{name}.{node.function}", None
            else:
                self.check(node.target)
        overloads = self._functions.get(node.function)
        if overloads is None:
            return self._undeclared(node.at, node.function)
        given = tuple(arg.type for arg in ([node.target] if node.target is not None else []) + node.args)
        result = self._resolve(node, overloads, given)
        return (
            result
            if result is not None
            else self._no_overload(node.at, node.function, given, node.target is not None)
        )

    def _optional_select(self, node: Call) -> Type:
        field = node.args[1]
        assert isinstance(field, Literal)
        operand = self._substituted(node.args[0].type)
        inner = operand.params[0] if is_optional(operand) else operand
        return optional_of(self._field(node.at, inner, field.value))

    def _no_overload(self, at: int, function: str, given: tuple[Type, ...], member: bool) -> Type:
        names = [shown(self._substituted(each)) for each in given]
        arguments = f"({', '.join(names[1:] if member else names)})"
        signature = f"{names[0]}.{arguments}" if member else arguments
        return self._report(at, f"found no matching overload for '{function}' applied to '{signature}'")

    def _resolve(self, node: Call, overloads: tuple[Overload, ...], given: tuple[Type, ...]) -> Type | None:
        """The result of all overloads that fit: dyn when they differ. None when none fits."""
        result: Type | None = None
        for candidate in overloads:
            if candidate.member != (node.target is not None) or len(candidate.args) != len(given):
                continue
            self._fresh += 1
            *args, wanted = renamed((*candidate.args, candidate.result), self._fresh)
            mapped = assignable(self._mapped, given, tuple(args))
            if mapped is None:
                continue
            self._mapped = mapped
            node.overloads.append(candidate)
            own = substitute(mapped, wanted)
            result = own if result is None or result == own else DYN
        return result

    def _variable(self) -> Type:
        self._fresh += 1
        return Type("param", f"_var{self._fresh}")

    def _fits(self, given: Type, wanted: Type) -> bool:
        mapped = assignable(self._mapped, (given,), (wanted,))
        if mapped is None:
            return False
        self._mapped = mapped
        return True

    def _joined(self, at: int, previous: Type | None, current: Type) -> Type:
        if previous is None:
            return current
        if not self._fits(previous, current):
            expected, found = self._substituted(previous), self._substituted(current)
            self._report(at, f"expected type '{shown(expected)}' but found '{shown(found)}'")
            return previous
        return most_general(previous, current)

    def _unwrapped(self, node: Node, type: Type) -> Type:
        """What is in the optional of an entry with a question mark."""
        known = self._substituted(type)
        if is_optional(known):
            return known.params[0]
        if not is_dyn(known):
            message = f"expected type '{shown(optional_of(known))}' but found '{shown(known)}'"
            return self._report(node.at, message)
        return known

    def _list(self, node: ListNode) -> Type:
        joined: Type | None = None
        for index, item in enumerate(node.items):
            type = self.check(item)
            if index in node.optional:
                type = self._unwrapped(item, type)
            joined = self._joined(item.at, joined, type)
        return list_of(joined if joined is not None else self._variable())

    def _map(self, node: MapNode) -> Type:
        keys: Type | None = None
        values: Type | None = None
        for entry in node.entries:
            keys = self._joined(entry.key.at, keys, self.check(entry.key))
            type = self.check(entry.value)
            if entry.optional:
                type = self._unwrapped(entry.value, type)
            values = self._joined(entry.value.at, values, type)
        return map_of(keys or self._variable(), values or self._variable())

    def _message(self, node: Message) -> Type:
        name = node.name.removeprefix(".")
        found = self._messages(name)
        if found is None:
            if name in NAMED:
                return self._report(node.at, f"'{name}' is not a message type")
            return self._undeclared(node.at, name)
        if found.kind != "object":
            return self._report(node.at, f"'{name}' is not a message type")
        for entry in node.entries:
            given = self.check(entry.value)
            if entry.optional:
                given = self._unwrapped(entry.value, given)
            wanted = self._field(entry.at, found, entry.key)
            if not self._fits(given, wanted):
                self._report(
                    entry.at,
                    f"expected type of field '{entry.key}' is '{shown(wanted)}' but provided type is "
                    f"'{shown(self._substituted(given))}'",
                )
        return found

    def _comprehension(self, node: Comprehension) -> Type:
        over = self._substituted(self.check(node.range))
        if node.macro == "bind":
            return self._within(node, {node.names[0]: over} if node.names else {})
        if node.macro in ("optMap", "optFlatMap"):
            return self._optional_macro(node, over)
        first, second = self._ranged(node.range, over, len(node.names) == 2)
        scope = dict(zip(node.names, (first, second), strict=False))
        body = self._within(node, scope)
        condition = node.filter.type if node.filter is not None else BOOL
        return self._macro_type(node, first, body, condition)

    def _within(self, node: Comprehension, scope: dict[str, Type]) -> Type:
        """Check condition and body with the variables in scope; the type of the body."""
        self._scopes.append(scope)
        if node.filter is not None:
            self.check(node.filter)
        body = self.check(node.body)
        self._scopes.pop()
        return body

    def _ranged(self, node: Node, over: Type, pairs: bool) -> tuple[Type, Type]:
        """The types of one or two variables over a range: items, or keys; index and item, or key and value."""
        if over.kind == "list":
            return (INT, over.params[0]) if pairs else (over.params[0], DYN)
        if over.kind == "map":
            return over.params[0], over.params[1]
        if not is_dyn(over) and over.kind != "param":
            self._report(
                node.at,
                f"expression of type '{shown(over)}' cannot be range of a comprehension (must be list, map, or dynamic)",
            )
        return DYN, DYN

    def _macro_type(self, node: Comprehension, first: Type, body: Type, condition: Type) -> Type:
        match node.macro:
            case "all" | "exists":
                if not self._fits(body, BOOL):
                    function = "_&&_" if node.macro == "all" else "_||_"
                    return self._no_overload(node.at, function, (BOOL, body), False)
                return BOOL
            case "existsOne":
                return BOOL if self._condition(node, body, INT) else ERROR
            case "filter":
                result = list_of(first)
            case "map" | "transformList":
                result = list_of(body)
            case "transformMap":
                result = map_of(first, body)
            case _:
                result = self._substituted(body)
                if result.kind != "map":
                    result = map_of(DYN, DYN)
        return result if self._condition(node, condition, result) else ERROR

    def _condition(self, node: Comprehension, condition: Type, result: Type) -> bool:
        if self._fits(condition, BOOL):
            return True
        self._no_overload(node.at, "_?_:_", (condition, result, result), False)
        return False

    def _optional_macro(self, node: Comprehension, over: Type) -> Type:
        if not is_optional(over) and not is_dyn(over):
            return self._no_overload(node.at, "hasValue", (over,), True)
        inner = over.params[0] if is_optional(over) else DYN
        body = self._within(node, {node.names[0]: inner} if node.names else {})
        if node.macro == "optMap":
            return optional_of(body)
        known = self._substituted(body)
        if not is_optional(known) and not is_dyn(known):
            return self._no_overload(node.at, "_?_:_", (BOOL, known, optional_of(DYN)), False)
        return known if is_optional(known) else optional_of(DYN)

    def _literals(self, node: Call) -> None:
        """A text that can only fail when it is parsed is refused right away."""
        parse = _PARSED.get((node.function, len(node.args)))
        argument = node.args[-1] if node.args else None
        if parse is None or not isinstance(argument, Literal) or argument.type is not STRING:
            return
        try:
            parse(argument.value)
        except CelError:
            self._report(argument.at, f"invalid {node.function} argument")


_PARSED: Final[dict[tuple[str, int], Callable[[str], object]]] = {
    ("duration", 1): times.parse_duration,
    ("timestamp", 1): times.parse_timestamp,
    ("matches", 1): compiled,
    ("matches", 2): compiled,
}
