"""The deterministic loop: same seed, same steps, in any process; virtual time; deadlocks found."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import time

import anyio
import pytest

from kcp.base.clock import LoopClock
from kcp.base.loop import Deadlock, DetLoop, TooManySteps, run_deterministic

PROGRAM = textwrap.dedent(
    """
    import hashlib, sys
    import anyio
    from kcp.base.loop import run_deterministic

    ballast = [object() for _ in range(int(sys.argv[1]))]

    async def main():
        log = []
        send, receive = anyio.create_memory_object_stream(3)

        async def producer(n):
            async with send.clone() as out:
                for i in range(10):
                    await out.send((n, i))
                    await anyio.sleep((n * i) % 7 * 0.25)

        async def consumer(n):
            async with receive.clone() as into:
                async for item in into:
                    log.append((n, item, anyio.current_time()))

        async def stayer(n):
            try:
                with anyio.CancelScope():
                    async with anyio.create_task_group() as inner:
                        inner.start_soon(anyio.sleep_forever)
                        await anyio.sleep_forever()
            finally:
                log.append(("cleanup", n))

        async def agen(n):
            try:
                yield n
                await anyio.sleep_forever()
            finally:
                log.append(("closed", n))

        open_generators = [agen(n) for n in range(5)]
        for generator in open_generators:
            await anext(generator)
        async with anyio.create_task_group() as group:
            for n in range(6):
                group.start_soon(producer, n)
            for n in range(3):
                group.start_soon(consumer, n)
            for n in range(40):
                group.start_soon(stayer, n)
            await anyio.sleep(3600)
            group.cancel_scope.cancel()
        send.close(); receive.close()
        for generator in open_generators:
            await generator.aclose()
        return hashlib.sha256(repr(log).encode()).hexdigest()

    print(run_deterministic(main, int(sys.argv[2])))
    """
)


def digest(ballast: int, seed: int, hash_seed: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ballast), str(seed)],
        env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_same_seed_takes_the_same_steps_in_five_processes() -> None:
    digests = {
        digest(ballast, 7, str(seed)) for ballast, seed in ((0, 1), (7, 22), (50, 333), (999, 4), (5000, 55))
    }
    assert len(digests) == 1


async def order_of(count: int = 12) -> tuple[int, ...]:
    seen: list[int] = []

    async def note(n: int) -> None:
        await anyio.sleep(1)
        seen.append(n)

    async with anyio.create_task_group() as group:
        for n in range(count):
            group.start_soon(note, n)
    return tuple(seen)


def test_another_seed_is_another_interleaving() -> None:
    orders = {run_deterministic(order_of, seed) for seed in range(10)}
    assert len(orders) == 10
    assert all(sorted(order) == list(range(12)) for order in orders)


def test_without_a_seed_tasks_run_in_order_of_creation() -> None:
    assert run_deterministic(order_of, None) == tuple(range(12))


def test_cancelled_tasks_clean_up_in_order_of_creation_without_a_seed() -> None:
    async def main() -> list[int]:
        cleaned: list[int] = []

        async def stay(n: int) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                cleaned.append(n)

        async with anyio.create_task_group() as group:
            for n in range(40):
                group.start_soon(stay, n)
            await anyio.sleep(1)
            group.cancel_scope.cancel()
        return cleaned

    assert run_deterministic(main, None) == list(range(40))


def test_a_day_passes_in_no_time() -> None:
    async def main() -> float:
        clock = LoopClock()
        before = clock.now()
        await anyio.sleep(86_400)
        return (clock.now() - before).total_seconds()

    started = time.monotonic()
    assert run_deterministic(main) == 86_400
    assert time.monotonic() - started < 5


@pytest.mark.sim
async def test_tests_marked_sim_run_in_virtual_time() -> None:
    assert isinstance(asyncio.get_running_loop(), DetLoop)
    before = time.monotonic()
    await anyio.sleep(86_400)
    assert time.monotonic() - before < 5


def test_callbacks_keep_their_order_whatever_the_seed() -> None:
    async def main() -> list[int]:
        seen: list[int] = []
        for n in range(20):
            asyncio.get_running_loop().call_soon(seen.append, n)
        await anyio.sleep(0)
        return seen

    assert all(run_deterministic(main, seed) == list(range(20)) for seed in range(5))


def test_a_program_that_can_never_go_on_is_a_deadlock_that_says_who_waits() -> None:
    async def stuck() -> None:
        await anyio.Event().wait()

    with pytest.raises(Deadlock, match=r"nothing can run any more at 5\.000 s virtual time"):

        async def main() -> None:
            await anyio.sleep(5)
            async with anyio.create_task_group() as group:
                group.start_soon(stuck, name="the stuck one")

        run_deterministic(main)
    with pytest.raises(Deadlock, match="stuck"):
        run_deterministic(stuck)


def test_a_program_that_spins_is_stopped() -> None:
    async def spin() -> None:
        while True:
            await anyio.sleep(0)

    with pytest.raises(TooManySteps):
        run_deterministic(spin, limit_steps=1000)


def test_executors_run_inline_and_other_threads_are_refused() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, lambda: 41 + 1) == 42
        failed = loop.run_in_executor(None, lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            await failed
        refused: list[str] = []

        def from_outside() -> None:
            try:
                loop.call_soon_threadsafe(print)
            except RuntimeError as error:
                refused.append(str(error))

        import threading

        thread = threading.Thread(target=from_outside)
        thread.start()
        thread.join()
        return len(refused)

    assert run_deterministic(main) == 1


def test_many_cancelled_timers_are_dropped() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, DetLoop)
        for n in range(1000):
            with anyio.move_on_after(1000 + n):
                await anyio.sleep(0.001)
        return len(loop._scheduled)

    assert run_deterministic(main) < 250


def test_hooks_see_every_step() -> None:
    steps: list[int] = []

    async def main() -> None:
        for _ in range(10):
            await anyio.sleep(1)

    run_deterministic(main, on_step=lambda loop: steps.append(loop.steps))
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) > 10
