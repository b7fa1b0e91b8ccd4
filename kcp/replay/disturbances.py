"""The faults that somebody acts out: components that die, nodes that fall silent, horizons that move, wrong clocks."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta

import anyio
import attrs
from anyio.abc import TaskGroup

from kcp.base.clock import Clock
from kcp.controlplane.cluster import NODES_LEASE, Cluster
from kcp.machinery.errors import ApiError
from kcp.node.fleet import Fleet
from kcp.replay.faults import BUCKET_S, Faults
from kcp.store.protocol import Key, StoreError

RESTART_STRETCH_S, SILENCE_STRETCH_S = BUCKET_S["restart"], BUCKET_S["node-silent"]
COMPACTION_STRETCH_S, KUBELET_STRETCH_S = BUCKET_S["compaction"], BUCKET_S["kubelet-restart"]
MAX_SILENCE_S = 180.0
WAKE_RETRY_S = 1.0
WRONG_BY_S = (-3600.0, -5.0, -0.3, 0.3, 5.0, 3600.0)


@attrs.define
class WrongClock:
    """The wall clock of one daemon, off by one of WRONG_BY_S while the fault lasts. Durations stay right."""

    right: Clock
    faults: Faults
    name: str
    _bucket: int = -1
    _wrong_by: timedelta = timedelta()

    def now(self) -> datetime:
        started_s = self.faults.started_s
        if started_s is None or self.faults.healed:
            return self.right.now()
        bucket = int((self.right.monotonic() - started_s) / BUCKET_S["clock-jump"])
        if bucket != self._bucket:
            share = self.faults.draw("clock-jump", self.name, "")
            wrong_by_s = 0.0 if share is None else WRONG_BY_S[int(share * len(WRONG_BY_S))]
            self._bucket, self._wrong_by = bucket, timedelta(seconds=wrong_by_s)
        return self.right.now() + self._wrong_by

    def monotonic(self) -> float:
        return self.right.monotonic()


@attrs.define
class Disturbances:
    """What happens to one daemon's cluster; owned by the task group that its loops are started in."""

    cluster: Cluster
    faults: Faults
    clock: Clock
    daemon: str = ""

    def start(self, group: TaskGroup) -> None:
        group.start_soon(self._restarts)
        group.start_soon(self._silences, group)
        group.start_soon(self._kubelet_restarts)
        group.start_soon(self._compactions)

    async def _restarts(self) -> None:
        while True:
            names = self.cluster.components
            due = [(self.faults.draw("restart", name + self.daemon, ""), name) for name in names]
            begun_s = self.clock.monotonic()
            for share, name in sorted((share, name) for share, name in due if share is not None):
                await anyio.sleep_until(begun_s + share * RESTART_STRETCH_S)
                self.cluster.restart(name)
            await anyio.sleep_until(begun_s + RESTART_STRETCH_S)

    async def _compactions(self) -> None:
        while True:
            share = self.faults.draw("compaction", "store" + self.daemon, "")
            begun_s = self.clock.monotonic()
            if share is not None:
                await anyio.sleep(share * COMPACTION_STRETCH_S)
                with suppress(StoreError):  # the log fails, too: then the horizon stays
                    await self.cluster.store.move_horizon(self.cluster.store.rv)
            await anyio.sleep_until(begun_s + COMPACTION_STRETCH_S)

    def _fleet(self) -> Fleet | None:
        """The nodes, if this daemon runs them now."""
        election, fleet = self.cluster.options.election, self.cluster.fleet
        if election is None or fleet is None:
            return fleet
        lease = self.cluster.store.get(Key("leases.coordination.k8s.io", "kube-system", NODES_LEASE))
        holder = "" if lease is None else lease.value["spec"].get("holderIdentity")
        return fleet if holder == election.identity else None

    def _agents(self) -> list[str]:
        fleet = self._fleet()
        return sorted(fleet.agents) if fleet is not None else []

    async def _silences(self, group: TaskGroup) -> None:
        """Nodes go silent for a while; every other time the machine goes down with all that runs on it."""
        while True:
            begun_s = self.clock.monotonic()
            for name in self._agents():
                share = self.faults.draw("node-silent", "node" + self.daemon, name)
                if share is not None:
                    group.start_soon(self._silence, name, share)
            await anyio.sleep_until(begun_s + SILENCE_STRETCH_S)

    async def _silence(self, name: str, share: float) -> None:
        fleet = self._fleet()
        if fleet is None or name not in fleet.agents:
            return
        if share < 0.5:
            fleet.stop_node(name)
        else:
            fleet.power_off_node(name)
        try:
            await anyio.sleep(5 + share * MAX_SILENCE_S)
        finally:
            with anyio.CancelScope(shield=True):
                await self._wake(fleet, name)

    async def _wake(self, fleet: Fleet, name: str) -> None:
        """Until it talks again, or all nodes were restarted meanwhile, here or by another daemon."""
        while self._fleet() is fleet and fleet.agents[name].silent:
            try:
                await fleet.start_node(name)
            except ApiError:
                await anyio.sleep(WAKE_RETRY_S)

    async def _kubelet_restarts(self) -> None:
        while True:
            begun_s = self.clock.monotonic()
            for name in self._agents():
                share = self.faults.draw("kubelet-restart", "node" + self.daemon, name)
                fleet = self._fleet()
                if share is None or fleet is None or name not in fleet.agents or fleet.agents[name].silent:
                    continue
                fleet.stop_node(name)
                with anyio.CancelScope(shield=True):
                    await self._wake(fleet, name)
            await anyio.sleep_until(begun_s + KUBELET_STRETCH_S)
