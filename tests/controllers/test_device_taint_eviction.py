"""What NoExecute taints of devices do to the pods that use them: at once, after a while, or never."""

from __future__ import annotations

from typing import Any

import pytest

from kcp.controllers import effects as fx
from kcp.controllers.device_taint_eviction import CONTROLLER, touched_claim, touched_pod, touched_slice
from kcp.machinery import meta
from kcp.machinery.errors import InternalError
from tests.support.builders import metadata, pod
from tests.support.planning import World, events, of_type

Json = dict[str, Any]
KEY = "default/a"
SICK = {"key": "sick", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}
"""Since the start of the world's clock."""


def offered(*taints: Json, generation: int = 1, name: str = "s") -> Json:
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": name},
        "spec": {
            "driver": "d.example.com",
            "pool": {"name": "p", "generation": generation, "resourceSliceCount": 1},
            "nodeName": "n",
            "devices": [{"name": "x", "taints": list(taints)}, {"name": "y"}],
        },
    }


def claim(*tolerations: Json, uid: str = "uid-a", device: str = "x") -> Json:
    result: Json = {"request": "r", "driver": "d.example.com", "pool": "p", "device": device}
    if tolerations:
        result = {**result, "tolerations": list(tolerations)}
    consumers = [{"resource": "pods", "name": "a", "uid": uid}]
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": metadata("c"),
        "spec": {},
        "status": {"allocation": {"devices": {"results": [result]}}, "reservedFor": consumers},
    }


def user(node: str = "n") -> Json:
    found = pod("a", node=node, spec={"resourceClaims": [{"name": "c", "resourceClaimName": "c"}]})
    return {**found, "metadata": {**found["metadata"], "uid": "uid-a"}}


def tolerating(seconds: int | None = None, effect: str = "NoExecute") -> Json:
    found: Json = {"key": "sick", "operator": "Exists", "effect": effect}
    return found if seconds is None else {**found, "tolerationSeconds": seconds}


def test_a_pod_whose_claim_does_not_tolerate_goes_at_once_and_says_why() -> None:
    effects = World(offered(SICK), claim(), user()).plan(CONTROLLER, KEY)
    assert events(effects) == [("DeviceTaintManagerEviction", "Marking for deletion")]
    (mark,) = of_type(effects, fx.Patch)
    (condition,) = mark.patch["status"]["conditions"]
    assert (condition["type"], condition["reason"]) == ("DisruptionTarget", "DeletionByDeviceTaintManager")
    assert condition["message"] == "Device Taint manager: deleting due to NoExecute taint"
    assert [delete.name for delete in of_type(effects, fx.Delete)] == ["a"]


@pytest.mark.parametrize(
    "objects",
    [
        (offered(SICK), claim(tolerating()), user()),
        (offered(SICK), claim(tolerating(5), tolerating()), user()),
        (offered({**SICK, "effect": "NoSchedule"}), claim(), user()),
        (offered(SICK), claim(device="y"), user()),
        (offered(SICK), claim(uid="uid-of-the-pod-before"), user()),
        (offered(SICK), claim(), user(node="")),
        (offered(SICK), offered(generation=2, name="newer"), claim(), user()),
    ],
    ids=["for ever", "one for ever", "NoSchedule", "other device", "other pod", "unbound", "outdated slice"],
)
def test_it_stays(objects: tuple[Json, ...]) -> None:
    assert not World(*objects).plan(CONTROLLER, KEY)


def test_an_empty_effect_does_not_tolerate_eviction() -> None:
    here = World(offered(SICK), claim(tolerating(effect="")), user())
    assert of_type(here.plan(CONTROLLER, KEY), fx.Delete)


def test_toleration_seconds_count_from_when_the_taint_was_added() -> None:
    here = World(offered(SICK), claim(tolerating(30), tolerating(60)), user())
    here.sleep(10)
    (again,) = of_type(here.plan(CONTROLLER, KEY), fx.RequeueAfter)
    assert again.seconds == 20
    here.sleep(20)
    assert of_type(here.plan(CONTROLLER, KEY), fx.Delete)


def test_a_taint_without_a_time_counts_from_when_it_was_seen() -> None:
    here = World(offered({**SICK, "timeAdded": None}), claim(tolerating(30)), user())
    here.sleep(10)
    (again,) = of_type(here.plan(CONTROLLER, KEY), fx.RequeueAfter)
    assert again.seconds == 30
    here.sleep(29)
    assert not of_type(here.plan(CONTROLLER, KEY), fx.Delete)
    here.sleep(1)
    assert of_type(here.plan(CONTROLLER, KEY), fx.Delete)


def test_a_clock_that_is_set_back_lengthens_no_wait() -> None:
    world = World(offered({**SICK, "timeAdded": None}), claim(tolerating(30)), user())
    world.plan(CONTROLLER, KEY)
    world.sleep(-3600)
    (again,) = of_type(world.plan(CONTROLLER, KEY), fx.RequeueAfter)
    assert again.seconds == 30
    world.sleep(30)
    assert of_type(world.plan(CONTROLLER, KEY), fx.Delete)


def test_the_deletion_is_cancelled_when_the_device_is_well_again() -> None:
    here = World(offered(SICK), claim(tolerating(30)), user())
    here.plan(CONTROLLER, KEY)
    here.put(offered())
    assert events(here.plan(CONTROLLER, KEY)) == [("DeviceTaintManagerEviction", "Cancelling deletion")]
    assert not here.plan(CONTROLLER, KEY)


def test_a_pod_that_could_not_be_marked_is_not_deleted_yet() -> None:
    here = World(offered(SICK), claim(), user())
    here.fail[fx.Patch] = InternalError("try again")
    assert not of_type(here.plan(CONTROLLER, KEY), fx.Delete)


def test_who_is_concerned() -> None:
    here = World(offered(SICK), claim(), user())
    readers = {name: here.view(CONTROLLER)[name] for name in CONTROLLER.watches}
    tainted, present = here.get("resourceslices.resource.k8s.io", "s"), here.get("pods", KEY)
    held = here.get("resourceclaims.resource.k8s.io", "default/c")
    assert touched_slice(offered(), tainted, readers) == [KEY]
    assert touched_slice(tainted, tainted, readers) == []
    assert touched_claim(None, held, readers) == [KEY]
    assert touched_claim(held, {**held, "status": {}}, readers) == [KEY]
    assert touched_pod(None, present, readers) == [KEY]
    assert touched_pod(present, present, readers) == []
    assert touched_pod(present, None, readers) == [meta.key_of(present)]
    assert touched_pod(None, pod("free"), readers) == []
    well = World(offered(), claim(), user())
    readers = {name: well.view(CONTROLLER)[name] for name in CONTROLLER.watches}
    assert touched_slice(tainted, well.get("resourceslices.resource.k8s.io", "s"), readers) == [KEY]
    assert touched_claim(None, held, readers) == []
    assert touched_pod(None, present, readers) == []
