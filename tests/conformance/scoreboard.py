"""Which of Kubernetes' conformance behaviours hold here: scoreboard.csv, and the scenarios that prove the rows.

A row is `passing`, proved by a scenario of ours under the same name, or `pending` with what it needs. A scenario is our
own test of the same behaviour; the end-to-end suite itself runs elsewhere.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import attrs

from kcp.controllers.sources import Controller
from tests.conformance.clusters import Scenario

BOARD = Path(__file__).with_name("scoreboard.csv")


@attrs.frozen
class Row:
    name: str
    status: str
    needs: str


@attrs.frozen
class Proof:
    """`nodes` 0: an API server with those controllers. `standing`: on the cluster with nodes that many share."""

    run: Scenario
    controllers: tuple[Controller, ...] = ()
    nodes: int = 0
    standing: bool = False


PROOFS: dict[str, Proof] = {}
"""By the name of the behaviour, without `[Conformance]`."""


def proves(name: str, controllers: tuple[Controller, ...] = ()) -> Callable[[Scenario], Scenario]:
    """Registers a scenario as the proof of a behaviour."""

    def register(scenario: Scenario) -> Scenario:
        assert name not in PROOFS, name
        PROOFS[name] = Proof(scenario, controllers)
        return scenario

    return register


def on_nodes(name: str, alone: int = 0) -> Callable[[Scenario], Scenario]:
    """Registers a scenario that needs a whole cluster: the standing one, or one to itself with so many nodes."""

    def register(scenario: Scenario) -> Scenario:
        assert name not in PROOFS, name
        PROOFS[name] = Proof(scenario, nodes=alone, standing=not alone)
        return scenario

    return register


def rows() -> list[Row]:
    with BOARD.open(encoding="utf-8", newline="") as file:
        return [Row(**row) for row in csv.DictReader(file)]
