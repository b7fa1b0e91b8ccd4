"""Hand-written Endpoints of Services without selector appear as slices."""

from __future__ import annotations

from typing import Any

import pytest

from kcp.controllers import effects as fx
from kcp.controllers.endpointslice import MIRRORING
from kcp.machinery import meta
from tests.support.builders import metadata, service
from tests.support.planning import World, events, of_type, writes

Json = dict[str, Any]
KEY, SLICES = "default/db", "endpointslices.discovery.k8s.io"


def endpoints(*subsets: Json, **meta_: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": metadata("db", **meta_),
        "subsets": list(subsets),
    }


def subset(*ips: str, port: int = 5432, not_ready: tuple[str, ...] = ()) -> Json:
    return {
        "addresses": [{"ip": ip} for ip in ips],
        "notReadyAddresses": [{"ip": ip} for ip in not_ready],
        "ports": [{"port": port}],
    }


def bare() -> Json:
    return service("db", selector=None)


def test_addresses_become_endpoints() -> None:
    labels, annotations = (
        {"tier": "back"},
        {"note": "x", "endpoints.kubernetes.io/last-change-trigger-time": "t"},
    )
    hand = endpoints(subset("1.2.3.4", not_ready=("1.2.3.5",)), labels=labels, annotations=annotations)
    world = World(bare(), hand)
    world.plan(MIRRORING, KEY)
    (slice_,) = world.all(SLICES)
    assert slice_["addressType"] == "IPv4"
    assert slice_["ports"] == [{"name": "", "port": 5432, "protocol": "TCP"}]
    assert slice_["endpoints"] == [
        {"addresses": ["1.2.3.4"], "conditions": {"ready": True}},
        {"addresses": ["1.2.3.5"], "conditions": {"ready": False}},
    ]
    assert meta.labels(slice_) == {
        "tier": "back",
        "kubernetes.io/service-name": "db",
        "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io",
    }
    assert meta.annotations(slice_) == {"note": "x"}
    owner = meta.controller_of(slice_)
    assert owner is not None and owner["kind"] == "Endpoints"
    assert not writes(world.plan(MIRRORING, KEY))


def test_each_family_has_its_own_slice() -> None:
    world = World(bare(), endpoints(subset("1.2.3.4", "fd00::1")))
    world.plan(MIRRORING, KEY)
    assert sorted(s["addressType"] for s in world.all(SLICES)) == ["IPv4", "IPv6"]


def test_a_change_goes_into_the_same_slice() -> None:
    world = World(bare(), endpoints(subset("1.2.3.4")))
    world.plan(MIRRORING, KEY)
    (before,) = world.all(SLICES)
    world.put(endpoints(subset("1.2.3.9"), uid=meta.uid(world.get("endpoints", KEY))))
    world.plan(MIRRORING, KEY)
    (after,) = world.all(SLICES)
    assert meta.name(after) == meta.name(before)
    assert after["endpoints"][0]["addresses"] == ["1.2.3.9"]


def test_a_slice_of_other_ports_is_used_again() -> None:
    world = World(bare(), endpoints(subset("1.2.3.4")))
    world.plan(MIRRORING, KEY)
    world.put(endpoints(subset("1.2.3.4", port=1), uid=meta.uid(world.get("endpoints", KEY))))
    effects = world.plan(MIRRORING, KEY)
    assert len(of_type(effects, fx.Update)) == 1 and not of_type(effects, fx.Create)
    (slice_,) = world.all(SLICES)
    assert slice_["ports"][0]["port"] == 1


@pytest.mark.parametrize(
    "hand",
    [
        endpoints(subset("1.2.3.4"), labels={"endpointslice.kubernetes.io/skip-mirror": "true"}),
        endpoints(subset("1.2.3.4"), annotations={"control-plane.alpha.kubernetes.io/leader": "{}"}),
    ],
)
def test_some_endpoints_are_not_mirrored(hand: Json) -> None:
    world = World(bare(), hand)
    assert not writes(world.plan(MIRRORING, KEY))


def test_mirrors_go_when_there_is_nothing_to_mirror_any_more() -> None:
    for resource in ("endpoints", "services"):
        world = World(bare(), endpoints(subset("1.2.3.4")))
        world.plan(MIRRORING, KEY)
        assert world.all(SLICES)
        del world.objects[resource][KEY]
        world.plan(MIRRORING, KEY)
        assert not world.all(SLICES)
    world = World(bare(), endpoints(subset("1.2.3.4")))
    world.plan(MIRRORING, KEY)
    world.put({**world.get("services", KEY), "spec": service("db")["spec"]})
    world.plan(MIRRORING, KEY)
    assert not world.all(SLICES)


def test_a_thousand_addresses_are_the_limit() -> None:
    many = [f"10.0.{number // 250}.{number % 250 + 1}" for number in range(1002)]
    world = World(bare(), endpoints(subset(*many)))
    effects = world.plan(MIRRORING, KEY)
    (slice_,) = world.all(SLICES)
    assert len(slice_["endpoints"]) == 1000
    text = (
        "A max of 1000 addresses can be mirrored to EndpointSlices per Endpoints subset. "
        "2 addresses were skipped"
    )
    assert events(effects) == [("TooManyAddressesToMirror", text)]


def test_what_is_no_address_is_skipped_and_told() -> None:
    world = World(bare(), endpoints(subset("1.2.3.4", "here")))
    effects = world.plan(MIRRORING, KEY)
    assert events(effects) == [
        ("InvalidIPAddress", "Skipped 1 invalid IP addresses when mirroring to EndpointSlices")
    ]
    assert len(world.all(SLICES)[0]["endpoints"]) == 1
