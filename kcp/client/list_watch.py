"""What an informer lists and watches: a resource, a namespace and selectors, bound to a client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from kcp.base.values import frozen
from kcp.client.answers import ListPage
from kcp.client.client import PAGE_SIZE, Client
from kcp.machinery.errors import Expired, Gone
from kcp.machinery.watch import WatchEvent


@frozen
class ListWatch:
    client: Client
    resource: str
    namespace: str = ""
    label_selector: str = ""
    field_selector: str = ""
    metadata_only: bool = False

    async def expected_kind(self) -> str:
        """The kind of the objects to come, for what comes over a socket; "" where it is beyond doubt."""
        if self.client.transport.in_process or self.metadata_only:
            return ""
        return (await self.client.mapper.resolve(self.resource)).kind

    async def list(self, resource_version: str) -> ListPage:
        """Everything, no older than `resource_version` ("": the newest; "0": any).

        Pages are asked for only where the server may serve them from one snapshot, and when a continue token expires
        the whole is listed anew at once. Source: k8s v1.36 client-go/tools/pager/pager.go.
        """
        limit = PAGE_SIZE if resource_version in ("", "0") else 0
        page = await self._page(resource_version, limit, "")
        items = list(page.items)
        rv = page.rv
        while page.continue_:
            try:
                page = await self._page("", limit, page.continue_)
            except (Expired, Gone):
                return await self._page(resource_version, 0, "")
            items.extend(page.items)
            rv = page.rv
        return ListPage(items, rv)

    async def _page(self, resource_version: str, limit: int, continue_: str) -> ListPage:
        return await self.client.list(
            self.resource,
            self.namespace,
            label_selector=self.label_selector,
            field_selector=self.field_selector,
            limit=limit,
            continue_=continue_,
            resource_version=resource_version,
            metadata_only=self.metadata_only,
        )

    async def watch(
        self, resource_version: str, timeout_s: float, *, send_initial_events: bool = False
    ) -> AsyncIterator[Sequence[WatchEvent]]:
        return await self.client.open_watch(
            self.resource,
            self.namespace,
            resource_version=resource_version,
            label_selector=self.label_selector,
            field_selector=self.field_selector,
            timeout_s=timeout_s,
            send_initial_events=send_initial_events,
            metadata_only=self.metadata_only,
        )
