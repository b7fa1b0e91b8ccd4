"""Services for fixtures and tests: started in one task, waited for, cancelled at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import TaskStatus

from kcp.base.tasks import in_background

__all__ = ["in_background", "running"]


@asynccontextmanager
async def running(*services: Callable[[], Coroutine[Any, Any, Any]]) -> AsyncIterator[None]:
    """Run components that have no notion of readiness (`informer.run`, `queue.run`) around a block."""

    async def serve(*, task_status: TaskStatus[None]) -> None:
        async with anyio.create_task_group() as group:
            for service in services:
                group.start_soon(service)
            task_status.started()

    async with in_background(serve):
        yield
