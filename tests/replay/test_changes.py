"""What a person may ask to be different, and what they are told when nobody can mean it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kcp.controllers import replicaset
from kcp.controllers.deployment import CONTROLLER
from kcp.controllers.sources import Controller, Timer
from kcp.controllers.table import CONTROLLERS, OFF_BY_DEFAULT
from kcp.controlplane.cluster import ClusterOptions
from kcp.node.fleet import NodeSpec
from kcp.replay.changes import Changes
from kcp.replay.constants import constants_of, modules_of, with_constants
from kcp.scheduler import queue, writes

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


def test_a_constant_of_one_controller_is_another_and_what_is_made_from_it_follows() -> None:
    prepared = Changes(settings=("pod-garbage-collector.PERIOD_S=5", "replicaset.BURST_REPLICAS=3")).prepare()
    collector, replicas = prepared.controllers.values()
    assert [source.period_s for source in collector.watches.values() if isinstance(source, Timer)] == [5]
    known = constants_of(["kcp.controllers.replicas"])
    assert vars(sys.modules[replicas.plan.__module__])["BURST_REPLICAS"] == 3
    assert vars(replicaset)["BURST_REPLICAS"] == known["kcp.controllers.replicas", "BURST_REPLICAS"] == 500
    assert (replicas.name, replicas.identity) == ("replicaset-controller", "replicaset-controller")
    options = prepared.options(ClusterOptions())
    assert [each.name for each in options.controllers] == [each.name for each in ClusterOptions().controllers]


@pytest.mark.parametrize(
    "controller", [*CONTROLLERS, *OFF_BY_DEFAULT], ids=lambda controller: controller.name
)
def test_every_constant_of_every_controller_can_be_set(controller: Controller) -> None:
    known = constants_of(modules_of(controller))
    changed = with_constants(controller, {place: value + 1 for place, value in known.items()})
    assert (changed.name, changed.username) == (controller.name, controller.username)
    assert changed.watches.keys() == controller.watches.keys() and changed.plan is not controller.plan


def test_a_constant_of_the_scheduler_is_another_as_long_as_the_run_lasts() -> None:
    before = queue.MAX_UNSCHEDULABLE_US, writes.BATCH
    settings = "scheduler.MAX_UNSCHEDULABLE_US=7", "scheduler.writes.BATCH=1"
    with Changes(settings=settings).prepare().in_force():
        assert (queue.MAX_UNSCHEDULABLE_US, writes.BATCH) == (7, 1)
    assert before == (queue.MAX_UNSCHEDULABLE_US, writes.BATCH)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        (
            "job.NOTHING=1",
            "job-controller has no constant 'NOTHING'; it has MAX_UNCOUNTED=500, FIRST_S=10.0, ",
        ),
        (
            "job.nothing=1",
            "job-controller has no setting 'nothing'; it has none; of constants it has MAX_UNC",
        ),
        ("ttl.STEPS=1", "ttl-controller has no constant 'STEPS'; it has none"),
        ("scheduler.BATCH=1", "scheduler has several constants BATCH: say scheduler.scheduler.BATCH=256 or "),
        ("scheduler.nothing=1", "scheduler has no constant 'nothing'; it has "),
        ("job.FIRST_S=soon", "FIRST_S is a number, not 'soon'"),
        ("job.FIRST_S=true", "FIRST_S is a number, not 'true'"),
    ],
)
def test_what_can_be_set_is_told(setting: str, told: str) -> None:
    with pytest.raises(ValueError) as raised:
        Changes(settings=(setting,)).prepare()
    assert str(raised.value).startswith(told)


def test_a_swapped_controller_has_its_own_constants() -> None:
    swap = f"deployment={KEEP_OLD}:plan"
    with pytest.raises(ValueError, match="deployment-controller is swapped: its constants are in the code"):
        Changes(swaps=(swap,), settings=("deployment.NO_DEADLINE=5",)).prepare()
