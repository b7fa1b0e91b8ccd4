"""Control planes for tests: a fixture for pytest, and the same without it.

    def test_it(kcp_cluster): ...                          # pytest loads kcp.testing.plugin by itself
    with kcp.testing.serve(directory, nodes=3) as it: ...  # the same by hand: HTTPS on a free port, in a thread
    async with kcp.testing.cluster(nodes=3) as it: ...     # no sockets, on the running loop
    kcp.testing.run_deterministic(main, 7)                 # a loop for the latter where time is virtual

Names are imported when they are asked for: pytest loads the plugin in every run, also where nobody uses it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kcp.base.loop import run_deterministic
    from kcp.testing.client import BlockingClient
    from kcp.testing.in_process import InProcessCluster, cluster
    from kcp.testing.served import ServedCluster, serve

__all__ = ["BlockingClient", "InProcessCluster", "ServedCluster", "cluster", "run_deterministic", "serve"]

_HOMES = {
    "BlockingClient": "kcp.testing.client",
    "InProcessCluster": "kcp.testing.in_process",
    "ServedCluster": "kcp.testing.served",
    "cluster": "kcp.testing.in_process",
    "run_deterministic": "kcp.base.loop",
    "serve": "kcp.testing.served",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
