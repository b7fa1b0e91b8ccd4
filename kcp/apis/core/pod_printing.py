"""How a pod prints: the columns of `kubectl get pods`, and the word that sums up its state.

Source: k8s v1.36 pkg/printers/internalversion/printers.go (printPod).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import attrs

from kcp.apis.core.resources import is_sidecar
from kcp.apis.kind import Column, Json, Printer
from kcp.apis.printing import AGE, NAME, age, name_of, or_none, since, wide
from kcp.machinery.times import parse_time

_COLUMNS = (
    NAME,
    Column("Ready", "string", "", "The aggregate readiness state of this pod for accepting traffic."),
    Column("Status", "string", "", "The aggregate status of the containers in this pod."),
    Column(
        "Restarts",
        "string",
        "",
        "The number of times the containers in this pod have been restarted and when the last container in this "
        "pod has restarted.",
    ),
    AGE,
    wide(
        "IP",
        description="podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet "
        "allocated.",
    ),
    wide(
        "Node",
        description="NodeName indicates in which node this pod is scheduled. If empty, this pod is a candidate for "
        "scheduling by the scheduler defined in schedulerName. Once this field is set, the kubelet for this node "
        "becomes responsible for the lifecycle of this pod. This field should not be used to express a desire for "
        "the pod to be scheduled on a specific node. "
        "https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodename",
    ),
    wide(
        "Nominated Node",
        description="nominatedNodeName is set only when this pod preempts other pods on the node, but it cannot be "
        "scheduled right away as preemption victims receive their graceful termination periods. This field does not "
        "guarantee that the pod will be scheduled on this node. Scheduler may decide to place the pod elsewhere if "
        "other nodes become available sooner. Scheduler may also decide to give the resources on this node to a "
        "higher priority pod that is created after preemption. As a result, this field may be different than "
        "PodSpec.nodeName when the pod is scheduled.",
    ),
    wide(
        "Readiness Gates",
        description="If specified, all readiness gates will be evaluated for pod readiness. A pod is ready when all "
        'its containers are ready AND all conditions specified in the readiness gates have status equal to "True" '
        "More info: https://git.k8s.io/enhancements/keps/sig-network/580-pod-readiness-gates",
    ),
)


@attrs.define(slots=True)
class _Restarts:
    """How often containers came back, and when the last of them ended before it did."""

    count: int = 0
    last: str = ""

    def add(self, status: Json) -> None:
        self.count += status.get("restartCount") or 0
        ended = (status.get("lastState") or {}).get("terminated") or {}
        finished = ended.get("finishedAt")
        if finished and (not self.last or parse_time(finished) > parse_time(self.last)):
            self.last = finished

    def text(self, now: datetime) -> str:
        if self.count and self.last:
            return f"{self.count} ({since(self.last, now)} ago)"
        return str(self.count)


@attrs.define(slots=True)
class _Summary:
    """What is found on the walk over a pod's container statuses."""

    reason: str
    ready: int = 0
    initializing: bool = False
    restarts: _Restarts = attrs.field(factory=_Restarts)
    sidecar_restarts: _Restarts = attrs.field(factory=_Restarts)


def _ended(terminated: Json) -> str:
    """Why a container ended: its reason, signal or exit code."""
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode') or 0}"


def _init_reason(state: Json, position: str) -> str:
    terminated, waiting = state.get("terminated"), (state.get("waiting") or {}).get("reason")
    if terminated is not None:
        return _ended(terminated)
    if waiting and waiting != "PodInitializing":
        return str(waiting)
    return position


def _walk_init(summary: _Summary, spec: Json, status: Json) -> None:
    """Init containers in order, up to the first that is not done."""
    containers = spec.get("initContainers") or ()
    sidecars = {container.get("name") for container in containers if is_sidecar(container)}
    for i, found in enumerate(status.get("initContainerStatuses") or ()):
        is_side = found.get("name") in sidecars
        summary.restarts.add(found)
        if is_side:
            summary.sidecar_restarts.add(found)
        state = found.get("state") or {}
        terminated = state.get("terminated")
        if terminated is not None and not terminated.get("exitCode"):
            continue
        if is_side and found.get("started"):
            summary.ready += bool(found.get("ready"))
            continue
        summary.reason = "Init:" + _init_reason(state, f"{i}/{len(containers)}")
        summary.initializing = True
        return


def _walk_containers(summary: _Summary, status: Json) -> None:
    running = False
    for found in reversed(status.get("containerStatuses") or ()):
        summary.restarts.add(found)
        state = found.get("state") or {}
        waiting, terminated = (state.get("waiting") or {}).get("reason"), state.get("terminated")
        if waiting:
            summary.reason = waiting
        elif terminated is not None:
            summary.reason = _ended(terminated)
        elif found.get("ready") and state.get("running") is not None:
            running = True
            summary.ready += 1
    if summary.reason == "Completed" and running:
        summary.reason = "Running" if _is_true(status, "Ready") else "NotReady"


def _is_true(status: Json, condition_type: str) -> bool:
    return any(
        condition.get("type") == condition_type and condition.get("status") == "True"
        for condition in status.get("conditions") or ()
    )


def _gated(status: Json) -> bool:
    return any(
        condition.get("type") == "PodScheduled" and condition.get("reason") == "SchedulingGated"
        for condition in status.get("conditions") or ()
    )


def _summarize(pod: Json) -> _Summary:
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    phase = status.get("phase") or ""
    summary = _Summary(status.get("reason") or phase)
    if _gated(status):
        summary.reason = "SchedulingGated"
    _walk_init(summary, spec, status)
    if not summary.initializing or _is_true(status, "Initialized"):
        summary.restarts = summary.sidecar_restarts
        _walk_containers(summary, status)
    if (pod.get("metadata") or {}).get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            summary.reason = "Unknown"
        elif phase not in ("Failed", "Succeeded"):
            summary.reason = "Terminating"
    return summary


def pod_status(pod: Json) -> str:
    """The STATUS that kubectl shows: CrashLoopBackOff, Init:0/1, Completed, Terminating …"""
    return _summarize(pod).reason


def _readiness_gates(spec: Json, status: Json) -> str:
    gates = spec.get("readinessGates") or ()
    if not gates:
        return "<none>"
    met = sum(_is_true(status, gate.get("conditionType") or "") for gate in gates)
    return f"{met}/{len(gates)}"


def _cells(pod: Json, now: datetime) -> list[Any]:
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    summary = _summarize(pod)
    total = len(spec.get("containers") or ())
    total += sum(map(is_sidecar, spec.get("initContainers") or ()))
    ips = status.get("podIPs") or ()
    return [
        name_of(pod),
        f"{summary.ready}/{total}",
        summary.reason,
        summary.restarts.text(now),
        age(pod, now),
        or_none(ips[0].get("ip") if ips else None),
        or_none(spec.get("nodeName")),
        or_none(status.get("nominatedNodeName")),
        _readiness_gates(spec, status),
    ]


POD_PRINTER = Printer(_COLUMNS, _cells)
