"""Who must go: reprieve, budgets, the order of the rules, and the texts when nobody can help."""

from __future__ import annotations

from random import Random
from typing import Any

import attrs

from kcp.scheduler import preemption, profiles
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.cycle import Decision, decide
from kcp.scheduler.framework.plugin import Cycle
from kcp.scheduler.framework.runtime import Framework
from tests.scheduler.harness import node, pod

Json = dict[str, Any]


@attrs.define
class Scene:
    state: ClusterState = attrs.field(factory=ClusterState)
    framework: Framework = attrs.field(init=False)
    cycle: int = 0

    def __attrs_post_init__(self) -> None:
        self.framework = profiles.build(self.state, profiles.Profile())

    def node(self, name: str, cpu: str = "1", **more: Any) -> None:
        self.state.apply("nodes", None, node(name, allocatable={"cpu": cpu}, **more))

    def pod(self, name: str, cpu: str, priority: int = 0, on: str = "", start: str = "", **more: Any) -> str:
        obj = pod(name, cpu=cpu, memory="0", **more)
        obj["metadata"]["uid"] = name
        obj["spec"]["priority"] = priority
        if on:
            obj["spec"]["nodeName"] = on
            obj["status"] = {"startTime": start or "2026-01-01T00:00:00Z"}
        self.state.apply("pods", None, obj)
        return name

    def budget(self, app: str, allowed: int, **status: Any) -> None:
        self.state.apply(
            "poddisruptionbudgets.policy",
            None,
            {
                "metadata": {"name": app, "namespace": "default"},
                "spec": {"selector": {"matchLabels": {"app": app}}},
                "status": {"disruptionsAllowed": allowed, **status},
            },
        )

    def decide(self, name: str) -> Decision:
        self.cycle += 1
        return decide(self.framework, self.state.pods[name], cycle=self.cycle, seed=1)


def victims(decision: Decision) -> list[str]:
    return [victim.uid for victim in decision.victims]


def test_as_many_victims_as_possible_are_reprieved() -> None:
    scene = Scene()
    scene.node("n")
    for number, priority in enumerate([1, 3, 2]):
        scene.pod(f"low{number}", "300m", priority, on="n")
    scene.pod("high", "400m", 10)
    decision = scene.decide("high")
    assert (decision.nominated, victims(decision)) == ("n", ["low0"])
    assert decision.text == "0/1 nodes are available: 1 Insufficient cpu."


def test_pods_of_the_same_priority_are_no_victims() -> None:
    scene = Scene()
    scene.node("n")
    scene.pod("equal", "900m", 10, on="n")
    scene.pod("high", "400m", 10)
    assert scene.decide("high").text == (
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: "
        "0/1 nodes are available: 1 No preemption victims found for incoming pod."
    )


def test_a_pod_that_never_preempts_says_so() -> None:
    scene = Scene()
    scene.node("n")
    scene.pod("low", "900m", 0, on="n")
    scene.pod("high", "400m", 10, preemptionPolicy="Never")
    assert scene.decide("high").text == (
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, "
        "preemption: not eligible due to preemptionPolicy=Never."
    )


def test_a_node_whose_budgets_hold_is_preferred() -> None:
    scene = Scene()
    for name in ("a", "b"):
        scene.node(name)
    scene.pod("guarded", "900m", 0, on="a", labels={"app": "db"})
    scene.pod("free", "900m", 5, on="b", labels={"app": "web"})
    scene.budget("db", 0)
    scene.pod("high", "400m", 10)
    decision = scene.decide("high")
    assert (decision.nominated, victims(decision), decision.pdb_violations) == ("b", ["free"], 0)


def test_a_used_up_budget_is_broken_when_nothing_else_helps() -> None:
    scene = Scene()
    scene.node("a")
    scene.pod("guarded", "900m", 0, on="a", labels={"app": "db"})
    scene.budget("db", 0)
    scene.pod("high", "400m", 10)
    assert scene.decide("high").pdb_violations == 1


def test_the_lowest_of_the_highest_priorities_wins() -> None:
    scene = Scene()
    for name, priority in (("a", 7), ("b", 3), ("c", 5)):
        scene.node(name)
        scene.pod(f"on-{name}", "900m", priority, on=name)
    scene.pod("high", "400m", 10)
    assert scene.decide("high").nominated == "b"


def test_fewer_victims_win_and_then_the_later_start() -> None:
    scene = Scene()
    for name, start in (("a", "2026-01-01T00:00:00Z"), ("b", "2026-01-02T00:00:00Z")):
        scene.node(name)
        scene.pod(f"on-{name}", "900m", 3, on=name, start=start)
    scene.node("c")
    for number in range(2):
        scene.pod(f"on-c{number}", "500m", 3, on="c")
    scene.pod("high", "900m", 10)
    assert scene.decide("high").nominated == "b"


def test_a_preemptor_waits_while_its_victim_is_leaving() -> None:
    scene = Scene()
    scene.node("n")
    uid = scene.pod("low", "900m", 0, on="n")
    scene.pod("high", "400m", 10)
    decision = scene.decide("high")
    scene.state.nominate("high", decision.nominated or "")
    old = scene.state.pods[uid].pod
    disrupted = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
    leaving = {
        **old,
        "metadata": {**old["metadata"], "deletionTimestamp": "2026-01-01T00:00:01Z"},
        "status": {**old["status"], "conditions": [disrupted]},
    }
    scene.state.apply("pods", old, leaving)
    again = scene.decide("high")
    assert again.victims == () and again.nominated is None
    assert again.text.endswith("preemption: not eligible due to a terminating pod on the nominated node.")


def test_a_lesser_pod_leaves_the_nominated_room_alone() -> None:
    scene = Scene()
    scene.node("n")
    scene.pod("high", "800m", 10)
    scene.state.nominate("high", "n")
    scene.pod("low", "400m", 0)
    assert scene.decide("low").node == ""
    assert scene.decide("high").node == "n"


def test_the_state_is_the_same_after_a_dry_run() -> None:
    scene = Scene()
    scene.node("n", cpu="2")
    for number in range(5):
        scene.pod(f"low{number}", "400m", number % 3, on="n", labels={"app": "db"})
    scene.pod("high", "900m", 10)
    scene.state.settle()
    column = scene.state.columns["cpu"].requested.copy()
    dirty = len(scene.state.dirty)
    scene.decide("high")
    assert (scene.state.columns["cpu"].requested == column).all()
    assert len(scene.state.dirty) == dirty
    assert sorted(scene.state.nodes["n"].pods) == [f"low{n}" for n in range(5)]


def test_plain_arithmetic_finds_the_same_victims_as_the_filters() -> None:
    for seed in range(60):
        rng, scene = Random(seed), Scene()
        scene.node("n", cpu=rng.choice(["1", "2"]))
        for number in range(rng.randint(1, 8)):
            labels = {"app": rng.choice(["db", "web"])}
            start = f"2026-01-0{rng.randint(1, 9)}T00:00:00Z"
            cpu = rng.choice(["0", "200m", "500m"])
            scene.pod(f"p{number}", cpu, rng.randint(0, 4), on="n", start=start, labels=labels)
        scene.budget("db", rng.randint(0, 2))
        scene.pod("nominated", "300m", 9)
        scene.state.nominate("nominated", "n")
        scene.pod("high", rng.choice(["500m", "900m", "3"]), rng.randint(1, 9))
        scene.state.settle()
        cycle = Cycle(scene.state, scene.state.pods["high"], scene.framework)
        budgets = preemption.disruption_budgets(scene.state)
        slow = preemption.dry_run(scene.framework, cycle, 0, budgets)
        fast = preemption.dry_run_of_room(scene.framework, cycle, 0, budgets)
        if isinstance(slow, preemption.Candidate):
            assert isinstance(fast, preemption.Candidate)
            assert (slow.victims, slow.pdb_violations) == (fast.victims, fast.pdb_violations), seed
        else:
            assert slow == fast
