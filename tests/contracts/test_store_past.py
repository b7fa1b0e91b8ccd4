"""What every event log promises of the past: any revision is the fold of the events up to it; pages stay put."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

import pytest

from kcp.base.clock import VirtualClock, microseconds
from kcp.store import check
from kcp.store.log import EventLog
from kcp.store.protocol import Event, FutureRevision, Key, Op
from tests.contracts.conftest import Engine
from tests.contracts.stores import names, story
from tests.store.changes import Heard, create, delete, key, lease_spec, plain, update

RESOURCES = ("configmaps", "pods", "nodes", "leases.coordination.k8s.io")
Place = tuple[str, str]


def states(events: list[Event]) -> list[dict[str, dict[Place, Any]]]:
    """The state at every revision from 0 on, folded from the events alone. Leases only as of their event rows."""
    at: dict[str, dict[Place, Any]] = {resource: {} for resource in RESOURCES}
    found = [at]
    for event in events:
        while len(found) < event.rv:
            found.append(at)
        table = dict(at[event.key.resource])
        place = (event.key.namespace, event.key.name)
        if event.op is Op.DELETED:
            del table[place]
        else:
            table[place] = plain(event.record)
        at = {**at, event.key.resource: table}
        found.append(at)
    return found


async def wander(store: EventLog, seed: int, steps: int) -> None:
    """Changes of few names, so that each lives several times."""
    dice = random.Random(seed)
    for step in range(steps):
        resource = dice.choice(RESOURCES)
        at = key(dice.choice("abc"), dice.choice(["x", "x-y", "z"]), resource)
        fields: dict[str, Any] = {"spec": {"n": step}}
        if resource == RESOURCES[3]:
            fields = {"spec": lease_spec(dice.choice(["", "h", "i"]), n=step)}
        if store.get(at) is None:
            await store.append(create(at, **fields))
        elif dice.random() < 0.3:
            await store.append(delete(at))
        else:
            await store.append(update(at, **fields))


@pytest.mark.parametrize("seed", range(2))
class TestEveryRevision:
    async def test_lists_are_the_fold_of_the_events(self, store: EventLog, seed: int) -> None:
        await wander(store, seed, 70)
        folded = states(list(await store.events_since(0)))
        for rv in range(store.rv + 1):
            for resource in RESOURCES:
                expected = [state for _, state in sorted(folded[rv][resource].items())]
                assert [plain(record) for record in await store.list_at(resource, rv)] == expected

    async def test_objects_are_the_fold_of_the_events(self, store: EventLog, seed: int) -> None:
        await wander(store, seed, 40)
        events = list(await store.events_since(0))
        folded = states(events)
        keys = list(dict.fromkeys(event.key for event in events))
        for rv in range(store.rv + 1):
            for at in keys:
                expected = folded[rv][at.resource].get((at.namespace, at.name))
                assert plain(await store.get_at(at, rv)) == expected

    async def test_any_page_of_any_revision_is_a_slice_of_its_list(self, store: EventLog, seed: int) -> None:
        await wander(store, seed, 50)
        dice = random.Random(seed)
        for _ in range(40):
            rv, limit = dice.randint(0, store.rv), dice.randint(1, 4)
            space = dice.choice([None, "x", "x-y"])
            after = (dice.choice(["", "x", "x-y", "y"]), dice.choice(["", "a", "b", "zz"]))
            whole = [r for r in await store.list_at("pods", rv) if space in (None, r.key.namespace)]
            rest = [r for r in whole if (r.key.namespace, r.key.name) > after]
            found = await store.list_at("pods", rv, space, after, limit)
            assert [plain(r) for r in found] == [plain(r) for r in rest[:limit]]

    async def test_the_newest_state_is_the_fold_of_all(self, store: EventLog, seed: int) -> None:
        await wander(store, seed, 70)
        last = states(list(await store.events_since(0)))[-1]
        for resource in RESOURCES:
            expected = [state for _, state in sorted(last[resource].items())]
            assert [plain(record) for record in store.list(resource)] == expected


class TestPages:
    async def test_a_page_goes_on_behind_a_key_that_was_deleted(self, store: EventLog) -> None:
        await store.append_all([create(key(f"n{i}")) for i in range(6)])
        rv = store.rv
        first = await store.list_at("configmaps", rv, limit=3)
        await store.append_all([delete(key("n2")), delete(key("n3"))])
        rest = await store.list_at("configmaps", rv, after=("default", "n2"))
        assert names(first) + names(rest) == [f"default/n{i}" for i in range(6)]

    async def test_an_inconsistent_page_goes_on_behind_a_key_that_is_gone(self, store: EventLog) -> None:
        await store.append_all([create(key(f"n{i}")) for i in range(6)])
        await store.append_all([delete(key("n2")), delete(key("n3"))])
        rest = await store.list_at("configmaps", store.rv, after=("default", "n2"))
        assert names(rest) == ["default/n4", "default/n5"]

    async def test_a_page_goes_on_behind_a_key_that_never_was(self, store: EventLog) -> None:
        await store.append_all([create(key(name)) for name in ("b", "d")])
        await store.append(create(key("z")))
        for rv in (2, 3):
            assert names(await store.list_at("configmaps", rv, after=("default", "c"), limit=1)) == [
                "default/d"
            ]

    async def test_what_comes_meanwhile_is_on_no_page(self, store: EventLog) -> None:
        await store.append_all([create(key(f"n{i}")) for i in range(0, 20, 2)])
        rv, found, after, i = store.rv, list[str](), None, 1
        while page := await store.list_at("configmaps", rv, after=after, limit=2):
            found += names(page)
            after = (page[-1].key.namespace, page[-1].key.name)
            await store.append_all([create(key(f"n{i}")), update(key("n8"))])
            i += 2
        assert found == sorted(f"default/n{i}" for i in range(0, 20, 2))

    async def test_behind_the_last_there_is_nothing(self, store: EventLog) -> None:
        await store.append(create(key("a")))
        await store.append(create(key("b")))
        for rv in (1, 2):
            assert list(await store.list_at("configmaps", rv, after=("default", "b"))) == []
            assert list(await store.list_at("configmaps", rv, after=("zzz", ""))) == []

    async def test_a_page_begins_at_the_first_name_of_a_namespace(self, store: EventLog) -> None:
        await store.append_all([create(key("a", space)) for space in ("w", "x", "y")])
        await store.append(create(key("b", "z")))
        for rv in (3, 4):
            assert names(await store.list_at("configmaps", rv, after=("x", ""), limit=1)) == ["x/a"]

    async def test_a_page_of_one_namespace_ends_with_it(self, store: EventLog) -> None:
        await store.append_all([create(key(name, space)) for space in ("x", "y") for name in "ab"])
        await store.append(create(key("c", "z")))
        for rv in (4, 5):
            assert names(await store.list_at("configmaps", rv, "x", after=("x", "a"), limit=9)) == ["x/b"]
            assert names(await store.list_at("configmaps", rv, "y", after=("x", "a"), limit=9)) == [
                "y/a",
                "y/b",
            ]

    async def test_a_page_of_no_length_is_empty(self, store: EventLog) -> None:
        await store.append(create(key("a")))
        await store.append(create(key("b")))
        for rv in (1, 2):
            assert list(await store.list_at("configmaps", rv, limit=0)) == []


class TestThePast:
    async def test_before_the_first_revision_there_was_nothing(self, store: EventLog) -> None:
        assert list(await store.list_at("configmaps", 0)) == [] and await store.get_at(key("a"), 0) is None
        await store.append(create(key("a")))
        assert list(await store.list_at("configmaps", 0)) == [] and await store.get_at(key("a"), 0) is None

    async def test_of_unknown_resources_there_was_nothing(self, store: EventLog) -> None:
        await store.append_all([create(key("a")), create(key("b"))])
        for rv in (1, 2):
            assert list(await store.list_at("unknown", rv)) == []
            assert await store.get_at(Key("unknown", "x", "y"), rv) is None

    async def test_a_resource_without_objects_is_empty(self, store: EventLog) -> None:
        await store.append_all([create(key("a")), create(key("b"))])
        assert [list(await store.list_at("secrets", rv)) for rv in (0, 1, 2)] == [[], [], []]

    async def test_the_past_does_not_change(self, store: EventLog) -> None:
        a = await story(store)
        before = [[plain(r) for r in await store.list_at("configmaps", rv)] for rv in range(16)]
        await store.append_all([delete(a), create(a), *[delete(key(f"other-{i}")) for i in range(6)]])
        assert [[plain(r) for r in await store.list_at("configmaps", rv)] for rv in range(16)] == before

    async def test_the_present_is_the_past_of_now(self, store: EventLog) -> None:
        await story(store)
        now, listed = store.rv, [plain(r) for r in store.list("configmaps")]
        await store.append(update(key("other-0"), data={"later": "1"}))
        assert [plain(r) for r in await store.list_at("configmaps", now)] == listed

    async def test_reading_while_others_write(self, store: EventLog) -> None:
        await store.append_all([create(key(f"n{i}"), data={"v": "0"}) for i in range(5)])

        async def write() -> None:
            for i in range(30):
                await store.append_all([update(key(f"n{n}"), data={"v": str(i)}) for n in range(5)])

        async def read() -> None:
            for _ in range(30):
                rv = store.rv - store.rv % 5
                listed = await store.list_at("configmaps", rv)
                assert len({record.value["data"]["v"] for record in listed}) == 1
                assert [record.rv for record in listed] == list(range(rv - 4, rv + 1))

        await asyncio.gather(write(), read(), read())

    async def test_the_future_becomes_readable(self, store: EventLog) -> None:
        with pytest.raises(FutureRevision):
            await store.list_at("configmaps", 1)
        await store.append(create(key("a")))
        assert names(await store.list_at("configmaps", 1)) == ["default/a"]

    async def test_a_future_page_is_refused_like_a_future_list(self, store: EventLog) -> None:
        await store.append(create(key("a")))
        with pytest.raises(FutureRevision) as caught:
            await store.list_at("configmaps", 9, "default", after=("default", "a"), limit=3)
        assert (caught.value.asked, caught.value.current) == (9, 1)
        assert str(caught.value) == "revision 9 is not reached, current 1"

    async def test_a_reader_holds_on_to_what_it_was_given(self, store: EventLog) -> None:
        done = await store.append(create(key("a"), data={"v": "1"}))
        held = store.get(key("a"))
        await store.append(update(key("a"), data={"v": "2"}))
        await store.append(delete(key("a")))
        assert plain(held) == plain(done.record)


class TestTime:
    async def test_time_rises_strictly_although_the_clock_stands(self, engine: Engine) -> None:
        clock = VirtualClock()
        async with engine.open(clock) as store:
            await store.append_all([create(key(f"a{i}")) for i in range(5)])
            await store.append(create(key("b")))
            now_us = microseconds(clock.now())
            assert [event.ts_us - now_us for event in await store.events_since(0)] == [0, 1, 2, 3, 4, 5]

    async def test_a_clock_that_goes_backwards_takes_no_time_with_it(self, engine: Engine) -> None:
        clock = VirtualClock()
        clock.advance(1000)
        async with engine.open(clock) as store:
            await store.append(create(key("a")))
            clock.elapsed_s = 3.0
            await store.append_all([create(key("b")), create(key("c"))])
            clock.elapsed_s = 1001.0
            await store.append(create(key("d")))
            times = [event.ts_us for event in await store.events_since(0)]
        first = times[0]
        assert times == [first, first + 1, first + 2, first + 1_000_000]

    async def test_time_to_revision_survives_jumps_of_the_clock_in_both_directions(
        self, engine: Engine
    ) -> None:
        clock, heard = VirtualClock(), Heard()
        async with engine.open(clock) as store:
            store.listen(heard)
            jumps = (0, 0.4, 86_400, -86_000, 1.7, 0, -3, 31_536_000, -1, 0.000001)
            for i, jump in enumerate(jumps):
                clock.elapsed_s = max(0.0, clock.elapsed_s + jump)
                await store.append_all([create(key(f"a{i}-{j}")) for j in range(3)])
            times = {event.ts_us: event.rv for event in heard.events}
            assert len(times) == 30
            for ts_us, rv in times.items():
                assert await store.rv_at(ts_us) == rv
                assert await store.rv_at(ts_us - 1) in (rv - 1, times.get(ts_us - 1))
        if engine.lasting:
            assert check.problems(engine.where) == []

    async def test_before_the_first_change_there_is_no_revision(self, engine: Engine) -> None:
        clock = VirtualClock()
        async with engine.open(clock) as store:
            assert await store.rv_at(microseconds(clock.now())) == 0
            await store.append(create(key("a")))
            now_us = microseconds(clock.now())
            assert [await store.rv_at(now_us + d) for d in (-1, 0, 10**12)] == [0, 1, 1]

    async def test_between_two_changes_the_earlier_one_counts(self, engine: Engine) -> None:
        clock = VirtualClock()
        async with engine.open(clock) as store:
            moments = []
            for i in range(4):
                await store.append(create(key(f"a{i}")))
                moments.append(microseconds(clock.now()))
                clock.advance(0.7 * (i + 1))
            for rv, (begin, end) in enumerate(itertools.pairwise(moments), 1):
                assert await store.rv_at((begin + end) // 2) == await store.rv_at(end - 1) == rv
