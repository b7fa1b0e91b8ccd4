"""`kcp backup`: all of a log in one file."""

from __future__ import annotations

from pathlib import Path

import click

from kcp.base.clock import SystemClock
from kcp.cli.options import log_options, one_line_errors, size
from kcp.store.transfer import backup


@click.command("backup")
@click.argument("file", type=click.Path(path_type=Path))
@log_options
def command(file: Path, source: str) -> None:
    """Copy the whole log into FILE, as of one moment, beside a running daemon or not.

    FILE appears when it is complete and on the disk. It holds every Secret in clear text: guard it. The keys of a daemon on
    SQLite lie beside its log, in DIR/pki: copy that folder as well.
    """
    with one_line_errors():
        done = backup(source, file, clock=SystemClock())
    click.echo(f"{file}: {done.events} events, revision {done.rv}, {size(done.size_bytes)}")
    click.echo(f"history checksum {done.checksum}")
