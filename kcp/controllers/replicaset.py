"""ReplicaSet: keeps the wanted number of pods of one template alive. A ReplicationController is another flavour of it.

Source: k8s v1.36 pkg/controller/replicaset.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from kcp.apis.semantics import pods as pod_facts
from kcp.apis.semantics import workloads
from kcp.base.values import frozen
from kcp.controllers import effects as fx
from kcp.controllers.replicas import BURST_REPLICAS, claim, create_pods, delete_pods
from kcp.controllers.sources import Controller, Owned, Self, Source
from kcp.machinery import meta
from kcp.machinery.errors import ApiError
from kcp.machinery.labels import Selector, from_label_selector, from_set
from kcp.machinery.times import format_time

Json = dict[str, Any]
Failure = tuple[str, ApiError] | None
"""What could not be done, with the reason that its condition gives."""


@frozen
class Flavour:
    """What sets ReplicaSet and ReplicationController apart: names, the form of the selector, one counter."""

    resource: str
    watch: str
    kind: str
    group: str
    selector: Callable[[Json], Selector]
    counts_terminating: bool


REPLICA_SET = Flavour(
    "replicasets.apps",
    "replicasets",
    "ReplicaSet",
    "apps",
    lambda rs: from_label_selector(rs["spec"].get("selector")),
    True,
)


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    yield from sync(REPLICA_SET, key, view, env)


def sync(flavour: Flavour, key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    rs = getattr(view, flavour.watch).get(key)
    if rs is None:
        return
    selector = flavour.selector(rs)
    census = count_settled(rs, selector, view)
    if census is None:
        yield from _sync_by_pod(flavour, rs, selector, view, env)
        return
    failure = yield from _reach_count(flavour, rs, census.active, view, env.now)
    yield fx.Status(flavour.resource, rs, replica_status(flavour, rs, census, failure, env.now))


def _sync_by_pod(flavour: Flavour, rs: Json, selector: Selector, view: fx.View, env: fx.Env) -> fx.Plan:
    """With a look at each pod: some are to be adopted or released, or are available only with time."""
    owned = view.pods.index("owner", meta.uid(rs))
    orphans = view.pods.index("owner", _orphans(rs))
    pods = yield from claim(
        rs, "pods", flavour.resource, owned, orphans, selector, eligible=pod_facts.is_active
    )
    active = [pod for pod in pods if pod_facts.is_active(pod)]
    failure = yield from _reach_count(flavour, rs, len(active), view, env.now, active)
    yield from write_status(flavour, rs, pods, failure, env.now)


def _reach_count(
    flavour: Flavour, rs: Json, count: int, view: fx.View, now: datetime, active: Sequence[Json] | None = None
) -> Generator[fx.Effect, fx.Outcome, Failure]:
    """Create or delete towards spec.replicas; what failed, with the condition's reason.

    `count` active pods are there; `active` None: those that the set owns.
    """
    missing = 0 if meta.is_deleting(rs) else workloads.replicas(rs) - count
    if missing > 0:
        error = yield from create_pods(rs, rs["spec"]["template"], min(missing, BURST_REPLICAS))
        return ("FailedCreate", error) if error else None
    if missing < 0:
        if active is None:
            active = [pod for pod in view.pods.index("owner", meta.uid(rs)) if pod_facts.is_active(pod)]
        ranks = colocation_ranks(flavour, rs, active, view)
        victims = workloads.deletion_order(active, ranks, now, min(-missing, BURST_REPLICAS))
        error = yield from delete_pods(rs, victims)
        return ("FailedDelete", error) if error else None
    return None


def colocation_ranks(flavour: Flavour, rs: Json, active: Sequence[Json], view: fx.View) -> list[int]:
    """For each pod how many active pods of all revisions of its Deployment are on its node.

    Source: getPodsRankedByRelatedPodsOnSameNode.
    """
    controller = meta.controller_of(rs)
    on_node: dict[str, int] = {}
    if controller is not None:
        for sibling in getattr(view, flavour.watch).index("controller", controller["uid"]):
            for node, count in view.pods.tally("nodes", meta.uid(sibling)).items():
                on_node[node] = on_node.get(node, 0) + count
    return [on_node.get(pod_facts.node_name(pod), 0) for pod in active]


def write_status(
    flavour: Flavour, rs: Json, pods: Sequence[Json], failure: Failure, now: datetime
) -> Generator[fx.Effect, fx.Outcome, None]:
    status = replica_status(flavour, rs, census_of(rs, pods, now), failure, now)
    yield fx.Status(flavour.resource, rs, status)
    min_ready_s = rs["spec"].get("minReadySeconds", 0)
    wants = workloads.replicas(rs)
    if min_ready_s and status.get("readyReplicas", 0) == wants != status.get("availableReplicas", 0):
        wait_s = next_available_s(pods, min_ready_s, now)
        if wait_s is not None:
            yield fx.RequeueAfter(wait_s)


def next_available_s(pods: Sequence[Json], min_ready_s: int, now: datetime) -> float | None:
    """Seconds until the next ready pod has been ready for `min_ready_s`; None when no pod is on its way."""
    active = [pod for pod in pods if pod_facts.is_active(pod)]
    waits = [pod_facts.seconds_until_available(pod, min_ready_s, now) for pod in active]
    return min((wait for wait in waits if wait), default=None)


@frozen
class Census:
    """What a status counts. `labelled`: active pods with all labels of the template."""

    active: int
    labelled: int
    ready: int
    available: int
    terminating: int


def sort_of(pod: Json) -> tuple[tuple[tuple[str, str], ...], str]:
    """What a pod counts as: its labels, and ready, active (but not ready), terminating, or over."""
    labels = tuple(sorted(meta.labels(pod).items()))
    if pod_facts.is_active(pod):
        return labels, "ready" if pod_facts.is_ready(pod) else "active"
    return labels, "terminating" if pod_facts.is_terminating(pod) else "over"


def node_of(pod: Json) -> str | None:
    """The node that an active pod is on ("" while it is on none); None for one that is not active."""
    return pod_facts.node_name(pod) if pod_facts.is_active(pod) else None


def count_settled(rs: Json, selector: Selector, view: fx.View) -> Census | None:
    """The set's pods counted without a look at any, while all that it owns are its own and it has none to adopt.

    None when that is not so, or when a ready pod counts as available only after some time.
    """
    if rs["spec"].get("minReadySeconds", 0):
        return None
    if not meta.is_deleting(rs):
        for labels, sort in view.pods.tally("sorts", _orphans(rs)):
            if sort in ("ready", "active") and selector.matches(dict(labels)):
                return None
    wanted = from_set(rs["spec"]["template"].get("metadata", {}).get("labels", {}))
    counted = {"ready": 0, "active": 0, "terminating": 0, "over": 0}
    labelled = 0
    for (labels, sort), count in view.pods.tally("sorts", meta.uid(rs)).items():
        if not selector.matches(dict(labels)):
            return None
        counted[sort] += count
        if sort in ("ready", "active") and wanted.matches(dict(labels)):
            labelled += count
    ready = counted["ready"]
    return Census(ready + counted["active"], labelled, ready, ready, counted["terminating"])


def census_of(rs: Json, pods: Sequence[Json], now: datetime) -> Census:
    """The same, of these pods."""
    wanted = from_set(rs["spec"]["template"].get("metadata", {}).get("labels", {}))
    min_ready_s = rs["spec"].get("minReadySeconds", 0)
    active: list[Json] = []
    others: list[Json] = []
    for pod in pods:
        (active if pod_facts.is_active(pod) else others).append(pod)
    ready = [pod for pod in active if pod_facts.is_ready(pod)]
    available = [p for p in ready if pod_facts.is_available(p, min_ready_s, now)] if min_ready_s else ready
    return Census(
        len(active),
        sum(wanted.matches(meta.labels(pod)) for pod in active),
        len(ready),
        len(available),
        sum(pod_facts.is_terminating(pod) for pod in others),
    )


def replica_status(flavour: Flavour, rs: Json, census: Census, failure: Failure, now: datetime) -> Json:
    """The status of a ReplicaSet; zero counters are absent, as Go's omitempty leaves them."""
    status: Json = {"replicas": census.active, "observedGeneration": rs["metadata"].get("generation", 0)}
    counters = {
        "fullyLabeledReplicas": census.labelled,
        "readyReplicas": census.ready,
        "availableReplicas": census.available,
    }
    status.update((name, count) for name, count in counters.items() if count)
    if flavour.counts_terminating:
        status["terminatingReplicas"] = census.terminating
    conditions = _conditions(rs, failure, now)
    if conditions:
        status["conditions"] = conditions
    return status


def _conditions(rs: Json, failure: Failure, now: datetime) -> list[Json]:
    """ReplicaFailure is set when something failed, kept while it still does, removed when all went well."""
    others = [c for c in rs.get("status", {}).get("conditions", ()) if c["type"] != "ReplicaFailure"]
    if failure is None:
        return others
    reason, error = failure
    current = meta.condition(rs, "ReplicaFailure")
    if current is not None:
        return [*others, current]
    return [
        *others,
        {
            "type": "ReplicaFailure",
            "status": "True",
            "reason": reason,
            "message": error.message,
            "lastTransitionTime": format_time(now),
        },
    ]


def _orphans(rs: Json) -> str:
    """The value of the index `owner` under which pods without a controller are."""
    return f"orphan:{meta.namespace(rs)}"


def controller_uid(obj: Json) -> list[str]:
    controller = meta.controller_of(obj)
    return [controller["uid"]] if controller else []


def adopting(flavour: Flavour, old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """Keys of the sets that might adopt an orphan pod."""
    keys: list[str] = []
    for pod in (new, old):
        if pod is None or meta.controller_of(pod) is not None:
            continue
        for rs in readers[flavour.watch].list(meta.namespace(pod)):
            if flavour.selector(rs).matches(meta.labels(pod)):
                keys.append(meta.key_of(rs))
        if new is not None and old is not None and meta.labels(old) == meta.labels(new):
            break
    return list(dict.fromkeys(keys))


def watches(flavour: Flavour) -> Mapping[str, Source]:
    return {
        flavour.watch: Self(flavour.resource, indexes={"controller": controller_uid}),
        "pods": Owned(
            "pods",
            flavour.kind,
            flavour.group,
            orphans=partial(adopting, flavour),
            tallies={"sorts": sort_of, "nodes": node_of},
        ),
    }


CONTROLLER = Controller(
    name="replicaset-controller",
    identity="replicaset-controller",
    plan=plan,
    watches=watches(REPLICA_SET),
)
