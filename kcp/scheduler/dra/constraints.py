"""Constraints over the devices of one claim: an attribute that all share, or one in which all differ.

Source: k8s v1.36 staging/src/k8s.io/dynamic-resource-allocation/structured/internal/incubating/{allocator_incubating,constraint}.go.
"""

from __future__ import annotations

from typing import Any

import attrs

from kcp.scheduler.dra.pools import Device

Json = dict[str, Any]
_KINDS = ("string", "int", "bool", "version")
Value = tuple[str, Any]
"""(kind, value)."""


def attribute_of(device: Device, name: str) -> Value | None:
    """By its full name, or, for the driver's own domain, by the name without it. None: not there, or of no known kind."""
    attributes = device.object.get("attributes") or {}
    found = attributes.get(name)
    domain, slash, short = name.partition("/")
    if found is None and slash and domain == device.driver:
        found = attributes.get(short)
    if found is None:
        return None
    return next(((kind, found[kind]) for kind in _KINDS if found.get(kind) is not None), None)


@attrs.define(eq=False)
class Constraint:
    """Of the devices that were added; `remove` takes the last one off again."""

    attribute: str
    requests: frozenset[str]
    distinct: bool
    values: list[Value] = attrs.field(factory=list)

    def applies(self, request: str, alternative: str) -> bool:
        if not self.requests or request in self.requests:
            return True
        return bool(alternative) and f"{request}/{alternative}" in self.requests

    def add(self, device: Device) -> bool:
        """Whether the device may come to the others."""
        value = attribute_of(device, self.attribute)
        if value is None:
            return False
        if self.distinct:
            if value in self.values:
                return False
        elif self.values and value != self.values[0]:
            return False
        self.values.append(value)
        return True

    def remove(self) -> None:
        self.values.pop()


def constraints_of(claim: Json) -> list[Constraint] | None:
    """None when one is of an unknown kind."""
    found = []
    for entry in ((claim.get("spec") or {}).get("devices") or {}).get("constraints") or ():
        match, distinct = entry.get("matchAttribute"), entry.get("distinctAttribute")
        if match is None and distinct is None:
            return None
        requests = frozenset(entry.get("requests") or ())
        found.append(Constraint(match if match is not None else distinct, requests, match is None))
    return found
