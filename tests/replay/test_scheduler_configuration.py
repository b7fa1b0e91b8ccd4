"""The configuration of a scheduler is in its log: replay and explain decide by the profile that decided."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from kcp.client.client import Client
from kcp.controlplane.cluster import ClusterOptions
from kcp.replay.explaining import explain_pod
from kcp.replay.incident import Incident
from kcp.replay.run import remake_all
from kcp.replay.scheduling import schedulers
from kcp.scheduler.profiles import ConfigError, read_configuration
from tests.replay.placements import record
from tests.scheduler.harness import node, pod

Json = dict[str, Any]
CONFIGURATION = """
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- schedulerName: default-scheduler
- schedulerName: packing
  plugins:
    multiPoint:
      enabled:
      - name: favourite.py:Favourite
        weight: 2
  pluginConfig:
  - name: NodeResourcesFit
    args:
      scoringStrategy:
        type: MostAllocated
        resources:
        - name: cpu
"""
PLUGIN = """
class Favourite:
    def score(self, pod, node):
        return 100 if node.name == "{name}" else 0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("configured")
    (made / "scheduler.yaml").write_text(CONFIGURATION)
    (made / "favourite.py").write_text(PLUGIN.format(name="c"))
    options = ClusterOptions(
        controllers=(), scheduler_configuration=read_configuration(made / "scheduler.yaml")
    )
    record(made / "log.kcp", _story, options)
    return made


async def _story(client: Client) -> None:
    for name in ("a", "b", "c"):
        await client.create("nodes", node(name))
        await client.patch("nodes", name, {"spec": {"taints": None}}, "merge")
    for number in range(20):
        scheduler = "packing" if number % 2 else "default-scheduler"
        await client.create("pods", pod(f"p{number}", cpu="300m", schedulerName=scheduler), "default")
        await anyio.sleep(0.2 if number % 3 else 1.5)
    await client.create("pods", pod("big", cpu="64", schedulerName="packing"), "default")
    await anyio.sleep(3)


@pytest.fixture
def incident(folder: Path) -> Iterator[Incident]:
    (folder / "favourite.py").write_text(PLUGIN.format(name="c"))
    with Incident.open(folder / "log.kcp") as opened:
        yield opened


def test_every_profile_decides_again_as_it_did(incident: Incident) -> None:
    assert schedulers(incident) == ["default-scheduler", "packing"]
    results = list(remake_all(incident))
    assert len(results) > 20
    assert [r for r in results if not r.identical or r.code_changed] == []


def test_explain_takes_the_profile_that_decided(incident: Incident) -> None:
    packed, spread = explain_pod(incident, "default/p1"), explain_pod(incident, "default/p2")
    assert packed.agrees and spread.agrees
    assert packed.chosen == "c" and packed.on("c").scores["Favourite"] == 200
    assert packed.on("a").scores["Favourite"] == 0
    assert "Favourite" not in spread.on("a").scores
    assert packed.on("c").total == packed.recorded["total"] if packed.recorded else False
    big = explain_pod(incident, "default/big")
    assert big.agrees and big.chosen == "" and big.on("c").refusals[0].plugin == "NodeResourcesFit"


def test_a_plugin_that_is_another_one_now_shows_as_changed_code(incident: Incident, folder: Path) -> None:
    (folder / "favourite.py").write_text(PLUGIN.format(name="a"))
    results = list(remake_all(incident, ["packing"]))
    assert all(result.code_changed for result in results)
    assert any(not result.identical for result in results)
    assert all(not r.code_changed and r.identical for r in remake_all(incident, ["default-scheduler"]))


def test_a_plugin_that_is_gone_is_named(incident: Incident, folder: Path) -> None:
    (folder / "favourite.py").unlink()
    with pytest.raises(ConfigError, match=r"no plugin file .*favourite\.py"):
        explain_pod(incident, "default/p1")
