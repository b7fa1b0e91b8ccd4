"""DefaultStorageClass: a claim that names no class gets the default one, if there is one.

Source: k8s v1.36 plugin/pkg/admission/storage/storageclass/setdefault/admission.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kcp.api.admission.plugin import Attributes
from kcp.base.values import frozen
from kcp.store.protocol import Head, Record

CLASSES = "storageclasses.storage.k8s.io"
IS_DEFAULT = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"


def newest_default(records: Sequence[Record], annotations: tuple[str, ...]) -> dict[str, Any] | None:
    """The newest object marked as default; of equally new ones the first by name."""
    marked = []
    for record in records:
        found = record.value["metadata"].get("annotations") or {}
        if any(found.get(annotation) == "true" for annotation in annotations):
            marked.append(record.value)
    marked.sort(key=lambda obj: obj["metadata"]["name"])
    return max(marked, key=lambda obj: obj["metadata"].get("creationTimestamp") or "", default=None)


@frozen
class DefaultStorageClass:
    store: Head
    name: str = "DefaultStorageClass"

    def handles(self, attributes: Attributes) -> bool:
        return (
            attributes.kind.resource == "persistentvolumeclaims"
            and attributes.subresource == ""
            and attributes.operation == "CREATE"
        )

    def admit(self, attributes: Attributes) -> None:
        claim = attributes.new
        spec = claim["spec"]
        annotated = CLASS_ANNOTATION in (claim["metadata"].get("annotations") or {})
        if annotated or spec.get("storageClassName") is not None:
            return
        default = newest_default(self.store.list(CLASSES), IS_DEFAULT)
        if default is not None:
            spec["storageClassName"] = default["metadata"]["name"]
