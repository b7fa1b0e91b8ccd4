"""A user's plugin is one class in one file: found, run, pure, and as good as ours in texts, preemption and replay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from kcp.replay.tripwire import Tripped, armed
from kcp.scheduler.cycle import decide
from kcp.scheduler.framework.user_plugin import PluginFailed
from kcp.scheduler.profiles import ConfigError, Configuration, parse_configuration, read_configuration
from kcp.scheduler.user_plugins import MODULE_PREFIX, PluginNotFound, impurities, load
from tests.scheduler.harness import Bench, node, pod, scheduled
from tests.scheduler.test_configuration import HEAD
from tests.scheduler.test_profiles import cluster, place
from tests.scheduler.test_remake import remade

Json = dict[str, Any]
EXAMPLES = Path(__file__).parents[2] / "examples" / "scheduler-plugins"
PLUGINS = ("data_locality.py:DataLocality", "interference.py:Interference", "deadline.py:Deadline")


def configured(tmp_path: Path, source: str, args: Json | None = None) -> Configuration:
    (tmp_path / "own.py").write_text(source)
    row: Json = {"plugins": {"multiPoint": {"enabled": [{"name": "own.py:Own", "weight": 3}]}}}
    if args is not None:
        row["pluginConfig"] = [{"name": "own.py:Own", "args": args}]
    return parse_configuration({**HEAD, "profiles": [row]}, str(tmp_path))


async def annotated_node(bench: Bench, name: str, annotations: Json, labels: Json | None = None) -> None:
    made = node(name, labels=labels)
    made["metadata"]["annotations"] = annotations
    await bench.client.create("nodes", made)
    await bench.client.patch("nodes", name, {"spec": {"taints": None}}, "merge")


async def annotated_pod(bench: Bench, name: str, annotations: Json, **more: Any) -> None:
    made = pod(name, **more)
    made["metadata"]["annotations"] = annotations
    await bench.client.create("pods", made, "default")
    await anyio.sleep(1)


def example(name: str) -> Configuration:
    return read_configuration(EXAMPLES / name)


async def all_remade(bench: Bench) -> None:
    pairs = await remade(bench)
    assert pairs and all(ours == theirs for ours, theirs in pairs)


def test_data_locality_goes_where_the_data_is() -> None:
    configuration = example("data-locality.yaml")

    async def check(bench: Bench) -> None:
        with armed(MODULE_PREFIX):
            await annotated_node(bench, "empty", {})
            await annotated_node(bench, "images", {"data.example.com/has": "images, index"})
            await annotated_node(bench, "genomes", {"data.example.com/has": "genomes"})
            await annotated_pod(bench, "reader", {"data.example.com/reads": "genomes=80,index=5"})
            await annotated_pod(bench, "needy", {"data.example.com/requires": "index"})
            await annotated_pod(bench, "hopeless", {"data.example.com/requires": "index,genomes"})
        assert await bench.node_of("reader") == "genomes"
        assert await bench.node_of("needy") == "images"
        (text,) = await bench.events("FailedScheduling")
        assert text.startswith(
            "0/3 nodes are available: 1 node(s) didn't have the data genomes, 1 node(s) didn't have the data index, "
            "1 node(s) didn't have the data index, genomes."
        )
        await all_remade(bench)

    scheduled(check, configuration=configuration)


def test_interference_keeps_disturbers_apart() -> None:
    configuration = example("interference.yaml")
    label = "interference.example.com/class"

    async def check(bench: Bench) -> None:
        with armed(MODULE_PREFIX):
            for name in ("a", "b"):
                await bench.node(name)
            await annotated_pod(bench, "web", {}, labels={label: "latency"})
            await annotated_pod(bench, "job", {}, labels={label: "batch"})
            for number in range(4):
                await annotated_pod(bench, f"job{number}", {}, labels={label: "batch"})
        web = await bench.node_of("web")
        assert [await bench.node_of(f"job{n}") for n in range(4)].count(web) == 0
        assert await bench.node_of("job") != web
        await all_remade(bench)

    scheduled(check, configuration=configuration)


def test_deadline_finishes_in_time_and_keeps_fast_nodes_free() -> None:
    configuration = example("deadline.yaml")
    work, within, speed = (f"deadline.example.com/{name}" for name in ("work", "within", "speed"))

    async def check(bench: Bench) -> None:
        with armed(MODULE_PREFIX):
            await annotated_node(bench, "slow", {}, labels={speed: "1"})
            await annotated_node(bench, "fast", {}, labels={speed: "4"})
            await annotated_pod(bench, "relaxed", {work: "600", within: "900"})
            await annotated_pod(bench, "urgent", {work: "600", within: "200"})
            await annotated_pod(bench, "late", {work: "600", within: "160"})
        assert await bench.node_of("relaxed") == "slow"
        assert await bench.node_of("urgent") == "fast"
        (text,) = await bench.events("FailedScheduling")
        assert text.startswith(
            "0/2 nodes are available: 1 node(s) were too slow for the pod's deadline, "
            "1 node(s) would finish the pod after its deadline."
        )
        await all_remade(bench)

    scheduled(check, configuration=configuration)


def test_a_pod_that_a_plugin_refused_is_tried_again_when_something_changes() -> None:
    configuration = example("data-locality.yaml")

    async def check(bench: Bench) -> None:
        await annotated_node(bench, "n", {})
        await annotated_pod(bench, "needy", {"data.example.com/requires": "index"})
        assert await bench.node_of("needy") == ""
        await annotated_node(bench, "m", {"data.example.com/has": "index"})
        await anyio.sleep(3)
        assert await bench.node_of("needy") == "m"

    scheduled(check, configuration=configuration)


@pytest.mark.parametrize("spec", PLUGINS)
def test_the_examples_reach_for_nothing_but_their_arguments(spec: str) -> None:
    assert load(spec, str(EXAMPLES)).impurities == ()


def test_a_plugin_that_asks_the_clock_is_caught(tmp_path: Path) -> None:
    source = (
        "import time\nclass Own:\n    def score(self, pod, node):\n        return int(time.time()) % 100\n"
    )
    assert impurities(source) == ["line 1: imports time"]
    configuration = configured(tmp_path, source)
    assert any("imports time" in note for note in configuration.notes)
    state, framework = cluster(configuration.profiles[0], node("a"), node("b"))
    place(state, "new")
    with armed(MODULE_PREFIX), pytest.raises(PluginFailed) as failed:
        decide(framework, state.pods["new"], cycle=1, seed=1)
    assert isinstance(failed.value.__cause__, Tripped)


def test_a_score_out_of_range_is_an_error_of_the_scheduler(tmp_path: Path) -> None:
    source = "class Own:\n    def score(self, pod, node):\n        return 101\n"

    async def check(bench: Bench) -> None:
        await bench.node("a")
        await bench.node("b")
        await bench.pod("web")
        await anyio.sleep(1)
        assert (await bench.events("FailedScheduling"))[0] == (
            'plugin "Own" returns an invalid score 101, it should in the range of [0, 100] after normalizing'
        )

    scheduled(check, configuration=configured(tmp_path, source))


def test_a_pod_in_the_way_of_a_plugin_is_preempted(tmp_path: Path) -> None:
    source = """
class Own:
    def filter(self, pod, node):
        return "node(s) had a loud pod" if any(p["metadata"]["name"] == "loud" for p in node.pods) else None
"""
    state, framework = cluster(configured(tmp_path, source).profiles[0], node("a"))
    place(state, "loud", on="a")
    place(state, "new", priority=5)
    decision = decide(framework, state.pods["new"], cycle=1, seed=1)
    assert [victim.uid for victim in decision.victims] == ["loud"]


def test_a_plugin_goes_by_any_name_through_its_arguments(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "class Own:\n    def __init__(self, args):\n        self.best = args['best']\n"
        "    def score(self, pod, node):\n        return 100 if node.name == self.best else 0\n"
    )
    row = {
        "plugins": {"score": {"enabled": [{"name": "Favourite", "weight": 50}]}},
        "pluginConfig": [{"name": "Favourite", "args": {"kcp": {"plugin": "own.py:Own"}, "best": "b"}}],
    }
    (profile,) = parse_configuration({**HEAD, "profiles": [row]}, str(tmp_path)).profiles
    state, framework = cluster(profile, node("a"), node("b"), node("c"))
    place(state, "new")
    assert decide(framework, state.pods["new"], cycle=1, seed=1).node == "b"


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("nowhere.py:Own", "no plugin file"),
        ("no_such_module_here:Own", "does not load"),
        ("own.py:Other", "has no class Other"),
        ("own.py:Nothing", "has none of the methods"),
    ],
)
def test_a_plugin_that_cannot_be_had_is_said(tmp_path: Path, spec: str, text: str) -> None:
    (tmp_path / "own.py").write_text("class Nothing: ...\n")
    with pytest.raises(PluginNotFound, match=text):
        load(spec, str(tmp_path))
    row = {"plugins": {"filter": {"enabled": [{"name": spec}]}}}
    with pytest.raises(ConfigError, match=text):
        parse_configuration({**HEAD, "profiles": [row]}, str(tmp_path))
