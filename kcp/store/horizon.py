"""The API horizon: revisions below it are answered with 410 Expired. Moving it deletes nothing."""

from __future__ import annotations

import anyio

from kcp.store.protocol import Store, Unavailable

PERIOD_S = 300.0
"""Kubernetes' compaction interval. Source: k8s v1.36 apiserver/pkg/storage/storagebackend/config.go."""


async def keep_moving(store: Store, period_s: float = PERIOD_S) -> None:
    """Every period move the horizon to the head noted one period before: one to two periods stay available."""
    noted = store.rv
    while True:
        await anyio.sleep(period_s)
        try:
            await store.move_horizon(noted)
        except Unavailable:
            continue
        noted = store.rv
