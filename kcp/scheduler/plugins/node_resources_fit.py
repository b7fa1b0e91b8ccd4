"""Room for the pod's requests, and its scores; kept per request shape and patched where nodes changed.

Source: k8s v1.36 pkg/scheduler/framework/plugins/noderesources/{fit,balanced_allocation}.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.framework.plugin import ALL, Codes, Cycle, Reasons, Rows
from kcp.scheduler.framework.status import UNRESOLVABLE, UNSCHEDULABLE
from kcp.scheduler.plugins import node_resources
from kcp.scheduler.pod_class import BASE_RESOURCES, Shape
from kcp.scheduler.terms import Bools, Ints

PATCH_AT_MOST = 16
"""Up to so many touched nodes (and one more for each 250) are patched one by one; else all are computed anew."""
TOO_MANY_PODS = "Too many pods"


class NodeResourcesFit:
    """All insufficient resources are reported, each as its own reason.

    A resource that a DeviceClass serves is left to DynamicResources on nodes that have none of it.
    """

    name = "NodeResourcesFit"
    reasons: ClassVar[Reasons] = {1: (UNSCHEDULABLE, "Insufficient"), 2: (UNRESOLVABLE, "Insufficient")}

    def __init__(self, args: Mapping[str, Any]) -> None:
        scoring = args.get("scoringStrategy") or {}
        self.strategy = node_resources.strategy_of(scoring)
        self.resources = node_resources.resources_of(scoring)
        self._ignored = frozenset(args.get("ignoredResources") or ())
        self._ignored_groups = frozenset(args.get("ignoredResourceGroups") or ())

    def counts(self, resource: str) -> bool:
        if resource in BASE_RESOURCES:
            return True
        return resource not in self._ignored and resource.partition("/")[0] not in self._ignored_groups

    def requests(self, shape: Shape) -> list[tuple[str, int]]:
        return [(name, amount) for name, amount in shape.real if self.counts(name)]

    def active(self, cycle: Cycle) -> bool:
        return True

    def codes(self, cycle: Cycle, rows: Rows) -> Codes:
        state, shape = cycle.state, cycle.cls.shape
        failing = state.pod_count[rows] + 1 > state.max_pods[rows]
        never = np.zeros(len(failing), np.bool_)
        for name, amount in self.requests(shape):
            column = state.column(name)
            allocatable = column.allocatable[rows]
            lacking, lacks_ever = amount > allocatable - column.requested[rows], amount > allocatable
            if name in state.device_classes:
                lacking, lacks_ever = lacking & (allocatable != 0), lacks_ever & (allocatable != 0)
            failing = failing | lacking
            never |= lacks_ever
        codes: Codes = np.where(never, 2, failing.astype(np.int8)).astype(np.int8)
        return codes

    def insufficient(self, cycle: Cycle, rows: Rows) -> list[tuple[str, Bools]]:
        """(reason, which nodes) for everything that a node may lack."""
        state = cycle.state
        found: list[tuple[str, Bools]] = [(TOO_MANY_PODS, state.pod_count[rows] + 1 > state.max_pods[rows])]
        for name, amount in self.requests(cycle.cls.shape):
            column = state.column(name)
            lacking = amount > column.allocatable[rows] - column.requested[rows]
            if name in state.device_classes:
                lacking = lacking & (column.allocatable[rows] != 0)
            found.append((f"Insufficient {name}", lacking))
        return found


class BalancedAllocation:
    """Pods that request none of the listed resources skip it."""

    name = "NodeResourcesBalancedAllocation"

    def __init__(self, args: Mapping[str, Any]) -> None:
        self.resources = node_resources.resources_of(args)

    def skips(self, shape: Shape) -> bool:
        return not any(shape.request(name) for name, _ in self.resources)


class ShapeCache:
    """Which nodes have room for a shape, and its weighted resource scores. Follows the state's dirty list."""

    def __init__(
        self,
        shape: Shape,
        fit: NodeResourcesFit | None,
        fit_filters: bool,
        fit_weight: int,
        balanced: BalancedAllocation | None,
        balanced_weight: int,
    ) -> None:
        self.shape = shape
        self._fit = fit
        self._filters = fit is not None and fit_filters
        self._fit_weight = fit_weight
        self._balanced = balanced if balanced is not None and not balanced.skips(shape) else None
        self._balanced_weight = balanced_weight
        self.ok: Bools = np.zeros(0, np.bool_)
        self.score: Ints = np.zeros(0, np.int64)
        self.epoch = -1
        self.read = 0

    def refresh(self, state: ClusterState) -> None:
        if self.epoch != state.epoch:
            self._connect(state)
            self.ok = np.ones(len(state), np.bool_)
            self.score = np.zeros(len(state), np.int64)
            self._compute(state, ALL)
        elif self.read < len(state.dirty):
            pending = state.dirty[self.read :]
            if len(pending) <= PATCH_AT_MOST + len(state) // 250:
                for node in pending:
                    self._patch(state, node)
            else:
                self._compute(state, np.unique(np.array(pending, np.int64)))
        self.epoch, self.read = state.epoch, len(state.dirty)

    def _connect(self, state: ClusterState) -> None:
        shape = self.shape
        fit, balanced = self._fit, self._balanced
        self._wanted = [
            (state.column(name), amount, name in state.device_classes)
            for name, amount in (fit.requests(shape) if fit is not None else ())
        ]
        self._columns: Sequence[node_resources.Column] = ()
        self._balance: Sequence[node_resources.Column] = ()
        if fit is not None and self._fit_weight:
            self._columns = node_resources.columns_of(state, shape, fit.resources, real=False)
        if balanced is not None:
            self._balance = node_resources.columns_of(state, shape, balanced.resources, real=True)

    def _compute(self, state: ClusterState, rows: Any) -> None:
        """All rows, or the given ones, as vectors."""
        nodes = len(state) if rows is ALL else len(rows)
        if self._filters:
            ok = state.pod_count[rows] < state.max_pods[rows]
            for column, amount, served in self._wanted:
                enough = amount <= column.allocatable[rows] - column.requested[rows]
                ok = ok & (enough | (column.allocatable[rows] == 0) if served else enough)
            self.ok[rows] = ok
        score = np.zeros(nodes, np.int64)
        if self._fit is not None and self._fit_weight:
            score = score + self._fit.strategy.all(_at(self._columns, rows), nodes) * self._fit_weight
        if self._balanced is not None:
            balance = node_resources.balance_all(_at(self._balance, rows), nodes)
            score = score + balance * self._balanced_weight
        self.score[rows] = score

    def _patch(self, state: ClusterState, node: int) -> None:
        score = 0
        if self._filters:
            fits = state.pod_count.item(node) < state.max_pods.item(node)
            if fits:
                for column, amount, served in self._wanted:
                    allocatable = column.allocatable.item(node)
                    if amount > allocatable - column.requested.item(node) and (allocatable or not served):
                        fits = False
                        break
            self.ok[node] = fits
        if self._fit is not None and self._fit_weight:
            score = self._fit.strategy.row(self._columns, node) * self._fit_weight
        if self._balanced is not None:
            score += node_resources.balance_row(self._balance, node) * self._balanced_weight
        self.score[node] = score


def _at(columns: Sequence[node_resources.Column], rows: Any) -> Sequence[node_resources.Column]:
    if rows is ALL:
        return columns
    return [
        node_resources.Column(c.allocatable[rows], c.requested[rows], c.request, c.weight) for c in columns
    ]
