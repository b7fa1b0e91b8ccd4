"""The active queue in the order of tenants: the queue with the least of its due comes first, then priority and time.

In a tree of queues the choice is made level by level. The same operations as `KeyedHeap`.
"""

from __future__ import annotations

from collections.abc import Callable

from kcp.base.heap import KeyedHeap
from kcp.scheduler.queue import QueuedPod, by_priority
from kcp.scheduler.tenants import Amounts, Queue, Tenants

REFRESH_EVERY = 64
"""Pods that are taken before dues are computed anew, unless nodes or queues come; what is used counts at once."""


class TenantOrder(KeyedHeap[str, QueuedPod]):
    """Owned by the scheduler's task. `queue_of` says where a pod belongs."""

    def __init__(self, tenants: Tenants, queue_of: Callable[[str], Queue]) -> None:
        super().__init__(by_priority)
        self._tenants = tenants
        self._queue_of = queue_of
        self._heaps: dict[int, KeyedHeap[str, QueuedPod]] = {}
        self._where: dict[str, int] = {}
        self._waiting: dict[int, int] = {}
        self._dues: list[Amounts] = []
        self._taken = 0
        self._epoch = -1

    def __len__(self) -> int:
        return len(self._where)

    def push(self, key: str, value: QueuedPod) -> None:
        queue = self._queue_of(key)
        before = self._where.get(key)
        if before is not None and before != queue.number:
            self.delete(key)
            before = None
        if before is None:
            self._where[key] = queue.number
            for each in queue.path:
                count = self._waiting.get(each.number, 0)
                self._waiting[each.number] = count + 1
                if not count:
                    self._dues = []
        self._heaps.setdefault(queue.number, KeyedHeap(by_priority)).push(key, value)

    def delete(self, key: str) -> QueuedPod | None:
        number = self._where.pop(key, None)
        if number is None:
            return None
        for each in self._tenants.queues[number].path:
            self._waiting[each.number] -= 1
        return self._heaps[number].delete(key)

    def peek(self) -> tuple[str, QueuedPod] | None:
        queue = self._next()
        return self._heaps[queue.number].peek() if queue is not None else None

    def pop(self) -> tuple[str, QueuedPod]:
        found = self.peek()
        if found is None:
            raise IndexError("pop from an empty queue")
        self.delete(found[0])
        self._taken += 1
        return found

    def _next(self) -> Queue | None:
        if not self._where:
            return None
        epoch = self._tenants.epoch
        if not self._dues or self._taken >= REFRESH_EVERY or epoch != self._epoch:
            self._dues, self._taken, self._epoch = self._tenants.dues(), 0, epoch
        queues, chosen = self._tenants.roots, None
        while queues:
            waiting = [queue for queue in queues if self._waiting.get(queue.number)]
            chosen = min(waiting, key=self._rank)
            queues = chosen.children
        return chosen

    def _rank(self, queue: Queue) -> tuple[float, int]:
        return self._tenants.share(queue, self._dues[queue.number]), queue.number
