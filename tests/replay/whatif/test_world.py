"""What becomes of pods in a what-if, on arrivals small enough to follow by hand."""

from __future__ import annotations

from typing import Any

from kcp.replay.whatif.machines import Machines
from kcp.replay.whatif.world import World
from tests.replay.whatif.hand_made import SECOND_US, Script, decided

Json = dict[str, Any]
WITHOUT_B = Machines(without=frozenset({"b"}))
NO_EXECUTE = {"key": "broken", "effect": "NoExecute"}


def waited_s(world: World, name: str) -> float:
    return world.slots[name].waited_us / SECOND_US


def is_there(world: World, name: str) -> bool:
    return world.slots[name].shown is not None


def pair() -> Script:
    """Two pods that take a node each, for ten and for five seconds."""
    script = Script().node("a", "1").node("b", "1")
    return script.pod("one", "1", "a", at_s=1, ends_s=11).pod("two", "1", "b", at_s=2, ends_s=7)


def test_a_pod_runs_as_long_as_it_ran_from_its_own_start() -> None:
    arrivals = pair().pod("three", "1", "b", at_s=12, ends_s=13).arrivals(30)
    world = decided(arrivals, machines=WITHOUT_B)
    assert [world.slots[name].placed for name in ("one", "two", "three")] == [["a"], ["a"], ["a"]]
    assert waited_s(world, "one") == 0
    assert 9 <= waited_s(world, "two") < 10, "until the first was done, ten seconds after it began"
    assert 4 <= waited_s(world, "three") < 5.1, "until the second was done, five seconds after it began"
    assert not is_there(world, "two") and not is_there(world, "three")


def test_a_pod_that_was_deleted_is_deleted_when_it_was() -> None:
    script = Script().node("a", "1").node("b", "1")
    script.pod("one", "1", "a", at_s=1, gone_s=11).pod("two", "1", "b", at_s=2, gone_s=7)
    world = decided(script.arrivals(30), machines=WITHOUT_B)
    assert world.slots["two"].placed == [] and not is_there(world, "two")
    assert world.slots["two"].text.startswith("0/1 nodes are available: 1 Insufficient cpu.")


def test_a_pod_that_was_done_before_it_was_deleted_outlives_that_here() -> None:
    script = Script().node("a", "1").node("b", "1")
    script.pod("one", "1", "a", at_s=1, ends_s=11).pod("two", "1", "b", at_s=2, ends_s=7, gone_s=8)
    world = decided(script.arrivals(30), machines=WITHOUT_B)
    assert world.slots["two"].placed == ["a"] and not is_there(world, "two")


def test_who_is_evicted_here_only_comes_back_if_it_has_a_controller() -> None:
    script = Script().node("a", "2").node("b", "2")
    script.pod("owned", "1", "a", at_s=1, owner="job").pod("bare", "1", "a", at_s=2)
    script.pod("vip", "2", "b", at_s=5, ends_s=15, priority=10)
    world = decided(script.arrivals(60), machines=WITHOUT_B)
    assert world.preemptions == 1 and world.slots["vip"].placed == ["a"]
    assert 2 <= waited_s(world, "vip") <= 2.1, "victims take the grace of this log to go"
    assert (world.slots["owned"].evictions, world.slots["bare"].evictions) == (1, 1)
    assert world.slots["owned"].placed == ["a", "a"] and is_there(world, "owned")
    assert world.slots["bare"].placed == ["a"] and not is_there(world, "bare")


def test_who_is_evicted_in_the_log_only_runs_on_and_is_not_replaced() -> None:
    script = Script().node("a", "2").pod("low", "1", "a", at_s=1, owner="job")
    (low,) = (obj for (resource, _), obj in script.known.items() if resource == "pods")
    going = {**low, "metadata": {**low["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    script.put(5, "pods", going).put(6, "pods", {**going, "status": {"phase": "Failed"}})
    script.gone(7, "pods", "default/low").pod("again", "1", "a", at_s=8, owner="job", gone_s=20)
    script.lives["low"].lost_to, script.lives["again"].replaces = "preemption", "low"
    script.pod("last", "2", "a", at_s=10)
    world = decided(script.arrivals(30))
    low_here = world.slots["low"]
    assert low_here is world.slots["again"] and low_here.placed == ["a"] and low_here.evictions == 0
    assert 10 <= waited_s(world, "last") < 11, "until the replacement of the log is deleted"


def test_who_waits_gets_the_room_of_a_node_that_only_this_world_has_when_it_comes() -> None:
    script = Script().node("a", "1").node("z1", "2", at_s=20)
    script.pod("one", "1", "a", at_s=1).pod("two", "1", "a", at_s=2).pod("three", "2", "a", at_s=3)
    world = decided(script.arrivals(40), machines=Machines(like="z1", copies=("z2",)))
    assert world.slots["one"].placed == ["a"]
    assert sorted(world.slots[name].placed[0] for name in ("two", "three")) == ["z1", "z2"]
    assert 18 <= waited_s(world, "two") < 19


def test_what_a_daemon_set_runs_on_a_node_it_runs_on_the_copies_too() -> None:
    script = (
        Script().node("z1", "2").pod("daemon", "1", "z1", at_s=1, owner="set", kind="DaemonSet", gone_s=20)
    )
    for name in ("one", "two", "three"):
        script.pod(name, "1", "z1", at_s=5)
    world = decided(script.arrivals(40), machines=Machines(like="z1", copies=("z2",)))
    placed = [world.slots[name].placed[0] for name in ("daemon", "one", "two", "three")]
    assert placed[0] == "z1" and sorted(placed[1:3]) == ["z1", "z2"]
    assert 15 <= waited_s(world, "three") < 16, "no room before the daemon is gone"


def test_pods_leave_a_node_that_is_deleted_or_tainted() -> None:
    script = Script().node("a", "1").node("b", "1").pod("one", "1", "b", at_s=1, owner="job")
    lost = script.gone(10, "nodes", "a").arrivals(100)
    world = decided(lost, machines=Machines())
    assert world.slots["one"].placed == ["b"], "the recorded node is taken among equals"

    script = Script().node("a", "1").pod("one", "1", "x", at_s=1, owner="job")
    world = decided(script.gone(10, "nodes", "a").node("b", "1", at_s=20).arrivals(100))
    assert world.slots["one"].placed == ["a", "b"]
    assert world.slots["one"].bound_us >= 50 * SECOND_US, "40 s after its node"

    script = Script().node("a", "1").pod("one", "1", "x", at_s=1, owner="job")
    script.node("a", "1", at_s=10, taints=[NO_EXECUTE]).node("b", "1", at_s=12)
    tolerant = [{"key": "broken", "operator": "Exists", "tolerationSeconds": 30}]
    script.pod("two", "0", "x", at_s=2, owner="job", tolerations=tolerant)
    world = decided(script.arrivals(100))
    assert world.slots["one"].placed == ["a", "b"]
    assert 10 <= world.slots["one"].bound_us / SECOND_US < 13
    assert world.slots["two"].evictions == 3, "every 30 s: it tolerates being put there again"


def test_pods_of_other_schedulers_and_of_nodes_that_are_not_there() -> None:
    script = Script().node("a", "1").node("b", "1")
    script.pod("other", "1", "a", at_s=1, schedulerName="other")
    script.lives["other"].scheduler = "other"
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}
    pinned = {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    }
    script.pod("daemon", "0", "b", at_s=2, affinity=pinned).pod("one", "1", "b", at_s=3)
    world = decided(script.arrivals(10), machines=WITHOUT_B)
    assert world.slots["other"].placed == ["a"]
    assert world.left_out == 1 and "daemon" not in world.slots
    assert world.slots["one"].placed == []


def test_time_that_passes_is_measured() -> None:
    world = decided(pair().arrivals(20), machines=WITHOUT_B, typical={"cpu": 1000})
    cpu = world.meter.usage["cpu"]
    assert cpu.requested.peak == 1.0 and 0.7 < cpu.requested.mean < 0.8, "15 of 20 seconds"
    assert cpu.stranded.peak == 0.0
    assert world.meter.busy_nodes[1] == 1
    stranded = decided(pair().arrivals(20), typical={"cpu": 2000}).meter.usage["cpu"].stranded
    assert stranded.peak == 1.0 and stranded.mean > 0.7, "no node of 1 cpu has room for a pod of 2"
