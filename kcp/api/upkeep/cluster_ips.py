"""One IPAddress for each cluster IP, and none without its Service: what is not so is repaired.

    Service a, 10.96.0.9    no IPAddress 10.96.0.9            made
    Service a, 10.96.0.9    IPAddress of a Gateway, or of a   made anew; an Event tells
                            Service that is gone
    Service a, 10.96.0.9    IPAddress of Service b, which     an Event: somebody must choose
                            has it too
    IPAddress of a Service that is gone or has another        deleted, a minute after it was made

Source: k8s v1.36 pkg/registry/core/service/ipallocator/controller/repairip.go.
"""

from __future__ import annotations

import ipaddress

from kcp.api.cluster_ips import (
    ADDRESSES,
    MANAGED_BY_LABEL,
    MANAGER,
    addresses,
    belongs_to,
    canonical,
    in_some_range,
    ip_address,
    labels_of,
)
from kcp.api.context import Server
from kcp.api.own_writes import remove, write_of
from kcp.api.registry import create
from kcp.api.upkeep.own_events import tell
from kcp.apis.kind import Json
from kcp.apis.semantics import services
from kcp.machinery import meta
from kcp.machinery.errors import AlreadyExists
from kcp.machinery.times import parse_time
from kcp.store.protocol import Key

COMPONENT = "ipallocator-repair-controller"
GRACE_S = 60.0
"""So long a Service may take to come after its address. Source: the default request timeout."""


async def look_after_service(server: Server, key: Key) -> None:
    record = server.store.get(key)
    if record is None or services.is_external_name(record.value):
        return
    service = record.value
    for given in addresses(service.get("spec") or {}):
        ip = canonical(given)
        if ip is None:
            text = "Cluster IP <nil> is not a valid IP; please recreate Service"
            await tell(server, COMPONENT, service, "ClusterIPNotValid", text, "ClusterIPValidation")
        else:
            await _check(server, service, ip)


async def _check(server: Server, service: Json, ip: str) -> None:
    family = f"IPv{ipaddress.ip_address(ip).version}"
    where = f"{service['metadata']['namespace']}/{service['metadata']['name']}"
    if not in_some_range(ip, server.store):
        text = (
            f"Cluster IP [{family}]: {ip} is not within any configured Service CIDR; please recreate service"
        )
        await _tell(server, service, "ClusterIPOutOfRange", text)
        return
    record = server.store.get(Key(ADDRESSES, "", ip))
    if record is None:
        text = f"Cluster IP [{family}]: {ip} is not allocated; repairing"
        await _tell(server, service, "ClusterIPNotAllocated", text)
        await _make(server, service, ip)
        return
    address = record.value
    if not belongs_to(address, service):
        holder = _holder(server, address)
        if holder is None:
            text = f"the ClusterIP [{family}]: {ip} for Service {where} has a wrong reference; repairing"
            await _tell(server, service, "ClusterIPNotAllocated", text)
            await _make_anew(server, service, address)
            return
        if _has(holder, record.key.name):
            text = f"Cluster IP [{family}]:{ip} was assigned to multiple services; please recreate service"
            await _tell(server, service, "ClusterIPAlreadyAllocated", text)
    wanted = labels_of(ip)
    if any(meta.labels(address).get(label) != value for label, value in wanted.items()):
        await _make_anew(server, service, address)


def _has(service: Json, name: str) -> bool:
    """Whether the Service has the address, however it is written there."""
    return any(canonical(ip) == name for ip in addresses(service.get("spec") or {}))


def _holder(server: Server, address: Json) -> Json | None:
    """The Service that an IPAddress names; None when it names none, or one that is gone."""
    parent = (address.get("spec") or {}).get("parentRef") or {}
    if parent.get("group") or parent.get("resource") != "services":
        return None
    record = server.store.get(Key("services", parent.get("namespace") or "", parent.get("name") or ""))
    return None if record is None else record.value


async def _make(server: Server, service: Json, ip: str) -> None:
    obj = ip_address(ip, service, "", server.clock.now())
    obj["metadata"] = {"name": obj["metadata"]["name"], "labels": labels_of(ip)}
    try:
        await create(write_of(server, obj), obj)
    except AlreadyExists:
        return  # its change brings us back here


async def _make_anew(server: Server, service: Json, address: Json) -> None:
    await remove(server, address)
    await _make(server, service, address["metadata"]["name"])


async def _tell(server: Server, service: Json, reason: str, text: str) -> None:
    await tell(server, COMPONENT, service, reason, text, "ClusterIPAllocation")


async def look_after_address(server: Server, key: Key) -> float | None:
    """Delete what has leaked. The seconds after which to look again, if that may be soon."""
    record = server.store.get(key)
    if record is None or meta.labels(record.value).get(MANAGED_BY_LABEL) != MANAGER:
        return None
    address, name = record.value, record.key.name
    parent = (address.get("spec") or {}).get("parentRef") or {}
    where = f"{parent.get('namespace', '')}/{parent.get('name', '')}"
    if parent.get("group") or parent.get("resource") != "services":
        shown = " ".join(str(parent.get(field, "")) for field in ("group", "resource", "namespace", "name"))
        text = f"IPAddress {name} appears to have been modified, not referencing a Service &{{{shown}}}: cleaning up"
        await _clean(server, address, "IPAddressNotAllocated", text)
        return None
    holder = _holder(server, address)
    if holder is None:
        left_s = GRACE_S - _age_s(server, address)
        if left_s > 0:
            return left_s
        text = f"IPAddress: {name} for Service {where} appears to have leaked: cleaning up"
        await _clean(server, address, "IPAddressNotAllocated", text)
    elif not _has(holder, name):
        text = f"IPAddress: {name} for Service {where} has a wrong reference; cleaning up"
        await _clean(server, address, "IPAddressWrongReference", text)
    return None


def _age_s(server: Server, address: Json) -> float:
    born = parse_time(address["metadata"]["creationTimestamp"])
    return (server.clock.now() - born).total_seconds()


async def _clean(server: Server, address: Json, reason: str, text: str) -> None:
    if meta.is_deleting(address):
        return
    await tell(server, COMPONENT, address, reason, text, "IPAddressAllocation")
    await remove(server, address)
