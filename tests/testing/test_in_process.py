"""A cluster on the running loop, in real and in virtual time."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from kcp.client.client import Client
from kcp.testing import cluster, run_deterministic
from tests.support.builders import deployment

Json = dict[str, Any]


async def uid_of_a_running_deployment(client: Client) -> str | None:
    found = await client.get("deployments.apps", "web", "default")
    return str(found["metadata"]["uid"]) if found.get("status", {}).get("readyReplicas") == 2 else None


async def run_a_deployment() -> tuple[str, float]:
    async with cluster(nodes=2) as it:
        begun_s = it.clock.monotonic()
        await it.client.create("deployments.apps", deployment("web", replicas=2))
        await anyio.sleep(900)
        uid = await it.wait_for(lambda: uid_of_a_running_deployment(it.client))
        assert uid is not None
        return uid, it.clock.monotonic() - begun_s


def test_virtual_time_passes_at_once_and_repeats_itself() -> None:
    first, again = (run_deterministic(run_a_deployment, 7) for _ in range(2))
    assert first == again
    assert first[1] >= 900


async def test_in_real_time_it_runs_pods_too() -> None:
    async with cluster(nodes=2) as it:
        await it.client.create("deployments.apps", deployment("web", replicas=2))
        assert await it.wait_for(lambda: uid_of_a_running_deployment(it.client))


async def test_waiting_ends() -> None:
    async with cluster(nodes=0) as it:
        with pytest.raises(TimeoutError):
            await it.wait_for(lambda: it.client.get("pods", "nobody", "default"), timeout_s=0.05)


async def test_what_a_test_raises_is_what_arrives() -> None:
    with pytest.raises(ZeroDivisionError):
        async with cluster(nodes=0):
            print(1 / 0)
