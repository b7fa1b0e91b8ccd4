"""`kcp rebuild-facts`: the facts tables again, from the events."""

from __future__ import annotations

import click

from kcp.apis.semantics.facts import FACTS
from kcp.cli.options import log_options, one_line_errors
from kcp.store.facts import projections, rebuild


@click.command("rebuild-facts")
@log_options
def command(source: str) -> None:
    """Empty facts_pod, facts_node and facts_owner and fill them from every event of the log.

    Needed when a newer kcp takes other facts from an object. On SQLite kcp must be stopped; on PostgreSQL daemons wait meanwhile.
    """
    with one_line_errors():
        written = rebuild(source, projections(FACTS))
    click.echo(f"{written} rows written")
