"""What a log must survive, as trials that check themselves: tests run each once, `make torture` many times and for long.

pause_postgresql, pause_sqlite    a writer stands still while another takes over, and must not write when it wakes
cut_connections                   the connection to PostgreSQL breaks at each message of the protocol, one after the other
histories_under_cuts              daemons whose connections end while they read and write, checked as one log
fill_up                           a disk becomes full in the middle of writes, and has room again
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import asyncpg

from kcp.base.clock import SystemClock
from kcp.store import check, writer
from kcp.store.log import EventLog
from kcp.store.open import open_store
from kcp.store.protocol import Committed, Fence, Locked, Unavailable
from tests.store import histories, killing, leader, postgres
from tests.store.changes import Heard, create, key, lease_spec, open_for_test, told, update
from tests.store.histories import Seen
from tests.store.leader import LEASE
from tests.store.proxy import Proxy, Side

T = TypeVar("T")

LEASE_OID = 1
WRITES_BEFORE = 50
WRITES_MEANWHILE = 10
MOST_MESSAGES = 200


@contextmanager
def _leading(directory: Path, *where: str) -> Iterator[subprocess.Popen[bytes]]:
    child = killing.start("tests.store.leader", directory, *where)
    try:
        killing.wait_for([directory], WRITES_BEFORE, [child])
        yield child
    finally:
        killing.kill([child])


def _wake(child: subprocess.Popen[bytes], directory: Path) -> str:
    """Let it go on; returns why it stopped."""
    child.send_signal(signal.SIGCONT)
    assert child.wait(60) == 0, (directory / "output").read_text()[-3000:]
    return (directory / leader.REFUSED).read_text()


async def _reign(store: EventLog) -> int:
    """Take the Lease over and write under it. Returns the revision of the takeover."""
    taken = await store.append(update(LEASE, spec=lease_spec("active")))
    oid, epoch = store.lease_epoch(LEASE) or (0, 0)
    assert epoch == 1
    for i in range(WRITES_MEANWHILE):
        await store.append(create(key(f"active-{i}"), fence=Fence(oid, epoch)))
    return taken.rv


async def _verify_reign(store: EventLog, directory: Path, taken_rv: int) -> None:
    """What the paused one was told is there, and nothing of it came after the takeover."""
    theirs = [
        event.rv
        for event in await store.events_since(0, limit=1_000_000)
        if event.key.name.startswith("paused-")
    ]
    assert set(killing.acknowledged(directory / "acknowledged")) <= set(theirs)
    assert max(theirs) < taken_rv, "an ex-leader wrote"


async def pause_postgresql(directory: Path, url: str, pause_s: float) -> None:
    with _leading(directory, url) as child:
        child.send_signal(signal.SIGSTOP)
        async with open_for_test(url) as store:
            taken_rv = await _reign(store)
            time.sleep(pause_s)
            reason = _wake(child, directory)
            assert reason == f"Fenced: the lease {LEASE_OID} is at epoch 1, not 0", reason
            await store.append(create(key("afterwards")))
            await _verify_reign(store, directory, taken_rv)
    assert check.problems(url) == []


async def pause_sqlite(directory: Path, pause_s: float) -> None:
    """While it stands still its lock keeps others out; where someone takes the lock away, the epoch keeps it out."""
    path = directory / "kcp.db"
    with _leading(directory) as child:
        _stop_between_writes(child, path)
        try:
            open_store(path, clock=SystemClock())
        except Locked as error:
            assert f"(process {child.pid})" in str(error)
        else:
            raise AssertionError("two writers on one file")
        path.with_name("kcp.db.lock").unlink()
        async with open_for_test(path) as store:
            taken_rv = await _reign(store)
            time.sleep(pause_s)
            reason = _wake(child, directory)
            assert reason.startswith("Unavailable: ") and "another writer has taken over" in reason, reason
            await store.append(create(key("afterwards")))
            await _verify_reign(store, directory, taken_rv)
    assert check.problems(path) == []


def _stop_between_writes(child: subprocess.Popen[bytes], path: Path) -> None:
    """Stopped within a transaction it holds SQLite's lock, and nobody can take over at all."""
    for _ in range(500):
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        if not _is_locked(path):
            return
        child.send_signal(signal.SIGCONT)
        time.sleep(0.002)
    raise AssertionError("the writer is always within a transaction")


def _is_locked(path: Path) -> bool:
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError:
        return True
    finally:
        connection.close()
    return False


async def cut_connections(server: postgres.Server, database: str) -> int:
    """Break the connection at every message of an append, on a warm connection and on a fresh one.

    Whoever was acknowledged is there, whoever was refused is not unless told that this is unknown, and the next write
    succeeds. Returns how many connections were cut.
    """
    async with Proxy(server.socket) as proxy:
        url = proxy.url(database)
        store = await asyncio.to_thread(open_for_test, url)
        heard = Heard()
        store.listen(heard)
        trials = Trials(store)
        await trials.append("first")
        for fresh in (False, True):
            for side in ("client", "server"):
                await _cut_each(proxy, trials, side, server.url(database) if fresh else None)
        await trials.verify(heard)
        await store.close()
    assert check.problems(server.url(database)) == []
    return proxy.cuts


async def _cut_each(proxy: Proxy, trials: Trials, side: Side, direct: str | None) -> None:
    for message in range(1, MOST_MESSAGES):
        if direct is not None:
            await disconnect(direct)
        before = proxy.cuts
        proxy.cut_at(side, message, half=message % 2 == 0)
        await trials.append(f"{side}-{message}-{'fresh' if direct else 'warm'}")
        proxy.disarm()
        if proxy.cuts == before:
            return
        await trials.append_surely(f"after-{side}-{message}-{'fresh' if direct else 'warm'}")
    raise AssertionError("the cuts never ended")


async def disconnect(url: str) -> None:
    """End every other connection to the database."""
    connection = await asyncpg.connect(url)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )
    await connection.close()


@contextmanager
def two_batches_on_their_way() -> Iterator[None]:
    """Also with few writers and a slow disk: batches of two changes follow one whose outcome is not known yet."""
    usual = writer.EAGER_OPERATIONS, writer.SLOW_COMMIT_S
    writer.EAGER_OPERATIONS, writer.SLOW_COMMIT_S = 2, 60.0
    try:
        yield
    finally:
        writer.EAGER_OPERATIONS, writer.SLOW_COMMIT_S = usual


async def histories_under_cuts(
    url: str, seed: int, *, steps: int = 25, daemons: int = 3
) -> tuple[list[Seen], int]:
    """Daemons read and write while all connections are ended again and again.

    Returns the operations that no moment of the log explains, and how many were seen in all.
    """
    stores = [open_for_test(url) for _ in range(daemons)]
    with two_batches_on_their_way():
        playing = asyncio.ensure_future(histories.play(stores, seed, 9, steps))
        while not playing.done():
            await asyncio.wait([playing], timeout=0.05)
            await disconnect(url)
        history = await playing
    await _surely(stores[0].catch_up)
    events = await _surely(lambda: stores[0].events_since(0, limit=100_000))
    for store in stores:
        await store.close()
    return histories.check(history, events), len(history)


async def _surely(read: Callable[[], Awaitable[T]]) -> T:
    """Again, since the first attempts may meet connections that were ended."""
    for _ in range(10):
        with contextlib.suppress(Unavailable):
            return await read()
    return await read()


class Trials:
    """Writes, each of its own name, and what was answered to each."""

    def __init__(self, store: EventLog) -> None:
        self._store = store
        self.acknowledged: dict[str, int] = {}
        self.refused: list[str] = []
        self.unknown: list[str] = []

    async def append(self, name: str) -> None:
        try:
            done = await self._store.append(create(key(name)))
        except Unavailable as error:
            (self.unknown if "the outcome is unknown" in str(error) else self.refused).append(name)
        else:
            self.acknowledged[name] = done.rv

    async def append_surely(self, name: str) -> None:
        done = await self._store.append(create(key(name)))
        self.acknowledged[name] = done.rv

    async def verify(self, heard: Heard) -> None:
        await self._store.catch_up()
        events = await self._store.events_since(0, limit=1_000_000)
        found = {event.key.name: event.rv for event in events}
        assert [event.rv for event in events] == list(range(1, self._store.rv + 1))
        assert {name: found.get(name) for name in self.acknowledged} == self.acknowledged
        assert [name for name in self.refused if name in found] == []
        assert set(found) <= {*self.acknowledged, *self.unknown}
        assert [told(event) for event in heard.events] == [told(event) for event in events]


@contextmanager
def small_disk(size_bytes: int) -> Iterator[Path]:
    """A file system of that size, for everyone. Raises PermissionError where this process may not mount."""
    directory = Path(tempfile.mkdtemp(prefix="kcp-small-disk-"))
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=777", "kcp-test", str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        if done.returncode != 0:
            raise PermissionError(done.stderr.strip())
        yield directory
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", str(directory)], check=True, capture_output=True)
        directory.rmdir()


async def fill_up(store: EventLog, ballast: Path) -> int:
    """Writes of 20 KB until the disk is full, then room again. Returns how many were acknowledged before.

    `ballast` is a file on the same disk that may be removed. Raises AssertionError when anything but the writes that
    did not fit is lost.
    """
    heard = Heard()
    store.listen(heard)
    acknowledged: list[int] = []
    refused = 0
    for i in range(10_000):
        outcomes = await asyncio.gather(
            *[store.append(create(key(f"a{i}-{j}"), data={"v": "x" * 20_000})) for j in range(3)],
            return_exceptions=True,
        )
        acknowledged += [outcome.rv for outcome in outcomes if isinstance(outcome, Committed)]
        for outcome in outcomes:
            assert isinstance(outcome, (Committed, Unavailable)), outcome
        refused += sum(isinstance(outcome, Unavailable) for outcome in outcomes)
        if refused >= 9:
            break
    assert refused >= 9, "the disk did not become full"
    assert store.rv == len(acknowledged) and store.rv == len(store.list("configmaps"))
    ballast.unlink()
    done = await store.append(create(key("again"), data={"v": "x" * 20_000}))
    assert done.rv == len(acknowledged) + 1
    assert [event.rv for event in heard.events] == [*acknowledged, done.rv]
    return len(acknowledged)


def fill_rest(directory: Path, leave_bytes: int) -> Path:
    """A file that takes all room but that."""
    free = os.statvfs(directory)
    ballast = directory / "ballast"
    ballast.write_bytes(b"\0" * max(0, free.f_bavail * free.f_frsize - leave_bytes))
    return ballast
