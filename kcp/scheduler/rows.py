"""Decision rows: what is written down about each attempt, enough to make it again.

One effect per row:

    {"kind": "Bind", "uid": …, "node": "n-7", "cycle": 812, "seed": 1, "feasible": 4990, "ties": 31, "total": 470}
    {"kind": "Status", "uid": …, "cycle": 813, "seed": 1, "text": "0/3 nodes are available: …", "plugins": […]}
    {"kind": "Preempt", …, "nominated": "n-1", "victims": [{"key", "uid"}, …], "pdb_violations": 0, "cleared": […]}

    {"kind": "Wait", …}    as Bind or Preempt, but nothing came of it: the pod's gang did not fit as a whole

What the state holds beyond the objects at the row's frontier stands in the row too: `assumed` {uid: node} in rows with a
whole frontier, `forgot` [uid, …] for what was taken back since the row before (each Bind row itself adds to it), and
`nominated_here` {uid: node} whenever nominations differ from what the objects say; `reserved` {volume: claim} while
volumes are being bound, `selecting` {claim: node} while they are being asked for; `allocating` {claim: {"pod", "allocation"}} in rows with a whole frontier for devices that are not in
the log yet, `ended` [claim, …] for those that came into it or were given back since the row before (each Bind row itself
adds its `allocations`); pods of a `gang` are decided on with those before them where they were `tried` and without the
victims `taken` so far, and share the devices of the pods `together` with them; `guard` {node: level} are nodes that failed pods lately; `evicting` {pod: [victim, …]} what was reclaimed for pods that
were not decided on again since; `extenders` has the answers of extenders that were asked. Profiles of one scheduler share one
state: only all their rows together, in the order of their ids, tell what it held.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import attrs
import orjson

from kcp.base.values import frozen
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.cycle import Decision
from kcp.scheduler.pod_class import PodInfo

Json = dict[str, Any]
WHOLE_FRONTIER_EVERY = 64
CONTEXT = (
    "assumed",
    "forgot",
    "nominated_here",
    "reserved",
    "selecting",
    "together",
    "extenders",
    "gang",
    "tried",
    "taken",
    "guard",
    "evicting",
    "allocating",
    "ended",
)


class DecisionSink(Protocol):
    """Where rows go: the log, in production."""

    def next_id(self) -> int: ...

    def record(self, decided: Any) -> None:
        """Takes a `Decided`."""
        ...


@frozen
class Decided:
    """One row, in the form in which controllers hand over theirs."""

    id: int
    controller: str
    key: str
    trigger: str
    frontier: dict[str, int]
    now_us: int
    effects: list[Json]
    code_hash: str
    config_hash: str
    epoch: int
    duration_us: int
    memo_before: Json | None = None
    first_rv: int = 0
    last_rv: int = 0


def digest(value: Any) -> str:
    """Sixteen hex digits that stand for a JSON value."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def code_digest() -> str:
    """Stands for the sources of this room."""
    here = Path(__file__).resolve().parent
    sources = [path.read_bytes() for path in sorted(here.rglob("*.py"))]
    return hashlib.sha256(b"\0".join(sources)).hexdigest()[:16]


def effect_of(info: PodInfo, decision: Decision) -> Json:
    """What was decided, without what it was decided on."""
    head: Json = {"uid": info.uid, "cycle": decision.cycle, "seed": decision.seed}
    if decision.node:
        bind: Json = {
            "kind": "Bind", **head, "node": decision.node, "feasible": decision.feasible, "ties": decision.ties,
            "total": decision.total,
        }  # fmt: skip
        if decision.allocations:
            bind["allocations"] = dict(decision.allocations)
        return bind
    effect: Json = {"kind": "Preempt" if decision.victims else "Status", **head, "text": decision.text}
    if decision.diagnosis is not None:
        effect["plugins"] = list(decision.diagnosis.plugins)
    if decision.nominated is not None:
        effect["nominated"] = decision.nominated
    if decision.victims:
        effect["victims"] = [{"key": v.key, "uid": v.uid} for v in decision.victims]
        effect["pdb_violations"] = decision.pdb_violations
    if decision.deallocated:
        effect["deallocated"] = decision.deallocated
    if decision.cleared:
        effect["cleared"] = [p.uid for p in decision.cleared]
    return effect


@attrs.define
class Rows:
    """The frontier and the context of one run's rows, as differences. Owned by the scheduler's task.

    `written` is the number of the next row; a scheduler that starts anew in one life of the store goes on counting.
    `forgot` is shared by the profiles of a scheduler: whichever row comes next tells it.
    """

    written: int = 0
    fresh: bool = True
    last: dict[str, int] = attrs.field(factory=dict)
    forgot: list[str] = attrs.field(factory=list)

    def frontier(self, now: Mapping[str, int]) -> dict[str, int]:
        whole = self.fresh or self.written % WHOLE_FRONTIER_EVERY == 0
        self.fresh = False
        if whole:
            found = dict(now)
            found["*"] = 1
        else:
            last = self.last
            found = {resource: rv for resource, rv in now.items() if last.get(resource) != rv}
        found["#"] = self.written
        self.last = dict(now)
        self.written += 1
        return found

    def context(self, frontier: Mapping[str, int], state: ClusterState) -> Json:
        found: Json = {}
        if "*" in frontier:
            found["assumed"] = dict(state.assumed)
        elif self.forgot:
            found["forgot"] = list(self.forgot)
        self.forgot.clear()
        if state.nominated_here:
            found["nominated_here"] = dict(state.nominated_here)
        if state.reserved:
            found["reserved"] = dict(state.reserved)
        if state.selecting:
            found["selecting"] = dict(state.selecting)
        if state.evicting:
            found["evicting"] = {uid: list(victims) for uid, victims in state.evicting.items()}
        if state.guard:
            found["guard"] = dict(state.guard)
        devices = state.devices
        if "*" in frontier:
            if devices.under_way:
                found["allocating"] = dict(devices.under_way)
        elif devices.ended:
            found["ended"] = list(devices.ended)
        devices.ended.clear()
        return found
