"""Faults have stable keys: whether one happens depends on the seed and its name, not on what happened before."""

from __future__ import annotations

import pytest

from kcp.base.clock import VirtualClock
from kcp.replay.faults import KINDS, RATES, Faults, rates, resource_of, share


def drawn(faults: Faults, clock: VirtualClock, seconds: int, *, kind: str = "error") -> list[str]:
    for _ in range(seconds):
        for component in ("a", "b"):
            faults.draw(kind, component, "pods")
        clock.advance(1)
    return list(faults.fired)


def faults(
    seed: int = 1, only: frozenset[str] | None = None, rate: float = 0.2
) -> tuple[Faults, VirtualClock]:
    clock = VirtualClock()
    made = Faults(seed, {"error": rate}, clock, only)
    made.start()
    return made, clock


def test_the_same_seed_draws_the_same_keys() -> None:
    assert drawn(*faults(1), 100) == drawn(*faults(1), 100) != drawn(*faults(2), 100)


def test_draws_of_one_do_not_shift_those_of_another() -> None:
    alone, clock = faults()
    for _ in range(100):
        alone.draw("error", "b", "pods")
        clock.advance(1)
    assert list(alone.fired) == [key for key in drawn(*faults(), 100) if "/b/" in key]


def test_only_the_chosen_keys_happen_when_there_is_a_list() -> None:
    all_keys = drawn(*faults(), 100)
    chosen = frozenset(all_keys[::2])
    assert drawn(*faults(only=chosen), 100) == all_keys[::2]


def test_rates_are_about_kept_and_shares_uniform() -> None:
    assert 0.15 < len(drawn(*faults(rate=0.2), 500)) / 1000 < 0.25
    assert 0.45 < sum(share(3, str(n)) for n in range(1000)) / 1000 < 0.55


def test_nothing_fails_before_the_start_and_after_healing() -> None:
    clock = VirtualClock()
    made = Faults(1, {"error": 1.0}, clock)
    assert made.draw("error", "a", "pods") is None
    made.start()
    assert made.draw("error", "a", "pods") is not None
    made.heal()
    clock.advance(10)
    assert made.draw("error", "a", "pods") is None


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("/api/v1/pods", "pods"),
        ("/api/v1/namespaces/default/pods/web/status", "pods"),
        ("/api/v1/namespaces/default", "namespaces"),
        ("/api/v1/namespaces/default/finalize", "namespaces"),
        ("/apis/apps/v1/namespaces/default/deployments/web", "deployments.apps"),
        ("/apis/storage.k8s.io/v1/storageclasses", "storageclasses.storage.k8s.io"),
    ],
)
def test_the_resource_of_a_path(path: str, resource: str) -> None:
    assert resource_of(path) == resource


def test_lists_of_faults_are_read() -> None:
    assert rates("none") == {}
    assert rates("all") == dict(RATES) and len(RATES) == len(KINDS)
    assert rates("error=0.5,slow") == {"error": 0.5, "slow": RATES["slow"]}
    with pytest.raises(ValueError, match="unknown fault 'flood'"):
        rates("flood")
