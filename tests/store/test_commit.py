"""The writer while a batch is on its way to the disk: what is decided ahead, and what becomes of it."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import asyncpg
import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcp.base.clock import SystemClock
from kcp.store import writer
from kcp.store.driver import Batch, Behind, Done, Superseded
from kcp.store.log import EventLog
from kcp.store.memory import MemoryDriver
from kcp.store.open import open_store
from kcp.store.postgres_rows import _array
from kcp.store.protocol import (
    Committed,
    Head,
    Input,
    Keep,
    KindRow,
    Operation,
    Record,
    StoreError,
    Unavailable,
)
from tests.contracts.stores import names
from tests.store import postgres
from tests.store.changes import KINDS, create, delete, key, lease_spec, update

A, B = key("a"), key("b")
LEASE = key("leader", "kube-system", "leases.coordination.k8s.io")


class SlowDisk(MemoryDriver):
    """Keeps each batch until the test lets it through."""

    def __init__(self, depth: int = 1) -> None:
        super().__init__("uid")
        self.depth = depth
        self.held: list[tuple[Batch, Done]] = []

    def commit(self, batch: Batch, done: Done) -> None:
        self.held.append((batch, done))

    async def let_through(self, error: BaseException | None = None) -> Batch:
        """Finish the batch that is on its way, the first if there are two; returns it."""
        assert len(self.held) <= self.depth
        batch, done = self.held.pop(0)
        if error is None:
            super().commit(batch, done)
        else:
            done(error)
        await turn()
        return batch


async def turn() -> None:
    """Let everything run that can."""
    for _ in range(5):
        await asyncio.sleep(0)


@attrs.define
class Slow:
    """A log on a slow disk."""

    disk: SlowDisk = attrs.field(factory=SlowDisk)
    log: EventLog = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.log = EventLog(self.disk, SystemClock())
        self.log.register(KINDS)

    async def append(self, *operations: Operation) -> list[asyncio.Task[Committed]]:
        """One submission for each, in order; returns when all are decided or queued."""
        tasks = [asyncio.ensure_future(self.log.append(operation)) for operation in operations]
        await turn()
        return tasks


class TestDecidedAhead:
    async def test_it_stands_on_the_batch_that_is_on_its_way(self) -> None:
        slow = Slow()
        (first,) = await slow.append(create(A, data={"v": "1"}))
        second, third = await slow.append(update(A, rv=1, data={"v": "2"}), create(B))
        assert (slow.log.rv, first.done(), second.done()) == (0, False, False)
        assert (await slow.disk.let_through()).rv == 1
        assert (slow.log.rv, (await first).rv, second.done()) == (1, 1, False)
        batch = await slow.disk.let_through()
        assert (batch.base_rv, batch.rv, (await second).rv, (await third).rv) == (1, 3, 2, 3)
        assert [event.rv for event in await slow.log.events_since(0)] == [1, 2, 3]

    async def test_a_closure_sees_all_that_was_decided_before_it(self) -> None:
        slow = Slow()
        seen: list[list[str]] = []

        def look(current: Record | None, head: Head) -> Keep:
            seen.append(names(head.list("configmaps")))
            return Keep()

        await slow.append(create(A), create(B))
        await slow.append(delete(A), create(key("c")), Operation(key("d"), look))
        assert seen == [["default/b", "default/c"]]

    async def test_a_lease_keeps_its_epoch_across_batches(self) -> None:
        slow = Slow()
        await slow.append(create(LEASE, spec=lease_spec("one")))
        await slow.append(update(LEASE, spec=lease_spec("two")))
        await slow.disk.let_through()
        await slow.append(update(LEASE, spec=lease_spec("three")))
        await slow.disk.let_through()
        await slow.disk.let_through()
        assert slow.log.lease_epoch(LEASE) == (1, 2)

    async def test_it_is_decided_again_when_the_batch_below_fails(self) -> None:
        slow = Slow()
        (first,) = await slow.append(create(A))
        second, third = await slow.append(update(A, data={"v": "2"}), create(B))
        await slow.disk.let_through(OSError("no space"))
        with pytest.raises(Unavailable, match="no space"):
            await first
        assert (await slow.disk.let_through()).base_rv == 0
        with pytest.raises(Exception, match='configmaps "a" not found'):
            await second
        assert (await third).rv == slow.log.rv == 1

    async def test_it_comes_after_what_another_daemon_wrote_and_keeps_its_order(self) -> None:
        slow, other = Slow(), Slow()
        await other.append(create(key("theirs")))
        theirs = await other.disk.let_through()
        (first,) = await slow.append(create(A))
        (second,) = await slow.append(update(A, rv=2, data={"v": "2"}))
        await slow.disk.let_through(Behind(theirs))
        batch = await slow.disk.let_through()
        assert (batch.base_rv, batch.rv) == (1, 3)
        assert ((await first).rv, (await second).rv) == (2, 3)

    async def test_what_is_cancelled_before_its_batch_starts_leaves_nothing(self) -> None:
        slow = Slow()
        await slow.append(create(A))
        gone, stays = await slow.append(create(B), create(key("c")))
        gone.cancel()
        await turn()
        await slow.disk.let_through()
        batch = await slow.disk.let_through()
        assert (batch.rv, (await stays).rv) == (2, 2)
        assert names(slow.log.list("configmaps")) == ["default/a", "default/c"]

    async def test_closing_waits_for_it(self) -> None:
        slow = Slow()
        await slow.append(create(A))
        (second,) = await slow.append(create(B))
        closing = asyncio.ensure_future(slow.log.close())
        await turn()
        await slow.disk.let_through()
        assert not closing.done()
        await slow.disk.let_through()
        await closing
        assert (await second).rv == 2


MANY = writer.EAGER_OPERATIONS


class Deep(Slow):
    """A log on a slow disk that takes two batches at once."""

    def __init__(self) -> None:
        super().__init__(SlowDisk(depth=2))

    async def fill(self) -> tuple[asyncio.Task[Committed], asyncio.Task[Committed]]:
        """Two batches on their way; returns the first task of each."""
        first = await self.append(*[create(key(f"a{i}")) for i in range(MANY)])
        second = await self.append(
            update(key("a0"), data={"v": "2"}), *[create(key(f"b{i}")) for i in range(MANY - 1)]
        )
        assert [(batch.base_rv, batch.rv) for batch, _ in self.disk.held] == [(0, MANY), (MANY, 2 * MANY)]
        return first[0], second[0]


class TestTwoOnTheirWay:
    @pytest.fixture(autouse=True)
    def no_disk_is_too_slow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(writer, "SLOW_COMMIT_S", 60.0)

    async def test_a_slow_disk_gets_one_after_the_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        deep = Deep()
        await deep.fill()
        monkeypatch.setattr(writer, "SLOW_COMMIT_S", -60.0)
        await deep.disk.let_through()
        await deep.append(*[create(key(f"c{i}")) for i in range(MANY)])
        assert len(deep.disk.held) == 1

    async def test_the_second_stands_on_the_first_and_each_is_answered_when_it_is_there(self) -> None:
        deep = Deep()
        first, second = await deep.fill()
        third = await deep.append(*[create(key(f"c{i}")) for i in range(MANY)])
        assert len(deep.disk.held) == 2
        await deep.disk.let_through()
        assert (first.done(), second.done(), deep.log.rv) == (True, False, MANY)
        assert [batch.base_rv for batch, _ in deep.disk.held] == [MANY, 2 * MANY]
        await deep.disk.let_through()
        await deep.disk.let_through()
        assert ((await first).rv, (await second).rv, (await third[0]).rv) == (1, MANY + 1, 2 * MANY + 1)
        assert [event.rv for event in await deep.log.events_since(0)] == list(range(1, 3 * MANY + 1))

    async def test_a_small_one_waits_to_become_larger(self) -> None:
        deep = Deep()
        await deep.append(create(A))
        await deep.append(create(B))
        assert len(deep.disk.held) == 1

    async def test_what_was_decided_on_a_batch_that_fails_is_decided_again(self) -> None:
        deep = Deep()
        first, second = await deep.fill()
        (later,) = await deep.append(create(key("later")))
        deep.log.record(Input("note", {}))
        await deep.disk.let_through(OSError("no space"))
        assert not first.done()  # the other one is still on its way
        await deep.disk.let_through(Superseded())
        with pytest.raises(Unavailable, match="no space"):
            await first
        batch = await deep.disk.let_through()
        assert (batch.base_rv, batch.rv) == (0, MANY)
        with pytest.raises(Exception, match='configmaps "a0" not found'):
            await second
        assert (await later).rv == deep.log.rv == MANY

    async def test_another_daemon_that_was_faster_changes_no_order(self) -> None:
        deep, other = Deep(), Slow()
        await other.append(create(key("theirs")))
        theirs = await other.disk.let_through()
        first, second = await deep.fill()
        await deep.disk.let_through(Behind(theirs))
        await deep.disk.let_through(Superseded())
        while deep.disk.held:
            await deep.disk.let_through()
        assert ((await first).rv, (await second).rv, deep.log.rv) == (2, MANY + 2, 2 * MANY + 1)

    async def test_an_unknown_outcome_on_top_of_a_failure_is_told(self) -> None:
        deep = Deep()
        first, second = await deep.fill()
        await deep.disk.let_through(Unavailable("the outcome is unknown"))
        await deep.disk.let_through(Unavailable("may be there"))
        with pytest.raises(Unavailable, match="the outcome is unknown"):
            await first
        with pytest.raises(Unavailable, match="may be there"):
            await second

    async def test_a_chore_gets_its_turn(self) -> None:
        deep = Deep()
        await deep.fill()
        chore = asyncio.ensure_future(deep.log.chore(lambda _: None))
        await turn()
        await deep.append(*[create(key(f"c{i}")) for i in range(MANY)])
        await deep.disk.let_through()
        assert len(deep.disk.held) == 1
        await deep.disk.let_through()
        with pytest.raises(StoreError):
            await chore
        assert (await deep.disk.let_through()).rv == 3 * MANY


class TestBatches:
    async def test_many_start_one_before_the_loop_comes_around(self) -> None:
        slow = Slow()
        many = writer.EAGER_OPERATIONS * 2
        await slow.append(*[create(key(f"c{i}")) for i in range(many)])
        assert (await slow.disk.let_through()).rv == writer.EAGER_OPERATIONS
        assert (await slow.disk.let_through()).rv == many

    async def test_what_is_decided_ahead_is_bounded(self) -> None:
        slow = Slow()
        await slow.append(create(A))
        await slow.append(*[create(key(f"c{i}")) for i in range(writer.MAX_BATCH_OPERATIONS + 200)])
        await slow.disk.let_through()
        batch = await slow.disk.let_through()
        assert batch.rv - batch.base_rv == writer.MAX_BATCH_OPERATIONS


class TestSqlite:
    async def test_a_kind_registered_during_a_commit_is_written_with_the_next(self, tmp_path: Path) -> None:
        late = KindRow("widgets.example.com", "example.com", "v1", "Widget", "widgets", True)
        async with open_store(tmp_path, clock=SystemClock()) as store:
            store.register(KINDS)
            large = asyncio.ensure_future(
                store.append_all([create(key(f"c{i}"), data={"v": "x" * 5000}) for i in range(200)])
            )
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            store.register([late])
            await large
            await store.append(create(A))
        async with open_store(tmp_path, clock=SystemClock()) as store:
            assert late in store.kinds

    async def test_a_batch_that_fails_takes_the_one_on_top_of_it_along(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(writer, "SLOW_COMMIT_S", 60.0)
        async with open_store(tmp_path, clock=SystemClock()) as store:
            store.register(KINDS)
            await store.append(create(A))
            text = {"v": "x" * 2000}
            driver: Any = store._driver
            driver._threaded_until_s = float("inf")
            held = driver._connection
            driver._connection = sqlite3.connect(":memory:", check_same_thread=False)  # has no tables
            writes = [
                asyncio.ensure_future(store.append(create(key(f"c{i}"), data=text))) for i in range(3 * MANY)
            ]
            outcomes = await asyncio.gather(*writes, return_exceptions=True)
            held.close()
            refused = [one for one in outcomes if isinstance(one, BaseException)]
            assert 0 < len(refused) <= MANY
            assert all(isinstance(one, Unavailable) for one in refused)
            assert store.rv == 1 + len(outcomes) - len(refused)
        async with open_store(tmp_path, clock=SystemClock(), read_only=True) as store:
            assert [event.rv for event in await store.events_since(0)] == list(range(1, store.rv + 1))

    async def test_a_batch_larger_than_any_statement_is_one_transaction(self, tmp_path: Path) -> None:
        async with open_store(tmp_path, clock=SystemClock()) as store:
            store.register(KINDS)
            done = await store.append_all([create(key(f"c{i}")) for i in range(1100)], atomic=True)
            assert (store.rv, len(done)) == (1100, 1100)
            await store.append_all([delete(key(f"c{i}")) for i in range(1100)] + [create(key("c7"))])
        async with open_store(tmp_path, clock=SystemClock()) as store:
            assert (store.rv, names(store.list("configmaps"))) == (2201, ["default/c7"])

    async def test_the_log_of_small_commits_is_folded_in_time(self, tmp_path: Path) -> None:
        """A write-ahead log that is used again is much faster than one that grows."""
        async with open_store(tmp_path, clock=SystemClock(), durable=False) as store:
            store.register(KINDS)
            for i in range(1200):
                await store.append(create(key(f"c{i}")))
            assert (tmp_path / "kcp.db-wal").stat().st_size < 40 * 1024 * 1024

    async def test_changes_of_life_and_of_expiry_reach_the_table(self, tmp_path: Path) -> None:
        async with open_store(tmp_path, clock=SystemClock()) as store:
            store.register(KINDS)
            await store.append(create(A, expires_us=5))
            await store.append_all(
                [update(A, expires_us=5), update(A, expires_us=7), update(A, expires_us=7), create(B)]
            )
            await store.append_all([update(B), delete(B)])
        with sqlite3.connect(tmp_path / "kcp.db") as connection:
            found = connection.execute("SELECT name, rv, delete_rv, expires_us FROM objects ORDER BY oid")
            assert found.fetchall() == [("a", 4, None, 7), ("b", 7, 7, None)]
        connection.close()


class TestPostgresArguments:
    @settings(max_examples=30, deadline=None)
    @given(
        st.lists(st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0")), max_size=8),
        st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=8),
    )
    def test_a_column_arrives_as_it_was(self, texts: list[str | None], numbers: list[int | None]) -> None:
        postgres.require()
        url = postgres.server().url("postgres")

        async def send() -> None:
            connection = await asyncpg.connect(url)
            try:
                for column, kind in ((texts, "text"), (numbers, "bigint")):
                    assert await connection.fetchval(f"SELECT $1::text::{kind}[]", _array(column)) == column
            finally:
                await connection.close()

        asyncio.run(send())
