"""A process that leads: takes the Lease, writes under its fence and notes every acknowledgement, until it is refused.

python -m tests.store.leader DIRECTORY [URL]      the log is DIRECTORY/kcp.db, or the one at URL
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from kcp.base import logs
from kcp.store.protocol import Fence, Fenced, Unavailable
from tests.store.changes import create, key, lease_spec, open_for_test

LEASE = key("leader", "kube-system", "leases.coordination.k8s.io")
REFUSED = "refused"


async def main(directory: Path, where: str) -> None:
    acknowledged = os.open(directory / "acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    store = open_for_test(where)
    await store.append(create(LEASE, spec=lease_spec("paused")))
    oid, epoch = store.lease_epoch(LEASE) or (0, 0)
    for i in range(1_000_000):
        at = key(f"paused-{i}")
        try:
            done = await store.append(create(at, fence=Fence(oid, epoch)))
        except (Fenced, Unavailable) as error:
            (directory / REFUSED).write_text(f"{type(error).__name__}: {error}")
            break
        os.write(acknowledged, f"{done.rv} {at}\n".encode())
    await store.close()


if __name__ == "__main__":
    logs.configure(level="critical", stream=sys.stderr)
    place = Path(sys.argv[1])
    asyncio.run(main(place, sys.argv[2] if len(sys.argv) > 2 else str(place / "kcp.db")))
