"""From a request body to an object of the kind that the path names.

JSON, YAML and protobuf by Content-Type. What the body says it is must be what the path expects; unknown and
duplicate fields are refused, warned of or ignored as `fieldValidation` says, and dropped in every case.
Source: k8s v1.36 apiserver/pkg/endpoints/handlers/create.go, rest.go (transformDecodeError, summarizeData).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kcp.api.context import Call, Server
from kcp.api.documents import private_copy
from kcp.api.negotiation import body_media_type
from kcp.api.options import FieldValidation
from kcp.apis.kind import Catalog, Kind
from kcp.machinery.codec.json import JsonError, decode_json, interpret, parse_fault, undecodable
from kcp.machinery.codec.protobuf import UnknownProtobufKind, decode_protobuf
from kcp.machinery.codec.yaml import decode_yaml
from kcp.machinery.document import Document, Json
from kcp.machinery.errors import BadRequest, RequestEntityTooLarge, UnsupportedMediaType
from kcp.machinery.gvk import GroupVersion, GroupVersionKind
from kcp.machinery.schema.compile import Schema, schema_for
from kcp.machinery.schema.defaults import drop_voids, prune
from kcp.machinery.schema.validate import check

SCHEME = "pkg/api/legacyscheme/scheme.go:30"
"""The name of Kubernetes' type registry, as its errors print it."""

PROTOBUF = "application/vnd.kubernetes.protobuf"
BODY_TYPES = ("application/json", "application/yaml", PROTOBUF)


def _read_json(body: bytes, gvk: GroupVersionKind) -> tuple[Any, list[str]]:
    try:
        value, duplicates = decode_json(body)
        interpret(value)
    except JsonError as error:
        raise ValueError(parse_fault(error)) from None
    return value, duplicates


def _read_yaml(body: bytes, gvk: GroupVersionKind) -> tuple[Any, list[str]]:
    value, duplicates = decode_yaml(body)
    try:
        interpret(value)
    except JsonError as error:
        raise ValueError(parse_fault(error)) from None
    return value, duplicates


def _read_protobuf(body: bytes, gvk: GroupVersionKind) -> tuple[Any, list[str]]:
    return decode_protobuf(body, gvk), []


_DECODERS: Mapping[str, Callable[[bytes, GroupVersionKind], tuple[Any, list[str]]]] = {
    "application/json": _read_json,
    "application/yaml": _read_yaml,
    PROTOBUF: _read_protobuf,
}


def unsupported_media(accepted: tuple[str, ...]) -> UnsupportedMediaType:
    return UnsupportedMediaType(
        f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}"
    )


def limited_body(server: Server, call: Call) -> bytes:
    """The body. Raises RequestEntityTooLarge beyond the server's limit."""
    body, limit = call.request.body, server.settings.max_request_body_bytes
    if len(body) > limit:
        raise RequestEntityTooLarge(f"Request entity too large: limit is {limit}")
    return body


def cannot_be_handled(found: GroupVersionKind, kind: str, why: str) -> BadRequest:
    return BadRequest(f'{found.kind} in version "{found.version}" cannot be handled as a {kind}: {why}')


def _parse(body: bytes, media_type: str, gvk: GroupVersionKind) -> tuple[Json, list[str]]:
    decoder = _DECODERS.get(media_type)
    if decoder is None:
        raise unsupported_media(BODY_TYPES)
    try:
        value, duplicates = decoder(body, gvk)
    except UnknownProtobufKind as unknown:
        raise _not_registered(unknown.gvk, gvk.kind) from None
    except ValueError as error:
        raise BadRequest(undecodable(gvk.kind, body, str(error))) from None
    return ({} if value is None else value), duplicates


def read_body(server: Server, call: Call, gvk: GroupVersionKind) -> tuple[Json, list[str]]:
    """The decoded body, a private copy, and the duplicate fields in it. `gvk` is what it is if it does not say."""
    document = call.request.document
    if document is not None:
        value = document.value if isinstance(document, Document) else document
        return private_copy(value), []
    return _parse(limited_body(server, call), body_media_type(call), gvk)


def _found_kind(obj: Json, expected: GroupVersionKind) -> GroupVersionKind:
    """What the body says it is; what it leaves out is taken from the path."""
    api_version, kind = obj.get("apiVersion") or expected.api_version, obj.get("kind") or expected.kind
    if api_version == expected.api_version and kind == expected.kind:
        return expected
    try:
        version = GroupVersion.parse(api_version)
    except ValueError as error:
        raise BadRequest(str(error)) from None
    return GroupVersionKind(version.group, version.version, kind)


def _internal(gvk: GroupVersionKind) -> str:
    """How Go prints the hub type: the last part of the package, a dot, the kind."""
    return f"{(gvk.group or 'core').split('.', 1)[0]}.{gvk.kind}"


def _unknown(found: GroupVersionKind) -> str:
    return f'no kind "{found.kind}" is registered for version "{found.api_version}" in scheme "{SCHEME}"'


def _not_registered(found: GroupVersionKind, kind: str) -> BadRequest:
    return cannot_be_handled(found, kind, _unknown(found))


def why_not(api_version: str, kind: str, expected: GroupVersionKind) -> str:
    """Why something that says it is this kind is none of `expected`, in the words of Go's decoder."""
    try:
        version = GroupVersion.parse(api_version)
    except ValueError as error:
        return str(error)
    found = GroupVersionKind(version.group, version.version, kind)
    if schema_for(found) is None:
        return _unknown(found)
    return f"converting ({found.version}.{found.kind}) to ({_internal(expected)}): unknown conversion"


def check_kind(catalog: Catalog, found: GroupVersionKind, expected: GroupVersionKind) -> None:
    """Raises BadRequest unless the body is what the path expects."""
    if found == expected:
        return
    other, own = (
        catalog.by_kind(found.group, found.version, found.kind),
        catalog.by_kind(expected.group, expected.version, expected.kind),
    )
    if other is None and (own is None or not own.custom):
        raise _not_registered(found, expected.kind)
    if found.kind != expected.kind or (other and own and other.resource != own.resource):
        if own is not None and own.custom:
            raise BadRequest(
                f"the kind in the data ({found.kind}) does not match the expected kind ({expected.kind})"
            )
        why = f"converting ({found.version}.{found.kind}) to ({_internal(expected)}): unknown conversion"
        raise cannot_be_handled(found, expected.kind, why)
    raise BadRequest(
        f"the API version in the data ({found.api_version}) does not match"
        f" the expected API version ({expected.api_version})"
    )


def schema_of(kind: Kind) -> Schema | None:
    return schema_for(kind.gvk)


def checked(
    call: Call,
    gvk: GroupVersionKind,
    obj: Json,
    duplicates: list[str],
    validation: FieldValidation,
    refuse: Callable[[str], Exception],
) -> Json:
    """The object with types checked and unknown fields reported and dropped.

    `refuse` makes the error for a wrong type or, when strict, for unknown and duplicate fields.
    """
    schema = schema_for(gvk)
    if schema is None:
        return obj
    report = check(schema, obj)
    if report.errors:
        raise refuse(report.errors[0])
    if report.unknown or duplicates:
        _report_strictness(call, report.unknown, duplicates, validation, refuse)
    if report.has_voids:
        obj = drop_voids(schema, obj)
    if report.unknown:
        obj = prune(schema, obj)
    return obj


def yaml_complaint(duplicates: Sequence[str]) -> str:
    """The one error in which Go's YAML decoder tells of all repeated keys."""
    return "yaml: unmarshal errors:\n  " + "\n  ".join(duplicates)


def _report_strictness(
    call: Call,
    unknown: Sequence[str],
    duplicates: Sequence[str],
    validation: FieldValidation,
    refuse: Callable[[str], Exception],
) -> None:
    """`duplicates` of a YAML body begin with `line`, and come first; the others are JSON's."""
    of_yaml = [fault for fault in duplicates if fault.startswith("line ")]
    rest = [*(f'unknown field "{path}"' for path in unknown), *(f for f in duplicates if f not in of_yaml)]
    if validation == "Strict":
        faults = [yaml_complaint(of_yaml), *rest] if of_yaml else rest
        raise refuse(f"strict decoding error: {', '.join(faults)}")
    if validation == "Warn":
        for fault in (*of_yaml, *rest):
            call.warn(fault)


def decode(
    server: Server, call: Call, gvk: GroupVersionKind, field_validation: FieldValidation = "Warn"
) -> Json:
    """The body as an object of `gvk`: a private copy, types checked, unknown fields dropped.

    Raises BadRequest, RequestEntityTooLarge, UnsupportedMediaType.
    """
    obj, duplicates = read_body(server, call, gvk)
    found = _found_kind(obj, gvk)
    check_kind(server.catalog, found, gvk)
    obj["apiVersion"], obj["kind"] = gvk.api_version, gvk.kind
    if not isinstance(obj.get("metadata"), dict):
        obj["metadata"] = {} if obj.get("metadata") is None else obj["metadata"]
    obj = checked(
        call, gvk, obj, duplicates, field_validation, lambda why: cannot_be_handled(found, gvk.kind, why)
    )
    if not isinstance(obj["metadata"], dict):
        raise cannot_be_handled(found, gvk.kind, "json: cannot unmarshal into Go struct field .metadata")
    return obj


def decode_object(server: Server, call: Call, kind: Kind, field_validation: FieldValidation = "Warn") -> Json:
    """The body as an object of a resource's kind; see `decode`."""
    return decode(server, call, kind.gvk, field_validation)
