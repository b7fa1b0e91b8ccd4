from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import pytest

from kcp.base.clock import LoopClock
from kcp.base.entropy import SeededEntropy
from kcp.client.leader_election import LEASES, LeaderElector, Timing
from kcp.machinery.errors import ServiceUnavailable
from kcp.machinery.fence import LeaseFence
from tests.client.support import client_of
from tests.support.fake_api import FakeApi

pytestmark = pytest.mark.sim


def candidate(api: FakeApi, identity: str, **options: object) -> LeaderElector:
    return LeaderElector(
        client_of(api),
        "kube-system",
        "kube-scheduler",
        identity,
        clock=LoopClock(),
        entropy=SeededEntropy(1).stream(identity),
        **options,  # type: ignore[arg-type]
    )


def lease_spec(api: FakeApi) -> dict[str, object]:
    return api.objects[LEASES]["kube-system/kube-scheduler"].value["spec"]  # type: ignore[no-any-return]


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[float, str]] = []

    def lead(self, who: str) -> Callable[[], Awaitable[None]]:
        async def lead() -> None:
            self.note(f"{who} leads")
            try:
                await anyio.sleep_forever()
            finally:
                self.note(f"{who} stops")

        return lead

    def note(self, line: str) -> None:
        self.lines.append((anyio.current_time(), line))

    def take(self) -> list[str]:
        lines, self.lines = [line for _, line in self.lines], []
        return lines


async def test_the_first_leads_and_releases_so_that_the_next_follows_at_once() -> None:
    api, log = FakeApi(), Log()
    first, second = candidate(api, "first"), candidate(api, "second")
    async with anyio.create_task_group() as group:
        scope = anyio.CancelScope()

        async def run_first() -> None:
            with scope:
                await first.run(log.lead("first"))

        group.start_soon(run_first)
        await anyio.sleep(5)
        group.start_soon(second.run, log.lead("second"))
        await anyio.sleep(60)
        assert log.take() == ["first leads"]
        assert (second.leading, second.leader) == (False, "first")
        assert lease_spec(api)["leaseTransitions"] == 0
        before = anyio.current_time()
        scope.cancel()
        await anyio.sleep(6)
        assert log.lines[-1][0] - before < 2 * 2.2
        assert log.take() == ["first stops", "second leads"]
        assert lease_spec(api)["leaseTransitions"] == 1
        group.cancel_scope.cancel()
    assert lease_spec(api)["holderIdentity"] == ""


async def test_a_leader_that_cannot_renew_stops_before_another_starts() -> None:
    api, log = FakeApi(), Log()
    cut_off = False

    first = candidate(api, "first")
    attempt = first.try_acquire_or_renew

    async def cut() -> bool:
        return False if cut_off else await attempt()

    first.try_acquire_or_renew = cut  # type: ignore[method-assign]
    second = candidate(api, "second")
    async with anyio.create_task_group() as group:
        group.start_soon(first.run, log.lead("first"))
        await anyio.sleep(1)
        group.start_soon(second.run, log.lead("second"))
        await anyio.sleep(30)
        cut_off = True
        first._release = anyio.lowlevel.checkpoint  # type: ignore[method-assign]
        await anyio.sleep(30)
        group.cancel_scope.cancel()
    times = {line: at for at, line in log.lines}
    assert times["first stops"] < times["second leads"]
    assert 10 <= times["first stops"] - 31 <= 14
    assert lease_spec(api)["leaseTransitions"] == 1


async def test_only_changes_seen_on_the_local_clock_count_not_the_times_in_the_record() -> None:
    api = FakeApi()
    spec = {
        "holderIdentity": "other",
        "leaseDurationSeconds": 15,
        "renewTime": "1999-01-01T00:00:00.000000Z",
        "leaseTransitions": 4,
    }
    api.put(LEASES, {"metadata": {"name": "kube-scheduler", "namespace": "kube-system"}, "spec": spec})
    elector = candidate(api, "me")
    assert not await elector.try_acquire_or_renew()
    await anyio.sleep(14.9)
    assert not await elector.try_acquire_or_renew()
    await anyio.sleep(0.2)
    assert await elector.try_acquire_or_renew()
    assert lease_spec(api)["leaseTransitions"] == 5


async def test_a_renewal_is_one_update_without_a_read() -> None:
    api = FakeApi()
    elector = candidate(api, "me")
    assert await elector.try_acquire_or_renew()
    before = len(api.requests)
    assert await elector.try_acquire_or_renew()
    assert [request.method for request in api.requests[before:]] == ["PUT"]
    api.put(
        LEASES, {"metadata": {"name": "kube-scheduler", "namespace": "kube-system", "labels": {"a": "b"}}}
    )
    before = len(api.requests)
    assert await elector.try_acquire_or_renew(), "someone else wrote: it reads and tries again"
    assert [request.method for request in api.requests[before:]] == ["PUT", "GET", "PUT"]


async def test_the_fence_names_the_lease_and_the_epoch_while_leading_only() -> None:
    api = FakeApi()
    elector = candidate(api, "me")
    seen: list[LeaseFence | None] = [elector.fence()]

    async def lead() -> None:
        seen.append(elector.fence())

    await elector.run(lead)
    seen.append(elector.fence())
    assert seen == [None, LeaseFence("kube-system", "kube-scheduler", "uid-1", "me", 0), None]
    await elector.run(lead)
    assert seen[-1] is not None
    assert seen[-1].epoch == 1, "after a release the next term is a new epoch, for the same identity too"


async def test_failures_of_the_server_are_waited_out() -> None:
    api, leaders = FakeApi(), list[str]()
    api.faults.extend([ServiceUnavailable("starting")] * 3)
    elector = candidate(api, "me", on_new_leader=leaders.append)

    async def lead() -> None:
        assert elector.leading

    await elector.run(lead)
    assert leaders == ["me"]


def test_timings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="leaseDuration must be greater than renewDeadline"):
        Timing(10, 10, 2)
    with pytest.raises(ValueError, match=r"renewDeadline must be greater than retryPeriod\*JitterFactor"):
        Timing(15, 2.4, 2)


async def test_a_lease_whose_version_moved_on_is_released_all_the_same() -> None:
    """A renewal may be stored although its leader ended before it heard so."""
    api, log = FakeApi(), Log()
    first = candidate(api, "first")
    async with anyio.create_task_group() as group:
        scope = anyio.CancelScope()

        async def run_first() -> None:
            with scope:
                await first.run(log.lead("first"))

        group.start_soon(run_first)
        await anyio.sleep(5)
        api.put(LEASES, api.objects[LEASES]["kube-system/kube-scheduler"].value)
        scope.cancel()
        await anyio.sleep(1)
        assert log.take() == ["first leads", "first stops"]
        assert lease_spec(api)["holderIdentity"] == ""


async def test_a_lease_that_another_one_took_meanwhile_is_left_alone() -> None:
    api, log = FakeApi(), Log()
    first = candidate(api, "first")
    async with anyio.create_task_group() as group:
        scope = anyio.CancelScope()

        async def run_first() -> None:
            with scope:
                await first.run(log.lead("first"))

        group.start_soon(run_first)
        await anyio.sleep(5)
        lease = api.objects[LEASES]["kube-system/kube-scheduler"].value
        api.put(LEASES, {**lease, "spec": {**lease["spec"], "holderIdentity": "second"}})
        scope.cancel()
        await anyio.sleep(1)
        assert lease_spec(api)["holderIdentity"] == "second"
