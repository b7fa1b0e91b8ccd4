"""Logs to look around in, played once per test module."""

from __future__ import annotations

from pathlib import Path

import anyio

from kcp.client.client import Client
from kcp.controlplane.cluster import ClusterOptions
from tests.replay.placements import record
from tests.support.builders import deployment

DEPLOYMENTS = "deployments.apps"


async def _rollout(client: Client) -> None:
    """web: three replicas, then two images one after the other, then gone."""
    await anyio.sleep(5)
    await client.create(DEPLOYMENTS, deployment("web", replicas=3, image="web:1"), "default")
    await anyio.sleep(10)
    image = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "web:2"}]}}}}
    await client.patch(DEPLOYMENTS, "web", image, "strategic", "default")
    await anyio.sleep(20)
    await client.delete(DEPLOYMENTS, "web", "default")
    await anyio.sleep(10)


def rollout(file: Path) -> Path:
    record(file, _rollout, ClusterOptions(nodes=3))
    return file
