"""Container statuses of the API from what the runtime says.

Source: k8s v1.36 pkg/kubelet/kubelet_pods.go (convertToAPIContainerStatuses).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kcp.base.values import frozen
from kcp.machinery.times import format_time
from kcp.node.restart import will_start
from kcp.node.runtime.protocol import ContainerStatus, PodStatus

Json = dict[str, Any]

LISTS = (
    ("initContainers", "initContainerStatuses"),
    ("containers", "containerStatuses"),
    ("ephemeralContainers", "ephemeralContainerStatuses"),
)


@frozen
class Waiting:
    """Why a container that should run does not: the waiting reason and its message."""

    reason: str
    message: str = ""

    def state(self) -> Json:
        return {"waiting": {"reason": self.reason, **({"message": self.message} if self.message else {})}}


def _always(status: ContainerStatus) -> bool:
    del status
    return True


@frozen
class Views:
    """What the agent knows beside the runtime. `started` and `ready` are asked for running containers only."""

    scheme: str
    waiting: Mapping[str, Waiting] = {}
    started: Callable[[ContainerStatus], bool] = _always
    ready: Callable[[ContainerStatus], bool] = _always
    allocated: Mapping[str, Json] = {}


def container_statuses(
    pod: Json, field: str, before: Sequence[Json], status: PodStatus, views: Views
) -> list[Json]:
    """The statuses of one list of the spec: init containers in spec order, others by name."""
    spec = pod["spec"]
    containers = spec.get(field) or ()
    if field != "initContainers" and len(containers) > 1:
        containers = sorted(containers, key=lambda container: container["name"])
    default = "PodInitializing" if spec.get("initContainers") else "ContainerCreating"
    old = {entry["name"]: entry for entry in before}
    found: dict[str, list[ContainerStatus]] = {}
    for each in status.containers:
        found.setdefault(each.name, []).append(each)
    return [
        _entry(
            pod,
            field,
            container,
            found.get(container["name"], ()),
            old.get(container["name"]),
            default,
            views,
        )
        for container in containers
    ]


def _entry(
    pod: Json,
    field: str,
    container: Json,
    runs: Sequence[ContainerStatus],
    old: Json | None,
    default: str,
    views: Views,
) -> Json:
    latest = runs[0] if runs else None
    entry = _of_run(field, container, latest, views) if latest else _absent(container, old, default)
    if len(runs) > 1 and runs[1].state == "exited":
        entry["lastState"] = _state(runs[1], views)
    elif latest is not None and old is not None and not entry["lastState"]:
        entry["lastState"] = old.get("lastState") or {}
    waiting = views.waiting.get(container["name"])
    if waiting is not None and will_start(pod, field, container, latest):
        if "terminated" in entry["state"]:
            entry["lastState"] = entry["state"]
        entry["state"] = waiting.state()
        entry["ready"] = False
        entry["started"] = False
    if field == "ephemeralContainers":
        entry["ready"] = False
        entry.pop("started", None)
    return entry


def _absent(container: Json, old: Json | None, default: str) -> Json:
    """Not made yet, or forgotten by the runtime: then the last word about it holds."""
    if old is not None and "terminated" in (old.get("state") or {}):
        return dict(old)
    entry: Json = {
        "name": container["name"],
        "image": container.get("image", ""),
        "imageID": "",
        "state": {"waiting": {"reason": default}},
        "lastState": {},
        "ready": False,
        "restartCount": 0,
        "started": False,
    }
    mounts = _mounts(container)
    if mounts:
        entry["volumeMounts"] = mounts
    if old is None:
        return entry
    entry["restartCount"] = old.get("restartCount", 0)
    entry["lastState"] = old.get("lastState") or {}
    if "running" in (old.get("state") or {}) and not entry["lastState"]:
        entry["lastState"] = {"terminated": _UNKNOWN}
    return entry


_UNKNOWN: Json = {
    "reason": "ContainerStatusUnknown",
    "message": "The container could not be located when the pod was deleted.  The container used to be Running",
    "exitCode": 137,
    "startedAt": None,
    "finishedAt": None,
}


def _of_run(field: str, container: Json, run: ContainerStatus, views: Views) -> Json:
    running = run.state == "running"
    started = running and views.started(run)
    entry: Json = {
        "name": run.name,
        "image": run.image,
        "imageID": run.image_ref,
        "containerID": f"{views.scheme}://{run.id}",
        "state": _state(run, views),
        "lastState": {},
        "ready": started and views.ready(run),
        "restartCount": run.attempt,
        "started": started,
    }
    if field == "initContainers" and container.get("restartPolicy") != "Always":
        entry["ready"] = run.state == "exited" and run.exit_code == 0
    if running:
        _resources(entry, run, views.allocated.get(run.name))
        context = container.get("securityContext") or {}
        user, group = context.get("runAsUser") or 0, context.get("runAsGroup") or 0
        entry["user"] = {"linux": {"uid": user, "gid": group, "supplementalGroups": [group]}}
    mounts = _mounts(container)
    if mounts:
        entry["volumeMounts"] = mounts
    return entry


def _resources(entry: Json, run: ContainerStatus, allocated: Json | None) -> None:
    """Resources in force, and the requests that the node has set aside."""
    entry["resources"] = run.resources or {}
    requests = allocated if allocated is not None else (run.resources or {}).get("requests")
    if requests:
        entry["allocatedResources"] = requests


def _mounts(container: Json) -> list[Json]:
    mounts = []
    for mount in container.get("volumeMounts") or ():
        entry = {"name": mount["name"], "mountPath": mount["mountPath"]}
        if mount.get("readOnly"):
            entry["readOnly"], entry["recursiveReadOnly"] = True, "Disabled"
        mounts.append(entry)
    return mounts


def _state(run: ContainerStatus, views: Views) -> Json:
    if run.state == "running":
        assert run.started_at is not None
        return {"running": {"startedAt": format_time(run.started_at)}}
    if run.state == "created":
        return {"waiting": {"reason": "ContainerCreating"}}
    over: Json = {
        "exitCode": run.exit_code,
        "reason": run.reason or ("Completed" if run.exit_code == 0 else "Error"),
        "startedAt": format_time(run.started_at) if run.started_at else None,
        "finishedAt": format_time(run.finished_at) if run.finished_at else None,
        "containerID": f"{views.scheme}://{run.id}",
    }
    if run.message:
        over["message"] = run.message
    return {"terminated": over}
