"""Gangs and queues of tenants: what the scheduler decides is what the slow one decides.

`pytest tests/properties/test_own_plugins_oracle.py --decisions 1000000` looks at more random clusters.
"""

from __future__ import annotations

from random import Random
from typing import Any

import attrs
import pytest

from kcp.machinery import meta
from kcp.replay.whatif.gangs import Still
from kcp.scheduler import gang_cycle, profiles, reference_gangs
from kcp.scheduler.cluster_state import POD_GROUPS, ClusterState
from kcp.scheduler.cycle import Answers, Decision, decide
from kcp.scheduler.events import Follower
from kcp.scheduler.framework.runtime import Framework
from kcp.scheduler.plugins.gang_scheduling import GangScheduling
from kcp.scheduler.pod_class import PodInfo
from kcp.scheduler.pre_bind import Gang
from kcp.scheduler.profiles import API_VERSION, ConfigError, Profile, parse_configuration
from kcp.scheduler.queue import QueuedPod, SchedulingQueue
from kcp.scheduler.reference_tenants import TenantWorld
from tests.properties import scheduler_worlds as worlds
from tests.properties.test_scheduler_oracle import DECISIONS_PER_PART, SEEDS_PER_PART, Pair, _disturb

Json = dict[str, Any]
SHARE = 20
"""Of the decisions that are asked for one in so many is looked at by each of the two."""
SEED = 11


# --- queues of tenants ---


def queues(rng: Random) -> list[Json]:
    """Two tenants, in an organisation or not; what each may have, has a right to, and keeps free."""
    rows: list[Json] = []
    parent = {"parent": "org"} if rng.random() < 0.4 else {}
    if parent:
        rows.append({"name": "org", **limits(rng, 0.4, "4", "6")})
    rows.append({"name": "red", "namespaces": ["one"], **parent, **limits(rng, 0.5, "1", "2", "3")})
    rows.append({"name": "blue", "namespaces": ["tw*"], **parent, **limits(rng, 0.5, "1", "2", "3")})
    if rng.random() < 0.3:
        rows.append({"name": "default", "weight": 3})
    return rows


def limits(rng: Random, likely: float, *cpu: str) -> Json:
    found: Json = {"weight": rng.randint(1, 3)}
    if rng.random() < likely:
        found["capability"] = {"cpu": rng.choice(cpu)}
        if rng.random() < 0.3:
            found["capability"]["pods"] = rng.choice(["2", "5"])
    if rng.random() < likely:
        found["deserved"] = {"cpu": rng.choice(["500m", "1"]), "memory": "1Gi"}
    if rng.random() < likely / 2:
        found["guarantee"] = {"cpu": rng.choice(["300m", "500m"])}
    if rng.random() < 0.2:
        found["reclaimable"] = False
    return found


def tenant_profile(rows: list[Json], label: str) -> Profile:
    profile = {
        "plugins": {
            "multiPoint": {"enabled": [{"name": "TenantQueue"}], "disabled": [{"name": "PrioritySort"}]}
        },
        "pluginConfig": [{"name": "TenantQueue", "args": {"queueLabel": label, "queues": rows}}],
    }
    document = {"apiVersion": API_VERSION, "kind": "KubeSchedulerConfiguration", "profiles": [profile]}
    return parse_configuration(document).profiles[0]


@attrs.define
class Tenants(Pair):
    """The pair with queues; pods that find no node keep waiting, which counts for what is due."""

    rows: list[Json] = attrs.field(factory=list)
    label: str = ""

    def __attrs_post_init__(self) -> None:
        while not self.rows:
            rows = queues(self.rng)
            try:
                profile = tenant_profile(rows, self.label)
            except ConfigError:
                continue
            self.rows = rows
            self.framework = profiles.build(self.state, profile)
        everyone = (
            self.rows if any(r["name"] == "default" for r in self.rows) else [*self.rows, {"name": "default"}]
        )
        self.world.tenants = TenantWorld(everyone, self.label)

    @property
    def waiting(self) -> list[Json]:
        assert isinstance(self.world.tenants, TenantWorld)
        return self.world.tenants.waiting

    def schedule(self, template: Json) -> None:
        pod = worlds.pod(template, self.number)
        self.waiting.append(pod)
        self.state.apply("pods", None, pod)
        if self._attempt(pod):
            self._attempt(pod)

    def _place(self, pod: Json, node: str) -> None:
        self.waiting.remove(pod)
        super()._place(pod, node)


def tenants_of(seed: int) -> tuple[int, int]:
    """(decisions that were compared, pods that were evicted)."""
    rng = Random(seed)
    pair = Tenants(rng, label=rng.choice(["", "team"]))
    names = [f"n{number}" for number in range(rng.randint(2, 6))]
    for name in worlds.NAMESPACES:
        pair.set_namespace(name, {"team": rng.choice(["red", "blue"])})
    for name in names:
        pair.add_node(name)
    kind = worlds.plain_kind_of_pod if seed % 3 else worlds.kind_of_pod
    templates = [_without_volumes(kind(rng)) for _ in range(rng.randint(2, 5))]
    evicted = 0
    for _ in range(25):
        _disturb(pair, rng, names)
        before = len(pair.world.placed)
        pair.schedule(worlds.with_priority(rng, rng.choice(templates)))
        evicted += len(pair.world.placed) < before
    return pair.number, evicted


def _without_volumes(template: Json) -> Json:
    return {**template, "spec": {key: value for key, value in template["spec"].items() if key != "volumes"}}


# --- gangs ---


class Host:
    """A scheduler as far as trying a gang needs one; keeps what was decided."""

    def __init__(self, state: ClusterState, framework: Framework, first_cycle: int) -> None:
        self.state = state
        self.queue = SchedulingQueue(lambda queued, event, hints: False)
        self.follower = Follower(state, self.queue, frozenset(), lambda: 0, lambda: None)
        self.forgot: list[str] = []
        self.unschedulable = 0
        self.gangs_to_prepare: list[Gang] = []
        self.clock = self.writes = Still()
        self.decided: list[tuple[str, Decision]] = []
        self._framework = framework
        self._cycle = first_cycle

    def framework(self, info: PodInfo) -> Framework:
        return self._framework

    def decide(self, queued: QueuedPod, info: PodInfo, now_us: int) -> Decision:
        found = decide(self._framework, info, cycle=self._cycle, seed=SEED)
        self._cycle += 1
        self.decided.append((info.uid, found))
        return found

    def record(
        self,
        queued: QueuedPod,
        info: PodInfo,
        decision: Decision,
        now_us: int,
        started_s: float,
        answers: Answers | None,
        extra: Json | None = None,
    ) -> int:
        return 0

    def rejected(
        self, queued: QueuedPod, info: PodInfo, decision: Decision, number: int, now_us: int
    ) -> None:
        self.queue.back(queued, ("NodeName",), now_us)

    def error(self, queued: QueuedPod, pod: Json, text: str, now_us: int) -> None:
        raise AssertionError(text)

    def tell(self, pod: Json, reason: str, text: str, nominated: str | None, number: int) -> None: ...


@attrs.define
class Gangs(Pair):
    """The pair with gangs that come one after the other and go again when they found no place."""

    gangs: int = 0
    outcomes: list[str] = attrs.field(factory=list)

    def gang(self, templates: list[Json], size: int, minimum: int) -> None:
        self.gangs += 1
        name = f"gang-{self.gangs}"
        namespace = templates[0]["namespace"]
        group = {
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"schedulingPolicy": {"gang": {"minCount": minimum}}},
        }
        plugin = GangScheduling(self.state, {"reserveAfterSeconds": 0})
        host = Host(self.state, self.framework, self.number)
        self.state.apply(POD_GROUPS, None, group)
        members = []
        for number in range(size):
            template = {**self.rng.choice(templates), "namespace": namespace}
            pod = worlds.pod(template, 100 * self.gangs + number)
            pod["spec"] = {**pod["spec"], "schedulingGroup": {"podGroupName": name}}
            members.append(pod)
            self.state.apply("pods", None, pod)
            plugin.follow("pods", None, pod)
            host.queue.add(pod, self.state.pods[meta.uid(pod)].priority, number)
        first = host.queue.pop(size)
        assert first is not None
        batches = gang_cycle.attempt(host, plugin, f"{namespace}/{name}", first, size)
        theirs = reference_gangs.attempt(self.world, members, minimum, cycle=self.number, seed=SEED)
        self._compare(host, theirs, bool(batches))
        self._follow(members, host, theirs)

    def _compare(self, host: Host, theirs: reference_gangs.GangVerdict, bound: bool) -> None:
        self.number += len(theirs.verdicts)
        self.outcomes.append(theirs.outcome)
        assert [uid for uid, _ in host.decided] == [uid for uid, _ in theirs.verdicts]
        for (_, ours), (_, verdict) in zip(host.decided, theirs.verdicts, strict=True):
            assert (ours.node, ours.total, ours.ties) == (verdict.node, verdict.total, verdict.ties)
            if not verdict.node:
                self._compare_failures(ours, verdict)
        assert bound == (theirs.outcome == "bound")

    def _follow(self, members: list[Json], host: Host, theirs: reference_gangs.GangVerdict) -> None:
        """Bound pods stay; of the others nothing may be left, and victims only go where room was made."""
        verdicts = dict(theirs.verdicts)
        if theirs.outcome != "bound":
            assert not [uid for uid in self.state.assumed if uid in verdicts]
            for pod in members:
                self.state.apply("pods", pod, None)
            gone = [uid for v in verdicts.values() for uid in v.victims] if theirs.outcome == "room" else []
            for uid in gone:
                self._remove([p["metadata"]["uid"] for p, _ in self.world.placed].index(uid))
            return
        for pod in members:
            verdict = verdicts.get(meta.uid(pod))
            if verdict is not None and verdict.node:
                assert self.state.assumed[meta.uid(pod)] == verdict.node
                self._place(pod, verdict.node)
            else:
                self.state.apply("pods", pod, None)


def gangs_of(seed: int) -> tuple[int, list[str]]:
    """(decisions that were compared, what came of the gangs)."""
    rng = Random(seed)
    pair = Gangs(rng)
    names = [f"n{number}" for number in range(rng.randint(2, 6))]
    for name in worlds.NAMESPACES:
        pair.set_namespace(name, {"team": rng.choice(["red", "blue"])})
    for name in names:
        pair.add_node(name)
    pair.add_extras()
    kind = worlds.plain_kind_of_pod if seed % 3 else worlds.kind_of_pod
    templates = [_without_volumes(kind(rng)) for _ in range(rng.randint(1, 4))]
    if seed % 2:
        pair.add_budgets()
    for _ in range(8):
        _disturb(pair, rng, names)
        size = rng.randint(1, 5)
        some = [worlds.with_priority(rng, template) for template in templates]
        pair.gang(some, size, rng.randint(1, size))
    return pair.number, pair.outcomes


# --- both ---


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    decisions = metafunc.config.getoption("decisions") // SHARE
    metafunc.parametrize("part", range(-(-decisions // DECISIONS_PER_PART)))


def test_queues_of_tenants_refuse_and_reclaim_alike(part: int) -> None:
    compared = evicted = 0
    seed = part * SEEDS_PER_PART
    while compared < DECISIONS_PER_PART:
        try:
            decisions, victims = tenants_of(seed)
        except AssertionError as different:
            different.add_note(f"seed {seed}")
            raise
        compared, evicted, seed = compared + decisions, evicted + victims, seed + 1
    assert evicted, "worlds in which nobody ever loses a pod show nothing"


def test_gangs_are_bound_make_room_or_wait_alike(part: int) -> None:
    compared, seed, seen = 0, part * SEEDS_PER_PART, dict.fromkeys(("bound", "room", "none"), 0)
    while compared < DECISIONS_PER_PART:
        try:
            decisions, outcomes = gangs_of(seed)
        except AssertionError as different:
            different.add_note(f"seed {seed}")
            raise
        for outcome in outcomes:
            seen[outcome] += 1
        compared, seed = compared + decisions, seed + 1
    assert all(seen.values()), seen
