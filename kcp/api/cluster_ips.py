"""Cluster IPs: which addresses a Service gets, and the IPAddress objects that say so.

An address is taken when an IPAddress bears its name, whoever made it; one is made with each cluster IP and goes with it,
in the transaction of the Service. So the choice is made outside the writer, on what is published, and the IPAddress's
own change, inside it, finds out whether somebody was quicker: then the whole write is planned anew.

    ServiceCIDR kubernetes   10.96.0.0/16        the start-up range, made and remade by the server
    ServiceCIDR more         10.200.0.0/24       gives addresses too, unless it is being deleted or is not ready
    IPAddress 10.96.14.3     parentRef: services default/web

Source: k8s v1.36 pkg/registry/core/service/ipallocator/{ipallocator,cidrallocator}.go, ../storage/alloc.go.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import lru_cache

import attrs

from kcp.api.admission.plugin import Companion
from kcp.api.transaction import Replan
from kcp.apis.kind import Json
from kcp.apis.semantics import services
from kcp.base.entropy import Entropy
from kcp.base.values import frozen
from kcp.machinery import meta
from kcp.machinery.document import normal
from kcp.machinery.errors import FieldError, InternalError, Invalid, invalid
from kcp.machinery.gvk import GroupVersionKind
from kcp.machinery.names import parse_ip
from kcp.machinery.patch.apply import update_managed_fields
from kcp.machinery.schema.compile import schema_for
from kcp.machinery.times import format_time
from kcp.store.protocol import Change, Event, Head, Keep, Key, Put, Record, Remove

ADDRESSES, RANGES = "ipaddresses.networking.k8s.io", "servicecidrs.networking.k8s.io"
FAMILY_LABEL, MANAGED_BY_LABEL = "ipaddress.kubernetes.io/ip-family", "ipaddress.kubernetes.io/managed-by"
MANAGER = "ipallocator.k8s.io"
DEFAULT_RANGE = "kubernetes"
_GVK = GroupVersionKind("networking.k8s.io", "v1", "IPAddress")
_FIELD_MANAGER = "kube-apiserver"
_ALLOCATED, _FULL = "provided IP is already allocated", "range is full"
_MISMATCH = "the provided network does not match the current range"
_PROMISED = 4096
"""So many addresses at most are remembered as just chosen."""
SHORTEST_IPV6_PREFIX = 64


def band(size: int, divisor: int, low: int, high: int) -> int:
    """How many values at the start are kept for those who ask by name. Source: calculateRangeOffset."""
    if size <= low:
        return 0
    return min(max(low, size // divisor), high)


@frozen
class Range:
    """The values low..high with the static band, of the first `offset`, at the start."""

    low: int
    high: int
    offset: int

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int) and self.low <= value <= self.high

    def candidates(self, entropy: Entropy) -> Iterator[int]:
        """Every value once: from a random place in the upper band on, then from one in the static band."""
        upper = self.low + self.offset
        yield from _around(upper, self.high, entropy)
        yield from _around(self.low, min(upper, self.high + 1) - 1, entropy)


def _around(low: int, high: int, entropy: Entropy) -> Iterator[int]:
    size = high - low + 1
    if size > 0:
        start = entropy.below(size)
        for step in range(size):
            yield low + (start + step) % size


@lru_cache(maxsize=256)
def address_range(cidr: str) -> Range:
    """Without the network's own address and, for IPv4, the broadcast address."""
    network = ipaddress.ip_network(cidr, strict=False)
    low, high = int(network.network_address) + 1, int(network.broadcast_address)
    if network.version == 4:
        high -= 1
    return Range(low, high, band(high - low + 1, 16, 16, 256))


@lru_cache(maxsize=256)
def _family(cidr: str) -> str:
    """Empty for one that gives no addresses: Kubernetes makes no allocator of more than 64 bits."""
    network = ipaddress.ip_network(cidr, strict=False)
    if network.version == 6 and network.prefixlen < SHORTEST_IPV6_PREFIX:
        return ""
    return f"IPv{network.version}"


def is_ready(cidr: Json) -> bool:
    """Nothing said counts as ready: nobody may be there to say it."""
    return (
        not meta.is_deleting(cidr) and (meta.condition(cidr, "Ready") or {}).get("status", "True") == "True"
    )


def ready_ranges(head: Head, family: str) -> list[str]:
    """The ranges that give addresses of a family now, the default ones first."""
    found = sorted(head.list(RANGES), key=lambda record: record.key.name != DEFAULT_RANGE)
    cidrs = (cidr for each in found if is_ready(each.value) for cidr in each.value["spec"].get("cidrs") or ())
    return [cidr for cidr in dict.fromkeys(cidrs) if _family(cidr) == family]


def in_some_range(ip: str, head: Head) -> bool:
    """Whether any ServiceCIDR has the address to give, ready or not."""
    address = ipaddress.ip_address(ip)
    cidrs = (cidr for each in head.list(RANGES) for cidr in each.value["spec"].get("cidrs") or ())
    return any(
        _family(cidr) == f"IPv{address.version}" and int(address) in address_range(cidr) for cidr in cidrs
    )


def canonical(ip: str) -> str | None:
    """The address as its IPAddress is named, however a Service of an older release writes it; None when it is none."""
    found = parse_ip(ip)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return None if found is None else str(mapped or found)


def keys_of(ips: Iterable[str]) -> list[Key]:
    """Where these addresses are recorded."""
    return [Key(ADDRESSES, "", name) for ip in ips if (name := canonical(ip)) is not None]


def addresses(spec: Json) -> list[str]:
    found = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    return [ip for ip in found if ip != services.NONE]


def labels_of(ip: str) -> dict[str, str]:
    return {FAMILY_LABEL: f"IPv{ipaddress.ip_address(ip).version}", MANAGED_BY_LABEL: MANAGER}


def ip_address(ip: str, service: Json, uid: str, moment: datetime) -> Json:
    """The IPAddress object that says that the Service has this address."""
    metadata, name = service["metadata"], str(ipaddress.ip_address(ip))
    parent = {"resource": "services", "namespace": metadata["namespace"], "name": metadata["name"]}
    value = {
        "apiVersion": _GVK.api_version,
        "kind": _GVK.kind,
        "metadata": {
            "name": name,
            "uid": uid,
            "creationTimestamp": format_time(moment),
            "labels": labels_of(ip),
        },
        "spec": {"parentRef": parent},
    }
    schema = schema_for(_GVK)
    assert schema is not None
    return update_managed_fields(
        None,
        value,
        schema=schema,
        manager=_FIELD_MANAGER,
        subresource="",
        api_version=_GVK.api_version,
        now=moment,
    )


def belongs_to(address: Json, service: Json) -> bool:
    """Whether the IPAddress says that this Service has it."""
    parent, metadata = (address.get("spec") or {}).get("parentRef") or {}, service["metadata"]
    return (
        not parent.get("group")
        and parent.get("resource") == "services"
        and (parent.get("namespace"), parent.get("name")) == (metadata["namespace"], metadata["name"])
    )


def releases(service: Json, moment: datetime, kept: Sequence[str] = ()) -> list[Companion]:
    """What goes with a Service that goes, or with the addresses that it gives up."""
    if services.is_external_name(service):
        return []
    given_up = [ip for ip in addresses(service.get("spec") or {}) if ip not in kept]
    return [Companion(key, _releasing(service, moment)) for key in keys_of(given_up)]


def _releasing(service: Json, moment: datetime) -> Change:
    """Finalizers hold an IPAddress as they hold anything. One that is another's by now stays."""

    def change(current: Record | None, head: Head) -> Put | Remove | Keep:
        if current is None or not belongs_to(current.value, service):
            return Keep()
        metadata = current.value["metadata"]
        if not metadata.get("finalizers"):
            return Remove()
        if metadata.get("deletionTimestamp"):
            return Keep()
        marked = {"deletionTimestamp": format_time(moment), "deletionGracePeriodSeconds": 0}
        value = {**current.value, "metadata": {**metadata, **marked}}
        return Put(normal(value), value)

    return change


@attrs.define(slots=True)
class ClusterIPs:
    """Hands out addresses of the families that the cluster was started with. Owned by the Allocator."""

    entropy: Entropy
    _promised: dict[str, None] = attrs.field(factory=dict)
    """Addresses just chosen whose Services are not published yet: others look elsewhere first."""

    def follow(self, event: Event) -> None:
        self._promised.pop(event.key.name, None)

    def assign(
        self, service: Json, spec: Json, held: Sequence[str], head: Head, moment: datetime, dry_run: bool
    ) -> tuple[list[FieldError], list[Companion]]:
        """Complete `clusterIP` and `clusterIPs` for the families in `spec`; the IPAddresses that go with it.

        Raises InternalError when nothing is left. `held` are the addresses that the Service has already.
        """
        given = addresses(spec)
        ips: list[str] = []
        made: list[Companion] = []
        for at, family in enumerate(spec["ipFamilies"]):
            asked = at < len(given)
            if asked and given[at] in held:
                ips.append(given[at])
                continue
            if asked:
                fault = self._refuse(given[at], family, head, dry_run)
                if fault:
                    return [_refused(given, given[at], fault)], []
            ips.append(given[at] if asked else self._choose(family, head, dry_run))
            made.append(self._making(ips[-1], service, given if asked else None, moment))
        spec["clusterIP"], spec["clusterIPs"] = ips[0], ips
        return [], made

    def _refuse(self, ip: str, family: str, head: Head, dry_run: bool) -> str | None:
        asked = ipaddress.ip_address(ip)
        if not any(int(asked) in address_range(cidr) for cidr in ready_ranges(head, family)):
            return _MISMATCH
        return None if dry_run or head.get(Key(ADDRESSES, "", str(asked))) is None else _ALLOCATED

    def _choose(self, family: str, head: Head, dry_run: bool) -> str:
        """A free address. A rehearsal gets the network's own one: a free one would be no promise."""
        cidrs = ready_ranges(head, family)
        if dry_run and cidrs:
            return str(ipaddress.ip_network(cidrs[0], strict=False).network_address)
        promised: str | None = None
        for cidr in cidrs:
            for ip in self._free(cidr, family, head):
                if ip not in self._promised:
                    return self._promise(ip)
                promised = promised or ip
        if promised is None:
            raise InternalError(f"failed to allocate a serviceIP: {_FULL}")
        return promised

    def _free(self, cidr: str, family: str, head: Head) -> Iterator[str]:
        make = ipaddress.IPv6Address if family == "IPv6" else ipaddress.IPv4Address
        for value in address_range(cidr).candidates(self.entropy):
            ip = str(make(value))
            if head.get(Key(ADDRESSES, "", ip)) is None:
                yield ip

    def _promise(self, ip: str) -> str:
        if len(self._promised) >= _PROMISED:
            self._promised.clear()
        self._promised[ip] = None
        return ip

    def _making(self, ip: str, service: Json, asked: Sequence[str] | None, moment: datetime) -> Companion:
        value = ip_address(ip, service, self.entropy.uid(), moment)
        put = Put(normal(value), value)

        def change(current: Record | None, head: Head) -> Put:
            if current is None:
                return put
            if asked is None:
                raise Replan  # somebody was quicker: choose again
            raise Invalid.of("", "Service", service["metadata"]["name"], [_refused(asked, ip, _ALLOCATED)])

        return Companion(Key(ADDRESSES, "", value["metadata"]["name"]), change)


def _refused(asked: Sequence[str], ip: str, fault: str) -> FieldError:
    return invalid("spec.clusterIPs", list(asked), f"failed to allocate IP {ip}: {fault}")
