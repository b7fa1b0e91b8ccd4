"""pods/ephemeralcontainers and pods/resize: the two doors through which a running pod's spec may change.

Source: k8s v1.36 pkg/registry/core/pod/strategy.go (podEphemeralContainersStrategy, podResizeStrategy).
"""

from __future__ import annotations

from kcp.api.context import Call, Server
from kcp.api.results import Result
from kcp.api.transaction import Rules
from kcp.api.verbs import patch, update
from kcp.apis.core.pod import (
    prepare_ephemeral_containers,
    prepare_resize,
    validate_ephemeral_containers,
    validate_resize,
)

EPHEMERAL = Rules(
    lambda kind, new, old: prepare_ephemeral_containers(new, old),
    lambda kind, new, old: validate_ephemeral_containers(new, old),
)
RESIZE = Rules(
    lambda kind, new, old: prepare_resize(new, old), lambda kind, new, old: validate_resize(new, old)
)


async def put_ephemeral_containers(server: Server, call: Call) -> Result:
    return await update.handle(server, call, subresource="ephemeralcontainers", rules=EPHEMERAL)


async def patch_ephemeral_containers(server: Server, call: Call) -> Result:
    return await patch.handle(server, call, subresource="ephemeralcontainers", rules=EPHEMERAL)


async def put_resize(server: Server, call: Call) -> Result:
    return await update.handle(server, call, subresource="resize", rules=RESIZE)


async def patch_resize(server: Server, call: Call) -> Result:
    return await patch.handle(server, call, subresource="resize", rules=RESIZE)
