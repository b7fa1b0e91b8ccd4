"""Histories of reads and writes by several daemons, and the check that they are those of one log.

The log itself is the witness: revisions are the one order of all changes. So a history is right if each operation can be
given a revision R, the moment at which it happened, such that

- a write happened at its own revision, a read or a refusal at one whose state gives its answer;
- R is not above what was published where it was answered, when it was answered;
- whatever returned before another was called happened before it: its R is not greater, and smaller if both are writes.

That is linearizability, for objects and for lists of them. The smallest possible R is always the best choice, so one
walk in the order of the calls decides.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import random
from collections.abc import Sequence
from typing import Any

import attrs

from kcp.machinery.errors import ApiError
from kcp.store.log import EventLog
from kcp.store.protocol import Event, Op, Operation, Unavailable
from tests.store.changes import create, delete, key, plain, update

NAMES = ("a", "b", "c")
EVERYTHING = "*"


@attrs.frozen
class Seen:
    """One operation on `name`, or a list of EVERYTHING.

    `called`, `returned`: places in one count of all calls and returns. `rv`: of a write; None: a read or a refusal.
    `last_rv`: what was published at the daemon when it answered.
    """

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


def check(history: Sequence[Seen], events: Sequence[Event]) -> list[Seen]:
    """The operations that no moment explains."""
    states = _states(events)
    returned: list[int] = []
    floors: list[int] = []
    waiting = sorted(history, key=lambda one: one.returned)
    moments: dict[int, int] = {}
    wrong: list[Seen] = []
    done = 0
    for one in sorted(history, key=lambda one: one.called):
        while done < len(waiting) and waiting[done].returned < one.called:
            before = waiting[done]
            floors.append(max(moments[before.called], floors[-1] if floors else 0))
            returned.append(before.returned)
            done += 1
        index = bisect.bisect_left(returned, one.called)
        low = floors[index - 1] if index else 0
        moment = _moment(one, low, states)
        if moment is None:
            wrong.append(one)
        moments[one.called] = low if moment is None else moment
    return wrong


def _moment(one: Seen, low: int, states: dict[str, list[Any]]) -> int | None:
    """The first revision, from `low` on, at which it can have happened."""
    if one.rv is not None:
        return one.rv if one.rv > low else None
    found = states[one.name]
    return next((rv for rv in range(low, one.last_rv + 1) if _agrees(one.answer, found[rv])), None)


def _agrees(answer: Any, state: Any) -> bool:
    if isinstance(answer, Refused):
        return answer.there == (state is not None)
    return bool(answer == state)


def _states(events: Sequence[Event]) -> dict[str, list[Any]]:
    """Per name, and for the list, the state at every revision."""
    last = events[-1].rv if events else 0
    found: dict[str, list[Any]] = {name: [None] * (last + 1) for name in NAMES}
    for event in events:
        state = None if event.op is Op.DELETED else plain(event.record)
        found[event.key.name][event.rv :] = [state] * (last + 1 - event.rv)
    found[EVERYTHING] = [
        [found[name][rv] for name in NAMES if found[name][rv] is not None] for rv in range(last + 1)
    ]
    return found


def _operation(kind: str, name: str, by: str) -> Operation:
    if kind == "delete":
        return delete(key(name))
    return (create if kind == "create" else update)(key(name), data={"by": by})


async def play(stores: Sequence[EventLog], seed: int, clients: int, steps: int) -> list[Seen]:
    """What clients of several daemons saw. A write whose outcome nobody knows is nobody's observation."""
    moments = itertools.count()
    history: list[Seen] = []

    async def client(number: int) -> None:
        dice = random.Random(seed * 1000 + number)
        store = stores[number % len(stores)]
        for step in range(steps):
            name, called = dice.choice(NAMES), next(moments)
            kind = dice.choice(["read", "list", "create", "update", "delete"])
            try:
                rv, name, answer = await _ask(store, kind, name, f"{number}-{step}")
            except Unavailable:
                continue
            history.append(Seen(name, called, next(moments), rv, answer, store.rv))

    await asyncio.gather(*[client(i) for i in range(clients)])
    return history


async def _ask(store: EventLog, kind: str, name: str, by: str) -> tuple[int | None, str, Any]:
    if kind == "read":
        await store.catch_up()
        return None, name, plain(store.get(key(name)))
    if kind == "list":
        await store.catch_up()
        return None, EVERYTHING, [plain(record) for record in store.list("configmaps", "default")]
    try:
        return (await store.append(_operation(kind, name, by))).rv, name, None
    except ApiError:
        return None, name, Refused(there=kind == "create")
