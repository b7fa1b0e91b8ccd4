"""A whole cluster from a seed: users, faults, healing, rest, and what had to hold all the while.

    run = simulate(7, rates=RATES)
    run.digest          the same for the same seed, in any process
    run.violations      empty, unless something is broken

Three phases. In the first a scripted user works and things fail; in the second nothing fails any more and the cluster
must come to rest; at rest caches, plans and owners are checked, and the run's own decisions are re-made from its log.
Everything runs on the deterministic loop: ten virtual minutes take two or three seconds.

A log that a run has written says what the run was given (input `simulation`), so it can be run again: `reexecution.py`.

With `daemons=2` two control planes share one log, as on PostgreSQL: each has its own API server, caches, clock and
candidates; they take turns by Lease, and whoever is paused while another takes over must not write any more.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import attrs
import structlog

from kcp.api.filters.attribution import FENCED_TEXT
from kcp.apis.semantics.facts import FACTS
from kcp.base.certs import Authority, generate_key, private_key_pem
from kcp.base.clock import Clock, LoopClock
from kcp.base.entropy import SeededEntropy
from kcp.base.loop import DetLoop, run_deterministic
from kcp.base.values import frozen
from kcp.client.client import Client
from kcp.client.transport import InProcessTransport
from kcp.controlplane.cluster import ADMIN, CANDIDATES, Cluster, ClusterOptions
from kcp.controlplane.election import Election
from kcp.machinery.errors import ApiError
from kcp.replay import rest
from kcp.replay.coverage import Coverage, covered
from kcp.replay.disturbances import WRONG_BY_S, Disturbances, WrongClock
from kcp.replay.faults import CONTROLLERS, SIMULATED, Faults, FaultyTransport, Pauses, group_of
from kcp.replay.incident import Incident, Reader
from kcp.replay.invariants import LEASES, Leaders, Violation, all_invariants
from kcp.replay.recording import Recording, digest_of
from kcp.replay.settled import unsettled
from kcp.replay.store_faults import Daemon, FaultyDriver, Later, SharedLog
from kcp.replay.tripwire import armed
from kcp.replay.witness import WITNESSED, Witness
from kcp.replay.workload import Operation, play, script, tidy
from kcp.replay.workload_invariants import workload_invariants
from kcp.store.facts import projections
from kcp.store.log import EventLog
from kcp.store.memory import MemoryDriver
from kcp.store.open import open_store
from kcp.store.protocol import Decision, Input, Key, Op
from kcp.store.reader import LogReader

Json = dict[str, Any]
Change = Callable[[ClusterOptions], ClusterOptions]
GIVEN = "simulation"
"""The input that says what a run was given."""
DURATION_S = 600.0
NODES = 3
LIMIT_STEPS = 300_000
"""About ten times what a busy run of an hour takes; more is a run that spins."""
REST_WITHIN_S = 1800.0
"""How long after healing a cluster may take to come to rest: the longest backoff of a key is 1000 s."""
QUIET_S = 30.0
TIDY_TRIES, UNDONE_TRIES = 60, 5
LATEST_TIMER_S = max(WRONG_BY_S) + QUIET_S
CATCH_UP_TRIES, CATCH_UP_S = 90, 1.0
"""A reflector waits up to a minute before it lists again."""


@frozen
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
    coverage: Coverage = attrs.field(factory=Coverage)


@frozen
class Given:
    """What a run was given: its log keeps it, for whoever runs it again. `rates` None and empty are the same: no faults."""

    seed: int
    duration_s: float
    operations: tuple[Operation, ...]
    rates: Mapping[str, float]
    only: frozenset[str] | None
    nodes: int

    def as_json(self) -> Json:
        return {
            "seed": self.seed,
            "duration_s": self.duration_s,
            "operations": [operation.as_json() for operation in self.operations],
            "rates": dict(self.rates),
            "only": None if self.only is None else sorted(self.only),
            "nodes": self.nodes,
        }

    @classmethod
    def of(cls, payload: Json) -> Given:
        only = payload["only"]
        operations = tuple(Operation(**each) for each in payload["operations"])
        return cls(
            payload["seed"], payload["duration_s"], operations, payload["rates"],
            None if only is None else frozenset(only), payload["nodes"],
        )  # fmt: skip

    def simulate(self, **options: Any) -> Run:
        """Once more; `options` are the further ones of `simulate`."""
        return simulate(
            self.seed, duration_s=self.duration_s, operations=self.operations, rates=self.rates, only=self.only,
            nodes=self.nodes, **options,
        )  # fmt: skip


@attrs.define
class Simulation:
    """One run in progress; owned by its loop."""

    seed: int
    duration_s: float
    operations: tuple[Operation, ...]
    nodes: int
    faults: Faults
    recording: Recording
    clock: LoopClock
    said: list[str]
    open_logs: Callable[[Later], list[EventLog]]
    """The log as each daemon has it."""
    given: Given
    change: Change
    clusters: list[Cluster] = attrs.field(factory=list)
    witnesses: list[Witness] = attrs.field(factory=list)

    @property
    def store(self) -> EventLog:
        """The log as the first daemon has it: that one is watched."""
        store = self.clusters[0].store
        assert isinstance(store, EventLog)
        return store

    async def run(self) -> None:
        async with anyio.create_task_group() as group:

            def later(seconds: float, then: Callable[[], None]) -> None:
                group.start_soon(_later, seconds, then)

            logs = self.open_logs(later)
            logs[0].listen(self.recording.see)
            logs[0].record(Input(GIVEN, self.given.as_json()))
            self.clusters = [self._cluster(number, log, len(logs)) for number, log in enumerate(logs, 1)]
            for cluster in self.clusters:
                await group.start(cluster.run)
            for cluster in self.clusters:
                client = Client(InProcessTransport(cluster.handler, ADMIN, "witness"), cluster.catalog)
                self.witnesses += [Witness(resource, client) for resource in WITNESSED]
            for witness in self.witnesses:
                await group.start(witness.run)
            await self._disturb()
            self.faults.heal()
            await self._tidy(self.witnesses[0].client)
            await self._rest()
            group.cancel_scope.cancel()

    def _cluster(self, number: int, log: EventLog, daemons: int) -> Cluster:
        """The daemon of this number; the second and further ones have names and chances of their own."""
        daemon = "" if number == 1 else f"@{number}"
        entropy = SeededEntropy(self.seed, f"cluster{daemon}")
        pauses = Pauses(self.faults, daemon) if daemons > 1 else None

        def transport(inner: InProcessTransport) -> FaultyTransport:
            return FaultyTransport(
                inner, self.faults, self._panicked, daemon, lambda name: cluster.restart(name), pauses
            )

        options = self.change(ClusterOptions(nodes=self.nodes, wrap_transport=transport))
        clock: Clock = WrongClock(self.clock, self.faults, f"clock{daemon}")
        if daemons > 1:
            options = self._one_of_several(number, options)
        cluster = Cluster.build(log, clock, entropy, options)
        return cluster

    def _one_of_several(self, number: int, options: ClusterOptions) -> ClusterOptions:
        """Keys are shared, and the daemons tell each other apart."""
        keys = SeededEntropy(self.seed, "keys")
        return attrs.evolve(
            options,
            election=Election(identity_of(number)),
            host=identity_of(number),
            peer_address=f"192.0.2.{number}:6443",
            authority=Authority.create("kubernetes", self.clock, keys.stream("authority")),
            service_account_key=private_key_pem(generate_key(keys.stream("accounts"))),
        )

    def _panicked(self, text: str) -> None:
        self.recording.broken("no panic", self.store.rv, text)

    async def _disturb(self) -> None:
        """The user works, things fail."""
        self.faults.start()
        user = self.clusters[0].client(ADMIN, "simulated-user")
        with anyio.move_on_after(self.duration_s):
            async with anyio.create_task_group() as group:
                for number, cluster in enumerate(self.clusters, 1):
                    daemon = "" if number == 1 else f"@{number}"
                    Disturbances(cluster, self.faults, self.clock, daemon).start(group)
                await play(user, self.operations, self.said)
                await anyio.sleep_forever()

    async def _tidy(self, client: Client) -> None:
        """What is under way when everything heals may still be refused."""
        for _ in range(TIDY_TRIES):
            try:
                await tidy(client)
                return
            except ApiError:
                await anyio.sleep(CATCH_UP_S)
        await tidy(client)

    async def _rest(self) -> None:
        """Wait until nothing moves any more, then look."""
        broken = self.recording.broken
        late_s = LATEST_TIMER_S if self._clock_was_wrong() else 0.0
        deadline_s = self.clock.monotonic() + REST_WITHIN_S + late_s
        reasons = ["it has not been quiet"]
        while self.clock.monotonic() < deadline_s:
            await anyio.sleep(QUIET_S / 3)
            if self.clock.monotonic() - self.recording.moved_s >= QUIET_S:
                reasons = unsettled(self.store)
                if not reasons:
                    break
        for reason in reasons:
            broken("comes to rest", 0, reason)
        for text in rest.dependents_of_nobody(self.store):
            broken("owners", 0, text)
        for cluster in self._leading():
            for text in await self._stale_caches(cluster):
                broken("caches", 0, text)
            for text in await self._unfinished_plans(cluster):
                broken("idle plans", 0, text)
        for cluster in self.clusters:
            await cluster.store.catch_up()
        await anyio.sleep(CATCH_UP_S)
        for witness in self.witnesses:
            for text in witness.differences(self.recording.events_seen):
                broken("watchers", 0, text)

    def _leading(self) -> list[Cluster]:
        """Whose controllers run."""
        if len(self.clusters) == 1:
            return self.clusters
        lease = self.store.get(Key(LEASES, "kube-system", CONTROLLERS))
        holder = None if lease is None else lease.value["spec"].get("holderIdentity")
        return [c for c in self.clusters if c.options.election and c.options.election.identity == holder]

    async def _unfinished_plans(self, cluster: Cluster) -> list[str]:
        """What stays undone; a timer may be due this very moment, one that was set by a wrong clock as late as that was wrong."""
        found: list[str] = []
        waits = [CATCH_UP_S] * UNDONE_TRIES
        if self._clock_was_wrong():
            waits.append(LATEST_TIMER_S)
        for wait_s in (*waits, 0.0):
            found = list(rest.unfinished_plans(cluster.server, cluster.runs))
            if not found:
                break
            await anyio.sleep(wait_s)
        return found

    def _clock_was_wrong(self) -> bool:
        """Then whatever waits since a moment that was an hour ahead waits an hour longer, as it does in Kubernetes."""
        return any(key.startswith("clock-jump/") for key in self.faults.fired)

    async def _stale_caches(self, cluster: Cluster) -> list[str]:
        """Caches that stay behind; heartbeats go on, so one that waits to list again may be a little late."""
        found: list[str] = []
        for _ in range(CATCH_UP_TRIES):
            found = list(rest.stale_caches(cluster.store, cluster.informers))
            if not found:
                break
            await anyio.sleep(CATCH_UP_S)
        return found


async def _later(seconds: float, then: Callable[[], None]) -> None:
    try:
        await anyio.sleep(seconds)
    finally:
        then()


def identity_of(number: int) -> str:
    return f"daemon-{number}"


def _opener(
    driver: MemoryDriver | None,
    store: str | Path,
    seed: int,
    numbers: Sequence[int],
    clock: LoopClock,
    faults: Faults,
) -> Callable[[Later], list[EventLog]]:
    if driver is None:
        return partial(_open_file, store, seed, clock, faults)
    return partial(_open_in_memory, driver, numbers, clock, faults)


def _open_file(
    store: str | Path, seed: int, clock: LoopClock, faults: Faults, later: Later
) -> list[EventLog]:
    return [
        open_store(
            store,
            clock=WrongClock(clock, faults, "clock"),
            inline=True,
            entropy=SeededEntropy(seed, "store"),
            projections=projections(FACTS),
            wrap_driver=lambda inner: FaultyDriver(inner, faults, later),
        )
    ]


def _open_in_memory(
    driver: MemoryDriver, numbers: Sequence[int], clock: LoopClock, faults: Faults, later: Later
) -> list[EventLog]:
    """A log for each daemon; several share what the driver holds."""
    if len(numbers) == 1:
        return [EventLog(FaultyDriver(driver, faults, later), WrongClock(clock, faults, "clock"))]
    shared = SharedLog(driver)
    return [
        EventLog(FaultyDriver(each, faults, later, each.name), _clock_of(each.number, clock, faults))
        for each in (Daemon(shared, number, faults) for number in numbers)
    ]


def _decided(recording: Recording, reader: Reader) -> tuple[list[tuple[int, Decision]], str]:
    """The decisions of a run and the digest of its log; what replay finds is a violation like any other."""
    try:
        if not recording.violations:
            for text in rest.diverging_decisions(Incident(reader)):
                recording.broken("replay", 0, text)
        decisions = list(reader.decisions())
        return decisions, digest_of(recording.events_seen, iter(decisions), reader.inputs())
    finally:
        reader.close()


def simulate(
    seed: int,
    *,
    duration_s: float = DURATION_S,
    operations: Sequence[Operation] | None = None,
    rates: Mapping[str, float] | None = None,
    only: frozenset[str] | None = None,
    nodes: int = NODES,
    daemons: int = 1,
    store: str | Path = "memory:",
    change: Change = lambda options: options,
    foreign: Sequence[str] = (),
) -> Run:
    """Run the cluster of this seed to its end.

    `operations` and `only` (fault keys) replace what the seed would do; `store` is `memory:` or a file to write the
    log to, which is then an ordinary incident log. `change` makes the cluster another one than usual, with code from
    modules whose names begin as in `foreign`. Raises OSError or StoreError when that file cannot be written,
    ValueError for a file that several daemons would have to share.
    """
    in_memory = str(store) in ("memory:", ":memory:")
    if daemons > 1 and not in_memory:
        raise ValueError("several simulated daemons share a log in memory, not a file")
    script_ = script(seed, duration_s, nodes) if operations is None else tuple(operations)
    clock = LoopClock()
    steps: list[int] = [0]
    driver = MemoryDriver(SeededEntropy(seed, "store").uid()) if in_memory else None
    identities = {number: identity_of(number) for number in range(1, daemons + 1)}
    leaders = [Leaders(_lease_of, identities)] if daemons > 1 else []
    recording = Recording(driver, [*all_invariants(), *workload_invariants(), *leaders], clock)
    faults = Faults(seed, rates or {}, clock, only)
    given = Given(seed, duration_s, script_, rates or {}, only, nodes)
    ended: list[float] = []
    said: list[str] = []

    open_logs = _opener(driver, store, seed, list(identities), clock, faults)
    simulation = Simulation(
        seed, duration_s, script_, nodes, faults, recording, clock, said, open_logs, given, change
    )

    async def main() -> None:
        try:
            await simulation.run()
        finally:
            ended.append(clock.monotonic())

    def count(loop: DetLoop) -> None:
        steps[0] = loop.steps

    with armed(*foreign), _crashes_are_violations(recording):
        try:
            run_deterministic(main, seed, limit_steps=LIMIT_STEPS, on_step=count)
        except Exception as error:  # noqa: BLE001 - whatever ends a run is what the run has found
            recording.broken("no crash", 0, "".join(traceback.format_exception(error)))
    decisions, digest = _decided(recording, recording if driver is not None else LogReader(store))
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
        coverage=covered([decision for _, decision in decisions], faults),
    )


def _lease_of(user_agent: str) -> str:
    group = group_of(user_agent)
    return CANDIDATES[group][1] if group in CANDIDATES else ""


def _clock_of(number: int, clock: LoopClock, faults: Faults) -> Clock:
    return WrongClock(clock, faults, "clock" if number == 1 else f"clock@{number}")


@contextmanager
def _crashes_are_violations(recording: Recording) -> Iterator[None]:
    """What the log calls an error (a planner that raised, a component that crashed) is one."""

    def catch(logger: Any, method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
        del logger
        trace = traceback.format_exc()
        about = {k: v for k, v in event.items() if k != "exc_info"}
        told = f"{trace}{about}"
        expected = any(text in told for text in (SIMULATED, FENCED_TEXT))
        if method in ("error", "exception", "critical") and not expected:
            recording.broken("no crash", 0, f"{about}\n{trace}")
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[catch])
    try:
        yield
    finally:
        structlog.configure(**before)
