"""Why here, why not there: every node, every plugin, with numbers, for one pod on one state.

The state may be the live one or one folded to any revision; for a pod that runs somewhere the question is put as if it
did not. Nothing is stored for this: it is computed when somebody asks.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np

from kcp.apis.semantics import taints
from kcp.scheduler.cycle import (
    each_filter,
    feasible_nodes,
    outside_of_pre_filter,
    pre_filter,
    reason_texts,
    total_scores,
)
from kcp.scheduler.framework import status as texts
from kcp.scheduler.framework.plugin import Cycle
from kcp.scheduler.framework.runtime import Framework
from kcp.scheduler.pod_class import PodInfo
from kcp.scheduler.terms import Bools, Ints

Json = dict[str, Any]


@attrs.frozen
class Refusal:
    """One filter says no. `unresolvable`: removing pods would not help. `details` has the numbers behind it."""

    plugin: str
    reasons: tuple[str, ...]
    unresolvable: bool
    details: Json


@attrs.frozen
class NodeVerdict:
    """`refusals` of every filter that says no, the decisive one first; `scores` weighted, by plugin, if feasible."""

    node: str
    refusals: tuple[Refusal, ...]
    scores: dict[str, int]
    total: int | None

    @property
    def feasible(self) -> bool:
        return not self.refusals


@attrs.frozen
class Explanation:
    pod: str
    pre_filter: str
    nodes: tuple[NodeVerdict, ...]

    @property
    def best(self) -> tuple[str, ...]:
        """The nodes with the highest total: one of these is taken."""
        totals = [n.total for n in self.nodes if n.total is not None]
        return tuple(n.node for n in self.nodes if totals and n.total == max(totals))


def explain(framework: Framework, info: PodInfo) -> Explanation:
    """The state is the same afterwards."""
    state = framework.state
    state.settle()
    placed = info.node
    dirty = len(state.dirty)
    if placed:
        state.take_from_node(info)
    try:
        return _explain(framework, Cycle(state, info, framework))
    finally:
        if placed:
            state.add_to_node(info, placed)
            del state.dirty[dirty:]
            state.epoch += 1


def _explain(framework: Framework, cycle: Cycle) -> Explanation:
    state, key = framework.state, cycle.info.key
    rejected = pre_filter(cycle)
    if rejected is not None:
        refusal = Refusal(rejected.plugin, (rejected.text,), rejected.status == texts.UNRESOLVABLE, {})
        verdicts = tuple(NodeVerdict(n.name, (refusal,), {}, None) for n in state.infos)
        return Explanation(key, rejected.text, verdicts)
    refusals = _refusals(framework, cycle)
    scores = _scores(framework, cycle)
    verdicts = tuple(
        NodeVerdict(
            node.name,
            tuple(refusals[index]),
            scores.get(index, {}),
            sum(scores[index].values()) if index in scores else None,
        )
        for index, node in enumerate(state.infos)
    )
    return Explanation(key, "", verdicts)


def _refusals(framework: Framework, cycle: Cycle) -> list[list[Refusal]]:
    """By node index: what each filter would say on its own."""
    state = framework.state
    found: list[list[Refusal]] = [[] for _ in state.infos]
    for index in range(len(state)):
        if outside_of_pre_filter(cycle, index):
            found[index].append(Refusal("NodeAffinity", (texts.outside(["NodeAffinity"]),), True, {}))
    everywhere: Bools = np.ones(len(state), np.bool_)
    for plugin, codes in each_filter(framework, cycle, everywhere):
        for index in np.flatnonzero(codes).tolist():
            code = codes.item(index)
            found[index].append(
                Refusal(
                    plugin.name,
                    tuple(reason_texts(framework, cycle, plugin, code, index)),
                    plugin.reasons[code][0] == texts.UNRESOLVABLE,
                    _details(cycle, plugin.name, index),
                )
            )
    return found


def _details(cycle: Cycle, plugin: str, index: int) -> Json:
    state = cycle.state
    node = state.infos[index]
    if plugin == "NodeResourcesFit":
        return {
            "pods": {"running": state.pod_count.item(index), "allowed": state.max_pods.item(index)},
            **{
                name: {
                    "needs": amount,
                    "free": (column := state.column(name)).allocatable.item(index)
                    - column.requested.item(index),
                    "allocatable": column.allocatable.item(index),
                    "held by": sorted(p.key for p in node.pods.values() if p.cls.shape.request(name)),
                }
                for name, amount in cycle.cls.shape.real
            },
        }
    if plugin == "TaintToleration":
        found = taints.find_untolerated(node.taints, cycle.cls.tolerations)
        return {"taint": found} if found is not None else {}
    return {}


def _scores(framework: Framework, cycle: Cycle) -> dict[int, dict[str, int]]:
    """Node index -> weighted scores by plugin, for feasible nodes."""
    cache = framework.class_cache(cycle.cls)
    feasible = feasible_nodes(framework, cache, cycle)
    if not len(feasible):
        return {}
    totals = total_scores(framework, cache, cycle, feasible)
    parts: dict[int, dict[str, int]] = {index: {} for index in feasible.tolist()}
    for plugin, weight in framework.plugins.scores:
        static = getattr(plugin, "static_score", None)
        score: Any = static(framework, cycle.cls) if static is not None else None
        if score is not None:
            values = [weight * int(score if isinstance(score, int) else score[i]) for i in feasible.tolist()]
        elif hasattr(plugin, "scores"):
            given = plugin.scores(cycle, feasible, len(feasible))
            values = [weight * int(v) for v in given] if given is not None else [0] * len(feasible)
        else:
            continue
        for index, value in zip(feasible.tolist(), values, strict=True):
            parts[index][plugin.name] = value
    balance = _balance(framework, cycle)
    for position, index in enumerate(feasible.tolist()):
        fit = int(totals[position]) - sum(parts[index].values()) - balance.item(index)
        parts[index]["NodeResourcesFit"] = fit
        parts[index]["NodeResourcesBalancedAllocation"] = balance.item(index)
    return parts


def _balance(framework: Framework, cycle: Cycle) -> Ints:
    """The weighted score of balanced allocation alone, by node index; deciding keeps it in one sum with that of the fit."""
    plugins = framework.plugins
    alone = plugins.shape_cache(cycle.cls.shape, None, False, 0, plugins.balanced, plugins.balanced_weight)
    alone.refresh(framework.state)
    score: Ints = alone.score
    return score
