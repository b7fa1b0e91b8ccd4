"""In-place resize: whether a node takes new resources for a running pod, and what people are told. Pure.

Source: k8s v1.36 pkg/kubelet/allocation/allocation_manager.go (canResizePod), pkg/kubelet/events/event.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from kcp.apis.semantics import pods
from kcp.node.admit import Room
from kcp.node.status import Condition

Json = dict[str, Any]
_COMPUTE = (("memory", "memory"), ("cpu", "cpu"))


def resizable(pod: Json) -> Iterator[Json]:
    """Containers whose resources may change while they run."""
    yield from pods.containers(pod)
    yield from filter(pods.is_sidecar, pods.init_containers(pod))


def changed(pod: Json, allocated: Mapping[str, Json]) -> list[Json]:
    """Containers that want other resources than they were given."""
    return [
        container
        for container in resizable(pod)
        if container["name"] in allocated
        and (container.get("resources") or {}) != (allocated[container["name"]] or {})
    ]


def refused(room: Room, wanted: Mapping[str, int], given: Mapping[str, int]) -> Condition | None:
    """PodResizePending, or None when there is room. `given` is what the pod holds now."""
    for name, label in _COMPUTE:
        asked, capacity = wanted.get(name, 0), room.allocatable.get(name, 0)
        if asked > capacity:
            text = f"Node didn't have enough capacity: {label}, requested: {asked}, capacity: {capacity}"
            return Condition("PodResizePending", "True", "Infeasible", text)
    for name, label in reversed(_COMPUTE):
        asked, capacity = wanted.get(name, 0), room.allocatable.get(name, 0)
        used = room.used.get(name, 0) - given.get(name, 0)
        if asked > capacity - used:
            text = f"Node didn't have enough resource: {label}, requested: {asked}, used: {used}, capacity: {capacity}"
            return Condition("PodResizePending", "True", "Deferred", text)
    return None


def needs_restart(container: Json, before: Json) -> bool:
    """Whether a changed resource has the policy RestartContainer."""
    after = container.get("resources") or {}
    policies = {
        entry["resourceName"]: entry.get("restartPolicy") for entry in container.get("resizePolicy") or ()
    }
    for name in ("cpu", "memory"):
        if policies.get(name) != "RestartContainer":
            continue
        for field in ("requests", "limits"):
            if (after.get(field) or {}).get(name) != ((before or {}).get(field) or {}).get(name):
                return True
    return False


def message(pod: Json, text: str) -> str:
    """`Pod resize completed: {"containers":[…],"generation":2}`."""
    containers = [
        {"name": container["name"], "resources": _ordered(container.get("resources") or {})}
        for container in resizable(pod)
    ]
    details = {"containers": containers, "generation": pod["metadata"].get("generation") or 0}
    return f"{text}: {orjson.dumps(details).decode()}"


def _ordered(resources: Json) -> Json:
    return {
        field: {name: resources[field][name] for name in sorted(resources[field])}
        for field in ("limits", "requests")
        if resources.get(field)
    }
