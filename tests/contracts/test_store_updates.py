"""What every event log promises of changes that depend on what is there: preconditions, batches, transactions, limits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kcp.machinery.document import normal
from kcp.machinery.errors import AlreadyExists, Conflict, Invalid, NotFound
from kcp.store.log import EventLog
from kcp.store.protocol import (
    MAX_BODY_BYTES,
    SYSTEM,
    Actor,
    Cause,
    Committed,
    Fence,
    Fenced,
    Head,
    Keep,
    Op,
    Operation,
    Put,
    Record,
    Remove,
    StoreError,
    TooLarge,
)
from tests.contracts.stores import names
from tests.store.changes import (
    Heard,
    build,
    create,
    delete,
    key,
    lease_spec,
    operation,
    plain,
    put_value,
    told,
    update,
)

LEASE = key("leader", "kube-system", "leases.coordination.k8s.io")


def delete_of(name: str, uid: str) -> Operation:
    """Delete with a precondition on the uid."""

    def change(current: Record | None, head: Head) -> Put | Remove | Keep:
        if current is None:
            raise NotFound.of("", "configmaps", name)
        if current.uid != uid:
            raise Conflict.of(
                "", "configmaps", name, f"Precondition failed: UID in precondition: {uid}, UID in object meta: {current.uid}"
            )  # fmt: skip
        return Remove()

    return operation(key(name), change)


def sized(size: int, letter: str = "x") -> dict[str, str]:
    """`data` that makes the body of configmaps/default/a, uid u, exactly so many bytes."""
    empty = len(normal(build(key("a"), "u", data={"v": ""})))
    width = len(letter.encode())
    count, rest = divmod(size - empty, width)
    return {"v": letter * count + "x" * rest}


class TestPreconditions:
    async def test_a_conflict_reaches_the_caller_in_its_own_words(self, store: EventLog) -> None:
        await store.append(create(key("a")))
        with pytest.raises(Conflict) as caught:
            await store.append(update(key("a"), rv=7))
        assert str(caught.value) == (
            'Operation cannot be fulfilled on configmaps "a": the object has been modified; '
            "please apply your changes to the latest version and try again"
        )

    async def test_a_name_that_is_taken_is_told_in_its_own_words(self, store: EventLog) -> None:
        await store.append(create(key("a")))
        with pytest.raises(AlreadyExists, match=r'^configmaps "a" already exists$'):
            await store.append(create(key("a")))

    async def test_a_name_that_is_missing_is_told_in_its_own_words(self, store: EventLog) -> None:
        with pytest.raises(NotFound, match=r'^configmaps "a" not found$'):
            await store.append(delete(key("a")))

    async def test_the_very_exception_of_the_change_is_raised(self, store: EventLog) -> None:
        error = Invalid("mine")

        def change(current: Record | None, head: Head) -> Put | Remove | Keep:
            raise error

        with pytest.raises(Invalid) as caught:
            await store.append(operation(key("a"), change))
        assert caught.value is error

    async def test_of_updates_of_one_revision_one_wins(self, store: EventLog) -> None:
        await store.append(create(key("a")))
        results = await asyncio.gather(
            *[store.append(update(key("a"), rv=1, data={"by": str(i)})) for i in range(30)],
            return_exceptions=True,
        )
        winners = [result for result in results if isinstance(result, Committed)]
        assert len(winners) == 1 and sum(isinstance(result, Conflict) for result in results) == 29
        assert plain(store.get(key("a"))) == plain(winners[0].record) and store.rv == 2

    async def test_of_deletes_one_wins(self, store: EventLog) -> None:
        await store.append(create(key("a")))
        results = await asyncio.gather(
            *[store.append(delete(key("a"))) for _ in range(10)], return_exceptions=True
        )
        assert sorted(type(result).__name__ for result in results) == ["Committed"] + ["NotFound"] * 9

    async def test_an_update_and_a_delete_of_one_revision_exclude_each_other(self, store: EventLog) -> None:
        await store.append(create(key("a")))
        first, second = await asyncio.gather(
            store.append(update(key("a"), rv=1)), store.append(delete(key("a"), rv=1)), return_exceptions=True
        )
        assert isinstance(first, Committed) and isinstance(second, Conflict)

    async def test_the_revision_of_an_earlier_life_is_no_precondition_of_the_next(
        self, store: EventLog
    ) -> None:
        await store.append_all([create(key("a")), delete(key("a")), create(key("a"))])
        for rv in (1, 2):
            with pytest.raises(Conflict):
                await store.append(update(key("a"), rv=rv))
        assert (await store.append(update(key("a"), rv=3))).rv == 4

    async def test_a_delete_meant_for_an_earlier_life_spares_the_next(self, store: EventLog) -> None:
        await store.append_all([create(key("a"), uid="u1"), delete(key("a")), create(key("a"), uid="u2")])
        with pytest.raises(Conflict, match="UID in precondition: u1, UID in object meta: u2"):
            await store.append(delete_of("a", "u1"))
        assert (await store.append(delete_of("a", "u2"))).op is Op.DELETED

    async def test_a_keep_answers_with_the_precondition_of_the_next_write(self, store: EventLog) -> None:
        await store.append(create(key("a")))
        await store.append(create(key("b")))
        kept = await store.append(operation(key("a"), lambda current, head: Keep()))
        assert kept.rv == 1 and (await store.append(update(key("a"), rv=kept.rv))).rv == 3

    async def test_a_write_that_changes_nothing_is_a_change(self, store: EventLog) -> None:
        """Whether equal content is a change is the caller's question; a Put always takes a revision."""
        first = await store.append(create(key("a"), data={"v": "1"}))
        second = await store.append(update(key("a"), data={"v": "1"}))
        assert (second.rv, second.op) == (2, Op.MODIFIED)
        assert first.record is not None and second.record is not None
        assert first.record.value["data"] == second.record.value["data"]

    async def test_a_revision_inside_the_object_is_replaced(self, store: EventLog) -> None:
        value = build(key("a"), "u", metadata={"resourceVersion": "999"})
        done = await store.append(operation(key("a"), lambda current, head: put_value(value)))
        assert done.record is not None
        assert done.record.document.encoded.count(b"resourceVersion") == 1
        assert done.record.value["metadata"]["resourceVersion"] == "1"

    async def test_the_value_that_was_handed_in_is_left_alone(self, store: EventLog) -> None:
        value = build(key("a"), "u", data={"v": "1"})
        await store.append(operation(key("a"), lambda current, head: put_value(value)))
        assert value == build(key("a"), "u", data={"v": "1"})

    async def test_a_change_is_given_what_a_reader_is_given(self, store: EventLog) -> None:
        seen: list[Any] = []
        await store.append(create(key("a"), data={"v": "1"}))

        def look(current: Record | None, head: Head) -> Put | Remove | Keep:
            seen.append((plain(current), plain(head.get(key("a"))), head.rv))
            return Keep()

        await store.append(operation(key("a"), look))
        expected = plain(store.get(key("a")))
        assert seen[-1] == (expected, expected, 1)


class TestSeeingTheBatch:
    async def test_each_operation_sees_the_revision_before_it(self, store: EventLog) -> None:
        seen: list[int] = []

        def write(current: Record | None, head: Head) -> Put | Remove | Keep:
            seen.append(head.rv)
            return put_value(build(key(f"a{head.rv}"), f"u{head.rv}"))

        await store.append_all([operation(key(f"a{i}"), write) for i in range(4)])
        assert seen[-4:] == [0, 1, 2, 3]

    async def test_what_was_deleted_is_gone_and_what_is_new_is_there(self, store: EventLog) -> None:
        seen: list[Any] = []

        def look(current: Record | None, head: Head) -> Put | Remove | Keep:
            new = head.get(key("new"))
            seen.append((head.get(key("old")), new and (new.rv, new.value["data"])))
            return Keep()

        await store.append(create(key("old")))
        await store.append_all(
            [delete(key("old")), create(key("new"), data={"v": "1"}), operation(key("x"), look)]
        )
        assert seen[-1] == (None, (3, {"v": "1"}))

    async def test_a_failed_operation_is_not_seen(self, store: EventLog) -> None:
        seen: list[list[str]] = []

        def look(current: Record | None, head: Head) -> Put | Remove | Keep:
            seen.append(names(head.list("configmaps")))
            return Keep()

        await store.append_all(
            [
                create(key("a")),
                create(key("a")),
                create(key("big"), data={"v": "x" * MAX_BODY_BYTES}),
                operation(key("x"), look),
            ]
        )
        assert seen[-1] == ["default/a"]

    async def test_other_resources_are_seen(self, store: EventLog) -> None:
        seen: list[Any] = []

        def look(current: Record | None, head: Head) -> Put | Remove | Keep:
            seen.append((names(head.list("nodes")), names(head.list("pods")), names(head.list("secrets"))))
            return Keep()

        await store.append(create(key("n1", resource="nodes")))
        await store.append_all(
            [
                create(key("n0", resource="nodes")),
                create(key("p", resource="pods")),
                operation(key("x"), look),
            ]
        )
        assert seen[-1] == (["n0", "n1"], ["default/p"], [])

    async def test_a_name_used_again_is_seen_as_its_new_life(self, store: EventLog) -> None:
        seen: list[Any] = []

        def look(current: Record | None, head: Head) -> Put | Remove | Keep:
            seen.append([(r.oid, r.rv) for r in head.list("configmaps")])
            return Keep()

        await store.append_all([create(key("a")), create(key("b"))])
        await store.append_all(
            [delete(key("a")), create(key("a")), update(key("b")), operation(key("x"), look)]
        )
        assert seen[-1] == [(4, 4), (2, 5)]

    async def test_what_is_seen_before_the_commit_is_not_published(self, store: EventLog) -> None:
        seen: list[Any] = []

        def look(current: Record | None, head: Head) -> Put | Remove | Keep:
            seen.append((store.get(key("a")), store.rv))
            return Keep()

        await store.append_all([create(key("a")), operation(key("x"), look)])
        assert seen[-1] == (None, 0) and store.get(key("a")) is not None

    async def test_a_quota_is_never_exceeded(self, store: EventLog) -> None:
        def within(name: str) -> Operation:
            def change(current: Record | None, head: Head) -> Put | Remove | Keep:
                if len(head.list("configmaps", "default")) >= 7:
                    raise Invalid("exceeded quota")
                return put_value(build(key(name), f"u-{name}"))

            return operation(key(name), change)

        results = await asyncio.gather(
            *[store.append(within(f"a{i}")) for i in range(40)], return_exceptions=True
        )
        assert sum(isinstance(result, Committed) for result in results) == 7
        assert len(store.list("configmaps")) == 7

    async def test_a_number_is_given_out_once(self, store: EventLog) -> None:
        def allocate(name: str) -> Operation:
            def change(current: Record | None, head: Head) -> Put | Remove | Keep:
                taken = {r.value["data"]["port"] for r in head.list("configmaps")}
                free = next(str(port) for port in range(100) if str(port) not in taken)
                return put_value(build(key(name), f"u-{name}", data={"port": free}))

            return operation(key(name), change)

        await asyncio.gather(*[store.append(allocate(f"a{i:02}")) for i in range(50)])
        given = sorted(int(r.value["data"]["port"]) for r in store.list("configmaps"))
        assert given == list(range(50))


class TestTransactions:
    async def test_all_of_it_is_heard_at_once(self, store: EventLog) -> None:
        heard = Heard()
        store.listen(heard)
        await store.append_all([create(key("a")), create(key("b")), delete(key("a"))], atomic=True)
        assert heard.batches == [3]

    async def test_outcomes_that_write_nothing_are_no_failures(self, store: EventLog) -> None:
        outcomes = await store.append_all(
            [
                operation(key("x"), lambda current, head: Keep()),
                create(key("a")),
                operation(key("y"), lambda current, head: Remove()),
            ],
            atomic=True,
        )
        assert [(o.op, o.rv) for o in outcomes if isinstance(o, Committed)] == [
            (None, 0),
            (Op.ADDED, 1),
            (None, 1),
        ]

    async def test_one_that_fails_takes_no_revision_from_its_neighbours(self, store: EventLog) -> None:
        failing = [create(key("x")), create(key("y")), update(key("missing"))]
        results = await asyncio.gather(
            store.append(create(key("a"))),
            store.append_all(failing, atomic=True),
            store.append(create(key("b"))),
        )
        first, undone, second = results
        assert (first.rv, second.rv, store.rv) == (1, 2, 2)
        assert {type(outcome) for outcome in undone} == {NotFound}

    async def test_a_name_may_change_lives_within_one(self, store: EventLog) -> None:
        await store.append(create(key("a"), uid="u1"))
        outcomes = await store.append_all([delete(key("a")), create(key("a"), uid="u2")], atomic=True)
        assert [o.rv for o in outcomes if isinstance(o, Committed)] == [2, 3]
        record = store.get(key("a"))
        assert record is not None and (record.uid, record.oid) == ("u2", 3)

    async def test_undoing_gives_back_the_life_that_was_ended(self, store: EventLog) -> None:
        before = plain((await store.append(create(key("a"), uid="u1", data={"v": "1"}))).record)
        await store.append_all(
            [delete(key("a")), create(key("a"), uid="u2"), update(key("missing"))], atomic=True
        )
        assert plain(store.get(key("a"))) == before and plain(await store.get_at(key("a"), 1)) == before
        assert [told(event)[:2] for event in await store.events_since(0)] == [(1, Op.ADDED)]

    async def test_one_larger_than_a_batch_stays_whole(self, store: EventLog) -> None:
        outcomes = await store.append_all(
            [*[create(key(f"a{i:03}")) for i in range(600)], update(key("missing"))], atomic=True
        )
        assert len(outcomes) == 601 and store.rv == 0
        assert list(store.list("configmaps")) == []

    async def test_a_body_too_large_undoes_all(self, store: EventLog) -> None:
        outcomes = await store.append_all(
            [create(key("a")), create(key("b"), data={"v": "x" * MAX_BODY_BYTES})], atomic=True
        )
        assert [type(outcome) for outcome in outcomes] == [TooLarge, TooLarge] and store.rv == 0

    async def test_a_lost_lease_undoes_all(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a")))
        outcomes = await store.append_all(
            [create(key("a")), create(key("b"), fence=Fence(1, 4)), create(key("c"))], atomic=True
        )
        assert [type(outcome) for outcome in outcomes] == [Fenced] * 3 and store.rv == 1

    async def test_later_operations_may_fail_on_earlier_ones(self, store: EventLog) -> None:
        outcomes = await store.append_all([create(key("a")), create(key("a"))], atomic=True)
        assert [type(outcome) for outcome in outcomes] == [AlreadyExists] * 2
        assert store.get(key("a")) is None

    async def test_two_that_meet_are_one_after_the_other(self, store: EventLog) -> None:
        both = [[create(key("a"), uid=by), create(key("b"), uid=by)] for by in ("u1", "u2")]
        results = await asyncio.gather(*[store.append_all(some, atomic=True) for some in both])
        kinds = sorted(tuple(type(outcome).__name__ for outcome in result) for result in results)
        assert kinds == [("AlreadyExists", "AlreadyExists"), ("Committed", "Committed")]
        assert len({r.uid for r in store.list("configmaps")}) == 1

    async def test_the_undone_is_not_told_to_anyone(self, store: EventLog) -> None:
        heard = Heard()
        store.listen(heard)
        await store.append_all([create(key("a")), update(key("missing"))], atomic=True)
        assert heard.events == [] and list(await store.events_since(0)) == []

    async def test_time_goes_on_after_an_undone_one(self, store: EventLog) -> None:
        await store.append(create(key("a")))
        await store.append_all([create(key("b")), update(key("missing"))], atomic=True)
        await store.append(create(key("c")))
        first, second = await store.events_since(0)
        assert first.ts_us < second.ts_us


class TestLimits:
    async def test_the_limit_is_exact(self, store: EventLog) -> None:
        with pytest.raises(TooLarge):
            await store.append(create(key("a"), uid="u", data=sized(MAX_BODY_BYTES + 1)))
        done = await store.append(create(key("a"), uid="u", data=sized(MAX_BODY_BYTES)))
        assert done.rv == 1 and done.record is not None
        assert len(done.record.document.encoded) > MAX_BODY_BYTES

    async def test_the_limit_counts_bytes_and_not_letters(self, store: EventLog) -> None:
        fits = sized(MAX_BODY_BYTES, "é")
        assert len(fits["v"]) < MAX_BODY_BYTES * 0.6
        await store.append(create(key("a"), uid="u", data=fits))
        with pytest.raises(TooLarge):
            await store.append(update(key("a"), data={"v": fits["v"] + "é"}))

    async def test_the_largest_object_comes_back_whole(self, store: EventLog) -> None:
        done = await store.append(create(key("a"), uid="u", data=sized(MAX_BODY_BYTES)))
        await store.append(update(key("a"), data={}))
        assert plain(await store.get_at(key("a"), 1)) == plain(done.record)

    async def test_an_update_that_is_too_large_leaves_what_was_there(self, store: EventLog) -> None:
        await store.append(create(key("a"), data={"v": "1"}))
        with pytest.raises(TooLarge):
            await store.append(update(key("a"), data={"v": "x" * MAX_BODY_BYTES}))
        record = store.get(key("a"))
        assert record is not None and (record.rv, record.value["data"]) == (1, {"v": "1"})

    async def test_one_that_is_too_large_fails_alone(self, store: EventLog) -> None:
        outcomes = await store.append_all(
            [create(key("a")), create(key("b"), data={"v": "x" * MAX_BODY_BYTES}), create(key("c"))]
        )
        assert [type(outcome) for outcome in outcomes] == [Committed, TooLarge, Committed]
        assert names(store.list("configmaps")) == ["default/a", "default/c"]

    async def test_many_large_objects_at_once_keep_their_order(self, store: EventLog) -> None:
        results = await asyncio.gather(
            *[store.append(create(key(f"a{i}"), data={"v": "x" * 1_000_000})) for i in range(9)]
        )
        assert [result.rv for result in results] == list(range(1, 10))

    @pytest.mark.parametrize(
        "cause", [Cause(SYSTEM, "\ud800"), Cause(Actor("\udfff")), Cause(SYSTEM, "r", 2**63)]
    )
    async def test_what_no_engine_can_keep_harms_nobody_else(self, store: EventLog, cause: Cause) -> None:
        """The memory keeps it; a table refuses it, and those that came with it are written all the same."""
        odd, together, later = await asyncio.gather(
            store.append(create(key("odd"), cause=cause)),
            store.append(create(key("together"))),
            store.append_all([create(key("later"))], atomic=True),
            return_exceptions=True,
        )
        assert isinstance(together, Committed) and not isinstance(later, BaseException)
        assert isinstance(odd, (Committed, StoreError))
        if isinstance(odd, StoreError):
            assert str(odd).startswith("cannot be stored: ") and store.get(key("odd")) is None
        assert (await store.append(create(key("after")))).rv == store.rv
        assert len(await store.events_since(0)) == store.rv

    async def test_what_no_engine_can_keep_undoes_its_own_transaction_only(self, store: EventLog) -> None:
        odd, together = await asyncio.gather(
            store.append_all(
                [create(key("a")), create(key("b"), cause=Cause(SYSTEM, "\ud800"))], atomic=True
            ),
            store.append(create(key("c"))),
        )
        assert isinstance(together, Committed)
        assert len({type(outcome) for outcome in odd}) == 1
        assert (
            (store.get(key("a")) is None) == (store.get(key("b")) is None) == isinstance(odd[0], StoreError)
        )

    async def test_a_lone_surrogate_is_no_text_of_an_object(self, store: EventLog) -> None:
        outcomes = await asyncio.gather(
            store.append(create(key("a"), data={"v": "\ud800"})),
            store.append(create(key("b"))),
            return_exceptions=True,
        )
        assert isinstance(outcomes[0], TypeError) and isinstance(outcomes[1], Committed)
