"""What a fresh cluster holds before anybody has asked for anything.

Namespaces, roles and bindings, priority classes, flow control, the service range and the Service `kubernetes` with its
endpoints. Everything goes through the registry like any other write; what is already there is left alone, but for
default roles (only added to) and the endpoints (which follow the server's address). Where several servers share the
store none of them writes the endpoints here: `endpoints_of` says what they should be.
Source: k8s v1.36 pkg/controlplane/{instance,controller/*}, pkg/registry/{rbac,scheduling,flowcontrol}/rest.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from kcp.api.auth.bootstrap_roles import bootstrap_objects
from kcp.api.auth.protocol import PEER
from kcp.api.context import Server
from kcp.api.own_writes import ensure as ensure_object
from kcp.api.upkeep import api_services, flow_objects
from kcp.api.upkeep.all import Upkeep
from kcp.api.upkeep.service_ranges import default_range, second_range
from kcp.apis.kind import Json, Kind
from kcp.apis.scheduling import SYSTEM_PRIORITY_CLASSES
from kcp.store.protocol import KindRow

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


def kind_rows(kinds: Sequence[Kind]) -> list[KindRow]:
    """What the store must know of each resource before its first write."""
    rows: dict[str, KindRow] = {}
    for kind in kinds:
        if kind.stored and kind.to_storage is None:
            rows[kind.resource] = KindRow(
                kind.resource, kind.group, kind.version, kind.kind, kind.plural, kind.namespaced
            )
    return list(rows.values())


async def ensure(server: Server, *, shared: bool = False) -> None:
    """Make what is missing. Idempotent; costs little when everything is there.

    `shared`: other servers use this store too.
    """
    server.store.register(kind_rows(server.catalog.kinds()))
    for name in NAMESPACES:
        await ensure_object(server, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    for obj in [*bootstrap_objects(), *(_peer_roles() if shared else ())]:
        await ensure_object(server, obj, _add_rules)
    for obj in _priority_classes():
        await ensure_object(server, obj)
    await flow_objects.maintain(server)
    await api_services.register(server)
    await _ensure_network(server)
    upkeep = Upkeep.of(server)
    upkeep.find_all()
    await upkeep.round()
    if not shared:
        own = (server.settings.external_address, server.settings.external_port)
        for obj in endpoints_of([own]):
            await ensure_object(server, obj, following_addresses)


def _add_rules(wanted: Json, found: Json) -> Json | None:
    """A default role keeps what an administrator added and regains what was taken, unless told not to.

    Source: pkg/registry/rbac/reconciliation.
    """
    annotations = found["metadata"].get("annotations") or {}
    if annotations.get("rbac.authorization.kubernetes.io/autoupdate") == "false":
        return None
    for field in ("rules", "subjects"):
        missing = [entry for entry in wanted.get(field) or () if entry not in (found.get(field) or ())]
        if missing and "aggregationRule" not in wanted:
            return {**found, field: [*(found.get(field) or ()), *missing]}
    return None


def _priority_classes() -> list[Json]:
    return [
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": own.name},
            "value": own.value,
            "description": own.description,
        }
        for own in SYSTEM_PRIORITY_CLASSES
    ]


async def _ensure_network(server: Server) -> None:
    await ensure_object(server, default_range(server.allocator.cidrs), second_range)
    await ensure_object(server, _kubernetes_service(server))


def _kubernetes_service(server: Server) -> Json:
    port = {"name": "https", "protocol": "TCP", "port": 443, "targetPort": server.settings.external_port}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "clusterIP": server.allocator.kubernetes_ip(),
            "ports": [port],
            "sessionAffinity": "None",
            "type": "ClusterIP",
        },
    }


def _peer_roles() -> list[Json]:
    """What `PEER` may: nothing but what the server that passes a request on has allowed its user already."""
    group, name = "rbac.authorization.k8s.io", "kcp:peer"
    rules = [{"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}]
    head: Json = {
        "apiVersion": f"{group}/v1",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        },
    }
    binding = {
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": group, "kind": "User", "name": PEER.name}],
    }
    return [
        {**head, "kind": "ClusterRole", "rules": rules},
        {**head, "kind": "ClusterRoleBinding", **binding},
    ]


def endpoints_of(servers: Iterable[tuple[str, int]]) -> list[Json]:
    """Endpoints and EndpointSlices of the Service `kubernetes` for servers at these addresses and ports.

    Servers with the same port share a subset and a slice. The slice of the lowest port is called `kubernetes`, as
    the only one is that Kubernetes has. Empty when nobody can be reached but by loopback.
    """
    groups: dict[tuple[int, int], list[str]] = {}
    for address, port in sorted(set(servers), key=lambda at: (at[1], at[0])):
        ip = _routable(address)
        if ip is not None:
            groups.setdefault((ip.version, port), []).append(address)
    if not groups:
        return []
    rows = sorted(groups.items())
    metadata = {
        "name": "kubernetes",
        "namespace": "default",
        "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
    }
    subsets = [
        {"addresses": [{"ip": ip} for ip in addresses], "ports": _ports(port)}
        for (_, port), addresses in rows
    ]
    endpoints = {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets}
    slices = [
        _slice("kubernetes" if number == 0 else f"kubernetes-v{version}-{port}", version, port, addresses)
        for number, ((version, port), addresses) in enumerate(rows)
    ]
    return [endpoints, *slices]


def _routable(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Kubernetes takes no loopback address for an endpoint."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return None
    return None if ip.is_loopback else ip


def _ports(port: int) -> list[Json]:
    return [{"name": "https", "port": port, "protocol": "TCP"}]


def _slice(name: str, version: int, port: int, addresses: Sequence[str]) -> Json:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": f"IPv{version}",
        "endpoints": [{"addresses": [each], "conditions": {"ready": True}} for each in addresses],
        "ports": _ports(port),
    }


def following_addresses(wanted: Json, found: Json) -> Json | None:
    """What the endpoints should become; None when they are right.

    None too for a slice of the other IP family: it cannot change, only be made anew.
    """
    fields = ("subsets", "endpoints", "ports")
    if wanted.get("addressType") != found.get("addressType"):
        return None
    if all(wanted.get(field) == found.get(field) for field in fields):
        return None
    return {**found, **{field: wanted[field] for field in fields if field in wanted}}
