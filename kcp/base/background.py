"""Work that can wait, on a loop that has better to do: what is asked for now goes before what follows from it.

    background = Background(clock, busy)
    while True:
        started_s = await background.enter()
        ...                                  # a piece of work, some milliseconds at most
        background.leave(started_s)

While nobody is busy, `enter` returns at once. While somebody is, a piece that took a millisecond is followed by nine for
the others, and by fewer the longer that lasts; after forty seconds the shares are equal. No pause is longer than half a
second. On a loop with virtual time work takes no time: nothing ever waits.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from kcp.base.clock import Clock

OTHERS_SHARE = 9.0
PATIENCE_S = 5.0
"""Others are owed half as much after so long, a third after twice as long, and so on."""
LONGEST_PIECE_S = 0.01
"""Most of what takes longer is waiting, for the disk for instance."""
MOST_OWED_S = 0.5
"""The longest pause that several pieces at a time add up to."""
LOOK_EVERY_S = 0.002


class Background:
    """One for all work of a process that can wait; `enter` and `leave` may be called from any task of the loop.

    `busy` tells whether there is work that cannot wait; it must be cheap.
    """

    def __init__(self, clock: Clock, busy: Callable[[], bool]) -> None:
        self._clock = clock
        self._busy = busy
        self._door = anyio.Lock(fast_acquire=True)
        self._owed_s = 0.0
        self._pressed_since_s: float | None = None

    async def enter(self) -> float:
        """Wait until it is this work's turn; what to hand to `leave`."""
        if self._owed_s > 0:
            async with self._door:
                await self._let_others()
        return self._clock.monotonic()

    def leave(self, started_s: float) -> None:
        """The piece that began then is done."""
        took_s = self._clock.monotonic() - started_s
        if took_s > 0 and self._is_pressed():
            owed_s = self._owed_s + min(took_s, LONGEST_PIECE_S) * OTHERS_SHARE
            self._owed_s = min(owed_s, MOST_OWED_S)

    def _is_pressed(self) -> bool:
        """Whether others are busy; when not, nothing is owed to them."""
        if not self._busy():
            self._owed_s, self._pressed_since_s = 0.0, None
            return False
        if self._pressed_since_s is None:
            self._pressed_since_s = self._clock.monotonic()
        return True

    async def _let_others(self) -> None:
        while self._owed_s > 0 and self._is_pressed():
            before_s = self._clock.monotonic()
            await anyio.sleep(LOOK_EVERY_S)
            now_s = self._clock.monotonic()
            since_s = self._pressed_since_s
            pressed_s = 0.0 if since_s is None else now_s - since_s
            self._owed_s -= (now_s - before_s) * min(1.0 + pressed_s / PATIENCE_S, OTHERS_SHARE)
