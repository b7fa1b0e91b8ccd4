"""What a container is started with: its definition, its environment, the files of its mounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kcp.node import environment
from kcp.node.runtime.protocol import ContainerConfig, Image
from kcp.node.sync_pod import Start, container_hash
from kcp.node.volumes import files

if TYPE_CHECKING:
    from kcp.node.pod_worker import PodWorker


async def configured(
    worker: PodWorker, start: Start, image: Image, attempt: int, pod_ips: tuple[str, ...]
) -> ContainerConfig:
    """Raises ConfigError for its environment, NotMounted for its volumes."""
    container, agent, pod = start.container, worker.agent, worker.pod
    name, given = container["name"], container.get("resources")
    resources = worker.allocated.get(name, given)
    worker.allocated.setdefault(name, given or {})
    wanted = container if resources is None else {**container, "resources": resources}
    variables = await environment.of_container(agent, pod, wanted, pod_ips)
    found = await files.of_container(agent, pod, wanted, variables, pod_ips)
    return ContainerConfig(
        pod, wanted, start.field, image, attempt, container_hash(container), variables, found
    )
