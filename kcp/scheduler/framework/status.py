"""Codes and texts: why a node does not take a pod, and the sentence that events and conditions carry.

Source: k8s v1.36 pkg/scheduler/framework/types.go (FitError), pkg/scheduler/schedule_one.go (truncateMessage).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

Status = Literal["Unschedulable", "UnschedulableAndUnresolvable"]
UNSCHEDULABLE: Status = "Unschedulable"
UNRESOLVABLE: Status = "UnschedulableAndUnresolvable"

MAX_EVENT_TEXT = 1024
NO_NODES = "no nodes available to schedule pods"
NOT_HELPFUL = "Preemption is not helpful for scheduling"
NO_VICTIMS = "No preemption victims found for incoming pod"
NO_CLAIMS_TO_DEALLOCATE = "no new claims to deallocate"
CLAIM_STATE_NOT_FOUND = "not found"
"""What Kubernetes' PostFilter of DynamicResources says when a pre-filter before it rejected the pod."""


def fit_error(
    nodes: int, histogram: Mapping[str, int], pre_filter: str = "", post_filter: Sequence[str] = ()
) -> str:
    """`0/N nodes are available: …`. The histogram is sorted as text, so `1000 …` stands before `2 …`."""
    text = f"0/{nodes} nodes are available:"
    if pre_filter:
        text += f" {pre_filter}."
    elif histogram:
        text += " " + ", ".join(sorted(f"{count} {reason}" for reason, count in histogram.items())) + "."
    if post_filter:
        text += " " + ", ".join(post_filter)
    return text


def event_text(text: str) -> str:
    """Cut to what an Event may carry."""
    return text if len(text) <= MAX_EVENT_TEXT else text[: MAX_EVENT_TEXT - 4] + " ..."


def outside(plugins: Sequence[str]) -> str:
    """The reason of nodes that a pre-filter left out."""
    return f"node(s) didn't satisfy plugin(s) [{' '.join(sorted(plugins))}]"
