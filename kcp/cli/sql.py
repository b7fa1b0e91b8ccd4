"""`kcp sql`: read-only SQL over the log of a running or stopped daemon."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click

from kcp.base.clock import SystemClock
from kcp.cli.options import log_options, one_line_errors
from kcp.cli.tables import FORMATS, render
from kcp.store.query import Session


@click.command("sql")
@click.argument("query", required=False)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
    help="How to print rows.",
)
@click.option(
    "--at",
    metavar="RV|TIME",
    help="Show the state views as of a revision, a time, or a span back such as 10m.",
)
@log_options
def command(query: str | None, form: str, at: str | None, source: str) -> None:
    """Run QUERY and print its rows; without QUERY, ask for statements until Ctrl-D, or take them from a pipe.

    \b
    Views: pods, nodes, deployments … (one per kind) and state show one moment (now, or --at);
           history has every change; decisions says why controllers did what they did.
    At the prompt a statement ends with ; Tab completes names, .help lists a few words more.
    """

    def session(moment: str | None) -> Session:
        return Session(source, SystemClock(), at=moment)

    with one_line_errors():
        if query is not None:
            with session(at) as opened:
                click.echo(render(opened.run(query), form))
            return
        _ask(session, at, form)


def _ask(session: Callable[[str | None], Session], at: str | None, form: str) -> None:
    from kcp.cli.prompt import Prompt, interact, run_script

    prompt = Prompt(session, at, form)
    try:
        if sys.stdin.isatty():
            interact(prompt)
        else:
            run_script(prompt, sys.stdin.read())
    finally:
        prompt.close()
