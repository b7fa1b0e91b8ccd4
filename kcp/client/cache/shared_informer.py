"""One watch, many readers: the store, its revision, and handlers that are told what changed.

    pods = factory.informer("pods", indexers={"node": by_node})
    pods.add_handler(lambda old, new: queue.add(key_of(new or old)))
    await pods.wait_for_sync()
    pods.indexer.get("default/web"), pods.rv

Handlers are plain functions that only queue keys. They run in the same step of the loop in which the store moved, so
(store, revision, queue) always agree; there is no buffer between them and nothing to fall behind.
Semantics: k8s v1.36 client-go/tools/cache/shared_informer.go.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio
import attrs
import structlog

from kcp.base.backoff import Backoff
from kcp.base.clock import Clock, SystemClock
from kcp.base.entropy import Entropy, SystemEntropy
from kcp.base.tasks import restart_with_backoff
from kcp.base.values import frozen
from kcp.client.cache.delta_fifo import DeletedFinalStateUnknown, Delta, DeltaFIFO
from kcp.client.cache.indexer import Indexer, IndexFunction
from kcp.client.cache.lister import Lister
from kcp.client.cache.reflector import INITIAL_BACKOFF_S, MAX_BACKOFF_S, Reflector
from kcp.client.client import Client
from kcp.client.list_watch import ListWatch

log = structlog.get_logger()

Json = dict[str, Any]
Handler = Callable[[Json | None, Json | None], None]
"""(old, new): old None for added, new None for deleted objects. Equal objects: a resync. Different uids: the object
was deleted and made again while nobody watched. The state of a deleted object may be older than its end."""


@attrs.define(eq=False)
class Registration:
    """One handler. `resync_s` 0: it is not told about objects that did not change."""

    handler: Handler
    resync_s: float = 0.0
    synced: bool = False
    due_s: float = 0.0


class SharedInformer:
    """A copy of one resource (of one namespace, of what selectors let through). The task of `run` owns it.

    The copy stands at `rv` as a whole: events apply in revision order, a relist applies at once.
    """

    def __init__(
        self,
        client: Client,
        resource: str,
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        indexers: Mapping[str, IndexFunction] | None = None,
        metadata_only: bool = False,
        clock: Clock | None = None,
        entropy: Entropy | None = None,
    ) -> None:
        self.resource = resource
        self.indexer = Indexer(indexers)
        self.lister = Lister(resource, self.indexer)
        self._clock = clock or SystemClock()
        self._fifo = DeltaFIFO()
        self._reflector = Reflector(
            ListWatch(client, resource, namespace, label_selector, field_selector, metadata_only),
            self._fifo,
            self._drain,
            self._clock,
            entropy or SystemEntropy(),
        )
        self._registrations: list[Registration] = []
        self._waiters: list[tuple[int, int, Callable[[], None]]] = []
        self._waiter_sequence = 0
        self._synced = anyio.Event()
        self._resync_changed = anyio.Event()

    @property
    def rv(self) -> int:
        """The revision the store stands at; rises with bookmarks too. 0 before the first list."""
        return self.indexer.rv

    @property
    def synced(self) -> bool:
        return self._fifo.has_synced

    @property
    def relists(self) -> int:
        """How often the resource was listed again."""
        return self._reflector.relists

    def add_handler(self, handler: Handler, resync_s: float = 0.0) -> Registration:
        """Tell `handler` about every change from now on, and first about every object that is there."""
        registration = Registration(handler, resync_s, self.synced)
        if resync_s > 0:
            registration.due_s = self._clock.monotonic() + resync_s
            self._resync_changed.set()
        self._registrations.append(registration)
        for obj in self.indexer:
            self._call(registration, None, obj)
        return registration

    def remove_handler(self, registration: Registration) -> None:
        self._registrations = [each for each in self._registrations if each is not registration]

    def add_indexers(self, indexers: Mapping[str, IndexFunction]) -> None:
        self.indexer.add_indexers(indexers)

    async def run(self) -> None:
        """Follow the resource until cancelled."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._reflector.run)
            await self._resync_when_due()

    async def wait_for_sync(self, timeout_s: float = 60.0) -> bool:
        """Until the first list is in the store; False when that takes longer."""
        with anyio.move_on_after(timeout_s):
            await self._synced.wait()
        return self.synced

    def when_rv(self, rv: int, then: Callable[[], None]) -> None:
        """Call `then` once the store has reached `rv`: now, or in the step in which it gets there."""
        if self.indexer.rv >= rv:
            then()
            return
        self._waiter_sequence += 1
        heapq.heappush(self._waiters, (rv, self._waiter_sequence, then))

    async def wait_for_rv(self, rv: int, timeout_s: float) -> bool:
        """Until the store has reached `rv`, so that reads see what was written there; False on time-out."""
        if self.indexer.rv >= rv:
            return True
        reached = anyio.Event()
        self.when_rv(rv, reached.set)
        with anyio.move_on_after(timeout_s):
            await reached.wait()
        return self.indexer.rv >= rv

    def _drain(self) -> None:
        fifo = self._fifo
        while len(fifo):
            fifo.pop_batch(self._process)
        if fifo.has_synced and not self._synced.is_set():
            self._synced.set()
            for registration in self._registrations:
                registration.synced = True
        while self._waiters and self._waiters[0][0] <= self.indexer.rv:
            heapq.heappop(self._waiters)[2]()

    def _process(self, delta: Delta) -> None:
        """Move the store by one delta, then tell the handlers."""
        kind = delta.type
        indexer = self.indexer
        if kind in ("Added", "Updated"):
            old = indexer.put(delta.object)
            self._move(delta.rv)
            self._notify(old, delta.object)
        elif kind == "Deleted":
            self._delete(delta)
        elif kind == "ReplacedAll":
            self._replace(delta)
        elif kind == "SyncAll":
            self._resync()
        else:
            self._move(delta.rv)

    def _move(self, rv: int) -> None:
        if rv > self.indexer.rv:
            self.indexer.rv = rv

    def _delete(self, delta: Delta) -> None:
        gone = delta.object
        unknown = isinstance(gone, DeletedFinalStateUnknown)
        old = self.indexer.remove(gone.key if unknown else self.indexer.key(gone))
        self._move(delta.rv)
        if old is not None:
            self._notify(gone.object if unknown else gone, None)

    def _replace(self, delta: Delta) -> None:
        """Become the new list at once, then tell handlers: what vanished first, then the rest in list order."""
        indexer = self.indexer
        before = {key: indexer.get(key) for key in indexer.keys()}  # noqa: SIM118 - sorted keys
        indexer.replace(delta.objects, delta.rv)
        for key, old in before.items():
            if key not in indexer:
                self._notify(old, None)
        for obj in delta.objects:
            self._notify(before.get(indexer.key(obj)), obj)

    def _notify(self, old: Json | None, new: Json | None) -> None:
        if old is not None and new is not None and _same_version(old, new):
            return  # the same version, seen again by a relist
        for registration in self._registrations:
            self._call(registration, old, new)

    def _call(self, registration: Registration, old: Json | None, new: Json | None) -> None:
        try:
            registration.handler(old, new)
        except Exception:
            log.exception("informer handler failed", resource=self.resource)

    def _resync(self) -> None:
        now_s = self._clock.monotonic()
        due = [each for each in self._registrations if each.resync_s > 0 and each.due_s <= now_s]
        for registration in due:
            registration.due_s = now_s + registration.resync_s
        for obj in self.indexer:
            for registration in due:
                self._call(registration, obj, obj)

    async def _resync_when_due(self) -> None:
        while True:
            self._resync_changed = anyio.Event()
            periodic = [each.due_s for each in self._registrations if each.resync_s > 0]
            if not periodic:
                await self._resync_changed.wait()
                continue
            with anyio.move_on_after(max(0.0, min(periodic) - self._clock.monotonic())):
                await self._resync_changed.wait()
                continue
            self._fifo.resync()
            self._drain()


def _same_version(old: Json, new: Json) -> bool:
    a, b = old["metadata"], new["metadata"]
    return bool(a.get("resourceVersion") == b.get("resourceVersion") and a.get("uid") == b.get("uid"))


@frozen
class Watched:
    """What an informer is shared by."""

    resource: str
    namespace: str = ""
    label_selector: str = ""
    field_selector: str = ""
    metadata_only: bool = False


class InformerFactory:
    """Informers of one client, one per resource, namespace and selectors. The task of `run` owns them all."""

    def __init__(self, client: Client, *, clock: Clock | None = None, entropy: Entropy | None = None) -> None:
        self.client = client
        self._clock = clock or SystemClock()
        self._entropy = entropy or SystemEntropy()
        self._informers: dict[Watched, SharedInformer] = {}
        self._waiting: list[SharedInformer] = []
        self._scopes: dict[SharedInformer, anyio.CancelScope] = {}
        self._changed = anyio.Event()

    def informer(
        self,
        resource: str,
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
        indexers: Mapping[str, IndexFunction] | None = None,
    ) -> SharedInformer:
        """The shared informer; made, and started if the factory runs, when it is asked for first."""
        watched = Watched(resource, namespace, label_selector, field_selector, metadata_only)
        informer = self._informers.get(watched)
        if informer is None:
            informer = SharedInformer(
                self.client,
                resource,
                namespace=namespace,
                label_selector=label_selector,
                field_selector=field_selector,
                metadata_only=metadata_only,
                clock=self._clock,
                entropy=self._entropy.stream(f"informer/{resource}/{namespace}"),
            )
            self._informers[watched] = informer
            self._waiting.append(informer)
            self._changed.set()
        if indexers:
            informer.add_indexers(indexers)
        return informer

    @property
    def informers(self) -> Mapping[Watched, SharedInformer]:
        return self._informers

    def stop(self, informer: SharedInformer) -> None:
        """End an informer whose resource is gone (a deleted custom resource)."""
        for watched in [key for key, each in self._informers.items() if each is informer]:
            del self._informers[watched]
        self._waiting = [each for each in self._waiting if each is not informer]
        scope = self._scopes.pop(informer, None)
        if scope is not None:
            scope.cancel()

    async def run(self) -> None:
        """Run every informer, those asked for later too, until cancelled."""
        async with anyio.create_task_group() as group:
            while True:
                self._changed = anyio.Event()
                waiting, self._waiting = self._waiting, []
                for informer in waiting:
                    group.start_soon(self._run_one, informer)
                await self._changed.wait()

    async def _run_one(self, informer: SharedInformer) -> None:
        """One that crashes lists anew, alone: the others go on."""
        backoff = Backoff(INITIAL_BACKOFF_S, cap_s=MAX_BACKOFF_S)
        with anyio.CancelScope() as scope:
            self._scopes[informer] = scope
            name = f"informer of {informer.resource}"
            await restart_with_backoff(name, informer.run, backoff=backoff, clock=self._clock)

    async def wait_for_sync(self, timeout_s: float = 60.0) -> bool:
        """Until all informers asked for so far are synced; False when that takes longer."""
        with anyio.move_on_after(timeout_s):
            for informer in self._snapshot():
                await informer.wait_for_sync(timeout_s)
        return all(informer.synced for informer in self._snapshot())

    def _snapshot(self) -> Sequence[SharedInformer]:
        return list(self._informers.values())
