"""A whole cluster from a seed: users, faults, healing, rest, and what had to hold all the while.

    run = simulate(7, rates=RATES)
    run.digest          the same for the same seed, in any process
    run.violations      empty, unless something is broken

Three phases. In the first a scripted user works and things fail; in the second nothing fails any more and the cluster
must come to rest; at rest caches, plans and owners are checked, and the run's own decisions are re-made from its log.
Everything runs on the deterministic loop: ten virtual minutes take about a second.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import attrs
import structlog
from anyio.abc import TaskGroup, TaskStatus

from kcp.apis.semantics.facts import FACTS
from kcp.base.clock import LoopClock, microseconds
from kcp.base.entropy import SeededEntropy
from kcp.base.loop import DetLoop, run_deterministic
from kcp.client.client import Client
from kcp.client.transport import InProcessTransport
from kcp.controlplane.cluster import ADMIN, Cluster, ClusterOptions
from kcp.machinery.errors import ApiError
from kcp.machinery.watch import WatchEvent
from kcp.node.fleet import Fleet
from kcp.replay import rest
from kcp.replay.faults import BUCKET_S, SIMULATED, Faults, FaultyTransport
from kcp.replay.incident import Incident, Reader
from kcp.replay.invariants import Violation, all_invariants
from kcp.replay.recording import Recording, digest_of
from kcp.replay.tripwire import armed
from kcp.replay.workload import Operation, play, script, tidy
from kcp.store.facts import projections
from kcp.store.log import EventLog
from kcp.store.memory import MemoryDriver
from kcp.store.open import open_store
from kcp.store.protocol import Event, Op
from kcp.store.reader import LogReader

Json = dict[str, Any]
DURATION_S = 600.0
NODES = 3
LIMIT_STEPS = 300_000
"""About ten times what a busy run of an hour takes; more is a run that spins."""
REST_WITHIN_S = 1800.0
"""How long after healing a cluster may take to come to rest: the longest backoff of a key is 1000 s."""
QUIET_S = 30.0
CATCH_UP_TRIES, CATCH_UP_S = 90, 1.0
"""A reflector waits up to a minute before it lists again."""
RESTART_STRETCH_S, SILENCE_STRETCH_S = BUCKET_S["restart"], BUCKET_S["node-silent"]
MAX_SILENCE_S = 180.0
WAKE_RETRY_S = 1.0
WITNESSED = ("pods", "replicasets.apps", "namespaces", "endpointslices.discovery.k8s.io")


@attrs.frozen
class Run:
    """What became of a seed. `said` has a line per operation of the user, `fired` the faults that happened."""

    seed: int
    digest: str
    revisions: int
    events: int
    decisions: int
    virtual_s: float
    steps: int
    violations: tuple[Violation, ...]
    fired: tuple[str, ...]
    operations: tuple[Operation, ...]
    said: tuple[str, ...]


@attrs.define
class Simulation:
    """One run in progress; owned by its loop."""

    seed: int
    duration_s: float
    operations: tuple[Operation, ...]
    nodes: int
    faults: Faults
    recording: Recording
    store: EventLog
    clock: LoopClock
    said: list[str] = attrs.field(factory=list)
    witnesses: list[Witness] = attrs.field(factory=list)

    def transport(self, inner: InProcessTransport) -> FaultyTransport:
        return FaultyTransport(inner, self.faults, self._panicked)

    def _panicked(self, text: str) -> None:
        self.recording.broken("no panic", self.store.rv, text)

    async def run(self) -> None:
        self.store.listen(self.recording.see)
        entropy = SeededEntropy(self.seed, "cluster")
        options = ClusterOptions(nodes=self.nodes, wrap_transport=self.transport)
        cluster = Cluster.build(self.store, self.clock, entropy, options)
        undisturbed = Client(InProcessTransport(cluster.handler, ADMIN, "witness"), cluster.catalog)
        async with anyio.create_task_group() as group:
            await group.start(cluster.run)
            self.witnesses = [Witness(resource, undisturbed) for resource in WITNESSED]
            for witness in self.witnesses:
                await group.start(witness.run)
            await self._disturb(cluster)
            self.faults.heal()
            await tidy(undisturbed)
            await self._rest(cluster)
            group.cancel_scope.cancel()

    async def _disturb(self, cluster: Cluster) -> None:
        """The user works, things fail."""
        self.faults.start()
        user = cluster.client(ADMIN, "simulated-user")
        with anyio.move_on_after(self.duration_s):
            async with anyio.create_task_group() as group:
                group.start_soon(self._restarts, cluster)
                group.start_soon(self._silences, cluster, group)
                await play(user, self.operations, self.said)
                await anyio.sleep_forever()

    async def _restarts(self, cluster: Cluster) -> None:
        while True:
            due = [(self.faults.draw("restart", name, ""), name) for name in cluster.components]
            begun_s = self.clock.monotonic()
            for share, name in sorted((share, name) for share, name in due if share is not None):
                await anyio.sleep_until(begun_s + share * RESTART_STRETCH_S)
                cluster.restart(name)
            await anyio.sleep_until(begun_s + RESTART_STRETCH_S)

    async def _silences(self, cluster: Cluster, group: TaskGroup) -> None:
        """Nodes go silent for a while; every other time the machine goes down with all that runs on it."""
        while True:
            begun_s = self.clock.monotonic()
            for name in sorted(cluster.fleet.agents) if cluster.fleet is not None else ():
                share = self.faults.draw("node-silent", "node", name)
                if share is not None:
                    group.start_soon(self._silence, cluster, name, share)
            await anyio.sleep_until(begun_s + SILENCE_STRETCH_S)

    async def _silence(self, cluster: Cluster, name: str, share: float) -> None:
        fleet = cluster.fleet
        assert fleet is not None
        if share < 0.5:
            fleet.stop_node(name)
        else:
            fleet.power_off_node(name)
        try:
            await anyio.sleep(5 + share * MAX_SILENCE_S)
        finally:
            with anyio.CancelScope(shield=True):
                await self._wake(cluster, fleet, name)

    async def _wake(self, cluster: Cluster, fleet: Fleet, name: str) -> None:
        """Until it talks again, or all nodes were restarted meanwhile."""
        while cluster.fleet is fleet and fleet.agents[name].silent:
            try:
                await fleet.start_node(name)
            except ApiError:
                await anyio.sleep(WAKE_RETRY_S)

    async def _rest(self, cluster: Cluster) -> None:
        """Wait until nothing moves any more, then look."""
        broken = self.recording.broken
        deadline_s = self.clock.monotonic() + REST_WITHIN_S
        reasons = ["it has not been quiet"]
        while self.clock.monotonic() < deadline_s:
            await anyio.sleep(QUIET_S / 3)
            quiet_us = microseconds(self.clock.now()) - self.recording.moved_us
            if quiet_us >= QUIET_S * 1e6:
                reasons = rest.unsettled(self.store)
                if not reasons:
                    break
        for reason in reasons:
            broken("comes to rest", 0, reason)
        for text in rest.dependents_of_nobody(self.store):
            broken("owners", 0, text)
        for text in await self._stale_caches(cluster):
            broken("caches", 0, text)
        for text in rest.unfinished_plans(cluster.server, cluster.runs):
            broken("idle plans", 0, text)
        for witness in self.witnesses:
            for text in witness.differences(self.recording.events_seen):
                broken("watchers", 0, text)

    async def _stale_caches(self, cluster: Cluster) -> list[str]:
        """Caches that stay behind; heartbeats go on, so one that waits to list again may be a little late."""
        found: list[str] = []
        for _ in range(CATCH_UP_TRIES):
            found = list(rest.stale_caches(self.store, cluster.informers))
            if not found:
                break
            await anyio.sleep(CATCH_UP_S)
        return found


@attrs.define
class Witness:
    """A watcher that nobody disturbs: it must see every change of its resource once, in order."""

    resource: str
    client: Client
    since_rv: int = 0
    saw: list[tuple[str, int]] = attrs.field(factory=list)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        page = await self.client.list(self.resource)
        self.since_rv = last = page.rv
        task_status.started()
        while True:
            async for batch in self.client.watch(self.resource, resource_version=str(last)):
                for event in batch:
                    last = event.document.rv
                    self._note(event)

    def _note(self, event: WatchEvent) -> None:
        if event.type != "BOOKMARK":
            self.saw.append((event.type, event.document.rv))

    def differences(self, events: Sequence[Event]) -> Iterator[str]:
        wanted = [
            (event.op.name, event.rv)
            for event in events
            if event.key.resource == self.resource and event.rv > self.since_rv and event.op is not Op.RENEWED
        ]
        if wanted != self.saw:
            pairs = zip([*wanted, None], [*self.saw, None], strict=False)
            at = next(((w, s) for w, s in pairs if w != s), None)
            yield f"a watch of {self.resource} saw {len(self.saw)} changes of {len(wanted)}; first difference: {at}"


def simulate(
    seed: int,
    *,
    duration_s: float = DURATION_S,
    operations: Sequence[Operation] | None = None,
    rates: Mapping[str, float] | None = None,
    only: frozenset[str] | None = None,
    nodes: int = NODES,
    store: str | Path = "memory:",
) -> Run:
    """Run the cluster of this seed to its end.

    `operations` and `only` (fault keys) replace what the seed would do; `store` is `memory:` or a file to write the
    log to, which is then an ordinary incident log. Raises OSError or StoreError when that file cannot be written.
    """
    script_ = script(seed, duration_s, nodes) if operations is None else tuple(operations)
    clock = LoopClock()
    steps: list[int] = [0]
    driver = (
        MemoryDriver(SeededEntropy(seed, "store").uid()) if str(store) in ("memory:", ":memory:") else None
    )
    recording = Recording(driver, all_invariants())
    faults = Faults(seed, rates or {}, clock, only)
    ended: list[float] = []
    said: list[str] = []

    async def main() -> None:
        if driver is not None:
            log = EventLog(driver, clock)
        else:
            entropy = SeededEntropy(seed, "store")
            log = open_store(store, clock=clock, inline=True, entropy=entropy, projections=projections(FACTS))
        simulation = Simulation(seed, duration_s, script_, nodes, faults, recording, log, clock, said)
        try:
            await simulation.run()
        finally:
            ended.append(clock.monotonic())

    def count(loop: DetLoop) -> None:
        steps[0] = loop.steps

    with armed(), _crashes_are_violations(recording):
        try:
            run_deterministic(main, seed, limit_steps=LIMIT_STEPS, on_step=count)
        except Exception as error:  # noqa: BLE001 - whatever ends a run is what the run has found
            recording.broken("no crash", 0, "".join(traceback.format_exception(error)))
    reader: Reader = recording if driver is not None else LogReader(store)
    try:
        if not recording.violations:
            for text in rest.diverging_decisions(Incident(reader)):
                recording.broken("replay", 0, text)
        decisions = list(reader.decisions())
        digest = digest_of(recording.events_seen, iter(decisions), reader.inputs())
    finally:
        reader.close()
    return Run(
        seed=seed,
        digest=digest,
        revisions=recording.events_seen[-1].rv if recording.events_seen else 0,
        events=sum(1 for event in recording.events_seen if event.op is not Op.RENEWED),
        decisions=len(decisions),
        virtual_s=ended[0] if ended else 0.0,
        steps=steps[0],
        violations=tuple(recording.violations),
        fired=tuple(faults.fired),
        operations=script_,
        said=tuple(said),
    )


@contextmanager
def _crashes_are_violations(recording: Recording) -> Iterator[None]:
    """What the log calls an error (a planner that raised, a component that crashed) is one."""

    def catch(logger: Any, method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
        del logger
        trace = traceback.format_exc()
        if method in ("error", "exception", "critical") and SIMULATED not in trace:
            about = {k: v for k, v in event.items() if k != "exc_info"}
            recording.broken("no crash", 0, f"{about}\n{trace}")
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[catch])
    try:
        yield
    finally:
        structlog.configure(**before)
