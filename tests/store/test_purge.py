"""Purging an object's past: nothing of it is left anywhere, and everything that reads the log still reads it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kcp.apis.semantics.facts import FACTS
from kcp.base.clock import VirtualClock
from kcp.store import check, facts, history, parquet, purge, sealed_purge, transfer
from kcp.store.columns import PURGED
from kcp.store.protocol import Decision, Input, Locked, Op, StoreError
from kcp.store.query import run_query
from kcp.store.reader import LogReader
from kcp.store.redaction import is_purged
from kcp.store.seal import Policy, seal
from tests.store import postgres
from tests.store.changes import create, delete, key, open_for_test, plain, update
from tests.store.incident import NODE, POD, SECRET, open_log, play

FIRST, SECOND = "czNjcjN0", "bmV3"
"""The values of the Secret at revisions 5 and 10; 10 is the live one."""


@pytest.fixture(params=["sqlite", "postgresql"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Path | str]:
    """The log of a stopped daemon, on either engine; decisions and inputs know the Secret too."""
    clock = VirtualClock()
    where: Path | str = tmp_path / "data" if request.param == "sqlite" else postgres.database(empty=True)
    async with open_log(where, clock) as store:
        await play(store, clock)
        live = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db", "namespace": "shop"}, "data": {"p": FIRST}}  # fmt: skip
        patch = {"kind": "Patch", "resource": "secrets", "namespace": "shop", "name": "db", "digest": "d", "args": {"patch": {"data": {"p": FIRST}}}, "outcome": "ok", "rv": 5}  # fmt: skip
        made = {"kind": "Create", "resource": "secrets", "namespace": "shop", "generateName": "d", "digest": "e", "args": {"object": {"data": {"p": FIRST}}}, "outcome": "ok", "rv": 5}  # fmt: skip
        other = {"kind": "Patch", "resource": "secrets", "namespace": "shop", "name": "db2", "digest": "f", "args": {"patch": {"x": "kept"}}, "outcome": "ok"}  # fmt: skip
        store.record(Input("live", {"answer": [live]}))
        store.record(Decision(43, "c", "db", "event", {}, 5, [patch, made, other], live, "c", "f"))
        await store.append(update(NODE))
    yield where


def everything(where: Path | str) -> str:
    """All text that the log holds."""
    with LogReader(where) as reader:
        told: list[Any] = [plain(event.record) for event in reader.events()]
        told += [entry.payload for _, _, entry in reader.inputs()]
        told += [[d.effects, d.memo_before] for _, d in reader.decisions()]
    return json.dumps(told, default=str)


def do(where: Path | str, *, history_only: bool = False) -> purge.Purged:
    return purge.purge(
        where, SECRET, clock=VirtualClock(), who="root", why="leaked", history_only=history_only
    )


async def test_nothing_of_the_past_is_left_and_a_mark_is(log: Path | str) -> None:
    assert FIRST in everything(log)
    assert do(log, history_only=True) == purge.Purged(1, 0, 10)
    assert check.problems(log) == []
    told = everything(log)
    assert FIRST not in told and SECOND in told and "kept" in told
    if isinstance(log, Path):
        assert all(FIRST.encode() not in path.read_bytes() for path in log.iterdir())
    with LogReader(log) as reader:
        past, now = reader.get_at(SECRET, 5), reader.get_at(SECRET, 12)
        assert past is not None and past.uid == "s" and is_purged(past.value)
        assert now is not None and now.value["data"] == {"password": SECOND}
        (mark,) = [entry.payload for _, _, entry in reader.inputs() if entry.kind == purge.MARK]
        assert {k: mark[k] for k in ("key", "who", "why", "rows")} == {
            "key": "secrets/shop/db", "who": "root", "why": "leaked", "rows": 1,
        }  # fmt: skip
        assert [e.rv for e in reader.events(resources=["secrets"])] == [5, 10]
    async with open_for_test(log) as store:
        assert [e.rv for e in await store.events_since(0, resources=["secrets"])] == [5, 10]


def test_a_live_object_needs_to_be_meant(log: Path | str) -> None:
    before = everything(log)
    with pytest.raises(
        purge.StillAlive, match="secrets/shop/db is alive: delete it first, or purge its past alone"
    ):
        do(log)
    assert everything(log) == before


async def test_a_deleted_object_goes_whole(log: Path | str) -> None:
    async with open_for_test(log) as store:
        await store.append(delete(SECRET))
    assert do(log).versions == 2
    told = everything(log)
    assert FIRST not in told and SECOND not in told
    assert check.problems(log) == []


def test_what_is_not_there(log: Path | str) -> None:
    nobody = key("nobody", "shop", "secrets")
    with pytest.raises(StoreError, match="there is no past version of secrets/shop/nobody"):
        purge.purge(log, nobody, clock=VirtualClock(), who="x", why="y")
    do(log, history_only=True)
    with pytest.raises(StoreError, match="there is no past version of secrets/shop/db"):
        do(log, history_only=True)


def test_history_tells_which_versions_are_purged(log: Path | str) -> None:
    do(log, history_only=True)
    with history.reader(log) as connection:
        first, live = history.versions(connection, "secrets", "shop", "db")
    assert (first.purged, first.changes, first.verb) == (True, (), "created")
    assert (live.purged, live.changes, live.verb) == (False, (), "changed")
    clock = VirtualClock()
    rows = run_query(log, "SELECT rv FROM history WHERE kind = 'Secret' ORDER BY rv", clock=clock).rows
    assert rows == [(5,), (10,)]
    assert run_query(log, "SELECT name FROM secrets", clock=clock, at="6").rows == [("db",)]
    flags = run_query(log, "SELECT flags FROM events WHERE rv IN (5, 10) ORDER BY rv", clock=clock).rows
    assert flags == [(PURGED,), (0,)]


def test_a_purged_log_moves_like_any_other(log: Path | str, tmp_path: Path) -> None:
    do(log, history_only=True)
    transfer.backup(log, tmp_path / "copy.db", clock=VirtualClock())
    restored = transfer.restore(tmp_path / "copy.db", tmp_path / "new")
    assert restored.checksum == transfer.checksum_of(log)
    assert FIRST not in everything(tmp_path / "new")


def test_facts_of_a_purged_pod_go(log: Path | str) -> None:
    """It was deleted at revision 11; the node lives, and keeps its newest facts."""
    clock = VirtualClock()
    purge.purge(log, POD, clock=clock, who="x", why="y")
    purge.purge(log, NODE, clock=clock, who="x", why="y", history_only=True)
    assert run_query(log, "SELECT count(*) FROM facts_pod", clock=clock).rows == [(0,)]
    assert run_query(log, "SELECT rv, ready FROM facts_node", clock=clock).rows == [(13, None)]
    assert facts.rebuild(log, facts.projections(FACTS)) > 0


async def test_a_running_daemon(log: Path | str) -> None:
    """On SQLite it must be stopped; on PostgreSQL it goes on."""
    async with open_for_test(log) as store:
        if isinstance(log, Path):
            with pytest.raises(Locked, match="in use by another kcp"):
                do(log, history_only=True)
            return
        assert do(log, history_only=True).versions == 1
        assert (await store.append(create(key("after")))).rv == 14
        past = await store.get_at(SECRET, 5)
        assert past is not None and is_purged(past.value)


def test_no_log_is_made_by_asking(tmp_path: Path) -> None:
    for work in (lambda: do(tmp_path / "no"), lambda: facts.rebuild(tmp_path / "no", ())):
        with pytest.raises(StoreError, match="there is no event log"):
            work()
    assert list(tmp_path.iterdir()) == []


def test_ops_stay(log: Path | str) -> None:
    do(log, history_only=True)
    with LogReader(log) as reader:
        ops = [event.op for event in reader.events(resources=["secrets"])]
    assert ops == [Op.ADDED, Op.MODIFIED]


class TestSealed:
    """The same when the past lies in parquet files."""

    @pytest.fixture
    async def folder(self, log: Path | str, tmp_path: Path) -> Path:
        if not parquet.installed():
            pytest.skip("the extra kcp[archive] is not installed")
        async with open_for_test(log) as store:
            await store.move_horizon(store.rv)
        later = VirtualClock()
        later.advance(3 * 86400.0)
        shared = tmp_path / "files"
        assert seal(log, clock=later, policy=Policy(folder=shared) if isinstance(log, str) else Policy())
        return log / "archive" if isinstance(log, Path) else shared

    def test_nothing_is_left_in_the_files(self, log: Path | str, folder: Path) -> None:
        with LogReader(log) as reader:
            before = [event.rv for event in reader.events()]
        (old,) = folder.iterdir()
        assert do(log, history_only=True) == purge.Purged(1, 1, 10)
        (new,) = folder.iterdir()
        assert new.name == f"purged-1-{old.name}"
        bodies = {row[parquet.RV]: row[-1] for page in parquet.read(new) for row in page}
        assert "purged" in bodies[5] and SECOND in bodies[10]
        assert FIRST not in everything(log) and SECOND in everything(log)
        assert check.problems(log) == []
        with LogReader(log) as reader:
            assert [event.rv for event in reader.events()] == before
            past = reader.get_at(SECRET, 5)
            assert past is not None and is_purged(past.value)

    async def test_again_and_another(self, log: Path | str, folder: Path) -> None:
        do(log, history_only=True)
        clock = VirtualClock()
        assert purge.purge(log, POD, clock=clock, who="x", why="y").versions == 5
        (file,) = folder.iterdir()
        assert file.name.startswith("purged-2-events-")
        with pytest.raises(StoreError, match="no past version"):
            do(log, history_only=True)
        assert check.problems(log) == []

    def test_a_purge_that_was_killed_before_its_end_is_finished_by_the_next(
        self, log: Path | str, folder: Path, tmp_path: Path
    ) -> None:
        (old,) = folder.iterdir()
        kept = old.read_bytes()
        do(log, history_only=True)
        old.write_bytes(kept)
        with pytest.raises(StoreError, match="no past version"):
            do(log, history_only=True)
        assert not old.exists() and check.problems(log) == []

    def test_what_fails_leaves_the_old_files(
        self, log: Path | str, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (old,) = folder.iterdir()
        before = everything(log)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(purge, "_leave_mark", full)
        with pytest.raises(OSError, match="No space left"):
            do(log, history_only=True)
        assert list(folder.iterdir()) == [old]
        assert everything(log) == before and check.problems(log) == []

    def test_a_missing_file_is_named(self, log: Path | str, folder: Path) -> None:
        (file,) = folder.iterdir()
        file.unlink()
        (named,) = check.problems(log)
        assert f"{file.name}, which is not in" in named
        with pytest.raises(StoreError, match="which is not in"):
            do(log, history_only=True)

    def test_facts_are_made_again_from_all_events(self, log: Path | str, folder: Path) -> None:
        query = "SELECT * FROM facts_pod ORDER BY oid, rv"
        before = run_query(log, query, clock=VirtualClock()).rows
        assert facts.rebuild(log, facts.projections(FACTS)) == 9
        assert run_query(log, query, clock=VirtualClock()).rows == before != []

    def test_a_backup_holds_them_and_needs_no_folder(
        self, log: Path | str, folder: Path, tmp_path: Path
    ) -> None:
        done = transfer.backup(log, tmp_path / "copy.db", clock=VirtualClock())
        assert done.checksum == transfer.checksum_of(log)
        for file in folder.iterdir():
            file.unlink()
        assert check.problems(tmp_path / "copy.db") == []
        restored = transfer.restore(tmp_path / "copy.db", tmp_path / "new", at=8)
        assert restored.restored_rv == 8 and check.problems(tmp_path / "new") == []


def test_names_of_rewritten_files() -> None:
    renamed = sealed_purge.renamed
    assert renamed("events-1-9.parquet") == "purged-1-events-1-9.parquet"
    assert renamed("archive/purged-9-events-1-9.parquet") == "purged-10-events-1-9.parquet"
