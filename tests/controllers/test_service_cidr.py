"""ServiceCIDRs: ready while they live, and gone only when no address depends on them alone."""

from __future__ import annotations

from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.service_cidr import CONTROLLER, FINALIZER, freed, touched_range
from kcp.machinery import meta
from kcp.machinery.errors import Conflict
from tests.support.planning import START, World, events, writes

Json = dict[str, Any]
RANGES = "servicecidrs.networking.k8s.io"


def service_range(name: str, *cidrs: str, deleted: bool = False) -> Json:
    metadata: Json = {"name": name}
    if deleted:
        metadata["deletionTimestamp"] = START.strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata["finalizers"] = [FINALIZER]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": metadata,
        "spec": {"cidrs": list(cidrs)},
    }


def address(ip: str, manager: str = "ipallocator.k8s.io") -> Json:
    labels = {"ipaddress.kubernetes.io/managed-by": manager}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {"name": ip, "labels": labels},
        "spec": {},
    }


def test_a_new_range_gets_its_finalizer_and_becomes_ready() -> None:
    world = World(service_range("own", "10.0.0.0/24"))
    world.plan(CONTROLLER, "own")
    found = world.get(RANGES, "own")
    assert meta.finalizers(found) == [FINALIZER]
    condition = meta.condition(found, "Ready")
    assert condition is not None
    assert (condition["status"], condition["message"]) == ("True", "Kubernetes Service CIDR is ready")
    assert writes(world.plan(CONTROLLER, "own")) == []


def test_a_range_that_cannot_be_made_ready_says_so() -> None:
    world = World(service_range("own", "10.0.0.0/24"))
    world.fail[fx.Status] = Conflict("changed")
    text = "The ServiceCIDR Status can not be set to Ready=True"
    assert events(world.plan(CONTROLLER, "own")) == [("KubernetesServiceCIDRError", text)]


def test_a_range_in_use_says_so_and_stays() -> None:
    world = World(service_range("own", "10.0.0.0/24", deleted=True), address("10.0.0.7"))
    world.plan(CONTROLLER, "own")
    condition = meta.condition(world.get(RANGES, "own"), "Ready")
    assert condition is not None
    assert (condition["status"], condition["reason"]) == ("False", "Terminating")
    assert condition["message"] == (
        "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"
    )
    world.sleep(60)
    world.plan(CONTROLLER, "own")
    assert meta.finalizers(world.get(RANGES, "own")) == [FINALIZER]


def test_a_free_range_goes_ten_seconds_after_its_deletion() -> None:
    world = World(service_range("own", "10.0.0.0/24", deleted=True), address("10.0.0.7", "somebody"))
    assert world.plan(CONTROLLER, "own") == [fx.RequeueAfter(10.0)]
    world.sleep(10)
    world.plan(CONTROLLER, "own")
    assert meta.finalizers(world.get(RANGES, "own")) == []


def test_a_range_may_go_when_another_covers_it_or_all_its_addresses() -> None:
    covered = World(
        service_range("own", "10.0.0.0/24", deleted=True),
        service_range("all", "10.0.0.0/8"),
        address("10.0.0.7"),
    )
    assert covered.plan(CONTROLLER, "own") == [fx.RequeueAfter(10.0)]
    smaller = World(
        service_range("own", "10.0.0.0/24", deleted=True),
        service_range("part", "10.0.0.0/28"),
        address("10.0.0.7"),
    )
    assert smaller.plan(CONTROLLER, "own") == [fx.RequeueAfter(10.0)]


def test_the_servers_own_word_about_the_default_range_is_replaced() -> None:
    own = {"type": "Ready", "status": "True", "message": "Kubernetes default Service CIDR is ready"}
    world = World({**service_range("kubernetes", "10.0.0.0/24"), "status": {"conditions": [own]}})
    world.plan(CONTROLLER, "kubernetes")
    condition = meta.condition(world.get(RANGES, "kubernetes"), "Ready")
    assert condition is not None and condition["message"] == "Kubernetes Service CIDR is ready"


def test_what_queues_a_range() -> None:
    world = World(service_range("going", "10.0.0.0/24", deleted=True), service_range("other", "10.1.0.0/24"))
    readers = {"ranges": world.view(CONTROLLER).ranges}
    other = world.get(RANGES, "other")
    assert touched_range(None, other, readers) == ["other", "going"]
    assert touched_range(other, None, readers) == ["going"]
    assert touched_range(other, other, readers) == ["other"]
    assert freed(address("10.0.0.1"), None, readers) == ["going"]
    assert freed(None, address("10.0.0.1"), readers) == []
