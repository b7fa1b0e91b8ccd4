"""Words of a shell script: variables, arithmetic, and what `[ … ]` says about them."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence

_ARITHMETIC = re.compile(r"\$\(\(([^()]*)\)\)|\$\(expr ([^()]*)\)")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$([A-Za-z_][A-Za-z0-9_]*)")
_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAX_DIGITS = 18

_OPERATIONS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda a, b: int(a / b),
    ast.Mod: lambda a, b: a - b * int(a / b),
}
_NUMBERS: dict[str, Callable[[int, int], bool]] = {
    "-eq": operator.eq,
    "-ne": operator.ne,
    "-lt": operator.lt,
    "-le": operator.le,
    "-gt": operator.gt,
    "-ge": operator.ge,
}


def expand(text: str, environment: Mapping[str, str]) -> str:
    """With variables and arithmetic replaced; what is not understood stays. Quotes are not looked at."""
    if "$" not in text:
        return text
    text = _ARITHMETIC.sub(lambda match: _calculated(match, environment), text)
    return _VARIABLE.sub(lambda match: _value(match, environment), text)


def _value(match: re.Match[str], environment: Mapping[str, str]) -> str:
    return environment.get(match.group(1) or match.group(2), match.group(0))


def _calculated(match: re.Match[str], environment: Mapping[str, str]) -> str:
    inner = _VARIABLE.sub(lambda found: _value(found, environment), match.group(1) or match.group(2))
    inner = _BARE.sub(lambda found: environment.get(found.group(0), found.group(0)), inner)
    try:
        return str(_number(ast.parse(inner.strip(), mode="eval").body))
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, RecursionError, MemoryError):
        return match.group(0)


def _number(node: ast.expr) -> int:
    """Raises ValueError for anything but whole numbers and the four rules of arithmetic, and the remainder."""
    if isinstance(node, ast.Constant) and type(node.value) is int and len(str(node.value)) <= _MAX_DIGITS:
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_number(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_number(node.left), _number(node.right))
    raise ValueError("not arithmetic")


def holds(words: Sequence[str]) -> bool:
    """What a test of strings or numbers says; tests of files are false."""
    if words and words[0] == "!":
        return not holds(words[1:])
    if len(words) == 3:
        one, operation, other = words
        if operation in ("=", "=="):
            return one == other
        if operation == "!=":
            return one != other
        compare = _NUMBERS.get(operation)
        return compare is not None and _is_number(one) and _is_number(other) and compare(int(one), int(other))
    if len(words) == 2:
        return (words[0] == "-n" and bool(words[1])) or (words[0] == "-z" and not words[1])
    return len(words) == 1 and bool(words[0])


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and len(text) <= _MAX_DIGITS
