"""What the API server of a moment would have made of a new object: defaults, admission, validation; nothing is written.

with rehearsing("incident.kcplog", 812) as rehearse:
    pod = rehearse("pods", manifest, "default")     # as `kubectl create --dry-run=server` at revision 812
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from anyio.from_thread import start_blocking_portal

from kcp.api import app
from kcp.api.auth.protocol import ALL_AUTHENTICATED, MASTERS, UserInfo
from kcp.apis.catalog import build_catalog
from kcp.base.entropy import SystemEntropy
from kcp.client.client import Client
from kcp.client.transport import InProcessTransport
from kcp.controlplane.cluster import ClusterOptions, build_server
from kcp.machinery.errors import ApiError
from kcp.replay.past import PastClock, PastStore
from kcp.store.reader import LogReader

Json = dict[str, Any]
Rehearse = Callable[[str, Json, str], Json]
"""(resource, object, namespace) -> the object. Raises ValueError with the server's text when it is refused."""
_ASKING = UserInfo("kcp-rehearsal", groups=(MASTERS, ALL_AUTHENTICATED))


@contextlib.contextmanager
def rehearsing(place: str, rv: int, now_us: int = 0) -> Iterator[Rehearse]:
    """The API server of the log at `place` at one of its revisions."""
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(LogReader(place))
        portal = stack.enter_context(start_blocking_portal(name="kcp-rehearsal"))
        client = portal.call(_client, reader, rv, now_us)

        async def create(resource: str, obj: Json, namespace: str) -> Json:
            written = await client.create(resource, obj, namespace, dry_run=True)
            return written.object or {}

        def rehearse(resource: str, obj: Json, namespace: str) -> Json:
            try:
                return portal.call(create, resource, obj, namespace)
            except ApiError as error:
                raise ValueError(str(error)) from error

        yield rehearse


async def _client(reader: LogReader, rv: int, now_us: int) -> Client:
    catalog = build_catalog()
    store = PastStore(reader, rv)
    server = build_server(store, PastClock(now_us), SystemEntropy(), catalog, ClusterOptions())
    return Client(InProcessTransport(app.build(server), _ASKING, "kcp"), catalog)
