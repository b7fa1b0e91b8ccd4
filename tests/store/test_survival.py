"""Trouble of the real kind: full and read-only disks, writers that stand still, connections that break. `make torture` repeats it."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from kcp.base.clock import SystemClock
from kcp.store import check
from kcp.store.open import open_store
from kcp.store.protocol import Committed, StoreError, Unavailable
from tests.store import postgres, survival
from tests.store.changes import create, key, open_for_test, plain
from tests.store.proxy import Proxy

MIB = 1 << 20


@pytest.fixture
def disk() -> Iterator[Path]:
    """A file system of 24 MiB."""
    with ExitStack() as stack:
        try:
            directory = stack.enter_context(survival.small_disk(24 * MIB))
        except (PermissionError, FileNotFoundError) as error:
            pytest.skip(f"no file system can be mounted here: {error}")
        yield directory


class TestDisks:
    @pytest.mark.parametrize("inline", [True, False])
    async def test_a_full_one_refuses_writes_until_it_has_room(self, disk: Path, inline: bool) -> None:
        async with open_for_test(disk / "data", inline=inline) as store:
            assert await survival.fill_up(store, survival.fill_rest(disk, MIB)) > 3
        assert check.problems(disk / "data") == []

    @pytest.mark.real
    async def test_a_full_one_under_postgresql(self, disk: Path) -> None:
        postgres.require()
        server = postgres.server()
        server.execute(f"CREATE TABLESPACE small LOCATION '{server.own(disk / 'space')}'")
        server.execute("CREATE DATABASE small TABLESPACE small TEMPLATE made STRATEGY file_copy")
        try:
            async with open_for_test(server.url("small")) as store:
                await survival.fill_up(store, survival.fill_rest(disk, MIB))
            assert check.problems(server.url("small")) == []
        finally:
            server.execute("DROP DATABASE small WITH (FORCE)")
            server.execute("DROP TABLESPACE small")

    async def test_a_full_one_at_the_start_is_told(self, disk: Path) -> None:
        async with open_for_test(disk) as store:
            done = await store.append(create(key("a")))
        ballast = survival.fill_rest(disk, 0)
        with pytest.raises(StoreError, match=r"disk|full|space"):
            open_store(disk, clock=SystemClock())
        with pytest.raises(StoreError, match=f"cannot read {disk}/kcp.db"):
            open_store(disk, clock=SystemClock(), read_only=True)
        ballast.unlink()
        async with open_for_test(disk) as store:
            assert plain(store.get(key("a"))) == plain(done.record)
            assert (await store.append(create(key("b")))).rv == 2

    @pytest.mark.parametrize("leave_bytes", [0, 16 << 10, 128 << 10])
    async def test_a_full_one_before_the_first_log_is_told(self, disk: Path, leave_bytes: int) -> None:
        """Whether not even the lock fits, or half of the first tables do."""
        ballast = survival.fill_rest(disk, leave_bytes)
        with pytest.raises(StoreError, match=r"disk|full|space"):
            open_for_test(disk)
        ballast.unlink()
        async with open_for_test(disk) as store:
            assert (await store.append(create(key("a")))).rv == 1

    async def test_a_read_only_one_is_told_and_can_be_read(self, disk: Path) -> None:
        async with open_for_test(disk) as store:
            done = await store.append(create(key("a")))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(StoreError, match="read-only file system"):
            open_store(disk, clock=SystemClock())
        with pytest.raises(StoreError, match="read-only file system"):
            open_store(disk / "new", clock=SystemClock())
        async with open_store(disk, clock=SystemClock(), read_only=True) as reader:
            assert plain(reader.get(key("a"))) == plain(done.record)
            assert [event.rv for event in await reader.events_since(0)] == [1]
        assert check.problems(disk) == []


class TestPauses:
    async def test_a_paused_writer_is_kept_out_of_its_file(self, tmp_path: Path) -> None:
        await survival.pause_sqlite(tmp_path, 0)

    @pytest.mark.real
    async def test_a_paused_leader_is_fenced(self, tmp_path: Path) -> None:
        await survival.pause_postgresql(tmp_path, postgres.database(), 0)


@pytest.mark.real
class TestConnections:
    async def test_one_may_break_at_any_message(self) -> None:
        database = postgres.database().partition("@/")[2].partition("?")[0]
        assert await survival.cut_connections(postgres.server(), database) > 20

    async def test_one_that_falls_silent_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("kcp.store.postgres.COMMIT_TIMEOUT_S", 0.3)
        database = postgres.database().partition("@/")[2].partition("?")[0]
        async with Proxy(postgres.server().socket) as proxy:
            store = await asyncio.to_thread(open_for_test, proxy.url(database))
            assert (await store.append(create(key("a")))).rv == 1
            for side, rv in (("client", 2), ("server", 3)):
                proxy.cut_at("client" if side == "client" else "server", 1, silent=True)
                (outcome,) = await asyncio.gather(store.append(create(key(side))), return_exceptions=True)
                assert isinstance(outcome, (Committed, Unavailable))
                assert (await store.append(create(key(f"after-{side}")))).rv >= rv
            names = [record.key.name for record in store.list("configmaps")]
            assert "after-client" in names and "client" not in names
            await store.close()
        assert check.problems(postgres.server().url(database)) == []
