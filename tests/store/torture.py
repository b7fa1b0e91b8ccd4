"""`make torture`: everything that a log must survive, many times and for long. Prints progress and, at the end, a summary.

python -m tests.store.torture [--sqlite 500] [--postgresql 100] [--histories 50] [--cuts 5] [--pause 60]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from kcp.base import logs
from kcp.store import check
from tests.store import killing, postgres, survival
from tests.store.changes import open_for_test

DISKS = 12
MIB = 1 << 20


def pause(seconds: float, directory: Path) -> str:
    began = time.monotonic()
    asyncio.run(survival.pause_sqlite(directory / "paused-sqlite", seconds))
    words = "SQLite"
    if postgres.binaries() is not None:
        asyncio.run(survival.pause_postgresql(directory / "paused-postgresql", postgres.database(), seconds))
        words += " and PostgreSQL"
    return (
        f"{words}: a writer that stood still for {seconds:g} s was kept out, {time.monotonic() - began:.0f} s"
    )


def fill_disks(rounds: int) -> str:
    """Disks that become full at another byte each time."""
    began, writes = time.monotonic(), 0
    try:
        for number in range(rounds):
            with survival.small_disk(24 * MIB) as disk:
                writes += asyncio.run(_fill(disk, MIB + number * 7919))
                assert check.problems(disk / "data") == []
    except (PermissionError, FileNotFoundError) as error:
        return f"full disks: skipped, since nothing can be mounted here ({error})"
    return f"full disks: {rounds} times, {writes} acknowledged writes, none lost, {time.monotonic() - began:.0f} s"


async def _fill(disk: Path, leave_bytes: int) -> int:
    async with open_for_test(disk / "data", inline=leave_bytes % 2 == 0) as store:
        return await survival.fill_up(store, survival.fill_rest(disk, leave_bytes))


def cut(rounds: int) -> str:
    progress = killing.Progress("connections cut at each message", rounds)
    cuts = 0
    for _ in range(rounds):
        database = postgres.database().partition("@/")[2].partition("?")[0]
        cuts += asyncio.run(survival.cut_connections(postgres.server(), database))
        progress.tick()
    return f"PostgreSQL: {cuts} connections cut, each answer true, {progress.took_s:.0f} s"


def record_histories(rounds: int) -> str:
    progress = killing.Progress("histories of one or three daemons", rounds)
    seen = 0
    for seed in range(rounds):
        wrong, count = asyncio.run(
            survival.histories_under_cuts(
                postgres.database(), seed, steps=25 if seed % 2 else 60, daemons=1 if seed % 3 == 0 else 3
            )
        )
        assert wrong == [], f"seed {seed}: no moment of the log explains {wrong}"
        seen += count
        progress.tick()
    return f"PostgreSQL: {rounds} histories of one or three daemons, {seen} operations, all linearizable, {progress.took_s:.0f} s"


def main(asked: argparse.Namespace) -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kcp-torture-") as name:
        directory = Path(name)
        trials: list[Callable[[], str]] = [
            lambda: fill_disks(DISKS),
            lambda: pause(asked.pause, directory),
            lambda: killing.kill_sqlite(asked.sqlite, directory),
        ]
        if postgres.binaries() is not None:
            trials += [
                lambda: cut(asked.cuts),
                lambda: record_histories(asked.histories),
                lambda: killing.kill_postgresql(asked.postgresql, directory),
            ]
        lines = []
        for trial in trials:
            lines.append(trial())
            print(lines[-1], flush=True)
    if postgres.binaries() is None:
        lines.append("PostgreSQL is not installed: its part was skipped")
    print(f"\nsurvived in {time.monotonic() - began:.0f} s:", *lines, sep="\n  ")


if __name__ == "__main__":
    logs.configure(level="critical", stream=sys.stderr)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("sqlite", 500), ("postgresql", 100), ("histories", 50), ("cuts", 5)):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="ROUNDS")
    parser.add_argument("--pause", type=float, default=60.0, metavar="SECONDS")
    main(parser.parse_args())
