"""`kcp replay`: re-make every recorded decision of a log and compare; step through them; or run the whole system again."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kcp.cli.options import one_line_errors
from kcp.cli.replay_whole import changes_of, run_whole, whole_options
from kcp.cli.tables import render
from kcp.replay.incident import Incident
from kcp.replay.inferred import imported_from
from kcp.replay.inferred_report import told
from kcp.replay.run import WORTH_PROCESSES, Piece, Remade, cores, plan_work, remake_parallel
from kcp.replay.session import Break, Session
from kcp.replay.terminal import Quit, Terminal
from kcp.store.protocol import StoreError

DIVERGED = 3
LISTED = 10
"""So many further decisions of a group are named."""


@click.command("replay")
@click.argument("file")
@click.option(
    "--controller", "only", multiple=True, metavar="NAME", help="Only this controller; may be repeated."
)
@click.option(
    "--continue", "go_on", is_flag=True, help="Do not stop at the first divergence; group all of them."
)
@click.option("-j", "--jobs", type=click.IntRange(1), help="Processes to use.  [default: one per core]")
@click.option("--until", metavar="WHERE", help="Go no further than a revision, a time or a decision.")
@click.option(
    "--break", "breaks", multiple=True, metavar="CONDITION", help="Stop where it holds and look around."
)
@click.option("--step", is_flag=True, help="Start at the first decision (or --until) and step.")
@click.option("--back", is_flag=True, help="Start at the last decision (or --until) and step back.")
@click.option("--tui", is_flag=True, help="A screen instead of a prompt; needs kcp-controlplane[tui].")
@click.option(
    "--serve", metavar="HOST:PORT", help="Let kubectl look at the moment where you stand, read-only."
)
@whole_options
def command(
    file: str, only: tuple[str, ...], go_on: bool, jobs: int | None, until: str | None, breaks: tuple[str, ...],
    step: bool, back: bool, tui: bool, serve: str | None, whole: bool, swaps: tuple[str, ...], settings: tuple[str, ...],
    scheduler_config: str | None, nodes: str | None, out: Path | None, form: str,
) -> None:  # fmt: skip
    """Re-make the decisions recorded in FILE (from `kcp export`, or a data directory).

    \b
    Exit code 0: all identical. 3: a decision diverged.
    Of a log that was imported nothing can be re-made: what kcp would have decided is inferred, and told as such.
    --break, --step, --back, --tui and --serve open a session instead: `help` there says what it can do.
    --controller takes names with or without `-controller`.
    --whole runs the whole system again from the log's base state and users' requests; --swap, --set,
    --scheduler-config and --nodes do it twice, without and with the change, and tell what it would have made of it.
    Exit code 3 then: it came to something else.
    """
    changes = changes_of(swaps, settings, scheduler_config, nodes)
    looks = {
        "--break": breaks, "--step": step, "--back": back, "--tui": tui, "--serve": serve,
    }  # fmt: skip
    if whole or changes or out:
        _refuse("a run of the whole system", {**looks, "--controller": only, "--continue": go_on})
        with one_line_errors():
            same = run_whole(file, changes, until=until, out=out, form=form, parallel=jobs != 1)
        sys.exit(0 if same else DIVERGED)
    if any(looks.values()):
        _refuse("a session", {"--format": form != "text", "--continue": go_on, "--jobs": jobs})
    with one_line_errors(), Incident.open(file) as incident:
        if imported_from(incident):
            if any(looks.values()):
                raise ValueError(f"{file} was imported: it has no recorded decisions to stand at")
            click.echo("\n\n".join(told(incident, only, everything=go_on)))
            return
        if any(looks.values()):
            _look_around(incident, only, breaks, until, back=back, tui=tui, serve=serve)
            return
        diverged = _remake(incident, only, go_on, jobs, until, form)
    if diverged:
        sys.exit(DIVERGED)


def _refuse(what: str, options: Mapping[str, object]) -> None:
    """Raises UsageError where an option was given that would be passed over."""
    given = [name for name, value in options.items() if value]
    if given:
        raise click.UsageError(f"{' and '.join(given)} cannot go with {what}")


# --- all decisions ---


def _remake(
    incident: Incident, only: Sequence[str], go_on: bool, jobs: int | None, until: str | None, form: str
) -> bool:
    last = None
    if until is not None:
        session = Session(incident, only)
        last = session.ids[session.find(until)]
    pieces = plan_work(incident, only, until=last)
    total = sum(piece.last - piece.first for piece in pieces)
    count = jobs or (cores() if total >= WORTH_PROCESSES else 1)
    results, told = _results(incident, pieces, count, total, go_on)
    if form == "json":
        click.echo(orjson.dumps(_as_json(incident, results), option=orjson.OPT_INDENT_2).decode())
    else:
        for text in (*told, _summary(incident, results)):
            click.echo(text)
    return any(not each.identical and not each.purged for each in results)


def _results(
    incident: Incident, pieces: Sequence[Piece], jobs: int, total: int, go_on: bool
) -> tuple[list[Remade], list[str]]:
    """What is to be counted, and what to tell before."""
    seen: list[Remade] = []
    with _bar(total) as advance, contextlib.closing(remake_parallel(incident, pieces, jobs)) as batches:  # type: ignore[type-var]
        for batch in batches:
            advance(len(batch))
            for each in batch:
                seen.append(each)
                if each.told and not go_on:
                    return seen, [each.told + "\n"]
    return seen, _groups(seen)


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("re-making decisions"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    ) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)


def _groups(results: Sequence[Remade]) -> list[str]:
    """Divergences by controller and kind: the first of each in full, the others by name."""
    groups: dict[tuple[str, str], list[Remade]] = {}
    for each in results:
        if each.told:
            groups.setdefault((each.controller, each.how), []).append(each)
    lines = []
    for (controller, how), members in groups.items():
        others = [f"  also      decision {each.id} for {each.key}" for each in members[1 : LISTED + 1]]
        if len(members) > LISTED + 1:
            others.append(f"            and {len(members) - LISTED - 1} more")
        many = f"{len(members)} decision{'s' if len(members) > 1 else ''}"
        lines.append("\n".join([f"{controller}: {how}: {many}", members[0].told, *others, ""]))
    return lines


def _summary(incident: Incident, results: Sequence[Remade]) -> str:
    same = sum(1 for each in results if each.identical)
    purged = sum(1 for each in results if each.purged)
    diverged = len(results) - same - purged
    text = f"{len(results)} decisions, {same} identical"
    if diverged:
        text += f", {diverged} diverged"
    if purged:
        text += f", {purged} on versions that were purged, which nobody can re-make"
    if incident.skipped:
        text += f" ({incident.skipped} at the start of the file could not be placed)"
    return text


def _as_json(incident: Incident, results: Sequence[Remade]) -> dict[str, object]:
    diverged = [each for each in results if not each.identical and not each.purged]
    return {
        "decisions": len(results),
        "identical": sum(1 for each in results if each.identical),
        "purged": sum(1 for each in results if each.purged),
        "unplaced": incident.skipped,
        "diverged": [
            {
                "id": each.id,
                "controller": each.controller,
                "key": each.key,
                "how": each.how,
                "text": each.told,
            }
            for each in diverged
        ],
    }


# --- a session ---


def _look_around(
    incident: Incident, only: Sequence[str], breaks: Sequence[str], until: str | None, *, back: bool, tui: bool, serve: str | None
) -> None:  # fmt: skip
    session = Session(incident, only, breaks=[Break(text) for text in breaks])
    if until is not None:
        session.go(until)
    elif back:
        session.go("last")
    if breaks and not session.breaks_here() and not session.run_to_break(backwards=back):
        raise ValueError("no decision fulfils the condition")
    with contextlib.ExitStack() as stack:
        if serve is not None:
            from kcp.replay.serve import serving

            past = stack.enter_context(serving(incident.place, serve))
            session.on_move(lambda moved: past.go(moved.rv, moved.decision.now_us))
            past.go(session.rv, session.decision.now_us)
            click.echo(f"export KUBECONFIG={past.kubeconfig}")
        if tui:
            _screen(session)
        else:
            _converse(Terminal(session, lambda table: render(table, "table")), sys.stdin)


def _screen(session: Session) -> None:
    try:
        from kcp.cli.replay_tui import ReplayApp
    except ModuleNotFoundError as missing:
        raise ValueError(f"the screen needs {missing.name}: pip install 'kcp-controlplane[tui]'") from None
    ReplayApp(session).run()


def _converse(terminal: Terminal, lines: TextIO) -> None:
    asks = lines.isatty()
    click.echo(terminal.line())
    if asks:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - gives the prompt its editing
        click.echo("step, back, next, decision, why … (help lists all)")
    while True:
        try:
            text = input(terminal.prompt) if asks else lines.readline()
        except (EOFError, KeyboardInterrupt):
            return
        if not asks and not text:
            return
        try:
            answer = terminal.do(text)
        except Quit:
            return
        except (ValueError, StoreError) as error:
            answer = f"Error: {error}"
        if answer:
            click.echo(answer)
