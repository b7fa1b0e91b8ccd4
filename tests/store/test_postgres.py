"""What only the PostgreSQL engine does: several daemons on one log, lost answers, its way to keep bytes, its schema."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import alembic.autogenerate
import alembic.migration
import anyio
import asyncpg
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kcp.base.clock import SystemClock
from kcp.machinery.document import normal
from kcp.machinery.errors import AlreadyExists, NotFound
from kcp.store import postgres as postgres_driver
from kcp.store import postgres_rows, postgres_schema, writer
from kcp.store.log import EventLog
from kcp.store.open import open_store
from kcp.store.postgres import PostgresDriver
from kcp.store.protocol import (
    Cause,
    Committed,
    Fence,
    Fenced,
    Head,
    KindRow,
    Op,
    Put,
    Record,
    SchemaTooNew,
    StoreError,
    Unavailable,
)
from kcp.store.source import plain_json
from kcp.store.tables import metadata
from tests.store import postgres
from tests.store.changes import (
    ALICE,
    Heard,
    build,
    create,
    delete,
    key,
    lease_spec,
    open_for_test,
    operation,
    plain,
    put_value,
    told,
    update,
)

pytestmark = pytest.mark.real

LEASE = key("leader", "kube-system", "leases.coordination.k8s.io")

MANY = writer.EAGER_OPERATIONS


@pytest.fixture
def url() -> str:
    return postgres.database()


@contextlib.asynccontextmanager
async def daemons(url: str, count: int) -> AsyncIterator[list[EventLog]]:
    """Several daemons on one log, each with its housekeeping."""
    stores = [open_for_test(url) for _ in range(count)]
    async with anyio.create_task_group() as tasks:
        for store in stores:
            tasks.start_soon(store.run)
        yield stores
        tasks.cancel_scope.cancel()


async def execute(url: str, *statements: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            found = await connection.fetch(statement)
    finally:
        await connection.close()
    return [tuple(row) for row in found]


def increment(current: Record | None, head: Head) -> Put:
    assert current is not None
    count = str(int(current.value["data"]["n"]) + 1)
    return put_value(build(key("counter"), current.uid, data={"n": count}))


class TestOpening:
    async def test_everything_is_there_after_opening_again(self, url: str) -> None:
        async with open_for_test(url) as store:
            await store.append_all(
                [create(key(f"a{i}", f"ns{i % 3}"), data={"i": str(i)}) for i in range(30)]
            )
            await store.append_all([delete(key("a3", "ns0")), update(key("a4", "ns1"), expires_us=99)])
            await store.append(create(LEASE, spec=lease_spec("x")))
            await store.append(update(LEASE, renewal=True, spec=lease_spec("x", renewTime="2")))
            await store.move_horizon(7)
            before = {r: [plain(x) for x in store.list(r)] for r in ("configmaps", LEASE.resource)}
            facts = (store.rv, store.horizon, store.cluster_uid, store.lease_epoch(LEASE), store.epoch)
        async with open_store(url, clock=SystemClock()) as again:
            assert {r: [plain(x) for x in again.list(r)] for r in before} == before
            assert (
                again.rv,
                again.horizon,
                again.cluster_uid,
                again.lease_epoch(LEASE),
                again.epoch,
            ) == facts
            record = again.get(key("a4", "ns1"))
            assert record is not None and record.expires_us == 99
            assert [told(e) for e in await again.events_since(0, limit=9999)]

    async def test_several_that_start_at_once_agree_on_the_schema(self) -> None:
        url = postgres.database(empty=True)
        opened = await asyncio.gather(*[asyncio.to_thread(open_for_test, url) for _ in range(3)])
        assert len({store.cluster_uid for store in opened}) == 1
        ids = [store.next_decision_id() for store in opened]
        assert len({number // 10**12 for number in ids}) == 3
        for store in opened:
            await store.close()

    async def test_a_newer_schema_is_refused(self, url: str) -> None:
        await execute(url, "UPDATE alembic_version SET version_num = '0999'")
        for read_only in (False, True):
            with pytest.raises(SchemaTooNew, match=r"newer kcp \(schema 0999"):
                open_store(url, clock=SystemClock(), read_only=read_only)

    async def test_a_database_without_a_log_is_no_log_for_readers(self) -> None:
        with pytest.raises(StoreError, match="there is no event log at"):
            open_store(postgres.database(empty=True), clock=SystemClock(), read_only=True)

    def test_what_cannot_be_reached_is_one_line_without_the_password(self) -> None:
        with pytest.raises(StoreError, match=r"cannot open postgresql://127\.0\.0\.1:1/x: ") as caught:
            open_store("postgresql://user:secret@127.0.0.1:1/x", clock=SystemClock())
        assert "secret" not in str(caught.value) and "\n" not in str(caught.value)

    async def test_autogenerate_finds_no_difference(self, url: str) -> None:
        engine = postgres_schema.engine(url)

        def differences(connection: Any) -> list[Any]:
            context = alembic.migration.MigrationContext.configure(connection, opts={"compare_type": True})
            found: list[Any] = alembic.autogenerate.compare_metadata(context, metadata)
            return found

        async with engine.connect() as connection:
            assert await connection.run_sync(differences) == []
        await engine.dispose()

    async def test_names_sort_by_bytes_and_live_names_are_unique(self, url: str) -> None:
        (collation,) = await execute(
            url, "SELECT collation_name FROM information_schema.columns WHERE table_name = 'objects' AND column_name = 'name'"
        )  # fmt: skip
        assert collation == ("C",)
        (index,) = await execute(url, "SELECT indexdef FROM pg_indexes WHERE indexname = 'objects_live'")
        assert "UNIQUE" in index[0] and "WHERE (delete_rv IS NULL)" in index[0]

    async def test_a_reader_writes_nothing(self, url: str) -> None:
        async with open_for_test(url) as store:
            await store.append(create(key("a")))
            async with open_store(url, clock=SystemClock(), read_only=True) as reader:
                assert plain(reader.get(key("a"))) == plain(store.get(key("a")))
                with pytest.raises(Unavailable):
                    await reader.append(create(key("b")))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


def through_columns(text: str | None, raw: bytes | None) -> tuple[str | None, bytes | None]:
    """What the columns of `events` make of a pair."""

    async def run() -> Any:
        opened = await asyncpg.connect(postgres.server().url("postgres"))
        try:
            return await opened.fetchrow("SELECT $1::jsonb, $2::bytea", text, raw)
        finally:
            await opened.close()

    found = postgres.asyncio_run(run())
    return found[0], found[1]


class TestBytes:
    @given(value=st.dictionaries(st.sampled_from(["spec", "data", "x\0", "é"]), JSON))
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def test_what_is_read_is_what_was_written(self, value: Any) -> None:
        postgres.require()
        body = normal({"apiVersion": "v1", "kind": "X", "metadata": {"name": "n"}, **value})
        assert postgres_rows.normal_body(*through_columns(*postgres_rows.storable(body))) == body

    @pytest.mark.parametrize(
        "value", ["a\0b", "\\u0000", "\\\0", -0.0, 1.5, 1e300, 1e-300, 1e22, 2**63 - 1, [1.0], {"\0": 1}, "12:00:00.5Z"]
    )  # fmt: skip
    def test_values_that_are_hard_on_jsonb(self, value: Any) -> None:
        postgres.require()
        body = normal({"apiVersion": "v1", "kind": "X", "metadata": {"name": "n"}, "spec": {"v": value}})
        assert postgres_rows.normal_body(*through_columns(*postgres_rows.storable(body))) == body
        wrapped = orjson.dumps(postgres_rows.storable_json(body)).decode()
        assert plain_json(through_columns(wrapped, None)[0]) == orjson.loads(body)

    async def test_an_object_with_a_nul_lives_like_any_other(self, url: str) -> None:
        async with open_for_test(url) as store:
            first = await store.append(create(key("a"), data={"v": "\0"}))
            second = await store.append(update(key("a"), data={"v": "\0\0"}))
            await store.append(delete(key("a")))
            await store.append(create(LEASE, spec=lease_spec("x\0")))
            events = await store.events_since(0)
            assert plain(events[0].record) == plain(first.record)
            assert plain(events[1].record) == plain(second.record)
            assert events[2].record.value["data"] == {"v": "\0\0"}
            live = plain(store.get(LEASE))
        async with open_for_test(url) as store:
            assert plain(store.get(LEASE)) == live


class TestSeveralDaemons:
    async def test_what_one_writes_all_hear_once_and_in_order(self, url: str) -> None:
        async with daemons(url, 3) as stores:
            heard = [Heard() for _ in stores]
            for store, listener in zip(stores, heard, strict=True):
                store.listen(listener)

            async def work(number: int) -> None:
                for i in range(30):
                    at = key(f"n{number}-{i}")
                    await stores[number].append(
                        create(at, data={"i": "1"}, cause=Cause(ALICE, f"r{number}-{i}"))
                    )
                    await stores[number].append(update(at, data={"i": "2"}))
                    if i % 3 == 0:
                        await stores[number].append(delete(at))

            await asyncio.gather(*[work(i) for i in range(3)])
            for store in stores:
                await store.catch_up()
            last = stores[0].rv
            assert last == 3 * 70 and {store.rv for store in stores} == {last}
            for listener in heard:
                assert [event.rv for event in listener.events] == list(range(1, last + 1))
            told_by = [[told(event) for event in listener.events] for listener in heard]
            assert told_by[0] == told_by[1] == told_by[2]
            states = [[plain(record) for record in store.list("configmaps")] for store in stores]
            assert states[0] == states[1] == states[2] and len(states[0]) == 60

    async def test_a_write_is_heard_elsewhere_without_looking(self, url: str) -> None:
        async with daemons(url, 2) as (one, other):
            await one.append(create(key("warm")))
            await other.wait_for(1)
            clock = SystemClock()
            took = []
            for i in range(20):
                before = clock.monotonic()
                done = await one.append(create(key(f"a{i}")))
                await other.wait_for(done.rv)
                took.append(clock.monotonic() - before)
            assert sorted(took)[len(took) // 2] < 0.25

    async def test_no_change_is_lost_between_writers_of_one_object(self, url: str) -> None:
        async with daemons(url, 3) as stores:
            await stores[0].append(create(key("counter"), data={"n": "0"}))
            for store in stores:
                await store.catch_up()
            await asyncio.gather(
                *[store.append(operation(key("counter"), increment)) for store in stores for _ in range(60)]
            )
            for store in stores:
                await store.catch_up()
                record = store.get(key("counter"))
                assert record is not None and record.value["data"] == {"n": "180"}
            assert stores[0].rv == 181

    async def test_of_creates_of_one_name_one_wins(self, url: str) -> None:
        async with daemons(url, 3) as stores:
            for i in range(10):
                results = await asyncio.gather(
                    *[
                        store.append(create(key(f"a{i}"), data={"by": str(n)}))
                        for n, store in enumerate(stores)
                    ],
                    return_exceptions=True,
                )
                assert sorted(type(r).__name__ for r in results) == [
                    "AlreadyExists",
                    "AlreadyExists",
                    "Committed",
                ]

    async def test_a_refusal_is_never_told_from_a_state_that_is_past(self, url: str) -> None:
        """Without listening: each daemon's head is old, yet no answer may come from it."""
        one, other = open_for_test(url), open_for_test(url)
        await one.append(create(key("a")))
        with pytest.raises(AlreadyExists):
            await other.append(create(key("a")))
        await one.append(delete(key("a")))
        assert (await other.append(create(key("a")))).rv == 3
        with pytest.raises(AlreadyExists):
            await one.append(create(key("a")))
        await other.append(delete(key("a")))
        with pytest.raises(NotFound):
            await one.append(update(key("a")))
        await other.append(create(key("b")))
        await one.catch_up()
        assert one.get(key("b")) is not None
        await one.close()
        await other.close()

    async def test_a_paused_leader_is_fenced(self, url: str) -> None:
        """It never heard that the Lease changed hands; its next write must fail all the same."""
        paused, active = open_for_test(url), open_for_test(url)
        await paused.append(create(LEASE, spec=lease_spec("a")))
        assert (await paused.append(create(key("x"), fence=Fence(1, 0)))).rv == 2
        await active.append(update(LEASE, spec=lease_spec("b")))
        assert active.lease_epoch(LEASE) == (1, 1)
        with pytest.raises(Fenced):
            await paused.append(create(key("y"), fence=Fence(1, 0)))
        assert (await active.append(create(key("y"), fence=Fence(1, 1)))).rv == 4
        assert paused.lease_epoch(LEASE) == (1, 1)
        await paused.close()
        await active.close()

    async def test_renewals_reach_the_others(self, url: str) -> None:
        async with daemons(url, 2) as (one, other):
            await one.append(create(LEASE, spec=lease_spec("a", renewTime="0")))
            for i in range(5):
                done = await one.append(update(LEASE, renewal=True, spec=lease_spec("a", renewTime=str(i))))
            await other.catch_up()
            record = other.get(LEASE)
            assert record is not None and (record.rv, record.value["spec"]["renewTime"]) == (6, "4")
            assert done.op is Op.RENEWED and other.rv == 6
            renewed = await other.append(
                update(LEASE, rv=6, renewal=True, spec=lease_spec("a", renewTime="9"))
            )
            assert renewed.rv == 7
            await other.append(delete(LEASE))
            await one.catch_up()
            assert one.get(LEASE) is None and one.lease_epoch(LEASE) is None

    async def test_kinds_and_actors_have_one_number(self, url: str) -> None:
        async with daemons(url, 3) as stores:
            rows = [
                KindRow(f"w{i}.example.com", "example.com", "v1", f"W{i}", f"w{i}", True) for i in range(3)
            ]
            for store, row in zip(stores, rows, strict=True):
                store.register([row])
            await asyncio.gather(
                *[store.append(create(key(f"a{i}"), cause=Cause(ALICE))) for i, store in enumerate(stores)]
            )
            await asyncio.gather(
                *[store.append(create(key(f"b{i}"), cause=Cause(ALICE))) for i, store in enumerate(stores)]
            )
            assert {event.cause.actor for event in await stores[1].events_since(0)} == {ALICE}
        found = await execute(url, "SELECT kind_id, plural FROM kinds ORDER BY 1")
        assert len(found) == 9 and len({plural for _, plural in found}) == 9
        assert (await execute(url, "SELECT count(*) FROM actors"))[0][0] <= 3

    async def test_a_busy_neighbour_starves_nobody(self, url: str) -> None:
        async with daemons(url, 2) as (busy, modest):
            stopping = False

            async def hammer(number: int) -> int:
                count = 0
                while not stopping:
                    await busy.append(create(key(f"h{number}-{count}")))
                    count += 1
                return count

            hammers = [asyncio.ensure_future(hammer(i)) for i in range(16)]
            await asyncio.sleep(0)
            with anyio.fail_after(20):
                for i in range(50):
                    await modest.append(create(key(f"m{i}")))
                    with pytest.raises(AlreadyExists):
                        await modest.append(create(key(f"m{i}")))
            stopping = True
            assert sum(await asyncio.gather(*hammers)) > 50

    async def test_a_daemon_far_behind_catches_up_in_pages(self, url: str) -> None:
        one, other = open_for_test(url), open_for_test(url)
        heard = Heard()
        other.listen(heard)
        await one.append_all([create(key(f"a{i:04}")) for i in range(2500)])
        await other.catch_up()
        assert other.rv == 2500 and [event.rv for event in heard.events] == list(range(1, 2501))
        await one.append_all([create(key(f"b{i:04}")) for i in range(1500)])
        assert (await other.append(create(key("mine")))).rv == 4001
        await one.close()
        await other.close()


class TestTrouble:
    async def test_a_lost_connection_costs_nothing_that_was_acknowledged(self, url: str) -> None:
        async with open_for_test(url) as store:
            await store.append(create(key("a")))
            await execute(
                url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            )
            outcome = await asyncio.gather(store.append(create(key("b"))), return_exceptions=True)
            assert isinstance(outcome[0], (Committed, Unavailable))
            await store.append(create(key("c")))
            assert await store.get_at(key("a"), 1) is not None
            listed = [record.key.name for record in store.list("configmaps")]
            assert listed == (["a", "b", "c"] if isinstance(outcome[0], Committed) else ["a", "c"])
        found = await execute(url, "SELECT rv FROM events ORDER BY rv")
        assert [rv for (rv,) in found] == list(range(1, len(found) + 1))

    async def test_a_commit_whose_answer_was_lost_is_acknowledged(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The connection breaks after the server has committed, before its answer arrives."""
        async with open_for_test(url) as store, open_for_test(url) as neighbour:
            heard = Heard()
            store.listen(heard)
            await store.append(create(key("a")))
            whole = PostgresDriver._write

            async def write_and_lose(self: PostgresDriver, *given: Any) -> None:
                monkeypatch.setattr(PostgresDriver, "_write", whole)
                await whole(self, *given)
                await neighbour.append(create(key("between")))
                raise ConnectionResetError("connection lost")

            monkeypatch.setattr(PostgresDriver, "_write", write_and_lose)
            done = await store.append(create(key("b"), cause=Cause(ALICE, "req")))
            assert done.rv == 2
            await store.catch_up()
            assert [event.rv for event in heard.events] == [1, 2, 3]

    async def test_a_batch_that_overtakes_the_one_below_waits_for_it(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with open_for_test(url) as store:
            await store.append(create(key("a")))
            monkeypatch.setattr(store._writer, "_slow", False)
            whole, came, bases = postgres_driver._append, anyio.Event(), []

            async def late(connection: Any, arguments: Any) -> Any:
                bases.append(arguments[1])
                if len(bases) == 1:
                    await came.wait()
                found = await whole(connection, arguments)
                came.set()
                return found

            monkeypatch.setattr(postgres_driver, "_append", late)
            done = await asyncio.gather(*[store.append(create(key(f"c{i}"))) for i in range(2 * MANY)])
            assert bases == [1, 1 + MANY, 1 + MANY]
            assert [one.rv for one in done] == list(range(2, 2 * MANY + 2))

    @pytest.mark.parametrize("arrived", [True, False])
    async def test_a_lost_answer_below_another_batch(
        self, url: str, monkeypatch: pytest.MonkeyPatch, arrived: bool
    ) -> None:
        """Of two batches on their way the first loses its connection, before or after the server has committed."""
        async with open_for_test(url) as store:
            await store.append(create(key("a")))
            monkeypatch.setattr(store._writer, "_slow", False)
            whole, calls = postgres_driver._append, []

            async def lose(connection: Any, arguments: Any) -> Any:
                calls.append(arguments[1])
                if len(calls) != 1:
                    return await whole(connection, arguments)
                if arrived:
                    await whole(connection, arguments)
                raise ConnectionResetError("connection lost")

            monkeypatch.setattr(postgres_driver, "_append", lose)
            writes = [store.append(create(key(f"c{i}"))) for i in range(2 * MANY)]
            done = await asyncio.gather(*writes, return_exceptions=True)
            assert calls[:2] == [1, 1 + MANY]
            refused = [one for one in done if isinstance(one, BaseException)]
            assert len(refused) == (0 if arrived else MANY)
            assert all(isinstance(one, Unavailable) and "connection lost" in str(one) for one in refused)
            assert store.rv == 1 + len(done) - len(refused)

    async def test_a_commit_that_never_arrived_is_refused(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with open_for_test(url) as store, open_for_test(url) as neighbour:
            await store.append(create(key("a")))
            whole = PostgresDriver._write

            async def lose(self: PostgresDriver, *given: Any) -> None:
                monkeypatch.setattr(PostgresDriver, "_write", whole)
                await neighbour.append(create(key("b"), uid="same", cause=Cause(ALICE, "req")))
                raise ConnectionResetError("connection lost")

            monkeypatch.setattr(PostgresDriver, "_write", lose)
            with pytest.raises(Unavailable, match="connection lost"):
                await store.append(create(key("b"), uid="same", cause=Cause(ALICE, "req")))
            assert (await store.append(create(key("c")))).rv == 3

    async def test_a_refused_batch_leaves_nothing(self, url: str) -> None:
        async with open_for_test(url) as store:
            await store.append(create(key("a")))
            await execute(url, "ALTER TABLE events ADD CONSTRAINT full_disk CHECK (rv <> 2)")
            with pytest.raises(Unavailable, match="full_disk"):
                await store.append(create(key("b"), cause=Cause(ALICE)))
            assert store.rv == 1 and store.get(key("b")) is None
            await execute(url, "ALTER TABLE events DROP CONSTRAINT full_disk")
            assert (await store.append(create(key("c"), cause=Cause(ALICE)))).rv == 2
            assert (await store.events_since(1))[0].cause.actor == ALICE

    async def test_statistics_that_cannot_be_made_fail_no_write(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("kcp.store.postgres.FIRST_ANALYZE_RV", 1)
        blocker = await asyncpg.connect(url)
        try:
            await blocker.execute("BEGIN; LOCK TABLE leases IN SHARE UPDATE EXCLUSIVE MODE")
            monkeypatch.setattr("kcp.store.postgres.COMMIT_TIMEOUT_S", 0.5)
            async with open_for_test(url) as store:
                assert (await store.append(create(key("a")))).rv == 1
                assert (await store.append(create(key("b")))).rv == 2
        finally:
            await blocker.close()

    async def test_a_restored_database_is_not_written_by_those_who_knew_the_old_one(self, url: str) -> None:
        async with open_for_test(url) as store:
            await store.append(create(key("a")))
            await execute(url, "UPDATE head SET epoch = epoch + 1, rv = rv + 1000000")
            with pytest.raises(Unavailable, match="was restored meanwhile"):
                await store.append(create(key("b")))
            with pytest.raises(Unavailable, match="was restored meanwhile"):
                await store.catch_up()

    async def test_a_database_that_lost_changes_is_named(self, url: str) -> None:
        async with open_for_test(url) as store:
            await store.append_all([create(key("a")), create(key("b"))])
            await execute(
                url,
                "DELETE FROM events WHERE rv = 2",
                "DELETE FROM objects WHERE rv = 2",
                "UPDATE head SET rv = 1",
            )
            with pytest.raises(Unavailable, match="is at revision 1 and was at 2: it lost changes"):
                await store.append(create(key("c")))

    async def test_a_missing_body_is_named_and_not_served(self, url: str) -> None:
        async with open_for_test(url) as store:
            await store.append_all([create(key("a")), create(key("b"))])
        await execute(url, "DELETE FROM events WHERE rv = 2")
        with pytest.raises(StoreError, match="revision 2 of configmaps/default/b is missing"):
            open_store(url, clock=SystemClock())
