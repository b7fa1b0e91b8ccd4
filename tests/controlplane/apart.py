"""Components as they run apart from the API server, on the deterministic loop: remote in all but the sockets."""

from __future__ import annotations

from typing import Any

import attrs

from kcp.base.metrics import Metrics
from kcp.client.account_tokens import AccountToken
from kcp.client.answers import REVISION_HEADER
from kcp.client.kubeconfig import Kubeconfig
from kcp.client.transport import InProcessTransport, Transport
from kcp.controlplane.cluster import CONTROLLER_MANAGER, Cluster, service_account
from kcp.controlplane.probes import Door, Reviewer
from kcp.controlplane.standalone import Component, ComponentSettings, Connections, CountedSink
from kcp.machinery.errors import Invalid
from kcp.wire.http import Request, Response


@attrs.define
class AnotherServer:
    """Our API as a server answers that has nothing of ours: no watch-list, no aggregated discovery, no revisions of
    writes, no fences, none of our own paths.
    """

    inner: Transport
    in_process: bool = False

    async def request(self, request: Request, timeout_s: float) -> Response:
        assert not request.path.startswith("/kcp/"), request.path
        if "sendInitialEvents=true" in request.query:
            text = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"
            return Response(422, document=Invalid(text).status())
        request.fence = None
        if request.path in ("/api", "/apis"):
            request.headers = {**request.headers, "accept": "application/json"}
        response = await self.inner.request(request, timeout_s)
        response.headers = [(name, value) for name, value in response.headers if name != REVISION_HEADER]
        return response

    async def close(self) -> None:
        await self.inner.close()


@attrs.define(kw_only=True)
class Inside(Connections):
    """Reaches a cluster of this process as it would be reached over HTTPS: discovery, no bulk requests.

    Who has a service account's token acts under that account's name.
    """

    cluster: Cluster
    user: Any = CONTROLLER_MANAGER
    another_server: bool = False

    def transport(self, part: str = "", credentials: Any = None) -> Transport:
        user = service_account(credentials.name) if isinstance(credentials, AccountToken) else self.user
        agent = part or self.component
        transport = InProcessTransport(self.cluster.handler, user, agent, in_process=False)
        return AnotherServer(transport) if self.another_server else transport


def component(cluster: Cluster, name: str = "kube-controller-manager", **options: Any) -> Component:
    connections = Inside(config=Kubeconfig(), component=name, clock=cluster.clock, cluster=cluster, **options)
    metrics = Metrics()
    return Component(
        ComponentSettings(name),
        connections,
        cluster.clock,
        cluster.entropy.stream(name),
        CountedSink(),
        metrics,
        Door(metrics, Reviewer(connections.client("probes"), cluster.clock)),
    )
