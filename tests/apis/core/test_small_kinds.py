"""Rules of core kinds that a strategy states as data, and those that need large or stored objects."""

from typing import Any

import pytest

from kcp.apis.catalog import build_catalog
from kcp.apis.core.event import field_of
from kcp.apis.core.limits import scope_fits
from kcp.apis.core.namespace import prepare_finalize, validate_finalize
from kcp.apis.core.service import is_externally_accessible, is_headless, needs_health_check_port
from kcp.apis.kind import Strategy

Json = dict[str, Any]

_CATALOG = build_catalog()


def _strategy(kind: str, group: str = "", version: str = "v1") -> Strategy:
    found = _CATALOG.by_kind(group, version, kind)
    assert found is not None
    return found.strategy


@pytest.mark.parametrize("group", ["", "events.k8s.io"])
def test_events_expire(group: str) -> None:
    assert _strategy("Event", group).ttl_s == 3600


def test_pods_of_a_controller_outlive_it_by_default() -> None:
    assert _strategy("ReplicationController").default_propagation == "Orphan"
    assert _strategy("Pod").default_propagation == "Background"


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        ("Pod", "dns_subdomain"),
        ("Namespace", "dns_label"),
        ("ConfigMap", "dns_subdomain"),
        ("ServiceAccount", "dns_subdomain"),
        ("Node", "dns_subdomain"),
        ("PersistentVolume", "dns_subdomain"),
    ],
)
def test_names(kind: str, rule: str) -> None:
    assert _strategy(kind).name_rule == rule


@pytest.mark.parametrize(
    ("kind", "field", "over"),
    [("ConfigMap", "data", "x" * 2**20 + "x"), ("Secret", "data", "AAAA" * (2**20 // 3 + 2))],
)
def test_configuration_has_a_limit(kind: str, field: str, over: str) -> None:
    strategy = _strategy(kind)
    obj = {"metadata": {"name": "big", "namespace": "default"}, field: {"key": over}}
    strategy.default(obj)
    errors = [str(error) for error in strategy.validate_create(obj)]
    assert len(errors) == 1
    assert errors[0].endswith("Too long: may not be more than 1048576 bytes")
    obj[field] = {"key": "AAAA" * (2**20 // 4 // 2)}
    assert strategy.validate_create(obj) == []


def test_finalizers_of_a_namespace_change_by_its_subresource() -> None:
    old = {"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
    new = {
        "metadata": {"name": "a"},
        "spec": {"finalizers": ["example.com/x"]},
        "status": {"phase": "Terminating"},
    }
    prepare_finalize(new, old)
    assert new["status"] == {"phase": "Active"}
    assert new["spec"] == {"finalizers": ["example.com/x"]}
    assert validate_finalize(new, old) == []
    wrong = {**new, "spec": {"finalizers": ["mine"]}}
    assert [str(error) for error in validate_finalize(wrong, old)] == [
        'spec.finalizers[0]: Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified'
    ]


def test_what_a_service_spec_means() -> None:
    assert is_externally_accessible({"type": "NodePort"})
    assert is_externally_accessible({"type": "ClusterIP", "externalIPs": ["192.0.2.1"]})
    assert not is_externally_accessible({"type": "ClusterIP"})
    assert needs_health_check_port({"type": "LoadBalancer", "externalTrafficPolicy": "Local"})
    assert not needs_health_check_port({"type": "NodePort", "externalTrafficPolicy": "Local"})
    assert is_headless({"clusterIPs": ["None"]})
    assert not is_headless({"clusterIPs": ["10.0.0.1"]})


@pytest.mark.parametrize(
    ("scope", "resource", "fits"),
    [
        ("BestEffort", "pods", True),
        ("BestEffort", "requests.cpu", False),
        ("Terminating", "limits.memory", True),
        ("Terminating", "services", False),
        ("VolumeAttributesClass", "requests.storage", True),
        ("VolumeAttributesClass", "pods", False),
    ],
)
def test_what_a_quota_scope_counts(scope: str, resource: str, fits: bool) -> None:
    assert scope_fits(scope, resource) is fits


def test_an_event_is_read_alike_in_both_versions() -> None:
    assert field_of({"message": "hello"}, "message") == "hello"
    assert field_of({"note": "hello"}, "message") == "hello"
    assert field_of({"regarding": {"kind": "Pod"}}, "involvedObject") == {"kind": "Pod"}
    selectable = _strategy("Event").selectable
    event = {
        "involvedObject": {"kind": "Pod", "name": "web"},
        "reason": "Started",
        "source": {"component": "kubelet"},
    }
    assert selectable["involvedObject.kind"](event) == "Pod"
    assert selectable["involvedObject.name"](event) == "web"
    assert selectable["reason"](event) == "Started"
    assert selectable["source"](event) == "kubelet"


def test_nodes_are_selected_by_schedulability() -> None:
    read = _strategy("Node").selectable["spec.unschedulable"]
    assert read({"spec": {"unschedulable": True}}) == "true"
    assert read({"spec": {}}) == "false"


def test_replication_controllers_are_selected_by_their_pods() -> None:
    assert (
        _strategy("ReplicationController").selectable["status.replicas"]({"status": {"replicas": 3}}) == "3"
    )
