"""Time, injected.

Every component that needs the time is handed a `Clock`. Waiting is `anyio.sleep`, which follows the running
loop: on the deterministic loop both are virtual and agree with each other.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

import attrs

from kcp.base.values import frozen


class Clock(Protocol):
    def now(self) -> datetime:
        """The present moment in UTC, microsecond resolution."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never falls, unaffected by steps of the wall clock."""
        ...


@frozen
class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


_1970 = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_OF_SIMULATION = datetime(2026, 1, 1, tzinfo=UTC)


@attrs.define
class VirtualClock:
    """A clock that moves only when it is told to, for tests that need no loop."""

    start: datetime = EPOCH_OF_SIMULATION
    elapsed_s: float = 0.0

    def now(self) -> datetime:
        return self.start + timedelta(microseconds=round(self.elapsed_s * 1e6))

    def monotonic(self) -> float:
        return self.elapsed_s

    def advance(self, seconds: float) -> None:
        assert seconds >= 0, "time does not run backwards"
        self.elapsed_s += seconds


@frozen
class LoopClock:
    """The clock of the running event loop: virtual on the deterministic loop, where sleeping moves it."""

    start: datetime = EPOCH_OF_SIMULATION

    def now(self) -> datetime:
        return self.start + timedelta(microseconds=round(self.monotonic() * 1e6))

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


def microseconds(moment: datetime) -> int:
    """A moment as integer microseconds since 1970, exact (no float in between)."""
    delta = moment - _1970
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def moment(ts_us: int) -> datetime:
    """Inverse of `microseconds`."""
    return _1970 + timedelta(microseconds=ts_us)
