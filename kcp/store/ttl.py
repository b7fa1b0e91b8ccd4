"""Objects that expire (`Record.expires_us`) are removed by ordinary events of the actor `system:ttl`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio

from kcp.base.clock import Clock, microseconds
from kcp.store.protocol import (
    Actor,
    Cause,
    Head,
    Keep,
    Key,
    Operation,
    Put,
    Record,
    Remove,
    Store,
    Unavailable,
)

PERIOD_S = 10.0
SWEEP = 256
"""At most so many removals go into one transaction."""

ACTOR = Actor("system:ttl")


def remove_expired(key: Key, now_us: int) -> Operation:
    """Removes the object if its time has come; an object that was given more time meanwhile stays."""

    def change(current: Record | None, head: Head) -> Put | Remove | Keep:
        del head
        if current is None or current.expires_us is None or current.expires_us > now_us:
            return Keep()
        return Remove()

    return Operation(key, change, Cause(ACTOR))


async def sweep(
    store: Store, clock: Clock, expired: Callable[[int, int], Sequence[Key]], period_s: float = PERIOD_S
) -> None:
    """Look every period; `expired(now_us, limit)` gives each due key out once, so a failed sweep keeps its keys."""
    due: Sequence[Key] = ()
    while True:
        await anyio.sleep(period_s)
        while True:
            now_us = microseconds(clock.now())
            due = due or expired(now_us, SWEEP)
            if not due:
                break
            try:
                await store.append_all([remove_expired(key, now_us) for key in due])
            except Unavailable:
                break
            due = ()
