"""A few tasks that step many small state machines: one machine never steps twice at a time, none is forgotten.

    loop = WorkLoop("pods", tasks=8)
    loop.add(worker)          # worker.step() runs soon; added while it runs: it runs once more
    await loop.run()

This is the work queue of client-go with the marks on the item instead of in sets, so that 10,000 pods cost three
flags each.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

import anyio
import anyio.lowlevel
import structlog

from kcp.base.background import Background

log = structlog.get_logger()
_STEPS_BETWEEN_YIELDS = 8


class Steps(Protocol):
    """A state machine. The three marks belong to the loop it was added to."""

    queued: bool
    busy: bool
    again: bool

    async def step(self) -> None: ...


class WorkLoop:
    """First come, first served. The number of waiting items is bounded by the number of items there are.

    With `background` steps give way to what cannot wait.
    """

    def __init__(self, name: str, tasks: int, background: Background | None = None) -> None:
        self.name = name
        self._tasks = tasks
        self._background = background
        self._ready: deque[Steps] = deque()
        self._idle: deque[anyio.Event] = deque()

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, item: Steps) -> None:
        if item.busy:
            item.again = True
        elif not item.queued:
            item.queued = True
            self._ready.append(item)
            if self._idle:
                self._idle.popleft().set()

    async def run(self) -> None:
        """Step items until cancelled."""
        async with anyio.create_task_group() as group:
            for _ in range(self._tasks):
                group.start_soon(self._run_one)

    async def _run_one(self) -> None:
        while True:
            while self._ready:
                if self._background is None:
                    await self._step_some()
                else:
                    started_s = await self._background.enter()
                    await self._step_some()
                    self._background.leave(started_s)
            woken = anyio.Event()
            self._idle.append(woken)
            try:
                await woken.wait()
            except BaseException:
                self._hand_on(woken)
                raise

    async def _step_some(self) -> None:
        steps = 0
        while self._ready and steps < _STEPS_BETWEEN_YIELDS:
            await self._step(self._ready.popleft())
            steps += 1
        if steps == _STEPS_BETWEEN_YIELDS:
            await anyio.lowlevel.checkpoint()

    def _hand_on(self, woken: anyio.Event) -> None:
        """A task that ends gives its wake-up to another one."""
        if woken in self._idle:
            self._idle.remove(woken)
        elif self._idle:
            self._idle.popleft().set()

    async def _step(self, item: Steps) -> None:
        item.queued, item.busy, item.again = False, True, False
        try:
            await item.step()
        except Exception:
            log.exception("step failed", loop=self.name)
        finally:
            item.busy = False
        if item.again:
            self.add(item)
