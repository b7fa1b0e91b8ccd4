"""Killed with SIGKILL under load: what was acknowledged is there, and the log is sound. `make torture` does it for long."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store import killing, postgres
from tests.store.changes import create, key, open_for_test

ROUNDS = 3


async def test_no_acknowledged_write_is_lost(tmp_path: Path) -> None:
    for round_ in range(ROUNDS):
        killing.kill_a_daemon(tmp_path)
        store = open_for_test(tmp_path / "kcp.db")
        assert store.epoch == (round_ + 1) * 2
        await store.append(create(key(f"after-{round_}")))
        await store.close()
        killing.verify_sqlite(tmp_path)


@pytest.mark.real
def test_no_acknowledged_write_is_lost_when_the_database_dies_too(tmp_path: Path) -> None:
    postgres.require()
    log = killing.Shared(tmp_path)
    try:
        log.round(80)
        log.verify()
    finally:
        log.remove()


def test_the_check_would_notice() -> None:
    killing.verify([1, 3], [1, 2, 3])
    for told, found in (([4], [1, 2, 3]), ([1, 1], [1]), ([1], [1, 3])):
        with pytest.raises(AssertionError):
            killing.verify(told, found)
