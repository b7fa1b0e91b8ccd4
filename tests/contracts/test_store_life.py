"""What every event log promises of its own life: bounds, closing in the middle of things, what is lost and what is not."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from kcp.store import check, writer
from kcp.store.log import EventLog
from kcp.store.protocol import Committed, Input, Unavailable
from tests.contracts.conftest import Engine
from tests.contracts.stores import names
from tests.store.changes import Heard, create, delete, key, plain, update


class TestTheQueue:
    async def test_beyond_its_bound_newcomers_wait_for_their_turn(
        self, store: EventLog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(writer, "MAX_QUEUED_OPERATIONS", 4)
        results = await asyncio.gather(*[store.append(create(key(f"a{i:02}"))) for i in range(50)])
        assert sorted(result.rv for result in results) == list(range(1, 51))

    async def test_one_who_waits_for_room_may_give_up(
        self, store: EventLog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(writer, "MAX_QUEUED_OPERATIONS", 2)
        tasks = [asyncio.ensure_future(store.append(create(key(f"a{i}")))) for i in range(6)]
        await asyncio.sleep(0)
        tasks[5].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [Committed] * 5 + [asyncio.CancelledError]
        assert store.get(key("a5")) is None and store.rv == 5

    async def test_one_who_waits_for_room_is_told_when_it_closes(
        self, store: EventLog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(writer, "MAX_QUEUED_OPERATIONS", 2)
        tasks = [asyncio.ensure_future(store.append(create(key(f"a{i}")))) for i in range(5)]
        await asyncio.sleep(0)
        await store.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results[:2]] == [Committed] * 2
        assert all(isinstance(result, (Committed, Unavailable)) for result in results)
        assert store.rv == sum(isinstance(result, Committed) for result in results)

    async def test_a_submission_above_the_bound_is_taken_whole(
        self, store: EventLog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(writer, "MAX_QUEUED_OPERATIONS", 3)
        outcomes = await store.append_all([create(key(f"a{i}")) for i in range(20)], atomic=True)
        assert [outcome.rv for outcome in outcomes if isinstance(outcome, Committed)] == list(range(1, 21))

    async def test_small_batches_change_nothing(
        self, store: EventLog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(writer, "MAX_BATCH_OPERATIONS", 1)
        heard = Heard()
        store.listen(heard)
        results = await asyncio.gather(*[store.append(create(key(f"a{i}"))) for i in range(12)])
        assert [result.rv for result in results] == list(range(1, 13))
        assert heard.batches == [1] * 12


class TestCancelledSubmissions:
    async def test_a_transaction_cancelled_in_the_queue_leaves_nothing(self, store: EventLog) -> None:
        task = asyncio.ensure_future(store.append_all([create(key("a")), create(key("b"))], atomic=True))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.append(create(key("c")))
        assert names(store.list("configmaps")) == ["default/c"]

    async def test_a_transaction_cancelled_late_is_whole_or_absent(self, store: EventLog) -> None:
        for i in range(12):
            both = [create(key(f"a{i}")), create(key(f"b{i}"))]
            task = asyncio.ensure_future(store.append_all(both, atomic=True))
            for _ in range(i % 5):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await store.append(create(key("last")))
        for i in range(12):
            assert (store.get(key(f"a{i}")) is None) == (store.get(key(f"b{i}")) is None)

    async def test_a_deadline_takes_nothing_from_the_next(self, store: EventLog) -> None:
        for i in range(10):
            with anyio.move_on_after(0):
                await store.append(create(key(f"a{i}")))
        done = await store.append(create(key("last")))
        assert [event.rv for event in await store.events_since(0)] == list(range(1, done.rv + 1))


class TestClosing:
    async def test_in_the_middle_of_a_commit(self, engine: Engine) -> None:
        store = engine.open()
        tasks = [asyncio.ensure_future(store.append(create(key(f"a{i}")))) for i in range(3)]
        for _ in range(3):
            await asyncio.sleep(0)
        late = asyncio.ensure_future(store.append(create(key("late"))))
        await store.close()
        results = await asyncio.gather(*tasks, late, return_exceptions=True)
        assert [result.rv for result in results[:3] if isinstance(result, Committed)] == [1, 2, 3]
        assert isinstance(results[3], (Committed, Unavailable))
        if engine.lasting:
            assert check.problems(engine.where) == []

    async def test_by_two_at_once(self, store: EventLog) -> None:
        task = asyncio.ensure_future(store.append(create(key("a"))))
        await asyncio.sleep(0)
        await asyncio.gather(store.close(), store.close())
        assert (await task).rv == 1

    async def test_what_was_in_memory_can_still_be_read(self, store: EventLog) -> None:
        await store.append(create(key("a")))
        await store.close()
        assert names(store.list("configmaps")) == ["default/a"] and store.rv == 1

    async def test_nothing_more_is_taken(self, store: EventLog) -> None:
        await store.append(create(key("a")))
        await store.close()
        for work in (store.append(update(key("a"))), store.append_all([delete(key("a"))])):
            with pytest.raises(Unavailable, match=r"^the store is closed$"):
                await work

    async def test_a_record_that_comes_too_late_is_no_failure(self, store: EventLog) -> None:
        await store.close()
        store.record(Input("late", {}))

    async def test_everything_acknowledged_is_there_afterwards(self, lasting: Engine) -> None:
        acknowledged: dict[int, object] = {}
        store = lasting.open()

        async def write(number: int) -> None:
            for i in range(1000):
                try:
                    done = await store.append(create(key(f"a{number}-{i}"), data={"i": str(i)}))
                except Unavailable:
                    return
                acknowledged[done.rv] = plain(done.record)

        tasks = [asyncio.ensure_future(write(i)) for i in range(8)]
        while store.rv < 40:
            await asyncio.sleep(0)
        await store.close()
        await asyncio.gather(*tasks)
        assert len(acknowledged) >= 40
        async with lasting.open() as again:
            found = {event.rv: plain(event.record) for event in await again.events_since(0, limit=100_000)}
        assert found == acknowledged and check.problems(lasting.where) == []

    async def test_while_it_runs_its_housekeeping(self, engine: Engine) -> None:
        store = engine.open()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store.run)
            await asyncio.gather(*[store.append(create(key(f"a{i}"))) for i in range(20)])
            await store.catch_up()
            tasks.cancel_scope.cancel()
        assert store.rv == 20
        with pytest.raises(Unavailable):
            await store.append(create(key("late")))
