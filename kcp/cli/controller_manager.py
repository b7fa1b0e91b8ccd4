"""`kcp controller-manager`: the controllers as a process of their own."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from kcp.cli.component_options import component_options, run_component, settings_of
from kcp.cli.options import one_line_errors
from kcp.controlplane.controller_manager import ControllerManagerSettings, run, select

NAME = "kube-controller-manager"


def _names(context: click.Context, parameter: click.Parameter, text: str) -> tuple[str, ...]:
    """Raises BadParameter for unknown ones."""
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    try:
        select(names)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error
    return names


@click.command("controller-manager")
@component_options(NAME, 10257)
@click.option(
    "--controllers",
    metavar="NAMES",
    default="*",
    show_default=True,
    callback=_names,
    help="Which: * all that are on by default, foo this one, -foo all but this one; with commas between.",
)
@click.option(
    "--use-service-account-credentials/--no-use-service-account-credentials",
    default=True,
    show_default=True,
    help="Each controller acts under its own service account, with only the rights that it has.",
)
@click.option(
    "--root-ca-file", metavar="FILE", default="", help="What pods trust.  [default: as the kubeconfig]"
)
@click.option("--cluster-signing-cert-file", metavar="FILE", default="", help="Signs certificate requests.")
@click.option("--cluster-signing-key-file", metavar="FILE", default="")
@click.option(
    "--service-account-private-key-file",
    metavar="FILE",
    default="",
    help="Signs the tokens in Secrets; without it none are made.",
)
@click.option("--service-cluster-ip-range", metavar="CIDR", default="", help="Range of cluster IPs.")
@click.option("--cluster-cidr", metavar="CIDR", default="", help="Range that nodes get pod ranges from.")
def command(**flags: Any) -> None:
    """Run the controllers against the API server of a kubeconfig until Ctrl-C or SIGTERM.

    Any number may run; one of them leads at a time, elected by a Lease.
    """
    with one_line_errors():
        component = settings_of(NAME, flags)
        settings = ControllerManagerSettings(**flags)
    run_component(partial(run, component, settings, click.echo))
