"""Closures for calls and logic: what the compiler puts together.

A closure gets the frame, a list whose first item is what may still be spent.

Source: cel-go v0.26 interpreter/{interpretable,runtimecost}.go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from kcp.machinery.cel.functions import Overload, accepts
from kcp.machinery.cel.values import BudgetExceeded, CelError, kind_of, no_overload

Frame = list[Any]
Code = Callable[[Frame], Any]
Costed = tuple[Code, int]
"""Code and what it costs for certain, which whoever uses the code charges."""

FAULTS: Final = (CelError, TypeError, AttributeError)
"""What means that an expression has no value: Python's errors come from documents that are not of their declared type."""
OVER_BUDGET: Final = "operation cancelled: actual cost limit exceeded"


def spend(frame: Frame, cost: int) -> None:
    """Raises BudgetExceeded."""
    frame[0] -= cost
    if frame[0] < 0:
        raise BudgetExceeded(OVER_BUDGET)


def paid(code: Code, cost: int) -> Code:
    """The code, charged before it runs."""
    if not cost:
        return code

    def run(frame: Frame) -> Any:
        frame[0] -= cost
        if frame[0] < 0:
            raise BudgetExceeded(OVER_BUDGET)
        return code(frame)

    return run


def invoke(run: Callable[..., Any], codes: list[Code]) -> Code:
    match codes:
        case [a]:
            return lambda frame: run(a(frame))
        case [a, b]:
            return lambda frame: run(a(frame), b(frame))
        case [a, b, c]:
            return lambda frame: run(a(frame), b(frame), c(frame))
    return lambda frame: run(*[code(frame) for code in codes])


def measured(run: Callable[..., Any], cost: Callable[..., int], codes: list[Code]) -> Code:
    """A call whose arguments say what it costs; one when an argument has no value."""
    if len(codes) == 2:
        a, b = codes

        def two(frame: Frame) -> Any:
            try:
                x, y = a(frame), b(frame)
            except CelError:
                frame[0] -= 1
                raise
            frame[0] -= cost(x, y)
            if frame[0] < 0:
                raise BudgetExceeded(OVER_BUDGET)
            return run(x, y)

        return two

    def many(frame: Frame) -> Any:
        values = [code(frame) for code in codes]
        frame[0] -= cost(*values)
        if frame[0] < 0:
            raise BudgetExceeded(OVER_BUDGET)
        return run(*values)

    return many


def dispatch(overloads: list[Overload], codes: list[Code], fixed: int | None = None) -> Code:
    """A call whose overload the values' types decide; `fixed` is the cost where it is not the overload's."""
    known: dict[tuple[type, ...], Overload] = {}

    def run(frame: Frame) -> Any:
        values = [code(frame) for code in codes]
        types = tuple(map(type, values))
        overload = known.get(types)
        if overload is None:
            overload = known[types] = _chosen(overloads, values)
        cost = overload.cost if fixed is None else fixed
        frame[0] -= cost if isinstance(cost, int) else cost(*values)
        if frame[0] < 0:
            raise BudgetExceeded(OVER_BUDGET)
        return overload.run(*values)

    return run


def _chosen(overloads: list[Overload], values: list[Any]) -> Overload:
    kinds = tuple(kind_of(value) for value in values)
    for overload in overloads:
        if accepts(overload, kinds):
            return overload
    raise no_overload()


def both(left: Code, right: Code) -> Code:
    """`left && right`: a false on either side wins over an error on the other."""

    def run(frame: Frame) -> bool:
        try:
            value = left(frame)
        except BudgetExceeded:
            raise
        except FAULTS as error:
            if right(frame) is False:
                return False
            raise error
        if value is False:
            return False
        other = right(frame)
        if other is False or (other is True and value is True):
            return bool(other)
        raise no_overload()

    return run


def either(left: Code, right: Code) -> Code:
    """`left || right`: a true on either side wins over an error on the other."""

    def run(frame: Frame) -> bool:
        try:
            value = left(frame)
        except BudgetExceeded:
            raise
        except FAULTS as error:
            if right(frame) is True:
                return True
            raise error
        if value is True:
            return True
        other = right(frame)
        if other is True or (other is False and value is False):
            return bool(other)
        raise no_overload()

    return run
