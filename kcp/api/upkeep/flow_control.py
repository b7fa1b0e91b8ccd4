"""FlowSchemas tell whether their priority level exists. PriorityLevelConfigurations have no condition of their own.

Source: k8s v1.36 apiserver/pkg/util/flowcontrol/apf_controller.go (presyncFlowSchemaStatus).
"""

from __future__ import annotations

from kcp.api.context import Server
from kcp.api.own_writes import apply_status
from kcp.apis.kind import Json
from kcp.machinery import meta
from kcp.machinery.errors import NotFound, go_quote
from kcp.machinery.times import format_time
from kcp.store.protocol import Key

SCHEMAS = "flowschemas.flowcontrol.apiserver.k8s.io"
LEVELS = "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io"
PRODUCER = "api-priority-and-fairness-config-producer-v1"
CONSUMER = "api-priority-and-fairness-config-consumer-v1"
_COMPARED = ("status", "reason", "message")


def dangling(schema: Json, has_level: bool) -> Json:
    """The condition without its time."""
    level = go_quote(_level_of(schema))
    told = f"This FlowSchema references the PriorityLevelConfiguration object named {level}"
    if has_level:
        return {"type": "Dangling", "status": "False", "reason": "Found", "message": f"{told} and it exists"}
    text = f"{told} but there is no such object"
    return {"type": "Dangling", "status": "True", "reason": "NotFound", "message": text}


def _level_of(schema: Json) -> str:
    return str(((schema.get("spec") or {}).get("priorityLevelConfiguration") or {}).get("name") or "")


def schemas_of(server: Server, level: str) -> list[Key]:
    """The FlowSchemas that name a priority level."""
    return [record.key for record in server.store.list(SCHEMAS) if _level_of(record.value) == level]


async def look_after(server: Server, name: str) -> None:
    record = server.store.get(Key(SCHEMAS, "", name))
    if record is None:
        return
    schema = record.value
    wanted = dangling(schema, server.store.get(Key(LEVELS, "", _level_of(schema))) is not None)
    found = meta.condition(schema, "Dangling") or {}
    if all(found.get(field) == wanted[field] for field in _COMPARED):
        return
    wanted["lastTransitionTime"] = format_time(server.clock.now())
    try:
        await apply_status(server, schema, {"conditions": [wanted]}, CONSUMER)
    except NotFound:
        return
