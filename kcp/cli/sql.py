"""`kcp sql`: read-only SQL over the log of a running or stopped daemon."""

from __future__ import annotations

import click

from kcp.base.clock import SystemClock
from kcp.cli.options import log_options, one_line_errors
from kcp.cli.tables import FORMATS, render
from kcp.store.query import Session

PROMPT = "kcp> "


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
    """Run QUERY and print its rows; without QUERY, ask for statements until Ctrl-D.

    \b
    Views: pods, nodes, deployments … (one per kind) and state show one moment (now, or --at);
           history has every change; decisions says why controllers did what they did.
    """
    with one_line_errors(), Session(source, SystemClock(), at=at) as session:
        if query is not None:
            click.echo(render(session.run(query), form))
            return
        _interactive(session, form)


def _interactive(session: Session, form: str) -> None:
    """A prompt with completion of table and column names."""
    import readline

    names = session.names()
    words = sorted({*names, *(column for columns in names.values() for column in columns)})

    def complete(text: str, state: int) -> str | None:
        matching = [word for word in words if word.startswith(text)]
        return matching[state] if state < len(matching) else None

    readline.set_completer(complete)
    readline.parse_and_bind("tab: complete")
    while True:
        try:
            line = input(PROMPT)
        except (EOFError, KeyboardInterrupt):
            click.echo()
            return
        if not line.strip():
            continue
        try:
            click.echo(render(session.run(line.rstrip().rstrip(";")), form))
        except Exception as error:  # noqa: BLE001 - any failure of one statement leaves the prompt alive
            click.echo(f"Error: {error}", err=True)
