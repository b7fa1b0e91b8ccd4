"""What the commands of components that run apart have in common: their flags, named as in Kubernetes, and their run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import click

from kcp.base import logs
from kcp.cli.options import LOG_FORMAT, LOG_LEVEL, exits_in_one_line
from kcp.client.leader_election import LEASE_DURATION_S, RENEW_DEADLINE_S, RETRY_PERIOD_S, Timing
from kcp.controlplane.standalone import ComponentSettings
from kcp.machinery.times import parse_go_duration

F = TypeVar("F", bound=Callable[..., Any])


def duration(text: str | float) -> float:
    """`15s`, `1m30s`: seconds. Raises BadParameter."""
    try:
        return text if isinstance(text, float) else parse_go_duration(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no duration like 15s or 1m30s") from None


Row = tuple[tuple[str, ...], dict[str, Any]]
"""An option: its names, and what click is told about it."""


def component_options(lease: str, port: int) -> Callable[[F], F]:
    """The flags that both commands have. `lease` names the Lease, `port` is the one that Kubernetes uses."""

    def decorate(function: F) -> F:
        for names, about in reversed([*SERVER, *_election(lease), *_probes(port), *RECORDS]):
            function = click.option(*names, **about)(function)
        return function

    return decorate


def _text(name: str, metavar: str, help: str, default: str = "", **more: Any) -> Row:
    return (name,), {"metavar": metavar, "default": default, "help": help, **more}


def _duration(name: str, default_s: float, help: str) -> Row:
    shown = f"{help}  [default: {default_s:g}s]"
    return (name,), {"type": duration, "metavar": "DURATION", "default": default_s, "help": shown}


def _election(lease: str) -> list[Row]:
    names = "--leader-elect-resource-name", "--leader-elect-resource-namespace"
    return [
        (
            ("--leader-elect/--no-leader-elect",),
            {"default": True, "show_default": True, "help": "Run only while holding the Lease."},
        ),
        _duration(
            "--leader-elect-lease-duration",
            LEASE_DURATION_S,
            "When a leader that is not heard of is followed.",
        ),
        _duration(
            "--leader-elect-renew-deadline", RENEW_DEADLINE_S, "When a leader that cannot renew stops."
        ),
        _duration(
            "--leader-elect-retry-period", RETRY_PERIOD_S, "Between two tries to get or keep the Lease."
        ),
        ((names[0], "lease"), _text("", "NAME", "Name of the Lease.", lease, show_default=True)[1]),
        (
            (names[1], "lease_namespace"),
            _text("", "NAME", "Namespace of the Lease.", "kube-system", show_default=True)[1],
        ),
        _text("--identity", "NAME", "Name in the Lease.  [default: host, process, uid]"),
    ]


def _probes(port: int) -> list[Row]:
    return [
        _text(
            "--bind-address",
            "IP",
            "Serve /healthz, /livez, /readyz and /metrics here.",
            "127.0.0.1",
            show_default=True,
        ),
        (
            ("--secure-port",),
            {
                "type": click.IntRange(0, 65535),
                "default": 0,
                "metavar": "PORT",
                "help": f"Port of these, over HTTPS; 0: none. Kubernetes uses {port}.  [default: 0]",
            },
        ),
        _text("--tls-cert-file", "FILE", "Certificate of that port; else a self-signed one."),
        _text("--tls-private-key-file", "FILE", "Its key."),
    ]


SERVER: list[Row] = [
    _text(
        "--kubeconfig",
        "FILE",
        "How to reach the API server; without it, as a pod does.",
        envvar="KUBECONFIG",
    ),
    _text("--context", "NAME", "Context of the kubeconfig."),
]
RECORDS: list[Row] = [
    _text("--record", "FILE", "Write decisions to this SQLite file; read it with kcp sql --data FILE."),
    (
        ("--log-level",),
        {
            "type": LOG_LEVEL,
            "default": "info",
            "show_default": True,
            "help": "What is worth a line.",
        },
    ),
    (
        ("--log-format",),
        {
            "type": LOG_FORMAT,
            "default": "console",
            "show_default": True,
            "help": "What it looks like.",
        },
    ),
]


def settings_of(name: str, flags: dict[str, Any]) -> ComponentSettings:
    """Takes the common flags out of `flags`. Raises ValueError."""
    timing = [
        flags.pop(f"leader_elect_{what}") for what in ("lease_duration", "renew_deadline", "retry_period")
    ]
    lease, elect = flags.pop("lease"), flags.pop("leader_elect")
    logs.configure(flags.pop("log_format"), flags.pop("log_level"))
    taken = (
        "kubeconfig", "context", "lease_namespace", "identity", "bind_address", "secure_port", "tls_cert_file",
        "tls_private_key_file", "record",
    )  # fmt: skip
    return ComponentSettings(
        name,
        lease=lease if elect else "",
        timing=Timing(*timing) if elect else Timing(),
        **{key: flags.pop(key) for key in taken},
    )


def run_component(run: Callable[[], Awaitable[None]]) -> None:
    """What cannot be started is one line and exit code 1."""
    with exits_in_one_line():
        anyio.run(run, backend_options={"use_uvloop": True})
