"""No device is allocated twice, and no shared one beyond its capacity."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from kcp.apis.semantics.resource_claims import results_of
from kcp.machinery.quantity import Quantity, parse
from kcp.store.protocol import Event, Op

Json = dict[str, Any]
DeviceId = tuple[str, str, str]
CLAIMS, SLICES = "resourceclaims.resource.k8s.io", "resourceslices.resource.k8s.io"


@attrs.define
class DevicesOnce:
    """A device is one claim's, unless it is shared; then all shares of it together stay within what it has.

    Access for administrators does not count.
    """

    name = "devices once"
    as_stamped = False
    held: dict[str, list[Json]] = attrs.field(factory=dict)
    """results by claim"""
    owners: dict[DeviceId, str] = attrs.field(factory=dict)
    capacities: dict[DeviceId, Json] = attrs.field(factory=dict)

    def see(self, event: Event) -> Iterator[str]:
        if event.key.resource == SLICES and event.op is not Op.DELETED:
            self._publish(event.record.value)
        elif event.key.resource == CLAIMS:
            yield from self._claim(event)

    def _publish(self, obj: Json) -> None:
        """A slice that shrinks takes nothing from those who have it: the largest capacity counts."""
        spec = obj["spec"]
        for device in spec.get("devices") or ():
            if device.get("allowMultipleAllocations"):
                key = (spec["driver"], spec["pool"]["name"], device["name"])
                known = self.capacities.setdefault(key, {})
                for name, capacity in (device.get("capacity") or {}).items():
                    known[name] = max(known.get(name, Quantity(0)), parse(capacity["value"]))

    def _claim(self, event: Event) -> Iterator[str]:
        key = str(event.key)
        for result in self.held.pop(key, ()):
            if self.owners.get(_id(result)) == key:
                del self.owners[_id(result)]
        if event.op is Op.DELETED:
            return
        results = [r for r in results_of(event.record.value) if not r.get("adminAccess")]
        if results:
            self.held[key] = results
        for result in results:
            if result.get("shareID"):
                yield from self._share(key, _id(result))
                continue
            other = self.owners.setdefault(_id(result), key)
            if other != key:
                yield f"{key} has device {'/'.join(_id(result))}, as has {other}"

    def _share(self, key: str, device: DeviceId) -> Iterator[str]:
        total: dict[str, Quantity] = {}
        for results in self.held.values():
            for result in results:
                if _id(result) == device:
                    for name, amount in (result.get("consumedCapacity") or {}).items():
                        total[name] = total.get(name, Quantity(0)) + parse(amount)
        for name, amount in total.items():
            most = self.capacities.get(device, {}).get(name)
            if most is not None and amount > most:
                yield f"{key}: {amount} of {name} of device {'/'.join(device)} are taken, it has {most}"


def _id(result: Json) -> DeviceId:
    return result["driver"], result["pool"], result["device"]
