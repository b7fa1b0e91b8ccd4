"""Why here, why not there: every node, every plugin, with numbers, for one pod on one state.

The state may be the live one or one folded to any revision; for a pod that runs somewhere the question is put as if it
did not. Nothing is stored for this: it is computed when somebody asks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcp.base.values import frozen
from kcp.scheduler.cycle import (
    Answers,
    each_filter,
    enough,
    feasible_nodes,
    outside_of_pre_filter,
    pre_filter,
    reason_texts,
    total_scores,
)
from kcp.scheduler.extender import NAME as EXTENDER
from kcp.scheduler.framework import status as texts
from kcp.scheduler.framework.plugin import Cycle
from kcp.scheduler.framework.runtime import Framework
from kcp.scheduler.pod_class import PodInfo
from kcp.scheduler.refusals import numbers
from kcp.scheduler.terms import Bools, Ints

Json = dict[str, Any]


@frozen
class Refusal:
    """One filter says no. `unresolvable`: removing pods would not help. `details` has the numbers behind it."""

    plugin: str
    reasons: tuple[str, ...]
    unresolvable: bool
    details: Json


@frozen
class NodeVerdict:
    """`refusals` of every filter that says no, the decisive one first; `scores` weighted, by plugin, if feasible."""

    node: str
    refusals: tuple[Refusal, ...]
    scores: dict[str, int]
    total: int | None

    @property
    def feasible(self) -> bool:
        return not self.refusals


@frozen
class Draw:
    """The cycle and the seed of a decision: they choose among ties, and the nodes that are enough to be scored."""

    cycle: int
    seed: int


@frozen
class Explanation:
    """`enough`: so many feasible nodes were scored and the others left aside; 0 when all were scored."""

    pod: str
    pre_filter: str
    nodes: tuple[NodeVerdict, ...]
    enough: int = 0

    @property
    def best(self) -> tuple[str, ...]:
        """The nodes with the highest total: one of these is taken."""
        totals = [n.total for n in self.nodes if n.total is not None]
        return tuple(n.node for n in self.nodes if totals and n.total == max(totals))


def explain(
    framework: Framework, info: PodInfo, *, answers: Answers | None = None, draw: Draw | None = None
) -> Explanation:
    """The state is the same afterwards. `answers` are those of extenders, `draw` is that of the decision asked about."""
    state = framework.state
    state.settle()
    placed = info.node
    dirty = len(state.dirty)
    if placed:
        state.take_from_node(info)
    try:
        return _explain(framework, Cycle(state, info, framework), answers or Answers(), draw)
    finally:
        if placed:
            state.add_to_node(info, placed)
            del state.dirty[dirty:]
            state.epoch += 1


def _explain(framework: Framework, cycle: Cycle, answers: Answers, draw: Draw | None) -> Explanation:
    state, key = framework.state, cycle.info.key
    rejected = pre_filter(cycle)
    if rejected is not None:
        refusal = Refusal(rejected.plugin, (rejected.text,), rejected.status == texts.UNRESOLVABLE, {})
        verdicts = tuple(NodeVerdict(n.name, (refusal,), {}, None) for n in state.infos)
        return Explanation(key, rejected.text, verdicts)
    refusals = _refusals(framework, cycle)
    for index, node in enumerate(state.infos):
        if node.name in answers.lost and not refusals[index]:
            text, final = answers.lost[node.name]
            refusals[index].append(Refusal(EXTENDER, (text,) if text else (), final, {}))
    feasible, left_aside = _scored_nodes(framework, cycle, answers, draw)
    scores = _scores(framework, cycle, answers, feasible)
    verdicts = tuple(
        NodeVerdict(
            node.name,
            tuple(refusals[index]),
            scores.get(index, {}),
            sum(scores[index].values()) if index in scores else None,
        )
        for index, node in enumerate(state.infos)
    )
    return Explanation(key, "", verdicts, len(scores) if left_aside else 0)


def _refusals(framework: Framework, cycle: Cycle) -> list[list[Refusal]]:
    """By node index: what each filter would say on its own."""
    state = framework.state
    found: list[list[Refusal]] = [[] for _ in state.infos]
    for index in range(len(state)):
        if outside_of_pre_filter(cycle, index):
            names = {"names": list(cycle.cls.pinned or ())}
            found[index].append(Refusal("NodeAffinity", (texts.outside(["NodeAffinity"]),), True, names))
    everywhere: Bools = np.ones(len(state), np.bool_)
    for plugin, codes in each_filter(framework, cycle, everywhere):
        for index in np.flatnonzero(codes).tolist():
            code = codes.item(index)
            found[index].append(
                Refusal(
                    plugin.name,
                    tuple(reason_texts(framework, cycle, plugin, code, index)),
                    plugin.reasons[code][0] == texts.UNRESOLVABLE,
                    numbers(cycle, plugin, index),
                )
            )
    return found


def _scored_nodes(
    framework: Framework, cycle: Cycle, answers: Answers, draw: Draw | None
) -> tuple[NDArray[np.int64], bool]:
    """(indexes of the feasible nodes that are scored, whether others are left aside since these are enough)."""
    state = framework.state
    feasible = feasible_nodes(framework, framework.class_cache(cycle.cls), cycle)
    kept = [index for index in feasible.tolist() if state.infos[index].name not in answers.lost]
    feasible = np.array(kept, np.int64)
    if draw is None:
        return feasible, False
    scored = enough(framework, feasible, draw.cycle, draw.seed)
    return scored, len(scored) < len(feasible)


def _scores(
    framework: Framework, cycle: Cycle, answers: Answers, feasible: NDArray[np.int64]
) -> dict[int, dict[str, int]]:
    """Node index -> weighted scores by plugin."""
    state, cache = framework.state, framework.class_cache(cycle.cls)
    if not len(feasible):
        return {}
    totals = total_scores(framework, cache, cycle, feasible)
    parts: dict[int, dict[str, int]] = {index: {} for index in feasible.tolist()}
    for plugin, weight in framework.plugins.scores:
        for index, value in zip(parts, _weighted(framework, cycle, plugin, weight, feasible), strict=True):
            parts[index][plugin.name] = value
    _add_resources(framework, cycle, parts, totals)
    for index, scores in parts.items():
        extended = answers.scores.get(state.infos[index].name, 0)
        if extended:
            scores[EXTENDER] = extended
    return parts


def _weighted(framework: Framework, cycle: Cycle, plugin: Any, weight: int, feasible: Any) -> list[int]:
    """What a plugin other than those of resources gives to each feasible node."""
    static = getattr(plugin, "static_score", None)
    score: Any = static(framework, cycle.cls) if static is not None else None
    if score is not None:
        return [weight * int(score if isinstance(score, int) else score[i]) for i in feasible.tolist()]
    given = plugin.scores(cycle, feasible, len(feasible)) if hasattr(plugin, "scores") else None
    return [weight * int(v) for v in given] if given is not None else [0] * len(feasible)


def _add_resources(
    framework: Framework, cycle: Cycle, parts: dict[int, dict[str, int]], totals: Ints
) -> None:
    """The scores of resources: deciding keeps them in one sum, so that of the fit is what remains."""
    plugins, balance = framework.plugins, _balance(framework, cycle)
    for position, (index, scores) in enumerate(parts.items()):
        rest = int(totals[position]) - sum(scores.values())
        rest -= plugins.base_score + balance.item(index)
        if plugins.fit_weight:
            scores["NodeResourcesFit"] = rest
        if plugins.balanced_weight:
            scores["NodeResourcesBalancedAllocation"] = balance.item(index)
        if plugins.base_score:
            scores["every node"] = plugins.base_score


def _balance(framework: Framework, cycle: Cycle) -> Ints:
    """The weighted score of balanced allocation alone, by node index; deciding keeps it in one sum with that of the fit."""
    plugins = framework.plugins
    alone = plugins.shape_cache(cycle.cls.shape, None, False, 0, plugins.balanced, plugins.balanced_weight)
    alone.refresh(framework.state)
    score: Ints = alone.score
    return score
