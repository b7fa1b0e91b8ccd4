"""Which parts a daemon runs."""

from __future__ import annotations

import pytest

from kcp.controlplane.cluster import ClusterOptions
from kcp.controlplane.settings import COMPONENTS, DaemonSettings


def test_everything_runs_unless_told_otherwise() -> None:
    assert DaemonSettings().parts == set(COMPONENTS)
    assert DaemonSettings(components="api, nodes").parts == {"api", "nodes"}
    assert DaemonSettings(components="").parts == set()
    assert ClusterOptions().controllers


def test_a_component_that_there_is_not_is_named() -> None:
    with pytest.raises(ValueError, match=r"^'kubelet' is no component: expected some of api, controllers, "):
        _ = DaemonSettings(components="api,kubelet").parts


def test_alpha_versions_are_switched_as_in_kubernetes() -> None:
    assert DaemonSettings().alpha_versions == frozenset()
    on = DaemonSettings(runtime_config="scheduling.k8s.io/v1alpha2=true").alpha_versions
    assert on == DaemonSettings(runtime_config=" scheduling.k8s.io/v1alpha2 ,").alpha_versions
    assert on == {"scheduling.k8s.io/v1alpha2"}
    assert DaemonSettings(runtime_config="scheduling.k8s.io/v1alpha2=false").alpha_versions == frozenset()
    with pytest.raises(ValueError, match="cannot switch 'api/all=true': expected some of scheduling"):
        _ = DaemonSettings(runtime_config="api/all=true").alpha_versions
