from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kcp.base.backoff import Backoff, ItemBackoff, WindowBackoff
from kcp.base.clock import VirtualClock
from kcp.base.entropy import SeededEntropy


def test_doubles_up_to_the_cap_and_starts_anew() -> None:
    backoff = Backoff(0.8, cap_s=30)
    assert [round(backoff.next_s(), 3) for _ in range(8)] == [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30]
    backoff.reset()
    assert backoff.next_s() == 0.8


def test_quiet_time_starts_it_anew() -> None:
    clock = VirtualClock()
    backoff = Backoff(1, cap_s=30, clock=clock, reset_after_s=120)
    backoff.next_s()
    clock.advance(119)
    assert backoff.next_s() == 2
    clock.advance(120)
    assert backoff.next_s() == 1


@given(seed=st.integers(0, 1000), jitter=st.floats(0.1, 1))
def test_jitter_only_stretches(seed: int, jitter: float) -> None:
    plain, jittered = Backoff(1, cap_s=8), Backoff(1, cap_s=8, jitter=jitter, entropy=SeededEntropy(seed))
    for _ in range(6):
        base = plain.next_s()
        assert base <= jittered.next_s() < base * (1 + jitter)


def test_items_count_apart_and_can_be_forgotten() -> None:
    backoff: ItemBackoff[str] = ItemBackoff(0.005, 1000)
    assert [backoff.next_s("a") for _ in range(3)] == [0.005, 0.01, 0.02]
    assert backoff.next_s("b") == 0.005
    assert backoff.failures("a") == 3
    backoff.forget("a")
    assert (backoff.failures("a"), backoff.next_s("a")) == (0, 0.005)
    for _ in range(2000):
        last = backoff.next_s("b")
    assert last == 1000


def test_a_crash_loop_waits_longer_until_it_was_quiet() -> None:
    clock = VirtualClock()
    backoff: WindowBackoff[str] = WindowBackoff(clock, 10, 300)
    assert backoff.remaining_s("c", 0) == 0
    assert [backoff.failed("c") for _ in range(7)] == [10, 20, 40, 80, 160, 300, 300]
    assert backoff.remaining_s("c", clock.monotonic()) == 300
    clock.advance(299)
    assert backoff.remaining_s("c", clock.monotonic() - 299) == 1
    clock.advance(302)
    assert backoff.remaining_s("c", clock.monotonic()) == 0
    assert backoff.failed("c") == 10
    clock.advance(601)
    backoff.collect()
    assert backoff.delay_s("c") == 0
