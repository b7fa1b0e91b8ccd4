"""Many nodes in one process: one pods informer, one heap of timers, a few tasks, any number of agents.

    fleet = Fleet(client_for=…, pods=…, nodes=…, recorder_for=…, clock=clock, entropy=entropy)
    group.start_soon(fleet.run)
    await fleet.add_nodes([NodeSpec(f"node-{i}") for i in range(100)])
    fleet.stop_node("node-7")               # goes silent
    await fleet.start_node("node-7")

The informers are shared ones (`InformerFactory.informer("pods")`, `("nodes")`), run by whoever owns them. Every node
acts under its own identity: `client_for(name)` gives its client, `recorder_for(name)` its Event recorder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio
import structlog

from kcp.apis.semantics import nodes as node_semantics
from kcp.base.background import Background
from kcp.base.backoff import Backoff
from kcp.base.clock import Clock
from kcp.base.entropy import Entropy
from kcp.base.ipam import AlreadyAllocated, OutOfRange, RangeFull, SubnetRange
from kcp.base.settings import setting
from kcp.base.tasks import restart_with_backoff
from kcp.base.values import frozen
from kcp.client.cache.shared_informer import SharedInformer
from kcp.client.client import Client
from kcp.client.recorder import EventRecorder
from kcp.machinery.errors import NotFound
from kcp.node import logs
from kcp.node.addresses import AddressPool
from kcp.node.agent import NodeAgent, Services
from kcp.node.node_status import Machine, NodeSpec
from kcp.node.renewals import Renewals
from kcp.node.runtime.protocol import Runtime
from kcp.node.runtime.sim import Programs, SimRuntime, default_program
from kcp.node.timers import Timers
from kcp.node.work_loop import WorkLoop

__all__ = ["Fleet", "FleetSettings", "NodeSpec"]

log = structlog.get_logger()
Json = dict[str, Any]
BY_NODE = "kubelet.nodeName"
EVENT_WRITERS = 1
EVENT_LINGER_S = 0.5
"""Pods start in bursts: their Events share requests, and pods that run come before Events that say so."""
SPARE_ADDRESSES = 16
"""How many pod addresses a node has beyond its pods, so that one that was freed rests for a while."""


@frozen
class FleetSettings:
    """How many requests are under way at once, and where addresses come from."""

    pod_tasks: int = setting(4, "Tasks that step pod workers.")
    status_tasks: int = setting(4, "Pod status writes under way at once.")
    node_tasks: int = setting(8, "Node status writes under way at once.")
    lease_tasks: int = setting(8, "Lease renewals under way at once.")
    register_tasks: int = setting(32, "Nodes that register at once.")
    node_cidr: str = setting("10.0.0.0/12", "Where the nodes' own addresses come from.")
    pod_cidr: str = setting(
        "10.128.0.0/9", "Where the nodes' pod ranges come from; empty: from the Node's podCIDR."
    )


def by_node(pod: Json) -> Sequence[str]:
    name = (pod.get("spec") or {}).get("nodeName")
    return (name,) if name else ()


def _subnet_mask(pods: int) -> int:
    """The longest prefix that has room for a node's pods, at most 24 bits."""
    return min(24, 32 - math.ceil(math.log2(pods + SPARE_ADDRESSES + 3)))


class Fleet:
    """`run` owns everything; the other methods may be called from any task of the loop while it runs."""

    def __init__(
        self,
        *,
        client_for: Callable[[str], Client],
        pods: SharedInformer,
        nodes: SharedInformer,
        recorder_for: Callable[[str], EventRecorder],
        clock: Clock,
        entropy: Entropy,
        settings: FleetSettings | None = None,
        programs: Programs = default_program,
        background: Background | None = None,
        renewals: Renewals | None = None,
    ) -> None:
        """`background`: what pods do gives way to what is asked for now; the nodes' signs of life do not.

        `renewals`: where the Leases of all nodes can be renewed together.
        """
        self.settings = settings or FleetSettings()
        self.agents: dict[str, NodeAgent] = {}
        self._client_for = client_for
        self._recorder_for = recorder_for
        self._clock = clock
        self._entropy = entropy
        self._programs = programs
        self._pods = pods
        self._nodes = nodes
        self.services = Services(
            clock=clock,
            entropy=entropy.stream("fleet"),
            timers=Timers(clock),
            pod_loop=WorkLoop("pods", self.settings.pod_tasks, background),
            status_loop=WorkLoop("pod statuses", self.settings.status_tasks, background),
            node_loop=WorkLoop("node statuses", self.settings.node_tasks),
            lease_loop=WorkLoop("leases", self.settings.lease_tasks),
            renewals=renewals,
        )
        self._node_addresses = AddressPool(self.settings.node_cidr)
        self._subnets: dict[int, SubnetRange] = {}
        self._mask: int | None = None
        self._waiting: list[tuple[str, EventRecorder]] = []
        self._changed = anyio.Event()
        pods.add_indexers({BY_NODE: by_node})
        pods.add_handler(self._pod_changed)
        nodes.add_handler(self._node_changed)

    async def run(self) -> None:
        """Run the nodes until cancelled."""
        services = self.services
        async with anyio.create_task_group() as group:
            group.start_soon(services.timers.run)
            for loop in (services.pod_loop, services.status_loop, services.node_loop, services.lease_loop):
                group.start_soon(loop.run)
            while True:
                self._changed = anyio.Event()
                waiting, self._waiting = self._waiting, []
                for name, recorder in waiting:
                    group.start_soon(self._record, name, recorder)
                await self._changed.wait()

    async def _record(self, name: str, recorder: EventRecorder) -> None:
        backoff = Backoff(1.0, 2.0, 30.0)
        await restart_with_backoff(f"events of {name}", recorder.run, backoff=backoff, clock=self._clock)

    # -- nodes ----------------------------------------------------------------------------------------

    async def add_node(self, spec: NodeSpec) -> None:
        """Register a node, or take up one that an earlier process registered. Returns once it is Ready in the API."""
        assert spec.name not in self.agents, f"node {spec.name} is there already"
        client = self._client_for(spec.name)
        try:
            existing = await client.get("nodes", spec.name)
        except NotFound:
            existing = None
        agent = await self._agent(spec, client, existing)
        self.agents[spec.name] = agent
        await agent.register(existing)
        for pod in self._pods.indexer.index(BY_NODE, spec.name):
            agent.pod_changed(pod)

    async def add_nodes(self, specs: Sequence[NodeSpec]) -> None:
        """Register nodes, many at once. The first failure is raised."""
        waiting = list(reversed(specs))

        async def register() -> None:
            while waiting:
                await self.add_node(waiting.pop())

        async with anyio.create_task_group() as group:
            for _ in range(min(self.settings.register_tasks, len(specs))):
                group.start_soon(register)

    async def _agent(self, spec: NodeSpec, client: Client, existing: Json | None) -> NodeAgent:
        entropy = self._entropy.stream(f"node/{spec.name}")
        ip, cidr = self._own_address(spec, existing), self._pod_range(spec, existing)
        runtime = self._runtime(ip, cidr, entropy)
        info = ((existing or {}).get("status") or {}).get("nodeInfo") or {}
        machine = Machine(
            machine_id=info.get("systemUUID") or entropy.uid(),
            boot_id=info.get("bootID") or entropy.uid(),
            ip=ip,
            pod_cidr=cidr,
            runtime=await runtime.version(),
            scheme=runtime.scheme,
        )
        recorder = self._recorder_for(spec.name)
        self._waiting.append((spec.name, recorder))
        self._changed.set()
        return NodeAgent(spec, machine, client, runtime, recorder, self.services)

    def _runtime(self, ip: str, cidr: str, entropy: Entropy) -> Runtime:
        return SimRuntime(
            host_ip=ip,
            addresses=AddressPool(cidr),
            timers=self.services.timers,
            clock=self._clock,
            entropy=entropy,
            programs=self._programs,
        )

    def _own_address(self, spec: NodeSpec, existing: Json | None) -> str:
        for ip in (spec.ip, node_semantics.internal_ip(existing) if existing else ""):
            if ip:
                try:
                    self._node_addresses.claim(ip)
                except (OutOfRange, AlreadyAllocated):
                    log.debug("address of node is not ours to keep", node=spec.name, ip=ip)
                return ip
        return self._node_addresses.take()

    def _pod_range(self, spec: NodeSpec, existing: Json | None) -> str:
        """The node's pod CIDR: its own, the one it was registered with, or the next free one. Raises RangeFull."""
        given = spec.pod_cidr
        if not given and existing is not None:
            given = next(iter(node_semantics.pod_cidrs(existing)), "")
        if given:
            self._occupy(given, spec.name)
            return given
        if self._mask is None:
            self._mask = _subnet_mask(spec.pods)
        cidr = self._range_of(min(self._mask, _subnet_mask(spec.pods))).allocate_next()
        self._occupy(cidr, spec.name)
        return cidr

    def _occupy(self, cidr: str, node: str) -> None:
        for subnets in self._subnets.values():
            try:
                subnets.occupy(cidr)
            except OutOfRange:
                log.debug("pod range of node is not ours", node=node, cidr=cidr)

    def _range_of(self, mask: int) -> SubnetRange:
        """Subnets of one size; what others have taken is marked in each of them."""
        found = self._subnets.get(mask)
        if found is None:
            if not self.settings.pod_cidr:
                raise RangeFull
            found = self._subnets[mask] = SubnetRange(self.settings.pod_cidr, mask)
            for name, agent in self.agents.items():
                self._occupy(agent.machine.pod_cidr, name)
        return found

    def stop_node(self, name: str) -> None:
        """The node goes silent, as if its kubelet had died or its network were cut; its containers go on."""
        self.agents[name].stop()

    def power_off_node(self, name: str) -> None:
        """The machine goes down: silent, and all its containers end."""
        agent = self.agents[name]
        agent.power_off()
        if isinstance(agent.runtime, SimRuntime):
            agent.runtime.power_off()

    async def start_node(self, name: str) -> None:
        """A stopped node talks again."""
        agent = self.agents[name]
        if agent.silent:
            await agent.resume(lambda: self._pods.indexer.index(BY_NODE, name))

    def remove_node(self, name: str) -> None:
        """Forget a node; its Node object stays for whoever deletes it."""
        agent = self.agents.pop(name)
        agent.stop()
        self._node_addresses.release(agent.machine.ip)
        for subnets in self._subnets.values():
            try:
                subnets.release(agent.machine.pod_cidr)
            except OutOfRange:
                log.debug("pod range of node was not ours", node=name)

    def set_pressure(self, name: str, condition: str, under: bool, *, evict: bool = True) -> None:
        """Put a node under MemoryPressure, DiskPressure or PIDPressure, or relieve it."""
        self.agents[name].set_pressure(condition, under, evict=evict)

    # -- what the API says ----------------------------------------------------------------------------

    def _pod_changed(self, old: Json | None, new: Json | None) -> None:
        if old is not None and (new is None or old["metadata"]["uid"] != new["metadata"]["uid"]):
            agent = self._agent_of(old)
            if agent is not None:
                agent.pod_removed(old["metadata"]["uid"])
        if new is not None:
            agent = self._agent_of(new)
            if agent is not None:
                agent.pod_changed(new)

    def _agent_of(self, pod: Json) -> NodeAgent | None:
        name = (pod.get("spec") or {}).get("nodeName")
        return self.agents.get(name) if name else None

    def _node_changed(self, old: Json | None, new: Json | None) -> None:
        del old
        if new is not None:
            agent = self.agents.get(new["metadata"]["name"])
            if agent is not None:
                agent.node_changed(new)

    # -- what the API asks ----------------------------------------------------------------------------

    def logs(self, pod: Json, container: str, params: Mapping[str, str]) -> bytes:
        """The output of a container, for pods/log. Raises BadRequest while there is none, NotFound for other nodes."""
        name = (pod.get("spec") or {}).get("nodeName") or ""
        agent = self.agents.get(name)
        if agent is None or agent.silent:
            raise NotFound.of("", "nodes", name)
        worker = agent.workers.get(pod["metadata"]["uid"])
        status = worker.status if worker is not None else pod.get("status") or {}
        run = logs.container_id(pod, status, container, logs.wants_previous(params))
        return logs.render(agent.runtime.logs(run), params, self._clock.now())


def fleet_recorder(
    client: Client,
    name: str,
    clock: Clock,
    entropy: Entropy,
    turns: anyio.Semaphore,
    background: Background | None = None,
) -> EventRecorder:
    """The recorder of one node: component kubelet, host its name."""
    return EventRecorder(
        client,
        "kubelet",
        instance=name,
        clock=clock,
        entropy=entropy,
        linger_s=EVENT_LINGER_S,
        turns=turns,
        background=background,
    )


def recorders(
    client_for: Callable[[str], Client],
    clock: Clock,
    entropy: Entropy,
    background: Background | None = None,
) -> Callable[[str], EventRecorder]:
    """A `recorder_for` over the nodes' own clients. Few of them write at a time."""
    turns = anyio.Semaphore(EVENT_WRITERS)

    def recorder_for(name: str) -> EventRecorder:
        its = entropy.stream(f"events/{name}")
        return fleet_recorder(client_for(name), name, clock, its, turns, background)

    return recorder_for
