"""The output of a container as `kubectl logs` asks for it.

Source: k8s v1.36 pkg/kubelet/kuberuntime/logs/logs.go, pkg/kubelet/kubelet_pods.go (validateContainerLogStatus).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from kcp.machinery.errors import BadRequest
from kcp.machinery.times import format_micro_time, parse_time
from kcp.node.runtime.protocol import LogLine

Json = dict[str, Any]
_TRUE = frozenset({"true", "1", "True", "t", "T", "TRUE"})
_STATUSES = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")


def container_id(pod: Json, status: Json, container: str, previous: bool) -> str:
    """The id of the run whose log is meant. Raises BadRequest while there is none."""
    name = pod["metadata"]["name"]
    entry = next((e for field in _STATUSES for e in status.get(field) or () if e["name"] == container), None)
    if entry is None:
        text = f'container "{container}" in pod "{name}" is not available'
        raise BadRequest(text)
    state, last = entry.get("state") or {}, (entry.get("lastState") or {}).get("terminated")
    if previous:
        if last is None or not last.get("containerID"):
            raise BadRequest(f'previous terminated container "{container}" in pod "{name}" not found')
        return _bare(last["containerID"])
    if "running" in state:
        return _bare(entry.get("containerID") or "")
    if "terminated" in state and state["terminated"].get("containerID"):
        return _bare(state["terminated"]["containerID"])
    if last is not None and last.get("containerID"):
        return _bare(last["containerID"])
    reason = (state.get("waiting") or {}).get("reason", "")
    if reason in ("ErrImagePull", "ImagePullBackOff"):
        pulling = (
            "trying and failing to pull image" if reason == "ImagePullBackOff" else "image can't be pulled"
        )
        raise BadRequest(f'container "{container}" in pod "{name}" is waiting to start: {pulling}')
    raise BadRequest(f'container "{container}" in pod "{name}" is waiting to start: {reason}')


def _bare(reference: str) -> str:
    return reference.rpartition("//")[2]


def render(lines: Sequence[LogLine], params: Mapping[str, str], now: datetime) -> bytes:
    """The lines that the parameters of pods/log let through, as text."""
    since = _since(params, now)
    stream = (params.get("stream") or "All").lower()
    chosen = [
        line
        for line in lines
        if (since is None or line.at >= since) and (stream == "all" or line.stream == stream)
    ]
    tail = params.get("tailLines")
    if tail:
        count = int(tail)
        chosen = chosen[-count:] if count else []
    stamped = params.get("timestamps") in _TRUE
    text = "".join(
        f"{format_micro_time(line.at)[:-1]}000Z {line.text}\n" if stamped else f"{line.text}\n"
        for line in chosen
    ).encode()
    limit = params.get("limitBytes")
    return text[: int(limit)] if limit else text


def _since(params: Mapping[str, str], now: datetime) -> datetime | None:
    if params.get("sinceSeconds"):
        return now - timedelta(seconds=int(params["sinceSeconds"]))
    return parse_time(params["sinceTime"]) if params.get("sinceTime") else None


def wants_previous(params: Mapping[str, str]) -> bool:
    return params.get("previous") in _TRUE
