from __future__ import annotations

from itertools import pairwise

import anyio
import pytest

from kcp.base.background import MOST_OWED_S, PATIENCE_S, Background
from kcp.base.clock import LoopClock

pytestmark = pytest.mark.sim
PIECE_S = 0.01


class Work:
    """Does pieces of ten milliseconds, one after the other, and notes when each began."""

    def __init__(self, background: Background) -> None:
        self.background = background
        self.began: list[float] = []

    async def run(self) -> None:
        while True:
            started_s = await self.background.enter()
            self.began.append(started_s)
            await anyio.sleep(PIECE_S)
            self.background.leave(started_s)

    async def for_s(self, seconds: float) -> int:
        """How many pieces were begun in that time."""
        before = len(self.began)
        with anyio.move_on_after(seconds):
            await self.run()
        return len(self.began) - before


async def test_nothing_waits_while_nobody_is_busy() -> None:
    work = Work(Background(LoopClock(), lambda: False))
    assert await work.for_s(1.005) == 101


async def test_a_tenth_is_its_share_while_others_are_busy_more_with_time_and_half_in_the_end() -> None:
    work = Work(Background(LoopClock(), lambda: True))
    shares = [await work.for_s(1.0) * PIECE_S for _ in range(45)]
    assert shares[0] == pytest.approx(0.1, abs=0.02)
    assert shares[5] == pytest.approx(0.18, abs=0.03)
    assert shares[-1] == pytest.approx(0.5, abs=0.05)
    assert all(b >= a - 0.02 for a, b in pairwise(shares))


async def test_it_goes_on_at_once_when_the_others_are_done_and_its_patience_is_new_then() -> None:
    busy = [True]
    work = Work(Background(LoopClock(), lambda: busy[0]))
    await work.for_s(4 * PATIENCE_S)
    busy[0] = False
    assert await work.for_s(1.0) >= 98
    busy[0] = True
    assert await work.for_s(1.0) <= 12


async def test_many_at_a_time_never_pause_for_longer_than_the_limit() -> None:
    background = Background(LoopClock(), lambda: True)
    workers = [Work(background) for _ in range(50)]
    with anyio.move_on_after(PATIENCE_S - 1):
        async with anyio.create_task_group() as group:
            for work in workers:
                group.start_soon(work.run)
    began = sorted(at for work in workers for at in work.began)
    pauses = [b - a for a, b in pairwise(began)]
    assert 0.3 < max(pauses) <= MOST_OWED_S + 2 * PIECE_S
    assert all(len(work.began) > 5 for work in workers), "nobody is passed over"
