"""Sealing: old events move to parquet, and everything that reads history still tells the same, on both engines."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from kcp.base.clock import VirtualClock
from kcp.store import archive, check, facts, history, parquet, sealing, transfer
from kcp.store.archive import Dropped
from kcp.store.open import is_postgres
from kcp.store.protocol import Locked, StoreError, Unavailable
from kcp.store.query import QueryFailed, Session
from kcp.store.reader import LogReader
from kcp.store.seal import Policy, seal, seal_running
from tests.store import generated, postgres
from tests.store.changes import create, delete, key, open_for_test, plain, told, update

pytest.importorskip("pyarrow", reason="the extra kcp[archive] is not installed")

EVENTS = 600
KINDS = ("pods", "nodes", "configmaps")
LATER_S = 6 * 3600
"""How much later the last hundred events came."""
DAY_S = timedelta(days=1).total_seconds()


@attrs.frozen
class Place:
    """A log on either engine and where its sealed files go."""

    url: str
    folder: Path

    @property
    def policy(self) -> Policy:
        return Policy(folder=self.folder) if is_postgres(self.url) else Policy()

    def seal(self, clock: VirtualClock, **more: Any) -> sealing.Done:
        return seal(self.url, clock=clock, policy=attrs.evolve(self.policy, **more))

    def value(self, sql: str) -> Any:
        if is_postgres(self.url):
            return postgres.asyncio_run(_value(self.url, sql))
        connection = sqlite3.connect(Path(self.url) / "kcp.db")
        try:
            found = connection.execute(sql).fetchone()
            connection.commit()
        finally:
            connection.close()
        return None if found is None else found[0]

    def files(self) -> list[str]:
        return sorted(file.name for file in self.folder.iterdir()) if self.folder.is_dir() else []


async def _value(url: str, sql: str) -> Any:
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def place_on(engine: str, tmp_path: Path) -> Place:
    if engine == "postgresql":
        return Place(postgres.database(), tmp_path / "archive")
    return Place(str(tmp_path / "data"), tmp_path / "data" / "archive")


async def grow(place: Place, clock: VirtualClock, events: int, prefix: str = "") -> None:
    async with open_for_test(place.url, clock, **_inline(place)) as store:
        await generated.fill(store, clock, events, pods=20, prefix=prefix)
        await store.move_horizon(store.rv)


def _inline(place: Place) -> dict[str, Any]:
    return {} if is_postgres(place.url) else {"inline": True}


async def made(place: Place) -> Place:
    """A log with an object from the first day that nobody touched since."""
    clock = VirtualClock()
    async with open_for_test(place.url, clock, **_inline(place)) as store:
        await store.append(create(key("old"), data={"v": "1"}))
        await store.append(create(key("gone")))
        await store.append(delete(key("gone")))
    await grow(place, clock, 500)
    clock.advance(LATER_S)
    await grow(place, clock, EVENTS, "afternoon-")
    return place


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.real)])
async def log(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Files so small that a log of EVENTS has several, and row groups so small that each has several."""
    monkeypatch.setattr(sealing, "SEGMENT_EVENTS", 250)
    monkeypatch.setattr(archive, "SHORT_STRETCH", 100)
    monkeypatch.setattr(parquet, "ROW_GROUP", 64)
    return await made(place_on(request.param, tmp_path))


@pytest.fixture
async def file_log(tmp_path: Path) -> Place:
    return await made(place_on("sqlite", tmp_path))


def now(days: float = 2) -> VirtualClock:
    clock = VirtualClock()
    clock.advance(days * DAY_S)
    return clock


def everything(place: Place, first: int = 0) -> list[Any]:
    """What history tells from a revision on, by every way to read it."""
    where = place.url
    with LogReader(where) as reader:
        told_of: list[Any] = [[told(event) for event in reader.events(max(first, reader.base_rv))]]
        for rv in range(first, reader.last_rv + 1, 290):
            told_of += [[plain(r) for r in reader.list_at(kind, rv)] for kind in KINDS]
            told_of.append(plain(reader.get_at(key("web-3", "shop", "pods"), rv)))
    with history.reader(where) as connection:
        told_of += [v for v in history.versions(connection, "pods", "shop", "web-3") if v.rv > first]
        told_of.append(history.last_state(connection, "configmaps", "default", "old"))
    for at in (None, str(max(first, 300))):
        with Session(where, VirtualClock(), at=at) as session:
            for view in ("history", "pods", "pod_history"):
                found = session.run(
                    f"SELECT * FROM {view} WHERE rv > {first} OR '{view}' = 'pods' ORDER BY rv, name"
                )
                told_of.append(found.rows)
    return [*told_of, transfer.checksum_of(where, first)]


def hot(place: Place) -> int:
    return int(place.value("SELECT count(*) FROM events"))


def test_history_is_the_same_before_and_after(log: Place) -> None:
    before = everything(log)
    done = log.seal(now())
    assert [(r.first_rv, r.last_rv, r.events) for r in done.sealed] == [
        (1, 250, 250),
        (251, 500, 250),
        (501, 600, 100),
    ]
    assert hot(log) == EVENTS - done.left < 60
    assert check.problems(log.url) == []
    assert everything(log) == before


def test_state_now_is_told_without_the_files(log: Place) -> None:
    with Session(log.url, VirtualClock()) as session:
        before = session.run("SELECT name, phase, node FROM pods ORDER BY ns, name").rows
    log.seal(now())
    for file in log.folder.iterdir():
        file.unlink()
    with Session(log.url, VirtualClock()) as session:
        assert session.run("SELECT name, phase, node FROM pods ORDER BY ns, name").rows == before
        with pytest.raises(StoreError, match=r"up to revision 250 are in events-.*-000000000000250\.parquet, which is not in .*copy or mount it"):  # fmt: skip
            session.run("SELECT count(*) FROM history")
    assert "which is not in" in check.problems(log.url)[0]


def test_a_moment_or_an_object_is_read_without_the_rest(log: Place) -> None:
    with LogReader(log.url) as reader:
        before = [plain(r) for r in reader.list_at("pods", 300)]
    with history.reader(log.url) as connection:
        versions = history.versions(connection, "configmaps", "default", "gone")
    log.seal(now())
    files = sorted(log.folder.iterdir())
    files[2].unlink()
    with LogReader(log.url) as reader:
        assert [plain(r) for r in reader.list_at("pods", 300)] == before
    files[1].unlink()
    with history.reader(log.url) as connection:
        assert history.versions(connection, "configmaps", "default", "gone") == versions
        with pytest.raises(StoreError, match="which is not in"):
            history.versions(connection, "pods", "shop", "web-3")


async def test_the_daemon_goes_on(log: Place) -> None:
    async with open_for_test(log.url) as store:
        live = {kind: [plain(r) for r in store.list(kind)] for kind in KINDS}
        past = [plain(r) for r in await store.list_at("pods", 100)]
        one = plain(await store.get_at(key("web-3", "shop", "pods"), 100))
        events = [told(e) for e in await store.events_since(0, limit=9999)]
    log.seal(now())
    async with open_for_test(log.url) as store:
        assert {kind: [plain(r) for r in store.list(kind)] for kind in KINDS} == live
        done = await store.append(update(key("old"), data={"v": "2"}))
        assert done.previous is not None and done.previous.value["data"] == {"v": "1"}
        assert [plain(r) for r in await store.list_at("pods", 100)] == past
        assert plain(await store.get_at(key("web-3", "shop", "pods"), 100)) == one
        assert [told(e) for e in await store.events_since(0, until=EVENTS, limit=9999)] == events
        assert [told(e) for e in await store.events_since(240, limit=30)] == events[240:270]
        assert await store.rv_at(events[99][4]) == 100
    assert check.problems(log.url) == []


async def test_sealing_again_moves_what_came_since(log: Place) -> None:
    log.seal(now())
    assert not log.seal(now())
    await grow(log, now(3), 2 * EVENTS, "later-")
    before = everything(log)
    done = log.seal(now(9))
    assert (done.sealed[0].first_rv, done.sealed[-1].last_rv) == (EVENTS + 1, 2 * EVENTS)
    assert check.problems(log.url) == [] and everything(log) == before
    assert hot(log) < 120


def test_an_export_and_a_backup_have_the_sealed_events(log: Place, tmp_path: Path) -> None:
    def export(name: str) -> transfer.Exported:
        return transfer.export_incident(
            log.url, tmp_path / name, clock=now(), mask_key=b"k" * 32, first_rv=50
        )

    before, checksum = export("before.kcp"), transfer.checksum_of(log.url)
    log.seal(now())
    assert export("after.kcp") == before
    assert check.problems(tmp_path / "after.kcp") == []
    transfer.backup(log.url, tmp_path / "backup.db", clock=now())
    transfer.restore(tmp_path / "backup.db", tmp_path / "restored")
    assert transfer.checksum_of(tmp_path / "restored") == checksum
    assert check.problems(tmp_path / "restored") == []


def test_young_events_and_those_above_the_horizon_stay(log: Place) -> None:
    assert not log.seal(now(0.5))
    log.value("UPDATE head SET horizon_rv = 200")
    assert [r.last_rv for r in log.seal(now()).sealed] == [200]


def test_facts_are_rebuilt_from_sealed_events_too(log: Place) -> None:
    from kcp.apis.semantics.facts import FACTS

    rows = facts.rebuild(log.url, facts.projections(FACTS))
    log.seal(now())
    assert facts.rebuild(log.url, facts.projections(FACTS)) == rows > 0


# retention


KEEP_S = 2 * DAY_S - LATER_S / 2
"""From now() on: the first 500 events are older, the rest is not."""


async def _dropped(log: Place) -> list[Any]:
    """Two thirds of the first day's history dropped; what was told from there on before."""
    log.seal(now())
    before = everything(log, 500)
    done = log.seal(now(), keep_s=KEEP_S)
    assert [(s.first_rv, s.last_rv) for s in done.dropped] == [(1, 250), (251, 500)] and done.floor == 500
    return before


async def test_what_was_dropped_is_named_and_the_rest_is_whole(log: Place) -> None:
    before = await _dropped(log)
    assert log.files() == ["events-000000000000501-000000000000600.parquet", "state-000000000000500.parquet"]
    assert everything(log, 500) == before
    assert check.problems(log.url) == []
    words = "history before revision 500 was dropped"
    with LogReader(log.url) as reader:
        assert reader.base_rv == 500 and len(reader.base()) > 10
        for read in (
            lambda: reader.list_at("pods", 499),
            lambda: reader.get_at(key("old"), 2),
            lambda: list(reader.events(after=0)),
        ):
            with pytest.raises(Dropped, match=words):
                read()
    with pytest.raises((StoreError, QueryFailed), match=words):
        Session(log.url, VirtualClock(), at="499")
    with history.reader(log.url) as connection:
        assert history.begins_at(connection) == 500
        with pytest.raises(Dropped, match=words):
            history.object_at(connection, "configmaps", "default", "gone", 2)
        assert history.versions(connection, "configmaps", "default", "gone") == []
        first = history.versions(connection, "configmaps", "default", "old")
        assert [(v.rv, v.object["data"]) for v in first] == [(1, {"v": "1"})]


async def test_the_log_goes_on_after_a_drop(log: Place, tmp_path: Path) -> None:
    await _dropped(log)
    async with open_for_test(log.url, now(2)) as store:
        done = await store.append(update(key("old"), data={"v": "2"}))
        assert done.previous is not None and done.previous.value["data"] == {"v": "1"}
        with pytest.raises(Dropped):
            await store.list_at("pods", 100)
    await grow(log, now(3), 2 * EVENTS, "later-")
    before = everything(log, 500)
    log.seal(now(9))
    assert everything(log, 500) == before and check.problems(log.url) == []
    log.seal(now(99), keep_s=50 * DAY_S)
    head = log.value("SELECT rv FROM head")
    assert [name[:5] for name in log.files()] == ["state"] and check.problems(log.url) == []
    with LogReader(log.url) as reader:
        assert reader.base_rv == head and len(reader.base()) > 10
    exported = transfer.export_incident(log.url, tmp_path / "x.kcp", clock=now(), mask_key=b"k" * 32)
    assert exported.base_rv == head and check.problems(tmp_path / "x.kcp") == []


# a crash at any step


class Crash(Exception):
    pass


@attrs.define
class Crashing:
    """Lets a number of transactions through, then stops, before or after the commit."""

    left: int
    after_commit: bool

    def __call__(self, transact: Callable[[sealing.Step], Any]) -> Callable[[sealing.Step], Any]:
        def run(step: sealing.Step) -> Any:
            self.left -= 1
            if self.left < 0 and not self.after_commit:
                raise Crash
            found = transact(step)
            if self.left < 0:
                raise Crash
            return found

        return run


AT_STEPS = ((0, False), (0, True), (2, True), (4, False), (6, True), (8, False))


@pytest.mark.parametrize(
    ("log", "steps", "after_commit"),
    [
        *(("sqlite", *at) for at in AT_STEPS),
        *(pytest.param("postgresql", *at, marks=pytest.mark.real) for at in ((2, True), (8, False))),
    ],
    indirect=["log"],
)
def test_a_crash_at_any_step_loses_and_repeats_nothing(
    log: Place, monkeypatch: pytest.MonkeyPatch, steps: int, after_commit: bool
) -> None:
    before = everything(log, 500)
    run = sealing.run
    crash = Crashing(steps, after_commit)
    monkeypatch.setattr(sealing, "run", lambda passing, transact: run(passing, crash(transact)))
    with pytest.raises(Crash):
        log.seal(now(), keep_s=KEEP_S)
    assert everything(log, 500) == before
    assert check.problems(log.url) == []
    monkeypatch.undo()
    log.seal(now(), keep_s=KEEP_S)
    assert everything(log, 500) == before
    assert check.problems(log.url) == []


def test_a_file_cut_short_is_cleared_away(file_log: Place) -> None:
    file_log.folder.mkdir()
    for name in ("events-000000000000001-000000000000100.parquet", "events-1.parquet.partial", "mine.txt"):
        (file_log.folder / name).write_bytes(b"PAR1 half")
    file_log.seal(now())
    assert file_log.files() == ["events-000000000000001-000000000000600.parquet", "mine.txt"]
    assert check.problems(file_log.url) == []


# while the daemon runs


async def test_a_running_daemon_seals_itself(log: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "MAX_DROP", 64)
    before = everything(log)
    async with open_for_test(log.url) as store:
        watched: list[Any] = []
        store.listen(lambda events: watched.extend(told(e) for e in events))
        past = [plain(r) for r in await store.list_at("pods", 100)]
        writes = 0

        async def write_beside(step: sealing.Step) -> Any:
            nonlocal writes
            writes += 1
            await store.append(update(key("old"), data={"v": f"n{writes}"}))
            return await store.chore(step)

        housekept = store if is_postgres(log.url) else Chores(write_beside)
        done = await seal_running(housekept, log.url, now(3), log.policy, pause_s=0)
        assert done.sealed[-1].last_rv == EVENTS and done.left > 500
        assert [plain(r) for r in await store.list_at("pods", 100)] == past
        await store.append(update(key("old"), data={"v": "last"}))
        assert [event[0] for event in watched] == list(range(EVENTS + 1, EVENTS + writes + 2))
    assert check.problems(log.url) == []
    with LogReader(log.url) as reader:
        assert [told(event) for event in reader.events(until=EVENTS)] == before[0]


@attrs.frozen
class Chores:
    chore: Callable[[sealing.Step], Any]


async def test_a_reader_beside_the_sealing_sees_each_event_once(
    log: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "MAX_DROP", 64)
    run, count = sealing.run, 0
    with Session(log.url, VirtualClock()) as session, LogReader(log.url) as opened_before:

        def beside(transact: Callable[[sealing.Step], Any], step: sealing.Step) -> Any:
            nonlocal count
            count += 1
            found = transact(step)
            if count % 3:
                return found
            assert session.run("SELECT count(*), count(DISTINCT rv), sum(rv) FROM history").rows == [
                (EVENTS, EVENTS, EVENTS * (EVENTS + 1) // 2)
            ]
            return found

        monkeypatch.setattr(sealing, "run", lambda passing, transact: run(passing, partial(beside, transact)))
        log.seal(now())
        assert count > 10
        assert [event.rv for event in opened_before.events()] == list(range(1, EVENTS + 1))


async def test_a_daemon_gathers_a_day_into_one_file(log: Place) -> None:
    """Full files at once; what does not fill one waits for a second day."""
    async with open_for_test(log.url) as store:
        done = await seal_running(store, log.url, now(1.5), log.policy, pause_s=0)
        assert [r.last_rv for r in done.sealed] == [250, 500]
        assert not await seal_running(store, log.url, now(1.9), log.policy, pause_s=0)
        done = await seal_running(store, log.url, now(2.5), log.policy, pause_s=0)
        assert [r.last_rv for r in done.sealed] == [600]


async def test_a_stopped_log_is_sealed_only_when_it_is_stopped(file_log: Place) -> None:
    async with open_for_test(file_log.url) as store:
        with pytest.raises(Locked):
            file_log.seal(now())
        assert store.rv == EVENTS


@pytest.mark.real
async def test_one_seals_a_shared_log_and_into_one_folder(tmp_path: Path) -> None:
    from kcp.store.seal_postgres import PostgresLog

    place = await made(place_on("postgresql", tmp_path))
    with pytest.raises(StoreError, match="needs --archive"):
        seal(place.url, clock=now())
    with PostgresLog(place.url, now()), pytest.raises(Locked, match="another kcp is sealing"):
        place.seal(now())
    place.seal(now())
    other = Place(place.url, tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=r"which is not in .*elsewhere"):
        other.seal(now(9))


async def test_a_chore_takes_its_turn_under_load_and_fails_alone(tmp_path: Path) -> None:
    """Writers that never pause do not keep it out; what it does wrong is undone and touches nobody's write."""
    async with open_for_test(tmp_path / "log") as store, anyio.create_task_group() as tasks:
        await store.append(create(key("a")))

        async def write_for_ever() -> None:
            while True:
                await store.append(update(key("a")))

        tasks.start_soon(write_for_ever)
        tasks.start_soon(write_for_ever)

        def forget(within: sealing.Transaction) -> None:
            within.run("DELETE FROM {log}ticks")
            raise ValueError("half-way")

        with anyio.fail_after(10):
            assert await store.chore(lambda within: within.fetch("SELECT 1")) == [(1,)]
            with pytest.raises(Unavailable, match="half-way"):
                await store.chore(forget)
            assert await store.chore(lambda within: within.fetch("SELECT count(*) > 0 FROM {log}ticks")) == [
                (1,)
            ]
        tasks.cancel_scope.cancel()


# damage


def test_a_file_that_was_changed_is_named(file_log: Place) -> None:
    done = file_log.seal(now())
    file = done.sealed[0].file
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255
    file.write_bytes(data)
    with LogReader(file_log.url) as reader, pytest.raises(StoreError, match=r"events-0.*parquet"):
        list(reader.events())
    assert "parquet" in check.problems(file_log.url)[0]


def test_a_file_with_other_rows_is_named(file_log: Place) -> None:
    done = file_log.seal(now())
    file = done.sealed[0].file
    rows = [row for page in parquet.read(file) for row in page]
    parquet.write(file, [[(*row[:-1], row[-1] and row[-1].replace("web", "wub")) for row in rows]])
    assert check.problems(file_log.url) == [f"the sealed events in {file} are not those that were sealed"]
    with pytest.raises(StoreError, match="not those that were sealed"):
        transfer.checksum_of(file_log.url)


def test_a_file_that_does_not_read_as_written_moves_nothing(
    file_log: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hot(file_log)
    monkeypatch.setattr(parquet, "fingerprint", lambda file: (1, "x"))
    with pytest.raises(StoreError, match="nothing was moved"):
        file_log.seal(now())
    monkeypatch.undo()
    assert hot(file_log) == before and file_log.files() == []
    assert check.problems(file_log.url) == []


def test_other_files_are_never_written_over(file_log: Place, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    name = "events-000000000000001-000000000000600.parquet"
    (shared / name).write_bytes(b"of another log")
    done = file_log.seal(now(), folder=shared)
    assert done.sealed[0].file.name == "events-000000000000001-000000000000600-2.parquet"
    assert (shared / name).read_bytes() == b"of another log"
    assert everything(file_log) and check.problems(file_log.url) == []
