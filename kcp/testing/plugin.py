"""The pytest plugin: the fixture `kcp_cluster` and the marker `kcp`, which says what the fixture's cluster is like.

Nothing of kcp is imported before a test asks for the fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kcp.testing.served import ServedCluster

OPTIONS = ("nodes", "node_cpu", "node_memory", "node_pods")
SIGNATURE = "kcp(nodes=1, node_cpu='4', node_memory='16Gi', node_pods=110)"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{SIGNATURE}: what the cluster of the fixture kcp_cluster is like.")


@pytest.fixture
def kcp_cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServedCluster]:
    """A Kubernetes control plane for this test alone: HTTPS on a free port, with simulated nodes."""
    from kcp.testing.served import serve

    with serve(tmp_path / "kcp", **_options(request.node.get_closest_marker("kcp"))) as cluster:
        yield cluster


def _options(marker: pytest.Mark | None) -> dict[str, Any]:
    """The marker's arguments. Raises UsageError for those that it has not."""
    if marker is None:
        return {}
    wrong = [repr(value) for value in marker.args] + [name for name in marker.kwargs if name not in OPTIONS]
    if wrong:
        raise pytest.UsageError(f"@pytest.mark.kcp does not take {', '.join(wrong)}; it is {SIGNATURE}")
    return dict(marker.kwargs)
