"""kubectl as it is: the one on PATH, its other versions beside it, and Debian's old one."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

FULL = ("path", "1.27", "1.33")
"""What runs every scenario."""
CORE = ("1.20", "1.28", "1.29", "1.30", "1.31", "1.32")
"""What runs the core set. 1.20 is Debian's package."""
TIMEOUT_S = 60.0


class Missing(Exception):
    """Raised when a version cannot be had here; the text is the reason to skip."""


@functools.cache
def binary(version: str) -> Path:
    """The program of a version: `path`, or `1.NN`. Raises Missing."""
    on_path = shutil.which("kubectl")
    if version == "1.20":
        return _debian()
    if on_path is None:
        raise Missing("no kubectl on PATH")
    if version == "path":
        return Path(on_path)
    beside = Path(on_path).resolve().with_name(f"kubectl.{version}")
    if not beside.exists():
        raise Missing(f"no kubectl.{version} beside the kubectl on PATH")
    return beside


def _debian() -> Path:
    """Debian's kubernetes-client, unpacked once into a directory of this user's, never installed."""
    kept = Path(tempfile.gettempdir()) / f"kcp-tests-{os.getuid()}" / "kubernetes-client"
    program = kept / "usr/bin/kubectl"
    if program.exists():
        return program
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise Missing("no apt-get and dpkg to fetch Debian's kubernetes-client with")
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as work:
        _quietly(["apt-get", "download", "-qq", "kubernetes-client"], Path(work))
        archives = list(Path(work).glob("kubernetes-client_*.deb"))
        if not archives:
            raise Missing("apt-get has no kubernetes-client to download")
        _quietly(["dpkg", "-x", str(archives[0]), "unpacked"], Path(work))
        if not program.exists():
            (Path(work) / "unpacked").rename(kept)
    return program


def _quietly(command: Sequence[str], directory: Path) -> None:
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise Missing(f"{command[0]} {command[1]} failed: {done.stderr.strip()[-200:]}")


class Failed(AssertionError):
    """Raised when a command that should succeed does not."""


@attrs.frozen
class Kubectl:
    """One kubectl on one cluster in one namespace."""

    program: Path
    environment: dict[str, str]
    namespace: str = "default"

    def run(
        self, *arguments: str | Path, stdin: str | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end whatever the exit code. Warnings about the version skew are left out of stderr."""
        done = subprocess.run(
            [str(self.program), "--namespace", self.namespace, *map(str, arguments)],
            env={**self.environment, **(env or {})},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        kept = [line for line in done.stderr.splitlines() if "version difference between client" not in line]
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout, "\n".join(kept))

    def __call__(
        self, *arguments: str | Path, stdin: str | None = None, env: dict[str, str] | None = None
    ) -> str:
        """What a successful command printed. Raises Failed."""
        done = self.run(*arguments, stdin=stdin, env=env)
        if done.returncode != 0:
            raise Failed(f"kubectl {' '.join(map(str, arguments))}: exit {done.returncode}\n{done.stderr}")
        return done.stdout

    def fails(self, *arguments: str | Path, stdin: str | None = None) -> str:
        """What a command that must not succeed said on stderr."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode != 0, f"kubectl {' '.join(map(str, arguments))} succeeded:\n{done.stdout}"
        return done.stderr.strip()

    def json(self, *arguments: str | Path) -> Any:
        return json.loads(self(*arguments, "-o", "json"))

    def rows(self, *arguments: str | Path) -> list[list[str]]:
        """A table as rows of words, the header first."""
        return [line.split() for line in self(*arguments).splitlines() if line]
