"""What a Service is given: its families, its cluster IPs (kcp/api/cluster_ips.py) and its node ports.

Node ports are handed out inside the writer's closure, against the staged state. One is taken when some Service of the head
has it. The allocator keeps an index port -> Service, fed by the log, so that no list of all Services is read per create;
an entry counts only if the head confirms it. So an entry that a failed batch left behind is harmless, and a re-run of the
closure may choose again. Ports that are asked for come from anywhere, chosen ones first from above the static band.

Source: k8s v1.36 pkg/registry/core/service/{ipallocator,portallocator,storage}.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import datetime

import attrs

from kcp.api.admission.plugin import Companion
from kcp.api.cluster_ips import ADDRESSES, SHORTEST_IPV6_PREFIX, ClusterIPs, Range, addresses, band, releases
from kcp.api.ip_families import settle_families
from kcp.apis.kind import Json
from kcp.apis.semantics import services
from kcp.base.entropy import Entropy
from kcp.machinery.errors import FieldError, InternalError, Invalid, invalid
from kcp.store.protocol import Event, Head, Key, Op, Store

SERVICES = "services"
_PORT_ALLOCATED = "provided port is already allocated"
_FULL = "range is full"


def parse_ranges(text: str) -> tuple[str, ...]:
    """The ranges in a text with commas: one, or one of each family, the default family's first.

    Raises ValueError. Source: k8s v1.36 cmd/kube-apiserver/app/options/validation.go validateClusterIPFlags.
    """
    cidrs = tuple(cidr.strip() for cidr in text.split(","))
    networks = [ipaddress.ip_network(cidr) for cidr in cidrs]
    if len(networks) > 2:
        raise ValueError(f"at most two service ranges, one of each IP family, got {len(networks)}: {text}")
    if len({network.version for network in networks}) < len(networks):
        raise ValueError(f"two service ranges must be of different IP families: {text}")
    for cidr, network in zip(cidrs, networks, strict=True):
        if network.version == 6 and network.prefixlen < SHORTEST_IPV6_PREFIX:
            raise ValueError(
                f"the service range {cidr} is too large; for 128-bit addresses, the mask must be >= {SHORTEST_IPV6_PREFIX}"
            )
    return cidrs


def first_address(cidr: str) -> str:
    """The first address of a range: the Service `kubernetes` has it."""
    return str(next(iter(ipaddress.ip_network(cidr).hosts())))


def port_range(low: int, high: int) -> Range:
    return Range(low, high, band(high - low + 1, 32, 16, 128))


def _node_ports(spec: Json) -> list[int]:
    ports = [port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")]
    health = spec.get("healthCheckNodePort")
    return [*ports, health] if health else ports


@attrs.define(slots=True)
class _Holders:
    """port -> the Service that holds it, as far as was seen."""

    holders: dict[int, Key] = attrs.field(factory=dict)

    def free(self, value: int, head: Head, own: Key) -> bool:
        holder = self.holders.get(value)
        if holder is None or holder == own:
            return True
        record = head.get(holder)
        return record is None or value not in _node_ports(record.value.get("spec") or {})

    def take(self, value: int, own: Key) -> None:
        self.holders[value] = own

    def follow(self, event: Event) -> None:
        key = event.key
        now = list(_node_ports(event.record.value.get("spec") or {})) if event.op is not Op.DELETED else []
        if event.previous is not None:
            for value in _node_ports(event.previous.value.get("spec") or {}):
                if value not in now and self.holders.get(value) == key:
                    del self.holders[value]
        for value in now:
            self.holders[value] = key


class Allocator:
    """Cluster IPs and node ports of one cluster. `close` ends its listening.

    `service_cidrs` are one range for each family, the default family's first; one entry may hold two with a comma. They
    say which families there are; addresses come from the ServiceCIDRs of the head.
    """

    def __init__(
        self, store: Store, entropy: Entropy, service_cidrs: Sequence[str], node_ports: tuple[int, int]
    ) -> None:
        self._entropy = entropy
        self.cidrs = parse_ranges(",".join(service_cidrs))
        self._families = [f"IPv{ipaddress.ip_network(cidr).version}" for cidr in self.cidrs]
        self._ports = port_range(*node_ports)
        self._ips = ClusterIPs(entropy)
        self._node_ports = _Holders()
        self._loaded = False
        self._unlisten = store.listen(self._feed)

    def close(self) -> None:
        self._unlisten()

    def kubernetes_ip(self) -> str:
        """The first address of the first range: the Service `kubernetes`."""
        return first_address(self.cidrs[0])

    def _feed(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.key.resource == SERVICES:
                self._node_ports.follow(event)
            elif event.key.resource == ADDRESSES:
                self._ips.follow(event)

    def _load(self, head: Head) -> None:
        self._loaded = True
        for record in head.list(SERVICES):
            for port in _node_ports(record.value.get("spec") or {}):
                self._node_ports.take(port, record.key)

    def addresses(
        self, service: Json, old: Json | None, head: Head, moment: datetime, dry_run: bool
    ) -> tuple[Json, list[Companion]]:
        """The Service with its families and cluster IPs, and the IPAddresses that come and go with it.

        Raises Invalid when an asked one is out of range or taken, InternalError when none is left.
        """
        if services.is_external_name(service):
            return service, [] if old is None else releases(old, moment)
        metadata, spec = service["metadata"], dict(service["spec"])
        before = (old or {}).get("spec") or {}
        errors = settle_families(spec, before, self._families)
        made: list[Companion] = []
        if not errors and services.is_headless(service):
            spec["clusterIPs"] = [services.NONE]
        elif not errors:
            held = [] if old is None or services.is_external_name(old) else addresses(before)
            errors, made = self._ips.assign(service, spec, held, head, moment, dry_run)
        if errors:
            raise Invalid.of("", "Service", metadata["name"], errors)
        gone = [] if old is None else releases(old, moment, kept=addresses(spec))
        return (service if spec == service["spec"] else {**service, "spec": spec}), [*made, *gone]

    def ports(self, service: Json, old: Json | None, head: Head) -> Json:
        """The Service with every node port that it needs; a new object when something was added. Raises Invalid."""
        if not self._loaded:
            self._load(head)
        metadata, spec = service["metadata"], dict(service["spec"])
        own = Key(SERVICES, metadata["namespace"], metadata["name"])
        errors = self._assign_ports(service, spec, (old or {}).get("spec") or {}, own, head)
        if errors:
            raise Invalid.of("", "Service", metadata["name"], errors)
        return service if spec == service["spec"] else {**service, "spec": spec}

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
