"""The slow scheduler's way to make room: every node, every order of events, one pod after the other. Part of the oracle.

Source of the rules: k8s v1.36 pkg/scheduler/framework/preemption, plugins/defaultpreemption.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from kcp.apis.semantics import pods
from kcp.base.values import frozen
from kcp.machinery.labels import from_label_selector
from kcp.scheduler import reference, reference_devices
from kcp.scheduler.reference import Verdict, draw, first_failure, is_left_to_devices
from kcp.scheduler.reference_world import World, allocatable, labels_of, name_of, pods_on

Json = dict[str, Any]

PREEMPTION_STREAM = 0x70726565
HOPELESS = (
    "node(s) were unschedulable",
    "node(s) had untolerated taint(s)",
    "node(s) didn't match Pod's node affinity/selector",
    "node(s) didn't satisfy plugin(s) [NodeAffinity]",
    "node(s) didn't match pod topology spread constraints (missing required label)",
    "node(s) didn't match pod affinity rules",
    "node(s) had no available volume zone",
    "node(s) didn't match PersistentVolume's node affinity",
    "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
    "cannot allocate all claims",
    "resourceclaim not available on the node",
    "invalid resource pools were encountered",
    "node(s) didn't match Pod's required features",
)
"""Reasons that no removal of pods mends."""


@frozen
class Room:
    """A node on which these pods would have to go, most important first."""

    node: str
    victims: tuple[Json, ...]
    violations: int

    def rank(self) -> tuple[int, int, int, int]:
        """Less is better: broken budgets, the highest priority, the sum of priorities, the number of victims."""
        priorities = [pods.priority(victim) for victim in self.victims]
        total = sum(priority + 2**31 for priority in priorities)
        return self.violations, max(priorities, default=-(2**31)), total, len(priorities)

    def started(self) -> str:
        """When the first of its most important victims started."""
        top = max(pods.priority(victim) for victim in self.victims)
        return min(_start(victim) for victim in self.victims if pods.priority(victim) == top)


def _start(pod: Json) -> str:
    return (pod.get("status") or {}).get("startTime") or "~"


def _importance(pod: Json) -> tuple[int, str, str]:
    metadata = pod["metadata"]
    return -pods.priority(pod), _start(pod), f"{metadata['namespace']}/{metadata['name']}"


def _histogram(all_reasons: Sequence[str]) -> str:
    counted = [f"{all_reasons.count(reason)} {reason}" for reason in set(all_reasons)]
    return " " + ", ".join(sorted(counted)) + "." if counted else ""


def decide(world: World, pod: Json, *, cycle: int, seed: int) -> Verdict:
    """As `reference.decide`, and what comes of it when no node takes the pod."""
    verdict = reference.decide(world, pod, cycle=cycle, seed=seed)
    return verdict if verdict.node else make_room(world, pod, verdict, cycle, seed)


def make_room(world: World, pod: Json, verdict: Verdict, cycle: int, seed: int) -> Verdict:
    if not world.nodes:
        return attrs.evolve(verdict, text="no nodes available to schedule pods")
    head = f"0/{len(world.nodes)} nodes are available:"
    reasons = [reason for _, every in verdict.failures.values() for reason in every]
    claims = reference_devices.post_filter(world.devices, pod, world.nodes, verdict.failures)
    text = f"{head}{_histogram(reasons)} {claims}, preemption: "
    if pod["spec"].get("preemptionPolicy") == "Never":
        return attrs.evolve(verdict, text=f"{text}not eligible due to preemptionPolicy=Never.")
    rooms, why_not = _rooms(world, pod, verdict, cycle, seed)
    if not rooms:
        return attrs.evolve(verdict, text=f"{text}{head}{_histogram(why_not)}")
    best = _best(rooms)
    victims = tuple(victim["metadata"]["uid"] for victim in best.victims)
    return attrs.evolve(
        verdict,
        nominated=best.node,
        victims=victims,
        pdb_violations=best.violations,
        text=f"{head}{_histogram(reasons)}",
    )


def _rooms(world: World, pod: Json, verdict: Verdict, cycle: int, seed: int) -> tuple[list[Room], list[str]]:
    """Where room can be made, in the order of the search, and why not elsewhere."""
    there = [node for node in sorted(world.nodes, key=name_of) if not _is_hopeless(world, pod, node, verdict)]
    not_helpful = "Preemption is not helpful for scheduling"
    if not there:
        return [], [not_helpful] * len(world.nodes)
    wanted = min(max(len(there) * 10 // 100, 100), len(there))
    first = draw(seed ^ PREEMPTION_STREAM, cycle) % len(there)
    rooms: list[Room] = []
    why_not: list[str] = []
    visited = 0
    for node in there[first:] + there[:first]:
        visited += 1
        found = _room_on(world, pod, node)
        if isinstance(found, Room):
            rooms.append(found)
            if len(rooms) >= wanted and any(not room.violations for room in rooms):
                break
        else:
            why_not += found
    return rooms, why_not + [not_helpful] * (len(world.nodes) - visited)


def _is_hopeless(world: World, pod: Json, node: Json, verdict: Verdict) -> bool:
    plugin, reasons = verdict.failures[name_of(node)]
    if plugin == "NodeResourcesFit":
        wanted = world.amounts_of(pod, pods.requests)
        return any(
            amount > allocatable(world, node, resource) and not is_left_to_devices(world, node, resource)
            for resource, amount in wanted.items()
        )
    if plugin == "TenantQueue" and world.tenants is not None:
        return world.tenants.is_hopeless(world, pod)
    return reasons[0] in HOPELESS


def _room_on(world: World, pod: Json, node: Json) -> Room | list[str]:
    """Take every less important pod off, then put back as many as possible."""
    name = name_of(node)
    if world.tenants is not None:
        lower = world.tenants.removable(world, pod, node)
    else:
        lower = [p for p in pods_on(world, node) if pods.priority(p) < pods.priority(pod)]
    if not lower:
        return ["No preemption victims found for incoming pod"]
    lower.sort(key=_importance)
    gone = list(lower)

    def without_gone() -> World:
        uids = [victim["metadata"]["uid"] for victim in gone]
        return attrs.evolve(
            world,
            placed=[(p, n) for p, n in world.placed if n != name or p["metadata"]["uid"] not in uids],
        )

    failure = first_failure(without_gone(), pod, node)
    if failure is not None:
        return list(failure[1])
    breaking = _breaking_budgets(world, lower)
    violations = 0
    for victim in [*breaking, *(p for p in lower if p not in breaking)]:
        gone.remove(victim)
        if first_failure(without_gone(), pod, node) is not None:
            gone.append(victim)
            violations += victim in breaking
    return Room(name, tuple(sorted(gone, key=_importance)), violations)


def _breaking_budgets(world: World, candidates: Sequence[Json]) -> list[Json]:
    """Those that would break a disruption budget, were they all evicted, the most important first."""
    ordered = sorted(world.budgets, key=lambda b: (b["metadata"]["namespace"], b["metadata"]["name"]))
    left = [budget["status"].get("disruptionsAllowed", 0) for budget in ordered]
    found = []
    for pod in candidates:
        breaks = False
        for number, budget in enumerate(ordered):
            if _is_guarded(budget, pod):
                left[number] -= 1
                breaks = breaks or left[number] < 0
        if breaks:
            found.append(pod)
    return found


def _is_guarded(budget: Json, pod: Json) -> bool:
    selector = from_label_selector(budget["spec"].get("selector"))
    if selector.empty or selector.nothing or not labels_of(pod):
        return False
    if budget["metadata"]["namespace"] != pod["metadata"]["namespace"]:
        return False
    disrupted = pod["metadata"]["name"] in (budget["status"].get("disruptedPods") or {})
    return selector.matches(labels_of(pod)) and not disrupted


def _best(rooms: Sequence[Room]) -> Room:
    lowest = min(room.rank() for room in rooms)
    tied = [room for room in rooms if room.rank() == lowest]
    if not tied[0].victims:
        return tied[0]
    latest = max(room.started() for room in tied)
    return next(room for room in tied if room.started() == latest)
