"""What the tutorial tells people to type works, and prints what it shows."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from tests.real import kubectl as kubectls
from tests.real.daemon import ENTRY, ROOT, Daemon, environment

pytestmark = pytest.mark.real

DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
TIMEOUT_S = 90.0


@attrs.frozen
class Step:
    """Commands to type, and the lines that the page shows below them; `…` stands for anything."""

    commands: str
    shown: tuple[str, ...]


def blocks(page: Path) -> list[tuple[str, str]]:
    return [(language, text) for language, text in BLOCK.findall(page.read_text(encoding="utf-8"))]


def steps(page: Path) -> Iterator[Step]:
    found = blocks(page)
    for index, (language, text) in enumerate(found):
        if language == "sh":
            following = found[index + 1] if index + 1 < len(found) else ("", "")
            shown = following[1].splitlines() if following[0] == "text" else []
            yield Step(text, tuple(shown))


def pattern(line: str) -> re.Pattern[str]:
    """Runs of blanks are alike; `…` is anything."""
    parts = [r"\s+".join(re.escape(word) for word in part.split()) for part in line.split("…")]
    return re.compile(r"^\s*" + r".*".join(parts), re.M)


@pytest.fixture(scope="module")
def shell(daemon: Daemon) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Runs commands with bash in a directory like a checkout, with kubectl and kcp at hand."""
    try:
        kubectls.binary("path")
    except kubectls.Missing as reason:
        pytest.skip(str(reason))
    program = daemon.home / "bin" / "kcp"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{ENTRY}" "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    (daemon.home / "examples").symlink_to(ROOT / "examples")
    env = environment(daemon.home)
    env |= {
        "PATH": f"{program.parent}:{env['PATH']}",
        "KUBECONFIG": str(daemon.kubeconfig),
        "KCP_DATA": str(daemon.data),
    }

    def run(commands: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=daemon.home,
            env=env,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    return run


def test_the_tutorial(shell: Callable[[str], subprocess.CompletedProcess[str]]) -> None:
    found = list(steps(DOCS / "tutorial.md"))
    assert len(found) > 8
    for step in found:
        done = shell(step.commands)
        assert done.returncode == 0, f"{step.commands}\n{done.stdout}\n{done.stderr}"
        for line in step.shown:
            assert pattern(line).search(done.stdout), f"{step.commands}\nno {line!r} in\n{done.stdout}"


def test_pages_link_to_pages_that_exist() -> None:
    pages = [ROOT / "README.md", *DOCS.rglob("*.md")]
    for page in pages:
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.relative_to(ROOT)} links to {link}"


def test_every_example_is_run_by_a_test() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    names = [path.name for path in (ROOT / "examples").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert [name for name in names if name not in tests] == []
