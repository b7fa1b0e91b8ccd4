"""Whole clusters from seeds: everything of invariants.py and rest.py holds, for a sample and for every seed that once failed.

More of them: make simulate SEEDS=500
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kcp.replay.exploration import Scenario, regressions
from kcp.replay.faults import KINDS

HERE = Path(__file__).parent
SAMPLE = [Scenario(seed, minutes=3) for seed in range(1, 5)]
ALONE = [Scenario(50, minutes=1, faults=f"{kind.name}={min(1.0, kind.rate * 3):g}") for kind in KINDS]
"""Each kind of fault alone, three times as often as usual."""


def check(scenario: Scenario) -> None:
    run = scenario.run()
    assert not run.violations, "\n".join(
        ["", f"kcp simulate --case …  {scenario}", *map(str, run.violations[:5])]
    )


def test_a_cluster_without_faults_does_what_its_user_wants() -> None:
    check(Scenario(1, minutes=3, faults="none"))


@pytest.mark.parametrize("scenario", SAMPLE, ids=str)
def test_seeds(scenario: Scenario) -> None:
    check(scenario)


@pytest.mark.parametrize("scenario", ALONE, ids=lambda scenario: scenario.faults.partition("=")[0])
def test_one_kind_of_fault(scenario: Scenario) -> None:
    check(scenario)


@pytest.mark.parametrize("scenario", regressions((HERE / "regressions.txt").read_text()), ids=str)
def test_seeds_that_once_failed(scenario: Scenario) -> None:
    check(scenario)


@pytest.mark.parametrize("case", sorted((HERE / "cases").glob("*.json")), ids=lambda path: path.stem)
def test_cases_that_once_failed(case: Path) -> None:
    check(Scenario.load(case.read_bytes()))
