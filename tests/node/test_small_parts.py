"""Timers, the work loop, addresses, admission, status patches: the parts without a cluster."""

from __future__ import annotations

from typing import Any

import anyio
import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcp.base.background import Background
from kcp.base.clock import LoopClock, VirtualClock
from kcp.base.ipam import AlreadyAllocated, OutOfRange, RangeFull
from kcp.node.addresses import AddressPool
from kcp.node.admit import Room, admit, ports_conflict
from kcp.node.probes import ContainerProbes
from kcp.node.runtime.faults import HANG_S, faults_of
from kcp.node.runtime.protocol import ProbeOutcome
from kcp.node.status_writer import same_status, status_patch
from kcp.node.timers import Timers
from kcp.node.work_loop import WorkLoop
from tests.support.background import running
from tests.support.builders import node, pod


@pytest.mark.sim
async def test_timers_fire_in_order_of_time_then_of_setting() -> None:
    timers, fired = Timers(LoopClock()), []  # type: Timers, list[str]
    async with running(timers.run):
        for delay, name in ((3, "c"), (1, "a"), (1, "b"), (2, "never")):
            timer = timers.after(delay, lambda name=name: fired.append(name))  # type: ignore[misc]
            if name == "never":
                timer.cancel()
        await anyio.sleep(2.5)
        assert fired == ["a", "b"]
        await anyio.sleep(1)
        assert fired == ["a", "b", "c"]


@pytest.mark.sim
async def test_a_timer_set_later_may_fire_sooner_and_a_failing_one_harms_nobody() -> None:
    timers, fired = Timers(LoopClock()), []  # type: Timers, list[str]
    async with running(timers.run):
        timers.after(100, lambda: fired.append("late"))
        await anyio.sleep(1)
        timers.after(1, lambda: fired.append("soon"))
        await anyio.sleep(2)
        assert fired == ["soon"]
        assert len(timers) == 1


def test_cancelled_timers_do_not_pile_up() -> None:
    timers = Timers(VirtualClock())
    for _ in range(10_000):
        timers.after(3600, lambda: None).cancel()
    assert len(timers) < 2_000


@attrs.define(eq=False)
class Machine:
    """Counts its steps, and fails if two of them overlap."""

    steps: int = 0
    inside: bool = False
    queued: bool = False
    busy: bool = False
    again: bool = False

    async def step(self) -> None:
        assert not self.inside
        self.inside = True
        await anyio.sleep(1)
        self.inside = False
        self.steps += 1


@pytest.mark.sim
async def test_an_item_never_steps_twice_at_a_time_and_no_wish_is_lost() -> None:
    loop = WorkLoop("test", tasks=3)
    machines = [Machine() for _ in range(5)]
    async with running(loop.run):
        for machine in machines:
            loop.add(machine)
            loop.add(machine)
        await anyio.sleep(0.5)
        for machine in machines[:3]:
            loop.add(machine)
            loop.add(machine)
        await anyio.sleep(10)
        assert [machine.steps for machine in machines] == [2, 2, 2, 1, 1]


@pytest.mark.sim
async def test_steps_give_way_to_what_cannot_wait() -> None:
    busy = True
    background = Background(LoopClock(), lambda: busy)
    loop = WorkLoop("test", tasks=1, background=background)
    machines = [Machine() for _ in range(24)]
    async with running(loop.run):
        for machine in machines:
            loop.add(machine)
        await anyio.sleep(8.05)
        assert sum(machine.steps for machine in machines) == 8
        await anyio.sleep(0.06)
        assert [machine.inside for machine in machines].count(True) == 1, "the pause is over"
        busy = False
        await anyio.sleep(16)
        assert [machine.steps for machine in machines] == [1] * 24


@given(st.lists(st.one_of(st.just("take"), st.integers(0, 20)), max_size=60))
def test_addresses_are_held_once(steps: list[Any]) -> None:
    pool, held = AddressPool("10.1.2.0/28"), []  # type: AddressPool, list[str]
    for step in steps:
        if step == "take" and pool.free:
            ip = pool.take()
            assert ip not in held
            held.append(ip)
        elif step != "take" and held:
            pool.release(held.pop(step % len(held)))
    assert pool.free == 13 - len(held)


def test_an_address_can_be_claimed_once() -> None:
    pool = AddressPool("10.1.2.0/29")
    pool.claim("10.1.2.4")
    with pytest.raises(AlreadyAllocated):
        pool.claim("10.1.2.4")
    with pytest.raises(OutOfRange):
        pool.claim("10.9.9.9")
    assert [pool.take() for _ in range(pool.free)] == ["10.1.2.5", "10.1.2.6", "10.1.2.2", "10.1.2.3"]
    with pytest.raises(RangeFull):
        pool.take()


def test_after_a_restart_an_address_that_was_just_freed_rests() -> None:
    pool = AddressPool("10.1.2.0/28")
    for ip in ("10.1.2.4", "10.1.2.8", "10.1.2.3"):
        pool.claim(ip)
    pool.release("10.1.2.4")
    assert [pool.take() for _ in range(3)] == ["10.1.2.9", "10.1.2.10", "10.1.2.11"]


def refusal(of: dict[str, Any], on: dict[str, Any], **amounts: int) -> tuple[str, str] | None:
    found = admit(of, on, Room({"cpu": 4000, "memory": 100, "pods": 2}, {"cpu": 1000}, 1), amounts, ())
    return None if found is None else (found.reason, found.message)


def test_admission_names_the_first_reason() -> None:
    on = node("n", labels={"disk": "ssd"})
    assert refusal(pod("p"), on, cpu=3000) is None
    assert refusal(pod("p"), on, cpu=3001, memory=200) == (
        "OutOfcpu",
        "Node didn't have enough resource: cpu, requested: 3001, used: 1000, capacity: 4000",
    )
    assert refusal(pod("p", spec={"nodeSelector": {"disk": "hdd"}}), on) == (
        "NodeAffinity",
        "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
    )
    tainted = node("n", taints=[{"key": "k", "effect": "NoExecute"}])
    assert (refusal(pod("p"), tainted) or ("",))[0] == "TaintToleration"
    assert refusal(pod("p"), node("n", taints=[{"key": "k", "effect": "NoSchedule"}])) is None
    assert (refusal(pod("p", spec={"os": {"name": "windows"}}), on) or ("",))[0] == "PodOSNotSupported"


def test_the_pod_limit_of_a_node() -> None:
    found = admit(pod("p"), node("n"), Room({"pods": 1}, {}, 1), {}, ())
    assert found is not None
    assert found.reason == "OutOfpods"


@pytest.mark.parametrize(
    ("one", "other", "conflict"),
    [
        (("0.0.0.0", "TCP", 80), ("10.0.0.1", "TCP", 80), True),
        (("10.0.0.2", "TCP", 80), ("10.0.0.1", "TCP", 80), False),
        (("0.0.0.0", "UDP", 80), ("0.0.0.0", "TCP", 80), False),
        (("10.0.0.1", "TCP", 80), ("10.0.0.1", "TCP", 80), True),
    ],
)
def test_host_ports(one: Any, other: Any, conflict: bool) -> None:
    assert ports_conflict(one, {other: 1}) is conflict


def test_a_probe_changes_its_result_at_its_threshold() -> None:
    container = {"name": "c", "livenessProbe": {"failureThreshold": 2, "periodSeconds": 5}}
    probes = ContainerProbes.of(container, 100.0)
    assert probes is not None
    (probe,) = probes.probes
    assert (probe.passed, probes.next_due_s()) == (True, 100.0)
    probe.record(ProbeOutcome(False), 100.0)
    assert (probes.failed, probe.due_s) == (None, 105.0)
    probe.record(ProbeOutcome(False), 105.0)
    assert probes.failed is probe


def test_a_startup_probe_gates_readiness() -> None:
    probes = ContainerProbes.of({"name": "c", "startupProbe": {}, "readinessProbe": {}}, 0.0)
    assert probes is not None
    assert [probe.kind for probe in probes.active()] == ["startup"]
    probes.probes[0].record(ProbeOutcome(True, steady=True), 1.0)
    assert [probe.kind for probe in probes.active()] == ["readiness"]
    assert (probes.started, probes.ready) == (True, False)


def test_faults_are_read_from_annotations() -> None:
    assert faults_of({"other": "x"}) is None
    faults = faults_of(
        {
            "sim.kcp/exit.a": "3@5s*2",
            "sim.kcp/pull": "hang",
            "sim.kcp/stop.a": "2s",
            "sim.kcp/readiness.a": "fail,pass@10s",
            "sim.kcp/sandbox": "nonsense",
        }
    )
    assert faults is not None
    ends = [faults.end("a") for _ in range(3)]
    assert [(end.exit_code, end.after_s) if end else None for end in ends] == [(3, 5.0), (3, 5.0), None]
    pull = faults.trouble("pull", "b")
    assert pull is not None and pull.takes_s == HANG_S
    assert (faults.stop_s("a"), faults.stop_s("b")) == (2.0, 0.0)
    assert (faults.answer("readiness", "a", 3), faults.answer("readiness", "a", 11)) == (
        (False, False),
        (True, True),
    )
    assert faults.trouble("sandbox") is None


def test_a_status_patch_clears_what_no_longer_holds() -> None:
    seen = {
        "phase": "Pending",
        "reason": "Old",
        "conditions": [
            {"type": "PodResizePending", "status": "True"},
            {"type": "example.com/gate", "status": "True"},
        ],
        "podIPs": [{"ip": "10.0.0.1"}],
    }
    status = {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
        "podIPs": [{"ip": "10.0.0.2"}],
    }
    patch = status_patch("u", status, seen)
    assert patch["metadata"] == {"uid": "u"}
    assert patch["status"]["reason"] is None
    assert {"type": "PodResizePending", "$patch": "delete"} in patch["status"]["conditions"]
    assert patch["status"]["podIPs"] == [{"ip": "10.0.0.2"}, {"$patch": "replace"}]
    assert not same_status(status, seen)
    assert same_status(
        status, {**status, "conditions": [*status["conditions"], {"type": "x", "status": "False"}]}
    )
