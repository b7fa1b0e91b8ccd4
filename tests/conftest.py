"""What every test gets: the loop for its marker, quiet logs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping

import hypothesis
import pytest

from kcp.base import logs
from kcp.base.loop import DetLoop

logs.configure(level="error", stream=sys.stderr)
hypothesis.settings.register_profile("kcp", deadline=None)
hypothesis.settings.load_profile("kcp")  # how long an example takes is the machine's affair


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--decisions",
        type=int,
        default=50_000,
        help="Scheduling decisions that are compared with the oracle.",
    )


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests marked `sim` run on the deterministic loop, where sleeping costs nothing."""
    del config
    if item.get_closest_marker("sim") is not None:
        return {"sim": lambda: DetLoop(0)}
    return {"asyncio": asyncio.new_event_loop}
