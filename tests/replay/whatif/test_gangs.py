"""Gangs in a what-if: as recorded, they are decided as recorded; without the plugin their pods are just pods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from kcp.client.client import Client
from kcp.controlplane.cluster import ClusterOptions
from kcp.replay.incident import Incident
from kcp.replay.whatif.arrivals import read_arrivals
from kcp.replay.whatif.comparison import Side, compare, configured_as_recorded
from kcp.replay.whatif.deciding import decide_by
from kcp.scheduler.profiles import Configuration, parse_configuration
from tests.replay.placements import CLASSES, HIGH, record
from tests.scheduler.harness import node, pod

Json = dict[str, Any]
GANGS = parse_configuration({
    "apiVersion": "kubescheduler.config.k8s.io/v1",
    "kind": "KubeSchedulerConfiguration",
    "profiles": [{"plugins": {"multiPoint": {"enabled": [{"name": "GangScheduling"}]}}}],
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


def test_without_the_plugin_the_pods_of_a_gang_take_what_there_is(log: Path) -> None:
    with Incident.open(log) as incident:
        arrivals = read_arrivals(incident)
        recorded = Side("recorded", configured_as_recorded(incident), follows=True)
        found = compare(arrivals, recorded, Side("plain", decide_by(Configuration())))
    assert not found.same and found.first is not None
    assert found.first.pod.startswith("default/two-")
