"""`kcp replay --whole` and its what-ifs by the command line: what is printed, the same in any process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result

from kcp.cli.import_ import command as import_
from kcp.cli.replay import command
from kcp.cli.simulate import command as simulate
from tests.replay import stories

ROOT = Path(__file__).resolve().parents[2]
KEEP_OLD = f"deployment={ROOT / 'examples/what-if/keep_old.py'}:plan"
PROCESSES = 5
PROGRAM = """
import sys
junk = [object() for _ in range(int(sys.argv[2]) * 1000)]
from kcp.cli.replay import command
if __name__ == "__main__":
    command([sys.argv[1], "--swap", sys.argv[3], "-j", "1"], standalone_mode=False)
"""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stories.rollout(tmp_path_factory.mktemp("whole") / "log.kcp")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [*map(str, arguments), "-j", "1"])


def test_five_processes_print_the_same_bytes(log: Path) -> None:
    env = {**os.environ, "PYTHONHASHSEED": "random"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(log), str(number), KEEP_OLD],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=ROOT,
        )
        for number in range(PROCESSES)
    ]  # fmt: skip
    said = [process.communicate(timeout=110) for process in running]
    assert len({out for out, _ in said}) == 1, said
    assert [process.returncode for process in running] == [3] * PROCESSES, said[0][1].decode()


def test_on_two_cores_as_on_one(log: Path) -> None:
    arguments = [str(log), "--nodes", "+1"]
    one = CliRunner().invoke(command, [*arguments, "-j", "1"])
    two = CliRunner().invoke(command, [*arguments, "-j", "2"])
    assert one.output == two.output != ""


def test_a_log_that_comes_to_the_same_is_exit_code_0(log: Path) -> None:
    done = run(log, "--whole")
    assert done.exit_code == 0, done.output
    assert done.output.startswith("run again: 3 requests from outside\n")
    assert re.search(
        r"^  (\d+) objects in both, \1 of them with the same wishes in the same order$", done.output, re.M
    )


def test_a_simulated_log_is_told_to_be_the_same_byte_for_byte(tmp_path: Path) -> None:
    file = tmp_path / "run.kcp"
    CliRunner().invoke(simulate, ["--seed", "5", "--minutes", "0.5", "--out", str(file)])
    done = run(file, "--whole")
    assert done.exit_code == 0, done.output
    assert done.output.startswith(
        "run again from its seed, operations and faults: every event is the same, byte for byte"
    )


def test_a_swap_tells_decisions_outcome_and_the_first_divergence(log: Path) -> None:
    done = run(log, "--swap", KEEP_OLD)
    assert done.exit_code == 3, done.output
    for pattern in (
        r"^\d+ recorded decisions of deployment-controller, made again with it: \d+ identical, \d+ not$",
        r"^  key       default/web$",
        r"^  recorded +\| now$",
        r"^created +(\d+) +\1 +\d+$",
        r"^  pods +6 +6 +4$",
        r"^rollouts that were through +2 +2 +1$",
        r"^first divergence at 2026-01-01T00:00:15\.\d+Z$",
        r"^  again    rv \d+ MODIFIED replicasets.apps/default/web-\w+ by system:\S+:deployment-controller \(decision \d+\)$",
        r"kubernetes-admin through kcp changed deployment default/web: .*image: web:1 → web:2$",
        r"^  again +\| changed$",
    ):
        assert re.search(pattern, done.output, re.M), (pattern, done.output)


def test_a_change_that_changes_nothing_is_exit_code_0(log: Path) -> None:
    done = run(log, "--set", "pod-garbage-collector.terminated_pod_threshold=9999")
    assert done.exit_code == 0, done.output
    assert "the change makes no difference: both runs are the same, event for event" in done.output


def test_swapped_code_that_fails_is_told(log: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def plan(key, view, env):\n    raise KeyError('oops')\n    yield\n")
    done = run(log, "--swap", f"deployment={tmp_path / 'broken.py'}:plan")
    assert done.exit_code == 3, done.output
    assert "decisions of swapped controllers that failed" in done.output
    assert re.search(r"^  deployment-controller: \d+, the first with KeyError\('oops'\)$", done.output, re.M)


def test_swapped_code_may_not_ask_the_machine_for_the_time(log: Path, tmp_path: Path) -> None:
    code = "import time\ndef plan(key, view, env):\n    time.time()\n    return\n    yield\n"
    (tmp_path / "clock.py").write_text(code)
    done = run(log, "--swap", f"deployment={tmp_path / 'clock.py'}:plan")
    assert done.exit_code == 3, done.output
    assert "kcp_swapped_clock called time.time; ask Clock or Entropy" in done.output


def test_json_has_the_same(log: Path) -> None:
    told = orjson.loads(run(log, "--nodes", "0", "--format", "json").output)
    assert told["changes"]["nodes"] == "0" and told["same"] is False
    assert [told["outcomes"][name]["created"]["nodes"] for name in ("recorded", "again")] == [3, 3]
    assert "nodes" not in told["outcomes"]["changed"]["created"]
    assert told["outcomes"]["changed"]["ready"] == {"count": 0, "p50_s": None, "p99_s": None}
    assert told["objects"]["different"] == {} and told["first_divergence"]["without"].endswith("nodes/node-1")


def test_the_changed_log_is_kept_and_can_be_asked(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "changed.kcp"
    assert run(log, "--swap", KEEP_OLD, "--out", out).exit_code == 3
    kept = CliRunner().invoke(command, [str(out), "--controller", "replicaset-controller"])
    assert kept.exit_code == 0 and "identical" in kept.output
    again = run(log, "--whole", "--out", out)
    assert (again.exit_code, again.output) == (1, f"Error: {out} exists already\n")


def test_of_an_imported_log_what_was_told_is_asked_again(tmp_path: Path) -> None:
    CliRunner().invoke(
        import_, [str(ROOT / "examples/incidents/audit.log"), "--data", str(tmp_path / "data")]
    )
    done = run(tmp_path / "data", "--whole")
    assert done.exit_code == 3, done.output
    assert "The log was imported: only what its source told could be asked for again" in done.output
    assert re.search(r"^  pods +3 +3$", done.output, re.M), done.output


def test_until_a_time(log: Path) -> None:
    done = run(log, "--whole", "--until", "2026-01-01T00:00:12Z")
    assert (
        done.output.startswith("run again: 1 requests from outside")
        or "1 request from outside" in done.output
    )
    assert run(log, "--whole", "--until", "sometime").output.startswith("Error: ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--swap", "nobody=x:y"], "Error: no controller 'nobody'; there are "),
        (["--nodes", "-node-7"], "Error: there is no node 'node-7'; there are node-1, node-2, node-3\n"),
        (
            ["--scheduler-config", "no-such-file"],
            "Error: cannot read no-such-file: no such file or directory\n",
        ),
    ],
)
def test_what_cannot_be_is_one_line(log: Path, arguments: list[str], told: str) -> None:
    done = run(log, *arguments)
    assert (done.exit_code, done.output[: len(told)]) == (1, told)
