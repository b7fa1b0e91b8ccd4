"""Claims and volumes: which volume a claim gets, what is written in which order, and what becomes of both."""

from __future__ import annotations

from typing import Any

import pytest

from kcp.controllers import effects as fx
from kcp.controllers.persistent_volume import CONTROLLER
from kcp.controllers.persistent_volume.binder import touched_claim, touched_pod, touched_volume
from kcp.controllers.persistent_volume.matching import best_match
from kcp.machinery import meta
from kcp.machinery.errors import Conflict
from tests.support.builders import metadata, node, pod
from tests.support.planning import World, events, of_type, writes

Json = dict[str, Any]
CLAIMS, VOLUMES = "persistentvolumeclaims", "persistentvolumes"
KEY = "default/data"
BIND_COMPLETED, BY_CONTROLLER = "pv.kubernetes.io/bind-completed", "pv.kubernetes.io/bound-by-controller"


def claim(name: str = "data", storage: str = "1Gi", *, annotations: Json | None = None, **spec: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(name, uid=f"claim-{name}", annotations=annotations or {}),
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": storage}},
            **spec,
        },
        "status": {"phase": "Pending"},
    }


def volume(
    name: str,
    storage: str = "1Gi",
    *,
    phase: str = "Available",
    annotations: Json | None = None,
    labels: Json | None = None,
    **spec: Any,
) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": annotations or {}, "labels": labels or {}},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": storage},
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": "/x"},
            **spec,
        },
        "status": {"phase": phase},
    }


def reference(name: str = "data", uid: str | None = None) -> Json:
    ref = {"kind": "PersistentVolumeClaim", "namespace": "default", "name": name}
    return ref if uid == "" else {**ref, "uid": uid or f"claim-{name}"}


def storage_class(
    name: str, provisioner: str, *, wait: bool = False, default: bool = False, **more: Any
) -> Json:
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name, "annotations": annotations},
        "provisioner": provisioner,
        "volumeBindingMode": "WaitForFirstConsumer" if wait else "Immediate",
        **more,
    }


def phase(world: World, resource: str, key: str) -> str:
    found: str = world.get(resource, key)["status"]["phase"]
    return found


def test_binding_writes_volume_then_claim() -> None:
    world = World(claim(), volume("v"))
    effects = world.plan(CONTROLLER, KEY)
    order = [(type(e).__name__, e.resource) for e in writes(effects) if isinstance(e, (fx.Update, fx.Status))]
    assert order == [("Update", VOLUMES), ("Status", VOLUMES), ("Update", CLAIMS), ("Status", CLAIMS)]
    bound, holder = world.get(CLAIMS, KEY), world.get(VOLUMES, "v")
    assert bound["spec"]["volumeName"] == "v"
    assert meta.annotations(bound) == {BIND_COMPLETED: "yes", BY_CONTROLLER: "yes"}
    assert bound["status"] == {
        "phase": "Bound",
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "1Gi"},
    }
    assert holder["spec"]["claimRef"]["uid"] == "claim-data"
    assert (meta.annotations(holder), phase(world, VOLUMES, "v")) == ({BY_CONTROLLER: "yes"}, "Bound")
    assert writes(world.plan(CONTROLLER, KEY)) == []
    assert writes(world.plan(CONTROLLER, "v")) == []


def test_a_failed_write_stops_the_binding() -> None:
    world = World(claim(), volume("v"))
    world.fail[fx.Update] = Conflict("changed")
    assert len(world.plan(CONTROLLER, KEY)) == 1


@pytest.mark.parametrize(
    ("volumes", "wanted"),
    [
        ([volume("big", "5Gi"), volume("small", "2Gi"), volume("tiny", "1Mi")], "small"),
        ([volume("rwx", accessModes=["ReadWriteOnce", "ReadWriteMany"]), volume("rwo", "9Gi")], "rwo"),
        ([volume("rox", accessModes=["ReadOnlyMany"])], None),
        ([volume("taken", claimRef=reference("other")), volume("free")], "free"),
        ([volume("released", phase="Released")], None),
        ([volume("classy", storageClassName="gold")], None),
        ([volume("block", volumeMode="Block")], None),
        ([volume("reserved", "9Gi", claimRef=reference(uid="")), volume("free")], "reserved"),
        ([volume("reserved", "1Mi", claimRef=reference(uid="")), volume("free")], "free"),
        ([volume("fast", volumeAttributesClassName="fast")], None),
    ],
)
def test_the_best_volume(volumes: list[Json], wanted: str | None) -> None:
    found = best_match(claim(), volumes, delayed=False)
    assert (meta.name(found) if found else None) == wanted


def test_a_selector_and_the_beta_class_annotation_count() -> None:
    beta = {"volume.beta.kubernetes.io/storage-class": "gold"}
    asked = claim(annotations=beta, selector={"matchLabels": {"disk": "ssd"}})
    offers = [
        volume("plain", labels={"disk": "ssd"}),
        volume("slow", storageClassName="gold"),
        volume("right", storageClassName="gold", labels={"disk": "ssd"}),
    ]
    found = best_match(asked, offers, delayed=False)
    assert found is not None and meta.name(found) == "right"


def test_delayed_binding_takes_only_what_is_reserved() -> None:
    asked = claim(storageClassName="late")
    free = volume("free", storageClassName="late")
    assert best_match(asked, [free], delayed=True) is None
    kept = volume("kept", storageClassName="late", claimRef=reference())
    found = best_match(asked, [free, kept], delayed=True)
    assert found is not None and meta.name(found) == "kept"


def test_nothing_fits_and_there_is_no_class() -> None:
    world = World(claim())
    text = "no persistent volumes available for this claim and no storage class is set"
    assert events(world.plan(CONTROLLER, KEY)) == [("FailedBinding", text)]
    assert phase(world, CLAIMS, KEY) == "Pending"


def test_the_newest_default_class_is_assigned() -> None:
    old = storage_class("old", "x.example.com", default=True)
    new = storage_class("new", "x.example.com", default=True)
    world = World(old, new, claim())
    world.plan(CONTROLLER, KEY)
    assert world.get(CLAIMS, KEY)["spec"]["storageClassName"] == "new"
    refuses = World(old, claim(storageClassName=""))
    assert events(refuses.plan(CONTROLLER, KEY))[0][0] == "FailedBinding"


def test_waiting_for_the_first_consumer_and_then_for_its_node() -> None:
    world = World(storage_class("late", "x.example.com", wait=True), claim(storageClassName="late"))
    text = "waiting for first consumer to be created before binding"
    assert events(world.plan(CONTROLLER, KEY)) == [("WaitForFirstConsumer", text)]
    uses = {"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]}
    world.put(pod("web", spec=uses))
    expected = [("WaitForPodScheduled", "waiting for pod web to be scheduled")]
    assert events(world.plan(CONTROLLER, KEY)) == expected
    world.put(pod("api", spec=uses))
    expected = [("WaitForPodScheduled", "waiting for pods api,web to be scheduled")]
    assert events(world.plan(CONTROLLER, KEY)) == expected


def test_an_external_provisioner_is_asked() -> None:
    world = World(storage_class("ext", "disk.example.com"), claim(storageClassName="ext"))
    text = (
        "Waiting for a volume to be created either by the external provisioner 'disk.example.com' or manually by the "
        "system administrator. If volume creation is delayed, please verify that the provisioner is running and "
        "correctly registered."
    )
    effects = world.plan(CONTROLLER, KEY)
    assert events(effects) == [("ExternalProvisioning", text)]
    assert of_type(effects, fx.Status) == []
    assert meta.annotations(world.get(CLAIMS, KEY)) == {
        "volume.beta.kubernetes.io/storage-provisioner": "disk.example.com",
        "volume.kubernetes.io/storage-provisioner": "disk.example.com",
    }
    migrated = World(storage_class("ebs", "kubernetes.io/aws-ebs"), claim(storageClassName="ebs"))
    assert "'ebs.csi.aws.com'" in events(migrated.plan(CONTROLLER, KEY))[0][1]


@pytest.mark.parametrize(
    ("objects", "text"),
    [
        ([], 'storageclass.storage.k8s.io "gone" not found'),
        (
            [storage_class("gone", "kubernetes.io/no-provisioner")],
            "no volume plugin matched name: kubernetes.io/no-provisioner",
        ),
    ],
)
def test_provisioning_that_cannot_be(objects: list[Json], text: str) -> None:
    world = World(claim(storageClassName="gone"), *objects)
    assert events(world.plan(CONTROLLER, KEY)) == [("ProvisioningFailed", text)]


def local(annotations: Json | None = None, **spec: Any) -> World:
    chosen = {"volume.kubernetes.io/selected-node": "n1", **(annotations or {})}
    asked = claim(storageClassName="local", annotations=chosen, **spec)
    return World(storage_class("local", "kcp.io/local-path", wait=True), node("n1"), asked)


def test_a_local_path_volume_is_made_on_the_chosen_node_and_bound() -> None:
    world = local()
    effects = world.plan(CONTROLLER, KEY)
    name = "pvc-claim-data"
    made = world.get(VOLUMES, name)
    assert events(effects) == [
        ("ProvisioningSucceeded", f"Successfully provisioned volume {name} using kcp.io/local-path")
    ]
    assert made["spec"]["hostPath"]["path"] == f"/var/lib/kcp/local-path/{name}_default_data"
    assert meta.finalizers(made) == ["kubernetes.io/pv-controller"]
    assert meta.annotations(made) == {
        BY_CONTROLLER: "yes",
        "pv.kubernetes.io/provisioned-by": "kcp.io/local-path",
    }
    world.plan(CONTROLLER, name)
    assert (phase(world, CLAIMS, KEY), phase(world, VOLUMES, name)) == ("Bound", "Bound")


def test_what_a_local_path_cannot_do_sends_the_pod_elsewhere() -> None:
    world = local(accessModes=["ReadWriteMany"])
    effects = world.plan(CONTROLLER, KEY)
    ((reason, text),) = events(effects)
    assert reason == "ProvisioningFailed"
    assert text == (
        'Failed to provision volume with StorageClass "local": Only support ReadWriteOnce access mode'
    )
    assert "volume.kubernetes.io/selected-node" not in meta.annotations(world.get(CLAIMS, KEY))


def test_a_local_path_needs_a_node_and_no_data_source() -> None:
    world = local()
    del world.objects["nodes"]["n1"]
    text = 'Failed to get target node: node "n1" not found'
    assert events(world.plan(CONTROLLER, KEY)) == [("ProvisioningFailed", text)]
    text = 'plugin "kcp.io/local-path" is not a CSI plugin. Only CSI plugin can provision a claim with a datasource'
    copied = local(dataSource={"kind": "PersistentVolumeClaim", "name": "x"})
    assert events(copied.plan(CONTROLLER, KEY)) == [("ProvisioningFailed", text)]
    at_once = World(storage_class("local", "kcp.io/local-path"), claim(storageClassName="local"))
    text = 'Failed to provision volume with StorageClass "local": configuration error, no node was specified'
    assert events(at_once.plan(CONTROLLER, KEY)) == [("ProvisioningFailed", text)]


def test_a_released_local_path_volume_is_deleted() -> None:
    world = local()
    world.plan(CONTROLLER, KEY)
    world.plan(CONTROLLER, "pvc-claim-data")
    del world.objects[CLAIMS][KEY]
    effects = world.plan(CONTROLLER, "pvc-claim-data")
    assert [e.name for e in of_type(effects, fx.Delete)] == ["pvc-claim-data"]


# A claim that asks for a volume by name.


@pytest.mark.parametrize(
    ("offer", "fault"),
    [
        (volume("v", "1Mi"), "requested PV is too small"),
        (volume("v", storageClassName="gold"), "storageClassName does not match"),
        (volume("v", volumeAttributesClassName="fast"), "volumeAttributesClassName does not match"),
        (volume("v", volumeMode="Block"), "incompatible volumeMode"),
        (volume("v", accessModes=["ReadOnlyMany"]), "incompatible accessMode"),
    ],
)
def test_a_volume_asked_for_that_does_not_fit(offer: Json, fault: str) -> None:
    world = World(claim(volumeName="v"), offer)
    text = f'Cannot bind to requested volume "v": {fault}'
    assert events(world.plan(CONTROLLER, KEY)) == [("VolumeMismatch", text)]


def test_a_volume_marked_for_deletion_is_not_bound() -> None:
    going = volume("v")
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world = World(claim(volumeName="v"), going)
    text = 'Cannot bind to requested volume "v": the volume is marked for deletion "v"'
    assert events(world.plan(CONTROLLER, KEY)) == [("VolumeMismatch", text)]


def test_a_volume_asked_for_is_bound_as_the_users_choice() -> None:
    world = World(claim(volumeName="v"), volume("v", claimRef=reference(uid="")))
    world.plan(CONTROLLER, KEY)
    assert meta.annotations(world.get(CLAIMS, KEY)) == {BIND_COMPLETED: "yes"}
    assert meta.annotations(world.get(VOLUMES, "v")) == {}
    assert world.get(VOLUMES, "v")["spec"]["claimRef"]["uid"] == "claim-data"


def test_a_volume_of_somebody_else_and_one_that_is_not_there() -> None:
    world = World(claim(volumeName="v"), volume("v", claimRef=reference("other")))
    text = 'volume "v" already bound to a different claim.'
    assert events(world.plan(CONTROLLER, KEY)) == [("FailedBinding", text)]
    assert events(World(claim(volumeName="v")).plan(CONTROLLER, KEY)) == []


# A claim that was bound.


def bound_claim(**spec: Any) -> Json:
    built = claim(annotations={BIND_COMPLETED: "yes"}, **spec)
    built["status"] = {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}
    return built


@pytest.mark.parametrize(
    ("objects", "reason", "message"),
    [
        (
            [bound_claim()],
            "ClaimLost",
            "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!",
        ),
        (
            [bound_claim(volumeName="v")],
            "ClaimLost",
            "Bound claim has lost its PersistentVolume. Data on the volume is lost!",
        ),
        (
            [bound_claim(volumeName="v"), volume("v", claimRef=reference("other"))],
            "ClaimMisbound",
            "Two claims are bound to the same volume, this one is bound incorrectly",
        ),
    ],
)
def test_a_claim_is_lost(objects: list[Json], reason: str, message: str) -> None:
    world = World(*objects)
    assert events(world.plan(CONTROLLER, KEY)) == [(reason, message)]
    assert world.get(CLAIMS, KEY)["status"] == {"phase": "Lost"}
    assert events(world.plan(CONTROLLER, KEY)) == []


def test_the_capacity_of_a_bound_claim_belongs_to_the_resizer() -> None:
    world = World(bound_claim(volumeName="v"), volume("v", "9Gi", phase="Bound", claimRef=reference()))
    world.plan(CONTROLLER, KEY)
    assert world.get(CLAIMS, KEY)["status"]["capacity"] == {"storage": "1Gi"}


def test_a_grown_volume_offers_its_former_size() -> None:
    former = {"volume.alpha.kubernetes.io/pre-resize-capacity": "1Gi"}
    world = World(claim(volumeName="v"), volume("v", "9Gi", annotations=former, claimRef=reference()))
    world.plan(CONTROLLER, KEY)
    assert world.get(CLAIMS, KEY)["status"]["capacity"] == {"storage": "1Gi"}


# Volumes.


def test_a_new_volume_becomes_available() -> None:
    for offer in (volume("v", phase="Pending"), volume("v", phase="Pending", claimRef=reference(uid=""))):
        world = World(offer)
        world.plan(CONTROLLER, "v")
        assert phase(world, VOLUMES, "v") == "Available"


def test_a_volume_whose_claim_is_gone_is_released_only_after_a_live_look() -> None:
    world = World(volume("v", phase="Bound", claimRef=reference()))
    effects = world.plan(CONTROLLER, "v")
    assert of_type(effects, fx.Live) == [fx.Live(CLAIMS, "default", "data")]
    assert phase(world, VOLUMES, "v") == "Released"
    assert of_type(world.plan(CONTROLLER, "v"), fx.Live) == []


def test_another_claim_of_the_same_name_is_not_the_claim() -> None:
    world = World(claim(), volume("v", phase="Bound", claimRef=reference(uid="former")))
    world.plan(CONTROLLER, "v")
    assert phase(world, VOLUMES, "v") == "Released"


def test_nothing_is_released_when_the_live_look_fails() -> None:
    world = World(volume("v", phase="Bound", claimRef=reference()))
    world.fail[fx.Live] = Conflict("no answer")
    world.plan(CONTROLLER, "v")
    assert phase(world, VOLUMES, "v") == "Bound"


@pytest.mark.parametrize(
    ("policy", "reason", "message"),
    [
        ("Recycle", "VolumeFailedRecycle", "No recycler plugin found for the volume!"),
        ("Odd", "VolumeUnknownReclaimPolicy", "Volume has unrecognized PersistentVolumeReclaimPolicy"),
        (
            "Delete",
            "VolumeFailedDelete",
            'error getting deleter volume plugin for volume "v": no deletable volume plugin matched',
        ),
    ],
)
def test_reclaiming_that_fails_says_so_once(policy: str, reason: str, message: str) -> None:
    world = World(volume("v", phase="Bound", claimRef=reference(), persistentVolumeReclaimPolicy=policy))
    assert events(world.plan(CONTROLLER, "v")) == [(reason, message)]
    assert world.get(VOLUMES, "v")["status"] == {"phase": "Failed", "message": message}
    assert writes(world.plan(CONTROLLER, "v")) == [] and events(world.plan(CONTROLLER, "v")) == []


def test_a_csi_volume_is_its_drivers_to_delete() -> None:
    csi = {"driver": "disk.example.com", "volumeHandle": "1"}
    offer = volume("v", phase="Bound", claimRef=reference(), persistentVolumeReclaimPolicy="Delete", csi=csi)
    world = World(offer)
    assert events(world.plan(CONTROLLER, "v")) == []
    assert phase(world, VOLUMES, "v") == "Released"


def test_volumes_of_external_provisioners_are_theirs_to_delete() -> None:
    made = {"pv.kubernetes.io/provisioned-by": "disk.example.com"}
    world = World(
        volume(
            "v",
            phase="Bound",
            annotations=made,
            claimRef=reference(),
            persistentVolumeReclaimPolicy="Delete",
        )
    )
    effects = world.plan(CONTROLLER, "v")
    assert phase(world, VOLUMES, "v") == "Released"
    assert of_type(effects, fx.Delete) == []


def test_a_volume_whose_claim_went_elsewhere_is_free_again() -> None:
    elsewhere = bound_claim(volumeName="w")
    chosen = World(
        elsewhere, volume("v", phase="Bound", annotations={BY_CONTROLLER: "yes"}, claimRef=reference())
    )
    chosen.plan(CONTROLLER, "v")
    assert "claimRef" not in chosen.get(VOLUMES, "v")["spec"]
    assert phase(chosen, VOLUMES, "v") == "Available"
    reserved = World(elsewhere, volume("v", phase="Bound", claimRef=reference()))
    reserved.plan(CONTROLLER, "v")
    assert reserved.get(VOLUMES, "v")["spec"]["claimRef"] == reference(uid="")


def test_a_mismatch_of_modes_is_told_to_both() -> None:
    world = World(claim(), volume("v", volumeMode="Block", claimRef=reference()))
    why = "due to incompatible volumeMode."
    assert events(world.plan(CONTROLLER, "v")) == [
        ("VolumeMismatch", f'Cannot bind PersistentVolume to requested PersistentVolumeClaim "data" {why}'),
        ("VolumeMismatch", f'Cannot bind PersistentVolume "v" to requested PersistentVolumeClaim {why}'),
    ]


def test_what_queues_whom() -> None:
    world = World(
        claim(), bound_claim() | {"metadata": metadata("other", annotations={BIND_COMPLETED: "yes"})}
    )
    readers = {"claims": world.view(CONTROLLER).claims}
    assert touched_volume(None, volume("v"), readers) == ["v", KEY]
    assert touched_volume(None, volume("v", claimRef=reference("x")), readers) == ["v", "default/x"]
    assert touched_claim(bound_claim(volumeName="v"), None, readers) == ["v"]
    uses = {"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]}
    assert touched_pod(None, pod("web", spec=uses), readers) == [KEY]
    assert touched_pod(None, pod("web"), readers) == []
