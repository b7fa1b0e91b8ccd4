"""Getting a container's image: pull policy, back-off, and what people are told about it.

Source: k8s v1.36 pkg/kubelet/images/image_manager.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs

from kcp.base.backoff import WindowBackoff
from kcp.base.clock import Clock
from kcp.machinery.errors import go_quote
from kcp.machinery.times import format_go_duration
from kcp.node.container_status import Waiting
from kcp.node.runtime.protocol import ContainerConfig, Image, Runtime, RuntimeFailure

Json = dict[str, Any]
PULL_BACKOFF_S, PULL_BACKOFF_CAP_S = 10.0, 300.0
RECHECK_S = 2.0
"""After a failed pull, until the next look at the pod finds it in back-off."""
Tell = Callable[[str, str, str], None]
"""(type, reason, message) of an Event about the container."""

_REFERENCE = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::[0-9]+)?/)?"
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
    r"(?::[\w][\w.-]{0,127})?(?:@[a-z0-9+._-]+:[0-9a-f]{32,})?",
    re.ASCII,
).fullmatch


class ImageError(Exception):
    """Raised when a container has to wait for its image: for what, and for how long at most (None: ask again later)."""

    def __init__(self, waiting: Waiting, retry_s: float) -> None:
        super().__init__(waiting.reason)
        self.waiting = waiting
        self.retry_s = retry_s


def default_policy(image: str) -> str:
    """Always for `:latest` and for no tag, else IfNotPresent."""
    last = image.rpartition("/")[2]
    if "@" in last:
        return "IfNotPresent"
    tag = last.partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


@attrs.define
class ImageManager:
    """The images of one node. Back-offs are per pod and image."""

    runtime: Runtime
    clock: Clock
    _backoff: WindowBackoff[str] = attrs.field(init=False)
    _failed: dict[str, tuple[float, str]] = attrs.field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self._backoff = WindowBackoff(self.clock, PULL_BACKOFF_S, PULL_BACKOFF_CAP_S)

    async def ensure(self, pod: Json, field: str, container: Json, tell: Tell) -> Image:
        """The image, pulled where the policy says so. Raises ImageError, and NotYet while a pull goes on."""
        name = container.get("image") or ""
        if _REFERENCE(name) is None:
            raise self._invalid(name, tell)
        present = await self.runtime.image_status(name)
        policy = container.get("imagePullPolicy") or default_policy(name)
        if present is not None and policy != "Always":
            text = (
                f"Container image {go_quote(name)} already present on machine and can be accessed by the pod"
            )
            tell("Normal", "Pulled", text)
            return present
        if policy == "Never":
            text = f"Container image {go_quote(name)} is not present with pull policy of Never"
            tell("Warning", "ErrImageNeverPull", text)
            raise _refused("ErrImageNeverPull", text, tell)
        return await self._pull(pod, field, container, tell)

    async def _pull(self, pod: Json, field: str, container: Json, tell: Tell) -> Image:
        name = container["image"]
        key = f"{pod['metadata']['uid']}_{name}"
        failed_s, failure = self._failed.get(key, (0.0, ""))
        remaining_s = self._backoff.remaining_s(key, failed_s) if failure else 0.0
        if remaining_s > 0:
            text = f"Back-off pulling image {go_quote(name)}"
            tell("Normal", "BackOff", text)
            raise _refused("ImagePullBackOff", f"{text}: ErrImagePull: {failure}", tell, remaining_s)
        tell("Normal", "Pulling", f"Pulling image {go_quote(name)}")
        began = self.clock.now()
        config = ContainerConfig(pod, container, field, Image(name, "", 0))
        try:
            image = await self.runtime.pull_image(name, config)
        except RuntimeFailure as error:
            self._failed[key] = (self.clock.monotonic(), error.message)
            self._backoff.failed(key)
            tell("Warning", "Failed", f"Failed to pull image {go_quote(name)}: {error.message}")
            raise _refused("ErrImagePull", error.message, tell, RECHECK_S) from None
        self._failed.pop(key, None)
        took = _took(self.clock.now() - began)
        text = f"Successfully pulled image {go_quote(name)} in {took} ({took} including waiting)."
        tell("Normal", "Pulled", f"{text} Image size: {image.size_bytes} bytes.")
        return image

    @staticmethod
    def _invalid(name: str, tell: Tell) -> ImageError:
        fault = "invalid reference format"
        if name != name.lower():
            fault += f": repository name ({name.partition(':')[0]}) must be lowercase"
        text = f"couldn't parse image name {go_quote(name)}: {fault}"
        tell("Warning", "InspectFailed", f"Failed to apply default image tag {go_quote(name)}: {text}")
        message = f"Failed to apply default image tag {go_quote(name)}: {text}"
        return _refused("InvalidImageName", message, tell)

    def collect(self) -> None:
        """Drop back-offs that were quiet long enough."""
        self._backoff.collect()

    def forget(self, uid: str) -> None:
        """Drop the back-offs of a pod that is gone."""
        for key in [key for key in self._failed if key.startswith(f"{uid}_")]:
            del self._failed[key]
            self._backoff.forget(key)


def _refused(reason: str, message: str, tell: Tell, retry_s: float = 300.0) -> ImageError:
    """The container waits, and the event says for what."""
    tell("Warning", "Failed", f"Error: {reason}")
    return ImageError(Waiting(reason, message), retry_s)


def _took(duration: timedelta) -> str:
    return format_go_duration(round(duration / timedelta(seconds=1), 3))
