"""What a node can reach: generations, whole and broken pools, and where a slice says it is."""

from __future__ import annotations

from typing import Any

import pytest

from kcp.scheduler.dra.pools import Pool, SliceIndex
from kcp.scheduler.framework.user_plugin import PluginFailed
from tests.scheduler.dra.objects import World, claim, device, device_class, every, exactly, slice_of, why

Json = dict[str, Any]
ON_RED = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "c", "operator": "In", "values": ["red"]}]}]}


def pools(*slices: Json, node: str = "n", **labels: str) -> tuple[Pool, ...]:
    index = SliceIndex()
    for each in slices:
        index.put(each)
    return index.pools_of(node, labels)


def names(pool: Pool) -> list[str]:
    return [each.id[2] for each in pool.devices]


def test_a_slice_is_where_it_says() -> None:
    local = slice_of("n", [device("a")])
    assert names(pools(local)[0]) == ["a"] and pools(local, node="m") == ()
    everywhere = slice_of("", [device("a")], pool="p", allNodes=True)
    assert names(pools(everywhere, node="m")[0]) == ["a"]
    selected = slice_of("", [device("a")], pool="p", nodeSelector=ON_RED)
    assert names(pools(selected, c="red")[0]) == ["a"] and pools(selected, c="blue") == ()


def test_devices_may_say_it_one_by_one() -> None:
    devices = [device("a", nodeName="n"), device("b", nodeName="m"), device("c", allNodes=True)]
    each = slice_of("", devices, pool="p", perDeviceNodeSelection=True)
    (pool,) = pools(each)
    assert names(pool) == ["a", "c"] and [d.id[2] for d in pool.elsewhere] == ["b"]


def test_only_the_newest_generation_counts() -> None:
    old = slice_of("n", [device("old")], name="1")
    new = slice_of("n", [device("new")], name="2", generation=2)
    assert names(pools(old, new)[0]) == ["new"]


def test_a_pool_of_which_slices_are_missing_is_incomplete() -> None:
    first = slice_of("n", [device("a")], name="1", count=2)
    (pool,) = pools(first)
    assert pool.incomplete and not pool.usable
    (pool,) = pools(first, slice_of("n", [device("b")], name="2", count=2))
    assert names(pool) == ["a", "b"]


def test_slices_on_other_nodes_make_a_pool_whole() -> None:
    mine = slice_of("n", [device("a")], name="1", pool="p", count=2)
    theirs = slice_of("m", [device("b")], name="2", pool="p", count=2)
    (pool,) = pools(mine, theirs)
    assert names(pool) == ["a"] and pool.usable and [d.id[2] for d in pool.elsewhere] == ["b"]


def test_an_old_generation_is_nothing_where_a_newer_one_says_nothing() -> None:
    mine = slice_of("n", [device("a")], name="1", pool="p", count=2)
    theirs = slice_of("m", [device("b")], name="2", pool="p", count=2, generation=2)
    assert pools(mine, theirs) == ()


@pytest.mark.parametrize(
    ("devices", "fault"),
    [
        ([device("a"), device("a")], "duplicate device name a"),
        (
            [device("a", consumesCounters=[{"counterSet": "x", "counters": {"m": {"value": "1"}}}])],
            "counter set x not found",
        ),
    ],
)
def test_a_pool_that_contradicts_itself_is_invalid(devices: list[Json], fault: str) -> None:
    (pool,) = pools(slice_of("n", devices))
    assert pool.invalid == fault and not pool.usable


def test_devices_that_must_be_bound_first_come_last() -> None:
    bound = slice_of("n", [device("a", bindingConditions=["Ready"])], name="1", pool="a")
    plain = slice_of("n", [device("b")], name="2", pool="b")
    assert [pool.id[1] for pool in pools(bound, plain)] == ["b", "a"]


def test_nothing_is_taken_from_a_pool_that_is_being_written() -> None:
    world = World()
    world.nodes("n")
    world.put(device_class(), slice_of("n", [device("a")], name="1", count=2), claim("c", exactly()))
    assert why(world.schedule("p", "c")) == "1 cannot allocate all claims"
    world.put(slice_of("n", [device("b")], name="2", count=2))
    assert world.decide("p").node == "n"


def test_all_devices_cannot_be_known_while_a_pool_is_being_written() -> None:
    world = World()
    world.nodes("n")
    world.put(device_class(), slice_of("n", [device("a")], name="1", count=2), claim("c", every()))
    world.pod("p", "c")
    text = (
        "claim default/c, request r0: asks for all devices, but resource pool gpu.example.com/n is "
        "currently being updated"
    )
    with pytest.raises(PluginFailed, match=text):
        world.decide("p")


def test_an_invalid_pool_is_named_only_when_nothing_else_serves() -> None:
    world = World()
    world.nodes("n")
    world.put(device_class(), slice_of("n", [device("a"), device("a")], name="1"))
    world.put(claim("c", exactly()), claim("d", exactly()))
    assert why(world.schedule("p", "c")) == "1 invalid resource pools were encountered"
    world.put(slice_of("n", [device("b")], name="2", pool="other"))
    assert world.decide("p").node == "n"


def test_what_a_node_gives_is_looked_at_again_when_its_slices_change() -> None:
    world = World()
    world.nodes("n")
    first = slice_of("n", [device("a")])
    world.put(device_class(), first, claim("c", exactly(2)))
    assert world.schedule("p", "c").node == ""
    more = slice_of("n", [device("a"), device("b")], generation=2)
    world.state.apply("resourceslices.resource.k8s.io", first, more)
    assert world.decide("p").node == "n"
