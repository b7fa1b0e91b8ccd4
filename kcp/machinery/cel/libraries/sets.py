"""Lists as sets: sets.contains, sets.equivalent, sets.intersects.

Source: cel-go v0.26 ext/sets.go.
"""

from __future__ import annotations

from typing import Any, Final

from kcp.machinery.cel.functions import Functions, heaviness, overload
from kcp.machinery.cel.types import BOOL, A, list_of
from kcp.machinery.cel.values import contains

_PAIR: Final = (list_of(A), list_of(A))


def _contains(items: list[Any], wanted: list[Any]) -> bool:
    return all(contains(items, item) for item in wanted)


def _equivalent(a: list[Any], b: list[Any]) -> bool:
    return _contains(a, b) and _contains(b, a)


def _intersects(a: list[Any], b: list[Any]) -> bool:
    return any(contains(b, item) for item in a)


def _once(a: list[Any], b: list[Any]) -> int:
    return 1 + len(a) * len(b) + heaviness(a, b)


def _twice(a: list[Any], b: list[Any]) -> int:
    return 1 + 2 * len(a) * len(b) + heaviness(a, b)


LIBRARY: Final[Functions] = {
    "sets.contains": (overload("list_sets_contains_list", _PAIR, BOOL, _contains, _once),),
    "sets.equivalent": (overload("list_sets_equivalent_list", _PAIR, BOOL, _equivalent, _twice),),
    "sets.intersects": (overload("list_sets_intersects_list", _PAIR, BOOL, _intersects, _once),),
}
