"""The tokens of CEL.

Source: cel-go v0.26 parser/gen/CEL.g4; cel-spec doc/langdef.md (syntax).
"""

from __future__ import annotations

import re
from typing import Final

from kcp.base.values import frozen
from kcp.machinery.cel.source import Issue

EOF: Final = "<EOF>"
START: Final = (
    "'['", "'{'", "'('", "'.'", "'-'", "'!'", "'true'", "'false'", "'null'", "NUM_FLOAT", "NUM_INT", "NUM_UINT",
    "STRING", "BYTES", "IDENTIFIER",
)  # fmt: skip
"""What an expression can begin with, in the order in which messages list it."""

_ESC = r"\\(?:[abfnrtv\"'\\?`]|[xX][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-3][0-7]{2})"
_STRING = "|".join(
    (
        r'[rR]"""(?:(?!""").|\n)*"""', r"[rR]'''(?:(?!''').|\n)*'''",
        rf'"""(?:{_ESC}|(?!""")[^\\])*"""', rf"'''(?:{_ESC}|(?!''')[^\\])*'''",
        r'[rR]"[^"\n\r]*"', r"[rR]'[^'\n\r]*'",
        rf'"(?:{_ESC}|[^\\"\n\r])*"', rf"'(?:{_ESC}|[^\\'\n\r])*'",
    )
)  # fmt: skip
_TOKEN: Final = re.compile(
    r"(?P<SKIP>[\t \r\n\f]+|//[^\n]*)"
    rf"|(?P<BYTES>[bB](?:{_STRING}))|(?P<STRING>{_STRING})"
    r"|(?P<NUM_FLOAT>[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|\.[0-9]+(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<NUM_UINT>(?:0x[0-9a-fA-F]+|[0-9]+)[uU])|(?P<NUM_INT>0x[0-9a-fA-F]+|[0-9]+)"
    r"|(?P<IDENTIFIER>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<OPERATOR>==|!=|<=|>=|&&|\|\||[<>\[\]{}().,\-!?:+*/%])",
    re.ASCII,
)
_KEYWORDS: Final = frozenset(("in", "true", "false", "null"))
_FIRST_OF_TWO: Final = "=&|"
_OPEN_STRING: Final = re.compile(r"[bB]?[rR]?(\"\"\"|'''|\"|')")
_OPEN_REST: Final = {
    mark: re.compile(rf"(?:{_ESC}|[^\\{mark}\n\r])*(?:\\.?)?", re.DOTALL) for mark in ("'", '"')
}  # fmt: skip


@frozen
class Token:
    """`kind` is a token's name in messages: `'+'`, `NUM_INT`, `<EOF>`."""

    kind: str
    text: str
    at: int


def tokens(source: str) -> tuple[list[Token], list[Issue]]:
    """All tokens, the end last, and what is none."""
    found: list[Token] = []
    issues: list[Issue] = []
    at = 0
    while at < len(source):
        match = _TOKEN.match(source, at)
        if match is None:
            bad = _unrecognised(source, at)
            issues.append(Issue(at, f"Syntax error: token recognition error at: '{_escaped(bad)}'"))
            at += len(bad)
            continue
        kind, text = match.lastgroup or "", match[0]
        if kind != "SKIP":
            found.append(Token(f"'{text}'" if kind == "OPERATOR" or text in _KEYWORDS else kind, text, at))
        at = match.end()
    found.append(Token(EOF, EOF, len(source)))
    return found, issues


def _unrecognised(source: str, at: int) -> str:
    """What the lexer read until it could not go on."""
    opened = _OPEN_STRING.match(source, at)
    if opened is not None:
        mark = opened[1]
        if len(mark) == 3:
            return source[at:]
        rest = _OPEN_REST[mark].match(source, opened.end())
        return source[at : rest.end() if rest else opened.end()]
    return source[at : at + 2] if source[at] in _FIRST_OF_TWO else source[at]


def _escaped(text: str) -> str:
    return text.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")


_SIMPLE: Final = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", "'": "'", '"': '"', "`": "`", "?": "?",
}  # fmt: skip
_ESCAPE: Final = re.compile(
    r"\\(?:[xX]([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|(.))", re.DOTALL
)


def string_value(text: str) -> str | None:
    """The value of a string token; None when an escape names no character."""
    raw, inner = _inner(text)
    if raw or "\\" not in inner:
        return inner
    try:
        value = _ESCAPE.sub(_character, inner)
        value.encode()
    except ValueError:
        return None
    return value


def bytes_value(text: str) -> bytes | None:
    """The value of a bytes token: escapes of two hex or three octal digits are bytes, characters are UTF-8."""
    raw, inner = _inner(text[1:])
    if raw or "\\" not in inner:
        return inner.encode()
    parts: list[bytes] = []
    at = 0
    for match in _ESCAPE.finditer(inner):
        parts.append(inner[at : match.start()].encode())
        at = match.end()
        if match[2] or match[3]:
            return None
        number = int(match[1], 16) if match[1] else int(match[4], 8) if match[4] else None
        parts.append(_SIMPLE[match[5]].encode() if number is None else bytes((number,)))
    parts.append(inner[at:].encode())
    return b"".join(parts)


def _inner(text: str) -> tuple[bool, str]:
    """Whether the literal is raw, and what stands between its quotes; line ends are `\\n`."""
    raw = text[0] in "rR"
    body = text[1:] if raw else text
    width = 3 if body[:3] in ('"""', "'''") and len(body) >= 6 else 1
    return raw, body[width:-width].replace("\r\n", "\n").replace("\r", "\n")


def _character(match: re.Match[str]) -> str:
    code = match[1] or match[2] or match[3]
    if code:
        return chr(int(code, 16))
    return chr(int(match[4], 8)) if match[4] else _SIMPLE[match[5]]
