"""What the slices of a Service say: its pods' addresses, ports, conditions; few writes, at most a hundred each."""

from __future__ import annotations

from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.endpointslice import CONTROLLER
from kcp.machinery import meta
from tests.support.builders import node, pod, service
from tests.support.planning import World, of_type, writes

Json = dict[str, Any]
KEY = "default/web"
RESOURCE = "endpointslices.discovery.k8s.io"


def backend(name: str, ip: str, *, ready: bool = True, **more: Any) -> Json:
    built = pod(name, labels={"app": "web"}, phase="Running", ready=ready, node="n", **more)
    built["status"] = {**built["status"], "podIP": ip, "podIPs": [{"ip": ip}]}
    return built


def slices(world: World) -> list[Json]:
    return world.all(RESOURCE)


def addresses(world: World) -> list[str]:
    return sorted(a for s in slices(world) for e in s["endpoints"] for a in e["addresses"])


def test_a_service_without_pods_has_a_placeholder() -> None:
    world = World(service("web"))
    world.plan(CONTROLLER, KEY)
    (made,) = slices(world)
    assert made["endpoints"] == []
    assert meta.labels(made) == {
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    assert meta.controller_of(made)["kind"] == "Service"  # type: ignore[index]


def test_pods_become_endpoints_with_node_zone_and_conditions() -> None:
    labels = {"topology.kubernetes.io/zone": "z"}
    world = World(service("web", target=8080), node("n", labels=labels), backend("a", "10.0.0.1"))
    world.put(backend("b", "10.0.0.2", ready=False))
    world.plan(CONTROLLER, KEY)
    (made,) = slices(world)
    assert made["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    first, second = made["endpoints"]
    assert (first["addresses"], first["nodeName"], first["zone"]) == (["10.0.0.1"], "n", "z")
    assert first["conditions"] == {"ready": True, "serving": True, "terminating": False}
    assert second["conditions"]["ready"] is False
    assert first["targetRef"]["name"] == "a"


def test_finished_pods_and_pods_without_address_are_left_out() -> None:
    world = World(service("web"), pod("c", labels={"app": "web"}), node("n"))
    done = backend("a", "10.0.0.1")
    world.put({**done, "status": {**done["status"], "phase": "Succeeded"}})
    world.plan(CONTROLLER, KEY)
    assert addresses(world) == []


def test_a_named_target_port_is_looked_up_in_each_pod() -> None:
    def serving(name: str, ip: str, port: int) -> Json:
        built = backend(name, ip)
        container = {**built["spec"]["containers"][0], "ports": [{"name": "web", "containerPort": port}]}
        return {**built, "spec": {**built["spec"], "containers": [container]}}

    world = World(service("web", target="web"), serving("a", "10.0.0.1", 80), serving("b", "10.0.0.2", 81))
    world.plan(CONTROLLER, KEY)
    assert sorted(s["ports"][0]["port"] for s in slices(world)) == [80, 81]


def test_at_most_a_hundred_endpoints_in_a_slice() -> None:
    world = World(
        service("web"), *(backend(f"p{n:03}", f"10.0.{n // 200}.{n % 200 + 1}") for n in range(250))
    )
    world.plan(CONTROLLER, KEY)
    assert sorted(len(s["endpoints"]) for s in slices(world)) == [50, 100, 100]
    assert len(addresses(world)) == 250


def test_one_more_pod_is_one_write() -> None:
    world = World(service("web"), backend("a", "10.0.0.1"))
    world.plan(CONTROLLER, KEY)
    world.put(backend("b", "10.0.0.2"))
    effects = writes(world.plan(CONTROLLER, KEY))
    assert [type(effect) for effect in effects] == [fx.Update]
    assert addresses(world) == ["10.0.0.1", "10.0.0.2"]
    assert not writes(world.plan(CONTROLLER, KEY))


def test_the_last_pod_leaves_one_slice_behind() -> None:
    world = World(service("web"), backend("a", "10.0.0.1"))
    world.plan(CONTROLLER, KEY)
    del world.objects["pods"]["default/a"]
    world.plan(CONTROLLER, KEY)
    assert [s["endpoints"] for s in slices(world)] == [[]]
    assert not writes(world.plan(CONTROLLER, KEY))


def test_services_without_selector_and_external_names_are_skipped() -> None:
    assert not World(service("web", selector={})).plan(CONTROLLER, KEY)
    assert not World(service("web", type="ExternalName")).plan(CONTROLLER, KEY)


def test_a_headless_service_says_so() -> None:
    world = World(service("web", clusterIP="None", clusterIPs=["None"]), backend("a", "10.0.0.1"))
    world.plan(CONTROLLER, KEY)
    assert meta.labels(slices(world)[0])["service.kubernetes.io/headless"] == ""
    assert of_type(world.plan(CONTROLLER, KEY), fx.Create) == []
