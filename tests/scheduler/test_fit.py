"""How many more fit: as many as the scheduler places one after the other, and the state is what it was."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from kcp.scheduler import profiles
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.cycle import decide
from kcp.scheduler.fit import Fit, fit
from kcp.scheduler.framework.runtime import Framework
from kcp.scheduler.profiles import Profile
from tests.scheduler.harness import node, pod

Json = dict[str, Any]
ZONE = "topology.kubernetes.io/zone"
NEAR: Json = {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"}
APART: Json = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [NEAR]}}


def cluster(*nodes: Json) -> Framework:
    state = ClusterState()
    for each in nodes:
        state.apply("nodes", None, each)
    return profiles.build(state, Profile())


def asked(**about: Any) -> Json:
    made = pod("web", **about)
    return {**made, "metadata": {**made["metadata"], "uid": "asked"}}


def one_after_the_other(framework: Framework, wanted: Json) -> tuple[dict[str, int], str]:
    """What a scheduler does with them."""
    placed: dict[str, int] = {}
    for number in range(10_000):
        uid = f"u{number}"
        made = {**wanted, "metadata": {**wanted["metadata"], "name": uid, "uid": uid}}
        framework.state.apply("pods", None, made)
        decision = decide(framework, framework.state.pods[uid], cycle=number + 1, seed=1)
        if not decision.node:
            return placed, decision.text
        framework.state.assume(uid, decision.node)
        placed[decision.node] = placed.get(decision.node, 0) + 1
    raise AssertionError("there is no end to it")


def with_running(framework: Framework, rng: Random) -> None:
    names = [info.name for info in framework.state.infos] or list(framework.state.nodes)
    for number in range(rng.randrange(8)):
        other = pod(
            f"other-{number}", cpu=f"{rng.randrange(9) * 100}m", labels={"app": rng.choice(["web", "db"])}
        )
        other["metadata"]["uid"] = f"other-{number}"
        other["spec"]["nodeName"] = rng.choice(names)
        framework.state.apply("pods", None, other)


def random_case(seed: int) -> tuple[Framework, Json]:
    rng = Random(seed)
    machines = [
        node(
            f"n{number}",
            labels={ZONE: rng.choice("abc")},
            taints=[{"key": "k", "effect": "NoSchedule"}] if rng.random() < 0.2 else None,
            allocatable={
                "cpu": str(rng.randrange(1, 6)),
                "memory": f"{rng.randrange(1, 4)}Gi",
                "pods": str(rng.randrange(1, 15)),
            },
        )
        for number in range(rng.randrange(1, 7))
    ]
    framework = cluster(*machines)
    with_running(framework, rng)
    spread = {
        "maxSkew": 1,
        "topologyKey": ZONE,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": NEAR["labelSelector"],
    }
    special: list[Json] = [
        {}, {}, {"affinity": APART}, {"topologySpreadConstraints": [spread]}, {"nodeSelector": {ZONE: "a"}},
        {"priority": 10},
    ]  # fmt: skip
    cpu, memory = rng.choice(["0", "100m", "700m", "2"]), rng.choice(["0", "100Mi", "700Mi"])
    return framework, asked(cpu=cpu, memory=memory, labels={"app": "web"}, **rng.choice(special))


@pytest.mark.parametrize("seed", range(60))
def test_as_many_fit_as_a_scheduler_places_and_the_next_one_hears_the_same(seed: int) -> None:
    framework, wanted = random_case(seed)
    found = fit(framework, wanted, cycle=1, seed=1)
    placed, text = one_after_the_other(framework, wanted)
    assert {name: count for name, count in found.placed.items() if count} == placed
    assert found.text == text


@pytest.mark.parametrize("seed", range(20))
def test_the_state_is_the_same_afterwards(seed: int) -> None:
    framework, wanted = random_case(seed)
    state = framework.state
    state.settle()

    def seen() -> Any:
        columns = {name: column.requested.tolist() for name, column in state.columns.items()}
        return (
            columns,
            state.pod_count.tolist(),
            state.scored_cpu.tolist(),
            sorted(state.pods),
            dict(state.assumed),
        )

    before = seen()
    first = fit(framework, wanted, cycle=1, seed=1)
    assert seen() == before
    assert fit(framework, wanted, cycle=1, seed=1) == first


def told(found: Fit, name: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(r.plugin, r.reasons) for v in found.verdicts if v.node == name for r in v.refusals]


def test_what_runs_out_first_is_told_for_each_node() -> None:
    framework = cluster(
        node("a", allocatable={"cpu": "2"}),
        node("b", allocatable={"memory": "300Mi"}),
        node("c", allocatable={"pods": "1"}),
        node("d", taints=[{"key": "k", "effect": "NoSchedule"}]),
    )
    found = fit(framework, asked(cpu="500m", memory="100Mi"), cycle=1, seed=1)
    assert found.placed == {"a": 4, "b": 3, "c": 1, "d": 0} and found.count == 8 and found.complete
    assert told(found, "a") == [("NodeResourcesFit", ("Insufficient cpu",))]
    assert told(found, "b") == [("NodeResourcesFit", ("Insufficient memory",))]
    assert told(found, "c") == [("NodeResourcesFit", ("Too many pods",))]
    assert told(found, "d") == [("TaintToleration", ("node(s) had untolerated taint(s)",))]
    assert found.histogram == {
        "Insufficient cpu": 1, "Insufficient memory": 1, "Too many pods": 1, "node(s) had untolerated taint(s)": 1,
    }  # fmt: skip


def test_pods_that_keep_apart_fit_once_on_each_node() -> None:
    found = fit(cluster(node("a"), node("b")), asked(labels={"app": "web"}, affinity=APART), cycle=1, seed=1)
    assert found.placed == {"a": 1, "b": 1}
    assert told(found, "a")[0][0] == "InterPodAffinity"


def test_enough_is_enough() -> None:
    for about in ({}, {"labels": {"app": "web"}, "affinity": APART}):
        found = fit(cluster(node("a"), node("b"), node("c")), asked(**about), cycle=1, seed=1, most=2)
        assert (found.count, found.complete, found.verdicts) == (2, False, ())


def test_nobody_is_evicted_but_who_would_be_is_named() -> None:
    framework = cluster(node("a", allocatable={"cpu": "1"}))
    low = pod("low", cpu="600m")
    low["metadata"]["uid"], low["spec"]["nodeName"] = "low", "a"
    framework.state.apply("pods", None, low)
    found = fit(framework, asked(cpu="300m", priority=5), cycle=1, seed=1)
    assert (found.count, found.victims, found.nominated) == (1, ("default/low",), "a")
    assert framework.state.pods["low"].node == "a"


def test_without_nodes_there_is_no_room() -> None:
    found = fit(cluster(), asked(), cycle=1, seed=1)
    assert (found.count, found.text) == (0, "no nodes available to schedule pods")
