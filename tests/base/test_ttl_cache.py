from __future__ import annotations

from kcp.base.clock import VirtualClock
from kcp.base.ttl_cache import TtlCache


def test_the_least_recently_used_goes_first() -> None:
    cache: TtlCache[str, int] = TtlCache(VirtualClock(), capacity=2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)
    assert len(cache) == 2


def test_entries_expire_on_the_clock() -> None:
    clock = VirtualClock()
    cache: TtlCache[str, int] = TtlCache(clock, capacity=9, ttl_s=10)
    cache.put("a", 1)
    cache.put("b", 2, ttl_s=20)
    clock.advance(9.9)
    assert cache.get("a") == 1
    clock.advance(0.1)
    assert (cache.get("a"), cache.get("b")) == (None, 2)
    assert cache.get_or_put("a", lambda: 7) == 7
    assert cache.get_or_put("a", lambda: 8) == 7
    cache.discard("a")
    assert cache.get("a") is None
    cache.clear()
    assert len(cache) == 0
