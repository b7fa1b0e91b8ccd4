"""A runtime without containers: they are states on a clock, and a node costs what its dictionaries cost.

A container does what `program` says its command would do and what `faults` adds. What is not known runs for ever,
except where the pod could then never get on: an init container ends at once, a container of a Job after a second.
Images are on the node once they were pulled; pulls of `*.invalid` and `invalid.*` registries fail as with no DNS.
Nothing is kept over a restart of the process: `restore` takes a pod's containers up again from its status.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import attrs

from kcp.base.clock import Clock
from kcp.base.entropy import Entropy
from kcp.base.ipam import AlreadyAllocated, OutOfRange, RangeFull
from kcp.machinery import meta
from kcp.machinery.times import parse_time
from kcp.node.addresses import AddressPool
from kcp.node.environment import expand
from kcp.node.runtime import faults, program
from kcp.node.runtime.protocol import (
    ContainerConfig,
    ContainerState,
    ContainerStatus,
    ExecResult,
    HookOutcome,
    Image,
    LogLine,
    NotFound,
    NotYet,
    PodStatus,
    ProbeKind,
    ProbeOutcome,
    RuntimeCaps,
    RuntimeFailure,
    SandboxConfig,
    SandboxStatus,
    Sink,
    Version,
)
from kcp.node.timers import Timer, Timers
from kcp.node.volumes import shared

Json = dict[str, Any]
SCHEME = "sim"
JOB_RUN_S = 1.0
TERMINATED_BY_TERM, TERMINATED_BY_KILL = 143, 137
Programs = Callable[[ContainerConfig], program.Program]
"""Decides what a container does; where stages of another simulator can be put in."""
MAX_MESSAGE, MAX_LOG_MESSAGE, MAX_MESSAGE_LINES = 4096, 2048, 80
MAX_DEAD = 2
"""Dead containers kept per name: the last one is what lastState and `logs --previous` tell of."""


@attrs.define(slots=True, eq=False)
class SimContainer:
    id: str
    config: ContainerConfig
    created_at: datetime
    state: ContainerState = "created"
    started_at: datetime | None = None
    started_s: float = 0.0
    finished_at: datetime | None = None
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    resources: Json | None = None
    output: tuple[str, ...] = ()
    handles_term: bool = False
    ending: Timer | None = None
    killed_at_s: float = float("inf")

    def status(self) -> ContainerStatus:
        config = self.config
        return ContainerStatus(
            self.id,
            config.container["name"],
            self.state,
            config.image.name,
            config.image.ref,
            config.attempt,
            config.hash,
            self.created_at,
            self.started_at,
            self.finished_at,
            self.exit_code,
            self.reason,
            self.message,
            self.resources,
        )


@attrs.define(slots=True, eq=False)
class SimPod:
    uid: str
    faults: faults.Faults | None
    sandboxes: list[SandboxStatus] = attrs.field(factory=list)
    containers: list[SimContainer] = attrs.field(factory=list)
    contents: shared.Contents = attrs.field(factory=dict)


@lru_cache(maxsize=4096)
def image_of(name: str) -> Image:
    """What a pull of that name brings: a digest and a size that follow from the name."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    repository = name.partition("@")[0]
    head, slash, tail = repository.rpartition("/")
    repository = f"{head}{slash}{tail.partition(':')[0]}"
    return Image(name, f"{repository}@sha256:{digest}", 1_000_000 + int(digest[:7], 16))


@lru_cache(maxsize=4096)
def unreachable_registry(name: str) -> str:
    """Why an image cannot be pulled; empty when it can."""
    registry = name.partition("/")[0] if "/" in name else ""
    host = registry.partition(":")[0]
    if host != "invalid" and not host.startswith("invalid.") and not host.endswith(".invalid"):
        return ""
    repository, _, tag = name[len(registry) + 1 :].rpartition(":")
    url = f"https://{registry}/v2/{repository or tag}/manifests/{tag if repository else 'latest'}"
    return (
        f'failed to pull and unpack image "{name}": failed to resolve reference "{name}": failed to do request:'
        f' Head "{url}": dial tcp: lookup {host}: no such host'
    )


def default_program(config: ContainerConfig) -> program.Program:
    """What the container's command does; a guess that lets its pod get on where it is not known."""
    container = config.container
    words = (*(container.get("command") or ()), *(container.get("args") or ()))
    variables = config.environment if config.environment is not None else _environment(config)
    argv = tuple(expand(word, variables) for word in words)
    does = program.interpret(argv, variables, config.files)
    if does.known or does.runs_s is not None:
        return does
    if config.field == "initContainers" and container.get("restartPolicy") != "Always":
        return attrs.evolve(does, runs_s=0.0)
    owner = meta.controller_of(config.pod)
    if owner is not None and owner.get("kind") == "Job" and config.field == "containers":
        return attrs.evolve(does, runs_s=JOB_RUN_S)
    return does


def termination_message(container: Json, does: program.Program) -> str:
    """What a container that came to its end leaves behind: its message file, else the end of its log if it asks so.

    Source: k8s v1.36 pkg/kubelet/kuberuntime/kuberuntime_container.go (getTerminationMessage).
    """
    path = container.get("terminationMessagePath") or "/dev/termination-log"
    written = dict(does.files).get(path, "")[:MAX_MESSAGE]
    asks = container.get("terminationMessagePolicy") == "FallbackToLogsOnError"
    if written or does.exit_code == 0 or not asks or not does.output:
        return written
    text = "\n".join(does.output[-MAX_MESSAGE_LINES:]) + ("" if does.open_line else "\n")
    return text[-MAX_LOG_MESSAGE:]


def _environment(config: ContainerConfig) -> dict[str, str]:
    """Variables with a plain value, or with one from the pod's own metadata."""
    metadata, found = config.pod["metadata"], {}
    for variable in config.container.get("env") or ():
        value = variable.get("value", "")
        path = ((variable.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath", "")
        field, _, key = path.removeprefix("metadata.").partition("[")
        if key:
            value = (metadata.get(field) or {}).get(key.strip("]'\""), "")
        elif path.startswith("metadata."):
            value = str(metadata.get(field) or "")
        found[variable["name"]] = value
    return found


class SimRuntime:
    """The runtime of one node. Everything happens in the step of the caller or of the timers."""

    def __init__(
        self,
        *,
        host_ip: str,
        addresses: AddressPool,
        timers: Timers,
        clock: Clock,
        entropy: Entropy,
        programs: Programs | None = None,
    ) -> None:
        self.scheme = SCHEME
        self.caps = RuntimeCaps(instant=True, remembers=False, deterministic=True)
        self._host_ip = host_ip
        self._addresses = addresses
        self._timers = timers
        self._clock = clock
        self._entropy = entropy
        self._programs = programs or default_program
        self._pods: dict[str, SimPod] = {}
        self._sandbox_pods: dict[str, SimPod] = {}
        self._containers: dict[str, tuple[SimPod, SimContainer]] = {}
        self._images: dict[str, Image] = {}
        self._under_way: dict[str, float] = {}
        self._sinks: list[Sink] = []

    async def version(self) -> Version:
        return Version("kcp-sim", "1.0.0")

    def subscribe(self, sink: Sink) -> None:
        self._sinks.append(sink)

    def _changed(self, pod: SimPod) -> None:
        for sink in self._sinks:
            sink(pod.uid)

    def _pod(self, document: Json) -> SimPod:
        uid = document["metadata"]["uid"]
        pod = self._pods.get(uid)
        if pod is None:
            pod = SimPod(uid, faults.faults_of(document["metadata"].get("annotations")))
            self._pods[uid] = pod
        return pod

    # -- sandboxes ------------------------------------------------------------------------------------

    async def run_pod_sandbox(self, config: SandboxConfig) -> str:
        pod = self._pod(config.pod)
        if pod.faults is not None:
            self._trouble(pod, "sandbox", "", "rpc error: code = Unknown desc = simulated sandbox failure")
        if (config.pod.get("spec") or {}).get("hostNetwork"):
            ip = self._host_ip
        else:
            try:
                ip = self._addresses.take()
            except RangeFull:
                raise RuntimeFailure(
                    "failed to set up network for sandbox: no IP addresses available"
                ) from None
        return self._add_sandbox(pod, config.attempt, ip, self._clock.now())

    def _add_sandbox(self, pod: SimPod, attempt: int, ip: str, at: datetime) -> str:
        sandbox = SandboxStatus(self._entropy.token_bytes(32).hex(), attempt, True, (ip,), at)
        pod.sandboxes.insert(0, sandbox)
        self._sandbox_pods[sandbox.id] = pod
        return sandbox.id

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        pod = self._sandbox_pods.get(sandbox_id)
        if pod is None:
            return
        for i, sandbox in enumerate(pod.sandboxes):
            if sandbox.id == sandbox_id and sandbox.ready:
                pod.sandboxes[i] = attrs.evolve(sandbox, ready=False)
                self._release(sandbox)
        for container in pod.containers:
            if container.state != "exited":
                self._exit(container, TERMINATED_BY_KILL, "Error")

    def _release(self, sandbox: SandboxStatus) -> None:
        for ip in sandbox.ips:
            if ip != self._host_ip:
                self._addresses.release(ip)

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        await self.stop_pod_sandbox(sandbox_id)
        pod = self._sandbox_pods.pop(sandbox_id, None)
        if pod is None:
            return
        pod.sandboxes = [sandbox for sandbox in pod.sandboxes if sandbox.id != sandbox_id]
        if not pod.sandboxes:
            for container in pod.containers:
                self._containers.pop(container.id, None)
            self._pods.pop(pod.uid, None)
            for key in [key for key in self._under_way if key.startswith(pod.uid)]:
                del self._under_way[key]

    async def pod_status(self, uid: str) -> PodStatus:
        pod = self._pods.get(uid)
        if pod is None:
            return PodStatus(uid)
        return PodStatus(uid, tuple(pod.sandboxes), tuple([each.status() for each in pod.containers]))

    async def pod_uids(self) -> Sequence[str]:
        return list(self._pods)

    # -- containers -----------------------------------------------------------------------------------

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        pod = self._sandbox_pods.get(sandbox_id)
        if pod is None:
            raise NotFound(f'an error occurred when try to find sandbox "{sandbox_id}": not found')
        container = SimContainer(self._entropy.token_bytes(32).hex(), config, self._clock.now())
        container.resources = config.container.get("resources")
        pod.containers.insert(0, container)
        self._containers[container.id] = (pod, container)
        self._forget_dead(pod, config.container["name"])
        return container.id

    def _forget_dead(self, pod: SimPod, name: str) -> None:
        dead = [c for c in pod.containers if c.config.container["name"] == name and c.state == "exited"]
        for container in dead[MAX_DEAD - 1 :]:
            pod.containers.remove(container)
            self._containers.pop(container.id, None)

    async def start_container(self, container_id: str) -> None:
        pod, container = self._found(container_id)
        name = container.config.container["name"]
        trouble = pod.faults.trouble("start", name) if pod.faults is not None else None
        if trouble is not None and trouble.fails:
            text = "failed to create containerd task: failed to create shim task: OCI runtime create failed"
            container.started_at = self._clock.now()
            self._exit(container, 128, "StartError", text)
            raise RuntimeFailure(text, "RunContainerError")
        if trouble is not None and trouble.takes_s > 0:
            container.ending = self._timers.after(trouble.takes_s, lambda: self._start_late(pod, container))
            return
        self._start(pod, container)

    def _start_late(self, pod: SimPod, container: SimContainer) -> None:
        self._start(pod, container)
        self._changed(pod)

    def _start(self, pod: SimPod, container: SimContainer) -> None:
        container.state = "running"
        container.started_at = self._clock.now()
        container.started_s = self._clock.monotonic()
        self._plan_end(pod, container)

    def _plan_end(self, pod: SimPod, container: SimContainer) -> None:
        """Arrange how it ends by itself; a program without a duration is over at once."""
        does = self._does(pod, container.config)
        container.output, container.handles_term = does.output, not does.known
        end = pod.faults.end(container.config.container["name"]) if pod.faults is not None else None
        message = ""
        if end is None and does.runs_s is not None:
            end = faults.End(does.exit_code, does.runs_s)
            message = termination_message(container.config.container, does)
        if end is None:
            return
        reason = end.reason or ("Completed" if end.exit_code == 0 else "Error")
        due_s = container.started_s + end.after_s
        if due_s <= self._clock.monotonic():
            self._exit(container, end.exit_code, reason, message)
            return
        container.ending = self._timers.at(
            due_s, lambda: self._end(pod, container, end.exit_code, reason, message)
        )

    def _does(self, pod: SimPod, config: ContainerConfig) -> program.Program:
        """What it does with what it finds in its volumes; what it writes into empty ones is there from its start on."""
        if not config.container.get("volumeMounts"):
            return self._programs(config)
        variables = config.environment or {}
        there = shared.found(pod.contents, config.pod, config.container, variables)
        if there:
            config = attrs.evolve(config, files={**(config.files or {}), **there})
        does = self._programs(config)
        shared.leave(pod.contents, config.pod, config.container, variables, does.files)
        return does

    def _end(
        self, pod: SimPod, container: SimContainer, exit_code: int, reason: str, message: str = ""
    ) -> None:
        if container.state != "exited":
            self._exit(container, exit_code, reason, message)
            self._changed(pod)

    def _exit(self, container: SimContainer, exit_code: int, reason: str, message: str = "") -> None:
        if container.ending is not None:
            container.ending.cancel()
            container.ending = None
        container.state = "exited"
        container.finished_at = self._clock.now()
        container.exit_code, container.reason, container.message = exit_code, reason, message

    async def stop_container(self, container_id: str, grace_s: float) -> None:
        found = self._containers.get(container_id)
        if found is None or found[1].state == "exited":
            return
        pod, container = found
        takes_s = pod.faults.stop_s(container.config.container["name"]) if pod.faults is not None else 0.0
        code = 0 if container.handles_term else TERMINATED_BY_TERM
        if takes_s > grace_s or grace_s <= 0:
            takes_s, code = max(grace_s, 0.0), TERMINATED_BY_KILL
        reason = "Completed" if code == 0 else "Error"
        due_s = self._clock.monotonic() + takes_s
        if due_s >= container.killed_at_s:
            return
        container.killed_at_s = due_s
        if takes_s <= 0:
            self._exit(container, code, reason)
            return
        if container.ending is not None:
            container.ending.cancel()
        container.ending = self._timers.at(due_s, lambda: self._end(pod, container, code, reason))

    async def remove_container(self, container_id: str) -> None:
        found = self._containers.pop(container_id, None)
        if found is None:
            return
        pod, container = found
        if container.state != "exited":
            self._exit(container, TERMINATED_BY_KILL, "Error")
        pod.containers.remove(container)

    async def update_container_resources(self, container_id: str, resources: Json) -> None:
        self._found(container_id)[1].resources = resources

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: float) -> ExecResult:
        self._running(container_id)
        does = program.interpret(command)
        if does.runs_s is not None and does.runs_s > timeout_s:
            raise TimeoutError(f"command {list(command)} timed out")
        return ExecResult(does.exit_code, "\n".join(does.output).encode())

    async def run_hook(self, container_id: str, hook: Json) -> HookOutcome:
        self._running(container_id)
        if "sleep" in hook:
            return HookOutcome(float(hook["sleep"].get("seconds") or 0))
        if "exec" not in hook:
            return HookOutcome()
        does = program.interpret(tuple(hook["exec"].get("command") or ()))
        error = f"command exited with {does.exit_code}" if does.exit_code else ""
        return HookOutcome(does.runs_s or 0.0, error)

    async def probe(self, container_id: str, kind: ProbeKind, probe: Json) -> ProbeOutcome:
        pod, container = self._running(container_id)
        if pod.faults is not None:
            age_s = self._clock.monotonic() - container.started_s
            told = pod.faults.answer(kind, container.config.container["name"], age_s)
            if told is not None:
                return ProbeOutcome(told[0], "" if told[0] else _failure(probe), told[1])
        if "exec" in probe:
            does = program.interpret(tuple(probe["exec"].get("command") or ()))
            limit_s = probe.get("timeoutSeconds") or 1
            if does.known and does.runs_s is not None and does.runs_s > limit_s:
                return ProbeOutcome(False, f"command timed out: timed out after {limit_s}s", True)
            return ProbeOutcome(does.exit_code == 0, "\n".join(does.output), True)
        return ProbeOutcome(True, steady=True)

    def _found(self, container_id: str) -> tuple[SimPod, SimContainer]:
        found = self._containers.get(container_id)
        if found is None:
            raise NotFound(f'an error occurred when try to find container "{container_id}": not found')
        return found

    def _running(self, container_id: str) -> tuple[SimPod, SimContainer]:
        found = self._found(container_id)
        if found[1].state != "running":
            raise NotFound(f"container {container_id} is not running")
        return found

    def _trouble(self, pod: SimPod, what: str, container: str, text: str) -> None:
        """Act a fault of a call: refuse it, or let it go on for a while."""
        assert pod.faults is not None
        key, now_s = f"{pod.uid}/{what}/{container}", self._clock.monotonic()
        until_s = self._under_way.get(key)
        if until_s is not None:
            if now_s < until_s:
                raise NotYet(until_s - now_s)
            del self._under_way[key]
            return
        trouble = pod.faults.trouble(what, container)
        if trouble is None:
            return
        if trouble.fails:
            raise RuntimeFailure(text)
        self._under_way[key] = now_s + trouble.takes_s
        raise NotYet(trouble.takes_s)

    # -- images and logs ------------------------------------------------------------------------------

    async def image_status(self, name: str) -> Image | None:
        return self._images.get(name)

    async def pull_image(self, name: str, config: ContainerConfig | None = None) -> Image:
        text = unreachable_registry(name)
        if text:
            raise RuntimeFailure(text)
        if config is not None:
            pod = self._pod(config.pod)
            if pod.faults is not None:
                failure = f'failed to pull and unpack image "{name}": failed to resolve reference "{name}": not found'
                self._trouble(pod, "pull", config.container["name"], failure)
        image = image_of(name)
        self._images[name] = image
        return image

    async def list_images(self) -> Sequence[Image]:
        return list(self._images.values())

    def logs(self, container_id: str) -> Sequence[LogLine]:
        found = self._containers.get(container_id)
        if found is None or found[1].started_at is None:
            return []
        return [LogLine(found[1].started_at, "stdout", text) for text in found[1].output]

    # -- beginnings and ends --------------------------------------------------------------------------

    async def restore(self, pod: Json) -> None:
        status, uid = pod.get("status") or {}, pod["metadata"]["uid"]
        if (
            uid in self._pods
            or status.get("phase") in (None, "Succeeded", "Failed")
            or not status.get("podIP")
        ):
            return
        ip = status["podIP"]
        if ip != self._host_ip:
            try:
                self._addresses.claim(ip)
            except (OutOfRange, AlreadyAllocated):
                return
        sim = self._pod(pod)
        sandbox_id = self._add_sandbox(sim, 0, ip, parse_time(status["startTime"]))
        for field, statuses in _FIELDS:
            specs = {container["name"]: container for container in (pod.get("spec") or {}).get(field) or ()}
            for entry in status.get(statuses) or ():
                if entry["name"] in specs:
                    self._restore_container(sim, pod, field, specs[entry["name"]], entry)
        if not sim.containers:
            await self.remove_pod_sandbox(sandbox_id)

    def _restore_container(self, sim: SimPod, pod: Json, field: str, spec: Json, entry: Json) -> None:
        state = entry.get("state") or {}
        over: Json = state.get("terminated") or (entry.get("lastState") or {}).get("terminated") or {}
        running: Json = state.get("running") or {}
        if not running and not over:
            return
        image = Image(entry.get("image") or spec["image"], entry.get("imageID") or "", 0)
        self._images.setdefault(spec["image"], image_of(spec["image"]))
        config = ContainerConfig(pod, spec, field, image, entry.get("restartCount") or 0)
        since = (running or over).get("startedAt")
        began = parse_time(since) if since else None
        container_id = (entry.get("containerID") or "").removeprefix(f"{SCHEME}://")
        container = SimContainer(container_id, config, began or self._clock.now(), started_at=began)
        container.resources = entry.get("resources") or spec.get("resources")
        sim.containers.insert(0, container)
        self._containers[container.id] = (sim, container)
        if not running:
            container.state, container.exit_code = "exited", over.get("exitCode") or 0
            container.reason, container.message = over.get("reason") or "", over.get("message") or ""
            container.finished_at = parse_time(over["finishedAt"]) if over.get("finishedAt") else None
            return
        container.state = "running"
        age_s = (self._clock.now() - container.created_at) / timedelta(seconds=1)
        container.started_s = self._clock.monotonic() - age_s
        self._plan_end(sim, container)

    def power_off(self) -> None:
        """The machine went down: sandboxes are gone, containers ended with an unknown status."""
        for pod in self._pods.values():
            for i, sandbox in enumerate(pod.sandboxes):
                if sandbox.ready:
                    pod.sandboxes[i] = attrs.evolve(sandbox, ready=False)
                    self._release(sandbox)
            for container in pod.containers:
                if container.state != "exited":
                    self._exit(container, 255, "Unknown")


_FIELDS = (
    ("initContainers", "initContainerStatuses"),
    ("containers", "containerStatuses"),
    ("ephemeralContainers", "ephemeralContainerStatuses"),
)


def _failure(probe: Json) -> str:
    """What a failed probe of that sort says."""
    if "httpGet" in probe:
        return "HTTP probe failed with statuscode: 500"
    if "grpc" in probe:
        return 'service unhealthy (responded with "NOT_SERVING")'
    if "tcpSocket" in probe:
        return f"dial tcp :{probe['tcpSocket'].get('port')}: connect: connection refused"
    return ""
