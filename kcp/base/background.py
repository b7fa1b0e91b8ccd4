"""Work that can wait, on a loop that has better to do: what is asked for now goes before what follows from it.

    background = Background(clock, busy)
    while True:
        started_s = await background.enter()
        ...                                  # a piece of work, some milliseconds at most
        background.leave(started_s)

While nobody is busy, `enter` returns at once. While somebody is, a piece that took a millisecond is followed by nine for
the others; after five seconds of that the shares are equal, so that what waits never waits for ever. On a loop with
virtual time work takes no time: nothing ever waits.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from kcp.base.clock import Clock

OTHERS_SHARE = 9.0
PATIENCE_S = 5.0
LONGEST_PAUSE_S = 0.1
"""A piece never costs its successor more, whatever it took."""
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
            self._owed_s += min(took_s * OTHERS_SHARE, LONGEST_PAUSE_S)

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
            patient = self._pressed_since_s is None or now_s - self._pressed_since_s < PATIENCE_S
            self._owed_s -= (now_s - before_s) * (1.0 if patient else OTHERS_SHARE)
