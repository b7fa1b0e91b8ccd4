"""What every event log promises of reads, now and in the past."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kcp.base.clock import VirtualClock, microseconds
from kcp.store.log import EventLog
from kcp.store.protocol import (
    FutureRevision,
    Key,
    Op,
    Record,
)
from tests.contracts.stores import names, story
from tests.store.changes import (
    create,
    delete,
    key,
    open_for_test,
    plain,
    update,
    write,
)


class TestReads:
    async def test_get_of_nothing(self, store: EventLog) -> None:
        assert store.get(key("a")) is None
        assert store.get(Key("unknown", "x", "y")) is None

    async def test_list_of_nothing(self, store: EventLog) -> None:
        assert list(store.list("configmaps")) == [] and list(store.list("unknown", "x")) == []

    async def test_lists_are_ordered_by_namespace_then_name_in_byte_order(self, store: EventLog) -> None:
        places = [
            ("b", "a"),
            ("a", "z"),
            ("a-b", "x"),
            ("a", "B"),
            ("a", "é"),
            ("a", "b-1"),
            ("a", "b.1"),
            ("a", "b"),
        ]
        for namespace, name in places:
            await store.append(create(key(name, namespace)))
        expected = [f"{ns}/{n}" for ns, n in sorted(places, key=lambda p: (p[0].encode(), p[1].encode()))]
        assert names(store.list("configmaps")) == expected
        await store.append(create(key("later", "zz")))
        assert names(await store.list_at("configmaps", len(places))) == expected

    async def test_list_of_one_namespace(self, store: EventLog) -> None:
        for namespace in ("a", "a-b", "b", "ab"):
            await store.append_all([create(key(f"n{i}", namespace)) for i in range(3)])
        assert names(store.list("configmaps", "a")) == ["a/n0", "a/n1", "a/n2"]
        assert names(store.list("configmaps", "nope")) == []

    async def test_cluster_scoped_objects(self, store: EventLog) -> None:
        await store.append_all([create(key("n2", resource="nodes")), create(key("n1", resource="nodes"))])
        assert names(store.list("nodes")) == ["n1", "n2"]
        await store.append(delete(key("n1", resource="nodes")))
        assert names(await store.list_at("nodes", 2)) == ["n1", "n2"]

    async def test_lists_follow_every_change(self, store: EventLog) -> None:
        for i in range(40):
            await store.append(create(key(f"a{i % 7}{i}")))
            if i % 3 == 0:
                victim = store.list("configmaps")[i % len(store.list("configmaps"))].key
                await store.append(delete(victim))
                if i % 2:
                    await store.append(create(victim))
            listed = names(store.list("configmaps"))
            assert listed == sorted(set(listed))
            assert all(store.get(record.key) is record for record in store.list("configmaps"))

    async def test_a_list_once_given_does_not_change(self, store: EventLog) -> None:
        await store.append(create(key("a")))
        before = store.list("configmaps")
        await store.append(create(key("b")))
        assert names(before) == ["default/a"]

    async def test_the_worked_example(self, store: EventLog) -> None:
        a = await story(store)
        expected = {6: None, 7: "A", 8: "A", 9: "B", 11: "B", 12: None, 14: None, 15: "C"}
        for rv, value in expected.items():
            record = await store.get_at(a, rv)
            assert (None if record is None else record.value["data"]["v"]) == value
        events = await store.events_since(8)
        assert [e.rv for e in events if e.key == a] == [9, 12, 15]
        deleted = next(e for e in events if e.op is Op.DELETED)
        assert deleted.record.value["data"] == {"v": "B"} and deleted.record.rv == 12

    async def test_get_at_gives_the_bytes_that_were_served_then(self, store: EventLog) -> None:
        done = [await store.append(create(key("a"), data={"v": "0"}))]
        for i in range(1, 5):
            done.append(await store.append(update(key("a"), data={"v": str(i)})))
        for outcome in done:
            assert plain(await store.get_at(key("a"), outcome.rv)) == plain(outcome.record)

    async def test_reading_the_future_is_refused(self, store: EventLog) -> None:
        await store.append(create(key("a")))
        with pytest.raises(FutureRevision) as caught:
            await store.get_at(key("a"), 2)
        assert (caught.value.asked, caught.value.current) == (2, 1)
        with pytest.raises(FutureRevision):
            await store.list_at("configmaps", 2)

    async def test_list_at_every_revision_equals_the_list_then(self, store: EventLog) -> None:
        then: list[list[Any]] = [[]]
        for i in range(60):
            name = f"n{i * 7 % 11}"
            exists = store.get(key(name)) is not None
            verb = "delete" if exists and i % 4 == 0 else "update" if exists else "create"
            await store.append(write(verb, key(name), i=str(i)))
            then.append([plain(record) for record in store.list("configmaps")])
        for rv, expected in enumerate(then):
            assert [plain(record) for record in await store.list_at("configmaps", rv)] == expected

    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
    async def test_pages_of_a_past_list_add_up(self, store: EventLog, limit: int) -> None:
        await store.append_all([create(key(f"n{i:02}", f"ns{i % 3}")) for i in range(20)])
        rv = store.rv
        await store.append_all(
            [delete(key("n04", "ns1")), create(key("n00", "ns2")), update(key("n05", "ns2"))]
        )
        whole = await store.list_at("configmaps", rv)
        pages: list[Record] = []
        after: tuple[str, str] | None = None
        while page := await store.list_at("configmaps", rv, after=after, limit=limit):
            assert len(page) <= limit
            pages.extend(page)
            after = (page[-1].key.namespace, page[-1].key.name)
        assert [plain(r) for r in pages] == [plain(r) for r in whole] and len(whole) == 20

    @pytest.mark.parametrize("limit", [1, 4, 100])
    async def test_pages_of_the_present_list_add_up(self, store: EventLog, limit: int) -> None:
        await store.append_all([create(key(f"n{i:02}", f"ns{i % 3}")) for i in range(10)])
        pages: list[Record] = []
        after: tuple[str, str] | None = None
        while page := await store.list_at("configmaps", store.rv, after=after, limit=limit):
            pages.extend(page)
            after = (page[-1].key.namespace, page[-1].key.name)
        assert names(pages) == names(store.list("configmaps"))

    async def test_a_past_page_of_one_namespace(self, store: EventLog) -> None:
        await store.append_all([create(key(f"n{i}", f"ns{i % 2}")) for i in range(10)])
        rv = store.rv
        await store.append(create(key("n9a", "ns1")))
        page = await store.list_at("configmaps", rv, "ns1", after=("ns1", "n3"), limit=2)
        assert names(page) == ["ns1/n5", "ns1/n7"]

    async def test_time_to_revision(self, tmp_path: Path) -> None:
        for where in ("memory:", tmp_path):
            clock = VirtualClock()
            async with open_for_test(where, clock, inline=True) as store:
                marks = []
                for i in range(6):
                    await store.append_all([create(key(f"a{i}{j}")) for j in range(3)])
                    marks.append((microseconds(clock.now()) + 10, store.rv))
                    clock.advance(0.4 if i % 2 else 1.7)
                assert await store.rv_at(0) == 0
                for ts_us, rv in marks:
                    assert await store.rv_at(ts_us) == rv
                assert await store.rv_at(microseconds(clock.now()) + 10**9) == store.rv
