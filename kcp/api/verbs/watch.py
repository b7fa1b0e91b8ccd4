"""watch: a stream of changes from a revision on.

From a revision that is not reached yet it begins at once and shows what comes after that; only who wants the initial
events waits for it, and learns in the stream that it did not come.
Source: k8s v1.36 apiserver/pkg/endpoints/handlers/get.go (ListResource), apiserver/pkg/storage/cacher/cacher.go (Watch).
"""

from __future__ import annotations

from kcp.api.context import Call, Server
from kcp.api.options import ListOptions, list_options, revision
from kcp.api.results import Result, WatchResult
from kcp.api.selection import select
from kcp.api.verbs.freshness import wait_until_fresh
from kcp.api.watch_cache import WatchRequest, refused
from kcp.machinery.errors import Timeout


def _start(options: ListOptions, rv: int) -> int | None:
    """The revision to resume after; None to begin with what is there.

    `sendInitialEvents` decides when given; otherwise an unset or zero resourceVersion means initial events.
    """
    if options.send_initial_events is not None:
        return None if options.send_initial_events else rv or None
    return rv or None


async def handle(server: Server, call: Call) -> Result:
    kind, info = call.kind, call.info
    assert kind is not None
    options = list_options(call, watch=True)
    selection = select(kind, options.label_selector, options.field_selector, info.name)
    rv = revision(options.resource_version)
    if options.send_initial_events:
        try:
            await wait_until_fresh(server, rv)
        except Timeout as error:
            return WatchResult(kind, refused(error))
    start = _start(options, rv)
    if options.send_initial_events is False and start is None:
        start = server.store.rv
    request = WatchRequest(
        kind=kind,
        namespace=(info.namespace or None) if kind.namespaced else None,
        selection=selection,
        rv=start,
        bookmarks=options.bookmarks,
        initial_end=bool(options.send_initial_events) and options.bookmarks,
        timeout_s=float(options.timeout_s),
    )
    return WatchResult(kind, server.caches.watch(request))
