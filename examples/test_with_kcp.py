"""Tests of a program that talks to Kubernetes, each against a control plane of its own.

    pytest examples/test_with_kcp.py

The program under test is `restart_all`; it gets its configuration the usual way, from a kubeconfig. The fixture
`kcp_cluster` comes with the package: pytest finds it by itself.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

OPERATOR = Path(__file__).with_name("kopf_checksums.py")


def restart_all(api: client.AppsV1Api, namespace: str) -> list[str]:
    """Restart every Deployment of a namespace, as `kubectl rollout restart` does it; returns their names."""
    annotations = {"kubectl.kubernetes.io/restartedAt": datetime.now(UTC).isoformat()}
    patch = {"spec": {"template": {"metadata": {"annotations": annotations}}}}
    names = [found.metadata.name for found in api.list_namespaced_deployment(namespace).items]
    for name in names:
        api.patch_namespaced_deployment(name, namespace, patch)
    return names


def deployment(name: str, replicas: int) -> dict[str, Any]:
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "nginx"}]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template},
    }


@pytest.fixture
def apps(kcp_cluster: Any) -> Iterator[client.AppsV1Api]:
    with config.new_client_from_config(str(kcp_cluster.kubeconfig)) as connection:
        yield client.AppsV1Api(connection)


@pytest.mark.kcp(nodes=3)
def test_a_restart_replaces_every_pod(kcp_cluster: Any, apps: client.AppsV1Api) -> None:
    kcp_cluster.client.create(deployment("web", replicas=3))
    kcp_cluster.client.wait_for(lambda: available(kcp_cluster, "web") == 3)
    before = uids(kcp_cluster)

    assert restart_all(apps, "default") == ["web"]

    kcp_cluster.client.wait_for(lambda: len(uids(kcp_cluster)) == 3 and not uids(kcp_cluster) & before)


def test_nothing_to_restart(apps: client.AppsV1Api) -> None:
    assert restart_all(apps, "default") == []


@pytest.fixture
def operator(kcp_cluster: Any) -> Iterator[None]:
    command = [sys.executable, "-m", "kopf", "run", "--standalone", "-n", "default", str(OPERATOR)]
    process = subprocess.Popen(command, env={**os.environ, "KUBECONFIG": str(kcp_cluster.kubeconfig)})
    yield
    process.terminate()
    assert process.wait(20) == 0


@pytest.mark.usefixtures("operator")
def test_the_operator_annotates_config_maps(kcp_cluster: Any) -> None:
    kcp_cluster.client.create(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "settings", "labels": {"checksum": "yes"}},
            "data": {"colour": "green"},
        }
    )

    def checksum() -> str | None:
        found = kcp_cluster.client.get("configmaps", "settings")
        return (found["metadata"].get("annotations") or {}).get("example.com/checksum")

    assert len(kcp_cluster.client.wait_for(checksum)) == 12
    changes = kcp_cluster.sql("SELECT * FROM history WHERE kind = 'ConfigMap' AND name = 'settings'")
    assert len(changes) >= 2, "made by us, annotated by the operator"


def available(cluster: Any, name: str) -> int:
    return int(cluster.client.get("deployments", name).get("status", {}).get("availableReplicas", 0))


def uids(cluster: Any) -> set[str]:
    return {pod["metadata"]["uid"] for pod in cluster.client.list("pods", "default")}
