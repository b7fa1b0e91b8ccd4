"""What handlers share: the server's parts, and one request on its way through the chain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from kcp.api.auth.protocol import UserInfo
from kcp.apis.kind import Catalog, Kind
from kcp.base.clock import Clock
from kcp.base.entropy import Entropy
from kcp.base.values import frozen
from kcp.store.protocol import Cause, Fence, Store
from kcp.wire.http import Request, Response

if TYPE_CHECKING:
    from kcp.api.admission.order import AdmissionChain
    from kcp.api.allocation import Allocator
    from kcp.api.auth.protocol import Authenticator, Authorizer
    from kcp.api.watch_cache import WatchCaches


@frozen
class RequestInfo:
    """What a path means. Source: k8s v1.36 apiserver/pkg/endpoints/request/requestinfo.go.

    `verb` is the API verb (get, list, watch, create, update, patch, delete, deletecollection, connect) or, for
    paths that are no resources, the lower-case HTTP method. `subpath` is what follows a proxy subresource.
    """

    is_resource: bool
    path: str
    verb: str
    group: str = ""
    version: str = ""
    namespace: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    subpath: str = ""


Part = tuple["Call", Response]
"""One of several requests that went together, and its answer."""


@attrs.define(slots=True)
class Call:
    """One request on its way. The task that serves it owns it; filters and verbs fill it in.

    `params` are the decoded query parameters, the first value of each; `repeated` has all values of each.
    """

    request: Request
    info: RequestInfo
    user: UserInfo
    kind: Kind | None = None
    params: Mapping[str, str] = attrs.field(factory=dict)
    repeated: Mapping[str, list[str]] = attrs.field(factory=dict)
    audit_id: str = ""
    warnings: list[str] = attrs.field(factory=list)
    cause: Cause = attrs.field(factory=Cause)
    fence: Fence | None = None
    annotations: dict[str, str] = attrs.field(factory=dict)
    parts: list[Part] | None = None
    """What went together in this request, for the audit log; None: it is one."""

    def warn(self, text: str) -> None:
        """Add a Warning header, once per text."""
        if text not in self.warnings:
            self.warnings.append(text)


@attrs.define(slots=True)
class Server:
    """The parts that handlers use. Built once by `app.build`, owned by the control plane."""

    store: Store
    catalog: Catalog
    clock: Clock
    entropy: Entropy
    caches: WatchCaches
    admission: AdmissionChain
    allocator: Allocator
    authenticator: Authenticator
    authorizer: Authorizer
    settings: ServerSettings
    extras: dict[str, Any] = attrs.field(factory=dict)


@frozen
class ServerSettings:
    """Limits and options of one API server. Defaults are kube-apiserver's 1.36."""

    git_version: str = "v1.36.2"
    max_request_body_bytes: int = 3 * 1024 * 1024
    request_timeout_s: float = 60.0
    min_watch_timeout_s: float = 1800.0
    max_requests_inflight: int = 400
    max_mutating_requests_inflight: int = 200
    bookmark_interval_s: float = 60.0
    service_cidr: str = "10.96.0.0/12"
    node_port_range: tuple[int, int] = (30000, 32767)
    service_account_issuer: str = "https://kubernetes.default.svc.cluster.local"
    api_audiences: tuple[str, ...] = ("https://kubernetes.default.svc.cluster.local",)
    anonymous_auth: bool = True
    external_address: str = "192.0.2.1"
    """The endpoint of the Service `kubernetes`. The default (TEST-NET-1) stands for a server that nobody reaches."""
    external_port: int = 6443
