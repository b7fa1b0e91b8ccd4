"""What every event log promises of Leases, their epochs, and the fences of leaders."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from kcp.base.clock import VirtualClock
from kcp.machinery.errors import Conflict
from kcp.store import check
from kcp.store.log import EventLog
from kcp.store.protocol import (
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
)
from tests.contracts.conftest import Engine
from tests.store.changes import (
    Heard,
    create,
    delete,
    key,
    lease_spec,
    plain,
    update,
)

LEASE = key("leader", "kube-system", "leases.coordination.k8s.io")


class TestLeases:
    async def test_a_renewal_takes_a_revision_and_no_event_row(self, store: EventLog) -> None:
        heard = Heard()
        store.listen(heard)
        await store.append(create(LEASE, spec=lease_spec("a", renewTime="1")))
        renewed = await store.append(update(LEASE, renewal=True, spec=lease_spec("a", renewTime="2")))
        assert renewed.op is Op.RENEWED and renewed.rv == 2 and store.rv == 2
        record = store.get(LEASE)
        assert record is not None and record.rv == 2 and record.value["spec"]["renewTime"] == "2"
        assert [e.op for e in heard.events] == [Op.ADDED, Op.RENEWED]

    async def test_renewals_are_merged_into_the_newest_state(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a", renewTime="1")))
        for i in range(2, 6):
            await store.append(update(LEASE, renewal=True, spec=lease_spec("a", renewTime=str(i))))
        await store.append(create(key("other")))
        events = await store.events_since(0)
        assert [(e.rv, e.op) for e in events] == [(1, Op.ADDED), (5, Op.RENEWED), (6, Op.ADDED)]
        assert events[1].record.value["spec"]["renewTime"] == "5"
        assert [e.rv for e in await store.events_since(1, limit=1)] == [5]
        assert [e.rv for e in await store.events_since(0, until=4)] == [1]
        assert [e.rv for e in await store.events_since(0, resources=["configmaps"])] == [6]

    async def test_a_renewal_that_names_another_holder_is_an_ordinary_change(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a")))
        done = await store.append(update(LEASE, renewal=True, spec=lease_spec("b")))
        assert done.op is Op.MODIFIED
        assert [e.op for e in await store.events_since(0)] == [Op.ADDED, Op.MODIFIED]

    async def test_only_leases_are_renewed(self, store: EventLog) -> None:
        await store.append(create(key("a")))
        done = await store.append(update(key("a"), renewal=True, data={"x": "1"}))
        assert done.op is Op.MODIFIED and len(await store.events_since(0)) == 2

    async def test_the_revision_of_a_renewal_is_the_precondition_of_the_next(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a")))
        await store.append(update(LEASE, rv=1, renewal=True, spec=lease_spec("a")))
        with pytest.raises(Conflict):
            await store.append(update(LEASE, rv=1, renewal=True, spec=lease_spec("a")))
        await store.append(update(LEASE, rv=2, renewal=True, spec=lease_spec("a")))

    async def test_epochs(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a")))
        epochs = []
        for holder in ("a", "b", "", "b", "b", "", "", "a"):
            await store.append(update(LEASE, renewal=True, spec=lease_spec(holder)))
            found = store.lease_epoch(LEASE)
            assert found is not None and found[0] == 1
            epochs.append(found[1])
        assert epochs == [0, 1, 1, 2, 2, 2, 2, 3]

    async def test_epoch_of_nothing(self, store: EventLog) -> None:
        assert store.lease_epoch(LEASE) is None
        await store.append(create(key("a")))
        assert store.lease_epoch(key("a")) is None

    async def test_a_deleted_lease_shows_its_last_renewal(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a", renewTime="1")))
        await store.append(update(LEASE, renewal=True, spec=lease_spec("a", renewTime="2")))
        done = await store.append(delete(LEASE))
        assert done.record is not None and done.record.value["spec"]["renewTime"] == "2"
        await store.append(create(key("a")))
        deleted = (await store.events_since(2))[0]
        assert deleted.op is Op.DELETED and plain(deleted.record) == plain(done.record)
        assert store.lease_epoch(LEASE) is None

    async def test_a_lease_in_the_past(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a", renewTime="1")))
        await store.append(update(LEASE, renewal=True, spec=lease_spec("a", renewTime="2")))
        renewed = await store.append(update(LEASE, renewal=True, spec=lease_spec("a", renewTime="3")))
        await store.append(create(key("a")))
        at_two = await store.get_at(LEASE, 2)
        assert at_two is not None and (at_two.rv, at_two.value["spec"]["renewTime"]) == (1, "1")
        assert plain(await store.get_at(LEASE, 3)) == plain(renewed.record)
        listed = await store.list_at("leases.coordination.k8s.io", 3)
        assert [plain(record) for record in listed] == [plain(renewed.record)]

    async def test_a_leader_writes_with_its_fence(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a")))
        done = await store.append(create(key("a"), fence=Fence(1, 0)))
        assert done.rv == 2

    @pytest.mark.parametrize(
        "after", [update(LEASE, spec=lease_spec("b")), update(LEASE, spec=lease_spec("")), delete(LEASE)]
    )
    async def test_an_ex_leader_is_fenced(self, store: EventLog, after: Any) -> None:
        await store.append(create(LEASE, spec=lease_spec("a")))
        await store.append(after)
        with pytest.raises(Fenced):
            await store.append(create(key("a"), fence=Fence(1, 0)))
        assert store.get(key("a")) is None

    async def test_a_lease_made_anew_does_not_revive_a_fence(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a")))
        await store.append_all([delete(LEASE), create(LEASE, spec=lease_spec("b"))])
        with pytest.raises(Fenced):
            await store.append(create(key("a"), fence=Fence(1, 0)))

    async def test_a_fence_sees_the_takeover_of_the_same_batch(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a")))
        outcomes = await store.append_all(
            [
                create(key("before"), fence=Fence(1, 0)),
                update(LEASE, spec=lease_spec("b")),
                create(key("old"), fence=Fence(1, 0)),
                create(key("new"), fence=Fence(1, 1)),
            ]
        )
        assert [type(o) for o in outcomes] == [Committed, Committed, Fenced, Committed]


def epoch_of(store: EventLog) -> int:
    found = store.lease_epoch(LEASE)
    assert found is not None
    return found[1]


def acquire(identity: str, seen_rv: int) -> Operation:
    """Take the Lease as an elector does: by compare-and-set on what it saw."""
    return update(LEASE, rv=seen_rv, spec=lease_spec(identity))


class TestTheLifeOfALease:
    """Each row of the table in kcp/store/leases.py."""

    async def test_created(self, store: EventLog) -> None:
        done = await store.append(create(LEASE, spec=lease_spec("a")))
        assert (done.rv, done.op, epoch_of(store)) == (1, Op.ADDED, 0)
        assert [(e.rv, e.op) for e in await store.events_since(0)] == [(1, Op.ADDED)]

    async def test_created_without_a_holder(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("")))
        assert epoch_of(store) == 0
        await store.append(update(LEASE, spec=lease_spec("a")))
        assert epoch_of(store) == 1

    async def test_renewed_with_other_fields_changed(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a")))
        labels = {"labels": {"x": "y"}}
        done = await store.append(
            update(LEASE, renewal=True, metadata=labels, spec=lease_spec("a", leaseTransitions=9))
        )
        assert done.op is Op.RENEWED and epoch_of(store) == 0
        record = store.get(LEASE)
        assert record is not None and record.value["spec"]["leaseTransitions"] == 9
        assert record.value["metadata"]["labels"] == {"x": "y"}

    async def test_written_by_its_holder_without_calling_it_a_renewal(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a")))
        done = await store.append(update(LEASE, spec=lease_spec("a", renewTime="2")))
        assert done.op is Op.MODIFIED and epoch_of(store) == 0
        assert [e.op for e in await store.events_since(0)] == [Op.ADDED, Op.MODIFIED]

    async def test_handed_over(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a")))
        done = await store.append(update(LEASE, spec=lease_spec("b")))
        assert (done.rv, done.op, epoch_of(store)) == (2, Op.MODIFIED, 1)

    async def test_released(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a")))
        done = await store.append(update(LEASE, renewal=True, spec=lease_spec("")))
        assert (done.op, epoch_of(store)) == (Op.MODIFIED, 0)

    async def test_acquired_again_by_the_one_who_released_it(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a")))
        await store.append(update(LEASE, spec=lease_spec("")))
        await store.append(update(LEASE, spec=lease_spec("a")))
        assert epoch_of(store) == 1
        with pytest.raises(Fenced):
            await store.append(create(key("x"), fence=Fence(1, 0)))

    async def test_deleted(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a")))
        await store.append(update(LEASE, renewal=True, spec=lease_spec("a", renewTime="2")))
        done = await store.append(delete(LEASE))
        assert (done.rv, done.op, store.lease_epoch(LEASE)) == (3, Op.DELETED, None)
        assert [(e.rv, e.op) for e in await store.events_since(0)] == [(1, Op.ADDED), (3, Op.DELETED)]

    async def test_made_anew(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a")))
        await store.append(update(LEASE, spec=lease_spec("b")))
        await store.append_all([delete(LEASE), create(LEASE, spec=lease_spec("b"))])
        assert store.lease_epoch(LEASE) == (4, 0)

    async def test_created_and_renewed_in_one_batch(self, store: EventLog) -> None:
        await store.append_all(
            [
                create(LEASE, spec=lease_spec("a")),
                *[update(LEASE, renewal=True, spec=lease_spec("a", renewTime=str(i))) for i in range(5)],
            ]
        )
        assert store.rv == 6 and [e.rv for e in await store.events_since(0)] == [1, 6]

    async def test_renewed_and_deleted_in_one_batch(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a", renewTime="1")))
        await store.append_all(
            [update(LEASE, renewal=True, spec=lease_spec("a", renewTime="2")), delete(LEASE)]
        )
        await store.append(create(key("later")))
        deleted = (await store.events_since(1))[0]
        assert (deleted.rv, deleted.op) == (3, Op.DELETED)
        assert deleted.record.value["spec"]["renewTime"] == "2"
        assert deleted.previous is not None and deleted.previous.rv == 1

    @pytest.mark.parametrize(
        "spec",
        [
            None,
            {},
            {"holderIdentity": None},
            {"holderIdentity": 5},
            {"leaseDurationSeconds": "x"},
            {"holderIdentity": "é\0'"},
        ],
    )
    async def test_with_a_spec_of_any_shape(self, store: EventLog, spec: Any) -> None:
        await store.append(create(LEASE, spec=spec))
        await store.append(update(LEASE, renewal=True, spec=spec))
        assert (store.rv, epoch_of(store)) == (2, 0)
        await store.append(delete(LEASE))
        assert store.lease_epoch(LEASE) is None

    async def test_after_opening_again(self, lasting: Engine) -> None:
        async with lasting.open() as store:
            await store.append(create(LEASE, spec=lease_spec("a", renewTime="0")))
            await store.append(update(LEASE, spec=lease_spec("b", renewTime="1")))
            await store.append(update(LEASE, renewal=True, spec=lease_spec("b", renewTime="2")))
            before = plain(store.get(LEASE))
        async with lasting.open() as store:
            assert plain(store.get(LEASE)) == before and store.lease_epoch(LEASE) == (1, 1)
            done = await store.append(update(LEASE, rv=3, renewal=True, spec=lease_spec("b")))
            assert (done.rv, done.op) == (4, Op.RENEWED)
            await store.append(create(key("x"), fence=Fence(1, 1)))
        assert check.problems(lasting.where) == []


class TestElection:
    async def test_of_candidates_who_saw_it_free_one_wins(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("")))
        results = await asyncio.gather(
            *[store.append(acquire(f"c{i}", 1)) for i in range(8)], return_exceptions=True
        )
        assert sum(isinstance(result, Committed) for result in results) == 1
        assert sum(isinstance(result, Conflict) for result in results) == 7 and epoch_of(store) == 1

    async def test_a_renewal_in_between_saves_the_holder(self, store: EventLog) -> None:
        seen = await store.append(create(LEASE, spec=lease_spec("a")))
        await store.append(update(LEASE, renewal=True, spec=lease_spec("a")))
        with pytest.raises(Conflict):
            await store.append(acquire("b", seen.rv))
        assert epoch_of(store) == 0

    async def test_a_takeover_makes_the_renewal_of_the_old_holder_fail(self, store: EventLog) -> None:
        seen = await store.append(create(LEASE, spec=lease_spec("a")))
        await store.append(acquire("b", seen.rv))
        with pytest.raises(Conflict):
            await store.append(update(LEASE, rv=seen.rv, renewal=True, spec=lease_spec("a")))

    async def test_two_leaders_never_both_commit(self, store: EventLog) -> None:
        """Both write as fast as they can while the Lease goes to and fro: each write falls into its writer's reign."""
        await store.append(create(LEASE, spec=lease_spec("a")))
        written: dict[str, list[int]] = {"a": [], "b": []}

        async def lead(identity: str) -> None:
            for i in range(60):
                epoch = epoch_of(store)
                await asyncio.sleep(0)
                with contextlib.suppress(Fenced):
                    fence = Fence(1, epoch)
                    done = await store.append(
                        create(key(f"{identity}-{i}"), data={"epoch": str(epoch)}, fence=fence)
                    )
                    written[identity].append(done.rv)
                if i % 7 == 0:
                    await store.append(update(LEASE, spec=lease_spec(identity)))

        await asyncio.gather(lead("a"), lead("b"))
        epoch, holder = 0, "a"
        for event in await store.events_since(0):
            if event.key == LEASE:
                new = event.record.value["spec"]["holderIdentity"]
                epoch, holder = epoch + (new != holder), new
            else:
                assert event.record.value["data"]["epoch"] == str(epoch)
        assert epoch > 2 and written["a"] and written["b"]


class TestFences:
    @pytest.mark.parametrize(
        ("after", "words"),
        [
            (delete(LEASE), "the lease 1 is gone"),
            (update(LEASE, spec=lease_spec("")), "the lease 1 has no holder"),
            (update(LEASE, spec=lease_spec("b")), "the lease 1 is at epoch 1, not 0"),
        ],
    )
    async def test_the_reason_is_told(self, store: EventLog, after: Operation, words: str) -> None:
        await store.append(create(LEASE, spec=lease_spec("a")))
        await store.append(after)
        with pytest.raises(Fenced, match=f"^{words}$"):
            await store.append(create(key("x"), fence=Fence(1, 0)))

    async def test_a_lease_that_never_was_fences(self, store: EventLog) -> None:
        with pytest.raises(Fenced):
            await store.append(create(key("x"), fence=Fence(7, 0)))

    async def test_an_object_that_is_no_lease_fences(self, store: EventLog) -> None:
        await store.append(create(key("a"), spec=lease_spec("a")))
        with pytest.raises(Fenced):
            await store.append(create(key("x"), fence=Fence(1, 0)))

    async def test_an_epoch_to_come_fences(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a")))
        with pytest.raises(Fenced):
            await store.append(create(key("x"), fence=Fence(1, 1)))

    async def test_a_fenced_change_is_not_even_asked(self, store: EventLog) -> None:
        def change(current: Record | None, head: Head) -> Put | Remove | Keep:
            raise AssertionError("asked")

        with pytest.raises(Fenced):
            await store.append(Operation(key("x"), change, fence=Fence(1, 0)))

    async def test_a_fenced_operation_fails_alone(self, store: EventLog) -> None:
        outcomes = await store.append_all(
            [create(key("a")), create(key("b"), fence=Fence(9, 0)), create(key("c"))]
        )
        assert [type(outcome) for outcome in outcomes] == [Committed, Fenced, Committed]
        assert store.rv == 2

    async def test_renewals_leave_the_claim_intact(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a")))
        for i in range(3):
            await store.append(update(LEASE, renewal=True, spec=lease_spec("a", renewTime=str(i))))
            await store.append(create(key(f"x{i}"), fence=Fence(1, 0)))
        assert store.rv == 7

    async def test_a_lease_that_ran_out_and_was_not_taken_is_a_claim(self, engine: Engine) -> None:
        """No other leader exists, so nothing is decided twice."""
        clock = VirtualClock()
        async with engine.open(clock) as store:
            await store.append(create(LEASE, spec=lease_spec("a")))
            clock.advance(3600)
            assert (await store.append(create(key("x"), fence=Fence(1, 0)))).rv == 2

    async def test_a_leader_may_write_its_own_lease_under_its_fence(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a")))
        await store.append(update(LEASE, renewal=True, spec=lease_spec("a"), fence=Fence(1, 0)))
        with pytest.raises(Fenced):
            await store.append(update(LEASE, spec=lease_spec("b"), fence=Fence(1, 1)))

    async def test_fences_of_two_leases_do_not_mix(self, store: EventLog) -> None:
        other = key("other", "kube-system", LEASE.resource)
        await store.append_all([create(LEASE, spec=lease_spec("a")), create(other, spec=lease_spec("a"))])
        await store.append(update(other, spec=lease_spec("b")))
        await store.append(create(key("x"), fence=Fence(1, 0)))
        with pytest.raises(Fenced, match="the lease 2"):
            await store.append(create(key("y"), fence=Fence(2, 0)))


class TestLeasesInTheLog:
    async def test_many_are_renewed_at_once(self, store: EventLog) -> None:
        places = [key(f"n{i}", "kube-node-lease", LEASE.resource) for i in range(20)]
        await store.append_all([create(at, spec=lease_spec(at.name)) for at in places])
        for round_ in range(3):
            await asyncio.gather(
                *[
                    store.append(update(at, renewal=True, spec=lease_spec(at.name, renewTime=str(round_))))
                    for at in places
                ]
            )
        events = await store.events_since(20)
        assert len(events) == 20 and {event.op for event in events} == {Op.RENEWED}
        assert [event.rv for event in events] == sorted(event.rv for event in events)
        assert {event.record.value["spec"]["renewTime"] for event in events} == {"2"}

    async def test_a_page_of_events_may_end_at_a_renewal(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a")))
        await store.append(create(key("x")))
        await store.append(update(LEASE, renewal=True, spec=lease_spec("a")))
        await store.append(create(key("y")))
        found: list[int] = []
        while page := await store.events_since(found[-1] if found else 0, limit=1):
            found += [event.rv for event in page]
        assert found == [1, 2, 3, 4]

    async def test_renewals_after_a_change_of_holder_show_it_as_previous(self, store: EventLog) -> None:
        await store.append(create(LEASE, spec=lease_spec("a")))
        await store.append(update(LEASE, renewal=True, spec=lease_spec("a", renewTime="1")))
        await store.append(update(LEASE, spec=lease_spec("b")))
        await store.append(update(LEASE, renewal=True, spec=lease_spec("b", renewTime="2")))
        await store.append(create(key("x")))
        events = await store.events_since(0, resources=[LEASE.resource])
        assert [(e.rv, e.previous and e.previous.rv) for e in events] == [(1, None), (3, 1), (4, 3)]

    async def test_every_revision_is_counted(self, lasting: Engine) -> None:
        async with lasting.open() as store:
            await store.append(create(LEASE, spec=lease_spec("a")))
            for i in range(4):
                await store.append_all(
                    [create(key(f"x{i}")), update(LEASE, renewal=True, spec=lease_spec("a"))]
                )
            assert store.rv == 9
        assert check.problems(lasting.where) == []
