"""TaintNodesByCondition: a new node is not-ready until the node lifecycle controller has seen it.

Source: k8s v1.36 plugin/pkg/admission/nodetaint/admission.go.
"""

from __future__ import annotations

from kcp.api.admission.plugin import Attributes
from kcp.base.values import frozen

NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}


@frozen
class TaintNodesByCondition:
    name: str = "TaintNodesByCondition"

    def handles(self, attributes: Attributes) -> bool:
        return (
            attributes.kind.resource == "nodes"
            and attributes.subresource == ""
            and attributes.operation == "CREATE"
        )

    def admit(self, attributes: Attributes) -> None:
        node = attributes.new
        spec = node.get("spec") or {}
        taints = spec.get("taints") or []
        if any(t.get("key") == NOT_READY["key"] and t.get("effect") == NOT_READY["effect"] for t in taints):
            return
        node["spec"] = {**spec, "taints": [*taints, dict(NOT_READY)]}
