"""Killing under load, round after round, and what must hold after each. tests/store/torture.py runs many, the tests a few."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import attrs

from kcp.store import check
from kcp.store.sqlite import connect_read_only
from tests.store import postgres

ACKNOWLEDGED_PER_ROUND = 400
DAEMONS = 3
ROUNDS_PER_LOG = 25


def acknowledged(path: Path) -> list[int]:
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [int(line.split()[0]) for line in lines]


def start(module: str, directory: Path, *where: str) -> subprocess.Popen[bytes]:
    directory.mkdir(exist_ok=True)
    command = [sys.executable, "-m", module, str(directory), *where]
    with open(directory / "output", "ab") as output:
        return subprocess.Popen(command, stdout=output, stderr=output)


def kill(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        child.send_signal(signal.SIGKILL)
    for child in children:
        child.wait()


def wait_for(directories: Sequence[Path], count: int, children: Sequence[subprocess.Popen[bytes]]) -> None:
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
    child = start("tests.store.appender", directory)
    try:
        wait_for([directory], ACKNOWLEDGED_PER_ROUND, [child])
    finally:
        kill([child])


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
        directory.mkdir(exist_ok=True)
        self._directories = [directory / f"daemon-{i}" for i in range(DAEMONS)]

    def round(self, count: int = ACKNOWLEDGED_PER_ROUND) -> None:
        """Kill the server under load, start it again, see the daemons go on, kill them."""
        children = [start("tests.store.appender", directory, self.url) for directory in self._directories]
        try:
            wait_for(self._directories, count, children)
            self.server.kill()
            self.server.start()
            wait_for(self._directories, count // 4, children)
        finally:
            kill(children)

    def acknowledged(self) -> list[int]:
        return [rv for directory in self._directories for rv in acknowledged(directory / "acknowledged")]

    def verify(self) -> None:
        from kcp.store.postgres_reader import PostgresReader

        with PostgresReader(self.url) as log:
            found = [rv for (rv,) in log.fetch("SELECT rv FROM events ORDER BY rv")]
        verify(self.acknowledged(), found)
        assert check.problems(self.url) == []

    def remove(self) -> None:
        self.server.remove()


@attrs.define
class Progress:
    """Counts rounds and acknowledged writes; tells of every tenth round and the last."""

    name: str
    rounds: int
    done: int = 0
    writes: int = 0
    began_s: float = attrs.field(factory=time.monotonic)

    @property
    def took_s(self) -> float:
        return time.monotonic() - self.began_s

    def tick(self) -> None:
        self.done += 1
        if self.done % 10 == 0 or self.done == self.rounds:
            print(f"{self.name}: {self.done} of {self.rounds}, {self.took_s:.0f} s", flush=True)

    def summary(self) -> str:
        return f"{self.name}: killed {self.done} times, {self.writes} acknowledged writes, none lost, {self.took_s:.0f} s"


def kill_sqlite(rounds: int, directory: Path) -> str:
    """Each file takes ROUNDS_PER_LOG kills, so that checking all of it stays cheap. Returns the summary."""
    progress = Progress("SQLite", rounds)
    for first in range(0, rounds, ROUNDS_PER_LOG):
        log = directory / f"sqlite-{first}"
        for _ in range(min(ROUNDS_PER_LOG, rounds - first)):
            kill_a_daemon(log)
            verify_sqlite(log)
            progress.tick()
        progress.writes += len(acknowledged(log / "acknowledged"))
        shutil.rmtree(log)
    return progress.summary()


def kill_postgresql(rounds: int, directory: Path) -> str:
    progress = Progress("PostgreSQL, server and three daemons", rounds)
    for first in range(0, rounds, ROUNDS_PER_LOG):
        log = Shared(directory / f"postgresql-{first}")
        try:
            for _ in range(min(ROUNDS_PER_LOG, rounds - first)):
                log.round()
                log.verify()
                progress.tick()
            progress.writes += len(log.acknowledged())
        finally:
            log.remove()
    return progress.summary()
