"""Trying again: on conflicts of optimistic writes, and on whatever else a caller calls transient."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from kcp.base.backoff import Backoff
from kcp.base.entropy import Entropy
from kcp.machinery.errors import (
    ApiError,
    Conflict,
    ServerTimeout,
    ServiceUnavailable,
    Timeout,
    TooManyRequests,
)

T = TypeVar("T")

CONFLICT_STEPS = 5


async def on_error(
    attempt: Callable[[], Awaitable[T]],
    retriable: Callable[[ApiError], bool],
    backoff: Backoff,
    steps: int,
) -> T:
    """Run `attempt` up to `steps` times while it raises retriable errors; the last error is raised."""
    for _ in range(steps - 1):
        try:
            return await attempt()
        except ApiError as error:
            if not retriable(error):
                raise
            await anyio.sleep(backoff.next_s())
    return await attempt()


async def on_conflict(attempt: Callable[[], Awaitable[T]], entropy: Entropy) -> T:
    """Run a read-change-write until no one else wrote in between: 5 tries, 10 ms apart, as retry.DefaultRetry."""
    backoff = Backoff(0.01, factor=1.0, jitter=0.1, entropy=entropy)
    return await on_error(attempt, lambda error: isinstance(error, Conflict), backoff, CONFLICT_STEPS)


def transient(error: ApiError) -> bool:
    """Whether the same request may succeed a little later."""
    return isinstance(error, (TooManyRequests, ServerTimeout, ServiceUnavailable, Timeout))
