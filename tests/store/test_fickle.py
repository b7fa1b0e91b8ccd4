"""Two batches on their way, whatever becomes of each: what was acknowledged is in the log once, what was refused is not."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from kcp.base.clock import SystemClock
from kcp.replay.faults import Faults
from kcp.replay.store_faults import Daemon, SharedLog
from kcp.store.driver import Batch, Behind, Done, Superseded
from kcp.store.head import Published
from kcp.store.log import EventLog
from kcp.store.memory import MemoryDriver
from kcp.store.protocol import Unavailable
from kcp.store.stage import Stage
from tests.store.changes import KINDS, create, key
from tests.store.survival import two_batches_on_their_way

VERDICTS = ("stored", "stored", "stored", "lost", "unknown", "overtaken")
WRITERS = 6
OBJECTS = 5


class Fickle(Daemon):
    """A daemon's driver that keeps up to two batches until it is told what becomes of the first."""

    def __init__(self, log: SharedLog) -> None:
        super().__init__(log, 1, Faults(0, {}, SystemClock(), None))
        self.depth = 2
        self.held: list[tuple[Batch, Done]] = []
        self.neighbour = Published(log.memory.load())
        self.foreign: list[str] = []
        self.superseded = 0

    def commit(self, batch: Batch, done: Done) -> None:
        assert len(self.held) < 2
        self.held.append((batch, done))

    def decide(self, verdict: str) -> None:
        """What becomes of the first; when it fails, nothing is written of the one on top of it."""
        batch, done = self.held.pop(0)
        error = self._outcome(batch, verdict)
        above, self.held = (self.held, []) if error is not None else ([], self.held)
        done(error)
        for _, done_above in above:
            self.superseded += 1
            done_above(Superseded())

    def _outcome(self, batch: Batch, verdict: str) -> Exception | None:
        if verdict == "overtaken":
            self._overtake()
        if verdict == "lost":
            return Unavailable("lost")
        tail = self.log.tail(batch.base_rv)
        if tail is not None:
            return Behind(tail)
        self.log.write(batch)
        return Unavailable("unknown") if verdict == "unknown" else None

    def _overtake(self) -> None:
        """Another daemon writes."""
        tail = self.log.tail(self.neighbour.rv)
        if tail is not None:
            self.neighbour.publish(tail)
        stage = Stage(self.neighbour, self.neighbour.ts_us + 1)
        self.foreign.append(f"foreign-{len(self.foreign)}")
        stage.run(create(key(self.foreign[-1])))
        batch = stage.batch((), (), (), None)
        self.log.write(batch)
        self.neighbour.publish(batch)


class Trial:
    """Writers on a fickle log: each makes one object after the other."""

    def __init__(self) -> None:
        memory = MemoryDriver("uid")
        memory.register(KINDS)
        self.driver = Fickle(SharedLog(memory))
        self.log = EventLog(self.driver, SystemClock())
        self.acknowledged: dict[str, int] = {}
        self.refused: dict[str, str] = {}

    async def write(self, writer: int) -> None:
        for number in range(OBJECTS):
            name = f"w{writer}-{number}"
            try:
                self.acknowledged[name] = (await self.log.append(create(key(name)))).rv
            except Unavailable as error:
                self.refused[name] = str(error)

    async def run(self, verdicts: list[str]) -> None:
        writers = asyncio.gather(*[self.write(writer) for writer in range(WRITERS)])
        left = iter(verdicts)
        while not writers.done():
            for _ in range(6):
                await asyncio.sleep(0)
            if self.driver.held:
                self.driver.decide(next(left, "stored"))
        await writers

    async def verify(self) -> None:
        await self.log.catch_up()
        events = await self.log.events_since(0, limit=1000)
        names = [event.key.name for event in events]
        found = dict(zip(names, range(1, len(events) + 1), strict=True))
        assert [event.rv for event in events] == list(found.values())
        assert self.acknowledged.items() <= found.items()
        unknown = {name for name, why in self.refused.items() if why == "unknown"}
        assert set(found) - unknown == {*self.acknowledged, *self.driver.foreign}
        assert [record.key.name for record in self.log.list("configmaps")] == sorted(found)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(VERDICTS), max_size=14))
def test_whatever_becomes_of_each(verdicts: list[str]) -> None:
    async def check() -> None:
        trial = Trial()
        await trial.run(verdicts)
        await trial.verify()

    with two_batches_on_their_way():
        asyncio.run(check())


def test_some_were_on_top_of_one_that_failed() -> None:
    async def count() -> int:
        trial = Trial()
        await trial.run(["lost", "overtaken", "stored"] * 3)
        return trial.driver.superseded

    with two_batches_on_their_way():
        assert asyncio.run(count()) > 0
