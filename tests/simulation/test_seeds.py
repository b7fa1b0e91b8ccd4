"""Whole clusters from seeds: everything of invariants.py and rest.py holds, for a sample and for every seed that once failed.

More of them: make simulate SEEDS=500
"""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing.pool import Pool
from pathlib import Path

import pytest

from kcp.controllers.table import CONTROLLERS
from kcp.replay.coverage import Total
from kcp.replay.exploration import Scenario, explore, regressions, workers
from kcp.replay.faults import KINDS

HERE = Path(__file__).parent
PROCESSES = 2
BATCH, BATCHES = 10, 50
SAMPLE = [Scenario(seed, daemons=2 if seed % 8 == 0 else 1) for seed in range(1, BATCH * BATCHES + 1)]
SEVERAL = ("store-unknown", "stale", "leader-pause")
ALONE = [
    Scenario(
        50,
        minutes=1,
        faults=f"{kind.name}={min(1.0, kind.rate * 3):g}",
        daemons=2 if kind.name in SEVERAL else 1,
    )
    for kind in KINDS
]
"""Each kind of fault alone, three times as often as usual."""
IDLE = frozenset(
    {
        "certificatesigningrequest-approving-controller",
        "certificatesigningrequest-cleaner-controller",
        "legacy-serviceaccount-token-cleaner-controller",
        "node-ipam-controller",
        "pod-garbage-collector-controller",
        "ttl-controller",
        "volumeattributesclass-protection-controller",
    }
)
"""Controllers that find nothing to do in ten minutes on a few nodes that stay."""
COMBINATIONS = 2000
SEEN = Total()
"""What the batches of this process have covered."""


def check(scenario: Scenario) -> None:
    run = scenario.run()
    assert not run.violations, "\n".join(
        ["", f"kcp simulate --case …  {scenario}", *map(str, run.violations[:5])]
    )


def test_a_cluster_without_faults_does_what_its_user_wants() -> None:
    check(Scenario(1, minutes=3, faults="none"))


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with workers(PROCESSES) as started:
        yield started


@pytest.mark.parametrize("batch", range(BATCHES))
def test_seeds(batch: int, pool: Pool) -> None:
    failed = []
    for scenario, run in explore(SAMPLE[batch * BATCH : (batch + 1) * BATCH], PROCESSES, pool):
        SEEN.add(run.coverage, run.digest)
        failed += [f"kcp simulate --case …  {scenario}: {violation}" for violation in run.violations[:2]]
    assert not failed, "\n".join(["", *failed])


def test_every_controller_has_met_faults_while_it_worked() -> None:
    if len(SEEN.logs) < len(SAMPLE):
        pytest.skip("only part of the seeds ran")
    hit = {controller for controller, _, _ in SEEN.combinations}
    missing = {controller.name for controller in CONTROLLERS} - hit - IDLE
    assert not missing, f"no fault while these worked: {sorted(missing)}"
    assert len(SEEN.combinations) > COMBINATIONS


@pytest.mark.parametrize("scenario", ALONE, ids=lambda scenario: scenario.faults.partition("=")[0])
def test_one_kind_of_fault(scenario: Scenario) -> None:
    check(scenario)


@pytest.mark.parametrize("scenario", regressions((HERE / "regressions.txt").read_text()), ids=str)
def test_seeds_that_once_failed(scenario: Scenario) -> None:
    check(scenario)


@pytest.mark.parametrize("case", sorted((HERE / "cases").glob("*.json")), ids=lambda path: path.stem)
def test_cases_that_once_failed(case: Path) -> None:
    check(Scenario.load(case.read_bytes()))
