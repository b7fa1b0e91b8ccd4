"""Rules that the workload kinds state as data, and their generations."""

from typing import Any

import pytest

from kcp.apis.catalog import build_catalog
from kcp.apis.kind import Strategy

Json = dict[str, Any]

_CATALOG = build_catalog()
_KINDS = ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet")


def _strategy(kind: str) -> Strategy:
    found = _CATALOG.by_kind("apps", "v1", kind)
    assert found is not None
    return found.strategy


def _workload(kind: str) -> Json:
    labels = {"app": "web"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "app", "image": "nginx:1.27"}]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "web", "namespace": "default", "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": template, "serviceName": "web"},
    }


@pytest.mark.parametrize("kind", _KINDS)
def test_a_client_cannot_set_status_on_create(kind: str) -> None:
    strategy, obj = _strategy(kind), _workload(kind)
    obj["status"] = {"observedGeneration": 7, "readyReplicas": 5}
    strategy.default(obj)
    strategy.prepare_create(obj)
    assert strategy.validate_create(obj) == []
    assert not {"observedGeneration", "readyReplicas"} & set(obj.get("status") or {})


@pytest.mark.parametrize("kind", _KINDS)
def test_a_status_write_leaves_the_spec_and_a_spec_write_leaves_the_status(kind: str) -> None:
    strategy, old = _strategy(kind), _workload(kind)
    strategy.default(old)
    strategy.prepare_create(old)
    old["status"] = {"observedGeneration": 1}
    by_status = {**old, "spec": {**old["spec"], "minReadySeconds": 9}, "status": {"observedGeneration": 2}}
    strategy.prepare_status(by_status, old)
    assert by_status["spec"] == old["spec"]
    assert by_status["status"]["observedGeneration"] == 2
    by_spec = {**old, "spec": {**old["spec"], "minReadySeconds": 9}, "status": {"observedGeneration": 2}}
    strategy.prepare_update(by_spec, old)
    assert by_spec["spec"]["minReadySeconds"] == 9
    assert by_spec["status"] == {"observedGeneration": 1}


@pytest.mark.parametrize("kind", _KINDS)
def test_the_selector_never_changes(kind: str) -> None:
    strategy, old = _strategy(kind), _workload(kind)
    strategy.default(old)
    strategy.prepare_create(old)
    new = _workload(kind)
    new["spec"]["selector"] = {"matchLabels": {"app": "other"}}
    new["spec"]["template"]["metadata"]["labels"] = {"app": "other"}
    strategy.default(new)
    strategy.prepare_update(new, old)
    errors = strategy.validate_update(new, old)
    assert errors
    assert all("immutable" in str(error) or "Forbidden" in str(error) for error in errors)


@pytest.mark.parametrize("kind", _KINDS)
def test_workloads_leave_their_pods_to_the_garbage_collector(kind: str) -> None:
    strategy = _strategy(kind)
    assert strategy.default_propagation == "Background"
    assert strategy.has_generation
