"""What the volume plugins ask of claims, volumes and storage classes in the state."""

from __future__ import annotations

from typing import Any

from kcp.machinery.errors import go_quote
from kcp.scheduler.framework.plugin import Cycle

Json = dict[str, Any]


def claim_of(cycle: Cycle, name: str) -> Json | None:
    """The claim of that name in the pod's namespace."""
    return cycle.state.objects["persistentvolumeclaims"].get(f"{cycle.cls.namespace}/{name}")


def volume_of(cycle: Cycle, claim: Json) -> Json | None:
    """The volume that the claim names."""
    name = (claim.get("spec") or {}).get("volumeName") or ""
    return cycle.state.objects["persistentvolumes"].get(name) if name else None


def storage_class(cycle: Cycle, name: str) -> Json | None:
    return cycle.state.objects["storageclasses.storage.k8s.io"].get(name) if name else None


def not_found(claim: str) -> str:
    return f"persistentvolumeclaim {go_quote(claim)} not found"
