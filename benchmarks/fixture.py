"""How long a test waits for the fixture `kcp_cluster`: the first of a process, with all that is imported, and the next.

python -m benchmarks.fixture
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

NEXT = 15
NODES = 3


def start_s(directory: Path) -> float:
    begun = time.perf_counter()
    from kcp.testing import serve

    with serve(directory, nodes=NODES):
        return time.perf_counter() - begun


def main(file: str | None) -> None:
    with tempfile.TemporaryDirectory() as directory:
        first, *following = [start_s(Path(directory) / str(number)) for number in range(NEXT + 1)]
    usual, worst = statistics.median(following), max(following)
    print(f"first {first * 1000:.0f} ms; next: median {usual * 1000:.0f} ms, longest {worst * 1000:.0f} ms")
    print(f"the first takes {first / usual:.1f} times as long as the next")
    if file is not None:
        Path(file).write_text(json.dumps({"first_s": first, "next_s": following}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="FILE")
    main(parser.parse_args().json)
