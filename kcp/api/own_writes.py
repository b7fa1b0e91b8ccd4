"""What the API server writes by itself: through the registry like everybody's writes, under its own name."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from kcp.api.auth.protocol import MASTERS, UserInfo
from kcp.api.context import Call, RequestInfo, Server
from kcp.api.deletion import deleting
from kcp.api.documents import private_copy
from kcp.api.options import DeleteOptions, WriteOptions
from kcp.api.registry import MAIN, STATUS, begin, create, update
from kcp.api.transaction import Write, transact
from kcp.apis.kind import Json
from kcp.machinery.errors import AlreadyExists, Conflict, NotFound
from kcp.machinery.gvk import GroupVersion
from kcp.machinery.patch.apply import server_side_apply
from kcp.machinery.schema.compile import schema_for
from kcp.store.protocol import Actor, Cause, Key
from kcp.wire.http import Request

IDENTITY = UserInfo("system:apiserver", "", (MASTERS, "system:authenticated"))
MANAGER = "kube-apiserver"

Merge = Callable[[Json, Json], Json | None]
"""(wanted, found): what the object should become; None: it stays as it is."""


def write_of(
    server: Server, obj: Json, *, verb: str = "create", manager: str = MANAGER, status: bool = False
) -> Write:
    """A write of this object; `status`: by server-side apply of its status."""
    version = GroupVersion.parse(obj["apiVersion"])
    kind = server.catalog.by_kind(version.group, version.version, obj["kind"])
    assert kind is not None, f"{obj['kind']} is in the catalog"
    namespace, name = obj["metadata"].get("namespace", ""), obj["metadata"].get("name", "")
    subresource = "status" if status else ""
    info = RequestInfo(True, "", verb, kind.group, kind.version, namespace, kind.plural, subresource, name)
    cause = Cause(Actor(IDENTITY.name, IDENTITY.groups, MANAGER, manager))
    call = Call(Request("POST", ""), info, IDENTITY, kind, cause=cause)
    rules = STATUS if status else MAIN
    options = WriteOptions(manager)
    return begin(server, call, kind, options, subresource=subresource, rules=rules, applied=status)


async def ensure(server: Server, obj: Json, merge: Merge | None = None, *, manager: str = MANAGER) -> None:
    """Create the object; when it is there, `merge` says what it should become, None: as it is."""
    write, name = write_of(server, obj, manager=manager), obj["metadata"]["name"]
    found = server.store.get(Key(write.kind.resource, write.namespace, name))
    if found is None:
        try:
            await create(write, private_copy(obj))
        except AlreadyExists:
            return
        return
    if merge is not None and merge(obj, found.value) is not None:
        await update(write, name, lambda old: private_copy(merge(obj, old) or old))


async def apply_status(server: Server, obj: Json, status: Json, manager: str) -> None:
    """Server-side apply of this status to that object, by force. Raises NotFound."""
    metadata = {field: obj["metadata"][field] for field in ("name", "namespace") if field in obj["metadata"]}
    wanted = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": metadata, "status": status}
    write = write_of(server, wanted, verb="patch", manager=manager, status=True)
    kind = write.kind

    def make(old: Json) -> Json:
        applied = server_side_apply(
            old,
            wanted,
            schema=schema_for(kind.gvk),
            manager=manager,
            force=True,
            subresource="status",
            api_version=kind.api_version,
            now=write.moment,
            reset_fields=kind.strategy.reset_fields.get("status", ()),
        )
        copy: Json = private_copy(applied)
        return copy

    await update(write, metadata["name"], make)


async def remove(server: Server, obj: Json) -> None:
    """Delete this object; nothing happens when it is gone, or is another one of that name by now."""
    write, metadata = write_of(server, obj, verb="delete"), obj["metadata"]
    options = DeleteOptions(uid=metadata.get("uid"))
    with suppress(NotFound, Conflict):
        await transact(write, metadata["name"], deleting(write, metadata["name"], options))
