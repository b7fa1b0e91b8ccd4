"""Gangs, tenant queues and the guard together: kubectl on a daemon, then its decisions once more from the log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.real import kubectl as kubectls
from tests.real.component import Component
from tests.real.daemon import ROOT, Daemon, environment, eventually, kcp
from tests.real.kubectl import Kubectl

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]
EXAMPLES = ROOT / "examples"


def everything(folder: Path) -> Path:
    """A configuration with the plugins of all three examples."""
    files = ("gang/scheduler.yaml", "tenants/scheduler.yaml", "scheduler-plugins/node-failure-guard.yaml")
    parts = [yaml.safe_load((EXAMPLES / file).read_text(encoding="utf-8"))["profiles"][0] for file in files]
    enabled = [plugin for part in parts for plugin in part["plugins"]["multiPoint"]["enabled"]]
    profile = {
        "schedulerName": "default-scheduler",
        "plugins": {"multiPoint": {"enabled": enabled, "disabled": [{"name": "PrioritySort"}]}},
        "pluginConfig": [entry for part in parts for entry in part["pluginConfig"]],
    }
    document = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "profiles": [profile],
    }
    file = folder / "scheduler.yaml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    return file


def test_the_examples_work_together_and_replay(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """Two nodes: room for four workers of two CPUs beside the one that is guaranteed, and for eight pods of one."""
    options = ("--scheduler-config", str(everything(tmp_path)), "--node-cpu", "4500m")
    daemon = make_daemon(*options, nodes=2).start()
    variables = {**environment(daemon.home), "KUBECONFIG": str(daemon.kubeconfig)}
    program = kubectls.binary("path")
    kubectl, research, serving = (
        Kubectl(program, variables, name) for name in ("default", "research", "serving")
    )

    def ready(at: Kubectl, deployment: str, count: str) -> bool:
        return at("get", "deployment", deployment, "-o", "jsonpath={.status.readyReplicas}").strip() == count

    kubectl("apply", "-f", str(EXAMPLES / "gang/training.yaml"))
    condition = "--for=condition=PodGroupScheduled"
    kubectl("wait", condition, "podgroup/training", "--timeout=30s")
    kubectl("wait", "--for=condition=complete", "job/training", "--timeout=30s")
    assert "Gang" in kubectl("get", "podgroups")

    research("apply", "-f", str(EXAMPLES / "tenants/workloads.yaml"))
    eventually(lambda: ready(research, "experiments", "6"), "research borrows")
    full = 'queue "research" is at its capability'
    eventually(lambda: full in research("describe", "pods"), "the seventh pod says why")
    serving("apply", "-f", str(EXAMPLES / "tenants/serving.yaml"))
    eventually(lambda: ready(serving, "frontend", "4"), "serving has its due")
    eventually(lambda: ready(research, "experiments", "4"), "and research what is left")

    daemon.stop()
    file = tmp_path / "incident.parquet"
    exported = kcp("export", file, "--data", daemon.data, home=daemon.home)
    assert exported.returncode == 0, exported.stderr
    replayed = kcp("replay", file, home=daemon.home)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    head, identical = replayed.stdout.strip().splitlines()[-1].split(" decisions, ")
    assert identical == f"{head} identical"


def test_a_scheduler_apart_schedules_gangs_too(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    options = ("--components", "api,controllers,nodes", "--runtime-config", "scheduling.k8s.io/v1alpha2=true")
    daemon = make_daemon(*options, nodes=3).start()
    kubectl = Kubectl(
        kubectls.binary("path"), {**environment(daemon.home), "KUBECONFIG": str(daemon.kubeconfig)}
    )
    config = ("--config", str(EXAMPLES / "gang/scheduler.yaml"))
    apart = Component("scheduler", "gangs", daemon.data / "scheduler.kubeconfig", tmp_path, config).start()
    try:
        kubectl("apply", "-f", str(EXAMPLES / "gang/training.yaml"))
        kubectl("wait", "--for=condition=PodGroupScheduled", "podgroup/training", "--timeout=30s")
        kubectl("wait", "--for=condition=complete", "job/training", "--timeout=30s")
    finally:
        apart.stop()
