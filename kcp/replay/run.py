"""Re-makes everything a log recorded, whoever decided it: controllers and schedulers; on one core or on all.

    for remade in remake_parallel(place, plan_work(incident), jobs=4):
        ...

Work is cut into pieces that do not depend on how many processes share it, and results come in the order of the pieces, so
what is told is the same on any machine.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from itertools import islice

from kcp.base.values import frozen
from kcp.controllers.table import CONTROLLERS, OFF_BY_DEFAULT
from kcp.replay.compare import report, summary
from kcp.replay.decisions import Remaker, Result, replay
from kcp.replay.incident import Incident
from kcp.replay.scheduling import replay_scheduler

PIECE_DECISIONS = 500
"""A piece is long enough to be worth its start: caches have to be filled for it."""
WORTH_PROCESSES = 1500
"""With fewer decisions one process is done before others have started."""


@frozen
class Remade:
    """What became of a decision, in a form that travels between processes. `told` is empty when it is identical."""

    id: int
    controller: str
    key: str
    identical: bool
    purged: bool = False
    told: str = ""
    how: str = ""
    """How it differs, in a few words; equal ones are one group."""


@frozen
class Piece:
    """Decisions [first, last) of one controller, counted among those that can be placed. Schedulers have one piece each."""

    controller: str
    first: int
    last: int


def remake_all(incident: Incident, only: Sequence[str] = ()) -> Iterator[Result]:
    """Results in a fixed order: controllers in the order of their table, then schedulers by name.

    Raises ValueError for a name that the log does not have.
    """
    chosen = _chosen(incident, only)
    known = {c.name: c for c in (*CONTROLLERS, *OFF_BY_DEFAULT)}
    yield from replay(incident, {name: known[name] for name in chosen if name in known})
    for name in chosen:
        if name not in known:
            yield from replay_scheduler(incident, name)


def _chosen(incident: Incident, only: Sequence[str]) -> list[str]:
    only = incident.named(only)
    table = [controller.name for controller in (*CONTROLLERS, *OFF_BY_DEFAULT)]
    known = [name for name in table if name in incident.positions]
    others = [name for name in incident.controllers if name not in table]
    return [name for name in (*known, *others) if not only or name in only]


def plan_work(
    incident: Incident, only: Sequence[str] = (), *, until: int | None = None, size: int = PIECE_DECISIONS
) -> list[Piece]:
    """The pieces, in order. `until` is the id of the last decision to be made. Raises ValueError as `remake_all`."""
    pieces: list[Piece] = []
    table = {controller.name for controller in (*CONTROLLERS, *OFF_BY_DEFAULT)}
    for name in _chosen(incident, only):
        ids = incident.positions[name].placed
        count = len(ids) if until is None else sum(1 for number in ids if number <= until)
        step = size if name in table else max(1, count)
        pieces += [Piece(name, first, min(first + step, count)) for first in range(0, count, step)]
    return pieces


def remake_piece(incident: Incident, piece: Piece) -> Iterator[Remade]:
    known = {c.name: c for c in (*CONTROLLERS, *OFF_BY_DEFAULT)}
    results: Iterator[Result]
    if piece.controller in known:
        remaker = Remaker(incident, known[piece.controller])
        rows = incident.decisions_of(piece.controller)
        results = (remaker.remake(*rows[at]) for at in range(piece.first, piece.last))
    else:
        results = islice(replay_scheduler(incident, piece.controller), piece.first, piece.last)
    for result in results:
        yield remade(incident, result)


def remade(incident: Incident, result: Result) -> Remade:
    decision, found = result.decision, result.divergence
    if found is None:
        return Remade(decision.id, decision.controller, decision.key, result.identical, result.purged)
    told = report(incident, found, result.code_changed)
    return Remade(decision.id, decision.controller, decision.key, False, told=told, how=summary(found))


def remake_parallel(incident: Incident, pieces: Sequence[Piece], jobs: int) -> Iterator[Sequence[Remade]]:
    """The results of each piece, in order; those of a piece in one process come one by one. Close it to stop early."""
    if jobs <= 1 or not incident.place:
        for piece in pieces:
            yield from ([one] for one in remake_piece(incident, piece))
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(jobs, max(1, len(pieces))), _open, (incident.place,)) as pool:
        yield from pool.imap(_work, pieces)


def cores() -> int:
    """How many processes can run at once here."""
    return len(os.sched_getaffinity(0))


_opened: list[Incident] = []
"""The incident of a worker process."""


def _open(place: str) -> None:
    _opened.append(Incident.open(place))


def _work(piece: Piece) -> list[Remade]:
    return list(remake_piece(_opened[0], piece))
