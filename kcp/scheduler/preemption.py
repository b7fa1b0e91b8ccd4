"""Making room: which node loses which pods of lower priority so that this pod fits.

The dry run takes pods off the node's rows in the state itself and puts them back; nothing outside can see it, since
nothing here waits. Source: k8s v1.36 pkg/scheduler/framework/preemption, plugins/defaultpreemption.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from kcp.apis.semantics import pods as pod_facts
from kcp.base.values import frozen
from kcp.machinery import meta
from kcp.machinery.labels import from_label_selector
from kcp.scheduler import cycle as deciding
from kcp.scheduler.cluster_state import ClusterState, NodeInfo
from kcp.scheduler.framework import status as texts
from kcp.scheduler.framework.plugin import Cycle
from kcp.scheduler.framework.runtime import Framework
from kcp.scheduler.pod_class import PodInfo

Json = dict[str, Any]

NAME = "DefaultPreemption"
PREFIX = "preemption: "
NEVER = "not eligible due to preemptionPolicy=Never."
TERMINATING = "not eligible due to a terminating pod on the nominated node."
NO_CANDIDATE = "no candidate node for preemption"
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
    candidates: tuple[Candidate, ...] = ()
    deallocated: str = ""


@attrs.frozen(eq=False)
class Candidate:
    """A node and who must leave it, most important first."""

    index: int
    victims: tuple[PodInfo, ...]
    pdb_violations: int
    rank: tuple[int, int, int, int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        victims = self.victims
        top = victims[0].priority if victims else -(1 << 31)
        total = sum(v.priority + (1 << 31) for v in victims)
        object.__setattr__(self, "rank", (self.pdb_violations, top, total, len(victims)))


MAX_DRY_RUNS = 50_000


@frozen
class PreemptionArgs:
    min_percentage: int = 10
    min_absolute: int = 100


def post_filter(
    framework: Framework,
    cycle: Cycle,
    diagnosis: deciding.Diagnosis,
    number: int,
    seed: int,
    answers: deciding.Answers | None = None,
) -> After:
    """What each post-filter of the profile says, in their order."""
    steps = framework.plugins.post_filters
    reasons: list[str] = []
    freed = ""
    if "DynamicResources" in steps:
        rejected = diagnosis.pre_filter
        if rejected is not None and rejected.plugin != "DynamicResources":
            return After((texts.CLAIM_STATE_NOT_FOUND,))
        devices = framework.plugins.devices
        said, freed = (texts.NO_CLAIMS_TO_DEALLOCATE, "") if devices is None else devices.to_deallocate(cycle)
        reasons.append(said)
    if NAME not in steps:
        return After(tuple(reasons), deallocated=freed)
    after = _preempt(framework, cycle, diagnosis, number, seed, answers)
    if after.victims:
        return attrs.evolve(after, deallocated=freed)
    return attrs.evolve(after, reasons=(*reasons, *after.reasons), deallocated=freed)


def _preempt(
    framework: Framework,
    cycle: Cycle,
    diagnosis: deciding.Diagnosis,
    number: int,
    seed: int,
    answers: deciding.Answers | None,
) -> After:
    why = not_eligible(cycle, diagnosis)
    if why:
        return After((PREFIX + why,))
    candidates, histogram = find_candidates(framework, cycle, diagnosis, number, seed)
    if not candidates:
        text = texts.fit_error(len(framework.state), histogram)
        return After((PREFIX + text,), nominated="")
    if answers is not None and answers.victims is not None:
        candidates = left_by_extenders(framework.state, candidates, answers.victims)
        if not candidates:
            return After((PREFIX + NO_CANDIDATE,))
    best = pick(candidates)
    name = framework.state.infos[best.index].name
    cleared = [
        p for p in framework.state.nominations.get(name, {}).values() if p.priority < cycle.info.priority
    ]
    cleared.sort(key=lambda p: p.key)
    return After((), name, best.victims, best.pdb_violations, tuple(cleared), tuple(candidates))


def left_by_extenders(
    state: ClusterState,
    candidates: Sequence[Candidate],
    victims: Mapping[str, tuple[Sequence[str], int]],
) -> list[Candidate]:
    """The candidates that the extenders left, with the victims that they chose among the pods there."""
    found = []
    for candidate in candidates:
        node = state.infos[candidate.index]
        uids, broken = victims.get(node.name, ((), 0))
        chosen = sorted((node.pods[uid] for uid in uids if uid in node.pods), key=importance)
        if chosen:
            found.append(Candidate(candidate.index, tuple(chosen), broken))
    return found


def not_eligible(cycle: Cycle, diagnosis: deciding.Diagnosis) -> str:
    """Why the pod may not preempt others right now; empty when it may."""
    info, state = cycle.info, cycle.state
    if info.cls.never_preempts:
        return NEVER
    node = state.nodes.get(info.nominated) if info.nominated else None
    if node is None or node.index < 0 or diagnosis.unresolvable[node.index]:
        return ""
    tenants = cycle.framework.plugins.tenants is not None
    if any((tenants or p.priority < info.priority) and is_being_preempted(p.pod) for p in node.pods.values()):
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
    only_room = is_only_about_room(framework, cycle)
    found: list[Candidate] = []
    histogram: dict[str, int] = {}
    without_violation = visited = 0
    for index in potential[offset:] + potential[:offset]:
        visited += 1
        outcome = remembered(framework, cycle, index, budgets, only_room)
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


def is_only_about_room(framework: Framework, cycle: Cycle) -> bool:
    """Whether of all that other pods do only the room they take can keep this pod off a node."""
    plugins = framework.plugins
    if plugins.tenants is not None:
        return False
    dynamic = [p for p in framework.active_filters(cycle) if p.name != "NodePorts"]
    return not dynamic and not cycle.cls.ports and plugins.fit is not None and plugins.fit_filters


def remembered(
    framework: Framework, cycle: Cycle, index: int, budgets: Sequence[tuple[Json, Any]], only_room: bool
) -> Candidate | tuple[str, ...]:
    """The dry run on one node; one that is only about room holds until the node is touched."""
    if not only_room:
        return dry_run(framework, cycle, index, budgets)
    state = framework.state
    node = state.infos[index]
    stamp = (node.version, state.budgets_version, state.epoch)
    key = (node.name, cycle.cls.number)
    known = framework.dry_runs.get(key)
    if known is not None and known[0] == stamp and not node_has(state, cycle.info, node.name):
        found: Candidate | tuple[str, ...] = known[1]
        return found
    outcome = dry_run_of_room(framework, cycle, index, budgets)
    if len(framework.dry_runs) > MAX_DRY_RUNS:
        framework.dry_runs.clear()
    framework.dry_runs[key] = (stamp, outcome)
    return outcome


def node_has(state: ClusterState, info: PodInfo, name: str) -> bool:
    """Whether the pod itself is nominated there, so that what holds for its class need not hold for it."""
    return info.uid in state.nominations.get(name, {})


def dry_run_of_room(
    framework: Framework, cycle: Cycle, index: int, budgets: Sequence[tuple[Json, Any]]
) -> Candidate | tuple[str, ...]:
    """As `dry_run`, in plain arithmetic."""
    state, info = framework.state, cycle.info
    node = state.infos[index]
    lower = sorted((p for p in node.pods.values() if p.priority < info.priority), key=importance)
    if not lower:
        return (texts.NO_VICTIMS,)
    fit = framework.plugins.fit
    wanted = fit.requests(info.cls.shape)
    nominated = [
        p
        for p in state.nominations.get(node.name, {}).values()
        if p is not info and p.priority >= info.priority
    ]
    free = {
        name: (column := state.column(name)).allocatable.item(index) - column.requested.item(index) - amount
        for name, amount in wanted
    }
    places = state.max_pods.item(index) - state.pod_count.item(index) - 1 - len(nominated) + len(lower)
    for pod in lower:
        for name in free:
            free[name] += pod.cls.shape.request(name)
    for pod in nominated:
        for name in free:
            free[name] -= pod.cls.shape.request(name)
    if places < 0 or any(left < 0 for left in free.values()):
        return dry_run(framework, cycle, index, budgets)
    violating, others = split_by_budgets(lower, budgets) if budgets else ([], lower)
    victims: list[PodInfo] = []
    violations = 0
    for number, pod in enumerate((*violating, *others)):
        amounts = [pod.cls.shape.request(name) for name in free]
        if places >= 1 and all(left >= a for left, a in zip(free.values(), amounts, strict=True)):
            places -= 1
            for name, amount in zip(free, amounts, strict=True):
                free[name] -= amount
        else:
            victims.append(pod)
            violations += number < len(violating)
    return Candidate(index, tuple(sorted(victims, key=importance)), violations)


def dry_run(
    framework: Framework, cycle: Cycle, index: int, budgets: Sequence[tuple[Json, Any]]
) -> Candidate | tuple[str, ...]:
    """Take all lower-priority pods off the node, then put back as many as possible, the important ones first.

    Returns the reasons when even without them the pod does not fit.
    """
    state = framework.state
    node = state.infos[index]
    lower = sorted(removable(framework, cycle, node), key=importance)
    if not lower:
        return (texts.NO_VICTIMS,)
    dirty, version = len(state.dirty), node.version
    removed: dict[str, PodInfo] = {}
    try:
        for pod in lower:
            state.take_from_node(pod)
            removed[pod.uid] = pod
        failure = failure_beside_nominated(framework, cycle, index)
        if failure is not None:
            return reasons_beside_nominated(framework, cycle, index)
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
        node.version = version


def removable(framework: Framework, cycle: Cycle, node: NodeInfo) -> list[PodInfo]:
    """The pods that may be evicted for this pod: those of lower priority, unless queues of tenants say otherwise."""
    tenants = framework.plugins.tenants
    if tenants is not None:
        found: list[PodInfo] = tenants.removable(cycle, node)
        return found
    return [p for p in node.pods.values() if p.priority < cycle.info.priority]


def failure_beside_nominated(framework: Framework, cycle: Cycle, index: int) -> Any:
    """The first failing filter, with and without the nominated pods of at least the pod's priority."""
    state = framework.state
    name = state.infos[index].name
    others = deciding.nominated_before(framework, cycle, state.nominations.get(name, {}))
    if others:
        added = deciding.Added(state, others, name)
        try:
            failure = deciding.first_failure(framework, cycle, index)
        finally:
            added.undo()
        if failure is not None:
            return failure
    return deciding.first_failure(framework, cycle, index)


def reasons_beside_nominated(framework: Framework, cycle: Cycle, index: int) -> tuple[str, ...]:
    """The texts of that failure, which with nominated pods on the node can be another one than without."""
    state = framework.state
    name = state.infos[index].name
    others = deciding.nominated_before(framework, cycle, state.nominations.get(name, {}))
    for pods in (others, ()) if others else ((),):
        added = deciding.Added(state, pods, name)
        try:
            failure = deciding.first_failure(framework, cycle, index)
            if failure is not None:
                return tuple(deciding.reason_texts(framework, cycle, failure[0], failure[1], index))
        finally:
            added.undo()
    return ()


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

    lowest = min(c.rank for c in candidates)
    best = [c for c in candidates if c.rank == lowest]
    if len(best) == 1 or not best[0].victims:
        return best[0]
    latest = max(latest_start(c) for c in best)
    return next(c for c in best if latest_start(c) == latest)
