"""TenantQueue: no queue beyond its capability, none into what is guaranteed to another, and what is borrowed comes back.

As a filter it refuses pods that would go over a limit; when a pod fits nowhere it says which pods may go for it: those of
its own queue with lower priority, and, while its queue is within its due, pods of queues that borrow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from kcp.machinery.quantity import Quantity, canonical, parse
from kcp.scheduler.cluster_state import ClusterState, NodeInfo
from kcp.scheduler.framework.plugin import Codes, Cycle, Reasons, Rows, codes_where, how_many
from kcp.scheduler.framework.status import UNRESOLVABLE, UNSCHEDULABLE
from kcp.scheduler.pod_class import PodClass, PodInfo
from kcp.scheduler.tenants import Amounts, Queue, Tenants, parse_queues

Json = dict[str, Any]
NAME = "TenantQueue"
SYSTEM_PRIORITY = 2_000_000_000
"""Pods of this priority and above are not reclaimed."""
_NEVER = 1 << 62


def shown(resource: str, amount: int) -> str:
    """An amount as people write it."""
    if resource == "cpu":
        return canonical(parse(f"{amount}m"))
    return canonical(
        Quantity(amount, 0, "BinarySI" if resource in ("memory", "ephemeral-storage") else "DecimalSI")
    )


class TenantQueue:
    name = NAME
    per_pod = True
    reasons: ClassVar[Reasons] = {1: (UNSCHEDULABLE, ""), 2: (UNRESOLVABLE, "")}

    def __init__(self, args: Mapping[str, Any]) -> None:
        self._specs = parse_queues(args)
        self._label = args.get("queueLabel") or ""
        self.tenants: Tenants

    def attach(self, state: ClusterState) -> None:
        self.tenants = Tenants(self._specs, self._label, state)

    # --- filter ---

    def active(self, cycle: Cycle) -> bool:
        return self._refusal(cycle.cls)[0] != 0

    def codes(self, cycle: Cycle, rows: Rows) -> Codes:
        code = self._refusal(cycle.cls)[0]
        return codes_where(np.ones(how_many(cycle.state, rows), np.bool_), code)

    def texts(self, cycle: Cycle, index: int) -> list[str]:
        return [self._refusal(cycle.cls)[1]]

    def _refusal(self, cls: PodClass) -> tuple[int, str]:
        """(code, why) of a pod that is on no node; code 0 when no limit is in its way."""
        wanted = {**dict(cls.shape.real), "pods": 1}
        own = self.tenants.queue_of(cls)
        for queue in own.path:
            for resource, limit in queue.spec.capability.items():
                amount, used = wanted.get(resource, 0), queue.used.get(resource, 0)
                if amount and used + amount > limit:
                    text = (
                        f'queue "{queue.name}" is at its capability: {resource} {shown(resource, used)} of '
                        f"{shown(resource, limit)} used"
                    )
                    return (2 if amount > limit else 1), text
        return self._kept_for_others(own, wanted)

    def _kept_for_others(self, own: Queue, wanted: Amounts) -> tuple[int, str]:
        for resource, amount in wanted.items():
            keepers = [
                queue
                for queue in self.tenants.queues
                if queue not in own.path
                and queue.spec.guarantee.get(resource, 0) > queue.used.get(resource, 0)
            ]
            if not keepers or own.used.get(resource, 0) + amount <= own.spec.guarantee.get(resource, 0):
                continue
            kept = sum(q.spec.guarantee[resource] - q.used.get(resource, 0) for q in keepers)
            used = sum(queue.used.get(resource, 0) for queue in self.tenants.roots)
            if used + amount + kept > self.tenants.totals()[resource]:
                names = ", ".join(f'"{queue.name}"' for queue in keepers)
                return 1, f"{resource} is guaranteed to queue {names}: {shown(resource, kept)} are kept free"
        return 0, ""

    # --- whose pods may go ---

    def goes_first(self, cycle: Cycle, other: PodInfo) -> bool:
        """Whether room that is being made for a nominated pod of another queue is not this pod's to take."""
        return self.tenants.queue_of(other.cls) is not self.tenants.queue_of(cycle.cls)

    def removable(self, cycle: Cycle, node: NodeInfo) -> list[PodInfo]:
        """The pods of a node that may be evicted for this pod."""
        info, tenants = cycle.info, self.tenants
        own = tenants.queue_of(info.cls)
        found = [
            pod
            for pod in node.pods.values()
            if pod.priority < info.priority and tenants.queue_of(pod.cls) is own
        ]
        return found + self._borrowed(cycle, node, own)

    def _borrowed(self, cycle: Cycle, node: NodeInfo, own: Queue) -> list[PodInfo]:
        """Pods of queues above their due, the least important first, until none is above it any more; and those that go anyway."""
        wanted = dict(cycle.cls.shape.real)
        dues, standing = self._view(cycle)
        if not _within(standing[own.number], wanted, dues[own.number]):
            return []
        leaving = self.tenants.leaving()
        left: dict[int, Amounts] = {}
        found = []
        for pod in sorted(node.pods.values(), key=lambda p: (p.priority, p.start_time, p.key)):
            queue = self.tenants.queue_of(pod.cls)
            if queue is own or not queue.spec.reclaimable or pod.priority >= SYSTEM_PRIORITY:
                continue
            if pod.cls.terminating or pod.uid in leaving:
                found.append(pod)
                continue
            used = left.setdefault(queue.number, dict(standing[queue.number]))
            if _borrows(used, wanted, dues[queue.number]) and _spares_guarantee(queue, used, pod):
                found.append(pod)
                for resource, amount in pod.cls.shape.real:
                    used[resource] = used.get(resource, 0) - amount
        return found

    def _view(self, cycle: Cycle) -> tuple[list[Amounts], list[Amounts]]:
        """Dues and standing as they were when the pod fitted nowhere: its dry runs do not change them."""
        if NAME not in cycle.memory:
            standing = self.tenants.standing()
            if cycle.info.nominated:
                wanted = standing[self.tenants.queue_of(cycle.cls).number]
                for resource, amount in cycle.cls.shape.real:
                    wanted[resource] = wanted.get(resource, 0) - amount
            cycle.memory[NAME] = self.tenants.dues(), standing
        found: tuple[list[Amounts], list[Amounts]] = cycle.memory[NAME]
        return found

    def numbers(self, cycle: Cycle) -> Json:
        """What `explain` shows of the pod's queue and those above it."""
        dues, _ = self._view(cycle)
        return {
            "queues": [
                {
                    "queue": queue.name,
                    "used": dict(queue.used),
                    "capability": dict(queue.spec.capability),
                    "due": dict(dues[queue.number]),
                }
                for queue in self.tenants.queue_of(cycle.cls).path
            ]
        }


def _within(standing: Amounts, wanted: Amounts, due: Amounts) -> bool:
    """Whether the queue stays within its due with this pod too."""
    return all(standing.get(r, 0) + amount <= due.get(r, _NEVER) for r, amount in wanted.items())


def _borrows(used: Amounts, wanted: Amounts, due: Amounts) -> bool:
    """Whether the queue uses more than its due of something that the pod needs."""
    return any(used.get(resource, 0) > due.get(resource, _NEVER) for resource in wanted)


def _spares_guarantee(queue: Queue, used: Amounts, pod: PodInfo) -> bool:
    guarantee = queue.spec.guarantee
    return all(used.get(r, 0) - amount >= guarantee.get(r, 0) for r, amount in pod.cls.shape.real)
