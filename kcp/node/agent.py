"""One node: registers itself, keeps its lease and status, and has a worker for each of its pods.

Source: k8s v1.36 pkg/kubelet/kubelet.go, pkg/kubelet/kubelet_node_status.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import attrs
import structlog

from kcp.apis.semantics import nodes
from kcp.base.backoff import WindowBackoff
from kcp.base.clock import Clock
from kcp.base.entropy import Entropy
from kcp.base.values import frozen
from kcp.client.client import Client
from kcp.machinery.errors import AlreadyExists, NotFound
from kcp.machinery.times import format_time
from kcp.node import admit, eviction, node_status
from kcp.node.heartbeat import LeaseKeeper, StatusReporter
from kcp.node.images import ImageManager
from kcp.node.node_status import EVENTS, PRESSURES, Machine, NodeSpec
from kcp.node.pod_worker import PodWorker
from kcp.node.renewals import Renewals
from kcp.node.runtime.protocol import Image, Runtime
from kcp.node.status_writer import StatusCell
from kcp.node.timers import Timers
from kcp.node.work_loop import WorkLoop

log = structlog.get_logger()
Json = dict[str, Any]

CRASH_BACKOFF_S, CRASH_BACKOFF_CAP_S = 10.0, 300.0


class Recorder(Protocol):
    """Takes Events; `kcp.client.recorder.EventRecorder` is one."""

    def event(self, regarding: Json, type: Any, reason: str, message: str) -> None: ...


@frozen
class Services:
    """What the nodes of a fleet share."""

    clock: Clock
    entropy: Entropy
    timers: Timers
    pod_loop: WorkLoop
    status_loop: WorkLoop
    node_loop: WorkLoop
    lease_loop: WorkLoop
    renewals: Renewals | None = None
    """Renews the Leases of all nodes together; None: each node renews its own."""


class NodeAgent:
    """Owned by its fleet, whose loops do all the work. `silent`: the node has stopped talking."""

    def __init__(
        self,
        spec: NodeSpec,
        machine: Machine,
        client: Client,
        runtime: Runtime,
        recorder: Recorder,
        services: Services,
    ) -> None:
        self.spec = spec
        self.machine = machine
        self.client = client
        self.runtime = runtime
        self.recorder = recorder
        self.services = services
        self.silent = True
        self.rebooted = False
        self.node: Json = {}
        self.pressures: dict[str, bool] = {}
        self.told: dict[str, bool] = {}
        self.asked: dict[str, bool] = {}
        self.node_images: Sequence[Image] = ()
        self.workers: dict[str, PodWorker] = {}
        self.room = admit.Room({})
        self.images = ImageManager(runtime, services.clock)
        self.crash_backoff: WindowBackoff[str] = WindowBackoff(
            services.clock, CRASH_BACKOFF_S, CRASH_BACKOFF_CAP_S
        )
        self.lease = LeaseKeeper(self)
        self.reporter = StatusReporter(self, self._status)
        runtime.subscribe(self._runtime_changed)

    @property
    def host_ip(self) -> str:
        return self.machine.ip

    def now(self) -> str:
        return format_time(self.services.clock.now())

    def monotonic(self) -> float:
        return self.services.clock.monotonic()

    # -- the node -------------------------------------------------------------------------------------

    async def register(self, existing: Json | None) -> None:
        """Create the Node, or bring the existing one up to date; from then on the node talks."""
        if existing is None:
            document = node_status.node_document(self.spec, self.machine, self._status())
            try:
                self._take_node((await self.client.create("nodes", document)).object)
            except AlreadyExists:
                existing = await self.client.get("nodes", self.spec.name)
        if existing is not None:
            await self._reconcile(existing)
        self.silent = False
        self._tell("Normal", "Starting", "Starting kubelet.")
        if self.rebooted:
            self.rebooted = False
            text = f"Node {self.spec.name} has been rebooted, boot id: {self.machine.boot_id}"
            self._tell("Warning", "Rebooted", text)
        self._tell_conditions()
        self.lease.start()
        self.reporter.later()

    async def _reconcile(self, existing: Json) -> None:
        self._take_node(existing)
        wanted = node_status.node_labels(self.spec)
        have = existing["metadata"].get("labels") or {}
        if any(have.get(key) != value for key, value in wanted.items()):
            await self.client.patch("nodes", self.spec.name, {"metadata": {"labels": wanted}}, "merge")
        patch = {"status": self._status()}
        done = await self.client.patch("nodes", self.spec.name, patch, "strategic", subresource="status")
        self._take_node(done.object)

    def _take_node(self, node: Json) -> None:
        self.node = node
        self.room.allocatable = nodes.allocatable_amounts(node)

    def _status(self) -> Json:
        before = self.node.get("status") or {}
        return node_status.node_status(
            self.spec, self.machine, before, self.pressures, self.node_images, self.now()
        )

    def posted(self, node: Json) -> None:
        """The API has taken a status."""
        self._take_node(node)
        self._tell_conditions()

    def _tell_conditions(self) -> None:
        """An Event for each condition that changed since the last one was told."""
        current = {type_: self.pressures.get(type_, False) for type_ in PRESSURES}
        for type_, under in current.items():
            if self.told.get(type_, False) != under:
                self._tell_status(EVENTS[type_][under])
        if "Ready" not in self.told:
            self._tell_status("NodeReady")
        self.told = {**current, "Ready": True}

    def _tell_status(self, word: str) -> None:
        self._tell("Normal", word, f"Node {self.spec.name} status is now: {word}")

    def _tell(self, type: str, reason: str, message: str) -> None:
        name = self.spec.name
        self.recorder.event({"kind": "Node", "name": name, "uid": name}, type, reason, message)

    def node_changed(self, node: Json) -> None:
        """The Node object in the API is now this."""
        if self.silent:
            return
        self._take_node(node)
        asked = node_status.pressures_of(node)
        if asked != self.asked:
            changed = {
                type_: under for type_, under in asked.items() if under != self.asked.get(type_, False)
            }
            self.asked = asked
            for type_, under in changed.items():
                self.set_pressure(type_, under)
        expected = {
            "conditions": node_status.conditions({}, self.pressures, ""),
            "capacity": self.spec.capacity(),
        }
        if not self.reporter.busy and node_status.is_contradicted(expected, node.get("status") or {}):
            self.reporter.start()

    def set_pressure(self, type_: str, under: bool, *, evict: bool = True) -> None:
        """Put the node under pressure, or relieve it. Under pressure one pod is given up, as one eviction pass does."""
        assert type_ in PRESSURES, f"no pressure condition: {type_}"
        if self.pressures.get(type_, False) == under:
            return
        self.pressures[type_] = under
        self.reporter.start()
        if under and evict:
            self._evict_one(eviction.RESOURCES[type_])

    def _evict_one(self, resource: str) -> None:
        self._tell("Warning", "EvictionThresholdMet", f"Attempting to reclaim {resource}")
        running = [w.pod for w in self.workers.values() if w.state == "running" and not w.deleted]
        ranked = eviction.rank(running, resource, eviction.simulated_usage)
        if ranked:
            worker = self.workers[ranked[0]["metadata"]["uid"]]
            verdict = eviction.evicted(resource)
            worker.event("Warning", verdict.reason, verdict.message)
            worker.evict(verdict, 0.0)

    def stop(self) -> None:
        """Go silent: no lease, no status, no reaction. Containers go on."""
        self.silent = True
        self.lease.stop()
        self.reporter.stop()

    def power_off(self) -> None:
        """Go silent with everything that runs here; the next start is a new boot."""
        self.stop()
        self.rebooted = True
        self.machine = attrs.evolve(self.machine, boot_id=self.services.entropy.uid())

    async def resume(self, pods: Callable[[], Iterable[Json]]) -> None:
        """Talk again, beginning with what the API says then: changes on the way there are not heard."""
        try:
            existing = await self.client.get("nodes", self.spec.name)
        except NotFound:
            existing = None
        await self.register(existing)
        found = {pod["metadata"]["uid"]: pod for pod in pods()}
        for uid, worker in list(self.workers.items()):
            if uid not in found:
                worker.orphaned()
        for pod in found.values():
            self.pod_changed(pod)
        for worker in self.workers.values():
            worker.requeue()
            worker.cell.kick()

    # -- its pods -------------------------------------------------------------------------------------

    def pod_changed(self, pod: Json) -> None:
        """The API has this version of a pod that is bound here."""
        if self.silent:
            return
        worker = self.workers.get(pod["metadata"]["uid"])
        if worker is not None:
            worker.update(pod)
            return
        metadata = pod["metadata"]
        status = pod.get("status") or {}
        cell = StatusCell(
            self.client,
            self.services.status_loop,
            self.services.timers,
            self._is_silent,
            metadata["namespace"],
            metadata["name"],
            metadata["uid"],
            status,
            metadata.get("resourceVersion", ""),
        )
        worker = PodWorker(self, pod, cell, status)
        self.workers[metadata["uid"]] = worker
        worker.requeue()

    def pod_removed(self, uid: str) -> None:
        """The API object is gone."""
        worker = self.workers.get(uid)
        if worker is not None and not self.silent:
            worker.orphaned()

    async def forget(self, worker: PodWorker) -> None:
        """Nothing of the pod is left: drop it."""
        status = await self.runtime.pod_status(worker.uid)
        for sandbox in status.sandboxes:
            await self.runtime.remove_pod_sandbox(sandbox.id)
        self.images.forget(worker.uid)
        self.workers.pop(worker.uid, None)

    def _is_silent(self) -> bool:
        return self.silent

    def _runtime_changed(self, uid: str) -> None:
        worker = self.workers.get(uid)
        if worker is not None:
            worker.requeue()

    def admit(
        self, pod: Json, amounts: Mapping[str, int], ports: Iterable[admit.HostPort]
    ) -> admit.Rejection | None:
        under = [type_ for type_, on in self.pressures.items() if on] if self.pressures else ()
        return admit.admit(pod, self.node, self.room, amounts, ports, under)

    def room_freed(self) -> None:
        """Pods whose resize was put off may have room now."""
        for worker in self.workers.values():
            if worker.resize_condition is not None and worker.state == "running":
                worker.requeue()
