"""Client libraries as people install them, each in a process of its own: they may leave sockets and warnings behind.

The scenarios are the tests of `clients/with_<library>.py`; run one of those files with pytest to see it alone.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.real.daemon import ROOT, Daemon

SCENARIOS = Path(__file__).with_name("clients")
TIMEOUT_S = 110.0
PYTHON_LIBRARIES = ("kubernetes", "kubernetes_asyncio", "kr8s", "lightkube", "kopf")


@pytest.mark.real
@pytest.mark.parametrize("library", PYTHON_LIBRARIES)
def test_a_python_library(library: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"the PyPI package {library} is not installed")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-W",
        "ignore",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
    ]
    done = subprocess.run(
        [*command, "--basetemp", str(tmp_path / "inner"), str(SCENARIOS / f"with_{library}.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert " passed" in done.stdout and "skipped" not in done.stdout, done.stdout


CLIENT_NODE = "@kubernetes/client-node@1.4.0"


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """A directory with the library in it, filled once and kept between runs."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    home = Path(tempfile.gettempdir()) / f"kcp-tests-{os.getuid()}-client-node"
    if not (home / "node_modules" / "@kubernetes").is_dir():
        home.mkdir(exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--silent", CLIENT_NODE]
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=90, check=False)
        if done.returncode != 0:
            pytest.skip(f"npm cannot install {CLIENT_NODE}: {done.stderr.strip().splitlines()[-1:]}")
    return home


@pytest.mark.real
def test_client_node(node_modules: Path, daemon: Daemon, namespace: str) -> None:
    script = node_modules / "with_client_node.mjs"  # imports are looked up beside the script
    shutil.copyfile(SCENARIOS / script.name, script)
    done = subprocess.run(
        ["node", str(script), str(daemon.kubeconfig), namespace],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.count("ok ") == 7
