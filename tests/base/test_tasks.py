from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise

import anyio
import pytest
import pytest_asyncio
from anyio.abc import TaskStatus

from kcp.base.backoff import Backoff
from kcp.base.clock import LoopClock
from kcp.base.entropy import SeededEntropy
from kcp.base.tasks import Bulkhead, BulkheadFull, every, first_of, in_background, restart_with_backoff


@pytest.mark.sim
async def test_every_runs_after_each_period_and_survives_failures() -> None:
    at: list[float] = []

    async def tick() -> None:
        at.append(anyio.current_time())
        if len(at) == 2:
            raise RuntimeError("once")

    start = anyio.current_time()
    with anyio.move_on_after(35):
        await every(10, tick)
    assert [t - start for t in at] == [0, 10, 20, 30]


@pytest.mark.sim
async def test_jitter_stretches_the_period_and_never_shortens_it() -> None:
    at: list[float] = []

    async def tick() -> None:
        at.append(anyio.current_time())

    with anyio.move_on_after(500):
        await every(10, tick, jitter=0.5, entropy=SeededEntropy(1), first_after_s=3)
    gaps = [b - a for a, b in pairwise(at)]
    assert all(10 <= gap < 15 for gap in gaps)
    assert len(set(gaps)) > 5


@pytest.mark.sim
async def test_a_crashing_component_restarts_with_backoff_until_it_returns() -> None:
    starts: list[float] = []

    async def component() -> None:
        starts.append(anyio.current_time())
        if len(starts) == 3:
            await anyio.sleep(200)  # healthy for a while: the backoff starts anew
        if len(starts) < 5:
            raise RuntimeError("crash")

    begin = anyio.current_time()
    await restart_with_backoff("c", component, backoff=Backoff(1, cap_s=60), clock=LoopClock())
    assert [t - begin for t in starts] == [0, 1, 3, 204, 206]


@pytest.mark.sim
async def test_first_of_takes_the_first_and_cancels_the_rest() -> None:
    cancelled: list[str] = []

    async def slow() -> str:
        try:
            await anyio.sleep(10)
        finally:
            cancelled.append("slow")
        return "slow"

    async def fast() -> str:
        await anyio.sleep(1)
        return "fast"

    assert await first_of(slow, fast) == "fast"
    assert cancelled == ["slow"]


async def service(*, task_status: TaskStatus[str]) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever)
        task_status.started("ready")


@pytest_asyncio.fixture
async def background() -> AsyncIterator[str]:
    async with in_background(service) as value:
        yield value


async def test_a_service_with_task_groups_works_in_a_fixture(background: str) -> None:
    assert background == "ready"


async def test_a_service_that_fails_before_it_is_ready_fails_the_start() -> None:
    async def broken(*, task_status: TaskStatus[str]) -> None:
        raise ValueError("no port")

    with pytest.raises(ExceptionGroup) as raised:
        async with in_background(broken):
            raise AssertionError("never gets here")
    assert raised.group_contains(ValueError, match="no port")


@pytest.mark.sim
async def test_a_service_that_is_never_ready_times_out() -> None:
    async def silent(*, task_status: TaskStatus[str]) -> None:
        await anyio.sleep_forever()

    with pytest.raises(ExceptionGroup) as raised:
        async with in_background(silent, timeout_s=5):
            raise AssertionError("never gets here")
    assert raised.group_contains(TimeoutError)


@pytest.mark.sim
async def test_a_bulkhead_bounds_who_is_inside_and_who_waits() -> None:
    bulkhead = Bulkhead("cloud", limit=2, waiting=1)
    outcomes: list[str] = []

    async def call(timeout_s: float) -> None:
        try:
            async with bulkhead.place(timeout_s):
                assert bulkhead.busy <= 2
                await anyio.sleep(10)
                outcomes.append("done")
        except BulkheadFull:
            outcomes.append("full")
        except TimeoutError:
            outcomes.append("timeout")

    async with anyio.create_task_group() as group:
        for timeout_s in (1, 1, 5, 5):
            group.start_soon(call, timeout_s)
    assert sorted(outcomes) == ["done", "done", "full", "timeout"]
    async with bulkhead.place(0):
        assert bulkhead.busy == 1
