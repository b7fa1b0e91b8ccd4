"""Inter-pod terms and what is counted for them: pods per node, summed per topology domain, kept up to date.

    Matcher   which pods: namespaces and a label selector
    Term      a matcher and a topology key
    Counter   a weight per node (so many matching pods, so many owners of a term, …), with sums per domain

A decision reads `sums[domain of node]`: its cost does not grow with the number of pods. A pod that comes or goes adds
its weight to the counters that its class is registered with.

    web-1 (app=web) on node a of zone 1, web-2 on node c of zone 2; term "app=web per zone"
    node weights  a:1 b:0 c:1     sums  zone 1: 1, zone 2: 1, nodes without a zone count nowhere
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from kcp.base.values import frozen
from kcp.machinery.labels import Selector

Ints = NDArray[np.int64]
Ids = NDArray[np.int32]
Bools = NDArray[np.bool_]
Labels = Mapping[str, str]


@frozen(cache_hash=True)
class Matcher:
    """Pods whose namespace is listed, or whose namespace's labels match, and whose labels match."""

    namespaces: tuple[str, ...]
    namespace_selector: Selector | None
    selector: Selector

    def matches(self, namespace: str, labels: Labels, namespace_labels: Labels) -> bool:
        if namespace not in self.namespaces:
            chosen = self.namespace_selector
            if chosen is None or not chosen.matches(namespace_labels):
                return False
        return self.selector.matches(labels)


@frozen(cache_hash=True)
class Term:
    matcher: Matcher
    key: str


@attrs.frozen(eq=False)
class Domains:
    """The values of one topology key: a number per node, `count` for nodes that lack the key. `lacking`: some do."""

    ids: Ids
    count: int
    values: tuple[str, ...]
    lacking: bool


@attrs.frozen(eq=False)
class Sums:
    """Weights per domain over the eligible nodes. `counts[domains.count]` stays 0. `present`: has an eligible node."""

    domains: Domains
    eligible: Bools | None
    counts: Ints
    present: Bools

    def add(self, node: int, weight: int) -> None:
        domain = self.domains.ids.item(node)
        if domain < self.domains.count and (self.eligible is None or self.eligible.item(node)):
            self.counts[domain] += weight

    def of_nodes(self, rows: Any) -> Ints:
        """The sum of each node's domain."""
        found: Ints = self.counts[self.domains.ids[rows]]
        return found


@frozen(cache_hash=True)
class Group:
    """Pods of one namespace that a selector chooses: what spreading counts."""

    namespace: str
    selector: Selector


class Counter:
    """A weight per node index; `total` over all nodes, also those without any label."""

    __slots__ = ("node", "sums", "total")

    def __init__(self, nodes: int) -> None:
        self.node: Ints = np.zeros(nodes, np.int64)
        self.total = 0
        self.sums: dict[Any, Sums] = {}

    def add(self, node: int, weight: int) -> None:
        self.node[node] += weight
        self.total += weight
        for sums in self.sums.values():
            sums.add(node, weight)

    def summed(self, key: Any, domains: Domains, eligible: Bools | None = None) -> Sums:
        """Sums per domain, made on first use and kept. `key` names domains and eligibility."""
        found = self.sums.get(key)
        if found is None:
            found = self.sums[key] = self._sum(domains, eligible)
        return found

    def _sum(self, domains: Domains, eligible: Bools | None) -> Sums:
        counts = np.zeros(domains.count + 1, np.int64)
        weights, ids = (
            (self.node, domains.ids) if eligible is None else (self.node[eligible], domains.ids[eligible])
        )
        np.add.at(counts, ids, weights)
        counts[domains.count] = 0
        present = np.bincount(ids, minlength=domains.count + 1)[: domains.count] > 0
        return Sums(domains, eligible, counts, present)

    def move(self, old_index: Any, nodes: int) -> None:
        """Follow a renumbering of nodes: new node i was `old_index[i]`, -1 for a new one."""
        moved = np.zeros(nodes, np.int64)
        kept = old_index >= 0
        moved[kept] = self.node[old_index[kept]]
        self.node = moved
        self.total = int(moved.sum())
        self.sums.clear()
