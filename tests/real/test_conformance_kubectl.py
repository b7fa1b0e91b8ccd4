"""The conformance behaviours of kubectl that need no real containers (rows `kubectl` of tests/conformance/scoreboard.csv)."""

from __future__ import annotations

import http.client
import json
import re
import selectors
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.objects import OTHER_IMAGE, container, controller, pod, workload
from tests.conformance.scoreboard import rows
from tests.real.daemon import eventually
from tests.real.kubectl import Kubectl

pytestmark = pytest.mark.real
PROVED = {
    "[sig-cli] Kubectl client Kubectl cluster-info should check if Kubernetes control plane services is included in cluster-info",
    "[sig-cli] Kubectl client Kubectl version should check is all data is printed",
    "[sig-cli] Kubectl client Kubectl describe should check if kubectl describe prints relevant information for rc and pods",
    "[sig-cli] Kubectl client Kubectl diff should check if kubectl diff finds a difference for Deployments",
    "[sig-cli] Kubectl client Kubectl expose should create services for rc",
    "[sig-cli] Kubectl client Kubectl label should update the label on a resource",
    "[sig-cli] Kubectl client Kubectl patch should add annotations for pods in rc",
    "[sig-cli] Kubectl client Kubectl replace should update a single-container pod's image",
    "[sig-cli] Kubectl client Kubectl run pod should create a pod from an image when restart is Never",
    "[sig-cli] Kubectl client Kubectl server-side dry-run should check if kubectl can dry-run update Pods",
    "[sig-cli] Kubectl logs logs should be able to retrieve and filter logs",
    "[sig-cli] Kubectl client Proxy server should support --unix-socket=/path",
    "[sig-cli] Kubectl client Proxy server should support proxy with --port 0",
}
DEADLINE_S = 20.0
IMAGE = "registry.example/httpd:1"
LINES = 20


def test_the_board_and_this_file_agree() -> None:
    assert {row.name for row in rows() if (row.status, row.needs) == ("passing", "kubectl")} == PROVED


def test_cluster_info(kubectl: Kubectl) -> None:
    assert "Kubernetes control plane" in re.sub(r"\x1b\[[0-9;]*m", "", kubectl("cluster-info"))


def test_version(kubectl: Kubectl) -> None:
    found = json.loads(kubectl("version", "-o", "json"))
    for side in ("clientVersion", "serverVersion"):
        for field in ("major", "minor", "gitVersion", "goVersion", "platform", "compiler"):
            assert found[side][field], (side, field)
    assert found["serverVersion"]["gitVersion"].startswith("v1.36")


@contextmanager
def proxy(kubectl: Kubectl, *options: str) -> Iterator[str]:
    """`kubectl proxy` until the block ends; gives the line that it prints first."""
    command = [str(kubectl.program), "proxy", *options]
    with subprocess.Popen(command, env=kubectl.environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                assert selector.select(DEADLINE_S), "kubectl proxy prints nothing"
            yield process.stdout.readline()
        finally:
            process.terminate()


def versions(connection: http.client.HTTPConnection) -> list[str]:
    connection.request("GET", "/api/")
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return list(answer["versions"])


def test_proxy_with_port_0(kubectl: Kubectl) -> None:
    with proxy(kubectl, "--port=0", "--disable-filter") as line:
        found = re.fullmatch(r"Starting to serve on 127\.0\.0\.1:(\d+)\n", line)
        assert found is not None, line
        assert versions(http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=DEADLINE_S)) == ["v1"]


def test_proxy_with_unix_socket(kubectl: Kubectl, tmp_path: Path) -> None:
    path = tmp_path / "proxy.sock"
    with proxy(kubectl, f"--unix-socket={path}") as line:
        assert line == f"Starting to serve on {path}\n"
        connection = http.client.HTTPConnection("localhost", timeout=DEADLINE_S)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.connect(str(path))
        assert versions(connection) == ["v1"]


def typed(kind: str, obj: dict[str, Any], group: str = "v1") -> str:
    """The object as a manifest."""
    return json.dumps({"apiVersion": group, "kind": kind, **obj})


def primary(kubectl: Kubectl) -> str:
    """A ReplicationController with one running pod that has a port, and a service for it. Gives the pod's name."""
    body = controller("agnhost-primary")
    labels = {"app": "agnhost", "role": "primary"}
    body["metadata"]["labels"] = body["spec"]["selector"] = body["spec"]["template"]["metadata"]["labels"] = (
        labels
    )
    ports = [{"name": "agnhost-server", "containerPort": 6379}]
    body["spec"]["template"]["spec"]["containers"] = [container("agnhost-primary", ports=ports)]
    kubectl("create", "-f", "-", stdin=typed("ReplicationController", body))
    spec = {"ports": [{"port": 6379, "targetPort": "agnhost-server"}], "selector": labels}
    kubectl(
        "create", "-f", "-", stdin=typed("Service", {"metadata": {"name": "agnhost-primary"}, "spec": spec})
    )
    running = ("get", "pods", "-l", "app=agnhost", "--field-selector=status.phase=Running", "-o", "name")
    return eventually(lambda: kubectl(*running).strip() or None, "a pod runs")


def test_describe(kubectl: Kubectl) -> None:
    name = primary(kubectl)
    wanted = {
        ("pod", name.removeprefix("pod/")): (
            "Name:", "Namespace:", "Node:", "Labels:", "app=agnhost", "role=primary", "Annotations:", "Status:",
            "Running", "IP:", "Controlled By:", "ReplicationController/agnhost-primary", "Image:", "State:", "QoS Class:",
        ),
        ("rc", "agnhost-primary"): (
            "Name:", "agnhost-primary", "Namespace:", "Selector:", "app=agnhost,role=primary", "Labels:", "Annotations:",
            "Replicas:", "1 current", "1 desired", "Pods Status:", "1 Running / 0 Waiting / 0 Succeeded / 0 Failed",
            "Pod Template:", "Image:", "Events:",
        ),
        ("service", "agnhost-primary"): (
            "Name:", "Namespace:", "Labels:", "Annotations:", "Selector:", "app=agnhost,role=primary", "Type:",
            "ClusterIP", "IP:", "Port:", "<unset>", "6379/TCP", "Endpoints:", "Session Affinity:",
        ),
        ("node", kubectl("get", "nodes", "-o", "name").split()[0].removeprefix("node/")): (
            "Name:", "Labels:", "Annotations:", "CreationTimestamp", "Conditions:", "Type", "Status", "LastHeartbeatTime",
            "LastTransitionTime", "Reason", "Message", "Addresses:", "Capacity:", "Version", "Kernel Version", "OS Image",
            "Container Runtime Version", "Kubelet Version", "Pods",
        ),
        ("namespace", kubectl.namespace): ("Name:", kubectl.namespace, "Labels:", "Annotations:", "Status:", "Active"),
    }  # fmt: skip
    for (kind, name), texts in wanted.items():
        said = kubectl("describe", kind, name)
        at = [said.find(text) for text in texts]
        assert -1 not in at, (kind, [text for text, place in zip(texts, at, strict=True) if place < 0], said)


def test_expose(kubectl: Kubectl) -> None:
    primary(kubectl)

    def points(service: str, port: int) -> None:
        found = eventually(
            lambda: kubectl.json("get", "endpoints", service).get("subsets"), f"endpoints of {service}"
        )
        assert [(len(each["addresses"]), each["ports"][0]["port"]) for each in found] == [(1, 6379)]
        assert [each["port"] for each in kubectl.json("get", "service", service)["spec"]["ports"]] == [port]

    kubectl("expose", "rc", "agnhost-primary", "--name=rm2", "--port=1234", "--target-port=6379")
    points("rm2", 1234)
    kubectl("expose", "service", "rm2", "--name=rm3", "--port=2345", "--target-port=6379")
    points("rm3", 2345)


def test_patch(kubectl: Kubectl) -> None:
    name = primary(kubectl)
    kubectl("patch", name, "-p", '{"metadata":{"annotations":{"x":"y"}}}')
    for each in kubectl.json("get", "pods", "-l", "app=agnhost")["items"]:
        assert each["metadata"]["annotations"]["x"] == "y"


def runs(kubectl: Kubectl, name: str) -> None:
    """A pod that runs."""
    kubectl("run", name, f"--image={IMAGE}", f"--labels=run={name}")
    kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=20s")


def image(kubectl: Kubectl, name: str) -> str:
    return kubectl("get", "pod", name, "-o", "jsonpath={.spec.containers[0].image}")


def test_label(kubectl: Kubectl) -> None:
    runs(kubectl, "pause")
    kubectl("label", "pods", "pause", "testing-label=testing-label-value")
    assert "testing-label-value" in kubectl("get", "pod", "pause", "-L", "testing-label")
    kubectl("label", "pods", "pause", "testing-label-")
    assert "testing-label-value" not in kubectl("get", "pod", "pause", "-L", "testing-label")


def test_replace(kubectl: Kubectl) -> None:
    runs(kubectl, "httpd")
    read = kubectl("get", "pod", "httpd", "-o", "json")
    kubectl("replace", "-f", "-", stdin=read.replace(IMAGE, OTHER_IMAGE))
    assert image(kubectl, "httpd") == OTHER_IMAGE


def test_run_with_restart_never(kubectl: Kubectl) -> None:
    kubectl("run", "httpd", "--restart=Never", f"--image={IMAGE}")
    found = kubectl.json("get", "pod", "httpd")
    assert [each["image"] for each in found["spec"]["containers"]] == [IMAGE]
    assert found["spec"]["restartPolicy"] == "Never"


def test_server_side_dry_run(kubectl: Kubectl) -> None:
    runs(kubectl, "httpd")
    patch = {"spec": {"containers": [{"name": "httpd", "image": OTHER_IMAGE}]}}
    said = kubectl("patch", "pod", "httpd", "-p", json.dumps(patch), "--dry-run=server")
    assert "patched" in said and image(kubectl, "httpd") == IMAGE


def test_diff(kubectl: Kubectl) -> None:
    body = workload("httpd", image=IMAGE)
    kubectl("create", "-f", "-", stdin=typed("Deployment", body, "apps/v1"))
    changed = typed("Deployment", workload("httpd", image=OTHER_IMAGE), "apps/v1")
    done = kubectl.run("diff", "-f", "-", stdin=changed)
    assert done.returncode == 1, done.stderr
    for line in (f"-      - image: {IMAGE}", f"+      - image: {OTHER_IMAGE}"):
        assert line in done.stdout


def test_logs(kubectl: Kubectl) -> None:
    script = "; ".join(f"echo line {number} of the log" for number in range(LINES)) + "; sleep 1000"
    kubectl("create", "-f", "-", stdin=typed("Pod", pod("logs-generator", script)))
    kubectl("wait", "pod/logs-generator", "--for=condition=Ready", "--timeout=20s")
    everything = kubectl("logs", "logs-generator", "main").splitlines()
    assert everything == [f"line {number} of the log" for number in range(LINES)]
    assert kubectl("logs", "logs-generator", "--tail=1") == everything[-1] + "\n"
    assert kubectl("logs", "logs-generator", "--limit-bytes=1") == everything[0][0]
    stamp, _, rest = kubectl("logs", "logs-generator", "--tail=1", "--timestamps").partition(" ")
    assert rest == everything[-1] + "\n" and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", stamp)
    assert kubectl("logs", "logs-generator", "--since=24h").splitlines() == everything
    eventually(
        lambda: not kubectl("logs", "logs-generator", "--since=1s"), "the last second says nothing more"
    )
