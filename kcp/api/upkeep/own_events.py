"""Events that the API server itself tells: rare, so each is one object, written at once."""

from __future__ import annotations

from contextlib import suppress

from kcp.api.context import Server
from kcp.api.documents import private_copy
from kcp.api.own_writes import write_of
from kcp.api.registry import create
from kcp.apis.kind import Json
from kcp.base.clock import microseconds
from kcp.base.settings import host_name
from kcp.machinery.errors import AlreadyExists
from kcp.machinery.times import format_micro_time, format_time

_SAME_MOMENT = 8
"""So many Events of one moment about one object find a name each."""


async def tell(
    server: Server, component: str, regarding: Json, reason: str, text: str, action: str = ""
) -> None:
    """A Warning about an object. With an `action` it is one of the newer form, as recorders of events.k8s.io write it."""
    now = server.clock.now()
    metadata = regarding["metadata"]
    namespace = metadata.get("namespace") or "default"
    nanoseconds = microseconds(now) * 1000
    form = (_new if action else _old)(component, _reference(regarding), reason, text, action)
    moments = {"eventTime": format_micro_time(now)} if action else _first_and_last(format_time(now))
    for at in range(nanoseconds, nanoseconds + _SAME_MOMENT):
        name = {"name": f"{metadata['name']}.{at:x}", "namespace": namespace}
        event = {"metadata": name, "type": "Warning", **form, **moments}
        with suppress(AlreadyExists):
            await create(write_of(server, event), private_copy(event))
            return


def _first_and_last(now: str) -> Json:
    return {"firstTimestamp": now, "lastTimestamp": now, "count": 1}


def _reference(obj: Json) -> Json:
    metadata = obj["metadata"]
    found = {field: metadata.get(field) for field in ("namespace", "name", "uid", "resourceVersion")}
    found |= {"apiVersion": obj["apiVersion"], "kind": obj["kind"]}
    return {field: value for field, value in found.items() if value}


def _old(component: str, regarding: Json, reason: str, text: str, action: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "involvedObject": regarding,
        "reason": reason,
        "message": text,
        "source": {"component": component},
        "reportingComponent": component,
    }


def _new(component: str, regarding: Json, reason: str, text: str, action: str) -> Json:
    """In its stored form, which is core/v1's."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "involvedObject": regarding,
        "reason": reason,
        "message": text,
        "action": action,
        "reportingComponent": component,
        "reportingInstance": f"{component}-{host_name()}",
    }
