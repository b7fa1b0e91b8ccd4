"""What a scheduler counts, under Kubernetes' names; counting is cheap, the text is made when somebody asks for it.

    measured = Measured()
    measured.attempt("scheduled", "default-scheduler", 0.002)
    metrics.collect("scheduler", lambda: series(scheduler))

Source: k8s v1.36 pkg/scheduler/metrics/metrics.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs

from kcp.base.metrics import Buckets, Labelled, Series, exponential
from kcp.scheduler.profiles import DEFAULT_NAME
from kcp.scheduler.queue import QueuedPod

if TYPE_CHECKING:
    from kcp.scheduler.scheduler import Scheduler

_ATTEMPT_S = exponential(0.001, 2, 15)
_SLI_S = exponential(0.01, 2, 20)
_VICTIMS = exponential(1, 2, 7)
_ATTEMPTS = exponential(1, 2, 5)
MANY_ATTEMPTS = 15


@attrs.define(eq=False)
class Measured:
    """What has happened so far. Outlives a scheduler that begins anew in the same process."""

    attempts: Labelled = attrs.field(factory=lambda: Labelled(_ATTEMPT_S))
    """By result and profile, with how long each took, the binding included."""
    algorithm: Buckets = attrs.field(factory=lambda: Buckets(_ATTEMPT_S))
    victims: Buckets = attrs.field(factory=lambda: Buckets(_VICTIMS))
    preemptions: int = 0
    pod_attempts: Buckets = attrs.field(factory=lambda: Buckets(_ATTEMPTS))
    sli: Labelled = attrs.field(factory=lambda: Labelled(_SLI_S))
    """By the number of attempts: how long pods waited, from when they might be tried until they were bound."""
    incoming: dict[tuple[str, ...], int] = attrs.field(factory=dict)
    """By part of the queue and what brought pods there."""
    claims_created: dict[tuple[str, ...], int] = attrs.field(factory=dict)

    def came(self, queue: str, event: str) -> None:
        key = queue, event
        self.incoming[key] = self.incoming.get(key, 0) + 1

    def created_claim(self, status: str) -> None:
        key = status, "false"
        self.claims_created[key] = self.claims_created.get(key, 0) + 1

    def scheduled(self, queued: QueuedPod, now_s: float, now_us: int) -> None:
        """`now_s` on the monotonic clock."""
        attempts = queued.attempts
        self.attempts.observe(("scheduled", _profile(queued)), now_s - queued.started_s)
        self.pod_attempts.observe(attempts)
        label = str(attempts) if attempts < MANY_ATTEMPTS else f"{MANY_ATTEMPTS}+"
        self.sli.observe((label,), (now_us - queued.first_us) / 1e6)

    def failed(self, result: str, queued: QueuedPod, now_s: float) -> None:
        self.attempts.observe((result, _profile(queued)), now_s - queued.started_s)


def _profile(queued: QueuedPod) -> str:
    return queued.pod["spec"].get("schedulerName") or DEFAULT_NAME


def series(scheduler: Scheduler) -> Iterator[Series]:
    """Everything, as it is now."""
    measured = scheduler.measured
    yield Series(
        "scheduler_schedule_attempts_total",
        "Number of attempts to schedule pods, by the result. 'unschedulable' means a pod could not be scheduled, while "
        "'error' means an internal scheduler problem.",
        "counter",
        ("result", "profile"),
        {labels: found.count for labels, found in measured.attempts.items()},
    )
    yield Series(
        "scheduler_scheduling_attempt_duration_seconds",
        "Scheduling attempt latency in seconds (scheduling algorithm + binding)",
        "histogram",
        ("result", "profile"),
        dict(measured.attempts.items()),
    )
    yield Series(
        "scheduler_scheduling_algorithm_duration_seconds",
        "Scheduling algorithm latency in seconds",
        "histogram",
        (),
        {(): measured.algorithm},
    )
    yield Series(
        "scheduler_pod_scheduling_sli_duration_seconds",
        "E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue and might involve "
        "multiple scheduling attempts.",
        "histogram",
        ("attempts",),
        dict(measured.sli.items()),
    )
    yield Series(
        "scheduler_pod_scheduling_attempts",
        "Number of attempts to successfully schedule a pod.",
        "histogram",
        (),
        {(): measured.pod_attempts},
    )
    yield Series(
        "scheduler_preemption_attempts_total",
        "Total preemption attempts in the cluster till now",
        "counter",
        (),
        {(): measured.preemptions},
    )
    yield Series(
        "scheduler_preemption_victims",
        "Number of selected preemption victims",
        "histogram",
        (),
        {(): measured.victims},
    )
    yield Series(
        "scheduler_resourceclaim_creates_total",
        "Number of ResourceClaims creation requests within scheduler",
        "counter",
        ("status", "admin_access"),
        dict(measured.claims_created),
    )
    yield from _of_the_queue(scheduler)
    yield from _of_the_cache(scheduler)


def _of_the_queue(scheduler: Scheduler) -> Iterator[Series]:
    sizes = scheduler.queue.sizes()
    yield Series(
        "scheduler_pending_pods",
        "Number of pending pods, by the queue type. 'active' means number of pods in activeQ; 'backoff' means number of "
        "pods in backoffQ; 'unschedulable' means number of pods in unschedulablePods that the scheduler attempted to "
        "schedule and failed; 'gated' is the number of unschedulable pods that the scheduler never attempted to schedule "
        "because they are gated.",
        "gauge",
        ("queue",),
        {(part,): sizes[part] for part in ("active", "backoff", "unschedulable", "gated")},
    )
    yield Series(
        "scheduler_queue_incoming_pods_total",
        "Number of pods added to scheduling queues by event and queue type.",
        "counter",
        ("queue", "event"),
        dict(scheduler.measured.incoming),
    )
    yield Series(
        "scheduler_inflight_events",
        "Number of events currently tracked in the scheduling queue.",
        "gauge",
        ("event",),
        {("PodsInFlight",): sizes["in_flight"], ("ClusterEvents",): sizes["in_flight_events"]},
    )
    blamed: dict[tuple[str, ...], int] = {}
    for queued in scheduler.queue.pods.values():
        if queued.place == "unschedulable" or queued.place == "gated":
            for plugin in queued.rejected_by:
                key = plugin, _profile(queued)
                blamed[key] = blamed.get(key, 0) + 1
    yield Series(
        "scheduler_unschedulable_pods",
        "The number of unschedulable pods broken down by plugin name. A pod will increment the gauge for all plugins that "
        "caused it to not schedule and so this metric have meaning only when broken down by plugin.",
        "gauge",
        ("plugin", "profile"),
        blamed,
    )


def _of_the_cache(scheduler: Scheduler) -> Iterator[Series]:
    state = scheduler.state
    yield Series(
        "scheduler_cache_size",
        "Number of nodes, pods, and assumed (bound) pods in the scheduler cache.",
        "gauge",
        ("type",),
        {
            ("nodes",): len(state.nodes),
            ("pods",): sum(1 for info in state.pods.values() if info.node),
            ("assumed_pods",): len(state.assumed),
        },
    )
    yield Series(
        "scheduler_goroutines",
        "Number of running goroutines split by the work they do such as binding.",
        "gauge",
        ("operation",),
        {("binding",): len(state.assumed)},
    )
