"""The workloads: what is there before, and which pods are measured. Thresholds are those of Kubernetes' CI, in pods/s."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import attrs

from benchmarks.scheduler import templates as t

Json = dict[str, Any]
ZONE1 = {t.ZONE: "zone1"}


@attrs.define
class Scene:
    """`objects` are (resource, object) that exist before; `init` and `measured` pods are scheduled in this order."""

    objects: list[tuple[str, Json]]
    init: list[Json]
    measured: list[Json]


@attrs.frozen
class Workload:
    name: str
    threshold: float | None
    scene: Callable[[float], Scene]
    steady: bool = False
    """Measured pods go again as soon as they have a node."""


def _nodes(count: int, labels: Callable[[int], Json] = lambda i: {}) -> list[tuple[str, Json]]:
    return [("nodes", t.node(f"node-{i}", labels(i))) for i in range(count)]


def _pods(count: int, namespace: str, prefix: str = "pod", **spec: Any) -> list[Json]:
    return [t.pod(f"{prefix}-{i}", namespace, **spec) for i in range(count)]


def _namespaces(names: Iterable[str]) -> list[tuple[str, Json]]:
    return [("namespaces", {"metadata": {"name": n, "labels": {"team": "devops"}}}) for n in names]


def two_groups(
    nodes: int,
    init: int,
    measured: int,
    init_spec: Json,
    spec: Json,
    labels: Callable[[int], Json] = lambda i: {},
) -> Callable[[float], Scene]:
    """Some pods in sched-0 first, then the measured ones in sched-1."""

    def build(scale: float) -> Scene:
        n, i, m = (max(1, int(x * scale)) for x in (nodes, init, measured))
        return Scene(_nodes(n, labels), _pods(i, "sched-0", **init_spec), _pods(m, "sched-1", **spec))

    return build


def daemons(scale: float) -> Scene:
    nodes = [("nodes", t.node("scheduler-perf-node", pods="90000")), *_nodes(int(15000 * scale))]
    spec = {**t.DAEMON, "cpu": ""}
    return Scene(nodes, [], _pods(int(30000 * scale), "ds", **spec))


def mixed_base(scale: float) -> Scene:
    count = int(2000 * scale)
    init = _pods(count, "sched-0", "basic")
    for prefix, spec in (
        ("affinity", t.POD_AFFINITY),
        ("anti", t.POD_ANTI_AFFINITY),
        ("preferred", t.PREFERRED_AFFINITY),
        ("preferred-anti", t.PREFERRED_ANTI_AFFINITY),
    ):
        init += _pods(count, "sched-0", prefix, **spec)
    measured = _pods(int(5000 * scale), "measured")
    return Scene(_nodes(int(5000 * scale), lambda i: ZONE1), init, measured)


def namespaced(nodes: int, each: int, measured: int, spec: Json, **labels: Any) -> Callable[[float], Scene]:
    def build(scale: float) -> Scene:
        spaces = [f"init-ns-{i}" for i in range(int(100 * scale) or 1)]
        init = [pod for space in spaces for pod in _pods(each, space, **spec)]
        objects = _namespaces([*spaces, "measure-ns-0"]) + _nodes(int(nodes * scale), lambda i: labels)
        return Scene(objects, init, _pods(int(measured * scale), "measure-ns-0", **spec))

    return build


def default_spreading(scale: float) -> Scene:
    nodes = _nodes(int(5000 * scale), moon)
    service = {
        "metadata": {"name": "service", "namespace": "service-ns"},
        "spec": {"selector": {"app": "scheduler-perf"}},
    }
    measured = _pods(int(10000 * scale), "service-ns", cpu="", labels={"app": "scheduler-perf"})
    return Scene([*nodes, ("services", service)], _pods(int(5000 * scale), "init"), measured)


def inclusion(scale: float) -> Scene:
    taint = [{"key": "foo", "effect": "NoSchedule"}]
    tainted = [("nodes", t.node(f"tainted-{i}", taints=taint)) for i in range(int(1000 * scale))]
    nodes = _nodes(int(4000 * scale))
    return Scene([*nodes, *tainted], [], _pods(len(nodes), "sched-1", **t.INCLUSION))


def preemption(scale: float) -> Scene:
    nodes = int(1000 * scale)
    low = _pods(4 * nodes, "low", cpu="900m", priority=0)
    return Scene(_nodes(nodes), low, _pods(nodes, "high", cpu="3000m", priority=10))


def fresh_classes(scale: float) -> Scene:
    measured = [
        t.pod(f"p-{i}", "sched-1", cpu=f"{100 + i % 400}m", labels={"job": str(i)})
        for i in range(int(5000 * scale))
    ]
    return Scene(_nodes(int(5000 * scale)), [], measured)


def moon(index: int) -> Json:
    return {t.ZONE: f"moon-{index % 3 + 1}"}


def zone1(index: int) -> Json:
    return ZONE1


_ANTI_NS = t.affinity("podAntiAffinity", "green", t.HOSTNAME, **t.DEVOPS)
_AFFINITY_NS = t.affinity("podAffinity", "blue", t.ZONE, **t.DEVOPS)
_PREFERRED_NS = t.affinity("podAffinity", "red", t.HOSTNAME, preferred=True, **t.DEVOPS)
_PREFERRED_ANTI_NS = t.affinity("podAntiAffinity", "green", t.HOSTNAME, preferred=True, **t.DEVOPS)
_SECRET: Json = {"volumes": [{"name": "secret", "secret": {"secretName": "secret"}}]}

WORKLOADS: tuple[Workload, ...] = (
    Workload("SchedulingBasic/5000Nodes_10000Pods", 270, two_groups(5000, 1000, 10000, {}, {})),
    Workload("SchedulingBasic/100Nodes_8000Pods", None, two_groups(100, 1, 3900, {}, {})),
    Workload("SchedulingDaemonset/15000Nodes", 390, daemons),
    Workload(
        "SchedulingPodAntiAffinity/5000Nodes_2000Pods",
        60,
        two_groups(5000, 1000, 2000, t.POD_ANTI_AFFINITY, t.POD_ANTI_AFFINITY),
    ),
    Workload(
        "SchedulingPodMatchingAntiAffinity/5000Nodes_5000Pods",
        600,
        two_groups(5000, 1000, 5000, t.POD_ANTI_AFFINITY, {"labels": {"color": "green"}}),
    ),
    Workload(
        "SchedulingPodAffinity/5000Nodes_5000Pods",
        35,
        two_groups(5000, 5000, 5000, t.POD_AFFINITY, t.POD_AFFINITY, zone1),
    ),
    Workload(
        "SchedulingPreferredPodAffinity/5000Nodes_5000Pods",
        90,
        two_groups(5000, 5000, 5000, t.PREFERRED_AFFINITY, t.PREFERRED_AFFINITY),
    ),
    Workload(
        "SchedulingPreferredPodAntiAffinity/5000Nodes_5000Pods",
        90,
        two_groups(5000, 5000, 5000, t.PREFERRED_ANTI_AFFINITY, t.PREFERRED_ANTI_AFFINITY),
    ),
    Workload(
        "SchedulingNodeAffinity/5000Nodes_10000Pods",
        220,
        two_groups(5000, 5000, 10000, t.NODE_AFFINITY, t.NODE_AFFINITY, zone1),
    ),
    Workload("MixedSchedulingBasePod/5000Nodes_5000Pods", 140, mixed_base),
    Workload(
        "SchedulingRequiredPodAntiAffinityWithNSSelector/5000Nodes_2000Pods",
        24,
        namespaced(6000, 40, 2000, _ANTI_NS),
    ),
    Workload(
        "SchedulingPreferredAntiAffinityWithNSSelector/5000Nodes_2000Pods",
        55,
        namespaced(5000, 40, 2000, _PREFERRED_ANTI_NS),
    ),
    Workload(
        "SchedulingRequiredPodAffinityWithNSSelector/5000Nodes_2000Pods",
        35,
        namespaced(5000, 50, 2000, _AFFINITY_NS, **ZONE1),
    ),
    Workload(
        "SchedulingPreferredAffinityWithNSSelector/5000Nodes_5000Pods",
        90,
        namespaced(5000, 50, 5000, _PREFERRED_NS),
    ),
    Workload(
        "TopologySpreading/5000Nodes_5000Pods",
        85,
        two_groups(5000, 5000, 5000, {}, t.spreading("DoNotSchedule"), moon),
    ),
    Workload(
        "PreferredTopologySpreading/5000Nodes_5000Pods",
        125,
        two_groups(5000, 5000, 5000, {}, t.spreading("ScheduleAnyway"), moon),
    ),
    Workload("DefaultTopologySpreading/5000Nodes_10000Pods", None, default_spreading),
    Workload("SchedulingWithNodeInclusionPolicy/5000Nodes", 68, inclusion),
    Workload("SchedulingSecrets/5000Nodes_10000Pods", 260, two_groups(5000, 1000, 10000, {}, _SECRET)),
    Workload("PreemptionBasic/1000Nodes", None, preemption),
    Workload("EveryPodANewClass/5000Nodes_5000Pods", None, fresh_classes),
)
