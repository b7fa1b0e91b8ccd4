"""RE2's pattern language: text to program, refusing what RE2 refuses with Go's words.

There are no backreferences and no lookaround, so that matching takes time linear in the text. Not taken, unlike RE2:
classes of scripts (`\\p{Greek}`); classes of general categories (`\\pL`, `\\p{Nd}`) are.

Source: Go regexp/syntax (parse.go, perl_groups.go), RE2's syntax page.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import attrs

MAX_REPEAT: Final = 1000
MAX_NESTING: Final = 100
MAX_PROGRAM: Final = 100_000
_LAST: Final = 0x10FFFF


class PatternError(ValueError):
    """Raised for a pattern that RE2 does not take; the text is Go's."""

    def __init__(self, code: str, part: str = "") -> None:
        super().__init__(f"error parsing regexp: {code}" + (f": `{part}`" if part else ""))


@attrs.frozen(slots=True, eq=False)
class CharClass:
    """A set of characters: ranges, general categories, and classes within, all of it perhaps negated."""

    ranges: tuple[tuple[int, int], ...] = ()
    categories: tuple[tuple[str, bool], ...] = ()
    negated: bool = False
    fold: bool = False

    def has(self, char: str) -> bool:
        found = self._plain(char)
        if not found and self.fold:
            found = any(
                len(other) == 1 and self._plain(other)
                for other in (char.lower(), char.upper(), char.swapcase())
            )
        return found != self.negated

    def _plain(self, char: str) -> bool:
        code = ord(char)
        if any(low <= code <= high for low, high in self.ranges):
            return True
        if not self.categories:
            return False
        category = unicodedata.category(char)
        return any(category.startswith(name) != negated for name, negated in self.categories)


@attrs.frozen(slots=True, eq=False)
class Repeat:
    node: Tree
    low: int
    high: int | None
    greedy: bool


@attrs.frozen(slots=True, eq=False)
class Sequence:
    nodes: tuple[Tree, ...]


@attrs.frozen(slots=True, eq=False)
class Alternatives:
    nodes: tuple[Tree, ...]


@attrs.frozen(slots=True, eq=False)
class Assertion:
    """`A` start of text, `z` end of text, `^` and `$` of a line, `b` and `B` of a word."""

    kind: str


Tree: TypeAlias = CharClass | Repeat | Sequence | Alternatives | Assertion

DIGITS: Final = ((48, 57),)
SPACES: Final = ((9, 10), (12, 13), (32, 32))
WORDS: Final = ((48, 57), (65, 90), (95, 95), (97, 122))
_PERL: Final[dict[str, tuple[tuple[int, int], ...]]] = {"d": DIGITS, "s": SPACES, "w": WORDS}
_POSIX: Final[dict[str, tuple[tuple[int, int], ...]]] = {
    "alnum": ((48, 57), (65, 90), (97, 122)), "alpha": ((65, 90), (97, 122)), "ascii": ((0, 127),),
    "blank": ((9, 9), (32, 32)), "cntrl": ((0, 31), (127, 127)), "digit": DIGITS, "graph": ((33, 126),),
    "lower": ((97, 122),), "print": ((32, 126),), "punct": ((33, 47), (58, 64), (91, 96), (123, 126)),
    "space": ((9, 13), (32, 32)), "upper": ((65, 90),), "word": WORDS, "xdigit": ((48, 57), (65, 70), (97, 102)),
}  # fmt: skip
_CONTROL: Final = {"a": 7, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_CATEGORIES: Final = frozenset(
    [
        "C",
        "Cc",
        "Cf",
        "Co",
        "Cs",
        "L",
        "Ll",
        "Lm",
        "Lo",
        "Lt",
        "Lu",
        "M",
        "Mc",
        "Me",
        "Mn",
        "N",
        "Nd",
        "Nl",
        "No",
        "P",
        "Pc",
        "Pd",
        "Pe",
        "Pf",
        "Pi",
        "Po",
        "Ps",
        "S",
        "Sc",
        "Sk",
        "Sm",
        "So",
        "Z",
        "Zl",
        "Zp",
        "Zs",
    ]
)
_OCTAL: Final = "01234567"
_HEX: Final = frozenset("0123456789abcdefABCDEF")
Ranges = list[tuple[int, int]]


def negation(ranges: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """Every character outside sorted ranges."""
    found: Ranges = []
    start = 0
    for low, high in ranges:
        if low > start:
            found.append((start, low - 1))
        start = high + 1
    return (*found, (start, _LAST)) if start <= _LAST else tuple(found)


def parse_pattern(text: str) -> Tree:
    """Raises PatternError."""
    parser = _Parser(text)
    tree = parser.alternatives()
    if parser.at < len(text):
        raise PatternError("unexpected )", text)
    return tree


class _Parser:
    """Belongs to one call of `parse_pattern`. `flags`: i, m, s, U as in RE2."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self._flags: frozenset[str] = frozenset()
        self._nesting = 0

    def alternatives(self) -> Tree:
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            raise PatternError("expression nests too deeply", self.text)
        branches = [self._sequence()]
        while self._peek() == "|":
            self.at += 1
            branches.append(self._sequence())
        self._nesting -= 1
        return branches[0] if len(branches) == 1 else Alternatives(tuple(branches))

    def _sequence(self) -> Tree:
        nodes: list[Tree] = []
        while self.at < len(self.text) and self._peek() not in "|)":
            start = self.at
            node = self._atom()
            if node is not None:
                nodes.append(self._repeated(node, start))
        return nodes[0] if len(nodes) == 1 else Sequence(tuple(nodes))

    def _atom(self) -> Tree | None:
        char = self._peek()
        if char in "*+?":
            raise PatternError("missing argument to repetition operator", char)
        if char == "(":
            return self._group()
        if char == "[":
            return self._class()
        if char == "\\":
            return self._escape()
        self.at += 1
        if char == ".":
            return CharClass(((0, _LAST),) if "s" in self._flags else negation(((10, 10),)))
        if char == "^":
            return Assertion("^" if "m" in self._flags else "A")
        if char == "$":
            return Assertion("$" if "m" in self._flags else "z")
        return self._char(ord(char))

    def _char(self, code: int) -> CharClass:
        return CharClass(((code, code),), fold="i" in self._flags)

    def _repeated(self, node: Tree, start: int) -> Tree:
        """Apply the operators that follow; two in a row are refused."""
        before = ""
        while (found := self._operator()) is not None:
            low, high, written = found
            if before:
                raise PatternError("invalid nested repetition operator", before + written)
            before = written
            greedy = not written.endswith("?") or written == "?"
            if "U" in self._flags:
                greedy = not greedy
            node = Repeat(node, low, high, greedy)
            if low > 1 or (high or 0) > 1:
                _check_repeats(node, MAX_REPEAT, self.text[start : self.at])
        return node

    def _operator(self) -> tuple[int, int | None, str] | None:
        start = self.at
        char = self._peek()
        if char in ("*", "+", "?"):
            self.at += 1
            low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
        else:
            counts = self._counts() if char == "{" else None
            if counts is None:
                return None
            low, high = counts
        if self._peek() == "?":
            self.at += 1
        return low, high, self.text[start : self.at]

    def _counts(self) -> tuple[int, int | None] | None:
        """`{n}`, `{n,}`, `{n,m}`; anything else is text."""
        end = self.text.find("}", self.at)
        inner = self.text[self.at + 1 : end] if end > 0 else ""
        first, comma, second = inner.partition(",")
        if (
            not first.isdigit()
            or not first.isascii()
            or (second and not (second.isdigit() and second.isascii()))
        ):
            return None
        low = int(first) if len(first) < 6 else MAX_REPEAT + 1
        high = (int(second) if len(second) < 6 else MAX_REPEAT + 1) if second else (None if comma else low)
        if low > MAX_REPEAT or (high is not None and (high > MAX_REPEAT or low > high)):
            raise PatternError("invalid repeat count", self.text[self.at : end + 1])
        self.at = end + 1
        return low, high

    def _group(self) -> Tree | None:
        outer, start = self._flags, self.at
        if self.text.startswith("(?", self.at):
            if self.text.startswith(("(?P<", "(?<"), self.at):
                self._group_name()
            elif self._inline_flags():
                return None
        else:
            self.at += 1
        node = self.alternatives()
        if self._peek() != ")":
            raise PatternError("missing closing )", self.text)
        self.at += 1
        self._flags = outer
        assert self.at > start
        return node if not isinstance(node, Sequence) or node.nodes else Sequence(())

    def _group_name(self) -> None:
        begin = self.text.index("<", self.at) + 1
        end = self.text.find(">", begin)
        name = self.text[begin:end]
        if end < 0 or not name.isascii() or not name.replace("_", "a").isalnum():
            raise PatternError(
                "invalid named capture", self.text[self.at : end + 1] if end > 0 else self.text[self.at :]
            )
        self.at = end + 1

    def _inline_flags(self) -> bool:
        """`(?i-s:` and `(?i)`; true for the second, whose flags hold until the group ends."""
        start = self.at
        self.at += 2
        flags, negative, seen = set(self._flags), False, False
        while self.at < len(self.text):
            char = self._peek()
            self.at += 1
            if char in "imsU":
                (flags.discard if negative else flags.add)(char)
                seen = True
            elif char == "-" and not negative:
                negative, seen = True, False
            elif char in ":)" and (seen or not negative):
                self._flags = frozenset(flags)
                if char == ")" and self.at - start == 3:
                    break
                return char == ")"
            else:
                break
        else:
            raise PatternError("missing closing )", self.text)
        raise PatternError("invalid or unsupported Perl syntax", self.text[start : self.at])

    def _escape(self) -> Tree | None:
        char = self.text[self.at + 1 : self.at + 2]
        if char in ("A", "z", "b", "B") and char:
            self.at += 2
            return Assertion(char)
        if char == "Q":
            return self._quoted()
        found = self._shared_class()
        if found is not None:
            return CharClass(found[0], found[1])
        return self._char(self._escaped_code())

    def _quoted(self) -> Tree:
        end = self.text.find("\\E", self.at + 2)
        inner = self.text[self.at + 2 : end if end >= 0 else len(self.text)]
        self.at = end + 2 if end >= 0 else len(self.text)
        return Sequence(tuple(self._char(ord(char)) for char in inner))

    def _shared_class(self) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[str, bool], ...]] | None:
        """`\\d` and `\\pL`, inside and outside of brackets: ranges and categories."""
        char = self.text[self.at + 1 : self.at + 2]
        if char.lower() in _PERL and char:
            self.at += 2
            ranges = _PERL[char.lower()]
            return (ranges if char.islower() else negation(ranges)), ()
        if char not in ("p", "P") or not char:
            return None
        start = self.at
        self.at += 2
        if self._peek() == "{":
            end = self.text.find("}", self.at)
            if end < 0:
                raise PatternError("invalid character class range", self.text[start:])
            name = self.text[self.at + 1 : end]
            self.at = end + 1
        else:
            name = self._peek()
            self.at += 1
        negated = char == "P"
        if name.startswith("^"):
            name, negated = name[1:], not negated
        if name == "Any":
            return (((0, _LAST),) if not negated else ()), ()
        if name not in _CATEGORIES:
            raise PatternError("invalid character class range", self.text[start : self.at])
        return (), ((name, negated),)

    def _escaped_code(self) -> int:
        start = self.at
        if start + 1 >= len(self.text):
            raise PatternError("trailing backslash at end of expression")
        char = self.text[start + 1]
        self.at = start + 2
        if char in _CONTROL:
            return _CONTROL[char]
        if char == "x":
            return self._hex(start)
        if char == "0" or (char in _OCTAL[1:] and self._peek() in _OCTAL and self._peek()):
            digits = char
            while len(digits) < 3 and self._peek() and self._peek() in _OCTAL:
                digits += self._peek()
                self.at += 1
            return int(digits, 8)
        if ord(char) < 128 and not char.isalnum():
            return ord(char)
        raise PatternError("invalid escape sequence", self.text[start : self.at])

    def _hex(self, start: int) -> int:
        if self._peek() == "{":
            end = self.text.find("}", self.at)
            digits = self.text[self.at + 1 : end] if end > 0 else ""
            self.at = end + 1 if end > 0 else len(self.text)
        else:
            digits = self.text[self.at : self.at + 2]
            self.at += 2
            if len(digits) < 2:
                digits = ""
        if not digits or not set(digits) <= _HEX or int(digits, 16) > _LAST:
            raise PatternError("invalid escape sequence", self.text[start : self.at])
        return int(digits, 16)

    def _class(self) -> CharClass:
        start = self.at
        self.at += 1
        negated = self._peek() == "^"
        self.at += negated
        ranges: Ranges = []
        categories: list[tuple[str, bool]] = []
        first = True
        while first or self._peek() != "]":
            if self.at >= len(self.text):
                raise PatternError("missing closing ]", self.text[start:])
            first = False
            self._class_item(start, ranges, categories)
        self.at += 1
        return CharClass(tuple(ranges), tuple(categories), negated, "i" in self._flags)

    def _class_item(self, start: int, ranges: Ranges, categories: list[tuple[str, bool]]) -> None:
        if self.text.startswith("[:", self.at) and (end := self.text.find(":]", self.at)) > 0:
            name = self.text[self.at + 2 : end]
            whole = self.text[self.at : end + 2]
            self.at = end + 2
            found = _POSIX.get(name.removeprefix("^"))
            if found is None:
                raise PatternError("invalid character class range", whole)
            ranges.extend(negation(found) if name.startswith("^") else found)
            return
        if self._peek() == "\\" and (shared := self._shared_class()) is not None:
            ranges.extend(shared[0])
            categories.extend(shared[1])
            return
        begin = self.at
        low = self._class_char(start)
        high = low
        if self._peek() == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", ""):
            self.at += 1
            high = self._class_char(start)
            if high < low:
                raise PatternError("invalid character class range", self.text[begin : self.at])
        ranges.append((low, high))

    def _class_char(self, start: int) -> int:
        if self.at >= len(self.text):
            raise PatternError("missing closing ]", self.text[start:])
        if self._peek() == "\\":
            return self._escaped_code()
        self.at += 1
        return ord(self.text[self.at - 1])

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]


def _check_repeats(node: Tree, left: int, written: str) -> None:
    """Repetitions within repetitions may not multiply to more than a thousand."""
    if isinstance(node, Repeat):
        times = node.high if node.high is not None else node.low
        if times > 0 and left // times < 1:
            raise PatternError("invalid repeat count", written)
        _check_repeats(node.node, left // times if times > 0 else left, written)
    elif isinstance(node, (Sequence, Alternatives)):
        for each in node.nodes:
            _check_repeats(each, left, written)


Instruction = tuple[str, Any, Any]
"""(`char`, CharClass, next), (`split`, first, second), (`assert`, kind, next) or (`match`, None, None)."""


def program(tree: Tree) -> list[Instruction]:
    """Instructions for a machine of threads; the first one starts. Raises PatternError when there are too many."""
    code: list[Instruction] = []

    def emit(instruction: Instruction) -> int:
        if len(code) >= MAX_PROGRAM:
            raise PatternError("expression too large")
        code.append(instruction)
        return len(code) - 1

    start = _build(tree, emit(("match", None, None)), emit, code)
    code.append(code[start])
    return code


def _build(tree: Tree, after: int, emit: Callable[[Instruction], int], code: list[Instruction]) -> int:
    """Emit what matches `tree` and goes on at `after`; where it begins."""
    match tree:
        case CharClass():
            return emit(("char", tree, after))
        case Assertion(kind=kind):
            return emit(("assert", kind, after))
        case Sequence(nodes=nodes):
            for each in reversed(nodes):
                after = _build(each, after, emit, code)
            return after
        case Alternatives(nodes=nodes):
            starts = [_build(each, after, emit, code) for each in nodes]
            entry = starts.pop()
            for start in reversed(starts):
                entry = emit(("split", start, entry))
            return entry
        case Repeat():
            return _build_repeat(tree, after, emit, code)
    raise AssertionError(tree)


def _build_repeat(
    tree: Repeat, after: int, emit: Callable[[Instruction], int], code: list[Instruction]
) -> int:
    if tree.high is None:
        loop = emit(("split", after, after))
        body = _build(tree.node, loop, emit, code)
        code[loop] = ("split", body, after) if tree.greedy else ("split", after, body)
        entry = body if tree.low == 1 else loop
        more = max(tree.low - 1, 0)
    else:
        entry = after
        for _ in range(tree.high - tree.low):
            body = _build(tree.node, entry, emit, code)
            entry = emit(("split", body, after) if tree.greedy else ("split", after, body))
        more = tree.low
    for _ in range(more):
        entry = _build(tree.node, entry, emit, code)
    return entry
