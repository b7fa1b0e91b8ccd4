"""What conformance asks of taints that evict."""

from __future__ import annotations

from typing import Any

import anyio

from kcp.base.clock import LoopClock
from tests.conformance.door import Door
from tests.conformance.objects import is_running, pod
from tests.conformance.scoreboard import on_nodes

Json = dict[str, Any]
PREFIX = "[sig-node] NoExecuteTaintManager "
KEY = "kubernetes.io/e2e-evict-taint-key"
TAINT = {"key": KEY, "value": "evictTaintVal", "effect": "NoExecute"}


def tolerating(name: str, seconds: int, **spec: Any) -> Json:
    toleration = {**TAINT, "operator": "Equal", "tolerationSeconds": seconds}
    return pod(name, tolerations=[toleration], terminationGracePeriodSeconds=0, **spec)


async def taint(door: Door, node: str, *taints: Json) -> None:
    await door.patch(f"/api/v1/nodes/{node}", {"spec": {"taints": list(taints) or None}})


@on_nodes(PREFIX + "Single Pod [Serial] removing taint cancels eviction [Disruptive]", alone=2)
async def cancelled(door: Door) -> None:
    pods = await door.namespace("taint-single") + "/pods"
    await door.create(pods, tolerating("taint-eviction-4", 65))
    node = (await door.eventually(f"{pods}/taint-eviction-4", is_running))["spec"]["nodeName"]
    await taint(door, node, TAINT)
    await door.always(f"{pods}/taint-eviction-4", lambda found: is_running(found), 30)
    await taint(door, node)
    await door.always(
        f"{pods}/taint-eviction-4",
        lambda found: is_running(found) and "deletionTimestamp" not in found["metadata"],
        120,
    )


@on_nodes(PREFIX + "Multiple Pods [Serial] evicts pods with minTolerationSeconds [Disruptive]", alone=2)
async def in_turn(door: Door) -> None:
    pods = await door.namespace("taint-multiple") + "/pods"
    await door.create(pods, tolerating("taint-eviction-b1", 5))
    node = (await door.eventually(f"{pods}/taint-eviction-b1", is_running))["spec"]["nodeName"]
    await door.create(
        pods, tolerating("taint-eviction-b2", 25, nodeSelector={"kubernetes.io/hostname": node})
    )
    await door.eventually(f"{pods}/taint-eviction-b2", is_running)
    watch = await door.watch(pods, await door.revision(pods))
    clock = LoopClock()
    begin_s = clock.monotonic()
    await taint(door, node, TAINT)
    took_s = {}
    for name in ("taint-eviction-b1", "taint-eviction-b2"):
        await watch.until("DELETED", name)
        took_s[name] = clock.monotonic() - begin_s
    assert 5 <= took_s["taint-eviction-b1"] < 10 and 25 <= took_s["taint-eviction-b2"] < 30, took_s
    await taint(door, node)
    await anyio.sleep(1)
    assert await door.items(pods) == []
