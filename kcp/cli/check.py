"""`kcp check`: is a log whole, and what is the checksum of its history."""

from __future__ import annotations

import sys

import click

from kcp.cli.options import log_options, one_line_errors
from kcp.store.check import problems
from kcp.store.reader import LogReader
from kcp.store.transfer import checksum_of

DAMAGED = 3


@click.command("check")
@click.option(
    "--from", "first_rv", type=click.IntRange(1), metavar="RV", help="Checksum from this revision on."
)
@click.option("--to", "last_rv", type=click.IntRange(1), metavar="RV", help="Checksum up to this revision.")
@log_options
def command(first_rv: int | None, last_rv: int | None, source: str) -> None:
    """Read everything once: pages, revisions, heads, bodies, sealed files. Works beside a running daemon.

    The checksum is equal for every log, backup and unredacted export, on either engine, that holds the same history; --from and
    --to compare what two logs have in common. Exit code 0: whole. 3: damaged, and each damage is named.
    """
    with one_line_errors():
        found = problems(source)
        if not found:
            with LogReader(source) as log:
                base, head = log.base_rv, log.last_rv
            after = base if first_rv is None else first_rv - 1
            checksum = checksum_of(source, after, last_rv)
    if found:
        for problem in found:
            click.echo(f"damaged: {problem}")
        sys.exit(DAMAGED)
    click.echo(f"whole: revisions {base + 1} to {head}")
    click.echo(f"history checksum {checksum}")
