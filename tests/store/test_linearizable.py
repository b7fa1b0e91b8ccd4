"""Three daemons, readers and writers at once: every answer is that of one moment between its call and its return.

The log itself is the witness: revisions are the one order of all changes. So an operation is right if there is a
revision R, not below what was answered before it was called, not above what was durable when it returned, with the
answer that the state at R gives.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence
from typing import Any

import attrs
import pytest

from kcp.machinery.errors import ApiError
from kcp.store.log import EventLog
from kcp.store.protocol import Event, Op, Operation
from tests.store import postgres
from tests.store.changes import create, delete, key, open_for_test, plain, update

NAMES = ("a", "b", "c")


@attrs.frozen
class Seen:
    """`called`, `returned`: places in one count of all calls and returns. `rv`: of a write; None: a read or a refusal."""

    name: str
    called: int
    returned: int
    rv: int | None
    answer: Any
    last_rv: int


@attrs.frozen
class Refused:
    """The answer to a write that failed: it tells whether the object was there."""

    there: bool


def _agrees(answer: Any, state: Any) -> bool:
    if isinstance(answer, Refused):
        return answer.there == (state is not None)
    return bool(answer == state)


def check(history: Sequence[Seen], events: Sequence[Event]) -> list[Seen]:
    """The operations that no moment explains."""
    states = _states(events)
    wrong = []
    for one in history:
        low = max((o.rv or o.last_rv for o in history if o.returned < one.called and o.rv), default=0)
        if one.rv is not None:
            after = [o.rv for o in history if o.called > one.returned and o.rv is not None]
            right = low < one.rv and all(one.rv < rv for rv in after)
        else:
            right = any(_agrees(one.answer, states[one.name][rv]) for rv in range(low, one.last_rv + 1))
        if not right:
            wrong.append(one)
    return wrong


def _states(events: Sequence[Event]) -> dict[str, list[Any]]:
    last = events[-1].rv if events else 0
    found: dict[str, list[Any]] = {name: [None] * (last + 1) for name in NAMES}
    for event in events:
        state = None if event.op is Op.DELETED else plain(event.record)
        found[event.key.name][event.rv :] = [state] * (last + 1 - event.rv)
    return found


def _operation(kind: str, name: str, by: str) -> Operation:
    if kind == "delete":
        return delete(key(name))
    return (create if kind == "create" else update)(key(name), data={"by": by})


async def _play(stores: Sequence[EventLog], seed: int, clients: int, steps: int) -> list[Seen]:
    moments = itertools.count()
    history: list[Seen] = []

    async def client(number: int) -> None:
        dice = random.Random(seed * 1000 + number)
        store = stores[number % len(stores)]
        for step in range(steps):
            name, called = dice.choice(NAMES), next(moments)
            rv: int | None = None
            answer: Any = None
            kind = dice.choice(["read", "read", "create", "update", "delete"])
            if kind == "read":
                await store.catch_up()
                answer = plain(store.get(key(name)))
            else:
                operation = _operation(kind, name, f"{number}-{step}")
                try:
                    rv = (await store.append(operation)).rv
                except ApiError:
                    answer = Refused(there=kind == "create")
            history.append(Seen(name, called, next(moments), rv, answer, store.rv))

    await asyncio.gather(*[client(i) for i in range(clients)])
    return history


@pytest.mark.real
@pytest.mark.parametrize("seed", range(3))
async def test_three_daemons_are_one_log(seed: int) -> None:
    url = postgres.database()
    stores = [open_for_test(url) for _ in range(3)]
    history = await _play(stores, seed, 9, 25)
    await stores[0].catch_up()
    events = await stores[0].events_since(0, limit=10_000)
    assert len(history) == 225 and len([one for one in history if one.rv]) == len(events)
    assert check(history, events) == []
    for store in stores:
        await store.close()


async def test_one_daemon_is_one_log() -> None:
    async with open_for_test("memory:") as store:
        history = await _play([store], 1, 6, 40)
        assert check(history, await store.events_since(0, limit=10_000)) == []


async def test_the_checker_notices_a_read_from_the_past() -> None:
    async with open_for_test("memory:") as store:
        await store.append(create(key("a")))
        old = plain(store.get(key("a")))
        await store.append(update(key("a"), data={"v": "2"}))
        events = await store.events_since(0)
        write = Seen("a", 0, 1, 2, None, 2)
        stale, fresh = Seen("a", 2, 3, None, old, 2), Seen("a", 2, 3, None, plain(store.get(key("a"))), 2)
        assert check([write, stale], events) == [stale]
        assert check([write, fresh], events) == []
        assert check([Seen("a", 0, 1, 2, None, 2), Seen("b", 2, 3, 1, None, 2)], events) != []
