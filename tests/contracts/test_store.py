"""What every event log promises of writes: one suite, run on each implementation. Its other parts: test_store_*.py."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import anyio
import pytest

from kcp.base.clock import SystemClock, VirtualClock, microseconds
from kcp.machinery.errors import AlreadyExists, Conflict, NotFound
from kcp.store.log import EventLog
from kcp.store.protocol import (
    MAX_BODY_BYTES,
    Cause,
    Committed,
    Head,
    Keep,
    Key,
    Op,
    Put,
    Record,
    Remove,
    StoreError,
    TooLarge,
    Unavailable,
)
from tests.contracts.stores import names
from tests.store.changes import (
    ALICE,
    Heard,
    build,
    create,
    delete,
    key,
    lease_spec,
    open_for_test,
    operation,
    plain,
    put_value,
    update,
)


class TestAppend:
    async def test_revisions_start_at_one_and_have_no_holes(self, store: EventLog) -> None:
        assert store.rv == 0
        rvs = [(await store.append(create(key(f"a{i}")))).rv for i in range(5)]
        assert rvs == [1, 2, 3, 4, 5]
        assert store.rv == 5

    async def test_create_answers_with_the_new_state(self, store: EventLog) -> None:
        done = await store.append(create(key("a"), uid="u1", data={"k": "v"}))
        assert done.op is Op.ADDED and done.previous is None and done.record is not None
        record = done.record
        assert (record.rv, record.oid, record.uid, record.key) == (1, 1, "u1", key("a"))
        assert record.value["metadata"]["resourceVersion"] == "1"
        assert record.value["data"] == {"k": "v"}
        assert b'"resourceVersion":"1"' in record.document.encoded

    async def test_update_keeps_the_incarnation(self, store: EventLog) -> None:
        first = await store.append(create(key("a"), data={"v": "1"}))
        second = await store.append(update(key("a"), data={"v": "2"}))
        assert second.op is Op.MODIFIED and second.rv == 2
        assert second.record is not None and second.record.oid == 1
        assert plain(second.previous) == plain(first.record)

    async def test_remove_answers_with_the_last_state_at_its_own_revision(self, store: EventLog) -> None:
        await store.append(create(key("a"), data={"v": "1"}))
        done = await store.append(delete(key("a")))
        assert done.op is Op.DELETED and done.rv == 2 and done.record is not None
        assert done.record.rv == done.record.document.rv == 2
        assert done.record.value["metadata"]["resourceVersion"] == "2"
        assert done.record.value["data"] == {"v": "1"}
        assert store.get(key("a")) is None

    async def test_a_name_used_again_is_a_new_incarnation(self, store: EventLog) -> None:
        await store.append(create(key("a")))
        await store.append(delete(key("a")))
        again = await store.append(create(key("a")))
        assert again.record is not None and again.record.oid == 3

    async def test_keep_takes_no_revision(self, store: EventLog) -> None:
        created = await store.append(create(key("a")))
        kept = await store.append(operation(key("a"), lambda current, head: Keep()))
        assert kept.op is None and kept.rv == 1 and plain(kept.record) == plain(created.record)
        assert store.rv == 1

    async def test_keep_of_nothing(self, store: EventLog) -> None:
        await store.append(create(key("a")))
        kept = await store.append(operation(key("b"), lambda current, head: Keep()))
        assert (kept.op, kept.record, store.rv) == (None, None, 1)

    async def test_remove_of_nothing_changes_nothing(self, store: EventLog) -> None:
        done = await store.append(operation(key("a"), lambda current, head: Remove()))
        assert (done.op, done.record, store.rv) == (None, None, 0)

    @pytest.mark.parametrize(
        ("change", "error"),
        [
            (create(key("a")), AlreadyExists),
            (update(key("a"), rv=9), Conflict),
            (delete(key("a"), rv=9), Conflict),
            (update(key("b")), NotFound),
        ],
    )
    async def test_what_the_change_raises_is_what_the_caller_gets(
        self, store: EventLog, change: Any, error: type[Exception]
    ) -> None:
        await store.append(create(key("a")))
        with pytest.raises(error):
            await store.append(change)
        assert store.rv == 1

    async def test_any_exception_of_a_change_fails_only_its_operation(self, store: EventLog) -> None:
        def broken(current: Record | None, head: Head) -> Put | Remove | Keep:
            raise ZeroDivisionError

        outcomes = await store.append_all([create(key("a")), operation(key("b"), broken), create(key("c"))])
        assert [type(outcome) for outcome in outcomes] == [Committed, ZeroDivisionError, Committed]
        assert store.rv == 2

    async def test_a_body_over_the_limit_is_refused(self, store: EventLog) -> None:
        with pytest.raises(TooLarge, match=r"^etcdserver: request is too large$"):
            await store.append(create(key("a"), data={"v": "x" * MAX_BODY_BYTES}))
        assert store.rv == 0 and store.get(key("a")) is None

    async def test_a_body_just_below_the_limit_is_taken(self, store: EventLog) -> None:
        size = MAX_BODY_BYTES - 200
        done = await store.append(create(key("a"), data={"v": "x" * size}))
        assert done.rv == 1

    async def test_an_unregistered_resource_is_refused(self, store: EventLog) -> None:
        value = {"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "a", "uid": "u"}}
        with pytest.raises(StoreError, match=r"xs\.x is not registered"):
            await store.append(operation(Key("xs.x", "", "a"), lambda current, head: put_value(value)))

    async def test_an_object_cannot_change_its_uid(self, store: EventLog) -> None:
        await store.append(create(key("a"), uid="u1"))
        value = build(key("a"), "u2")
        with pytest.raises(StoreError, match="uid"):
            await store.append(operation(key("a"), lambda current, head: put_value(value)))

    async def test_later_operations_see_earlier_ones_of_the_same_batch(self, store: EventLog) -> None:
        seen: list[tuple[int, list[str]]] = []

        def look(current: Record | None, head: Head) -> Put | Remove | Keep:
            seen.append((head.rv, names(head.list("configmaps"))))
            return Keep()

        await store.append(create(key("m")))
        await store.append_all(
            [create(key("z")), delete(key("m")), create(key("b")), operation(key("q"), look)]
        )
        assert seen == [(4, ["default/b", "default/z"])]

    async def test_head_lists_one_namespace(self, store: EventLog) -> None:
        seen: list[list[str]] = []

        def look(current: Record | None, head: Head) -> Put | Remove | Keep:
            seen.append(names(head.list("configmaps", "y")))
            return Keep()

        await store.append_all([create(key("a", "x")), create(key("b", "y")), create(key("c", "yy"))])
        await store.append_all([create(key("d", "y")), create(key("e", "z")), operation(key("q"), look)])
        assert seen == [["y/b", "y/d"]]

    async def test_a_read_modify_write_needs_no_conflict_loop(self, store: EventLog) -> None:
        def increment(current: Record | None, head: Head) -> Put | Remove | Keep:
            assert current is not None
            count = str(int(current.value["data"]["n"]) + 1)
            return put_value(build(key("a"), current.uid, data={"n": count}))

        await store.append(create(key("a"), data={"n": "0"}))
        await asyncio.gather(*[store.append(operation(key("a"), increment)) for _ in range(200)])
        record = store.get(key("a"))
        assert record is not None and record.value["data"]["n"] == "200" and store.rv == 201

    async def test_of_many_creates_of_one_name_one_wins(self, store: EventLog) -> None:
        results = await asyncio.gather(
            *[store.append(create(key("a"), data={"v": str(i)})) for i in range(50)], return_exceptions=True
        )
        assert sum(isinstance(r, Committed) for r in results) == 1
        assert sum(isinstance(r, AlreadyExists) for r in results) == 49

    async def test_create_update_delete_create_in_one_batch(self, store: EventLog) -> None:
        outcomes = await store.append_all(
            [
                create(key("a"), data={"v": "1"}),
                update(key("a"), data={"v": "2"}),
                delete(key("a")),
                create(key("a"), data={"v": "3"}),
            ]
        )
        assert [o.rv for o in outcomes if isinstance(o, Committed)] == [1, 2, 3, 4]
        assert [e.op for e in await store.events_since(0)] == [Op.ADDED, Op.MODIFIED, Op.DELETED, Op.ADDED]
        record = store.get(key("a"))
        assert record is not None and record.oid == 4
        assert plain(await store.get_at(key("a"), 2)) is not None
        assert await store.get_at(key("a"), 3) is None

    async def test_append_all_of_nothing(self, store: EventLog) -> None:
        assert await store.append_all([]) == []

    async def test_atomic_success_is_in_order(self, store: EventLog) -> None:
        outcomes = await store.append_all([create(key("a")), create(key("b"))], atomic=True)
        assert [o.rv for o in outcomes if isinstance(o, Committed)] == [1, 2]

    async def test_atomic_failure_undoes_all_with_the_same_error(self, store: EventLog) -> None:
        await store.append(create(key("kept"), data={"v": "1"}))
        outcomes = await store.append_all(
            [
                create(key("a")),
                update(key("kept"), data={"v": "2"}),
                delete(key("kept")),
                create(key("b")),
                update(key("missing")),
                create(key("c")),
            ],
            atomic=True,
        )
        assert len({id(outcome) for outcome in outcomes}) == 1 and isinstance(outcomes[0], NotFound)
        assert store.rv == 1
        assert names(store.list("configmaps")) == ["default/kept"]
        assert (await store.append(create(key("a")))).rv == 2

    async def test_atomic_failure_undoes_leases(self, store: EventLog) -> None:
        lease = key("l", resource="leases.coordination.k8s.io")
        await store.append(create(lease, spec=lease_spec("x")))
        await store.append_all([update(lease, spec=lease_spec("y")), update(key("missing"))], atomic=True)
        assert store.lease_epoch(lease) == (1, 0)

    async def test_a_huge_submission_is_one_transaction(self, store: EventLog) -> None:
        heard = Heard()
        store.listen(heard)
        outcomes = await store.append_all([create(key(f"a{i:04}")) for i in range(700)])
        assert len(outcomes) == 700 and heard.batches == [700]

    async def test_what_is_queued_together_becomes_visible_in_order(self, store: EventLog) -> None:
        heard = Heard()
        store.listen(heard)
        results = await asyncio.gather(*[store.append(create(key(f"a{i}"))) for i in range(1500)])
        assert [r.rv for r in results] == list(range(1, 1501))
        assert [e.rv for e in heard.events] == list(range(1, 1501))
        assert max(heard.batches) > 1

    async def test_time_rises_strictly_with_the_revision(self, tmp_path: Path) -> None:
        clock = VirtualClock()
        for where in ("memory:", tmp_path):
            async with open_for_test(where, clock, inline=True) as store:
                await store.append_all([create(key(f"a{i}")) for i in range(5)])
                clock.advance(2.5)
                await store.append_all([create(key(f"b{i}")) for i in range(5)])
                times = [event.ts_us for event in await store.events_since(0)]
                assert times == sorted(set(times)) and times[5] - times[4] > 2_000_000

    async def test_causes_are_kept(self, store: EventLog) -> None:
        cause = Cause(ALICE, "request-1", 1234)
        await store.append(create(key("a"), cause=cause))
        await store.append(update(key("a"), cause=cause))
        assert [event.cause for event in await store.events_since(0)] == [cause, cause]


class TestCancellation:
    async def test_cancelled_in_the_queue_nothing_happens(self, store: EventLog) -> None:
        task = asyncio.ensure_future(store.append(create(key("a"))))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        done = await store.append(create(key("b")))
        assert done.rv == 1 and store.get(key("a")) is None

    async def test_cancelling_some_leaves_the_others(self, store: EventLog) -> None:
        tasks = [asyncio.ensure_future(store.append(create(key(f"a{i}")))) for i in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        kept = [r for r in results if isinstance(r, Committed)]
        assert [r.rv for r in kept] == list(range(1, 11))
        assert len(store.list("configmaps")) == 10

    async def test_cancelled_during_the_commit_the_log_stays_sound(self, store: EventLog) -> None:
        for i in range(20):
            task = asyncio.ensure_future(store.append(create(key(f"a{i}"))))
            for _ in range(i % 4):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        last = await store.append(create(key("last")))
        assert [e.rv for e in await store.events_since(0)] == list(range(1, last.rv + 1))

    async def test_close_commits_what_is_queued(self, store: EventLog) -> None:
        tasks = [asyncio.ensure_future(store.append(create(key(f"a{i}")))) for i in range(600)]
        await asyncio.sleep(0)
        await store.close()
        assert [r.rv for r in await asyncio.gather(*tasks)] == list(range(1, 601))
        with pytest.raises(Unavailable):
            await store.append(create(key("late")))

    async def test_close_twice_is_harmless(self, store: EventLog) -> None:
        await store.close()
        await store.close()

    async def test_run_ends_by_closing(self, store: EventLog) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store.run)
            await store.append(create(key("a")))
            tasks.cancel_scope.cancel()
        with pytest.raises(Unavailable):
            await store.append(create(key("b")))


async def test_the_system_clock_is_good_enough(tmp_path: Path) -> None:
    async with open_for_test(tmp_path, SystemClock()) as store:
        before = microseconds(SystemClock().now())
        await store.append(create(key("a")))
        (event,) = await store.events_since(0)
        assert before <= event.ts_us <= microseconds(SystemClock().now())
