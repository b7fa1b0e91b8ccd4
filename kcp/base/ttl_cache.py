"""A bounded cache: least recently used goes first, entries expire on the Clock."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import attrs

from kcp.base.clock import Clock

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@attrs.define
class TtlCache(Generic[K, V]):
    """At most `capacity` entries, each for `ttl_s` seconds from when it was put (infinite by default)."""

    clock: Clock
    capacity: int
    ttl_s: float = float("inf")
    _entries: OrderedDict[K, tuple[float, V]] = attrs.field(init=False, factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """The value, or None when absent or expired. Counts as a use."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self.clock.monotonic() >= entry[0]:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return entry[1]

    def put(self, key: K, value: V, ttl_s: float | None = None) -> None:
        expires_s = self.clock.monotonic() + (self.ttl_s if ttl_s is None else ttl_s)
        self._entries[key] = (expires_s, value)
        self._entries.move_to_end(key)
        while len(self._entries) > self.capacity:
            self._entries.popitem(last=False)

    def get_or_put(self, key: K, make: Callable[[], V]) -> V:
        value = self.get(key)
        if value is None:
            value = make()
            self.put(key, value)
        return value

    def discard(self, key: K) -> None:
        self._entries.pop(key, None)

    def clear(self) -> None:
        self._entries.clear()
