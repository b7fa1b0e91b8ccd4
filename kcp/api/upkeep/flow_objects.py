"""The flow control objects that every server has: mandatory ones as they must be, suggested ones until somebody says no.

    mandatory                                  whatever is changed is put right within a minute
    suggested, autoupdate-spec "true"          the same
    suggested, "false"                         left alone
    no annotation                              as the object's generation tells: 1 is as we made it
    ours no more, "true"                       deleted

One that is missing is made again. Source: k8s v1.36 pkg/registry/flowcontrol/{ensurer/strategy.go,rest/storage_flowcontrol.go},
apiserver/pkg/apis/flowcontrol/bootstrap/default.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

from kcp.api.context import Server
from kcp.api.documents import private_copy
from kcp.api.own_writes import ensure, remove, write_of
from kcp.api.upkeep.flow_control import LEVELS, PRODUCER, SCHEMAS
from kcp.apis.flowcontrol import EXEMPT, MANDATORY_FLOW_SCHEMAS, MANDATORY_PRIORITY_LEVELS
from kcp.apis.kind import Json
from kcp.machinery import meta
from kcp.store.protocol import Key

FLOW_API = "flowcontrol.apiserver.k8s.io/v1"
AUTO_UPDATE = "apf.kubernetes.io/autoupdate-spec"
PERIOD_S = 60.0
"""How long a change may stand before it is put right."""
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")
_RESOURCES = {"FlowSchema": SCHEMAS, "PriorityLevelConfiguration": LEVELS}
_MANDATORY = frozenset(
    {Key(SCHEMAS, "", name) for name in MANDATORY_FLOW_SCHEMAS}
    | {Key(LEVELS, "", name) for name in MANDATORY_PRIORITY_LEVELS}
)


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


@cache
def _objects() -> Mapping[Key, Json]:
    objects = [*_priority_levels(), *_flow_schemas()]
    return {Key(_RESOURCES[obj["kind"]], "", obj["metadata"]["name"]): obj for obj in objects}


def is_ours(key: Key) -> bool:
    return key in _objects()


def _auto_update(obj: Json) -> bool | None:
    """What the annotation says; None when it says nothing that can be understood."""
    said = meta.annotations(obj).get(AUTO_UPDATE, "")
    return said in _TRUE if said in (*_TRUE, *_FALSE) else None


def maintained(key: Key, wanted: Json, found: Json) -> Json | None:
    """What one of ours should become; None when it may stay as it is. `wanted` has its defaults."""
    said = _auto_update(found)
    update = key in _MANDATORY or (said if said is not None else meta.generation(found) == 1)
    spec = wanted["spec"] if update else found["spec"]
    if key == Key(LEVELS, "", EXEMPT) and found["spec"].get("exempt") is not None:
        spec = {**spec, "exempt": found["spec"]["exempt"]}
    if spec == found["spec"] and said is update:
        return None
    annotations = {**meta.annotations(found), AUTO_UPDATE: "true" if update else "false"}
    return {**found, "metadata": {**found["metadata"], "annotations": annotations}, "spec": spec}


async def maintain(server: Server) -> None:
    """Put everything right."""
    for key, obj in _objects().items():
        wanted = private_copy(obj)
        write_of(server, wanted).kind.strategy.default(wanted)
        await ensure(server, wanted, partial(maintained, key), manager=PRODUCER)
    for resource in (SCHEMAS, LEVELS):
        for record in server.store.list(resource):
            if not is_ours(record.key) and _auto_update(record.value):
                await remove(server, record.value)
