"""What only the SQLite engine does: one daemon per file, failures of the disk, commits in a thread, opening again."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kcp.base.clock import SystemClock, VirtualClock
from kcp.store import check
from kcp.store.open import open_store, sqlite_path
from kcp.store.protocol import (
    Cause,
    Committed,
    Decision,
    Input,
    Locked,
    SchemaTooNew,
    StoreError,
    Unavailable,
)
from kcp.store.reader import LogReader
from tests.store.changes import (
    ALICE,
    Heard,
    create,
    delete,
    key,
    lease_spec,
    open_for_test,
    plain,
    update,
)

LEASE = key("leader", "kube-system", "leases.coordination.k8s.io")


@contextmanager
def full_disk(limit_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond the limit: what a full disk does to SQLite."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def raw(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path / "kcp.db", isolation_level=None)


async def test_everything_is_there_after_opening_again(tmp_path: Path) -> None:
    async with open_for_test(tmp_path) as store:
        await store.append_all([create(key(f"a{i}", f"ns{i % 3}"), data={"i": str(i)}) for i in range(30)])
        await store.append_all([delete(key("a3", "ns0")), update(key("a4", "ns1"), expires_us=99)])
        await store.append(create(LEASE, spec=lease_spec("x")))
        await store.append(update(LEASE, renewal=True, spec=lease_spec("x", renewTime="2")))
        await store.move_horizon(7)
        before = {r: [plain(x) for x in store.list(r)] for r in ("configmaps", LEASE.resource)}
        facts = (store.rv, store.horizon, store.cluster_uid, store.lease_epoch(LEASE), store.kinds)
    async with open_store(tmp_path, clock=SystemClock()) as again:
        assert {r: [plain(x) for x in again.list(r)] for r in before} == before
        assert (again.rv, again.horizon, again.cluster_uid, again.lease_epoch(LEASE), again.kinds) == facts
        assert again.epoch == 2
        record = again.get(key("a4", "ns1"))
        assert record is not None and record.expires_us == 99 and not record.document.decoded


async def test_a_renewal_after_opening_again_keeps_the_chain(tmp_path: Path) -> None:
    async with open_for_test(tmp_path) as store:
        await store.append(create(LEASE, spec=lease_spec("x")))
        await store.append(update(LEASE, renewal=True, spec=lease_spec("x", renewTime="2")))
    async with open_for_test(tmp_path) as store:
        await store.append(update(LEASE, renewal=True, spec=lease_spec("x", renewTime="3")))
        await store.append(update(LEASE, spec=lease_spec("y")))
        assert store.lease_epoch(LEASE) == (1, 1)
    assert check.problems(tmp_path) == []


async def test_a_second_daemon_is_refused(tmp_path: Path) -> None:
    async with open_for_test(tmp_path):
        with pytest.raises(Locked, match=rf"is in use by another kcp \(process {os.getpid()}\)"):
            open_store(tmp_path, clock=SystemClock())
    async with open_for_test(tmp_path) as store:
        assert store.epoch == 2


async def test_no_empty_log_takes_the_place_of_an_unfinished_restore(tmp_path: Path) -> None:
    unfinished = tmp_path / "kcp.db.partial"
    unfinished.touch()
    with pytest.raises(
        StoreError, match=r"a restore or import into .*kcp\.db was not finished: run it again, or remove "
    ):
        open_store(tmp_path, clock=SystemClock())
    unfinished.unlink()
    async with open_store(tmp_path, clock=SystemClock()):
        pass
    unfinished.touch()
    async with open_store(tmp_path, clock=SystemClock()) as store:
        assert store.rv == 0


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    async with open_for_test(tmp_path):
        pass
    with raw(tmp_path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0999'")
    connection.close()
    for read_only in (False, True):
        with pytest.raises(SchemaTooNew, match=r"newer kcp \(schema 0999"):
            open_store(tmp_path, clock=SystemClock(), read_only=read_only)


def test_a_file_that_is_no_log_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "kcp.db"
    path.write_bytes(b"something else entirely, long enough to be read as a header" * 20)
    with pytest.raises(StoreError, match="not a database"):
        open_store(path, clock=SystemClock())
    with pytest.raises(StoreError):
        open_store(path, clock=SystemClock(), read_only=True)
    with pytest.raises(StoreError, match="there is no event log at"):
        open_store(tmp_path / "none.db", clock=SystemClock(), read_only=True)


def test_an_unsupported_engine_is_refused_without_its_password() -> None:
    with pytest.raises(StoreError, match="engine") as caught:
        open_store("mongodb://user:secret@host/db", clock=SystemClock())
    assert "secret" not in str(caught.value)


def test_a_directory_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write to"):
        open_store(tmp_path / "file" / "data", clock=SystemClock())


def test_paths(tmp_path: Path) -> None:
    assert sqlite_path(tmp_path) == tmp_path / "kcp.db"
    assert sqlite_path(tmp_path / "new") == tmp_path / "new" / "kcp.db"
    assert sqlite_path(tmp_path / "x.db") == tmp_path / "x.db"
    assert sqlite_path(f"sqlite:///{tmp_path}/x.db") == tmp_path / "x.db"


async def test_the_file_is_private(tmp_path: Path) -> None:
    async with open_for_test(tmp_path) as store:
        await store.append(create(key("a")))
        for name in ("kcp.db", "kcp.db-wal", "kcp.db.lock"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert not (tmp_path / "kcp.db-wal").exists()


@pytest.mark.parametrize("inline", [True, False])
async def test_a_full_disk_fails_the_batch_and_nothing_else(tmp_path: Path, inline: bool) -> None:
    heard = Heard()
    async with open_for_test(tmp_path, inline=inline) as store:
        store.listen(heard)
        await store.append(create(key("a"), data={"v": "1"}))
        with full_disk((tmp_path / "kcp.db-wal").stat().st_size + 2000):
            outcomes = await asyncio.gather(
                store.append(update(key("a"), data={"v": "2" * 20000})),
                store.append(create(key("b"))),
                return_exceptions=True,
            )
            assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
            assert "cannot write" in str(outcomes[0])
            with pytest.raises(Unavailable):
                await store.append(create(key("c"), data={"v": "2" * 20000}))
            record = store.get(key("a"))
            assert record is not None and record.value["data"] == {"v": "1"} and store.rv == 1
        assert (await store.append(create(key("d")))).rv == 2
        assert [event.rv for event in heard.events] == [1, 2]
        assert [event.rv for event in await store.events_since(0)] == [1, 2]
    assert check.problems(tmp_path) == []


async def test_records_survive_a_failed_batch(tmp_path: Path) -> None:
    async with open_for_test(tmp_path, inline=True) as store:
        await store.append(create(key("a")))
        store.record(Input("x", {"n": 1}))
        with full_disk((tmp_path / "kcp.db-wal").stat().st_size), pytest.raises(Unavailable):
            await store.append(create(key("b"), data={"v": "2" * 20000}))
        await store.append(create(key("c")))
    with LogReader(tmp_path) as log:
        assert [entry.payload for _, _, entry in log.inputs()] == [{"n": 1}]


async def test_a_writer_that_was_replaced_writes_no_more(tmp_path: Path) -> None:
    async with open_for_test(tmp_path, inline=True) as store:
        await store.append(create(key("a")))
        connection = raw(tmp_path)
        connection.execute("UPDATE head SET epoch = epoch + 1")
        connection.close()
        for _ in range(2):
            with pytest.raises(Unavailable, match="another writer has taken over"):
                await store.append(create(key("b")))
        assert store.rv == 1


async def test_a_commit_that_happened_after_all_is_published(tmp_path: Path) -> None:
    """The file holds more than the writer knows (as after a commit whose answer was lost): it catches up first."""
    heard = Heard()
    async with open_for_test(tmp_path, inline=True) as store:
        store.listen(heard)
        await store.append(create(key("a"), data={"v": "1"}))
        connection = raw(tmp_path)
        connection.execute(
            "INSERT INTO events (rv, oid, op, prev_rv, ts_us, actor_id, flags, body)"
            " SELECT 2, oid, 1, 1, ts_us + 1, actor_id, 0, replace(body, '\"1\"', '\"2\"') FROM events WHERE rv = 1"
        )
        connection.execute("UPDATE objects SET rv = 2")
        connection.execute("UPDATE head SET rv = 2, ts_us = ts_us + 1")
        connection.close()
        done = await store.append(create(key("b")))
        assert done.rv == 3
        assert [event.rv for event in heard.events] == [1, 2, 3]
        record = store.get(key("a"))
        assert record is not None and (record.rv, record.value["data"]) == (2, {"v": "2"})
    assert check.problems(tmp_path) == []


async def test_a_missing_body_is_named_and_not_served(tmp_path: Path) -> None:
    async with open_for_test(tmp_path) as store:
        await store.append_all([create(key("a")), create(key("b"))])
    connection = raw(tmp_path)
    connection.execute("DELETE FROM events WHERE rv = 2")
    connection.close()
    with pytest.raises(StoreError, match="revision 2 of configmaps/default/b is missing"):
        open_store(tmp_path, clock=SystemClock())
    assert check.problems(tmp_path) != []


async def test_a_damaged_page_is_named(tmp_path: Path) -> None:
    async with open_for_test(tmp_path) as store:
        await store.append_all([create(key(f"a{i:04}"), data={"v": "x" * 900}) for i in range(300)])
    path = tmp_path / "kcp.db"
    data = bytearray(path.read_bytes())
    page = int.from_bytes(data[16:18], "big")
    for start in range(page, len(data), page):
        if data[start] == 13:
            data[start : start + 200] = os.urandom(200)
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"damaged|malformed|no event log"):
        open_store(tmp_path, clock=SystemClock())


async def test_a_reader_beside_the_daemon(tmp_path: Path) -> None:
    async with open_for_test(tmp_path) as store:
        await store.append(create(key("a")))
        async with open_store(tmp_path, clock=SystemClock(), read_only=True) as reader:
            assert plain(reader.get(key("a"))) == plain(store.get(key("a")))
            assert [event.rv for event in await reader.events_since(0)] == [1]
            with pytest.raises(Unavailable):
                await reader.append(create(key("b")))
        await store.append(create(key("b")))
    async with open_store(tmp_path, clock=SystemClock(), read_only=True) as reader:
        assert reader.rv == 2 and reader.epoch == 1


async def test_a_reader_of_a_directory_that_may_not_be_written(tmp_path: Path) -> None:
    async with open_for_test(tmp_path) as store:
        await store.append(create(key("a")))
    tmp_path.chmod(0o500)
    try:
        async with open_store(tmp_path, clock=SystemClock(), read_only=True) as reader:
            assert reader.rv == 1
    finally:
        tmp_path.chmod(0o700)


async def test_the_write_ahead_log_does_not_grow_for_ever(tmp_path: Path) -> None:
    async with open_for_test(tmp_path, inline=True) as store:
        for i in range(40):
            await store.append(create(key(f"a{i}"), data={"v": "x" * 1_000_000}))
        assert (tmp_path / "kcp.db-wal").stat().st_size < 40_000_000


async def test_big_batches_go_to_the_worker_and_small_ones_stay_in_order(tmp_path: Path) -> None:
    async with open_for_test(tmp_path) as store:
        results: list[Committed] = []
        for i in range(30):
            await store.append(create(key(f"s{i}")))
            results += await asyncio.gather(
                *[store.append(create(key(f"b{i}-{j}"), data={"v": "x" * 9000})) for j in range(20)]
            )
        rvs = [r.rv for r in results]
        assert rvs == sorted(rvs) and store.rv == 630
    assert check.problems(tmp_path) == []


async def test_decisions_and_inputs_come_back(tmp_path: Path) -> None:
    effects = [{"kind": "Create", "args": {"x": 1}, "outcome": "ok", "rv": 2}]
    decision = Decision(7, "deployment", "ns/web", "event", {"pods": 3}, 123, effects, {"m": 1}, "code", "conf", 2, 1, 2, 55)  # fmt: skip
    async with open_for_test(tmp_path) as store:
        await store.append(create(key("a")))
        store.record(decision)
        store.record(Input("clock", {"t": 1}))
        store.record(Input("clock", {"t": 2}))
        await store.append(create(key("b")))
        store.record(Input("clock", {"t": 3}))
    async with open_for_test(tmp_path) as store:
        store.record(Input("clock", {"t": 4}))
    with LogReader(tmp_path) as log:
        assert list(log.decisions()) == [(1, decision)]
        places = [(rv, seq, entry.payload["t"]) for rv, seq, entry in log.inputs()]
        assert places == [(1, 1, 1), (1, 2, 2), (2, 1, 3), (2, 2, 4)]


@pytest.mark.sim
async def test_records_are_flushed_within_a_second_of_idleness(tmp_path: Path) -> None:
    async with open_for_test(tmp_path, VirtualClock(), inline=True) as store:
        store.record(Input("clock", {"t": 1}))
        await asyncio.sleep(1.6)
        with LogReader(tmp_path) as log:
            assert len(list(log.inputs())) == 1


async def test_actors_are_interned(tmp_path: Path) -> None:
    async with open_for_test(tmp_path) as store:
        for i in range(5):
            await store.append(create(key(f"a{i}"), cause=Cause(ALICE)))
    async with open_for_test(tmp_path) as store:
        await store.append(create(key("b"), cause=Cause(ALICE)))
    connection = raw(tmp_path)
    assert connection.execute("SELECT username, groups FROM actors").fetchall() == [
        ("alice", '["system:authenticated","devs"]')
    ]
    connection.close()


async def test_ten_thousand_objects_load_without_decoding(tmp_path: Path) -> None:
    async with open_for_test(tmp_path) as store:
        await store.append_all([create(key(f"a{i:05}"), data={"v": "x" * 300}) for i in range(10_000)])
    async with open_for_test(tmp_path) as store:
        records = store.list("configmaps")
        assert len(records) == 10_000 and not any(record.document.decoded for record in records)


async def test_a_clock_that_goes_backwards_does_not_take_time_with_it(tmp_path: Path) -> None:
    clock = VirtualClock()
    clock.advance(100)
    async with open_for_test(tmp_path, clock, inline=True) as store:
        await store.append(create(key("a")))
        clock.elapsed_s = 3.0
        await store.append_all([create(key("b")), create(key("c"))])
        times = [event.ts_us for event in await store.events_since(0)]
    assert times == [times[0], times[0] + 1, times[0] + 2]
    async with open_for_test(tmp_path, clock, inline=True) as store:
        await store.append(create(key("d")))
        assert (await store.events_since(3))[0].ts_us == times[0] + 3
    assert check.problems(tmp_path) == []


@pytest.mark.parametrize("which", ["last", "every second"])
async def test_damaged_pages_are_named_and_not_served(tmp_path: Path, which: str) -> None:
    async with open_for_test(tmp_path) as store:
        await store.append_all([create(key(f"a{i:03}"), data={"v": "x" * 900}) for i in range(200)])
        whole = [plain(record) for record in store.list("configmaps")]
    path = tmp_path / "kcp.db"
    data = bytearray(path.read_bytes())
    page = int.from_bytes(data[16:18], "big")
    starts = range(page * 2, len(data), page * 2) if which == "every second" else [len(data) - page]
    for start in starts:
        data[start : start + page] = b"\xa5" * page
    path.write_bytes(data)
    try:
        opened = open_store(path, clock=SystemClock(), read_only=True)
    except StoreError as error:
        assert str(path) in str(error)
    else:
        assert [plain(record) for record in opened.list("configmaps")] == whole
        await opened.close()
    assert check.problems(path) != []
