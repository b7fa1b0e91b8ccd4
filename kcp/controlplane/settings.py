"""What a daemon can be told: flags of `kcp up`, KCP_* in the environment, `kcp.toml` in the data directory."""

from __future__ import annotations

import attrs

from kcp.base.settings import setting

MAX_PORT = 65535


@attrs.frozen
class DaemonSettings:
    """One daemon. Units are in the names."""

    data: str = setting(".kcp", "Directory of the log, the keys and the kubeconfig.")
    listen: str = setting("127.0.0.1:6443", "Address and port to serve HTTPS on; port 0 takes a free one.")
    advertise: str = setting(
        "", "Endpoint of the Service kubernetes; empty means this machine's own address."
    )
    store: str = setting("", "URL of the event log; empty means SQLite in the data directory.")
    nodes: int = setting(0, "How many simulated nodes to run.")
    node_cpu: str = setting("4", "CPUs of each simulated node.")
    node_memory: str = setting("16Gi", "Memory of each simulated node.")
    node_pods: int = setting(110, "Pods that each simulated node takes.")
    service_cidr: str = setting("10.96.0.0/16", "Range of cluster IPs.")
    api_history_s: float = setting(
        300.0, "Seconds for which the API serves old revisions; SQL sees all of them."
    )
    log_level: str = setting("warning", "debug, info, warning or error.")
    log_format: str = setting("console", "console or json.")

    @property
    def store_url(self) -> str:
        return self.store or self.data

    @property
    def host(self) -> str:
        return self._address[0]

    @property
    def port(self) -> int:
        """Raises ValueError for what is no HOST:PORT."""
        return self._address[1]

    @property
    def _address(self) -> tuple[str, int]:
        host, colon, port = self.listen.rpartition(":")
        if not colon or not port.isdecimal():
            raise ValueError(f"{self.listen!r} is no address to listen on: expected HOST:PORT")
        if int(port) > MAX_PORT:
            raise ValueError(f"{self.listen!r} is no address to listen on: the port is beyond {MAX_PORT}")
        return host.strip("[]") or "127.0.0.1", int(port)
