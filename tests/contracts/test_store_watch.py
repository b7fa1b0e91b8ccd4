"""What every event log promises to watchers: from any revision on everything once, in order, however slow they are."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from kcp.base.clock import VirtualClock
from kcp.store.feed import Follower
from kcp.store.log import EventLog
from kcp.store.protocol import Cause, Event, FutureRevision, Listener, Op
from tests.contracts.conftest import Engine
from tests.contracts.stores import story
from tests.contracts.test_store_past import wander
from tests.store.changes import ALICE, Heard, create, delete, key, lease_spec, put, told, update

LEASE = key("leader", "kube-system", "leases.coordination.k8s.io")


async def take(follower: Follower, last_rv: int) -> list[Event]:
    """Everything up to that revision."""
    found: list[Event] = []
    while not found or found[-1].rv < last_rv:
        found += await asyncio.wait_for(anext(follower), 10)
    return found


class TestResuming:
    async def test_from_every_revision_the_rest_is_the_same(self, store: EventLog) -> None:
        heard = Heard()
        store.listen(heard)
        await story(store)
        for rv in range(store.rv + 1):
            found = await store.events_since(rv)
            assert [told(event) for event in found] == [told(event) for event in heard.events[rv:]]

    async def test_a_watch_resumed_at_every_revision_misses_nothing(self, store: EventLog) -> None:
        heard = Heard()
        store.listen(heard)
        await story(store)
        for rv in range(store.rv):
            follower = Follower(store, rv)
            found = await take(follower, store.rv)
            follower.close()
            assert [told(event) for event in found] == [told(event) for event in heard.events[rv:]]

    async def test_a_watch_from_the_head_on_hears_only_what_is_new(self, store: EventLog) -> None:
        await story(store)
        follower = Follower(store, store.rv)
        await store.append(create(key("new")))
        assert [event.rv for event in await take(follower, 16)] == [16]
        follower.close()

    async def test_pages_of_events_add_up(self, store: EventLog) -> None:
        await wander(store, 1, 60)
        whole = [told(event) for event in await store.events_since(0)]
        for limit in (1, 7, 60):
            found: list[Any] = []
            rv = 0
            while page := await store.events_since(rv, limit=limit):
                assert len(page) <= limit
                found += [told(event) for event in page]
                rv = page[-1].rv
            assert found == whole

    async def test_pages_of_some_resources_add_up(self, store: EventLog) -> None:
        await wander(store, 2, 60)
        wanted = ["pods", LEASE.resource]
        whole = [e.rv for e in await store.events_since(0) if e.key.resource in wanted]
        found: list[int] = []
        while page := await store.events_since(found[-1] if found else 0, resources=wanted, limit=3):
            found += [event.rv for event in page]
        assert found == whole and len(found) > 10

    async def test_until_limit_and_resources_at_once(self, store: EventLog) -> None:
        for i in range(6):
            await store.append_all([create(key(f"a{i}")), create(key(f"p{i}", resource="pods"))])
        found = await store.events_since(2, until=9, resources=["pods"], limit=2)
        assert [event.rv for event in found] == [4, 6]
        found = await store.events_since(6, until=9, resources=["pods"], limit=2)
        assert [event.rv for event in found] == [8]

    async def test_a_page_of_no_length_or_backwards_is_empty(self, store: EventLog) -> None:
        await story(store)
        assert list(await store.events_since(3, limit=0)) == []
        assert list(await store.events_since(9, until=9)) == list(await store.events_since(9, until=4)) == []

    async def test_an_unknown_resource_beside_a_known_one_is_no_harm(self, store: EventLog) -> None:
        await store.append(create(key("a")))
        assert [e.rv for e in await store.events_since(0, resources=["unknown", "configmaps"])] == [1]

    async def test_a_new_life_has_no_previous_state(self, store: EventLog) -> None:
        await store.append_all([create(key("a")), delete(key("a")), create(key("a"))])
        created, deleted, again = await store.events_since(0)
        assert (created.previous, again.previous) == (None, None)
        assert deleted.previous is not None and deleted.previous.rv == 1
        assert (deleted.record.rv, deleted.record.oid, again.record.oid) == (2, 1, 3)

    async def test_deletes_carry_their_own_cause(self, store: EventLog) -> None:
        await store.append(create(key("a"), cause=Cause(ALICE, "first")))
        await store.append(delete(key("a"), cause=Cause(ALICE, "second", 7)))
        assert [e.cause for e in await store.events_since(1)] == [Cause(ALICE, "second", 7)]


class TestListeners:
    async def test_one_that_fails_harms_nobody(self, store: EventLog) -> None:
        def broken(events: Sequence[Event]) -> None:
            raise ZeroDivisionError

        heard = Heard()
        store.listen(broken)
        store.listen(heard)
        done = await asyncio.gather(*[store.append(create(key(f"a{i}"))) for i in range(5)])
        assert [event.rv for event in heard.events] == [outcome.rv for outcome in done] == [1, 2, 3, 4, 5]

    async def test_all_hear_in_the_order_in_which_they_came(self, store: EventLog) -> None:
        order: list[str] = []

        def note(name: str) -> Listener:
            return lambda events: order.append(name)

        for name in ("first", "second", "third"):
            store.listen(note(name))
        await store.append(create(key("a")))
        assert order == ["first", "second", "third"]

    async def test_one_that_leaves_while_it_hears_takes_nothing_from_the_others(
        self, store: EventLog
    ) -> None:
        heard, seen = Heard(), []

        def once(events: Sequence[Event]) -> None:
            seen.append(events[-1].rv)
            end()

        end = store.listen(once)
        store.listen(heard)
        for i in range(3):
            await store.append(create(key(f"a{i}")))
        assert seen == [1] and [event.rv for event in heard.events] == [1, 2, 3]

    async def test_one_that_comes_while_others_hear_hears_what_follows(self, store: EventLog) -> None:
        late = Heard()

        def first(events: Sequence[Event]) -> None:
            if events[0].rv == 1:
                store.listen(late)

        store.listen(first)
        await store.append(create(key("a")))
        await store.append(create(key("b")))
        assert [event.rv for event in late.events] == [2]

    async def test_one_that_writes_is_heard_in_turn(self, store: EventLog) -> None:
        heard, tasks = Heard(), list[asyncio.Task[Any]]()

        def answer(events: Sequence[Event]) -> None:
            for event in events:
                if event.key.resource == "configmaps":
                    tasks.append(
                        asyncio.ensure_future(store.append(create(key(event.key.name, resource="pods"))))
                    )

        store.listen(answer)
        store.listen(heard)
        await asyncio.gather(*[store.append(create(key(f"a{i}"))) for i in range(5)])
        await asyncio.gather(*tasks)
        assert [event.rv for event in heard.events] == list(range(1, 11))
        assert sum(event.key.resource == "pods" for event in heard.events) == 5

    async def test_batches_meet_without_gap_or_overlap(self, store: EventLog) -> None:
        heads: list[tuple[int, int]] = []
        store.listen(lambda events: heads.append((events[0].rv, events[-1].rv)))
        await asyncio.gather(*[store.append(create(key(f"a{i}"))) for i in range(700)])
        assert heads[0][0] == 1 and heads[-1][1] == 700
        assert all(last + 1 == first for (_, last), (first, _) in itertools.pairwise(heads))

    async def test_the_times_heard_are_the_times_kept(self, engine: Engine) -> None:
        heard, clock = Heard(), VirtualClock()
        async with engine.open(clock) as store:
            store.listen(heard)
            for i in range(3):
                await store.append_all([create(key(f"a{i}-{j}")) for j in range(3)])
                clock.advance(0.5)
            kept = [event.ts_us for event in await store.events_since(0)]
        assert kept == [event.ts_us for event in heard.events] == sorted(set(kept))


class TestFollowing:
    @pytest.mark.parametrize("buffer", [1, 3, 1000])
    async def test_a_slow_one_is_told_what_a_quick_one_is_told(self, store: EventLog, buffer: int) -> None:
        quick, slow = Heard(), Follower(store, 0, buffer_events=buffer)
        store.listen(quick)
        found: list[Event] = []
        for seed in range(4):
            await wander(store, seed, 25)
            found += await asyncio.wait_for(anext(slow), 10)
        found += await take(slow, store.rv) if found[-1].rv < store.rv else []
        slow.close()
        assert [told(event) for event in found] == [told(event) for event in quick.events]

    async def test_one_that_does_not_read_keeps_a_bounded_buffer(self, store: EventLog) -> None:
        follower = Follower(store, 0, buffer_events=20)
        for i in range(30):
            await store.append_all([create(key(f"a{i}-{j}")) for j in range(9)])
            assert len(follower._buffer) <= 20
        assert [event.rv for event in await take(follower, 270)] == list(range(1, 271))
        follower.close()

    async def test_two_do_not_disturb_each_other(self, store: EventLog) -> None:
        one, other = Follower(store, 0, buffer_events=2), Follower(store, 3, ["configmaps"])
        for i in range(10):
            await store.append(create(key(f"a{i}")))
        assert [event.rv for event in await take(one, 10)] == list(range(1, 11))
        one.close()
        await store.append(create(key("last")))
        assert [event.rv for event in await take(other, 11)] == list(range(4, 12))
        other.close()

    async def test_a_bookmark_moves_with_what_others_write(self, store: EventLog) -> None:
        """Idle, but not behind: what it was handed out reaches to the head."""
        follower = Follower(store, 0, ["nodes"])
        await store.append(create(key("n", resource="nodes")))
        await take(follower, 1)
        for i in range(5):
            await store.append(create(key(f"a{i}")))
            assert follower.position == store.rv
        await store.append(create(key("m", resource="nodes")))
        assert follower.position == 6
        assert [event.rv for event in await take(follower, 7)] == [7] and follower.position == 7
        follower.close()

    async def test_one_that_was_closed_hears_no_more(self, store: EventLog) -> None:
        follower = Follower(store, 0)
        await store.append(create(key("a")))
        await take(follower, 1)
        follower.close()
        await store.append(create(key("b")))
        assert follower.position == 1

    async def test_a_cancelled_wait_loses_nothing(self, store: EventLog) -> None:
        follower = Follower(store, 0)
        await asyncio.wait([waiting := asyncio.ensure_future(anext(follower))], timeout=0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await store.append_all([create(key("a")), create(key("b"))])
        assert [event.rv for event in await take(follower, 2)] == [1, 2]
        follower.close()

    async def test_a_slow_one_is_told_the_newest_renewal(self, store: EventLog) -> None:
        follower = Follower(store, 0, buffer_events=1)
        await store.append(create(LEASE, spec=lease_spec("a", renewTime="0")))
        for i in range(1, 5):
            await store.append(update(LEASE, renewal=True, spec=lease_spec("a", renewTime=str(i))))
        found = await take(follower, 5)
        assert [(e.rv, e.op) for e in found] == [(1, Op.ADDED), (5, Op.RENEWED)]
        assert found[-1].record.value["spec"]["renewTime"] == "4"
        follower.close()

    async def test_a_quick_one_is_told_every_renewal(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a", renewTime="0")))
        follower = Follower(store, 1)
        told_of = []
        for i in range(1, 4):
            await store.append(update(LEASE, renewal=True, spec=lease_spec("a", renewTime=str(i))))
            told_of += [e.record.value["spec"]["renewTime"] for e in await take(follower, i + 1)]
        assert told_of == ["1", "2", "3"]
        follower.close()


class TestWaiting:
    async def test_many_wait_for_different_revisions(self, store: EventLog) -> None:
        reached: list[int] = []

        async def wait(rv: int) -> None:
            await store.wait_for(rv, 10)
            assert store.rv >= rv
            reached.append(rv)

        waiting = [asyncio.ensure_future(wait(rv)) for rv in (5, 1, 3, 3, 2)]
        await asyncio.sleep(0)
        for i in range(5):
            await store.append(create(key(f"a{i}")))
        await asyncio.gather(*waiting)
        assert sorted(reached) == [1, 2, 3, 3, 5]

    async def test_a_wait_in_vain_takes_nothing_from_the_others(self, store: EventLog) -> None:
        with pytest.raises(FutureRevision):
            await store.wait_for(2, 0.01)
        waiting = asyncio.ensure_future(store.wait_for(1, 10))
        await asyncio.sleep(0)
        await store.append(create(key("a")))
        await waiting

    async def test_a_wait_without_patience_answers_at_once(self, store: EventLog) -> None:
        with pytest.raises(FutureRevision, match=r"^revision 3 is not reached, current 0$"):
            await store.wait_for(3, 0)

    async def test_a_write_is_readable_where_its_answer_arrives(self, store: EventLog) -> None:
        for i in range(20):
            value = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "uid": "u"}, "n": i}
            done = await store.append(put(key("a"), value))
            await store.wait_for(done.rv, 0)
            record = store.get(key("a"))
            assert record is not None and record.value["n"] == i
