"""StorageObjectInUseProtection: claims and volumes carry a finalizer until nobody uses them.

Source: k8s v1.36 plugin/pkg/admission/storage/storageobjectinuseprotection/admission.go.
"""

from __future__ import annotations

from kcp.api.admission.plugin import Attributes
from kcp.base.values import frozen

FINALIZERS = {
    "persistentvolumeclaims": "kubernetes.io/pvc-protection",
    "persistentvolumes": "kubernetes.io/pv-protection",
    "volumeattributesclasses.storage.k8s.io": "kubernetes.io/vac-protection",
}


@frozen
class StorageObjectInUseProtection:
    name: str = "StorageObjectInUseProtection"

    def handles(self, attributes: Attributes) -> bool:
        return (
            attributes.kind.resource in FINALIZERS
            and attributes.subresource == ""
            and attributes.operation == "CREATE"
        )

    def admit(self, attributes: Attributes) -> None:
        metadata, finalizer = attributes.new["metadata"], FINALIZERS[attributes.kind.resource]
        present = metadata.get("finalizers") or []
        if finalizer not in present:
            metadata["finalizers"] = [*present, finalizer]
