"""Tasks with a parent: periodic work, restart after a crash, services in the background, bulkheads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import structlog

from kcp.base.backoff import Backoff
from kcp.base.clock import Clock
from kcp.base.entropy import Entropy

T = TypeVar("T")
log = structlog.get_logger()

START_TIMEOUT_S = 30.0


async def every(
    period_s: float,
    fn: Callable[[], Awaitable[Any]],
    *,
    jitter: float = 0.0,
    entropy: Entropy | None = None,
    first_after_s: float = 0.0,
    name: str = "",
) -> None:
    """Run `fn` for ever, `period_s` seconds (stretched by up to `jitter`) after each end. Runs until cancelled.

    A failure of one run is logged and does not end the series.
    """
    assert jitter == 0 or entropy is not None, "jitter needs entropy"
    if first_after_s > 0:
        await anyio.sleep(first_after_s)
    while True:
        try:
            await fn()
        except Exception:
            log.exception("periodic task failed", task=name or getattr(fn, "__qualname__", repr(fn)))
        await anyio.sleep(entropy.jitter(period_s, jitter) if entropy is not None else period_s)


async def restart_with_backoff(
    name: str,
    fn: Callable[[], Awaitable[Any]],
    *,
    backoff: Backoff,
    clock: Clock,
    healthy_after_s: float = 120.0,
) -> None:
    """Run `fn` until it returns; after a crash log, wait and run it again.

    A run that lasted `healthy_after_s` starts the backoff anew. Cancellation ends it.
    """
    while True:
        started_s = clock.monotonic()
        try:
            await fn()
            return
        except Exception:
            if clock.monotonic() - started_s >= healthy_after_s:
                backoff.reset()
            delay_s = backoff.next_s()
            log.exception("component crashed, restarting", component=name, delay_s=round(delay_s, 3))
        await anyio.sleep(delay_s)


async def first_of(*fns: Callable[[], Awaitable[T]]) -> T:
    """Run all concurrently; the result of the first to finish wins and the others are cancelled.

    When several finish in the same step the one that ran first wins. A failure of any fails the whole.
    """
    results: list[T] = []

    async def run(fn: Callable[[], Awaitable[T]]) -> None:
        results.append(await fn())
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for fn in fns:
            group.start_soon(run, fn)
    return results[0]


@asynccontextmanager
async def in_background(
    serve: Callable[..., Coroutine[Any, Any, Any]], *, timeout_s: float = START_TIMEOUT_S
) -> AsyncIterator[Any]:
    """Run a service in its own task and yield what it reports when it is ready; cancel it at the end.

    `serve(*, task_status)` calls `task_status.started(value)`. The service owns its task group inside one task, so
    set-up and tear-down may run in different tasks, as fixtures do. Raises what the service raises, TimeoutError
    when it is not ready in time.
    """
    ready, stop = asyncio.Event(), asyncio.Event()
    started: list[Any] = []

    async def main() -> None:
        async with anyio.create_task_group() as group:
            with anyio.fail_after(timeout_s):
                started.append(await group.start(serve))
            ready.set()
            await stop.wait()
            group.cancel_scope.cancel()

    task = asyncio.create_task(main(), name=f"background {getattr(serve, '__qualname__', serve)}")
    task.add_done_callback(lambda _: ready.set())
    try:
        await ready.wait()
        if not started:
            await task
            raise RuntimeError("the service ended before it was ready")
        yield started[0]
    finally:
        stop.set()
        await _end(task)


async def _end(task: asyncio.Task[None]) -> None:
    """Wait for a background task; if we are cancelled ourselves meanwhile, take it down with us."""
    try:
        await task
    except asyncio.CancelledError:
        task.cancel()
        raise


class BulkheadFull(Exception):
    """Raised when a bulkhead's places and its waiting room are both taken."""


class Bulkhead:
    """At most `limit` at once inside, at most `waiting` at the door: one hung provider costs only its own callers.

        async with bulkhead.place(timeout_s=10): ...

    First come, first served.
    """

    def __init__(self, name: str, limit: int, waiting: int = 1000) -> None:
        self.name = name
        self.limit = limit
        self.waiting = waiting
        self._semaphore = anyio.Semaphore(limit, fast_acquire=True)
        self._at_the_door = 0

    @property
    def busy(self) -> int:
        return self.limit - self._semaphore.value

    @asynccontextmanager
    async def place(self, timeout_s: float) -> AsyncIterator[None]:
        """Raises BulkheadFull when too many wait, TimeoutError when no place became free in time."""
        await self._enter(timeout_s)
        try:
            yield
        finally:
            self._semaphore.release()

    async def _enter(self, timeout_s: float) -> None:
        if self._semaphore.value > 0:
            await self._semaphore.acquire()
            return
        if self._at_the_door >= self.waiting:
            raise BulkheadFull(f"{self.name}: {self.limit} running, {self.waiting} waiting")
        self._at_the_door += 1
        try:
            with anyio.fail_after(timeout_s):
                await self._semaphore.acquire()
        finally:
            self._at_the_door -= 1
