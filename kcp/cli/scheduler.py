"""`kcp scheduler`: the scheduler as a process of its own."""

from __future__ import annotations

from functools import partial
from typing import Any

import attrs
import click

from kcp.cli.component_options import component_options, run_component, settings_of
from kcp.cli.options import one_line_errors
from kcp.controlplane.kube_scheduler import LEASE, SchedulerFile, run


@click.command("scheduler")
@component_options(LEASE, 10259)
@click.option(
    "--config", metavar="FILE", default="", help="A KubeSchedulerConfiguration; what it says beats the flags."
)
def command(config: str, **flags: Any) -> None:
    """Run the scheduler against the API server of a kubeconfig until Ctrl-C or SIGTERM.

    It schedules the pods whose schedulerName is one of its profiles. Any number may run; one of those that share a Lease
    leads at a time. Schedulers with different profiles need different Leases.
    """
    with one_line_errors():
        component = settings_of(LEASE, flags)
        file = SchedulerFile()
        if config:
            file = SchedulerFile.read(config)
            component = file.elected(component)
        if not component.kubeconfig and file.kubeconfig:
            component = attrs.evolve(component, kubeconfig=file.kubeconfig)
    run_component(partial(run, component, file.configuration, click.echo))
