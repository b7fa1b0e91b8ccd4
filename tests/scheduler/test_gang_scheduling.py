"""Gangs: all of a PodGroup's minimum gets nodes, or nothing of it."""

from __future__ import annotations

from random import Random
from typing import Any

import anyio
import pytest

from kcp.machinery import meta
from kcp.scheduler.plugins.gang_scheduling import group_of
from kcp.scheduler.profiles import API_VERSION, ConfigError, Configuration, parse_configuration
from kcp.store.protocol import Op
from tests.scheduler.harness import Bench, condition, pod, scheduled
from tests.scheduler.test_remake import remade

Json = dict[str, Any]
PODGROUPS = "podgroups.scheduling.k8s.io"
CLASSES = "priorityclasses.scheduling.k8s.io"
INCOMPLETE = "waiting for minCount pods from a gang to appear in scheduling queue"
UNPLACED = "waiting for minCount pods from a gang to be scheduled"
MAKING_ROOM = "pod group is waiting for preemption to complete"


def gangs(**args: Any) -> Configuration:
    profile: Json = {"plugins": {"multiPoint": {"enabled": [{"name": "GangScheduling"}]}}}
    if args:
        profile["pluginConfig"] = [{"name": "GangScheduling", "args": args}]
    return parse_configuration(
        {"apiVersion": API_VERSION, "kind": "KubeSchedulerConfiguration", "profiles": [profile]}
    )


def member(group: str) -> Json:
    return {"schedulingGroup": {"podGroupName": group}}


async def pod_group(bench: Bench, name: str, minimum: int) -> None:
    group = {
        "apiVersion": "scheduling.k8s.io/v1alpha2",
        "kind": "PodGroup",
        "metadata": {"name": name},
        "spec": {"schedulingPolicy": {"gang": {"minCount": minimum}}},
    }
    await bench.client.create(PODGROUPS, group, "default")


async def priority(bench: Bench, name: str, value: int) -> None:
    kind = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass"}
    await bench.client.create(CLASSES, {**kind, "metadata": {"name": name}, "value": value})


async def nodes_of(bench: Bench, *names: str) -> list[str]:
    return [await bench.node_of(name) for name in names]


async def nominations(bench: Bench, *names: str) -> list[str]:
    return [(await bench.get(name))["status"].get("nominatedNodeName", "") for name in names]


async def says(bench: Bench, group: str) -> tuple[str, str, str]:
    found = await bench.client.get(PODGROUPS, group, "default")
    (present,) = (found.get("status") or {}).get("conditions") or [{}]
    return present.get("status", ""), present.get("reason", ""), present.get("message", "")


def kinds(bench: Bench) -> list[tuple[str, str]]:
    return [(row.effects[0]["kind"], row.effects[0].get("gang", "")) for row in bench.sink.rows]


async def all_remade(bench: Bench) -> None:
    pairs = await remade(bench)
    assert pairs and all(ours == theirs for ours, theirs in pairs)


def test_a_gang_waits_for_its_last_pod_and_then_is_bound_in_one_transaction() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("n")
        await pod_group(bench, "train", 3)
        await bench.pod("w-0", **member("train"))
        await bench.pod("w-1", **member("train"))
        await anyio.sleep(10)
        assert await nodes_of(bench, "w-0", "w-1") == ["", ""]
        assert condition(await bench.get("w-0")) == ("False", "SchedulingGated", INCOMPLETE)
        assert await bench.events("FailedScheduling") == [INCOMPLETE, INCOMPLETE]
        assert bench.scheduler.attempts == 0
        await bench.pod("w-2", **member("train"))
        await anyio.sleep(2)
        bound = [await bench.get(f"w-{number}") for number in range(3)]
        assert [obj["spec"].get("nodeName") for obj in bound] == ["n", "n", "n"]
        revisions = sorted(int(obj["metadata"]["resourceVersion"]) for obj in bound)
        assert revisions == list(range(revisions[0], revisions[0] + 3))
        assert await says(bench, "train") == ("True", "Scheduled", "")
        assert kinds(bench) == [("Bind", "default/train")] * 3
        await all_remade(bench)

    scheduled(check, configuration=gangs())


def test_a_gang_whose_group_is_not_there_yet_waits_for_it() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("n")
        await bench.pod("w-0", **member("train"))
        await anyio.sleep(10)
        text = 'waiting for pod\'s pod group "train" to appear in scheduling queue'
        assert condition(await bench.get("w-0")) == ("False", "SchedulingGated", text)
        await pod_group(bench, "train", 1)
        await anyio.sleep(2)
        assert await bench.node_of("w-0") == "n"

    scheduled(check, configuration=gangs())


def test_of_a_gang_that_does_not_fit_nothing_stays_and_others_go_on() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("n", cpu="2")
        await pod_group(bench, "train", 3)
        for number in range(3):
            await bench.pod(f"w-{number}", cpu="1", **member("train"))
        await anyio.sleep(2)
        assert await nodes_of(bench, "w-0", "w-1", "w-2") == ["", "", ""]
        assert condition(await bench.get("w-0")) == ("False", "Unschedulable", UNPLACED)
        assert "1 Insufficient cpu" in condition(await bench.get("w-2"))[2]
        text = "minCount (3) cannot be satisfied: 2 scheduled, 0 remaining"
        assert await says(bench, "train") == ("False", "Unschedulable", text)
        assert kinds(bench)[:3] == [
            ("Wait", "default/train"), ("Wait", "default/train"), ("Status", "default/train"),
        ]  # fmt: skip
        await bench.pod("small", cpu="2")
        await anyio.sleep(2)
        assert await bench.node_of("small") == "n"
        await bench.node("large", cpu="3")
        await anyio.sleep(15)
        assert await nodes_of(bench, "w-0", "w-1", "w-2") == ["large"] * 3
        assert await says(bench, "train") == ("True", "Scheduled", "")
        assert bench.scheduler.queue.sizes()["in_flight"] == 0
        await all_remade(bench)

    scheduled(check, configuration=gangs())


def test_two_gangs_that_fit_one_at_a_time_do_not_hold_each_other_up() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("n", cpu="3")
        for group in ("a", "b"):
            await pod_group(bench, group, 3)
        for number in range(3):
            for group in ("a", "b"):
                await bench.pod(f"{group}-{number}", cpu="1", **member(group))
        await anyio.sleep(2)
        a, b = [await nodes_of(bench, *(f"{group}-{n}" for n in range(3))) for group in ("a", "b")]
        assert sorted([a, b]) == [["", "", ""], ["n", "n", "n"]]
        first, second = ("a", "b") if a[0] else ("b", "a")
        for number in range(3):
            await bench.client.delete("pods", f"{first}-{number}", "default", grace_s=0)
        await anyio.sleep(15)
        assert await nodes_of(bench, *(f"{second}-{n}" for n in range(3))) == ["n"] * 3
        await all_remade(bench)

    scheduled(check, configuration=gangs())


def test_pods_beyond_the_minimum_are_pods_like_any_other() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("n", cpu="3")
        await pod_group(bench, "train", 2)
        for number in range(4):
            await bench.pod(f"w-{number}", cpu="1", **member("train"))
        await anyio.sleep(2)
        found = await nodes_of(bench, *(f"w-{number}" for number in range(4)))
        assert sorted(found) == ["", "n", "n", "n"]
        assert await says(bench, "train") == ("True", "Scheduled", "")
        await all_remade(bench)

    scheduled(check, configuration=gangs())


def test_a_gang_that_lost_a_pod_gets_its_replacement_alone() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("n", cpu="2")
        await pod_group(bench, "train", 2)
        for number in range(2):
            await bench.pod(f"w-{number}", cpu="1", **member("train"))
        await anyio.sleep(2)
        await bench.client.delete("pods", "w-1", "default", grace_s=0)
        await bench.pod("w-2", cpu="1", **member("train"))
        await anyio.sleep(2)
        assert await nodes_of(bench, "w-0", "w-2") == ["n", "n"]
        await all_remade(bench)

    scheduled(check, configuration=gangs())


def test_a_gang_that_loses_a_pod_while_it_waits_is_kept_out_again() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("n", cpu="1")
        await pod_group(bench, "train", 2)
        for number in range(2):
            await bench.pod(f"w-{number}", cpu="1", **member("train"))
        await anyio.sleep(2)
        await bench.client.delete("pods", "w-1", "default", grace_s=0)
        await bench.node("m", cpu="2")
        await anyio.sleep(20)
        assert await bench.node_of("w-0") == ""
        assert condition(await bench.get("w-0"))[1:] == ("SchedulingGated", INCOMPLETE)
        await bench.pod("w-2", cpu="1", **member("train"))
        await anyio.sleep(3)
        assert sorted(await nodes_of(bench, "w-0", "w-2")) in (["m", "m"], ["m", "n"])

    scheduled(check, configuration=gangs())


def test_a_gang_evicts_only_when_it_then_fits_as_a_whole() -> None:
    async def check(bench: Bench) -> None:
        await priority(bench, "high", 1000)
        for name in ("n0", "n1"):
            await bench.node(name, cpu="1")
        for number in range(2):
            await bench.pod(f"low-{number}", cpu="1")
        await anyio.sleep(2)
        await pod_group(bench, "big", 3)
        for number in range(3):
            await bench.pod(f"big-{number}", cpu="1", priorityClassName="high", **member("big"))
        await anyio.sleep(5)
        assert all(await nodes_of(bench, "low-0", "low-1"))
        assert await bench.events("Preempted") == []
        assert not (await bench.get("big-0"))["status"].get("nominatedNodeName")
        await pod_group(bench, "fits", 2)
        for number in range(2):
            await bench.pod(f"fits-{number}", cpu="1", priorityClassName="high", **member("fits"))
        await anyio.sleep(0.5)
        waiting = [await bench.get(f"fits-{number}") for number in range(2)]
        assert sorted(p["status"]["nominatedNodeName"] for p in waiting) == ["n0", "n1"]
        assert await says(bench, "fits") == ("False", "Unschedulable", MAKING_ROOM)
        group = await bench.client.get(PODGROUPS, "fits", "default")
        by = f"Preempted by podgroup {group['metadata']['uid']} on node "
        assert sorted(await bench.events("Preempted")) == [f"{by}n0", f"{by}n1"]
        for number in range(2):
            assert "deletionTimestamp" in (await bench.get(f"low-{number}"))["metadata"]
            await bench.client.delete("pods", f"low-{number}", "default", grace_s=0)
        await anyio.sleep(5)
        assert sorted(await nodes_of(bench, "fits-0", "fits-1")) == ["n0", "n1"]
        assert await nodes_of(bench, "big-0", "big-1", "big-2") == ["", "", ""]
        assert await says(bench, "fits") == ("True", "Scheduled", "")
        await all_remade(bench)

    scheduled(check, configuration=gangs())


def test_victims_of_one_pod_of_a_gang_leave_room_that_the_next_one_counts_on() -> None:
    """The second node's pods stay: what the first victim leaves is enough for both."""

    async def check(bench: Bench) -> None:
        await priority(bench, "high", 1000)
        await bench.node("n0", cpu="2")
        await bench.pod("low", cpu="2")
        await anyio.sleep(2)
        await pod_group(bench, "train", 2)
        for number in range(2):
            await bench.pod(f"w-{number}", cpu="1", priorityClassName="high", **member("train"))
        await anyio.sleep(0.5)
        trial = [row.effects[0] for row in bench.sink.rows if row.effects[0].get("gang")]
        assert [effect["kind"] for effect in trial] == ["Preempt", "Wait"]
        assert trial[1]["taken"] == [trial[0]["victims"][0]["uid"]]
        assert (await bench.get("w-1"))["status"]["nominatedNodeName"] == "n0"
        await bench.client.delete("pods", "low", "default", grace_s=0)
        await anyio.sleep(5)
        assert await nodes_of(bench, "w-0", "w-1") == ["n0", "n0"]
        await all_remade(bench)

    scheduled(check, configuration=gangs())


def test_a_gang_that_cannot_commit_as_a_whole_is_not_bound_in_part() -> None:
    """A pod of the gang is gone when the batch arrives; the others' bindings fail with its."""

    async def check(bench: Bench) -> None:
        await bench.node("n")
        await pod_group(bench, "train", 3)
        send = bench.scheduler.client.request

        async def late(*args: Any, **options: Any) -> Any:
            if args[1] == "/kcp/v1/bindings":
                await bench.client.delete("pods", "w-1", "default", grace_s=0)
            return await send(*args, **options)

        bench.scheduler.client.request = late  # type: ignore[method-assign]
        for number in range(3):
            await bench.pod(f"w-{number}", **member("train"))
        await anyio.sleep(1)
        bench.scheduler.client.request = send  # type: ignore[method-assign]
        assert await nodes_of(bench, "w-0", "w-2") == ["", ""]
        assert bench.scheduler.state.assumed == {}
        await bench.pod("w-3", **member("train"))
        await anyio.sleep(15)
        assert await nodes_of(bench, "w-0", "w-2", "w-3") == ["n", "n", "n"]
        await all_remade(bench)

    scheduled(check, configuration=gangs())


def test_room_is_kept_for_a_gang_that_has_waited_for_long_and_not_for_ever() -> None:
    """Small pods would take each freed place; the gang needs two at once."""

    async def check(bench: Bench) -> None:
        await bench.node("n0", cpu="1")
        await bench.node("n1", cpu="1")
        for number in range(2):
            await bench.pod(f"small-{number}", cpu="1")
        await anyio.sleep(2)
        await pod_group(bench, "train", 2)
        for number in range(2):
            await bench.pod(f"w-{number}", cpu="1", **member("train"))
        await anyio.sleep(40)
        await bench.client.delete("pods", "small-0", "default", grace_s=0)
        await anyio.sleep(15)
        await bench.pod("late", cpu="1")
        await anyio.sleep(10)
        assert await bench.node_of("late") == "", "the freed place is kept"
        assert sum(map(bool, await nominations(bench, "w-0", "w-1"))) == 1
        await anyio.sleep(30)
        assert await bench.node_of("late") != "", "until the gang has had its chance"
        assert await nominations(bench, "w-0", "w-1") == ["", ""]
        await all_remade(bench)

    scheduled(check, configuration=gangs(reserveAfterSeconds=30))


def test_kept_room_adds_up_until_the_gang_fits() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("n0", cpu="1")
        await bench.node("n1", cpu="1")
        for number in range(2):
            await bench.pod(f"small-{number}", cpu="1")
        await anyio.sleep(2)
        await pod_group(bench, "train", 2)
        for number in range(2):
            await bench.pod(f"w-{number}", cpu="1", **member("train"))
        await anyio.sleep(40)
        for number in range(2):
            await bench.client.delete("pods", f"small-{number}", "default", grace_s=0)
            await anyio.sleep(5)
            await bench.pod(f"late-{number}", cpu="1")
            await anyio.sleep(5)
        assert sorted(await nodes_of(bench, "w-0", "w-1")) == ["n0", "n1"]
        assert await nodes_of(bench, "late-0", "late-1") == ["", ""]
        await all_remade(bench)

    scheduled(check, configuration=gangs(reserveAfterSeconds=30))


def test_a_restarted_scheduler_goes_on_with_its_gangs() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("n")
        await pod_group(bench, "train", 2)
        await bench.pod("w-0", **member("train"))
        await anyio.sleep(1)
        bench.restart()
        await bench.pod("w-1", **member("train"))
        await anyio.sleep(2)
        assert await nodes_of(bench, "w-0", "w-1") == ["n", "n"]

    scheduled(check, configuration=gangs())


@pytest.mark.parametrize(
    "metadata",
    [
        {"labels": {"scheduling.x-k8s.io/pod-group": "train"}},
        {"annotations": {"scheduling.x-k8s.io/pod-group": "train"}},
        {"annotations": {"scheduling.k8s.io/group-name": "train"}},
    ],
    ids=["coscheduling", "annotation", "volcano"],
)
def test_the_names_that_other_schedulers_use_are_understood(metadata: Json) -> None:
    obj = pod("w")
    assert group_of(obj) == ""
    obj["metadata"] |= metadata
    assert group_of(obj) == "default/train"
    obj["spec"] |= member("own")
    assert group_of(obj) == "default/own"


def test_a_basic_group_is_no_gang() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("n", cpu="1")
        group = {
            "apiVersion": "scheduling.k8s.io/v1alpha2",
            "kind": "PodGroup",
            "metadata": {"name": "loose"},
            "spec": {"schedulingPolicy": {"basic": {}}},
        }
        await bench.client.create(PODGROUPS, group, "default")
        for number in range(2):
            await bench.pod(f"w-{number}", cpu="1", **member("loose"))
        await anyio.sleep(2)
        assert sorted(await nodes_of(bench, "w-0", "w-1")) == ["", "n"]

    scheduled(check, configuration=gangs())


def test_a_scheduler_without_the_plugin_takes_no_notice() -> None:
    async def check(bench: Bench) -> None:
        assert bench.scheduler.own is None
        assert PODGROUPS not in bench.scheduler.watched
        await bench.node("n")
        await bench.pod("w-0", **member("train"))
        await anyio.sleep(2)
        assert await bench.node_of("w-0") == "n"

    scheduled(check)


def test_arguments_are_checked() -> None:
    with pytest.raises(ConfigError, match="reserveAfterSeconds: Invalid value: -1"):
        gangs(reserveAfterSeconds=-1)
    with pytest.raises(ConfigError, match='unknown field "timeout"'):
        gangs(timeout=1)


# --- many gangs, whatever comes ---


async def busy_hour(bench: Bench, seed: int) -> None:
    """Gangs of several sizes and priorities and pods of their own come and go; nodes too; nobody has room for all."""
    rng = Random(seed)
    await priority(bench, "high", 1000)
    groups = 0
    for step in range(40):
        match rng.randrange(6):
            case 0:
                await bench.node(f"n{step}", cpu=rng.choice(("1", "2", "4")))
            case 1 | 2:
                groups += 1
                minimum = rng.randint(1, 4)
                await pod_group(bench, f"g{groups}", minimum)
                important = {"priorityClassName": "high"} if rng.random() < 0.3 else {}
                for number in range(minimum + rng.choice((-1, 0, 0, 0, 1))):
                    spec = {**member(f"g{groups}"), **important}
                    await bench.pod(f"g{groups}-{number}", cpu=rng.choice(("500m", "1")), **spec)
            case 3:
                await bench.pod(f"alone-{step}", cpu=rng.choice(("200m", "1")))
            case 4:
                found = (await bench.client.list("pods", "default")).items
                if found:
                    await bench.client.delete("pods", meta.name(rng.choice(found)), "default", grace_s=0)
            case 5:
                names = [meta.name(obj) for obj in (await bench.client.list("nodes")).items]
                if len(names) > 2:
                    await bench.client.delete("nodes", rng.choice(names))
        await anyio.sleep(rng.choice((0, 0.2, 3)))
        for obj in (await bench.client.list("pods", "default")).items:
            if "deletionTimestamp" in obj["metadata"]:
                await bench.client.delete("pods", meta.name(obj), "default", grace_s=0)
    await anyio.sleep(30)


def bound_in_parts(events: list[Any]) -> list[str]:
    """Gangs of which a pod was bound while too few others were, or came right behind it."""
    minimum: dict[str, int] = {}
    group_of_pod: dict[str, str] = {}
    there: dict[str, set[str]] = {}
    wrong = []
    for number, event in enumerate(events):
        value, key = event.record.value, f"{event.key.namespace}/{event.key.name}"
        if event.key.resource == PODGROUPS:
            minimum[key] = value["spec"]["schedulingPolicy"].get("gang", {}).get("minCount", 0)
        if event.key.resource != "pods" or not group_of(value):
            continue
        group, uid = group_of(value), event.record.uid
        placed = there.setdefault(group, set())
        if event.op == Op.DELETED:
            placed.discard(uid)
            continue
        if not value["spec"].get("nodeName") or group_of_pod.get(uid):
            continue
        group_of_pod[uid] = group
        placed.add(uid)
        more = 0
        for later in events[number + 1 :]:
            of_the_gang = later.key.resource == "pods" and group_of(later.record.value) == group
            if not of_the_gang or not later.record.value["spec"].get("nodeName"):
                break
            more += 1
        if len(placed) + more < minimum[group]:
            wrong.append(key)
    return wrong


@pytest.mark.parametrize("seed", range(4))
def test_whatever_comes_gangs_are_bound_as_a_whole_and_every_decision_is_made_again(seed: int) -> None:
    async def check(bench: Bench) -> None:
        await busy_hour(bench, seed)
        events = await bench.cluster.store.events_since(0, limit=100_000)
        assert bound_in_parts(list(events)) == []
        assert "Bind" in {kind for kind, gang in kinds(bench) if gang}
        assert bench.scheduler.state.assumed == {}
        assert bench.scheduler.queue.sizes()["in_flight"] == 0
        assert not any(info.node and info.nominated for info in bench.scheduler.state.pods.values())
        await all_remade(bench)

    scheduled(check, seed=seed, configuration=gangs(reserveAfterSeconds=5))
