"""What a simulation has tried: which controller did what while which kind of fault was about.

A combination is (controller, kind of fault, what it then did); a fault counts for the controller that it hit, and for
everybody where it hits all (the log, the clocks, the nodes), during its stretch of time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from kcp.base.clock import EPOCH_OF_SIMULATION, microseconds
from kcp.base.values import frozen
from kcp.replay.faults import BUCKET_S, Faults, group_of
from kcp.store.protocol import Decision

Json = dict[str, Any]
EVERYBODY = ("store", "clock", "node")
Combination = tuple[str, str, str]


@frozen
class Coverage:
    """`controllers` counts decisions with effects by controller."""

    combinations: frozenset[Combination] = frozenset()
    controllers: tuple[tuple[str, int], ...] = ()


@attrs.define
class Total:
    """Of many runs."""

    combinations: set[Combination] = attrs.field(factory=set)
    controllers: dict[str, int] = attrs.field(factory=dict)
    logs: set[str] = attrs.field(factory=set)
    """The digests: each is another course of events."""

    def add(self, coverage: Coverage, digest: str) -> None:
        self.combinations |= coverage.combinations
        self.logs.add(digest)
        for name, count in coverage.controllers:
            self.controllers[name] = self.controllers.get(name, 0) + count

    def __str__(self) -> str:
        return (
            f"{len(self.logs)} distinct logs; {len(self.controllers)} controllers acted; "
            f"{len(self.combinations)} combinations of controller, fault and effect"
        )


def covered(decisions: Sequence[Decision], faults: Faults) -> Coverage:
    counts: dict[str, int] = {}
    started_us = microseconds(EPOCH_OF_SIMULATION) + round((faults.started_s or 0.0) * 1e6)
    about = _about(faults.fired)
    combinations: set[Combination] = set()
    for decision in decisions:
        done = sorted({_name(effect) for effect in decision.effects})
        if not done:
            continue
        counts[decision.controller] = counts.get(decision.controller, 0) + 1
        at_s = (decision.now_us - started_us) / 1e6
        for kind in _kinds(about, decision.controller, at_s):
            combinations.update((decision.controller, kind, name) for name in done)
    return Coverage(frozenset(combinations), tuple(sorted(counts.items())))


def _about(fired: Iterable[str]) -> dict[tuple[str, int], set[str]]:
    """Kind and bucket to the components that it hit."""
    about: dict[tuple[str, int], set[str]] = {}
    for key in fired:
        kind, component, _, bucket = key.split("/")
        about.setdefault((kind, int(bucket)), set()).add(component.partition("@")[0])
    return about


def _kinds(about: dict[tuple[str, int], set[str]], controller: str, at_s: float) -> list[str]:
    found = []
    for kind, bucket_s in BUCKET_S.items():
        hit = about.get((kind, int(at_s // bucket_s)), set())
        if any(name in (controller, group_of(controller)) or name.startswith(EVERYBODY) for name in hit):
            found.append(kind)
    return found


def _name(effect: Json) -> str:
    return f"{effect.get('kind', '')} {effect.get('resource', '')}".rstrip()
