"""DefaultIngressClass: an Ingress that names no class gets the default one, if there is one.

Source: k8s v1.36 plugin/pkg/admission/network/defaultingressclass/admission.go.
"""

from __future__ import annotations

from kcp.api.admission.plugin import Attributes
from kcp.api.admission.plugins.default_storage_class import newest_default
from kcp.base.values import frozen
from kcp.store.protocol import Head

CLASSES = "ingressclasses.networking.k8s.io"
IS_DEFAULT = "ingressclass.kubernetes.io/is-default-class"
CLASS_ANNOTATION = "kubernetes.io/ingress.class"


@frozen
class DefaultIngressClass:
    store: Head
    name: str = "DefaultIngressClass"

    def handles(self, attributes: Attributes) -> bool:
        return (
            attributes.kind.resource == "ingresses.networking.k8s.io"
            and attributes.subresource == ""
            and attributes.operation == "CREATE"
        )

    def admit(self, attributes: Attributes) -> None:
        ingress = attributes.new
        spec = ingress.get("spec") or {}
        annotated = CLASS_ANNOTATION in (ingress["metadata"].get("annotations") or {})
        if annotated or spec.get("ingressClassName") is not None:
            return
        default = newest_default(self.store.list(CLASSES), (IS_DEFAULT,))
        if default is not None:
            ingress["spec"] = {**spec, "ingressClassName": default["metadata"]["name"]}
