"""PersistentVolumeClaimResize: only bound claims of a class that allows it may grow.

Source: k8s v1.36 plugin/pkg/admission/storage/persistentvolume/resize/admission.go.
"""

from __future__ import annotations

from typing import Any

from kcp.api.admission.plugin import Attributes, refused
from kcp.api.admission.plugins.default_storage_class import CLASS_ANNOTATION, CLASSES
from kcp.base.values import frozen
from kcp.machinery.quantity import Quantity, parse
from kcp.store.protocol import Head, Key

Json = dict[str, Any]


def _size(claim: Json) -> Quantity:
    requests = ((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}
    return parse(requests.get("storage", "0"))


@frozen
class PersistentVolumeClaimResize:
    store: Head
    name: str = "PersistentVolumeClaimResize"

    def handles(self, attributes: Attributes) -> bool:
        return (
            attributes.kind.resource == "persistentvolumeclaims"
            and attributes.subresource == ""
            and attributes.operation == "UPDATE"
        )

    def _may_expand(self, claim: Json) -> bool:
        annotations = claim["metadata"].get("annotations") or {}
        name = annotations.get(CLASS_ANNOTATION) or (claim.get("spec") or {}).get("storageClassName")
        record = self.store.get(Key(CLASSES, "", name)) if name else None
        return record is not None and bool(record.value.get("allowVolumeExpansion"))

    def validate(self, attributes: Attributes) -> None:
        new, old = attributes.new, attributes.old or {}
        if _size(new) <= _size(old):
            return
        if (old.get("status") or {}).get("phase") != "Bound":
            raise refused(attributes, "only bound persistent volume claims can be expanded")
        if not self._may_expand(new):
            raise refused(
                attributes,
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc"
                " must support resize",
            )
