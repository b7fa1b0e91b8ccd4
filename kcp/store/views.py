"""SQL views for people: the log as history, the state, one view per common kind.

    history           every change: who, when, what
    state, live       every live object; inside `kcp sql --at` the objects as of that moment
    pods, nodes, …    live objects of one kind with the columns that `kubectl get -o wide` shows
    pod_history, …    every version of one kind with its telling fields

Persistent views show the head, so that any SQL client can use them. A session that looks at the past creates views of
the same names in its temporary schema, where a table `asof(rv)` holds the position (SQLite looks there first).
"""

from __future__ import annotations

import attrs

AT = "strftime('%Y-%m-%dT%H:%M:%fZ', {}/1000000.0, 'unixepoch')"


@attrs.frozen(slots=True)
class Field:
    """A column taken from the document: keys from the root, a number is a list index."""

    name: str
    path: tuple[str | int, ...]

    def sql(self, document: str) -> str:
        steps = "".join(f"[{step}]" if isinstance(step, int) else f'."{step}"' for step in self.path)
        return f"{document}->>'${steps}' AS {quoted(self.name)}"


@attrs.frozen(slots=True)
class Computed:
    """A column by an expression; `{doc}` stands for the document."""

    name: str
    expression: str

    def sql(self, document: str) -> str:
        return f"{self.expression.format(doc=document)} AS {quoted(self.name)}"


ViewColumn = Field | Computed


@attrs.frozen(slots=True)
class KindView:
    name: str
    group: str
    kind: str
    columns: tuple[ViewColumn, ...]
    history: str = ""
    """Name of the view over all versions; empty: none."""
    namespaced: bool = True


def quoted(name: str) -> str:
    return f'"{name}"'


def _f(name: str, path: str) -> Field:
    """`a.b[0].c` as a Field; keys with dots have no place here."""
    steps: list[str | int] = []
    for part in path.split("."):
        key, _, index = part.partition("[")
        steps.append(key)
        if index:
            steps.append(int(index.rstrip("]")))
    return Field(name, tuple(steps))


def _count(name: str, path: str) -> Computed:
    return Computed(name, "coalesce(json_array_length({doc}, '$." + path + "'), 0)")


def _condition(name: str, kind: str) -> Computed:
    """The status of a condition."""
    return Computed(
        name,
        "(SELECT c.value->>'$.status' FROM json_each({doc}, '$.status.conditions') c"
        f" WHERE c.value->>'$.type' = '{kind}')",
    )


def _joined(name: str, path: str, value: str) -> Computed:
    return Computed(
        name, "(SELECT group_concat(" + value + ", ',') FROM json_each({doc}, '$." + path + "') x)"
    )


_RESTARTS = Computed(
    "restarts",
    "(SELECT coalesce(sum(c.value->>'$.restartCount'), 0) FROM json_each({doc}, '$.status.containerStatuses') c)",
)
_READY_CONTAINERS = Computed(
    "ready",
    "(SELECT count(*) FILTER (WHERE c.value->>'$.ready') FROM json_each({doc}, '$.status.containerStatuses') c)"
    " || '/' || json_array_length({doc}, '$.spec.containers')",
)
_OWNER = Computed(
    "owner",
    "(SELECT (o.value->>'$.kind') || '/' || (o.value->>'$.name') FROM json_each({doc}, '$.metadata.ownerReferences') o"
    " WHERE o.value->>'$.controller' LIMIT 1)",
)
_CREATED = _f("created", "metadata.creationTimestamp")
_LABELS = _f("labels", "metadata.labels")
_APP = _f("app", "metadata.labels.app")
_NODE_ADDRESS = Computed(
    "internal_ip",
    "(SELECT a.value->>'$.address' FROM json_each({doc}, '$.status.addresses') a"
    " WHERE a.value->>'$.type' = 'InternalIP' LIMIT 1)",
)
_NODE_ROLES = Computed(
    "roles",
    "(SELECT group_concat(substr(l.key, 25), ',') FROM json_each({doc}, '$.metadata.labels') l"
    " WHERE l.key LIKE 'node-role.kubernetes.io/%')",
)
_TAINTS = _joined(
    "taints",
    "spec.taints",
    "(x.value->>'$.key') || coalesce('=' || (x.value->>'$.value'), '') || ':' || (x.value->>'$.effect')",
)
_IMAGES = _joined("images", "spec.template.spec.containers", "x.value->>'$.image'")
_PORTS = _joined(
    "ports", "spec.ports", "(x.value->>'$.port') || '/' || coalesce(x.value->>'$.protocol', 'TCP')"
)

KIND_VIEWS: tuple[KindView, ...] = (
    KindView(
        "pods", "", "Pod",
        (
            _f("phase", "status.phase"), _READY_CONTAINERS, _RESTARTS, _f("node", "spec.nodeName"), _f("ip", "status.podIP"),
            _f("reason", "status.reason"), _f("qos", "status.qosClass"), _f("priority", "spec.priority"),
            _f("scheduler", "spec.schedulerName"), _f("deleting", "metadata.deletionTimestamp"),
            _joined("images", "spec.containers", "x.value->>'$.image'"), _OWNER, _APP, _LABELS, _CREATED,
        ),
    ),
    KindView(
        "nodes", "", "Node",
        (
            _condition("ready", "Ready"), _f("unschedulable", "spec.unschedulable"), _TAINTS, _NODE_ROLES, _NODE_ADDRESS,
            _f("kubelet", "status.nodeInfo.kubeletVersion"), _f("cpu", "status.allocatable.cpu"),
            _f("memory", "status.allocatable.memory"), _f("pods", "status.allocatable.pods"),
            _f("pod_cidr", "spec.podCIDR"), _LABELS, _CREATED,
        ),
        history="node_history", namespaced=False,
    ),
    KindView("namespaces", "", "Namespace", (_f("phase", "status.phase"), _LABELS, _CREATED), namespaced=False),
    KindView(
        "services", "", "Service",
        (
            _f("type", "spec.type"), _f("cluster_ip", "spec.clusterIP"), _PORTS, _f("selector", "spec.selector"),
            _f("external_name", "spec.externalName"), _LABELS, _CREATED,
        ),
    ),
    KindView("config_maps", "", "ConfigMap", (_f("data", "data"), _f("immutable", "immutable"), _LABELS, _CREATED)),
    KindView("secrets", "", "Secret", (_f("type", "type"), _f("immutable", "immutable"), _LABELS, _CREATED)),
    KindView("service_accounts", "", "ServiceAccount", (_LABELS, _CREATED)),
    KindView(
        "api_events", "", "Event",
        (
            _f("type", "type"), _f("reason", "reason"), _f("object_kind", "involvedObject.kind"),
            _f("object_name", "involvedObject.name"), _f("message", "message"), _f("count", "count"),
            Computed("source", "coalesce({doc}->>'$.reportingComponent', {doc}->>'$.source.component')"),
            Computed("first_seen", "coalesce({doc}->>'$.firstTimestamp', {doc}->>'$.eventTime')"),
            Computed("last_seen", "coalesce({doc}->>'$.series.lastObservedTime', {doc}->>'$.lastTimestamp', {doc}->>'$.eventTime')"),
        ),
    ),
    KindView(
        "persistent_volumes", "", "PersistentVolume",
        (
            _f("phase", "status.phase"), _f("capacity", "spec.capacity.storage"), _f("storage_class", "spec.storageClassName"),
            Computed("claim", "({doc}->>'$.spec.claimRef.namespace') || '/' || ({doc}->>'$.spec.claimRef.name')"),
            _f("reclaim_policy", "spec.persistentVolumeReclaimPolicy"), _CREATED,
        ),
        namespaced=False,
    ),
    KindView(
        "persistent_volume_claims", "", "PersistentVolumeClaim",
        (
            _f("phase", "status.phase"), _f("volume", "spec.volumeName"), _f("storage_class", "spec.storageClassName"),
            _f("requested", "spec.resources.requests.storage"), _CREATED,
        ),
    ),
    KindView(
        "deployments", "apps", "Deployment",
        (
            _f("replicas", "spec.replicas"), Computed("ready", "coalesce({doc}->>'$.status.readyReplicas', 0)"),
            Computed("updated", "coalesce({doc}->>'$.status.updatedReplicas', 0)"),
            Computed("available", "coalesce({doc}->>'$.status.availableReplicas', 0)"),
            _f("generation", "metadata.generation"), _f("observed_generation", "status.observedGeneration"),
            _f("paused", "spec.paused"), _IMAGES, _LABELS, _CREATED,
        ),
        history="deployment_history",
    ),
    KindView(
        "replica_sets", "apps", "ReplicaSet",
        (
            _f("replicas", "spec.replicas"), Computed("ready", "coalesce({doc}->>'$.status.readyReplicas', 0)"),
            Computed("available", "coalesce({doc}->>'$.status.availableReplicas', 0)"), _IMAGES, _OWNER, _LABELS, _CREATED,
        ),
        history="replica_set_history",
    ),
    KindView(
        "stateful_sets", "apps", "StatefulSet",
        (
            _f("replicas", "spec.replicas"), Computed("ready", "coalesce({doc}->>'$.status.readyReplicas', 0)"),
            _f("service", "spec.serviceName"), _IMAGES, _LABELS, _CREATED,
        ),
    ),
    KindView(
        "daemon_sets", "apps", "DaemonSet",
        (
            _f("desired", "status.desiredNumberScheduled"), _f("ready", "status.numberReady"),
            _f("available", "status.numberAvailable"), _IMAGES, _LABELS, _CREATED,
        ),
    ),
    KindView(
        "jobs", "batch", "Job",
        (
            _f("completions", "spec.completions"), Computed("active", "coalesce({doc}->>'$.status.active', 0)"),
            Computed("succeeded", "coalesce({doc}->>'$.status.succeeded', 0)"),
            Computed("failed", "coalesce({doc}->>'$.status.failed', 0)"), _condition("complete", "Complete"),
            _f("started", "status.startTime"), _f("completed", "status.completionTime"), _OWNER, _LABELS, _CREATED,
        ),
    ),
    KindView(
        "cron_jobs", "batch", "CronJob",
        (
            _f("schedule", "spec.schedule"), _f("time_zone", "spec.timeZone"), _f("suspend", "spec.suspend"),
            _f("last_scheduled", "status.lastScheduleTime"), _LABELS, _CREATED,
        ),
    ),
    KindView(
        "endpoint_slices", "discovery.k8s.io", "EndpointSlice",
        (
            Field("service", ("metadata", "labels", "kubernetes.io/service-name")), _f("address_type", "addressType"),
            _count("endpoints", "endpoints"),
            Computed("ready", "(SELECT count(*) FROM json_each({doc}, '$.endpoints') e WHERE e.value->>'$.conditions.ready')"),
            _CREATED,
        ),
    ),
    KindView(
        "api_leases", "coordination.k8s.io", "Lease",
        (
            _f("holder", "spec.holderIdentity"), _f("renewed", "spec.renewTime"), _f("acquired", "spec.acquireTime"),
            _f("duration_s", "spec.leaseDurationSeconds"), _f("transitions", "spec.leaseTransitions"), _CREATED,
        ),
    ),
)  # fmt: skip

_POD_HISTORY = (
    _f("node", "spec.nodeName"),
    _f("phase", "status.phase"),
    _f("restarts", "status.containerStatuses[0].restartCount"),
    _f("ready", "status.containerStatuses[0].ready"),
    _APP,
)

_HISTORY = f"""
SELECT e.rv, e.prev_rv, {AT.format("e.ts_us")} AS at, e.ts_us,
       CASE e.op WHEN 0 THEN 'ADDED' WHEN 1 THEN 'MODIFIED' ELSE 'DELETED' END AS op,
       k.kind, k.grp, o.ns, o.name, o.uid, a.username, a.field_manager AS manager, a.user_agent, e.decision_id, e.request_id,
       e.body AS object, e.oid, k.plural
  FROM events e JOIN objects o ON o.oid = e.oid JOIN kinds k ON k.kind_id = o.kind_id
  LEFT JOIN actors a ON a.actor_id = e.actor_id
"""

_STATE_COLUMNS = f"""
SELECT k.kind, k.grp, o.ns, o.name, o.uid, coalesce(l.rv, e.rv) AS rv,
       {AT.format("coalesce(l.renewed_us, e.ts_us)")} AS at, coalesce(l.renewed_us, e.ts_us) AS ts_us,
       a.username, a.field_manager AS manager, coalesce(l.body, e.body) AS object, o.oid, k.plural
"""

_STATE_NOW = f"""{_STATE_COLUMNS}
  FROM objects o JOIN events e ON e.rv = o.rv JOIN kinds k ON k.kind_id = o.kind_id
  LEFT JOIN leases l ON l.oid = o.oid AND l.rv > e.rv LEFT JOIN actors a ON a.actor_id = e.actor_id
 WHERE o.delete_rv IS NULL
"""

_ASOF = "(SELECT rv FROM asof)"

_STATE_AT = f"""{_STATE_COLUMNS}
  FROM objects o
  JOIN events e ON e.rv = (SELECT max(z.rv) FROM events z WHERE z.oid = o.oid AND z.rv <= {_ASOF})
  JOIN kinds k ON k.kind_id = o.kind_id
  LEFT JOIN leases l ON l.oid = o.oid AND l.rv > e.rv AND l.rv <= {_ASOF} LEFT JOIN actors a ON a.actor_id = e.actor_id
 WHERE o.oid <= {_ASOF} AND (o.delete_rv IS NULL OR o.delete_rv > {_ASOF})
"""


def _of_kind(view: KindView) -> str:
    names = "ns, name" if view.namespaced else "name"
    columns = ", ".join(column.sql("object") for column in view.columns)
    return (
        f"SELECT {names}, {columns}, uid, rv, at, ts_us, object FROM state"
        f" WHERE kind = '{view.kind}' AND grp = '{view.group}'"
    )


def _history_of_kind(view: KindView) -> str:
    names = "ns, name" if view.namespaced else "name"
    columns = ", ".join(column.sql("object") for column in view.columns if column.name != "created")
    return (
        f"SELECT rv, at, ts_us, {names}, uid, op, {columns}, username, manager, decision_id FROM history"
        f" WHERE kind = '{view.kind}' AND grp = '{view.group}'"
    )


def _pod_history() -> str:
    columns = ", ".join(column.sql("object") for column in _POD_HISTORY)
    return (
        f"SELECT rv, at, ts_us, ns, name, uid, op, {columns}, username, manager, decision_id FROM history"
        " WHERE kind = 'Pod' AND grp = ''"
    )


def _all(state: str, history: str) -> list[tuple[str, str]]:
    found = [
        ("history", history),
        ("state", state),
        ("live", "SELECT * FROM state"),
        ("pod_history", _pod_history()),
    ]
    found += [(view.name, _of_kind(view)) for view in KIND_VIEWS]
    found += [(view.history, _history_of_kind(view)) for view in KIND_VIEWS if view.history]
    return found


def persistent() -> list[tuple[str, str]]:
    """(name, SELECT) in an order in which each can be created."""
    return _all(_STATE_NOW, _HISTORY)


def as_of() -> list[tuple[str, str]]:
    """The same for a session with a temporary table `asof(rv)`: nothing later is seen."""
    return _all(_STATE_AT, f"{_HISTORY} WHERE e.rv <= {_ASOF}")
