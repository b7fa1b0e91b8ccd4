"""A PostgreSQL server for tests: started from the installed binaries, in a temporary directory, on a unix socket.

where = postgres.database()     the URL of a fresh database; skips the test where PostgreSQL is not installed
"""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from kcp.base.clock import SystemClock
from kcp.store.open import open_store

_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "log_min_messages": "warning",
}
_numbers = itertools.count(1)


def binaries() -> Path | None:
    """The newest server installed."""
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name))
    found = [*reversed(packaged), *(Path(p).parent for name in ("initdb",) if (p := shutil.which(name)))]
    return next((path for path in found if (path / "initdb").exists() and (path / "postgres").exists()), None)


class Server:
    """Runs as `nobody` when the tests run as root, since PostgreSQL refuses root."""

    def __init__(self, settings: dict[str, str] | None = None) -> None:
        found = binaries()
        assert found is not None
        self._binaries = found
        self._settings = {**_SETTINGS, **(settings or {})}
        self.directory = Path(tempfile.mkdtemp(prefix="kcp-pg-"))
        self._user = "nobody" if os.getuid() == 0 else None
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            os.chown(self.directory, entry.pw_uid, entry.pw_gid)
        self.process: subprocess.Popen[bytes] | None = None
        self._run(
            "initdb", "-D", self.data, "-U", "kcp", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"
        )
        self.start()

    @property
    def data(self) -> str:
        return str(self.directory / "data")

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user, "group": pwd.getpwnam(self._user).pw_gid, "extra_groups": []}

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._binaries / program), *arguments], check=True, cwd="/", env={"LC_ALL": "C"},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **self._as_user(),
        )  # fmt: skip

    def start(self) -> None:
        options = [f"--{name}={value}" for name, value in self._settings.items()]
        command: Sequence[str] = [
            str(self._binaries / "postgres"), "-D", self.data, "-k", str(self.directory), *options,
        ]  # fmt: skip
        if shutil.which("setpriv"):
            command = ["setpriv", "--pdeathsig", "INT", *command]
        with open(self.directory / "log", "ab") as output:
            self.process = subprocess.Popen(
                command, cwd="/", env={"LC_ALL": "C"}, stdout=output, stderr=output, **self._as_user()
            )
        deadline = time.monotonic() + 30
        while asyncio_run(self._answers()) is False:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"PostgreSQL did not start: {(self.directory / 'log').read_text()}")
            time.sleep(0.02)

    async def _answers(self) -> bool:
        try:
            connection = await asyncpg.connect(self.url("postgres"), timeout=5)
        except (OSError, asyncpg.PostgresError):
            return False
        await connection.close()
        return True

    def url(self, database: str) -> str:
        return f"postgresql://kcp@/{database}?host={self.directory}"

    @property
    def socket(self) -> Path:
        return self.directory / ".s.PGSQL.5432"

    def own(self, directory: Path) -> Path:
        """Make a directory that the server may fill."""
        directory.mkdir()
        if self._user is not None:
            os.chown(directory, pwd.getpwnam(self._user).pw_uid, -1)
        return directory

    def execute(self, statement: str, database: str = "postgres") -> None:
        async def run() -> None:
            connection = await asyncpg.connect(self.url(database))
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        asyncio_run(run())

    def stop(self, how: int = signal.SIGQUIT) -> None:
        process, self.process = self.process, None
        if process is not None and process.poll() is None:
            process.send_signal(how)
            process.wait(30)

    def kill(self) -> None:
        """SIGKILL for the postmaster and, at once, all it started: nothing can be flushed any more."""
        assert self.process is not None
        parent = self.process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        for pid in (parent, *(int(child) for child in children)):
            os.kill(pid, signal.SIGKILL)
        self.process.wait(30)
        self.process = None
        deadline = time.monotonic() + 10
        while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
            time.sleep(0.005)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


def asyncio_run(work: Any) -> Any:
    """Also from within a running loop: in a thread of its own."""
    from anyio.from_thread import start_blocking_portal

    async def run() -> Any:
        return await work

    with start_blocking_portal() as portal:
        return portal.call(run)


@functools.cache
def server() -> Server:
    """The one that most tests share. Its template database has the schema."""
    started = Server()
    atexit.register(started.remove)
    started.execute("CREATE DATABASE made")
    asyncio_run(_make(started.url("made")))
    return started


async def _make(url: str) -> None:
    store = open_store(url, clock=SystemClock())
    await store.close()
    connection = await asyncpg.connect(url)
    await connection.execute("DELETE FROM head; ALTER SEQUENCE kcp_life RESTART")
    await connection.close()


def require() -> None:
    if binaries() is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")


def database(*, empty: bool = False) -> str:
    """A database with the schema but nothing in it, or with nothing at all."""
    require()
    name = f"t{next(_numbers)}"
    template = "" if empty else " TEMPLATE made STRATEGY file_copy"
    server().execute(f"CREATE DATABASE {name}{template}")
    return server().url(name)
