"""Decide-and-assume: how many pods per second the decision core places, without API, queue and commit.

    python -m benchmarks.scheduler.decide [--only SUBSTRING] [--scale 0.1] [--json FILE]

`ratio` is to the threshold that Kubernetes' CI demands of kube-scheduler (with an in-process API server) for the same
workload. `apply` is the cost of taking one pod in: what an informer event costs. Preemption deletes the victims at once.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

from benchmarks.scheduler.device_workloads import DEVICE_WORKLOADS
from benchmarks.scheduler.workloads import WORKLOADS, Workload
from kcp.scheduler import profiles
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.cycle import Decision, decide
from kcp.scheduler.dra.devices import CLAIMS
from kcp.scheduler.framework.runtime import Framework

Json = dict[str, Any]


class Run:
    def __init__(self) -> None:
        self.state = ClusterState()
        self.framework: Framework = profiles.build(self.state, profiles.Profile())
        self.cycle = 0
        self.unschedulable = 0

    def take_in(self, pods: list[Json]) -> None:
        for pod in pods:
            self.state.apply("pods", None, pod)

    def schedule(self, pods: list[Json], *, steady: bool = False) -> None:
        state, framework = self.state, self.framework
        for pod in pods:
            uid = pod["metadata"]["uid"]
            self.cycle += 1
            decision = decide(framework, state.pods[uid], cycle=self.cycle, seed=1)
            if decision.victims:
                for victim in decision.victims:
                    state.apply("pods", victim.pod, None)
                decision = decide(framework, state.pods[uid], cycle=self.cycle, seed=1)
            if decision.node:
                state.assume(uid, decision.node)
                if decision.allocations:
                    self._take_devices(uid, decision, steady)
            else:
                self.unschedulable += 1

    def _take_devices(self, uid: str, decision: Decision, steady: bool) -> None:
        """The log shows them at once. `steady`: the pod goes, and its claim with it."""
        state = self.state
        state.devices.take(uid, decision.allocations)
        for key, allocation in decision.allocations.items():
            claim = state.objects[CLAIMS].get(key)
            if claim is not None:  # else that of extended resources, which the pod's binding would make
                state.apply(CLAIMS, claim, {**claim, "status": {"allocation": allocation}})
        if steady:
            state.apply("pods", state.pods[uid].pod, None)
            for key in decision.allocations:
                state.apply(CLAIMS, state.objects[CLAIMS][key], None)


def measure(workload: Workload, scale: float) -> Json:
    scene = workload.scene(scale)
    run = Run()
    for kind, obj in scene.objects:
        run.state.apply(kind, None, obj)
    run.take_in(scene.init)
    run.schedule(scene.init)
    missed = run.unschedulable
    started = time.perf_counter()
    run.take_in(scene.measured)
    taken_in, cpu_started_s = time.perf_counter(), time.process_time()
    run.schedule(scene.measured, steady=workload.steady)
    ended = time.perf_counter()
    cpu_s = time.process_time() - cpu_started_s
    pods = len(scene.measured)
    rate = pods / (ended - taken_in)
    return {
        "workload": workload.name,
        "nodes": len(run.state),
        "pods": pods,
        "pods_per_s": round(rate),
        "threshold": workload.threshold,
        "ratio": round(rate / workload.threshold, 1) if workload.threshold else None,
        "cpu_us_per_pod": round(cpu_s / pods * 1e6, 1),
        "apply_us": round((taken_in - started) / pods * 1e6, 1),
        "unschedulable": run.unschedulable - missed,
        "init_unschedulable": missed,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(
        f"{'workload':70} {'nodes':>6} {'pods':>6} {'pods/s':>8} {'CI':>5} {'ratio':>7} {'CPU µs':>7} {'apply µs':>9} unschedulable"
    )
    rows = []
    for workload in (*WORKLOADS, *DEVICE_WORKLOADS):
        if arguments.only.lower() not in workload.name.lower():
            continue
        row = measure(workload, arguments.scale)
        rows.append(row)
        ratio = f"{row['ratio']:.0f}x" if row["ratio"] else "-"
        print(
            f"{row['workload']:70} {row['nodes']:6} {row['pods']:6} {row['pods_per_s']:8}"
            f" {row['threshold'] or '-':>5} {ratio:>7} {row['cpu_us_per_pod']:7} {row['apply_us']:9} {row['unschedulable']}",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
