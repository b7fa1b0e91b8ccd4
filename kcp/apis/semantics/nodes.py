"""Questions about nodes: readiness, room, addresses, roles.

Source: k8s v1.36 pkg/controller/util/node, pkg/util/node, component-helpers/node.
"""

from __future__ import annotations

from typing import Any

from kcp.apis.semantics import pods, taints

Json = dict[str, Any]

ROLE_PREFIX = "node-role.kubernetes.io/"
ROLE_LABEL = "kubernetes.io/role"
EXCLUDE_BALANCERS_LABEL = "node.kubernetes.io/exclude-from-external-load-balancers"

_PRESSURES = ("MemoryPressure", "DiskPressure", "PIDPressure")


def labels(node: Json) -> dict[str, str]:
    found: dict[str, str] = node.get("metadata", {}).get("labels") or {}
    return found


def condition(node: Json, kind: str) -> Json | None:
    return pods.condition(node, kind)


def ready_status(node: Json) -> str:
    """True, False or Unknown; Unknown when nobody reported yet."""
    entry = condition(node, "Ready")
    return entry.get("status", "Unknown") if entry else "Unknown"


def is_ready(node: Json) -> bool:
    return ready_status(node) == "True"


def is_unschedulable(node: Json) -> bool:
    return bool((node.get("spec") or {}).get("unschedulable"))


def is_schedulable(node: Json) -> bool:
    """Not cordoned and without a taint that keeps ordinary pods away."""
    return not is_unschedulable(node) and taints.find_untolerated(taints.taints(node), ()) is None


def pressures(node: Json) -> list[str]:
    """The pressure conditions that are True."""
    return [kind for kind in _PRESSURES if pods.condition_is_true(node, kind)]


def capacity(node: Json) -> pods.Resources:
    return pods.resource_list((node.get("status") or {}).get("capacity"))


def allocatable(node: Json) -> pods.Resources:
    """What pods may use; the capacity when the node reports no allocatable."""
    status = node.get("status") or {}
    return pods.resource_list(status.get("allocatable") or status.get("capacity"))


def allocatable_amounts(node: Json) -> dict[str, int]:
    """Integers: cpu in millicores, everything else in its unit."""
    return pods.amounts(allocatable(node))


def roles(node: Json) -> list[str]:
    """Sorted roles from `node-role.kubernetes.io/<role>` and `kubernetes.io/role`."""
    found = {key[len(ROLE_PREFIX) :] for key in labels(node) if key.startswith(ROLE_PREFIX)}
    found.add(labels(node).get(ROLE_LABEL, ""))
    return sorted(role for role in found if role)


def addresses(node: Json, kind: str) -> list[str]:
    """Addresses of one type (InternalIP, ExternalIP, Hostname, …) in the node's order."""
    found = (node.get("status") or {}).get("addresses") or ()
    return [entry.get("address", "") for entry in found if entry.get("type") == kind]


def internal_ip(node: Json) -> str:
    return next(iter(addresses(node, "InternalIP")), "")


def pod_cidrs(node: Json) -> list[str]:
    spec = node.get("spec") or {}
    found: list[str] = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
    return found


def serves_load_balancers(node: Json) -> bool:
    """Whether a cloud load balancer may send traffic to the node. Source: cloud-provider service controller."""
    if EXCLUDE_BALANCERS_LABEL in labels(node) or node.get("metadata", {}).get("deletionTimestamp"):
        return False
    return not taints.has_taint(node, "ToBeDeletedByClusterAutoscaler")
