"""A purged log on the command line: history, SQL, replay and explain still answer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from kcp.cli.main import kcp
from tests.replay.placements import write_log


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("purge") / "log.kcp"
    write_log(file)
    return file


@pytest.fixture
def log(whole: Path, tmp_path: Path) -> str:
    return str(shutil.copy(whole, tmp_path / "log.kcp"))


def run(*arguments: str, exit_code: int = 0, answer: str = "") -> str:
    done = CliRunner().invoke(kcp, arguments, input=answer)
    assert done.exit_code == exit_code, done.output
    return done.output


def purge(log: str, *what: str) -> str:
    return run("purge", *what, "--reason", "by law", "--yes", "--data", log)


def test_a_deleted_pod(log: str) -> None:
    before = run("replay", log)
    assert purge(log, "pod", "web").startswith("pods/default/web: ")
    lines = run("history", "pod", "web", "--data", log).splitlines()
    assert all(line.endswith("(purged: what it said is gone)") for line in lines) and len(lines) > 2
    assert '"purged": true' in run("history", "pod", "web", "--format", "json", "--data", log)
    after = run("replay", log)
    assert " on versions that were purged, which nobody can re-make" in after and "diverged" not in after
    assert before.split()[0] == after.split()[0]
    assert run("explain", "pod", "web", "--data", log, exit_code=1).count("\n") == 1
    assert "fits-one bound to" in run("explain", "pod", "fits-one", "--data", log)
    query = "SELECT count(*) AS n FROM history WHERE name = 'web' AND object IS NOT NULL"
    assert int(run("sql", query, "--data", log).split()[1]) == len(lines) - 1
    assert run("check", "--data", log).startswith("whole: revisions 1 to ")
    mark = run("sql", "SELECT payload FROM inputs WHERE kind = 'purge'", "--format", "csv", "--data", log)
    assert "by law" in mark and "pods/default/web" in mark


def test_a_node_that_the_scheduler_saw(log: str) -> None:
    purge(log, "node", "a")
    assert "diverged" not in run("replay", log)
    run("explain", "pod", "big", "--data", log)


def test_it_asks_and_refuses(log: str) -> None:
    asked = ("purge", "pod", "web", "--reason", "x", "--data", log)
    assert "Purge every version of pods/default/web? [y/N]" in run(*asked, answer="n\n", exit_code=1)
    assert "versions purged" in run(*asked, answer="y\n")
    assert run(*asked, "--yes", exit_code=1) == "Error: there is no past version of pods/default/web\n"
    assert "Missing option '--reason'" in run("purge", "pod", "web", "--data", log, exit_code=2)
    assert run("purge", "nothing", "x", "--reason", "x", "--data", log, exit_code=1) == (
        "Error: the log knows no kind 'nothing'\n"
    )
    alive = run("purge", "namespace", "default", "--reason", "x", "--yes", "--data", log, exit_code=1)
    assert alive == (
        "Error: namespaces/default is alive: delete it first, or purge its past alone (--history-only)\n"
    )
