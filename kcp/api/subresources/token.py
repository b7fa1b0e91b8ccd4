"""serviceaccounts/token: TokenRequest, a signed token for an account, bound to a pod, secret or node if asked.

Source: k8s v1.36 pkg/registry/core/serviceaccount/storage/token.go, pkg/apis/authentication/validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kcp.api.auth.service_account import Reference, TokenIssuer
from kcp.api.context import Call, Server
from kcp.api.decoding import decode
from kcp.api.options import write_options
from kcp.api.registry import attributes_of, begin, not_found
from kcp.api.results import Result, StatusResult
from kcp.api.transaction import Write
from kcp.apis.kind import Json
from kcp.machinery.errors import (
    BadRequest,
    Conflict,
    FieldError,
    Invalid,
    NotFound,
    ServiceUnavailable,
    go_quote,
    invalid,
)
from kcp.machinery.gvk import GroupVersionKind
from kcp.machinery.patch.apply import update_managed_fields
from kcp.machinery.schema.compile import schema_for
from kcp.machinery.times import format_time
from kcp.store.protocol import Key, Record

TOKEN_REQUEST = GroupVersionKind("authentication.k8s.io", "v1", "TokenRequest")
DEFAULT_LIFETIME_S = 3600
SHORTEST_S = 600
LONGEST_S = 1 << 32
EXTENDED_FROM_S = 3607
EXTENDED_TO_S = 365 * 24 * 3600
"""The token that every pod mounts asks for 3607 seconds and lives a year, with a warning once the hour is over."""

_BOUND: Mapping[tuple[str, str], str] = {
    ("v1", "Pod"): "pods",
    ("v1", "Secret"): "secrets",
    ("v1", "Node"): "nodes",
}


def _errors(spec: Json) -> list[FieldError]:
    lifetime = spec.get("expirationSeconds", DEFAULT_LIFETIME_S)
    if lifetime < SHORTEST_S:
        return [
            invalid("spec.expirationSeconds", lifetime, "may not specify a duration less than 10 minutes")
        ]
    if lifetime > LONGEST_S:
        return [
            invalid("spec.expirationSeconds", lifetime, "may not specify a duration larger than 2^32 seconds")
        ]
    return []


def _bound_object(write: Write, reference: Json) -> Record:
    """The object that the token is bound to. Raises BadRequest, NotFound, Conflict."""
    api_version, kind = reference.get("apiVersion", ""), reference.get("kind", "")
    resource = _BOUND.get((api_version, kind))
    if resource is None:
        raise BadRequest(f"cannot bind token for serviceaccount to type {api_version}, Kind={kind}")
    name, namespace = reference.get("name", ""), "" if resource == "nodes" else write.namespace
    record = write.server.store.get(Key(resource, namespace, name))
    if record is None:
        raise NotFound.of("", resource, name)
    uid = reference.get("uid")
    if uid and uid != record.uid:
        why = (
            f"the UID in the bound object reference ({uid}) does not match the UID in record."
            " The object might have been deleted and then recreated"
        )
        raise Conflict.of("", resource, name, why)
    return record


def _references(write: Write, spec: Json, account: str) -> tuple[Reference | None, Reference | None]:
    """(what the token is bound to, the node a bound pod runs on)."""
    wanted = spec.get("boundObjectRef")
    if not wanted:
        return None, None
    record = _bound_object(write, wanted)
    obj = record.value
    bound = Reference(wanted["kind"], record.key.name, record.uid)
    if wanted["kind"] != "Pod":
        return bound, None
    pod_spec = obj.get("spec") or {}
    used = pod_spec.get("serviceAccountName") or ""
    if used != account:
        raise BadRequest(
            f"cannot bind token for serviceaccount {go_quote(account)} to pod running with different serviceaccount name."
        )
    node = pod_spec.get("nodeName") or ""
    if not node:
        return bound, None
    found = write.server.store.get(Key("nodes", "", node))
    return bound, Reference("Node", node, found.uid if found else "")


def _issuer(server: Server) -> TokenIssuer:
    issuer: Any = server.extras.get("token_issuer")
    if issuer is None:
        raise ServiceUnavailable("this server has no key to sign service account tokens with")
    assert isinstance(issuer, TokenIssuer)
    return issuer


def _lifetime(spec: Json) -> tuple[int, int]:
    """(seconds the token lives, seconds after which its use is warned of; 0: never)."""
    wanted = int(spec.get("expirationSeconds", DEFAULT_LIFETIME_S))
    if wanted == EXTENDED_FROM_S and (spec.get("boundObjectRef") or {}).get("kind") == "Pod":
        return EXTENDED_TO_S, wanted
    return wanted, 0


async def create(server: Server, call: Call) -> Result:
    """201 with the TokenRequest and the token in its status."""
    kind, name = call.kind, call.info.name
    assert kind is not None
    options = write_options(call, "CreateOptions")
    request = decode(server, call, TOKEN_REQUEST, options.field_validation)
    write = begin(server, call, kind, options, subresource="token")
    account = server.store.get(write.key(name))
    if account is None:
        raise not_found(kind, name)
    spec = request.setdefault("spec", {})
    spec.setdefault("expirationSeconds", DEFAULT_LIFETIME_S)
    request = _with_managed_fields(write, request)
    spec = request["spec"]
    spec["audiences"] = spec.get("audiences") or list(server.settings.api_audiences)
    errors = _errors(spec)
    if errors:
        raise Invalid.of(TOKEN_REQUEST.group, TOKEN_REQUEST.kind, "", errors)
    server.admission.validate(attributes_of(write, "CREATE", name, request, None))
    return StatusResult(_signed(write, account, request), 201)


def _with_managed_fields(write: Write, request: Json) -> Json:
    """Source: k8s v1.36 apiserver/pkg/endpoints/handlers/create.go: of every object that is created, stored or not."""
    schema = schema_for(TOKEN_REQUEST)
    assert schema is not None
    return update_managed_fields(
        None,
        request,
        schema=schema,
        manager=write.options.manager,
        subresource="token",
        api_version=TOKEN_REQUEST.api_version,
        now=write.moment,
    )


def _signed(write: Write, account: Record, request: Json) -> Json:
    spec = request["spec"]
    bound, node = _references(write, spec, account.key.name)
    lifetime, warn_after = _lifetime(spec)
    token, expires = _issuer(write.server).issue(
        account.value, spec["audiences"], lifetime, bound=bound, node=node, warn_after_s=warn_after
    )
    metadata = {
        "name": account.key.name,
        "namespace": account.key.namespace,
        "creationTimestamp": write.now,
        "managedFields": request["metadata"]["managedFields"],
    }
    status = {"token": token, "expirationTimestamp": format_time(expires)}
    spec.setdefault("boundObjectRef", None)  # written though it is empty, as Go does
    return {**request, "metadata": metadata, "status": status}
