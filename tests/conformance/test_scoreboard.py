"""Every passing row of the scoreboard is proved here, and the board never loses one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules

import pytest

import tests.conformance
from tests.conformance.clusters import StandingCluster, ask_cluster
from tests.conformance.scoreboard import PROOFS, rows

RECORDED_PASSING = 317
"""Raised whenever rows are added; never lowered."""
for module in iter_modules(tests.conformance.__path__):
    if not module.name.startswith("test_"):
        import_module(f"tests.conformance.{module.name}")  # each registers what it proves
ALONE = sorted(name for name, proof in PROOFS.items() if not proof.standing)
STANDING = sorted(name for name, proof in PROOFS.items() if proof.standing)


def identifier(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")


@pytest.fixture(scope="module")
def standing() -> Iterator[StandingCluster]:
    with StandingCluster() as cluster:
        yield cluster


def test_the_board_only_improves() -> None:
    counted = Counter(row.status for row in rows())
    assert set(counted) <= {"passing", "pending"}
    assert counted["passing"] >= RECORDED_PASSING


def test_names_are_unique_and_every_pending_row_says_what_it_needs() -> None:
    board = rows()
    assert len({row.name for row in board}) == len(board)
    assert all(row.needs for row in board if row.status == "pending")


def test_passing_rows_and_proofs_are_the_same() -> None:
    passing = sorted(row.name for row in rows() if row.status == "passing" and row.needs != "kubectl")
    assert passing == sorted(PROOFS)


@pytest.mark.parametrize("name", ALONE, ids=identifier)
def test_behaviour(name: str) -> None:
    proof = PROOFS[name]
    ask_cluster(proof.run, proof.controllers, proof.nodes)


@pytest.mark.parametrize("name", STANDING, ids=identifier)
def test_behaviour_with_nodes(name: str, standing: StandingCluster) -> None:
    standing.run(PROOFS[name].run)
