"""How full the nodes are over time, and how much of what is free is of no use.

What is free of a resource on nodes that cannot take one more typical pod is *stranded*: it is there, but nobody gets it. The
typical pod asks for the mean of what the pods of the log asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np

from kcp.base.values import frozen
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.pod_class import Shape

SAMPLES = 500
"""Looks at the nodes, equally far apart in time."""


@frozen
class Level:
    """Shares from 0 to 1, over the samples."""

    mean: float
    peak: float


@frozen
class Usage:
    """Of one resource: what is requested of all that is allocatable, and what is stranded of all that is free."""

    requested: Level
    stranded: Level


@attrs.define(eq=False)
class Meter:
    """Looks at a state whenever time passes a sample. `typical` amounts by resource; nothing is typical of no pods."""

    state: ClusterState
    start_us: int
    end_us: int
    typical: dict[str, int]
    _taken: int = 0
    _requested: dict[str, list[float]] = attrs.field(factory=dict)
    _stranded: dict[str, list[float]] = attrs.field(factory=dict)
    _busy: list[int] = attrs.field(factory=list)

    def pass_to(self, now_us: int) -> None:
        """The state was as it is until `now_us`."""
        step = max((self.end_us - self.start_us) // SAMPLES, 1)
        due = min((now_us - self.start_us) // step, SAMPLES)
        if due > self._taken:
            self._sample(due - self._taken)
            self._taken = due

    def _sample(self, times: int) -> None:
        state = self.state
        state.settle()
        if not len(state):
            return
        self._busy += [int(np.count_nonzero(state.pod_count))] * times
        full = state.pod_count >= state.max_pods
        for name, amount in self.typical.items():
            column = state.column(name)
            full = full | (column.allocatable - column.requested < amount)
        for name in self.typical:
            column = state.column(name)
            there = int(column.allocatable.sum())
            if not there:
                continue
            free = np.maximum(column.allocatable - column.requested, 0)
            all_free = int(free.sum())
            stranded = int(free[full].sum()) / all_free if all_free else 0.0
            self._requested.setdefault(name, []).extend([int(column.requested.sum()) / there] * times)
            self._stranded.setdefault(name, []).extend([stranded] * times)

    @property
    def usage(self) -> dict[str, Usage]:
        return {
            name: Usage(_level(values), _level(self._stranded[name]))
            for name, values in self._requested.items()
        }

    @property
    def busy_nodes(self) -> tuple[float, int]:
        """Nodes with at least one pod: (mean, peak)."""
        level = _level(self._busy)
        return level.mean, int(level.peak)


def _level(values: Sequence[float]) -> Level:
    return Level(sum(values) / len(values), max(values)) if values else Level(0.0, 0.0)


def typical_pod(shapes: Sequence[Shape]) -> dict[str, int]:
    """The mean of what is requested, of every resource that somebody asks for; cpu and memory first."""
    names = dict.fromkeys(["cpu", "memory", *sorted({name for shape in shapes for name, _ in shape.real})])
    return {
        name: mean
        for name in names
        if (mean := sum(shape.request(name) for shape in shapes) // max(len(shapes), 1))
    }
