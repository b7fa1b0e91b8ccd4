"""What the pure planner of a pod decides."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcp.node.runtime.protocol import ContainerState, ContainerStatus, PodStatus, SandboxStatus
from kcp.node.sync_pod import Health, PodActions, compute, container_hash

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SANDBOX = SandboxStatus("s1", 0, True, ("10.128.0.2",), NOW)
Json = dict[str, Any]


def ran(name: str, exit_code: int | None = None, image: str = "i") -> ContainerStatus:
    """A container that runs, or that ended with a code."""
    state: ContainerState = "running" if exit_code is None else "exited"
    key = container_hash({"name": name, "image": image})
    return ContainerStatus(
        f"id-{name}", name, state, image, image, 0, key, NOW, NOW, exit_code=exit_code or 0
    )


def pod(*names: str, inits: tuple[Json, ...] = (), policy: str = "Always") -> Json:
    containers = [{"name": name, "image": "i"} for name in names]
    return {
        "metadata": {"uid": "u", "name": "p"},
        "spec": {"containers": containers, "initContainers": list(inits), "restartPolicy": policy},
    }


def init(name: str, **more: Any) -> Json:
    return {"name": name, "image": "i", **more}


def sidecar(name: str) -> Json:
    return init(name, restartPolicy="Always")


def plan(
    of: Json, *statuses: ContainerStatus, sandbox: bool = True, health: Health | None = None
) -> PodActions:
    status = PodStatus("u", (SANDBOX,) if sandbox else (), statuses)
    return compute(of, status, health or Health())


def starts(actions: PodActions) -> list[str]:
    return [start.container["name"] for start in actions.start]


def test_a_new_pod_gets_a_sandbox_and_all_its_containers() -> None:
    actions = plan(pod("a", "b"), sandbox=False)
    assert actions.make_sandbox
    assert starts(actions) == ["a", "b"]


def test_a_new_pod_with_init_containers_starts_the_first() -> None:
    actions = plan(pod("a", inits=(init("i1"), init("i2"))), sandbox=False)
    assert starts(actions) == ["i1"]


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([], ["i1"]),
        ([ran("i1")], []),
        ([ran("i1", 0)], ["i2"]),
        ([ran("i1", 1)], ["i1"]),
        ([ran("i2", 0), ran("i1", 0)], ["a"]),
        ([ran("a"), ran("i2", 0), ran("i1", 0)], []),
    ],
)
def test_init_containers_in_order(statuses: list[ContainerStatus], expected: list[str]) -> None:
    assert starts(plan(pod("a", inits=(init("i1"), init("i2"))), *statuses)) == expected


def test_a_failed_init_container_ends_a_pod_that_never_restarts() -> None:
    assert plan(pod("a", inits=(init("i1"),), policy="Never"), ran("i1", 1)).over


def test_a_sidecar_lets_the_next_container_start_once_it_has_started() -> None:
    of = pod("a", inits=(sidecar("s"),))
    assert starts(plan(of, ran("s"), health=Health(not_started=frozenset({"id-s"})))) == []
    assert starts(plan(of, ran("s"))) == ["a"]


def test_a_sidecar_is_restarted_beside_running_containers() -> None:
    assert starts(plan(pod("a", inits=(sidecar("s"),)), ran("a"), ran("s", 0))) == ["s"]


def test_a_pod_is_over_when_its_containers_are_though_a_sidecar_runs() -> None:
    assert plan(pod("a", inits=(sidecar("s"),), policy="Never"), ran("a", 0), ran("s")).over


@pytest.mark.parametrize(
    ("policy", "exit_code", "restarts"),
    [("Always", 0, True), ("OnFailure", 0, False), ("OnFailure", 1, True), ("Never", 1, False)],
)
def test_restart_policies(policy: str, exit_code: int, restarts: bool) -> None:
    actions = plan(pod("a", policy=policy), ran("a", exit_code))
    assert (starts(actions) == ["a"], actions.over) == (restarts, not restarts)


def test_a_changed_image_kills_the_container() -> None:
    kill = plan(pod("a"), ran("a", image="old")).kill[0]
    assert kill.message == "Container a definition changed, will be restarted"


def test_an_unhealthy_container_is_killed() -> None:
    health = Health(killed={"id-a": ("Container a failed liveness probe, will be restarted", 3)})
    kill = plan(pod("a"), ran("a"), health=health).kill[0]
    assert (kill.status.id, kill.probe_grace_s) == ("id-a", 3)


def test_a_lost_sandbox_is_made_again_but_not_for_a_pod_that_never_restarts() -> None:
    gone = PodStatus("u", (attrs.evolve(SANDBOX, ready=False),), (ran("a", 255),))
    again = compute(pod("a"), gone)
    assert (again.make_sandbox, again.sandbox_attempt, starts(again)) == (True, 1, ["a"])
    assert compute(pod("a", policy="Never"), gone).over


_codes = st.one_of(st.none(), st.integers(0, 2))


@given(
    policy=st.sampled_from(["Always", "OnFailure", "Never"]),
    inits=st.lists(st.tuples(st.booleans(), st.one_of(st.just("absent"), _codes)), max_size=3),
    regular=st.lists(st.one_of(st.just("absent"), _codes), min_size=1, max_size=3),
)
def test_carrying_out_the_plan_always_comes_to_rest(
    policy: str, inits: list[Any], regular: list[Any]
) -> None:
    """Whatever was before, starting what is asked for (and then exiting well) leaves nothing more to do."""
    specs = tuple(sidecar(f"i{n}") if side else init(f"i{n}") for n, (side, _) in enumerate(inits))
    of = pod(*(f"c{n}" for n in range(len(regular))), inits=specs, policy=policy)
    known = {f"i{n}": ran(f"i{n}", code) for n, (_, code) in enumerate(inits) if code != "absent"}
    known |= {f"c{n}": ran(f"c{n}", code) for n, code in enumerate(regular) if code != "absent"}
    for _ in range(20):
        actions = plan(of, *known.values())
        if actions.nothing or actions.over:
            break
        for start in actions.start:
            name = start.container["name"]
            ends = start.field == "initContainers" and start.container.get("restartPolicy") != "Always"
            known[name] = ran(name, 0 if ends else None)
        for name in [n for n, status in known.items() if n.startswith("i") and status.state == "running"]:
            if {"name": name, "image": "i"} in specs:
                known[name] = ran(name, 0)
    assert (
        actions.over
        or all(name in known for name in (c["name"] for c in of["spec"]["containers"]))
        or any(status.state == "running" for status in known.values())
    )
    assert plan(of, *known.values()).nothing or actions.over
