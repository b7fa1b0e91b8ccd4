"""Adds in the future: a heap by due time that feeds a queue.

Source: k8s v1.36 client-go/util/workqueue/delaying_queue.go. There is no heartbeat: waiting follows the loop's own
monotonic time.
"""

from __future__ import annotations

import anyio

from kcp.base.clock import Clock, SystemClock
from kcp.base.heap import KeyedHeap
from kcp.client.workqueue.queue import Lane, Queue


class DelayedAdds:
    """Keys that join `queue` later. The task of `run` owns the timer.

    For one key the earlier time wins and a later one is ignored. Keys that are due together join in the order of
    their adds.
    """

    def __init__(self, queue: Queue, clock: Clock | None = None) -> None:
        self._queue = queue
        self._clock = clock or SystemClock()
        self._heap: KeyedHeap[str, tuple[float, Lane]] = KeyedHeap(lambda entry: entry[0])
        self._changed = anyio.Event()

    def __len__(self) -> int:
        return len(self._heap)

    def add_after(self, key: str, seconds: float, lane: Lane = "live") -> None:
        """At once when `seconds` is not positive."""
        if self._queue.shutting_down:
            return
        if seconds <= 0:
            self._queue.add(key, lane)
            return
        due_s = self._clock.monotonic() + seconds
        known = self._heap.get(key)
        if known is not None and known[0] <= due_s:
            return
        self._heap.push(key, (due_s, lane))
        first = self._heap.peek()
        if first is not None and first[0] == key:
            self._changed.set()

    def due_in_s(self) -> float | None:
        """Seconds until the next key is due; None when none waits."""
        first = self._heap.peek()
        return None if first is None else max(0.0, first[1][0] - self._clock.monotonic())

    def release_due(self) -> int:
        """Move every key that is due into the queue; returns how many."""
        now_s = self._clock.monotonic()
        released = 0
        while (first := self._heap.peek()) is not None and first[1][0] <= now_s:
            key, (_, lane) = self._heap.pop()
            self._queue.add(key, lane)
            released += 1
        return released

    async def run(self) -> None:
        """Release keys when they are due, until cancelled."""
        while True:
            self._changed = anyio.Event()
            self.release_due()
            due_s = self.due_in_s()
            if due_s is None:
                await self._changed.wait()
            else:
                with anyio.move_on_after(due_s):
                    await self._changed.wait()
