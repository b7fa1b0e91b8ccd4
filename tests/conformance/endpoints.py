"""What conformance asks of Endpoints and EndpointSlices, as far as the API shows them."""

from __future__ import annotations

from typing import Any

from kcp.base.clock import LoopClock
from tests.conformance.deployments import complete
from tests.conformance.door import Door
from tests.conformance.objects import is_ready, pod, workload
from tests.conformance.scoreboard import on_nodes

Json = dict[str, Any]
PREFIX = "[sig-network] "
MANAGED = "endpointslice.kubernetes.io/managed-by"
SAMPLES = 100


def slices_of(namespace: str, service: str) -> str:
    path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
    return f"{path}?labelSelector=kubernetes.io/service-name={service}"


def addresses(found: Json) -> list[str]:
    return sorted(a for each in found["items"] for e in each.get("endpoints") or () for a in e["addresses"])


def endpoint_addresses(found: Json) -> list[str]:
    found_ips = {a["ip"] for subset in found.get("subsets") or () for a in subset.get("addresses") or ()}
    return sorted(found_ips)


def service(name: str, selector: Json | None, *ports: Json, **spec: Any) -> Json:
    chosen = {"selector": selector} if selector else {}
    wanted = list(ports) or [{"name": "example", "port": 80, "targetPort": 3000, "protocol": "TCP"}]
    return {"metadata": {"name": name}, "spec": {**chosen, "ports": wanted, **spec}}


async def without_pods(door: Door, namespace: str) -> tuple[str, str]:
    """A service whose selector matches nothing: its path and that of its Endpoints."""
    core = await door.namespace(namespace)
    await door.create(
        f"{core}/services", service("empty", {"does-not-match-anything": "endpoints-and-endpoint-slices"})
    )
    return f"{core}/services/empty", f"{core}/endpoints/empty"


@on_nodes(
    PREFIX
    + "EndpointSlice should create and delete EndpointSlices for a Service with a selector that matches no pods"
)
async def empty_slices(door: Door) -> None:
    services, _ = await without_pods(door, "slices-empty")
    path = slices_of("slices-empty", "empty")
    found = await door.eventually(path, lambda each: len(each["items"]) == 1)
    assert addresses(found) == []
    assert found["items"][0]["metadata"]["labels"][MANAGED] == "endpointslice-controller.k8s.io"
    await door.delete(services)
    await door.eventually(path, lambda each: not each["items"])


@on_nodes(
    PREFIX
    + "EndpointsController should create and delete Endpoints for a Service with a selector that matches no pods"
)
async def empty_endpoints(door: Door) -> None:
    services, endpoints = await without_pods(door, "endpoints-empty")
    assert not (await door.eventually(endpoints, lambda each: True)).get("subsets")
    await door.delete(services)
    await door.gone(endpoints)


async def with_pods(door: Door, namespace: str) -> tuple[str, dict[str, str]]:
    """Two pods with named ports and two services: one chooses the first, `both` chooses both. Gives their IPs."""
    core = await door.namespace(namespace)
    for name, port in (("pod1", 3000), ("pod2", 3001)):
        body = pod(name, labels={"foo": "bar", name: "yes"})
        body["spec"]["containers"][0]["ports"] = [
            {"name": "example-name", "containerPort": port, "protocol": "TCP"}
        ]
        await door.create(f"{core}/pods", body)
    first = {"name": "example", "port": 80, "targetPort": "example-name", "protocol": "TCP"}
    await door.create(f"{core}/services", service("one", {"foo": "bar", "pod1": "yes"}, first))
    other = {"name": "other", "port": 81, "targetPort": 3001, "protocol": "TCP"}
    await door.create(f"{core}/services", service("both", {"foo": "bar"}, first, other))
    ips = {
        name: (await door.eventually(f"{core}/pods/{name}", is_ready))["status"]["podIP"]
        for name in ("pod1", "pod2")
    }
    return core, ips


@on_nodes(PREFIX + "EndpointSlice should create Endpoints and EndpointSlices for Pods matching a Service")
async def slices(door: Door) -> None:
    core, ips = await with_pods(door, "slices-pods")
    one, both = (slices_of("slices-pods", name) for name in ("one", "both"))
    found = await door.eventually(one, lambda each: addresses(each) == [ips["pod1"]])
    (only,) = found["items"]
    assert only["ports"] == [{"name": "example", "port": 3000, "protocol": "TCP"}]
    endpoint = only["endpoints"][0]
    assert endpoint["targetRef"]["name"] == "pod1" and endpoint["conditions"]["ready"] is True
    node = (await door.get(f"{core}/pods/pod1"))["spec"]["nodeName"]
    assert endpoint["nodeName"] == node
    await door.eventually(f"{core}/endpoints/one", lambda each: endpoint_addresses(each) == [ips["pod1"]])
    found = await door.eventually(both, lambda each: addresses(each) == sorted(ips.values()))
    ports = {
        address: sorted((port["name"], port["port"]) for port in each["ports"])
        for each in found["items"]
        for address in addresses({"items": [each]})
    }
    assert ports == {
        ips["pod1"]: [("example", 3000), ("other", 3001)],
        ips["pod2"]: [("example", 3001), ("other", 3001)],
    }
    await door.delete(f"{core}/pods/pod2")
    await door.eventually(both, lambda each: addresses(each) == [ips["pod1"]])
    await door.delete(f"{core}/services/both")
    await door.eventually(both, lambda each: not each["items"])


@on_nodes(PREFIX + "EndpointsController should create Endpoints for Pods matching a Service")
async def endpoints(door: Door) -> None:
    core, ips = await with_pods(door, "endpoints-pods")
    found = await door.eventually(
        f"{core}/endpoints/one", lambda each: endpoint_addresses(each) == [ips["pod1"]]
    )
    (subset,) = found["subsets"]
    assert subset["ports"] == [{"name": "example", "port": 3000, "protocol": "TCP"}]
    assert subset["addresses"][0]["targetRef"]["name"] == "pod1"
    await door.eventually(
        f"{core}/endpoints/both", lambda each: endpoint_addresses(each) == sorted(ips.values())
    )
    await door.delete(f"{core}/pods/pod1")
    await door.eventually(f"{core}/endpoints/one", lambda each: endpoint_addresses(each) == [])
    await door.eventually(f"{core}/endpoints/both", lambda each: endpoint_addresses(each) == [ips["pod2"]])
    await door.delete(f"{core}/services/both")
    await door.gone(f"{core}/endpoints/both")


@on_nodes(
    PREFIX
    + "EndpointSliceMirroring should mirror a custom Endpoints resource through create update and delete"
)
async def mirrored(door: Door) -> None:
    core = await door.namespace("slices-mirrored")
    await door.create(f"{core}/services", service("example", None))
    ports = [{"name": "example", "port": 80, "protocol": "TCP"}]
    body = {"metadata": {"name": "example"}, "subsets": [{"addresses": [{"ip": "10.1.2.3"}], "ports": ports}]}
    await door.create(f"{core}/endpoints", body)
    path = slices_of("slices-mirrored", "example")
    (made,) = (await door.eventually(path, lambda each: len(each["items"]) == 1))["items"]
    assert made["metadata"]["labels"][MANAGED] == "endpointslicemirroring-controller.k8s.io"
    assert addresses({"items": [made]}) == ["10.1.2.3"] and made["ports"] == ports
    update = await door.get(f"{core}/endpoints/example")
    update["subsets"][0]["addresses"] = [{"ip": "10.2.3.4"}]
    await door.update(f"{core}/endpoints/example", update)
    found = await door.eventually(path, lambda each: addresses(each) == ["10.2.3.4"])
    assert len(found["items"]) == 1
    await door.delete(f"{core}/endpoints/example")
    await door.eventually(path, lambda each: not each["items"])


@on_nodes(PREFIX + "Service endpoints latency should not be very high")
async def latency(door: Door) -> None:
    core = await door.namespace("svc-latency")
    deployments = "/apis/apps/v1/namespaces/svc-latency/deployments"
    await door.create(deployments, workload("latency"))
    await door.eventually(f"{deployments}/latency", complete(1))
    clock = LoopClock()
    took: dict[str, float] = {}
    made: dict[str, float] = {}
    watch = await door.watch(f"{core}/endpoints", await door.revision(f"{core}/endpoints"))
    for number in range(SAMPLES):
        name = f"latency-{number}"
        made[name] = clock.monotonic()
        await door.create(f"{core}/services", service(name, {"app": "latency"}))
    while len(took) < SAMPLES:
        event = await watch.next()
        name = event["object"]["metadata"]["name"]
        if endpoint_addresses(event["object"]):
            took.setdefault(name, clock.monotonic() - made[name])
    sorted_s = sorted(took.values())
    assert sorted_s[SAMPLES // 2] <= 20 and sorted_s[SAMPLES * 9 // 10] <= 50
