"""An expression's text and what is wrong with it, shown as cel-go shows it.

    ERROR: <input>:1:5: undeclared reference to 'b' (in container '')
     | a + b
     | ....^

Source: cel-go v0.26 common/{source,error,errors}.go.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from kcp.base.values import frozen

_SHOWN = 100


@frozen
class Issue:
    """One thing wrong: where (the offset in the text, in characters) and what."""

    at: int
    message: str


class CompileError(ValueError):
    """Raised when a text is no valid expression; `str()` is cel-go's listing of `issues`."""

    def __init__(self, source: str, issues: Iterable[Issue]) -> None:
        self.source = source
        self.issues = sorted(issues, key=lambda issue: issue.at)
        super().__init__(listing(source, self.issues))


def listing(source: str, issues: list[Issue]) -> str:
    """At most a hundred issues, one below the other."""
    lines = [shown(source, issue) for issue in issues[:_SHOWN]]
    if len(issues) > _SHOWN:
        lines.append(f"{len(issues) - _SHOWN} more errors were truncated")
    return "\n".join(lines)


def location(source: str, at: int) -> tuple[int, int]:
    """Line and column of an offset, both counted from 1."""
    return source.count("\n", 0, at) + 1, at - (source.rfind("\n", 0, at) + 1) + 1


def shown(source: str, issue: Issue) -> str:
    """An issue with its line of the text and a caret under the place; wide characters get wide dots."""
    line, column = location(source, issue.at)
    text = source.split("\n")[line - 1].replace("\t", " ")
    before = "".join("．" if _wide(char) else "." for char in text[: column - 1]).ljust(column - 1, ".")
    caret = "＾" if column <= len(text) and _wide(text[column - 1]) else "^"
    return f"ERROR: <input>:{line}:{column}: {issue.message}\n | {text}\n | {before}{caret}"


def _wide(char: str) -> bool:
    return ord(char) > 0x7F and unicodedata.east_asian_width(char) in ("W", "F")
