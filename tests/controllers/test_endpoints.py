"""The Endpoints of a Service: its ready and not-ready pods, by port."""

from __future__ import annotations

from typing import Any

import pytest

from kcp.controllers import effects as fx
from kcp.controllers.endpoints import CONTROLLER, MANAGED_BY_LABEL, MANAGER, itself, truncate
from kcp.machinery import meta
from tests.support.builders import pod, service
from tests.support.planning import World, of_type, writes

Json = dict[str, Any]
KEY = "default/web"


def backend(number: int, *, ready: bool = True, **more: Any) -> Json:
    one = pod(f"web-{number}", labels={"app": "web"}, node="n1", phase="Running", ready=ready, **more)
    ip = f"10.0.0.{number}"
    one["status"] |= {"podIP": ip, "podIPs": [{"ip": ip}]}
    one["metadata"]["uid"] = f"pod-{number}"
    return one


def subsets(world: World) -> list[Json]:
    found: list[Json] = world.get("endpoints", KEY).get("subsets", [])
    return found


def ips(addresses: list[Json]) -> list[str]:
    return [address["ip"] for address in addresses]


def test_ready_pods_are_apart_from_others() -> None:
    world = World(service("web"), backend(10), backend(9), backend(3, ready=False))
    world.plan(CONTROLLER, KEY)
    (subset,) = subsets(world)
    assert ips(subset["addresses"]) == ["10.0.0.9", "10.0.0.10"]
    assert ips(subset["notReadyAddresses"]) == ["10.0.0.3"]
    assert subset["ports"] == [{"name": "http", "port": 80, "protocol": "TCP"}]
    assert subset["addresses"][0] == {
        "ip": "10.0.0.9",
        "nodeName": "n1",
        "targetRef": {"kind": "Pod", "namespace": "default", "name": "web-9", "uid": "pod-9"},
    }
    made = world.get("endpoints", KEY)
    assert meta.labels(made) == {"endpoints.kubernetes.io/managed-by": "endpoint-controller"}
    assert not writes(world.plan(CONTROLLER, KEY))


def test_a_service_without_pods_has_empty_endpoints() -> None:
    world = World(service("web"))
    world.plan(CONTROLLER, KEY)
    assert "subsets" not in world.get("endpoints", KEY)
    assert not writes(world.plan(CONTROLLER, KEY))


def test_pods_that_offer_different_ports_are_in_different_subsets() -> None:
    named = backend(1)
    named["spec"]["containers"][0]["ports"] = [{"name": "web", "containerPort": 8080}]
    other = backend(2)
    other["spec"]["containers"][0]["ports"] = [{"name": "web", "containerPort": 9090}]
    world = World(service("web", target="web"), named, other, backend(3))
    world.plan(CONTROLLER, KEY)
    assert [(ips(s["addresses"]), s["ports"][0]["port"]) for s in subsets(world)] == [
        (["10.0.0.1"], 8080),
        (["10.0.0.2"], 9090),
    ]


def test_ports_with_the_same_addresses_share_a_subset() -> None:
    ports = [{"name": "b", "port": 81, "protocol": "UDP"}, {"name": "a", "port": 80, "appProtocol": "http"}]
    world = World(service("web", ports=ports), backend(1))
    world.plan(CONTROLLER, KEY)
    (subset,) = subsets(world)
    assert subset["ports"] == [
        {"name": "a", "port": 80, "protocol": "TCP", "appProtocol": "http"},
        {"name": "b", "port": 81, "protocol": "UDP"},
    ]


def test_pods_that_ended_or_leave_are_no_endpoints() -> None:
    leaving = backend(1, deletionTimestamp="2026-01-01T00:00:00Z")
    done = backend(2)
    done["status"]["phase"] = "Succeeded"
    world = World(service("web"), leaving, done)
    world.plan(CONTROLLER, KEY)
    assert subsets(world) == []
    world = World(service("web", publishNotReadyAddresses=True), leaving, done, backend(3, ready=False))
    world.plan(CONTROLLER, KEY)
    (subset,) = subsets(world)
    assert ips(subset["addresses"]) == ["10.0.0.1", "10.0.0.3"] and "notReadyAddresses" not in subset


def test_headless_services_are_marked_and_need_no_ports() -> None:
    one = backend(1)
    one["spec"] |= {"hostname": "first", "subdomain": "web"}
    world = World(service("web", clusterIP="None", ports=[]), one)
    world.plan(CONTROLLER, KEY)
    assert meta.labels(world.get("endpoints", KEY))["service.kubernetes.io/headless"] == ""
    (subset,) = subsets(world)
    assert "ports" not in subset and subset["addresses"][0]["hostname"] == "first"


@pytest.mark.parametrize("spec", [{"selector": None}, {"type": "ExternalName"}])
def test_services_that_choose_no_pods_are_left_alone(spec: Json) -> None:
    world = World(service("web", **spec), backend(1))
    assert world.plan(CONTROLLER, KEY) == []


def test_endpoints_go_with_their_service() -> None:
    world = World(service("web"), backend(1))
    world.plan(CONTROLLER, KEY)
    del world.objects["services"][KEY]
    (delete,) = of_type(world.plan(CONTROLLER, KEY), fx.Delete)
    assert delete.uid and not world.all("endpoints")


def test_endpoints_that_people_make_are_theirs() -> None:
    by_hand = {"metadata": {"name": "web", "namespace": "default"}}
    own = {"metadata": {**by_hand["metadata"], "labels": {MANAGED_BY_LABEL: MANAGER}}}
    assert itself(None, by_hand, {}) == []
    assert itself(None, own, {}) == ["default/web"]
    assert itself(by_hand, None, {}) == ["default/web"]


def test_labels_and_changes_follow_the_service() -> None:
    world = World(service("web"), backend(1))
    world.plan(CONTROLLER, KEY)
    current = world.get("services", KEY)
    world.put({**current, "metadata": {**current["metadata"], "labels": {"team": "a"}}})
    world.plan(CONTROLLER, KEY)
    assert meta.labels(world.get("endpoints", KEY))["team"] == "a"
    world.put({**world.get("services", KEY), "spec": service("web", port=81)["spec"]})
    world.plan(CONTROLLER, KEY)
    assert subsets(world)[0]["ports"][0]["port"] == 81


def test_a_thousand_addresses_are_the_limit_ready_ones_first() -> None:
    def subset(ready: int, others: int) -> Json:
        return {"addresses": [{"ip": "a"}] * ready, "notReadyAddresses": [{"ip": "b"}] * others}

    cut, truncated = truncate([subset(600, 100), subset(300, 900)])
    assert truncated
    assert [len(s["addresses"]) for s in cut] == [600, 300]
    assert [len(s["notReadyAddresses"]) for s in cut] == [10, 90]
    assert truncate([subset(500, 500)]) == ([subset(500, 500)], False)
    cut, _ = truncate([subset(1500, 10)])
    assert len(cut[0]["addresses"]) == 1000 and "notReadyAddresses" not in cut[0]


def test_truncation_is_marked() -> None:
    many = [backend(0) for _ in range(1002)]
    for number, one in enumerate(many):
        ip = f"10.0.{number // 250}.{number % 250 + 1}"
        one["metadata"] |= {"name": f"web-{number}", "uid": f"pod-{number}"}
        one["status"] |= {"podIP": ip, "podIPs": [{"ip": ip}]}
    world = World(service("web"), *many)
    world.plan(CONTROLLER, KEY)
    made = world.get("endpoints", KEY)
    assert meta.annotations(made)["endpoints.kubernetes.io/over-capacity"] == "truncated"
    assert len(subsets(world)[0]["addresses"]) == 1000
    assert not writes(world.plan(CONTROLLER, KEY))
