"""`kcp simulate` on the command line."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from kcp.cli.replay import command as replay
from kcp.cli.simulate import command as simulate


def test_a_run_tells_its_digest_and_writes_a_log_that_replays(tmp_path: Path) -> None:
    file = str(tmp_path / "run.kcp")
    arguments = ["--seed", "5", "--minutes", "0.5", "--out", file]
    done = CliRunner().invoke(simulate, arguments)
    assert done.exit_code == 0, done.output
    again = CliRunner().invoke(simulate, arguments[:4])
    assert "seed 5: " in done.output
    assert "digest " in done.output and "digest " in again.output
    replayed = CliRunner().invoke(replay, [file])
    assert replayed.exit_code == 0, replayed.output
    decisions, identical = replayed.output.split()[0], replayed.output.split()[2]
    assert decisions == identical != "0"


def test_many_seeds_are_summed_up() -> None:
    done = CliRunner().invoke(simulate, ["--seeds", "2", "--minutes", "0.2", "--nodes", "1"])
    assert done.exit_code == 0, done.output
    assert "2 seeds, 2 held; " in done.output


def test_an_unknown_fault_is_one_line() -> None:
    done = CliRunner().invoke(simulate, ["--faults", "flood"])
    assert done.exit_code == 1
    assert done.output.startswith("Error: unknown fault 'flood'; there are ")
