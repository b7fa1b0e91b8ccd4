"""Tenant queues: limits hold, idle room is borrowed, what is due comes back."""

from __future__ import annotations

from random import Random
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcp.apis.semantics.pods import requests
from kcp.cli.refusal_lines import refusal_lines
from kcp.machinery import meta
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.cycle import decide
from kcp.scheduler.explain import explain
from kcp.scheduler.profiles import API_VERSION, ConfigError, Configuration, build, parse_configuration
from kcp.scheduler.tenants import Tenants, parse_queues
from kcp.store.protocol import Op
from tests.scheduler.harness import Bench, condition, node, pod, scheduled
from tests.scheduler.test_gang_scheduling import all_remade, priority

Json = dict[str, Any]


def tenants(*queues: Json, label: str = "") -> Configuration:
    profile: Json = {
        "plugins": {
            "multiPoint": {"enabled": [{"name": "TenantQueue"}], "disabled": [{"name": "PrioritySort"}]}
        },
        "pluginConfig": [{"name": "TenantQueue", "args": {"queueLabel": label, "queues": list(queues)}}],
    }
    return parse_configuration(
        {"apiVersion": API_VERSION, "kind": "KubeSchedulerConfiguration", "profiles": [profile]}
    )


def queue(name: str, **fields: Any) -> Json:
    return {"name": name, "namespaces": [name], **fields}


async def namespaces(bench: Bench, *names: str) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    for name in names:
        await bench.client.create(
            "namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        )
        await bench.client.create("serviceaccounts", account, name)


async def pods(bench: Bench, namespace: str, count: int, first: int = 0, **spec: Any) -> None:
    for number in range(first, first + count):
        obj = pod(f"p-{number}", **{"cpu": "1", **spec})
        obj["metadata"]["namespace"] = namespace
        await bench.client.create("pods", obj, namespace)


async def running(bench: Bench, namespace: str) -> int:
    """Pods on nodes that nobody is removing."""
    page = await bench.client.list("pods", namespace)
    return sum(
        1 for p in page.items if p["spec"].get("nodeName") and "deletionTimestamp" not in p["metadata"]
    )


async def let_go(bench: Bench, *names: str) -> int:
    """What a kubelet does: pods that are being deleted end."""
    gone = 0
    for namespace in names:
        for found in (await bench.client.list("pods", namespace)).items:
            if "deletionTimestamp" in found["metadata"]:
                await bench.client.delete("pods", meta.name(found), namespace, grace_s=0)
                gone += 1
    return gone


def test_a_queue_stays_within_its_capability_and_says_so() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("n", cpu="8")
        await namespaces(bench, "a", "b")
        await pods(bench, "a", 4)
        await pods(bench, "b", 3)
        await anyio.sleep(2)
        assert (await running(bench, "a"), await running(bench, "b")) == (2, 3)
        waiting = [p for p in (await bench.client.list("pods", "a")).items if not p["spec"].get("nodeName")]
        text = condition(waiting[0])[2]
        assert text.startswith('0/1 nodes are available: 1 queue "a" is at its capability: cpu 2 of 2 used.')
        for found in (await bench.client.list("pods", "a")).items:
            if found["spec"].get("nodeName"):
                await bench.client.delete("pods", meta.name(found), "a", grace_s=0)
                break
        await anyio.sleep(5)
        assert await running(bench, "a") == 2
        await all_remade(bench)

    scheduled(check, configuration=tenants(queue("a", capability={"cpu": "2"}), queue("b")))


def test_a_queue_borrows_what_is_idle_and_gives_it_back_when_the_owner_comes() -> None:
    async def check(bench: Bench) -> None:
        for number in range(2):
            await bench.node(f"n{number}", cpu="2")
        await namespaces(bench, "a", "b")
        await pods(bench, "a", 6)
        await anyio.sleep(2)
        assert await running(bench, "a") == 4, "two are borrowed"
        await pods(bench, "b", 3)
        for _ in range(6):
            await anyio.sleep(5)
            await let_go(bench, "a", "b")
        assert (await running(bench, "a"), await running(bench, "b")) == (2, 2)
        preempted = await bench.client.list("events.events.k8s.io", "a")
        assert sum(1 for e in preempted.items if e["reason"] == "Preempted") == 2
        await anyio.sleep(60)
        assert await let_go(bench, "a", "b") == 0, "nobody takes it back again"
        await all_remade(bench)

    deserved = {"deserved": {"cpu": "2"}}
    scheduled(check, configuration=tenants(queue("a", **deserved), queue("b", **deserved)))


def test_reclaiming_does_not_mind_priorities_across_queues_nor_touch_what_is_not_reclaimable() -> None:
    async def check(bench: Bench) -> None:
        await priority(bench, "high", 1000)
        await bench.node("n", cpu="4")
        await namespaces(bench, "a", "b", "kept")
        await pods(bench, "a", 2, priorityClassName="high")
        await pods(bench, "kept", 2)
        await anyio.sleep(2)
        await pods(bench, "b", 2)
        for _ in range(4):
            await anyio.sleep(5)
            await let_go(bench, "a", "b", "kept")
        found = [await running(bench, name) for name in ("a", "b", "kept")]
        assert found == [1, 1, 2]
        await all_remade(bench)

    scheduled(
        check,
        configuration=tenants(
            queue("a", deserved={"cpu": "1"}),
            queue("b", deserved={"cpu": "1"}),
            queue("kept", deserved={"cpu": "0"}, reclaimable=False),
        ),
    )


def test_two_owners_that_come_at_once_do_not_take_from_one_borrower_what_another_has() -> None:
    """Their victims are chosen one right after the other, before any of them is seen to go."""

    async def check(bench: Bench) -> None:
        for number in range(8):
            await bench.node(f"n{number}", cpu="1")
        await namespaces(bench, "a", "b", "c", "d")
        await pods(bench, "a", 4)
        await pods(bench, "b", 4)
        await anyio.sleep(2)
        await pods(bench, "c", 2)
        await pods(bench, "d", 2)
        await anyio.sleep(0.5)
        victims = {v["key"] for row in bench.sink.rows for v in row.effects[0].get("victims", ())}
        assert sorted(key[0] for key in victims) == ["a", "a", "b", "b"]
        for _ in range(4):
            await anyio.sleep(5)
            await let_go(bench, "a", "b", "c", "d")
        assert [await running(bench, name) for name in "abcd"] == [2, 2, 2, 2]
        assert bench.scheduler.state.evicting == {}
        await all_remade(bench)

    deserved = {"deserved": {"cpu": "2"}}
    scheduled(check, configuration=tenants(*(queue(name, **deserved) for name in "abcd")))


@pytest.mark.parametrize(("namespace", "node_name"), [("a", ""), ("b", "n")])
def test_reclaimed_room_is_not_taken_by_a_pod_of_another_queue_however_important(
    namespace: str, node_name: str
) -> None:
    """Within the queue priority decides, as ever."""
    state = ClusterState()
    framework = build(state, tenants(queue("a"), queue("b")).profiles[0])
    state.apply("nodes", None, node("n", allocatable={"cpu": "1"}))
    for uid, where, value in (("owner", "b", 0), ("important", namespace, 1000)):
        obj = pod(uid, cpu="1", priority=value)
        obj["metadata"] |= {"namespace": where, "uid": uid}
        state.apply("pods", None, obj)
    state.nominate("owner", "n")
    assert decide(framework, state.pods["important"], cycle=1, seed=1).node == node_name


def test_preemption_by_priority_stays_within_the_queue() -> None:
    async def check(bench: Bench) -> None:
        await priority(bench, "high", 1000)
        await bench.node("n", cpu="4")
        await namespaces(bench, "a", "b")
        await pods(bench, "a", 2)
        await pods(bench, "b", 2)
        await anyio.sleep(2)
        await pods(bench, "a", 1, first=10, priorityClassName="high")
        for _ in range(3):
            await anyio.sleep(5)
            await let_go(bench, "a", "b")
        names = [
            meta.name(p) for p in (await bench.client.list("pods", "a")).items if p["spec"].get("nodeName")
        ]
        assert "p-10" in names and len(names) == 2
        assert await running(bench, "b") == 2
        await all_remade(bench)

    deserved = {"deserved": {"cpu": "2"}}
    scheduled(check, configuration=tenants(queue("a", **deserved), queue("b", **deserved)))


def test_a_full_queue_makes_room_for_its_own_important_pods() -> None:
    async def check(bench: Bench) -> None:
        await priority(bench, "high", 1000)
        await bench.node("n", cpu="8")
        await namespaces(bench, "a")
        await pods(bench, "a", 2)
        await anyio.sleep(2)
        await pods(bench, "a", 1, first=10, priorityClassName="high")
        for _ in range(3):
            await anyio.sleep(5)
            await let_go(bench, "a")
        found = await bench.client.get("pods", "p-10", "a")
        assert found["spec"].get("nodeName") == "n" and await running(bench, "a") == 2

    scheduled(check, configuration=tenants(queue("a", capability={"cpu": "2"})))


def test_what_is_guaranteed_to_a_queue_is_kept_free() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("n", cpu="4")
        await namespaces(bench, "a", "prod")
        await pods(bench, "a", 4)
        await anyio.sleep(2)
        assert await running(bench, "a") == 3
        waiting = [p for p in (await bench.client.list("pods", "a")).items if not p["spec"].get("nodeName")]
        assert '1 cpu is guaranteed to queue "prod": 1 are kept free' in condition(waiting[0])[2]
        await pods(bench, "prod", 1)
        await anyio.sleep(2)
        assert await running(bench, "prod") == 1
        assert await bench.events("Preempted") == []
        await all_remade(bench)

    scheduled(check, configuration=tenants(queue("a"), queue("prod", guarantee={"cpu": "1"})))


def test_the_room_of_a_full_cluster_goes_to_queues_by_weight() -> None:
    """All pods are there before the first node: two thirds to one."""

    async def check(bench: Bench) -> None:
        await namespaces(bench, "a", "b")
        await pods(bench, "a", 9)
        await pods(bench, "b", 9)
        await anyio.sleep(2)
        await bench.node("n", cpu="9")
        await anyio.sleep(30)
        assert (await running(bench, "a"), await running(bench, "b")) == (6, 3)
        await all_remade(bench)

    scheduled(check, configuration=tenants(queue("a", weight=2), queue("b")))


def test_a_label_names_the_queue_of_a_pod_or_of_its_namespace() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("n", cpu="8")
        await namespaces(bench, "team")
        await bench.client.patch("namespaces", "team", {"metadata": {"labels": {"q": "small"}}}, "merge")
        await pods(bench, "team", 2)
        await pods(bench, "team", 2, first=10, labels={"q": "large"})
        await anyio.sleep(2)
        assert await running(bench, "team") == 3
        await bench.client.patch("namespaces", "team", {"metadata": {"labels": {"q": "large"}}}, "merge")
        await bench.node("m")
        await anyio.sleep(5)
        assert await running(bench, "team") == 4
        await all_remade(bench)

    one = {"name": "small", "capability": {"cpu": "1"}}
    scheduled(check, configuration=tenants(one, {"name": "large"}, label="q"))


def test_queues_below_a_queue_share_its_limit_and_its_due() -> None:
    async def check(bench: Bench) -> None:
        await namespaces(bench, "a", "b", "other")
        for name in ("a", "b", "other"):
            await pods(bench, name, 6)
        await anyio.sleep(2)
        await bench.node("n", cpu="12")
        await anyio.sleep(30)
        found = [await running(bench, name) for name in ("a", "b", "other")]
        assert found[0] + found[1] == 6 and found[0] == found[1] == 3 and found[2] == 6
        await all_remade(bench)

    scheduled(
        check,
        configuration=tenants(
            {"name": "dept", "capability": {"cpu": "6"}},
            queue("a", parent="dept"),
            queue("b", parent="dept"),
            queue("other"),
        ),
    )


def test_explain_shows_what_the_queue_uses_and_what_is_its_due() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("n", cpu="8", memory="8Gi")
        await namespaces(bench, "a")
        await pods(bench, "a", 3, memory="1Gi")
        await anyio.sleep(2)
        waiting = next(i for i in bench.scheduler.state.pods.values() if not i.node)
        found = explain(bench.scheduler.framework(waiting), waiting)
        (refusal,) = found.nodes[0].refusals
        assert refusal.plugin == "TenantQueue"
        assert refusal_lines(refusal, only_short=True) == [
            "queue a, cpu: 2 of 2 used, 2 are its due",
            "queue a, memory: 2Gi used, 3Gi are its due",
        ]

    scheduled(check, configuration=tenants(queue("a", capability={"cpu": "2"})))


# --- whatever comes ---


async def busy_hour(bench: Bench, seed: int) -> None:
    rng = Random(seed)
    await priority(bench, "high", 1000)
    await namespaces(bench, "a", "b", "c")
    await bench.node("first", cpu="4")
    await pods(bench, "a", 4, 1000)
    for step in range(40):
        name = rng.choice("abc")
        match rng.randrange(5):
            case 0:
                await bench.node(f"n{step}", cpu=rng.choice(("2", "4")))
            case 1 | 2:
                important = {"priorityClassName": "high"} if rng.random() < 0.2 else {}
                await pods(
                    bench, name, rng.randint(1, 3), 10 * step, cpu=rng.choice(("500m", "1")), **important
                )
            case 3:
                found = (await bench.client.list("pods", name)).items
                if found:
                    await bench.client.delete("pods", meta.name(rng.choice(found)), name, grace_s=0)
            case 4:
                names = [meta.name(obj) for obj in (await bench.client.list("nodes")).items]
                if len(names) > 2:
                    await bench.client.delete("nodes", rng.choice(names))
        await anyio.sleep(rng.choice((0, 0.2, 3)))
        await let_go(bench, "a", "b", "c")
    for _ in range(10):
        await anyio.sleep(5)
        await let_go(bench, "a", "b", "c")


@pytest.mark.parametrize("seed", range(4))
def test_whatever_comes_no_queue_is_above_its_capability_and_every_decision_is_made_again(seed: int) -> None:
    async def check(bench: Bench) -> None:
        await busy_hour(bench, seed)
        used: dict[str, int] = {}
        most = 0
        for event in await bench.cluster.store.events_since(0, limit=100_000):
            if event.key.resource != "pods" or event.key.namespace != "a":
                continue
            value = event.record.value
            used.pop(event.record.uid, None)
            if value["spec"].get("nodeName") and event.op != Op.DELETED:
                used[event.record.uid] = requests(value)["cpu"].milli_value()
            most = max(most, sum(used.values()))
        assert 1000 < most <= 3000
        await all_remade(bench)

    rows = (
        queue("a", capability={"cpu": "3"}, weight=2),
        queue("b", deserved={"cpu": "2"}, guarantee={"cpu": "1"}),
        queue("c"),
    )
    scheduled(check, seed=seed, configuration=tenants(*rows))


# --- the division by itself ---

_SPECS = st.lists(
    st.fixed_dictionaries(
        {"weight": st.integers(1, 5)},
        optional={"capability": st.integers(0, 40), "deserved": st.integers(0, 40)},
    ),
    min_size=1,
    max_size=5,
)


def _state(cpu: int, waiting: list[int]) -> ClusterState:
    state = ClusterState()
    state.apply("nodes", None, node("n", allocatable={"cpu": str(cpu)}))
    for number, count in enumerate(waiting):
        for index in range(count):
            obj = pod(f"p-{number}-{index}", cpu="1")
            obj["metadata"] |= {"namespace": f"q{number}", "uid": f"{number}/{index}"}
            state.apply("pods", None, obj)
    state.settle()
    return state


@given(_SPECS, st.data())
def test_dues_never_exceed_the_cluster_nor_a_limit_and_leave_nothing_that_somebody_wants(
    specs: list[Json], data: st.DataObject
) -> None:
    waiting = [data.draw(st.integers(0, 12)) for _ in specs]
    rows = [
        {
            "name": f"q{number}", "namespaces": [f"q{number}"], "weight": spec["weight"],
            **{f: {"cpu": str(spec[f])} for f in ("capability", "deserved") if f in spec},
        }
        for number, spec in enumerate(specs)
    ]  # fmt: skip
    total = 20_000
    found = Tenants(parse_queues({"queues": rows}), "", _state(20, waiting)).dues()
    promised = sum(1000 * spec["deserved"] for spec in specs if "deserved" in spec)
    dues = [due["cpu"] for due in found]
    assert sum(dues) <= max(total, promised)
    unsatisfied = False
    for spec, due, count in zip(specs, dues, waiting, strict=False):
        limit = min(1000 * spec.get("capability", 20), total)
        assert due <= limit
        if "deserved" not in spec:
            assert due <= 1000 * count
            unsatisfied = unsatisfied or due < min(1000 * count, limit) - 1
    if unsatisfied:
        assert sum(dues) >= total - len(specs), "somebody wants more, so all is given away"


def test_use_is_what_the_pods_on_nodes_ask_for_whatever_comes_and_goes() -> None:
    state = _state(20, [3, 2])
    plugin = Tenants(parse_queues({"queues": [{"name": "q0", "namespaces": ["q*"]}]}), "", state)
    state.assume("0/0", "n")
    state.assume("1/1", "n")
    assert plugin.queues[0].used == {"cpu": 2000, "memory": 2 * 100 * 2**20, "pods": 2}
    state.forget("0/0")
    assert plugin.queues[0].used["cpu"] == 1000
    gone = state.pods["1/1"].pod
    state.apply("pods", gone, None)
    assert plugin.queues[0].used["cpu"] == plugin.queues[0].used["pods"] == 0


# --- configuration ---


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([{"name": ""}], "queues[0].name: Required value"),
        ([{"name": "a"}, {"name": "a"}], 'queues[1].name: Duplicate value: "a"'),
        ([{"name": "a", "weight": -1}], "queues[0].weight: Invalid value: -1: must be greater than 0"),
        ([{"name": "a", "parent": "b"}], 'queues[0].parent: Invalid value: "b": no such queue'),
        (
            [{"name": "a", "parent": "b"}, {"name": "b", "parent": "a"}],
            'queues[0].parent: Invalid value: "b": leads back to the queue itself',
        ),
        (
            [{"name": "a", "deserved": {"cpu": "3"}, "capability": {"cpu": "2"}}],
            'queues[0].deserved[cpu]: Invalid value: "3": must be less than or equal to capability',
        ),
        ([{"name": "a", "capability": {"cpu": "much"}}], "queues[0].capability[cpu]: Invalid value"),
        ([{"name": "a", "limit": 1}], 'unknown field "queues[0].limit"'),
    ],
)
def test_arguments_are_checked(rows: list[Json], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tenants(*rows)
    assert text in str(caught.value)


def test_two_orders_of_the_queue_exclude_each_other() -> None:
    profile = {"plugins": {"multiPoint": {"enabled": [{"name": "TenantQueue"}]}}}
    document = {"apiVersion": API_VERSION, "kind": "KubeSchedulerConfiguration", "profiles": [profile]}
    with pytest.raises(ConfigError, match="only one queue sort plugin required"):
        parse_configuration(document)
