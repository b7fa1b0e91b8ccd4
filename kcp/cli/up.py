"""`kcp up`: the daemon in the foreground."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import anyio
import click

from kcp.base import interpreter, logs
from kcp.base.settings import load, rows
from kcp.cli.options import LOG_FORMAT, LOG_LEVEL, exits_in_one_line
from kcp.controlplane.daemon import Ready, run
from kcp.controlplane.settings import DaemonSettings

F = TypeVar("F", bound=Callable[..., Any])
SETTINGS_FILE = "kcp.toml"
_COUNT, _SECONDS = click.IntRange(0), click.FloatRange(0)
_OPTIONS: tuple[tuple[str, str, str, click.ParamType[Any]], ...] = (
    ("--data", "data", "DIR", click.STRING),
    ("--listen", "listen", "HOST:PORT", click.STRING),
    ("--advertise", "advertise", "IP", click.STRING),
    ("--store", "store", "URL", click.STRING),
    ("--nodes", "nodes", "N", click.IntRange(0, 20_000)),
    ("--components", "components", "NAMES", click.STRING),
    ("--node-cpu", "node_cpu", "QUANTITY", click.STRING),
    ("--node-memory", "node_memory", "QUANTITY", click.STRING),
    ("--node-pods", "node_pods", "N", click.IntRange(1, 10_000)),
    ("--scheduler-config", "scheduler_config", "FILE", click.STRING),
    ("--api-history", "api_history_s", "SECONDS", _SECONDS),
    ("--seal-after", "seal_after_s", "SECONDS", _SECONDS),
    ("--history-retention", "history_retention_s", "SECONDS", _SECONDS),
    ("--archive", "archive", "DIR", click.STRING),
    ("--service-cidr", "service_cidr", "CIDR", click.STRING),
    ("--runtime-config", "runtime_config", "VERSION=true", click.STRING),
    ("--audit-log", "audit_log", "PATH", click.STRING),
    ("--audit-policy", "audit_policy", "FILE", click.STRING),
    ("--audit-log-maxsize", "audit_log_max_mib", "MIB", _COUNT),
    ("--audit-log-maxbackup", "audit_log_backups", "N", _COUNT),
    ("--log-level", "log_level", "", LOG_LEVEL),
    ("--log-format", "log_format", "", LOG_FORMAT),
)
"""Flag, field of DaemonSettings, metavar, type. Help and default are those of the field."""


def _options(function: F) -> F:
    """Each arrives under the name of its field, None when it was not given: then environment and file are asked."""
    told = {row.name: row for row in rows(DaemonSettings)}
    for flag, name, metavar, type_ in reversed(_OPTIONS):
        row = told[name]
        default = f"  [default: {row.default.removesuffix('.0')}]" if row.default else ""
        function = click.option(flag, name, metavar=metavar or None, type=type_, help=row.help + default)(
            function
        )
    return function


@click.command("up")
@_options
def command(**flags: Any) -> None:
    """Run a control plane until Ctrl-C or SIGTERM; started again on the same data it goes on where it stopped.

    Every option is also a KCP_… environment variable, or a line of kcp.toml in the data directory.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    with exits_in_one_line():
        file = Path(given.get("data", ".kcp")) / SETTINGS_FILE
        settings = load(DaemonSettings, flags=given, file=file if file.exists() else None)
        logs.configure(settings.log_format, settings.log_level)  # type: ignore[arg-type]
        interpreter.forget_sources()
        anyio.run(run, settings, announce, backend_options={"use_uvloop": True})


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
