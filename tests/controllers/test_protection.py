"""Protection: what is used stays; what nobody uses goes."""

from __future__ import annotations

from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.protection import (
    ATTRIBUTES_CONTROLLER,
    CLAIM_CONTROLLER,
    VOLUME_CONTROLLER,
    left_by_claim,
    touched_pod,
)
from kcp.machinery import meta
from tests.support.builders import metadata, owner_ref, pod
from tests.support.planning import World, of_type, writes

Json = dict[str, Any]
CLAIMS, VOLUMES = "persistentvolumeclaims", "persistentvolumes"
NOW = "2026-01-01T00:00:00Z"


def claim(name: str = "data", *, going: bool = True, protected: bool = True, **spec: Any) -> Json:
    built: Json = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(name, finalizers=["example.com/mine"]),
        "spec": spec,
    }
    if protected:
        built["metadata"]["finalizers"] += ["kubernetes.io/pvc-protection"]
    if going:
        built["metadata"]["deletionTimestamp"] = NOW
    return built


def user(name: str = "web", *, node: str = "n1", **more: Any) -> Json:
    volumes = [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]
    return pod(name, node=node, spec={"volumes": volumes}, **more)


def finalizers(world: World, resource: str = CLAIMS, key: str = "default/data") -> list[str]:
    return meta.finalizers(world.get(resource, key))


def test_a_claim_that_nobody_uses_goes_after_a_live_look() -> None:
    world = World(claim())
    effects = world.plan(CLAIM_CONTROLLER, "default")
    assert of_type(effects, fx.LiveList) == [fx.LiveList("pods", "default")]
    assert finalizers(world) == ["example.com/mine"]


def test_a_claim_stays_while_a_scheduled_pod_names_it_even_a_finished_one() -> None:
    for one in (user(phase="Running"), user(phase="Succeeded")):
        world = World(claim(), one)
        assert world.plan(CLAIM_CONTROLLER, "default") == []
    assert writes(World(claim(), user(node="")).plan(CLAIM_CONTROLLER, "default"))


def test_one_live_list_settles_all_claims_of_a_namespace() -> None:
    world = World(claim("data"), claim("b"), claim("c"), user())
    effects = world.plan(CLAIM_CONTROLLER, "default")
    assert len(of_type(effects, fx.LiveList)) == 1
    assert "kubernetes.io/pvc-protection" in finalizers(world)
    assert "kubernetes.io/pvc-protection" not in finalizers(world, key="default/b")


def test_an_unprotected_claim_is_protected() -> None:
    world = World(claim(going=False, protected=False))
    world.plan(CLAIM_CONTROLLER, "default")
    assert finalizers(world) == ["example.com/mine", "kubernetes.io/pvc-protection"]


def test_the_claim_of_an_ephemeral_volume_goes_once_its_pod_is_shut_down() -> None:
    owner = pod("web", node="n1", uid="pod-1", spec={"volumes": [{"name": "d", "ephemeral": {}}]})
    owned = claim("web-d")
    owned["metadata"]["ownerReferences"] = [owner_ref(owner)]
    world = World(owned, owner)
    assert world.plan(CLAIM_CONTROLLER, "default") == []
    owner["metadata"] |= {"deletionTimestamp": NOW, "deletionGracePeriodSeconds": 0}
    world.put(owner)
    assert writes(world.plan(CLAIM_CONTROLLER, "default"))


def test_a_pod_that_goes_queues_its_namespace_only_when_a_claim_waits() -> None:
    waiting = {"claims": World(claim()).view(CLAIM_CONTROLLER).claims}
    quiet = {"claims": World(claim(going=False)).view(CLAIM_CONTROLLER).claims}
    assert touched_pod(user(), None, waiting) == ["default"]
    assert touched_pod(user(), user(phase="Succeeded"), waiting) == []
    assert touched_pod(user(), None, quiet) == []


def volume(phase: str, *, going: bool = True, finalizers: tuple[str, ...] = ()) -> Json:
    metadata_: Json = {"name": "v", "finalizers": list(finalizers)}
    if going:
        metadata_["deletionTimestamp"] = NOW
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": metadata_,
        "spec": {"volumeAttributesClassName": "fast"},
        "status": {"phase": phase},
    }


def test_a_volume_goes_when_it_is_not_bound() -> None:
    mine = "kubernetes.io/pv-protection"
    bound = World(volume("Bound", finalizers=(mine,)))
    assert bound.plan(VOLUME_CONTROLLER, "v") == []
    released = World(volume("Released", finalizers=(mine,)))
    released.plan(VOLUME_CONTROLLER, "v")
    assert finalizers(released, VOLUMES, "v") == []
    new = World(volume("Available", going=False))
    new.plan(VOLUME_CONTROLLER, "v")
    assert finalizers(new, VOLUMES, "v") == [mine]


def test_an_attributes_class_goes_when_no_claim_and_no_volume_names_it() -> None:
    mine = "kubernetes.io/vac-protection"
    resource = "volumeattributesclasses.storage.k8s.io"
    going = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "VolumeAttributesClass",
        "metadata": {"name": "fast", "deletionTimestamp": NOW, "finalizers": [mine]},
        "driverName": "x.example.com",
    }
    named = claim(going=False)
    named["status"] = {"modifyVolumeStatus": {"targetVolumeAttributesClassName": "fast"}}
    for holder in (volume("Bound", going=False), named):
        assert World(going, holder).plan(ATTRIBUTES_CONTROLLER, "fast") == []
    world = World(going)
    world.plan(ATTRIBUTES_CONTROLLER, "fast")
    assert finalizers(world, resource, "fast") == []
    assert left_by_claim(named, claim(going=False), {}) == ["fast"]
    assert left_by_claim(named, named, {}) == []
