"""What every event log promises: one suite, run on each implementation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from kcp.base.clock import SystemClock, VirtualClock, microseconds
from kcp.machinery.errors import AlreadyExists, Conflict, NotFound
from kcp.store.feed import Follower
from kcp.store.log import EventLog
from kcp.store.protocol import (
    MAX_BODY_BYTES,
    Cause,
    Committed,
    Decision,
    Event,
    Fence,
    Fenced,
    FutureRevision,
    Head,
    Input,
    Keep,
    Key,
    KindRow,
    Op,
    Put,
    Record,
    Remove,
    StoreError,
    TooLarge,
    Unavailable,
)
from tests.store import postgres
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
    told,
    update,
    write,
)


@pytest.fixture(
    params=["memory", "sqlite", "sqlite-inline", pytest.param("postgresql", marks=pytest.mark.real)]
)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EventLog]:
    where: str | Path = "memory:" if request.param == "memory" else tmp_path
    if request.param == "postgresql":
        where = postgres.database()
    async with open_for_test(where, inline=request.param == "sqlite-inline") as opened:
        yield opened


def names(records: Sequence[Record]) -> list[str]:
    return [f"{r.key.namespace}/{r.key.name}" if r.key.namespace else r.key.name for r in records]


async def story(store: EventLog) -> Key:
    """The worked example of the protocol: revisions 7, 9, 12, 15 of one object among others."""
    a = key("a")
    for i in range(6):
        await store.append(create(key(f"other-{i}")))
    assert (await store.append(create(a, data={"v": "A"}))).rv == 7
    await store.append(update(key("other-0"), data={"x": "1"}))
    assert (await store.append(update(a, data={"v": "B"}))).rv == 9
    await store.append(update(key("other-1"), data={"x": "1"}))
    await store.append(update(key("other-2"), data={"x": "1"}))
    assert (await store.append(delete(a))).rv == 12
    await store.append(update(key("other-3"), data={"x": "1"}))
    await store.append(update(key("other-4"), data={"x": "1"}))
    assert (await store.append(create(a, data={"v": "C"}))).rv == 15
    return a


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


class TestReads:
    async def test_get_of_nothing(self, store: EventLog) -> None:
        assert store.get(key("a")) is None
        assert store.get(Key("unknown", "x", "y")) is None

    async def test_list_of_nothing(self, store: EventLog) -> None:
        assert list(store.list("configmaps")) == [] and list(store.list("unknown", "x")) == []

    async def test_lists_are_ordered_by_namespace_then_name_in_byte_order(self, store: EventLog) -> None:
        places = [
            ("b", "a"),
            ("a", "z"),
            ("a-b", "x"),
            ("a", "B"),
            ("a", "é"),
            ("a", "b-1"),
            ("a", "b.1"),
            ("a", "b"),
        ]
        for namespace, name in places:
            await store.append(create(key(name, namespace)))
        expected = [f"{ns}/{n}" for ns, n in sorted(places, key=lambda p: (p[0].encode(), p[1].encode()))]
        assert names(store.list("configmaps")) == expected
        await store.append(create(key("later", "zz")))
        assert names(await store.list_at("configmaps", len(places))) == expected

    async def test_list_of_one_namespace(self, store: EventLog) -> None:
        for namespace in ("a", "a-b", "b", "ab"):
            await store.append_all([create(key(f"n{i}", namespace)) for i in range(3)])
        assert names(store.list("configmaps", "a")) == ["a/n0", "a/n1", "a/n2"]
        assert names(store.list("configmaps", "nope")) == []

    async def test_cluster_scoped_objects(self, store: EventLog) -> None:
        await store.append_all([create(key("n2", resource="nodes")), create(key("n1", resource="nodes"))])
        assert names(store.list("nodes")) == ["n1", "n2"]
        await store.append(delete(key("n1", resource="nodes")))
        assert names(await store.list_at("nodes", 2)) == ["n1", "n2"]

    async def test_lists_follow_every_change(self, store: EventLog) -> None:
        for i in range(40):
            await store.append(create(key(f"a{i % 7}{i}")))
            if i % 3 == 0:
                victim = store.list("configmaps")[i % len(store.list("configmaps"))].key
                await store.append(delete(victim))
                if i % 2:
                    await store.append(create(victim))
            listed = names(store.list("configmaps"))
            assert listed == sorted(set(listed))
            assert all(store.get(record.key) is record for record in store.list("configmaps"))

    async def test_a_list_once_given_does_not_change(self, store: EventLog) -> None:
        await store.append(create(key("a")))
        before = store.list("configmaps")
        await store.append(create(key("b")))
        assert names(before) == ["default/a"]

    async def test_the_worked_example(self, store: EventLog) -> None:
        a = await story(store)
        expected = {6: None, 7: "A", 8: "A", 9: "B", 11: "B", 12: None, 14: None, 15: "C"}
        for rv, value in expected.items():
            record = await store.get_at(a, rv)
            assert (None if record is None else record.value["data"]["v"]) == value
        events = await store.events_since(8)
        assert [e.rv for e in events if e.key == a] == [9, 12, 15]
        deleted = next(e for e in events if e.op is Op.DELETED)
        assert deleted.record.value["data"] == {"v": "B"} and deleted.record.rv == 12

    async def test_get_at_gives_the_bytes_that_were_served_then(self, store: EventLog) -> None:
        done = [await store.append(create(key("a"), data={"v": "0"}))]
        for i in range(1, 5):
            done.append(await store.append(update(key("a"), data={"v": str(i)})))
        for outcome in done:
            assert plain(await store.get_at(key("a"), outcome.rv)) == plain(outcome.record)

    async def test_reading_the_future_is_refused(self, store: EventLog) -> None:
        await store.append(create(key("a")))
        with pytest.raises(FutureRevision) as caught:
            await store.get_at(key("a"), 2)
        assert (caught.value.asked, caught.value.current) == (2, 1)
        with pytest.raises(FutureRevision):
            await store.list_at("configmaps", 2)

    async def test_list_at_every_revision_equals_the_list_then(self, store: EventLog) -> None:
        then: list[list[Any]] = [[]]
        for i in range(60):
            name = f"n{i * 7 % 11}"
            exists = store.get(key(name)) is not None
            verb = "delete" if exists and i % 4 == 0 else "update" if exists else "create"
            await store.append(write(verb, key(name), i=str(i)))
            then.append([plain(record) for record in store.list("configmaps")])
        for rv, expected in enumerate(then):
            assert [plain(record) for record in await store.list_at("configmaps", rv)] == expected

    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
    async def test_pages_of_a_past_list_add_up(self, store: EventLog, limit: int) -> None:
        await store.append_all([create(key(f"n{i:02}", f"ns{i % 3}")) for i in range(20)])
        rv = store.rv
        await store.append_all(
            [delete(key("n04", "ns1")), create(key("n00", "ns2")), update(key("n05", "ns2"))]
        )
        whole = await store.list_at("configmaps", rv)
        pages: list[Record] = []
        after: tuple[str, str] | None = None
        while page := await store.list_at("configmaps", rv, after=after, limit=limit):
            assert len(page) <= limit
            pages.extend(page)
            after = (page[-1].key.namespace, page[-1].key.name)
        assert [plain(r) for r in pages] == [plain(r) for r in whole] and len(whole) == 20

    @pytest.mark.parametrize("limit", [1, 4, 100])
    async def test_pages_of_the_present_list_add_up(self, store: EventLog, limit: int) -> None:
        await store.append_all([create(key(f"n{i:02}", f"ns{i % 3}")) for i in range(10)])
        pages: list[Record] = []
        after: tuple[str, str] | None = None
        while page := await store.list_at("configmaps", store.rv, after=after, limit=limit):
            pages.extend(page)
            after = (page[-1].key.namespace, page[-1].key.name)
        assert names(pages) == names(store.list("configmaps"))

    async def test_a_past_page_of_one_namespace(self, store: EventLog) -> None:
        await store.append_all([create(key(f"n{i}", f"ns{i % 2}")) for i in range(10)])
        rv = store.rv
        await store.append(create(key("n9a", "ns1")))
        page = await store.list_at("configmaps", rv, "ns1", after=("ns1", "n3"), limit=2)
        assert names(page) == ["ns1/n5", "ns1/n7"]

    async def test_time_to_revision(self, tmp_path: Path) -> None:
        for where in ("memory:", tmp_path):
            clock = VirtualClock()
            async with open_for_test(where, clock, inline=True) as store:
                marks = []
                for i in range(6):
                    await store.append_all([create(key(f"a{i}{j}")) for j in range(3)])
                    marks.append((microseconds(clock.now()) + 10, store.rv))
                    clock.advance(0.4 if i % 2 else 1.7)
                assert await store.rv_at(0) == 0
                for ts_us, rv in marks:
                    assert await store.rv_at(ts_us) == rv
                assert await store.rv_at(microseconds(clock.now()) + 10**9) == store.rv


class TestEvents:
    async def test_since_until_limit(self, store: EventLog) -> None:
        await store.append_all([create(key(f"a{i}")) for i in range(10)])
        assert [e.rv for e in await store.events_since(3)] == [4, 5, 6, 7, 8, 9, 10]
        assert [e.rv for e in await store.events_since(3, until=6)] == [4, 5, 6]
        assert [e.rv for e in await store.events_since(3, limit=2)] == [4, 5]
        assert list(await store.events_since(10)) == []
        assert list(await store.events_since(99)) == []
        assert [e.rv for e in await store.events_since(8, until=99)] == [9, 10]

    async def test_of_some_resources(self, store: EventLog) -> None:
        await store.append_all(
            [create(key("a")), create(key("n", resource="nodes")), create(key("p", resource="pods"))]
        )
        assert [e.rv for e in await store.events_since(0, resources=["nodes", "pods"])] == [2, 3]
        assert [e.rv for e in await store.events_since(0, resources=["nodes", "pods"], limit=1)] == [2]
        assert list(await store.events_since(0, resources=["secrets"])) == []
        assert list(await store.events_since(0, resources=["unknown"])) == []
        assert list(await store.events_since(0, resources=[])) == []

    async def test_the_table_tells_what_listeners_heard(self, store: EventLog) -> None:
        heard = Heard()
        store.listen(heard)
        await story(store)
        assert [told(e) for e in await store.events_since(0)] == [told(e) for e in heard.events]

    async def test_previous_is_the_state_before(self, store: EventLog) -> None:
        a = await story(store)
        events = [e for e in await store.events_since(0) if e.key == a]
        befores = [
            None if e.previous is None else (e.previous.rv, e.previous.value["data"]["v"]) for e in events
        ]
        assert befores == [None, (7, "A"), (9, "B"), None]


class TestFeed:
    async def test_listeners_hear_before_the_writer_is_answered(self, store: EventLog) -> None:
        heard = Heard()
        store.listen(heard)
        done = await store.append(create(key("a")))
        assert [e.rv for e in heard.events] == [done.rv]

    async def test_what_is_heard_is_published(self, store: EventLog) -> None:
        seen: list[tuple[int, int]] = []

        def look(events: Sequence[Event]) -> None:
            record = store.get(events[-1].key)
            seen.append((store.rv, record.rv if record else 0))

        store.listen(look)
        await store.append(create(key("a")))
        assert seen == [(1, 1)]

    async def test_an_ended_listener_hears_no_more(self, store: EventLog) -> None:
        heard = Heard()
        end = store.listen(heard)
        await store.append(create(key("a")))
        end()
        end()
        await store.append(create(key("b")))
        assert [e.rv for e in heard.events] == [1]

    async def test_keeps_and_failures_are_not_heard(self, store: EventLog) -> None:
        heard = Heard()
        store.listen(heard)
        await store.append_all([operation(key("a"), lambda current, head: Keep()), update(key("b"))])
        assert heard.events == []

    async def test_wait_for_what_is_there(self, store: EventLog) -> None:
        await store.append(create(key("a")))
        await store.wait_for(1)
        await store.wait_for(0)

    async def test_wait_for_what_comes(self, store: EventLog) -> None:
        waiting = [asyncio.ensure_future(store.wait_for(rv, 10)) for rv in (3, 1, 2)]
        await asyncio.sleep(0)
        for i in range(3):
            await store.append(create(key(f"a{i}")))
        await asyncio.gather(*waiting)

    async def test_wait_for_what_does_not_come(self, store: EventLog) -> None:
        with pytest.raises(FutureRevision) as caught:
            await store.wait_for(1, 0.01)
        assert (caught.value.asked, caught.value.current) == (1, 0)
        await store.append(create(key("a")))
        await store.wait_for(1)

    async def test_a_cancelled_wait_leaves_nothing_behind(self, store: EventLog) -> None:
        waiting = asyncio.ensure_future(store.wait_for(1, 10))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await store.append(create(key("a")))

    @pytest.mark.parametrize("buffer", [1, 5, 10_000])
    async def test_a_follower_misses_nothing_and_repeats_nothing(self, store: EventLog, buffer: int) -> None:
        await store.append_all([create(key(f"early{i}")) for i in range(5)])
        follower = Follower(store, 2, buffer_events=buffer)
        got: list[int] = []

        async def follow() -> None:
            async for events in follower:
                got.extend(event.rv for event in events)
                await asyncio.sleep(0)
                if got[-1] >= 305:
                    return

        following = asyncio.ensure_future(follow())
        for i in range(30):
            await store.append_all([create(key(f"a{i}-{j}")) for j in range(10)])
        await asyncio.wait_for(following, 10)
        follower.close()
        assert got == list(range(3, 306))

    async def test_a_follower_of_some_resources(self, store: EventLog) -> None:
        follower = Follower(store, 0, ["nodes"], buffer_events=2)
        for i in range(10):
            await store.append_all([create(key(f"a{i}")), create(key(f"n{i}", resource="nodes"))])
        got: list[int] = []
        while len(got) < 10:
            got.extend(event.rv for event in await asyncio.wait_for(anext(follower), 10))
        await store.append_all([create(key("x")), create(key("n", resource="nodes"))])
        got.extend(event.rv for event in await asyncio.wait_for(anext(follower), 10))
        assert got == [*range(2, 21, 2), 22]
        follower.close()


LEASE = key("leader", "kube-system", "leases.coordination.k8s.io")


class TestLeases:
    async def test_a_renewal_takes_a_revision_and_no_event_row(self, store: EventLog) -> None:
        heard = Heard()
        store.listen(heard)
        await store.append(create(LEASE, spec=lease_spec("a", renewTime="1")))
        renewed = await store.append(update(LEASE, renewal=True, spec=lease_spec("a", renewTime="2")))
        assert renewed.op is Op.RENEWED and renewed.rv == 2 and store.rv == 2
        record = store.get(LEASE)
        assert record is not None and record.rv == 2 and record.value["spec"]["renewTime"] == "2"
        assert [e.op for e in heard.events] == [Op.ADDED, Op.RENEWED]

    async def test_renewals_are_merged_into_the_newest_state(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a", renewTime="1")))
        for i in range(2, 6):
            await store.append(update(LEASE, renewal=True, spec=lease_spec("a", renewTime=str(i))))
        await store.append(create(key("other")))
        events = await store.events_since(0)
        assert [(e.rv, e.op) for e in events] == [(1, Op.ADDED), (5, Op.RENEWED), (6, Op.ADDED)]
        assert events[1].record.value["spec"]["renewTime"] == "5"
        assert [e.rv for e in await store.events_since(1, limit=1)] == [5]
        assert [e.rv for e in await store.events_since(0, until=4)] == [1]
        assert [e.rv for e in await store.events_since(0, resources=["configmaps"])] == [6]

    async def test_a_renewal_that_names_another_holder_is_an_ordinary_change(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a")))
        done = await store.append(update(LEASE, renewal=True, spec=lease_spec("b")))
        assert done.op is Op.MODIFIED
        assert [e.op for e in await store.events_since(0)] == [Op.ADDED, Op.MODIFIED]

    async def test_only_leases_are_renewed(self, store: EventLog) -> None:
        await store.append(create(key("a")))
        done = await store.append(update(key("a"), renewal=True, data={"x": "1"}))
        assert done.op is Op.MODIFIED and len(await store.events_since(0)) == 2

    async def test_the_revision_of_a_renewal_is_the_precondition_of_the_next(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a")))
        await store.append(update(LEASE, rv=1, renewal=True, spec=lease_spec("a")))
        with pytest.raises(Conflict):
            await store.append(update(LEASE, rv=1, renewal=True, spec=lease_spec("a")))
        await store.append(update(LEASE, rv=2, renewal=True, spec=lease_spec("a")))

    async def test_epochs(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a")))
        epochs = []
        for holder in ("a", "b", "", "b", "b", "", "", "a"):
            await store.append(update(LEASE, renewal=True, spec=lease_spec(holder)))
            found = store.lease_epoch(LEASE)
            assert found is not None and found[0] == 1
            epochs.append(found[1])
        assert epochs == [0, 1, 1, 2, 2, 2, 2, 3]

    async def test_epoch_of_nothing(self, store: EventLog) -> None:
        assert store.lease_epoch(LEASE) is None
        await store.append(create(key("a")))
        assert store.lease_epoch(key("a")) is None

    async def test_a_deleted_lease_shows_its_last_renewal(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a", renewTime="1")))
        await store.append(update(LEASE, renewal=True, spec=lease_spec("a", renewTime="2")))
        done = await store.append(delete(LEASE))
        assert done.record is not None and done.record.value["spec"]["renewTime"] == "2"
        await store.append(create(key("a")))
        deleted = (await store.events_since(2))[0]
        assert deleted.op is Op.DELETED and plain(deleted.record) == plain(done.record)
        assert store.lease_epoch(LEASE) is None

    async def test_a_lease_in_the_past(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a", renewTime="1")))
        await store.append(update(LEASE, renewal=True, spec=lease_spec("a", renewTime="2")))
        renewed = await store.append(update(LEASE, renewal=True, spec=lease_spec("a", renewTime="3")))
        await store.append(create(key("a")))
        at_two = await store.get_at(LEASE, 2)
        assert at_two is not None and (at_two.rv, at_two.value["spec"]["renewTime"]) == (1, "1")
        assert plain(await store.get_at(LEASE, 3)) == plain(renewed.record)
        listed = await store.list_at("leases.coordination.k8s.io", 3)
        assert [plain(record) for record in listed] == [plain(renewed.record)]

    async def test_a_leader_writes_with_its_fence(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a")))
        done = await store.append(create(key("a"), fence=Fence(1, 0)))
        assert done.rv == 2

    @pytest.mark.parametrize(
        "after", [update(LEASE, spec=lease_spec("b")), update(LEASE, spec=lease_spec("")), delete(LEASE)]
    )
    async def test_an_ex_leader_is_fenced(self, store: EventLog, after: Any) -> None:
        await store.append(create(LEASE, spec=lease_spec("a")))
        await store.append(after)
        with pytest.raises(Fenced):
            await store.append(create(key("a"), fence=Fence(1, 0)))
        assert store.get(key("a")) is None

    async def test_a_lease_made_anew_does_not_revive_a_fence(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a")))
        await store.append_all([delete(LEASE), create(LEASE, spec=lease_spec("b"))])
        with pytest.raises(Fenced):
            await store.append(create(key("a"), fence=Fence(1, 0)))

    async def test_a_fence_sees_the_takeover_of_the_same_batch(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a")))
        outcomes = await store.append_all(
            [
                create(key("before"), fence=Fence(1, 0)),
                update(LEASE, spec=lease_spec("b")),
                create(key("old"), fence=Fence(1, 0)),
                create(key("new"), fence=Fence(1, 1)),
            ]
        )
        assert [type(o) for o in outcomes] == [Committed, Committed, Fenced, Committed]


class TestHousekeeping:
    async def test_the_horizon_moves_forward_only_and_not_beyond_the_head(self, store: EventLog) -> None:
        await store.append_all([create(key(f"a{i}")) for i in range(5)])
        assert store.horizon == 0
        await store.move_horizon(3)
        assert store.horizon == 3
        await store.move_horizon(1)
        assert store.horizon == 3
        await store.move_horizon(99)
        assert store.horizon == 5
        assert store.rv == 5

    async def test_history_does_not_know_the_horizon(self, store: EventLog) -> None:
        a = await story(store)
        await store.move_horizon(store.rv)
        record = await store.get_at(a, 8)
        assert record is not None and record.value["data"] == {"v": "A"}
        assert len(await store.events_since(0)) == 15

    async def test_register_is_idempotent(self, store: EventLog) -> None:
        row = KindRow("widgets.example.com", "example.com", "v1", "Widget", "widgets", True)
        store.register([row])
        store.register([row])
        assert store.kinds.count(row) == 1
        value = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "uid": "u"}}
        done = await store.append(
            operation(Key("widgets.example.com", "x", "w"), lambda current, head: put_value(value))
        )
        assert done.rv == 1

    async def test_decision_ids_are_unique_and_rise(self, store: EventLog) -> None:
        ids = [store.next_decision_id() for _ in range(5)]
        assert ids == sorted(set(ids)) and ids[0] >= 10**12

    async def test_catching_up_is_always_possible(self, store: EventLog) -> None:
        await store.catch_up()
        done = await store.append(create(key("a")))
        await asyncio.gather(*[store.catch_up() for _ in range(5)])
        assert store.rv == done.rv

    async def test_records_ride_along_and_take_no_revision(self, store: EventLog) -> None:
        store.record(Input("start", {"seed": 1}))
        store.record(
            Decision(store.next_decision_id(), "c", "k", "event", {"pods": 1}, 1, [], None, "x", "y")
        )
        await store.append(create(key("a")))
        assert store.rv == 1

    async def test_an_expiring_object_keeps_its_time(self, store: EventLog) -> None:
        done = await store.append(create(key("a"), expires_us=123))
        assert done.record is not None and done.record.expires_us == 123
        done = await store.append(update(key("a")))
        assert done.record is not None and done.record.expires_us is None

    async def test_the_cluster_has_a_name(self, store: EventLog) -> None:
        assert len(store.cluster_uid) == 36 and store.epoch >= 1


async def test_the_system_clock_is_good_enough(tmp_path: Path) -> None:
    async with open_for_test(tmp_path, SystemClock()) as store:
        before = microseconds(SystemClock().now())
        await store.append(create(key("a")))
        (event,) = await store.events_since(0)
        assert before <= event.ts_us <= microseconds(SystemClock().now())
