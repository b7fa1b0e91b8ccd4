"""Which devices a claim gets, and what is said when it gets none."""

from __future__ import annotations

from typing import Any

import pytest

from kcp.scheduler.framework.user_plugin import PluginFailed
from tests.scheduler.dra.objects import (
    DRIVER,
    World,
    attributes,
    claim,
    device,
    device_class,
    every,
    exactly,
    first_available,
    slice_of,
    why,
)

Json = dict[str, Any]
IN_MEMORY = f'device.capacity["{DRIVER}"].memory.compareTo(quantity("{{}}")) >= 0'


def two_nodes(devices: int = 2) -> World:
    world = World()
    world.nodes("a", "b")
    world.put(device_class())
    for node in ("a", "b"):
        world.put(slice_of(node, [device(f"gpu-{n}", attributes=attributes(n=n)) for n in range(devices)]))
    return world


def test_a_claim_gets_its_devices_on_the_node_of_the_pod() -> None:
    world = two_nodes()
    world.put(claim("c", exactly(2)))
    found = world.schedule("p", "c")
    assert found.node in ("a", "b") and world.devices(found) == ["r0=gpu-0", "r0=gpu-1"]
    allocation = found.allocations["default/c"]
    assert allocation["devices"]["results"][0] == {
        "request": "r0", "driver": DRIVER, "pool": found.node, "device": "gpu-0",
    }  # fmt: skip
    term = {"key": "metadata.name", "operator": "In", "values": [found.node]}
    assert allocation["nodeSelector"] == {"nodeSelectorTerms": [{"matchFields": [term]}]}


def test_no_device_is_given_twice() -> None:
    world = two_nodes()
    taken = []
    for number in range(5):
        world.put(claim(f"c{number}", exactly()))
        found = world.schedule(f"p{number}", f"c{number}")
        if found.node:
            (result,) = found.allocations[f"default/c{number}"]["devices"]["results"]
            taken.append((result["pool"], result["device"]))
    assert sorted(taken) == [("a", "gpu-0"), ("a", "gpu-1"), ("b", "gpu-0"), ("b", "gpu-1")]
    assert found.text == (
        "0/2 nodes are available: 2 cannot allocate all claims. still not schedulable, preemption: "
        "0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    )


def test_what_is_given_back_is_free() -> None:
    world = two_nodes(1)
    for number in range(2):
        world.put(claim(f"c{number}", exactly()))
        world.schedule(f"p{number}", f"c{number}")
    world.put(claim("late", exactly()))
    assert world.schedule("late", "late").node == ""
    world.state.devices.give_back("default/c0")
    assert world.decide("late").node != ""


def test_selectors_of_the_class_and_of_the_request_both_hold() -> None:
    world = World()
    world.nodes("n")
    world.put(device_class("gpu", f'device.driver == "{DRIVER}"', f'device.attributes["{DRIVER}"].n > 0'))
    world.put(slice_of("n", [device(f"gpu-{n}", attributes=attributes(n=n)) for n in range(4)]))
    world.put(claim("c", exactly(1, f'device.attributes["{DRIVER}"].n % 2 == 0')))
    assert world.devices(world.schedule("p", "c")) == ["r0=gpu-2"]


def test_capacity_is_compared_as_a_quantity() -> None:
    world = World()
    world.nodes("n")
    world.put(device_class())
    sizes = ("40Gi", "80Gi")
    world.put(slice_of("n", [device(f"d{s.lower()}", capacity={"memory": {"value": s}}) for s in sizes]))
    world.put(
        claim("c", exactly(1, IN_MEMORY.format("64Gi"))), claim("d", exactly(1, IN_MEMORY.format("1Ti")))
    )
    assert world.devices(world.schedule("p", "c")) == ["r0=d80gi"]
    assert why(world.schedule("q", "d")) == "1 cannot allocate all claims"


def test_an_expression_that_fails_says_where() -> None:
    world = two_nodes()
    world.put(claim("c", exactly(1, f'device.attributes["{DRIVER}"].missing')))
    world.pod("p", "c")
    with pytest.raises(PluginFailed) as caught:
        world.decide("p")
    text = f"claim default/c: selector #0 on device {DRIVER}/a/gpu-0: CEL runtime error: no such key: missing"
    assert str(caught.value).startswith(f'running "DynamicResources" filter plugin: {text}')


def test_all_devices_or_none() -> None:
    world = two_nodes(3)
    world.put(claim("one", exactly()), claim("c", every()), claim("d", every()), claim("e", every()))
    first = world.schedule("p", "one")
    found = world.schedule("q", "c")
    assert found.node != first.node and len(world.devices(found)) == 3
    assert why(world.schedule("r", "d")) == "2 cannot allocate all claims"


def test_all_of_nothing_is_not_enough() -> None:
    world = two_nodes()
    world.put(claim("c", every(selectors=[{"cel": {"expression": "false"}}])))
    assert why(world.schedule("p", "c")) == "2 cannot allocate all claims"


def test_admin_access_neither_takes_nor_minds() -> None:
    world = two_nodes(1)
    for number in range(2):
        world.put(claim(f"c{number}", exactly()))
        world.schedule(f"p{number}", f"c{number}")
    world.put(claim("watch", exactly(adminAccess=True)), claim("again", exactly(adminAccess=True)))
    found = world.schedule("monitor", "watch")
    assert found.allocations["default/watch"]["devices"]["results"][0]["adminAccess"] is True
    assert world.schedule("other", "again").node


def test_the_first_alternative_that_can_be_had_is_taken_and_preferred() -> None:
    world = World()
    world.nodes("big", "small")
    world.put(device_class("large", f'device.attributes["{DRIVER}"].n == 8'), device_class("gpu"))
    world.put(slice_of("big", [device("d", attributes=attributes(n=8))]))
    world.put(slice_of("small", [device("d", attributes=attributes(n=1)) for _ in range(1)]))
    wanted = first_available("r", large=exactly(device_class="large"), any=exactly())
    world.put(claim("c", wanted), claim("d", wanted))
    found = world.schedule("p", "c")
    assert (found.node, world.devices(found)) == ("big", ["r/large=d"])
    found = world.schedule("q", "d")
    assert (found.node, world.devices(found, "d")) == ("small", ["r/any=d"])


def test_a_shared_attribute_makes_the_search_turn_back() -> None:
    world = World()
    world.nodes("n")
    world.put(device_class())
    numas = [0, 1, 1]
    world.put(
        slice_of("n", [device(f"d{n}", attributes=attributes(numa=numa)) for n, numa in enumerate(numas)])
    )
    world.put(claim("c", exactly(), exactly(), constraints=[{"matchAttribute": f"{DRIVER}/numa"}]))
    assert world.devices(world.schedule("p", "c")) == ["r0=d1", "r1=d2"]


def test_a_distinct_attribute() -> None:
    world = World()
    world.nodes("n")
    world.put(device_class())
    numas = [0, 0, 1]
    world.put(
        slice_of("n", [device(f"d{n}", attributes=attributes(numa=numa)) for n, numa in enumerate(numas)])
    )
    wanted = [{"distinctAttribute": f"{DRIVER}/numa", "requests": ["r0"]}]
    world.put(claim("c", exactly(2), constraints=wanted), claim("d", exactly(2), constraints=wanted))
    assert world.devices(world.schedule("p", "c")) == ["r0=d0", "r0=d2"]
    assert world.schedule("q", "d").node == ""


def test_taints_keep_off_what_does_not_tolerate_them() -> None:
    world = World()
    world.nodes("n")
    world.put(device_class())
    sick = [{"key": "unhealthy", "value": "yes", "effect": "NoExecute"}]
    noted = [{"key": "noted", "effect": "None"}]
    world.put(slice_of("n", [device("a", taints=sick), device("b", taints=noted)]))
    tolerations = [{"key": "unhealthy", "operator": "Exists"}]
    world.put(claim("c", exactly()), claim("d", exactly()), claim("e", exactly(tolerations=tolerations)))
    assert world.devices(world.schedule("p", "c")) == ["r0=b"]
    assert world.schedule("q", "d").node == ""
    found = world.schedule("r", "e")
    assert found.allocations["default/e"]["devices"]["results"][0]["tolerations"] == tolerations


def test_a_claim_cannot_have_more_results_than_its_status_holds() -> None:
    world = two_nodes()
    world.put(claim("c", exactly(33)))
    world.pod("p", "c")
    with pytest.raises(PluginFailed, match="number of requested devices 33 exceeds the claim limit of 32"):
        world.decide("p")


def test_the_limit_of_results_leads_to_the_smaller_alternative() -> None:
    world = World()
    world.nodes("n")
    world.put(device_class())
    world.put(slice_of("n", [device(f"d{n}") for n in range(40)]))
    world.put(claim("c", exactly(20), first_available("r", many=exactly(13), few=exactly(12))))
    results = world.devices(world.schedule("p", "c"))
    assert len(results) == 32 and results[-1].startswith("r/few=")


def test_configurations_of_classes_and_claim() -> None:
    world = World()
    world.nodes("n")
    of_class = {"opaque": {"driver": DRIVER, "parameters": {"a": 1}}}
    world.put(device_class("gpu", config=[of_class]), slice_of("n", [device("a"), device("b"), device("c")]))
    for_one = {"requests": ["r1"], "opaque": {"driver": DRIVER, "parameters": {"b": 2}}}
    world.put(claim("c", exactly(), exactly(), config=[for_one]))
    found = world.schedule("p", "c").allocations["default/c"]["devices"]["config"]
    assert found == [{"source": "FromClass", **of_class}, {"source": "FromClaim", **for_one}]


def test_shared_counters_limit_what_of_a_device_can_be_had() -> None:
    world = World()
    world.nodes("n")
    world.put(device_class())
    counters = [{"name": "gpu", "counters": {"memory": {"value": "40Gi"}}}]
    parts = [
        device(name, consumesCounters=[{"counterSet": "gpu", "counters": {"memory": {"value": size}}}])
        for name, size in (("half-0", "20Gi"), ("half-1", "20Gi"), ("whole", "40Gi"))
    ]
    world.put(slice_of("n", [], name="counters", count=2, sharedCounters=counters))
    world.put(slice_of("n", parts, name="parts", count=2))
    for name in ("c", "d", "e"):
        world.put(claim(name, exactly()))
    assert world.devices(world.schedule("p", "c")) == ["r0=half-0"]
    assert world.devices(world.schedule("q", "d"), "d") == ["r0=half-1"]
    assert why(world.schedule("r", "e")) == "1 cannot allocate all claims"


def test_parts_are_chosen_so_that_all_fit() -> None:
    """Seven devices of eight: the first one takes so much that it must be left out."""
    world = World()
    world.nodes("n")
    world.put(device_class())
    amounts = {f"cpu{n}": {"value": "1"} for n in range(8)}
    counters = [{"name": "set", "counters": {**amounts, "memory": {"value": "70Gi"}}}]
    parts = [
        device(
            f"d{n}",
            consumesCounters=[
                {
                    "counterSet": "set",
                    "counters": {f"cpu{n}": {"value": "1"}, "memory": {"value": "10Gi" if n else "20Gi"}},
                }
            ],
        )
        for n in range(8)
    ]
    world.put(slice_of("n", [], name="counters", count=2, sharedCounters=counters))
    world.put(slice_of("n", parts, name="parts", count=2))
    world.put(claim("c", exactly(7)))
    assert world.devices(world.schedule("p", "c")) == [f"r0=d{n}" for n in range(1, 8)]


def test_a_device_is_shared_until_its_capacity_is_used_up() -> None:
    world = World()
    world.nodes("n")
    world.put(device_class())
    memory = {"memory": {"value": "80Gi"}}
    world.put(slice_of("n", [device("d", allowMultipleAllocations=True, capacity=memory)]))
    half: Json = {"capacity": {"requests": {"memory": "40Gi"}}}
    world.put(claim("c", exactly(**half), exactly(**half)), claim("d", exactly(**half)))
    found = world.schedule("p", "c")
    results = found.allocations["default/c"]["devices"]["results"]
    assert [result["consumedCapacity"] for result in results] == [{"memory": "40Gi"}] * 2
    assert len({result["shareID"] for result in results}) == 2
    assert why(world.schedule("q", "d")) == "1 cannot allocate all claims"
    world.state.devices.give_back("default/c")
    assert world.decide("q").node == "n"


@pytest.mark.parametrize(
    ("asked", "taken"),
    [(None, "10Gi"), ("1Gi", "5Gi"), ("6Gi", "10Gi"), ("21Gi", None)],
)
def test_requests_are_rounded_up_to_what_the_policy_allows(asked: str | None, taken: str | None) -> None:
    world = World()
    world.nodes("n")
    world.put(device_class())
    policy = {"default": "10Gi", "validRange": {"min": "5Gi", "max": "20Gi", "step": "5Gi"}}
    memory = {"memory": {"value": "80Gi", "requestPolicy": policy}}
    world.put(slice_of("n", [device("d", allowMultipleAllocations=True, capacity=memory)]))
    wanted: Json = {"capacity": {"requests": {"memory": asked}}} if asked else {}
    world.put(claim("c", exactly(**wanted)))
    found = world.schedule("p", "c")
    if taken is None:
        assert found.node == ""
        return
    (result,) = found.allocations["default/c"]["devices"]["results"]
    assert result["consumedCapacity"] == {"memory": taken}
