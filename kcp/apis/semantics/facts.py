"""What the event log keeps beside the documents, so that SQL answers at once: facts of pods, nodes and owners.

Pure functions from an object to rows. The names are the columns of the tables `facts_pod`, `facts_node`, `facts_owner`;
the log adds which object at which revision, and writes a row only when the facts changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Json = dict[str, Any]
Facts = Callable[[Json], list[Json]]

_PRESSURES = ("DiskPressure", "MemoryPressure", "NetworkUnavailable", "PIDPressure")


def _condition(status: Json, kind: str) -> str | None:
    for condition in status.get("conditions") or ():
        if condition.get("type") == kind:
            found = condition.get("status")
            return found if isinstance(found, str) else None
    return None


def _waiting_reason(statuses: Sequence[Json]) -> str | None:
    """Why a container does not run: CrashLoopBackOff, ImagePullBackOff, OOMKilled …; the first one that tells."""
    for status in statuses:
        state = status.get("state") or {}
        told = state.get("waiting") or state.get("terminated") or {}
        reason = told.get("reason")
        if reason and reason != "Completed":
            return str(reason)
    return None


def pod_facts(pod: Json) -> list[Json]:
    """One row: node, phase, ready, restarts (sum over containers), reason, ip, deleting."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    containers = status.get("containerStatuses") or ()
    return [
        {
            "node": spec.get("nodeName") or None,
            "phase": status.get("phase"),
            "ready": int(_condition(status, "Ready") == "True"),
            "restarts": sum(container.get("restartCount") or 0 for container in containers),
            "reason": status.get("reason") or _waiting_reason(containers),
            "ip": status.get("podIP"),
            "deleting": int("deletionTimestamp" in pod["metadata"]),
        }
    ]


def _taint(taint: Json) -> str:
    value = taint.get("value")
    return f"{taint.get('key')}{f'={value}' if value else ''}:{taint.get('effect')}"


def node_facts(node: Json) -> list[Json]:
    """One row: ready (True, False, Unknown), unschedulable, taints and pressing conditions joined by commas."""
    spec, status = node.get("spec") or {}, node.get("status") or {}
    return [
        {
            "ready": _condition(status, "Ready"),
            "unschedulable": int(bool(spec.get("unschedulable"))),
            "taints": ",".join(_taint(taint) for taint in spec.get("taints") or ()),
            "pressure": ",".join(kind for kind in _PRESSURES if _condition(status, kind) == "True"),
        }
    ]


def owner_facts(obj: Json) -> list[Json]:
    """One row per owner: owner_uid, controller, block (blockOwnerDeletion)."""
    return [
        {
            "owner_uid": owner["uid"],
            "controller": int(bool(owner.get("controller"))),
            "block": int(bool(owner.get("blockOwnerDeletion"))),
        }
        for owner in {owner["uid"]: owner for owner in obj["metadata"].get("ownerReferences") or ()}.values()
    ]


FACTS: tuple[tuple[str, str | None, Facts, Json | None], ...] = (
    ("facts_pod", "pods", pod_facts, None),
    ("facts_node", "nodes", node_facts, None),
    ("facts_owner", None, owner_facts, {"owner_uid": ""}),
)
"""(table, resource or None for all, facts of an object, the row that says that no facts are left)."""
