"""The plugins of one profile at work on one cluster state, and what they keep between decisions.

`once` memorizes what follows from node objects alone, until the state's epoch changes. `ClassCache` holds what is known
about one pod class on all nodes; for a simple class that is the total score itself, patched where nodes changed.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import numpy as np

from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.framework.plugin import ALL, Codes, Cycle, DynamicFilter, PreFilter, Score, StaticFilter
from kcp.scheduler.pod_class import PodClass, Shape
from kcp.scheduler.terms import Bools, Ids, Ints

Json = dict[str, Any]
Filter = StaticFilter | DynamicFilter

MAX_CLASS_CACHES = 512
MAX_SHAPE_CACHES = 1024
MAX_MEMORIES = 20_000


@attrs.frozen(eq=False)
class NodeFacts:
    """`taint_set[i]` says which of `taint_sets` node i has."""

    unschedulable: Bools
    taint_set: Ids
    taint_sets: list[list[Json]]


def collect_node_facts(state: ClusterState) -> NodeFacts:
    numbers: dict[tuple[tuple[str, str, str], ...], int] = {}
    sets: list[list[Json]] = []
    ids = []
    for info in state.infos:
        key = tuple((t.get("key", ""), t.get("value") or "", t.get("effect", "")) for t in info.taints)
        number = numbers.setdefault(key, len(sets))
        if number == len(sets):
            sets.append(info.taints)
        ids.append(number)
    cordoned = state.each_node(lambda info: info.unschedulable)
    return NodeFacts(cordoned, np.array(ids, np.int32), sets)


@attrs.frozen(eq=False)
class PluginSet:
    """The instantiated plugins of a profile, by extension point and in order. Scores carry their weights.

    `percentage` of the nodes is enough to score, None: all; 0: it depends on their number. `base_score` is what every
    node has beside what the plugins give it.
    """

    pre_filters: tuple[PreFilter, ...]
    filters: tuple[Filter, ...]
    scores: tuple[tuple[Any, int], ...]
    fit: Any
    fit_weight: int
    fit_filters: bool
    balanced: Any
    balanced_weight: int
    spread: Any
    inter_pod: Any
    pre_enqueue: tuple[str, ...]
    post_filters: tuple[str, ...]
    shape_cache: Callable[..., Any]
    percentage: int | None = None
    base_score: int = 0
    devices: Any = None
    tenants: Any = None


class ClassCache:
    """One class on all nodes. `ties` are the indexes of the best total, ascending; kept up node by node."""

    def __init__(self, cls: PodClass, shape: Any) -> None:
        self.cls = cls
        self.shape = shape
        self.epoch = -1
        self.codes: list[tuple[Filter, Codes]] = []
        self.static_ok: Bools | None = None
        self.offset: Ints | int = 0
        self.normalized: list[tuple[Score, int]] = []
        self.total: Ints = np.zeros(0, np.int64)
        self.total_epoch = -1
        self.read = 0
        self.feasible = 0
        self.best = -1
        self.ties: list[int] = []

    def refresh_total(self, state: ClusterState) -> None:
        """Bring total, best and ties up to the state. `shape` must be fresh."""
        if self.total_epoch != state.epoch:
            self.total = np.full(len(state), -1, np.int64)
            self._compute(ALL)
        elif self.read < len(state.dirty):
            pending = state.dirty[self.read :]
            if len(pending) <= 16 + len(state) // 100:
                for node in pending:
                    self._patch(node)
                if not self.ties:
                    self._find_best()
            else:
                self._compute(np.unique(np.array(pending, np.int64)))
        self.total_epoch, self.read = state.epoch, len(state.dirty)

    def _compute(self, rows: Any) -> None:
        ok = self.shape.ok[rows] if self.static_ok is None else self.shape.ok[rows] & self.static_ok[rows]
        offset = self.offset if isinstance(self.offset, int) else self.offset[rows]
        before = int(np.count_nonzero(self.total[rows] >= 0))
        self.total[rows] = np.where(ok, self.shape.score[rows] + offset, -1)
        self.feasible = int(np.count_nonzero(ok)) + (0 if rows is ALL else self.feasible - before)
        self._find_best()

    def _find_best(self) -> None:
        self.best = int(self.total.max()) if len(self.total) else -1
        self.ties = np.flatnonzero(self.total == self.best).tolist() if self.best >= 0 else []

    def _patch(self, node: int) -> None:
        before = self.total.item(node)
        if self.shape.ok.item(node) and (self.static_ok is None or self.static_ok.item(node)):
            offset = self.offset
            now = self.shape.score.item(node) + (offset if isinstance(offset, int) else offset.item(node))
        else:
            now = -1
        if now == before:
            return
        self.total[node] = now
        self.feasible += (now >= 0) - (before >= 0)
        ties = self.ties
        if before == self.best and ties:
            del ties[bisect_left(ties, node)]
        if now > self.best:
            self.best, self.ties = now, [node]
        elif now == self.best and now >= 0:
            insort(ties, node)


class Framework:
    """A profile on a state. Owned by the scheduler's task."""

    def __init__(
        self,
        state: ClusterState,
        name: str,
        plugins: PluginSet,
        preemption: Any,
        post_filter: Callable[..., Any],
    ) -> None:
        self.state = state
        self.name = name
        self.plugins = plugins
        self.preemption = preemption
        self.post_filter = post_filter
        self.dry_runs: dict[tuple[str, int], tuple[Any, Any]] = {}
        self.defaults: dict[int, tuple[int, Any]] = {}
        self._always_scored = [(p, w) for p, w in plugins.scores if not hasattr(p, "static_score")]
        self._dynamic_filters: list[Any] = [
            p for p in plugins.filters if p is not plugins.fit and not hasattr(p, "static_codes")
        ]
        scoring = [plugin for plugin, _ in plugins.scores]
        self.per_pod = any(getattr(plugin, "per_pod", False) for plugin in (*plugins.filters, *scoring))
        self._epoch = -1
        self._memory: dict[Any, Any] = {}
        self._classes: dict[int, ClassCache] = {}
        self._shapes: dict[Shape, Any] = {}

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` gives, remembered until labels, taints, images or the set of nodes change."""
        memory = self._memory
        if self._epoch != self.state.epoch or len(memory) > MAX_MEMORIES:
            self._epoch = self.state.epoch
            memory.clear()
        if key in memory:
            return memory[key]
        found = memory[key] = make()
        return found

    def node_facts(self) -> NodeFacts:
        found: NodeFacts = self.once("node facts", lambda: collect_node_facts(self.state))
        return found

    def shape_cache(self, shape: Shape) -> Any:
        """The fresh cache of a request shape."""
        found = self._shapes.get(shape)
        if found is None:
            if len(self._shapes) >= MAX_SHAPE_CACHES:
                del self._shapes[next(iter(self._shapes))]
                self._classes.clear()
            found = self._shapes[shape] = self._new_shape_cache(shape)
        found.refresh(self.state)
        return found

    def _new_shape_cache(self, shape: Shape) -> Any:
        p = self.plugins
        return p.shape_cache(shape, p.fit, p.fit_filters, p.fit_weight, p.balanced, p.balanced_weight)

    def class_cache(self, cls: PodClass) -> ClassCache:
        """The cache of a class, its static part fresh."""
        found = self._classes.get(cls.number)
        if found is None or found.cls is not cls:
            if len(self._classes) >= MAX_CLASS_CACHES:
                for number in list(self._classes)[: MAX_CLASS_CACHES // 2]:
                    del self._classes[number]
                    self.defaults.pop(number, None)
            found = self._classes[cls.number] = ClassCache(cls, None)
        if found.epoch != self.state.epoch:
            self._refresh_static(found)
        return found

    def _refresh_static(self, cache: ClassCache) -> None:
        cache.codes = []
        cache.static_ok = None
        for plugin in self.plugins.filters:
            static = getattr(plugin, "static_codes", None)
            codes = static(self, cache.cls) if static is not None else None
            if codes is not None:
                cache.codes.append((plugin, codes))
                passing = codes == 0
                cache.static_ok = passing if cache.static_ok is None else cache.static_ok & passing
        cache.offset = self.plugins.base_score
        cache.normalized = []
        for plugin, weight in self.plugins.scores:
            score = getattr(plugin, "static_score", None)
            if score is None:
                continue
            found = score(self, cache.cls)
            if found is None:
                cache.normalized.append((plugin, weight))
            else:
                cache.offset = cache.offset + found * weight
        cache.epoch = self.state.epoch

    def static_codes_of(self, cache: ClassCache, plugin: Filter) -> Codes | None:
        return next((codes for owner, codes in cache.codes if owner is plugin), None)

    def active_filters(self, cycle: Cycle) -> Iterator[DynamicFilter]:
        """The dynamic filters that can fail for this pod, without NodeResourcesFit, which has its own cache."""
        for plugin in self.plugins.filters:
            if (
                plugin is not self.plugins.fit
                and not hasattr(plugin, "static_codes")
                and plugin.active(cycle)
            ):
                yield plugin

    def dynamic_scores(self, cache: ClassCache) -> Sequence[tuple[Score, int]]:
        """The score plugins that must look at the feasible nodes together."""
        return [*cache.normalized, *self._always_scored]
