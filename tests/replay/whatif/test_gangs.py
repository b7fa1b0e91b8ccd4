"""Gangs in a what-if: as recorded, they are decided as recorded; without the plugin their pods are just pods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from kcp.client.client import Client
from kcp.controlplane.cluster import ClusterOptions
from kcp.replay.incident import Incident
from kcp.replay.whatif.arrivals import Arrivals, Life, read_arrivals
from kcp.replay.whatif.comparison import Side, compare, configured_as_recorded
from kcp.replay.whatif.deciding import ProfileOf, decide_by
from kcp.replay.whatif.machines import Machines
from kcp.replay.whatif.world import World
from kcp.scheduler.profiles import DEFAULT_NAME, Configuration, parse_configuration
from tests.replay.placements import CLASSES, HIGH, record
from tests.replay.whatif.hand_made import SECOND_US, Script, decided
from tests.scheduler.harness import node, pod

Json = dict[str, Any]
GANGS = parse_configuration({
    "apiVersion": "kubescheduler.config.k8s.io/v1",
    "kind": "KubeSchedulerConfiguration",
    "profiles": [{"plugins": {"multiPoint": {"enabled": [{"name": "GangScheduling"}]}}}],
})  # fmt: skip


PACKING = parse_configuration({
    "apiVersion": "kubescheduler.config.k8s.io/v1",
    "kind": "KubeSchedulerConfiguration",
    "profiles": [{
        "plugins": {"multiPoint": {"enabled": [{"name": "GangScheduling"}]}},
        "pluginConfig": [{"name": "NodeResourcesFit", "args": {"scoringStrategy": {
            "type": "MostAllocated", "resources": [{"name": "cpu", "weight": 1}],
        }}}],
    }],
})  # fmt: skip


def group(name: str, minimum: int) -> Json:
    return {
        "apiVersion": "scheduling.k8s.io/v1alpha2",
        "kind": "PodGroup",
        "metadata": {"name": name},
        "spec": {"schedulingPolicy": {"gang": {"minCount": minimum}}},
    }


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two nodes of 4 cpu: a gang of three that fits, one of six that waits until the first is gone, one that evicts."""
    file = tmp_path_factory.mktemp("gangs") / "log.kcp"

    async def story(client: Client) -> None:
        for name in ("a", "b"):
            await client.create("nodes", node(name))
            await client.patch("nodes", name, {"spec": {"taints": None}}, "merge")
        await client.create(CLASSES, HIGH)
        for name, count, spec in (
            ("one", 3, {}),
            ("two", 6, {}),
            ("three", 4, {"priorityClassName": "high"}),
        ):
            await client.create("podgroups.scheduling.k8s.io", group(name, count), "default")
            about: Json = {"schedulingGroup": {"podGroupName": name}, **spec}
            for number in range(count):
                await client.create("pods", pod(f"{name}-{number}", cpu="1", **about), "default")
            await anyio.sleep(5)
            if name == "two":
                for number in range(3):
                    await client.delete("pods", f"one-{number}", "default", grace_s=0)
                await anyio.sleep(15)
        for number in range(6):
            await client.delete("pods", f"two-{number}", "default", grace_s=0)
        await anyio.sleep(20)

    record(file, story, ClusterOptions(controllers=(), scheduler_configuration=GANGS))
    return file


def test_the_same_configuration_decides_the_same(log: Path) -> None:
    with Incident.open(log) as incident:
        recorded = Side("recorded", configured_as_recorded(incident), follows=True)
        for first in range(0, incident.log.last_rv, 9):
            arrivals = read_arrivals(incident, first)
            found = compare(arrivals, recorded, Side("again", decide_by(GANGS)))
            assert found.same, first
        kinds = {row.effects[0]["kind"] for row, _ in incident.decisions_of("default-scheduler")}
        assert {"Bind", "Wait", "Preempt"} <= kinds


def placed(found: World, name: str) -> int:
    """How many pods of a gang were put somewhere."""
    return sum(bool(slot.placed) for slot in found.slots.values() if slot.name.startswith(f"default/{name}-"))


def side(arrivals: Arrivals, profile_of: ProfileOf, **options: Any) -> World:
    world = World(arrivals, profile_of, **options)
    world.start()
    for item in arrivals.items:
        world.meet(item)
    world.end()
    return world


def test_pods_that_were_only_tried_take_no_room(log: Path) -> None:
    """What a trial that comes to nothing had put on nodes is not there when time passes."""
    with Incident.open(log) as incident:
        arrivals = read_arrivals(incident)
        recorded = Side("recorded", configured_as_recorded(incident), follows=True)
        found = compare(arrivals, recorded, Side("again", decide_by(GANGS)))
    assert found.same and found.before.usage == found.after.usage
    assert found.before.busy_nodes == found.after.busy_nodes


@pytest.mark.parametrize("configuration", [GANGS, PACKING], ids=["the same", "packing"])
@pytest.mark.parametrize("without", ["", "a", "b"])
def test_on_other_nodes_and_by_other_scores_a_gang_is_still_placed_as_a_whole(
    log: Path, configuration: Configuration, without: str
) -> None:
    with Incident.open(log) as incident:
        arrivals = read_arrivals(incident)
        machines = Machines(without=frozenset({without} - {""}))
        world = side(arrivals, decide_by(configuration), machines=machines, backoffs=configuration)
    counts = [placed(world, name) for name in ("one", "two", "three")]
    assert counts == ([3, 0, 4] if without else [3, 6, 4])
    assert world.state.assumed == {} and world.queue.sizes()["in_flight"] == 0


def test_the_recorded_configuration_forms_gangs_on_other_nodes_too(log: Path) -> None:
    with Incident.open(log) as incident:
        arrivals = read_arrivals(incident)
        world = side(arrivals, configured_as_recorded(incident), machines=Machines(without=frozenset({"a"})))
    assert [placed(world, name) for name in ("one", "two", "three")] == [3, 0, 4]


def waiting(script: Script, name: str, at_s: float, **spec: Any) -> None:
    """A pod that nobody placed in the log."""
    made = pod(name, cpu="1", **spec)
    made["metadata"]["uid"] = name
    made["status"] = {"phase": "Pending"}
    script.put(at_s, "pods", made)
    script.lives[name] = Life(name, f"default/{name}", DEFAULT_NAME, "", int(at_s * SECOND_US))


def test_gangs_are_formed_of_pods_that_a_scheduler_without_them_placed_one_by_one() -> None:
    """Two gangs of three come pod by pod in turn, and there is room for one of them."""
    script = Script().node("n", "3")
    for name in ("x", "y"):
        obj = group(name, 3)
        obj["metadata"].update(namespace="default", uid=f"group-{name}")
        script.put(1, "podgroups.scheduling.k8s.io", obj)
    for number in range(3):
        for name in ("x", "y"):
            waiting(script, f"{name}-{number}", 2 + number, schedulingGroup={"podGroupName": name})
    for number in range(3):
        script.gone(100 + number, "pods", f"default/x-{number}")
    arrivals = script.arrivals(200)
    plain, world = decided(arrivals), decided(arrivals, GANGS)
    assert plain.slots["y-0"].waited_us == 0 and plain.slots["x-2"].waited_us > 90 * SECOND_US
    assert (placed(world, "x"), placed(world, "y")) == (3, 3)
    assert [world.slots[f"x-{n}"].waited_us for n in range(3)] == [2 * SECOND_US, SECOND_US, 0]
    assert {world.slots[f"y-{n}"].bound_us for n in range(3)} == {world.slots["y-0"].bound_us}
    assert world.slots["y-0"].bound_us >= 102 * SECOND_US, "when the last of the other gang was gone"


def test_without_the_plugin_the_pods_of_a_gang_take_what_there_is(log: Path) -> None:
    with Incident.open(log) as incident:
        arrivals = read_arrivals(incident)
        recorded = Side("recorded", configured_as_recorded(incident), follows=True)
        found = compare(arrivals, recorded, Side("plain", decide_by(Configuration())))
    assert not found.same and found.first is not None
    assert found.first.pod.startswith("default/two-")
