"""Resource pools as one node sees them: the newest generation of its slices, whole or not, valid or not.

A driver publishes a pool as several ResourceSlices of one generation. While a newer generation is being written the pool
is incomplete and nothing is taken from it; a pool that contradicts itself is invalid.
Source: k8s v1.36 staging/src/k8s.io/dynamic-resource-allocation/structured/internal/stable/pools_stable.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from kcp.apis.semantics.affinity import node_selector_matches
from kcp.machinery import meta
from kcp.machinery.quantity import Quantity, parse

Json = dict[str, Any]
DeviceId = tuple[str, str, str]
"""(driver, pool, device)."""
PoolId = tuple[str, str]
"""(driver, pool)."""
Counters = Mapping[str, Mapping[str, Quantity]]
"""Amounts by counter set and counter."""


@attrs.define(eq=False, slots=True)
class Device:
    """One device of a slice. `matches` remembers what each selector expression said of it, `seen` what they see."""

    id: DeviceId
    object: Json
    slice: Json
    consumes: Counters
    matches: dict[str, bool] = attrs.field(factory=dict)
    seen: Any = None

    @property
    def driver(self) -> str:
        return self.id[0]

    @property
    def shareable(self) -> bool:
        """Whether several requests may have it, each a part of its capacity."""
        return bool(self.object.get("allowMultipleAllocations"))

    @property
    def where(self) -> Json:
        """The object whose fields say on which nodes it is."""
        return self.object if self.slice.get("perDeviceNodeSelection") else self.slice

    def __str__(self) -> str:
        return "/".join(self.id)


@attrs.frozen(eq=False, slots=True)
class Slice:
    """A ResourceSlice taken apart, once for all nodes."""

    name: str
    pool: PoolId
    generation: int
    count: int
    spec: Json
    devices: tuple[Device, ...]
    counters: tuple[Json, ...]

    @classmethod
    def of(cls, obj: Json) -> Slice:
        spec = obj.get("spec") or {}
        pool = spec.get("pool") or {}
        driver, name = spec.get("driver") or "", pool.get("name") or ""
        devices = tuple(
            Device((driver, name, device.get("name") or ""), device, spec, _consumed(device))
            for device in spec.get("devices") or ()
        )
        return cls(
            meta.name(obj),
            (driver, name),
            int(pool.get("generation") or 0),
            int(pool.get("resourceSliceCount") or 0),
            spec,
            devices,
            tuple(spec.get("sharedCounters") or ()),
        )

    @property
    def node_name(self) -> str:
        return self.spec.get("nodeName") or ""


@attrs.frozen(eq=False, slots=True)
class Pool:
    """What a node can reach of a pool. `elsewhere` are the pool's devices on other nodes: they take counters too."""

    id: PoolId
    devices: tuple[Device, ...] = ()
    elsewhere: tuple[Device, ...] = ()
    counters: Counters = attrs.field(factory=dict)
    incomplete: bool = False
    invalid: str = ""

    @property
    def usable(self) -> bool:
        return not self.incomplete and not self.invalid

    def __str__(self) -> str:
        return "/".join(self.id)


def _amounts(holder: Json) -> dict[str, Quantity]:
    return {
        name: parse(counter.get("value") or "0") for name, counter in (holder.get("counters") or {}).items()
    }


def _consumed(device: Json) -> Counters:
    return {entry.get("counterSet") or "": _amounts(entry) for entry in device.get("consumesCounters") or ()}


def reaches(holder: Json, labels: Mapping[str, str], name: str) -> bool:
    """Whether what a slice or a device says of nodes means this one."""
    if holder.get("nodeName"):
        return bool(holder["nodeName"] == name)
    if holder.get("allNodes"):
        return True
    if holder.get("nodeSelector") is not None:
        return node_selector_matches(holder["nodeSelector"], labels, name)
    return False


def slice_reaches(found: Slice, labels: Mapping[str, str], name: str) -> bool:
    if found.spec.get("perDeviceNodeSelection"):
        return any(reaches(device.object, labels, name) for device in found.devices)
    return reaches(found.spec, labels, name)


MANY_SLICES = 64
"""A change in a pool of more slices than this counts for every node."""


@attrs.define(eq=False)
class SliceIndex:
    """All slices of the cluster."""

    slices: dict[str, Slice] = attrs.field(factory=dict)
    _by_pool: dict[PoolId, dict[str, Slice]] = attrs.field(factory=dict)
    _by_node: dict[str, dict[str, Slice]] = attrs.field(factory=dict)
    _elsewhere: dict[str, Slice] = attrs.field(factory=dict)
    changes: int = 0
    """How often any slice changed."""
    _version: int = 0
    _versions: dict[str, int] = attrs.field(factory=dict)

    def version_of(self, node: str) -> tuple[int, int]:
        """Another one whenever what the node can reach may have changed."""
        return self._version, self._versions.get(node, 0)

    def put(self, obj: Json) -> None:
        self.remove(meta.name(obj))
        found = self.slices[meta.name(obj)] = Slice.of(obj)
        self._by_pool.setdefault(found.pool, {})[found.name] = found
        self._place(found)[found.name] = found
        self._touch(found)

    def remove(self, name: str) -> None:
        found = self.slices.pop(name, None)
        if found is None:
            return
        self._touch(found)
        del self._by_pool[found.pool][name]
        if not self._by_pool[found.pool]:
            del self._by_pool[found.pool]
        place = self._place(found)
        del place[name]
        if not place:
            self._by_node.pop(found.node_name, None)

    def _touch(self, changed: Slice) -> None:
        """The nodes that have slices of the same pool; all nodes when the slice means more than one."""
        self.changes += 1
        pool = self._by_pool[changed.pool]
        if not changed.node_name or len(pool) > MANY_SLICES:
            self._version += 1
            return
        for node in {found.node_name: True for found in pool.values()}:
            self._versions[node] = self._versions.get(node, 0) + 1
        if any(not found.node_name for found in pool.values()):
            self._version += 1

    def _place(self, found: Slice) -> dict[str, Slice]:
        if found.node_name:
            return self._by_node.setdefault(found.node_name, {})
        return self._elsewhere

    def pools_of(self, name: str, labels: Mapping[str, str]) -> tuple[Pool, ...]:
        """The pools that the node can reach, ordered by driver and name; devices by slice and place in it.

        Pools whose devices must be bound before their pod stand behind the others.
        """
        groups: dict[PoolId, list[Slice]] = {}
        for found in self._reaching(name, labels):
            groups.setdefault(found.pool, []).append(found)
        pools = [
            pool
            for pool_id in sorted(groups)
            if (pool := self._gather(pool_id, groups[pool_id], name, labels)) is not None
        ]
        return tuple(sorted(pools, key=_binds_first))

    def _reaching(self, name: str, labels: Mapping[str, str]) -> Iterable[Slice]:
        yield from self._by_node.get(name, {}).values()
        for found in self._elsewhere.values():
            if found.counters or slice_reaches(found, labels, name):
                yield found

    def _gather(
        self, pool_id: PoolId, reaching: list[Slice], name: str, labels: Mapping[str, str]
    ) -> Pool | None:
        """None when a newer generation has nothing for this node: then the old one says nothing either."""
        newest = max(found.generation for found in reaching)
        everything = self._by_pool[pool_id].values()
        counting = [s for s in everything if s.counters and s.generation == newest and s not in reaching]
        chosen = [s for s in reaching if s.generation == newest] + counting
        if len(chosen) != chosen[0].count:
            if any(found.generation > newest for found in everything):
                return None
            all_slices = [found for found in everything if found.generation == newest]
            if len(all_slices) != chosen[0].count:
                return Pool(pool_id, incomplete=True)
        else:
            all_slices = chosen
        chosen.sort(key=lambda found: found.name)
        names = {found.name for found in chosen}
        others = sorted((s for s in all_slices if s.name not in names), key=lambda found: found.name)
        return _built(pool_id, chosen, others, name, labels)


def _binds_first(pool: Pool) -> bool:
    return any(device.object.get("bindingConditions") for device in pool.devices)


def _built(
    pool_id: PoolId,
    chosen: Sequence[Slice],
    others: Sequence[Slice],
    name: str,
    labels: Mapping[str, str],
) -> Pool:
    devices = [device for found in chosen for device in found.devices]
    elsewhere = tuple(device for found in others for device in found.devices)
    sets = [counter_set for found in chosen for counter_set in found.counters]
    invalid = _contradiction(devices, sets) or _unknown_counter((*devices, *elsewhere), sets)
    if invalid:
        return Pool(pool_id, invalid=invalid)
    here = [
        device
        for device in devices
        if not device.slice.get("perDeviceNodeSelection") or reaches(device.object, labels, name)
    ]
    if len(here) < len(devices):
        reached = {device.id for device in here}
        elsewhere += tuple(device for device in devices if device.id not in reached)
    counters = {counter_set.get("name") or "": _amounts(counter_set) for counter_set in sets}
    return Pool(pool_id, tuple(here), elsewhere, counters)


def _contradiction(devices: Sequence[Device], sets: Sequence[Json]) -> str:
    repeated = _repeated(device.id[2] for device in devices)
    if repeated is not None:
        return f"duplicate device name {repeated}"
    repeated = _repeated(counter_set.get("name") or "" for counter_set in sets)
    return f"duplicate counter set name {repeated}" if repeated is not None else ""


def _repeated(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _unknown_counter(devices: Sequence[Device], sets: Sequence[Json]) -> str:
    known = {counter_set.get("name") or "": counter_set.get("counters") or {} for counter_set in sets}
    for device in devices:
        for name, counters in device.consumes.items():
            if name not in known:
                return f"counter set {name} not found"
            for counter in counters:
                if counter not in known[name]:
                    return f"counter {counter} not found in counter set {name}"
    return ""
