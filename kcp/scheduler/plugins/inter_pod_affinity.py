"""Affinity and anti-affinity between pods, in both directions.

Source: k8s v1.36 pkg/scheduler/framework/plugins/interpodaffinity/{filtering,scoring}.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from kcp.scheduler.framework.plugin import MAX_SCORE, Codes, Cycle, Reasons, Rows, how_many
from kcp.scheduler.framework.status import UNRESOLVABLE, UNSCHEDULABLE
from kcp.scheduler.pod_class import PodClass
from kcp.scheduler.terms import Bools, Counter, Ints, Sums, Term

DEFAULT_HARD_WEIGHT = 1


class InterPodAffinity:
    name = "InterPodAffinity"
    reasons: ClassVar[Reasons] = {
        1: (UNRESOLVABLE, "node(s) didn't match pod affinity rules"),
        2: (UNSCHEDULABLE, "node(s) didn't match pod anti-affinity rules"),
        3: (UNSCHEDULABLE, "node(s) didn't satisfy existing pods anti-affinity rules"),
    }

    def __init__(self, args: Mapping[str, Any]) -> None:
        weight = args.get("hardPodAffinityWeight")
        self._hard_weight = DEFAULT_HARD_WEIGHT if weight is None else int(weight)
        self._ignores_existing = bool(args.get("ignorePreferredTermsOfExistingPods"))

    def active(self, cycle: Cycle) -> bool:
        cls = cycle.cls
        return bool(cls.required or cls.required_anti) or _is_repelled(cls)

    def codes(self, cycle: Cycle, rows: Rows) -> Codes:
        cls = cycle.cls
        codes = np.zeros(how_many(cycle.state, rows), np.int8)
        for failing, code in (
            (_repelled_by_others(cycle, rows), 3),
            (_near_what_it_avoids(cycle, rows), 2),
            (_far_from_what_it_needs(cycle, rows) if cls.required else None, 1),
        ):
            if failing is not None:
                codes[failing] = code
        return codes

    def scores_active(self, cls: PodClass) -> bool:
        """Whether any raw score can differ from 0."""
        if cls.preferred:
            return True
        if self._ignores_existing:
            return False
        return any(self._weight(kind) and counter.total for _, kind, counter in cls.symmetric)

    def _weight(self, kind: str) -> int:
        return {"preferred": 1, "hard": self._hard_weight, "anti": 0}[kind]

    def scores(self, cycle: Cycle, feasible: Rows, count: int) -> Ints | None:
        cls = cycle.cls
        if not self.scores_active(cls):
            return None
        raw = np.zeros(count, np.int64)
        for term, weight in cls.preferred:
            counter = cycle.state.matching_all((term.matcher,))
            if counter.node.any():
                raw += weight * _summed(cycle, counter, term.key).of_nodes(feasible)
        for term, kind, counter in cls.symmetric:
            factor = self._weight(kind)
            if factor:
                raw += factor * _summed(cycle, counter, term.key).of_nodes(feasible)
        lowest, highest = int(raw.min()), int(raw.max())
        if lowest == highest:
            return np.zeros(count, np.int64)
        scaled: Ints = (MAX_SCORE * ((raw - lowest) / float(highest - lowest))).astype(np.int64)
        return scaled


def _is_repelled(cls: PodClass) -> bool:
    return any(kind == "anti" and counter.total for _, kind, counter in cls.symmetric)


def _summed(cycle: Cycle, counter: Counter, key: str) -> Sums:
    return counter.summed(key, cycle.state.domains(key))


def _repelled_by_others(cycle: Cycle, rows: Rows) -> Bools | None:
    """Nodes in a domain with a pod whose required anti-affinity matches this one."""
    failing: Bools | None = None
    for term, kind, counter in cycle.cls.symmetric:
        if kind != "anti" or not counter.total:
            continue
        there = _summed(cycle, counter, term.key).of_nodes(rows) > 0
        failing = there if failing is None else failing | there
    return failing


def _near_what_it_avoids(cycle: Cycle, rows: Rows) -> Bools | None:
    failing: Bools | None = None
    for term in cycle.cls.required_anti:
        counter = cycle.state.matching_all((term.matcher,))
        there = _summed(cycle, counter, term.key).of_nodes(rows) > 0
        failing = there if failing is None else failing | there
    return failing


def _far_from_what_it_needs(cycle: Cycle, rows: Rows) -> Bools:
    """A pod counts only if it matches all required terms; then it counts for each term's key.

    When there is no such pod anywhere and the pod matches its own terms, it may be the first on any node with the keys.
    """
    state, cls = cycle.state, cycle.cls
    matchers = tuple(term.matcher for term in cls.required)
    counter = state.matching_all(matchers)
    sums = [_summed(cycle, counter, term.key) for term in cls.required]
    lacking: Bools = np.zeros(how_many(state, rows), np.bool_)
    for each in sums:
        lacking |= each.domains.ids[rows] == each.domains.count
    if not any(each.counts.any() for each in sums) and _matches_itself(cycle, cls.required):
        return lacking
    failing = lacking
    for each in sums:
        failing = failing | (each.of_nodes(rows) <= 0)
    return failing


def _matches_itself(cycle: Cycle, terms: tuple[Term, ...]) -> bool:
    cls = cycle.cls
    labels = cycle.state.namespace_labels(cls.namespace)
    return all(term.matcher.matches(cls.namespace, cls.labels, labels) for term in terms)
