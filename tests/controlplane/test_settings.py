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
