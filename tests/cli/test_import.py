"""`kcp import` of what others left: what it says, where it refuses, and that the other commands work on what it made."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from kcp.cli.main import kcp
from tests.store import postgres

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "incidents"
SAMPLES = ("audit.log", "pods.watch.json", "kwok.yaml", "trace.simkube", "kine.db", "etcd-snapshot.db.gz")


def run(*arguments: str | Path, exit_code: int = 0) -> str:
    done = CliRunner().invoke(kcp, [str(argument) for argument in arguments])
    assert done.exit_code == exit_code, done.output
    return done.output


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_sample_becomes_a_log_that_can_be_asked(sample: str, tmp_path: Path) -> None:
    place = tmp_path / "log"
    told = run("import", EXAMPLES / sample, "--data", place)
    assert told.startswith(f"{EXAMPLES / sample} (") and "history checksum" in told
    assert run("check", "--data", place).startswith("whole: revisions 1 to ")
    assert (
        run("sql", "SELECT count(*) AS n FROM history", "--format", "csv", "--data", place).split()[1] != "0"
    )
    assert run("replay", place).startswith("This log was imported (")


def test_history_and_why_of_an_audit_log(tmp_path: Path) -> None:
    run("import", EXAMPLES / "audit.log", "--data", tmp_path / "log")
    told = run("history", "deployment", "web", "--data", tmp_path / "log")
    assert "created by kubernetes-admin through kubectl" in told
    assert "~ spec.replicas: 2 → 3" in told
    why = run("why", "deployment/web", "--data", tmp_path / "log")
    assert "kubernetes-admin" in why


def test_a_log_from_elsewhere_can_go_to_postgresql(tmp_path: Path) -> None:
    there = postgres.database(empty=True)
    told = run("import", EXAMPLES / "kwok.yaml", "--store", there)
    assert "history checksum" in told
    assert "whole" in run("check", "--store", there)


def test_an_export_of_an_imported_log_is_still_one(tmp_path: Path) -> None:
    run("import", EXAMPLES / "audit.log", "--data", tmp_path / "log")
    run("export", tmp_path / "part.kcp", "--data", tmp_path / "log")
    assert run("replay", tmp_path / "part.kcp").startswith("This log was imported (audit log)")


@pytest.mark.parametrize(
    ("text", "options", "told"),
    [
        ("hello", (), "not a log of kcp, and none of these: audit log, watch capture"),
        ("", (), "not a log of kcp, and none of these"),
        ('{"kind": "Event"', ("--format", "audit"), "x:1: no JSON"),
        ('{"type": "ADDED", "object": {}}', (), "x:1: an object without apiVersion, kind, name or resourceVersion"),
        ('{"type": "ADDED", "object": {}}', ("--skip-bad",), "nothing in it tells of a change of an object; 1 faults were skipped"),
        ("hello", ("--format", "etcd"), "no bbolt database, or both of its meta pages are damaged"),
        ("hello", ("--format", "kine"), "no kine database, or damaged"),
        ("hello", ("--format", "simkube"), "no MessagePack"),
        ("a: 1\n---\napiVersion: v1\n", ("--format", "kwok"), "x:1: an object without apiVersion, kind or name"),
        ("apiVersion: v1", ("--start", "17"), "--start is a time, not 17"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(text: str, options: tuple[str, ...], told: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_text(text)
    output = run("import", tmp_path / "x", *options, "--data", tmp_path / "new", exit_code=1)
    assert told in output and output.count("\n") == 1 and output.startswith("Error: ")
    assert not (tmp_path / "new" / "kcp.db").exists()


def test_a_place_that_holds_a_log_is_refused(tmp_path: Path) -> None:
    run("import", EXAMPLES / "kwok.yaml", "--data", tmp_path / "log")
    assert "exists already" in run("import", EXAMPLES / "kwok.yaml", "--data", tmp_path / "log", exit_code=1)
