"""find and findAll.

Source: k8s v1.36 apiserver/pkg/cel/library/regex.go.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from kcp.machinery.cel.functions import Functions, member, regex_cost
from kcp.machinery.cel.regex import compiled
from kcp.machinery.cel.types import INT, STRING, list_of


def _find(text: str, pattern: str) -> str:
    found = compiled(pattern).find(text)
    return "" if found is None else text[found[0] : found[1]]


def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    matches = compiled(pattern).find_all(text)
    return [text[begin:end] for begin, end in islice(matches, limit if limit >= 0 else None)]


LIBRARY: Final[Functions] = {
    "find": (member("string_find_string", (STRING, STRING), STRING, _find, regex_cost),),
    "findAll": (
        member("string_find_all_string", (STRING, STRING), list_of(STRING), _find_all, regex_cost),
        member("string_find_all_string_int", (STRING, STRING, INT), list_of(STRING), _find_all, regex_cost),
    ),
}
