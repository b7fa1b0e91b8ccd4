"""The everyday commands by every kubectl at hand, from Debian's 1.20 on."""

from __future__ import annotations

import pytest

from tests.real.daemon import ROOT, eventually
from tests.real.kubectl import CORE, FULL, Kubectl

pytestmark = [
    pytest.mark.real,
    pytest.mark.parametrize("kubectl", [*CORE, *FULL[1:]], indirect=True),
]


def test_everyday(kubectl: Kubectl) -> None:
    file = ROOT / "examples/httpserver.yaml"
    assert "v1.36." in kubectl("version")
    assert "deployments" in kubectl("api-resources")
    assert "containers" in kubectl("explain", "pod.spec")
    assert kubectl("apply", "-f", file) == "deployment.apps/httpserver created\n"
    assert kubectl("apply", "-f", file) == "deployment.apps/httpserver unchanged\n"
    kubectl("scale", "deployment/httpserver", "--replicas=2")
    kubectl("rollout", "status", "deployment/httpserver", "--timeout=60s")
    assert kubectl.rows("get", "deployment", "httpserver")[1][:2] == ["httpserver", "2/2"]
    kubectl("set", "image", "deployment/httpserver", "httpserver=example.com/httpserver:v2")
    kubectl("rollout", "status", "deployment/httpserver", "--timeout=60s")
    kubectl("rollout", "undo", "deployment/httpserver")
    kubectl("rollout", "status", "deployment/httpserver", "--timeout=60s")
    assert "Scaled up replica set" in kubectl("describe", "deployment", "httpserver")
    assert "SuccessfulCreate" in kubectl("get", "events")
    kubectl("label", "deployment", "httpserver", "tier=front")
    kubectl("annotate", "deployment", "httpserver", "note=hello")
    kubectl("patch", "deployment", "httpserver", "-p", '{"spec":{"paused":true}}')
    assert kubectl("auth", "can-i", "create", "pods") == "yes\n"
    assert kubectl.run("diff", "-f", file).returncode in (0, 1)
    assert kubectl("delete", "deployment", "httpserver", "--cascade=foreground").startswith(
        'deployment.apps "httpserver" deleted'
    )
    eventually(lambda: kubectl("get", "deploy,rs,pods", "-o", "name") == "", "nothing is left", 60)


def test_server_side_apply_and_create(kubectl: Kubectl) -> None:
    file = ROOT / "examples/service.yaml"
    assert kubectl("apply", "--server-side", "-f", file) == "service/httpserver serverside-applied\n"
    assert kubectl.json("get", "service", "httpserver")["spec"]["type"] == "ClusterIP"
    assert kubectl("create", "configmap", "one", "--from-literal=a=b") == "configmap/one created\n"
    assert kubectl("get", "configmap", "one", "-o", "jsonpath={.data.a}") == "b"
    assert kubectl("delete", "configmap", "one").startswith('configmap "one" deleted')
