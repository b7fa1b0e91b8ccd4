"""The slow scheduler's way with gangs: one pod after the other on a copy of the world; all or none. Part of the oracle.

Written from the rules of the how-to: each pod is decided on with those before it on their nodes, and without the pods
that these would evict. Nothing is evicted for a gang that does not fit as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import attrs

from kcp.apis.semantics import pods
from kcp.base.values import frozen
from kcp.scheduler import reference_preemption
from kcp.scheduler.reference import Verdict
from kcp.scheduler.reference_world import World

Json = dict[str, Any]
Outcome = Literal["bound", "room", "none"]


@frozen
class GangVerdict:
    """`verdicts` of the pods that were decided on, in order; the others could not change anything any more."""

    outcome: Outcome
    verdicts: tuple[tuple[str, Verdict], ...]


def attempt(world: World, members: Sequence[Json], missing: int, *, cycle: int, seed: int) -> GangVerdict:
    """`members` in the order in which they came, `missing` of them need a place; the first one is decided in `cycle`."""
    ordered = sorted(members, key=lambda pod: -pods.priority(pod))
    trial = attrs.evolve(world, placed=list(world.placed))
    found: list[tuple[str, Verdict]] = []
    placed = with_victims = 0
    for number, pod in enumerate(ordered):
        if placed == missing or placed + len(ordered) - number < missing:
            break
        verdict = reference_preemption.decide(trial, pod, cycle=cycle + number, seed=seed)
        found.append((pod["metadata"]["uid"], verdict))
        place = verdict.node or verdict.nominated
        if place:
            placed += 1
            with_victims += not verdict.node
            trial.placed = [
                (other, node)
                for other, node in trial.placed
                if other["metadata"]["uid"] not in verdict.victims
            ]
            trial.placed.append((pod, place))
    if placed < missing:
        return GangVerdict("none", tuple(found))
    return GangVerdict("room" if with_victims else "bound", tuple(found))
