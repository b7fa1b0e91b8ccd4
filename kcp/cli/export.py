"""`kcp export`: an incident log, one file that replays elsewhere and opens in any SQL client."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from kcp.base.clock import SystemClock, microseconds
from kcp.base.entropy import SystemEntropy
from kcp.cli.options import log_options, one_line_errors
from kcp.store import history
from kcp.store.query import parse_at
from kcp.store.transfer import export_incident


@click.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--from", "first", metavar="RV|TIME", help="Take from here on; by default all.")
@click.option("--to", "last", metavar="RV|TIME", help="Take up to here; the newest by default.")
@click.option(
    "--redact/--no-redact",
    default=True,
    show_default=True,
    help="Replace the data of Secrets by keyed digests.",
)
@log_options
def command(file: Path, first: str | None, last: str | None, redact: bool, source: str) -> None:
    """Write FILE: the state before the range, its events, decisions and inputs. Works beside a running daemon.

    Where it begins and ends is a revision, a time, or a span back such as 10m.
    """
    with one_line_errors():
        first_rv, last_rv = _first(source, first), _last(source, last)
        done = export_incident(
            source,
            file,
            clock=SystemClock(),
            mask_key=SystemEntropy().token_bytes(32),
            first_rv=first_rv,
            last_rv=last_rv,
            redact=redact,
        )
        if not done.events:
            file.unlink()
            raise ValueError("nothing happened in that range")
    masked = f", {done.redacted} Secrets redacted" if done.redacted else ""
    click.echo(f"{file}: {done.events} events, revisions {done.base_rv + 1} to {done.last_rv}{masked}")
    click.echo(f"history checksum {done.checksum}")


def _first(source: str, text: str | None) -> int:
    """The revision after the state of that moment. Raises ValueError and StoreError."""
    when = None if text is None else parse_at(text, SystemClock())
    if when is None or isinstance(when, int):
        return when or 1
    return _revision_at(source, when) + 1


def _last(source: str, text: str | None) -> int | None:
    when = None if text is None else parse_at(text, SystemClock())
    return when if when is None or isinstance(when, int) else _revision_at(source, when)


def _revision_at(source: str, when: datetime) -> int:
    with history.reader(source) as connection:
        return history.revision_at(connection, microseconds(when))
