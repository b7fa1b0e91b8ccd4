"""DefaultTolerationSeconds: pods stay 300 seconds on a node that is not ready or unreachable, unless they say otherwise.

Source: k8s v1.36 plugin/pkg/admission/defaulttolerationseconds/admission.go.
"""

from __future__ import annotations

from typing import Any

from kcp.api.admission.plugin import Attributes
from kcp.base.values import frozen

SECONDS = 300
KEYS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def _tolerates(tolerations: list[dict[str, Any]], key: str) -> bool:
    return any(
        t.get("key", "") in (key, "") and t.get("effect", "") in ("NoExecute", "") for t in tolerations
    )


@frozen
class DefaultTolerationSeconds:
    name: str = "DefaultTolerationSeconds"

    def handles(self, attributes: Attributes) -> bool:
        return (
            attributes.kind.resource == "pods"
            and attributes.subresource == ""
            and attributes.operation in ("CREATE", "UPDATE")
        )

    def admit(self, attributes: Attributes) -> None:
        spec = attributes.new["spec"]
        tolerations = spec.get("tolerations") or []
        missing = [key for key in KEYS if not _tolerates(tolerations, key)] if tolerations else KEYS
        if missing:
            spec["tolerations"] = [
                *tolerations,
                *(
                    {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}
                    for key in missing
                ),
            ]
