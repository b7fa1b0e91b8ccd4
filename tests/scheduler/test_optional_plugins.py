"""Plugins and strategies that are not on by default, the share of nodes that is scored, and pods nobody schedules."""

from __future__ import annotations

from typing import Any

import anyio
import numpy as np
import orjson
import pytest

from kcp.scheduler.cluster_state import AVOIDS_PODS
from kcp.scheduler.cycle import decide, enough, nodes_to_find
from kcp.scheduler.explain import Draw, explain
from kcp.scheduler.profiles import Configuration, Profile, build, parse_configuration
from tests.scheduler.harness import Bench, node, pod, scheduled
from tests.scheduler.test_configuration import HEAD, enabled
from tests.scheduler.test_profiles import cluster, place

Json = dict[str, Any]


def profile_of(**row: Any) -> Profile:
    return parse_configuration({**HEAD, "profiles": [row]}).profiles[0]


def strategy(type_: str, **more: Any) -> Profile:
    args = {"scoringStrategy": {"type": type_, **more}}
    only_fit = {"disabled": [{"name": "*"}], **enabled("NodeResourcesFit")}
    return profile_of(plugins={"score": only_fit}, pluginConfig=[{"name": "NodeResourcesFit", "args": args}])


def ratio(*points: tuple[int, int], **more: Any) -> Profile:
    shape = [{"utilization": utilization, "score": score} for utilization, score in points]
    return strategy("RequestedToCapacityRatio", requestedToCapacityRatio={"shape": shape}, **more)


def total(profile: Profile, cpu: str, memory: str, there: tuple[str, str] = ("0", "0")) -> int:
    """The score of a node with 4 CPUs and 32Gi for a pod of this size beside another one."""
    state, framework = cluster(profile, node("a"), node("b"))
    place(state, "there", on="a", cpu=there[0], memory=there[1])
    place(state, "new", cpu=cpu, memory=memory)
    verdict = explain(framework, state.pods["new"]).nodes[0]
    assert verdict.total is not None and list(verdict.scores) == ["NodeResourcesFit"]
    return verdict.total


CPU_ONLY = {"resources": [{"name": "cpu", "weight": 1}]}
STRATEGIES: list[tuple[str, Profile, int]] = [
    ("least", strategy("LeastAllocated"), (75 + 75) // 2),
    ("most", strategy("MostAllocated"), (25 + 25) // 2),
    ("least, cpu three times", strategy("LeastAllocated", resources=[{"name": "cpu", "weight": 3}]), 75),
    ("bin packing", ratio((0, 0), (100, 10)), 25),
    ("spreading", ratio((0, 10), (100, 0)), 75),
    ("a tooth", ratio((0, 0), (25, 10), (50, 0)), 100),
    ("flat before the first point", ratio((50, 4), (100, 10)), 40),
    ("flat after the last point", ratio((0, 0), (20, 6)), 60),
    ("cpu alone", ratio((0, 0), (100, 10), **CPU_ONLY), 25),
]


@pytest.mark.parametrize(("profile", "score"), [c[1:] for c in STRATEGIES], ids=[c[0] for c in STRATEGIES])
def test_strategies_of_the_fit(profile: Profile, score: int) -> None:
    assert total(profile, "1", "8Gi") == score


def test_the_ratio_counts_what_is_there_and_leaves_out_what_scores_nothing() -> None:
    assert total(ratio((0, 0), (100, 10)), "1", "0", there=("1", "0")) == 50
    assert total(ratio((0, 0), (100, 10)), "1", "8Gi", there=("1", "8Gi")) == 50


def test_equal_gives_every_node_one_and_so_does_a_profile_that_scores_nothing() -> None:
    nothing = {"score": {"disabled": [{"name": "*"}]}}
    for plugins in (nothing, {"score": {"disabled": [{"name": "*"}], **enabled("Equal")}}):
        state, framework = cluster(profile_of(plugins=plugins), node("a"), node("b"))
        place(state, "there", on="a", cpu="3")
        place(state, "new")
        decision = decide(framework, state.pods["new"], cycle=1, seed=1)
        assert (decision.total, decision.ties) == (1, 2)
        assert [v.total for v in explain(framework, state.pods["new"]).nodes] == [1, 1]


# --- NodePreferAvoidPods ---


def avoiding(name: str, kind: str, uid: str) -> Json:
    made = node(name)
    signature = {"podSignature": {"podController": {"kind": kind, "uid": uid}}}
    made["metadata"]["annotations"] = {AVOIDS_PODS: orjson.dumps({"preferAvoidPods": [signature]}).decode()}
    return made


AVOIDED: list[tuple[str, Json, str]] = [
    ("its ReplicaSet is named", {"kind": "ReplicaSet", "uid": "rs", "controller": True}, "b"),
    ("another ReplicaSet", {"kind": "ReplicaSet", "uid": "other", "controller": True}, "a"),
    ("of another kind", {"kind": "Job", "uid": "rs", "controller": True}, "a"),
    ("an owner that is no controller", {"kind": "ReplicaSet", "uid": "rs"}, "a"),
]


@pytest.mark.parametrize(("owner", "chosen"), [c[1:] for c in AVOIDED], ids=[c[0] for c in AVOIDED])
def test_a_node_can_ask_to_be_avoided(owner: Json, chosen: str) -> None:
    profile = profile_of(plugins={"multiPoint": enabled("NodePreferAvoidPods")})
    assert dict(profile.scores)["NodePreferAvoidPods"] == 10_000
    state, framework = cluster(profile, avoiding("a", "ReplicaSet", "rs"), node("b"))
    place(state, "there", on="b", cpu="3")
    made = pod("new")
    made["metadata"] |= {"uid": "new", "ownerReferences": [{"apiVersion": "apps/v1", "name": "x", **owner}]}
    state.apply("pods", None, made)
    assert decide(framework, state.pods["new"], cycle=1, seed=1).node == chosen


def test_an_annotation_that_changes_or_makes_no_sense_is_seen() -> None:
    profile = profile_of(plugins={"multiPoint": enabled("NodePreferAvoidPods")})
    state, framework = cluster(profile, node("a"), node("b"))
    place(state, "there", on="b", cpu="3")
    made = pod("new")
    made["metadata"] |= {
        "uid": "new",
        "ownerReferences": [{"kind": "ReplicaSet", "uid": "rs", "controller": True}],
    }
    state.apply("pods", None, made)

    def choose() -> str:
        return decide(framework, state.pods["new"], cycle=1, seed=1).node

    assert choose() == "a"
    state.apply("nodes", node("a"), avoiding("a", "ReplicaSet", "rs"))
    assert choose() == "b"
    broken = node("a")
    broken["metadata"]["annotations"] = {AVOIDS_PODS: "["}
    state.apply("nodes", None, broken)
    assert choose() == "a"


# --- percentageOfNodesToScore ---


@pytest.mark.parametrize(
    ("percentage", "nodes", "wanted"),
    [(None, 5000, 5000), (100, 5000, 5000), (30, 99, 99), (30, 200, 100), (30, 1000, 300), (0, 1000, 420),
     (0, 5000, 500), (0, 6000, 300), (5, 5000, 250)],
)  # fmt: skip
def test_how_many_feasible_nodes_are_enough(percentage: int | None, nodes: int, wanted: int) -> None:
    assert nodes_to_find(percentage, nodes) == wanted


def test_a_share_of_the_nodes_is_scored_from_another_start_in_each_cycle() -> None:
    profile = profile_of(percentageOfNodesToScore=10)
    state, framework = cluster(profile, *(node(f"n{number:03}") for number in range(200)))
    place(state, "new")
    decisions = [decide(framework, state.pods["new"], cycle=cycle, seed=3) for cycle in range(40)]
    assert {d.feasible for d in decisions} == {100}
    assert len({d.node for d in decisions}) > 20
    found = explain(framework, state.pods["new"], draw=Draw(7, 3))
    assert found.enough == 100 and sum(v.total is not None for v in found.nodes) == 100
    assert decisions[7].node in found.best


def test_what_is_enough_goes_round_the_end() -> None:
    state, framework = cluster(
        profile_of(percentageOfNodesToScore=50), *(node(f"n{n:03}") for n in range(300))
    )
    state.settle()
    for cycle in range(30):
        found = enough(framework, np.arange(300), cycle, 1)
        assert len(found) == 150 == len(set(found.tolist())) and (np.diff(found) > 0).all()
    assert build(state, Profile()).plugins.percentage is None


# --- pods of a scheduler that is not there ---


def test_a_pod_that_names_a_scheduler_which_is_not_there_is_told_so_once() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("n")
        await bench.pod("stranger", schedulerName="volcano")
        await anyio.sleep(55)
        assert await bench.events("FailedScheduling") == []
        await anyio.sleep(300)
        assert await bench.events("FailedScheduling") == [
            'no scheduler named "volcano" has looked at the pod for 1m0s; the one that says so serves '
            "default-scheduler, packing"
        ]
        assert (await bench.get("stranger"))["status"].get("conditions") is None

    scheduled(check, configuration=Configuration((Profile(), Profile(name="packing"))))


def test_a_pod_that_another_scheduler_looked_at_is_its_own_business() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("n")
        for name in ("judged", "gone"):
            await bench.pod(name, schedulerName="volcano")
        verdict = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        patch = {"status": {"conditions": [verdict]}}
        await bench.client.patch("pods", "judged", patch, "strategic", "default", subresource="status")
        await bench.client.delete("pods", "gone", "default", grace_s=0)
        await anyio.sleep(200)
        assert await bench.events("FailedScheduling") == []

    scheduled(check)


def test_each_profile_serves_the_pods_that_name_it() -> None:
    packing = {"NodeResourcesFit": {"scoringStrategy": {"type": "MostAllocated"}}}

    async def check(bench: Bench) -> None:
        for name in ("a", "b"):
            await bench.node(name)
        await bench.pod("first", cpu="1", memory="8Gi")
        await anyio.sleep(1)
        await bench.pod("packed", cpu="1", memory="8Gi", schedulerName="packing")
        await bench.pod("spread", cpu="1", memory="8Gi")
        await anyio.sleep(1)
        first = await bench.node_of("first")
        assert await bench.node_of("packed") == first
        assert await bench.node_of("spread") != first
        assert [row.controller for row in bench.sink.rows] == [
            "default-scheduler", "packing", "default-scheduler",
        ]  # fmt: skip

    scheduled(check, configuration=Configuration((Profile(), Profile(name="packing", args=packing))))


def test_a_pod_of_another_scheduler_counts_from_when_it_has_a_node() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("n")
        uid = (await bench.pod("stranger", cpu="3", schedulerName="volcano"))["metadata"]["uid"]
        await anyio.sleep(1)
        assert uid not in bench.scheduler.state.pods
        target = {"metadata": {"name": "stranger"}, "target": {"kind": "Node", "name": "n"}}
        await bench.client.create("pods", target, "default", name="stranger", subresource="binding")
        await bench.pod("large", cpu="2")
        await anyio.sleep(1)
        assert bench.scheduler.state.pods[uid].node == "n"
        assert await bench.node_of("large") == ""
        await bench.client.delete("pods", "stranger", "default", grace_s=0)
        await anyio.sleep(10)
        assert await bench.node_of("large") == "n"

    scheduled(check)
