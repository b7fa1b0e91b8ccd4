"""The parser: text to syntax tree, macros recognised.

Syntax errors read as those of cel-go's generated parser for the common mistakes; it stops at the first that it cannot
repair by leaving out or adding one token.

Source: cel-go v0.26 parser/{parser,macro,gen/CEL.g4}, ext/{bindings,comprehensions}.go, cel/library.go (optionals).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kcp.machinery.cel.lexer import EOF, START, Token, bytes_value, string_value, tokens
from kcp.machinery.cel.source import CompileError, Issue
from kcp.machinery.cel.syntax import (
    Call,
    Comprehension,
    Entry,
    Ident,
    ListNode,
    Literal,
    Macro,
    MapNode,
    Message,
    Node,
    Select,
)
from kcp.machinery.cel.values import INT_MAX, INT_MIN, UINT_MAX, Uint

MAX_SIZE: Final = 100_000
"""Characters of an expression. Source: cel-go parser.defaultMaxExpressionSize."""
MAX_NESTING: Final = 80
"""Brackets within brackets, calls within calls. cel-go allows 250 rules deep, which is about the same."""
MAX_DEPTH: Final = 150
"""The depth of the tree; chains of && and || are balanced and do not count."""

_LEVELS: Final[dict[str, tuple[int, str]]] = {
    "'||'": (1, "_||_"), "'&&'": (2, "_&&_"), "'<'": (3, "_<_"), "'<='": (3, "_<=_"), "'>'": (3, "_>_"),
    "'>='": (3, "_>=_"), "'=='": (3, "_==_"), "'!='": (3, "_!=_"), "'in'": (3, "@in"), "'+'": (4, "_+_"),
    "'-'": (4, "_-_"), "'*'": (5, "_*_"), "'/'": (5, "_/_"), "'%'": (5, "_%_"),
}  # fmt: skip
_RESERVED: Final = frozenset(
    [
        "as",
        "break",
        "const",
        "continue",
        "else",
        "false",
        "for",
        "function",
        "if",
        "import",
        "in",
        "let",
        "loop",
        "package",
        "namespace",
        "null",
        "return",
        "true",
        "var",
        "void",
        "while",
    ]
)
_STARTS: Final = frozenset(START)
_CONSTANTS: Final = {"'true'": True, "'false'": False, "'null'": None}


class _Stop(Exception):
    """Raised when parsing cannot go on; the issue is noted."""


def parse(source: str, *, bindings: bool = True, presence: bool = True) -> Node:
    """The tree of an expression; `bindings` makes `cel.bind` a macro, `presence` has(). Raises CompileError."""
    if len(source) > MAX_SIZE:
        message = f"expression code point size exceeds limit: size: {len(source)}, limit {MAX_SIZE}"
        raise CompileError(source[:100], [Issue(0, message)])
    found, issues = tokens(source)
    parser = _Parser(found, issues, bindings, presence)
    try:
        node = parser.whole()
    except _Stop:
        node = Literal(0, None)
    except RecursionError:
        parser.issues.append(Issue(0, f"expression recursion limit exceeded: {MAX_NESTING}"))
    if parser.issues:
        raise CompileError(source, parser.issues)
    if _depth(node) > MAX_DEPTH:
        raise CompileError(source, [Issue(0, f"expression recursion limit exceeded: {MAX_DEPTH}")])
    return node


def children(node: Node) -> list[Node]:
    match node:
        case Select(operand=operand):
            return [operand]
        case Call(target=target, args=args):
            return [target, *args] if target is not None else list(args)
        case ListNode(items=items):
            return list(items)
        case MapNode(entries=entries):
            return [part for entry in entries for part in (entry.key, entry.value)]
        case Message(entries=entries):
            return [entry.value for entry in entries]
        case Comprehension(range=over, filter=condition, body=body):
            return [over, *([condition] if condition is not None else []), body]
        case _:
            return []


def replaced(node: Node, change: Callable[[Node], Node]) -> Node:
    """The tree with `change` done to every node, from the leaves up; the tree itself is used up."""
    match node:
        case Select():
            node.operand = replaced(node.operand, change)
        case Call():
            node.target = None if node.target is None else replaced(node.target, change)
            node.args = [replaced(arg, change) for arg in node.args]
        case ListNode():
            node.items = [replaced(item, change) for item in node.items]
        case MapNode() | Message():
            for entry in node.entries:
                entry.value = replaced(entry.value, change)
                if isinstance(node, MapNode):
                    entry.key = replaced(entry.key, change)
        case Comprehension():
            node.range = replaced(node.range, change)
            node.filter = None if node.filter is None else replaced(node.filter, change)
            node.body = replaced(node.body, change)
    return change(node)


def _depth(node: Node) -> int:
    deepest, stack = 0, [(node, 1)]
    while stack:
        each, level = stack.pop()
        deepest = max(deepest, level)
        stack.extend((child, level + 1) for child in children(each))
    return deepest


class _Parser:
    """Belongs to one call of `parse`."""

    def __init__(self, found: list[Token], issues: list[Issue], bindings: bool, presence: bool) -> None:
        self._tokens = found
        self._at = 0
        self._nesting = 0
        self._bindings = bindings
        self._presence = presence
        self.issues = issues

    def whole(self) -> Node:
        node = self.expression()
        if self._peek().kind != EOF:
            extra = self._ahead().kind == EOF
            self._note(
                f"{'extraneous' if extra else 'mismatched'} input '{self._peek().text}' expecting <EOF>"
            )
        return node

    def expression(self) -> Node:
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            self.issues.append(Issue(0, f"expression recursion limit exceeded: {MAX_NESTING}"))
            raise _Stop
        node = self._binary(1)
        choices: list[tuple[int, Node, Node]] = []
        while self._peek().kind == "'?'":
            at = self._next().at
            yes = self._binary(1)
            self._expect("':'")
            choices.append((at, node, yes))
            node = self._binary(1)
        for at, condition, yes in reversed(choices):
            node = Call(at, "_?_:_", None, [condition, yes, node])
        self._nesting -= 1
        return node

    def _binary(self, lowest: int) -> Node:
        node = self._unary()
        while True:
            level, function = _LEVELS.get(self._peek().kind, (0, ""))
            if level < lowest or not level:
                return node
            if level <= 2:
                node = self._logical(node, level, function)
            else:
                at = self._next().at
                node = Call(at, function, None, [node, self._binary(level + 1)])

    def _logical(self, first: Node, level: int, function: str) -> Node:
        """A chain of && or || as a balanced tree, so that long chains are not deep."""
        terms, places = [first], []
        while _LEVELS.get(self._peek().kind, (0, ""))[0] == level:
            places.append(self._next().at)
            terms.append(self._binary(level + 1))
        return _balanced(function, terms, places, 0, len(terms))

    def _unary(self) -> Node:
        token = self._peek()
        if token.kind == "'-'" and self._ahead().kind in ("NUM_INT", "NUM_FLOAT"):
            return self._postfix(self._primary())
        if token.kind not in ("'!'", "'-'"):
            return self._postfix(self._primary())
        count = 0
        while self._peek().kind == token.kind:
            self._next()
            count += 1
        if token.kind == "'-'" and self._peek().kind == EOF:
            self._note("no viable alternative at input '-'")
        node = self._postfix(self._primary())
        return Call(token.at, "!_" if token.kind == "'!'" else "-_", None, [node]) if count % 2 else node

    def _postfix(self, node: Node) -> Node:
        while True:
            token = self._peek()
            if token.kind == "'.'":
                node = self._member(node)
            elif token.kind == "'['":
                self._next()
                optional = self._take("'?'")
                index = self.expression()
                self._expect("']'")
                node = Call(token.at, "_[?_]" if optional else "_[_]", None, [node, index])
            elif token.kind == "'{'":
                node = self._message(node)
            else:
                return node

    def _member(self, operand: Node) -> Node:
        dot = self._next()
        if self._take("'?'"):
            field = self._expect("IDENTIFIER")
            return Call(dot.at, "_?._", None, [operand, Literal(field.at, field.text)])
        name = self._expect("IDENTIFIER").text
        if self._peek().kind != "'('":
            return Select(dot.at, operand, name)
        at = self._peek().at
        return self._method(at, operand, name, self._arguments())

    def _arguments(self) -> list[Node]:
        self._expect("'('")
        args: list[Node] = []
        if self._take("')'"):
            return args
        args.append(self.expression())
        while self._take("','"):
            args.append(self.expression())
        self._expect("')'")
        return args

    def _message(self, node: Node) -> Node:
        name = qualified_name(node)
        brace = self._peek()
        if name is None:
            self.issues.append(Issue(getattr(node, "at", brace.at), "expected a qualified name"))
            raise _Stop
        self._next()
        entries: list[Entry] = []
        while self._peek().kind != "'}'":
            optional = self._take("'?'")
            field = self._expect("IDENTIFIER")
            at = self._expect("':'").at
            entries.append(Entry(at, field.text, self.expression(), optional))
            if not self._take("','"):
                break
        self._expect("'}'")
        return Message(brace.at, name, entries)

    def _primary(self) -> Node:
        token = self._peek()
        if token.kind not in _STARTS:
            self._bad_start(token)
            token = self._peek()
        match token.kind:
            case "'('":
                self._next()
                node = self.expression()
                self._expect("')'")
                return node
            case "'['":
                return self._list()
            case "'{'":
                return self._map()
            case "'.'" | "IDENTIFIER":
                return self._name()
            case "'!'":
                return self._unary()
            case _:
                return self._literal()

    def _bad_start(self, token: Token) -> None:
        expecting = "{" + ", ".join(START) + "}"
        if token.kind != EOF and self._ahead().kind in _STARTS:
            self._note(f"extraneous input '{token.text}' expecting {expecting}")
            self._next()
            return
        self._note(f"mismatched input '{token.text}' expecting {expecting}")
        raise _Stop

    def _list(self) -> Node:
        at = self._next().at
        items: list[Node] = []
        optional: list[int] = []
        while self._peek().kind != "']'":
            if self._take("'?'"):
                optional.append(len(items))
            items.append(self.expression())
            if not self._take("','"):
                break
        self._expect("']'")
        return ListNode(at, items, frozenset(optional))

    def _map(self) -> Node:
        at = self._next().at
        entries: list[Entry] = []
        while self._peek().kind != "'}'":
            optional = self._take("'?'")
            key = self.expression()
            colon = self._expect("':'").at
            entries.append(Entry(colon, key, self.expression(), optional))
            if not self._take("','"):
                break
        self._expect("'}'")
        return MapNode(at, entries)

    def _name(self) -> Node:
        root = self._take("'.'")
        token = self._expect("IDENTIFIER")
        if token.text in _RESERVED:
            self.issues.append(Issue(token.at, f"reserved identifier: {token.text}"))
        name = "." + token.text if root else token.text
        if self._peek().kind != "'('":
            return Ident(token.at, name)
        at = self._peek().at
        args = self._arguments()
        if self._presence and name == "has" and len(args) == 1:
            return self._has(at, args[0])
        return Call(at, name, None, args)

    def _literal(self) -> Node:
        negative = self._take("'-'")
        token = self._next()
        match token.kind:
            case "NUM_INT" | "NUM_UINT":
                return Literal(token.at, self._integer(token, negative))
            case "NUM_FLOAT":
                return Literal(token.at, self._float(token, negative))
            case "STRING":
                return Literal(token.at, self._text(token, string_value(token.text)))
            case "BYTES":
                return Literal(token.at, self._text(token, bytes_value(token.text)))
            case _:
                if token.kind not in _CONSTANTS:
                    self._at -= 1
                    self._bad_start(token)
                return Literal(token.at, _CONSTANTS.get(token.kind))

    def _integer(self, token: Token, negative: bool) -> int:
        unsigned = token.kind == "NUM_UINT"
        digits = token.text[:-1] if unsigned else token.text
        value = int(digits, 16) if digits.startswith("0x") else int(digits) if len(digits) < 64 else 1 << 99
        value = -value if negative else value
        if unsigned and not 0 <= value <= UINT_MAX:
            self.issues.append(Issue(token.at, "invalid uint literal"))
        elif not unsigned and not INT_MIN <= value <= INT_MAX:
            self.issues.append(Issue(token.at, "invalid int literal"))
        return Uint(value) if unsigned and value >= 0 else value

    def _float(self, token: Token, negative: bool) -> float:
        value = float(token.text)
        if value == float("inf"):
            self.issues.append(Issue(token.at, "invalid double literal"))
        return -value if negative else value

    def _text(self, token: Token, value: str | bytes | None) -> str | bytes:
        if value is None:
            self.issues.append(Issue(token.at, "unable to unescape string"))
        return "" if value is None else value

    def _has(self, at: int, argument: Node) -> Node:
        if isinstance(argument, Select) and not argument.test:
            return Select(at, argument.operand, argument.field, True)
        self.issues.append(Issue(argument.at, "invalid argument to has() macro"))
        return argument

    def _method(self, at: int, target: Node, name: str, args: list[Node]) -> Node:
        """A macro when name and number of arguments say so, else a call."""
        if (
            self._bindings
            and name == "bind"
            and len(args) == 3
            and isinstance(target, Ident)
            and target.name == "cel"
        ):
            return Comprehension(at, "bind", args[1], self._names(args[:1]), None, args[2], written=name)
        shape = _MACROS.get((name, len(args)))
        if shape is None:
            return Call(at, name, target, args)
        macro, variables, filtered = shape
        names = self._names(args[:variables])
        rest = args[variables:]
        condition = rest[0] if filtered else None
        body = args[0] if macro == "filter" else rest[-1]
        return Comprehension(at, macro, target, names, condition, body, written=name)

    def _names(self, args: list[Node]) -> tuple[str, ...]:
        for arg in args:
            if not isinstance(arg, Ident) or arg.name.startswith("."):
                self.issues.append(Issue(arg.at, "argument must be a simple name"))
        names = tuple(arg.name for arg in args if isinstance(arg, Ident))
        if len(names) == 2 and names[0] == names[1]:
            self.issues.append(Issue(args[1].at, f"duplicate variable name: {names[0]}"))
        return names

    def _peek(self) -> Token:
        return self._tokens[self._at]

    def _ahead(self) -> Token:
        return self._tokens[min(self._at + 1, len(self._tokens) - 1)]

    def _next(self) -> Token:
        token = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def _take(self, kind: str) -> bool:
        if self._peek().kind != kind:
            return False
        self._next()
        return True

    def _expect(self, kind: str) -> Token:
        """The next token if it is of that kind; one too many is left out, one closing bracket too few made up."""
        token = self._peek()
        if token.kind == kind:
            return self._next()
        if self._ahead().kind == kind and token.kind != EOF:
            self._note(f"extraneous input '{token.text}' expecting {kind}")
            self._next()
            return self._next()
        if kind in ("')'", "']'", "'}'") and token.kind == EOF:
            self._note(f"missing {kind} at '{token.text}'")
            return Token(kind, kind.strip("'"), token.at)
        self._note(f"mismatched input '{token.text}' expecting {kind}")
        raise _Stop

    def _note(self, message: str) -> None:
        self.issues.append(Issue(self._peek().at, f"Syntax error: {message}"))


_MACROS: Final[dict[tuple[str, int], tuple[Macro, int, bool]]] = {
    ("all", 2): ("all", 1, False), ("all", 3): ("all", 2, False),
    ("exists", 2): ("exists", 1, False), ("exists", 3): ("exists", 2, False),
    ("exists_one", 2): ("existsOne", 1, False), ("existsOne", 2): ("existsOne", 1, False),
    ("exists_one", 3): ("existsOne", 2, False), ("existsOne", 3): ("existsOne", 2, False),
    ("map", 2): ("map", 1, False), ("map", 3): ("map", 1, True), ("filter", 2): ("filter", 1, True),
    ("transformList", 3): ("transformList", 2, False), ("transformList", 4): ("transformList", 2, True),
    ("transformMap", 3): ("transformMap", 2, False), ("transformMap", 4): ("transformMap", 2, True),
    ("transformMapEntry", 3): ("transformMapEntry", 2, False), ("transformMapEntry", 4): ("transformMapEntry", 2, True),
    ("optMap", 2): ("optMap", 1, False), ("optFlatMap", 2): ("optFlatMap", 1, False),
}  # fmt: skip
"""Name and number of arguments -> macro, how many of them are variables, whether a condition follows."""


def _balanced(function: str, terms: list[Node], places: list[int], low: int, high: int) -> Node:
    if high - low == 1:
        return terms[low]
    middle = (low + high + 1) // 2
    left, right = (
        _balanced(function, terms, places, low, middle),
        _balanced(function, terms, places, middle, high),
    )
    return Call(places[middle - 1], function, None, [left, right])


def qualified_name(node: Node) -> str | None:
    """`a.b.c` as one name; None for what is more than names and dots."""
    if isinstance(node, Ident):
        return node.name
    if isinstance(node, Select) and not node.test:
        head = qualified_name(node.operand)
        return None if head is None else f"{head}.{node.field}"
    return None
