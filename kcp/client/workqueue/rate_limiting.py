"""How long a failing key waits, and the queue that controllers use.

Source: k8s v1.36 client-go/util/workqueue/{default_rate_limiters,rate_limiting_queue}.go.
"""

from __future__ import annotations

from typing import Protocol

import anyio
import attrs

from kcp.base.backoff import ItemBackoff
from kcp.base.clock import Clock, SystemClock
from kcp.base.values import frozen
from kcp.client.workqueue.delaying import DelayedAdds
from kcp.client.workqueue.queue import Lane, Observer, Queue, Unobserved


class RateLimiter(Protocol):
    def when(self, key: str) -> float:
        """Count a failure of `key`; seconds until it may be tried again."""
        ...

    def forget(self, key: str) -> None:
        """The key succeeded, or is given up: its next failure is the first again."""
        ...

    def retries(self, key: str) -> int:
        """Failures since the key was last forgotten."""
        ...


@attrs.define
class ItemExponential:
    """base · 2^n after n failures of the key, at most `cap_s`."""

    base_s: float = 0.005
    cap_s: float = 1000.0
    _backoff: ItemBackoff[str] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._backoff = ItemBackoff(self.base_s, self.cap_s)

    def when(self, key: str) -> float:
        return self._backoff.next_s(key)

    def forget(self, key: str) -> None:
        self._backoff.forget(key)

    def retries(self, key: str) -> int:
        return self._backoff.failures(key)


@attrs.define
class TokenBucket:
    """A token per try, `per_second` refilled, at most `burst`; tries beyond are told to wait for theirs."""

    clock: Clock
    per_second: float = 10.0
    burst: int = 100
    _tokens: float = attrs.field(init=False)
    _at_s: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._tokens = float(self.burst)
        self._at_s = self.clock.monotonic()

    def take(self) -> float:
        """Take a token; seconds until it is there."""
        now_s = self.clock.monotonic()
        self._tokens = min(float(self.burst), self._tokens + (now_s - self._at_s) * self.per_second)
        self._at_s = now_s
        self._tokens -= 1.0
        return max(0.0, -self._tokens / self.per_second)

    def try_take(self) -> bool:
        """Take a token if there is one."""
        wait_s = self.take()
        if wait_s > 0:
            self._tokens += 1.0
        return wait_s == 0

    def when(self, key: str) -> float:
        del key
        return self.take()

    def forget(self, key: str) -> None: ...

    def retries(self, key: str) -> int:
        del key
        return 0


@attrs.define
class ItemFastSlow:
    """`fast_s` for the first `fast_attempts` failures of a key, then `slow_s`."""

    fast_s: float
    slow_s: float
    fast_attempts: int
    _failures: dict[str, int] = attrs.field(init=False, factory=dict)

    def when(self, key: str) -> float:
        n = self._failures[key] = self._failures.get(key, 0) + 1
        return self.fast_s if n <= self.fast_attempts else self.slow_s

    def forget(self, key: str) -> None:
        self._failures.pop(key, None)

    def retries(self, key: str) -> int:
        return self._failures.get(key, 0)


@frozen
class MaxOf:
    """The longest wait of several limiters."""

    limiters: tuple[RateLimiter, ...]

    def when(self, key: str) -> float:
        return max(limiter.when(key) for limiter in self.limiters)

    def forget(self, key: str) -> None:
        for limiter in self.limiters:
            limiter.forget(key)

    def retries(self, key: str) -> int:
        return max(limiter.retries(key) for limiter in self.limiters)


def controller_rate_limiter(clock: Clock, base_s: float = 0.005) -> RateLimiter:
    """base · 2^n up to 1000 s per key, and ten tries a second (bursts of 100) over all keys."""
    return MaxOf((ItemExponential(base_s), TokenBucket(clock)))


class RateLimitingQueue:
    """A queue whose keys can also be added later, or after a wait that grows with their failures.

        key = await queue.get()
        try: work(key)
        except Exception: queue.add_rate_limited(key)
        else: queue.forget(key)
        finally: queue.done(key)

    `run` is the timer of the delayed adds and must be running for them to happen.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        limiter: RateLimiter | None = None,
        observer: Observer | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self._observer = observer or Unobserved()
        self._queue = Queue(clock, self._observer)
        self.delayed = DelayedAdds(self._queue, clock)
        self._spaced = DelayedAdds(self._queue, clock)
        self.limiter = limiter or controller_rate_limiter(clock)
        self.add = self._queue.add
        self.get = self._queue.get
        self.done = self._queue.done
        self.shut_down = self._queue.shut_down
        self.shut_down_with_drain = self._queue.shut_down_with_drain

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def processing(self) -> int:
        return self._queue.processing

    @property
    def shutting_down(self) -> bool:
        return self._queue.shutting_down

    def longest_running_s(self) -> float:
        return self._queue.longest_running_s()

    def add_after(self, key: str, seconds: float, lane: Lane = "live") -> None:
        if seconds > 0:
            self._observer.retried()
        self.delayed.add_after(key, seconds, lane)

    def add_spaced(self, key: str, seconds: float) -> None:
        """Like `add`, a moment later: a time that `add_after` has set for the key stays."""
        self._spaced.add_after(key, seconds)

    def add_rate_limited(self, key: str, lane: Lane = "live") -> float:
        """Queue the key after its wait; returns the wait in seconds."""
        wait_s = self.limiter.when(key)
        self.add_after(key, wait_s, lane)
        return wait_s

    def forget(self, key: str) -> None:
        self.limiter.forget(key)

    def retries(self, key: str) -> int:
        return self.limiter.retries(key)

    async def run(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._spaced.run)
            await self.delayed.run()
