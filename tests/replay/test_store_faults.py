"""A log that fails and a log that daemons share keep the store's promises while they misbehave."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import anyio
import pytest

from kcp.base.clock import LoopClock
from kcp.base.loop import run_deterministic
from kcp.machinery.document import normal
from kcp.replay.faults import Faults
from kcp.replay.store_faults import Daemon, FaultyDriver, SharedLog
from kcp.store.log import EventLog
from kcp.store.memory import MemoryDriver
from kcp.store.protocol import Decision, Key, KindRow, Operation, Put, Unavailable

KIND = KindRow("configmaps", "", "v1", "ConfigMap", "configmaps", True)


def put(name: str, uid: str) -> Operation:
    value = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "uid": uid},
    }
    return Operation(Key("configmaps", "default", name), lambda current, head: Put(normal(value), value))


def faults(rates: Mapping[str, float], *, started: bool = True) -> Faults:
    made = Faults(1, rates, LoopClock())
    if started:
        made.start()
    return made


def at_once(seconds: float, then: Callable[[], None]) -> None:
    del seconds
    then()


def daemons(disturbed: Faults) -> list[EventLog]:
    shared = SharedLog(MemoryDriver("u"))
    logs = [EventLog(Daemon(shared, number, disturbed), LoopClock()) for number in (1, 2)]
    for log in logs:
        log.register([KIND])
    return logs


def test_a_batch_that_fails_leaves_nothing_and_the_next_one_goes_through() -> None:
    async def main() -> None:
        disturbed = faults({"store-fail": 1.0})
        log = EventLog(FaultyDriver(MemoryDriver("u"), disturbed, at_once), LoopClock())
        log.register([KIND])
        with pytest.raises(Unavailable):
            await log.append(put("a", "1"))
        assert log.rv == 0
        disturbed.heal()
        assert (await log.append(put("a", "1"))).rv == 1
        await log.close()

    run_deterministic(main)


def test_a_slow_commit_is_answered_when_it_is_durable() -> None:
    waiting: list[Callable[[], None]] = []

    async def main() -> None:
        disturbed = faults({"store-slow": 1.0})
        driver = MemoryDriver("u")
        log = EventLog(
            FaultyDriver(driver, disturbed, lambda seconds, then: waiting.append(then)), LoopClock()
        )
        log.register([KIND])
        async with anyio.create_task_group() as group:
            group.start_soon(log.append, put("a", "1"))
            await anyio.sleep(1)
            assert log.rv == 0 and len(waiting) == 1
            waiting.pop()()
        assert log.rv == 1
        disturbed.heal()
        await log.close()

    run_deterministic(main)


def test_two_daemons_write_one_sequence_of_revisions() -> None:
    async def main() -> None:
        one, two = daemons(faults({}))
        revisions = [(await log.append(put(f"c{n}", str(n)))).rv for n, log in enumerate((one, two) * 3)]
        assert revisions == [1, 2, 3, 4, 5, 6]
        await one.catch_up()
        assert [r.rv for r in one.list("configmaps")] == [r.rv for r in two.list("configmaps")]
        for log in (one, two):
            await log.close()

    run_deterministic(main)


def test_a_batch_of_unknown_outcome_is_there_once_somebody_looks() -> None:
    async def main() -> None:
        disturbed = faults({"store-unknown": 1.0})
        one, two = daemons(disturbed)
        one.record(_decision())
        with pytest.raises(Unavailable):
            await one.append(put("a", "1"))
        disturbed.heal()
        assert one.rv == 0
        await one.catch_up()
        assert one.rv == 1 and one.get(Key("configmaps", "default", "a")) is not None
        assert (await two.append(put("b", "2"))).rv == 2
        for log in (one, two):
            await log.close()
        driver = one._driver
        assert isinstance(driver, Daemon)
        assert [row.id for _, row in driver.log.memory.decisions] == [7], "told twice, kept once"

    run_deterministic(main)


def _decision() -> Decision:
    return Decision(
        id=7,
        controller="c",
        key="k",
        trigger="event",
        frontier={},
        now_us=0,
        effects=[],
        memo_before=None,
        code_hash="",
        config_hash="",
    )
