"""Arrivals written down by hand: nodes of so much cpu, pods that come, run for a while on a node, and go."""

from __future__ import annotations

from typing import Any

from kcp.machinery import meta
from kcp.replay.whatif.arrivals import Arrivals, Change, Life
from kcp.replay.whatif.deciding import decide_by
from kcp.replay.whatif.world import World
from kcp.scheduler.profiles import DEFAULT_NAME, Configuration
from tests.scheduler.harness import node, pod

Json = dict[str, Any]
SECOND_US = 1_000_000


class Script:
    """A log without decisions, as an importer leaves it. Times in seconds."""

    def __init__(self) -> None:
        self.lives: dict[str, Life] = {}
        self.known: dict[tuple[str, str], Json] = {}
        self._changes: list[tuple[float, str, Json | None, Json | None]] = []

    def node(self, name: str, cpu: str, *, at_s: float = 0, **about: Any) -> Script:
        return self.put(at_s, "nodes", node(name, allocatable={"cpu": cpu}, **about))

    def pod(
        self,
        name: str,
        cpu: str,
        on: str,
        *,
        at_s: float,
        ends_s: float = -1,
        gone_s: float = -1,
        owner: str = "",
        kind: str = "Job",
        **spec: Any,
    ) -> Script:
        """Bound to `on` at once. `ends_s`: when it was done; `gone_s`: when it was deleted."""
        made = pod(name, cpu=cpu, **spec)
        made["metadata"]["uid"] = name
        if owner:
            made["metadata"]["ownerReferences"] = [
                {"kind": kind, "name": owner, "uid": owner, "controller": True}
            ]
        made["status"] = {"phase": "Pending"}
        bound = {**made, "spec": {**made["spec"], "nodeName": on}}
        self.put(at_s, "pods", made)
        self.put(at_s, "pods", bound)
        life = Life(
            name, f"default/{name}", DEFAULT_NAME, owner, int(at_s * SECOND_US), int(at_s * SECOND_US), on
        )
        if ends_s >= 0:
            self.put(ends_s, "pods", {**bound, "status": {"phase": "Succeeded"}})
            life.ended_us = int(ends_s * SECOND_US)
        if gone_s >= 0:
            self.put(gone_s, "pods", None, key=f"default/{name}")
            life.deleted_us = int(gone_s * SECOND_US)
        self.lives[name] = life
        return self

    def put(self, at_s: float, resource: str, obj: Json | None, *, key: str = "") -> Script:
        key = key or meta.key_of(obj or {})
        old = self.known.get((resource, key))
        if obj is not None:
            self.known[(resource, key)] = obj
        self._changes.append((at_s, resource, old, obj))
        return self

    def gone(self, at_s: float, resource: str, key: str) -> Script:
        return self.put(at_s, resource, None, key=key)

    def arrivals(self, end_s: float) -> Arrivals:
        ordered = sorted(self._changes, key=lambda change: change[0])
        items = [
            Change(number + 1, int(at_s * SECOND_US), resource, old, new)
            for number, (at_s, resource, old, new) in enumerate(ordered)
        ]
        return Arrivals(
            base=(), assumed={}, items=items, lives=self.lives, first_rv=0, last_rv=len(items), start_us=0,
            end_us=int(end_s * SECOND_US), schedulers=frozenset(), grace_us=2 * SECOND_US,
        )  # fmt: skip


def decided(arrivals: Arrivals, configuration: Configuration | None = None, **options: Any) -> World:
    """What the default scheduler, or another, makes of it."""
    world = World(arrivals, decide_by(configuration or Configuration()), **options)
    world.start()
    for item in arrivals.items:
        world.meet(item)
    world.end()
    return world
