"""Killing under load, round after round, and what must hold after each: `make torture` runs many, the tests a few.

python -m tests.store.torture [--sqlite 500] [--postgresql 100]
"""

from __future__ import annotations

import argparse
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from kcp.store import check
from kcp.store.sqlite import connect_read_only
from tests.store import postgres

ACKNOWLEDGED_PER_ROUND = 400
DAEMONS = 3


def acknowledged(path: Path) -> list[int]:
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [int(line.split()[0]) for line in lines]


def _start(directory: Path, *where: str) -> subprocess.Popen[bytes]:
    directory.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.store.appender", str(directory), *where]
    with open(directory / "output", "ab") as output:
        return subprocess.Popen(command, stdout=output, stderr=output)


def _kill(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        child.send_signal(signal.SIGKILL)
    for child in children:
        child.wait()


def _wait_for(directories: Sequence[Path], count: int, children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Until that many more writes are acknowledged, some by each."""
    files = [directory / "acknowledged" for directory in directories]
    before = [len(acknowledged(file)) for file in files]
    deadline = time.monotonic() + 60
    while True:
        more = [len(acknowledged(file)) - old for file, old in zip(files, before, strict=True)]
        if sum(more) >= count and min(more) > 0:
            return
        for child, directory in zip(children, directories, strict=True):
            assert child.poll() is None, f"an appender died: {(directory / 'output').read_text()[-3000:]}"
        assert time.monotonic() < deadline, "the appenders make no progress"
        time.sleep(0.02)


def kill_a_daemon(directory: Path) -> None:
    """One round on SQLite: SIGKILL while 32 writers wait for the disk."""
    child = _start(directory)
    try:
        _wait_for([directory], ACKNOWLEDGED_PER_ROUND, [child])
    finally:
        _kill([child])


def verify_sqlite(directory: Path) -> None:
    path = directory / "kcp.db"
    connection: sqlite3.Connection = connect_read_only(path)
    try:
        found = [rv for (rv,) in connection.execute("SELECT rv FROM events ORDER BY rv")]
    finally:
        connection.close()
    verify(acknowledged(directory / "acknowledged"), found)
    assert check.problems(path) == []


def verify(told: Sequence[int], found: Sequence[int]) -> None:
    """Every acknowledged revision is there, once, and the log has no hole."""
    assert len(told) == len(set(told)), "a revision was given twice"
    present = set(found)
    assert [rv for rv in told if rv not in present] == [], "acknowledged writes are gone"
    assert list(found) == list(range(1, len(found) + 1)), "the log has holes"


class Shared:
    """Three daemons on one PostgreSQL of their own, all of which may be killed."""

    def __init__(self, directory: Path) -> None:
        self.server = postgres.Server({"fsync": "on"})
        self.server.execute("CREATE DATABASE torture")
        self.url = self.server.url("torture")
        self._directories = [directory / f"daemon-{i}" for i in range(DAEMONS)]

    def round(self, count: int = ACKNOWLEDGED_PER_ROUND) -> None:
        """Kill the server under load, start it again, see the daemons go on, kill them."""
        children = [_start(directory, self.url) for directory in self._directories]
        try:
            _wait_for(self._directories, count, children)
            self.server.kill()
            self.server.start()
            _wait_for(self._directories, count // 4, children)
        finally:
            _kill(children)

    def verify(self) -> None:
        from kcp.store.postgres_reader import PostgresReader

        told = [rv for directory in self._directories for rv in acknowledged(directory / "acknowledged")]
        with PostgresReader(self.url) as log:
            found = [rv for (rv,) in log.fetch("SELECT rv FROM events ORDER BY rv")]
        verify(told, found)
        assert check.problems(self.url) == []

    def remove(self) -> None:
        self.server.remove()


def main(sqlite: int, shared: int) -> None:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kcp-torture-")))
        for number in range(sqlite):
            kill_a_daemon(directory)
            verify_sqlite(directory)
            print(f"\rSQLite: killed {number + 1} times, nothing lost", end="", flush=True)
        print()
        if postgres.binaries() is None:
            print("PostgreSQL is not installed: skipped")
            return
        log = Shared(directory)
        stack.callback(log.remove)
        for number in range(shared):
            log.round()
            log.verify()
            print(f"\rPostgreSQL: killed {number + 1} times, nothing lost", end="", flush=True)
        print()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sqlite", type=int, default=500, metavar="ROUNDS")
    parser.add_argument("--postgresql", type=int, default=100, metavar="ROUNDS")
    arguments = parser.parse_args()
    main(arguments.sqlite, arguments.postgresql)
