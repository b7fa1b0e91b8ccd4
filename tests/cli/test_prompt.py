"""The prompt of `kcp sql`."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from kcp.base.clock import VirtualClock
from kcp.cli.main import kcp
from kcp.cli.prompt import candidates, split
from tests.real.daemon import ENTRY, ROOT, environment
from tests.store import postgres
from tests.store.incident import open_log, play

NAMES = {
    "pods": ("ns", "name", "phase", "node"),
    "nodes": ("name", "ready"),
    "history": ("rv", "kind", "name"),
}


@pytest.fixture
async def log(tmp_path: Path) -> Path:
    clock = VirtualClock()
    async with open_log(tmp_path / "data", clock) as store:
        await play(store, clock)
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("text", "done", "rest"),
    [
        ("SELECT 1", [], "SELECT 1"),
        ("SELECT 1; SELECT 2;", ["SELECT 1", "SELECT 2"], ""),
        ("SELECT ';' ; x", ["SELECT ';'"], " x"),
        ("SELECT 'it''s; '", [], "SELECT 'it''s; '"),
        ("SELECT 'open ; ", [], "SELECT 'open ; "),
        ('SELECT ";" -- ; no\n;', ['SELECT ";" -- ; no'], ""),
        ("/* ; */ SELECT 1 - 2 / 3;", ["/* ; */ SELECT 1 - 2 / 3"], ""),
        ("/* ; ", [], "/* ; "),
        (";;", [], ""),
    ],
)
def test_where_a_statement_ends(text: str, done: list[str], rest: str) -> None:
    assert split(text) == (done, rest)


@given(st.text(alphabet="a;'\"-/* \n"), st.text(alphabet="a;'\"-/* \n"))
def test_what_has_ended_does_not_depend_on_what_comes(first: str, second: str) -> None:
    """Nothing is lost, and more lines only add statements, unless a comment or a quote was cut in two."""
    done, rest = split(first)
    assert len("".join(done)) + len(rest) <= len(first)
    if not rest:
        again, more = split(first + second)
        assert again[: len(done)] == done
        assert (again[len(done) :], more) == split(second)


@pytest.mark.parametrize(
    ("statement", "text", "found"),
    [
        ("SELECT * FROM po", "po", ["pods"]),
        ("SELECT * FROM ", "", ["pods", "nodes", "history"]),
        ("SELECT na", "na", ["name"]),
        ("SELECT p.ph", "p.ph", ["p.phase"]),
        ("SELECT pods.n", "pods.n", ["pods.ns", "pods.name", "pods.node"]),
        ("SELECT * FROM pods p WHERE p.n", "p.n", ["p.ns", "p.name", "p.node"]),
        ("SELECT * FROM history AS h JOIN nodes n USING (name) WHERE n.", "n.", ["n.name", "n.ready"]),
        ("SELECT * FROM nodes WHERE r", "r", ["ready"]),
        ("SELECT * FROM nodes whe", "whe", ["where", "when"]),
        (".ta", ".ta", [".tables"]),
        ("SELECT 1 .ta", ".ta", []),
    ],
)
def test_completion(statement: str, text: str, found: list[str]) -> None:
    assert candidates(NAMES, statement, text) == found


def run(log: Path | str, text: str, *options: str) -> tuple[int, str]:
    place = ("--store", log) if isinstance(log, str) else ("--data", str(log))
    done = CliRunner().invoke(kcp, ["sql", *options, *place], input=text)
    return done.exit_code, done.output


def test_statements_from_a_pipe(log: Path) -> None:
    text = "SELECT count(*) AS n\nFROM history; SELECT name\n  FROM nodes;\n.at 4\nSELECT phase FROM pods"
    code, out = run(log, text)
    assert (code, out.split()) == (
        0,
        ["N", "11", "NAME", "n1", "as", "of", "revision", "4", "PHASE", "Running"],
    )
    assert run(log, "SELECT phase FROM pods;", "--at", "3") == (0, "PHASE\nPending\n")
    code, out = run(log, "SELECT x FROM nowhere; SELECT 1;")
    assert (code, out) == (1, "Error: no such table: nowhere\n")


def test_words(log: Path) -> None:
    assert "\npods" in run(log, ".tables\n")[1]
    assert run(log, "\\d nodes\n")[1].splitlines()[:3] == ["COLUMN", "name", "ready"]
    assert ".quit" in run(log, ".help")[1]
    assert run(log, ".quit\nSELECT 1;") == (0, "")
    assert run(log, ".what") == (1, "Error: unknown word .what: .help lists them\n")
    assert run(log, ".tables nothing") == (1, "Error: no such table: nothing\n")
    assert run(log, ".at 99") == (1, "Error: revision 99 is in the future: the log is at 12\n")


WRITES = (
    "DELETE FROM events",
    "INSERT INTO about VALUES ('a', 'b')",
    "UPDATE head SET rv = 1",
    "DROP TABLE events",
    "CREATE TABLE x (y int)",
    "WITH gone AS (DELETE FROM events RETURNING rv) SELECT * FROM gone",
    "EXPLAIN ANALYZE DELETE FROM events",
    "SELECT 1; DELETE FROM events",
    "BEGIN; DELETE FROM events; COMMIT",
    "SET TRANSACTION READ WRITE; DELETE FROM events",
    "PRAGMA query_only = OFF; DELETE FROM events",
    "SELECT set_config('transaction_read_only', 'off', false); DELETE FROM events",
    "SELECT set_config('transaction_read_only', 'off', true) FROM (DELETE FROM events) x",
    "COMMIT; DELETE FROM events",
)


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_nothing_can_be_written(log: Path, tmp_path: Path, engine: str) -> None:
    where: Path | str = log
    if engine == "postgresql":
        where = postgres.database(empty=True)
        clock = VirtualClock()
        async with open_log(where, clock) as store:
            await play(store, clock)
    place = ["--store", where] if isinstance(where, str) else ["--data", str(where)]
    for statement in WRITES:
        piped, said = run(where, statement)
        asked = CliRunner().invoke(kcp, ["sql", statement, *place])
        assert piped == 1 or "DELETE" not in statement, (statement, said)
        assert asked.exit_code == 1 and asked.output.startswith("Error: "), (statement, asked.output)
        assert asked.output.count("\n") == 1, asked.output
    assert run(where, "SELECT count(*) AS n FROM events") == (0, "N\n11\n")
    assert run(where, "SELECT rv FROM head")[1] == "RV\n12\n"


def test_on_a_terminal(log: Path, tmp_path: Path) -> None:
    """The whole of it, as a person has it: several lines, Tab, Ctrl-C, an error, Ctrl-D, and the history afterwards."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ENTRY, "sql", "--data", str(log), "--at", "9"],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, start_new_session=True,
        env={**environment(tmp_path), "TERM": "dumb"}, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    shown = ""

    def until(text: str, again: bytes = b"") -> None:
        """A signal that comes just before readline waits is only seen with the next one."""
        nonlocal shown
        for _ in range(100):
            if text in shown:
                break
            ready, _, _ = select.select([ours], [], [], 0.2)
            if ready:
                shown += os.read(ours, 4096).decode()
            else:
                os.write(ours, again)
        assert text in shown
        shown = shown[shown.index(text) + len(text) :]

    try:
        for sent, wanted in (
            ("", "kcp@9> "),
            ("SELECT p.name,\n", "  ...> "),
            ("p.pha\t FROM pods p;\n", "web-1"),
            ("SELECT nonsense\n", "  ...> "),
            ("\x03", "kcp@9> "),
            ("SELECT missing;\n", "Error: no such column: missing"),
            (".at now\n", "as of now, revision 12"),
            ("", "kcp> "),
        ):
            os.write(ours, sent.encode())
            until(wanted, b"\x03" if sent == "\x03" else b"")
        os.write(ours, b"\x04")
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    history = tmp_path / ".kcp_sql_history"
    assert "SELECT missing;" in history.read_text() and history.stat().st_mode & 0o777 == 0o600
