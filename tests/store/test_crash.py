"""Killed with SIGKILL under load, again and again: what was acknowledged is there, and the log is sound."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import anyio

from kcp.store import check
from kcp.store.sqlite import connect_read_only
from tests.store.changes import create, key, open_for_test

ROUNDS = 4
ACKNOWLEDGED_PER_ROUND = 400


def _acknowledged(path: Path) -> list[int]:
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [int(line.split()[0]) for line in lines]


async def _kill_under_load(directory: Path) -> None:
    path = directory / "acknowledged"
    wanted = len(_acknowledged(path)) + ACKNOWLEDGED_PER_ROUND
    child = subprocess.Popen([sys.executable, "-m", "tests.store.appender", str(directory)])
    try:
        with anyio.fail_after(30):
            while len(_acknowledged(path)) < wanted:
                assert child.poll() is None, "the appender died by itself"
                await anyio.sleep(0.02)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


def _rows(path: Path) -> dict[int, int]:
    connection: sqlite3.Connection = connect_read_only(path)
    try:
        return dict(connection.execute("SELECT rv, op FROM events ORDER BY rv").fetchall())
    finally:
        connection.close()


async def test_no_acknowledged_write_is_lost(tmp_path: Path) -> None:
    for round_ in range(ROUNDS):
        await _kill_under_load(tmp_path)
        acknowledged = _acknowledged(tmp_path / "acknowledged")
        store = open_for_test(tmp_path / "kcp.db")
        head = store.rv
        assert store.epoch == (round_ + 1) * 2
        await store.append(create(key(f"after-{round_}")))
        await store.close()
        rows = _rows(tmp_path / "kcp.db")
        assert [rv for rv in acknowledged if rv not in rows] == []
        assert list(rows) == list(range(1, head + 2))
        assert len(acknowledged) == len(set(acknowledged))
        assert check.problems(tmp_path / "kcp.db") == []
