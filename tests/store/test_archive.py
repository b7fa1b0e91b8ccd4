"""Sealing: old events move to parquet, and everything that reads history still tells the same."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kcp.base.clock import VirtualClock
from kcp.store import archive, check, history, transfer
from kcp.store.log import EventLog
from kcp.store.protocol import Locked, StoreError
from kcp.store.query import Session
from kcp.store.reader import LogReader
from tests.store import generated
from tests.store.changes import create, delete, key, open_for_test, plain, told, update

pytest.importorskip("pyarrow", reason="the extra kcp[archive] is not installed")

EVENTS = 600
KINDS = ("pods", "nodes", "configmaps")


async def _grow(where: Path, clock: VirtualClock, events: int, prefix: str = "") -> None:
    async with open_for_test(where, clock, inline=True) as store:
        await generated.fill(store, clock, events, pods=20, prefix=prefix)
        await store.move_horizon(store.rv)


@pytest.fixture
async def log(tmp_path: Path) -> Path:
    """A log with an object from the first day that nobody touched since."""
    clock = VirtualClock()
    async with open_for_test(tmp_path / "data", clock, inline=True) as store:
        await store.append(create(key("old"), data={"v": "1"}))
        await store.append(create(key("gone")))
        await store.append(delete(key("gone")))
    await _grow(tmp_path / "data", clock, EVENTS)
    return tmp_path / "data"


def now(days: float = 2) -> VirtualClock:
    clock = VirtualClock()
    clock.advance(timedelta(days=days).total_seconds())
    return clock


def everything(where: Path) -> list[Any]:
    """What history tells, by every way to read it."""
    with LogReader(where) as reader:
        told_of: list[Any] = [[told(event) for event in reader.events()]]
        for rv in range(0, reader.last_rv + 1, 37):
            told_of += [[plain(r) for r in reader.list_at(kind, rv)] for kind in KINDS]
    with history.reader(where) as connection:
        told_of.append(history.versions(connection, "pods", "shop", "web-3"))
        told_of.append(history.object_at(connection, "configmaps", "default", "gone", 2))
    for at in (None, "200"):
        with Session(where, VirtualClock(), at=at) as session:
            told_of += [session.run(f"SELECT * FROM {view} ORDER BY rv, name").rows for view in ("history", "pods", "pod_history")]  # fmt: skip
    return [*told_of, transfer.checksum_of(where)]


def hot(where: Path) -> int:
    connection = sqlite3.connect(where / "kcp.db")
    (count,) = connection.execute("SELECT count(*) FROM events").fetchone()
    connection.close()
    return int(count)


def test_history_is_the_same_before_and_after(log: Path) -> None:
    before = everything(log)
    done = archive.seal(log, clock=now())
    assert done is not None and (done.first_rv, done.last_rv, done.events) == (1, EVENTS, EVENTS)
    assert hot(log) == EVENTS - done.dropped < 60
    assert check.problems(log) == []
    assert everything(log) == before


async def test_the_daemon_goes_on(log: Path) -> None:
    async with open_for_test(log) as store:
        live = {kind: [plain(r) for r in store.list(kind)] for kind in KINDS}
        past = [plain(r) for r in await store.list_at("pods", 100)]
        events = [told(e) for e in await store.events_since(0, limit=9999)]
    archive.seal(log, clock=now())
    async with open_for_test(log) as store:
        assert {kind: [plain(r) for r in store.list(kind)] for kind in KINDS} == live
        done = await store.append(update(key("old"), data={"v": "2"}))
        assert done.previous is not None and done.previous.value["data"] == {"v": "1"}
        assert [plain(r) for r in await store.list_at("pods", 100)] == past
        assert [told(e) for e in await store.events_since(0, until=EVENTS, limit=9999)] == events
    assert check.problems(log) == []


async def test_sealing_again_moves_what_came_since(log: Path) -> None:
    archive.seal(log, clock=now())
    assert archive.seal(log, clock=now()) is None
    clock = now(3)
    await _grow(log, clock, 2 * EVENTS, "later-")
    before = everything(log)
    done = archive.seal(log, clock=now(9))
    assert done is not None and (done.first_rv, done.last_rv) == (EVENTS + 1, 2 * EVENTS)
    assert check.problems(log) == [] and everything(log) == before
    assert hot(log) < 120


def test_an_export_has_the_sealed_events(log: Path, tmp_path: Path) -> None:
    def export(name: str) -> transfer.Exported:
        return transfer.export_incident(log, tmp_path / name, clock=now(), mask_key=b"k" * 32, first_rv=50)

    before = export("before.kcp")
    archive.seal(log, clock=now())
    assert export("after.kcp") == before
    assert check.problems(tmp_path / "after.kcp") == []


def test_young_events_and_those_above_the_horizon_stay(log: Path) -> None:
    assert archive.seal(log, clock=now(0.5)) is None
    connection = sqlite3.connect(log / "kcp.db")
    connection.execute("UPDATE head SET horizon_rv = 200")
    connection.commit()
    connection.close()
    done = archive.seal(log, clock=now())
    assert done is not None and done.last_rv == 200


async def test_a_running_daemon_is_not_disturbed(log: Path) -> None:
    store: EventLog
    async with open_for_test(log) as store:
        with pytest.raises(Locked):
            archive.seal(log, clock=now())
        assert store.rv == EVENTS


def test_a_file_that_was_changed_is_named(log: Path) -> None:
    done = archive.seal(log, clock=now())
    assert done is not None
    data = bytearray(done.file.read_bytes())
    data[len(data) // 2] ^= 255
    done.file.write_bytes(data)
    with pytest.raises(StoreError, match=r"events-0.*parquet"):
        LogReader(log)
    done.file.unlink()
    with pytest.raises(StoreError, match=r"cannot be read"):
        LogReader(log)


def test_a_file_that_does_not_read_as_written_moves_nothing(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hot(log)
    monkeypatch.setattr(archive, "_read", lambda file: iter([[(1, 2)]]))
    with pytest.raises(StoreError, match="nothing was moved"):
        archive.seal(log, clock=now())
    monkeypatch.undo()
    assert hot(log) == before and list((log / "archive").iterdir()) == []
    assert check.problems(log) == []
