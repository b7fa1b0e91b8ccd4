"""A daemon that cannot start says why, in one sentence."""

from __future__ import annotations

import anyio
import pytest

from kcp.base.clock import SystemClock
from kcp.base.entropy import SeededEntropy
from kcp.controlplane import daemon
from kcp.controlplane.cluster import Cluster, ClusterOptions
from kcp.store.open import open_store
from kcp.store.protocol import Cause, Operation, StoreError, Unavailable


def first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def started(cluster: Cluster) -> None:
    async with anyio.create_task_group() as group:
        await daemon._start(group, cluster)
        group.cancel_scope.cancel()


async def test_a_database_that_goes_away_during_the_start_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, entropy = SystemClock(), SeededEntropy(1)
    store = open_store("memory:", clock=clock, entropy=entropy)
    cluster = Cluster.build(store, clock, entropy, ClusterOptions(controllers=(), scheduler=False))

    async def refuse(operation: Operation) -> None:
        assert isinstance(operation.cause, Cause)
        raise Unavailable("cannot reach postgresql://db/kcp: connection refused")

    monkeypatch.setattr(store, "append", refuse)
    with pytest.raises(BaseExceptionGroup) as ended:
        await started(cluster)
    why = first(ended.value)
    assert isinstance(why, StoreError)
    assert str(why) == (
        "the control plane did not start: the store is unavailable: "
        "cannot reach postgresql://db/kcp: connection refused"
    )


async def test_a_start_that_hangs_ends_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, entropy = SystemClock(), SeededEntropy(1)
    store = open_store("memory:", clock=clock, entropy=entropy)
    cluster = Cluster.build(store, clock, entropy, ClusterOptions(controllers=(), scheduler=False))

    async def hang(operation: Operation) -> None:
        del operation
        await anyio.sleep_forever()

    monkeypatch.setattr(store, "append", hang)
    monkeypatch.setattr(daemon, "START_TIMEOUT_S", 0.2)
    with pytest.raises(BaseExceptionGroup) as ended:
        await started(cluster)
    assert str(first(ended.value)) == "the control plane did not start within 0.2 s"
