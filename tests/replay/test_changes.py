"""What a person may ask to be different, and what they are told when nobody can mean it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kcp.controllers.deployment import CONTROLLER
from kcp.controllers.table import OFF_BY_DEFAULT
from kcp.controlplane.cluster import ClusterOptions
from kcp.node.fleet import NodeSpec
from kcp.replay.changes import Changes

KEEP_OLD = Path(__file__).resolve().parents[2] / "examples/what-if/keep_old.py"


def names(nodes: str, options: ClusterOptions | None = None) -> list[str]:
    changed = Changes(nodes=nodes).prepare().options(options or ClusterOptions(nodes=3))
    return [machine.name for machine in changed.node_specs()]


def test_a_planner_takes_the_place_of_the_one_that_was_there() -> None:
    prepared = Changes(swaps=(f"deployment={KEEP_OLD}:plan",)).prepare()
    options = prepared.options(ClusterOptions())
    (swapped,) = [each for each in options.controllers if each.name == "deployment-controller"]
    assert swapped.plan is not CONTROLLER.plan
    assert (swapped.identity, swapped.watches) == (CONTROLLER.identity, CONTROLLER.watches)
    assert [each.name for each in options.controllers] == [each.name for each in ClusterOptions().controllers]
    assert prepared.modules == ("kcp_swapped_keep_old",)


def test_a_whole_controller_is_swapped_in_under_the_name_it_replaces() -> None:
    prepared = Changes(swaps=("replicaset=kcp.controllers.replicationcontroller:CONTROLLER",)).prepare()
    (swapped,) = prepared.controllers.values()
    assert (swapped.name, swapped.identity) == ("replicaset-controller", "replicaset-controller")
    assert "replicationcontrollers" in {getattr(w, "resource", "") for w in swapped.watches.values()}


def test_a_controller_that_is_off_by_default_runs_when_it_is_swapped_in() -> None:
    name = OFF_BY_DEFAULT[0].name
    changes = Changes(swaps=(f"{name}=kcp.controllers.bootstrap_token:SIGNER",))
    assert name in {each.name for each in changes.prepare().options(ClusterOptions()).controllers}


def test_a_setting_is_json_or_else_text() -> None:
    texts = ("pod-garbage-collector.terminated_pod_threshold=5", "persistentvolume-binder.local_path_root=/x")
    options = (
        Changes(settings=texts)
        .prepare()
        .options(
            ClusterOptions(
                controller_settings={"persistentvolume-binder-controller": {"local_path_root": "/y"}}
            )
        )
    )
    assert options.controller_settings == {
        "persistentvolume-binder-controller": {"local_path_root": "/x"},
        "pod-garbage-collector-controller": {"terminated_pod_threshold": 5},
    }


@pytest.mark.parametrize(
    ("nodes", "wanted"),
    [
        ("2", ["node-1", "node-2"]),
        ("5", ["node-1", "node-2", "node-3", "node-4", "node-5"]),
        ("+1", ["node-1", "node-2", "node-3", "node-4"]),
        ("-node-2", ["node-1", "node-3"]),
        ("-node-2,+1", ["node-1", "node-3", "node-4"]),
        ("0", []),
    ],
)
def test_machines_come_and_go(nodes: str, wanted: list[str]) -> None:
    assert names(nodes) == wanted


def test_new_machines_are_like_the_last_one_but_for_what_only_that_one_has() -> None:
    labels = {"kubernetes.io/hostname": "big", "size": "big"}
    big = NodeSpec("big", cpu="64", labels=labels, ip="10.0.0.9", pod_cidr="10.1.0.0/24")
    options = Changes(nodes="+2").prepare().options(ClusterOptions(machines=(big,)))
    first, *more = options.node_specs()
    assert first == big
    assert [each.name for each in more] == ["big-2", "big-3"]
    assert {(each.cpu, each.ip, each.pod_cidr) for each in more} == {("64", "", "")}
    assert all(each.labels == {"size": "big"} for each in more)


def test_machines_of_a_file_stand_beside_the_others_or_in_their_place(tmp_path: Path) -> None:
    file = tmp_path / "nodes.yaml"
    file.write_text(
        "apiVersion: v1\nkind: Node\nmetadata: {name: node-2}\nstatus: {allocatable: {cpu: '8', pods: '20'}}\n"
        "---\napiVersion: v1\nkind: Node\nmetadata: {name: extra}\n"
    )
    options = Changes(nodes=str(file)).prepare().options(ClusterOptions(nodes=3))
    assert [(each.name, each.cpu, each.pods) for each in options.node_specs()] == [
        ("node-1", "4", 110), ("node-3", "4", 110), ("node-2", "8", 20), ("extra", "4", 110),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (Changes(swaps=("deploy=x:y",)), "no controller 'deploy'; there are"),
        (Changes(swaps=("deployment",)), "'deployment' swaps nothing: want NAME=module:CONTROLLER"),
        (Changes(swaps=("deployment=no.such:x",)), "no.such does not load: ModuleNotFoundError"),
        (Changes(swaps=("deployment=no-such.py:x",)), "there is no file no-such.py"),
        (Changes(swaps=("deployment=kcp.controllers.deployment:x",)), "kcp.controllers.deployment has no x"),
        (Changes(swaps=("deployment=kcp.replay.changes:Changes",)), "is neither a Controller nor a planner"),
        (Changes(settings=("x=1",)), "'x=1' sets nothing: want controller.setting=value"),
        (Changes(settings=("x.y=1",)), "no controller 'x'; there are"),
        (Changes(settings=("deployment.y=1",)), "deployment-controller has no setting 'y'; it has none"),
        (Changes(settings=("pod-garbage-collector.y=1",)), "it has terminated_pod_threshold"),
        (Changes(nodes="many"), "'many' says nothing about nodes: want N, \\+N, -NAME or a file"),
        (Changes(scheduler_config="no-such.yaml"), "cannot read no-such.yaml"),
    ],
)
def test_what_cannot_be_meant_is_told(changes: Changes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        changes.prepare()


def test_a_machine_that_never_was_cannot_be_missing() -> None:
    with pytest.raises(ValueError, match="there is no node 'node-9'; there are node-1"):
        Changes(nodes="+1,-node-9").prepare().check_machines(["node-1"])


def test_nothing_is_no_change() -> None:
    assert not Changes()
    assert Changes(nodes="0")
