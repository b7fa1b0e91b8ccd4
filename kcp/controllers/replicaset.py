"""ReplicaSet: keeps the wanted number of pods of one template alive. A ReplicationController is another flavour of it.

Source: k8s v1.36 pkg/controller/replicaset.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import attrs

from kcp.apis.semantics import pods as pod_facts
from kcp.apis.semantics import workloads
from kcp.controllers import effects as fx
from kcp.controllers.replicas import BURST_REPLICAS, claim, create_pods, delete_pods
from kcp.controllers.sources import Controller, Owned, Self, Source
from kcp.machinery import meta
from kcp.machinery.errors import ApiError
from kcp.machinery.labels import Selector, from_label_selector, from_set
from kcp.machinery.times import format_time

Json = dict[str, Any]


@attrs.frozen(slots=True)
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
    owned, orphans = (
        view.pods.index("owner", meta.uid(rs)),
        view.pods.index("owner", f"orphan:{meta.namespace(rs)}"),
    )
    pods = yield from claim(
        rs, "pods", flavour.resource, owned, orphans, flavour.selector(rs), eligible=pod_facts.is_active
    )
    active = [pod for pod in pods if pod_facts.is_active(pod)]
    failure: tuple[str, ApiError] | None = None
    if not meta.is_deleting(rs):
        failure = yield from _reach_count(flavour, rs, active, view, env.now)
    yield from write_status(flavour, rs, pods, failure, env.now)


def _reach_count(
    flavour: Flavour, rs: Json, active: Sequence[Json], view: fx.View, now: datetime
) -> Generator[fx.Effect, fx.Outcome, tuple[str, ApiError] | None]:
    """Create or delete towards spec.replicas; what failed, with the condition's reason."""
    missing = rs["spec"].get("replicas", 1) - len(active)
    if missing > 0:
        error = yield from create_pods(rs, rs["spec"]["template"], min(missing, BURST_REPLICAS))
        return ("FailedCreate", error) if error else None
    if missing < 0:
        surplus = min(-missing, BURST_REPLICAS)
        ranks = workloads.colocation_ranks(active, related_pods(flavour, rs, view))
        victims = workloads.deletion_order(active, ranks, now)[:surplus]
        error = yield from delete_pods(rs, victims)
        return ("FailedDelete", error) if error else None
    return None


def related_pods(flavour: Flavour, rs: Json, view: fx.View) -> list[Json]:
    """Active pods of all sets with the same controller (all revisions of one Deployment)."""
    controller = meta.controller_of(rs)
    if controller is None:
        return []
    siblings = getattr(view, flavour.watch).index("controller", controller["uid"])
    return [
        pod
        for sibling in siblings
        for pod in view.pods.index("owner", meta.uid(sibling))
        if pod_facts.is_active(pod)
    ]


def write_status(
    flavour: Flavour, rs: Json, pods: Sequence[Json], failure: tuple[str, ApiError] | None, now: datetime
) -> Generator[fx.Effect, fx.Outcome, None]:
    status = replica_status(rs, pods, failure, now)
    if not flavour.counts_terminating:
        del status["terminatingReplicas"]
    yield fx.Status(flavour.resource, rs, status)
    min_ready_s = rs["spec"].get("minReadySeconds", 0)
    wants = rs["spec"].get("replicas", 1)
    if min_ready_s and status.get("readyReplicas", 0) == wants != status.get("availableReplicas", 0):
        wait_s = next_available_s(pods, min_ready_s, now)
        if wait_s is not None:
            yield fx.RequeueAfter(wait_s)


def next_available_s(pods: Sequence[Json], min_ready_s: int, now: datetime) -> float | None:
    """Seconds until the next ready pod has been ready for `min_ready_s`; None when no pod is on its way."""
    active = [pod for pod in pods if pod_facts.is_active(pod)]
    waits = [pod_facts.seconds_until_available(pod, min_ready_s, now) for pod in active]
    return min((wait for wait in waits if wait), default=None)


def replica_status(
    rs: Json, pods: Sequence[Json], failure: tuple[str, ApiError] | None, now: datetime
) -> Json:
    """The status of a ReplicaSet; zero counters are absent, as Go's omitempty leaves them."""
    template_labels = from_set(rs["spec"]["template"].get("metadata", {}).get("labels", {}))
    min_ready_s = rs["spec"].get("minReadySeconds", 0)
    active: list[Json] = []
    others: list[Json] = []
    for pod in pods:
        (active if pod_facts.is_active(pod) else others).append(pod)
    ready = [pod for pod in active if pod_facts.is_ready(pod)]
    available = [p for p in ready if pod_facts.is_available(p, min_ready_s, now)] if min_ready_s else ready
    counters = {
        "fullyLabeledReplicas": sum(template_labels.matches(meta.labels(pod)) for pod in active),
        "readyReplicas": len(ready),
        "availableReplicas": len(available),
        "terminatingReplicas": sum(pod_facts.is_terminating(pod) for pod in others),
    }
    status: Json = {"replicas": len(active), "observedGeneration": rs["metadata"].get("generation", 0)}
    status.update((name, count) for name, count in counters.items() if count or name == "terminatingReplicas")
    conditions = _conditions(rs, failure, now)
    if conditions:
        status["conditions"] = conditions
    return status


def _conditions(rs: Json, failure: tuple[str, ApiError] | None, now: datetime) -> list[Json]:
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
        "pods": Owned("pods", flavour.kind, flavour.group, orphans=partial(adopting, flavour)),
    }


CONTROLLER = Controller(
    name="replicaset-controller",
    identity="replicaset-controller",
    plan=plan,
    watches=watches(REPLICA_SET),
)
