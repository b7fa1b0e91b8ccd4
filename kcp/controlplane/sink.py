"""Decisions of controllers and the scheduler, written into the log."""

from __future__ import annotations

from kcp.base.values import frozen
from kcp.controllers.decisions import Decided
from kcp.store.protocol import Decision, Store


@frozen
class LogSink:
    """The DecisionSink of a running control plane: rows ride along with the writer's next batch."""

    store: Store

    def next_id(self) -> int:
        return self.store.next_decision_id()

    def record(self, decided: Decided) -> None:
        d = decided
        self.store.record(
            Decision(
                id=d.id,
                controller=d.controller,
                key=d.key,
                trigger=d.trigger,
                frontier=d.frontier,
                now_us=d.now_us,
                effects=d.effects,
                memo_before=d.memo_before,
                code_hash=d.code_hash,
                config_hash=d.config_hash,
                epoch=d.epoch,
                first_rv=d.first_rv,
                last_rv=d.last_rv,
                duration_us=d.duration_us,
            )
        )
