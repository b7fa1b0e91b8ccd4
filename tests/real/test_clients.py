"""Client libraries as people install them, each in a process of its own: they may leave sockets and warnings behind.

The scenarios are the tests of `clients/with_<library>.py`; run one of those files with pytest to see it alone.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.real.daemon import ROOT

SCENARIOS = Path(__file__).with_name("clients")
TIMEOUT_S = 110.0
PYTHON_LIBRARIES = ("kubernetes", "kubernetes_asyncio", "kr8s", "lightkube", "kopf")


@pytest.mark.real
@pytest.mark.parametrize("library", PYTHON_LIBRARIES)
def test_a_python_library(library: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"the PyPI package {library} is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "ignore", "-p", "no:cacheprovider", "-p", "no:xdist"]
        + ["--basetemp", str(tmp_path / "inner"), str(SCENARIOS / f"with_{library}.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert " passed" in done.stdout and "skipped" not in done.stdout, done.stdout
