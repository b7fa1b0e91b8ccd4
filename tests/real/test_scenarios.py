"""The scenarios under `examples/`, as a person would type them, against simulated nodes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.real.daemon import ROOT, Daemon, eventually
from tests.real.https import Api
from tests.real.kubectl import FULL, Kubectl

pytestmark = [
    pytest.mark.real,
    pytest.mark.parametrize("kubectl", FULL, indirect=True),
]

EXAMPLES = ROOT / "examples"
SCHEDULING = EXAMPLES / "scheduling"
NOT_HELPFUL = (
    " no new claims to deallocate, preemption: 0/3 nodes are available: "
    "3 Preemption is not helpful for scheduling."
)
NO_VICTIMS = (
    " no new claims to deallocate, preemption: 0/3 nodes are available: "
    "3 No preemption victims found for incoming pod."
)


@pytest.fixture
def nodes(api: Api, daemon: Daemon) -> Iterator[list[str]]:
    """The names of the three nodes, ready; afterwards they are as they were."""
    del daemon
    before = eventually(lambda: ready(api), "three nodes are ready", 60)
    yield [node["metadata"]["name"] for node in before]
    for node in before:
        restore(api, node)


def ready(api: Api) -> list[dict[str, Any]] | None:
    found = [node for node in api.get("/api/v1/nodes")["items"] if not node["spec"].get("taints")]
    good = [n for n in found if condition(n, "Ready").get("status") == "True"]
    return good if len(good) == 3 else None


def condition(obj: dict[str, Any], kind: str) -> dict[str, Any]:
    for found in obj.get("status", {}).get("conditions", []):
        if found["type"] == kind:
            return dict(found)
    return {}


def restore(api: Api, node: dict[str, Any]) -> None:
    """Give a node its labels and taints of before."""
    path = f"/api/v1/nodes/{node['metadata']['name']}"
    now = api.get(path)["metadata"].get("labels", {})
    labels = {**dict.fromkeys(now), **node["metadata"]["labels"]}
    patch = {"metadata": {"labels": labels}, "spec": {"taints": None, "unschedulable": None}}
    assert api.request("PATCH", path, patch, content_type="application/merge-patch+json").status == 200


def pods(kubectl: Kubectl, selector: str = "") -> list[dict[str, Any]]:
    options = ("-l", selector) if selector else ()
    return list(kubectl.json("get", "pods", *options)["items"])


def running(kubectl: Kubectl, selector: str = "", count: int = 1) -> list[dict[str, Any]]:
    """The pods, once that many of them run and are ready."""

    def probe() -> list[dict[str, Any]] | None:
        found = pods(kubectl, selector)
        good = [p for p in found if condition(p, "Ready").get("status") == "True"]
        return found if len(good) == len(found) == count else None

    return eventually(probe, f"{count} running pods {selector}")


def unschedulable(kubectl: Kubectl, selector: str = "") -> dict[str, Any]:
    """The one pod that waits, once the scheduler has said why."""

    def probe() -> dict[str, Any] | None:
        waiting = [
            p
            for p in pods(kubectl, selector)
            if condition(p, "PodScheduled").get("reason") == "Unschedulable"
        ]
        return waiting[0] if len(waiting) == 1 else None

    return eventually(probe, f"a pod {selector} is unschedulable")


def failed_scheduling(kubectl: Kubectl, pod: dict[str, Any]) -> str:
    """The message of the pod's newest FailedScheduling Event."""

    def probe() -> str | None:
        selector = f"reason=FailedScheduling,involvedObject.name={pod['metadata']['name']}"
        events = kubectl.json("get", "events", "--field-selector", selector)["items"]
        return str(events[-1]["message"]) if events else None

    return eventually(probe, "a FailedScheduling event")


def waits_because(kubectl: Kubectl, text: str, selector: str = "") -> None:
    pod = unschedulable(kubectl, selector)
    assert pod["status"]["phase"] == "Pending"
    assert condition(pod, "PodScheduled")["message"] == text
    assert failed_scheduling(kubectl, pod) == text
    assert text in " ".join(kubectl("describe", "pod", pod["metadata"]["name"]).split())


# -- a Deployment ---------------------------------------------------------------------------------------


def test_httpserver(kubectl: Kubectl, nodes: list[str]) -> None:
    assert kubectl("apply", "-f", EXAMPLES / "httpserver.yaml") == "deployment.apps/httpserver created\n"
    assert "successfully rolled out" in kubectl("rollout", "status", "deployment/httpserver", "--timeout=60s")
    (pod,) = running(kubectl, "app=httpserver")
    shown = kubectl.rows("get", "deploy,rs,pod", "-o", "wide")
    deployment, replica_set, listed = (row for row in shown if "/" in row[0])
    assert deployment[:4] == ["deployment.apps/httpserver", "1/1", "1", "1"]
    assert deployment[5:] == ["httpserver", "example.com/httpserver:v1", "app=httpserver"]
    assert replica_set[1:4] == ["1", "1", "1"]
    assert listed[1:3] == ["1/1", "Running"]
    assert listed[5:7] == [pod["status"]["podIP"], pod["spec"]["nodeName"]]
    assert pod["spec"]["nodeName"] in nodes
    assert pod["status"]["qosClass"] == "Burstable"
    owner = kubectl.json("get", "rs", pod["metadata"]["ownerReferences"][0]["name"])
    assert owner["metadata"]["ownerReferences"][0]["name"] == "httpserver"


def test_describe_and_events(kubectl: Kubectl, nodes: list[str]) -> None:
    kubectl("apply", "-f", EXAMPLES / "httpserver.yaml")
    (pod,) = running(kubectl, "app=httpserver")
    name, node = pod["metadata"]["name"], pod["spec"]["nodeName"]
    reasons = ["Scheduled", "Pulled", "Created", "Started"]

    def told() -> bool:
        selector = f"involvedObject.name={name}"
        events = kubectl.json("get", "events", "--field-selector", selector)["items"]
        return set(reasons) <= {event["reason"] for event in events}

    eventually(told, "the pod's events are there")
    text = kubectl("describe", "pod", name)
    words = " ".join(text.split())
    assert f"Successfully assigned {kubectl.namespace}/{name} to {node}" in words
    assert re.search(rf"^Node: +{node}/", text, re.M)
    assert "memory: 500Mi" in words and "cpu: 100m" in words
    assert re.search(r"^Controlled By: +ReplicaSet/httpserver-", text, re.M)
    deployment = " ".join(kubectl("describe", "deployment", "httpserver").split())
    assert "1 desired | 1 updated | 1 total | 1 available | 0 unavailable" in deployment
    assert "Scaled up replica set httpserver-" in deployment
    assert f"{kubectl.namespace} {name}" in " ".join(kubectl("describe", "node", node).split())


def test_scale_update_and_undo(kubectl: Kubectl, nodes: list[str]) -> None:
    kubectl("apply", "-f", EXAMPLES / "httpserver.yaml")
    kubectl("scale", "deployment/httpserver", "--replicas=3")
    assert len({p["status"]["podIP"] for p in running(kubectl, "app=httpserver", 3)}) == 3
    assert kubectl("set", "image", "deployment/httpserver", "httpserver=example.com/httpserver:v2") == (
        "deployment.apps/httpserver image updated\n"
    )
    kubectl("rollout", "status", "deployment/httpserver", "--timeout=60s")
    images = [p["spec"]["containers"][0]["image"] for p in running(kubectl, "app=httpserver", 3)]
    assert images == ["example.com/httpserver:v2"] * 3
    sets = {rs["spec"]["replicas"] for rs in kubectl.json("get", "rs")["items"]}
    assert sets == {0, 3}
    assert "rolled back" in kubectl("rollout", "undo", "deployment/httpserver")
    kubectl("rollout", "status", "deployment/httpserver", "--timeout=60s")
    images = [p["spec"]["containers"][0]["image"] for p in running(kubectl, "app=httpserver", 3)]
    assert images == ["example.com/httpserver:v1"] * 3
    kubectl("scale", "deployment/httpserver", "--replicas=1")
    running(kubectl, "app=httpserver", 1)


def test_a_rollout_that_cannot_succeed_stops(kubectl: Kubectl, nodes: list[str]) -> None:
    kubectl("apply", "-f", EXAMPLES / "httpserver.yaml")
    kubectl("scale", "deployment/httpserver", "--replicas=3")
    running(kubectl, "app=httpserver", 3)
    kubectl("set", "resources", "deployment/httpserver", "--requests=cpu=10", "--limits=cpu=30")
    unschedulable(kubectl, "app=httpserver")
    assert kubectl.json("get", "deployment", "httpserver")["status"]["availableReplicas"] == 3
    late = kubectl.run("rollout", "status", "deployment/httpserver", "--timeout=500ms")
    assert late.returncode != 0
    kubectl("rollout", "undo", "deployment/httpserver")
    kubectl("rollout", "status", "deployment/httpserver", "--timeout=60s")
    running(kubectl, "app=httpserver", 3)


def test_delete_takes_everything_below(kubectl: Kubectl, nodes: list[str]) -> None:
    kubectl("apply", "-f", EXAMPLES / "httpserver.yaml")
    running(kubectl, "app=httpserver")
    kubectl("delete", "-f", EXAMPLES / "httpserver.yaml")
    eventually(lambda: kubectl("get", "deploy,rs,pods", "-o", "name") == "", "nothing is left", 60)


def test_a_pod_that_is_deleted_is_replaced(kubectl: Kubectl, nodes: list[str]) -> None:
    kubectl("apply", "-f", EXAMPLES / "httpserver.yaml")
    (first,) = running(kubectl, "app=httpserver")
    kubectl("delete", "pod", first["metadata"]["name"])
    (second,) = running(kubectl, "app=httpserver")
    assert second["metadata"]["uid"] != first["metadata"]["uid"]


def test_a_service_and_its_endpoints(kubectl: Kubectl, nodes: list[str]) -> None:
    kubectl("apply", "-f", EXAMPLES / "httpserver.yaml", "-f", EXAMPLES / "service.yaml")
    kubectl("scale", "deployment/httpserver", "--replicas=2")
    addresses = {p["status"]["podIP"] for p in running(kubectl, "app=httpserver", 2)}

    def published() -> bool:
        slices = kubectl.json("get", "endpointslices", "-l", "kubernetes.io/service-name=httpserver")
        ready_ = [
            e["addresses"][0]
            for piece in slices["items"]
            for e in piece["endpoints"] or []
            if e["conditions"]["ready"]
        ]
        return set(ready_) == addresses and len(ready_) == 2

    eventually(published, "the EndpointSlice has both pods")
    assert kubectl("get", "service", "httpserver", "-o", "jsonpath={.spec.clusterIP}").startswith("10.96.")


def test_logs(kubectl: Kubectl, nodes: list[str]) -> None:
    kubectl("apply", "-f", EXAMPLES / "httpserver.yaml")
    (pod,) = running(kubectl, "app=httpserver")
    done = kubectl.run("logs", pod["metadata"]["name"])
    assert done.returncode == 0, done.stderr


# -- resources ------------------------------------------------------------------------------------------


def test_requests_that_no_node_has(kubectl: Kubectl, nodes: list[str]) -> None:
    kubectl("apply", "-f", SCHEDULING / "too-large.yaml")
    waits_because(kubectl, "0/3 nodes are available: 3 Insufficient cpu." + NOT_HELPFUL)


def test_defaults_of_a_limit_range(kubectl: Kubectl, nodes: list[str]) -> None:
    kubectl("apply", "-f", EXAMPLES / "limit-range.yaml")
    pod = kubectl.json("get", "pod", "modest")
    assert pod["spec"]["containers"][0]["resources"] == {
        "limits": {"memory": "512Mi"},
        "requests": {"memory": "256Mi"},
    }
    assert pod["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
        "LimitRanger plugin set: memory request for container main; memory limit for container main"
    )
    assert "256Mi" in kubectl("describe", "limitrange", "memory-defaults")
    running(kubectl)


# -- where pods go --------------------------------------------------------------------------------------


def test_node_selector(kubectl: Kubectl, nodes: list[str]) -> None:
    kubectl("apply", "-f", SCHEDULING / "node-selector.yaml")
    waits_because(
        kubectl,
        "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector." + NOT_HELPFUL,
    )
    kubectl("label", "node", nodes[1], "disktype=ssd")
    (pod,) = running(kubectl, "app=on-ssd")
    assert pod["spec"]["nodeName"] == nodes[1]


def test_node_affinity(kubectl: Kubectl, nodes: list[str]) -> None:
    kubectl("label", "node", nodes[0], nodes[2], "disktype=ssd")
    kubectl("label", "node", nodes[1], nodes[2], "region=south")
    kubectl("apply", "-f", SCHEDULING / "node-affinity.yaml")
    (pod,) = running(kubectl, "app=in-the-south")
    assert pod["spec"]["nodeName"] == nodes[2]


def test_node_affinity_required(kubectl: Kubectl, nodes: list[str]) -> None:
    kubectl("label", "node", nodes[1], "region=south")
    kubectl("apply", "-f", SCHEDULING / "node-affinity.yaml")
    waits_because(
        kubectl,
        "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector." + NOT_HELPFUL,
    )
    kubectl("label", "node", nodes[0], "disktype=ssd")
    (pod,) = running(kubectl, "app=in-the-south")
    assert pod["spec"]["nodeName"] == nodes[0]


def test_pod_anti_affinity(kubectl: Kubectl, nodes: list[str]) -> None:
    kubectl("apply", "-f", SCHEDULING / "pod-anti-affinity.yaml")
    assert {p["spec"]["nodeName"] for p in running(kubectl, "app=apart", 3)} == set(nodes)
    kubectl("scale", "deployment/apart", "--replicas=4")
    waits_because(
        kubectl,
        "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules." + NO_VICTIMS,
        "app=apart",
    )


def test_pod_affinity(kubectl: Kubectl, nodes: list[str]) -> None:
    kubectl("apply", "-f", SCHEDULING / "pod-affinity.yaml")
    waits_because(
        kubectl, "0/3 nodes are available: 3 node(s) didn't match pod affinity rules." + NOT_HELPFUL
    )
    kubectl("apply", "-f", EXAMPLES / "httpserver.yaml")
    server, beside = sorted(running(kubectl, count=2), key=lambda p: len(p["metadata"]["name"]), reverse=True)
    assert beside["spec"]["nodeName"] == server["spec"]["nodeName"]


# -- taints ---------------------------------------------------------------------------------------------


def test_taints_and_tolerations(kubectl: Kubectl, nodes: list[str]) -> None:
    tainted = kubectl("taint", "nodes", *nodes, "for-special-user=cadmin:NoSchedule").splitlines()
    assert sorted(tainted) == sorted(f"node/{name} tainted" for name in nodes)
    kubectl("apply", "-f", SCHEDULING / "tolerations.yaml")
    eventually(lambda: phase(kubectl, "special") == "Running", "the pod that tolerates runs")
    waits_because(kubectl, "0/3 nodes are available: 3 node(s) had untolerated taint(s)." + NOT_HELPFUL)
    kubectl("taint", "nodes", nodes[0], "for-special-user=cadmin:NoSchedule-")
    eventually(lambda: phase(kubectl, "ordinary") == "Running", "the other runs as well")
    assert kubectl.json("get", "pod", "ordinary")["spec"]["nodeName"] == nodes[0]


def phase(kubectl: Kubectl, pod: str) -> str:
    return kubectl("get", "pod", pod, "--ignore-not-found", "-o", "jsonpath={.status.phase}")


def test_no_execute(kubectl: Kubectl, nodes: list[str]) -> None:
    for name in nodes[1:]:
        kubectl("cordon", name)
    kubectl("apply", "-f", SCHEDULING / "no-execute.yaml")
    placed = running(kubectl, count=3)
    assert {p["spec"]["nodeName"] for p in placed} == {nodes[0]}
    kubectl("taint", "nodes", nodes[0], "maintenance=now:NoExecute")
    since = time.monotonic()
    eventually(lambda: phase(kubectl, "hasty") == "", "the pod without a toleration is evicted")
    assert phase(kubectl, "settled") == "Running"
    eventually(lambda: phase(kubectl, "patient") == "", "the pod with tolerationSeconds is evicted")
    assert time.monotonic() - since >= 1.5, "tolerationSeconds delays the eviction"
    assert phase(kubectl, "settled") == "Running"
    evicted = kubectl("get", "events", "--field-selector", "reason=TaintManagerEviction")
    assert "Marking for deletion Pod" in evicted


# -- priorities -----------------------------------------------------------------------------------------


def test_priorities(kubectl: Kubectl, nodes: list[str], daemon: Daemon) -> None:
    kubectl("apply", "-f", SCHEDULING / "priorities.yaml")
    for name, value in (("relaxed", 100), ("urgent", 100000)):
        spec = kubectl.json("get", "pod", name)["spec"]
        assert spec["priority"] == value
    assert kubectl.json("get", "pod", "relaxed")["spec"]["preemptionPolicy"] == "Never"
    eventually(lambda: waited(kubectl, "relaxed") and waited(kubectl, "urgent"), "both have waited")
    kubectl("label", "node", nodes[0], "queue=priorities")
    running(kubectl, count=2)
    bound = daemon.sql(
        "SELECT name FROM pod_history WHERE node IS NOT NULL "
        f"AND ns = '{kubectl.namespace}' GROUP BY name ORDER BY min(rv)",
        "--format",
        "csv",
    )
    assert bound.split() == ["name", "urgent", "relaxed"]


def waited(kubectl: Kubectl, pod: str) -> bool:
    """Longer than the scheduler's back-off, so that nothing but priority decides who is next."""
    found = condition(kubectl.json("get", "pod", pod), "PodScheduled")
    if found.get("reason") != "Unschedulable":
        return False
    since = time.mktime(time.strptime(found["lastTransitionTime"], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
    return time.time() - since > 3


def test_an_unknown_priority_class_is_refused(kubectl: Kubectl) -> None:
    text = (SCHEDULING / "priorities.yaml").read_text(encoding="utf-8").split("---")[-1]
    refused = kubectl.fails("create", "-f", "-", stdin=text.replace("high-priority", "no-such-class"))
    assert refused == (
        'Error from server (Forbidden): error when creating "STDIN": pods "urgent" is forbidden: '
        "no PriorityClass with name no-such-class was found"
    )
