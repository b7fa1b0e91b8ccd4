"""Node IPAM: ranges are given once, come round again, and are kept when nobody knows what became of a patch."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcp.base.ipam import RangeFull
from kcp.controllers import effects as fx
from kcp.controllers.node_ipam import CONTROLLER, KEY, subnet_range, touched_node
from kcp.machinery.errors import Forbidden, Timeout
from tests.support.builders import node
from tests.support.planning import World, events, writes

Json = dict[str, Any]
SETTINGS = {"cluster_cidrs": ["10.244.0.0/22"]}


def run(world: World, **settings: Any) -> list[fx.Effect]:
    return world.plan(CONTROLLER, KEY, {**SETTINGS, **settings})


def given_to(world: World) -> dict[str, list[str]]:
    return {n["metadata"]["name"]: n["spec"].get("podCIDRs", []) for n in world.all("nodes")}


def test_each_node_gets_the_next_range() -> None:
    world = World(node("a"), node("b"))
    run(world)
    assert given_to(world) == {"a": ["10.244.0.0/24"], "b": ["10.244.1.0/24"]}
    assert world.get("nodes", "a")["spec"]["podCIDR"] == "10.244.0.0/24"
    assert run(world) == []


def test_a_freed_range_comes_again_only_after_all_others() -> None:
    world = World(node("a"), node("b"))
    run(world)
    del world.objects["nodes"]["a"]
    for name in ("c", "d", "e"):
        world.put(node(name))
    run(world)
    assert given_to(world)["c"] == ["10.244.2.0/24"]
    assert given_to(world)["e"] == ["10.244.0.0/24"]


def test_one_range_of_each_family() -> None:
    world = World(node("a"))
    run(world, cluster_cidrs=["10.244.0.0/16", "fd00:10:244::/48"], node_cidr_masks=[25, 64])
    assert given_to(world)["a"] == ["10.244.0.0/25", "fd00:10:244::/64"]


def test_the_ranges_of_services_and_of_nodes_are_not_given() -> None:
    taken = node("old", podCIDR="10.244.1.0/24", podCIDRs=["10.244.1.0/24"])
    world = World(taken, node("a"), node("b"))
    run(world, service_cidrs=["10.244.0.0/25"])
    assert given_to(world) == {"old": ["10.244.1.0/24"], "a": ["10.244.2.0/24"], "b": ["10.244.3.0/24"]}


def test_nothing_left_is_said() -> None:
    world = World(*(node(f"n{i}") for i in range(5)))
    effects = run(world)
    assert events(effects) == [("CIDRNotAvailable", "Node n4 status is now: CIDRNotAvailable")]


def test_a_failed_patch_is_tried_three_times_and_gives_the_range_back() -> None:
    world = World(node("a"))
    world.fail[fx.Patch] = Forbidden("no")
    effects = run(world)
    assert len(writes(effects)) == 3
    assert events(effects) == [("CIDRAssignmentFailed", "Node a status is now: CIDRAssignmentFailed")]
    assert world.memos[(CONTROLLER.name, KEY)]["held"] == {}


def test_a_patch_that_timed_out_may_have_been_made() -> None:
    world = World(node("a"), node("b"))
    world.fail[fx.Patch] = Timeout("slow")
    run(world)
    del world.fail[fx.Patch]
    del world.objects["nodes"]["b"]
    world.put(node("c"))
    run(world)
    assert given_to(world)["a"] == ["10.244.0.0/24"]
    assert given_to(world)["c"] == ["10.244.2.0/24"]


def test_without_cluster_ranges_nothing_is_given() -> None:
    assert World(node("a")).plan(CONTROLLER, KEY) == []


def test_what_queues_the_work() -> None:
    assert touched_node(None, node("a"), {}) == [KEY]
    assert touched_node(None, node("a", podCIDRs=["10.0.0.0/24"]), {}) == []
    assert touched_node(node("a"), None, {}) == [KEY]


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="larger than that of the cluster CIDR"):
        subnet_range("10.0.0.0/24", 16)
    with pytest.raises(ValueError, match="at most 16 bits longer"):
        subnet_range("fd00::/32", 64)
    assert subnet_range("10.0.0.0/12", 30).size == 1 << 18


@given(st.lists(st.integers(0, 15)), st.integers(0, 15))
def test_what_is_given_is_free_and_inside(taken: list[int], start: int) -> None:
    subnets = subnet_range("192.168.0.0/20")
    subnets.next = start
    for number in taken:
        subnets.occupy(f"192.168.{number}.0/24")
    answers = [subnets.allocate_next() for _ in range(16 - len(set(taken)))]
    with pytest.raises(RangeFull):
        subnets.allocate_next()
    found = {int(cidr.split(".")[2]) for cidr in answers}
    assert found | set(taken) == set(range(16)) and len(answers) == len(found)
