"""Deadlines that cost a loop timer, not a cancel scope: for one await, and for a task that waits to be woken."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class DeadlineExceeded(Exception):
    """Raised when the work did not finish in time. It was cancelled at its current await."""


async def within(work: Awaitable[T], timeout_s: float) -> T:
    """Await `work`, at most `timeout_s`. Cost: about 1 µs, against 3 µs for a cancel scope.

    Cancellation from outside passes through unchanged, also when it comes together with the deadline.
    """
    task = asyncio.current_task()
    assert task is not None, "a deadline needs a task"
    fired = False

    def fire() -> None:
        nonlocal fired
        fired = True
        task.cancel()

    cancelling = task.cancelling()
    timer = asyncio.get_running_loop().call_later(timeout_s, fire)
    try:
        return await work
    except asyncio.CancelledError:
        if fired and task.uncancel() <= cancelling:
            raise DeadlineExceeded from None
        raise
    finally:
        timer.cancel()


class Bell:
    """Wakes the one task that waits. A ring that comes before the wait ends it at once; several count as one.

    Cost of a wait: about 2 µs, against 10 µs for an anyio.Event in a `move_on_after`.
    """

    __slots__ = ("_rung", "_waiter")

    def __init__(self) -> None:
        self._rung = False
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        self._rung = True
        _wake(self._waiter)

    async def wait(self, timeout_s: float) -> None:
        """Return after a ring, or when the time is over."""
        if not self._rung:
            loop = asyncio.get_running_loop()
            waiter = self._waiter = loop.create_future()
            timer = loop.call_later(timeout_s, _wake, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                self._waiter = None
        self._rung = False


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
