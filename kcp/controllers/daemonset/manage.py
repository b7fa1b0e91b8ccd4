"""What each node lacks and what it has too much of, before any update is thought of.

Source: k8s v1.36 pkg/controller/daemon/daemon_controller.go (podsShouldBeOnNode, manage).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from kcp.apis.semantics import pods as pod_facts
from kcp.apis.semantics.workloads import CONTROLLER_REVISION_HASH
from kcp.controllers import effects as fx
from kcp.controllers.daemonset.nodes import Fitness, new_pod
from kcp.controllers.replicas import create_each, delete_pods
from kcp.machinery import meta
from kcp.machinery.intstr import scaled_value

Json = dict[str, Any]
BURST = 250
BACKOFF_S, MAX_BACKOFF_S = 1.0, 900.0


@attrs.define
class Rollcall:
    """One plan's picture of the cluster. `todo` collects what to create and delete; owned by the plan."""

    daemon_set: Json
    nodes: Sequence[Json]
    pods: Mapping[str, Sequence[Json]]
    """By node name, oldest first."""
    hash: str
    now: datetime
    backoff: dict[str, list[float]]
    """By node: [seconds, since (epoch seconds)] of failed pods that were deleted."""
    fitness: Fitness = attrs.field(init=False)
    judged: dict[str, tuple[bool, bool]] = attrs.field(init=False)
    create_on: list[str] = attrs.field(factory=list)
    delete: list[Json] = attrs.field(factory=list)
    requeue_s: list[float] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.fitness = Fitness.of(self.daemon_set)
        self.judged = {meta.name(node): self.fitness.judge(node) for node in self.nodes}

    @property
    def desired(self) -> int:
        return sum(run for run, _ in self.judged.values())

    def is_available(self, pod: Json) -> bool:
        min_ready_s = self.daemon_set["spec"].get("minReadySeconds") or 0
        return pod_facts.is_available(pod, min_ready_s, self.now)

    def limits(self) -> tuple[int, int]:
        """(surge, unavailable) in nodes; both round up, both zero means one unavailable."""
        strategy = self.daemon_set["spec"].get("updateStrategy") or {}
        if strategy.get("type", "RollingUpdate") != "RollingUpdate":
            return 0, 0
        rolling = strategy.get("rollingUpdate") or {}
        surge = scaled_value(rolling.get("maxSurge", 0), self.desired, True)
        unavailable = scaled_value(rolling.get("maxUnavailable", 1), self.desired, True)
        return (0, 1) if surge == 0 and unavailable == 0 else (surge, unavailable)


def manage(roll: Rollcall) -> Generator[fx.Effect, fx.Outcome, None]:
    """Fill `create_on` and `delete`, with the events about failed pods."""
    surges = roll.limits()[0] > 0
    for node in roll.nodes:
        name = meta.name(node)
        run, stay = roll.judged[name]
        present = roll.pods.get(name, ())
        if run and not present:
            roll.create_on.append(name)
        elif stay:
            running = yield from _sort_out(roll, name, present)
            roll.delete += _surplus_beside_surge(roll, running) if surges else running[1:]
        else:
            roll.delete += [pod for pod in present if not meta.is_deleting(pod)]
    for name, pods in roll.pods.items():
        if name not in roll.judged:
            roll.delete += [p for p in pods if not pod_facts.is_assigned(p) and not meta.is_deleting(p)]


def _sort_out(
    roll: Rollcall, name: str, present: Sequence[Json]
) -> Generator[fx.Effect, fx.Outcome, list[Json]]:
    """Mark finished pods for deletion; what runs or will run."""
    running: list[Json] = []
    for pod in present:
        if meta.is_deleting(pod):
            continue
        found = f"daemon pod {meta.key_of(pod)} on node {name}, will try to"
        if pod_facts.phase(pod) == "Failed":
            if _may_retry(roll, name):
                roll.delete.append(pod)
                text = f"Found failed {found} kill it"
                yield fx.Event(roll.daemon_set, "Warning", "FailedDaemonPod", text)
        elif pod_facts.phase(pod) == "Succeeded":
            roll.delete.append(pod)
            text = f"Found succeeded {found} delete it"
            yield fx.Event(roll.daemon_set, "Normal", "SucceededDaemonPod", text)
        else:
            running.append(pod)
    return running


def _may_retry(roll: Rollcall, name: str) -> bool:
    """Whether a failed pod of this node may be replaced yet; doubles the wait when it may."""
    now_s = roll.now.timestamp()
    seconds, since = roll.backoff.get(name, (0.0, 0.0))
    if seconds and 0 <= now_s - since < seconds:  # below zero: the clock was set back
        roll.requeue_s.append(seconds - (now_s - since))
        return False
    fresh = not seconds or now_s - since > 2 * MAX_BACKOFF_S
    roll.backoff[name] = [BACKOFF_S if fresh else min(2 * seconds, MAX_BACKOFF_S), now_s]
    return True


def _surplus_beside_surge(roll: Rollcall, running: Sequence[Json]) -> list[Json]:
    """With surge a node may hold two: an old one that is ready and a new one that is not available yet."""
    if len(running) <= 1:
        return []
    new = [pod for pod in running if meta.labels(pod).get(CONTROLLER_REVISION_HASH) == roll.hash]
    old = [pod for pod in running if pod not in new]
    surplus = new[1:] + old[1:]
    if new and old and (not pod_facts.is_ready(old[0]) or roll.is_available(new[0])):
        surplus.append(old[0])
    return surplus


def carry_out(
    daemon_set: Json, create_on: Sequence[str], delete: Sequence[Json], hash_: str
) -> Generator[fx.Effect, fx.Outcome, bool]:
    """Create and delete at most a burst of each; whether anything was tried."""
    pods = [new_pod(daemon_set, name, hash_) for name in create_on[:BURST]]
    if pods:
        yield from create_each(daemon_set, pods)
    if delete:
        yield from delete_pods(daemon_set, delete[:BURST])
    return bool(pods or delete)
