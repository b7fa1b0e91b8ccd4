"""One decision: which nodes can take the pod, which of them is best, and why not the others.

A pure function of the state, the profile, the cycle number and the seed: no clock, no generator that remembers. Ties are
in the order of node names; which one is taken is `splitmix64(seed, cycle) mod ties`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from kcp.base.values import frozen
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.dra.extended import backed
from kcp.scheduler.extender import NAME as EXTENDER
from kcp.scheduler.framework import status as texts
from kcp.scheduler.framework.plugin import ALL, Codes, Cycle, Rejected
from kcp.scheduler.framework.runtime import ClassCache, Filter, Framework
from kcp.scheduler.pod_class import PodInfo
from kcp.scheduler.terms import Bools, Ints

Json = dict[str, Any]
_MASK = (1 << 64) - 1
START_STREAM = 0x73746172
"""Mixed into the seed for the node at which a search for enough feasible nodes starts."""
LEAST_TO_FIND = 100
"""So many feasible nodes are looked for, whatever the percentage."""


def splitmix64(seed: int, counter: int) -> int:
    """The counter-based generator: a 64-bit number for each (seed, counter), no state."""
    z = (seed + 0x9E3779B97F4A7C15 * (counter + 1)) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


@attrs.frozen(eq=False)
class Diagnosis:
    """Why no node takes the pod. `codes` is the failing filter's code per node, `failed_by` its place in the profile.

    `unresolvable` nodes are those that removing pods cannot help. `plugins` rejected some node, in profile order.
    """

    histogram: Mapping[str, int]
    plugins: tuple[str, ...]
    unresolvable: Bools
    pre_filter: Rejected | None = None


@frozen
class Answers:
    """What extenders said about one pod, as it counts in one decision. It is recorded, since nothing else tells it.

    `lost` nodes are feasible but for the extenders: (reason or "", whether removing pods could not help). `scores` are
    weighted and stretched; `victims` {node: (uids, broken budgets)} once they were asked about preemption.
    """

    lost: Mapping[str, tuple[str, bool]] = attrs.field(factory=dict)
    scores: Mapping[str, int] = attrs.field(factory=dict)
    victims: Mapping[str, tuple[Sequence[str], int]] | None = None

    def document(self) -> Json:
        found: Json = {
            "lost": {node: list(why) for node, why in self.lost.items()},
            "scores": dict(self.scores),
        }
        if self.victims is not None:
            found["victims"] = {node: [list(uids), broken] for node, (uids, broken) in self.victims.items()}
        return found

    @classmethod
    def of(cls, document: Json | None) -> Answers | None:
        if document is None:
            return None
        victims = document.get("victims")
        return cls(
            {node: (text, final) for node, (text, final) in document["lost"].items()},
            document["scores"],
            None if victims is None else {node: (uids, broken) for node, (uids, broken) in victims.items()},
        )


@attrs.frozen(eq=False)
class Decision:
    """`node` is empty when no node takes the pod; `text` then says why, `nominated` where room is being made.

    `total` is 0 when the node was the only feasible one, which is taken without scoring. `candidates` are the nodes that
    preemption chose among. `allocations` are the devices that the pod's claims get, by claim; `deallocated` is a claim that
    loses the devices it has, since they keep the pod off every node.
    """

    cycle: int
    seed: int
    node: str
    feasible: int = 0
    ties: int = 0
    total: int = 0
    text: str = ""
    diagnosis: Diagnosis | None = None
    nominated: str | None = None
    victims: tuple[PodInfo, ...] = ()
    pdb_violations: int = 0
    cleared: tuple[PodInfo, ...] = ()
    candidates: tuple[Any, ...] = ()
    allocations: Mapping[str, Json] = attrs.field(factory=dict)
    deallocated: str = ""


def decide(
    framework: Framework, info: PodInfo, *, cycle: int, seed: int, answers: Answers | None = None
) -> Decision:
    """Decide for one pod that is in the state and runs nowhere. The state is not changed (not even assumed).

    `answers` are those of the extenders that care about the pod.
    """
    state = framework.state
    state.settle()
    if not len(state):
        return Decision(cycle, seed, "", text=texts.NO_NODES, nominated="" if info.nominated else None)
    cache = framework.class_cache(info.cls)
    if answers is None and is_simple(framework, cache, info):
        if _refresh(framework, cache).feasible:
            return _decide_simple(framework, cache, cycle, seed)
        return _fail(framework, Cycle(state, info, framework), cycle, seed)
    return _decide_general(framework, cache, Cycle(state, info, framework), cycle, seed, answers)


def feasible_names(framework: Framework, info: PodInfo, *, cycle: int, seed: int) -> list[str]:
    """The nodes among which `decide` would choose without extenders: those that extenders are asked about."""
    state = framework.state
    state.settle()
    if not len(state):
        return []
    about = Cycle(state, info, framework)
    if pre_filter(about) is not None:
        return []
    feasible = feasible_nodes(framework, framework.class_cache(info.cls), about)
    return [state.infos[index].name for index in enough(framework, feasible, cycle, seed).tolist()]


def _refresh(framework: Framework, cache: ClassCache) -> ClassCache:
    cache.shape = framework.shape_cache(cache.cls.shape)
    cache.refresh_total(framework.state)
    return cache


def is_simple(framework: Framework, cache: ClassCache, info: PodInfo) -> bool:
    """Whether only node objects and requests matter for this pod at this moment."""
    cls, state, plugins = info.cls, framework.state, framework.plugins
    if framework.per_pod or nodes_to_find(plugins.percentage, len(state)) < len(state):
        return False
    if state.nominations or info.volumes or cls.ports or cls.pinned is not None or cache.normalized:
        return False
    if cls.required or cls.required_anti or cls.preferred:
        return False
    if any(counter.total for _, _, counter in cls.symmetric) and plugins.inter_pod is not None:
        return False
    if plugins.spread is not None:
        constraints = plugins.spread.constraints(framework, cls)
        if constraints.hard or constraints.soft:
            return False
    if state.device_classes and backed(cls.shape, state.device_classes):
        return False
    spec = info.pod["spec"]
    return not spec.get("nodeName") and not spec.get("resourceClaims")


def _decide_simple(framework: Framework, cache: ClassCache, cycle: int, seed: int) -> Decision:
    ties = cache.ties
    count = len(ties)
    index = ties[splitmix64(seed, cycle) % count] if count > 1 else ties[0]
    total = cache.best if cache.feasible > 1 else 0
    return Decision(cycle, seed, framework.state.infos[index].name, cache.feasible, count, total)


def _decide_general(
    framework: Framework, cache: ClassCache, cycle: Cycle, number: int, seed: int, answers: Answers | None
) -> Decision:
    rejected = pre_filter(cycle)
    if rejected is not None:
        return _fail(framework, cycle, number, seed, rejected, answers)
    feasible = feasible_nodes(framework, cache, cycle)
    if answers is not None:
        feasible = _passed_by_extenders(framework.state, feasible, answers)
    feasible = enough(framework, feasible, number, seed)
    if not len(feasible):
        return _fail(framework, cycle, number, seed, None, answers)
    if len(feasible) == 1:
        name = framework.state.infos[int(feasible[0])].name
        return Decision(number, seed, name, 1, 1, 0, allocations=_allocations(framework, cycle, name))
    totals = total_scores(framework, cache, cycle, feasible)
    if answers is not None and answers.scores:
        totals = totals + extender_scores(framework.state, feasible, answers)
    best = int(totals.max())
    ties = feasible[totals == best]
    pick = splitmix64(seed, number) % len(ties) if len(ties) > 1 else 0
    name = framework.state.infos[int(ties[pick])].name
    allocations = _allocations(framework, cycle, name)
    return Decision(number, seed, name, len(feasible), len(ties), best, allocations=allocations)


def _allocations(framework: Framework, cycle: Cycle, node: str) -> Mapping[str, Json]:
    devices = framework.plugins.devices
    found: Mapping[str, Json] = {} if devices is None else devices.allocations(cycle, node)
    return found


def nodes_to_find(percentage: int | None, nodes: int) -> int:
    """How many feasible nodes are enough. Source: k8s v1.36 schedule_one.go (numFeasibleNodesToFind)."""
    if percentage is None or nodes < LEAST_TO_FIND:
        return nodes
    share = percentage or max(50 - nodes // 125, 5)
    return max(nodes * share // 100, LEAST_TO_FIND)


def enough(framework: Framework, feasible: NDArray[np.int64], number: int, seed: int) -> NDArray[np.int64]:
    """As many feasible nodes as the profile wants to score, from a node on that is another one in each cycle."""
    nodes = len(framework.state)
    wanted = nodes_to_find(framework.plugins.percentage, nodes)
    if len(feasible) <= wanted:
        return feasible
    start = int(np.searchsorted(feasible, splitmix64(seed ^ START_STREAM, number) % nodes))
    return np.sort(np.concatenate((feasible[start:], feasible[:start]))[:wanted])


def _passed_by_extenders(
    state: ClusterState, feasible: NDArray[np.int64], answers: Answers
) -> NDArray[np.int64]:
    passed = [index for index in feasible.tolist() if state.infos[index].name not in answers.lost]
    return np.array(passed, np.int64)


def extender_scores(state: ClusterState, feasible: NDArray[np.int64], answers: Answers) -> Ints:
    scores = [answers.scores.get(state.infos[index].name, 0) for index in feasible.tolist()]
    return np.array(scores, np.int64)


def pre_filter(cycle: Cycle) -> Rejected | None:
    for plugin in cycle.framework.plugins.pre_filters:
        rejected = plugin.pre_filter(cycle)
        if rejected is not None:
            return rejected
    return None


def feasible_nodes(framework: Framework, cache: ClassCache, cycle: Cycle) -> NDArray[np.int64]:
    """Indexes of the nodes that pass everything; the nominated node alone when it does."""
    state = framework.state
    nominated = cycle.info.nominated
    if nominated:
        node = state.nodes.get(nominated)
        if node is not None and node.index >= 0 and _allows(framework, cycle, node.index):
            return np.array([node.index], np.int64)
    ok = _passing(framework, cache, cycle)
    indexes = np.flatnonzero(ok)
    if state.nominations and len(indexes):
        indexes = _minding_nominations(framework, cycle, indexes)
    return indexes


def _allows(framework: Framework, cycle: Cycle, index: int) -> bool:
    if outside_of_pre_filter(cycle, index) or first_failure(framework, cycle, index) is not None:
        return False
    return _fits_beside_nominated(framework, cycle, index)


def outside_of_pre_filter(cycle: Cycle, index: int) -> bool:
    pinned = cycle.cls.pinned
    return pinned is not None and cycle.state.infos[index].name not in pinned


def _passing(framework: Framework, cache: ClassCache, cycle: Cycle) -> Bools:
    shape = framework.shape_cache(cycle.cls.shape)
    ok: Bools = shape.ok.copy() if cache.static_ok is None else shape.ok & cache.static_ok
    inside = _inside_pre_filter(cycle)
    if inside is not None:
        ok &= inside
    for plugin in framework.active_filters(cycle):
        if getattr(plugin, "per_node", False):
            there = np.flatnonzero(ok)
            ok[there[_codes_at(plugin, cycle, there) != 0]] = False
        else:
            ok &= plugin.codes(cycle, ALL) == 0
    return ok


def _inside_pre_filter(cycle: Cycle) -> Bools | None:
    pinned = cycle.cls.pinned
    if pinned is None:
        return None
    state = cycle.state
    inside = np.zeros(len(state), np.bool_)
    for name in pinned:
        node = state.nodes.get(name)
        if node is not None and node.index >= 0:
            inside[node.index] = True
    return inside


def first_failure(framework: Framework, cycle: Cycle, index: int) -> tuple[Filter, int] | None:
    """The first filter that turns the pod down on this node, with its code. Reads the state as it is right now."""
    cache = framework.class_cache(cycle.cls)
    rows = slice(index, index + 1)
    for plugin in framework.plugins.filters:
        if hasattr(plugin, "static_codes"):
            codes = framework.static_codes_of(cache, plugin)
            code = codes.item(index) if codes is not None else 0
        elif plugin.active(cycle):
            code = plugin.codes(cycle, rows).item(0)
        else:
            code = 0
        if code:
            return plugin, code
    return None


# --- pods that are nominated to run on a node once its victims are gone ---


def _minding_nominations(framework: Framework, cycle: Cycle, indexes: NDArray[np.int64]) -> NDArray[np.int64]:
    state = cycle.state
    concerned = [state.nodes[name].index for name in state.nominations if name in state.nodes]
    passing = set(indexes.tolist())
    lost = [i for i in concerned if i in passing and not _fits_beside_nominated(framework, cycle, i)]
    return np.setdiff1d(indexes, np.array(lost, np.int64)) if lost else indexes


def nominated_before(framework: Framework, cycle: Cycle, there: Mapping[str, PodInfo]) -> list[PodInfo]:
    """Of the pods nominated to a node those whose room is not this pod's to take."""
    info, tenants = cycle.info, framework.plugins.tenants
    return [
        p
        for p in there.values()
        if p is not info
        and (p.priority >= info.priority or (tenants is not None and tenants.goes_first(cycle, p)))
    ]


def _fits_beside_nominated(framework: Framework, cycle: Cycle, index: int) -> bool:
    """Whether the pod still passes with the nominated pods of at least its priority on the node."""
    state = cycle.state
    there = state.nominations.get(state.infos[index].name)
    if not there:
        return True
    others = nominated_before(framework, cycle, there)
    if not others:
        return True
    with_them = Added(state, others, state.infos[index].name)
    try:
        return first_failure(framework, cycle, index) is None
    finally:
        with_them.undo()


class Added:
    """Pods put on a node for a moment. The arrays are as before after `undo`, so caches need not look again."""

    def __init__(self, state: ClusterState, pods: Sequence[PodInfo], name: str) -> None:
        self._state, self._pods = state, pods
        self._dirty = len(state.dirty)
        self._node = state.nodes[name]
        self._version = self._node.version
        for pod in pods:
            state.add_to_node(pod, name)

    def undo(self) -> None:
        for pod in self._pods:
            self._state.take_from_node(pod)
        del self._state.dirty[self._dirty :]
        self._node.version = self._version


# --- scores ---


def total_scores(framework: Framework, cache: ClassCache, cycle: Cycle, feasible: NDArray[np.int64]) -> Ints:
    shape = framework.shape_cache(cycle.cls.shape)
    offset = cache.offset
    count = len(feasible)
    rows: Any = ALL if count == len(framework.state) else feasible
    totals: Ints = shape.score[rows] + (offset if isinstance(offset, int) else offset[rows])
    for plugin, weight in framework.dynamic_scores(cache):
        scores = plugin.scores(cycle, rows, count)
        if scores is not None:
            totals = totals + weight * scores
    return totals


# --- why not ---


def _fail(
    framework: Framework,
    cycle: Cycle,
    number: int,
    seed: int,
    rejected: Rejected | None = None,
    answers: Answers | None = None,
) -> Decision:
    diagnosis = diagnose(framework, cycle, rejected, answers)
    after = framework.post_filter(framework, cycle, diagnosis, number, seed, answers)
    pre = rejected.text if rejected is not None else ""
    text = texts.fit_error(len(framework.state), diagnosis.histogram, pre, after.reasons)
    return Decision(
        number, seed, "", text=text, diagnosis=diagnosis, nominated=after.nominated, victims=after.victims,
        pdb_violations=after.pdb_violations, cleared=after.cleared, candidates=after.candidates,
        deallocated=after.deallocated,
    )  # fmt: skip


def diagnose(
    framework: Framework, cycle: Cycle, rejected: Rejected | None = None, answers: Answers | None = None
) -> Diagnosis:
    """Each node's first failing filter, counted by reason."""
    state = framework.state
    if rejected is not None:
        hopeless = np.full(len(state), rejected.status == texts.UNRESOLVABLE)
        return Diagnosis({}, (rejected.plugin,), hopeless, rejected)
    histogram: dict[str, int] = {}
    plugins: list[str] = []
    open_nodes = np.ones(len(state), np.bool_)
    unresolvable = np.zeros(len(state), np.bool_)
    inside = _inside_pre_filter(cycle)
    if inside is not None:
        left_out = int(np.count_nonzero(~inside))
        if left_out:
            histogram[texts.outside(["NodeAffinity"])] = left_out
            plugins.append("NodeAffinity")
        unresolvable |= ~inside
        open_nodes &= inside
    for plugin, codes in each_filter(framework, cycle, open_nodes):
        failing = open_nodes & (codes != 0)
        if not failing.any():
            continue
        if plugin.name not in plugins:
            plugins.append(plugin.name)
        _count_reasons(framework, cycle, plugin, codes, failing, histogram)
        final = [code for code, (kind, _) in plugin.reasons.items() if kind == texts.UNRESOLVABLE]
        unresolvable |= failing & np.isin(codes, final)
        open_nodes &= ~failing
    if open_nodes.any():
        _blame_nominated(framework, cycle, open_nodes, histogram, plugins, unresolvable)
    if answers is not None and answers.lost:
        plugins.append(EXTENDER)
        _blame_extenders(state, answers, histogram, unresolvable)
    return Diagnosis(histogram, tuple(plugins), unresolvable)


def each_filter(framework: Framework, cycle: Cycle, open_nodes: Bools) -> Any:
    """(filter, codes on all nodes) in profile order; per-node filters only look at nodes that are still open."""
    cache = framework.class_cache(cycle.cls)
    for plugin in framework.plugins.filters:
        if hasattr(plugin, "static_codes"):
            codes = framework.static_codes_of(cache, plugin)
            if codes is not None:
                yield plugin, codes
        elif plugin.active(cycle):
            yield plugin, _dynamic_codes(plugin, cycle, open_nodes)


def _dynamic_codes(plugin: Any, cycle: Cycle, open_nodes: Bools) -> Codes:
    if not getattr(plugin, "per_node", False):
        found: Codes = plugin.codes(cycle, ALL)
        return found
    codes = np.zeros(len(open_nodes), np.int8)
    there = np.flatnonzero(open_nodes)
    codes[there] = _codes_at(plugin, cycle, there)
    return codes


def _codes_at(plugin: Any, cycle: Cycle, indexes: NDArray[np.int64]) -> Codes:
    """What a filter says of certain nodes: at once, if it can, else of one after the other."""
    together = getattr(plugin, "codes_at", None)
    if together is not None:
        found: Codes = together(cycle, indexes)
        return found
    one_by_one = [plugin.codes(cycle, slice(i, i + 1)).item(0) for i in indexes.tolist()]
    return np.array(one_by_one, np.int8)


def _count_reasons(
    framework: Framework,
    cycle: Cycle,
    plugin: Any,
    codes: Codes,
    failing: Bools,
    histogram: dict[str, int],
) -> None:
    if plugin is framework.plugins.fit:
        counted = [(text, lacking & failing) for text, lacking in plugin.insufficient(cycle, ALL)]
    elif hasattr(plugin, "texts"):
        for index in np.flatnonzero(failing).tolist():
            for text in plugin.texts(cycle, index):
                histogram[text] = histogram.get(text, 0) + 1
        return
    else:
        counted = [(text, failing & (codes == code)) for code, (_, text) in plugin.reasons.items()]
    for text, mask in counted:
        count = int(np.count_nonzero(mask))
        if count:
            histogram[text] = histogram.get(text, 0) + count


def _blame_nominated(
    framework: Framework,
    cycle: Cycle,
    open_nodes: Bools,
    histogram: dict[str, int],
    plugins: list[str],
    unresolvable: Bools,
) -> None:
    """Nodes that fail only with their nominated pods: the reasons are those of the second pass."""
    state = cycle.state
    for index in np.flatnonzero(open_nodes).tolist():
        name = state.infos[index].name
        there = state.nominations.get(name, {})
        others = nominated_before(framework, cycle, there)
        added = Added(state, others, name)
        try:
            failure = first_failure(framework, cycle, index)
            if failure is None:
                continue
            plugin, code = failure
            for text in reason_texts(framework, cycle, plugin, code, index):
                histogram[text] = histogram.get(text, 0) + 1
            if plugin.name not in plugins:
                plugins.append(plugin.name)
            unresolvable[index] = plugin.reasons[code][0] == texts.UNRESOLVABLE
        finally:
            added.undo()


def _blame_extenders(
    state: ClusterState, answers: Answers, histogram: dict[str, int], unresolvable: Bools
) -> None:
    """A node that an extender drops without a word has no reason, and nobody is evicted there."""
    for name, (text, final) in answers.lost.items():
        node = state.nodes.get(name)
        if node is None or node.index < 0:
            continue
        if text:
            histogram[text] = histogram.get(text, 0) + 1
        unresolvable[node.index] = final


def reason_texts(framework: Framework, cycle: Cycle, plugin: Any, code: int, index: int) -> list[str]:
    """Why a filter turns the pod down on one node."""
    if plugin is framework.plugins.fit:
        rows = slice(index, index + 1)
        return [text for text, lacking in plugin.insufficient(cycle, rows) if lacking.item(0)]
    if hasattr(plugin, "texts"):
        found: list[str] = plugin.texts(cycle, index)
        return found
    return [plugin.reasons[code][1]]
