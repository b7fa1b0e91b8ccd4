"""`kcp replay`: re-make every recorded decision of a log and compare."""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.progress import Progress

from kcp.cli.options import one_line_errors
from kcp.replay.compare import report
from kcp.replay.decisions import Result
from kcp.replay.incident import Incident
from kcp.replay.run import remake_all

DIVERGED = 3


@click.command("replay")
@click.argument("file")
@click.option(
    "--controller", "only", multiple=True, metavar="NAME", help="Only this controller; may be repeated."
)
@click.option(
    "--continue", "go_on", is_flag=True, help="Do not stop at the first divergence; list all of them."
)
def command(file: str, only: tuple[str, ...], go_on: bool) -> None:
    """Re-make the decisions recorded in FILE (from `kcp export`, or a data directory).

    Exit code 0: all identical. 3: a decision diverged.
    """
    with one_line_errors(), Incident.open(file) as incident:
        total = sum(incident.count(name) for name in incident.controllers if not only or name in only)
        same, diverged = 0, 0
        with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task("re-making decisions", total=total)
            for result in remake_all(incident, only):
                bar.advance(task)
                if result.identical:
                    same += 1
                    continue
                diverged += 1
                click.echo(_tell(incident, result))
                if not go_on:
                    break
        click.echo(_summary(incident, same, diverged))
    if diverged:
        sys.exit(DIVERGED)


def _tell(incident: Incident, result: Result) -> str:
    assert result.divergence is not None
    return report(incident, result.divergence, result.code_changed) + "\n"


def _summary(incident: Incident, same: int, diverged: int) -> str:
    text = f"{same + diverged} decisions, {same} identical"
    if diverged:
        text += f", {diverged} diverged"
    if incident.skipped:
        text += f" ({incident.skipped} at the start of the file could not be placed)"
    return text
