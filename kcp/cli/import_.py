"""`kcp import`: a new log from an export, or from what another Kubernetes left behind."""

from __future__ import annotations

from pathlib import Path

import click

from kcp.base.clock import SystemClock, microseconds
from kcp.cli.options import given, new_log_options, one_line_errors
from kcp.cli.restore import tell
from kcp.replay.importers.formats import FORMATS, OURS, TITLES, Imported, detect, import_incident
from kcp.store.query import parse_at
from kcp.store.transfer import restore


@click.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="auto",
    show_default=True,
    help="What FILE is; its first bytes tell.",
)
@click.option("--skip-bad", is_flag=True, help="Go on after what cannot be understood, and count it.")
@click.option("--start", metavar="TIME", help="When a KWOK recording began; it tells only distances.")
@new_log_options
def command(files: tuple[Path, ...], form: str, skip_bad: bool, start: str | None, target: str) -> None:
    """Make a log out of FILE, in an empty place on either engine.

    \b
    kcp      from `kcp export` or `kcp backup`: a log that a daemon can run on, and a way to move one
    audit    a Kubernetes audit log, JSON lines
    watch    `kubectl get KIND -o json --watch --output-watch-events`; several files are merged
    etcd     a snapshot of etcd, or its data directory when it is stopped
    kine     the SQLite database of kine (k3s)
    kwok     a recording of kwokctl
    simkube  a trace of SimKube
    All but the first are incidents of others: ask them with sql, history, why, replay; replay can only infer decisions.

    To move a log: stop the daemon, `kcp export --no-redact FILE`, `kcp import FILE --store URL`. The history checksum printed
    is the one that the export printed; `kcp check` tells it of any log. Killed half-way it leaves no log.
    """
    place = given(target)
    with one_line_errors():
        chosen = detect(files[0]) if form == "auto" else form
        if chosen == OURS:
            _restore(files, place)
            return
        start_us = 0 if start is None else _moment(start)
        done = import_incident(
            files, place, clock=SystemClock(), format=chosen, skip_bad=skip_bad, start_us=start_us
        )
    _report(files, done)


def _restore(files: tuple[Path, ...], place: str) -> None:
    if len(files) > 1:
        raise ValueError("a log of kcp is one file")
    done = restore(files[0], place)
    click.echo(
        f"{files[0]}: {done.events} events, revisions {done.base_rv + 1} to {done.restored_rv};"
        f" the log goes on from revision {done.rv}"
    )
    tell(done)


def _moment(text: str) -> int:
    found = parse_at(text, SystemClock())
    if isinstance(found, int):
        raise ValueError(f"--start is a time, not {text}")
    return microseconds(found)


def _report(files: tuple[Path, ...], done: Imported) -> None:
    written = done.written
    names = ", ".join(str(file) for file in files)
    parts = [f"{written.events} events up to revision {written.last_rv}"]
    if written.base_rv:
        parts.append(f"the state as of revision {written.base_rv} was found")
    if written.gaps:
        parts.append(f"{written.gaps} revisions in between are not told")
    if written.untold:
        parts.append(f"{written.untold} events without a body")
    if written.moved:
        parts.append(f"{written.moved} removals moved off a revision of another key")
    click.echo(f"{names} ({TITLES[done.format]}): {'; '.join(parts)}")
    for note in done.notes:
        click.echo(f"note: {note}")
    checksum = done.restored.checksum if done.restored is not None else written.checksum
    click.echo(f"history checksum {checksum}")
    if done.faults.count:
        click.echo(f"Warning: {done.faults.count} faults skipped:", err=True)
        for text in done.faults.kept:
            click.echo(f"  {text}", err=True)
