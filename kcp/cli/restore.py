"""`kcp restore`: a new log from a backup."""

from __future__ import annotations

from pathlib import Path

import click

from kcp.base.clock import SystemClock
from kcp.cli.options import given, new_log_options, one_line_errors
from kcp.store.query import parse_at
from kcp.store.transfer import Restored, restore


@click.command("restore")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--at",
    metavar="RV|TIME",
    help="Only up to a revision, a time, or a span back from now such as 10m; all of it by default.",
)
@new_log_options
def command(file: Path, at: str | None, target: str) -> None:
    """Make a new log from FILE (from `kcp backup`, or an unredacted `kcp export`), on either engine.

    The place must hold no log. Revisions jump by 1,000,000, so that every client lists anew. Killed half-way it leaves no log.
    """
    place = given(target)
    with one_line_errors():
        when = None if at is None else parse_at(at, SystemClock())
        done = restore(file, place, at=when)
    click.echo(
        f"{file}: {done.events} events, as of revision {done.restored_rv}; the log goes on from revision {done.rv}"
    )
    tell(done)


def tell(done: Restored) -> None:
    click.echo(f"history checksum {done.checksum}")
    if done.redacted:
        click.echo(
            f"Warning: {done.redacted} versions of Secrets are redacted in this file: they are digests, not values",
            err=True,
        )
