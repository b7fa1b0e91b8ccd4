"""backup, restore, import, export, check, rebuild-facts: on a stopped log, and beside a real daemon, on both engines."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from kcp.base.clock import EPOCH_OF_SIMULATION, VirtualClock
from kcp.cli.main import kcp
from kcp.store.transfer import RESTORE_JUMP
from tests.real.daemon import Daemon
from tests.real.https import Api
from tests.store import postgres
from tests.store.incident import open_log, play

CHECKSUM = re.compile(r"^history checksum ([0-9a-f]{64})$", re.M)


@pytest.fixture
async def log(tmp_path: Path) -> str:
    """The data directory of a stopped daemon."""
    clock = VirtualClock()
    async with open_log(tmp_path / "data", clock) as store:
        await play(store, clock)
    return str(tmp_path / "data")


def run(*arguments: str | Path, exit_code: int = 0) -> str:
    done = CliRunner().invoke(kcp, [str(argument) for argument in arguments])
    assert done.exit_code == exit_code, done.output
    if exit_code == 1:
        assert done.output.count("\n") == 1 and done.output.startswith("Error: "), done.output
    return done.output


def checksum(output: str) -> str:
    found = CHECKSUM.search(output)
    assert found is not None, output
    return found[1]


def test_backup_check_restore(log: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    told = run("backup", copy, "--data", log)
    assert re.match(rf"{copy}: 11 events, revision 12, \d+\.\d KiB\n", told)
    assert checksum(told) == checksum(run("check", "--data", log)) == checksum(run("check", "--data", copy))
    told = run("restore", copy, "--data", tmp_path / "new", "--at", "8")
    assert told.startswith(
        f"{copy}: 7 events, as of revision 8; the log goes on from revision {12 + RESTORE_JUMP}\n"
    )
    assert checksum(told) == checksum(run("check", "--data", log, "--to", "8"))
    assert run("sql", "SELECT phase, ready FROM pods", "--data", tmp_path / "new") == (
        run("sql", "SELECT phase, ready FROM pods", "--data", log, "--at", "8")
    )
    assert run("check", "--data", tmp_path / "new").startswith("whole: revisions 1 to 1000012\n")


def test_between_the_engines_in_both_directions(log: str, tmp_path: Path) -> None:
    run("export", tmp_path / "one.kcp", "--no-redact", "--data", log)
    there = postgres.database(empty=True)
    told = run("import", tmp_path / "one.kcp", "--store", there)
    assert told.startswith(f"{tmp_path / 'one.kcp'}: 11 events, revisions 1 to 12; the log goes on from ")
    told_back = run("export", tmp_path / "two.kcp", "--no-redact", "--store", there)
    back = run("import", tmp_path / "two.kcp", "--data", tmp_path / "back")
    sums = {checksum(text) for text in (told, back, told_back, run("check", "--store", there))}
    assert sums == {checksum(run("check", "--data", log))}
    again = run("import", tmp_path / "two.kcp", "--store", there, exit_code=1)
    assert "holds a log already: restore into an empty database" in again


def test_an_export_from_a_time_to_a_time(log: str, tmp_path: Path) -> None:
    begin, end = EPOCH_OF_SIMULATION + timedelta(seconds=3), EPOCH_OF_SIMULATION + timedelta(seconds=7)
    told = run(
        "export", tmp_path / "part.kcp", "--data", log, "--from", begin.isoformat(), "--to", end.isoformat()
    )
    assert told.startswith(f"{tmp_path / 'part.kcp'}: 3 events, revisions 5 to 8")


def test_an_import_of_redacted_secrets_warns(log: str, tmp_path: Path) -> None:
    run("export", tmp_path / "masked.kcp", "--data", log)
    told = run("import", tmp_path / "masked.kcp", "--data", tmp_path / "new")
    assert "Warning: 2 versions of Secrets are redacted in this file: they are digests, not values" in told


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("backup", "{here}/x", "--data", "{here}/nowhere"), "there is no event log at"),
        (("backup", "{log}/kcp.db", "--data", "{log}"), "exists already"),
        (("backup", "{here}/no/folder/x", "--data", "{log}"), "no such file or directory"),
        (("restore", "{here}/nothing", "--data", "{here}/new"), "there is no event log at"),
        (("restore", "{log}/kcp.db", "--data", "{log}"), "exists already: restore into a new place"),
        (("restore", "{log}/kcp.db", "--data", "{here}/new", "--at", "99"), "holds revisions 0 to 12, not revision 99"),
        (("restore", "{log}/kcp.db", "--data", "{here}/new", "--at", "noon"), "neither a revision, nor a time"),
        (("restore", "{log}/kcp.db", "--store", "mysql://x@y/z"), "the engine is not supported"),
        (("import", "{log}/kcp.db.lock", "--data", "{here}/new"), "kcp.db.lock: not a log of kcp, and none of these"),
        (("import", "{log}/kcp.db.lock", "--format", "kcp", "--data", "{here}/new"), "file is not a database"),
        (("import", "{here}/nothing", "--data", "{here}/new"), "nothing: no such file or directory"),
        (("export", "{here}/x", "--data", "{log}", "--from", "9", "--to", "5"), "the range ends at 5, before 9"),
        (("export", "{here}/x", "--data", "{log}", "--from", "noon"), "neither a revision, nor a time, nor a span"),
        (("export", "{here}/x", "--data", "{log}", "--from", "2199-01-01"), "nothing happened in that range"),
        (("rebuild-facts", "--data", "{here}/nowhere"), "there is no event log at"),
        (("check", "--data", "{here}/nowhere"), "there is no event log at"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(log: str, tmp_path: Path, arguments: tuple[str, ...], text: str) -> None:
    assert text in run(*(a.format(here=tmp_path, log=log) for a in arguments), exit_code=1)
    assert not (tmp_path / "new" / "kcp.db").exists() and not (tmp_path / "nowhere").exists()


def test_the_place_of_a_new_log_must_be_said(log: str) -> None:
    for command in ("restore", "import"):
        assert "Say where the new log is to be: --data DIR or --store URL." in run(
            command, f"{log}/kcp.db", exit_code=2
        )


def test_check_names_what_is_damaged(log: str) -> None:
    raw = sqlite3.connect(f"{log}/kcp.db")
    raw.execute("DELETE FROM events WHERE rv = 3")
    raw.execute("UPDATE events SET body = NULL WHERE rv = 4")
    raw.commit()
    raw.close()
    told = run("check", "--data", log, exit_code=3).splitlines()
    assert told == [
        "damaged: -1 revisions are missing or too many (events + unlogged - head)",
        "damaged: 1 events have no body",
    ]
    file = Path(log, "kcp.db")
    bytes_ = bytearray(file.read_bytes())
    bytes_[-4096:] = b"\xff" * 4096
    file.write_bytes(bytes_)
    assert run("check", "--data", log, exit_code=3).startswith("damaged: ")


def test_rebuild_facts(log: str) -> None:
    query = ("sql", "SELECT * FROM facts_pod ORDER BY oid, rv", "--format", "csv", "--data", log)
    before = run(*query)
    raw = sqlite3.connect(f"{log}/kcp.db")
    raw.execute("UPDATE facts_pod SET node = 'wrong'")
    raw.commit()
    raw.close()
    assert run("rebuild-facts", "--data", log) == "8 rows written\n"
    assert run(*query) == before


def test_help_has_sections() -> None:
    text = run("--help")
    assert [
        text.index(title) for title in ("Run:", "Ask the log:", "Incidents:", "Look after the log:")
    ] == sorted(text.index(title) for title in ("Run:", "Ask the log:", "Incidents:", "Look after the log:"))
    for name in kcp.list_commands(None):  # type: ignore[arg-type]
        assert re.search(rf"^  {name} ", text, re.M), name
        run(name, "--help")


@pytest.fixture
def daemons() -> Iterator[list[Daemon]]:
    started: list[Daemon] = []
    yield started
    for daemon in started:
        daemon.kill()


@pytest.mark.real
@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_beside_a_running_daemon(tmp_path: Path, daemons: list[Daemon], engine: str) -> None:
    """Backed up while it runs, then what it had is deleted; the restored one has it, serves, and the log goes on."""
    place = ["--store", postgres.database(empty=True)] if engine == "postgresql" else []
    first = Daemon(tmp_path / "one" / "data", tmp_path, options=tuple(place))
    daemons.append(first.start())
    source = place or ["--data", str(first.data)]
    api = Api.of(first.kubeconfig)
    secret = {"metadata": {"name": "s"}, "stringData": {"word": "correct-horse"}}
    made = api.request("POST", "/api/v1/namespaces/default/secrets", secret)
    assert made.status == 201, made.body
    copy = tmp_path / "copy.db"
    told = first.kcp("backup", copy) if not place else None
    output = told.stdout if told is not None else run("backup", copy, *source)
    assert checksum(output) == checksum(run("check", "--data", copy)), output
    path = "/api/v1/namespaces/default/secrets/s"
    assert api.request("DELETE", path).status == 200
    if engine == "sqlite":
        refused = run("purge", "secret", "s", "--reason", "x", "--yes", *source, exit_code=1)
        assert f"in use by another kcp (process {first.process.pid if first.process else ''})" in refused
        assert first.stop() == 0
    assert "versions purged" in run("purge", "secret", "s", "--reason", "leaked", "--yes", *source)
    assert "(purged: what it said is gone)" in run("history", "secret", "s", *source)
    if engine == "postgresql":
        assert api.request("GET", "/api/v1/namespaces/default").status == 200
        assert first.stop() == 0
    assert run("check", *source).startswith("whole: ")

    target = ["--store", postgres.database(empty=True)] if engine == "postgresql" else []
    second = Daemon(tmp_path / "two" / "data", tmp_path, options=tuple(target))
    run("restore", copy, *(target or ["--data", str(second.data)]))
    daemons.append(second.start())
    found = Api.of(second.kubeconfig).request("GET", path)
    assert found.status == 200 and found.json()["data"] == {"word": "Y29ycmVjdC1ob3JzZQ=="}
    namespaces = Api.of(second.kubeconfig).request("GET", "/api/v1/namespaces")
    assert int(namespaces.json()["metadata"]["resourceVersion"]) > RESTORE_JUMP
