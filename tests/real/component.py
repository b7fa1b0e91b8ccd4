"""A component that runs apart from the API server, as a process: started, stopped, frozen, killed."""

from __future__ import annotations

import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path

import attrs
import yaml

from tests.real.daemon import ENTRY, STOP_DEADLINE_S, environment

READY_DEADLINE_S = 60.0
LEASE_S = 3.0
TIMING = (
    "--leader-elect-lease-duration", "3s", "--leader-elect-renew-deadline", "2s",
    "--leader-elect-retry-period", "500ms",
)  # fmt: skip


@attrs.define
class Component:
    """One process of `kcp <command>`; its log goes to a file."""

    command: str
    identity: str
    kubeconfig: Path
    home: Path
    options: tuple[str, ...] = ()
    process: subprocess.Popen[str] | None = None

    @property
    def record(self) -> Path:
        """The log of its decisions."""
        return self.home / f"{self.identity}.db"

    @property
    def log(self) -> str:
        return (self.home / f"{self.identity}.log").read_text(encoding="utf-8")

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> Component:
        command = [self.command, "--kubeconfig", str(self.kubeconfig), "--identity", self.identity]
        with (self.home / f"{self.identity}.log").open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", ENTRY, *command, "--record", str(self.record), *TIMING, *self.options],
                env=environment(self.home),
                cwd=self.home,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._await_ready()
        return self

    def _await_ready(self) -> None:
        assert self.process is not None and self.process.stdout is not None
        until = time.monotonic() + READY_DEADLINE_S
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while selector.select(max(0.0, until - time.monotonic())):
                line = self.process.stdout.readline()
                if f"runs as {self.identity}" in line:
                    return
                if not line:
                    break
        self.kill()
        raise AssertionError(f"{self.command} did not start:\n{self.log}")

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it and wait for its end; the exit code. One that does not run gives 0."""
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            return process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()


def through(kubeconfig: Path, port: int, target: Path) -> Path:
    """A kubeconfig that reaches the same server at another port of this machine."""
    document = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
    document["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
    target.touch(mode=0o600)
    target.write_text(yaml.safe_dump(document), encoding="utf-8")
    return target
