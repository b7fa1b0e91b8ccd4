"""Cluster IPs and node ports: handed out inside the writer's closure, against the staged state.

An address is taken when some Service of the head has it. The allocator keeps an index address -> Service, fed by the
log, so that no list of all Services is read per create; an entry counts only if the head confirms it. So an entry
that a failed batch left behind is harmless, and a re-run of the closure may choose again.

    10.96.0.0/12      .1 is the Service `kubernetes`; addresses asked for by name come from anywhere,
                      chosen ones first from above the static band, then from it (same for ports)

Source: k8s v1.36 pkg/registry/core/service/{ipallocator,portallocator,storage}.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Sequence

import attrs

from kcp.api.ip_families import settle_families
from kcp.apis.kind import Json
from kcp.apis.semantics import services
from kcp.base.entropy import Entropy
from kcp.base.values import frozen
from kcp.machinery.errors import FieldError, InternalError, Invalid, invalid
from kcp.store.protocol import Event, Head, Key, Op, Store

SERVICES = "services"
_ALLOCATED = "provided IP is already allocated"
_PORT_ALLOCATED = "provided port is already allocated"
_FULL = "range is full"


def _band(size: int, divisor: int, low: int, high: int) -> int:
    """How many values at the start are kept for those who ask by name. Source: calculateRangeOffset."""
    if size <= low:
        return 0
    return min(max(low, size // divisor), high)


@frozen
class Range:
    """The values low..high with the static band at the start; `chosen` are those above it."""

    low: int
    high: int
    offset: int

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int) and self.low <= value <= self.high

    def candidates(self, entropy: Entropy) -> Iterator[int]:
        """Every value once: from a random place in the upper band on, then the static band."""
        upper, size = self.low + self.offset, self.high - self.low - self.offset + 1
        if size > 0:
            start = entropy.below(size)
            for step in range(size):
                yield upper + (start + step) % size
        yield from range(self.low, min(upper, self.high + 1))


def address_range(cidr: str) -> Range:
    """Without the network's own address and, for IPv4, the broadcast address."""
    network = ipaddress.ip_network(cidr)
    low, high = int(network.network_address) + 1, int(network.broadcast_address)
    if network.version == 4:
        high -= 1
    return Range(low, high, _band(high - low + 1, 16, 16, 256))


def port_range(low: int, high: int) -> Range:
    return Range(low, high, _band(high - low + 1, 32, 16, 128))


def _node_ports(spec: Json) -> list[int]:
    ports = [port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")]
    health = spec.get("healthCheckNodePort")
    return [*ports, health] if health else ports


def _addresses(spec: Json) -> list[str]:
    found = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    return [ip for ip in found if ip != services.NONE]


@attrs.define(slots=True)
class _Holders:
    """value -> the Service that holds it, as far as was seen."""

    read: Callable[[Json], Iterable[int | str]]
    holders: dict[int | str, Key] = attrs.field(factory=dict)

    def free(self, value: int | str, head: Head, own: Key) -> bool:
        holder = self.holders.get(value)
        if holder is None or holder == own:
            return True
        record = head.get(holder)
        return record is None or value not in self.read(record.value.get("spec") or {})

    def take(self, value: int | str, own: Key) -> None:
        self.holders[value] = own

    def follow(self, event: Event) -> None:
        key = event.key
        now = list(self.read(event.record.value.get("spec") or {})) if event.op is not Op.DELETED else []
        if event.previous is not None:
            for value in self.read(event.previous.value.get("spec") or {}):
                if value not in now and self.holders.get(value) == key:
                    del self.holders[value]
        for value in now:
            self.holders[value] = key


class Allocator:
    """Cluster IPs and node ports of one cluster. `close` ends its listening.

    `service_cidrs` are one range for each family, the default family's first; one entry may hold two with a comma.
    """

    def __init__(
        self, store: Store, entropy: Entropy, service_cidrs: Sequence[str], node_ports: tuple[int, int]
    ) -> None:
        self._entropy = entropy
        self._cidrs = tuple(cidr.strip() for entry in service_cidrs for cidr in entry.split(","))
        self._ranges = {f"IPv{ipaddress.ip_network(c).version}": address_range(c) for c in self._cidrs}
        self._ports = port_range(*node_ports)
        self._ips = _Holders(_addresses)
        self._node_ports = _Holders(_node_ports)
        self._loaded = False
        self._unlisten = store.listen(self._feed)

    def close(self) -> None:
        self._unlisten()

    def kubernetes_ip(self) -> str:
        """The first address of the first range: the Service `kubernetes`."""
        return str(next(iter(ipaddress.ip_network(self._cidrs[0]).hosts())))

    def _feed(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.key.resource == SERVICES:
                self._ips.follow(event)
                self._node_ports.follow(event)

    def _load(self, head: Head) -> None:
        self._loaded = True
        for record in head.list(SERVICES):
            spec = record.value.get("spec") or {}
            for ip in _addresses(spec):
                self._ips.take(ip, record.key)
            for port in _node_ports(spec):
                self._node_ports.take(port, record.key)

    def assign(self, service: Json, old: Json | None, head: Head) -> Json:
        """The Service with every address and port it needs; a new object when something was added.

        Raises Invalid when an asked one is out of range or held by another Service, InternalError when none is left.
        """
        if not self._loaded:
            self._load(head)
        metadata, spec = service["metadata"], dict(service["spec"])
        own = Key(SERVICES, metadata["namespace"], metadata["name"])
        before = (old or {}).get("spec") or {}
        errors = self._assign_ips(service, spec, before, own, head)
        errors += self._assign_ports(service, spec, before, own, head)
        if errors:
            raise Invalid.of("", "Service", metadata["name"], errors)
        return service if spec == service["spec"] else {**service, "spec": spec}

    def _assign_ips(self, service: Json, spec: Json, before: Json, own: Key, head: Head) -> list[FieldError]:
        if services.is_external_name(service):
            return []
        errors = settle_families(spec, before, list(self._ranges))
        if errors:
            return errors
        families = spec["ipFamilies"]
        if services.is_headless(service):
            spec["clusterIPs"] = [services.NONE]
            return []
        given, held = _addresses(spec), _addresses(before)
        ips: list[str] = []
        for at, family in enumerate(families):
            if at < len(given):
                fault = self._refuse_ip(given[at], family, own, head) if given[at] not in held else None
                if fault:
                    return [invalid("spec.clusterIPs", given, f"failed to allocate IP {given[at]}: {fault}")]
                ips.append(given[at])
            else:
                ips.append(self._choose_ip(family, own, head))
            self._ips.take(ips[-1], own)
        spec["clusterIP"], spec["clusterIPs"] = ips[0], ips
        return []

    def _refuse_ip(self, ip: str, family: str, own: Key, head: Head) -> str | None:
        if int(ipaddress.ip_address(ip)) not in self._ranges[family]:
            cidr = next(c for c in self._cidrs if f"IPv{ipaddress.ip_network(c).version}" == family)
            return f"the provided IP ({ip}) is not in the valid range. The range of valid IPs is {cidr}"
        return None if self._ips.free(ip, head, own) else _ALLOCATED

    def _choose_ip(self, family: str, own: Key, head: Head) -> str:
        make = ipaddress.IPv6Address if family == "IPv6" else ipaddress.IPv4Address
        for value in self._ranges[family].candidates(self._entropy):
            ip = str(make(value))
            if self._ips.free(ip, head, own):
                return ip
        raise InternalError(f"failed to allocate a serviceIP: {_FULL}")

    def _assign_ports(
        self, service: Json, spec: Json, before: Json, own: Key, head: Head
    ) -> list[FieldError]:
        needed = services.needs_node_ports(service)
        held = set(_node_ports(before))
        ports: list[Json] = []
        errors: list[FieldError] = []
        numbers: dict[int, list[str]] = {}
        for at, port in enumerate(spec.get("ports") or ()):
            number, protocol = port.get("nodePort") or 0, port.get("protocol", "TCP")
            if number and number not in held and protocol not in numbers.get(number, [protocol]):
                numbers[number].append(protocol)
            elif number and number not in held:
                fault = self._refuse_port(number, own, head)
                if fault:
                    errors.append(invalid(f"spec.ports[{at}].nodePort", number, fault))
            elif not number and needed:
                number = self._shared(port, ports) or self._choose_port(own, head, numbers)
            if number:
                numbers.setdefault(number, []).append(protocol)
                self._node_ports.take(number, own)
                port = {**port, "nodePort": number}
            ports.append(port)
        if ports:
            spec["ports"] = ports
        return errors + self._assign_health_check(service, spec, held, own, head, numbers)

    def _shared(self, port: Json, ports: list[Json]) -> int:
        """The same port number over another protocol gets the same node port (DNS over TCP and UDP)."""
        for other in ports:
            if other.get("port") == port.get("port") and other.get("protocol") != port.get("protocol"):
                return int(other.get("nodePort") or 0)
        return 0

    def _assign_health_check(
        self, service: Json, spec: Json, held: set[int], own: Key, head: Head, numbers: dict[int, list[str]]
    ) -> list[FieldError]:
        if not services.needs_health_check_port(service):
            return []
        number = spec.get("healthCheckNodePort") or 0
        if not number:
            spec["healthCheckNodePort"] = self._choose_port(own, head, numbers)
            self._node_ports.take(spec["healthCheckNodePort"], own)
            return []
        fault = self._refuse_port(number, own, head) if number not in held else None
        if fault:
            text = f"failed to allocate requested HealthCheck NodePort {number}: {fault}"
            return [invalid("spec.healthCheckNodePort", number, text)]
        self._node_ports.take(number, own)
        return []

    def _refuse_port(self, number: int, own: Key, head: Head) -> str | None:
        if number not in self._ports:
            valid = f"{self._ports.low}-{self._ports.high}"
            return f"provided port is not in the valid range. The range of valid ports is {valid}"
        return None if self._node_ports.free(number, head, own) else _PORT_ALLOCATED

    def _choose_port(self, own: Key, head: Head, chosen: dict[int, list[str]]) -> int:
        for number in self._ports.candidates(self._entropy):
            if number not in chosen and self._node_ports.free(number, head, own):
                return number
        raise InternalError(f"failed to allocate a nodePort: {_FULL}")
