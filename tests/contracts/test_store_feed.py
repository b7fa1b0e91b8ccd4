"""What every event log promises to those who follow it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from kcp.store.feed import Follower
from kcp.store.log import EventLog
from kcp.store.protocol import (
    Event,
    FutureRevision,
    Keep,
)
from tests.contracts.stores import story
from tests.store.changes import (
    Heard,
    create,
    key,
    operation,
    told,
    update,
)


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
