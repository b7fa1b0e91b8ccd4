"""`kcp fit` and `kcp whatif` on the log of a real daemon that kubectl talked to, while it runs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.real import kubectl as kubectls
from tests.real.daemon import Daemon, environment, eventually, kcp
from tests.real.kubectl import Kubectl

pytestmark = pytest.mark.real
Json = dict[str, Any]
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME}
spec:
  replicas: REPLICAS
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec:
      priorityClassName: PRIORITY
      containers: [{name: main, image: x, resources: {requests: {cpu: CPU}}}]
"""
CLASSES = """
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: high}
value: 1000
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: low}
value: 1
"""


def deployment(name: str, replicas: int, cpu: str, priority: str = "low") -> str:
    values = {"NAME": name, "REPLICAS": str(replicas), "CPU": cpu, "PRIORITY": priority}
    text = DEPLOYMENT
    for word, value in values.items():
        text = text.replace(word, value)
    return text


@pytest.fixture(scope="module")
def kubectl(daemon: Daemon) -> Kubectl:
    try:
        program = kubectls.binary("path")
    except kubectls.Missing as reason:
        pytest.skip(str(reason))
    found = Kubectl(program, {**environment(daemon.home), "KUBECONFIG": str(daemon.kubeconfig)})
    found("apply", "-f", "-", stdin=CLASSES)
    return found


def placed(kubectl: Kubectl, app: str) -> tuple[Counter[str], set[str]]:
    """(how many on each node, what is said of those that are on none) of an application's pods."""
    pods: list[Json] = json.loads(kubectl("get", "pods", "-l", f"app={app}", "-o", "json"))["items"]
    texts = {
        condition.get("message", "")
        for pod in pods
        for condition in (pod.get("status") or {}).get("conditions") or ()
        if condition["type"] == "PodScheduled" and condition["status"] == "False"
    }
    return Counter(pod["spec"]["nodeName"] for pod in pods if pod["spec"].get("nodeName")), texts


def test_so_many_fit_and_the_next_one_waits_with_that_text(
    daemon: Daemon, kubectl: Kubectl, tmp_path: Path
) -> None:
    kubectl("apply", "-f", "-", stdin=deployment("filler", 4, "600m"))
    eventually(lambda: sum(placed(kubectl, "filler")[0].values()) == 4, "the first pods are bound")
    file = tmp_path / "web.yaml"
    file.write_text(deployment("web", 1, "700m"))
    asked = kcp("fit", "-f", file, "--data", daemon.data, "--format", "json", home=daemon.home)
    assert asked.returncode == 0, asked.stderr
    (found,) = json.loads(asked.stdout)
    assert found["fit"] > 3
    kubectl("apply", "-f", "-", stdin=deployment("web", found["fit"] + 1, "700m"))
    eventually(
        lambda: placed(kubectl, "web")[1] == {found["message"]}, "one waits with the text that was told"
    )
    nodes, _ = placed(kubectl, "web")
    assert dict(nodes) == {node["node"]: node["fit"] for node in found["nodes"] if node["fit"]}


def test_the_log_of_a_busy_daemon_decides_the_same_again(daemon: Daemon, kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=deployment("vip", 5, "900m", "high"))
    eventually(lambda: sum(placed(kubectl, "vip")[0].values()) == 5, "room was made")
    kubectl("scale", "deployment", "filler", "--replicas=12")
    kubectl("delete", "deployment", "vip", "--wait=false")
    kubectl("scale", "deployment", "web", "--replicas=2")
    eventually(lambda: sum(placed(kubectl, "filler")[0].values()) >= 10, "what waited came to run")
    done = kcp("whatif", daemon.data, "--format", "json", home=daemon.home)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["same"] and found["courses"][0]["preemptions"] > 0
    assert found["courses"][0]["decisions"] == found["courses"][1]["decisions"] > 30
    more = json.loads(
        kcp("whatif", daemon.data, "--nodes", "+2", "--format", "json", home=daemon.home).stdout
    )
    assert not more["same"] and more["courses"][1]["preemptions"] == 0
