"""The laws of the work queue, for any interleaving of adds, gets and dones."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kcp.base.clock import VirtualClock
from kcp.base.loop import run_deterministic
from kcp.client.workqueue.delaying import DelayedAdds
from kcp.client.workqueue.queue import LIVE_PER_BACKGROUND, Lane, Queue, ShutDown

KEYS = st.sampled_from(["a", "b", "c", "d"])
LANES: st.SearchStrategy[Lane] = st.sampled_from(["live", "background"])


class QueueMachine(RuleBasedStateMachine):
    """Against a model: a set of dirty keys and a set of keys with workers."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = Queue(VirtualClock())
        self.dirty: dict[str, Lane] = {}
        self.processing: set[str] = set()

    @rule(key=KEYS, lane=LANES)
    def add(self, key: str, lane: Lane) -> None:
        self.queue.add(key, lane)
        if self.dirty.get(key) != "live":
            self.dirty[key] = "live" if lane == "live" else self.dirty.get(key, lane)

    @precondition(lambda self: set(self.dirty) - self.processing)
    @rule()
    def get(self) -> None:
        key = self.queue._next()
        assert key is not None, "a key waits, so there is one to get"
        assert key in self.dirty, "only what was added and not handed out since"
        assert key not in self.processing, "never with two workers"
        del self.dirty[key]
        self.processing.add(key)

    @precondition(lambda self: self.processing)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.processing)))
        self.queue.done(key)
        self.processing.discard(key)

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.queue) == len(set(self.dirty) - self.processing)
        assert self.queue.processing == len(self.processing)

    def teardown(self) -> None:
        """Nothing is lost: with all workers done everything dirty comes out exactly once."""
        for key in sorted(self.processing):
            self.queue.done(key)
        out = []
        while (key_out := self.queue._next()) is not None:
            out.append(key_out)
            self.queue.done(key_out)
        assert sorted(out) == sorted(self.dirty)


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(live=st.integers(1, 60), background=st.integers(1, 60))
@settings(deadline=None, max_examples=40)
def test_while_both_lanes_wait_eight_of_nine_gets_are_live(live: int, background: int) -> None:
    queue = Queue(VirtualClock())
    for i in range(live):
        queue.add(f"l{i:03}", "live")
    for i in range(background):
        queue.add(f"b{i:03}", "background")
    order = [queue._next() or "" for _ in range(live + background)]
    assert [key for key in order if key[0] == "l"] == sorted(key for key in order if key[0] == "l")
    assert [key for key in order if key[0] == "b"] == sorted(key for key in order if key[0] == "b")
    both = min(live // LIVE_PER_BACKGROUND, background)
    for turn in range(both):
        window = order[turn * 9 : turn * 9 + 9]
        assert [key[0] for key in window] == ["l"] * 8 + ["b"]


@given(plan=st.lists(st.tuples(KEYS, st.floats(-1, 100, allow_nan=False)), max_size=30))
@settings(deadline=None)
def test_a_delayed_key_comes_at_the_earliest_time_asked_for_and_ties_in_order_of_adds(
    plan: list[tuple[str, float]],
) -> None:
    clock = VirtualClock()
    queue = Queue(clock)
    delayed = DelayedAdds(queue, clock)
    earliest: dict[str, float] = {}
    at_once: list[str] = []
    for key, seconds in plan:
        delayed.add_after(key, seconds)
        if seconds <= 0:
            at_once.append(key)
        else:
            earliest[key] = min(seconds, earliest.get(key, seconds))
    assert len(queue) == len(set(at_once))
    while (due_s := delayed.due_in_s()) is not None:
        clock.advance(due_s + 1e-9)  # the sum may be rounded to just before the time that is due
        before = len(delayed)
        assert delayed.release_due() > 0
        assert len(delayed) < before
        assert all(at > clock.monotonic() or key not in delayed._heap for key, at in earliest.items())
    assert len(queue) == len({*at_once, *earliest})


@pytest.mark.parametrize("seed", range(5))
def test_many_producers_and_workers_work_every_key_and_never_one_twice_at_once(seed: int) -> None:
    async def main() -> tuple[dict[str, int], int]:
        queue = Queue(VirtualClock())
        worked: dict[str, int] = {}
        busy: set[str] = set()
        most = 0

        async def produce(start: int) -> None:
            for i in range(50):
                queue.add(f"k{(start * 7 + i) % 20}", "live" if i % 3 else "background")
                await anyio.sleep(0.01 * (i % 2))

        async def work() -> None:
            nonlocal most
            while True:
                try:
                    key = await queue.get()
                except ShutDown:
                    return
                assert key not in busy
                busy.add(key)
                most = max(most, len(busy))
                await anyio.sleep(0.003)
                worked[key] = worked.get(key, 0) + 1
                busy.discard(key)
                queue.done(key)

        async with anyio.create_task_group() as workers:
            for _ in range(4):
                workers.start_soon(work)
            async with anyio.create_task_group() as producers:
                for start in range(3):
                    producers.start_soon(produce, start)
            await queue.shut_down_with_drain()
        return worked, most

    worked, most = run_deterministic(main, seed)
    assert sorted(worked) == sorted(f"k{i}" for i in range(20))
    assert 1 < most <= 4


async def test_a_worker_cancelled_just_when_it_is_woken_passes_the_key_on() -> None:
    queue = Queue(VirtualClock())
    doomed, other = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    doomed.cancel()
    assert await asyncio.wait_for(other, 5) == "a"
    assert doomed.cancelled()


def test_after_shut_down_adds_are_ignored_and_the_rest_is_drained() -> None:
    queue = Queue(VirtualClock())
    queue.add("a")
    queue.shut_down()
    queue.add("b")

    async def main() -> str:
        key = await queue.get()
        queue.done(key)
        with pytest.raises(ShutDown):
            await queue.get()
        return key

    assert run_deterministic(main) == "a"
