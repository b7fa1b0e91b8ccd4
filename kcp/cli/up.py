"""`kcp up`: the daemon in the foreground."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import anyio
import click

from kcp.base import interpreter, logs
from kcp.base.settings import SettingError, load
from kcp.controlplane.daemon import Ready, run
from kcp.controlplane.settings import DaemonSettings
from kcp.store.protocol import StoreError

SETTINGS_FILE = "kcp.toml"


@click.command("up")
@click.option(
    "--data", metavar="DIR", help="Directory of the log, the keys and the kubeconfig.  [default: .kcp]"
)
@click.option("--listen", metavar="HOST:PORT", help="Serve HTTPS here.  [default: 127.0.0.1:6443]")
@click.option(
    "--advertise", metavar="IP", help="Endpoint of the Service kubernetes.  [default: this machine]"
)
@click.option("--store", metavar="URL", help="Event log; the default is SQLite in the data directory.")
@click.option(
    "--nodes", type=click.IntRange(0, 20_000), metavar="N", help="Simulated nodes to run.  [default: 0]"
)
@click.option(
    "--components",
    metavar="NAMES",
    help="What runs in this process: api, controllers, scheduler, nodes.  [default: all]",
)
@click.option("--node-cpu", metavar="QUANTITY", help="CPUs of each simulated node.  [default: 4]")
@click.option("--node-memory", metavar="QUANTITY", help="Memory of each simulated node.  [default: 16Gi]")
@click.option(
    "--node-pods",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="Pods of each simulated node.  [default: 110]",
)
@click.option(
    "--scheduler-config",
    metavar="FILE",
    help="A KubeSchedulerConfiguration.  [default: the default profile]",
)
@click.option(
    "--api-history",
    "api_history_s",
    type=float,
    metavar="SECONDS",
    help="How long old revisions are served.  [default: 300]",
)
@click.option(
    "--seal-after",
    "seal_after_s",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="When events move to parquet files; 0: never.  [default: 86400, with kcp[archive]]",
)
@click.option(
    "--history-retention",
    "history_retention_s",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="When sealed history is dropped for ever.  [default: 0, never]",
)
@click.option(
    "--archive", metavar="DIR", help="Folder of the sealed files.  [default: archive beside the log]"
)
@click.option(
    "--runtime-config",
    metavar="VERSION=true",
    help="Alpha API versions to serve: scheduling.k8s.io/v1alpha2=true has PodGroup.",
)
@click.option(
    "--audit-log", metavar="PATH", help="Tell requests to this file, one audit Event a line; - is stdout."
)
@click.option(
    "--audit-policy",
    metavar="FILE",
    help="An audit.k8s.io/v1 Policy.  [default: the metadata of every request]",
)
@click.option(
    "--audit-log-maxsize",
    "audit_log_max_mib",
    type=click.IntRange(0),
    metavar="MIB",
    help="When the audit log's file is turned over; 0: never.  [default: 100]",
)
@click.option(
    "--audit-log-maxbackup",
    "audit_log_backups",
    type=click.IntRange(0),
    metavar="N",
    help="Full audit files that are kept; 0: all.  [default: 10]",
)
@click.option(
    "--log-level", type=click.Choice(("debug", "info", "warning", "error")), help="[default: warning]"
)
@click.option("--log-format", type=click.Choice(("console", "json")), help="[default: console]")
def command(**flags: Any) -> None:
    """Run a control plane until Ctrl-C or SIGTERM; started again on the same data it goes on where it stopped.

    Every option is also a KCP_… environment variable, or a line of kcp.toml in the data directory.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        file = Path(given.get("data", ".kcp")) / SETTINGS_FILE
        settings = load(DaemonSettings, flags=given, file=file if file.exists() else None)
        logs.configure(settings.log_format, settings.log_level)  # type: ignore[arg-type]
        interpreter.forget_sources()
        anyio.run(run, settings, announce, backend_options={"use_uvloop": True})
    except* (StoreError, OSError, SettingError, ValueError) as group:
        click.echo(f"kcp: {_text(_first(group))}", err=True)
        sys.exit(1)


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


def _text(error: BaseException) -> str:
    """What happened, without the number of an OSError that already says it in words."""
    if isinstance(error, OSError) and error.strerror and error.filename is None:
        return error.strerror
    return str(error)


def announce(ready: Ready) -> None:
    """One line that scripts wait for, then what to type."""
    click.echo(f"kcp is ready at {ready.url} ({ready.took_s:.1f} s, revision {ready.rv})")
    click.echo(
        f"""
  export KUBECONFIG={ready.kubeconfig}

  kubectl get nodes                                      the simulated machines
  kubectl create deployment web --image=nginx --replicas=3
  {sys.argv[0]} sql "SELECT name, phase, node FROM pods" --data {ready.kubeconfig.parent}

Ctrl-C stops it; the data stays in {ready.kubeconfig.parent}."""
    )
