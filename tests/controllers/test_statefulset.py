"""What users see of a StatefulSet: order, identity, storage, updates, history."""

from __future__ import annotations

from typing import Any

import pytest

from kcp.controllers import effects as fx
from kcp.controllers.statefulset import CONTROLLER, claims
from kcp.controllers.statefulset.controller import freed
from kcp.machinery import meta
from kcp.machinery.errors import Forbidden
from tests.support.builders import owner_ref, pod, statefulset
from tests.support.planning import World, events, of_type, writes
from tests.support.pods_by_hand import (
    edit,
    images,
    pod_names,
    run_new,
    set_image,
    set_status,
    start_deleting,
)

Json = dict[str, Any]
KEY, RESOURCE = "default/db", "statefulsets.apps"
CLAIM = {
    "metadata": {"name": "data"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}


def settle(world: World, limit: int = 60) -> list[fx.Effect]:
    """Plan and run pods until nothing changes."""
    done: list[fx.Effect] = []
    for _ in range(limit):
        effects = world.plan(CONTROLLER, KEY)
        done.extend(effects)
        if not run_new(world) and not writes(effects):
            return done
    raise AssertionError("does not settle")


def status(world: World) -> Json:
    found: Json = world.get(RESOURCE, KEY)["status"]
    return found


def revisions(world: World) -> dict[str, int]:
    return {meta.name(r): r["revision"] for r in world.all("controllerrevisions.apps")}


def break_pod(world: World, name: str) -> None:
    set_status(world, world.get("pods", f"default/{name}"), "Running", ready=False)


def made(effects: list[fx.Effect], resource: str = "pods") -> list[str]:
    return [e.object["metadata"]["name"] for e in of_type(effects, fx.Create) if e.resource == resource]


def deleted(effects: list[fx.Effect]) -> list[str]:
    return [e.name for e in of_type(effects, fx.Delete) if e.resource == "pods"]


def test_pods_come_one_after_another_each_when_the_one_before_is_ready() -> None:
    world = World(statefulset("db", replicas=3))
    effects = world.plan(CONTROLLER, KEY)
    assert made(effects) == ["db-0"]
    assert ("SuccessfulCreate", "create Pod db-0 in StatefulSet db successful") in events(effects)
    assert made(world.plan(CONTROLLER, KEY)) == []
    run_new(world, ready=False)
    assert made(world.plan(CONTROLLER, KEY)) == []
    set_status(world, world.get("pods", "default/db-0"), "Running", ready=True)
    assert made(world.plan(CONTROLLER, KEY)) == ["db-1"]
    settle(world)
    assert pod_names(world) == ["db-0", "db-1", "db-2"]


def test_a_pod_knows_who_it_is() -> None:
    world = World(statefulset("db"))
    world.plan(CONTROLLER, KEY)
    (one,) = world.all("pods")
    (revision,) = revisions(world)
    assert one["metadata"]["labels"] == {
        "app": "db",
        "statefulset.kubernetes.io/pod-name": "db-0",
        "apps.kubernetes.io/pod-index": "0",
        "controller-revision-hash": revision,
    }
    assert (one["spec"]["hostname"], one["spec"]["subdomain"]) == ("db-0", "db")


def test_a_settled_set_says_so_and_is_left_alone() -> None:
    world = World(statefulset("db", replicas=2))
    settle(world)
    (revision,) = revisions(world)
    assert status(world) == {
        "observedGeneration": 1,
        "replicas": 2,
        "readyReplicas": 2,
        "availableReplicas": 2,
        "currentReplicas": 2,
        "updatedReplicas": 2,
        "currentRevision": revision,
        "updateRevision": revision,
        "collisionCount": 0,
    }
    assert not writes(world.plan(CONTROLLER, KEY))


def test_parallel_means_all_at_once() -> None:
    world = World(statefulset("db", replicas=4, podManagementPolicy="Parallel"))
    assert made(world.plan(CONTROLLER, KEY)) == ["db-0", "db-1", "db-2", "db-3"]
    run_new(world, ready=False)
    edit(world, RESOURCE, KEY, replicas=1)
    assert deleted(world.plan(CONTROLLER, KEY)) == ["db-3", "db-2", "db-1"]


def test_scaling_down_takes_the_highest_first_and_one_at_a_time() -> None:
    world = World(statefulset("db", replicas=3))
    settle(world)
    edit(world, RESOURCE, KEY, replicas=1)
    assert deleted(world.plan(CONTROLLER, KEY)) == ["db-2"]
    assert deleted(world.plan(CONTROLLER, KEY)) == ["db-1"]
    assert deleted(world.plan(CONTROLLER, KEY)) == []


def test_scaling_down_halts_while_a_pod_is_unhealthy() -> None:
    world = World(statefulset("db", replicas=3))
    settle(world)
    break_pod(world, "db-0")
    edit(world, RESOURCE, KEY, replicas=2)
    assert deleted(world.plan(CONTROLLER, KEY)) == []
    set_status(world, world.get("pods", "default/db-0"), "Running", ready=True)
    assert deleted(world.plan(CONTROLLER, KEY)) == ["db-2"]


def test_an_unhealthy_pod_does_not_keep_itself_from_being_scaled_away() -> None:
    world = World(statefulset("db", replicas=2))
    settle(world)
    break_pod(world, "db-1")
    edit(world, RESOURCE, KEY, replicas=1)
    assert deleted(world.plan(CONTROLLER, KEY)) == ["db-1"]


def test_a_pod_that_ended_is_made_again() -> None:
    world = World(statefulset("db", replicas=2))
    settle(world)
    set_status(world, world.get("pods", "default/db-0"), "Failed")
    assert deleted(world.plan(CONTROLLER, KEY)) == ["db-0"]
    assert made(world.plan(CONTROLLER, KEY)) == ["db-0"]


def test_nothing_happens_while_a_pod_terminates() -> None:
    world = World(statefulset("db", replicas=2))
    settle(world)
    start_deleting(world, world.get("pods", "default/db-1"))
    assert not made(world.plan(CONTROLLER, KEY)) and not deleted(world.plan(CONTROLLER, KEY))


def test_an_update_goes_from_the_highest_ordinal_down() -> None:
    world = World(statefulset("db", replicas=3))
    settle(world)
    (before,) = revisions(world)
    set_image(world, RESOURCE, KEY, "registry.example/app:2")
    order = deleted(settle(world))
    assert order == ["db-2", "db-1", "db-0"]
    assert images(world) == ["2", "2", "2"]
    assert status(world)["currentRevision"] == status(world)["updateRevision"] != before


def test_an_update_waits_for_each_pod_to_be_ready() -> None:
    world = World(statefulset("db", replicas=3))
    settle(world)
    set_image(world, RESOURCE, KEY, "registry.example/app:2")
    assert deleted(world.plan(CONTROLLER, KEY)) == ["db-2"]
    world.plan(CONTROLLER, KEY)
    run_new(world, ready=False)
    assert deleted(world.plan(CONTROLLER, KEY)) == []
    found = status(world)
    assert (found["updatedReplicas"], found["currentReplicas"], found["readyReplicas"]) == (1, 2, 2)


def test_a_partition_keeps_the_lower_ordinals_on_the_old_revision() -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
    world = World(statefulset("db", replicas=3, updateStrategy=rolling))
    settle(world)
    set_image(world, RESOURCE, KEY, "registry.example/app:2")
    settle(world)
    assert images(world) == ["1", "1", "2"]
    del world.objects["pods"]["default/db-0"]  # a canary's old pods come back as they were
    settle(world)
    assert images(world) == ["1", "1", "2"]
    edit(world, RESOURCE, KEY, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
    settle(world)
    assert images(world) == ["2", "2", "2"]


def test_on_delete_updates_only_what_the_user_deletes() -> None:
    world = World(statefulset("db", replicas=2, updateStrategy={"type": "OnDelete"}))
    settle(world)
    set_image(world, RESOURCE, KEY, "registry.example/app:2")
    settle(world)
    assert images(world) == ["1", "1"]
    del world.objects["pods"]["default/db-0"]
    settle(world)
    assert images(world) == ["2", "1"]


def test_max_unavailable_lets_several_go_at_once() -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 2}}
    world = World(statefulset("db", replicas=4, updateStrategy=rolling))
    settle(world)
    set_image(world, RESOURCE, KEY, "registry.example/app:2")
    assert deleted(world.plan(CONTROLLER, KEY)) == ["db-3", "db-2"]


def test_a_rollback_takes_the_old_revision_up_again() -> None:
    world = World(statefulset("db"))
    settle(world)
    (first,) = revisions(world)
    set_image(world, RESOURCE, KEY, "registry.example/app:2")
    settle(world)
    set_image(world, RESOURCE, KEY, "registry.example/app:1")
    settle(world)
    assert len(revisions(world)) == 2
    assert revisions(world)[first] == 3
    assert status(world)["updateRevision"] == first


def test_history_keeps_what_is_in_use_and_as_many_as_the_limit() -> None:
    world = World(statefulset("db", revisionHistoryLimit=1))
    for version in range(1, 6):
        set_image(world, RESOURCE, KEY, f"registry.example/app:{version}")
        settle(world)
    assert sorted(revisions(world).values()) == [4, 5]


def test_a_revision_of_the_same_name_but_another_template_is_a_collision() -> None:
    world = World(statefulset("db"))
    world.plan(CONTROLLER, KEY)
    (name,) = revisions(world)
    taken = world.get("controllerrevisions.apps", f"default/{name}")
    foreign = {k: v for k, v in taken["metadata"].items() if k not in ("ownerReferences", "labels")}
    clash = {**taken, "metadata": foreign, "data": {"spec": {"template": {}}}}
    world = World(statefulset("db"), clash)
    world.plan(CONTROLLER, KEY)
    assert len(revisions(world)) == 2
    assert status(world)["collisionCount"] == 1


def test_min_ready_seconds_holds_the_next_pod_back() -> None:
    world = World(statefulset("db", replicas=2, minReadySeconds=10))
    world.plan(CONTROLLER, KEY)
    run_new(world)
    effects = world.plan(CONTROLLER, KEY)
    assert made(effects) == [] and of_type(effects, fx.RequeueAfter) == [fx.RequeueAfter(10)]
    assert (status(world)["readyReplicas"], status(world)["availableReplicas"]) == (1, 0)
    world.sleep(10)
    assert made(world.plan(CONTROLLER, KEY)) == ["db-1"]


def test_ordinals_may_start_elsewhere() -> None:
    world = World(statefulset("db", replicas=2, ordinals={"start": 5}))
    settle(world)
    assert pod_names(world) == ["db-5", "db-6"]
    edit(world, RESOURCE, KEY, ordinals={"start": 6})
    settle(world)
    assert pod_names(world) == ["db-6", "db-7"]


def test_claims_come_before_their_pod_and_outlive_it() -> None:
    world = World(statefulset("db", volumeClaimTemplates=[CLAIM]))
    effects = world.plan(CONTROLLER, KEY)
    assert [e.resource for e in of_type(effects, fx.Create)][1:] == ["persistentvolumeclaims", "pods"]
    assert events(effects)[0] == (
        "SuccessfulCreate",
        "create Claim data-db-0 Pod db-0 in StatefulSet db success",
    )
    claim = world.get("persistentvolumeclaims", "default/data-db-0")
    assert claim["metadata"]["labels"] == {"app": "db"} and not meta.owner_references(claim)
    (one,) = world.all("pods")
    assert one["spec"]["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "data-db-0"}}]
    settle(world)
    edit(world, RESOURCE, KEY, replicas=0)
    settle(world)
    assert pod_names(world) == [] and len(world.all("persistentvolumeclaims")) == 1


def test_a_refused_claim_keeps_the_pod_from_being_made() -> None:
    world = World(statefulset("db", volumeClaimTemplates=[CLAIM]))
    world.plan(CONTROLLER, KEY)
    world.objects["pods"] = {}
    world.objects["persistentvolumeclaims"] = {}
    world.fail[fx.Create] = Forbidden("exceeded quota")
    effects = world.plan(CONTROLLER, KEY)
    assert events(effects) == [
        (
            "FailedCreate",
            "create Claim data-db-0 for Pod db-0 in StatefulSet db failed error: exceeded quota",
        ),
        (
            "FailedCreate",
            "create Pod db-0 in StatefulSet db failed error: failed to create PVC data-db-0: exceeded quota",
        ),
    ]


def test_a_pod_waits_while_its_claim_is_deleted() -> None:
    world = World(statefulset("db", volumeClaimTemplates=[CLAIM]))
    world.plan(CONTROLLER, KEY)
    world.objects["pods"] = {}
    claim = world.get("persistentvolumeclaims", "default/data-db-0")
    world.put({**claim, "metadata": {**claim["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}})
    effects = world.plan(CONTROLLER, KEY)
    assert not made(effects)
    assert events(effects)[0][1].endswith("failed error: pvc data-db-0 is being deleted")
    gone = world.objects["persistentvolumeclaims"].pop("default/data-db-0")
    readers: Any = world.view(CONTROLLER)
    assert freed(gone, None, readers) == [KEY]


@pytest.mark.parametrize(
    ("when_scaled", "when_deleted", "number", "expected"),
    [
        ("Retain", "Retain", 0, []),
        ("Retain", "Delete", 0, ["StatefulSet"]),
        ("Retain", "Delete", 5, ["StatefulSet"]),
        ("Delete", "Retain", 0, []),
        ("Delete", "Retain", 5, ["Pod"]),
        ("Delete", "Delete", 0, ["StatefulSet"]),
        ("Delete", "Delete", 5, ["Pod"]),
    ],
)
def test_the_retention_policy_is_a_matter_of_owners(
    when_scaled: str, when_deleted: str, number: int, expected: list[str]
) -> None:
    policy = {"whenScaled": when_scaled, "whenDeleted": when_deleted}
    set_ = statefulset("db", replicas=2, persistentVolumeClaimRetentionPolicy=policy)
    set_["metadata"]["uid"] = "uid-set"
    one = pod(f"db-{number}", uid="uid-pod")
    bare = {"metadata": {"name": "data", "ownerReferences": []}}
    both = {"metadata": {"name": "data", "ownerReferences": [owner_ref(set_), owner_ref(one)]}}
    for claim in (bare, both):
        owners = claims.owners(claim, set_, one)
        kinds = [r["kind"] for r in (meta.owner_references(claim) if owners is None else owners)]
        assert kinds == expected
        assert owners is None or all(r["controller"] for r in owners)


def test_a_claim_that_somebody_else_controls_is_left_to_them() -> None:
    policy = {"whenDeleted": "Delete"}
    set_ = statefulset("db", persistentVolumeClaimRetentionPolicy=policy)
    set_["metadata"]["uid"] = "uid-set"
    other = {"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "x", "uid": "u"}}
    claim = {"metadata": {"name": "data", "ownerReferences": [owner_ref(other)]}}
    assert claims.owners(claim, set_, pod("db-0", uid="uid-pod")) is None
    claim["metadata"]["ownerReferences"].append(owner_ref(set_))  # type: ignore[attr-defined]
    assert claims.owners(claim, set_, pod("db-0", uid="uid-pod")) == [owner_ref(other)]


def test_only_pods_of_the_right_name_are_adopted() -> None:
    mine, stranger = pod("db-0", labels={"app": "db"}), pod("other-0", labels={"app": "db"})
    world = World(statefulset("db"), mine, stranger)
    world.plan(CONTROLLER, KEY)
    assert meta.controller_of(world.get("pods", "default/db-0")) is not None
    assert meta.controller_of(world.get("pods", "default/other-0")) is None


def test_labels_of_identity_are_put_back() -> None:
    world = World(statefulset("db"))
    settle(world)
    (one,) = world.all("pods")
    labels = {k: v for k, v in meta.labels(one).items() if not k.startswith("statefulset")}
    world.put({**one, "metadata": {**one["metadata"], "labels": labels}})
    effects = world.plan(CONTROLLER, KEY)
    assert ("SuccessfulUpdate", "update Pod db-0 in StatefulSet db successful") in events(effects)
    (one,) = world.all("pods")
    assert meta.labels(one)["statefulset.kubernetes.io/pod-name"] == "db-0"


def test_a_set_that_is_deleted_only_tells_its_status() -> None:
    set_ = statefulset("db", replicas=2)
    set_["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world = World(set_)
    effects = world.plan(CONTROLLER, KEY)
    assert not made(effects) and status(world)["replicas"] == 0


def test_a_new_default_of_the_server_rolls_nothing_out() -> None:
    world = World(statefulset("db"))
    settle(world)
    template = world.get(RESOURCE, KEY)["spec"]["template"]
    edit(
        world, RESOURCE, KEY, template={**template, "spec": {**template["spec"], "dnsPolicy": "ClusterFirst"}}
    )
    effects = settle(world)
    assert len(revisions(world)) == 1 and not deleted(effects)


def test_a_claim_with_two_masters_is_told_about() -> None:
    policy = {"whenDeleted": "Delete", "whenScaled": "Retain"}
    world = World(
        statefulset("db", volumeClaimTemplates=[CLAIM], persistentVolumeClaimRetentionPolicy=policy)
    )
    settle(world)
    claim = world.get("persistentvolumeclaims", "default/data-db-0")
    other = {"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "x", "uid": "u"}}
    both = [*meta.owner_references(claim), owner_ref(other)]
    world.put({**claim, "metadata": {**claim["metadata"], "ownerReferences": both}})
    text = (
        "PersistentVolumeClaim data-db-0 has a conflicting OwnerReference that acts as a manging controller, "
        "the retention policy is ignored for this claim"
    )
    assert ("ConflictingController", text) in events(world.plan(CONTROLLER, KEY))
    claim = world.get("persistentvolumeclaims", "default/data-db-0")
    assert meta.owner_references(claim) == [owner_ref(other)]
