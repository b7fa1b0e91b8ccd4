"""Queues of tenants: who uses how much of the cluster, and how much is each one's due.

    tenants = Tenants(parse_queues(args), state)
    queue = tenants.queue_of(cls)                   the leaf that a pod of this class counts in
    queue.used["cpu"]                               its pods on nodes, and those of queues below it
    tenants.dues()[queue.number]["cpu"]             its share of the cluster right now

A queue's *due* of a resource is what it `deserved`, or else its part by `weight` of what its parent has left, among the
queues that want something; what one does not want goes to the others. Use beyond the due is borrowed.
All of it follows from the cluster state. Source of the model: Volcano's capacity and proportion plugins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import attrs

from kcp.apis.semantics import pods
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.pod_class import PodClass, PodInfo

Json = dict[str, Any]
Amounts = dict[str, int]

DEFAULT_QUEUE = "default"
BY_WEIGHT = ("cpu", "memory")
"""What a queue's weight divides, besides what any queue names."""


@attrs.frozen
class QueueSpec:
    """A queue as configured; amounts in millicores and bytes. No `capability` for a resource: no limit."""

    name: str
    parent: str = ""
    weight: int = 1
    namespaces: tuple[str, ...] = ()
    capability: Mapping[str, int] = attrs.field(factory=dict)
    deserved: Mapping[str, int] = attrs.field(factory=dict)
    guarantee: Mapping[str, int] = attrs.field(factory=dict)
    reclaimable: bool = True


@attrs.define(eq=False)
class Queue:
    """A node of the tree; `path` leads from it to the top."""

    spec: QueueSpec
    number: int
    used: Amounts = attrs.field(factory=dict)
    children: list[Queue] = attrs.field(factory=list)
    path: tuple[Queue, ...] = ()

    @property
    def name(self) -> str:
        return self.spec.name


def _amounts(row: Json, field: str) -> Amounts:
    return pods.amounts(pods.resource_list(row.get(field)))


def parse_queues(args: Mapping[str, Any]) -> list[QueueSpec]:
    """The queues of checked arguments; the default queue is added when nobody configured it."""
    found = [
        QueueSpec(
            row["name"],
            row.get("parent") or "",
            int(row.get("weight") or 1),
            tuple(row.get("namespaces") or ()),
            _amounts(row, "capability"),
            _amounts(row, "deserved"),
            _amounts(row, "guarantee"),
            row.get("reclaimable") is not False,
        )
        for row in args.get("queues") or ()
    ]
    if all(spec.name != DEFAULT_QUEUE for spec in found):
        found.append(QueueSpec(DEFAULT_QUEUE))
    return found


class Tenants:
    """Counts what the queues use, told by the state of every pod that comes onto a node or leaves it."""

    def __init__(self, specs: Sequence[QueueSpec], label: str, state: ClusterState) -> None:
        self._state = state
        self._label = label
        self.queues = [Queue(spec, number) for number, spec in enumerate(specs)]
        self._by_name = {queue.name: queue for queue in self.queues}
        self.roots: list[Queue] = []
        for queue in self.queues:
            parent = self._by_name.get(queue.spec.parent)
            (parent.children if parent is not None else self.roots).append(queue)
        for queue in self.queues:
            queue.path = tuple(self._path(queue))
        self.resources = tuple(
            dict.fromkeys(
                (*BY_WEIGHT, *(r for s in specs for r in (*s.deserved, *s.capability, *s.guarantee)))
            )
        )
        self._of_class: dict[int, tuple[PodClass, Queue]] = {}
        self._namespaces_version = state.namespaces_version
        state.accounts.append(self._account)
        self._recount()

    def _path(self, queue: Queue | None) -> list[Queue]:
        found = []
        while queue is not None:
            found.append(queue)
            queue = self._by_name.get(queue.spec.parent)
        return found

    # --- who belongs where ---

    def queue_of(self, cls: PodClass) -> Queue:
        if self._label and self._namespaces_version != self._state.namespaces_version:
            self._recount()
        known = self._of_class.get(cls.number)
        if known is not None and known[0] is cls:
            return known[1]
        found = self._find(cls)
        self._of_class[cls.number] = cls, found
        return found

    def _find(self, cls: PodClass) -> Queue:
        named = cls.labels.get(self._label) if self._label else None
        if not named and self._label:
            named = self._state.namespace_labels(cls.namespace).get(self._label)
        if named in self._by_name and not self._by_name[named].children:
            return self._by_name[named]
        for queue in self.queues:
            if cls.namespace in queue.spec.namespaces:
                return queue
        for queue in self.queues:
            if any(fnmatchcase(cls.namespace, pattern) for pattern in queue.spec.namespaces):
                return queue
        return self._by_name[DEFAULT_QUEUE]

    # --- what they use ---

    def _account(self, info: PodInfo, sign: int) -> None:
        for queue in self.queue_of(info.cls).path:
            _count(queue.used, info.cls, sign)

    def _recount(self) -> None:
        """Anew, since namespaces may have changed queues."""
        self._namespaces_version = self._state.namespaces_version
        self._of_class.clear()
        for queue in self.queues:
            queue.used.clear()
        for info in self._state.pods.values():
            if info.node:
                self._account(info, 1)

    @property
    def epoch(self) -> int:
        """Rises when nodes come or go."""
        return self._state.epoch

    def totals(self) -> Amounts:
        """What all nodes have to give."""
        state = self._state
        found = {}
        for resource in self.resources:
            column = state.max_pods if resource == "pods" else state.column(resource).allocatable
            found[resource] = int(column.sum())
        return found

    def _demand(self) -> list[Amounts]:
        """What each queue uses and waits for."""
        found: list[Amounts] = [dict(queue.used) for queue in self.queues]
        for cls in self._state.classes():
            waiting = cls.pods - sum(cls.on_nodes.values())
            if waiting > 0:
                _add(found, self.queue_of(cls), cls, waiting)
        return found

    def leaving(self) -> dict[str, None]:
        """Pods that were chosen to go, in order, whether or not that is seen yet."""
        return dict.fromkeys(uid for victims in self._state.evicting.values() for uid in victims)

    def standing(self) -> list[Amounts]:
        """What each queue will use once pods that are being deleted, or are about to be, are gone and nominated ones have come."""
        found: list[Amounts] = [dict(queue.used) for queue in self.queues]
        for cls in self._state.classes():
            if cls.terminating:
                _add(found, self.queue_of(cls), cls, -sum(cls.on_nodes.values()))
        for uid in self.leaving():
            victim = self._state.pods.get(uid)
            if victim is not None and victim.node and not victim.cls.terminating:
                _add(found, self.queue_of(victim.cls), victim.cls, -1)
        for there in self._state.nominations.values():
            for info in there.values():
                _add(found, self.queue_of(info.cls), info.cls, 1)
        return found

    # --- what is their due ---

    def dues(self) -> list[Amounts]:
        """Per queue, by its number."""
        found: list[Amounts] = [{} for _ in self.queues]
        demand, totals = self._demand(), self.totals()
        for resource in self.resources:
            self._divide(self.roots, resource, totals[resource], demand, found)
        return found

    def _divide(
        self, queues: Sequence[Queue], resource: str, total: int, demand: list[Amounts], found: list[Amounts]
    ) -> None:
        left, open_queues = total, []
        for queue in queues:
            given = queue.spec.deserved.get(resource)
            if given is None:
                open_queues.append(queue)
                continue
            found[queue.number][resource] = due = min(given, _limit(queue, resource, total))
            left -= due
        caps = {
            queue.number: min(demand[queue.number].get(resource, 0), _limit(queue, resource, total))
            for queue in open_queues
        }
        floors = {queue.number: queue.spec.guarantee.get(resource, 0) for queue in open_queues}
        weights = {queue.number: queue.spec.weight for queue in open_queues}
        for number, due in _by_weight(max(left, 0), weights, caps).items():
            found[number][resource] = max(due, floors[number])
        for queue in queues:
            if queue.children:
                self._divide(queue.children, resource, found[queue.number][resource], demand, found)

    def share(self, queue: Queue, due: Mapping[str, int]) -> float:
        """The largest part of a due that is used up: above 1 something is borrowed."""
        return max(
            (
                (used / due[resource] if due.get(resource) else float("inf"))
                for resource in self.resources
                if (used := queue.used.get(resource, 0)) > 0
            ),
            default=0.0,
        )


def _count(used: Amounts, cls: PodClass, pods: int) -> None:
    for resource, amount in cls.shape.real:
        used[resource] = used.get(resource, 0) + pods * amount
    used["pods"] = used.get("pods", 0) + pods


def _add(amounts: list[Amounts], queue: Queue, cls: PodClass, pods: int) -> None:
    """To the queue's amounts and those of all above it."""
    for each in queue.path:
        _count(amounts[each.number], cls, pods)


def _limit(queue: Queue, resource: str, total: int) -> int:
    return min(queue.spec.capability.get(resource, total), total)


def _by_weight(left: int, weights: Mapping[int, int], caps: Mapping[int, int]) -> dict[int, int]:
    """`left` by weight; what is above a queue's cap goes to the others."""
    found = dict.fromkeys(weights, 0)
    unsaturated = [number for number in weights if caps[number] > 0]
    while left > 0 and unsaturated:
        total = sum(weights[number] for number in unsaturated)
        full = [n for n in unsaturated if caps[n] * total <= left * weights[n]]
        if not full:
            for number in unsaturated:
                found[number] = left * weights[number] // total
            break
        for number in full:
            found[number] = caps[number]
            left -= caps[number]
        unsaturated = [number for number in unsaturated if number not in full]
    return found
