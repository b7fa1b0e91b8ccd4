"""Many simulations on all cores, and the lines in which a simulation is written down.

seed=7 minutes=10 nodes=3 faults=all      # a regression: what it found
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import orjson

from kcp.base import logs
from kcp.base.interpreter import settle
from kcp.base.values import frozen
from kcp.replay import faults
from kcp.replay.simulation import NODES, Run, simulate
from kcp.replay.workload import Operation

Json = dict[str, Any]


@frozen
class Scenario:
    """A simulation as one asks for it. `only` and `operations`, when given, replace what the seed would do."""

    seed: int
    minutes: float = 10.0
    nodes: int = NODES
    faults: str = "all"
    only: tuple[str, ...] | None = None
    operations: tuple[Operation, ...] | None = None
    daemons: int = 1

    def __str__(self) -> str:
        several = f" daemons={self.daemons}" if self.daemons > 1 else ""
        return f"seed={self.seed} minutes={self.minutes:g} nodes={self.nodes} faults={self.faults}{several}"

    @classmethod
    def parse(cls, line: str) -> Scenario:
        """Raises ValueError for anything but `name=value` words of the line's kind."""
        given = dict(word.split("=", 1) for word in line.partition("#")[0].split())
        unknown = sorted(set(given) - {"seed", "minutes", "nodes", "faults", "daemons"})
        if unknown or "seed" not in given:
            raise ValueError(f"not a simulation: {line.strip()!r}")
        return cls(
            int(given["seed"]),
            float(given.get("minutes", 10.0)),
            int(given.get("nodes", NODES)),
            given.get("faults", "all"),
            daemons=int(given.get("daemons", 1)),
        )

    def run(self, store: str | Path = "memory:") -> Run:
        return simulate(
            self.seed,
            duration_s=self.minutes * 60,
            operations=self.operations,
            rates=faults.rates(self.faults),
            only=None if self.only is None else frozenset(self.only),
            nodes=self.nodes,
            daemons=self.daemons,
            store=store,
        )

    def dump(self) -> bytes:
        """The file of a case: JSON, read by `load`."""
        written: Json = {
            "seed": self.seed,
            "minutes": self.minutes,
            "nodes": self.nodes,
            "faults": self.faults,
            "daemons": self.daemons,
            "only": self.only,
            "operations": None if self.operations is None else [op.as_json() for op in self.operations],
        }
        return orjson.dumps(written, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def load(cls, data: bytes) -> Scenario:
        """Raises ValueError when it is no case."""
        given = orjson.loads(data)
        try:
            only, operations = given["only"], given["operations"]
            return cls(
                given["seed"],
                given["minutes"],
                given["nodes"],
                given["faults"],
                None if only is None else tuple(only),
                None if operations is None else tuple(Operation(**operation) for operation in operations),
                given.get("daemons", 1),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a case of a simulation: {error}") from error


def regressions(text: str) -> list[Scenario]:
    """The scenarios of a file of lines; empty lines and comments aside."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [Scenario.parse(line) for line in lines if line]


@contextmanager
def workers(processes: int) -> Iterator[Pool]:
    """Processes to run scenarios in; starting them costs as much as a run."""
    with multiprocessing.get_context("spawn").Pool(processes, _prepare) as pool:
        yield pool


def explore(
    scenarios: Sequence[Scenario], processes: int, pool: Pool | None = None
) -> Iterator[tuple[Scenario, Run]]:
    """Run them all, as many at once as there are processes; results as they come. `pool`: in these."""
    if pool is not None:
        yield from pool.imap_unordered(_one, scenarios)
        return
    with workers(min(processes, len(scenarios)) or 1) as own:
        yield from own.imap_unordered(_one, scenarios)


def _prepare() -> None:
    logs.configure(level="error")
    settle()


def _one(scenario: Scenario) -> tuple[Scenario, Run]:
    return scenario, scenario.run()
