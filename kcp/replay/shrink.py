"""A failing simulation made short: fewer faults first, then fewer operations, as long as it fails the same way.

Delta debugging: leave out halves, then quarters, down to single items; start over from the larger pieces whenever
something could go. Faults have stable keys and operations stand in a script, so what remains means the same as before.
Source of the method: Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input, 2002.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import attrs

from kcp.replay.exploration import Scenario
from kcp.replay.simulation import Run

T = TypeVar("T")
MAX_RUNS = 200


@attrs.define
class Budget:
    """How many more runs may be spent; `spent` tells whoever watches."""

    left: int = MAX_RUNS
    spent: Callable[[], None] = lambda: None

    def take(self) -> bool:
        if self.left <= 0:
            return False
        self.left -= 1
        self.spent()
        return True


def smallest(items: Sequence[T], fails: Callable[[Sequence[T]], bool], budget: Budget) -> list[T]:
    """A part of `items`, in order, that still fails and of which nothing can be left out (or the budget is spent)."""
    kept = list(items)
    if kept and budget.take() and fails([]):
        return []
    size = max(1, len(kept) // 2)
    while kept:
        reduced = False
        start = 0
        while start < len(kept):
            candidate = kept[:start] + kept[start + size :]
            if not budget.take():
                return kept
            if fails(candidate):
                kept, reduced = candidate, True
            else:
                start += size
        if size == 1 and not reduced:
            return kept
        size = max(1, size // 2)
    return kept


def shrink(scenario: Scenario, failed: Run, budget: Budget | None = None) -> Scenario:
    """The shortest scenario found that breaks the same invariant first."""
    budget = budget or Budget()
    invariant = failed.violations[0].invariant
    shortest = attrs.evolve(scenario, only=failed.fired, operations=failed.operations)

    def breaks(candidate: Scenario) -> bool:
        violations = candidate.run().violations
        return bool(violations) and violations[0].invariant == invariant

    keys = smallest(failed.fired, lambda some: breaks(attrs.evolve(shortest, only=tuple(some))), budget)
    shortest = attrs.evolve(shortest, only=tuple(keys))
    operations = smallest(
        failed.operations, lambda some: breaks(attrs.evolve(shortest, operations=tuple(some))), budget
    )
    return attrs.evolve(shortest, operations=tuple(operations))
