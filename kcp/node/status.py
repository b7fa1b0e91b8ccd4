"""The status of a pod: phase, conditions and the rest, from its spec and its container statuses. Pure.

Source: k8s v1.36 pkg/kubelet/status/generate.go, pkg/kubelet/kubelet_pods.go (getPhase, generateAPIPodStatus).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from kcp.apis.semantics.pods import compute_qos_class, containers, init_containers, is_sidecar
from kcp.base.values import frozen
from kcp.node.container_status import LISTS, Views, container_statuses
from kcp.node.restart import after_exit
from kcp.node.runtime.protocol import PodStatus

Json = dict[str, Any]

KUBELET_CONDITIONS = (
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "PodResizePending",
    "PodResizeInProgress",
    "AllContainersRestarting",
)
"""Conditions that only the node writes."""
OPTIONAL_CONDITIONS = ("PodResizePending", "PodResizeInProgress", "AllContainersRestarting")
TERMINAL = ("Succeeded", "Failed")


@frozen
class Verdict:
    """A phase that the containers do not show: a deadline, an eviction. Holds once nothing runs any more."""

    reason: str
    message: str
    disrupted: bool = False


@frozen
class Condition:
    """A condition before it has a time."""

    type: str
    status: str
    reason: str = ""
    message: str = ""


@frozen
class Facts:
    """What a status depends on beside the pod and the runtime. `before` is the status last known.

    `ended`: the pod will not run any more, whatever its restart policy says. `now` is in wire form.
    """

    now: str
    host_ip: str
    views: Views
    before: Json
    ended: bool = False
    verdict: Verdict | None = None
    conditions: Sequence[Condition] = ()


def generate(pod: Json, runtime: PodStatus, facts: Facts) -> Json:
    """The status as the API should show it; shares no parts with `before` that change."""
    before = facts.before
    status: Json = {"phase": "", "qosClass": before.get("qosClass") or compute_qos_class(pod)}
    known: dict[str, Json] = {}
    for field, name in LISTS:
        if not pod["spec"].get(field):
            continue
        entries = container_statuses(pod, field, before.get(name) or (), runtime, facts.views)
        status[name] = entries
        if field != "ephemeralContainers":
            known.update({entry["name"]: entry for entry in entries})
    status["phase"] = _settled_phase(phase_of(pod, known, facts.ended), pod, facts, runtime)
    _reason(status, facts)
    status["conditions"] = conditions_of(pod, status, known, runtime, facts)
    _addresses(status, pod, runtime, facts)
    status["startTime"] = before.get("startTime") or facts.now
    generation = pod["metadata"].get("generation")
    if generation:
        status["observedGeneration"] = generation
    return status


def rejected(pod: Json, reason: str, message: str, now: str) -> Json:
    """The status of a pod that the node does not take."""
    before = pod.get("status") or {}
    status: Json = {
        "phase": "Failed",
        "qosClass": before.get("qosClass") or compute_qos_class(pod),
        "reason": reason,
        "message": f"Pod was rejected: {message}",
        "startTime": before.get("startTime") or now,
        "conditions": [],
    }
    if pod["metadata"].get("generation"):
        status["observedGeneration"] = pod["metadata"]["generation"]
    return status


def _settled_phase(phase: str, pod: Json, facts: Facts, runtime: PodStatus) -> str:
    """Failed and Succeeded never change again; a verdict counts once nothing runs."""
    if facts.before.get("phase") in TERMINAL:
        return str(facts.before["phase"])
    if facts.verdict is not None:
        return "Failed" if not runtime.running() else "Running" if phase in TERMINAL else phase
    if phase in TERMINAL and any(status.name not in _ephemeral(pod) for status in runtime.running()):
        return "Running"
    return phase


def _ephemeral(pod: Json) -> set[str]:
    return {container["name"] for container in pod["spec"].get("ephemeralContainers") or ()}


def _reason(status: Json, facts: Facts) -> None:
    before = facts.before
    if facts.verdict is not None and status["phase"] == "Failed":
        status["reason"], status["message"] = facts.verdict.reason, facts.verdict.message
    elif status["phase"] == before.get("phase"):
        for field in ("reason", "message"):
            if before.get(field):
                status[field] = before[field]


def _addresses(status: Json, pod: Json, runtime: PodStatus, facts: Facts) -> None:
    status["hostIP"], status["hostIPs"] = facts.host_ip, [{"ip": facts.host_ip}]
    sandboxes = runtime.sandboxes
    ips = list(sandboxes[0].ips) if sandboxes else []
    if not ips and facts.before.get("podIP"):
        ips = [entry["ip"] for entry in facts.before.get("podIPs") or ()] or [facts.before["podIP"]]
    if not ips and pod["spec"].get("hostNetwork"):
        ips = [facts.host_ip]
    if ips:
        status["podIP"], status["podIPs"] = ips[0], [{"ip": ip} for ip in ips]


# -- phase ------------------------------------------------------------------------------------------


def any_started(pod: Json, known: Mapping[str, Json]) -> bool:
    """Whether a regular container has ever run: then the pod was initialized."""
    for container in containers(pod):
        entry = known.get(container["name"])
        if entry is None:
            continue
        state, last = entry["state"], entry.get("lastState") or {}
        if entry.get("started") or "running" in state or "terminated" in state or "terminated" in last:
            return True
    return False


def _init_counts(pod: Json, known: Mapping[str, Json]) -> tuple[int, int]:
    """(pending, failed for good) among the init containers that end."""
    pending = failed = 0
    for container in init_containers(pod):
        if is_sidecar(container):
            continue
        entry = known.get(container["name"])
        state = entry["state"] if entry else {}
        over = state.get("terminated")
        if over is None and "waiting" in state:
            over = (entry["lastState"] or {}).get("terminated") if entry else None
        if over is None:
            pending += 1
        elif over["exitCode"] and after_exit(pod, "initContainers", container, over["exitCode"]) == "stay":
            failed += 1
    return pending, failed


def phase_of(pod: Json, known: Mapping[str, Json], ended: bool) -> str:
    """Pending, Running, Succeeded or Failed by what the containers did. `known`: entries by container name."""
    pending, failed = _init_counts(pod, known)
    unknown = running = waiting = stopped = succeeded = restarting = 0
    for container in init_containers(pod):
        if not is_sidecar(container):
            continue
        entry = known.get(container["name"])
        state = entry["state"] if entry else {}
        if "running" in state:
            running += 1
            pending += not (entry or {}).get("started")
        elif "waiting" in state and "terminated" not in ((entry or {}).get("lastState") or {}):
            pending += 1
            waiting += 1
        elif not state:
            unknown += 1
    for container in containers(pod):
        entry = known.get(container["name"])
        state = entry["state"] if entry else {}
        over = state.get("terminated")
        if over is None and "waiting" in state:
            over = ((entry or {}).get("lastState") or {}).get("terminated")
        if "running" in state:
            running += 1
        elif over is not None:
            stopped += 1
            succeeded += over["exitCode"] == 0
            restarting += after_exit(pod, "containers", container, over["exitCode"]) != "stay"
        elif "waiting" in state:
            waiting += 1
        else:
            unknown += 1
    if failed:
        return "Failed"
    if (pending and not any_started(pod, known)) or (waiting and not ended):
        return "Failed" if ended and not running else "Pending"
    if running and not unknown:
        return "Running"
    if stopped and not unknown:
        if restarting and not ended:
            return "Running"
        return "Succeeded" if stopped == succeeded else "Failed"
    return "Failed" if ended else "Pending"


# -- conditions -------------------------------------------------------------------------------------


def conditions_of(
    pod: Json, status: Json, known: Mapping[str, Json], runtime: PodStatus, facts: Facts
) -> list[Json]:
    """The node's conditions with times; other writers' conditions are not repeated."""
    before = {entry["type"]: entry for entry in facts.before.get("conditions") or ()}
    ready = _containers_ready(pod, known, status["phase"])
    wanted = [
        Condition("PodReadyToStartContainers", "True" if runtime.sandbox else "False"),
        _initialized(pod, known, status["phase"]),
        _pod_ready(pod, ready),
        ready,
        Condition("PodScheduled", "True"),
        *facts.conditions,
    ]
    if facts.verdict is not None and facts.verdict.disrupted and status["phase"] == "Failed":
        verdict = facts.verdict
        wanted.append(Condition("DisruptionTarget", "True", "TerminationByKubelet", verdict.message))
    generation = pod["metadata"].get("generation")
    return [_timed(condition, before.get(condition.type), generation, facts.now) for condition in wanted]


def _timed(condition: Condition, before: Json | None, generation: int | None, now: str) -> Json:
    same = before is not None and before.get("status") == condition.status
    since = before.get("lastTransitionTime") if same and before is not None else None
    entry: Json = {
        "type": condition.type,
        "status": condition.status,
        "lastProbeTime": None,
        "lastTransitionTime": since or now,
    }
    if condition.reason:
        entry["reason"] = condition.reason
    if condition.message:
        entry["message"] = condition.message
    if generation:
        entry["observedGeneration"] = generation
    return entry


def _brackets(names: Sequence[str]) -> str:
    return f"[{' '.join(names)}]"


def _containers_ready(pod: Json, known: Mapping[str, Json], phase: str) -> Condition:
    if not known:
        return Condition("ContainersReady", "False", "UnknownContainerStatuses")
    relevant = [c for c in init_containers(pod) if is_sidecar(c)] + containers(pod)
    unknown = [c["name"] for c in relevant if c["name"] not in known]
    unready = [c["name"] for c in relevant if c["name"] in known and not known[c["name"]]["ready"]]
    if phase == "Succeeded" and not unknown:
        return Condition("ContainersReady", "False", "PodCompleted")
    if phase == "Failed":
        return Condition("ContainersReady", "False", "PodFailed")
    texts = [f"containers with unknown status: {_brackets(unknown)}"] if unknown else []
    if unready:
        texts.append(f"containers with unready status: {_brackets(unready)}")
    if texts:
        return Condition("ContainersReady", "False", "ContainersNotReady", ", ".join(texts))
    return Condition("ContainersReady", "True")


def _pod_ready(pod: Json, ready: Condition) -> Condition:
    if ready.status != "True":
        return attrs.evolve(ready, type="Ready")
    texts = []
    for gate in pod["spec"].get("readinessGates") or ():
        type_ = gate["conditionType"]
        entry = _of_pod(pod, type_)
        if entry is None:
            texts.append(f'corresponding condition of pod readiness gate "{type_}" does not exist.')
        elif entry.get("status") != "True":
            texts.append(
                f'the status of pod readiness gate "{type_}" is not "True", but {entry.get("status")}'
            )
    if texts:
        return Condition("Ready", "False", "ReadinessGatesNotReady", ", ".join(texts))
    return Condition("Ready", "True")


def _of_pod(pod: Json, type_: str) -> Json | None:
    for entry in (pod.get("status") or {}).get("conditions") or ():
        if entry.get("type") == type_:
            return entry  # type: ignore[no-any-return]
    return None


def _initialized(pod: Json, known: Mapping[str, Json], phase: str) -> Condition:
    inits = init_containers(pod)
    if inits and not known:
        return Condition("Initialized", "False", "UnknownContainerStatuses")
    unknown = [c["name"] for c in inits if c["name"] not in known]
    incomplete = [c["name"] for c in inits if c["name"] in known and not _is_through(c, known[c["name"]])]
    if phase == "Succeeded" and not unknown:
        return Condition("Initialized", "True", "PodCompleted")
    if not inits or any_started(pod, known):
        return Condition("Initialized", "True")
    texts = [f"containers with unknown status: {_brackets(unknown)}"] if unknown else []
    if incomplete:
        texts.append(f"containers with incomplete status: {_brackets(incomplete)}")
    if texts:
        return Condition("Initialized", "False", "ContainersNotInitialized", ", ".join(texts))
    return Condition("Initialized", "True")


def _is_through(container: Json, entry: Json) -> bool:
    return bool(entry.get("started") if is_sidecar(container) else entry["ready"])
