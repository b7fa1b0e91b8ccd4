"""The scale subresource: an autoscaling/v1 Scale in front of spec.replicas.

Source: k8s v1.36 pkg/registry/apps/deployment/storage/storage.go (ScaleREST), pkg/apis/autoscaling/validation.
"""

from __future__ import annotations

from kcp.api.context import Call, Server
from kcp.api.decoding import decode, unsupported_media
from kcp.api.documents import private_copy
from kcp.api.negotiation import body_media_type
from kcp.api.options import object_revision, write_options
from kcp.api.registry import MAIN, begin, update
from kcp.api.results import Result, StatusResult
from kcp.api.transaction import Write, Written
from kcp.api.verbs import get
from kcp.api.verbs.patch import APPLY_PATCH, BUILT_IN, check_options, merge_decoded, read_patch
from kcp.api.verbs.update import check_name
from kcp.apis.autoscaling import validate_scale
from kcp.apis.kind import Json, Kind
from kcp.machinery.errors import Conflict, Invalid
from kcp.machinery.gvk import GroupVersionKind
from kcp.machinery.labels import from_label_selector, from_set

SCALE = GroupVersionKind("autoscaling", "v1", "Scale")
_KEPT = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
_PLAIN_SELECTOR = frozenset({"replicationcontrollers"})


def _selector(kind: Kind, obj: Json) -> str:
    selector = (obj.get("spec") or {}).get("selector")
    if kind.resource in _PLAIN_SELECTOR:
        return str(from_set(selector or {}))
    return str(from_label_selector(selector)) if selector is not None else ""


def scale_of(kind: Kind, obj: Json) -> Json:
    """The Scale of an object of any scalable kind."""
    metadata, status = obj["metadata"], obj.get("status") or {}
    shown: Json = {"replicas": status.get("replicas", 0)}
    selector = _selector(kind, obj)
    if selector:
        shown["selector"] = selector
    return {
        "kind": "Scale",
        "apiVersion": SCALE.api_version,
        "metadata": {field: metadata[field] for field in _KEPT if field in metadata},
        "spec": {"replicas": (obj.get("spec") or {}).get("replicas", 0)},
        "status": shown,
    }


def _answer(write: Write, written: Written) -> StatusResult:
    return StatusResult(scale_of(write.kind, written.document.value), 200, written.revision)


async def read(server: Server, call: Call) -> Result:
    record = await get.read(server, call)
    assert call.kind is not None
    return StatusResult(scale_of(call.kind, record.value))


def _scaled(write: Write, scale: Json, old: Json) -> Json:
    """The object with the replicas of a Scale. Raises Invalid, or Conflict on the Scale's uid or resourceVersion."""
    name, kind = old["metadata"]["name"], write.kind
    errors = validate_scale(scale)
    if errors:
        raise Invalid.of(SCALE.group, SCALE.kind, name, errors)
    metadata = scale.get("metadata") or {}
    uid = metadata.get("uid")
    if uid and uid != old["metadata"]["uid"]:
        text = (
            f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old['metadata']['uid']}"
        )
        raise Conflict.of(kind.group, kind.plural, name, text)
    new: Json = private_copy(old)
    new.setdefault("spec", {})["replicas"] = (scale.get("spec") or {}).get("replicas", 0)
    rv = metadata.get("resourceVersion")
    if object_revision(rv or ""):
        new["metadata"]["resourceVersion"] = rv
    else:
        new["metadata"].pop("resourceVersion", None)
    return new


async def put(server: Server, call: Call) -> Result:
    kind = call.kind
    assert kind is not None
    options = write_options(call, "UpdateOptions")
    scale = decode(server, call, SCALE, options.field_validation)
    check_name(call, scale)
    write = begin(server, call, kind, options, subresource="scale", rules=MAIN)
    return _answer(write, await update(write, call.info.name, lambda old: _scaled(write, scale, old)))


async def apply_patch(server: Server, call: Call) -> Result:
    """A patch of the Scale that stands for the object; server-side apply takes it as a merge patch."""
    kind = call.kind
    assert kind is not None
    media_type = body_media_type(call)
    if media_type not in BUILT_IN:
        raise unsupported_media(BUILT_IN)
    options = write_options(call, "PatchOptions")
    check_options(options, media_type)
    patch = read_patch(server, call, media_type)
    write = begin(server, call, kind, options, subresource="scale", rules=MAIN)

    def make(old: Json) -> Json:
        shown = scale_of(kind, old)
        if "resourceVersion" in shown["metadata"] and media_type != APPLY_PATCH:
            shown["metadata"] = {k: v for k, v in shown["metadata"].items() if k != "resourceVersion"}
        scale = merge_decoded(call, SCALE, options, patch, shown)
        return _scaled(write, scale, old)

    return _answer(write, await update(write, call.info.name, make))
