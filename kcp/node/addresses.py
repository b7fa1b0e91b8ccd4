"""The addresses of nodes and of their pods, where no other part of the cluster hands them out.

Pod addresses of a node are taken round robin, so that a freed one is not used again at once.
"""

from __future__ import annotations

import ipaddress

from kcp.base.ipam import AlreadyAllocated, OutOfRange, RangeFull, Slots

_RESERVED_LOW = 2
"""The network's own address and the node's bridge."""


def dotted(value: int) -> str:
    """An IPv4 address from its number."""
    return f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}"


class AddressPool:
    """The IPv4 addresses of one CIDR but for its first two and its last."""

    def __init__(self, cidr: str) -> None:
        network = ipaddress.ip_network(cidr)
        assert network.version == 4, "simulated pods have IPv4 addresses"
        self.cidr = cidr
        self._base = int(network.network_address)
        self._slots = Slots(network.num_addresses - 1)
        for offset in range(min(_RESERVED_LOW, self._slots.size)):
            self._slots.take(offset)
        self._next = _RESERVED_LOW

    @property
    def free(self) -> int:
        return self._slots.size - self._slots.used

    def take(self) -> str:
        """The next free address. Raises RangeFull."""
        offset = self._slots.next_free(self._next, 0, self._slots.size)
        if offset is None:
            raise RangeFull
        self._slots.take(offset)
        self._go_on_after(offset)
        return dotted(self._base + offset)

    def claim(self, ip: str) -> None:
        """Take this address, which somebody had before a restart. Raises OutOfRange or AlreadyAllocated.

        The round goes on after the highest of these: who had one of them may have freed it a moment ago.
        """
        offset = self._offset(ip)
        if offset is None:
            raise OutOfRange(f"{ip} is not in {self.cidr}")
        if not self._slots.take(offset):
            raise AlreadyAllocated(f"{ip} is in use")
        if offset >= self._next:
            self._go_on_after(offset)

    def _go_on_after(self, offset: int) -> None:
        self._next = offset + 1 if offset + 1 < self._slots.size else _RESERVED_LOW

    def release(self, ip: str) -> None:
        offset = self._offset(ip)
        if offset is not None and offset >= _RESERVED_LOW:
            self._slots.release(offset)

    def _offset(self, ip: str) -> int | None:
        try:
            offset = int(ipaddress.ip_address(ip)) - self._base
        except ValueError:
            return None
        return offset if 0 <= offset < self._slots.size else None
