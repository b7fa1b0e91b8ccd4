"""Which pod a node under pressure gives up first, and what its status says.

Source: k8s v1.36 pkg/kubelet/eviction/{eviction_manager,helpers}.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kcp.apis.semantics import pods
from kcp.machinery.quantity import parse
from kcp.node.admit import is_critical
from kcp.node.status import Verdict

Json = dict[str, Any]
RESOURCES: Mapping[str, str] = {
    "MemoryPressure": "memory",
    "DiskPressure": "ephemeral-storage",
    "PIDPressure": "pids",
}
Usage = Callable[[Json], int]
"""How much of the resource a pod uses, in its unit."""


def rank(candidates: Iterable[Json], resource: str, usage: Usage) -> list[Json]:
    """Who goes first: what exceeds its request, then low priority, then most above its request. Critical pods stay."""

    def order(pod: Json) -> tuple[bool, int, int, str]:
        requested = pods.requests(pod).get(resource, parse("0")).value()
        used = usage(pod)
        return used <= requested, pods.priority(pod), requested - used, pod["metadata"]["uid"]

    return sorted(
        (pod for pod in candidates if not is_critical(pod) and not pods.is_terminal(pod)), key=order
    )


def evicted(resource: str) -> Verdict:
    """Failed, Evicted, with the condition DisruptionTarget."""
    return Verdict("Evicted", f"The node was low on resource: {resource}. ", disrupted=True)


def simulated_usage(pod: Json) -> int:
    """What a simulated pod counts as using: its memory request, and a little more when it has none."""
    requested = pods.requests(pod).get("memory")
    return requested.value() if requested is not None else 1
