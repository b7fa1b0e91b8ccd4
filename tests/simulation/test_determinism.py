"""The same seed gives the same bytes: in five processes, each with its own hash seed and its own heap."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kcp.replay.exploration import Scenario
from kcp.replay.incident import Incident
from kcp.replay.run import remake_all
from kcp.replay.simulation import simulate

PROCESSES = 5
PROGRAM = """
import sys
junk = [object() for _ in range(int(sys.argv[3]))]
from kcp.base import logs
logs.configure(level="error")
from kcp.replay.exploration import Scenario
run = Scenario.parse(sys.argv[1]).run(sys.argv[2])
assert not run.violations, run.violations
print(run.digest, run.revisions, run.steps, len(run.fired))
"""


def start(scenario: Scenario, file: Path, junk: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", PROGRAM, str(scenario), str(file), str(junk)]
    env = {**os.environ, "PYTHONHASHSEED": "random"}
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=env, cwd=Path.cwd())


def test_the_same_seed_gives_the_same_log_in_five_processes(tmp_path: Path) -> None:
    scenario = Scenario(11, minutes=1)
    files = [tmp_path / f"{n}.kcp" for n in range(PROCESSES)]
    running = [start(scenario, file, junk=n * 1000) for n, file in enumerate(files)]
    said = [process.communicate(timeout=110)[0] for process in running]
    assert [process.returncode for process in running] == [0] * PROCESSES
    assert len(set(said)) == 1, said
    contents = {hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    assert len(contents) == 1, "the files differ although the digests agree"


def test_the_file_of_a_run_is_an_incident_log(tmp_path: Path) -> None:
    run = Scenario(14, minutes=4).run(tmp_path / "log.kcp")
    with Incident.open(tmp_path / "log.kcp") as incident:
        results = list(remake_all(incident))
    assert len(results) == run.decisions > 50
    assert all(result.identical for result in results)


def test_a_log_in_a_file_meets_the_same_faults_as_one_in_memory(tmp_path: Path) -> None:
    scenario = Scenario(14, minutes=4, faults="store-slow=0.2,store-fail=0.05")
    on_disk, in_memory = scenario.run(tmp_path / "log.kcp"), scenario.run()
    assert (on_disk.revisions, on_disk.decisions) == (in_memory.revisions, in_memory.decisions)
    assert on_disk.fired == in_memory.fired and on_disk.said == in_memory.said
    assert (on_disk.digest, on_disk.steps) == (in_memory.digest, in_memory.steps)
    assert {key.partition("/")[0] for key in on_disk.fired} == {"store-slow", "store-fail"}


def test_a_log_in_a_file_takes_the_course_of_one_in_memory(tmp_path: Path) -> None:
    """Also when its engine tidies up while nothing happens: that takes no turn of the loop."""
    on_disk, in_memory = simulate(0, duration_s=60, store=tmp_path / "log.kcp"), simulate(0, duration_s=60)
    assert (on_disk.digest, on_disk.steps) == (in_memory.digest, in_memory.steps)


def test_several_daemons_do_not_share_a_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a file"):
        Scenario(1, daemons=2).run(tmp_path / "log.kcp")


def test_two_daemons_on_one_log_are_as_deterministic_as_one() -> None:
    scenario = Scenario(13, minutes=1, daemons=2)
    one, again = scenario.run(), scenario.run()
    assert not one.violations
    assert (one.digest, one.steps) == (again.digest, again.steps)


def test_another_seed_is_another_run() -> None:
    assert len({simulate(seed, duration_s=20).digest for seed in range(3)}) == 3


def test_watched_clocks_and_dice_are_given_back() -> None:
    import random
    import time

    before = time.time, time.monotonic, random.random, os.urandom
    simulate(1, duration_s=1, nodes=0)
    assert before == (time.time, time.monotonic, random.random, os.urandom)


def test_code_of_ours_that_asks_the_machine_for_the_time_is_caught() -> None:
    from kcp.replay.tripwire import Tripped, armed

    names = {"__name__": "kcp.api.somewhere"}
    with armed(), pytest.raises(Tripped, match=r"kcp\.api\.somewhere called time\.time"):
        exec("import time\ntime.time()", names)
    with armed():
        exec("import time\ntime.time()", {"__name__": "kcp.base.clock"})
        exec("import time\ntime.time()", {"__name__": "somebody.elses"})
