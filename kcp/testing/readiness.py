"""When a fresh cluster can be used, and where its log lines go meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import structlog

from kcp.base.logs import redact
from kcp.client.client import Client
from kcp.machinery import meta

START_TIMEOUT_S = 30.0
_PAUSE_S = 0.002


async def wait_until_usable(client: Client, nodes: int) -> None:
    """Until a pod created in the namespace default is admitted and has a node. Raises TimeoutError."""
    with anyio.fail_after(START_TIMEOUT_S):
        while not await _usable(client, nodes):
            await anyio.sleep(_PAUSE_S)


async def _usable(client: Client, nodes: int) -> bool:
    accounts = await client.list("serviceaccounts", "default")
    if not any(meta.name(account) == "default" for account in accounts.items):
        return False
    ready = 0
    for node in (await client.list("nodes")).items:
        condition = meta.condition(node, "Ready")
        ready += condition is not None and condition["status"] == "True"
    return ready >= nodes


@contextmanager
def logs_to_logging() -> Iterator[None]:
    """Warnings go to the standard library's loggers, where pytest shows them; a program's own structlog setup stays."""
    if structlog.is_configured():
        yield
        return
    structlog.configure(
        processors=[
            redact,
            structlog.processors.ExceptionRenderer(),
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.reset_defaults()
