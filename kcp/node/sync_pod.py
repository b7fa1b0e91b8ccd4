"""What to do for one pod, worked out from its spec and what the runtime says. Pure; the pod worker executes it.

    no sandbox                    make one, start the first init container, or all containers
    init containers               one after the other; a sidecar lets the next one start once it has started itself
    a container ended             start it again if its policy or rules say so (the worker adds the back-off)
    unhealthy, changed            kill it; the next round sees it ended
    nothing runs, nothing starts  the pod is over

Source: k8s v1.36 pkg/kubelet/kuberuntime/kuberuntime_manager.go (computePodActions, computeInitContainerActions).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from kcp.apis.semantics.pods import containers, init_containers, is_sidecar, restart_policy
from kcp.base.values import frozen
from kcp.node.restart import after_exit
from kcp.node.runtime.protocol import ContainerStatus, PodStatus, by_name

Json = dict[str, Any]


@frozen
class Start:
    """Start a container of the list `field` of the spec."""

    field: str
    container: Json


@frozen
class Kill:
    """Kill a running container; `message` is what its Killing event says."""

    status: ContainerStatus
    message: str
    probe_grace_s: int | None = None


@attrs.define(slots=True)
class PodActions:
    """`over`: nothing runs and nothing will, the pod is to be wound up. `restart_all`: kill all, then begin anew."""

    make_sandbox: bool = False
    sandbox_attempt: int = 0
    start: list[Start] = attrs.field(factory=list)
    kill: list[Kill] = attrs.field(factory=list)
    over: bool = False
    restart_all: bool = False

    @property
    def nothing(self) -> bool:
        return not (self.make_sandbox or self.start or self.kill or self.over or self.restart_all)


@frozen
class Health:
    """What probes found, by container id. `killed`: why and within which grace; `not_started`: startup not passed.

    `forced` names containers that start again whatever their policy says.
    """

    killed: Mapping[str, tuple[str, int | None]] = {}
    not_started: frozenset[str] = frozenset()
    forced: frozenset[str] = frozenset()


HEALTHY = Health()


def container_hash(container: Json) -> str:
    """Identifies a definition: a container whose hash changed is made anew. Resources may change in place."""
    return f"{container['name']}|{container.get('image', '')}"


def compute(pod: Json, status: PodStatus, health: Health = HEALTHY) -> PodActions:
    """The next actions; `nothing` when all is as it should be."""
    actions = PodActions()
    known = by_name(status.containers)
    if status.sandbox is None:
        return _without_sandbox(actions, pod, status, known)
    for container in (pod.get("spec") or {}).get("ephemeralContainers") or ():
        if container["name"] not in known:
            actions.start.append(Start("ephemeralContainers", container))
    if _wants_restart_all(pod, known):
        actions.restart_all = True
        return actions
    if not _init(actions, pod, known, health):
        return actions
    _regular(actions, pod, known, health)
    return actions


def _without_sandbox(
    actions: PodActions, pod: Json, status: PodStatus, known: Mapping[str, ContainerStatus]
) -> PodActions:
    """A new sandbox, unless everything that would run in it is done."""
    if status.sandboxes and known and restart_policy(pod) == "Never":
        actions.over = True
        return actions
    left = [c for c in containers(pod) if not _is_done(pod, "containers", c, known.get(c["name"]))]
    if not left:
        actions.over = True
        return actions
    actions.make_sandbox = True
    actions.sandbox_attempt = status.sandboxes[0].attempt + 1 if status.sandboxes else 0
    inits = init_containers(pod)
    if inits:
        actions.start.append(Start("initContainers", inits[0]))
    else:
        actions.start += [Start("containers", container) for container in left]
    return actions


def _is_done(pod: Json, field: str, container: Json, status: ContainerStatus | None) -> bool:
    return (
        status is not None
        and status.state == "exited"
        and after_exit(pod, field, container, status.exit_code) == "stay"
    )


def _wants_restart_all(pod: Json, known: Mapping[str, ContainerStatus]) -> bool:
    for field in ("initContainers", "containers"):
        for container in (pod.get("spec") or {}).get(field) or ():
            status = known.get(container["name"])
            if (
                container.get("restartPolicyRules")
                and status is not None
                and status.state == "exited"
                and after_exit(pod, field, container, status.exit_code) == "restart all"
            ):
                return True
    return False


def _init(actions: PodActions, pod: Json, known: Mapping[str, ContainerStatus], health: Health) -> bool:
    """Bring the init containers on; whether regular containers may run."""
    inits = init_containers(pod)
    if not inits:
        return True
    initialized = any(container["name"] in known for container in containers(pod))
    for container in inits:
        status = known.get(container["name"])
        if is_sidecar(container):
            held = _sidecar(actions, container, status, health)
            if held and not initialized:
                return False
        elif not initialized and not _init_done(actions, pod, container, status):
            return False
    return True


def _sidecar(actions: PodActions, container: Json, status: ContainerStatus | None, health: Health) -> bool:
    """Keep a sidecar running; whether the next container still has to wait for it."""
    if status is None or status.state == "exited":
        actions.start.append(Start("initContainers", container))
        return True
    if status.state == "running" and _kill_unfit(actions, container, status, health):
        return True
    return status.state != "running" or status.id in health.not_started


def _init_done(actions: PodActions, pod: Json, container: Json, status: ContainerStatus | None) -> bool:
    if status is None:
        actions.start.append(Start("initContainers", container))
        return False
    if status.state != "exited":
        return False
    if status.exit_code == 0:
        return True
    if after_exit(pod, "initContainers", container, status.exit_code) == "stay":
        actions.over = True
    else:
        actions.start.append(Start("initContainers", container))
    return False


def _regular(actions: PodActions, pod: Json, known: Mapping[str, ContainerStatus], health: Health) -> None:
    keep = 0
    for container in containers(pod):
        status = known.get(container["name"])
        if status is not None and status.state != "exited":
            if status.state == "running":
                _kill_unfit(actions, container, status, health)
            keep += 1
        elif container["name"] in health.forced or not _is_done(pod, "containers", container, status):
            actions.start.append(Start("containers", container))
            keep += 1
    if not keep:
        actions.start, actions.kill, actions.over = [], [], True


def _kill_unfit(actions: PodActions, container: Json, status: ContainerStatus, health: Health) -> bool:
    """Kill a running container that is not what the spec says or failed its probes."""
    name = container["name"]
    if status.hash and status.hash != container_hash(container):
        actions.kill.append(Kill(status, f"Container {name} definition changed, will be restarted"))
        return True
    unfit = health.killed.get(status.id)
    if unfit is None:
        return False
    actions.kill.append(Kill(status, unfit[0], unfit[1]))
    return True
