"""One pod on one node: a state machine that is stepped whenever something about the pod may have changed.

    new ── admitted ──▶ running ── deleted, over, evicted, too late ──▶ ending ── nothing runs ──▶ ended
     └──── rejected ─────────────────────────────────────────────────────────────────────────────▶ ended

A step does everything that can be done now, then writes one status. What has to wait sets the worker's one timer.
Source: k8s v1.36 pkg/kubelet/pod_workers.go, pkg/kubelet/kubelet.go (SyncPod, SyncTerminatingPod, SyncTerminatedPod),
pkg/kubelet/kuberuntime/kuberuntime_manager.go (SyncPod), kuberuntime_container.go (startContainer, killContainer).
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import attrs

from kcp.apis.semantics import pods
from kcp.machinery.times import format_go_duration, parse_time
from kcp.node import devices, environment, resize
from kcp.node.configure import configured
from kcp.node.container_status import Views, Waiting
from kcp.node.environment import ConfigError
from kcp.node.images import ImageError, Tell
from kcp.node.pod_probes import PodProbes, has_probes
from kcp.node.runtime.protocol import (
    ContainerConfig,
    ContainerStatus,
    HookOutcome,
    NotFound,
    NotYet,
    PodStatus,
    RuntimeFailure,
    SandboxConfig,
)
from kcp.node.status import TERMINAL, Condition, Facts, Verdict, generate, rejected
from kcp.node.status_writer import StatusCell, same_in_short
from kcp.node.sync_pod import Kill, PodActions, Start, compute, container_hash
from kcp.node.timers import Timer
from kcp.node.volumes.files import NotMounted

if TYPE_CHECKING:
    from kcp.node.agent import NodeAgent

Json = dict[str, Any]
State = Literal["new", "running", "ending", "ended"]

MAX_ROUNDS = 64
"""Rounds of one step; more means that the runtime and the spec never agree."""
RETRY_S = 10.0
MIN_GRACE_S = 2.0
DEADLINE = Verdict("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
_FIELD_PATHS = ("initContainers", "containers", "ephemeralContainers")


@attrs.define(slots=True, eq=False)
class PodWorker:
    """Owned by its agent; only the agent's work loop steps it."""

    agent: NodeAgent
    pod: Json
    cell: StatusCell
    status: Json
    state: State = "new"
    amounts: dict[str, int] = attrs.field(factory=dict)
    ports: tuple[tuple[str, str, int], ...] = ()
    holds_room: bool = False
    waiting: dict[str, Waiting] = attrs.field(factory=dict)
    held_until_s: dict[str, float] = attrs.field(factory=dict)
    allocated: dict[str, Json] = attrs.field(factory=dict)
    probes: PodProbes = attrs.field(factory=PodProbes)
    attempts: dict[str, int] = attrs.field(factory=dict)
    forced: set[str] = attrs.field(factory=set)
    resize_condition: Condition | None = None
    restarting_all: bool = False
    verdict: Verdict | None = None
    deleted: bool = False
    orphan: bool = False
    killing_since_s: float | None = None
    kill_grace_s: float | None = None
    stopping: dict[str, float] = attrs.field(factory=dict)
    wake: Timer | None = None
    queued: bool = False
    busy: bool = False
    again: bool = False

    @property
    def uid(self) -> str:
        return self.cell.uid

    # -- what happens to the pod ----------------------------------------------------------------------

    def update(self, pod: Json) -> None:
        """The API has another version of the pod."""
        before, self.pod = self.pod, pod
        seen = pod.get("status") or {}
        if not self.cell.busy and self.cell.wanted is None:
            self.cell.seen, self.cell.seen_rv = seen, pod["metadata"].get("resourceVersion", "")
            if self.status.get("conditions") and not same_in_short(self.status, seen):
                self.cell.put(self.status)
        deleting = bool(pod["metadata"].get("deletionTimestamp"))
        if self.state == "ended":
            if deleting:
                self.cell.delete()
            return
        if (deleting and not self.deleted) or pod["spec"].get("readinessGates") or _wants_else(before, pod):
            self.requeue()

    def orphaned(self) -> None:
        """The API object is gone: stop everything, tell nobody."""
        self.orphan = True
        self.cell.gone = True
        self.requeue()

    def evict(self, verdict: Verdict, grace_s: float) -> None:
        """End the pod for the node's reasons."""
        if self.state in ("new", "running") and self.verdict is None:
            self.verdict, self.kill_grace_s = verdict, grace_s
            self.requeue()

    def requeue(self) -> None:
        self.agent.services.pod_loop.add(self)

    def wake_at(self, due_s: float) -> None:
        """Step again at that time; the earliest wish wins."""
        if self.wake is not None and self.wake.pending:
            if self.wake.due_s <= due_s:
                return
            self.wake.cancel()
        self.wake = self.agent.services.timers.at(due_s, self.requeue)

    # -- one step -------------------------------------------------------------------------------------

    async def step(self) -> None:
        if self.agent.silent:
            return
        if self.wake is not None:
            self.wake.cancel()
            self.wake = None
        self.deleted = self.deleted or bool(self.pod["metadata"].get("deletionTimestamp"))
        try:
            await self._advance()
        except Exception:
            self.wake_at(self.agent.monotonic() + RETRY_S)
            raise

    async def _advance(self) -> None:
        if self.orphan:
            self.state = "ending"
        elif self.state == "new":
            await self._begin()
        if self.state == "running":
            await self._run()
        if self.state == "ending":
            await self._wind_up()

    async def _begin(self) -> None:
        """Take up or admit the pod."""
        pod, agent = self.pod, self.agent
        if self.status.get("phase") in TERMINAL:
            self._end()
            if self.deleted:
                self.cell.delete()
            return
        if self.status.get("startTime"):
            await agent.runtime.restore(pod)
            self._restore_allocations()
        self.amounts = pods.amounts(pods.requests(pod))
        self.ports = tuple(pods.host_ports(pod))
        known = await agent.runtime.pod_status(self.uid)
        if not known.sandboxes and not self.deleted:
            refusal = agent.admit(pod, self.amounts, self.ports)
            if refusal is not None:
                self.event("Warning", refusal.reason, refusal.message)
                self.status = rejected(pod, refusal.reason, refusal.message, agent.now())
                self.cell.put(self.status)
                self._end()
                return
        agent.room.take(self.amounts, self.ports)
        self.holds_room = True
        self.state = "running"

    def _restore_allocations(self) -> None:
        for field in ("initContainerStatuses", "containerStatuses"):
            for entry in self.status.get(field) or ():
                if "resources" in entry:
                    self.allocated[entry["name"]] = entry["resources"]
                self.attempts[entry["name"]] = entry.get("restartCount") or 0

    def _end(self) -> None:
        self.state = "ended"
        if self.holds_room:
            self.holds_room = False
            self.agent.room.give_back(self.amounts, self.ports)
            self.agent.room_freed()

    async def _run(self) -> None:
        if self.deleted or self._too_late() or self.verdict is not None:
            self.state = "ending"
            return
        status = await self.agent.runtime.pod_status(self.uid)
        status = await self._probe(status)
        for _ in range(MAX_ROUNDS):
            actions = compute(self.pod, status, self.probes.health(self.stopping, self.forced))
            if actions.nothing:
                break
            if actions.over:
                self.state = "ending"
                return
            went_on = await self._execute(actions, status)
            status = await self._probe(await self.agent.runtime.pod_status(self.uid))
            if not went_on:
                break
        if self.allocated:
            status = await self._resize(status)
        self._publish(status)

    def _too_late(self) -> bool:
        """Whether activeDeadlineSeconds are over; arranges to be woken when they will be."""
        limit = self.pod["spec"].get("activeDeadlineSeconds")
        began = self.status.get("startTime")
        if limit is None or self.verdict is not None:
            return False
        left_s = float(limit)
        if began:
            left_s -= (self.agent.services.clock.now() - parse_time(began)) / timedelta(seconds=1)
        if left_s > 0:
            self.wake_at(self.agent.monotonic() + left_s)
            return False
        self.verdict = DEADLINE
        self.event("Normal", DEADLINE.reason, DEADLINE.message)
        return True

    async def _probe(self, status: PodStatus) -> PodStatus:
        """Ask the probes that are due; the status as it was."""
        if has_probes(self.pod):
            clock = self.agent.services.clock
            due_s = await self.probes.ask(
                self.pod, status, self.agent.runtime, clock.now(), clock.monotonic(), self._tell_unhealthy
            )
            if due_s is not None:
                self.wake_at(due_s)
        return status

    def _tell_unhealthy(self, container: str, message: str) -> None:
        self.event("Warning", "Unhealthy", message, container)

    # -- actions --------------------------------------------------------------------------------------

    async def _execute(self, actions: PodActions, status: PodStatus) -> bool:
        """Do what was worked out; whether that changed anything, so that there may be more to do."""
        if actions.restart_all:
            return await self._restart_all(status)
        went_on = False
        for kill in actions.kill:
            went_on = await self._kill_unfit(kill) or went_on
        if actions.make_sandbox and not await self._make_sandbox(actions.sandbox_attempt, status):
            return False
        if actions.start:
            current = await self.agent.runtime.pod_status(self.uid) if actions.make_sandbox else status
            for start in actions.start:
                went_on = await self._start(start, current) or went_on
        return went_on

    async def _make_sandbox(self, attempt: int, status: PodStatus) -> bool:
        if self.pod["spec"].get("resourceClaims") and not await devices.ready(self):
            return False
        if status.sandboxes:
            self.event("Normal", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
            await self.agent.runtime.stop_pod_sandbox(status.sandboxes[0].id)
        try:
            await self.agent.runtime.run_pod_sandbox(SandboxConfig(self.pod, attempt))
        except NotYet as later:
            self.wake_at(self.agent.monotonic() + later.after_s)
            return False
        except RuntimeFailure as error:
            text = f"Failed to create pod sandbox: {error.message}"
            self.event("Warning", "FailedCreatePodSandBox", text)
            self.wake_at(self.agent.monotonic() + RETRY_S)
            return False
        return True

    async def _start(self, start: Start, status: PodStatus) -> bool:
        """Image, create, start, postStart of one container; whether it was started."""
        container, name = start.container, start.container["name"]
        before = status.latest(name)
        if before is not None and start.field != "ephemeralContainers" and self._backs_off(container, before):
            return False
        if self._is_held(container):
            return False
        tell = self._teller(start.field, name)
        try:
            image = await self.agent.images.ensure(self.pod, start.field, container, tell)
            sandbox = status.sandbox
            if sandbox is None:
                return False
            attempt = before.attempt + 1 if before is not None else self.attempts.get(name, 0)
            config = await configured(self, start, image, attempt, sandbox.ips)
            return await self._create(sandbox.id, config, tell)
        except ImageError as error:
            self._hold(container, error.waiting, error.retry_s)
        except ConfigError as error:
            tell("Warning", "Failed", f"Error: {error}")
            self._hold(container, Waiting(environment.REASON, str(error)), RETRY_S)
        except NotMounted as error:
            self.event("Warning", "FailedMount", str(error))
            self._hold(container, Waiting("ContainerCreating", ""), RETRY_S)
        except NotYet as later:
            self.wake_at(self.agent.monotonic() + later.after_s)
        return False

    def _hold(self, container: Json, waiting: Waiting, retry_s: float) -> None:
        """The container has to wait, and is not tried again before that time."""
        until_s = self.agent.monotonic() + retry_s
        self.waiting[container["name"]] = waiting
        self.held_until_s[container_hash(container)] = until_s
        self.wake_at(until_s)

    def _is_held(self, container: Json) -> bool:
        until_s = self.held_until_s.get(container_hash(container))
        if until_s is None:
            return False
        if until_s > self.agent.monotonic():
            self.wake_at(until_s)
            return True
        del self.held_until_s[container_hash(container)]
        return False

    async def _create(self, sandbox_id: str, config: ContainerConfig, tell: Tell) -> bool:
        name, runtime = config.container["name"], self.agent.runtime
        reason = "CreateContainerError"
        try:
            container_id = await runtime.create_container(sandbox_id, config)
            tell("Normal", "Created", "Container created")
            reason = "RunContainerError"
            await runtime.start_container(container_id)
        except RuntimeFailure as error:
            tell("Warning", "Failed", f"Error: {error.message}")
            self._hold(config.container, Waiting(error.reason or reason, error.message), RETRY_S)
            return False
        tell("Normal", "Started", "Container started")
        self.waiting.pop(name, None)
        self.forced.discard(name)
        self.attempts[name] = config.attempt
        hook = (config.container.get("lifecycle") or {}).get("postStart")
        return True if hook is None else await self._post_start(container_id, hook, name, tell)

    async def _post_start(self, container_id: str, hook: Json, name: str, tell: Tell) -> bool:
        try:
            outcome = await self.agent.runtime.run_hook(container_id, hook)
        except NotFound:
            outcome = HookOutcome()
        if not outcome.error:
            return True
        tell("Warning", "FailedPostStartHook", "PostStartHook failed")
        tell("Normal", "Killing", "FailedPostStartHook")
        self.waiting[name] = Waiting("PostStartHookError", "PostStartHook failed")
        await self.agent.runtime.stop_container(container_id, self._own_grace_s())
        return True

    def _backs_off(self, container: Json, before: ContainerStatus) -> bool:
        """Whether a container that ended has to wait; counts the start when it does not."""
        name, agent = container["name"], self.agent
        key = f"{self.uid}/{name}/{container_hash(container)}"
        ended_s = agent.monotonic()
        if before.finished_at is not None:
            ended_s -= (agent.services.clock.now() - before.finished_at) / timedelta(seconds=1)
        left_s = agent.crash_backoff.remaining_s(key, ended_s)
        if left_s <= 0:
            agent.crash_backoff.failed(key)
            return False
        self.wake_at(agent.monotonic() + left_s)
        delay = format_go_duration(agent.crash_backoff.delay_s(key))
        metadata = self.pod["metadata"]
        where = f"{metadata['name']}_{metadata['namespace']}({self.uid})"
        text = f"Back-off restarting failed container {name} in pod {where}"
        known = self.waiting.get(name)
        message = f"back-off {delay} restarting failed container={name} pod={where}"
        if known is None or known.message != message:
            self.event("Warning", "BackOff", text, name)
        self.waiting[name] = Waiting("CrashLoopBackOff", message)
        return True

    async def _kill_unfit(self, kill: Kill) -> bool:
        status = kill.status
        if status.id in self.stopping:
            return False
        self.event("Normal", "Killing", kill.message, status.name)
        grace_s = self._own_grace_s() if kill.probe_grace_s is None else float(kill.probe_grace_s)
        if "definition changed" in kill.message:
            self.forced.add(status.name)
        self.stopping[status.id] = self.agent.monotonic()
        await self.agent.runtime.stop_container(status.id, grace_s)
        return True

    async def _restart_all(self, status: PodStatus) -> bool:
        """Kill what runs; once nothing does, forget all containers and so begin with the first init container."""
        self.restarting_all = True
        for each in status.running():
            if each.id not in self.stopping:
                self.event("Normal", "Killing", f"Stopping container {each.name}", each.name)
                self.stopping[each.id] = self.agent.monotonic()
                await self.agent.runtime.stop_container(each.id, self._own_grace_s())
        now = await self.agent.runtime.pod_status(self.uid)
        if now.running():
            return False
        for each in now.containers:
            self.attempts[each.name] = max(self.attempts.get(each.name, 0), each.attempt + 1)
            await self.agent.runtime.remove_container(each.id)
        self.restarting_all = False
        return True

    # -- resize ---------------------------------------------------------------------------------------

    async def _resize(self, status: PodStatus) -> PodStatus:
        """Bring new resources to the containers, if the node has room."""
        containers = resize.changed(self.pod, self.allocated)
        if not containers:
            self.resize_condition = None
            return status
        wanted = pods.amounts(pods.requests({"spec": self.pod["spec"], "metadata": {}}))
        refusal = resize.refused(self.agent.room, wanted, self.amounts)
        if refusal is not None:
            if refusal != self.resize_condition:
                text = resize.message(self.pod, f"Pod resize {refusal.reason}")
                self.event("Warning", f"Resize{refusal.reason}", text)
            self.resize_condition = refusal
            return status
        self.resize_condition = None
        self.agent.room.give_back(self.amounts, self.ports)
        self.amounts = wanted
        self.agent.room.take(self.amounts, self.ports)
        self.event("Normal", "ResizeStarted", resize.message(self.pod, "Pod resize started"))
        for container in containers:
            await self._resize_one(container, status)
        self.event("Normal", "ResizeCompleted", resize.message(self.pod, "Pod resize completed"))
        return await self.agent.runtime.pod_status(self.uid)

    async def _resize_one(self, container: Json, status: PodStatus) -> None:
        name = container["name"]
        before, self.allocated[name] = self.allocated[name], container.get("resources") or {}
        running = status.latest(name)
        if running is None or running.state != "running":
            return
        if resize.needs_restart(container, before):
            self.event("Normal", "Killing", f"Container {name} resize requires restart", name)
            self.forced.add(name)
            await self.agent.runtime.stop_container(running.id, self._own_grace_s())
            self.requeue()
        else:
            await self.agent.runtime.update_container_resources(running.id, self.allocated[name])

    # -- the end --------------------------------------------------------------------------------------

    def _own_grace_s(self) -> float:
        return float(pods.grace_period_s(self.pod))

    def _grace_s(self) -> float:
        """How long containers may go on from when the pod's end began."""
        if self.orphan:
            return 0.0
        if self.deleted:
            given = self.pod["metadata"].get("deletionGracePeriodSeconds")
            return self._own_grace_s() if given is None else float(given)
        return self._own_grace_s() if self.kill_grace_s is None else self.kill_grace_s

    async def _wind_up(self) -> None:
        runtime = self.agent.runtime
        status = await runtime.pod_status(self.uid)
        if status.running():
            await self._kill(status)
            status = await runtime.pod_status(self.uid)
            while status.running() and self._next_to_kill(status, fresh_only=True):
                await self._kill(status)
                status = await runtime.pod_status(self.uid)
        if status.running():
            self._publish(status)
            return
        if status.sandbox is not None:
            await runtime.stop_pod_sandbox(status.sandbox.id)
            status = await runtime.pod_status(self.uid)
        self._publish(status, ended=True)
        self._end()
        if self.orphan:
            await self.agent.forget(self)
        elif self.deleted:
            self.cell.delete()

    def _next_to_kill(self, status: PodStatus, fresh_only: bool = False) -> list[ContainerStatus]:
        """All but sidecars at first, then the sidecars one by one, the last first."""
        sidecars = [c["name"] for c in pods.init_containers(self.pod) if pods.is_sidecar(c)]
        running = status.running()
        wanted = [each for each in running if each.name not in sidecars]
        if not wanted:
            for name in reversed(sidecars):
                wanted = [each for each in running if each.name == name]
                if wanted:
                    break
        return [each for each in wanted if not (fresh_only and each.id in self.stopping)]

    async def _kill(self, status: PodStatus) -> None:
        now_s = self.agent.monotonic()
        if self.killing_since_s is None:
            self.killing_since_s = now_s
        left_s = max(0.0, self.killing_since_s + self._grace_s() - now_s)
        specs = {c["name"]: c for field in _FIELD_PATHS for c in self.pod["spec"].get(field) or ()}
        for each in self._next_to_kill(status):
            until_s = self.stopping.get(each.id)
            if until_s is None:
                self.event("Normal", "Killing", f"Stopping container {each.name}", each.name)
                until_s = now_s + min(await self._pre_stop(each, specs.get(each.name), left_s), left_s)
                self.stopping[each.id] = until_s
            if until_s > now_s and left_s > 0:
                self.wake_at(until_s)
                continue
            grace_s = max(left_s, MIN_GRACE_S) if self._grace_s() > 0 else 0.0
            await self.agent.runtime.stop_container(each.id, grace_s)

    async def _pre_stop(self, status: ContainerStatus, container: Json | None, left_s: float) -> float:
        """Start the preStop hook; seconds that it takes."""
        hook = ((container or {}).get("lifecycle") or {}).get("preStop")
        if hook is None or left_s <= 0 or status.state != "running":
            return 0.0
        try:
            outcome = await self.agent.runtime.run_hook(status.id, hook)
        except NotFound:
            return 0.0
        if outcome.error:
            self.event("Warning", "FailedPreStopHook", "PreStopHook failed", status.name)
        return outcome.takes_s

    # -- telling --------------------------------------------------------------------------------------

    def _publish(self, status: PodStatus, *, ended: bool = False) -> None:
        """Work out the pod's status and hand it to the writer."""
        if self.stopping:
            alive = {each.id for each in status.running()}
            self.stopping = {cid: since for cid, since in self.stopping.items() if cid in alive}
        if self.orphan:
            return
        facts = Facts(
            now=self.agent.now(),
            host_ip=self.agent.host_ip,
            views=Views(
                self.agent.runtime.scheme,
                self.waiting,
                self.probes.started,
                self.probes.ready,
                {name: given["requests"] for name, given in self.allocated.items() if given.get("requests")},
            ),
            before=self.status,
            ended=ended and (self.deleted or self.verdict is not None),
            verdict=self.verdict,
            conditions=self._extra_conditions(),
        )
        self.status = generate(self.pod, status, facts)
        self.cell.put(self.status)

    def _extra_conditions(self) -> list[Condition]:
        found = [self.resize_condition] if self.resize_condition is not None else []
        if self.restarting_all:
            text = "container exited with restart policy rule"
            found.append(Condition("AllContainersRestarting", "True", "RestartAllContainersStarted", text))
        return found

    def event(self, type: str, reason: str, message: str, container: str = "") -> None:
        field = next(
            (f for f in _FIELD_PATHS if any(c["name"] == container for c in self.pod["spec"].get(f) or ())),
            "",
        )
        self._tell(field, container, type, reason, message)

    def _teller(self, field: str, container: str) -> Tell:
        return lambda type, reason, message: self._tell(field, container, type, reason, message)

    def _tell(self, field: str, container: str, type: str, reason: str, message: str) -> None:
        metadata = self.pod["metadata"]
        reference = {
            "kind": "Pod",
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "apiVersion": "v1",
            "resourceVersion": metadata.get("resourceVersion", ""),
        }
        if field:
            reference["fieldPath"] = f"spec.{field}{{{container}}}"
        self.agent.recorder.event(reference, type, reason, message)


def _wants_else(before: Json, after: Json) -> bool:
    """Whether the spec or the grace period changed."""
    old, new = before["metadata"], after["metadata"]
    if old.get("generation") != new.get("generation"):
        return True
    if old.get("deletionGracePeriodSeconds") != new.get("deletionGracePeriodSeconds"):
        return True
    return before["spec"] is not after["spec"] and bool(before["spec"] != after["spec"])
