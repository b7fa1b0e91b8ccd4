"""What the slow scheduler knows: plain objects, looked through anew for every question. Part of the oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import attrs

from kcp.apis.semantics import pods
from kcp.scheduler.reference_devices import DeviceWorld

Json = dict[str, Any]


class Tenants(Protocol):
    """Queues of tenants, where there are any: `reference_tenants`."""

    def refusal(self, world: World, pod: Json, node: Json) -> list[str]: ...

    def is_hopeless(self, world: World, pod: Json) -> bool: ...

    def removable(self, world: World, pod: Json, node: Json) -> list[Json]: ...


@attrs.define
class World:
    """Plain objects. `placed` holds (pod, node name) for every pod that takes room.

    `claims` are by namespace/name, `volume_limits` node -> driver -> count.
    """

    nodes: list[Json]
    placed: list[tuple[Json, str]]
    namespaces: dict[str, dict[str, str]] = attrs.field(factory=dict)
    services: list[Json] = attrs.field(factory=list)
    owners: list[Json] = attrs.field(factory=list)
    budgets: list[Json] = attrs.field(factory=list)
    claims: dict[str, Json] = attrs.field(factory=dict)
    volumes: dict[str, Json] = attrs.field(factory=dict)
    volume_limits: dict[str, dict[str, int]] = attrs.field(factory=dict)
    attachments: list[tuple[str, str]] = attrs.field(factory=list)
    """(volume, node) of what somebody attached."""
    hard_affinity_weight: int = 1
    devices: DeviceWorld = attrs.field(factory=DeviceWorld)
    tenants: Tenants | None = None
    _amounts: dict[int, tuple[Json, dict[str, int]]] = attrs.field(factory=dict, repr=False)

    def amounts_of(self, obj: Json, read: Callable[[Json], Json]) -> dict[str, int]:
        """What `read` gives for a pod or node, as integers; remembered, since objects never change."""
        known = self._amounts.get(id(obj))
        if known is None or known[0] is not obj:
            known = self._amounts[id(obj)] = (obj, pods.amounts(read(obj)))
        return known[1]


def name_of(node: Json) -> str:
    name: str = node["metadata"]["name"]
    return name


def labels_of(obj: Json) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def pods_on(world: World, node: Json) -> list[Json]:
    return [pod for pod, name in world.placed if name == name_of(node)]


def node_named(world: World, name: str) -> Json | None:
    return next((node for node in world.nodes if name_of(node) == name), None)


def allocatable(world: World, node: Json, resource: str) -> int:
    return world.amounts_of(node, _offered).get(resource, 0)


def _offered(node: Json) -> Json:
    return pods.resource_list((node.get("status") or {}).get("allocatable"))


def requested(world: World, pod: Json, resource: str) -> int:
    return world.amounts_of(pod, pods.requests).get(resource, 0)


def used(world: World, node: Json, resource: str) -> int:
    return sum(requested(world, other, resource) for other in pods_on(world, node))
