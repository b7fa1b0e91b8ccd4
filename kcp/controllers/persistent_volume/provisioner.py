"""Volumes made on demand: directories of a node by ourselves, everything else by asking an external provisioner.

A StorageClass with provisioner `kcp.io/local-path` and binding mode WaitForFirstConsumer gives each claim a directory
on the node that the scheduler chose. The kubelet makes the directory when it mounts it.
Source: k8s v1.36 pkg/controller/volume/persistentvolume/pv_controller.go (provisionClaim and what it calls).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from kcp.apis.semantics import volumes as facts
from kcp.controllers import effects as fx
from kcp.controllers.persistent_volume.binding import (
    CLAIMS,
    VOLUMES,
    annotated,
    claim_reference,
    fail_volume,
    update,
)
from kcp.machinery import meta

Json = dict[str, Any]
Steps = Generator[fx.Effect, fx.Outcome, None]
LOCAL_PATH = "kcp.io/local-path"
IN_TREE_PREFIX = "kubernetes.io/"
FINALIZER = "kubernetes.io/pv-controller"
HOSTNAME = "kubernetes.io/hostname"


def default_class(classes: Sequence[Json]) -> Json | None:
    """The newest class that is marked as default; of equally new ones the first by name."""
    marked = sorted((c for c in classes if facts.is_default_class(c)), key=meta.name)
    return max(marked, key=lambda c: c["metadata"].get("creationTimestamp", ""), default=None)


def provision(claim: Json, storage_class: Json | None, view: fx.View, env: fx.Env) -> Steps:
    if storage_class is None:
        text = f'storageclass.storage.k8s.io "{facts.claim_class(claim)}" not found'
        yield fx.Event(claim, "Warning", "ProvisioningFailed", text)
        return
    name = storage_class["provisioner"]
    if name == LOCAL_PATH:
        yield from _provision_here(claim, storage_class, view, env)
    elif name.startswith(IN_TREE_PREFIX) and name not in facts.MIGRATED_DRIVERS:
        text = f"no volume plugin matched name: {name}"
        yield fx.Event(claim, "Warning", "ProvisioningFailed", text)
    else:
        yield from _ask_outside(claim, facts.provisioner_driver(name))


def _ask_outside(claim: Json, provisioner: str) -> Steps:
    """An external provisioner acts on claims that carry its name."""
    asked = yield from update(CLAIMS, _for_provisioner(claim, provisioner), claim)
    if asked is None:
        return
    text = (
        f"Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the "
        "system administrator. If volume creation is delayed, please verify that the provisioner is running and "
        "correctly registered."
    )
    yield fx.Event(asked, "Normal", "ExternalProvisioning", text)


def _for_provisioner(claim: Json, provisioner: str) -> Json:
    changes = {facts.BETA_STORAGE_PROVISIONER: provisioner, facts.STORAGE_PROVISIONER: provisioner}
    if changes.items() <= meta.annotations(claim).items():
        return claim
    return annotated(claim, **changes)


def _provision_here(claim: Json, storage_class: Json, view: fx.View, env: fx.Env) -> Steps:
    name = f"pvc-{meta.uid(claim)}"
    if view.volumes.get(name) is not None:
        return
    asked = yield from update(CLAIMS, _for_provisioner(claim, LOCAL_PATH), claim)
    if asked is None:
        return
    if asked["spec"].get("dataSource") is not None:
        text = f'plugin "{LOCAL_PATH}" is not a CSI plugin. Only CSI plugin can provision a claim with a datasource'
        yield fx.Event(asked, "Warning", "ProvisioningFailed", text)
        return
    selected = meta.annotations(asked).get(facts.SELECTED_NODE, "")
    node = view.nodes.get(selected)
    if selected and node is None:
        text = f'Failed to get target node: node "{selected}" not found'
        yield fx.Event(asked, "Warning", "ProvisioningFailed", text)
        return
    fault = _unsuitable(asked, node)
    if fault or node is None:
        yield from _give_back(asked, storage_class, fault)
        return
    outcome = yield fx.Create(VOLUMES, "", local_volume(asked, storage_class, node, env))
    if outcome.ok:
        text = f"Successfully provisioned volume {name} using {LOCAL_PATH}"
        yield fx.Event(asked, "Normal", "ProvisioningSucceeded", text)


def _unsuitable(claim: Json, node: Json | None) -> str:
    if node is None:
        return "configuration error, no node was specified"
    if claim["spec"].get("selector") is not None:
        return "claim.Spec.Selector is not supported"
    if facts.volume_mode(claim) == "Block":
        return "block volumes are not supported"
    shared = [mode for mode in claim["spec"].get("accessModes") or () if not mode.startswith("ReadWriteOnce")]
    return "Only support ReadWriteOnce access mode" if shared else ""


def _give_back(claim: Json, storage_class: Json, fault: str) -> Steps:
    """The scheduler chooses anew: perhaps another node can."""
    text = f'Failed to provision volume with StorageClass "{meta.name(storage_class)}": {fault}'
    yield fx.Event(claim, "Warning", "ProvisioningFailed", text)
    if facts.SELECTED_NODE in meta.annotations(claim):
        yield from update(CLAIMS, annotated(claim, **{facts.SELECTED_NODE: None}), claim)


def local_volume(claim: Json, storage_class: Json, node: Json, env: fx.Env) -> Json:
    """A directory of one node, reserved for the claim."""
    name = f"pvc-{meta.uid(claim)}"
    root = (storage_class.get("parameters") or {}).get("path") or env.settings["local_path_root"]
    hostname = meta.labels(node).get(HOSTNAME, meta.name(node))
    on_node = {"key": HOSTNAME, "operator": "In", "values": [hostname]}
    policy = storage_class.get("reclaimPolicy") or "Delete"
    spec: Json = {
        "accessModes": claim["spec"].get("accessModes") or [],
        "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
        "claimRef": claim_reference(claim),
        "hostPath": {
            "path": f"{root}/{name}_{meta.namespace(claim)}_{meta.name(claim)}",
            "type": "DirectoryOrCreate",
        },
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_node]}]}},
        "persistentVolumeReclaimPolicy": policy,
        "storageClassName": meta.name(storage_class),
        "volumeMode": "Filesystem",
    }
    if storage_class.get("mountOptions"):
        spec["mountOptions"] = storage_class["mountOptions"]
    if attributes := claim["spec"].get("volumeAttributesClassName"):
        spec["volumeAttributesClassName"] = attributes
    annotations = {facts.BOUND_BY_CONTROLLER: "yes", facts.PROVISIONED_BY: LOCAL_PATH}
    metadata: Json = {"name": name, "annotations": annotations}
    return with_finalizer(
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec}
    )


def with_finalizer(volume: Json) -> Json:
    """Volumes of our own that are to be deleted with their claim stay until we have done so."""
    if (volume.get("status") or {}).get("phase") == "Released":
        return volume
    if meta.annotations(volume).get(facts.PROVISIONED_BY) != LOCAL_PATH or meta.is_deleting(volume):
        return volume
    wanted = volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete"
    present = FINALIZER in meta.finalizers(volume)
    if wanted == present:
        return volume
    others = [f for f in meta.finalizers(volume) if f != FINALIZER]
    return _finalized(volume, [*others, FINALIZER] if wanted else others)


def _finalized(volume: Json, finalizers: list[str]) -> Json:
    metadata = {key: value for key, value in volume["metadata"].items() if key != "finalizers"}
    if finalizers:
        metadata["finalizers"] = finalizers
    return {**volume, "metadata": metadata}


def delete(volume: Json) -> Steps:
    """Take back a released volume with policy Delete; those of external provisioners are theirs to delete."""
    maker = meta.annotations(volume).get(facts.PROVISIONED_BY)
    if not maker and not volume["spec"].get("csi"):
        text = (
            f'error getting deleter volume plugin for volume "{meta.name(volume)}": '
            "no deletable volume plugin matched"
        )
        yield from fail_volume(volume, "VolumeFailedDelete", text)
    if maker != LOCAL_PATH:
        return
    others = [f for f in meta.finalizers(volume) if f != FINALIZER]
    freed = yield from update(VOLUMES, _finalized(volume, others), volume)
    if freed is not None and not meta.is_deleting(freed):
        yield fx.Delete(VOLUMES, "", meta.name(volume), uid=meta.uid(volume))
