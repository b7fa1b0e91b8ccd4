"""How functions are declared: a name has overloads, an overload has argument types, a result and Python that runs it.

Source: cel-go v0.26 common/decls, interpreter/runtimecost.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import ceil
from typing import Any, Final

import attrs

from kcp.machinery.cel.types import Type, runtime_name
from kcp.machinery.cel.values import WEIGHT_LIMIT, weight

Run = Callable[..., Any]
Cost = int | Callable[..., int]


@attrs.frozen(slots=True, eq=False)
class Overload:
    """One form of a function.

    `cost` is a number, or computes it from the arguments before they are used. A `member` is called as `x.f(…)`.
    """

    id: str
    args: tuple[Type, ...]
    result: Type
    run: Run
    member: bool = False
    cost: Cost = 1


Functions = Mapping[str, tuple[Overload, ...]]


def overload(id: str, args: Iterable[Type], result: Type, run: Run, cost: Cost = 1) -> Overload:
    return Overload(id, tuple(args), result, run, False, cost)


def member(id: str, args: Iterable[Type], result: Type, run: Run, cost: Cost = 1) -> Overload:
    return Overload(id, tuple(args), result, run, True, cost)


def merged(*libraries: Functions) -> dict[str, tuple[Overload, ...]]:
    """All functions of the libraries; the overloads of a name are joined."""
    found: dict[str, tuple[Overload, ...]] = {}
    for library in libraries:
        for name, overloads in library.items():
            found[name] = (*found.get(name, ()), *overloads)
    return found


def accepts(candidate: Overload, kinds: tuple[str, ...]) -> bool:
    """Whether values of these runtime types can be its arguments."""
    return len(candidate.args) == len(kinds) and all(
        wanted.kind in ("dyn", "param") or runtime_name(wanted) == kind
        for wanted, kind in zip(candidate.args, kinds, strict=True)
    )


def size(value: Any) -> int:
    """What costs are computed from: the length of strings, bytes, lists and maps; 1 for all else."""
    try:
        return len(value)
    except TypeError:
        return 1


def tenth(length: int) -> int:
    """A tenth, rounded up: what it costs to walk along a string. Source: cel-go common.StringTraversalCostFactor."""
    return -(-length // 10)


def walk(value: Any, *_: Any) -> int:
    """The cost of walking once along the first argument."""
    return -(-size(value) // 10)


def walk_twice(value: Any, *_: Any) -> int:
    return -(-2 * size(value) // 10)


def regex_cost(text: Any, pattern: Any, *_: Any) -> int:
    """Length of the text times length of the pattern, both scaled."""
    return tenth(1 + size(text)) * ceil(size(pattern) * 0.25)


LIGHT: Final = 10_000
"""Values in a value, or items of a list, up to which walking through costs no more than Kubernetes says."""
_TOO_HEAVY: Final = 1 << 62


def heaviness(*values: Any) -> int:
    """What is paid beyond Kubernetes' cost for walking through values: nothing for what is light."""
    count = sum(weight(value) for value in values)
    if count >= WEIGHT_LIMIT:
        return _TOO_HEAVY
    return count // 10 if count > LIGHT else 0


def written(length: int) -> int:
    """What is paid beyond Kubernetes' cost for making a text of that length: nothing for a short one."""
    return length // 10 if length > 10 * LIGHT else 0


def traversal(value: Any, *_: Any) -> int:
    """The cost of walking through a value and all within it. Source: k8s v1.36 apiserver/pkg/cel/library/cost.go."""
    if isinstance(value, str):
        return len(value.encode()) // 10
    heavy = heaviness(value)
    return heavy if heavy >= _TOO_HEAVY else _traversal(value)


def _traversal(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode()) // 10
    if isinstance(value, bytes):
        return len(value) // 10
    if isinstance(value, list):
        return sum(map(_traversal, value))
    if isinstance(value, Mapping):
        return sum(_traversal(key) + _traversal(item) for key, item in value.items())
    return 1
