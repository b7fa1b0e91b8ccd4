"""One heap of timers for everything in a process that waits: container exits, probes, back-offs, heartbeats.

A timer calls a plain function in the task of `run`; whatever takes longer queues work instead.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

import anyio
import anyio.lowlevel
import attrs
import structlog

from kcp.base.clock import Clock

log = structlog.get_logger()
_FIRED_AT_ONCE = 64
_SWEEP_ABOVE = 1024


@attrs.define(slots=True, eq=False)
class Timer:
    """A pending call. `cancel` is idempotent."""

    due_s: float
    call: Callable[[], None] | None

    def cancel(self) -> None:
        self.call = None

    @property
    def pending(self) -> bool:
        return self.call is not None


class Timers:
    """Times are those of `clock.monotonic()`. Timers that are due together fire in the order they were set."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Timer]] = []
        self._sequence = 0
        self._sweep_at = _SWEEP_ABOVE
        self._sooner = anyio.Event()

    def __len__(self) -> int:
        return len(self._heap)

    def at(self, due_s: float, call: Callable[[], None]) -> Timer:
        if len(self._heap) >= self._sweep_at:
            self._sweep()
        timer = Timer(due_s, call)
        self._sequence += 1
        heapq.heappush(self._heap, (due_s, self._sequence, timer))
        if self._heap[0][2] is timer:
            self._sooner.set()
        return timer

    def _sweep(self) -> None:
        """Drop cancelled timers; each sweep waits until the heap has doubled, so it costs nothing per timer."""
        self._heap = [entry for entry in self._heap if entry[2].pending]
        heapq.heapify(self._heap)
        self._sweep_at = max(_SWEEP_ABOVE, 2 * len(self._heap))

    def after(self, delay_s: float, call: Callable[[], None]) -> Timer:
        return self.at(self._clock.monotonic() + delay_s, call)

    async def run(self) -> None:
        """Fire what is due, until cancelled."""
        while True:
            if self._fire():
                await anyio.lowlevel.checkpoint()
                continue
            self._sooner = anyio.Event()
            if not self._heap:
                await self._sooner.wait()
                continue
            with anyio.move_on_after(max(0.0, self._heap[0][0] - self._clock.monotonic())):
                await self._sooner.wait()

    def _fire(self) -> bool:
        """Fire some of what is due; whether there may be more."""
        now_s = self._clock.monotonic()
        fired = 0
        while self._heap and (self._heap[0][0] <= now_s or not self._heap[0][2].pending):
            fired += self._call(heapq.heappop(self._heap)[2])
            if fired >= _FIRED_AT_ONCE:
                return True
        return False

    @staticmethod
    def _call(timer: Timer) -> int:
        call, timer.call = timer.call, None
        if call is None:
            return 0
        try:
            call()
        except Exception:
            log.exception("timer failed")
        return 1
