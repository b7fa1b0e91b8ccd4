"""NamespaceLifecycle: nothing new in a namespace that is absent or going away; three namespaces never go.

Source: k8s v1.36 apiserver/pkg/admission/plugin/namespace/lifecycle/admission.go.
"""

from __future__ import annotations

from collections.abc import Sequence

from kcp.api.admission.plugin import Attributes, Companion, refused
from kcp.base.values import frozen
from kcp.machinery.errors import Forbidden, NotFound
from kcp.store.protocol import Head, Key

IMMORTAL = ("default", "kube-system", "kube-public")


def _check(attributes: Attributes, head: Head) -> None:
    namespace = attributes.namespace
    record = head.get(Key("namespaces", "", namespace))
    if record is None:
        raise NotFound.of("", "namespaces", namespace)
    if (record.value.get("status") or {}).get("phase") != "Terminating":
        return
    error = refused(
        attributes, f"unable to create new content in namespace {namespace} because it is being terminated"
    )
    cause = {
        "reason": "NamespaceTerminating",
        "message": f"namespace {namespace} is being terminated",
        "field": "metadata.namespace",
    }
    error.details["causes"] = [cause]
    raise error


@frozen
class NamespaceLifecycle:
    """Looks once before all other admission, for the right error, and once inside the writer, to be exact."""

    store: Head
    name: str = "NamespaceLifecycle"

    def handles(self, attributes: Attributes) -> bool:
        if attributes.kind.resource == "namespaces":
            return attributes.operation == "DELETE"
        return attributes.kind.namespaced and attributes.operation == "CREATE"

    def admit(self, attributes: Attributes) -> None:
        if attributes.operation == "CREATE":
            _check(attributes, self.store)
        elif attributes.name in IMMORTAL:
            raise Forbidden.of("", "namespaces", attributes.name, "this namespace may not be deleted")

    def settle(self, attributes: Attributes, head: Head) -> Sequence[Companion]:
        if attributes.operation == "CREATE":
            _check(attributes, head)
        return ()
