"""What every event log promises beside objects: the horizon, kinds, records of decisions and inputs, expiry."""

from __future__ import annotations

import asyncio
from typing import Any

import attrs
import pytest

from kcp.machinery.errors import NotFound
from kcp.store import ttl
from kcp.store.log import EventLog
from kcp.store.memory import MemoryDriver
from kcp.store.protocol import (
    Committed,
    Decision,
    Input,
    Key,
    KindRow,
    Op,
    Unavailable,
)
from kcp.store.reader import LogReader
from tests.contracts.conftest import Engine
from tests.contracts.stores import story
from tests.store.changes import (
    Heard,
    create,
    delete,
    key,
    operation,
    put,
    put_value,
    update,
)


class TestHousekeeping:
    async def test_the_horizon_moves_forward_only_and_not_beyond_the_head(self, store: EventLog) -> None:
        await store.append_all([create(key(f"a{i}")) for i in range(5)])
        assert store.horizon == 0
        await store.move_horizon(3)
        assert store.horizon == 3
        await store.move_horizon(1)
        assert store.horizon == 3
        await store.move_horizon(99)
        assert store.horizon == 5
        assert store.rv == 5

    async def test_history_does_not_know_the_horizon(self, store: EventLog) -> None:
        a = await story(store)
        await store.move_horizon(store.rv)
        record = await store.get_at(a, 8)
        assert record is not None and record.value["data"] == {"v": "A"}
        assert len(await store.events_since(0)) == 15

    async def test_register_is_idempotent(self, store: EventLog) -> None:
        row = KindRow("widgets.example.com", "example.com", "v1", "Widget", "widgets", True)
        store.register([row])
        store.register([row])
        assert store.kinds.count(row) == 1
        value = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "uid": "u"}}
        done = await store.append(
            operation(Key("widgets.example.com", "x", "w"), lambda current, head: put_value(value))
        )
        assert done.rv == 1

    async def test_decision_ids_are_unique_and_rise(self, store: EventLog) -> None:
        ids = [store.next_decision_id() for _ in range(5)]
        assert ids == sorted(set(ids)) and ids[0] >= 10**12

    async def test_catching_up_is_always_possible(self, store: EventLog) -> None:
        await store.catch_up()
        done = await store.append(create(key("a")))
        await asyncio.gather(*[store.catch_up() for _ in range(5)])
        assert store.rv == done.rv

    async def test_records_ride_along_and_take_no_revision(self, store: EventLog) -> None:
        store.record(Input("start", {"seed": 1}))
        store.record(
            Decision(store.next_decision_id(), "c", "k", "event", {"pods": 1}, 1, [], None, "x", "y")
        )
        await store.append(create(key("a")))
        assert store.rv == 1

    async def test_an_expiring_object_keeps_its_time(self, store: EventLog) -> None:
        done = await store.append(create(key("a"), expires_us=123))
        assert done.record is not None and done.record.expires_us == 123
        done = await store.append(update(key("a")))
        assert done.record is not None and done.record.expires_us is None

    async def test_the_cluster_has_a_name(self, store: EventLog) -> None:
        assert len(store.cluster_uid) == 36 and store.epoch >= 1


def kept(engine: Engine, store: EventLog) -> tuple[list[tuple[int, Decision]], list[tuple[int, int, Input]]]:
    """Decisions and inputs as the log holds them, after it was closed."""
    if not engine.lasting:
        driver = store._driver
        assert isinstance(driver, MemoryDriver)
        return driver.decisions, driver.inputs
    with LogReader(engine.where) as log:
        return list(log.decisions()), list(log.inputs())


def decision(number: int, **fields: Any) -> Decision:
    return attrs.evolve(
        Decision(number, "deployment", "ns/web", "event", {"pods": 3}, 123, [], None, "code", "conf"),
        **fields,
    )


class TestRecords:
    async def test_inputs_keep_their_order(self, engine: Engine) -> None:
        async with engine.open() as store:
            store.record(Input("clock", {"t": 0}))
            for i in range(3):
                await store.append(create(key(f"a{i}")))
                for j in range(3):
                    store.record(Input("clock", {"t": i * 3 + j + 1}))
        _, inputs = kept(engine, store)
        assert [entry.payload["t"] for _, _, entry in inputs] == list(range(10))
        assert [(rv, seq) for rv, seq, _ in inputs] == [
            (0, 1), *[(rv, seq) for rv in (1, 2, 3) for seq in (1, 2, 3)]
        ]  # fmt: skip

    async def test_decisions_keep_their_order_and_their_place(self, engine: Engine) -> None:
        async with engine.open() as store:
            for number in range(1, 6):
                store.record(decision(number))
                if number % 2:
                    await store.append(create(key(f"a{number}")))
        decisions, _ = kept(engine, store)
        assert [(rv, entry.id) for rv, entry in decisions] == [(0, 1), (1, 2), (1, 3), (2, 4), (2, 5)]

    async def test_a_decision_comes_back_as_it_was(self, engine: Engine) -> None:
        effects = [{"kind": "Create", "args": {"x": [1, None, "é\0"]}, "outcome": "ok", "rv": 2}]
        whole = decision(
            7, frontier={"pods": 3, "nodes": 0}, effects=effects, memo_before={"m": 1.5}, epoch=2, first_rv=1, last_rv=2, duration_us=55
        )  # fmt: skip
        async with engine.open() as store:
            store.record(whole)
        decisions, _ = kept(engine, store)
        assert decisions == [(0, whole)]

    async def test_no_memo_and_an_empty_memo_differ(self, engine: Engine) -> None:
        async with engine.open() as store:
            store.record(decision(1, memo_before=None))
            store.record(decision(2, memo_before={}))
        decisions, _ = kept(engine, store)
        assert [entry.memo_before for _, entry in decisions] == [None, {}]

    async def test_more_than_one_batch_of_them(self, engine: Engine) -> None:
        async with engine.open() as store:
            for i in range(5000):
                store.record(Input("n", {"i": i}))
            await store.append(create(key("a")))
        _, inputs = kept(engine, store)
        assert [entry.payload["i"] for _, _, entry in inputs] == list(range(5000))

    async def test_closing_writes_them(self, engine: Engine) -> None:
        async with engine.open() as store:
            store.record(Input("start", {}))
            store.record(decision(1))
        decisions, inputs = kept(engine, store)
        assert len(decisions) == len(inputs) == 1 and store.rv == 0

    async def test_they_wait_while_nothing_is_refused(self, engine: Engine) -> None:
        """A batch of which every operation fails writes them all the same."""
        async with engine.open() as store:
            store.record(Input("before", {}))
            outcomes = await store.append_all([update(key("missing"))])
            assert isinstance(outcomes[0], NotFound)
        assert [entry.kind for _, _, entry in kept(engine, store)[1]] == ["before"]

    @pytest.mark.parametrize(
        "odd", [Input("k", {"v": "\ud800"}), Input("k", {"v": 2**70}), Input("\udfff", {}), decision(2**64)]
    )
    async def test_one_that_no_engine_can_keep_stops_nothing(
        self, engine: Engine, odd: Decision | Input
    ) -> None:
        """The memory keeps it; a table loses it, and neither the writes nor the records beside it."""
        async with engine.open() as store:
            store.record(Input("before", {}))
            store.record(odd)
            store.record(Input("after", {}))
            store.record(decision(1))
            assert (await store.append(create(key("a")))).rv == 1
            assert (await store.append(create(key("b")))).rv == 2
        decisions, inputs = kept(engine, store)
        assert [entry.kind for _, _, entry in inputs if entry is not odd] == ["before", "after"]
        assert [entry.id for _, entry in decisions if entry is not odd] == [1]

    async def test_a_nul_in_them_is_no_obstacle(self, engine: Engine) -> None:
        async with engine.open() as store:
            store.record(Input("a\0", {"\0": "\0"}))
            store.record(
                decision(1, controller="c\0", key="k\0", frontier={"p\0": 1}, memo_before={"m": "\0"})
            )
            await store.append(create(key("a")))
        decisions, inputs = kept(engine, store)
        assert [entry.payload for _, _, entry in inputs] == [{"\0": "\0"}]
        assert [(entry.frontier, entry.memo_before) for _, entry in decisions] == [({"p\0": 1}, {"m": "\0"})]

    async def test_ids_of_decisions_do_not_come_again_after_a_restart(self, lasting: Engine) -> None:
        ids: list[int] = []
        for _ in range(3):
            async with lasting.open() as store:
                ids += [store.next_decision_id() for _ in range(3)]
                await store.append(create(key(f"a{len(ids)}")))
        assert ids == sorted(set(ids)) and len(ids) == 9

    async def test_inputs_after_a_restart_come_after_those_before(self, lasting: Engine) -> None:
        for i in range(3):
            async with lasting.open() as store:
                store.record(Input("start", {"i": i}))
        _, inputs = kept(lasting, store)
        assert [(rv, seq, entry.payload["i"]) for rv, seq, entry in inputs] == [
            (0, 1, 0),
            (0, 2, 1),
            (0, 3, 2),
        ]


class TestHorizon:
    async def test_moving_it_is_not_heard_and_takes_no_revision(self, store: EventLog) -> None:
        heard = Heard()
        await store.append_all([create(key("a")), create(key("b"))])
        store.listen(heard)
        await store.move_horizon(2)
        assert (store.rv, store.horizon, heard.events) == (2, 2, [])
        assert (await store.append(create(key("c")))).rv == 3

    async def test_of_moves_at_once_the_furthest_counts(self, store: EventLog) -> None:
        await store.append_all([create(key(f"a{i}")) for i in range(9)])
        await asyncio.gather(*[store.move_horizon(rv) for rv in (3, 8, 5, 1)])
        assert store.horizon == 8

    async def test_it_moves_along_with_writes(self, store: EventLog) -> None:
        await store.append_all([create(key(f"a{i}")) for i in range(3)])
        done, _ = await asyncio.gather(store.append(create(key("b"))), store.move_horizon(2))
        assert (done.rv, store.horizon) == (4, 2)

    async def test_it_never_hides_the_present(self, store: EventLog) -> None:
        await store.append_all([create(key("a")), create(key("b"))])
        await store.move_horizon(2)
        assert [r.key.name for r in store.list("configmaps")] == ["a", "b"]
        assert len(await store.list_at("configmaps", 1)) == 1

    async def test_it_is_kept(self, lasting: Engine) -> None:
        async with lasting.open() as store:
            await store.append_all([create(key(f"a{i}")) for i in range(5)])
            await store.move_horizon(4)
        async with lasting.open() as store:
            assert (store.rv, store.horizon) == (5, 4)

    async def test_a_closed_log_moves_it_no_more(self, store: EventLog) -> None:
        await store.append(create(key("a")))
        await store.close()
        with pytest.raises(Unavailable):
            await store.move_horizon(1)


class TestExpiry:
    async def test_what_is_due_is_removed_by_an_ordinary_event(self, store: EventLog) -> None:
        await store.append(create(key("a"), expires_us=100, data={"v": "1"}))
        await store.append(ttl.remove_expired(key("a"), 100))
        (deleted,) = await store.events_since(1)
        assert (deleted.op, deleted.cause.actor.username) == (Op.DELETED, "system:ttl")
        assert deleted.record.value["data"] == {"v": "1"}

    async def test_what_is_not_due_stays(self, store: EventLog) -> None:
        await store.append(create(key("a"), expires_us=100))
        done = await store.append(ttl.remove_expired(key("a"), 99))
        assert (done.op, done.rv) == (None, 1)

    async def test_what_was_given_more_time_stays(self, store: EventLog) -> None:
        await store.append(create(key("a"), expires_us=100))
        outcomes = await store.append_all(
            [update(key("a"), expires_us=500), ttl.remove_expired(key("a"), 100)]
        )
        assert [o.op for o in outcomes if isinstance(o, Committed)] == [Op.MODIFIED, None]

    async def test_what_is_made_anew_under_its_name_stays(self, store: EventLog) -> None:
        await store.append(create(key("a"), expires_us=100))
        await store.append_all([delete(key("a")), create(key("a"))])
        assert (await store.append(ttl.remove_expired(key("a"), 10**18))).op is None

    async def test_what_is_gone_already_is_no_failure(self, store: EventLog) -> None:
        assert (await store.append(ttl.remove_expired(key("a"), 1))).op is None

    async def test_the_time_to_go_is_kept(self, lasting: Engine) -> None:
        async with lasting.open() as store:
            await store.append(create(key("a"), expires_us=100))
            await store.append(create(key("b"), expires_us=50))
            await store.append(update(key("b"), expires_us=2**62))
        async with lasting.open() as store:
            found = [(r.key.name, r.expires_us) for r in store.list("configmaps")]
            assert found == [("a", 100), ("b", 2**62)]
            assert (await store.append(ttl.remove_expired(key("a"), 100))).op is Op.DELETED


class TestKinds:
    async def test_a_kind_may_change_its_version(self, store: EventLog) -> None:
        row = KindRow("ws.example.com", "example.com", "v1", "W", "ws", True)
        store.register([row])
        newer = attrs.evolve(row, version="v2", kind="Widget", history_class="latest")
        store.register([newer])
        assert newer in store.kinds and row not in store.kinds

    async def test_a_kind_registered_between_writes_is_known_to_the_next(self, store: EventLog) -> None:
        await store.append(create(key("a")))
        for i in range(3):
            row = KindRow(f"w{i}.example.com", "example.com", "v1", "W", f"w{i}", False)
            store.register([row])
            at = Key(row.resource, "", "x")
            value = {"apiVersion": "example.com/v1", "kind": "W", "metadata": {"name": "x", "uid": f"u{i}"}}
            await store.append(put(at, value))
        assert [e.key.resource for e in await store.events_since(1)] == [
            f"w{i}.example.com" for i in range(3)
        ]

    async def test_kinds_are_kept_with_the_first_write(self, lasting: Engine) -> None:
        row = KindRow("ws.example.com", "example.com", "v1beta1", "W", "ws", False, "sampled")
        async with lasting.open() as store:
            store.register([row])
            await store.append(create(key("a")))
        async with lasting.open() as store:
            assert row in store.kinds

    async def test_a_cluster_keeps_its_name(self, lasting: Engine) -> None:
        uids = []
        for i in range(3):
            async with lasting.open() as store:
                await store.append(create(key(f"a{i}")))
                uids.append(store.cluster_uid)
        assert len(set(uids)) == 1
