"""What a daemon can be told: flags of `kcp up`, KCP_* in the environment, `kcp.toml` in the data directory."""

from __future__ import annotations

from pathlib import Path

from kcp.api.audit.log import MIB, AuditLog, Place
from kcp.api.audit.policy import EVERYTHING, read
from kcp.api.filters.audit import Trail
from kcp.apis.catalog import ALPHA_VERSIONS
from kcp.base.clock import Clock
from kcp.base.settings import setting
from kcp.base.values import frozen
from kcp.store import parquet
from kcp.store.open import is_postgres
from kcp.store.seal import Policy
from kcp.store.sealing import HOT_S

MAX_PORT = 65535
COMPONENTS = ("api", "controllers", "scheduler", "nodes")


@frozen
class DaemonSettings:
    """One daemon. Units are in the names."""

    data: str = setting(".kcp", "Directory of the log, the keys and the kubeconfig.")
    listen: str = setting("127.0.0.1:6443", "Address and port to serve HTTPS on; port 0 takes a free one.")
    advertise: str = setting(
        "", "Endpoint of the Service kubernetes; empty means this machine's own address."
    )
    store: str = setting("", "URL of the event log; empty means SQLite in the data directory.")
    components: str = setting(
        "api,controllers,scheduler,nodes",
        "What runs in this process, the API in any case; others can be processes of their own.",
    )
    nodes: int = setting(0, "How many simulated nodes to run.")
    node_cpu: str = setting("4", "CPUs of each simulated node.")
    node_memory: str = setting("16Gi", "Memory of each simulated node.")
    node_pods: int = setting(110, "Pods that each simulated node takes.")
    scheduler_config: str = setting(
        "", "File with a KubeSchedulerConfiguration (v1); empty means the default profile."
    )
    runtime_config: str = setting(
        "", "Alpha API versions to serve, as in scheduling.k8s.io/v1alpha2=true; commas between them."
    )
    service_cidr: str = setting(
        "10.96.0.0/16", "Range of cluster IPs; or two, one of each IP family, with a comma between."
    )
    api_history_s: float = setting(
        300.0, "Seconds for which the API serves old revisions; SQL sees all of them."
    )
    seal_after_s: float = setting(
        HOT_S,
        "Seconds after which events move to parquet files; 0: never. Needs the extra kcp[archive]; on PostgreSQL also `archive`.",
    )
    history_retention_s: float = setting(
        0.0, "Seconds after which sealed ranges are dropped for ever; 0: history is kept."
    )
    archive: str = setting(
        "",
        "Folder of the sealed files; empty means `archive` beside the log. Daemons on one PostgreSQL need one that all of them see.",
    )
    audit_log: str = setting("", "File to tell requests to, one audit.k8s.io/v1 Event a line; - is stdout.")
    audit_policy: str = setting(
        "", "File with an audit.k8s.io/v1 Policy; empty means the metadata of every request, once answered."
    )
    audit_log_max_mib: int = setting(100, "Size at which the audit log's file is turned over; 0: never.")
    audit_log_backups: int = setting(10, "How many full files of the audit log are kept; 0: all.")
    log_level: str = setting("warning", "debug, info, warning or error.")
    log_format: str = setting("console", "console or json.")

    @property
    def alpha_versions(self) -> frozenset[str]:
        """What `runtime_config` switches on. Raises ValueError for a version that cannot be switched."""
        found = set()
        for part in filter(None, (part.strip() for part in self.runtime_config.split(","))):
            version, _, value = part.partition("=")
            if version not in ALPHA_VERSIONS or value not in ("", "true", "false"):
                choice = ", ".join(f"{name}=true" for name in ALPHA_VERSIONS)
                raise ValueError(f"--runtime-config cannot switch {part!r}: expected some of {choice}")
            if value != "false":
                found.add(version)
        return frozenset(found)

    def audit(self, clock: Clock) -> Trail | None:
        """The audit log, its file made; None when there is to be none. Raises ValueError or OSError."""
        if not self.audit_log:
            if self.audit_policy:
                raise ValueError("--audit-policy says what to tell: it needs --audit-log")
            return None
        policy = read(self.audit_policy) if self.audit_policy else EVERYTHING
        place = Place(self.audit_log, self.audit_log_max_mib * MIB, self.audit_log_backups)
        log = AuditLog(place, clock)
        log.open()
        return Trail(policy, log)

    @property
    def parts(self) -> frozenset[str]:
        """The names in `components`. Raises ValueError for an unknown one."""
        names = [name.strip() for name in self.components.split(",") if name.strip()]
        for name in names:
            if name not in COMPONENTS:
                raise ValueError(
                    f"{name!r} is no component: expected some of {', '.join(COMPONENTS)}, with commas between"
                )
        return frozenset(names)

    @property
    def sealing(self) -> Policy | None:
        """None: nothing is sealed here. Raises ValueError for what cannot be done."""
        shared = is_postgres(self.store_url)
        if self.history_retention_s and not self.seal_after_s:
            raise ValueError("--history-retention drops sealed ranges: it needs --seal-after")
        asked = bool(self.archive or self.history_retention_s or self.seal_after_s != HOT_S)
        if not self.seal_after_s or (not asked and (shared or not parquet.installed())):
            return None
        if shared and not self.archive:
            raise ValueError(
                "sealing a log on PostgreSQL needs --archive: a folder that all daemons see at the same path"
            )
        parquet.require()
        return Policy(
            self.seal_after_s,
            self.history_retention_s or None,
            Path(self.archive).absolute() if self.archive else None,
        )

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
