"""ServiceAccount.

Source: k8s v1.36 pkg/registry/core/serviceaccount/strategy.go.
"""

from __future__ import annotations

from kcp.apis.core.checks import Json
from kcp.apis.kind import Printer, Strategy
from kcp.apis.printing import NAME_AGE

_ENFORCE = "kubernetes.io/enforce-mountable-secrets"


def _warnings(new: Json, old: Json | None) -> list[str]:
    annotations = (new.get("metadata") or {}).get("annotations") or {}
    before = ((old or {}).get("metadata") or {}).get("annotations") or {}
    if _ENFORCE in annotations and _ENFORCE not in before:
        return [
            f"metadata.annotations[{_ENFORCE}]: deprecated in v1.32+; prefer separate namespaces to isolate access "
            "to mounted secrets"
        ]
    return []


STRATEGIES: dict[str, Strategy] = {
    "ServiceAccount": Strategy(warnings=_warnings, has_status=False, has_generation=False)
}
PRINTERS: dict[str, Printer] = {"ServiceAccount": NAME_AGE}
