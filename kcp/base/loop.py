"""The deterministic event loop: virtual time, seeded task order, no threads, no sockets.

The same program with the same seed takes the same steps in any process; another seed is another legal
interleaving. Only tasks that are ready in the same iteration are permuted, so races that need a delay need an
await that sleeps.

    run_deterministic(main, seed=7)     # anyio programs run unmodified; sleep(86400) costs microseconds

One iteration, for tasks 1, 2, 3 and plain callbacks a, b in the ready queue:

    ready        a  step(3)  step(1)  b  step(2)
    canonical    a  step(1)  step(2)  b  step(3)     by task number, in the places that steps held
    seeded       a  step(2)  step(3)  b  step(1)     one permutation, drawn from the seed

asyncio promises first-in first-out for callbacks, so a and b stay where they are; the order between tasks is free.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import random
import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, MutableSet
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple, Unpack

import anyio
from anyio._backends import _asyncio as anyio_backend

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_RESOLUTION_S = 1e-9
_MANY_CANCELLED_TIMERS = 100
_YOUNG_COLLECTION_STEPS = 1_000
_FULL_COLLECTION_STEPS = 100_000


class Deadlock(RuntimeError):
    """Raised when no task can ever run again: nothing is ready and no timer is set. Lists who waits where."""


class TooManySteps(RuntimeError):
    """Raised when a run exceeds its limit of loop iterations, which usually means that it spins."""


class NumberedTask(asyncio.Task[Any]):
    """A task whose identity is its number of creation, never its address."""

    __slots__ = ("number",)

    number: int


class OrderedSet(MutableSet[Any]):
    """A set that iterates in order of insertion, over a copy, so that members may leave meanwhile."""

    __slots__ = ("_items",)

    def __init__(self) -> None:
        self._items: dict[Any, None] = {}

    def __contains__(self, item: object) -> bool:
        return item in self._items

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._items))

    def __len__(self) -> int:
        return len(self._items)

    def add(self, value: Any) -> None:
        self._items[value] = None

    def discard(self, value: Any) -> None:
        self._items.pop(value, None)


class _WeakOrderedSet:
    """What the loop keeps its open asynchronous generators in, closed in order of first iteration at the end."""

    def __init__(self) -> None:
        self._items: dict[int, weakref.ref[Any]] = {}

    def add(self, item: Any) -> None:
        self._items[id(item)] = weakref.ref(item)

    def discard(self, item: Any) -> None:
        self._items.pop(id(item), None)

    def clear(self) -> None:
        self._items.clear()

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __iter__(self) -> Iterator[Any]:
        live = [reference() for reference in list(self._items.values())]
        return iter([item for item in live if item is not None])


class DetLoop(asyncio.BaseEventLoop):
    """See the module. `seed` None keeps the canonical order without permuting it.

    `on_step` is called before each iteration, for invariants and running digests. `steps` counts iterations.
    """

    _ready: deque[Any]
    _scheduled: list[Any]
    _stopping: bool
    _thread_id: int | None
    _timer_cancelled_count: int

    def __init__(
        self,
        seed: int | None = 0,
        *,
        limit_steps: int | None = None,
        on_step: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        _keep_scopes_in_order()
        self.steps = 0
        self.limit_steps = limit_steps
        self.on_step = on_step
        self._now_s = 0.0
        self._tasks_made = 0
        self._shuffle = random.Random(seed).shuffle if seed is not None else None
        self._clock_resolution = _RESOLUTION_S
        self._asyncgens = _WeakOrderedSet()
        self.set_task_factory(_make_task)  # type: ignore[arg-type]

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now_s

    def _run_once(self) -> None:
        self._drop_cancelled_timers()
        if not self._ready and not self._stopping:
            if not self._scheduled:
                raise Deadlock(self._who_waits())
            self._now_s = max(self._now_s, self._scheduled[0]._when)
        self._ready_due_timers()
        self._order_ready_tasks()
        self._count_step()
        for _ in range(len(self._ready)):
            handle = self._ready.popleft()
            if not handle._cancelled:
                handle._run()
        handle = None

    def _drop_cancelled_timers(self) -> None:
        timers = self._scheduled
        if self._timer_cancelled_count > _MANY_CANCELLED_TIMERS and self._timer_cancelled_count * 2 > len(
            timers
        ):
            for handle in timers:
                handle._scheduled = not handle._cancelled
            self._scheduled = [handle for handle in timers if not handle._cancelled]
            heapq.heapify(self._scheduled)
            self._timer_cancelled_count = 0
            return
        while timers and timers[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(timers)._scheduled = False

    def _ready_due_timers(self) -> None:
        end = self._now_s + _RESOLUTION_S
        while self._scheduled and self._scheduled[0]._when < end:
            handle = heapq.heappop(self._scheduled)
            handle._scheduled = False
            self._ready.append(handle)

    def _order_ready_tasks(self) -> None:
        ready = self._ready
        if len(ready) < 2:
            return
        places: list[int] = []
        steps: dict[int, list[Any]] = {}
        for place, handle in enumerate(ready):
            task = getattr(handle._callback, "__self__", None)
            if type(task) is NumberedTask:
                places.append(place)
                steps.setdefault(task.number, []).append(handle)
        if len(steps) < 2:
            return
        numbers = sorted(steps)
        if self._shuffle is not None:
            self._shuffle(numbers)
        ordered = (handle for number in numbers for handle in steps[number])
        for place, handle in zip(places, ordered, strict=True):
            ready[place] = handle

    def _count_step(self) -> None:
        self.steps += 1
        if self.limit_steps is not None and self.steps > self.limit_steps:
            limit, self.limit_steps = self.limit_steps, None  # cancelling what runs takes steps too
            raise TooManySteps(f"more than {limit} iterations at {self._now_s:.3f} s virtual time")
        if self.on_step is not None:
            self.on_step()

    def _who_waits(self) -> str:
        tasks = [task for task in asyncio.all_tasks(self) if isinstance(task, NumberedTask)]
        lines = [_where(task) for task in sorted(tasks, key=lambda task: task.number)]
        return f"nothing can run any more at {self._now_s:.3f} s virtual time:\n" + "\n".join(lines)

    def number_of_next_task(self) -> int:
        self._tasks_made += 1
        return self._tasks_made

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        if self._thread_id not in (None, threading.get_ident()):
            raise RuntimeError("no other thread may reach the deterministic loop")
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Runs inline: there are no threads. The future is finished."""
        del executor
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - handed to whoever awaits the future, as an executor does
            future.set_exception(error)
        return future

    def _process_events(self, event_list: Any) -> None: ...

    def _write_to_self(self) -> None: ...


def _make_task(loop: DetLoop, coro: Coroutine[Any, Any, Any], **kwargs: Any) -> NumberedTask:
    task = NumberedTask(coro, loop=loop, **kwargs)
    task.number = loop.number_of_next_task()
    return task


def _where(task: NumberedTask) -> str:
    stack = task.get_stack(limit=1)
    place = f"{stack[-1].f_code.co_filename}:{stack[-1].f_lineno}" if stack else "not started"
    return f"  task {task.number} {task.get_name()}: {place}"


def _on_deterministic_loop() -> bool:
    return isinstance(asyncio._get_running_loop(), DetLoop)


_scopes_in_order = False


def _keep_scopes_in_order() -> None:
    """Make anyio's scopes and groups cancel in order of entry, on this loop only.

    anyio keeps the tasks of a scope in sets of objects hashed by address, so stock cancellation order follows the
    layout of the heap. Touches private names: anyio's minor version is pinned, and a test compares five processes.
    """
    global _scopes_in_order
    if _scopes_in_order:
        return
    _scopes_in_order = True
    _replace_sets(anyio_backend.CancelScope, ("_tasks", "_child_scopes"))
    _replace_sets(anyio_backend.TaskGroup, ("_tasks",))


def _replace_sets(cls: type[Any], names: tuple[str, ...]) -> None:
    original = cls.__init__

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        original(self, *args, **kwargs)
        if _on_deterministic_loop():
            for name in names:
                setattr(self, name, OrderedSet())

    cls.__init__ = __init__


def _collect_at_fixed_steps(loop: DetLoop, then: Callable[[], None] | None) -> Callable[[], None]:
    def at_step() -> None:
        if loop.steps % _YOUNG_COLLECTION_STEPS == 0:
            gc.collect(2 if loop.steps % _FULL_COLLECTION_STEPS == 0 else 1)
        if then is not None:
            then()

    return at_step


def run_deterministic(
    main: Callable[..., Awaitable[T]],
    seed: int | None = 0,
    *args: Any,
    limit_steps: int | None = None,
    on_step: Callable[[DetLoop], None] | None = None,
) -> T:
    """Run an anyio program on a fresh `DetLoop` and return its result.

    Garbage is collected at fixed steps only, so that finalizers run at the same points in every run.
    """

    def make_loop() -> DetLoop:
        loop = DetLoop(seed, limit_steps=limit_steps)
        loop.on_step = _collect_at_fixed_steps(loop, (lambda: on_step(loop)) if on_step is not None else None)
        return loop

    automatic = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        return anyio.run(main, *args, backend_options={"loop_factory": make_loop})
    finally:
        if automatic:
            gc.enable()
