"""Two courses of the same arrivals side by side, and where they part first.

recorded = Side("recorded", configured_as_recorded(incident), follows=True)
found = compare(arrivals, recorded, Side("packing.yaml", decide_by(configuration)))
found.elsewhere, found.first, found.before.waited_us
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
import orjson

from kcp.apis.semantics import pods
from kcp.replay.incident import IDS_PER_RUN, Incident
from kcp.replay.scheduling import Profiles
from kcp.replay.whatif.arrivals import Arrivals, Attempt, Change, Item
from kcp.replay.whatif.deciding import Made, ProfileOf
from kcp.replay.whatif.machines import Machines
from kcp.replay.whatif.measures import Usage, typical_pod
from kcp.replay.whatif.slots import Slot
from kcp.replay.whatif.world import World
from kcp.scheduler.explain import NodeVerdict, explain
from kcp.scheduler.pod_class import PodInfo, Shape, shape_of
from kcp.scheduler.profiles import Configuration, Profile
from kcp.store.protocol import Decision

Json = dict[str, Any]


@attrs.frozen
class Side:
    """One course: who decides, on which machines. One that `follows` takes the recorded decisions; `configuration` has the backoffs that count."""

    name: str
    profile_of: ProfileOf
    follows: bool = False
    machines: Machines = attrs.field(factory=Machines)
    configuration: Configuration | None = None


def configured_as_recorded(incident: Incident) -> ProfileOf:
    """The profile that took each decision; between recorded decisions the one that took the last."""
    found = Profiles(incident)
    known: dict[tuple[int, str], Profile] = {}
    newest: dict[str, Profile] = {}

    def profile_of(scheduler: str, decision: Decision | None) -> Profile | None:
        if decision is None:
            return newest.get(scheduler)
        key = decision.id // IDS_PER_RUN, decision.controller
        if key not in known:
            known[key] = found.of(decision)
        newest[scheduler] = known[key]
        return known[key]

    return profile_of


# --- what came of it ---


@attrs.frozen
class Course:
    """One side's outcome. `waiting` has the pods that wait at the end, with what was last said of them; `waited_us` is how long
    each one that came and was placed had waited. `busy_nodes` had a pod: (mean, peak).
    """

    name: str
    decisions: int
    placed: int
    waiting: Mapping[str, str]
    preemptions: int
    evicted: int
    waited_us: tuple[int, ...]
    usage: Mapping[str, Usage]
    busy_nodes: tuple[float, int]
    left_out: int


@attrs.frozen
class Difference:
    """One pod. Nodes are where it was put first, "" for nowhere; texts are why it had none in the end."""

    pod: str
    before: str
    after: str
    before_text: str = ""
    after_text: str = ""


@attrs.frozen
class Weighed:
    """What one side said of one node for the pod of the first difference."""

    side: str
    node: str
    verdict: NodeVerdict | None


@attrs.frozen
class First:
    """The first decision that is another one. `before` or `after` None: that side took none then. `weighed`: each side on both nodes.

    `decision` is the recorded one, None when the log has none for it.
    """

    pod: str
    at_us: int
    decision: int | None
    before: Made | None
    after: Made | None
    weighed: tuple[Weighed, ...]


@attrs.frozen
class Comparison:
    """Differences by pod, in the order in which the pods came. Pods that need not be replaced are in none of them."""

    arrivals: Arrivals
    before: Course
    after: Course
    elsewhere: tuple[Difference, ...]
    only_before: tuple[Difference, ...]
    only_after: tuple[Difference, ...]
    evicted_only_before: tuple[str, ...]
    evicted_only_after: tuple[str, ...]
    first: First | None

    @property
    def same(self) -> bool:
        return self.first is None and not (self.elsewhere or self.only_before or self.only_after)


def compare(arrivals: Arrivals, before: Side, after: Side) -> Comparison:
    """Let both meet the arrivals, in step. Raises ConfigError for a profile whose plugin is not to be had."""
    typical = typical_pod(_shapes(arrivals))
    worlds = [_world(arrivals, side, typical) for side in (before, after)]
    watch = _Watch(worlds[0], worlds[1], (before.name, after.name))
    for world in worlds:
        world.start()
    watch.look(None)
    for item in arrivals.items:
        for world in worlds:
            world.meet(item)
        watch.look(item)
    for world in worlds:
        world.end()
    return _compared(arrivals, before, after, worlds[0], worlds[1], watch.first)


def _world(arrivals: Arrivals, side: Side, typical: Mapping[str, int]) -> World:
    return World(
        arrivals, side.profile_of, follows=side.follows, machines=side.machines, typical=typical,
        backoffs=side.configuration,
    )  # fmt: skip


def _shapes(arrivals: Arrivals) -> list[Shape]:
    """What each pod asks for; a pod of the base counts as well."""
    known: dict[bytes, Shape] = {}
    found = []
    for pod in _new_pods(arrivals):
        spec = pod["spec"]
        asked = [
            [c.get("resources"), c.get("restartPolicy")]
            for f in ("initContainers", "containers")
            for c in spec.get(f) or ()
        ]
        key = orjson.dumps(
            [asked, len(spec.get("containers") or ()), spec.get("overhead"), spec.get("resources")]
        )
        if key not in known:
            known[key] = Shape(*shape_of(pod))
        found.append(known[key])
    return found


def _new_pods(arrivals: Arrivals) -> Iterator[Json]:
    yield from (obj for resource, obj in arrivals.base if resource == "pods" and not pods.is_terminal(obj))
    for item in arrivals.items:
        if isinstance(item, Change) and item.resource == "pods" and item.old is None and item.new is not None:
            yield item.new


# --- where they part ---

EXPLAINED = 8
"""So many open differences are explained; one of the first is the one that is told in the end."""


class _Watch:
    """Compares what has become of each pod that somebody has just decided about.

    A difference is open until both sides have done the same with the pod: to be later is none. It is explained when it
    opens, since the state of then is gone afterwards.
    """

    def __init__(self, before: World, after: World, names: tuple[str, str]) -> None:
        self._worlds = before, after
        self._names = names
        self._open: dict[str, First] = {}

    @property
    def first(self) -> First | None:
        return next(iter(self._open.values()), None)

    def look(self, item: Item | None) -> None:
        made = [world.made for world in self._worlds]
        if made[0] or made[1]:
            before, after = ({each.uid: each for each in side} for side in made)
            for uid in {**before, **after}:
                self._compare(uid, item, before.get(uid), after.get(uid))
            for side in made:
                side.clear()

    def _compare(self, uid: str, item: Item | None, before: Made | None, after: Made | None) -> None:
        one, other = (world.slots.get(uid) for world in self._worlds)
        if one is None or other is None or one.name != other.name:
            return
        if (one.placed, one.victims) == (other.placed, other.victims):
            self._open.pop(one.first_uid, None)
        elif one.first_uid not in self._open:
            self._open[one.first_uid] = self._difference(one, item, before, after)
        else:
            known = self._open[one.first_uid]
            self._open[one.first_uid] = attrs.evolve(
                known, before=known.before or before, after=known.after or after
            )

    def _difference(self, slot: Slot, item: Item | None, before: Made | None, after: Made | None) -> First:
        either = before or after
        assert either is not None
        decision = item.decision if isinstance(item, Attempt) and item.effect["uid"] == either.uid else None
        nodes = dict.fromkeys(made.node for made in (before, after) if made is not None and made.node)
        if not self._worlds[0].arrivals.schedulers and slot.life.node:
            nodes[slot.life.node] = None
        sides = zip(self._worlds, self._names, strict=True) if len(self._open) < EXPLAINED else ()
        weighed = tuple(
            Weighed(name, node, verdict)
            for world, name in sides
            for node, verdict in _weigh(world, either.uid, item, list(nodes))
        )
        number = decision.id if decision is not None else None
        return First(slot.name, either.at_us, number, before, after, weighed)


def _weigh(
    world: World, uid: str, item: Item | None, nodes: list[str]
) -> Iterator[tuple[str, NodeVerdict | None]]:
    """What a side says of these nodes, on the state it decided on."""
    slot = world.slots.get(uid)
    info = world.state.pods.get(slot.uid) if slot is not None else None
    if slot is None or info is None:
        return
    framework = world.framework_of(slot, item.decision if isinstance(item, Attempt) else None)
    if framework is None:
        return
    with _unbound(info):
        verdicts = {verdict.node: verdict for verdict in explain(framework, info).nodes}
    for node in nodes or list(verdicts):
        yield node, verdicts.get(node)


@contextmanager
def _unbound(info: PodInfo) -> Iterator[None]:
    """The pod as it was before it was put anywhere."""
    bound = info.pod
    info.pod = {**bound, "spec": {key: value for key, value in bound["spec"].items() if key != "nodeName"}}
    try:
        yield
    finally:
        info.pod = bound


# --- what differs in the end ---


def _compared(
    arrivals: Arrivals, before: Side, after: Side, one: World, other: World, first: First | None
) -> Comparison:
    pairs = [(slot, other.slots[uid]) for uid, slot in _own(one) if uid in other.slots]
    pairs = [(slot, counterpart) for slot, counterpart in pairs if counterpart.name == slot.name]
    differing = [
        Difference(a.name, a.first_node, b.first_node, a.text, b.text)
        for a, b in pairs
        if a.first_node != b.first_node
    ]
    return Comparison(
        arrivals,
        _course(before, one),
        _course(after, other),
        tuple(d for d in differing if d.before and d.after),
        tuple(d for d in differing if not d.after),
        tuple(d for d in differing if not d.before),
        tuple(a.name for a, b in pairs if a.evictions and not b.evictions),
        tuple(b.name for a, b in pairs if b.evictions and not a.evictions),
        first,
    )


def _own(world: World) -> Iterator[tuple[str, Slot]]:
    """Each slot once, under the uid of its first pod."""
    return ((uid, slot) for uid, slot in world.slots.items() if uid == slot.first_uid)


def _waits(slot: Slot) -> bool:
    return slot.shown is not None and not slot.node and not pods.is_terminal(slot.shown)


def _course(side: Side, world: World) -> Course:
    slots = [slot for _, slot in _own(world)]
    return Course(
        side.name,
        world.decisions,
        sum(bool(slot.placed) for slot in slots),
        {slot.name: slot.text for slot in slots if _waits(slot)},
        world.preemptions,
        sum(slot.evictions for slot in slots),
        tuple(slot.waited_us for slot in slots if slot.waited_us >= 0),
        world.meter.usage,
        world.meter.busy_nodes,
        world.left_out,
    )
