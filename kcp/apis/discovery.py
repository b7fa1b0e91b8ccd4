"""discovery.k8s.io: EndpointSlice.

Source: k8s v1.36 pkg/apis/discovery/validation/validation.go, pkg/apis/discovery/v1/defaults.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from kcp.apis.core import checks
from kcp.apis.core.checks import Errors
from kcp.apis.kind import Json, Printer, Strategy
from kcp.apis.printing import AGE, NAME, age, columns, first_of, name_of
from kcp.machinery import names
from kcp.machinery.errors import FieldError, duplicate, invalid, required, too_many, unsupported
from kcp.machinery.labels import validate_labels

MAX_TOPOLOGY_LABELS = 16
MAX_ADDRESSES = 100
MAX_PORTS = 20_000
MAX_ENDPOINTS = 1000
MAX_HINTS = 8

_ADDRESS_TYPES = ("FQDN", "IPv4", "IPv6")
_PROTOCOLS = ("SCTP", "TCP", "UDP")


def default_endpoint_slice(endpoint_slice: Json) -> None:
    for port in endpoint_slice.get("ports") or ():
        if port.get("name") is None:
            port["name"] = ""
        if port.get("protocol") is None:
            port["protocol"] = "TCP"
    for endpoint in endpoint_slice.get("endpoints") or ():
        if endpoint.get("conditions") is None:
            endpoint["conditions"] = {}


def _check_ip(check: Callable[[str], list[str]], canonical: bool) -> Callable[[Errors, str, str, int], None]:
    def check_address(errors: Errors, address: str, path: str, index: int) -> None:
        where = f"{path}[{index}]"
        if faults := names.is_canonical_ip(address) if canonical else names.is_ip(address, strict=True):
            checks.texts(errors, faults, address, where)
            return
        checks.texts(errors, check(address), address, path)
        checks.non_special_ip(errors, address, where)

    return check_address


def _check_domain(errors: Errors, address: str, path: str, index: int) -> None:
    errors += names.is_fully_qualified_domain_name(address, f"{path}[{index}]")


def _is_of(version: int) -> Callable[[str], list[str]]:
    def check(address: str) -> list[str]:
        ip = names.parse_ip(address)
        fits = ip is not None and ip.version == version
        return [] if fits else [f"must be an IPv{version} address"]

    return check


_ADDRESS_CHECKS: Mapping[str, Callable[[Errors, str, str, int], None]] = {
    "IPv4": _check_ip(_is_of(4), False),
    "IPv6": _check_ip(_is_of(6), True),
    "FQDN": _check_domain,
}


def _check_addresses(errors: Errors, addresses: Sequence[str], kind: str, path: str) -> None:
    if not addresses:
        errors.append(required(path, "must contain at least 1 address"))
    elif len(addresses) > MAX_ADDRESSES:
        errors.append(too_many(path, len(addresses), MAX_ADDRESSES))
    check = _ADDRESS_CHECKS.get(kind)
    if check is not None:
        for index, address in enumerate(addresses):
            check(errors, address, path, index)


def _check_hints(
    errors: Errors, hints: Json, field: str, check: Callable[[str], list[str]], path: str
) -> bool:
    """Whether there are few enough of them to look further."""
    entries = hints.get(field) or []
    if len(entries) > MAX_HINTS:
        errors.append(too_many(f"{path}.{field}", len(entries), MAX_HINTS))
        return False
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        where, name = f"{path}.{field}[{index}].name", entry.get("name") or ""
        if name in seen:
            errors.append(duplicate(where, name))
        seen.add(name)
        checks.texts(errors, check(name), name, where)
    return True


def _check_endpoint(errors: Errors, endpoint: Json, kind: str, path: str) -> None:
    _check_addresses(errors, endpoint.get("addresses") or [], kind, f"{path}.addresses")
    node, topology, host = (endpoint.get(key) for key in ("nodeName", "deprecatedTopology", "hostname"))
    if node is not None:
        checks.texts(errors, names.is_dns1123_subdomain(node), node, f"{path}.nodeName")
    if topology:
        where = f"{path}.deprecatedTopology"
        if len(topology) > MAX_TOPOLOGY_LABELS:
            errors.append(too_many(where, len(topology), MAX_TOPOLOGY_LABELS))
        errors += validate_labels(topology, where)
    if host is not None:
        checks.dns_label(errors, host, f"{path}.hostname")
    hints = endpoint.get("hints")
    if hints is not None and _check_hints(errors, hints, "forZones", names.is_label_value, f"{path}.hints"):
        _check_hints(errors, hints, "forNodes", names.is_dns1123_subdomain, f"{path}.hints")


def _check_ports(errors: Errors, ports: Sequence[Json]) -> None:
    if len(ports) > MAX_PORTS:
        errors.append(too_many("ports", len(ports), MAX_PORTS))
        return
    seen: set[str] = set()
    for index, port in enumerate(ports):
        path, name, protocol = f"ports[{index}]", port.get("name") or "", port.get("protocol")
        if name:
            checks.dns_label(errors, name, f"{path}.name")
        if name in seen:
            errors.append(duplicate(f"{path}.name", name))
        seen.add(name)
        if protocol is None:
            errors.append(required(f"{path}.protocol"))
        elif protocol not in _PROTOCOLS:
            errors.append(unsupported(f"{path}.protocol", protocol, _PROTOCOLS))
        if port.get("appProtocol") is not None:
            checks.qualified_name(errors, port["appProtocol"], f"{path}.appProtocol")


def _check_endpoints(errors: Errors, endpoints: Sequence[Json], kind: str) -> None:
    if len(endpoints) > MAX_ENDPOINTS:
        errors.append(too_many("endpoints", len(endpoints), MAX_ENDPOINTS))
        return
    for index, endpoint in enumerate(endpoints):
        _check_endpoint(errors, endpoint, kind, f"endpoints[{index}]")


def _check_slice(errors: Errors, endpoint_slice: Json, old: Json | None) -> None:
    """Endpoints that stay as they are pass, whatever an older release let in."""
    kind, endpoints = endpoint_slice.get("addressType") or "", endpoint_slice.get("endpoints") or []
    checks.one_of(errors, kind, _ADDRESS_TYPES, "addressType")
    _check_ports(errors, endpoint_slice.get("ports") or [])
    faults: Errors = []
    _check_endpoints(faults, endpoints, kind)
    if faults and not (old is not None and checks.semantic_equal(old.get("endpoints"), endpoints)):
        errors += faults


def validate_endpoint_slice(endpoint_slice: Json) -> list[FieldError]:
    errors: Errors = []
    _check_slice(errors, endpoint_slice, None)
    return errors


def validate_endpoint_slice_update(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    _check_slice(errors, new, old)
    if new.get("addressType") != old.get("addressType"):
        errors.append(invalid("addressType", new.get("addressType"), checks.IMMUTABLE))
    return errors


def _port_text(port: Json) -> str:
    if port.get("port") is not None:
        return str(port["port"])
    return "*" if port.get("name") is None else str(port["name"])


def _endpoint_slice_cells(endpoint_slice: Json, now: datetime) -> list[Any]:
    addresses = [
        address
        for endpoint in endpoint_slice.get("endpoints") or ()
        for address in endpoint.get("addresses") or ()
    ]
    return [
        name_of(endpoint_slice),
        endpoint_slice.get("addressType", ""),
        first_of([_port_text(port) for port in endpoint_slice.get("ports") or ()]),
        first_of(addresses),
        age(endpoint_slice, now),
    ]


STRATEGIES: Mapping[str, Strategy] = {
    "EndpointSlice": Strategy(
        default=default_endpoint_slice,
        validate_create=validate_endpoint_slice,
        validate_update=validate_endpoint_slice_update,
        has_status=False,
    ),
}
PRINTERS: Mapping[str, Printer] = {
    "EndpointSlice": Printer(columns(NAME, "AddressType", "Ports", "Endpoints", AGE), _endpoint_slice_cells),
}
