"""A recorded log, run again as a whole: controllers, scheduler and machines live, users as they were.

    again = rerun("incident.kcplog", Path("again.kcp"))
    again = rerun("incident.kcplog", Path("other.kcp"), Changes(swaps=("deployment=my.module:plan",)))

On the deterministic loop, from the base state of the log, in its time: a second run takes as long as its events do, not as
its hours, and gives the same log in any process.

A log that `kcp simulate` wrote is the run of a seed: it is run again with the same operations, faults and seed, and every
event is the same, byte for byte. Of any other log the requests of users are asked again at their time; generated names are
given out as they were, machines come, fall silent, return and go as they did, a write takes as long as a quick one did.
What happened at once can come in another order there: see `equality.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import attrs
from anyio.abc import TaskGroup

from kcp.api.auth.protocol import UserInfo
from kcp.api.context import ServerSettings
from kcp.apis.semantics.facts import FACTS
from kcp.base.clock import LoopClock, SystemClock, moment
from kcp.base.entropy import SeededEntropy
from kcp.base.loop import TooManySteps, run_deterministic
from kcp.base.values import frozen
from kcp.client.client import Client
from kcp.client.transport import InProcessTransport
from kcp.controllers.table import CONTROLLERS
from kcp.controlplane.cluster import ADMIN, Cluster, ClusterOptions
from kcp.machinery.errors import NotFound
from kcp.node.fleet import Fleet
from kcp.replay.asking import Asking
from kcp.replay.changes import Changes, Prepared
from kcp.replay.constants import scheduler_with
from kcp.replay.machines import Step
from kcp.replay.names import Names, NamingTransport
from kcp.replay.outside import Asked, Cycles, Life, Outside, read
from kcp.replay.pace import paced
from kcp.replay.simulation import GIVEN, Given
from kcp.scheduler.profiles import parse_configuration
from kcp.store.facts import projections
from kcp.store.open import open_store
from kcp.store.protocol import Key, StoreError
from kcp.store.reader import LogReader
from kcp.store.transfer import export_incident

Json = dict[str, Any]
SEED = 1
ROOT_CA = "kube-root-ca.crt"
AT_START_US = 15_000_000
STEPS, STEPS_PER_EVENT = 1_000_000, 1_000
"""What a run may take is far more than any takes that does not spin."""
"""Machines that come this soon after a start belong to it."""
SETTLE_S = 0.01
"""What was under way in the end is a moment later here, or earlier."""


@frozen
class Again:
    """A second run. `place` is its log. `refused` has a line per request that was refused this time.

    `exact`: the log was the run of a seed, so that the second run is the same but for what was changed.
    `broken` says what did not hold that has to hold in a simulation.
    """

    place: Path
    exact: bool
    asked: int
    refused: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    untold: int = 0


def rerun(source: str, target: Path, changes: Changes | None = None, *, until: int | None = None) -> Again:
    """Run the log at `source` again, into a new log at `target`. Raises StoreError, and ValueError for strange changes.

    `until` is the last revision whose request is asked again; a simulated log is run to its end.
    """
    prepared = (changes or Changes()).prepare()
    with LogReader(source) as reader:
        given = simulated(reader)
        if given is not None:
            return _simulated(given, target, prepared)
        outside, about = read(reader, until), _About.of(reader)
    if not outside.lives:
        raise StoreError(f"{source} has no events to run again")
    prepared.check_machines(outside.machines.names)
    _write_base(source, about.base_rv, target)
    second = _Second(outside, about, target, prepared)
    try:
        with prepared.in_force():
            run_deterministic(second.run, SEED, limit_steps=STEPS + outside.events * STEPS_PER_EVENT)
    except TooManySteps as spinning:
        raise ValueError(f"the second run does not come to an end: {spinning}") from None
    asking = second.asking
    return Again(target, False, asking.asked, tuple(asking.said), untold=outside.untold)


def simulated(reader: LogReader) -> Given | None:
    """What the simulation was given whose log this is; None for any other log, and for a part without its beginning."""
    found = next((given for _, _, given in reader.inputs(GIVEN)), None)
    return Given.of(found.payload) if found is not None and reader.base_rv == 0 else None


def _simulated(given: Given, target: Path, prepared: Prepared) -> Again:
    prepared.check_machines([each.name for each in ClusterOptions(nodes=given.nodes).node_specs()])
    with scheduler_with(prepared.scheduling):
        run = given.simulate(store=target, change=prepared.options, foreign=prepared.modules)
    broken = tuple(str(violation) for violation in run.violations)
    refused = tuple(line for line in run.said if not line.endswith(": ok"))
    return Again(target, True, len(run.said), refused, broken)


# --- a log that nobody simulated ---


@frozen
class _About:
    """What a second run has to know of the cluster that was recorded, besides what its starts say."""

    base_rv: int
    endpoints: Sequence[tuple[int, str, int]]
    """Since when (µs), under which address and port the API was served."""
    service_cidrs: Sequence[str]
    root_ca: str

    @classmethod
    def of(cls, reader: LogReader) -> _About:
        cidrs = reader.get_at(Key("servicecidrs.networking.k8s.io", "", "kubernetes"), reader.last_rv)
        root = reader.get_at(Key("configmaps", "default", ROOT_CA), reader.last_rv)
        return cls(
            reader.base_rv,
            list(_endpoints(reader)),
            [] if cidrs is None else cidrs.value["spec"].get("cidrs") or [],
            "" if root is None else (root.value.get("data") or {}).get("ca.crt", ""),
        )

    def settings(self) -> dict[str, Json]:
        """Those of controllers that a cluster gives them, for a log that does not have its start."""
        return {each.name: {"root_ca": self.root_ca} for each in CONTROLLERS if "root_ca" in each.settings}

    def server(self, life: Life) -> ServerSettings:
        settings = ServerSettings()
        served = [endpoint for endpoint in self.endpoints if endpoint[0] <= life.end_us]
        if served:
            _, address, port = served[-1]
            settings = attrs.evolve(settings, external_address=address, external_port=port)
        if self.service_cidrs:
            settings = attrs.evolve(settings, service_cidr=",".join(self.service_cidrs))
        return settings


def _endpoints(reader: LogReader) -> Iterator[tuple[int, str, int]]:
    key = Key("endpoints", "default", "kubernetes")
    base = reader.get_at(key, reader.base_rv)
    versions = [(0, base.value)] if base is not None else []
    versions += [(e.ts_us, e.record.value) for e in reader.events(resources=["endpoints"]) if e.key == key]
    for since_us, value in versions:
        for subset in value.get("subsets") or ():
            if subset.get("addresses") and subset.get("ports"):
                yield since_us, str(subset["addresses"][0]["ip"]), int(subset["ports"][0]["port"])


def _write_base(source: str, base_rv: int, target: Path) -> None:
    """The state before the first event, as a log that ends there."""
    if target.exists():
        raise StoreError(f"{target} exists already")
    target.parent.mkdir(parents=True, exist_ok=True)
    if base_rv:
        export_incident(
            source, target, clock=SystemClock(), mask_key=b"", first_rv=base_rv + 1, last_rv=base_rv, redact=False
        )  # fmt: skip


@attrs.define
class _Second:
    """A second run under way; owned by its loop. One control plane after the other, as it was started anew."""

    outside: Outside
    about: _About
    target: Path
    prepared: Prepared
    clock: LoopClock = attrs.field(init=False)
    asking: Asking = attrs.field(init=False)
    names: Names = attrs.field(init=False)
    _clusters: list[Cluster] = attrs.field(factory=list)
    _given: deque[Asked | Step] = attrs.field(init=False)
    _dropped: frozenset[str] = frozenset()
    """Recorded machines that the second run does not have."""

    def __attrs_post_init__(self) -> None:
        self.clock = LoopClock(moment(self.outside.start_us))
        self.names = Names.of(self.outside.names, lambda key: self.cluster.store.get(key) is not None)
        self.asking = Asking(self._client, lambda: self.cluster.store, self.outside.uids)
        given: list[Asked | Step] = [*self.outside.asked, *self.outside.machines.steps]
        self._given = deque(sorted(given, key=lambda each: (each.ts_us, each.rv)))

    @property
    def cluster(self) -> Cluster:
        return self._clusters[-1]

    def _client(self, user: UserInfo, agent: str) -> Client:
        """Of somebody outside: the moment in the log is the one when the answer was there."""
        return Client(InProcessTransport(self.cluster.handler, user, agent), self.cluster.catalog)

    async def run(self) -> None:
        for number, life in enumerate(self.outside.lives, 1):
            await anyio.sleep_until(self._loop_s(life.start_us))
            async with anyio.create_task_group() as group:
                await self._live(group, number, life)
                group.cancel_scope.cancel()

    def _loop_s(self, ts_us: int) -> float:
        return (ts_us - self.outside.start_us) / 1e6

    async def _live(self, group: TaskGroup, number: int, life: Life) -> None:
        """One control plane, from its start to its end."""
        if number > 1 or not self.about.base_rv:
            self.outside.pace.patient_until_us = life.start_us + AT_START_US
        store = open_store(
            self.target, clock=self.clock, inline=True, entropy=SeededEntropy(SEED, "store"),
            projections=projections(FACTS), durable=False,
        )  # fmt: skip
        entropy = SeededEntropy(SEED, f"cluster/{number}")
        cluster = Cluster.build(store, self.clock, entropy, self._options(life))
        cycles = life.cycles or Cycles(life.started.get("scheduler_seed", cluster.scheduler_seed))
        cluster.scheduler_seed = cycles.seed
        self._clusters.append(cluster)
        await group.start(cluster.run)
        if cluster.scheduler is not None:
            cluster.scheduler.numbering = lambda info, attempts: cycles.number(info.key, attempts)
        await self._remove_dropped(cluster.client(ADMIN, "kcp-replay"))
        while self._given and self._given[0].ts_us <= life.end_us:
            each = self._given.popleft()
            await anyio.sleep_until(self._loop_s(each.ts_us))
            await (self._step(each, life) if isinstance(each, Step) else self.asking.ask(each))
        await anyio.sleep_until(self._loop_s(life.end_us) + SETTLE_S)

    def _options(self, life: Life) -> ClusterOptions:
        recorded = self.outside.machines.at(life.start_us + AT_START_US)
        settings = life.started.get("settings") or {}
        pace, latency_s = self.outside.pace, self.outside.latency_us / 1e6
        options = ClusterOptions(
            server=self.about.server(life),
            machines=tuple(recorded),
            programs=self.outside.machines.lifetimes.program,
            controller_settings=settings or self.about.settings(),
            wrap_transport=lambda inner: NamingTransport(inner, self.names, pace, self.clock, latency_s),
            wrap_queue=lambda name, queue: paced(name, queue, pace, self.clock),
        )
        if settings:
            running = tuple(controller for controller in options.controllers if controller.name in settings)
            options = attrs.evolve(options, controllers=running)
        scheduler = life.started.get("scheduler")
        if scheduler is not None:
            found = parse_configuration(scheduler["configuration"], scheduler.get("base", ""))
            options = attrs.evolve(options, scheduler_configuration=found)
        options = self.prepared.options(options)
        self._dropped = frozenset(each.name for each in recorded) - {
            each.name for each in options.node_specs()
        }
        return options

    async def _remove_dropped(self, client: Client) -> None:
        """Machines that were there before the log begins have an object."""
        for name in sorted(self._dropped):
            with suppress(NotFound):
                await client.delete("nodes", name)

    async def _step(self, step: Step, life: Life) -> None:
        fleet = self.cluster.fleet
        if fleet is None or step.name in self._dropped:
            return
        if step.what == "new" and step.name not in fleet.agents and step.spec is not None:
            await fleet.add_node(step.spec)
        elif step.name in fleet.agents and step.ts_us > life.start_us:
            await _MOVES[step.what](fleet, step.name)


async def _silent(fleet: Fleet, name: str) -> None:
    fleet.stop_node(name)


async def _off(fleet: Fleet, name: str) -> None:
    fleet.power_off_node(name)


async def _back(fleet: Fleet, name: str) -> None:
    await fleet.start_node(name)


async def _gone(fleet: Fleet, name: str) -> None:
    fleet.remove_node(name)


async def _known(fleet: Fleet, name: str) -> None:
    """It was there already when the control plane started."""


_MOVES: Mapping[str, Callable[[Fleet, str], Awaitable[None]]] = {
    "silent": _silent,
    "off": _off,
    "back": _back,
    "gone": _gone,
    "new": _known,
}
