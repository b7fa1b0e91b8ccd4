"""A priority queue whose items are known by key: update and delete in place, ties by order of arrival."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_MIN_STALE_BEFORE_REBUILD = 64


class KeyedHeap(Generic[K, V]):
    """The smallest `priority(value)` first; equal priorities in order of first insertion.

    An update keeps the item's place among equals. Superseded entries stay in the heap until they surface or
    until they outnumber the live ones, so each operation is O(log n) amortised.
    """

    def __init__(self, priority: Callable[[V], Any]) -> None:
        self._priority = priority
        self._heap: list[tuple[Any, int, int, K]] = []
        self._live: dict[K, tuple[int, int, V]] = {}
        self._sequence = 0
        self._version = 0

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, key: object) -> bool:
        return key in self._live

    def __iter__(self) -> Iterator[V]:
        """Values in order of insertion, not of priority."""
        return iter([value for _, _, value in self._live.values()])

    def get(self, key: K) -> V | None:
        entry = self._live.get(key)
        return entry[2] if entry is not None else None

    def push(self, key: K, value: V) -> None:
        """Insert, or replace the value of this key."""
        entry = self._live.get(key)
        if entry is None:
            self._sequence += 1
            sequence = self._sequence
        else:
            sequence = entry[0]
        self._version += 1
        self._live[key] = (sequence, self._version, value)
        heapq.heappush(self._heap, (self._priority(value), sequence, self._version, key))
        self._rebuild_when_stale()

    def push_if_absent(self, key: K, value: V) -> bool:
        if key in self._live:
            return False
        self.push(key, value)
        return True

    def delete(self, key: K) -> V | None:
        entry = self._live.pop(key, None)
        return entry[2] if entry is not None else None

    def peek(self) -> tuple[K, V] | None:
        """The smallest item, left in place; None when empty."""
        while self._heap:
            _, _, version, key = self._heap[0]
            entry = self._live.get(key)
            if entry is not None and entry[1] == version:
                return key, entry[2]
            heapq.heappop(self._heap)
        return None

    def pop(self) -> tuple[K, V]:
        """Take the smallest item. Raises IndexError when empty."""
        item = self.peek()
        if item is None:
            raise IndexError("pop from an empty heap")
        heapq.heappop(self._heap)
        del self._live[item[0]]
        return item

    def _rebuild_when_stale(self) -> None:
        stale = len(self._heap) - len(self._live)
        if stale < _MIN_STALE_BEFORE_REBUILD or stale < len(self._live):
            return
        self._heap = [
            (self._priority(value), sequence, version, key)
            for key, (sequence, version, value) in self._live.items()
        ]
        heapq.heapify(self._heap)
