"""What simulated commands do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcp.node.runtime.program import Program, interpret


@pytest.mark.parametrize(
    ("argv", "runs_s", "exit_code"),
    [
        (["true"], 0, 0),
        (["/bin/false"], 0, 1),
        (["sleep", "5"], 5, 0),
        (["sleep", "1m", "2"], 62, 0),
        (["sleep", "infinity"], None, 0),
        (["exit", "3"], 0, 3),
        (["sh", "-c", "exit 7"], 0, 7),
        (["/bin/sh", "-ec", "sleep 2; exit 4"], 2, 4),
        (["sh", "-c", "false && exit 9"], 0, 1),
        (["sh", "-c", "false || exit 9"], 0, 9),
        (["sh", "-c", "true || exit 9"], 0, 0),
        (["sh", "-c", "sleep 1 && sleep 2\nexit 1"], 3, 1),
        (["sh", "-c", "# a comment\necho 'a; b' > /tmp/x; exit 2"], 0, 2),
        (["bash", "-c", "X=1 exec sleep 4"], 4, 0),
        (["sh", "-c", "while true; do sleep 1; done"], None, 0),
        (["sh", "-c", "trap exit TERM; while :; do sleep 1; done"], None, 0),
        (["sh", "-c", "sleep 5 & exit 1"], 0, 1),
        (["timeout", "2", "sleep", "5"], 2, 124),
        (["sh", "-c", "cat /etc/hosts | grep x; exit 5"], 0, 5),
    ],
)
def test_understood_commands(argv: list[str], runs_s: float | None, exit_code: int) -> None:
    program = interpret(argv)
    assert (program.runs_s, program.exit_code, program.known) == (runs_s, exit_code, True)


@pytest.mark.parametrize(
    "argv", [[], ["nginx", "-g", "daemon off;"], ["sh", "-c", "./run.sh"], ["sh", "-c", "'"]]
)
def test_what_is_not_understood_says_so(argv: list[str]) -> None:
    assert interpret(argv) == Program(None, known=False)


@pytest.mark.parametrize(
    ("script", "exit_code"),
    [
        ("if [ $(($INDEX % 2)) -eq 0 ]; then exit 4; else exit 5; fi", 5),
        ("if [ $(expr ${INDEX} % 2) -ne 0 ]; then exit 4\nelse\n exit 5\nfi", 4),
        ("if false; then exit 1; elif [ $INDEX = 3 ]; then exit 2; else exit 3; fi", 2),
        ("if [ -r /data/once ]; then exit 0; fi; touch /data/once; exit 6", 6),
        ("[[ $INDEX -gt 5 ]] || exit 7", 7),
        ("if true; then if false; then exit 1; else sleep 1; fi; exit 8; fi", 8),
        ("exit $(( 7 / 2 ))", 3),
        ('test -n "$INDEX" && exit $INDEX; exit 9', 3),
    ],
)
def test_branches_and_variables(script: str, exit_code: int) -> None:
    program = interpret(["sh", "-c", script], {"INDEX": "3"})
    assert (program.exit_code, program.known) == (exit_code, True)


def test_echoes_are_kept() -> None:
    assert interpret(["sh", "-c", "echo one two; printf 'a\\nb\\n'; nginx"]).output == ("one two", "a", "b")


@given(st.lists(st.text(max_size=20), max_size=4))
def test_no_command_breaks_it(argv: list[str]) -> None:
    program = interpret(argv)
    assert program.runs_s is None or program.runs_s >= 0


@given(st.text(max_size=60))
def test_no_script_breaks_it(script: str) -> None:
    assert 0 <= interpret(["sh", "-c", script]).exit_code <= 255


@pytest.mark.parametrize(
    ("script", "output", "files"),
    [
        ("echo -n OK > /dev/termination-log; echo DONE", ("DONE",), {"/dev/termination-log": "OK"}),
        ("echo a >> x; echo b >> x; echo c", ("c",), {"x": "a\nb\n"}),
        ("echo a > x; echo b > x", (), {"x": "b\n"}),
        ("echo gone > /dev/null; ls 2>/dev/null; echo both 2>&1", ("both",), {}),
        ("> empty", (), {"empty": ""}),
    ],
)
def test_what_is_written_to_files_is_not_in_the_output(
    script: str, output: tuple[str, ...], files: dict[str, str]
) -> None:
    program = interpret(["sh", "-c", script])
    assert (program.output, dict(program.files)) == (output, files)


@pytest.mark.parametrize(
    ("argv", "output", "runs_s"),
    [
        (["env"], ("A=1", "B=2"), 0),
        (["printenv", "B"], ("2",), 0),
        (["sh", "-c", "env; echo $A"], ("A=1", "B=2", "1"), 0),
        (["env", "C=3", "sleep", "4"], (), 4),
    ],
)
def test_commands_that_print_the_environment(argv: list[str], output: tuple[str, ...], runs_s: float) -> None:
    program = interpret(argv, {"B": "2", "A": "1"})
    assert (program.output, program.runs_s) == (output, runs_s)
