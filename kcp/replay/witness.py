"""A watcher that nobody disturbs: it must see every change of its resource once, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from kcp.client.client import Client
from kcp.machinery.errors import Expired
from kcp.machinery.watch import WatchEvent
from kcp.store.protocol import Event, Op

WITNESSED = ("pods", "replicasets.apps", "namespaces", "endpointslices.discovery.k8s.io")


@attrs.define
class Witness:
    resource: str
    client: Client
    since_rv: int = 0
    saw: list[tuple[str, int]] = attrs.field(factory=list)
    gaps: list[tuple[int, int]] = attrs.field(factory=list)
    """(from, to): what it could not see, because its watch was told that it is too old."""

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        page = await self.client.list(self.resource)
        self.since_rv = last = page.rv
        task_status.started()
        while True:
            try:
                async for batch in self.client.watch(self.resource, resource_version=str(last)):
                    for event in batch:
                        last = event.document.rv
                        self._note(event)
            except Expired:
                page = await self.client.list(self.resource)
                self.gaps.append((last, page.rv))
                last = page.rv

    def _note(self, event: WatchEvent) -> None:
        if event.type != "BOOKMARK":
            self.saw.append((event.type, event.document.rv))

    def differences(self, events: Sequence[Event]) -> Iterator[str]:
        wanted = [
            (event.op.name, event.rv)
            for event in events
            if event.key.resource == self.resource and self._is_due(event.rv) and event.op is not Op.RENEWED
        ]
        if wanted != self.saw:
            pairs = zip([*wanted, None], [*self.saw, None], strict=False)
            at = next(((w, s) for w, s in pairs if w != s), None)
            yield f"a watch of {self.resource} saw {len(self.saw)} changes of {len(wanted)}; first difference: {at}"

    def _is_due(self, rv: int) -> bool:
        return rv > self.since_rv and not any(low < rv <= high for low, high in self.gaps)
