"""What a scheduler says of itself to Prometheus."""

from __future__ import annotations

from typing import Any

import anyio

from kcp.base.metrics import Metrics
from kcp.scheduler.event_labels import event_label
from kcp.scheduler.hints import ClusterEvent
from kcp.scheduler.metrics import series
from tests.scheduler.dra.test_extended import cluster, gpu_pod
from tests.scheduler.harness import Bench, node, pod, scheduled
from tests.scheduler.test_gang_scheduling import priority

Json = dict[str, Any]
ALL = """
scheduler_schedule_attempts_total scheduler_scheduling_attempt_duration_seconds
scheduler_scheduling_algorithm_duration_seconds scheduler_pod_scheduling_sli_duration_seconds
scheduler_pod_scheduling_attempts scheduler_preemption_attempts_total scheduler_preemption_victims
scheduler_resourceclaim_creates_total scheduler_pending_pods scheduler_queue_incoming_pods_total
scheduler_inflight_events scheduler_unschedulable_pods scheduler_cache_size scheduler_goroutines
"""


def scrape(bench: Bench) -> dict[str, float]:
    """Each line by what stands before the number."""
    metrics = Metrics()
    metrics.collect("scheduler", lambda: series(bench.scheduler))
    lines = metrics.exposition().decode().splitlines()
    pairs = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    return {name: float(value) for name, _, value in pairs}


def test_what_happened_is_counted_under_kubernetes_names() -> None:
    async def check(bench: Bench) -> None:
        await priority(bench, "high", 10)
        await cluster(bench, "n")
        await gpu_pod(bench, "web")
        for name in ("low", "large"):
            await bench.pod(name, cpu="3" if name == "low" else "64")
        await bench.pod("gated", schedulingGates=[{"name": "g"}])
        await anyio.sleep(2)
        await bench.pod("vip", cpu="3", priorityClassName="high")
        await anyio.sleep(5)
        await bench.client.delete("pods", "low", "default", grace_s=0)
        await anyio.sleep(20)
        found = scrape(bench)
        attempts = 'scheduler_schedule_attempts_total{profile="default-scheduler",result="%s"}'
        assert found[attempts % "scheduled"] == bench.scheduler.bound == 3
        assert found[attempts % "unschedulable"] == bench.scheduler.unschedulable >= 2
        assert found["scheduler_scheduling_algorithm_duration_seconds_count"] == len(bench.sink.rows)
        assert found["scheduler_pod_scheduling_attempts_sum"] == 4, "one needed two attempts"
        assert found['scheduler_pod_scheduling_sli_duration_seconds_sum{attempts="2"}'] >= 5
        assert found["scheduler_preemption_victims_sum"] == 1
        assert found["scheduler_preemption_attempts_total"] == found[attempts % "unschedulable"]
        assert found['scheduler_resourceclaim_creates_total{admin_access="false",status="success"}'] == 1
        assert found['scheduler_pending_pods{queue="gated"}'] == 1
        assert found['scheduler_pending_pods{queue="unschedulable"}'] == 1
        assert (
            found['scheduler_unschedulable_pods{plugin="NodeResourcesFit",profile="default-scheduler"}'] == 1
        )
        assert (
            found['scheduler_unschedulable_pods{plugin="SchedulingGates",profile="default-scheduler"}'] == 1
        )
        assert found['scheduler_cache_size{type="nodes"}'] == 1
        incoming = 'scheduler_queue_incoming_pods_total{event="%s",queue="%s"}'
        assert found[incoming % ("PodAdd", "active")] == 4
        assert found[incoming % ("ScheduleAttemptFailure", "unschedulable")] >= 2
        assert found[incoming % ("AssignedPodDelete", "active")] >= 1

    scheduled(check)


def test_every_name_is_there_before_anything_happened() -> None:
    async def check(bench: Bench) -> None:
        metrics = Metrics()
        metrics.collect("scheduler", lambda: series(bench.scheduler))
        text = metrics.exposition().decode()
        named = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
        assert named == set(ALL.split())

    scheduled(check)


def test_events_have_the_names_that_kubernetes_gives_them() -> None:
    def label(resource: str, action: Any) -> str:
        return event_label(
            ClusterEvent(resource, (action,), None, node("n") if resource == "nodes" else pod("p"))
        )

    assert label("nodes", "add") == "NodeAdd"
    assert label("nodes", "allocatable") == "NodeUpdateNodeAllocatable"
    assert label("nodes", "label") == "NodeUpdateNodeLabel"
    assert label("pods", "delete") == "AssignedPodDelete"
    assert label("pods", "scale down") == "AssignedPodUpdatePodScaleDown"
    assert label("persistentvolumeclaims", "update") == "PersistentVolumeClaimUpdate"
