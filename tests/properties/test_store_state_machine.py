"""Any sequence of operations against a plain model of the log; every read at every revision must agree."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

import attrs
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kcp.base.clock import VirtualClock
from kcp.store import check
from kcp.store.log import EventLog
from kcp.store.protocol import Committed, Op, Operation
from kcp.store.transfer import checksum_of
from tests.store.changes import Heard, create, delete, key, lease_spec, open_for_test, plain, told, update

NAMES = st.sampled_from([("a", "x"), ("a", "y"), ("a-b", "x"), ("b", "x"), ("b", "z")])
LEASE = key("leader", "kube-system", "leases.coordination.k8s.io")


@attrs.define
class Model:
    """The state after each revision, as a list of maps; index = revision."""

    states: list[dict[tuple[str, str], Any]] = attrs.field(factory=lambda: [{}])

    @property
    def now(self) -> dict[tuple[str, str], Any]:
        return self.states[-1]

    def follow(self, outcome: Committed) -> None:
        assert outcome.record is not None
        place = (outcome.record.key.namespace, outcome.record.key.name)
        state = dict(self.now)
        if outcome.op is Op.DELETED:
            del state[place]
        else:
            state[place] = plain(outcome.record)
        self.states.append(state)


class StoreMachine(RuleBasedStateMachine):
    where: str | Path

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = VirtualClock()
        self.model = Model()
        self.heard = Heard()
        self.holder: str | None = None
        self.epoch = 0
        self.lease_oid = 0
        self.directory = Path(tempfile.mkdtemp(prefix="kcp-machine-"))

    @initialize(durable=st.booleans())
    def open(self, durable: bool) -> None:
        self.durable = durable
        self.store = self._open()

    def _open(self) -> EventLog:
        where = self.directory if self.durable else "memory:"
        store = open_for_test(where, self.clock, inline=True)
        store.listen(self.heard)
        return store

    def run(self, operations: list[Operation], atomic: bool = False) -> list[Any]:
        return self.loop.run_until_complete(self.store.append_all(operations, atomic=atomic))

    def _operation(self, step: tuple[tuple[str, str], str, int]) -> Operation:
        (namespace, name), verb, value = step
        at = key(name, namespace)
        if verb == "delete":
            return delete(at)
        return {"create": create, "update": update}[verb](at, data={"v": str(value)})

    @rule(
        steps=st.lists(
            st.tuples(NAMES, st.sampled_from(["create", "update", "delete"]), st.integers(0, 3)), max_size=6
        ),
        atomic=st.booleans(),
        seconds=st.sampled_from([0.0, 0.0, 0.3, 5.0]),
    )
    def write(self, steps: list[Any], atomic: bool, seconds: float) -> None:
        self.clock.advance(seconds)
        before = self.store.rv
        outcomes = self.run([self._operation(step) for step in steps], atomic)
        present = set(self.model.now)
        legal = []
        for place, verb, _ in steps:
            legal.append((place in present) == (verb != "create"))
            if legal[-1] and verb != "update":
                present ^= {place}
        if atomic and not all(legal):
            assert all(isinstance(outcome, Exception) for outcome in outcomes)
            assert self.store.rv == before
            return
        assert [isinstance(outcome, Committed) for outcome in outcomes] == legal
        for outcome in outcomes:
            if isinstance(outcome, Committed):
                self.model.follow(outcome)

    @rule(holder=st.sampled_from(["", "p", "q"]))
    def lead(self, holder: str) -> None:
        if self.holder is None:
            (outcome,) = self.run([create(LEASE, spec=lease_spec(holder))])
            self.epoch, self.lease_oid = 0, outcome.rv
        else:
            (outcome,) = self.run([update(LEASE, renewal=True, spec=lease_spec(holder))])
            self.epoch += holder not in ("", self.holder)
            assert (outcome.op is Op.RENEWED) == (holder == self.holder)
        self.holder = holder
        self.model.states.append(dict(self.model.now))
        assert self.store.lease_epoch(LEASE) == (self.lease_oid, self.epoch)

    @precondition(lambda self: self.durable)
    @rule()
    def reopen(self) -> None:
        before = [plain(record) for record in self.store.list("configmaps")]
        epoch = self.store.epoch
        self.loop.run_until_complete(self.store.close())
        assert check.problems(self.directory) == []
        self.store = self._open()
        assert self.store.epoch == epoch + 1
        assert [plain(record) for record in self.store.list("configmaps")] == before

    @rule(data=st.data())
    def look_back(self, data: st.DataObject) -> None:
        rv = data.draw(st.integers(0, self.store.rv))
        expected = [self.model.states[rv][place] for place in sorted(self.model.states[rv])]
        found = self.loop.run_until_complete(self.store.list_at("configmaps", rv))
        assert [plain(record) for record in found] == expected
        namespace, name = place = data.draw(NAMES)
        record = self.loop.run_until_complete(self.store.get_at(key(name, namespace), rv))
        assert plain(record) == self.model.states[rv].get(place)

    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        since = data.draw(st.integers(0, self.store.rv))
        found = self.loop.run_until_complete(self.store.events_since(since, resources=["configmaps"]))
        wanted = [e for e in self.heard.events if e.rv > since and e.key.resource == "configmaps"]
        assert [told(event) for event in found] == [told(event) for event in wanted]

    @invariant()
    def head_agrees(self) -> None:
        if not hasattr(self, "store"):
            return
        assert self.store.rv == len(self.model.states) - 1
        listed = [plain(record) for record in self.store.list("configmaps")]
        assert listed == [self.model.now[place] for place in sorted(self.model.now)]
        assert [event.rv for event in self.heard.events] == list(range(1, self.store.rv + 1))

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.loop.run_until_complete(self.store.close())
            if self.durable:
                assert check.problems(self.directory) == []
                assert len(checksum_of(self.directory)) == 64
        self.loop.close()
        shutil.rmtree(self.directory)


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)
