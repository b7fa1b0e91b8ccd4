"""`kcp simulate`: whole made-up clusters from seeds, in virtual time, with faults."""

from __future__ import annotations

import sys
from multiprocessing import cpu_count
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kcp.base import logs
from kcp.base.clock import SystemClock
from kcp.cli.options import one_line_errors
from kcp.replay.coverage import Total
from kcp.replay.exploration import Scenario, explore
from kcp.replay.faults import KINDS, rates
from kcp.replay.shrink import MAX_RUNS, Budget, shrink
from kcp.replay.simulation import NODES, Run

FAILED = 1
SHOWN_VIOLATIONS = 5
SEVERAL = 8
"""Of many seeds each so-manieth has two daemons."""


@click.command("simulate")
@click.option("--seed", type=int, metavar="N", help="Run this one.  [default: 1]")
@click.option(
    "--seeds", type=click.IntRange(1), metavar="K", help="Run K of them, from --seed on, on all cores."
)
@click.option(
    "--case", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Run a saved case."
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0.1),
    default=10.0,
    show_default=True,
    help="Virtual minutes of trouble.",
)
@click.option(
    "--nodes", type=click.IntRange(0, 1000), default=NODES, show_default=True, help="Simulated nodes."
)
@click.option(
    "--daemons",
    type=click.IntRange(1, 5),
    metavar="N",
    help="So many control planes on one log, electing who acts.  [default: 1; with --seeds every eighth has 2]",
)
@click.option(
    "--faults",
    default="all",
    show_default=True,
    metavar="LIST",
    help=f"`none`, `all`, or names, each with =RATE if wanted: {', '.join(kind.name for kind in KINDS)}.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Write the log of the run: `kcp sql`, `kcp replay` read it.",
)
@click.option(
    "--save", type=click.Path(path_type=Path), help="Append a line for each failing seed to this file."
)
@click.option(
    "--shrink", "shrink_to", type=click.Path(path_type=Path), help="Make a failing run short; save it there."
)
@click.option("--verbose", is_flag=True, help="Also what the user did and what failed.")
def command(
    seed: int | None,
    seeds: int | None,
    case: Path | None,
    minutes: float,
    nodes: int,
    daemons: int | None,
    faults: str,
    out: Path | None,
    save: Path | None,
    shrink_to: Path | None,
    verbose: bool,
) -> None:
    """Run whole clusters from seeds: a user works, things fail, everything heals, and what must hold is checked.

    The same seed gives the same log, byte for byte, on every machine. Exit code 1: something did not hold.
    """
    logs.configure(level="error")
    with one_line_errors():
        rates(faults)
        if seeds is not None:
            first = seed if seed is not None else 1
            numbers = range(first, first + seeds)
            failures = _many(
                [Scenario(n, minutes, nodes, faults, daemons=daemons or _of(n)) for n in numbers], save
            )
        else:
            scenario = Scenario(seed if seed is not None else 1, minutes, nodes, faults, daemons=daemons or 1)
            if case is not None:
                scenario = Scenario.load(case.read_bytes())
            failures = _one(scenario, out, save, shrink_to, verbose)
    if failures:
        sys.exit(FAILED)


def _of(seed: int) -> int:
    return 2 if seed % SEVERAL == 0 else 1


def _one(
    scenario: Scenario, out: Path | None, save: Path | None, shrink_to: Path | None, verbose: bool
) -> int:
    clock = SystemClock()
    begun_s = clock.monotonic()
    run = scenario.run(out if out is not None else "memory:")
    click.echo(_told(run, clock.monotonic() - begun_s))
    if verbose:
        for line in (*run.said, *run.fired):
            click.echo(f"  {line}")
        for name, count in run.coverage.controllers:
            click.echo(f"  {name} acted {count} times")
    if not run.violations:
        return 0
    _save(save, scenario, run)
    if shrink_to is not None:
        _shrink(scenario, run, shrink_to)
    return 1


def _many(scenarios: list[Scenario], save: Path | None) -> int:
    clock = SystemClock()
    begun_s = clock.monotonic()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )
    failures, events, decisions, virtual_s, total = 0, 0, 0, 0.0, Total()
    with bar:
        task = bar.add_task("simulating", total=len(scenarios))
        for scenario, run in explore(scenarios, cpu_count()):
            bar.advance(task)
            events, decisions = events + run.events, decisions + run.decisions
            virtual_s += run.virtual_s
            total.add(run.coverage, run.digest)
            if run.violations:
                failures += 1
                bar.update(task, description=f"simulating, {failures} failed")
                click.echo(_told(run, None))
                _save(save, scenario, run)
    took_s = clock.monotonic() - begun_s
    click.echo(
        f"{len(scenarios)} seeds, {len(scenarios) - failures} held; {events} events, {decisions} decisions, "
        f"{virtual_s / 3600:.1f} virtual hours in {took_s:.0f} s"
    )
    click.echo(str(total))
    return failures


def _told(run: Run, took_s: float | None) -> str:
    real = f" in {took_s:.1f} s" if took_s is not None else ""
    lines = [
        f"seed {run.seed}: {run.events} events, {run.decisions} decisions, {len(run.fired)} faults, "
        f"{run.virtual_s:.0f} virtual seconds{real}",
        f"  digest {run.digest}",
    ]
    lines += [f"  BROKEN {violation}" for violation in run.violations[:SHOWN_VIOLATIONS]]
    if len(run.violations) > SHOWN_VIOLATIONS:
        lines.append(f"  … {len(run.violations)} in all")
    return "\n".join(lines)


def _save(file: Path | None, scenario: Scenario, run: Run) -> None:
    line = f"{scenario}  # {run.violations[0].invariant}"
    if file is None or scenario.only is not None:
        click.echo(f"  again: {line}", err=True)
        return
    with file.open("a") as lines:
        lines.write(line + "\n")


def _shrink(scenario: Scenario, run: Run, target: Path) -> None:
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("shrinking", total=MAX_RUNS)
        found = shrink(scenario, run, Budget(spent=lambda: bar.advance(task)))
    target.write_bytes(found.dump())
    faults, operations = len(found.only or ()), len(found.operations or ())
    click.echo(
        f"  {len(run.fired)} faults and {len(run.operations)} operations became {faults} and {operations}: "
        f"kcp simulate --case {target}"
    )
