"""Which controller did what while which fault was about."""

from __future__ import annotations

from kcp.base.clock import EPOCH_OF_SIMULATION, VirtualClock, microseconds
from kcp.replay.coverage import Total, covered
from kcp.replay.faults import Faults
from kcp.store.protocol import Decision


def decided(at_s: float, controller: str, *effects: str) -> Decision:
    return Decision(
        id=1,
        controller=controller,
        key="default/web",
        trigger="event",
        frontier={},
        now_us=microseconds(EPOCH_OF_SIMULATION) + round(at_s * 1e6),
        effects=[{"kind": kind, "resource": "pods"} for kind in effects],
        memo_before=None,
        code_hash="",
        config_hash="",
    )


def faults(*keys: str) -> Faults:
    made = Faults(1, {}, VirtualClock())
    made.start()
    made.fired = dict.fromkeys(keys, 1)
    return made


def test_a_fault_counts_for_the_component_that_it_hit_while_it_lasted() -> None:
    hit = faults("watch-delay/job-controller/pods/3")
    assert covered([decided(6.5, "job-controller", "Create")], hit).combinations == {
        ("job-controller", "watch-delay", "Create pods")
    }
    assert not covered([decided(9.5, "job-controller", "Create")], hit).combinations
    assert not covered([decided(6.5, "ttl-controller", "Create")], hit).combinations


def test_the_caches_of_all_controllers_and_the_log_are_everybodys() -> None:
    for key in (
        "watch-cut/kube-controller-manager/pods/3",
        "store-slow/store//1",
        "restart/kube-controller-manager@2//0",
    ):
        assert covered([decided(6.5, "job-controller", "Create")], faults(key)).combinations, key


def test_decisions_without_effects_do_not_count() -> None:
    coverage = covered([decided(1, "a", "Create"), decided(2, "a")], faults())
    assert coverage.controllers == (("a", 1),)


def test_a_total_counts_each_combination_and_each_log_once() -> None:
    coverage = covered([decided(6.5, "a", "Create", "Delete")], faults("store-slow/store//1"))
    total = Total()
    for digest in ("x", "x", "y"):
        total.add(coverage, digest)
    assert (
        str(total) == "2 distinct logs; 1 controllers acted; 2 combinations of controller, fault and effect"
    )
