"""Which numbers of a range are taken: service addresses, node ports, pod subnets.

    AddressRange("10.96.0.0/12")            static requests and random draws; draws avoid the low band first
    PortRange(30000, 32767)                 the same for ports
    SubnetRange("10.244.0.0/16", 24)        one subnet per node, handed out round robin

Draws take the upper band first, so that addresses which people write into their manifests (the low band) stay free
as long as possible. Source: k8s v1.36 pkg/registry/core/service/{ipallocator,portallocator}, KEP-3070;
subnets: pkg/controller/nodeipam/ipam/cidrset.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import attrs

from kcp.base.entropy import Entropy

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_SLOTS = 1 << 20
"""Offsets that can be drawn or kept; larger ranges use their first million."""


class RangeFull(Exception):
    """Raised when nothing is left: `range is full`."""

    def __init__(self) -> None:
        super().__init__("range is full")


class AlreadyAllocated(Exception):
    """Raised when the requested value is taken: `provided IP is already allocated` (or port)."""


class OutOfRange(Exception):
    """Raised when the requested value does not belong to the range."""


class Slots:
    """Offsets 0..size-1, one byte each, so that the search for a free one is a memchr."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = 0
        self._taken = bytearray(size)

    def take(self, offset: int) -> bool:
        """Mark; False when it was taken already."""
        if self._taken[offset]:
            return False
        self._taken[offset] = 1
        self.used += 1
        return True

    def release(self, offset: int) -> None:
        self.used -= self._taken[offset]
        self._taken[offset] = 0

    def taken(self, offset: int) -> bool:
        return bool(self._taken[offset])

    def next_free(self, start: int, low: int, high: int) -> int | None:
        """The first free offset from `start` up within [low, high), then from `low`; None when there is none."""
        found = self._taken.find(0, start, high)
        if found < 0:
            found = self._taken.find(0, low, start)
        return found if found >= 0 else None

    def __iter__(self) -> Iterator[int]:
        """The taken offsets, rising."""
        at = self._taken.find(1)
        while at >= 0:
            yield at
            at = self._taken.find(1, at + 1)


def _draw(slots: Slots, band: int, entropy: Entropy | None) -> int:
    """A free offset from [band, size), else from [0, band). Raises RangeFull."""
    for low, high in ((band, slots.size), (0, band)):
        if low >= high:
            continue
        start = low + (entropy.below(high - low) if entropy is not None else 0)
        offset = slots.next_free(start, low, high)
        if offset is not None:
            slots.take(offset)
            return offset
    raise RangeFull


def static_band(size: int, divisor: int, highest: int) -> int:
    """How many low values are kept for static requests: size/divisor, between 16 and `highest`; 0 if tiny."""
    return 0 if size < 16 else min(max(16, size // divisor), highest)


class AddressRange:
    """The usable addresses of a CIDR: without the network address, and for IPv4 without the broadcast address."""

    def __init__(self, cidr: str) -> None:
        self.network: Network = ipaddress.ip_network(cidr)
        self._base = int(self.network.network_address) + 1
        hosts = self.network.num_addresses - (2 if self.network.version == 4 else 1)
        self._slots = Slots(max(0, min(hosts, MAX_SLOTS)))
        self._band = static_band(self._slots.size, 16, 256)

    @property
    def free(self) -> int:
        return self._slots.size - self._slots.used

    @property
    def used(self) -> int:
        return self._slots.used

    def _offset(self, ip: str) -> int:
        offset = int(ipaddress.ip_address(ip)) - self._base
        if not 0 <= offset < self._slots.size or ipaddress.ip_address(ip) not in self.network:
            raise OutOfRange(f"the provided IP ({ip}) is not in the valid range. {self.valid_range()}")
        return offset

    def valid_range(self) -> str:
        return f"The range of valid IPs is {self.network}"

    def _address(self, offset: int) -> str:
        address = type(self.network.network_address)(self._base + offset)
        return str(address)

    def __contains__(self, ip: str) -> bool:
        try:
            self._offset(ip)
        except (ValueError, OutOfRange):
            return False
        return True

    def has(self, ip: str) -> bool:
        """Whether the address is taken."""
        return ip in self and self._slots.taken(self._offset(ip))

    def allocate(self, ip: str) -> None:
        """Take this address. Raises OutOfRange or AlreadyAllocated."""
        if not self._slots.take(self._offset(ip)):
            raise AlreadyAllocated("provided IP is already allocated")

    def allocate_next(self, entropy: Entropy | None = None) -> str:
        """Take a free address; the lowest free one without entropy. Raises RangeFull."""
        return self._address(_draw(self._slots, self._band, entropy))

    def release(self, ip: str) -> None:
        if ip in self:
            self._slots.release(self._offset(ip))

    def __iter__(self) -> Iterator[str]:
        return (self._address(offset) for offset in self._slots)


class PortRange:
    """Ports low..high, both included."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high
        self._slots = Slots(high - low + 1)
        self._band = static_band(self._slots.size, 32, 128)

    @property
    def free(self) -> int:
        return self._slots.size - self._slots.used

    def __contains__(self, port: int) -> bool:
        return self.low <= port <= self.high

    def has(self, port: int) -> bool:
        return port in self and self._slots.taken(port - self.low)

    def allocate(self, port: int) -> None:
        """Take this port. Raises OutOfRange or AlreadyAllocated."""
        if port not in self:
            raise OutOfRange(f"provided port is not in the valid range. {self.valid_range()}")
        if not self._slots.take(port - self.low):
            raise AlreadyAllocated("provided port is already allocated")

    def valid_range(self) -> str:
        return f"The range of valid ports is {self.low}-{self.high}"

    def allocate_next(self, entropy: Entropy | None = None) -> int:
        return self.low + _draw(self._slots, self._band, entropy)

    def release(self, port: int) -> None:
        if port in self:
            self._slots.release(port - self.low)

    def __iter__(self) -> Iterator[int]:
        return (self.low + offset for offset in self._slots)


@attrs.define
class SubnetRange:
    """Subnets of `mask` bits inside a cluster CIDR. Released ones are handed out again only after a full round."""

    cidr: str
    mask: int
    network: Network = attrs.field(init=False)
    _slots: Slots = attrs.field(init=False)
    next: int = attrs.field(init=False, default=0)
    """Where the search for a free subnet starts: its number in the range."""

    def __attrs_post_init__(self) -> None:
        self.network = ipaddress.ip_network(self.cidr)
        bits = self.mask - self.network.prefixlen
        if bits < 0:
            raise ValueError("the size of the node CIDR mask is larger than that of the cluster CIDR")
        self._slots = Slots(min(1 << bits, MAX_SLOTS))

    @property
    def free(self) -> int:
        return self._slots.size - self._slots.used

    def _subnet(self, index: int) -> str:
        width = self.network.max_prefixlen - self.mask
        base = int(self.network.network_address) + (index << width)
        return f"{type(self.network.network_address)(base)}/{self.mask}"

    def _indexes(self, cidr: str) -> range:
        """The subnets of ours that a CIDR touches. Raises OutOfRange when there are none."""
        other = ipaddress.ip_network(cidr, strict=False)
        if other.version != self.network.version or not other.overlaps(self.network):
            raise OutOfRange(f"cidr {cidr} is out the range of cluster cidr {self.cidr}")
        width = self.network.max_prefixlen - self.mask
        start = int(self.network.network_address)
        first = max(int(other.network_address) - start, 0) >> width
        last = (int(other.broadcast_address) - start) >> width
        return range(first, min(last + 1, self._slots.size))

    @property
    def size(self) -> int:
        """How many subnets there are, taken ones included."""
        return self._slots.size

    def allocate_next(self) -> str:
        """Take the next free subnet. Raises RangeFull."""
        index = self._slots.next_free(self.next, 0, self._slots.size)
        if index is None:
            raise RangeFull
        self._slots.take(index)
        self.next = (index + 1) % self._slots.size
        return self._subnet(index)

    def occupy(self, cidr: str) -> None:
        """Mark every subnet that a CIDR touches as taken."""
        for index in self._indexes(cidr):
            self._slots.take(index)

    def release(self, cidr: str) -> None:
        for index in self._indexes(cidr):
            self._slots.release(index)
