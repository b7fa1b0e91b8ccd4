"""What a fresh cluster holds before anybody has asked for anything.

Namespaces, roles and bindings, priority classes, flow control, the service range and the Service `kubernetes` with its
endpoints. Everything goes through the registry like any other write; what is already there is left alone, but for
default roles (only added to) and the endpoints (which follow the server's address). Where several servers share the
store none of them writes the endpoints here: `endpoints_of` says what they should be.
Source: k8s v1.36 pkg/controlplane/{instance,controller/*}, pkg/registry/{rbac,scheduling,flowcontrol}/rest.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kcp.api.auth.bootstrap_roles import bootstrap_objects
from kcp.api.auth.protocol import MASTERS, PEER, UserInfo
from kcp.api.context import Call, RequestInfo, Server
from kcp.api.documents import private_copy
from kcp.api.options import WriteOptions
from kcp.api.registry import begin, create, update
from kcp.api.transaction import Write
from kcp.apis.flowcontrol import MANDATORY_FLOW_SCHEMAS, MANDATORY_PRIORITY_LEVELS
from kcp.apis.kind import Json, Kind
from kcp.apis.scheduling import SYSTEM_PRIORITY_CLASSES
from kcp.machinery.errors import AlreadyExists
from kcp.machinery.gvk import GroupVersion
from kcp.store.protocol import Actor, Cause, Key, KindRow
from kcp.wire.http import Request

IDENTITY = UserInfo("system:apiserver", "", (MASTERS, "system:authenticated"))
MANAGER = "kube-apiserver"
NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
FLOW_API = "flowcontrol.apiserver.k8s.io/v1"
AUTO_UPDATE = "apf.kubernetes.io/autoupdate-spec"


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
        await _ensure(server, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    for obj in [*bootstrap_objects(), *(_peer_roles() if shared else ())]:
        await _ensure(server, obj, _add_rules)
    for obj in [*_priority_classes(), *_priority_levels(), *_flow_schemas()]:
        await _ensure(server, obj)
    await _ensure_network(server)
    if not shared:
        own = (server.settings.external_address, server.settings.external_port)
        for obj in endpoints_of([own]):
            await _ensure(server, obj, following_addresses)


def _write(server: Server, obj: Json) -> Write:
    version = GroupVersion.parse(obj["apiVersion"])
    kind = server.catalog.by_kind(version.group, version.version, obj["kind"])
    assert kind is not None, f"{obj['kind']} is in the catalog"
    namespace = obj["metadata"].get("namespace", "")
    info = RequestInfo(
        True, "", "create", kind.group, kind.version, namespace, kind.plural, "", obj["metadata"]["name"]
    )
    cause = Cause(Actor(IDENTITY.name, IDENTITY.groups, MANAGER, MANAGER))
    call = Call(Request("POST", ""), info, IDENTITY, kind, cause=cause)
    return begin(server, call, kind, WriteOptions(MANAGER))


async def _ensure(
    server: Server, obj: Json, merge: Callable[[Json, Json], Json | None] | None = None
) -> None:
    """Create the object; when it is there, `merge` (wanted, found) says what it should become, None: as it is."""
    write, name = _write(server, obj), obj["metadata"]["name"]
    found = server.store.get(Key(write.kind.resource, write.namespace, name))
    if found is None:
        try:
            await create(write, private_copy(obj))
        except AlreadyExists:
            return
        return
    if merge is not None and merge(obj, found.value) is not None:
        await update(write, name, lambda old: private_copy(merge(obj, old) or old))


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


def _flow_object(kind: str, name: str, spec: Any) -> Json:
    metadata = {"name": name, "annotations": {AUTO_UPDATE: "true"}}
    return {"apiVersion": FLOW_API, "kind": kind, "metadata": metadata, "spec": private_copy(spec)}


def _limited(shares: int, lendable: int, queues: tuple[int, int, int]) -> Json:
    count, hand, length = queues
    queuing = {"queues": count, "handSize": hand, "queueLengthLimit": length}
    response = {"type": "Queue", "queuing": queuing}
    limited = {"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response}
    return {"type": "Limited", "limited": limited}


SUGGESTED_PRIORITY_LEVELS: tuple[tuple[str, Json], ...] = (
    ("system", _limited(30, 33, (64, 6, 50))),
    ("node-high", _limited(40, 25, (64, 6, 50))),
    ("leader-election", _limited(10, 0, (16, 4, 50))),
    ("workload-high", _limited(40, 50, (128, 6, 50))),
    ("workload-low", _limited(100, 90, (128, 6, 50))),
    ("global-default", _limited(20, 50, (128, 6, 50))),
)


def _users(*names: str) -> list[Json]:
    return [{"kind": "User", "user": {"name": name}} for name in names]


def _groups(*names: str) -> list[Json]:
    return [{"kind": "Group", "group": {"name": name}} for name in names]


def _accounts(namespace: str, *names: str) -> list[Json]:
    return [
        {"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": name}} for name in names
    ]


def _resources(
    verbs: Sequence[str],
    groups: Sequence[str],
    resources: Sequence[str],
    namespaces: Sequence[str] = ("*",),
    cluster: bool = False,
) -> Json:
    rule: Json = {"verbs": [*verbs], "apiGroups": [*groups], "resources": [*resources]}
    if namespaces:
        rule["namespaces"] = [*namespaces]
    if cluster:
        rule["clusterScope"] = True
    return rule


_EVERYTHING = _resources("*", "*", "*", "*", True)
_ALL_PATHS = {"verbs": ["*"], "nonResourceURLs": ["*"]}
_LEASES = (["get", "create", "update"], ["coordination.k8s.io"], ["leases"])
_CONTROLLERS = ("system:kube-controller-manager", "system:kube-scheduler")

_FlowRow = tuple[str, int, str, str, list[tuple[list[Json], list[Json], list[Json]]]]

SUGGESTED_FLOW_SCHEMAS: tuple[_FlowRow, ...] = (
    ("system-nodes", 500, "system", "ByUser", [(_groups("system:nodes"), [_EVERYTHING], [_ALL_PATHS])]),
    ("system-node-high", 400, "node-high", "ByUser", [(
        _groups("system:nodes"),
        [
            _resources("*", [""], ["nodes", "nodes/status"], (), True),
            _resources("*", ["coordination.k8s.io"], ["leases"]),
        ],
        [],
    )]),
    ("probes", 2, "exempt", "", [(
        _groups("system:unauthenticated", "system:authenticated"), [],
        [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}],
    )]),
    ("system-leader-election", 100, "leader-election", "ByUser", [
        (_users(*_CONTROLLERS), [_resources(*_LEASES)], []),
    ]),
    ("workload-leader-election", 200, "leader-election", "ByUser", [
        (_accounts("kube-system", "*"), [_resources(*_LEASES)], []),
    ]),
    ("endpoint-controller", 150, "workload-high", "ByUser", [(
        [*_users("system:kube-controller-manager"), *_accounts("kube-system", "endpoint-controller", "endpointslicemirroring-controller")],
        [_resources(["get", "create", "update"], [""], ["endpoints"])], [],
    )]),
    ("kube-controller-manager", 800, "workload-high", "ByNamespace", [
        (_users("system:kube-controller-manager"), [_EVERYTHING], [_ALL_PATHS]),
    ]),
    ("kube-scheduler", 800, "workload-high", "ByNamespace", [
        (_users("system:kube-scheduler"), [_EVERYTHING], [_ALL_PATHS]),
    ]),
    ("kube-system-service-accounts", 900, "workload-high", "ByNamespace", [
        (_accounts("kube-system", "*"), [_EVERYTHING], [_ALL_PATHS]),
    ]),
    ("service-accounts", 9000, "workload-low", "ByUser", [
        (_groups("system:serviceaccounts"), [_EVERYTHING], [_ALL_PATHS]),
    ]),
    ("global-default", 9900, "global-default", "ByUser", [
        (_groups("system:unauthenticated", "system:authenticated"), [_EVERYTHING], [_ALL_PATHS]),
    ]),
)  # fmt: skip
"""Name, precedence, level, distinguisher, rules. Source: apiserver/pkg/apis/flowcontrol/bootstrap/default.go."""


def _priority_levels() -> list[Json]:
    rows = [*MANDATORY_PRIORITY_LEVELS.items(), *SUGGESTED_PRIORITY_LEVELS]
    return [_flow_object("PriorityLevelConfiguration", name, spec) for name, spec in rows]


def _flow_schema(row: _FlowRow) -> Json:
    name, precedence, level, distinguisher, rules = row
    spec: Json = {"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence}
    if distinguisher:
        spec["distinguisherMethod"] = {"type": distinguisher}
    spec["rules"] = [
        {
            key: value
            for key, value in (
                ("subjects", subjects),
                ("resourceRules", resources),
                ("nonResourceRules", paths),
            )
            if value
        }
        for subjects, resources, paths in rules
    ]
    return _flow_object("FlowSchema", name, spec)


def _flow_schemas() -> list[Json]:
    mandatory = [_flow_object("FlowSchema", name, spec) for name, spec in MANDATORY_FLOW_SCHEMAS.items()]
    return [*mandatory, *(_flow_schema(row) for row in SUGGESTED_FLOW_SCHEMAS)]


async def _ensure_network(server: Server) -> None:
    cidrs = server.settings.service_cidr.split(",")
    cidr = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": cidrs},
    }
    await _ensure(server, cidr)
    await _ensure(server, _kubernetes_service(server))


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
