"""What `run` does in virtual time: the horizon moves, objects expire; and the same seed gives the same log."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import anyio
import pytest

from kcp.base.clock import LoopClock, microseconds
from kcp.base.loop import run_deterministic
from kcp.store.protocol import Op, Unavailable
from kcp.store.transfer import checksum_of
from tests.store.changes import create, delete, key, open_for_test, told, update, write

pytestmark = pytest.mark.sim


@pytest.mark.parametrize("where", ["memory:", "disk"])
async def test_the_horizon_moves_every_period_to_the_head_of_the_one_before(
    tmp_path: Path, where: str
) -> None:
    store = open_for_test(tmp_path if where == "disk" else where, LoopClock(), inline=True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.run)
        seen = []
        for i in range(4):
            await anyio.sleep(150)
            await store.append(create(key(f"a{i}")))
            await anyio.sleep(150.5)
            seen.append((store.rv, store.horizon))
        tasks.cancel_scope.cancel()
    assert seen == [(1, 0), (2, 1), (3, 2), (4, 3)]


async def test_objects_expire_by_ordinary_events() -> None:
    clock = LoopClock()
    store = open_for_test("memory:", clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.run)
        now_us = microseconds(clock.now())
        for i in range(600):
            await store.append(create(key(f"a{i}"), expires_us=now_us + 60_000_000))
        await store.append(update(key("a1"), expires_us=now_us + 600_000_000))
        await store.append(update(key("a2")))
        await store.append(delete(key("a3")))
        await anyio.sleep(55)
        assert len(store.list("configmaps")) == 599
        await anyio.sleep(20)
        assert [record.key.name for record in store.list("configmaps")] == ["a1", "a2"]
        events = await store.events_since(603, limit=9999)
        assert {(event.op, event.cause.actor.username) for event in events} == {(Op.DELETED, "system:ttl")}
        await anyio.sleep(600)
        assert [record.key.name for record in store.list("configmaps")] == ["a2"]
        tasks.cancel_scope.cancel()


async def test_a_restart_does_not_lengthen_a_life(tmp_path: Path) -> None:
    clock = LoopClock()
    async with open_for_test(tmp_path, clock, inline=True) as store:
        await store.append(create(key("a"), expires_us=microseconds(clock.now()) + 30_000_000))
    await anyio.sleep(25)
    store = open_for_test(tmp_path, clock, inline=True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.run)
        await anyio.sleep(15.5)
        assert store.get(key("a")) is None
        tasks.cancel_scope.cancel()
    with pytest.raises(Unavailable):
        await store.append(create(key("b")))


async def _busy(where: str | Path) -> str:
    store = open_for_test(where, LoopClock(), inline=True)

    async def appender(writer: int) -> None:
        for i in range(20):
            at = key(f"n{(writer * 7 + i) % 13}")
            verb = "create" if store.get(at) is None else ("update", "delete")[i % 2]
            await asyncio.gather(store.append(write(verb, at, w=str(writer))), return_exceptions=True)
            await anyio.sleep((writer % 3) * 0.01)

    async with anyio.create_task_group() as tasks:
        for writer in range(10):
            tasks.start_soon(appender, writer)
    digest = hashlib.sha256(repr([told(e) for e in await store.events_since(0, limit=9999)]).encode())
    await store.close()
    return digest.hexdigest()


def test_the_same_seed_gives_the_same_log(tmp_path: Path) -> None:
    logs = [
        run_deterministic(lambda where=where: _busy(where), 5)
        for where in ("memory:", tmp_path / "1", tmp_path / "2")
    ]
    assert len(set(logs)) == 1
    assert checksum_of(tmp_path / "1") == checksum_of(tmp_path / "2")
    assert run_deterministic(lambda: _busy("memory:"), 6) != logs[0]
