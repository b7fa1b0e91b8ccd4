"""Which device was refused, and why."""

from __future__ import annotations

from kcp.scheduler.explain import explain
from tests.scheduler.dra.objects import World, attributes, claim, device, device_class, exactly, slice_of


def test_every_device_of_every_node_says_why_not() -> None:
    world = World()
    world.nodes("n")
    world.put(device_class("gpu", 'device.attributes["gpu.example.com"].n > 0'))
    devices = [device(f"d{n}", attributes=attributes(n=n)) for n in range(4)]
    devices[3]["taints"] = [{"key": "sick", "value": "yes", "effect": "NoSchedule"}]
    small = 'device.attributes["gpu.example.com"].n < 2'
    world.put(slice_of("n", devices), claim("held", exactly(1, small)), claim("c", exactly(2)))
    assert world.devices(world.schedule("first", "held"), "held") == ["r0=d1"]
    world.schedule("p", "c")
    found = explain(world.framework, world.state.pods["uid-p"])
    (refusal,) = found.nodes[0].refusals
    assert (refusal.plugin, refusal.reasons) == ("DynamicResources", ("cannot allocate all claims",))
    (request,) = refusal.details["requests"]
    assert (request["claim"], request["request"], request["wants"]) == ("default/c", "r0", 2)
    assert {row["device"].rpartition("/")[2]: row["why"] for row in request["devices"]} == {
        "d0": "not of class gpu",
        "d1": "held by default/held",
        "d2": "",
        "d3": "tainted sick=yes:NoSchedule",
    }


def test_a_claim_that_cannot_be_used_there_is_named() -> None:
    world = World()
    world.nodes("a", "b")
    world.put(device_class(), slice_of("a", [device("d")]))
    given = claim("c", exactly())
    world.put(given)
    found = world.schedule("p", "c")
    held = {**given, "status": {"allocation": found.allocations["default/c"]}}
    world.state.apply("resourceclaims.resource.k8s.io", given, held)
    world.pod("q", "c")
    verdicts = {
        verdict.node: verdict for verdict in explain(world.framework, world.state.pods["uid-q"]).nodes
    }
    (refusal,) = verdicts["b"].refusals
    assert refusal.reasons == ("resourceclaim not available on the node",)
    assert refusal.details["claims"] == ["default/c"] and verdicts["a"].feasible
