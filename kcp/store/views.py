"""SQL views for people: the log as history, the state, one view per common kind.

    history           every change: who, when, what
    state, live       every live object; inside `kcp sql --at` the objects as of that moment
    pods, nodes, …    live objects of one kind with the columns that `kubectl get -o wide` shows
    pod_history, …    every version of one kind with its telling fields

Persistent views show the head, so that any SQL client can use them. A session that looks at the past creates views of
the same names in its temporary schema, where a table `asof(rv)` holds the position (SQLite looks there first).
"""

from __future__ import annotations

from typing import Literal

from kcp.base.values import frozen

Engine = Literal["sqlite", "postgresql"]
SQLITE: Engine = "sqlite"
POSTGRES: Engine = "postgresql"

AT: dict[Engine, str] = {
    "sqlite": "strftime('%Y-%m-%dT%H:%M:%fZ', {}/1000000.0, 'unixepoch')",
    "postgresql": "to_char(to_timestamp({}/1000000.0) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')",
}

Type = Literal["text", "number", "boolean"]
_CAST: dict[Type, str] = {
    "text": "{doc} #>> {path}",
    "number": "CASE jsonb_typeof({doc} #> {path}) WHEN 'number' THEN ({doc} #> {path})::bigint END",
    "boolean": "CASE {doc} #> {path} WHEN 'true' THEN 1 WHEN 'false' THEN 0 END",
}


@frozen
class Field:
    """A column taken from the document: keys from the root, a number is a list index. Booleans show as 1 and 0."""

    name: str
    path: tuple[str | int, ...]
    type: Type = "text"

    def sql(self, document: str, engine: Engine) -> str:
        if engine == POSTGRES:
            steps = ",".join(f'"{step}"' for step in self.path)
            value = _CAST[self.type].format(doc=document, path=f"'{{{steps}}}'")
        else:
            steps = "".join(f"[{step}]" if isinstance(step, int) else f'."{step}"' for step in self.path)
            value = f"{document}->>'${steps}'"
        return f"{value} AS {quoted(self.name)}"


@frozen
class Computed:
    """A column by an expression, one for each engine; `{doc}` stands for the document."""

    name: str
    sqlite: str
    postgresql: str

    def sql(self, document: str, engine: Engine) -> str:
        expression = self.postgresql if engine == POSTGRES else self.sqlite
        return f"{expression.replace('{doc}', document)} AS {quoted(self.name)}"


ViewColumn = Field | Computed


@frozen
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


def _f(name: str, path: str, type_: Type = "text") -> Field:
    """`a.b[0].c` as a Field; keys with dots have no place here."""
    steps: list[str | int] = []
    for part in path.split("."):
        key, _, index = part.partition("[")
        steps.append(key)
        if index:
            steps.append(int(index.rstrip("]")))
    return Field(name, tuple(steps), type_)


def _number(name: str, path: str) -> Field:
    return _f(name, path, "number")


def _boolean(name: str, path: str) -> Field:
    return _f(name, path, "boolean")


def _each(path: str) -> tuple[str, str]:
    """FROM the items of a list, as x: on SQLite x.value is the item, on PostgreSQL x itself."""
    place = "{doc} #> '{" + path.replace(".", ",") + "}'"
    guarded = f"CASE jsonb_typeof({place}) WHEN 'array' THEN {place} END"
    return "json_each({doc}, '$." + path + "') x", f"jsonb_array_elements({guarded}) x"


def _over(name: str, path: str, sqlite: str, postgresql: str) -> Computed:
    """A subquery over the items of a list; `{each}` stands for its FROM."""
    here, there = _each(path)
    return Computed(name, f"({sqlite.replace('{each}', here)})", f"({postgresql.replace('{each}', there)})")


def _count(name: str, path: str) -> Computed:
    return _over(name, path, "SELECT count(*) FROM {each}", "SELECT count(*) FROM {each}")


def _condition(name: str, kind: str) -> Computed:
    """The status of a condition."""
    return _over(
        name,
        "status.conditions",
        f"SELECT x.value->>'$.status' FROM {{each}} WHERE x.value->>'$.type' = '{kind}' LIMIT 1",
        f"SELECT x->>'status' FROM {{each}} WHERE x->>'type' = '{kind}' LIMIT 1",
    )


def _images(name: str, path: str) -> Computed:
    return _over(
        name,
        path,
        "SELECT group_concat(x.value->>'$.image', ',') FROM {each}",
        "SELECT string_agg(x->>'image', ',') FROM {each}",
    )


def _or_zero(name: str, path: str) -> Computed:
    field = _number(name, path)
    here, there = (field.sql("{doc}", engine).rpartition(" AS ")[0] for engine in (SQLITE, POSTGRES))
    return Computed(name, f"coalesce({here}, 0)", f"coalesce({there}, 0)")


def _first_of(name: str, *paths: str) -> Computed:
    sqlite = ", ".join("{doc}->>'$." + path + "'" for path in paths)
    postgresql = ", ".join("{doc} #>> '{" + path.replace(".", ",") + "}'" for path in paths)
    return Computed(name, f"coalesce({sqlite})", f"coalesce({postgresql})")


_RESTARTS = _over(
    "restarts",
    "status.containerStatuses",
    "SELECT coalesce(sum(x.value->>'$.restartCount'), 0) FROM {each}",
    "SELECT coalesce(sum((x->'restartCount')::bigint), 0)::bigint FROM {each}",
)
_READY_CONTAINERS = Computed(
    "ready",
    "(SELECT count(*) FILTER (WHERE c.value->>'$.ready') FROM json_each({doc}, '$.status.containerStatuses') c)"
    " || '/' || json_array_length({doc}, '$.spec.containers')",
    "(SELECT count(*) FILTER (WHERE x->'ready' = 'true') FROM " + _each("status.containerStatuses")[1] + ")"
    " || '/' || jsonb_array_length({doc} #> '{spec,containers}')",
)
_OWNER = _over(
    "owner",
    "metadata.ownerReferences",
    "SELECT (x.value->>'$.kind') || '/' || (x.value->>'$.name') FROM {each} WHERE x.value->>'$.controller' LIMIT 1",
    "SELECT (x->>'kind') || '/' || (x->>'name') FROM {each} WHERE x->'controller' = 'true' LIMIT 1",
)
_CREATED = _f("created", "metadata.creationTimestamp")
_LABELS = _f("labels", "metadata.labels")
_APP = _f("app", "metadata.labels.app")
_NODE_ADDRESS = _over(
    "internal_ip",
    "status.addresses",
    "SELECT x.value->>'$.address' FROM {each} WHERE x.value->>'$.type' = 'InternalIP' LIMIT 1",
    "SELECT x->>'address' FROM {each} WHERE x->>'type' = 'InternalIP' LIMIT 1",
)
_NODE_ROLES = Computed(
    "roles",
    "(SELECT group_concat(substr(l.key, 25), ',') FROM json_each({doc}, '$.metadata.labels') l"
    " WHERE l.key LIKE 'node-role.kubernetes.io/%')",
    "(SELECT string_agg(substr(l, 25), ',') FROM jsonb_object_keys({doc} #> '{metadata,labels}') l"
    " WHERE l LIKE 'node-role.kubernetes.io/%')",
)
_TAINTS = _over(
    "taints",
    "spec.taints",
    "SELECT group_concat((x.value->>'$.key') || coalesce('=' || (x.value->>'$.value'), '') || ':'"
    " || (x.value->>'$.effect'), ',') FROM {each}",
    "SELECT string_agg((x->>'key') || coalesce('=' || (x->>'value'), '') || ':' || (x->>'effect'), ',') FROM {each}",
)
_IMAGES = _images("images", "spec.template.spec.containers")
_PORTS = _over(
    "ports",
    "spec.ports",
    "SELECT group_concat((x.value->>'$.port') || '/' || coalesce(x.value->>'$.protocol', 'TCP'), ',') FROM {each}",
    "SELECT string_agg((x->>'port') || '/' || coalesce(x->>'protocol', 'TCP'), ',') FROM {each}",
)
_CLAIM = Computed(
    "claim",
    "({doc}->>'$.spec.claimRef.namespace') || '/' || ({doc}->>'$.spec.claimRef.name')",
    "({doc} #>> '{spec,claimRef,namespace}') || '/' || ({doc} #>> '{spec,claimRef,name}')",
)
_READY_ENDPOINTS = _over(
    "ready",
    "endpoints",
    "SELECT count(*) FROM {each} WHERE x.value->>'$.conditions.ready'",
    "SELECT count(*) FROM {each} WHERE x #> '{conditions,ready}' = 'true'",
)

KIND_VIEWS: tuple[KindView, ...] = (
    KindView(
        "pods", "", "Pod",
        (
            _f("phase", "status.phase"), _READY_CONTAINERS, _RESTARTS, _f("node", "spec.nodeName"), _f("ip", "status.podIP"),
            _f("reason", "status.reason"), _f("qos", "status.qosClass"), _number("priority", "spec.priority"),
            _f("scheduler", "spec.schedulerName"), _f("deleting", "metadata.deletionTimestamp"),
            _images("images", "spec.containers"), _OWNER, _APP, _LABELS, _CREATED,
        ),
    ),
    KindView(
        "nodes", "", "Node",
        (
            _condition("ready", "Ready"), _boolean("unschedulable", "spec.unschedulable"), _TAINTS, _NODE_ROLES, _NODE_ADDRESS,
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
    KindView("config_maps", "", "ConfigMap", (_f("data", "data"), _boolean("immutable", "immutable"), _LABELS, _CREATED)),
    KindView("secrets", "", "Secret", (_f("type", "type"), _boolean("immutable", "immutable"), _LABELS, _CREATED)),
    KindView("service_accounts", "", "ServiceAccount", (_LABELS, _CREATED)),
    KindView(
        "api_events", "", "Event",
        (
            _f("type", "type"), _f("reason", "reason"), _f("object_kind", "involvedObject.kind"),
            _f("object_name", "involvedObject.name"), _f("message", "message"), _number("count", "count"),
            _first_of("source", "reportingComponent", "source.component"),
            _first_of("first_seen", "firstTimestamp", "eventTime"),
            _first_of("last_seen", "series.lastObservedTime", "lastTimestamp", "eventTime"),
        ),
    ),
    KindView(
        "persistent_volumes", "", "PersistentVolume",
        (
            _f("phase", "status.phase"), _f("capacity", "spec.capacity.storage"), _f("storage_class", "spec.storageClassName"),
            _CLAIM,
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
            _number("replicas", "spec.replicas"), _or_zero("ready", "status.readyReplicas"),
            _or_zero("updated", "status.updatedReplicas"),
            _or_zero("available", "status.availableReplicas"),
            _number("generation", "metadata.generation"), _number("observed_generation", "status.observedGeneration"),
            _boolean("paused", "spec.paused"), _IMAGES, _LABELS, _CREATED,
        ),
        history="deployment_history",
    ),
    KindView(
        "replica_sets", "apps", "ReplicaSet",
        (
            _number("replicas", "spec.replicas"), _or_zero("ready", "status.readyReplicas"),
            _or_zero("available", "status.availableReplicas"), _IMAGES, _OWNER, _LABELS, _CREATED,
        ),
        history="replica_set_history",
    ),
    KindView(
        "stateful_sets", "apps", "StatefulSet",
        (
            _number("replicas", "spec.replicas"), _or_zero("ready", "status.readyReplicas"),
            _f("service", "spec.serviceName"), _IMAGES, _LABELS, _CREATED,
        ),
    ),
    KindView(
        "daemon_sets", "apps", "DaemonSet",
        (
            _number("desired", "status.desiredNumberScheduled"), _number("ready", "status.numberReady"),
            _number("available", "status.numberAvailable"), _IMAGES, _LABELS, _CREATED,
        ),
    ),
    KindView(
        "jobs", "batch", "Job",
        (
            _number("completions", "spec.completions"), _or_zero("active", "status.active"),
            _or_zero("succeeded", "status.succeeded"),
            _or_zero("failed", "status.failed"), _condition("complete", "Complete"),
            _f("started", "status.startTime"), _f("completed", "status.completionTime"), _OWNER, _LABELS, _CREATED,
        ),
    ),
    KindView(
        "cron_jobs", "batch", "CronJob",
        (
            _f("schedule", "spec.schedule"), _f("time_zone", "spec.timeZone"), _boolean("suspend", "spec.suspend"),
            _f("last_scheduled", "status.lastScheduleTime"), _LABELS, _CREATED,
        ),
    ),
    KindView(
        "endpoint_slices", "discovery.k8s.io", "EndpointSlice",
        (
            Field("service", ("metadata", "labels", "kubernetes.io/service-name")), _f("address_type", "addressType"),
            _count("endpoints", "endpoints"),
            _READY_ENDPOINTS,
            _CREATED,
        ),
    ),
    KindView(
        "api_leases", "coordination.k8s.io", "Lease",
        (
            _f("holder", "spec.holderIdentity"), _f("renewed", "spec.renewTime"), _f("acquired", "spec.acquireTime"),
            _number("duration_s", "spec.leaseDurationSeconds"), _number("transitions", "spec.leaseTransitions"), _CREATED,
        ),
    ),
)  # fmt: skip

_POD_HISTORY = (
    _f("node", "spec.nodeName"),
    _f("phase", "status.phase"),
    _number("restarts", "status.containerStatuses[0].restartCount"),
    _boolean("ready", "status.containerStatuses[0].ready"),
    _APP,
)

_HISTORY = """
SELECT e.rv, e.prev_rv, {at} AS at, e.ts_us,
       CASE e.op WHEN 0 THEN 'ADDED' WHEN 1 THEN 'MODIFIED' ELSE 'DELETED' END AS op,
       k.kind, k.grp, o.ns, o.name, o.uid, a.username, a.field_manager AS manager, a.user_agent, e.decision_id, e.request_id,
       e.body AS object, e.oid, k.plural
  FROM events e JOIN objects o ON o.oid = e.oid JOIN kinds k ON k.kind_id = o.kind_id
  LEFT JOIN actors a ON a.actor_id = e.actor_id
"""

_STATE_COLUMNS = """
SELECT k.kind, k.grp, o.ns, o.name, o.uid, coalesce(l.rv, e.rv) AS rv,
       {at} AS at, coalesce(l.renewed_us, e.ts_us) AS ts_us,
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


def _of_kind(view: KindView, engine: Engine) -> str:
    names = "ns, name" if view.namespaced else "name"
    columns = ", ".join(column.sql("object", engine) for column in view.columns)
    return (
        f"SELECT {names}, {columns}, uid, rv, at, ts_us, object FROM state"
        f" WHERE kind = '{view.kind}' AND grp = '{view.group}'"
    )


def _history_of_kind(view: KindView, engine: Engine) -> str:
    names = "ns, name" if view.namespaced else "name"
    columns = ", ".join(column.sql("object", engine) for column in view.columns if column.name != "created")
    return (
        f"SELECT rv, at, ts_us, {names}, uid, op, {columns}, username, manager, decision_id FROM history"
        f" WHERE kind = '{view.kind}' AND grp = '{view.group}'"
    )


def _pod_history(engine: Engine) -> str:
    columns = ", ".join(column.sql("object", engine) for column in _POD_HISTORY)
    return (
        f"SELECT rv, at, ts_us, ns, name, uid, op, {columns}, username, manager, decision_id FROM history"
        " WHERE kind = 'Pod' AND grp = ''"
    )


def _all(state: str, history: str, engine: Engine) -> list[tuple[str, str]]:
    found = [
        ("history", history.replace("{at}", AT[engine].format("e.ts_us"))),
        ("state", state.replace("{at}", AT[engine].format("coalesce(l.renewed_us, e.ts_us)"))),
        ("live", "SELECT * FROM state"),
        ("pod_history", _pod_history(engine)),
    ]
    found += [(view.name, _of_kind(view, engine)) for view in KIND_VIEWS]
    found += [(view.history, _history_of_kind(view, engine)) for view in KIND_VIEWS if view.history]
    return found


def persistent(engine: Engine = SQLITE) -> list[tuple[str, str]]:
    """(name, SELECT) in an order in which each can be created."""
    return _all(_STATE_NOW, _HISTORY, engine)


def as_of(engine: Engine = SQLITE) -> list[tuple[str, str]]:
    """The same for a session with a temporary table `asof(rv)`: nothing later is seen."""
    return _all(_STATE_AT, f"{_HISTORY} WHERE e.rv <= {_ASOF}", engine)


def over_history() -> list[str]:
    """Names of the views that show every version."""
    return ["history", "pod_history", *[view.history for view in KIND_VIEWS if view.history]]


def over_state() -> list[str]:
    """Names of the views that show one moment."""
    return ["state", "live", *[view.name for view in KIND_VIEWS]]
