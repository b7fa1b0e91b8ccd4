"""ComponentStatuses: whether scheduler, controller manager and the log are at work, asked anew each time.

Kubernetes asks their health endpoints on the loopback device. Here a component is healthy when it runs in this process, or
when its Lease tells that it runs elsewhere; one that does neither looks as if nobody listened at its port.
Source: k8s v1.36 pkg/registry/core/componentstatus/rest.go, pkg/registry/core/rest/storage_core.go (serversToValidate).
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

import orjson

from kcp.api.context import Call, Server
from kcp.api.options import list_options
from kcp.api.results import ListResult, ObjectResult, Result
from kcp.api.selection import select
from kcp.apis.kind import Json
from kcp.machinery.document import Document
from kcp.machinery.errors import ApiError
from kcp.machinery.times import parse_time
from kcp.store.protocol import Key

RUNNING = "running_components"
"""The server's extra: a function that names the components that run in this process."""
_LEASES, _NAMESPACE = "leases.coordination.k8s.io", "kube-system"
_COMPONENTS = {
    "controller-manager": ("kube-controller-manager", 10257),
    "scheduler": ("kube-scheduler", 10259),
}
"""Name -> its Lease, and the port at which Kubernetes asks."""


async def handle(server: Server, call: Call) -> Result:
    kind = call.kind
    assert kind is not None
    if call.info.verb == "get":
        found = _status(server, call.info.name)
        if found is None:
            raise ApiError(f"Component not found: {call.info.name}")
        return ObjectResult(_document(found), kind, 200, 0)
    options = list_options(call, watch=False)
    selection = select(kind, options.label_selector, options.field_selector, call.info.name)
    names = [*_COMPONENTS, "etcd-0"]
    found_all = [status for name in names if (status := _status(server, name)) is not None]
    return ListResult(kind, [_document(each) for each in found_all if selection.matches(each)], 0)


def _document(value: Json) -> Document:
    return Document(orjson.dumps(value), 0, value)


def _status(server: Server, name: str) -> Json | None:
    """None when there is no such component."""
    if name == "etcd-0":
        problem = "" if server.store.rv >= 0 else "the event log cannot be read"
    elif name in _COMPONENTS:
        lease, port = _COMPONENTS[name]
        problem = "" if _runs(server, lease) else _nobody_listens(port)
    else:
        return None
    condition = {"type": "Healthy", "status": "False" if problem else "True", "message": problem or "ok"}
    return {
        "apiVersion": "v1",
        "kind": "ComponentStatus",
        "metadata": {"name": name},
        "conditions": [condition],
    }


def _nobody_listens(port: int) -> str:
    address = f"127.0.0.1:{port}"
    return f'Get "https://{address}/healthz": dial tcp {address}: connect: connection refused'


def _runs(server: Server, lease: str) -> bool:
    running = server.extras.get(RUNNING)
    here: Collection[str] = running() if running is not None else ()
    return lease in here or _is_held(server, lease)


def _is_held(server: Server, lease: str) -> bool:
    record = server.store.get(Key(_LEASES, _NAMESPACE, lease))
    spec = (record.value.get("spec") or {}) if record is not None else {}
    if not spec.get("holderIdentity") or not spec.get("renewTime"):
        return False
    held_until = parse_time(spec["renewTime"]) + timedelta(seconds=spec.get("leaseDurationSeconds") or 0)
    return server.clock.now() < held_until
