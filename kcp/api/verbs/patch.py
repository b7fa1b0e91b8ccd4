"""patch: JSON patch, merge patch, strategic merge patch, server-side apply.

The patch is applied to what is stored, inside the plan, so a patch never loses a race; a resourceVersion in it is a
precondition like in an update.
Source: k8s v1.36 apiserver/pkg/endpoints/handlers/patch.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from kcp.api.context import Call, Server
from kcp.api.decoding import checked, limited_body, unsupported_media, why_not, yaml_complaint
from kcp.api.documents import private_copy
from kcp.api.negotiation import body_media_type
from kcp.api.options import META_GROUP, WriteOptions, write_options
from kcp.api.registry import (
    MAIN,
    NAMESPACE_MISMATCH,
    authorize_create,
    begin,
    create,
    result_of,
    served_form,
    stored_form,
    update,
)
from kcp.api.results import Result
from kcp.api.transaction import Rules, Write
from kcp.api.verbs.update import check_name
from kcp.apis.kind import Json
from kcp.base.values import frozen
from kcp.machinery.codec.json import decode_json, go_type
from kcp.machinery.codec.yaml import decode_yaml
from kcp.machinery.document import Document
from kcp.machinery.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Invalid,
    NotFound,
    forbidden,
    invalid,
    required,
)
from kcp.machinery.gvk import GroupVersionKind
from kcp.machinery.patch.apply import server_side_apply
from kcp.machinery.patch.json_patch import apply_json_patch, unknown_members
from kcp.machinery.patch.merge_patch import apply_merge_patch
from kcp.machinery.patch.strategic import strategic_merge
from kcp.machinery.schema.compile import schema_for

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

BUILT_IN = (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH)
CUSTOM = (JSON_PATCH, MERGE_PATCH, APPLY_PATCH)


@frozen
class Patch:
    """A decoded patch: `faults` are what strict decoding finds in its body: duplicate fields, unknown ones of operations."""

    type: str
    value: Any
    faults: tuple[str, ...] = ()


def read_patch(server: Server, call: Call, media_type: str) -> Patch:
    """The patch in the body. Raises BadRequest."""
    document = call.request.document
    if document is not None:
        return _shaped(Patch(media_type, document.value if isinstance(document, Document) else document))
    body = limited_body(server, call)
    decode = decode_yaml if media_type == APPLY_PATCH else decode_json
    try:
        value, duplicates = decode(body)
    except ValueError as error:
        what = "error decoding YAML" if media_type == APPLY_PATCH else "error decoding patch"
        raise BadRequest(f"{what}: {error}") from None
    if media_type == JSON_PATCH:
        duplicates = [f"json patch {fault}" for fault in duplicates] + unknown_members(value)
    return _shaped(Patch(media_type, value, tuple(duplicates)))


def _shaped(patch: Patch) -> Patch:
    """Raises BadRequest unless the patch is an object; a JSON patch is checked where it is applied."""
    if patch.type != JSON_PATCH and not isinstance(patch.value, dict):
        what = "error decoding YAML" if patch.type == APPLY_PATCH else "error decoding patch"
        found = go_type(patch.value)
        raise BadRequest(
            f"{what}: json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"
        )
    return patch


def _strategic(gvk: GroupVersionKind, old: Json, value: Any) -> Json:
    schema = schema_for(gvk)
    if schema is None:
        raise unsupported_media(CUSTOM)
    return strategic_merge(old, value, schema)


_APPLY: Mapping[str, Callable[[GroupVersionKind, Json, Any], Any]] = {
    JSON_PATCH: lambda gvk, old, value: apply_json_patch(old, value),
    MERGE_PATCH: lambda gvk, old, value: apply_merge_patch(old, value),
    APPLY_PATCH: lambda gvk, old, value: apply_merge_patch(old, value),
    STRATEGIC_PATCH: _strategic,
}


def merge_decoded(call: Call, gvk: GroupVersionKind, options: WriteOptions, patch: Patch, old: Json) -> Json:
    """The object that a patch makes of `old`, both of kind `gvk`; a private copy, types checked.

    Raises BadRequest or Invalid.
    """
    new = private_copy(_APPLY[patch.type](gvk, old, patch.value))
    if not isinstance(new, dict) or not isinstance(new.get("metadata"), dict):
        error = invalid(
            "patch", orjson.dumps(new).decode(), "json: cannot unmarshal into Go value of type object"
        )
        raise Invalid.of("", "", "", [error])

    def refuse(why: str) -> Exception:
        return Invalid.of("", "", "", [invalid("patch", orjson.dumps(new).decode(), why)])

    if why := _says_another_kind(new, gvk, patch.type):
        raise refuse(why)
    return checked(call, gvk, new, list(patch.faults), options.field_validation, refuse)


def _says_another_kind(new: Json, gvk: GroupVersionKind, patch_type: str) -> str:
    """Puts the kind into a patched object that does not say it any more; why not, when it says another one.

    A strategic merge patch works on the Go value, to which a kind is nothing. Source: handlers/patch.go.
    """
    api_version, kind = new.get("apiVersion") or gvk.api_version, new.get("kind") or gvk.kind
    if patch_type == STRATEGIC_PATCH and isinstance(kind, str) and isinstance(api_version, str):
        api_version, kind = gvk.api_version, gvk.kind
    new["apiVersion"], new["kind"] = api_version, kind
    if (api_version, kind) == (gvk.api_version, gvk.kind):
        return ""
    if not isinstance(kind, str) or not isinstance(api_version, str):
        return ""  # the check of types says it better
    return why_not(api_version, kind, gvk)


def check_options(options: WriteOptions, media_type: str) -> None:
    """fieldManager is required for apply; force means nothing elsewhere. Raises Invalid."""
    if media_type != APPLY_PATCH:
        if options.force is not None:
            error = forbidden("force", "may not be specified for non-apply patch")
            raise Invalid.of(META_GROUP, "PatchOptions", "", [error])
    elif not options.given_manager:
        error = required("fieldManager", "is required for apply patch")
        raise Invalid.of(META_GROUP, "PatchOptions", "", [error])


async def handle(server: Server, call: Call, *, subresource: str = "", rules: Rules = MAIN) -> Result:
    kind = call.kind
    assert kind is not None
    media_type = body_media_type(call)
    accepted = CUSTOM if kind.custom else BUILT_IN
    if media_type not in accepted:
        raise unsupported_media(accepted)
    options = write_options(call, "PatchOptions")
    check_options(options, media_type)
    patch = read_patch(server, call, media_type)
    applied = media_type == APPLY_PATCH
    write = begin(server, call, kind, options, subresource=subresource, rules=rules, applied=applied)
    if applied:
        return await _apply(write, patch)

    def make(old: Json) -> Json:
        new = merge_decoded(call, kind.gvk, options, patch, served_form(kind, old))
        check_name(call, new)
        return stored_form(kind, new)

    return result_of(write, await update(write, call.info.name, make))


def _type_of(applied: Json) -> str:
    """`apps/v1, Kind=Deployment`; the core group stands as nothing before the slash."""
    api_version, kind = applied.get("apiVersion") or "", applied.get("kind") or ""
    return f"{api_version if '/' in api_version else f'/{api_version}'}, Kind={kind}"


def _configuration(write: Write, patch: Patch) -> Json:
    """The applied configuration, checked against the path. Raises BadRequest, or Invalid for a foreign kind."""
    kind, call, applied = write.kind, write.call, patch.value
    if applied.get("apiVersion") != kind.api_version or applied.get("kind") != kind.kind:
        raise BadRequest(f"invalid object type: {_type_of(applied)}")
    metadata = applied.get("metadata")
    if not isinstance(metadata, dict):
        metadata = {}
    if metadata.get("managedFields"):
        raise BadRequest("metadata.managedFields must be nil")
    namespace = metadata.get("namespace") or ""
    if kind.namespaced and namespace and namespace != write.namespace:
        raise BadRequest(NAMESPACE_MISMATCH)
    if not metadata.get("name"):
        metadata = {**metadata, "name": call.info.name}
    applied = {**applied, "metadata": metadata}
    check_name(call, applied)
    return applied


def _merged(write: Write, patch: Patch, configuration: Json, live: Json | None) -> Json:
    """What applying gives, with its managed fields; a private copy. Raises Conflict for fields of other managers."""
    kind, options = write.kind, write.options
    schema = schema_for(kind.gvk)
    if patch.faults:
        if options.field_validation == "Strict":
            why = yaml_complaint(patch.faults)
            raise BadRequest(f"error strict decoding YAML: error converting YAML to JSON: {why}")
        if options.field_validation == "Warn":
            for fault in patch.faults:
                write.call.warn(fault)
    merged = server_side_apply(
        live,
        configuration,
        schema=schema,
        manager=options.manager,
        force=bool(options.force),
        subresource=write.subresource,
        api_version=kind.api_version,
        now=write.moment,
        reset_fields=kind.strategy.reset_fields.get(write.subresource, ()),
    )
    copy: Json = private_copy(merged)
    return copy


async def _apply(write: Write, patch: Patch) -> Result:
    """200, or 201 when there was nothing: apply creates. A race between the two is tried again."""
    configuration, name = _configuration(write, patch), write.call.info.name
    kind, store = write.kind, write.server.store

    def make(old: Json) -> Json:
        return stored_form(kind, _merged(write, patch, configuration, served_form(kind, old)))

    if store.get(write.key(name)) is None and not write.subresource:
        try:
            return await _apply_new(write, patch, configuration)
        except AlreadyExists:
            pass
    try:
        return result_of(write, await update(write, name, make))
    except NotFound:
        if write.subresource or store.get(write.key(name)) is not None:
            raise
        return await _apply_new(write, patch, configuration)


async def _apply_new(write: Write, patch: Patch, configuration: Json) -> Result:
    uid = configuration["metadata"].get("uid")
    if uid:
        kind = write.kind
        why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        raise Conflict.of(kind.group, kind.plural, write.call.info.name, why)
    authorize_create(write, write.call.info.name)
    obj = stored_form(write.kind, _merged(write, patch, configuration, None))
    return result_of(write, await create(write, obj), 201)
