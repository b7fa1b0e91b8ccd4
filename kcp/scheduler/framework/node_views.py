"""What a plugin of a user sees: one node, or all of them as arrays. Read-only, at the moment of the decision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcp.machinery import meta
from kcp.scheduler.cluster_state import ClusterState, NodeInfo
from kcp.scheduler.terms import Ints

Json = dict[str, Any]


class Node:
    """One node. Amounts are integers: cpu in thousandths of a CPU, all else in units (bytes, pieces)."""

    __slots__ = ("_info",)

    def __init__(self, info: NodeInfo) -> None:
        self._info = info

    @property
    def name(self) -> str:
        return self._info.name

    @property
    def object(self) -> Json:
        """The Node as in the API; not to be changed."""
        return self._info.node or {}

    @property
    def labels(self) -> Mapping[str, str]:
        return self._info.labels

    @property
    def annotations(self) -> Mapping[str, str]:
        return meta.annotations(self.object) if self._info.node is not None else {}

    @property
    def taints(self) -> list[Json]:
        return self._info.taints

    @property
    def pods(self) -> list[Json]:
        """The pods that run there or are about to, by namespace and name; not to be changed."""
        return [info.pod for info in sorted(self._info.pods.values(), key=lambda info: info.key)]

    def allocatable(self, resource: str) -> int:
        return self._info.allocatable.get(resource, 0)

    def requested(self, resource: str) -> int:
        """What its pods ask for; for `pods` their number."""
        if resource == "pods":
            return len(self._info.pods)
        return sum(info.cls.shape.request(resource) for info in self._info.pods.values())

    def free(self, resource: str) -> int:
        return self.allocatable(resource) - self.requested(resource)


class Nodes:
    """All nodes in the order of their names; every array has one entry per node and is not to be changed."""

    __slots__ = ("_state",)

    def __init__(self, state: ClusterState) -> None:
        self._state = state

    def __len__(self) -> int:
        return len(self._state)

    def __getitem__(self, index: int) -> Node:
        return Node(self._state.infos[index])

    @property
    def names(self) -> list[str]:
        return [info.name for info in self._state.infos]

    def allocatable(self, resource: str) -> Ints:
        return (
            self._state.max_pods if resource == "pods" else self._state.column(resource).allocatable
        ).copy()

    def requested(self, resource: str) -> Ints:
        return (
            self._state.pod_count if resource == "pods" else self._state.column(resource).requested
        ).copy()

    def free(self, resource: str) -> Ints:
        return self.allocatable(resource) - self.requested(resource)

    def label(self, key: str) -> NDArray[Any]:
        """The value of a label, None where the node lacks it."""
        domains = self._state.domains(key)
        values = np.array([*domains.values, None], object)
        found: NDArray[Any] = values[domains.ids]
        return found
