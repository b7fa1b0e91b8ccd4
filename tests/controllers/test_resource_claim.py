"""Claims are made for pods, reserved for those that run already, freed with their last consumer, and go with their pod."""

from __future__ import annotations

from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.resource_claim import CONTROLLER, base_name, touched_claim, touched_pod
from kcp.machinery import meta
from kcp.machinery.errors import Forbidden
from tests.support.builders import metadata, pod
from tests.support.planning import World, events

Json = dict[str, Any]
CLAIMS = "resourceclaims.resource.k8s.io"
FINALIZER = "resource.kubernetes.io/delete-protection"
POD, CLAIM = "pod:default/web", "claim:default/c"
RESULT = {"request": "r", "driver": "d.example.com", "pool": "p", "device": "x"}


def template() -> Json:
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": metadata("gpu"),
        "spec": {
            "metadata": {"labels": {"of": "gpu"}, "annotations": {"a": "b"}},
            "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}},
        },
    }


def user(**more: Any) -> Json:
    entries = [{"name": "dev", "resourceClaimTemplateName": "gpu"}]
    return pod("web", spec={"resourceClaims": entries, **more.pop("spec", {})}, **more)


def claim(*consumers: Json, protected: bool = True, allocated: bool = True, **more: Any) -> Json:
    status: Json = {"allocation": {"devices": {"results": [RESULT]}}} if allocated else {}
    if consumers:
        status["reservedFor"] = [
            {"resource": "pods", "name": meta.name(consumer), "uid": meta.uid(consumer)}
            for consumer in consumers
        ]
    finalizers: Json = {"finalizers": [FINALIZER]} if protected else {}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": metadata("c", **finalizers, **more),
        "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}},
        "status": status,
    }


def named(consumer: Json) -> Json:
    """A pod with that claim."""
    return {
        **consumer,
        "spec": {**consumer["spec"], "resourceClaims": [{"name": "c", "resourceClaimName": "c"}]},
    }


def test_a_claim_is_made_as_the_template_says_and_the_pod_learns_its_name() -> None:
    world = World(user(), template())
    create, patch = world.plan(CONTROLLER, POD)
    assert isinstance(create, fx.Create)
    assert create.object["metadata"]["generateName"] == "web-dev-"
    (made,) = world.all(CLAIMS)
    assert meta.labels(made) == {"of": "gpu"}
    assert meta.annotations(made) == {"a": "b", "resource.kubernetes.io/pod-claim-name": "dev"}
    (owner,) = meta.owner_references(made)
    assert owner["controller"] is True and not owner.get("blockOwnerDeletion")
    assert made["spec"] == template()["spec"]["spec"]
    assert isinstance(patch, fx.Patch) and patch.force
    assert (patch.type, patch.subresource, patch.field_manager) == (
        "apply",
        "status",
        "ResourceClaimController",
    )
    told = [{"name": "dev", "resourceClaimName": meta.name(made)}]
    assert patch.patch["status"] == {"resourceClaimStatuses": told}


def test_a_claim_that_was_made_before_is_used() -> None:
    """The controller stopped before it could tell the pod."""
    owner = user(uid="u")
    metadata = {
        "ownerReferences": [meta.owner_reference(owner, block=False)],
        "annotations": {"resource.kubernetes.io/pod-claim-name": "dev"},
    }
    world = World(owner, template(), claim(allocated=False, protected=False, **metadata))
    (patch,) = world.plan(CONTROLLER, POD)
    assert isinstance(patch, fx.Patch)
    assert patch.patch["status"] == {"resourceClaimStatuses": [{"name": "dev", "resourceClaimName": "c"}]}
    assert world.plan(CONTROLLER, POD) == []


def test_a_claim_that_went_is_made_again() -> None:
    status = {"resourceClaimStatuses": [{"name": "dev", "resourceClaimName": "web-dev-gone"}]}
    world = World({**user(), "status": status}, template())
    create, _ = world.plan(CONTROLLER, POD)
    assert isinstance(create, fx.Create)


def test_no_claim_is_needed_where_the_status_says_so() -> None:
    world = World({**user(), "status": {"resourceClaimStatuses": [{"name": "dev"}]}}, template())
    assert world.plan(CONTROLLER, POD) == []


def test_long_names_are_shortened_each_by_its_share() -> None:
    assert base_name("web", "dev") == "web-dev-"
    found = base_name("p" * 60, "c" * 30)
    assert len(found) <= 57 and found == "p" * 37 + "-" + "c" * 18


def test_what_cannot_be_made_is_said() -> None:
    world = World(user())
    text = (
        'PodResourceClaim dev: resource claim template "gpu": '
        'resourceclaimtemplate.resource.k8s.io "gpu" not found'
    )
    assert events(world.plan(CONTROLLER, POD)) == [("FailedResourceClaimCreation", text)]
    world = World(user(), template())
    world.fail[fx.Create] = Forbidden("no")
    text = "PodResourceClaim dev: create ResourceClaim : no"
    assert events(world.plan(CONTROLLER, POD)) == [("FailedResourceClaimCreation", text)]


def test_a_pod_that_somebody_put_on_its_node_gets_the_reservation() -> None:
    world = World(named(pod("web", node="n", uid="u")), claim())
    world.plan(CONTROLLER, POD)
    (consumer,) = world.get(CLAIMS, "default/c")["status"]["reservedFor"]
    assert consumer == {"resource": "pods", "name": "web", "uid": "u"}
    assert world.plan(CONTROLLER, POD) == []


def test_the_last_consumer_takes_the_allocation_and_the_protection_along() -> None:
    done = named(pod("web", node="n", phase="Succeeded", uid="u"))
    world = World(done, claim(done))
    world.plan(CONTROLLER, CLAIM)
    left = world.get(CLAIMS, "default/c")
    assert left["status"] == {} and meta.finalizers(left) == []


def test_others_keep_it_allocated() -> None:
    done, busy = pod("web", node="n", phase="Failed", uid="u"), pod("other", node="n", uid="v")
    world = World(done, busy, claim(done, busy))
    world.plan(CONTROLLER, CLAIM)
    status = world.get(CLAIMS, "default/c")["status"]
    assert [c["name"] for c in status["reservedFor"]] == ["other"] and status["allocation"]


def test_a_pod_that_is_not_in_the_cache_is_asked_for_before_it_loses_its_claim() -> None:
    gone = pod("web", uid="u")
    world = World(claim(gone))
    live, *_ = world.plan(CONTROLLER, CLAIM)
    assert isinstance(live, fx.Live)
    assert world.get(CLAIMS, "default/c")["status"] == {}


def test_another_pod_of_that_name_does_not_count_and_unknown_consumers_do() -> None:
    old, new = pod("web", uid="old"), pod("web", node="n", uid="new")
    world = World(new, claim(old))
    world.plan(CONTROLLER, CLAIM)
    assert world.get(CLAIMS, "default/c")["status"] == {}
    foreign = claim()
    foreign["status"]["reservedFor"] = [
        {"apiGroup": "example.com", "resource": "jobs", "name": "j", "uid": "x"}
    ]
    world = World(foreign)
    assert world.plan(CONTROLLER, CLAIM) == []


def test_a_claim_that_was_never_used_stays_allocated_until_it_is_deleted() -> None:
    world = World(claim())
    assert world.plan(CONTROLLER, CLAIM) == []
    world = World(claim(deletionTimestamp="2026-01-01T00:00:00Z"))
    world.plan(CONTROLLER, CLAIM)
    left = world.get(CLAIMS, "default/c")
    assert left["status"] == {} and meta.finalizers(left) == []


def test_a_generated_claim_goes_when_its_pod_is_done_or_replaced() -> None:
    for owner in (pod("web", node="n", phase="Succeeded", uid="u"), pod("web", uid="other")):
        reference = {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "u", "controller": True}
        world = World(owner, claim(allocated=False, protected=False, ownerReferences=[reference]))
        (delete,) = world.plan(CONTROLLER, CLAIM)
        assert isinstance(delete, fx.Delete) and delete.name == "c"


def test_whose_change_queues_what() -> None:
    running = named(pod("web", node="n", uid="u"))
    world = World(running, claim(running))
    readers = {name: getattr(world.view(CONTROLLER), name) for name in CONTROLLER.watches}
    assert touched_pod(None, running, readers) == []
    assert touched_pod(running, None, readers) == [CLAIM]
    ended = {**running, "status": {"phase": "Succeeded"}}
    assert touched_pod(running, ended, readers) == [CLAIM]
    fresh = claim()
    assert touched_claim(None, fresh, readers) == [CLAIM]
    assert touched_pod(None, user(), readers) == [POD]
    assert touched_pod(None, pod("plain"), readers) == []


def test_a_pod_that_is_done_gets_no_claim_again() -> None:
    """Its claim was just deleted because it is done: making another one would go on for ever."""
    done = user(phase="Failed")
    world = World(done, template())
    assert world.plan(CONTROLLER, POD) == []
