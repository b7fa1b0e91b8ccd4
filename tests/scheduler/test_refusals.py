"""Every plugin gives the numbers behind its refusal."""

from __future__ import annotations

from typing import Any

import pytest

from kcp.cli.refusal_lines import refusal_lines
from kcp.scheduler.explain import Explanation, Refusal, explain
from kcp.scheduler.profiles import Profile
from tests.scheduler.harness import node
from tests.scheduler.test_profiles import cluster, place

Json = dict[str, Any]
ZONE = "topology.kubernetes.io/zone"
DISK = {"key": "disk", "operator": "In", "values": ["ssd"]}


def nodes() -> list[Json]:
    return [
        node("a", labels={ZONE: "east", "disk": "hdd"}),
        node("b", labels={ZONE: "west"}),
    ]


def first(found: Explanation, name: str) -> Refusal:
    return next(v for v in found.nodes if v.node == name).refusals[0]


def refused(name: str, *there: tuple[str, str, Json], **spec: Any) -> Refusal:
    """Why node `name` refuses a pod with this spec, with `there` (pod, node, spec) placed before."""
    state, framework = cluster(Profile(), *nodes())
    for pod, on, more in there:
        place(state, pod, on=on, **more)
    place(state, "new", **spec)
    return first(explain(framework, state.pods["new"]), name)


def required(term: Json) -> Json:
    kind = "requiredDuringSchedulingIgnoredDuringExecution"
    return {"nodeAffinity": {kind: {"nodeSelectorTerms": [term]}}}


def pod_term(kind: str, app: str) -> Json:
    term = {"topologyKey": ZONE, "labelSelector": {"matchLabels": {"app": app}}}
    return {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def port(number: int) -> list[Json]:
    return [
        {"name": "c", "image": "x", "ports": [{"containerPort": 80, "hostPort": number, "protocol": "TCP"}]}
    ]


SPREAD = {
    "topologyKey": ZONE,
    "maxSkew": 1,
    "whenUnsatisfiable": "DoNotSchedule",
    "labelSelector": {"matchLabels": {"app": "web"}},
}
WEB: Json = {"labels": {"app": "web"}}

CASES: list[tuple[Refusal, str, list[str]]] = [
    (
        refused("a", nodeSelector={"disk": "ssd"}),
        "NodeAffinity",
        ["nodeSelector disk In (ssd): has hdd"],
    ),
    (
        refused("b", affinity=required({"matchExpressions": [DISK]})),
        "NodeAffinity",
        ["term 0: disk In (ssd): has no such label"],
    ),
    (
        refused("a", ("there", "a", {"containers": port(80)}), containers=port(80)),
        "NodePorts",
        ["port 80/TCP on 0.0.0.0 is taken", "    held by default/there"],
    ),
    (
        refused("a", ("one", "a", WEB), topologySpreadConstraints=[SPREAD], **WEB),
        "PodTopologySpread",
        [f"{ZONE}=east has 1 matching pods, the least is 0: skew 2 of at most 1"],
    ),
    (
        refused("b", ("one", "a", WEB), affinity=pod_term("podAffinity", "web")),
        "InterPodAffinity",
        [f"wants to be near pods with app=web: none in {ZONE}=west"],
    ),
    (
        refused("a", ("one", "a", WEB), affinity=pod_term("podAntiAffinity", "web")),
        "InterPodAffinity",
        [f"must not be near pods with app=web: default/one in {ZONE}=east"],
    ),
    (
        refused("a", ("shy", "a", {"affinity": pod_term("podAntiAffinity", "web")}), **WEB),
        "InterPodAffinity",
        [f"is not wanted by pods with app=web: default/shy in {ZONE}=east"],
    ),
    (
        refused("a", ("big", "a", {"cpu": "3500m"}), cpu="1"),
        "NodeResourcesFit",
        [
            "pods: 1 of 110",
            "cpu: needs 1, free 500m of 4",
            "    held by default/big",
            "memory: needs 100Mi, free 32668Mi of 32Gi",
            "    held by default/big",
        ],
    ),
]


@pytest.mark.parametrize(("refusal", "plugin", "lines"), CASES, ids=[f"{c[1]}: {c[2][0]}" for c in CASES])
def test_the_numbers_behind_a_refusal(refusal: Refusal, plugin: str, lines: list[str]) -> None:
    assert refusal.plugin == plugin
    assert refusal_lines(refusal, only_short=False) == lines


def claim(name: str, **more: Any) -> Json:
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "annotations": {"pv.kubernetes.io/bind-completed": "yes"},
        },
        "spec": {"accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "1Gi"}}, **more},
    }


def volume(name: str, zone: str = "west") -> Json:
    on_zone = {"key": ZONE, "operator": "In", "values": [zone]}
    return {
        "metadata": {"name": name, "labels": {ZONE: zone}},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "csi": {"driver": "disk.example.com", "volumeHandle": name},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_zone]}]}},
        },
    }


def test_volumes_say_what_they_lack() -> None:
    state, framework = cluster(Profile(), *nodes())
    for name, zone in (("data", "west"), ("more", "east")):
        state.apply("persistentvolumes", None, volume(name, zone))
        state.apply("persistentvolumeclaims", None, claim(name, volumeName=name))
    drivers = [{"name": "disk.example.com", "nodeID": "a", "allocatable": {"count": 0}}]
    csi_node = {"metadata": {"name": "a"}, "spec": {"drivers": drivers}}
    state.apply("csinodes.storage.k8s.io", None, csi_node)
    uses = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    place(state, "user", on="a", volumes=uses)
    place(state, "new", volumes=uses)
    found = {r.plugin: r for r in explain(framework, state.pods["new"]).nodes[0].refusals}
    assert {name: refusal_lines(r, only_short=True) for name, r in found.items()} == {
        "VolumeRestrictions": ["in use by default/user"],
        "VolumeBinding": ["claim default/data: volume data cannot be reached from here"],
        "VolumeZone": [f"{ZONE} must be west: has east"],
    }
    place(state, "other", volumes=[{"name": "more", "persistentVolumeClaim": {"claimName": "more"}}])
    (limits,) = explain(framework, state.pods["other"]).nodes[0].refusals
    assert limits.plugin == "NodeVolumeLimits"
    assert refusal_lines(limits, only_short=True) == ["disk.example.com: 1 attached, 1 more, limit 0"]
