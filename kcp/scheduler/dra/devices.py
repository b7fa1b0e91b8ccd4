"""What the scheduler knows of devices: the slices that offer them and the claims that hold them.

A pure fold, like the cluster state that owns it: what is taken follows from the claims in the log and from the allocations
that were decided and are on their way into it.

    take(pod uid, {claim: allocation})      decided; counts from now on
    written(claim, as written)              it is in the log at that version
    give_back(claim)                        it will not come into the log

An allocation under way ends by itself when the log shows that its claim has one, or that the claim is gone; and from the
version on at which it was written, as the claim may have been freed again before anybody saw that.
Source: k8s v1.36 pkg/scheduler/framework/plugins/dynamicresources/{allocateddevices,dra_manager}.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from kcp.machinery import meta
from kcp.machinery.quantity import Quantity, parse
from kcp.scheduler.dra.extended import is_special, owner_of, special_key
from kcp.scheduler.dra.pools import DeviceId, Pool, PoolId, SliceIndex

Json = dict[str, Any]

CLAIMS = "resourceclaims.resource.k8s.io"
SLICES = "resourceslices.resource.k8s.io"
CLASSES = "deviceclasses.resource.k8s.io"
DEVICE_KINDS = (CLAIMS, SLICES, CLASSES)
MAX_TOUCHED = 10_000
MAX_NODES_REMEMBERED = 20_000


@attrs.define(eq=False, slots=True)
class Usage:
    """How often what is taken of one pool changed."""

    version: int = 0


@attrs.frozen(eq=False, slots=True)
class NodePools:
    """The pools of a node, and what counts the changes of what is taken of them."""

    version: tuple[int, int]
    epoch: int
    pools: tuple[Pool, ...]
    usages: tuple[Usage, ...]

    @property
    def taken_version(self) -> int:
        return sum(usage.version for usage in self.usages)


@attrs.define(eq=False)
class Devices:
    """`dedicated` counts the claims that hold a device alone, `shared` what is consumed of devices that several share.

    `under_way` are decided allocations that the log does not show yet: {claim: {"pod": uid, "allocation": …}}.
    `ended` lists the claims that left it since somebody last asked.
    """

    index: SliceIndex = attrs.field(factory=SliceIndex)
    dedicated: dict[DeviceId, int] = attrs.field(factory=dict)
    shared: dict[DeviceId, dict[str, Quantity]] = attrs.field(factory=dict)
    under_way: dict[str, Json] = attrs.field(factory=dict)
    ended: list[str] = attrs.field(factory=list)
    classes_version: int = 0
    touched: list[PoolId] = attrs.field(factory=list)
    """The pools of which something was taken or given back; whoever keeps results remembers how far they have read."""
    touched_epoch: int = 0
    """Rises when `touched` begins anew."""
    special: dict[str, str] = attrs.field(factory=dict)
    """Pod uid -> the claim that was made for its extended resources."""
    _claims: dict[str, Json] = attrs.field(factory=dict)
    _written: dict[str, int] = attrs.field(factory=dict)
    """Of claims under way: the version that their allocation was written at."""
    _held: dict[str, list[Json]] = attrs.field(factory=dict)
    _usages: dict[PoolId, Usage] = attrs.field(factory=dict)
    _pools: dict[str, NodePools] = attrs.field(factory=dict)

    def apply(self, resource: str, key: str, old: Json | None, new: Json | None) -> None:
        """One object of the three kinds was added, changed or removed. `old` is what was known of it."""
        if resource == CLAIMS:
            self._claim_changed(key, old, new)
        elif resource == CLASSES:
            self.classes_version += 1
        elif new is not None:
            self.index.put(new)
        else:
            self.index.remove(key)

    def _claim_changed(self, key: str, old: Json | None, new: Json | None) -> None:
        if new is None:
            self._claims.pop(key, None)
        else:
            self._claims[key] = new
        if new is not None and is_special(new):
            self._special_is_there(key, new)
        elif old is not None and is_special(old):
            self.special.pop(owner_of(old), None)
        replaced = old is not None and new is not None and meta.uid(old) != meta.uid(new)
        if key in self.under_way and (new is None or replaced or self._is_told(key, new)):
            self._end(key)
        self._count(key)

    def _special_is_there(self, key: str, claim: Json) -> None:
        """What was decided under the name that it had before it was written is in the log when the claim has its devices."""
        uid = owner_of(claim)
        self.special[uid] = key
        if allocation_of(claim) is not None:
            self.give_back(special_key(meta.namespace(claim), uid))

    # --- allocations under way ---

    def take(self, pod_uid: str, allocations: Mapping[str, Json]) -> None:
        for key, allocation in allocations.items():
            claim = self._claims.get(key)
            if claim is not None and allocation_of(claim) is not None:
                continue
            self.under_way[key] = {"pod": pod_uid, "allocation": allocation}
            self._count(key)

    def written(self, key: str, claim: Json) -> None:
        """The allocation under way is in the log since this version of the claim."""
        if key not in self.under_way or not _version(claim):
            return
        self._written[key] = _version(claim)
        known = self._claims.get(key)
        if known is not None and meta.uid(known) == meta.uid(claim) and self._is_told(key, known):
            self.give_back(key)

    def _is_told(self, key: str, claim: Json) -> bool:
        """Whether this version of the claim says for itself what it holds."""
        since = self._written.get(key)
        return allocation_of(claim) is not None or (since is not None and _version(claim) >= since)

    def give_back(self, key: str) -> None:
        if key in self.under_way:
            self._end(key)
            self._count(key)

    def set_under_way(self, entries: Mapping[str, Json]) -> None:
        """Exactly these are under way."""
        for key in [key for key in self.under_way if key not in entries]:
            self.give_back(key)
        for key, entry in entries.items():
            self.take(entry["pod"], {key: entry["allocation"]})

    def _end(self, key: str) -> None:
        del self.under_way[key]
        self._written.pop(key, None)
        self.ended.append(key)

    # --- what is taken ---

    def _count(self, key: str) -> None:
        """Bring the counts of one claim up to what it holds now."""
        held = self._results(key)
        before = self._held.get(key, [])
        if held == before:
            return
        for result in before:
            self._add(result, -1)
        for result in held:
            self._add(result, 1)
        if held:
            self._held[key] = held
        else:
            self._held.pop(key, None)

    def _results(self, key: str) -> list[Json]:
        claim = self._claims.get(key)
        allocation = allocation_of(claim) if claim is not None else None
        if allocation is None and key in self.under_way:
            allocation = self.under_way[key]["allocation"]
        results: list[Json] = ((allocation or {}).get("devices") or {}).get("results") or []
        return results

    def _add(self, result: Json, sign: int) -> None:
        if result.get("adminAccess"):
            return
        device = result_device(result)
        self._usage(device[:2]).version += 1
        if len(self.touched) >= MAX_TOUCHED:
            self.touched.clear()
            self.touched_epoch += 1
        self.touched.append(device[:2])
        if result.get("shareID"):
            self._add_share(device, result.get("consumedCapacity") or {}, sign)
            return
        count = self.dedicated.get(device, 0) + sign
        if count:
            self.dedicated[device] = count
        else:
            del self.dedicated[device]

    def _add_share(self, device: DeviceId, consumed: Mapping[str, str], sign: int) -> None:
        shares = self.shared.setdefault(device, {})
        for name, amount in consumed.items():
            value = parse(amount)
            shares[name] = shares.get(name, Quantity(0)) + (value if sign > 0 else -value)
            if not shares[name]:
                del shares[name]
        if not shares:
            del self.shared[device]

    def _usage(self, pool: PoolId) -> Usage:
        found = self._usages.get(pool)
        if found is None:
            found = self._usages[pool] = Usage()
        return found

    def holders(self, device: DeviceId) -> list[str]:
        """The claims that have the device, or a share of it. Looks at every claim: for explanations."""
        return sorted(
            key
            for key, results in self._held.items()
            if any(result_device(result) == device and not result.get("adminAccess") for result in results)
        )

    # --- what a node can reach ---

    def pools_of(self, name: str, labels: Mapping[str, str], epoch: int) -> NodePools:
        """`epoch` is that of the cluster state: it rises when labels change."""
        found, version = self._pools.get(name), self.index.version_of(name)
        if found is None or found.version != version or found.epoch != epoch:
            if len(self._pools) > MAX_NODES_REMEMBERED:
                self._pools.clear()
            pools = self.index.pools_of(name, labels)
            usages = tuple(self._usage(pool.id) for pool in pools)
            found = self._pools[name] = NodePools(version, epoch, pools, usages)
        return found


def _version(claim: Json) -> int:
    return int(meta.resource_version(claim) or 0)


def allocation_of(claim: Json) -> Json | None:
    found: Json | None = (claim.get("status") or {}).get("allocation")
    return found


def result_device(result: Json) -> DeviceId:
    return result.get("driver") or "", result.get("pool") or "", result.get("device") or ""
