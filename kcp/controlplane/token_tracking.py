"""Which tokens of Secrets are still in use: a label with the day, so that unused ones can be retired.

A ConfigMap says since when this is known. Part of the API server, under its identity.
Source: k8s v1.36 pkg/controlplane/controller/legacytokentracking, pkg/serviceaccount/legacy.go.
"""

from __future__ import annotations

from datetime import UTC, date
from typing import Any

import anyio
import attrs
import structlog

from kcp.base.clock import Clock
from kcp.client.client import Client
from kcp.controllers.service_account_tokens import LAST_USED, TRACKING
from kcp.machinery.errors import AlreadyExists, ApiError, NotFound

Json = dict[str, Any]
log = structlog.get_logger()
NAMESPACE = "kube-system"
FLUSH_S = 60.0
CAPACITY = 1000
"""Secrets noted between two flushes; what is beyond is noted at its next use."""


@attrs.define
class TokenTracking:
    """Owned by the task that runs `run`; `note` may be called by anyone and never waits."""

    clock: Clock
    _used: dict[tuple[str, str], None] = attrs.field(factory=dict)

    def note(self, secret: Json) -> None:
        """The token in this Secret was just used."""
        metadata = secret["metadata"]
        if (metadata.get("labels") or {}).get(LAST_USED) == self._today():
            return
        if len(self._used) < CAPACITY:
            self._used[metadata["namespace"], metadata["name"]] = None

    def _today(self) -> str:
        return self.clock.now().astimezone(UTC).date().isoformat()

    async def run(self, client: Client) -> None:
        await self._ensure_since(client)
        while True:
            await anyio.sleep(FLUSH_S)
            await self._flush(client)

    async def _ensure_since(self, client: Client) -> None:
        """The first day of tracking stays what it is; one that nobody can read starts anew."""
        data = {"since": self._today()}
        try:
            found = await client.get("configmaps", TRACKING, NAMESPACE)
        except NotFound:
            metadata = {"name": TRACKING, "namespace": NAMESPACE}
            obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
            try:
                await client.create("configmaps", obj, NAMESPACE)
            except AlreadyExists:
                return
            return
        try:
            date.fromisoformat((found.get("data") or {}).get("since", ""))
        except ValueError:
            await client.update("configmaps", {**found, "data": {**(found.get("data") or {}), **data}})

    async def _flush(self, client: Client) -> None:
        used, self._used = self._used, {}
        patch = {"metadata": {"labels": {LAST_USED: self._today()}}}
        for namespace, name in used:
            try:
                await client.patch("secrets", name, patch, "merge", namespace)
            except ApiError as error:
                log.warning("use of a token not noted", namespace=namespace, secret=name, error=error.message)
