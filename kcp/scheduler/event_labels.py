"""What brings pods into a part of the scheduling queue, by the names that metrics have for it.

Source: k8s v1.36 pkg/scheduler/framework/{events,types}.go.
"""

from __future__ import annotations

from kcp.scheduler.hints import ClusterEvent

POD_ADD, FAILURE, BACKOFF_OVER, TOO_LONG = (
    "PodAdd", "ScheduleAttemptFailure", "BackoffComplete", "UnschedulableTimeout",
)  # fmt: skip
OWN_UPDATE, UNGATED, VICTIMS_GONE = "PodUpdate", "PreEnqueueGateGone", "PreemptionDone"
"""The last two are kcp's own."""
_EVENT_KINDS = {
    "pods": "AssignedPod", "nodes": "Node", "persistentvolumes": "PersistentVolume",
    "persistentvolumeclaims": "PersistentVolumeClaim", "storageclasses.storage.k8s.io": "StorageClass",
    "csinodes.storage.k8s.io": "CSINode", "csidrivers.storage.k8s.io": "CSIDriver",
    "volumeattachments.storage.k8s.io": "VolumeAttachment", "csistoragecapacities.storage.k8s.io": "CSIStorageCapacity", "resourceclaims.resource.k8s.io": "ResourceClaim",
    "resourceslices.resource.k8s.io": "ResourceSlice", "deviceclasses.resource.k8s.io": "DeviceClass",
}  # fmt: skip
_ACTIONS = {
    "add": "Add", "delete": "Delete", "update": "Update", "allocatable": "UpdateNodeAllocatable",
    "taint": "UpdateNodeTaint", "features": "UpdateNodeDeclaredFeature", "scale down": "UpdatePodScaleDown",
}  # fmt: skip
_LABELS = {"nodes": "UpdateNodeLabel", "pods": "UpdatePodLabel"}


def event_label(event: ClusterEvent) -> str:
    """Kind and action: `NodeAdd`, `AssignedPodUpdatePodScaleDown`."""
    first = event.actions[0]
    action = _LABELS[event.resource] if first == "label" else _ACTIONS[first]
    return _EVENT_KINDS.get(event.resource, event.resource) + action
