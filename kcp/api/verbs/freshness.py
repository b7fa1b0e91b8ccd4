"""Reads that ask for a revision not yet reached wait for it a little."""

from __future__ import annotations

from kcp.api.context import Server
from kcp.machinery.errors import Timeout
from kcp.store.protocol import FutureRevision

WAIT_S = 3.0


async def wait_until_fresh(server: Server, rv: int) -> None:
    """Return once `rv` is published. Raises Timeout with cause ResourceVersionTooLarge after three seconds."""
    if rv <= server.store.rv:
        return
    try:
        await server.store.wait_for(rv, WAIT_S)
    except FutureRevision as error:
        raise Timeout.too_large_resource_version(rv, error.current) from None
