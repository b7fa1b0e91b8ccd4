"""Making room: which node loses which pods of lower priority so that this pod fits.

The dry run takes pods off the node's rows in the state itself and puts them back; nothing outside can see it, since
nothing here waits. Source: k8s v1.36 pkg/scheduler/framework/preemption, plugins/defaultpreemption.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

from kcp.apis.semantics import pods as pod_facts
from kcp.machinery import meta
from kcp.machinery.labels import from_label_selector
from kcp.scheduler import cycle as deciding
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.framework import status as texts
from kcp.scheduler.framework.plugin import Cycle
from kcp.scheduler.framework.runtime import Framework
from kcp.scheduler.pod_class import PodInfo

Json = dict[str, Any]

PREFIX = "preemption: "
NEVER = "not eligible due to preemptionPolicy=Never."
TERMINATING = "not eligible due to a terminating pod on the nominated node."
DISRUPTED_REASON = "PreemptionByScheduler"
OFFSET_STREAM = 0x70726565
"""Mixed into the seed for the place where candidates are looked at first."""


@attrs.frozen(eq=False)
class After:
    """What the post-filters found. `nominated` None leaves the pod's nomination as it is, "" withdraws it."""

    reasons: tuple[str, ...] = ()
    nominated: str | None = None
    victims: tuple[PodInfo, ...] = ()
    pdb_violations: int = 0
    cleared: tuple[PodInfo, ...] = ()


@attrs.frozen(eq=False)
class Candidate:
    """A node and who must leave it, most important first."""

    index: int
    victims: tuple[PodInfo, ...]
    pdb_violations: int


@attrs.frozen
class PreemptionArgs:
    min_percentage: int = 10
    min_absolute: int = 100


def post_filter(
    framework: Framework, cycle: Cycle, diagnosis: deciding.Diagnosis, number: int, seed: int
) -> After:
    steps = framework.plugins.post_filters
    reasons: list[str] = []
    if "DynamicResources" in steps:
        if diagnosis.pre_filter is not None:
            return After((texts.CLAIM_STATE_NOT_FOUND,))
        reasons.append(texts.NO_CLAIMS_TO_DEALLOCATE)
    if "DefaultPreemption" not in steps:
        return After(tuple(reasons))
    why = not_eligible(cycle, diagnosis)
    if why:
        return After((*reasons, PREFIX + why))
    candidates, histogram = find_candidates(framework, cycle, diagnosis, number, seed)
    if not candidates:
        text = texts.fit_error(len(framework.state), histogram)
        return After((*reasons, PREFIX + text), nominated="")
    best = pick(candidates)
    name = framework.state.infos[best.index].name
    cleared = [
        p for p in framework.state.nominations.get(name, {}).values() if p.priority < cycle.info.priority
    ]
    cleared.sort(key=lambda p: p.key)
    return After((), name, best.victims, best.pdb_violations, tuple(cleared))


def not_eligible(cycle: Cycle, diagnosis: deciding.Diagnosis) -> str:
    """Why the pod may not preempt others right now; empty when it may."""
    info, state = cycle.info, cycle.state
    if info.cls.never_preempts:
        return NEVER
    node = state.nodes.get(info.nominated) if info.nominated else None
    if node is None or node.index < 0 or diagnosis.unresolvable[node.index]:
        return ""
    if any(p.priority < info.priority and is_being_preempted(p.pod) for p in node.pods.values()):
        return TERMINATING
    return ""


def is_being_preempted(pod: Json) -> bool:
    if "deletionTimestamp" not in pod["metadata"]:
        return False
    condition = pod_facts.condition(pod, "DisruptionTarget")
    return (
        condition is not None
        and condition.get("status") == "True"
        and condition.get("reason") == DISRUPTED_REASON
    )


def find_candidates(
    framework: Framework, cycle: Cycle, diagnosis: deciding.Diagnosis, number: int, seed: int
) -> tuple[list[Candidate], dict[str, int]]:
    """Candidates in the order in which they were found, and the reasons of all nodes that are none."""
    state = framework.state
    potential = np.flatnonzero(~diagnosis.unresolvable).tolist()
    if not potential:
        return [], {texts.NOT_HELPFUL: len(state)}
    args = framework.preemption
    wanted = max(len(potential) * args.min_percentage // 100, args.min_absolute)
    wanted = min(wanted, len(potential))
    offset = deciding.splitmix64(seed ^ OFFSET_STREAM, number) % len(potential)
    budgets = disruption_budgets(state)
    found: list[Candidate] = []
    histogram: dict[str, int] = {}
    without_violation = visited = 0
    for index in potential[offset:] + potential[:offset]:
        visited += 1
        outcome = dry_run(framework, cycle, index, budgets)
        if isinstance(outcome, Candidate):
            found.append(outcome)
            without_violation += outcome.pdb_violations == 0
            if without_violation and len(found) >= wanted:
                break
        else:
            for text in outcome:
                histogram[text] = histogram.get(text, 0) + 1
    if len(state) > visited:
        histogram[texts.NOT_HELPFUL] = len(state) - visited
    return found, histogram


def disruption_budgets(state: ClusterState) -> list[tuple[Json, Any]]:
    """(budget, selector) in the order of their keys; those that select nothing are left out."""
    budgets = state.objects["poddisruptionbudgets.policy"]
    found = []
    for key in sorted(budgets):
        selector = from_label_selector((budgets[key].get("spec") or {}).get("selector"))
        if not selector.empty and not selector.nothing:
            found.append((budgets[key], selector))
    return found


def importance(pod: PodInfo) -> tuple[int, str, str]:
    """Sorts the most important first: higher priority, then earlier start."""
    return -pod.priority, pod.start_time, pod.key


def dry_run(
    framework: Framework, cycle: Cycle, index: int, budgets: Sequence[tuple[Json, Any]]
) -> Candidate | list[str]:
    """Take all lower-priority pods off the node, then put back as many as possible, the important ones first.

    Returns the reasons when even without them the pod does not fit.
    """
    state, info = framework.state, cycle.info
    node = state.infos[index]
    lower = sorted((p for p in node.pods.values() if p.priority < info.priority), key=importance)
    if not lower:
        return [texts.NO_VICTIMS]
    dirty = len(state.dirty)
    removed: dict[str, PodInfo] = {}
    try:
        for pod in lower:
            state.take_from_node(pod)
            removed[pod.uid] = pod
        failure = failure_beside_nominated(framework, cycle, index)
        if failure is not None:
            return deciding.reason_texts(framework, cycle, failure[0], failure[1], index)
        violating, others = split_by_budgets(lower, budgets)
        violations = 0
        for pod in (*violating, *others):
            state.add_to_node(pod, node.name)
            if failure_beside_nominated(framework, cycle, index) is None:
                del removed[pod.uid]
                continue
            state.take_from_node(pod)
            violations += pod in violating
        return Candidate(index, tuple(sorted(removed.values(), key=importance)), violations)
    finally:
        for pod in removed.values():
            state.add_to_node(pod, node.name)
        del state.dirty[dirty:]


def failure_beside_nominated(framework: Framework, cycle: Cycle, index: int) -> Any:
    """The first failing filter, with and without the nominated pods of at least the pod's priority."""
    state = framework.state
    name = state.infos[index].name
    others = [
        p
        for p in state.nominations.get(name, {}).values()
        if p is not cycle.info and p.priority >= cycle.info.priority
    ]
    if others:
        added = deciding.Added(state, others, name)
        try:
            failure = deciding.first_failure(framework, cycle, index)
        finally:
            added.undo()
        if failure is not None:
            return failure
    return deciding.first_failure(framework, cycle, index)


def split_by_budgets(
    pods: Sequence[PodInfo], budgets: Sequence[tuple[Json, Any]]
) -> tuple[list[PodInfo], list[PodInfo]]:
    """(those whose eviction would break a budget, the others). Earlier pods use a budget up first."""
    left = [int((budget.get("status") or {}).get("disruptionsAllowed") or 0) for budget, _ in budgets]
    violating: list[PodInfo] = []
    fine: list[PodInfo] = []
    for pod in pods:
        broken = False
        for number, (budget, selector) in enumerate(budgets):
            if not _covers(budget, selector, pod):
                continue
            left[number] -= 1
            broken = broken or left[number] < 0
        (violating if broken else fine).append(pod)
    return violating, fine


def _covers(budget: Json, selector: Any, pod: PodInfo) -> bool:
    labels = pod.cls.labels
    if not labels or meta.namespace(budget) != pod.cls.namespace or not selector.matches(labels):
        return False
    return meta.name(pod.pod) not in ((budget.get("status") or {}).get("disruptedPods") or {})


def pick(candidates: Sequence[Candidate]) -> Candidate:
    """Fewest broken budgets; lowest highest priority; lowest sum; fewest victims; latest start; first found."""

    def latest_start(candidate: Candidate) -> str:
        top = candidate.victims[0].priority
        return min(v.start_time for v in candidate.victims if v.priority == top)

    def key(candidate: Candidate) -> tuple[int, int, int, int]:
        victims = candidate.victims
        if not victims:
            return (candidate.pdb_violations, -(1 << 31), 0, 0)
        total = sum(v.priority + (1 << 31) for v in victims)
        return (candidate.pdb_violations, victims[0].priority, total, len(victims))

    best_key = min(key(c) for c in candidates)
    best = [c for c in candidates if key(c) == best_key]
    if len(best) == 1 or not best[0].victims:
        return best[0]
    latest = max(latest_start(c) for c in best)
    return next(c for c in best if latest_start(c) == latest)
