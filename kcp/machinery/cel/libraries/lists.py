"""Kubernetes' functions on lists: isSorted, sum, min, max, indexOf, lastIndexOf.

Source: k8s v1.36 apiserver/pkg/cel/library/lists.go.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Final

from kcp.machinery.cel.functions import Functions, Overload, member, traversal
from kcp.machinery.cel.standard import grouped
from kcp.machinery.cel.types import BOOL, BYTES, DOUBLE, DURATION, INT, STRING, TIMESTAMP, UINT, A, list_of
from kcp.machinery.cel.values import (
    CelError,
    Duration,
    Uint,
    as_duration,
    as_int,
    as_uint,
    equal,
    no_overload,
)

_COMPARABLE: Final = (
    ("int", INT), ("uint", UINT), ("double", DOUBLE), ("bool", BOOL), ("duration", DURATION),
    ("timestamp", TIMESTAMP), ("string", STRING), ("bytes", BYTES),
)  # fmt: skip
_LIST: Final = list_of(A)


def _is_sorted(items: list[Any]) -> bool:
    return all(not later < earlier for earlier, later in itertools.pairwise(items))


def _min(items: list[Any]) -> Any:
    if not items:
        raise CelError("min called on empty list")
    return min(items)


def _max(items: list[Any]) -> Any:
    if not items:
        raise CelError("max called on empty list")
    return max(items)


def _sum(zero: Any) -> Callable[[list[Any]], Any]:
    """A sum in the type of its items; of nothing, `zero`."""

    def run(items: list[Any]) -> Any:
        if not items:
            return zero
        first = items[0]
        if isinstance(first, Duration):
            return as_duration(sum(item.ns for item in items))
        if isinstance(first, bool) or any(type(item) is not type(first) for item in items):
            raise no_overload()
        if isinstance(first, Uint):
            return as_uint(sum(map(int, items)))
        return as_int(sum(items)) if isinstance(first, int) else sum(items)

    return run


def _index(items: list[Any], wanted: Any) -> int:
    return next((place for place, item in enumerate(items) if equal(item, wanted)), -1)


def _last_index(items: list[Any], wanted: Any) -> int:
    return next((place for place in range(len(items) - 1, -1, -1) if equal(items[place], wanted)), -1)


def _table() -> Iterator[tuple[str, Overload]]:
    for label, type in _COMPARABLE:
        given = (list_of(type),)
        yield "isSorted", member(f"list_{label}_is_sorted_bool", given, BOOL, _is_sorted, traversal)
        yield "min", member(f"list_{label}_min_{label}", given, type, _min, traversal)
        yield "max", member(f"list_{label}_max_{label}", given, type, _max, traversal)
    for label, type, zero in (
        ("int", INT, 0),
        ("uint", UINT, Uint(0)),
        ("double", DOUBLE, 0.0),
        ("duration", DURATION, Duration(0)),
    ):
        yield "sum", member(f"list_{label}_sum_{label}", (list_of(type),), type, _sum(zero), traversal)
    yield "indexOf", member("list_a_index_of_int", (_LIST, A), INT, _index, traversal)
    yield "lastIndexOf", member("list_a_last_index_of_int", (_LIST, A), INT, _last_index, traversal)


LIBRARY: Final[Functions] = grouped(_table())
