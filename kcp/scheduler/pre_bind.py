"""What must be in the log before a pod can be bound: its volumes, and its devices with their reservations.

    before = PreBind(tools, binding, plans)
    error = await before.run()          None: now the pod may be bound
    await before.undo()                 it is not bound after all

The pods of a gang are prepared together (`run_together`): all of them, before any of them is bound, or none. What was
written for a gang that comes to nothing is taken back as far as nobody acted on it.
Source: k8s v1.36 pkg/scheduler/framework/plugins/{volumebinding,dynamicresources} (PreBind).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
import attrs

from kcp.base.values import frozen
from kcp.client.client import Client
from kcp.client.transport import Unreachable
from kcp.machinery.errors import ApiError
from kcp.scheduler.binding import Binding, commit
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.dra.binding import ClaimsNotBound, PodClaimsBinder
from kcp.scheduler.plugins.volume_binding import Provision
from kcp.scheduler.volumes import VolumesNotBound, bind_volumes, release_volumes, unreserve
from kcp.scheduler.writes import EventWriter

Json = dict[str, Any]
VOLUMES, DEVICES = "VolumeBinding", "DynamicResources"
Failure = ApiError | Unreachable
Gang = Sequence[tuple[Binding, list[Provision]]]


@frozen
class Tools:
    """What the scheduler lends. `changed` is set when claims or volumes change; `now` is the time as objects have it."""

    client: Client
    state: ClusterState
    write_event: EventWriter
    changed: Callable[[], anyio.Event]
    now: Callable[[], str]
    volumes_timeout_s: Callable[[Json], float]
    created_claim: Callable[[str], None]
    """Counts claims that were to be created: success or failure."""


@attrs.define(eq=False)
class PreBind:
    """Of one pod. `latest` has claims as they were last written, shared by the pods of a gang."""

    tools: Tools
    binding: Binding
    plans: Sequence[Provision]
    latest: dict[str, Json] = attrs.field(factory=dict)
    devices: PodClaimsBinder = attrs.field(init=False)
    _written: dict[str, Json] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        tools, binding = self.tools, self.binding
        self.devices = PodClaimsBinder(
            tools.client, tools.state, binding.pod, binding.claims, binding.decision, tools.now, self.latest
        )

    async def run(self) -> Failure | None:
        """Why the pod cannot be bound, if it cannot."""
        return await self.volumes() or await self.claims() or await self.ready()

    async def volumes(self) -> Failure | None:
        return await self._step(VOLUMES, self._bind_volumes) if self.plans else None

    async def claims(self, *, sharing: bool | None = None) -> Failure | None:
        """`sharing`: only those claims that another pod of the gang allocates, or only the others."""
        if not self.binding.claims:
            return None
        error = await self._step(DEVICES, self.devices.bind, sharing)
        if not sharing and any(claim.mappings for claim in self.binding.claims):
            self.tools.created_claim("failure" if self.devices.made is None else "success")
        return error

    async def ready(self) -> Failure | None:
        return await self._step(DEVICES, self._wait_for_devices) if self.binding.claims else None

    async def _step(self, plugin: str, step: Callable[..., Any], *args: Any) -> Failure | None:
        try:
            await step(*args)
        except (VolumesNotBound, ClaimsNotBound, ApiError, Unreachable) as failure:
            return ApiError(f'running PreBind plugin "{plugin}": {failure}')
        return None

    async def _bind_volumes(self) -> None:
        tools, binding = self.tools, self.binding
        timeout_s = tools.volumes_timeout_s(binding.pod)
        await bind_volumes(
            tools.client, tools.state, self.plans, binding.node, binding.decision, tools.changed, timeout_s,
            self._written,
        )  # fmt: skip

    async def _wait_for_devices(self) -> None:
        if self.devices.waits:
            text = f"waiting for binding conditions for device on node {self.binding.node}"
            self.tools.write_event(
                self.binding.pod, "Normal", "BindingConditionsPending", text, "Scheduling", None
            )
            await self.devices.wait_until_ready(self.tools.changed)

    def over(self) -> None:
        """Nothing of this is under way any more."""
        unreserve(self.tools.state, self.plans)

    async def undo(self) -> None:
        await self.devices.undo()

    async def release(self) -> None:
        """Also what was written about volumes, for nobody waits for them."""
        binding = self.binding
        await release_volumes(
            self.tools.client, self.tools.state, self.plans, binding.node, binding.decision, self._written
        )
        await self.devices.undo()


async def run_together(members: Sequence[PreBind]) -> tuple[PreBind, Failure] | None:
    """Prepare all pods of a gang; the first that cannot be bound and why, with which all of it ends.

    A claim that several of them use is allocated by one, then reserved for the others.
    """
    failed = await _side_by_side(members, PreBind.volumes)
    for sharing in (False, True):
        for member in members:
            if failed is None and (error := await member.claims(sharing=sharing)) is not None:
                failed = member, error
    return failed or await _side_by_side(members, PreBind.ready)


async def _side_by_side(
    members: Sequence[PreBind], step: Callable[[PreBind], Any]
) -> tuple[PreBind, Failure] | None:
    failed: list[tuple[PreBind, Failure]] = []

    async def one(member: PreBind) -> None:
        error = await step(member)
        if error is not None:
            failed.append((member, error))
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for member in members:
            if member.plans or member.binding.claims:
                group.start_soon(one, member)
    return failed[0] if failed else None


async def bind_prepared(
    tools: Tools,
    binding: Binding,
    plans: Sequence[Provision],
    bind: Callable[[Binding], Awaitable[Failure | None]],
) -> Failure | None:
    """Prepare the pod, then `bind` it; why it is not bound, if it is not."""
    before = PreBind(tools, binding, plans)
    try:
        error = await before.run()
        if error is None:
            error = await bind(binding)
    finally:
        before.over()
    if error is not None:
        await before.undo()
    return error


async def bind_gang(tools: Tools, gang: Gang) -> list[Failure | None]:
    """Prepare all pods, then commit them together; what became of each."""
    latest: dict[str, Json] = {}
    members = [PreBind(tools, binding, plans, latest) for binding, plans in gang]
    bindings = [binding for binding, _ in gang]
    outcomes: list[Failure | None]
    try:
        failed = await run_together(members)
        outcomes = _blamed(bindings, failed) if failed else await commit(tools.client, bindings)
    finally:
        for member in members:
            member.over()
    for member, error in zip(members, outcomes, strict=True):
        if error is not None:
            await member.release()
    return outcomes


def _blamed(bindings: Sequence[Binding], failed: tuple[PreBind, Failure]) -> list[Failure | None]:
    """Why each pod of a gang is not bound, if one of them cannot be."""
    first, why = failed
    others = ApiError(f"failed to bind other pod from a pod group: {first.binding.queued.key}")
    return [why if binding is first.binding else others for binding in bindings]
