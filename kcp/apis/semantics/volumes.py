"""Questions about volumes, claims and persistent volumes.

Source: k8s v1.36 component-helpers/storage, pkg/apis/core/helper/helpers.go, csi-translation-lib.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kcp.apis.semantics.affinity import node_selector_matches

Json = dict[str, Any]

BETA_STORAGE_CLASS = "volume.beta.kubernetes.io/storage-class"
BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
STORAGE_PROVISIONER = "volume.kubernetes.io/storage-provisioner"
BETA_STORAGE_PROVISIONER = "volume.beta.kubernetes.io/storage-provisioner"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
BETA_DEFAULT_CLASS = "storageclass.beta.kubernetes.io/is-default-class"
NO_PROVISIONER = "kubernetes.io/no-provisioner"
PVC_PROTECTION = "kubernetes.io/pvc-protection"
PV_PROTECTION = "kubernetes.io/pv-protection"

MIGRATED_DRIVERS: Mapping[str, str] = {
    "kubernetes.io/aws-ebs": "ebs.csi.aws.com",
    "kubernetes.io/gce-pd": "pd.csi.storage.gke.io",
    "kubernetes.io/cinder": "cinder.csi.openstack.org",
    "kubernetes.io/azure-disk": "disk.csi.azure.com",
    "kubernetes.io/azure-file": "file.csi.azure.com",
    "kubernetes.io/vsphere-volume": "csi.vsphere.vmware.com",
    "kubernetes.io/portworx-volume": "pxd.portworx.com",
}
"""In-tree plugin -> the CSI driver that does its work."""
_MIGRATED_SOURCES: Mapping[str, str] = {
    "awsElasticBlockStore": "ebs.csi.aws.com",
    "gcePersistentDisk": "pd.csi.storage.gke.io",
    "cinder": "cinder.csi.openstack.org",
    "azureDisk": "disk.csi.azure.com",
    "azureFile": "file.csi.azure.com",
    "vsphereVolume": "csi.vsphere.vmware.com",
    "portworxVolume": "pxd.portworx.com",
}
_MODE_NAMES: Mapping[str, str] = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}


def volumes(pod: Json) -> list[Json]:
    found: list[Json] = (pod.get("spec") or {}).get("volumes") or []
    return found


def source_of(volume: Json) -> str:
    """The name of a pod volume's source, such as `configMap`; empty when it has none."""
    return next((key for key, value in volume.items() if key != "name" and value is not None), "")


def ephemeral_claim_name(pod: Json, volume: Json) -> str:
    """`<pod>-<volume>`: the claim that an ephemeral volume creates."""
    return f"{pod['metadata']['name']}-{volume['name']}"


def claim_names(pod: Json) -> Iterator[tuple[str, bool]]:
    """(claim name, whether it belongs to an ephemeral volume) for every claim the pod uses, in order."""
    for volume in volumes(pod):
        if volume.get("persistentVolumeClaim"):
            yield volume["persistentVolumeClaim"].get("claimName", ""), False
        elif volume.get("ephemeral") is not None:
            yield ephemeral_claim_name(pod, volume), True


def claim_keys(pod: Json) -> list[str]:
    """The keys of the claims it uses, as the values of an index."""
    if not pod["spec"].get("volumes"):
        return []
    namespace = pod["metadata"].get("namespace", "")
    return list(dict.fromkeys(f"{namespace}/{name}" for name, _ in claim_names(pod)))


def is_claim_of_pod(claim: Json, pod: Json) -> bool:
    """Whether an ephemeral volume's claim was made for this pod: controlled by its uid."""
    uid = pod.get("metadata", {}).get("uid")
    references = claim.get("metadata", {}).get("ownerReferences") or ()
    return any(reference.get("controller") and reference.get("uid") == uid for reference in references)


def access_modes(modes: Sequence[str] | None) -> str:
    """As kubectl prints them, without duplicates and in a fixed order: `RWO,ROX,RWX,RWOP`."""
    present = frozenset(modes or ())
    return ",".join(short for mode, short in _MODE_NAMES.items() if mode in present)


def modes_satisfied(wanted: Sequence[str], offered: Sequence[str]) -> bool:
    """Every wanted access mode is offered."""
    return all(mode in offered for mode in wanted)


def claim_class(claim: Json) -> str:
    """The storage class of a claim; the beta annotation wins, and an unset field is the empty class."""
    annotations = claim.get("metadata", {}).get("annotations") or {}
    if BETA_STORAGE_CLASS in annotations:
        found: str = annotations[BETA_STORAGE_CLASS]
        return found
    return (claim.get("spec") or {}).get("storageClassName") or ""


def claim_has_class(claim: Json) -> bool:
    """Whether a class was chosen, be it the empty one."""
    annotations = claim.get("metadata", {}).get("annotations") or {}
    return BETA_STORAGE_CLASS in annotations or (claim.get("spec") or {}).get("storageClassName") is not None


def volume_class(volume: Json) -> str:
    """The storage class of a PersistentVolume."""
    annotations = volume.get("metadata", {}).get("annotations") or {}
    if BETA_STORAGE_CLASS in annotations:
        found: str = annotations[BETA_STORAGE_CLASS]
        return found
    return (volume.get("spec") or {}).get("storageClassName") or ""


def is_default_class(storage_class: Json) -> bool:
    annotations = storage_class.get("metadata", {}).get("annotations") or {}
    return annotations.get(DEFAULT_CLASS) == "true" or annotations.get(BETA_DEFAULT_CLASS) == "true"


def is_fully_bound(claim: Json) -> bool:
    """The claim names a volume and the binder finished."""
    annotations = claim.get("metadata", {}).get("annotations") or {}
    return bool((claim.get("spec") or {}).get("volumeName")) and BIND_COMPLETED in annotations


def waits_for_first_consumer(storage_class: Json | None) -> bool:
    return storage_class is not None and storage_class.get("volumeBindingMode") == "WaitForFirstConsumer"


def is_bound_to(volume: Json, claim: Json) -> bool:
    """Whether the volume's claimRef means this claim: same name and, once set, same uid."""
    reference = (volume.get("spec") or {}).get("claimRef")
    metadata = claim.get("metadata", {})
    if not reference:
        return False
    if (reference.get("namespace", ""), reference.get("name")) != (
        metadata.get("namespace", ""),
        metadata.get("name"),
    ):
        return False
    return not reference.get("uid") or reference["uid"] == metadata.get("uid")


def volume_mode(obj: Json) -> str:
    """Filesystem or Block, of a claim or a volume."""
    return (obj.get("spec") or {}).get("volumeMode") or "Filesystem"


def node_affinity_matches(volume: Json, labels: Mapping[str, str], node_name: str) -> bool:
    """Whether a PersistentVolume can be reached from the node."""
    affinity = (volume.get("spec") or {}).get("nodeAffinity") or {}
    return node_selector_matches(affinity.get("required"), labels, node_name)


def csi_driver(source: Json) -> str | None:
    """The CSI driver behind a volume source or a PersistentVolume's spec, in-tree plugins under their migrated name."""
    if source.get("csi"):
        return str(source["csi"].get("driver", ""))
    return next((driver for key, driver in _MIGRATED_SOURCES.items() if source.get(key)), None)


def provisioner_driver(provisioner: str) -> str:
    return MIGRATED_DRIVERS.get(provisioner, provisioner)
