"""Signs of life of a node: its Lease every ten seconds, its status when something changed and every five minutes.

Both are state machines on the fleet's loops; a node costs two timers.
Source: k8s v1.36 component-helpers/apimachinery/lease/controller.go, pkg/kubelet/kubelet_node_status.go.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import attrs
import structlog

from kcp.machinery.errors import ApiError, Conflict, NotFound
from kcp.machinery.times import format_micro_time
from kcp.node.timers import Timer

if TYPE_CHECKING:
    from kcp.node.agent import NodeAgent

log = structlog.get_logger()
Json = dict[str, Any]
LEASES, LEASE_NAMESPACE = "leases.coordination.k8s.io", "kube-node-lease"
LEASE_DURATION_S, RENEW_S, RENEW_JITTER = 40, 10.0, 0.04
REPORT_S, REPORT_JITTER = 300.0, 0.1
RETRY_S = 2.0


@attrs.define(slots=True, eq=False)
class LeaseKeeper:
    """Renews the node's lease; the newest one is kept, so that a renewal is one request."""

    agent: NodeAgent
    lease: Json | None = None
    timer: Timer | None = None
    failed: bool = False
    queued: bool = False
    busy: bool = False
    again: bool = False

    def start(self) -> None:
        self.agent.services.lease_loop.add(self)

    def stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def _later(self, delay_s: float) -> None:
        self.stop()
        self.timer = self.agent.services.timers.after(delay_s, self.start)

    async def step(self) -> None:
        if self.agent.silent:
            return
        together = self.agent.services.renewals
        if together is not None and self.lease is not None:
            together.add(self)
            return
        try:
            lease = await self._renew(self.agent.services.clock.now())
        except ApiError as error:
            self.not_renewed(error)
        except Exception:
            self.try_later()
            raise
        else:
            self.renewed(lease)

    def renewed(self, lease: Json) -> None:
        """The server has this version now."""
        self.lease = lease
        if self.failed:
            self.failed = False
            self.agent.reporter.start()
        self._later(self.agent.services.entropy.jitter(RENEW_S, RENEW_JITTER))

    def not_renewed(self, error: ApiError) -> None:
        log.debug("node lease not renewed", node=self.agent.spec.name, error=str(error))
        self.failed = True
        if isinstance(error, (Conflict, NotFound)):
            self.lease = None
        self._later(self.agent.services.entropy.jitter(RETRY_S, 1.0))

    def try_later(self) -> None:
        self._later(RENEW_S)

    async def _renew(self, now: datetime) -> Json:
        client, name = self.agent.client, self.agent.spec.name
        if self.lease is None:
            try:
                self.lease = await client.get(LEASES, name, LEASE_NAMESPACE)
            except NotFound:
                return (await client.create(LEASES, self._new(now), LEASE_NAMESPACE)).object
        lease = self.lease
        spec = {**lease["spec"], "holderIdentity": name, "renewTime": format_micro_time(now)}
        renewed = {**lease, "metadata": dict(lease["metadata"]), "spec": spec}
        return (await client.update(LEASES, renewed)).object

    def _new(self, now: datetime) -> Json:
        name = self.agent.spec.name
        owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": self.agent.node["metadata"]["uid"]}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": LEASE_NAMESPACE, "ownerReferences": [owner]},
            "spec": {
                "holderIdentity": name,
                "leaseDurationSeconds": LEASE_DURATION_S,
                "renewTime": format_micro_time(now),
            },
        }


@attrs.define(slots=True, eq=False)
class StatusReporter:
    """Posts the node's status."""

    agent: NodeAgent
    make: Callable[[], Json]
    timer: Timer | None = None
    queued: bool = False
    busy: bool = False
    again: bool = False

    def start(self) -> None:
        self.agent.services.node_loop.add(self)

    def stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def later(self) -> None:
        self._later(self.agent.services.entropy.jitter(REPORT_S, REPORT_JITTER))

    def _later(self, delay_s: float) -> None:
        self.stop()
        self.timer = self.agent.services.timers.after(delay_s, self.start)

    async def step(self) -> None:
        agent = self.agent
        if agent.silent:
            return
        agent.node_images = await agent.runtime.list_images()
        status = self.make()
        try:
            done = await agent.client.patch(
                "nodes", agent.spec.name, {"status": status}, "strategic", subresource="status"
            )
        except NotFound:
            log.warning("node is not registered any more", node=agent.spec.name)
            return
        except ApiError as error:
            log.debug("node status not posted", node=agent.spec.name, error=str(error))
            self._later(agent.services.entropy.jitter(RETRY_S, 1.0))
            return
        except Exception:
            self._later(REPORT_S)
            raise
        agent.crash_backoff.collect()
        agent.images.collect()
        agent.posted(done.object)
        self.later()
