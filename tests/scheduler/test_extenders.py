"""Extenders over HTTP: a real server filters, prioritizes, preempts and binds; what it says is recorded and remade."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio

from kcp.base.certs import Authority
from kcp.base.clock import SystemClock
from kcp.base.entropy import SystemEntropy
from kcp.scheduler.cycle import Answers
from kcp.scheduler.profiles import Configuration, parse_configuration
from tests.scheduler.extender_server import Verb, extender_server
from tests.scheduler.harness import Bench, condition, scheduled_in_real_time
from tests.scheduler.test_configuration import HEAD
from tests.scheduler.test_remake import remade

Json = dict[str, Any]
TAKES_S = 10.0
Test = Callable[[Bench], Awaitable[None]]


def extended(*rows: Json) -> Configuration:
    return parse_configuration({**HEAD, "podInitialBackoffSeconds": 1, "extenders": list(rows)})


async def until(bench: Bench, name: str, test: Callable[[Json], bool]) -> Json:
    with anyio.fail_after(TAKES_S):
        while True:
            pod = await bench.get(name)
            if test(pod):
                return pod
            await anyio.sleep(0.01)


async def placed(bench: Bench, name: str) -> str:
    pod = await until(bench, name, lambda pod: bool(pod["spec"].get("nodeName")))
    return str(pod["spec"]["nodeName"])


async def refused(bench: Bench, name: str) -> tuple[str, str, str]:
    return condition(await until(bench, name, lambda pod: condition(pod)[0] == "False"))


async def nodes(bench: Bench, *names: str, cpu: str = "4") -> None:
    for name in names:
        await bench.node(name, cpu=cpu)


async def all_remade(bench: Bench) -> None:
    pairs = await remade(bench)
    assert pairs and [pair for pair in pairs if pair[0] != pair[1]] == []


def only(*kept: str) -> Verb:
    """A filter with a node cache that lets these pass."""

    def answer(body: Json) -> Json:
        names = body["NodeNames"]
        return {
            "NodeNames": [n for n in names if n in kept],
            "FailedNodes": {n: "node(s) lacked a licence" for n in names if n not in kept},
        }

    return answer


async def test_filter_and_prioritize_decide_and_the_decision_is_remade_from_their_recorded_answers() -> None:
    def prioritize(body: Json) -> Any:
        return [{"Host": name, "Score": 10 if name == "b" else 1} for name in body["NodeNames"]]

    with extender_server({"filter": only("a", "b"), "prioritize": prioritize}) as server:
        row = {
            "urlPrefix": server.url, "filterVerb": "filter", "prioritizeVerb": "prioritize", "weight": 2,
            "nodeCacheCapable": True,
        }  # fmt: skip

        async def check(bench: Bench) -> None:
            await nodes(bench, "a", "b", "c")
            for number in range(3):
                await bench.pod(f"p{number}")
                assert await placed(bench, f"p{number}") == "b"
            assert [verb for verb, _ in server.asked] == ["filter", "prioritize"] * 3
            (_, asked), (_, ranked) = server.asked[0], server.asked[1]
            assert asked["NodeNames"] == ["a", "b", "c"] and asked["Nodes"] is None
            assert asked["Pod"]["metadata"]["name"] == "p0"
            assert ranked["NodeNames"] == ["a", "b"]
            effect = bench.sink.rows[0].effects[0]
            assert effect["extenders"] == {
                "lost": {"c": ["node(s) lacked a licence", False]},
                "scores": {"a": 20, "b": 200},
            }
            await all_remade(bench)

        await scheduled_in_real_time(check, extended(row))


async def test_whole_nodes_are_sent_to_an_extender_without_a_cache_and_its_fields_may_be_lower_case() -> None:
    def answer(body: Json) -> Json:
        kept = [n for n in body["Nodes"]["items"] if n["metadata"]["name"] == "a"]
        return {"nodes": {"items": kept}, "failedNodes": {}, "error": ""}

    with extender_server({"filter": answer}) as server:

        async def check(bench: Bench) -> None:
            await nodes(bench, "a", "b")
            await bench.pod("web")
            assert await placed(bench, "web") == "a"
            assert server.asked[0][1]["Nodes"]["items"][0]["status"]["allocatable"]["cpu"] == "4"

        await scheduled_in_real_time(check, extended({"urlPrefix": server.url, "filterVerb": "filter"}))


async def test_a_pod_that_extenders_refuse_has_their_reasons_and_is_tried_again_on_any_event() -> None:
    def answer(body: Json) -> Json:
        names = body["NodeNames"]
        return {
            "NodeNames": [n for n in names if n == "new"],
            "FailedNodes": {"a": "node(s) lacked a licence"},
            "FailedAndUnresolvableNodes": {"b": "node(s) are too old"},
        }

    with extender_server({"filter": answer}) as server:
        row = {"urlPrefix": server.url, "filterVerb": "filter", "nodeCacheCapable": True}

        async def check(bench: Bench) -> None:
            await nodes(bench, "a", "b")
            await bench.pod("web")
            assert await refused(bench, "web") == (
                "False",
                "Unschedulable",
                "0/2 nodes are available: 1 node(s) are too old, 1 node(s) lacked a licence. no new claims to "
                "deallocate, preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 "
                "Preemption is not helpful for scheduling.",
            )
            await nodes(bench, "new")
            assert await placed(bench, "web") == "new"
            await all_remade(bench)

        await scheduled_in_real_time(check, extended(row))


async def test_an_extender_that_fails_fails_the_pod_unless_it_may_be_ignored() -> None:
    with extender_server(
        {"filter": 500, "wrong": lambda body: {"Error": "the licence server is down"}}
    ) as server:
        url = f"{server.url}/filter"
        for verb, ignorable, text in (
            ("filter", False, f"failed filter with extender at URL {url}, code 500"),
            ("wrong", False, "the licence server is down"),
            ("filter", True, ""),
        ):
            row = {"urlPrefix": server.url, "filterVerb": verb, "ignorable": ignorable}
            await scheduled_in_real_time(_fails_with(text), extended(row))


def _fails_with(text: str) -> Test:
    async def check(bench: Bench) -> None:
        await nodes(bench, "a", "b")
        await bench.pod("web")
        if text:
            assert await refused(bench, "web") == ("False", "SchedulerError", text)
        else:
            assert await placed(bench, "web") in ("a", "b")

    return check


async def test_a_slow_extender_costs_its_own_pods_their_timeout_and_nobody_else_anything() -> None:
    with extender_server({"filter": lambda body: {}}, delay_s=1.0) as server:
        gpu = {"name": "example.com/licence", "ignoredByScheduler": True}
        row = {
            "urlPrefix": server.url, "filterVerb": "filter", "httpTimeout": "300ms", "managedResources": [gpu],
        }  # fmt: skip

        async def check(bench: Bench) -> None:
            await nodes(bench, "a", "b")
            for number in range(5):
                wants = {"requests": {"example.com/licence": "1"}, "limits": {"example.com/licence": "1"}}
                container = {"name": "c", "image": "x", "resources": wants}
                await bench.pod(f"licensed{number}", containers=[container])
            await anyio.sleep(0.05)
            with anyio.fail_after(0.25):
                await bench.pod("plain")
                await placed(bench, "plain")
            for number in range(5):
                assert await refused(bench, f"licensed{number}") == (
                    "False",
                    "SchedulerError",
                    f'Post "{server.url}/filter": context deadline exceeded (Client.Timeout exceeded while awaiting '
                    "headers)",
                )
            assert all(body["Pod"]["metadata"]["name"].startswith("licensed") for _, body in server.asked)

        await scheduled_in_real_time(check, extended(row))


async def test_an_extender_that_nobody_serves_is_said() -> None:
    async def check(bench: Bench) -> None:
        await nodes(bench, "a")
        await bench.pod("web")
        _, reason, text = await refused(bench, "web")
        assert reason == "SchedulerError" and text.startswith('Post "http://127.0.0.1:1/x/filter": ')

    row = {"urlPrefix": "http://127.0.0.1:1/x", "filterVerb": "filter"}
    await scheduled_in_real_time(check, extended(row))


async def test_extenders_follow_each_other_and_each_sees_what_the_one_before_left() -> None:
    with extender_server({"first": only("a", "b"), "second": only("b", "c")}) as server:
        rows = [
            {"urlPrefix": server.url, "filterVerb": verb, "nodeCacheCapable": True}
            for verb in ("first", "second")
        ]

        async def check(bench: Bench) -> None:
            await nodes(bench, "a", "b", "c")
            await bench.pod("web")
            assert await placed(bench, "web") == "b"
            assert server.asked[1][1]["NodeNames"] == ["a", "b"]

        await scheduled_in_real_time(check, extended(*rows))


async def test_a_node_that_was_not_offered_is_an_error() -> None:
    with extender_server({"filter": lambda body: {"NodeNames": ["elsewhere"]}}) as server:

        async def check(bench: Bench) -> None:
            await nodes(bench, "a")
            await bench.pod("web")
            assert (await refused(bench, "web"))[2] == (
                f'extender "{server.url}" claims a filtered node "elsewhere" which is not found in the input node list'
            )

        row = {"urlPrefix": server.url, "filterVerb": "filter", "nodeCacheCapable": True}
        await scheduled_in_real_time(check, extended(row))


async def _crowded(bench: Bench) -> None:
    """Two nodes, each full of one pod; then a more important one."""
    priority = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}}
    await bench.client.create("priorityclasses.scheduling.k8s.io", {**priority, "value": 1000})
    await nodes(bench, "a", "b", cpu="1")
    for name in ("one", "two"):
        await bench.pod(name, cpu="800m")
        await placed(bench, name)
    await bench.pod("vip", cpu="800m", priorityClassName="high")


async def test_preemption_takes_only_the_nodes_that_the_extender_leaves() -> None:
    def preempt(body: Json) -> Json:
        victims = body["NodeNameToMetaVictims"]
        assert sorted(victims) == ["a", "b"]
        return {"NodeNameToMetaVictims": {"b": victims["b"]}}

    with extender_server({"preempt": preempt}) as server:

        async def check(bench: Bench) -> None:
            await _crowded(bench)
            waiting = await until(
                bench, "vip", lambda p: bool((p.get("status") or {}).get("nominatedNodeName"))
            )
            assert waiting["status"]["nominatedNodeName"] == "b"
            effect = bench.sink.rows[-1].effects[0]
            assert effect["kind"] == "Preempt" and list(effect["extenders"]["victims"]) == ["b"]
            await all_remade(bench)

        row = {"urlPrefix": server.url, "preemptVerb": "preempt", "nodeCacheCapable": True}
        await scheduled_in_real_time(check, extended(row))


async def test_an_extender_can_forbid_preemption() -> None:
    with extender_server({"preempt": lambda body: {"NodeNameToMetaVictims": {}}}) as server:

        async def check(bench: Bench) -> None:
            await _crowded(bench)
            text = (await refused(bench, "vip"))[2]
            assert text.endswith("preemption: no candidate node for preemption")
            assert server.asked[-1][1]["NodeNameToVictims"]["a"]["Pods"][0]["metadata"]["name"] in (
                "one",
                "two",
            )
            await all_remade(bench)

        await scheduled_in_real_time(check, extended({"urlPrefix": server.url, "preemptVerb": "preempt"}))


async def test_an_extender_binds_instead_of_the_scheduler() -> None:
    def bind(body: Json) -> Json:
        bound.append(body)
        return {"Error": ""} if len(bound) > 1 else {"Error": "not today"}

    bound: list[Json] = []
    with extender_server({"bind": bind}) as server:

        async def check(bench: Bench) -> None:
            await nodes(bench, "a")
            pod = await bench.pod("web")
            assert (await refused(bench, "web"))[2] == "binding rejected: not today"
            with anyio.fail_after(TAKES_S):
                while not await bench.events("Scheduled"):
                    await anyio.sleep(0.02)
            uid = pod["metadata"]["uid"]
            assert bound == [{"PodName": "web", "PodNamespace": "default", "PodUID": uid, "Node": "a"}] * 2
            assert await bench.node_of("web") == ""

        await scheduled_in_real_time(check, extended({"urlPrefix": server.url, "bindVerb": "bind"}))


async def test_an_extender_over_tls_is_checked_against_its_ca(tmp_path: Path) -> None:
    clock, entropy = SystemClock(), SystemEntropy()
    trusted, other = (Authority.create(name, clock, entropy) for name in ("trusted", "other"))
    certificate, key = trusted.issue("extender", ips=("127.0.0.1",), server=True)
    pair = tmp_path / "pair.pem"
    pair.write_bytes(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    with extender_server({"filter": only("b")}, context) as server:

        def row(**tls: Any) -> Json:
            return {
                "urlPrefix": server.url, "filterVerb": "filter", "enableHTTPS": True, "nodeCacheCapable": True,
                "tlsConfig": tls,
            }  # fmt: skip

        async def goes_to_b(bench: Bench) -> None:
            await nodes(bench, "a", "b")
            await bench.pod("web")
            assert await placed(bench, "web") == "b"

        async def fails(bench: Bench) -> None:
            await nodes(bench, "a", "b")
            await bench.pod("web")
            assert (await refused(bench, "web"))[1] == "SchedulerError"

        ca = base64.b64encode(trusted.certificate_pem).decode()
        (tmp_path / "other.pem").write_bytes(other.certificate_pem)
        await scheduled_in_real_time(goes_to_b, extended(row(caData=ca)))
        await scheduled_in_real_time(goes_to_b, extended(row()))
        await scheduled_in_real_time(fails, extended(row(caFile=str(tmp_path / "other.pem"))))


def test_answers_survive_the_log() -> None:
    answers = Answers({"a": ("no", True)}, {"b": 20}, {"c": (["uid"], 1)})
    again = Answers.of(answers.document())
    assert again is not None and again.document() == answers.document()
    assert Answers.of(None) is None


async def test_an_answer_that_makes_no_sense_fails_its_pod_and_not_the_scheduler() -> None:
    """A list where names map to reasons, and a score that is no number."""

    def filters(body: Json) -> Json:
        return {"NodeNames": ["a", "b"], "FailedNodes": ["c"]}

    def scores(body: Json) -> Any:
        return [{"Host": name, "Score": "high"} for name in body["NodeNames"]]

    with extender_server({"filter": filters, "prioritize": scores}) as server:
        row = {"urlPrefix": server.url, "prioritizeVerb": "prioritize", "weight": 1, "nodeCacheCapable": True}

        async def is_refused(bench: Bench) -> None:
            await nodes(bench, "a", "b", "c")
            await bench.pod("web")
            status, reason, text = await refused(bench, "web")
            assert (status, reason) == ("False", "SchedulerError")
            assert text.startswith(
                f"filter of extender at URL {server.url}/filter: its answer makes no sense: "
            )

        async def is_placed(bench: Bench) -> None:
            await nodes(bench, "a", "b", "c")
            await bench.pod("web")
            assert await placed(bench, "web") in ("a", "b", "c")

        await scheduled_in_real_time(is_refused, extended({**row, "filterVerb": "filter"}))
        await scheduled_in_real_time(is_placed, extended(row))
