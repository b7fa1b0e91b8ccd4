"""DeviceAdminAccess: looking at devices in use is for namespaces that an administrator has labelled.

Kubernetes has no plugin of this name: there it is a rule of the kind, which may read the namespace.
Source: k8s v1.36 pkg/registry/resource/util.go AuthorizedForAdmin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from kcp.api.admission.plugin import Attributes
from kcp.base.values import frozen
from kcp.machinery.errors import Invalid, forbidden
from kcp.store.protocol import Head, Key

LABEL: Final = "resource.kubernetes.io/admin-access"
CLAIMS: Final = "resourceclaims.resource.k8s.io"
TEMPLATES: Final = "resourceclaimtemplates.resource.k8s.io"
_TEXT: Final = f"admin access to devices requires the `{LABEL}: true` label on the containing namespace"

Json = dict[str, Any]


def _requests(attributes: Attributes) -> Sequence[Json]:
    spec: Json = attributes.new.get("spec") or {}
    if attributes.kind.resource == TEMPLATES:
        spec = spec.get("spec") or {}
    return (spec.get("devices") or {}).get("requests") or ()


@frozen
class DeviceAdminAccess:
    store: Head
    name: str = "DeviceAdminAccess"

    def handles(self, attributes: Attributes) -> bool:
        return (
            attributes.kind.resource in (CLAIMS, TEMPLATES)
            and attributes.subresource == ""
            and attributes.operation == "CREATE"
        )

    def _is_allowed(self, namespace: str) -> bool:
        record = self.store.get(Key("namespaces", "", namespace))
        return record is not None and (record.value["metadata"].get("labels") or {}).get(LABEL) == "true"

    def validate(self, attributes: Attributes) -> None:
        for index, request in enumerate(_requests(attributes)):
            if (request.get("exactly") or {}).get("adminAccess"):
                if not self._is_allowed(attributes.namespace):
                    where, gvk = f"spec.devices.requests[{index}].adminAccess", attributes.kind.gvk
                    raise Invalid.of(gvk.group, gvk.kind, attributes.name, [forbidden(where, _TEXT)])
                return
