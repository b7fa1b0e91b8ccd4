"""The real daemon as a process: started from this checkout, waited for, stopped, killed, started again."""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import attrs
from click.testing import CliRunner

from kcp.cli.main import kcp as commands

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
ENTRY = "from kcp.cli.main import main; main()"
READY = re.compile(r"kcp is ready at https://(?P<host>[^:]+):(?P<port>\d+) \((?P<took>[0-9.]+) s")
START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 30.0
POLL_S = 0.05


def environment(home: Path, package: Path = ROOT) -> dict[str, str]:
    """The process environment of a person with nothing set up: no kubeconfig, an own home, no KCP_ variables."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("KCP_", "KUBE", "COV_", "PYTEST"))}
    return {**kept, "HOME": str(home), "PYTHONPATH": str(package), "PYTHONUNBUFFERED": "1"}


def kcp(
    *arguments: str | Path, home: Path, package: Path = ROOT, timeout_s: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run one `kcp` command to its end."""
    return subprocess.run(
        [sys.executable, "-c", ENTRY, *map(str, arguments)],
        env=environment(home, package),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def eventually(probe: Callable[[], T | None], what: str, timeout_s: float = 30.0) -> T:
    """What `probe` gives once it is neither None nor False. AssertionError after the deadline."""
    until = time.monotonic() + timeout_s
    while True:
        found = probe()
        if found is not None and found is not False:
            return found
        if time.monotonic() > until:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(POLL_S)


@attrs.define
class Daemon:
    """One data directory and the process on it. The first start takes a free port, later ones the same."""

    data: Path
    home: Path
    nodes: int = 0
    options: Sequence[str] = ()
    port: int = 0
    took_s: float = 0.0
    process: subprocess.Popen[str] | None = None

    @property
    def kubeconfig(self) -> Path:
        return self.data / "kubeconfig"

    @property
    def errors(self) -> str:
        """What the daemon wrote to stderr, all starts together."""
        return self._stderr.read_text(encoding="utf-8")

    @property
    def _stderr(self) -> Path:
        return self.home / "daemon.stderr"

    def start(self) -> Daemon:
        assert self.process is None, "it runs already"
        command = ["up", "--data", str(self.data), "--listen", f"127.0.0.1:{self.port}"]
        with self._stderr.open("a", encoding="utf-8") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", ENTRY, *command, "--nodes", str(self.nodes), *self.options],
                env=environment(self.home),
                cwd=self.home,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        self._await_ready()
        return self

    def _await_ready(self) -> None:
        assert self.process is not None and self.process.stdout is not None
        until = time.monotonic() + START_DEADLINE_S
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while selector.select(max(0.0, until - time.monotonic())):
                line = self.process.stdout.readline()
                found = READY.match(line)
                if found:
                    self.port, self.took_s = int(found["port"]), float(found["took"])
                    return
                if not line:
                    self.stop(signal.SIGKILL)
                    raise AssertionError(f"the daemon ended before it was ready:\n{self.errors}")
        self.stop(signal.SIGKILL)
        raise AssertionError(f"the daemon was not ready within {START_DEADLINE_S:g} s:\n{self.errors}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal the process and wait for its end. Returns its exit code; a daemon that is not running gives 0."""
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            code = process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()
        return code

    def kill(self) -> None:
        """SIGKILL: no chance to write anything."""
        self.stop(signal.SIGKILL)

    def kcp(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """A `kcp` command that reads this daemon's log."""
        return kcp(*arguments, "--data", self.data, home=self.home)

    def sql(self, query: str, *options: str) -> str:
        """What `kcp sql` prints; run inside this process, which spares its start."""
        done = CliRunner().invoke(commands, ["sql", query, *options, "--data", str(self.data)])
        assert done.exit_code == 0, done.output
        return done.stdout
