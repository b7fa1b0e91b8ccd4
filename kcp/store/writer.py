"""The single writer: takes whatever is queued, decides it against the staged head, makes it durable as one batch.

There is no timer and no writer task: a submission schedules `_drain` on the loop, or drains at once when EAGER_OPERATIONS
wait. So an append works whether or not `Store.run` is running, and nothing that is cancelled can leave a batch half done.

    queued ──_drain──▶ staged ──driver.commit──▶ durable ──publish──▶ feed, then the answers

While a batch is on its way to the disk the next one is decided ahead, on top of it, and follows it before its outcome is
known if the driver takes another (`depth`) and it is large. If the batch fails, or another daemon was faster, or an
operation decided ahead is cancelled, what was decided on top of it is forgotten and decided again.

Outcomes, failures included, go out only after the batch they were decided in is durable, since they tell of its state.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import structlog

from kcp.base.clock import Clock, microseconds
from kcp.store import storable
from kcp.store.driver import Batch, Behind, Driver, Superseded
from kcp.store.head import Published
from kcp.store.protocol import Decision, Input, Operation, Projection, Unavailable
from kcp.store.stage import Outcomes, Stage

log = structlog.get_logger(__name__)

MAX_BATCH_OPERATIONS = 512
MAX_BATCH_BYTES = 4 * 1024 * 1024
EAGER_OPERATIONS = 128
"""So many start a batch before the loop comes around: their commit then runs beside the work of all others."""
SLOW_COMMIT_S = 0.01
EXPECTED_EVENT_S = 0.00005
"""After a commit that took longer than its events explain, a batch waits until the loop has come around, so that more
share the wait of the next one. Otherwise the engine works on one half while the other is decided."""
MAX_QUEUED_OPERATIONS = 16_384
"""Beyond, newcomers wait."""
MAX_PENDING_RECORDS = 65_536
"""Decisions and inputs kept while the disk refuses them; beyond, the oldest are dropped."""
MAX_RECORDS_PER_BATCH = 2_048
IDLE_S = 1.0


@attrs.define(slots=True, eq=False)
class Submission:
    """Operations that go into one transaction, and who waits for their outcomes."""

    operations: Sequence[Operation]
    answer: asyncio.Future[Outcomes]
    atomic: bool = False
    horizon: int | None = None


Taken = list[tuple[Submission, Outcomes]]


@attrs.define(slots=True, eq=False)
class Round:
    """Submissions decided on one stage: the batch to be, or on its way."""

    stage: Stage
    taken: Taken = attrs.field(factory=list)
    count: int = 0
    horizon: int | None = None


Records = list[tuple[int, int, "Decision | Input"]]
Looking = asyncio.Future[None] | None


@attrs.define(slots=True, eq=False)
class Flight:
    """A batch on its way to the disk, and what to do when it is there. `error` is set when it will not be."""

    stage: Stage
    batch: Batch
    taken: Taken
    records: Records
    looking: Looking
    started_s: float
    error: BaseException | None = None


class Writer:
    """Owned by one event loop: whichever runs while it has work."""

    def __init__(
        self,
        driver: Driver,
        published: Published,
        clock: Clock,
        publish: Callable[[Batch], None],
        projections: Sequence[Projection],
        input_seq: int,
    ) -> None:
        self._driver = driver
        self._published = published
        self._clock = clock
        self._publish = publish
        self._projections = projections
        self._queue: deque[Submission] = deque()
        self._queued = 0
        self._records: deque[tuple[int, int, Decision | Input]] = deque()
        self._input_place = (published.rv, input_seq)
        self._busy = False
        self._flying: deque[Flight] = deque()
        self._failed: list[Flight] = []
        self._ahead: Round | None = None
        self._slow = False
        self._scheduled = False
        self._draining = False
        self._flush_due = False
        self._looking: asyncio.Future[None] | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._last_commit_s = 0.0
        self._chores: deque[tuple[Callable[[Any], Any], asyncio.Future[Any]]] = deque()
        self._chore_next = True
        self._change = asyncio.Event()
        self.closing = False
        self.dropped_records = 0
        self._failing = False

    async def submit(
        self, operations: Sequence[Operation], *, atomic: bool = False, horizon: int | None = None
    ) -> Outcomes:
        """Queue operations for one transaction and wait for their outcomes. Raises Unavailable.

        Waits for room while the queue is full. Cancelled in the queue, nothing happens.
        """
        while self._queued >= MAX_QUEUED_OPERATIONS and not self.closing:
            await self._change.wait()
        if self.closing:
            raise Unavailable("the store is closed")
        answer: asyncio.Future[Outcomes] = asyncio.get_running_loop().create_future()
        self._queue.append(Submission(operations, answer, atomic, horizon))
        self._queued += len(operations)
        self._drain_soon()
        return await answer

    def record(self, entry: Decision | Input) -> None:
        """Keep an entry for the next batch. Never blocks."""
        rv = self._published.rv
        seq = 0
        if isinstance(entry, Input):
            at, last = self._input_place
            seq = last + 1 if at == rv else 1
            self._input_place = (rv, seq)
        self._records.append((rv, seq, entry))
        if len(self._records) > MAX_PENDING_RECORDS:
            self._records.popleft()
            self.dropped_records += 1
        if len(self._records) == MAX_RECORDS_PER_BATCH:
            self._flush_due = True
            self._schedule()
        self._arm_idle()

    async def catch_up(self) -> None:
        """Return once everything that was durable when called is published. Raises Unavailable.

        On an engine of our own that is always so. A look that is already on its way started too early to count.
        """
        if not self._driver.shared:
            return
        if self.closing:
            raise Unavailable("the store is closed")
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_future()
        looking = self._looking
        self._schedule()
        await asyncio.shield(looking)

    async def chore(self, work: Callable[[Any], Any]) -> Any:
        """Run a short transaction of the driver's housekeeping between two batches, and give what it gives.

        Raises what it raises, Unavailable when the store closes. Cancelled, it may still happen.
        """
        if self.closing:
            raise Unavailable("the store is closed")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._chores.append((work, answer))
        self._schedule()
        return await answer

    async def drain(self) -> None:
        """Write all that is queued and recorded, then stop taking more."""
        self.closing = True
        self._wake()
        self._flush_due = True
        self._scheduled = False
        self._schedule()
        while self._occupied or self._ahead or self._queue or (self._flush_due and self._records):
            await self._change.wait()
        _tell(self._looking, Unavailable("the store is closed"))
        while self._chores:
            _tell(self._chores.popleft()[1], Unavailable("the store is closed"))
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _schedule(self) -> None:
        if self._scheduled:
            return
        loop = _running_loop()
        if loop is not None:
            self._scheduled = True
            loop.call_soon(self._come_around)

    @property
    def _occupied(self) -> bool:
        """Whether the driver has something to do for us."""
        return self._busy or bool(self._flying)

    def _drain_soon(self) -> None:
        """At once if there is enough for a batch of its own and the disk is not what all wait for; else once around the loop."""
        ahead = 0 if self._ahead is None else self._ahead.count
        if self._draining or self._slow or self._queued + ahead < EAGER_OPERATIONS or not self._has_room():
            self._schedule()
        else:
            self._drain()

    def _has_room(self) -> bool:
        """Whether the driver takes a batch now, on top of what it has."""
        return (
            not self._busy
            and not self._failed
            and (not self._flying or len(self._flying) < self._driver.depth)
        )

    def _come_around(self) -> None:
        self._scheduled = False
        self._drain()

    def _drain(self) -> None:
        self._draining = True
        try:
            if self._failed:
                pass
            elif self._occupied:
                self._decide_ahead()
                self._follow()
            elif self._chores and self._chore_next:
                self._run_chore()
            elif self._ahead or self._queue or (self._flush_due and self._records):
                self._start()
            elif self._looking is not None:
                self._look([], [])
            self._chore_next = self._chore_next or not self._has_work()
        finally:
            self._draining = False
        if not self._occupied and self._has_work():
            self._schedule()
        self._arm_idle()

    def _has_work(self) -> bool:
        return bool(
            self._queue or self._ahead or self._looking or self._chores or (self._flush_due and self._records)
        )

    def _open_round(self) -> Round:
        now_us = microseconds(self._clock.now()) + self._driver.ahead_us
        return Round(Stage(self._published, now_us, self._flying[-1].stage if self._flying else None))

    def _decide_ahead(self) -> None:
        """On top of the batch that is on its way."""
        if self._queue:
            if self._ahead is None:
                self._ahead = self._open_round()
            self._decide(self._ahead)

    def _follow(self) -> None:
        """Start what was decided ahead, if it is worth a batch of its own and nothing else waits for its turn."""
        ahead = self._ahead
        if ahead is None or ahead.count < EAGER_OPERATIONS or self._slow or not self._has_room():
            return
        if not (self._chores and self._chore_next):
            current = self._next_round()
            if current.stage.staged:
                self._launch(current)
            else:
                self._ahead = current

    def _next_round(self) -> Round:
        """What was decided ahead, unless someone it was decided for has gone, with what was queued since."""
        current = self._ahead
        if current is not None and any(submission.answer.done() for submission, _ in current.taken):
            self._forget_ahead()
            current = None
        self._ahead = None
        if current is None:
            current = self._open_round()
        self._decide(current)
        return current

    def _forget_ahead(self) -> None:
        if self._ahead is not None:
            taken, self._ahead = self._ahead.taken, None
            self._requeue(taken)

    def _run_chore(self) -> None:
        """One between two batches, so that neither waits for long."""
        work, answer = self._chores.popleft()
        self._chore_next = False
        if answer.done():
            return
        found: list[Any] = []
        self._busy = True
        self._driver.chore(
            lambda within: found.append(work(within)), lambda error: self._chore_done(answer, found, error)
        )

    def _chore_done(self, answer: asyncio.Future[Any], found: list[Any], error: BaseException | None) -> None:
        self._busy = False
        if self._ahead is not None:
            self._ahead.stage.settle()
        if error is not None:
            _tell(answer, error)
        elif not answer.done():
            answer.set_result(found[0])
        self._wake()
        if not self._draining:
            self._drain()

    def _start(self) -> None:
        current = self._next_round()
        if current.stage.staged or self._records or current.horizon is not None:
            self._launch(current)
        elif self._driver.shared and current.taken:
            self._chore_next = True
            self._look(current.taken, [])
        else:
            self._chore_next = True
            self._flush_due = False
            self._answer(current.taken)

    def _launch(self, current: Round) -> None:
        self._chore_next = True
        records = [self._records.popleft() for _ in range(min(len(self._records), MAX_RECORDS_PER_BATCH))]
        self._flush_due = self._flush_due and bool(self._records)
        batch = current.stage.batch(
            self._projections,
            [(rv, entry) for rv, _, entry in records if isinstance(entry, Decision)],
            [(rv, seq, entry) for rv, seq, entry in records if isinstance(entry, Input)],
            current.horizon,
        )
        looking, self._looking = self._looking, None
        flight = Flight(current.stage, batch, current.taken, records, looking, _now_s())
        self._flying.append(flight)
        self._driver.commit(batch, lambda error: self._landed(flight, error))

    def _look(self, taken: Taken, records: Records) -> None:
        """Nothing to write; but what was decided counts only if the log is still where we think."""
        self._busy = True
        looking, self._looking = self._looking, None
        base = self._published.rv
        self._driver.catch_up(
            base, lambda error: self._looked(taken, records, looking, error), decided=bool(taken)
        )

    def _looked(self, taken: Taken, records: Records, looking: Looking, error: BaseException | None) -> None:
        self._busy = False
        if error is not None:
            self._forget_ahead()
        elif self._ahead is not None:
            self._ahead.stage.settle()
        self._conclude(None, taken, records, looking, error)

    def _decide(self, current: Round) -> None:
        queue, stage, taken = self._queue, current.stage, current.taken
        while queue and stage.size_bytes < MAX_BATCH_BYTES:
            submission = queue[0]
            size = len(submission.operations)
            if current.count + size > MAX_BATCH_OPERATIONS and taken:
                break
            queue.popleft()
            self._queued -= size
            if submission.answer.done():
                continue
            current.count += size
            taken.append((submission, _run(stage, submission)))
            if submission.horizon is not None:
                current.horizon = max(submission.horizon, current.horizon or 0)

    def _landed(self, flight: Flight, error: BaseException | None) -> None:
        """Drivers tell of batches in the order in which they got them."""
        assert self._flying[0] is flight
        self._flying.popleft()
        self._judge_speed(flight)
        if error is None and not self._failed:
            above = (
                self._flying[0].stage if self._flying else None if self._ahead is None else self._ahead.stage
            )
            if above is not None:
                above.settle()
            self._conclude(flight.batch, flight.taken, flight.records, flight.looking, None)
            return
        assert error is not None, "a batch was stored on top of one that was not"
        flight.error = error
        self._forget_ahead()
        self._failed.append(flight)
        if not self._flying:
            self._start_over()

    def _judge_speed(self, flight: Flight) -> None:
        now_s = _now_s()
        took_s = now_s - max(flight.started_s, self._last_commit_s)
        self._last_commit_s = now_s
        self._slow = took_s > SLOW_COMMIT_S + EXPECTED_EVENT_S * len(flight.batch.staged)

    def _start_over(self) -> None:
        """All that was on its way is back: the batch that failed, and those on top of it, of which nothing was written."""
        first, *others = self._failed
        self._failed = []
        for flight in reversed(others):
            if isinstance(flight.error, Superseded):
                self._again(flight.taken, flight.records, flight.looking)
            else:
                assert flight.error is not None
                self._refuse(flight.taken, flight.records, flight.error)
                _tell(flight.looking, flight.error)
        self._conclude(first.batch, first.taken, first.records, first.looking, first.error)

    def _conclude(
        self,
        batch: Batch | None,
        taken: Taken,
        records: Records,
        looking: Looking,
        error: BaseException | None,
    ) -> None:
        if error is None:
            if self._failing:
                self._failing = False
                log.warning("batches are written again", rv=self._published.rv)
            if batch is not None:
                self._publish(batch)
            self._answer(taken)
            _tell(looking, None)
        elif isinstance(error, Behind):
            self._publish(error.tail)
            if error.whole:
                _tell(looking, None)
                looking = None
            self._again(taken, records, looking)
        elif (kept := _without_faults(taken, records)) is not None:
            self._again(taken, kept, looking)
        else:
            if (taken or batch is not None) and not self._failing:
                log.error("batch failed", operations=len(taken), error=str(error))
            self._failing = True
            self._refuse(taken, records, error)
            _tell(looking, error)
        self._wake()
        if self._draining:
            return
        if error is None:
            self._drain_soon()
        else:
            self._drain()  # at once: a driver that lost twice holds the log still for what is decided now

    def _answer(self, taken: Taken) -> None:
        for submission, outcomes in taken:
            if not submission.answer.done():
                submission.answer.set_result(outcomes)
        self._wake()

    def _again(self, taken: Taken, records: Records, looking: Looking) -> None:
        self._requeue(taken)
        self._records.extendleft(reversed(records))
        if looking is not None:
            if self._looking is None:
                self._looking = looking
            else:
                self._looking.add_done_callback(lambda newer: _tell(looking, newer.exception()))

    def _requeue(self, taken: Taken) -> None:
        for submission, _ in reversed(taken):
            self._queue.appendleft(submission)
            self._queued += len(submission.operations)

    def _refuse(self, taken: Taken, records: Records, error: BaseException) -> None:
        if not self.closing:
            self._records.extendleft(reversed(records))
        for submission, _ in taken:
            if not submission.answer.done():
                submission.answer.set_exception(Unavailable(str(error)))

    def _arm_idle(self) -> None:
        if self._idle_timer is None and not self.closing:
            loop = _running_loop()
            if loop is not None:
                self._idle_timer = loop.call_later(IDLE_S, self._on_idle)

    def _on_idle(self) -> None:
        self._idle_timer = None
        if self._occupied or self._queue or self._ahead or _now_s() - self._last_commit_s < IDLE_S / 2:
            self._arm_idle()
        elif self._records:
            self._flush_due = True
            self._drain()
        else:
            self._busy = True
            if not self._driver.idle(self._idle_done):
                self._busy = False

    def _idle_done(self, error: BaseException | None) -> None:
        self._busy = False
        if error is not None:
            log.warning("housekeeping failed", error=str(error))
        self._wake()
        if self._has_work():
            self._schedule()

    def _wake(self) -> None:
        self._change.set()
        self._change = asyncio.Event()


def _run(stage: Stage, submission: Submission) -> Outcomes:
    if submission.atomic:
        return stage.run_atomic(submission.operations)
    outcomes: Outcomes = []
    for operation in submission.operations:
        try:
            outcomes.append(stage.run(operation))
        except Exception as error:  # noqa: BLE001 a closure may raise anything; it is the outcome
            outcomes.append(error)
    return outcomes


def _without_faults(taken: Taken, records: Records) -> Records | None:
    """After a failure: the records that can be kept, and in `taken` operations that fail in place of those that cannot.

    None when nothing is wrong with any of them.
    """
    found = False
    for submission, outcomes in taken:
        operations = list(submission.operations)
        for i, (operation, outcome) in enumerate(zip(operations, outcomes, strict=True)):
            if (why := storable.fault_of(operation, outcome)) is not None:
                operations[i], found = storable.refused(operation, why), True
        submission.operations = operations
    kept = []
    for record in records:
        if (why := storable.fault_of_record(record[2])) is None:
            kept.append(record)
        else:
            found = True
            log.error("a record cannot be stored", entry=type(record[2]).__name__, error=why)
    return kept if found else None


def _tell(looking: Looking, error: BaseException | None) -> None:
    if looking is None or looking.done():
        return
    if error is None:
        looking.set_result(None)
    else:
        looking.set_exception(error)
        looking.exception()  # whoever waits hears it; nobody has to wait


def _running_loop() -> Any:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _now_s() -> float:
    return asyncio.get_running_loop().time()
