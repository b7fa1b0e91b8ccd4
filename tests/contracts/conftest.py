"""The event logs that the store's contract is run on: `engine` opens one, `store` is an open one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from kcp.base.clock import Clock
from kcp.store.log import EventLog
from tests.store import postgres
from tests.store.changes import open_for_test


@attrs.frozen
class Engine:
    """A place for one log. `lasting`: what was committed is there when it is opened again."""

    name: str
    where: str | Path
    inline: bool = False

    @property
    def lasting(self) -> bool:
        return self.name != "memory"

    def open(self, clock: Clock | None = None, **options: Any) -> EventLog:
        return open_for_test(self.where, clock, inline=self.inline, **options)


LASTING = ["sqlite", "sqlite-inline", pytest.param("postgresql", marks=pytest.mark.real)]


def _engine(name: str, directory: Path) -> Engine:
    if name == "memory":
        return Engine(name, "memory:")
    if name == "postgresql":
        return Engine(name, postgres.database())
    return Engine(name, directory, inline=name == "sqlite-inline")


@pytest.fixture(params=["memory", *LASTING])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    return _engine(request.param, tmp_path)


@pytest.fixture(params=LASTING)
def lasting(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    """Of those only the ones that outlive their process."""
    return _engine(request.param, tmp_path)


@pytest.fixture
async def store(engine: Engine) -> AsyncIterator[EventLog]:
    async with engine.open() as opened:
        yield opened
