"""What a log tells of its machines, and of how long what ran on them ran."""

from __future__ import annotations

from typing import Any

from kcp.node.runtime.protocol import ContainerConfig, Image
from kcp.replay.machines import Ears, Lifetimes, Machines, Step, node_spec
from kcp.store.protocol import Actor, Cause
from tests.replay.events import Writer
from tests.scheduler.harness import node

Json = dict[str, Any]
OWNER = {"apiVersion": "batch/v1", "kind": "Job", "name": "work", "uid": "u", "controller": True}


def pod(
    name: str, state: Json, *, restarts: int = 0, last: Json | None = None, scheme: str = "containerd"
) -> Json:
    entry = {"name": "main", "containerID": f"{scheme}://1", "state": state, "restartCount": restarts}
    if last is not None:
        entry["lastState"] = last
    metadata = {"name": name, "namespace": "default", "ownerReferences": [OWNER]}
    return {"metadata": metadata, "spec": {}, "status": {"containerStatuses": [entry]}}


def ended(seconds: int, code: int = 0) -> Json:
    times = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": f"2026-01-01T00:00:{seconds:02d}Z"}
    return {"terminated": {**times, "exitCode": code}}


def does(lifetimes: Lifetimes, name: str, attempt: int = 0) -> tuple[float | None, int]:
    container = {"name": "main", "command": ["sleep", "7"]}
    config = ContainerConfig(pod(name, {}), container, "containers", Image("a", "a", 1), attempt)
    program = lifetimes.program(config)
    return program.runs_s, program.exit_code


def test_a_container_runs_as_long_as_its_namesake_did() -> None:
    lifetimes = Lifetimes()
    lifetimes.see(pod("a", {"running": {}}))
    assert does(lifetimes, "a") == (None, 0)
    lifetimes.see(pod("a", ended(40, 3)))
    assert does(lifetimes, "a") == (40, 3)


def test_each_restart_has_its_own_time_and_further_ones_that_of_the_last() -> None:
    lifetimes = Lifetimes()
    lifetimes.see(pod("a", {"running": {}}, restarts=1, last=ended(5, 1)))
    lifetimes.see(pod("a", ended(20), restarts=2, last=ended(9, 1)))
    assert [does(lifetimes, "a", attempt) for attempt in range(4)] == [(5, 1), (9, 1), (20, 0), (20, 0)]


def test_a_pod_that_was_not_there_does_what_those_of_its_owner_did() -> None:
    lifetimes = Lifetimes()
    lifetimes.see(pod("a", ended(30)))
    assert does(lifetimes, "never-seen") == (30, 0)


def test_on_simulated_machines_the_command_says_it() -> None:
    lifetimes = Lifetimes()
    lifetimes.see(pod("a", ended(30), scheme="sim"))
    assert does(lifetimes, "a") == (7.0, 0)


def test_a_node_tells_what_its_machine_has_to_give() -> None:
    given = node("big", allocatable={"cpu": "15800m", "memory": "60Gi", "pods": "58", "example.com/gpu": "2"})
    given["metadata"]["labels"] = {"zone": "a"}
    taints = [
        {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"},
        {"key": "mine", "effect": "NoSchedule"},
    ]
    given["spec"] = {"podCIDR": "10.3.0.0/24", "taints": taints}
    spec = node_spec(given)
    assert (spec.name, spec.cpu, spec.memory, spec.pods, spec.pod_cidr) == (
        "big",
        "15800m",
        "60Gi",
        58,
        "10.3.0.0/24",
    )
    assert spec.extended == {"example.com/gpu": "2"}
    assert spec.labels == {"zone": "a"}
    assert spec.taints == (taints[1],)


def test_machines_are_known_at_every_moment() -> None:
    first, second, tenth = (node_spec(node(name)) for name in ("n-1", "n-2", "n-10"))
    machines = Machines({"n-2": second})
    machines.steps = [
        Step(10, 1, "new", "n-10", tenth), Step(20, 2, "new", "n-1", first), Step(30, 3, "gone", "n-2"),
    ]  # fmt: skip
    assert [each.name for each in machines.at(10)] == ["n-2", "n-10"]
    assert [each.name for each in machines.at(25)] == ["n-1", "n-2", "n-10"]
    assert [each.name for each in machines.at(30)] == ["n-1", "n-10"]
    assert machines.names == ["n-1", "n-2", "n-10"]


def test_a_machine_with_another_boot_id_had_been_down() -> None:
    machines = Machines()
    machines.steps = [Step(10, 1, "silent", "a"), Step(11, 2, "silent", "b"), Step(12, 3, "back", "b")]
    machines.note_reboot(20, 4, "a")
    machines.note_reboot(30, 5, "b")
    assert [(step.ts_us, step.what, step.name) for step in machines.steps] == [
        (10, "off", "a"), (11, "silent", "b"), (12, "back", "b"), (30, "off", "b"),
    ]  # fmt: skip


def test_a_machine_that_talks_after_its_node_was_deleted_did_not_go() -> None:
    machines = Machines()
    machines.note_gone(10, 1, "node-1")
    machines.note_gone(20, 2, "node-2")
    machines.heard_of("node-1", 30)
    assert [(step.what, step.name) for step in machines.steps] == [("gone", "node-2")]


def test_a_machine_was_silent_before_the_first_that_it_did_not_answer_to() -> None:
    ears, writer = Ears(), Writer()
    kubelet = Cause(Actor("system:node:node-1"))
    bound = {"metadata": {"name": "a", "namespace": "d"}, "spec": {"nodeName": "node-1"}}
    ears.see_pod(writer.put("pods", {"metadata": bound["metadata"]}))
    writer.now_s = 10.0
    ears.see_pod(writer.put("pods", bound))
    writer.now_s = 11.0
    ears.see_pod(writer.put("pods", {**bound, "status": {"phase": "Running"}}, kubelet))
    ears.heard_us["node-1"] = 11_000_000
    assert ears.silent_since_us("node-1", 20_000_000) == 20_000_000, "it has answered to all"
    writer.now_s = 15.0
    going = {**bound, "metadata": {**bound["metadata"], "deletionTimestamp": "2026-01-01T00:00:15Z"}}
    ears.see_pod(writer.put("pods", going))
    assert ears.silent_since_us("node-1", 20_000_000) == 15_000_000 - 1
    assert ears.silent_since_us("node-1", 5_000_000) == 11_000_001, "it talked then"
