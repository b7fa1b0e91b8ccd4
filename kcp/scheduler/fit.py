"""How many more pods like this one a state has room for, on which nodes, and what stops the next one.

    found = fit(framework, pod, cycle=813, seed=1)
    found.count, found.placed["n-7"], found.text

Each pod is decided and counted before the next one is decided, as the scheduler would. Where nothing but room can keep
the pod off a node the order does not matter, and all of them are counted at once:

    on each node   min(free // requested over what is requested, places for pods)

Nobody is evicted for the sake of a pod that is only asked about.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import attrs
import numpy as np

from kcp.base.values import frozen
from kcp.machinery import meta
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.cycle import Decision, decide, pre_filter
from kcp.scheduler.dra.extended import is_special_key
from kcp.scheduler.explain import NodeVerdict, explain
from kcp.scheduler.framework.plugin import Cycle
from kcp.scheduler.framework.runtime import Framework
from kcp.scheduler.pod_class import PodClass, PodInfo
from kcp.scheduler.preemption import is_only_about_room
from kcp.scheduler.terms import Ints

Json = dict[str, Any]


@frozen
class Fit:
    """`placed` has every node by name, those without one of these pods too.

    `text` is what the scheduler would say of the next pod, `histogram` counts its reasons, `verdicts` has each node's
    refusals of it; all are empty when it was not tried since `most` were enough. `victims` are pods that would be evicted
    to make room for it.
    """

    placed: Mapping[str, int]
    text: str = ""
    histogram: Mapping[str, int] = attrs.field(factory=dict)
    verdicts: tuple[NodeVerdict, ...] = ()
    nominated: str = ""
    victims: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return sum(self.placed.values())

    @property
    def complete(self) -> bool:
        """Whether one more does not fit."""
        return bool(self.text)


def fit(framework: Framework, pod: Json, *, cycle: int, seed: int, most: int | None = None) -> Fit:
    """Fill the state with copies of `pod`, which is not in it, until one does not fit or `most` do; then take them out.

    `cycle` is the number of the first attempt: ties are broken as a scheduler with this seed would from there on.
    """
    state = framework.state
    state.settle()
    placed = {info.name: 0 for info in state.infos}
    with ExitStack() as stack:
        asked = stack.enter_context(_one_more(state, pod, 1))
        counts = _by_room(framework, asked)
        if counts is not None and (most is None or counts.sum() <= most):
            stack.enter_context(_filled(state, asked.cls, counts))
            placed.update(zip(placed, counts.tolist(), strict=True))
            return _stopped(framework, asked, placed, cycle + int(counts.sum()), seed)
        while True:
            decision = decide(framework, asked, cycle=cycle, seed=seed)
            if not decision.node:
                return _stopped(framework, asked, placed, cycle, seed, decision)
            state.assume(asked.uid, decision.node)
            stack.enter_context(_devices_taken(state, asked.uid, decision))
            placed[decision.node] += 1
            cycle += 1
            if sum(placed.values()) == most:
                return Fit(placed)
            asked = stack.enter_context(_one_more(state, pod, sum(placed.values()) + 1))


@contextmanager
def _one_more(state: ClusterState, pod: Json, number: int) -> Iterator[PodInfo]:
    """A pod of its own, called after the one asked about with `+1`, `+2` …, until it is taken away."""
    metadata = pod["metadata"]
    name = f"{metadata['name']}+{number}"
    uid = f"{meta.namespace(pod)}/{name}"
    copy = {**pod, "metadata": {**metadata, "name": name, "uid": uid}}
    state.apply("pods", None, copy)
    try:
        yield state.pods[uid]
    finally:
        state.apply("pods", copy, None)


@contextmanager
def _devices_taken(state: ClusterState, uid: str, decision: Decision) -> Iterator[None]:
    """Those of extended resources: every copy has a claim of its own for them."""
    taken = {key: found for key, found in decision.allocations.items() if is_special_key(key)}
    state.devices.take(uid, taken)
    try:
        yield
    finally:
        for key in taken:
            state.devices.give_back(key)


def _by_room(framework: Framework, asked: PodInfo) -> Ints | None:
    """How many fit on each node, by node index; None where something else than room may matter."""
    state, cycle = framework.state, Cycle(framework.state, asked, framework)
    if not len(state) or framework.per_pod or state.nominations or asked.volumes or asked.cls.pinned:
        return None
    if not is_only_about_room(framework, cycle) or pre_filter(cycle) is not None:
        return None
    counts: Ints = state.max_pods - state.pod_count
    for resource, amount in framework.plugins.fit.requests(asked.cls.shape):
        column = state.column(resource)
        counts = np.minimum(counts, (column.allocatable - column.requested) // amount)
    counts = np.maximum(counts, 0)
    allowed = framework.class_cache(asked.cls).static_ok
    if allowed is not None:
        counts = counts * allowed
    return counts


@contextmanager
def _filled(state: ClusterState, cls: PodClass, counts: Ints) -> Iterator[None]:
    """The state with so many pods of a class more on each node, as far as the arrays tell."""
    _count(state, cls, counts)
    try:
        yield
    finally:
        _count(state, cls, -counts)


def _count(state: ClusterState, cls: PodClass, counts: Ints) -> None:
    shape = cls.shape
    for resource, amount in shape.real:
        state.column(resource).requested += amount * counts
    state.scored_cpu += shape.cpu * counts
    state.scored_memory += shape.memory * counts
    state.pod_count += counts
    for counter, weight in cls.weights:
        for index in np.flatnonzero(counts).tolist():
            counter.add(index, weight * counts.item(index))
    state.epoch += 1


def _stopped(
    framework: Framework,
    asked: PodInfo,
    placed: Mapping[str, int],
    cycle: int,
    seed: int,
    decision: Decision | None = None,
) -> Fit:
    """The pod that does not fit, taken apart."""
    last = decision or decide(framework, asked, cycle=cycle, seed=seed)
    assert not last.node, "a node that is full by its numbers takes no pod"
    verdicts = explain(framework, asked).nodes
    histogram = last.diagnosis.histogram if last.diagnosis is not None else {}
    victims = tuple(victim.key for victim in last.victims)
    return Fit(placed, last.text, histogram, verdicts, last.nominated or "", victims)
