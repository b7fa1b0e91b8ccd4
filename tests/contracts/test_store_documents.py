"""What every event log promises of bytes: what was written is what is read, live, in the past, by watchers, after a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest

from kcp.machinery.document import normal, splice_revision
from kcp.store import check
from kcp.store.log import EventLog
from kcp.store.protocol import Actor, Cause, KindRow
from tests.contracts.conftest import Engine
from tests.contracts.stores import names
from tests.store.changes import build, create, delete, key, operation, plain, put, put_value, update

TEXTS = (
    "",
    "\0",
    "a\0b",
    "\\u0000",
    "\\",
    "\\\0",
    '"',
    "\n\t\r\b\f\x1f\x7f",
    "é",
    "e\u0301",
    "ß",
    "漢字",
    "🙂",
    "\U0010ffff",
    "\ufeff",
    "\ufffd",
    "\u2028",
    "שלום",
    "true",
    "null",
    "1e5",
    "$raw",
    "' OR 1=1 --",
    "%s ? :x $1 {}",
)
NUMBERS = (
    0, -1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 0.5, -0.5, 1.0, -0.0, 1e-7, 1e22, 1e300, 5e-324, 0.1 + 0.2,
)  # fmt: skip


async def seen_everywhere(store: EventLog, written: list[tuple[int, dict[str, Any]]]) -> None:
    """configmaps/default/a, written once per revision, is the same bytes by every way of reading."""
    events = {event.rv: event for event in await store.events_since(0)}
    for rv, value in written:
        expected = splice_revision(normal(value), rv)
        at = await store.get_at(key("a"), rv)
        (listed,) = await store.list_at("configmaps", rv)
        for record in (at, listed, events[rv].record):
            assert record is not None and record.document.encoded == expected
            assert {**record.value, "metadata": {**record.value["metadata"], "resourceVersion": None}} == {
                **value,
                "metadata": {**value["metadata"], "resourceVersion": None},
            }
    live = store.get(key("a"))
    assert live is not None and live.document.encoded == splice_revision(normal(written[-1][1]), live.rv)


async def write_each(store: EventLog, values: list[Any]) -> list[tuple[int, dict[str, Any]]]:
    written = []
    for each in values:
        value = build(key("a"), "u", spec=each)
        done = await store.append(put(key("a"), value))
        written.append((done.rv, value))
    return written


def nested(depth: int, kind: type) -> Any:
    value: Any = "bottom"
    for _ in range(depth):
        value = {"a": value} if kind is dict else [value]
    return value


class TestDocuments:
    async def test_texts(self, store: EventLog) -> None:
        await seen_everywhere(store, await write_each(store, [{"v": text} for text in TEXTS]))

    async def test_keys(self, store: EventLog) -> None:
        await seen_everywhere(store, await write_each(store, [{text: 1, "z": text} for text in TEXTS]))

    async def test_numbers(self, store: EventLog) -> None:
        await seen_everywhere(store, await write_each(store, [{"v": number} for number in NUMBERS]))

    async def test_lists_of_everything(self, store: EventLog) -> None:
        await seen_everywhere(
            store, await write_each(store, [{"v": [*TEXTS, *NUMBERS, None, True, False, [], {}]}])
        )

    async def test_empty_things_and_nulls_stay(self, store: EventLog) -> None:
        values = [{}, {"a": {}}, {"a": []}, {"a": None}, {"a": ""}, {"a": [None, {}, []]}]
        await seen_everywhere(store, await write_each(store, values))

    @pytest.mark.parametrize("kind", [dict, list])
    async def test_deep_documents(self, store: EventLog, kind: type) -> None:
        await seen_everywhere(store, await write_each(store, [{"v": nested(200, kind)}]))

    async def test_wide_documents(self, store: EventLog) -> None:
        await seen_everywhere(
            store, await write_each(store, [{f"key-{i * 7919 % 5000}": i for i in range(5000)}])
        )

    async def test_the_order_in_which_keys_came_leaves_no_trace(self, store: EventLog) -> None:
        fields: dict[str, Any] = {"spec": {"b": 1, "a": {"y": 1, "x": 2}}, "data": {}, "zz": 1}
        turned: dict[str, Any] = {"zz": 1, "data": {}, "spec": {"a": {"x": 2, "y": 1}, "b": 1}}
        for name, some in (("a", fields), ("b", turned)):
            await store.append(create(key(name), uid="u", **some))
        await store.append(create(key("c")))
        a, b = [await store.get_at(key(name), 2) for name in ("a", "b")]
        assert a is not None and b is not None
        assert a.document.encoded == b.document.encoded.replace(b'"name":"b"', b'"name":"a"').replace(
            b'"resourceVersion":"2"', b'"resourceVersion":"1"'
        )

    async def test_a_removal_shows_the_last_bytes_at_its_revision(self, store: EventLog) -> None:
        value = build(key("a"), "u", data={"v": "\0é", "n": "1"})
        await store.append(operation(key("a"), lambda current, head: put_value(value)))
        await store.append(delete(key("a")))
        await store.append(create(key("b")))
        deleted = (await store.events_since(1))[0]
        assert deleted.record.document.encoded == splice_revision(normal(value), 2)
        assert deleted.previous is not None
        assert deleted.previous.document.encoded == splice_revision(normal(value), 1)

    async def test_a_document_without_more_than_its_name(self, store: EventLog) -> None:
        await store.append(create(key("a"), uid="u"))
        await store.append(update(key("a")))
        record = await store.get_at(key("a"), 1)
        assert record is not None and record.document.encoded == (
            b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"resourceVersion":"1","name":"a","namespace":"default","uid":"u"}}'
        )


class TestNames:
    async def test_lists_come_in_the_order_of_bytes(self, store: EventLog) -> None:
        """Neither a language's order nor that of UTF-16 units, which puts U+10000 before U+FF5E."""
        odd = ["\U00010000", "\uff5e", "z", "Z", "a", "a-", "a.", "a0", "aa", "é", "~", "-", "0", "10", "2"]
        await store.append_all([create(key(name)) for name in odd])
        expected = sorted((f"default/{name}" for name in odd), key=lambda name: name.encode())
        assert names(store.list("configmaps")) == expected
        rv = store.rv
        await store.append(delete(key("a")))
        assert names(await store.list_at("configmaps", rv)) == expected

    async def test_pages_follow_the_order_of_bytes(self, store: EventLog) -> None:
        odd = ["\U00010000", "\uff5e", "Z", "a", "a-", "a.", "é", "~"]
        await store.append_all([create(key(name, space)) for name in odd for space in ("x", "x-", "x.y")])
        rv = store.rv
        await store.append(delete(key("a", "x")))
        found, after = [], None
        while page := await store.list_at("configmaps", rv, after=after, limit=5):
            found += names(page)
            after = (page[-1].key.namespace, page[-1].key.name)
        assert found == names(await store.list_at("configmaps", rv)) and len(found) == 24

    async def test_names_of_full_length(self, store: EventLog) -> None:
        long = key("n" * 253, "s" * 63)
        await store.append(create(long))
        await store.append(update(long))
        assert names(await store.list_at("configmaps", 1, "s" * 63)) == [f"{'s' * 63}/{'n' * 253}"]
        assert await store.get_at(long, 1) is not None

    async def test_a_namespace_is_no_prefix(self, store: EventLog) -> None:
        for space in ("a", "a-b", "a.b", "a0", "aa", "A"):
            await store.append(create(key("x", space)))
        rv = store.rv
        await store.append(create(key("y", "zz")))
        assert names(store.list("configmaps", "a")) == names(await store.list_at("configmaps", rv, "a"))
        assert names(store.list("configmaps", "a")) == ["a/x"]

    async def test_names_that_look_like_sql(self, store: EventLog) -> None:
        odd = key("x'; DROP TABLE events; --", "%")
        await store.append(create(odd))
        await store.append(update(odd))
        assert await store.get_at(odd, 1) is not None and await store.get_at(key("x", "%"), 1) is None
        assert names(await store.list_at("configmaps", 1, "%")) == ["%/x'; DROP TABLE events; --"]

    async def test_one_name_in_many_resources(self, store: EventLog) -> None:
        places = [
            key("x"),
            key("x", "other"),
            key("x", resource="pods"),
            key("x", resource="secrets"),
            key("x", resource="nodes"),
        ]
        await store.append_all([create(at) for at in places])
        await store.append(delete(key("x", resource="pods")))
        alive = [store.get(at) is not None for at in places]
        assert alive == [True, True, False, True, True]
        assert [await store.get_at(at, 5) is not None for at in places] == [True] * 5

    async def test_one_plural_in_two_groups(self, store: EventLog) -> None:
        rows = [KindRow(f"events{g}", g[1:], "v1", "Event", "events", True) for g in ("", ".events.k8s.io")]
        store.register(rows)
        for row in rows:
            at = key("x").__class__(row.resource, "default", "x")
            value = {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": "x", "uid": row.group or "core"},
            }
            await store.append(put(at, value))
        await store.append(create(key("later")))
        listed = [await store.list_at(row.resource, 2) for row in rows]
        assert [[r.uid for r in some] for some in listed] == [["core"], ["events.k8s.io"]]


class TestCauses:
    @pytest.mark.parametrize(
        "actor",
        [
            Actor(""),
            Actor("system:serviceaccount:a:b", ("system:authenticated",) * 3),
            Actor('o\'neill "x" \\ \n\t', ("a,b", "", "c d"), "curl/8 (é; 漢字)", "🙂", "::1"),
            Actor("x" * 5000, tuple(f"g{i}" for i in range(300))),
            Actor("$1", ("{}", "[]", "null"), "%s", "?", ":x"),
        ],
    )
    async def test_actors_are_told_as_they_were(self, store: EventLog, actor: Actor) -> None:
        await store.append(create(key("a"), cause=Cause(actor, "r'1\n", 2**63 - 1)))
        await store.append(update(key("a"), cause=Cause(actor)))
        first, second = await store.events_since(0)
        assert (first.cause, second.cause) == (Cause(actor, "r'1\n", 2**63 - 1), Cause(actor))

    async def test_a_nul_in_a_cause_harms_nobody(self, store: EventLog) -> None:
        await store.append_all(
            [create(key("a"), cause=Cause(Actor("a\0b", ("g\0",), "\0"), "r\0")), create(key("b"))]
        )
        first, second = await store.events_since(0)
        assert first.cause.actor.username in ("a\0b", "a\ufffdb") and second.cause == Cause()

    async def test_actors_that_differ_in_one_field_are_different(self, store: EventLog) -> None:
        base = Actor("u", ("g",), "agent", "manager", "ip")
        actors = [
            attrs.evolve(base, username="other"),
            attrs.evolve(base, groups=("h",)),
            attrs.evolve(base, user_agent="other"),
            attrs.evolve(base, field_manager="other"),
            attrs.evolve(base, source_ip="other"),
        ]
        await store.append_all(
            [create(key(f"a{i}"), cause=Cause(actor)) for i, actor in enumerate([base, *actors])]
        )
        assert [event.cause.actor for event in await store.events_since(0)] == [base, *actors]


@pytest.fixture
async def reopened(lasting: Engine) -> AsyncIterator[tuple[list[Any], EventLog]]:
    """What was there before a log was closed, and the log after it was opened again."""
    async with lasting.open() as store:
        await write_each(store, [{"v": [*TEXTS, *NUMBERS]}, {"v": nested(200, dict)}])
        await store.append_all([create(key("é\U00010000", "x.y")), create(key("n", resource="nodes"))])
        before = [[plain(r) for r in store.list(resource)] for resource in ("configmaps", "nodes")]
    async with lasting.open() as again:
        yield before, again
    assert check.problems(lasting.where) == []


class TestOpeningAgain:
    async def test_the_same_bytes(self, reopened: tuple[list[Any], EventLog]) -> None:
        before, store = reopened
        assert [[plain(r) for r in store.list(resource)] for resource in ("configmaps", "nodes")] == before

    async def test_the_same_history(self, reopened: tuple[list[Any], EventLog]) -> None:
        _, store = reopened
        assert [event.rv for event in await store.events_since(0)] == [1, 2, 3, 4]
        record = await store.get_at(key("a"), 1)
        assert record is not None and record.value["spec"]["v"] == [*TEXTS, *NUMBERS]

    async def test_revisions_go_on(self, reopened: tuple[list[Any], EventLog]) -> None:
        _, store = reopened
        done = await store.append(update(key("a"), rv=2))
        assert done.rv == 5 and done.record is not None and done.record.oid == 1
