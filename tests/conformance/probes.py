"""What conformance asks of probes. What a probe finds is told to the simulated runtime; the rest is the kubelet's."""

from __future__ import annotations

from typing import Any

import anyio

from kcp.machinery.times import parse_time
from tests.conformance.containers import first, pods_of
from tests.conformance.door import Door
from tests.conformance.objects import condition, is_ready, is_running, pod
from tests.conformance.scoreboard import on_nodes

Json = dict[str, Any]
PREFIX = "[sig-node] Probing container "
EXEC = {"exec": {"command": ["cat", "/tmp/health"]}}
HTTP, TCP = {"httpGet": {"path": "/healthz", "port": 8080}}, {"tcpSocket": {"port": 8080}}
GRPC = {"grpc": {"port": 5000}}
FAILS_LATER = {"sim.kcp/liveness.main": "pass,fail@10s"}


def probed(kind: str, how: Json, annotations: Json | None = None, **more: Any) -> Json:
    body = pod("probed", annotations=annotations)
    body["spec"]["containers"][0][f"{kind}Probe"] = {**how, "initialDelaySeconds": 15, **more}
    return body


async def restarted(door: Door, namespace: str, how: Json, times: int = 1) -> None:
    """A failing liveness probe makes the container start again; each count is one more."""
    pods = await pods_of(door, namespace)
    watch = await door.watch(pods, await door.revision(pods))
    await door.create(pods, probed("liveness", how, FAILS_LATER, failureThreshold=1))
    counts = [0]
    with anyio.fail_after(900):
        while counts[-1] < times:
            await anyio.sleep(1)
            for event in watch.take():
                statuses = event["object"]["status"].get("containerStatuses") or [{"restartCount": 0}]
                if statuses[0]["restartCount"] != counts[-1]:
                    counts.append(statuses[0]["restartCount"])
    assert counts == list(range(times + 1))
    last = first(await door.get(f"{pods}/probed"))["lastState"]["terminated"]
    assert last["exitCode"] in (0, 137, 143)
    events = await door.eventually(
        f"{pods.removesuffix('/pods')}/events",
        lambda found: {"Unhealthy", "Killing"} <= {event["reason"] for event in found["items"]},
    )
    text = [event["message"] for event in events["items"] if event["reason"] == "Killing"]
    assert "Container main failed liveness probe, will be restarted" in text


async def left_alone(door: Door, namespace: str, how: Json) -> None:
    pods = await pods_of(door, namespace)
    await door.create(pods, probed("liveness", how, failureThreshold=1))
    await door.eventually(f"{pods}/probed", is_running)
    await door.always(f"{pods}/probed", lambda found: first(found)["restartCount"] == 0, 240)


@on_nodes(PREFIX + 'should be restarted with a exec "cat /tmp/health" liveness probe [NodeConformance]')
async def by_exec(door: Door) -> None:
    await restarted(door, "liveness-exec", EXEC)


@on_nodes(PREFIX + "should be restarted with a /healthz http liveness probe [NodeConformance]")
async def by_http(door: Door) -> None:
    await restarted(door, "liveness-http", HTTP)


@on_nodes(PREFIX + "should be restarted with a GRPC liveness probe [NodeConformance]")
async def by_grpc(door: Door) -> None:
    await restarted(door, "liveness-grpc", GRPC)


@on_nodes(PREFIX + "should have monotonically increasing restart count [NodeConformance]")
async def monotonically(door: Door) -> None:
    await restarted(door, "liveness-monotonic", HTTP, times=5)


@on_nodes(PREFIX + 'should *not* be restarted with a exec "cat /tmp/health" liveness probe [NodeConformance]')
async def not_by_exec(door: Door) -> None:
    await left_alone(door, "healthy-exec", EXEC)


@on_nodes(PREFIX + "should *not* be restarted with a /healthz http liveness probe [NodeConformance]")
async def not_by_http(door: Door) -> None:
    await left_alone(door, "healthy-http", HTTP)


@on_nodes(PREFIX + "should *not* be restarted with a tcp:8080 liveness probe [NodeConformance]")
async def not_by_tcp(door: Door) -> None:
    await left_alone(door, "healthy-tcp", TCP)


@on_nodes(PREFIX + "should *not* be restarted with a GRPC liveness probe [NodeConformance]")
async def not_by_grpc(door: Door) -> None:
    await left_alone(door, "healthy-grpc", GRPC)


@on_nodes(
    PREFIX
    + "with readiness probe should not be ready before initial delay and never restart [NodeConformance]"
)
async def ready_after_delay(door: Door) -> None:
    pods = await pods_of(door, "readiness-delay")
    await door.create(pods, probed("readiness", HTTP, initialDelaySeconds=30))
    found = await door.eventually(f"{pods}/probed", is_ready)
    started = parse_time(first(found)["state"]["running"]["startedAt"])
    since = parse_time(condition(found, "Ready")["lastTransitionTime"])
    assert 30 <= (since - started).total_seconds() <= 45
    assert first(found)["restartCount"] == 0


@on_nodes(
    PREFIX + "with readiness probe that fails should never be ready and never restart [NodeConformance]"
)
async def never_ready(door: Door) -> None:
    pods = await pods_of(door, "readiness-fails")
    await door.create(pods, probed("readiness", {"exec": {"command": ["/bin/false"]}}))
    await door.eventually(f"{pods}/probed", is_running)
    await door.always(
        f"{pods}/probed", lambda found: not is_ready(found) and first(found)["restartCount"] == 0, 180
    )
