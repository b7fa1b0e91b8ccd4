"""Keeps a DeltaFIFO in step with a resource: list, then watch, and again when that breaks.

How a watch ends decides what comes next:

    it timed out, or the server closed it      watch again from the last revision
    429, or the server is unreachable          wait, then watch again from the last revision; no relist
    internal error                             watch again from the last revision, for some seconds
    410 Expired or Gone                        list again, first asking for "at least as new as I was"
    it ended at once without an event          list again
    anything else                              list again

Rounds are 0.8 s apart, doubling up to 30 s with jitter; two healthy minutes start that anew. "List" means a watch
with initial events where the server has it: the same stream then goes on as the watch.
Source: k8s v1.36 client-go/tools/cache/reflector.go.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

import anyio
import attrs
import structlog

from kcp.base.backoff import Backoff
from kcp.base.clock import Clock
from kcp.base.entropy import Entropy
from kcp.client.answers import ListPage, rv_of
from kcp.client.cache.delta_fifo import DeltaFIFO, FifoFull
from kcp.client.list_watch import ListWatch
from kcp.client.transport import Unreachable
from kcp.machinery.errors import ApiError, Expired, Gone, InternalError, Timeout, TooManyRequests, from_status
from kcp.machinery.watch import INITIAL_EVENTS_END, WatchEvent

log = structlog.get_logger()

Batches = AsyncIterator[Sequence[WatchEvent]]

MIN_WATCH_S = 300.0
INITIAL_BACKOFF_S, MAX_BACKOFF_S, HEALTHY_AFTER_S = 0.8, 30.0, 120.0
INTERNAL_ERROR_RETRY_S = 10.0
VERY_SHORT_WATCH_S = 1.0


class VeryShortWatch(Exception):
    """Raised when a watch ended within a second without an event: something in between is broken."""


@attrs.define
class Reflector:
    """Owned by the task that runs `run`. `drain` is called after every push, in the same step of the loop.

    `last_rv` is the revision up to which everything was pushed, "" before the first list.
    """

    source: ListWatch
    fifo: DeltaFIFO
    drain: Callable[[], None]
    clock: Clock
    entropy: Entropy
    kind: str = ""
    """Objects of another kind are skipped; "" takes all. Asked of the source before the first list."""
    use_watch_list: bool = True
    last_rv: str = attrs.field(init=False, default="")
    relists: int = attrs.field(init=False, default=0)
    _rv_unavailable: bool = attrs.field(init=False, default=False)
    _in_order: bool = attrs.field(init=False, default=True)
    _listed: bool = attrs.field(init=False, default=False)
    _retry: Backoff = attrs.field(init=False)
    _internal_errors_since_s: float | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._retry = self._backoff()

    def _backoff(self) -> Backoff:
        return Backoff(
            INITIAL_BACKOFF_S,
            cap_s=MAX_BACKOFF_S,
            jitter=1.0,
            entropy=self.entropy,
            clock=self.clock,
            reset_after_s=HEALTHY_AFTER_S,
        )

    async def run(self) -> None:
        """List and watch until cancelled."""
        rounds = self._backoff()
        while True:
            try:
                await self.list_and_watch()
            except (ApiError, ValueError, FifoFull) as error:
                log.warning("list failed", resource=self.source.resource, error=str(error))
            await anyio.sleep(rounds.next_s())

    async def list_and_watch(self) -> None:
        """One round: list, then watch until that needs a new list. Raises ApiError when the list fails."""
        if not self.kind:
            self.kind = await self.source.expected_kind()
        batches = await self._watch_list() if self.use_watch_list else None
        if batches is None:
            await self._list()
        await self._watch_on(batches)

    def _relist_version(self) -> str:
        """ "At least as new as what we saw"; "0", any, at first; "", the newest, when that revision is gone."""
        if self._rv_unavailable:
            return ""
        return self.last_rv or "0"

    async def _list(self) -> None:
        try:
            page = await self.source.list(self._relist_version())
        except ApiError as error:
            if not _revision_unavailable(error):
                raise
            self._rv_unavailable = True
            page = await self.source.list(self._relist_version())
        self._rv_unavailable = False
        self._replace(page)

    def _replace(self, page: ListPage) -> None:
        self.relists += self._listed
        self._listed = True
        self.fifo.replace(page.items, page.rv)
        self.last_rv = str(page.rv) if page.rv else ""
        self.drain()

    async def _watch_list(self) -> Batches | None:
        """The open watch after its initial events were stored; None when the server cannot do it."""
        while True:
            rv = "" if self._rv_unavailable else self.last_rv
            batches: Batches | None = None
            try:
                batches = await self.source.watch(rv, self._watch_timeout_s(), send_initial_events=True)
                if await self._initial_events(batches):
                    return batches
                await _close(batches)
                await anyio.sleep(self._retry.next_s())
            except (TooManyRequests, Unreachable):
                await _close(batches)
                await anyio.sleep(self._retry.next_s())
            except ApiError as error:
                await _close(batches)
                if _revision_unavailable(error) and not self._rv_unavailable:
                    self._rv_unavailable = True
                    continue
                log.info(
                    "no watch-list, falling back to list", resource=self.source.resource, error=str(error)
                )
                return None
            except BaseException:
                await _close(batches)
                raise

    async def _initial_events(self, batches: Batches) -> bool:
        """Collect the initial events and replace; False when the watch ended before all had come."""
        objects: dict[tuple[str, str], dict[str, object]] = {}
        async for batch in batches:
            for at, event in enumerate(batch):
                if event.type == "ERROR":
                    raise from_status(event.object)
                metadata = event.object["metadata"]
                if event.type == "BOOKMARK":
                    if (metadata.get("annotations") or {}).get(INITIAL_EVENTS_END) != "true":
                        continue
                    self._rv_unavailable = False
                    self._in_order = True
                    self._replace(ListPage(list(objects.values()), rv_of(event.object)))
                    self._push(batch[at + 1 :])
                    return True
                key = (metadata.get("namespace", ""), metadata["name"])
                if event.type == "DELETED":
                    objects.pop(key, None)
                elif not self.kind or event.object.get("kind") == self.kind:
                    objects[key] = event.object
        return False

    async def _watch_on(self, batches: Batches | None) -> None:
        """Watch, and watch again, until a new list is needed."""
        while True:
            try:
                if batches is None:
                    self._in_order = self.last_rv not in ("", "0")
                    batches = await self.source.watch(self.last_rv, self._watch_timeout_s())
                await self._follow(batches)
            except (TooManyRequests, Unreachable):
                await _close(batches)
                await anyio.sleep(self._retry.next_s())
            except InternalError as error:
                await _close(batches)
                if not self._may_retry_internal_error():
                    log.warning("watch failed", resource=self.source.resource, error=str(error))
                    return
                await anyio.sleep(self._retry.next_s())
            except (ApiError, VeryShortWatch, ValueError) as error:
                await _close(batches)
                log.debug("watch ended, listing again", resource=self.source.resource, error=str(error))
                return
            except BaseException:
                await _close(batches)
                raise
            batches = None

    def _may_retry_internal_error(self) -> bool:
        now_s = self.clock.monotonic()
        if self._internal_errors_since_s is None:
            self._internal_errors_since_s = now_s
        return now_s - self._internal_errors_since_s < INTERNAL_ERROR_RETRY_S

    async def _follow(self, batches: Batches) -> None:
        """Push what a watch delivers until it ends."""
        started_s = self.clock.monotonic()
        seen = False
        async for batch in batches:
            seen = seen or bool(batch)
            self._push(batch)
            self._internal_errors_since_s = None
        if not seen and self.clock.monotonic() - started_s < VERY_SHORT_WATCH_S:
            raise VeryShortWatch("very short watch: unexpected watch close: no items received")

    def _push(self, batch: Sequence[WatchEvent]) -> None:
        """Queue a batch and have it processed, in one step.

        A watch from no revision begins with the present objects in no order: its revision counts only from the first
        event on that is not ADDED.
        """
        fifo, kind = self.fifo, self.kind
        last = 0
        try:
            for event in batch:
                if event.type == "ERROR":
                    raise from_status(event.object)
                rv = event.document.rv or rv_of(event.object)
                self._in_order = self._in_order or event.type != "ADDED"
                if self._in_order:
                    last = rv
                else:
                    rv = 0
                if event.type == "BOOKMARK":
                    fifo.bookmark(rv)
                elif kind and event.object.get("kind") != kind:
                    log.warning("unexpected kind in watch", resource=self.source.resource, expected=kind)
                elif event.type == "MODIFIED":
                    fifo.update(event.object, rv)
                elif event.type == "ADDED":
                    fifo.add(event.object, rv)
                else:
                    fifo.delete(event.object, rv)
        finally:
            if last:
                self.last_rv = str(last)
            self.drain()

    def _watch_timeout_s(self) -> float:
        """Between five and ten minutes, so that the watches of many clients end at different times."""
        return self.entropy.uniform(MIN_WATCH_S, 2 * MIN_WATCH_S)


def _revision_unavailable(error: ApiError) -> bool:
    """Whether to list without a minimum revision: it is compacted, or the server does not have it yet."""
    if isinstance(error, (Expired, Gone)):
        return True
    return isinstance(error, Timeout) and (
        error.has_cause("ResourceVersionTooLarge") or "Too large resource version" in error.message
    )


async def _close(batches: Batches | None) -> None:
    close = getattr(batches, "aclose", None)
    if close is not None:
        with anyio.CancelScope(shield=True):
            await close()
