"""More functions on strings: charAt, indexOf, join, lowerAscii, replace, split, substring, trim, format, quote, …

Kubernetes has version 2 of the library; `reverse` came with version 3 and stands in `EXTRA`.

Source: cel-go v0.26 ext/strings.go; cost: k8s v1.36 apiserver/pkg/cel/library/cost.go.
"""

from __future__ import annotations

from typing import Any, Final

from kcp.machinery.cel.functions import (
    Functions,
    heaviness,
    member,
    overload,
    traversal,
    walk,
    walk_twice,
    written,
)
from kcp.machinery.cel.libraries.formatting import format_text
from kcp.machinery.cel.types import DYN, INT, STRING, list_of
from kcp.machinery.cel.values import CelError

_STRINGS: Final = list_of(STRING)
_UPPER: Final = {code: code - 32 for code in range(ord("a"), ord("z") + 1)}
_LOWER: Final = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
_SPACES: Final = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
_QUOTED: Final = {
    "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\", '"': '\\"',
}  # fmt: skip


def _out_of_range(index: int) -> CelError:
    return CelError(f"index out of range: {index}")


def _char_at(text: str, index: int) -> str:
    if not 0 <= index <= len(text):
        raise _out_of_range(index)
    return text[index : index + 1]


def _index_of(text: str, part: str, offset: int = 0) -> int:
    if not part:
        return offset
    if offset < 0 or (offset and offset >= len(text)):
        raise _out_of_range(offset)
    return text.find(part, offset)


def _last_index_of(text: str, part: str, offset: int | None = None) -> int:
    if not part:
        return len(text) if offset is None else offset
    if offset is None:
        return text.rfind(part)
    if not 0 <= offset < len(text):
        raise _out_of_range(offset)
    return text.rfind(part, 0, offset + len(part))


def _join(items: list[Any], separator: str = "") -> str:
    return separator.join(items)


def _join_cost(items: list[Any], separator: str = "") -> int:
    return -(-2 * (sum(len(item) for item in items) + len(separator) * max(len(items) - 1, 0)) // 10)


def _replace(text: str, old: str, new: str, limit: int = -1) -> str:
    return text.replace(old, new, limit if limit >= 0 else -1)


def _replace_cost(text: str, old: str, new: str, limit: int = -1) -> int:
    """A long result is paid for as well, which Kubernetes leaves out."""
    grown = (len(new) - len(old)) * text.count(old) if len(new) > len(old) else 0
    return walk_twice(text) + written(grown)


def _format_cost(text: str, args: list[Any]) -> int:
    longest = max((len(arg) for arg in args if isinstance(arg, (str, bytes))), default=0)
    return walk(text) + heaviness(args) + written(longest * text.count("%"))


def _split(text: str, separator: str, limit: int = -1) -> list[str]:
    if limit == 0:
        return []
    if not separator:
        chars = list(text)
        return (
            chars if limit < 0 or len(chars) <= limit else [*chars[: limit - 1], "".join(chars[limit - 1 :])]
        )
    return text.split(separator, limit - 1 if limit > 0 else -1)


def _substring(text: str, start: int, end: int | None = None) -> str:
    if end is None:
        if not 0 <= start <= len(text):
            raise _out_of_range(start)
        return text[start:]
    if start > end:
        raise CelError(f"invalid substring range. start: {start}, end: {end}")
    for index in (start, end):
        if not 0 <= index <= len(text):
            raise _out_of_range(index)
    return text[start:end]


def quote(text: str) -> str:
    return '"' + "".join(_QUOTED.get(char, char) for char in text) + '"'


def _walk(text: str, *_: Any) -> int:
    return walk(text)


LIBRARY: Final[Functions] = {
    "charAt": (member("string_char_at_int", (STRING, INT), STRING, _char_at),),
    "indexOf": (
        member("string_index_of_string", (STRING, STRING), INT, _index_of, traversal),
        member("string_index_of_string_int", (STRING, STRING, INT), INT, _index_of, traversal),
    ),
    "lastIndexOf": (
        member("string_last_index_of_string", (STRING, STRING), INT, _last_index_of, traversal),
        member("string_last_index_of_string_int", (STRING, STRING, INT), INT, _last_index_of, traversal),
    ),
    "join": (
        member("list_join", (_STRINGS,), STRING, _join, _join_cost),
        member("list_join_string", (_STRINGS, STRING), STRING, _join, _join_cost),
    ),
    "lowerAscii": (
        member("string_lower_ascii", (STRING,), STRING, lambda text: text.translate(_LOWER), _walk),
    ),
    "upperAscii": (
        member("string_upper_ascii", (STRING,), STRING, lambda text: text.translate(_UPPER), _walk),
    ),
    "replace": (
        member("string_replace_string_string", (STRING, STRING, STRING), STRING, _replace, _replace_cost),
        member(
            "string_replace_string_string_int", (STRING, STRING, STRING, INT), STRING, _replace, _replace_cost
        ),
    ),
    "split": (
        member("string_split_string", (STRING, STRING), _STRINGS, _split, walk_twice),
        member("string_split_string_int", (STRING, STRING, INT), _STRINGS, _split, walk_twice),
    ),
    "substring": (
        member("string_substring_int", (STRING, INT), STRING, _substring, _walk),
        member("string_substring_int_int", (STRING, INT, INT), STRING, _substring, _walk),
    ),
    "trim": (member("string_trim", (STRING,), STRING, lambda text: text.strip(_SPACES), _walk),),
    "format": (member("string_format", (STRING, list_of(DYN)), STRING, format_text, _format_cost),),
    "strings.quote": (overload("strings_quote", (STRING,), STRING, quote, _walk),),
}
EXTRA: Final[Functions] = {
    "reverse": (member("string_reverse", (STRING,), STRING, lambda text: text[::-1], _walk),),
}
