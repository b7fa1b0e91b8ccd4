"""KubeSchedulerConfiguration, and what its arguments change."""

from __future__ import annotations

from typing import Any

from kcp.scheduler import profiles
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.cycle import decide
from kcp.scheduler.explain import explain
from kcp.scheduler.plugins.node_resources import Ratio, least, most
from kcp.scheduler.profiles import Profile, parse_configuration
from tests.scheduler.harness import node, pod

Json = dict[str, Any]
HEAD: Json = {"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration"}


def cluster(profile: Profile, *nodes: Json) -> tuple[ClusterState, Any]:
    state = ClusterState()
    for each in nodes:
        state.apply("nodes", None, each)
    return state, profiles.build(state, profile)


def place(state: ClusterState, name: str, on: str = "", **spec: Any) -> None:
    obj = pod(name, **spec)
    obj["metadata"]["uid"] = name
    if on:
        obj["spec"]["nodeName"] = on
    state.apply("pods", None, obj)


def test_the_default_configuration_is_the_default_profile() -> None:
    assert parse_configuration(HEAD).profiles == (Profile(),)


def test_plugins_can_be_disabled_and_weighted() -> None:
    plugins = {
        "multiPoint": {"enabled": [{"name": "ImageLocality", "weight": 7}]},
        "score": {"disabled": [{"name": "PodTopologySpread"}]},
        "filter": {"disabled": [{"name": "*"}], "enabled": [{"name": "NodeName"}]},
    }
    (profile,) = parse_configuration({**HEAD, "profiles": [{"plugins": plugins}]}).profiles
    scores = dict(profile.scores)
    assert scores["ImageLocality"] == 7 and "PodTopologySpread" not in scores
    assert profile.filters == ("NodeName",)


def test_most_allocated_fills_nodes_up() -> None:
    args = {"NodeResourcesFit": {"scoringStrategy": {"type": "MostAllocated"}}}
    state, framework = cluster(Profile(args=args), node("a"), node("b"))
    place(state, "there", on="b", cpu="1", memory="8Gi")
    place(state, "new", cpu="1", memory="8Gi")
    assert decide(framework, state.pods["new"], cycle=1, seed=1).node == "b"


def test_requested_to_capacity_ratio_follows_its_shape() -> None:
    ratio = Ratio(((0, 0), (50, 100), (100, 20)))
    assert [int(ratio._table[x]) for x in (0, 25, 50, 75, 100)] == [0, 50, 100, 60, 20]
    assert (least(100, 25), most(100, 25), least(100, 101), most(100, 101)) == (75, 25, 0, 100)


def test_explain_has_every_node_and_adds_up() -> None:
    taint = [{"key": "k", "effect": "NoSchedule"}]
    state, framework = cluster(
        Profile(),
        node("a"),
        node("b"),
        node("small", allocatable={"cpu": "500m"}),
        node("tainted", taints=taint),
    )
    place(state, "there", on="a", cpu="1")
    place(state, "new", cpu="1")
    decision = decide(framework, state.pods["new"], cycle=1, seed=1)
    found = explain(framework, state.pods["new"])
    verdicts = {verdict.node: verdict for verdict in found.nodes}
    assert found.best == ("b",) == (decision.node,)
    assert verdicts["b"].total == decision.total
    assert verdicts["tainted"].refusals[0].reasons == ("node(s) had untolerated taint(s)",)
    assert verdicts["tainted"].refusals[0].details == {"taint": taint[0]}
    small = verdicts["small"].refusals[0]
    assert (small.plugin, small.unresolvable) == ("NodeResourcesFit", True)
    assert small.details["cpu"] == {"needs": 1000, "free": 500, "allocatable": 500, "held by": []}


def test_explaining_a_pod_that_runs_asks_as_if_it_did_not() -> None:
    state, framework = cluster(Profile(), node("a", allocatable={"cpu": "1"}))
    place(state, "there", on="a", cpu="800m")
    assert explain(framework, state.pods["there"]).nodes[0].feasible
    assert state.pods["there"].node == "a"
    place(state, "new", cpu="800m")
    assert decide(framework, state.pods["new"], cycle=1, seed=1).node == ""
