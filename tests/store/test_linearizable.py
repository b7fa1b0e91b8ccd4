"""Three daemons, readers and writers at once: together they are one log, also while their connections break."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store import postgres, survival
from tests.store.changes import create, delete, key, open_for_test, plain, update
from tests.store.histories import EVERYTHING, Refused, Seen, check, play


@pytest.mark.real
@pytest.mark.parametrize("seed", range(3))
async def test_three_daemons_are_one_log(seed: int) -> None:
    url = postgres.database()
    stores = [open_for_test(url) for _ in range(3)]
    history = await play(stores, seed, 9, 25)
    await stores[0].catch_up()
    events = await stores[0].events_since(0, limit=10_000)
    assert len(history) == 225 and len([one for one in history if one.rv]) == len(events)
    assert check(history, events) == []
    for store in stores:
        await store.close()


@pytest.mark.real
async def test_one_daemon_is_one_log_although_its_connections_break() -> None:
    wrong, seen = await survival.histories_under_cuts(postgres.database(), 7, steps=40, daemons=1)
    assert wrong == [] and seen > 60


@pytest.mark.real
async def test_three_daemons_are_one_log_although_their_connections_break() -> None:
    wrong, seen = await survival.histories_under_cuts(postgres.database(), 5)
    assert wrong == [] and seen > 60


async def test_one_daemon_is_one_log() -> None:
    async with open_for_test("memory:") as store:
        history = await play([store], 1, 6, 40)
        assert check(history, await store.events_since(0, limit=10_000)) == []


async def test_a_file_is_one_log(tmp_path: Path) -> None:
    async with open_for_test(tmp_path) as store:
        history = await play([store], 2, 8, 30)
        assert len(history) == 240
        assert check(history, await store.events_since(0, limit=10_000)) == []


class TestTheChecker:
    """It notices what it is there to notice."""

    async def test_a_read_from_the_past(self) -> None:
        async with open_for_test("memory:") as store:
            await store.append(create(key("a")))
            old = plain(store.get(key("a")))
            await store.append(update(key("a"), data={"v": "2"}))
            events = await store.events_since(0)
            write = Seen("a", 0, 1, 2, None, 2)
            stale, fresh = Seen("a", 2, 3, None, old, 2), Seen("a", 2, 3, None, plain(store.get(key("a"))), 2)
            assert check([write, stale], events) == [stale]
            assert check([write, fresh], events) == []

    async def test_two_reads_in_the_wrong_order(self) -> None:
        """Both overlap the write, so each alone is right; the one that came later saw less."""
        async with open_for_test("memory:") as store:
            first = plain((await store.append(create(key("a")))).record)
            second = plain((await store.append(update(key("a"), data={"v": "2"}))).record)
            events = await store.events_since(0)
        created, write = Seen("a", 0, 1, 1, None, 1), Seen("a", 2, 9, 2, None, 2)
        early, late = Seen("a", 3, 4, None, second, 2), Seen("a", 5, 6, None, first, 2)
        assert check([created, write, early], events) == check([created, write, late], events) == []
        assert check([created, write, early, late], events) == [late]

    async def test_a_list_that_never_was(self) -> None:
        """Each object of it was there at some moment, but never both."""
        async with open_for_test("memory:") as store:
            a = plain((await store.append(create(key("a")))).record)
            await store.append(delete(key("a")))
            b = plain((await store.append(create(key("b")))).record)
            events = await store.events_since(0)
        mixed, true = Seen(EVERYTHING, 0, 9, None, [a, b], 3), Seen(EVERYTHING, 0, 9, None, [b], 3)
        assert check([mixed], events) == [mixed] and check([true], events) == []

    async def test_a_read_of_the_future(self) -> None:
        async with open_for_test("memory:") as store:
            await store.append(create(key("a")))
            second = plain((await store.append(update(key("a"), data={"v": "2"}))).record)
            events = await store.events_since(0)
        assert check([Seen("a", 0, 1, None, second, 1)], events) != []

    async def test_writes_against_their_order(self) -> None:
        async with open_for_test("memory:") as store:
            await store.append_all([create(key("a")), create(key("b"))])
            events = await store.events_since(0)
        assert check([Seen("a", 0, 1, 2, None, 2), Seen("b", 2, 3, 1, None, 2)], events) != []
        assert check([Seen("a", 0, 3, 2, None, 2), Seen("b", 1, 2, 1, None, 2)], events) == []

    async def test_a_refusal_without_a_reason(self) -> None:
        async with open_for_test("memory:") as store:
            await store.append(create(key("a")))
            events = await store.events_since(0)
        after = Seen("a", 2, 3, None, Refused(there=False), 1)
        assert check([Seen("a", 0, 1, 1, None, 1), after], events) == [after]
