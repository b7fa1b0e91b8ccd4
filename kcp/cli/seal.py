"""`kcp seal`: old events out of the hot table, into files; and, when told to, out of the world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kcp.base.clock import SystemClock
from kcp.cli.options import log_options, one_line_errors, size
from kcp.store.query import span_s
from kcp.store.seal import Policy, seal
from kcp.store.sealing import Done


class Span(click.ParamType[float]):
    """A length of time: `90s`, `24h`, `30d`."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = span_s(str(value))
        if found is None:
            self.fail(f"{value!r} is no length of time such as 90s, 24h or 30d", param, ctx)
        return found


@click.command("seal")
@click.option(
    "--older-than",
    type=Span(),
    default="24h",
    show_default=True,
    metavar="SPAN",
    help="Which events to seal.",
)
@click.option(
    "--drop-older-than",
    type=Span(),
    metavar="SPAN",
    help="Which sealed ranges to drop for ever; by default none.",
)
@click.option(
    "--archive",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    envvar="KCP_ARCHIVE",
    help="Folder of the files.  [default: archive beside the log; none for PostgreSQL]",
)
@log_options
def command(older_than: float, drop_older_than: float | None, archive: Path | None, source: str) -> None:
    """Seal a stopped log on SQLite, or one on PostgreSQL beside its daemons. Queries read sealed events as before.

    Events younger than the API's horizon stay (see --api-history of `kcp up`). Spans are such as 90s, 24h, 30d.
    """
    policy = Policy(older_than, drop_older_than, archive)
    with one_line_errors():
        done = seal(source, clock=SystemClock(), policy=policy)
    for line in told(done):
        click.echo(line)


def told(done: Done) -> list[str]:
    lines = [
        f"sealed revisions {r.first_rv} to {r.last_rv}: {r.events} events, {size(r.file.stat().st_size)}, {r.file}"
        for r in done.sealed
        if r.file.exists()
    ]
    if done.left:
        lines.append(f"{done.left} events left the hot table")
    if done.dropped:
        first, last = done.dropped[0], done.dropped[-1]
        lines.append(
            f"dropped revisions {first.first_rv} to {last.last_rv}: history begins at revision {done.floor}"
        )
    return lines or ["nothing is old enough to seal"]
