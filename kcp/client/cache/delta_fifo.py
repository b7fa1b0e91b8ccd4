"""What happened, in order, between the reflector and the store.

One queue of deltas in the order of arrival (client-go's RealFIFO, its default since 1.36). Merging several changes
of one key is the work queue's business, not the FIFO's. A relist is one atomic delta, so whoever applies deltas
moves from one revision to another and is never in between.

    watch   ADDED a, MODIFIED b, BOOKMARK 12      Added(a) Updated(b) Bookmark(12)
    relist  [a', c] at 20                         ReplacedAll([a', c], 20)
    resync                                        SyncAll

Source: k8s v1.36 client-go/tools/cache/{delta_fifo,the_real_fifo}.go.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal

from kcp.base.values import frozen

Json = dict[str, Any]

DeltaType = Literal["Added", "Updated", "Deleted", "ReplacedAll", "SyncAll", "Bookmark"]
MAX_BATCH = 1000


@frozen
class Delta:
    """One step. `object` for Added, Updated, Deleted; `objects` for ReplacedAll; `rv` is where the store is after it.

    `rv` 0 leaves the store's revision where it is.
    """

    type: DeltaType
    rv: int = 0
    object: Any = None
    objects: Sequence[Json] = ()


@frozen
class DeletedFinalStateUnknown:
    """An object that vanished while nobody watched: its key, and its last known state, perhaps out of date."""

    key: str
    object: Json


class FifoFull(Exception):
    """Raised when deltas arrive faster than they are processed for too long; the reflector relists."""


class DeltaFIFO:
    """Deltas in order of arrival. Properties:

    - in order: popped deltas are exactly the pushed ones, in their order;
    - atomic: a Replace is popped as one delta, never in part; it also settles every deleted key by itself;
    - synced: once the first Replace was popped *and processed* (immediately for one that never had a Replace but
      got other deltas first);
    - bounded: at most `capacity` deltas wait.
    """

    def __init__(self, capacity: int = 100_000) -> None:
        self._queue: deque[Delta] = deque()
        self._capacity = capacity
        self._populated = False
        self._initial: Delta | None = None
        self._initial_processed = False

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def has_synced(self) -> bool:
        return self._populated and (self._initial is None or self._initial_processed)

    def add(self, obj: Json, rv: int) -> None:
        self._populated = True
        self._push(Delta("Added", rv, obj))

    def update(self, obj: Json, rv: int) -> None:
        self._populated = True
        self._push(Delta("Updated", rv, obj))

    def delete(self, obj: Json | DeletedFinalStateUnknown, rv: int) -> None:
        self._populated = True
        self._push(Delta("Deleted", rv, obj))

    def bookmark(self, rv: int) -> None:
        """The store may move its revision to `rv`: nothing that it watches changed up to there."""
        self._push(Delta("Bookmark", rv))

    def replace(self, objects: Sequence[Json], rv: int) -> None:
        """From now on exactly these objects exist. What is queued before it is still delivered first."""
        delta = Delta("ReplacedAll", rv, objects=objects)
        if not self._populated:
            self._populated = True
            self._initial = delta
        self._push(delta)

    def resync(self) -> None:
        """Have every known object processed again, behind everything that is queued."""
        self._push(Delta("SyncAll"))

    def _push(self, delta: Delta) -> None:
        if len(self._queue) >= self._capacity:
            raise FifoFull(f"{self._capacity} deltas wait")
        self._queue.append(delta)

    def pop_batch(self, process: Callable[[Delta], None], limit: int = MAX_BATCH) -> int:
        """Process up to `limit` deltas in order, without a break; returns how many. What `process` raises ends it.

        A delta whose processing failed counts as popped.
        """
        done = 0
        queue = self._queue
        while queue and done < limit:
            delta = queue.popleft()
            done += 1
            try:
                process(delta)
            finally:
                if delta is self._initial:
                    self._initial_processed = True
        return done
