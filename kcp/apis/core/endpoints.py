"""Endpoints.

Source: k8s v1.36 pkg/apis/core/validation/validation.go (validateEndpointSubsets), pkg/api/v1/endpoints/util.go,
printers.go (formatEndpoints).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any

from kcp.apis.core import checks
from kcp.apis.core.checks import Errors, Json
from kcp.apis.kind import Column, Printer, Strategy
from kcp.apis.printing import AGE, NAME, age, name_of
from kcp.machinery.errors import FieldError, required

_PROTOCOLS = ("SCTP", "TCP", "UDP")


def default_endpoints(endpoints: Json) -> None:
    for subset in endpoints.get("subsets") or ():
        for port in subset.get("ports") or ():
            if not port.get("protocol"):
                port["protocol"] = "TCP"


def _address(errors: Errors, address: Json, path: str, stored: Collection[str]) -> None:
    ip = address.get("ip") or ""
    checks.ip(errors, ip, f"{path}.ip", stored)
    if address.get("hostname"):
        checks.dns_label(errors, address["hostname"], f"{path}.hostname")
    if (node := address.get("nodeName")) is not None:
        checks.dns_subdomain(errors, node, f"{path}.nodeName")
    checks.non_special_ip(errors, ip, f"{path}.ip")


def _port(errors: Errors, port: Json, need_name: bool, path: str) -> None:
    name = port.get("name") or ""
    if name:
        checks.dns_label(errors, name, f"{path}.name")
    elif need_name:
        errors.append(required(f"{path}.name"))
    checks.port_number(errors, port.get("port"), f"{path}.port")
    if port.get("protocol") not in _PROTOCOLS:
        checks.one_of(errors, port.get("protocol"), _PROTOCOLS, f"{path}.protocol")
    if (protocol := port.get("appProtocol")) is not None:
        checks.qualified_name(errors, protocol, f"{path}.appProtocol")


_GROUPS = ("addresses", "notReadyAddresses")


def _addresses(endpoints: Json) -> list[str]:
    return [
        address.get("ip") or ""
        for subset in endpoints.get("subsets") or ()
        for field in _GROUPS
        for address in subset.get(field) or ()
    ]


def _validate_update(new: Json, old: Json) -> list[FieldError]:
    """Subsets that stay as they are pass, whatever an older release let in."""
    if checks.semantic_equal(new.get("subsets"), old.get("subsets")):
        return []
    return _validate(new, _addresses(old))


def _validate(endpoints: Json, stored: Collection[str] = ()) -> list[FieldError]:
    errors: Errors = []
    for i, subset in enumerate(endpoints.get("subsets") or ()):
        path, ports = f"subsets[{i}]", subset.get("ports") or []
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            errors.append(required(path, "must specify `addresses` or `notReadyAddresses`"))
        for field in _GROUPS:
            for j, address in enumerate(subset.get(field) or ()):
                _address(errors, address, f"{path}.{field}[{j}]", stored)
        for j, port in enumerate(ports):
            _port(errors, port, len(ports) > 1, f"{path}.ports[{j}]")
    return errors


def _host_port(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _shown(endpoints: Json) -> Iterator[str]:
    """Ready addresses, each with each port."""
    for subset in endpoints.get("subsets") or ():
        addresses, ports = subset.get("addresses") or (), subset.get("ports") or ()
        if not ports:
            yield from (address.get("ip") or "" for address in addresses)
        for port in ports:
            for address in addresses:
                yield _host_port(address.get("ip") or "", port.get("port") or 0)


def format_endpoints(endpoints: Json, limit: int = 3) -> str:
    """`10.0.0.1:80,10.0.0.2:80 + 3 more...`"""
    found = list(_shown(endpoints))
    if not found:
        return "<none>"
    text = ",".join(found[:limit])
    return f"{text} + {len(found) - limit} more..." if len(found) > limit else text


def _cells(endpoints: Json, now: datetime) -> list[Any]:
    return [name_of(endpoints), format_endpoints(endpoints), age(endpoints, now)]


STRATEGIES: dict[str, Strategy] = {
    "Endpoints": Strategy(
        default=default_endpoints,
        validate_create=_validate,
        validate_update=_validate_update,
        has_status=False,
        has_generation=False,
        allow_create_on_update=True,
    )
}
_COLUMN = Column(
    "Endpoints",
    "string",
    "",
    "The set of all endpoints is the union of all subsets. Addresses are placed into subsets according to the IPs "
    "they share. A single address with multiple ports, some of which are ready and some of which are not (because "
    "they come from different containers) will result in the address being displayed in different subsets for the "
    "different ports. No address will appear in both Addresses and NotReadyAddresses in the same subset. Sets of "
    "addresses and ports that comprise a service.",
)
PRINTERS: dict[str, Printer] = {"Endpoints": Printer((NAME, _COLUMN, AGE), _cells)}
