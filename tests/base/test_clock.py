from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcp.base.clock import EPOCH_OF_SIMULATION, LoopClock, SystemClock, VirtualClock, microseconds, moment


@given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)))
def test_microseconds_are_exact(at: datetime) -> None:
    assert moment(microseconds(at)) == at


def test_a_virtual_clock_moves_only_when_told() -> None:
    clock = VirtualClock()
    assert clock.now() == EPOCH_OF_SIMULATION
    clock.advance(1.5)
    assert clock.now() - EPOCH_OF_SIMULATION == timedelta(seconds=1.5)
    assert clock.monotonic() == 1.5
    with pytest.raises(AssertionError):
        clock.advance(-1)


def test_the_system_clock_is_in_utc_and_never_falls() -> None:
    clock = SystemClock()
    assert clock.now().tzinfo is UTC
    assert clock.monotonic() <= clock.monotonic()


@pytest.mark.sim
async def test_the_loop_clock_agrees_with_sleeping() -> None:
    clock = LoopClock()
    before = clock.now()
    await anyio.sleep(90.25)
    assert clock.now() - before == timedelta(seconds=90.25)
