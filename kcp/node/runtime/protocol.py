"""The runtime below a node agent: sandboxes, containers and images, in CRI's nouns.

    sandbox = await runtime.run_pod_sandbox(SandboxConfig(pod, attempt=0))
    container = await runtime.create_container(sandbox, ContainerConfig(pod, spec, attempt=0, image=image))
    await runtime.start_container(container)
    status = await runtime.pod_status(uid)

Calls about a thing that is gone do nothing (stop, remove) or raise NotFound (start, update, exec). A call that has
to go on for a while either awaits, or raises NotYet: the agent then asks again, and its worker is free meanwhile.
Source: CRI v1 (cri-api/pkg/apis/runtime/v1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Protocol

from kcp.base.values import frozen

Json = dict[str, Any]
ContainerState = Literal["created", "running", "exited"]
ProbeKind = Literal["liveness", "readiness", "startup"]
Sink = Callable[[str], None]
"""Told the uid of a pod in which something changed that no call has caused (an exit, an out-of-memory kill)."""


class RuntimeFailure(Exception):
    """Raised when the runtime refuses or fails. `reason` is the waiting reason that people see."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason


class NotFound(RuntimeFailure):
    """Raised when a call names a sandbox, container or image that does not exist."""


class NotYet(Exception):
    """Raised when a call goes on in the background; call again after `after_s` seconds."""

    def __init__(self, after_s: float) -> None:
        super().__init__(f"not finished, ask again in {after_s} s")
        self.after_s = after_s


@frozen
class Version:
    runtime_name: str
    runtime_version: str
    runtime_api_version: str = "v1"


@frozen
class RuntimeCaps:
    """What a runtime can do; the agent degrades or skips the rest.

    `instant`: calls do not wait for anything, so one status write can tell of many steps.
    `remembers`: containers outlive the agent's process, and the runtime knows them afterwards.
    """

    instant: bool = False
    remembers: bool = True
    deterministic: bool = False
    exec: bool = True
    pod_stats: bool = False
    user_namespaces: bool = False
    recursive_read_only: bool = False


@frozen
class SandboxConfig:
    """`pod` is the document; an adapter takes hostname, ports, labels and annotations from it."""

    pod: Json
    attempt: int = 0


@frozen
class Image:
    """`ref` is the digest reference that stands in imageID."""

    name: str
    ref: str
    size_bytes: int


@frozen
class ContainerConfig:
    """One container of a pod. `field` is the list of the spec it stands in, `hash` identifies its definition.

    `environment` None: it was not worked out, because the container was taken up again or only its image is wanted.
    """

    pod: Json
    container: Json
    field: str
    image: Image
    attempt: int = 0
    hash: str = ""
    environment: Mapping[str, str] | None = None
    files: Mapping[str, tuple[str, int]] | None = None
    """(content, mode) by path, of the mounts that the command names."""


@frozen
class SandboxStatus:
    id: str
    attempt: int
    ready: bool
    ips: tuple[str, ...]
    created_at: datetime


@frozen
class ContainerStatus:
    """`resources` are those in force, as in a container's spec. `attempt` is the restart count."""

    id: str
    name: str
    state: ContainerState
    image: str
    image_ref: str
    attempt: int
    hash: str
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    resources: Json | None = None


@frozen
class PodStatus:
    """All sandboxes and containers of one pod, newest first."""

    uid: str
    sandboxes: tuple[SandboxStatus, ...] = ()
    containers: tuple[ContainerStatus, ...] = ()

    @property
    def sandbox(self) -> SandboxStatus | None:
        """The newest sandbox, if it is ready."""
        return self.sandboxes[0] if self.sandboxes and self.sandboxes[0].ready else None

    def latest(self, name: str) -> ContainerStatus | None:
        for status in self.containers:
            if status.name == name:
                return status
        return None

    def running(self) -> list[ContainerStatus]:
        """What is not exited, created containers included."""
        return [status for status in self.containers if status.state != "exited"]


@frozen
class ExecResult:
    exit_code: int
    output: bytes = b""


@frozen
class ProbeOutcome:
    """`steady`: the answer stays the same as long as the container runs, there is no need to ask again."""

    ok: bool
    text: str = ""
    steady: bool = False


@frozen
class HookOutcome:
    """A lifecycle hook was started and holds the container up for `takes_s` more seconds."""

    takes_s: float = 0.0
    error: str = ""


@frozen
class LogLine:
    at: datetime
    stream: Literal["stdout", "stderr"]
    text: str


class Runtime(Protocol):
    """The same contract suite runs over every implementation (tests/contracts/test_runtime.py)."""

    scheme: str
    """Of container ids: `<scheme>://<id>`."""
    caps: RuntimeCaps

    async def version(self) -> Version: ...

    def subscribe(self, sink: Sink) -> None:
        """Tell `sink` of changes from now on."""
        ...

    async def restore(self, pod: Json) -> None:
        """Take up the pod's containers as its status describes them; for runtimes that do not remember."""
        ...

    async def run_pod_sandbox(self, config: SandboxConfig) -> str:
        """Make sandbox and network; returns its id."""
        ...

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        """Kill what still runs in it and give its addresses back."""
        ...

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        """Forget the sandbox and its containers."""
        ...

    async def pod_status(self, uid: str) -> PodStatus:
        """An empty status for an unknown pod."""
        ...

    async def pod_uids(self) -> Sequence[str]:
        """Pods with a sandbox or a container, for housekeeping."""
        ...

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str: ...

    async def start_container(self, container_id: str) -> None: ...

    async def stop_container(self, container_id: str, grace_s: float) -> None:
        """Ask it to end and kill it after `grace_s`; returns at once. A later call may only shorten the time."""
        ...

    async def remove_container(self, container_id: str) -> None: ...

    async def update_container_resources(self, container_id: str, resources: Json) -> None: ...

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: float) -> ExecResult:
        """Raises TimeoutError when the command takes longer."""
        ...

    async def run_hook(self, container_id: str, hook: Json) -> HookOutcome: ...

    async def probe(self, container_id: str, kind: ProbeKind, probe: Json) -> ProbeOutcome: ...

    async def image_status(self, name: str) -> Image | None: ...

    async def pull_image(self, name: str, config: ContainerConfig | None = None) -> Image: ...

    async def list_images(self) -> Sequence[Image]: ...

    def logs(self, container_id: str) -> Sequence[LogLine]:
        """What the container has written so far; nothing for an unknown one."""
        ...


def by_name(statuses: Sequence[ContainerStatus]) -> Mapping[str, ContainerStatus]:
    """The newest status of each container; `statuses` are newest first."""
    found: dict[str, ContainerStatus] = {}
    for status in statuses:
        found.setdefault(status.name, status)
    return found
