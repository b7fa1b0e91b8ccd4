"""`kcp replay` by its command line: what it prints, the same on every run and with any number of processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from kcp.cli.replay import command
from kcp.replay.incident import Incident
from kcp.replay.run import plan_work
from tests.replay import stories

ROOT = Path(__file__).resolve().parents[2]
TWICE = """
import sys
from kcp.cli.replay import command
if __name__ == "__main__":
    command([sys.argv[1], "-j", sys.argv[2]], standalone_mode=False)
    command([sys.argv[1], "--step"], standalone_mode=False)
"""
WORDS = "step 40\ndecision\ndiff\nqueue\nwhy\ncache\nlist 20\nback 7\neffects\ncache pods\nsql SELECT name, node FROM pods ORDER BY name\n"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stories.rollout(tmp_path_factory.mktemp("replay") / "log.kcp")


def run(*arguments: str | Path, text: str = "") -> str:
    done = CliRunner().invoke(command, [str(argument) for argument in arguments], input=text)
    assert done.exit_code == 0, done.output
    return done.output


def test_five_processes_print_the_same_bytes(log: Path) -> None:
    outputs = set()
    for number, jobs in enumerate(("1", "2", "1", "1", "1")):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": str(number * 7919 + 1)}
        done = subprocess.run(
            [sys.executable, "-c", TWICE, str(log), jobs],
            input=WORDS.encode(), capture_output=True, timeout=60, check=True, env=environment,
        )  # fmt: skip
        assert done.stderr == b""
        outputs.add(done.stdout)
    (told,) = outputs
    assert told.count(b"\n") >= 40


def test_until_goes_no_further(log: Path) -> None:
    whole = int(run(log).split()[0])
    with Incident.open(log) as incident:
        ids = incident.ids()
        middle = ids[len(ids) // 2]
        rv = max(incident.decision(middle)[1].values())
    assert int(run(log, "--until", str(middle)).split()[0]) == len(ids) // 2 + 1
    assert 0 < int(run(log, "--until", str(rv)).split()[0]) <= whole
    assert int(run(log, "--until", "2026-01-01T00:00:10Z").split()[0]) < whole


def test_pieces_cover_every_decision_once(log: Path) -> None:
    with Incident.open(log) as incident:
        pieces = plan_work(incident, size=3)
        for name in incident.controllers:
            covered = [at for p in pieces if p.controller == name for at in range(p.first, p.last)]
            assert covered == list(range(incident.count(name)))


def test_a_session_in_a_pipe(log: Path) -> None:
    told = run(
        log,
        "--break",
        'controller == "deployment" && key == "default/web"',
        text="next\nback\nnonsense\nquit\n",
    )
    lines = told.splitlines()
    assert (
        "deployment-controller  default/web" in lines[0] and "deployment-controller  default/web" in lines[1]
    )
    assert lines[2].split()[0] < lines[1].split()[0]
    assert lines[3] == "Error: there is no 'nonsense' here; help lists what there is"


def test_back_begins_at_the_end(log: Path) -> None:
    first, second = run(log, "--back", text="back\n").splitlines()
    with Incident.open(log) as incident:
        assert [first.split()[0], second.split()[0]] == [str(number) for number in incident.ids()[:-3:-1]]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--break", "nothing == 1"], "Error: there is no 'nothing' to ask about"),
        (["--break", 'key == "no/body"'], "Error: no decision fulfils the condition\n"),
        (
            ["--until", "soon"],
            "Error: 'soon' is neither a revision, nor a time, nor a span such as 10m, nor a decision\n",
        ),
        (["--serve", "nowhere"], "Error: 'nowhere' is not HOST:PORT\n"),
        (["--serve", "127.0.0.1:70000"], "Error: '127.0.0.1:70000' is not HOST:PORT\n"),
        (["--controller", "nobody", "--step"], "Error: the log has no decisions"),
    ],
)
def test_mistakes_are_one_line(log: Path, arguments: list[str], reason: str) -> None:
    done = CliRunner().invoke(command, [str(log), *arguments])
    assert (done.exit_code, done.output.count("\n")) == (1, 1)
    assert done.output.startswith(reason)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--whole", "--step"], "--step cannot go with a run of the whole system"),
        (
            ["--set", "job.x=1", "--controller", "job"],
            "--controller cannot go with a run of the whole system",
        ),
        (["--step", "--format", "json"], "--format cannot go with a session"),
        (["--break", "rv > 1", "--continue", "-j", "2"], "--continue and --jobs cannot go with a session"),
    ],
)
def test_options_that_would_be_passed_over_are_refused(log: Path, arguments: list[str], reason: str) -> None:
    done = CliRunner().invoke(command, [str(log), *arguments])
    assert done.exit_code == 2 and done.output.splitlines()[-1] == f"Error: {reason}"


def test_for_programs(log: Path) -> None:
    told = orjson.loads(run(log, "--format", "json", "--controller", "deployment"))
    assert told["decisions"] == told["identical"] > 0
    assert (told["diverged"], told["purged"], told["unplaced"]) == ([], 0, 0)
