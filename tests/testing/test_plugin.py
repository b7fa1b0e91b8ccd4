"""The plugin as a project of someone else gets it: pytest in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = "kcp.testing.plugin"
TIMEOUT_S = 90.0

SMALL = """
import pytest

@pytest.mark.kcp(nodes=2)
def test_two(kcp_cluster):
    assert len(kcp_cluster.client.list("nodes")) == 2
    assert kcp_cluster.kubeconfig.is_file()

def test_one(kcp_cluster):
    assert len(kcp_cluster.client.list("nodes")) == 1

@pytest.mark.asyncio
async def test_inside_a_loop(kcp_cluster):
    assert kcp_cluster.url.startswith("https://127.0.0.1:")
"""


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Pytest in `directory`, warnings as errors, without the settings of this repository."""
    installed = any(each.value == PLUGIN for each in entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", PLUGIN]
    command = [sys.executable, "-m", "pytest", *plugin, "-p", "no:cacheprovider", "-W", "error", "-q"]
    return subprocess.run(
        [*command, "--strict-markers", "-c", "none.ini", "--rootdir", str(directory), *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "none.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    return tmp_path


def test_the_package_announces_the_plugin() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert declared["project"]["entry-points"]["pytest11"] == {"kcp": PLUGIN}


def test_every_test_gets_the_cluster_that_its_marker_describes(project: Path) -> None:
    (project / "test_small.py").write_text(SMALL)
    done = run(project)
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_a_wrong_option_is_an_error_that_tells_the_right_ones(project: Path) -> None:
    (project / "test_wrong.py").write_text(
        "import pytest\n@pytest.mark.kcp(3, machines=3)\ndef test_it(kcp_cluster): ...\n"
    )
    done = run(project)
    assert "@pytest.mark.kcp does not take 3, machines; it is kcp(nodes=1" in done.stdout, done.stdout


def test_without_the_fixture_nothing_of_kcp_is_loaded(project: Path) -> None:
    (project / "test_light.py").write_text(
        "import sys\ndef test_it(): assert not {'kcp.store', 'kcp.api', 'structlog'} & set(sys.modules)\n"
    )
    done = run(project)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.real
def test_the_example_passes(project: Path) -> None:
    pytest.importorskip("kubernetes")
    pytest.importorskip("kopf")
    for name in ("test_with_kcp.py", "kopf_checksums.py"):
        (project / name).symlink_to(ROOT / "examples" / name)
    done = run(project, "test_with_kcp.py")
    assert "3 passed" in done.stdout, done.stdout + done.stderr
