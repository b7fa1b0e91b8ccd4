"""A log run again as a whole comes to what it came to: byte for byte, or modulo names, times and the order of the independent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from kcp.base.clock import SystemClock
from kcp.client.client import Client
from kcp.controlplane.cluster import ClusterOptions
from kcp.replay.changes import Changes
from kcp.replay.equality import Comparison, compare, first_difference
from kcp.replay.exploration import Scenario
from kcp.replay.machines import ready_status
from kcp.replay.outcome import outcome
from kcp.replay.reexecution import rerun
from kcp.replay.workload import script
from kcp.store.protocol import Op, StoreError
from kcp.store.reader import LogReader
from kcp.store.transfer import export_incident
from kcp.testing.client import BlockingClient
from kcp.testing.served import serve
from tests.replay.placements import record
from tests.support.builders import deployment

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
KEEP_OLD = Changes(swaps=(f"deployment={ROOT / 'examples/what-if/keep_old.py'}:plan",))
DEPLOYMENTS, JOBS = "deployments.apps", "jobs.batch"


def compared(one: Path, other: Path) -> Comparison:
    with LogReader(one) as first, LogReader(other) as second:
        return compare(first, second)


def told(comparison: Comparison) -> dict[str, list[str]]:
    """What is not equal, for the message of a failed test."""
    courses = {"only one": comparison.only_one, "only other": comparison.only_other}
    different = [f"{pair.one} {pair.changes}" for pair in comparison.different]
    return {"different": different, **{name: [str(c) for c in found] for name, found in courses.items()}}


def part_of(log: Path, target: Path, first_rv: int) -> Path:
    export_incident(log, target, clock=SystemClock(), mask_key=b"k", first_rv=first_rv)
    return target


# --- simulated logs ---


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("simulated") / "log.kcp"
    run = Scenario(14, minutes=1.5).run(file)
    assert run.fired and run.operations, "nothing happened: that would be too easy"
    return file


def test_a_simulated_log_is_the_same_byte_for_byte(simulated: Path, tmp_path: Path) -> None:
    again = rerun(str(simulated), tmp_path / "again.kcp")
    assert again.exact and again.asked > 0 and not again.broken
    with LogReader(simulated) as one, LogReader(again.place) as other:
        assert first_difference(one, other) is None
        assert list(one.decisions()) == list(other.decisions())
        assert list(one.inputs()) == list(other.inputs())


def test_a_shortened_case_is_run_again_as_it_was_shortened(tmp_path: Path) -> None:
    operations = script(4, 120.0)[1:3]
    few = Scenario(4, minutes=1, only=("restart/kube-scheduler//0",), operations=operations)
    few.run(tmp_path / "log.kcp")
    assert rerun(str(tmp_path / "log.kcp"), tmp_path / "again.kcp").asked == 2
    with LogReader(tmp_path / "log.kcp") as one, LogReader(tmp_path / "again.kcp") as other:
        assert first_difference(one, other) is None


def test_of_an_export_everything_is_compared_but_what_it_hides(simulated: Path, tmp_path: Path) -> None:
    export = part_of(simulated, tmp_path / "export.kcp", 1)
    again = rerun(str(export), tmp_path / "again.kcp")
    with LogReader(export) as one, LogReader(again.place) as other:
        assert again.exact and first_difference(one, other) is None


def test_a_part_of_a_simulated_log_comes_to_the_same_from_its_requests_alone(tmp_path: Path) -> None:
    """Without its beginning it is a log like any other: nobody knows its seed."""
    Scenario(4, minutes=3, faults="none").run(tmp_path / "log.kcp")
    part = part_of(tmp_path / "log.kcp", tmp_path / "part.kcp", running_since(tmp_path / "log.kcp"))
    again = rerun(str(part), tmp_path / "again.kcp")
    comparison = compared(part, again.place)
    assert not again.exact and again.asked > 20 and not again.refused
    assert comparison.equal_but_for_places, told(comparison)
    assert comparison.alike > 0.9 * (comparison.alike + len(comparison.otherwise) + len(comparison.elsewhere))


def test_machines_go_down_and_come_back_as_they_did(tmp_path: Path) -> None:
    Scenario(3, minutes=4, nodes=2, faults="node-silent=0.5", operations=()).run(tmp_path / "log.kcp")
    part = part_of(tmp_path / "log.kcp", tmp_path / "part.kcp", running_since(tmp_path / "log.kcp"))
    rerun(str(part), tmp_path / "again.kcp")
    assert turns(part) == turns(tmp_path / "again.kcp") != []


def running_since(log: Path) -> int:
    """The revision after which all machines are there."""
    with LogReader(log) as reader:
        return 1 + max(event.rv for event in reader.events(resources=["nodes"]) if event.op is Op.ADDED)


def turns(log: Path) -> list[tuple[str, str]]:
    """(node, status) of each turn of Ready to Unknown and back, by node."""
    found = []
    with LogReader(log) as reader:
        for event in reader.events(resources=["nodes"]):
            if event.previous is None:
                continue
            was, is_ = ready_status(event.previous.value), ready_status(event.record.value)
            if was != is_ and "Unknown" in (was, is_):
                found.append((event.key.name, is_))
    return sorted(found, key=lambda turn: turn[0])


# --- the log of a daemon in real time ---


def work(client: BlockingClient) -> None:
    """A rollout, a Job, an object by server-side apply, labels, a scaling, deletions."""
    client.create(deployment("web", replicas=3, image="web:1"))
    wait_rolled(client, 3)
    client.patch(DEPLOYMENTS, "web", image("web:2"), type="strategic")
    wait_rolled(client, 3)
    client.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "mine", "namespace": "default"},
            "data": {"a": "1"},
        }
    )
    client.create(job("work"))
    client.wait_for(lambda: client.get(JOBS, "work")["status"].get("succeeded") == 1)
    client.patch("nodes", "node-1", {"metadata": {"labels": {"zone": "a"}}})
    client.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "mine", "namespace": "default"},
            "data": {"b": "2"},
        }
    )
    victim = client.list("pods", "default")[0]["metadata"]["name"]
    client.delete("pods", victim, "default")
    client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 5}})
    wait_rolled(client, 5)
    client.delete(JOBS, "work", "default", propagation="Foreground")
    client.wait_for(lambda: not client.list(JOBS, "default"))


def image(name: str) -> Json:
    return {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": name}]}}}}


def job(name: str) -> Json:
    container = {"name": "main", "image": "busybox", "command": ["sh", "-c", "sleep 1"]}
    spec = {"template": {"spec": {"containers": [container], "restartPolicy": "Never"}}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def wait_rolled(client: BlockingClient, replicas: int) -> None:
    def rolled() -> bool:
        found = client.get(DEPLOYMENTS, "web", "default")
        status = found["status"]
        counts = [status.get(name) for name in ("replicas", "updatedReplicas", "availableReplicas")]
        seen = status.get("observedGeneration") == found["metadata"]["generation"]
        return bool(seen and counts == [replicas] * 3)

    client.wait_for(rolled)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a daemon that was stopped and started again in between."""
    home = tmp_path_factory.mktemp("recorded")
    with serve(home / "data", nodes=3) as cluster:
        work(cluster.client)
    with serve(home / "data", nodes=3) as cluster:
        cluster.client.patch(DEPLOYMENTS, "web", image("web:3"), type="strategic")
        wait_rolled(cluster.client, 5)
    export_incident(home / "data", home / "incident.kcp", clock=SystemClock(), mask_key=b"k")
    return home / "incident.kcp"


def test_a_recorded_log_comes_to_the_same(recorded: Path, tmp_path: Path) -> None:
    again = rerun(str(recorded), tmp_path / "again.kcp")
    comparison = compared(recorded, again.place)
    assert (again.asked, again.refused, again.untold) == (10, (), 0)
    assert comparison.equal_but_for_places, told(comparison)
    assert comparison.alike > 10 * (len(comparison.otherwise) + len(comparison.elsewhere))
    with LogReader(recorded) as one, LogReader(again.place) as other:
        before, after = outcome(one), outcome(other)
    assert (after.created["pods"], after.deleted["pods"]) == (before.created["pods"], before.deleted["pods"])
    assert len(after.rollouts) == len(before.rollouts) and not after.unfinished


def test_generated_names_are_those_of_the_log(recorded: Path, tmp_path: Path) -> None:
    rerun(str(recorded), tmp_path / "again.kcp")
    wanted, found = pods_of(recorded), pods_of(tmp_path / "again.kcp")
    assert len(wanted & found) >= len(wanted) - 1, (wanted, found)


def pods_of(log: Path) -> set[str]:
    with LogReader(log) as reader:
        return {event.key.name for event in reader.events(resources=["pods"])}


def test_a_part_of_it_comes_to_the_same(recorded: Path, tmp_path: Path) -> None:
    part = part_of(recorded, tmp_path / "part.kcp", first_change_of(recorded, "web:2"))
    again = rerun(str(part), tmp_path / "again.kcp")
    comparison = compared(part, again.place)
    assert (again.asked, again.refused) == (9, ())
    assert comparison.equal_but_for_places, told(comparison)


def first_change_of(log: Path, image_name: str) -> int:
    with LogReader(log) as reader:
        return next(
            event.rv
            for event in reader.events(resources=[DEPLOYMENTS])
            if image_name in str(event.record.value["spec"]["template"])
        )


def test_up_to_a_revision_only_what_was_asked_till_then_is_asked(recorded: Path, tmp_path: Path) -> None:
    until = first_change_of(recorded, "web:2") - 1
    again = rerun(str(recorded), tmp_path / "again.kcp", until=until)
    assert again.asked == 1
    with LogReader(again.place) as reader:
        assert outcome(reader).created["pods"] == 3


def test_the_second_run_is_a_log_that_can_be_run_again(recorded: Path, tmp_path: Path) -> None:
    rerun(str(recorded), tmp_path / "again.kcp")
    rerun(str(tmp_path / "again.kcp"), tmp_path / "third.kcp")
    comparison = compared(tmp_path / "again.kcp", tmp_path / "third.kcp")
    assert comparison.equal, told(comparison)


# --- changes ---


def images(names: Sequence[str]) -> Any:
    async def story(client: Client) -> None:
        await client.create(DEPLOYMENTS, deployment("web", replicas=3, image=names[0]), "default")
        for name in names[1:]:
            await anyio.sleep(10)
            await client.patch(DEPLOYMENTS, "web", image(name), "strategic", "default")
        await anyio.sleep(10)

    return story


@pytest.fixture(scope="module")
def rollout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("rollout") / "log.kcp"
    record(file, images(["web:1", "web:2"]), ClusterOptions(nodes=3))
    return file


def test_swapped_code_decides(rollout: Path, tmp_path: Path) -> None:
    rerun(str(rollout), tmp_path / "changed.kcp", KEEP_OLD)
    with LogReader(rollout) as one, LogReader(tmp_path / "changed.kcp") as other:
        before, after = outcome(one), outcome(other)
    assert (before.created["pods"], before.deleted["pods"], len(before.unfinished)) == (6, 3, 0)
    assert (after.created["pods"], after.deleted.get("pods", 0)) == (4, 0), (
        "one more than replicas, and no further"
    )
    assert [rollout.key.name for rollout in after.unfinished] == ["web"]


def test_without_a_machine_pods_run_on_the_others(rollout: Path, tmp_path: Path) -> None:
    rerun(str(rollout), tmp_path / "changed.kcp", Changes(nodes="-node-2"))
    with LogReader(tmp_path / "changed.kcp") as reader:
        nodes = {event.record.value["spec"].get("nodeName") for event in reader.events(resources=["pods"])}
        assert {record.key.name for record in reader.list_at("nodes", reader.last_rv)} == {"node-1", "node-3"}
    assert nodes == {None, "node-1", "node-3"}


def test_a_machine_that_was_there_from_the_beginning_is_taken_away(rollout: Path, tmp_path: Path) -> None:
    part = part_of(rollout, tmp_path / "part.kcp", first_change_of(rollout, "web:2"))
    rerun(str(part), tmp_path / "changed.kcp", Changes(nodes="2"))
    with LogReader(tmp_path / "changed.kcp") as reader:
        assert [record.key.name for record in reader.list_at("nodes", reader.last_rv)] == ["node-1", "node-2"]


def test_with_no_machines_pods_wait_and_say_why(rollout: Path, tmp_path: Path) -> None:
    rerun(str(rollout), tmp_path / "changed.kcp", Changes(nodes="0"))
    with LogReader(tmp_path / "changed.kcp") as reader:
        found = outcome(reader)
    assert found.pending and found.never_ready == len(found.pending)
    assert {wait.why for wait in found.pending} == {"no nodes available to schedule pods"}


def test_the_scheduler_is_configured_otherwise(rollout: Path, tmp_path: Path) -> None:
    file = tmp_path / "scheduler.yaml"
    file.write_text(
        "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nprofiles:\n"
        "- schedulerName: default-scheduler\n  plugins:\n    score:\n"
        "      disabled: [{name: PodTopologySpread}, {name: NodeResourcesBalancedAllocation}]\n"
        "  pluginConfig:\n  - name: NodeResourcesFit\n    args: {scoringStrategy: {type: MostAllocated}}\n"
    )
    rerun(str(rollout), tmp_path / "changed.kcp", Changes(scheduler_config=str(file)))

    def spread(log: Path) -> int:
        with LogReader(log) as reader:
            pods = reader.list_at("pods", reader.last_rv)
        return len({pod.value["spec"]["nodeName"] for pod in pods})

    assert spread(rollout) == 3
    assert spread(tmp_path / "changed.kcp") < 3


def test_a_setting_is_another_one(simulated: Path, tmp_path: Path) -> None:
    changes = Changes(settings=("legacy-serviceaccount-token-cleaner.clean_up_period_s=60",))
    again = rerun(str(simulated), tmp_path / "changed.kcp", changes)
    with LogReader(again.place) as reader:
        (started,) = (given.payload for _, _, given in reader.inputs("start"))
    cleaner = started["settings"]["legacy-serviceaccount-token-cleaner-controller"]
    assert cleaner == {"clean_up_period_s": 60}


def test_swapped_code_that_spins_comes_to_an_end(
    rollout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kcp.replay.reexecution.STEPS", 5_000)
    monkeypatch.setattr("kcp.replay.reexecution.STEPS_PER_EVENT", 1)
    spins = tmp_path / "spins.py"
    spins.write_text(
        "from kcp.controllers.effects import RequeueAfter\ndef plan(key, view, env):\n    yield RequeueAfter(0.0001)\n"
    )
    with pytest.raises(ValueError, match="the second run does not come to an end: more than"):
        rerun(str(rollout), tmp_path / "changed.kcp", Changes(swaps=(f"deployment={spins}:plan",)))


def test_a_log_is_not_written_over(rollout: Path, tmp_path: Path) -> None:
    (tmp_path / "there.kcp").write_text("mine")
    with pytest.raises(StoreError, match=r"there\.kcp exists already"):
        rerun(str(rollout), tmp_path / "there.kcp")
    assert (tmp_path / "there.kcp").read_text() == "mine"
