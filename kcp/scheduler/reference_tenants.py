"""The slow scheduler's way with queues of tenants: everything is counted anew from the pods on nodes. Part of the oracle.

Written from the rules of the how-to: limits at every level, what is guaranteed stays free, what is deserved can be had back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import attrs

from kcp.apis.semantics import pods
from kcp.machinery.quantity import Quantity, canonical, parse
from kcp.scheduler.reference_world import World, allocatable, labels_of, pods_on

Json = dict[str, Any]
Amounts = dict[str, int]
SYSTEM = 2_000_000_000


@attrs.define
class TenantWorld:
    """`rows` are the queues as configured, the default one among them; `waiting` the pods that have no node."""

    rows: Sequence[Json]
    label: str
    waiting: list[Json] = attrs.field(factory=list)

    def row(self, name: str) -> Json:
        return next(row for row in self.rows if row["name"] == name)

    def above(self, name: str) -> list[str]:
        """The queue and all that it is part of."""
        found = [name]
        while self.row(found[-1]).get("parent"):
            found.append(self.row(found[-1])["parent"])
        return found

    def children(self, name: str) -> list[str]:
        return [row["name"] for row in self.rows if (row.get("parent") or "") == name]

    def queue_of(self, world: World, pod: Json) -> str:
        namespace = pod["metadata"]["namespace"]
        leaves = [row["name"] for row in self.rows if not self.children(row["name"])]
        named = labels_of(pod).get(self.label) or world.namespaces.get(namespace, {}).get(self.label)
        if self.label and named in leaves:
            return str(named)
        for same in (lambda pattern: pattern == namespace, lambda pattern: fnmatchcase(namespace, pattern)):
            for row in self.rows:
                if any(same(pattern) for pattern in row.get("namespaces") or ()):
                    return str(row["name"])
        return "default"

    # --- filter ---

    def refusal(self, world: World, pod: Json, node: Json) -> list[str]:
        del node
        found = self._over_a_limit(world, pod) or self._kept(world, pod)
        return [found] if found else []

    def _over_a_limit(self, world: World, pod: Json) -> str:
        wanted = asks(pod)
        for name in self.above(self.queue_of(world, pod)):
            for resource, limit in amounts(self.row(name), "capability").items():
                used = self.used(world, name).get(resource, 0)
                if wanted.get(resource, 0) and used + wanted[resource] > limit:
                    left = f"{shown(resource, used)} of {shown(resource, limit)} used"
                    return f'queue "{name}" is at its capability: {resource} {left}'
        return ""

    def _kept(self, world: World, pod: Json) -> str:
        own = self.queue_of(world, pod)
        for resource, amount in asks(pod).items():
            missing = {
                row["name"]: amounts(row, "guarantee").get(resource, 0)
                - self.used(world, row["name"]).get(resource, 0)
                for row in self.rows
                if row["name"] not in self.above(own)
            }
            missing = {name: lacking for name, lacking in missing.items() if lacking > 0}
            mine = self.used(world, own).get(resource, 0) + amount
            if not missing or mine <= amounts(self.row(own), "guarantee").get(resource, 0):
                continue
            everybody = sum(asks(other).get(resource, 0) for other, _ in world.placed)
            kept = sum(missing.values())
            if everybody + amount + kept > total(world, resource):
                names = ", ".join(f'"{name}"' for name in missing)
                return f"{resource} is guaranteed to queue {names}: {shown(resource, kept)} are kept free"
        return ""

    def used(self, world: World, name: str) -> Amounts:
        return self._sum(world, name, [pod for pod, _ in world.placed])

    def _sum(self, world: World, name: str, counted: Sequence[Json]) -> Amounts:
        found: Amounts = {}
        for pod in counted:
            if name in self.above(self.queue_of(world, pod)):
                for resource, amount in asks(pod).items():
                    found[resource] = found.get(resource, 0) + amount
        return found

    def is_hopeless(self, world: World, pod: Json) -> bool:
        """Whether the pod alone is more than the queue whose limit is in its way may ever have."""
        wanted = asks(pod)
        for name in self.above(self.queue_of(world, pod)):
            for resource, limit in amounts(self.row(name), "capability").items():
                used = self.used(world, name).get(resource, 0)
                if wanted.get(resource, 0) and used + wanted[resource] > limit:
                    return wanted[resource] > limit
        return False

    # --- whose pods may go ---

    def removable(self, world: World, pod: Json, node: Json) -> list[Json]:
        own = self.queue_of(world, pod)
        there = pods_on(world, node)
        found = [p for p in there if pods.priority(p) < pods.priority(pod) and self.queue_of(world, p) == own]
        wanted = {resource: amount for resource, amount in asks(pod).items() if resource != "pods"}
        staying = [p for p, _ in world.placed if "deletionTimestamp" not in p["metadata"]]
        dues = self.dues(world)
        standing = self._sum(world, own, staying)
        if any(
            standing.get(resource, 0) + amount > dues[own].get(resource, 1 << 62)
            for resource, amount in wanted.items()
        ):
            return found
        gone: list[Json] = []
        for other in sorted(there, key=_least_important_first):
            name = self.queue_of(world, other)
            row = self.row(name)
            if name == own or row.get("reclaimable") is False or pods.priority(other) >= SYSTEM:
                continue
            if "deletionTimestamp" in other["metadata"]:
                found.append(other)
                continue
            left = self._sum(world, name, [p for p in staying if not any(p is g for g in gone)])
            borrows = any(left.get(resource, 0) > dues[name].get(resource, 1 << 62) for resource in wanted)
            spares = all(
                left.get(resource, 0) - amount >= amounts(row, "guarantee").get(resource, 0)
                for resource, amount in asks(other).items()
                if resource != "pods"
            )
            if borrows and spares:
                found.append(other)
                gone.append(other)
        return found

    # --- dues ---

    def dues(self, world: World) -> dict[str, Amounts]:
        found: dict[str, Amounts] = {row["name"]: {} for row in self.rows}
        for resource in self._resources():
            self._divide(world, "", resource, total(world, resource), found)
        return found

    def _resources(self) -> list[str]:
        named = [
            resource
            for row in self.rows
            for field in ("deserved", "capability", "guarantee")
            for resource in amounts(row, field)
        ]
        return list(dict.fromkeys(["cpu", "memory", *named]))

    def _divide(
        self, world: World, parent: str, resource: str, whole: int, found: dict[str, Amounts]
    ) -> None:
        """What is deserved first; the rest by weight, to no queue more than it wants or may have."""
        names = self.children(parent)
        left = whole
        caps: dict[str, int] = {}
        for name in names:
            limit = min(amounts(self.row(name), "capability").get(resource, whole), whole)
            given = amounts(self.row(name), "deserved").get(resource)
            if given is not None:
                found[name][resource] = min(given, limit)
                left -= min(given, limit)
            else:
                everybody = [*(pod for pod, _ in world.placed), *self.waiting]
                caps[name] = min(self._sum(world, name, everybody).get(resource, 0), limit)
        for name, share in self._by_weight(max(left, 0), caps).items():
            found[name][resource] = max(share, amounts(self.row(name), "guarantee").get(resource, 0))
        for name in names:
            self._divide(world, name, resource, found[name][resource], found)

    def _by_weight(self, left: int, caps: Mapping[str, int]) -> dict[str, int]:
        weights = {name: int(self.row(name).get("weight") or 1) for name in caps}
        shares = dict.fromkeys(caps, 0)
        hungry = [name for name in caps if caps[name]]
        while hungry and left > 0:
            every = sum(weights[name] for name in hungry)
            satisfied = [name for name in hungry if caps[name] * every <= left * weights[name]]
            if not satisfied:
                return {**shares, **{name: left * weights[name] // every for name in hungry}}
            for name in satisfied:
                shares[name] = caps[name]
                left -= caps[name]
                hungry.remove(name)
        return shares


def _least_important_first(pod: Json) -> tuple[int, str, str]:
    metadata = pod["metadata"]
    started = (pod.get("status") or {}).get("startTime") or "~"
    return pods.priority(pod), started, f"{metadata['namespace']}/{metadata['name']}"


def asks(pod: Json) -> Amounts:
    found = {name: amount for name, amount in pods.amounts(pods.requests(pod)).items() if amount}
    return {**found, "pods": 1}


def amounts(row: Json, field: str) -> Amounts:
    return pods.amounts(pods.resource_list(row.get(field)))


def total(world: World, resource: str) -> int:
    return sum(allocatable(world, node, resource) for node in world.nodes)


def shown(resource: str, amount: int) -> str:
    if resource == "cpu":
        return canonical(parse(f"{amount}m"))
    return canonical(Quantity(amount, 0, "BinarySI" if resource == "memory" else "DecimalSI"))
