"""`kcp export`: an incident log, one file that replays elsewhere and opens in any SQL client."""

from __future__ import annotations

from pathlib import Path

import click

from kcp.base.clock import SystemClock
from kcp.base.entropy import SystemEntropy
from kcp.cli.options import log_options, one_line_errors
from kcp.store.transfer import export_incident


@click.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--from", "first_rv", type=click.IntRange(1), default=1, metavar="RV", help="First revision to take."
)
@click.option(
    "--to",
    "last_rv",
    type=click.IntRange(1),
    metavar="RV",
    help="Last revision to take; the newest by default.",
)
@click.option(
    "--redact/--no-redact",
    default=True,
    show_default=True,
    help="Replace the data of Secrets by keyed digests.",
)
@log_options
def command(file: Path, first_rv: int, last_rv: int | None, redact: bool, source: str) -> None:
    """Write FILE: the state before the range, its events, decisions and inputs. Works beside a running daemon."""
    with one_line_errors():
        done = export_incident(
            source,
            file,
            clock=SystemClock(),
            mask_key=SystemEntropy().token_bytes(32),
            first_rv=first_rv,
            last_rv=last_rv,
            redact=redact,
        )
    masked = f", {done.redacted} Secrets redacted" if done.redacted else ""
    click.echo(f"{file}: {done.events} events, revisions {done.base_rv + 1} to {done.last_rv}{masked}")
    click.echo(f"history checksum {done.checksum}")
