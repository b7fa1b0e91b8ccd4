"""namespaces/finalize: where the namespace controller takes its finalizer off an empty namespace.

Source: k8s v1.36 pkg/registry/core/namespace/strategy.go (namespaceFinalizeStrategy).
"""

from __future__ import annotations

from kcp.api.context import Call, Server
from kcp.api.results import Result
from kcp.api.transaction import Rules
from kcp.api.verbs import update
from kcp.apis.core.namespace import prepare_finalize, validate_finalize

RULES = Rules(
    lambda kind, new, old: prepare_finalize(new, old),
    lambda kind, new, old: validate_finalize(new, old),
    raises_generation=False,
)


async def put(server: Server, call: Call) -> Result:
    """The update that takes the last finalizer of a namespace under deletion removes it."""
    return await update.handle(server, call, subresource="finalize", rules=RULES)
