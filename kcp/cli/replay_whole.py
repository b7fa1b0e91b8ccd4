"""The part of `kcp replay` that runs a whole log again, as it was or with a change."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import orjson

from kcp.base import logs
from kcp.base.clock import SystemClock
from kcp.replay.changes import Changes
from kcp.replay.explaining import revision_at
from kcp.replay.incident import Incident
from kcp.replay.whole import AGAIN, CHANGED, Found, Whole, as_json, find, tell
from kcp.store.query import QueryFailed, parse_at

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--whole",
        is_flag=True,
        help="Run the whole system again instead: controllers, scheduler, machines, users' requests.",
    ),
    click.option(
        "--swap",
        "swaps",
        multiple=True,
        metavar="NAME=MODULE:CONTROLLER",
        help="What if this controller were that one (a Controller, or a planner); FILE.py:NAME works as well.",
    ),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="CONTROLLER.SETTING=VALUE",
        help="What if it had this setting; scheduler.CONSTANT and CONTROLLER.CONSTANT set numbers that are no settings.",
    ),
    click.option("--scheduler-config", metavar="FILE", help="What if the scheduler were configured so."),
    click.option(
        "--nodes",
        metavar="CHANGE",
        help="What if there were N nodes, +N more, one less (-NAME), or those of a file; several with commas.",
    ),
    click.option(
        "--out",
        type=click.Path(path_type=Path),
        help="Keep the log of the (changed) run: FILE.kcp, for `kcp sql`, `kcp why`, `kcp replay`.",
    ),
    click.option(
        "--format",
        "form",
        type=click.Choice(("text", "json")),
        default="text",
        show_default=True,
        help="Of what is told in the end.",
    ),
)


def whole_options(function: F) -> F:
    """They arrive as `whole`, `swaps`, `settings`, `scheduler_config`, `nodes`, `out` and `form`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def changes_of(
    swaps: tuple[str, ...], settings: tuple[str, ...], scheduler_config: str | None, nodes: str | None
) -> Changes:
    return Changes(swaps, settings, nodes or "", scheduler_config or "")


def run_whole(
    source: str, changes: Changes, *, until: str | None, out: Path | None, form: str, parallel: bool
) -> bool:
    """Print what it came to; whether it is the same. Raises StoreError, ValueError, OSError."""
    logs.configure(level="critical")
    if out is not None and out.exists():
        raise ValueError(f"{out} exists already")
    asked = Whole(source, changes, _revision(source, until))
    with tempfile.TemporaryDirectory(prefix="kcp-replay-") as directory:
        found = find(asked, Path(directory), parallel=parallel)
        if form == "json":
            click.echo(orjson.dumps(as_json(found), option=orjson.OPT_INDENT_2).decode())
        else:
            click.echo("\n\n".join(tell(found)))
        if out is not None:
            _keep(found, out)
    return found.same


def _revision(source: str, until: str | None) -> int | None:
    if until is None:
        return None
    try:
        when = parse_at(until, SystemClock())
    except QueryFailed as error:
        raise ValueError(str(error)) from None
    with Incident.open(source) as incident:
        return revision_at(incident, when)


def _keep(found: Found, out: Path) -> None:
    place = found.runs[CHANGED if CHANGED in found.runs else AGAIN].place
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(place, out)
