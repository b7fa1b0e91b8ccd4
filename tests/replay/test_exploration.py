"""Lines, cases, and making a failing run short."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcp.replay.exploration import Scenario, explore, regressions
from kcp.replay.shrink import Budget, smallest
from kcp.replay.workload import script


def test_a_line_is_read_back() -> None:
    scenario = Scenario(7, minutes=2.5, nodes=4, faults="error,slow=0.1")
    assert Scenario.parse(f"{scenario}  # replicas") == scenario
    assert regressions(f"# why\n\n{scenario}\nseed=3\n") == [scenario, Scenario(3)]


@pytest.mark.parametrize("line", ["minutes=3", "seed=1 speed=9"])
def test_other_lines_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match="not a simulation"):
        Scenario.parse(line)


def test_a_case_is_read_back() -> None:
    scenario = Scenario(7, only=("error/a/pods/3",), operations=script(7, 60)[:5])
    assert Scenario.load(scenario.dump()) == scenario
    with pytest.raises(ValueError, match="not a case"):
        Scenario.load(b"{}")


def test_scripts_follow_from_the_seed_alone() -> None:
    assert script(1, 300) == script(1, 300) != script(2, 300)
    operations = script(1, 300)
    assert len(operations) > 20
    assert [op.at_s for op in operations] == sorted(op.at_s for op in operations)


@given(st.sets(st.integers(0, 40), max_size=4))
def test_the_smallest_failing_part_is_found(needed: set[int]) -> None:
    def fails(part: Sequence[int]) -> bool:
        return needed <= set(part)

    assert smallest(range(41), fails, Budget(10_000)) == sorted(needed)


def test_a_budget_ends_the_search_with_what_is_known_to_fail() -> None:
    def fails(part: Sequence[int]) -> bool:
        return 17 in part

    kept = smallest(range(100), fails, Budget(5))
    assert 17 in kept and len(kept) < 100


def test_many_seeds_run_in_processes_of_their_own() -> None:
    scenarios = [Scenario(seed, minutes=0.2, nodes=0, faults="none") for seed in (1, 2)]
    found = dict(explore(scenarios, processes=2))
    assert {scenario.seed: run.digest for scenario, run in found.items()} == {
        scenario.seed: scenario.run().digest for scenario in scenarios
    }
    assert not any(run.violations for run in found.values())
