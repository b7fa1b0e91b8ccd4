"""Waiting longer after each failure.

`Backoff` is for one thing that is tried again and again, `ItemBackoff` counts failures per key, and
`WindowBackoff` is what the kubelet uses for crash loops and image pulls: it forgets a key that was quiet.
Source: k8s v1.36 apimachinery/pkg/util/wait/backoff.go, client-go/util/workqueue, client-go/util/flowcontrol/backoff.go.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

import attrs

from kcp.base.clock import Clock
from kcp.base.entropy import Entropy

K = TypeVar("K", bound=Hashable)


@attrs.define
class Backoff:
    """Delays initial, initial·factor, … up to `cap_s`, each stretched by up to `jitter` (0.1 = ten per cent).

    With a clock and `reset_after_s` the sequence starts anew when that long passed since the last `next_s`.
    """

    initial_s: float
    factor: float = 2.0
    cap_s: float = float("inf")
    jitter: float = 0.0
    entropy: Entropy | None = None
    clock: Clock | None = None
    reset_after_s: float = float("inf")
    _delay_s: float = attrs.field(init=False)
    _asked_at_s: float = attrs.field(init=False, default=float("inf"))

    def __attrs_post_init__(self) -> None:
        assert self.jitter == 0 or self.entropy is not None, "jitter needs entropy"
        self._delay_s = self.initial_s

    def next_s(self) -> float:
        """The delay to wait now, in seconds."""
        if self.clock is not None:
            now_s = self.clock.monotonic()
            if now_s - self._asked_at_s >= self.reset_after_s:
                self.reset()
            self._asked_at_s = now_s
        delay_s = min(self._delay_s, self.cap_s)
        self._delay_s = min(delay_s * self.factor, self.cap_s)
        return self.entropy.jitter(delay_s, self.jitter) if self.entropy and self.jitter else delay_s

    def reset(self) -> None:
        self._delay_s = self.initial_s


@attrs.define
class ItemBackoff(Generic[K]):
    """Exponential per key: initial · 2^n after n failures, at most `cap_s`, until the key is forgotten."""

    initial_s: float = 0.005
    cap_s: float = 1000.0
    _failures: dict[K, int] = attrs.field(init=False, factory=dict)

    def next_s(self, key: K) -> float:
        n = self._failures.get(key, 0)
        self._failures[key] = n + 1
        return self.cap_s if n > 62 else min(self.initial_s * (1 << n), self.cap_s)

    def failures(self, key: K) -> int:
        return self._failures.get(key, 0)

    def forget(self, key: K) -> None:
        self._failures.pop(key, None)


@attrs.define
class WindowBackoff(Generic[K]):
    """A key is held back for a doubling while after each failure; quiet for twice `cap_s`, it starts anew."""

    clock: Clock
    initial_s: float
    cap_s: float
    _entries: dict[K, tuple[float, float]] = attrs.field(init=False, factory=dict)

    def failed(self, key: K) -> float:
        """Count a failure now; returns the delay that holds from now on."""
        now_s = self.clock.monotonic()
        delay_s, updated_s = self._entries.get(key, (0.0, now_s))
        fresh = delay_s == 0.0 or now_s - updated_s > 2 * self.cap_s
        delay_s = self.initial_s if fresh else min(delay_s * 2, self.cap_s)
        self._entries[key] = (delay_s, now_s)
        return delay_s

    def delay_s(self, key: K) -> float:
        return self._entries.get(key, (0.0, 0.0))[0]

    def remaining_s(self, key: K, since_s: float) -> float:
        """Seconds until the key may be tried again, counted from `since_s` (monotonic); 0 when it may now."""
        delay_s, updated_s = self._entries.get(key, (0.0, 0.0))
        now_s = self.clock.monotonic()
        if delay_s == 0.0 or now_s - updated_s > 2 * self.cap_s:
            return 0.0
        return max(0.0, since_s + delay_s - now_s)

    def forget(self, key: K) -> None:
        self._entries.pop(key, None)

    def collect(self) -> None:
        """Drop keys that were quiet long enough to start anew."""
        now_s = self.clock.monotonic()
        for key in [k for k, (_, at) in self._entries.items() if now_s - at > 2 * self.cap_s]:
            del self._entries[key]
