"""A daemon of this checkout for a benchmark: started on a free port, measured by its CPU time, stopped by its pid."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

READY = re.compile(r"kcp is ready at (https://\S+)")
START_TIMEOUT_S = 600.0
"""A daemon that ends is noticed at once; one with 15,000 nodes needs minutes on a busy machine."""


@attrs.frozen
class Daemon:
    """`cpu_s` is user plus system time of the process so far, `rss_mib` its resident memory."""

    pid: int
    url: str
    data: Path

    @property
    def kubeconfig(self) -> Path:
        return self.data / "kubeconfig"

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mib(self) -> float:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def daemon(*arguments: str) -> Iterator[Daemon]:
    """`kcp up` with these arguments until the block ends."""
    with tempfile.TemporaryDirectory(prefix="kcp-bench-") as directory:
        data, output = Path(directory) / "data", Path(directory) / "output"
        command = [sys.executable, "-c", "from kcp.cli.main import main; main()", "up"]
        command += ["--data", str(data), "--listen", "127.0.0.1:0", *arguments]
        with output.open("w") as sink:
            process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT)
        try:
            yield Daemon(process.pid, _wait_ready(process, output), data)
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_ready(process: subprocess.Popen[bytes], output: Path) -> str:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        found = READY.search(output.read_text())
        if found:
            return found[1]
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"the daemon did not start: {output.read_text()}")


def fsync_per_s(directory: Path, rounds: int = 200) -> float:
    """How often this disk makes 8 KiB durable per second: belongs beside every figure of durable writes."""
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        started = time.perf_counter()
        for _ in range(rounds):
            os.pwrite(file.fileno(), b"x" * 8192, 0)
            os.fdatasync(file.fileno())
        return rounds / (time.perf_counter() - started)
