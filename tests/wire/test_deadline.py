"""Deadlines without cancel scopes."""

from __future__ import annotations

import asyncio

import pytest

from kcp.wire.deadline import Bell, DeadlineExceeded, within


async def test_work_in_time_passes_its_value() -> None:
    assert await within(asyncio.sleep(0, "value"), 5) == "value"


async def test_late_work_is_cancelled_and_the_task_lives_on() -> None:
    cleaned = False

    async def late() -> None:
        nonlocal cleaned
        try:
            await asyncio.Event().wait()
        finally:
            cleaned = True

    with pytest.raises(DeadlineExceeded):
        await within(late(), 0.01)
    assert cleaned
    await asyncio.sleep(0)


async def test_cancellation_from_outside_stays_cancellation() -> None:
    task = asyncio.create_task(within(asyncio.Event().wait(), 5))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_ring_before_the_wait_ends_it_and_is_used_up() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    await bell.wait(60)
    await bell.wait(0)
    waiting = asyncio.create_task(bell.wait(60))
    await asyncio.sleep(0)
    assert not waiting.done()
    bell.ring()
    await asyncio.wait_for(waiting, 5)


async def test_a_cancelled_wait_loses_no_ring() -> None:
    bell = Bell()
    waiting = asyncio.create_task(bell.wait(60))
    await asyncio.sleep(0)
    bell.ring()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.wait_for(bell.wait(60), 5)
