"""How resources score: LeastAllocated, MostAllocated, RequestedToCapacityRatio, and balance. For one node and for all.

Each function exists twice, over Python integers for a node that was just touched and over arrays for all nodes; the
tests hold them equal. Arithmetic is int64 with truncating division; balance is float64, truncated where said.
Source: k8s v1.36 pkg/scheduler/framework/plugins/noderesources.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.framework.plugin import MAX_SCORE
from kcp.scheduler.pod_class import BASE_RESOURCES, Shape
from kcp.scheduler.terms import Ints

Floats = NDArray[np.float64]
Points = tuple[tuple[int, int], ...]
DEFAULT_RESOURCES: tuple[tuple[str, int], ...] = (("cpu", 1), ("memory", 1))


@attrs.frozen(eq=False)
class Column:
    """One scored resource of one shape: the arrays, the pod's own amount, the weight."""

    allocatable: Ints
    requested: Ints
    request: int
    weight: int


def resources_of(args: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    given = args.get("resources")
    if not given:
        return DEFAULT_RESOURCES
    return tuple((entry["name"], int(entry.get("weight") or 1)) for entry in given)


def columns_of(
    state: ClusterState, shape: Shape, resources: Sequence[tuple[str, int]], *, real: bool
) -> list[Column]:
    """Scalar resources that the pod does not ask for are left out. `real`: requests as they are, not at least 100m."""
    found = []
    for name, weight in resources:
        column = state.column(name)
        if name == "cpu" and not real:
            found.append(Column(column.allocatable, state.scored_cpu, shape.cpu, weight))
        elif name == "memory" and not real:
            found.append(Column(column.allocatable, state.scored_memory, shape.memory, weight))
        elif name in BASE_RESOURCES or shape.request(name):
            found.append(Column(column.allocatable, column.requested, shape.request(name), weight))
    return found


def least(allocatable: int, requested: int) -> int:
    return (allocatable - requested) * MAX_SCORE // allocatable if requested <= allocatable else 0


def most(allocatable: int, requested: int) -> int:
    return min(requested, allocatable) * MAX_SCORE // allocatable


def broken_line(points: Points) -> Callable[[int], int]:
    """The piecewise linear function through the points, flat outside."""

    def at(x: int) -> int:
        for position, (utilization, score) in enumerate(points):
            if x <= utilization:
                if position == 0:
                    return score
                x0, y0 = points[position - 1]
                return y0 + math.trunc((score - y0) * (x - x0) / (utilization - x0))
        return points[-1][1]

    return at


def shape_points(args: Mapping[str, Any]) -> Points:
    """The shape of RequestedToCapacityRatio; its scores go to 10 and are stretched to 100."""
    given = (args.get("requestedToCapacityRatio") or {}).get("shape") or ()
    return tuple((int(point.get("utilization") or 0), int(point.get("score") or 0) * 10) for point in given)


class Averaged:
    """LeastAllocated or MostAllocated: the weighted mean over the resources that the node has."""

    def __init__(self, one: Callable[[int, int], int]) -> None:
        self._one = one
        self._is_least = one is least

    def row(self, columns: Sequence[Column], node: int) -> int:
        total = weights = 0
        for column in columns:
            allocatable = column.allocatable.item(node)
            if allocatable:
                requested = column.requested.item(node) + column.request
                total += self._one(allocatable, requested) * column.weight
                weights += column.weight
        return total // weights if weights else 0

    def all(self, columns: Sequence[Column], nodes: int) -> Ints:
        total, weights = np.zeros(nodes, np.int64), np.zeros(nodes, np.int64)
        for column in columns:
            allocatable, requested = column.allocatable, column.requested + column.request
            there = allocatable > 0
            safe = np.where(there, allocatable, 1)
            if self._is_least:
                score = np.where(requested > allocatable, 0, (allocatable - requested) * MAX_SCORE // safe)
            else:
                score = np.minimum(requested, allocatable) * MAX_SCORE // safe
            total += np.where(there, score * column.weight, 0)
            weights += np.where(there, column.weight, 0)
        return total // np.maximum(weights, 1)


class Ratio:
    """RequestedToCapacityRatio: a shape over utilization; resources that score 0 do not count."""

    def __init__(self, points: Points) -> None:
        self._at = broken_line(points)
        self._table = np.array([self._at(percent) for percent in range(101)], np.int64)

    def row(self, columns: Sequence[Column], node: int) -> int:
        total = weights = 0
        for column in columns:
            allocatable = column.allocatable.item(node)
            if not allocatable:
                continue
            requested = column.requested.item(node) + column.request
            percent = 100 if requested > allocatable else requested * 100 // allocatable
            score = self._at(percent)
            if score > 0:
                total += score * column.weight
                weights += column.weight
        return math.floor(total / weights + 0.5) if weights else 0

    def all(self, columns: Sequence[Column], nodes: int) -> Ints:
        total, weights = np.zeros(nodes, np.int64), np.zeros(nodes, np.int64)
        for column in columns:
            allocatable, requested = column.allocatable, column.requested + column.request
            safe = np.where(allocatable > 0, allocatable, 1)
            percent = np.where(requested > allocatable, 100, requested * 100 // safe)
            score = self._table[np.minimum(percent, 100)]
            counts = (allocatable > 0) & (score > 0)
            total += np.where(counts, score * column.weight, 0)
            weights += np.where(counts, column.weight, 0)
        means = np.floor(total / np.maximum(weights, 1) + 0.5).astype(np.int64)
        return np.where(weights > 0, means, 0)


Strategy = Averaged | Ratio


def strategy_of(scoring: Mapping[str, Any]) -> Strategy:
    kind = scoring.get("type") or "LeastAllocated"
    if kind == "RequestedToCapacityRatio":
        return Ratio(shape_points(scoring))
    return Averaged(most if kind == "MostAllocated" else least)


def _fraction(requested: int, allocatable: int) -> float:
    fraction = requested / allocatable
    return fraction if fraction < 1.0 else 1.0


def _evenness(fractions: Sequence[float]) -> int:
    """100 when all fractions are equal; less, the further they stand apart."""
    if len(fractions) == 2:
        deviation = abs((fractions[0] - fractions[1]) / 2)
    elif len(fractions) > 2:
        mean = sum(fractions) / len(fractions)
        squares = 0.0
        for fraction in fractions:
            squares += (fraction - mean) * (fraction - mean)
        deviation = math.sqrt(squares / len(fractions))
    else:
        deviation = 0.0
    return int((1 - deviation) * 100.0)


def balance_row(columns: Sequence[Column], node: int) -> int:
    """50 plus half of how much evener the pod makes the node; 75 when it changes nothing."""
    before, after = [], []
    for column in columns:
        allocatable = column.allocatable.item(node)
        if allocatable:
            requested = column.requested.item(node)
            before.append(_fraction(requested, allocatable))
            after.append(_fraction(requested + column.request, allocatable))
    return 50 + (50 + _evenness(after) - _evenness(before)) // 2


def _evenness_of_all(columns: Sequence[Column], with_pod: bool, nodes: int) -> Ints:
    fractions: list[Floats] = []
    there: list[Any] = []
    for column in columns:
        requested = column.requested + column.request if with_pod else column.requested
        has = column.allocatable > 0
        ratio = requested / np.where(has, column.allocatable, 1)
        fractions.append(np.where(has, np.minimum(ratio, 1.0), 0.0))
        there.append(has)
    if not fractions:
        return np.full(nodes, 100, np.int64)
    count = np.sum(there, axis=0)
    if len(fractions) == 2:
        deviation = np.where(count == 2, np.abs((fractions[0] - fractions[1]) / 2), 0.0)
        return ((1 - deviation) * 100.0).astype(np.int64)
    return np.array(
        [
            _evenness([float(f[i]) for f, h in zip(fractions, there, strict=True) if h[i]])
            for i in range(nodes)
        ],
        np.int64,
    )


def balance_all(columns: Sequence[Column], nodes: int) -> Ints:
    after, before = _evenness_of_all(columns, True, nodes), _evenness_of_all(columns, False, nodes)
    return 50 + (50 + after - before) // 2
