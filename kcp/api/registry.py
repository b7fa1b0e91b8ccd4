"""The generic registry: how a create or an update of any kind becomes one change of the log.

A write is planned on what is published, outside the writer: defaults, admission, validation, managed fields and the
encoding cost nobody else's time. The closure that then runs in the writer only checks that the plan still fits the
staged state and takes it; if the object changed in between, it plans again on the newer one, which is why plans are
pure functions of (current object, head). What must be exact (namespace alive, quota, addresses) is settled there.
Source: k8s v1.36 apiserver/pkg/registry/generic/registry/store.go, apiserver/pkg/registry/rest/{create,update}.go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from kcp.api.admission.plugin import AdmissionVerb, Companion
from kcp.api.admission.plugin import Attributes as AdmissionAttributes
from kcp.api.allocation import SERVICES
from kcp.api.auth.protocol import Attributes as Question
from kcp.api.auth.rbac import GROUP as RBAC_GROUP
from kcp.api.auth.rbac import check_escalation
from kcp.api.cluster_ips import releases
from kcp.api.context import Call, Server
from kcp.api.documents import served
from kcp.api.options import WriteOptions, object_revision
from kcp.api.results import ObjectResult
from kcp.api.transaction import Plan, Planner, Rules, Write, Written, transact
from kcp.apis.certificates import set_requestor
from kcp.apis.kind import Json, Kind
from kcp.base.clock import microseconds
from kcp.machinery.document import normal, splice_revision
from kcp.machinery.errors import (
    AlreadyExists,
    ApiError,
    BadRequest,
    Conflict,
    FieldError,
    Forbidden,
    Invalid,
    NotFound,
    go_quote,
    invalid,
)
from kcp.machinery.gvk import GroupVersion, GroupVersionKind, group_resource
from kcp.machinery.meta import (
    validate_kube_finalizers,
    validate_object_meta,
    validate_object_meta_update,
)
from kcp.machinery.names import generate_name
from kcp.machinery.patch.apply import update_managed_fields
from kcp.machinery.schema.compile import schema_for
from kcp.machinery.times import format_time
from kcp.store.protocol import (
    Head,
    Keep,
    Put,
    Record,
    Remove,
)

GENERATE_ATTEMPTS = 8
LEASES = "leases.coordination.k8s.io"
REQUESTS = "certificatesigningrequests.certificates.k8s.io"
NAMESPACE_MISMATCH = "the namespace of the provided object does not match the namespace sent on the request"
_SERVER_SET = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation", "resourceVersion")  # fmt: skip
_KEPT_METADATA = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")


def _prepare_main(kind: Kind, new: Json, old: Json) -> None:
    if kind.strategy.has_status:
        _put_back(new, old, "status")
    kind.strategy.prepare_update(new, old)


def _prepare_status(kind: Kind, new: Json, old: Json) -> None:
    """Only `status` is open; labels and annotations too for built-in kinds, whose lifecycle tests rely on it."""
    for field in [*new, *old]:
        if field not in ("metadata", "status", "apiVersion", "kind"):
            _put_back(new, old, field)
    if kind.custom:
        managed = new["metadata"].get("managedFields")
        new["metadata"] = (
            {**old["metadata"]} if managed is None else {**old["metadata"], "managedFields": managed}
        )
    else:
        _put_back(new["metadata"], old["metadata"], "ownerReferences")
    kind.strategy.prepare_status(new, old)


def _put_back(new: Json, old: Json, field: str) -> None:
    if field in old:
        new[field] = old[field]
    else:
        new.pop(field, None)


MAIN = Rules(_prepare_main, lambda kind, new, old: kind.strategy.validate_update(new, old))
STATUS = Rules(_prepare_status, lambda kind, new, old: kind.strategy.validate_status(new, old), False)


def begin(
    server: Server,
    call: Call,
    kind: Kind,
    options: WriteOptions,
    *,
    subresource: str = "",
    rules: Rules = MAIN,
    applied: bool = False,
) -> Write:
    namespace = call.info.namespace if kind.namespaced else ""
    moment = server.clock.now()
    return Write(
        server, call, kind, options, moment, format_time(moment), namespace, rules, subresource, applied
    )


def result_of(write: Write, written: Written, status: int = 200) -> ObjectResult:
    return ObjectResult(served(write.kind, written.document), write.kind, status, written.revision)


def not_found(kind: Kind, name: str) -> NotFound:
    return NotFound.of(kind.group, kind.plural, name)


def attributes_of(
    write: Write, operation: AdmissionVerb, name: str, obj: Json | None, old: Json | None
) -> AdmissionAttributes:
    return AdmissionAttributes(
        operation=operation,
        kind=write.kind,
        subresource=write.subresource,
        namespace=write.namespace,
        name=name,
        object=obj,
        old=old,
        user=write.call.user,
        dry_run=write.options.dry_run,
        warn=write.call.warn,
    )


def match_namespace(write: Write, metadata: Json) -> None:
    """Raises BadRequest when the object names another namespace than the path; fills it in when it names none."""
    found = metadata.get("namespace") or ""
    if found == write.namespace:
        if not found:
            metadata.pop("namespace", None)
    elif not found:
        metadata["namespace"] = write.namespace
    elif not write.namespace:
        metadata.pop("namespace", None)
    else:
        raise BadRequest(NAMESPACE_MISMATCH)


def _drop_empty(metadata: Json) -> None:
    """What Go's omitempty leaves out: the last label removed leaves no `labels: {}` behind."""
    for field in ("labels", "annotations", "finalizers", "ownerReferences"):
        if field in metadata and not metadata[field]:
            del metadata[field]


def _drop_duplicate_owners(write: Write, metadata: Json) -> None:
    owners = metadata.get("ownerReferences")
    if not owners or len(owners) < 2:
        return
    unique: list[Json] = []
    repeated: list[str] = []
    for owner in owners:
        if owner in unique:
            repeated.append(str(owner.get("uid", "")))
        else:
            unique.append(owner)
    if repeated:
        metadata["ownerReferences"] = unique
        write.call.warn(
            ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+,"
            " and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed:"
            f" {', '.join(dict.fromkeys(repeated))}"
        )


def _gvk_of(obj: Json) -> GroupVersionKind:
    version = GroupVersion.parse(obj["apiVersion"])
    return GroupVersionKind(version.group, version.version, obj["kind"])


def with_managed_fields(write: Write, live: Json | None, obj: Json) -> Json:
    """Ownership is recorded in the stored version, whose field names the object has."""
    kind = write.kind
    gvk = kind.gvk if kind.to_storage is None else _gvk_of(obj)
    schema = schema_for(gvk)
    if write.applied or schema is None:
        return obj
    return update_managed_fields(
        live,
        obj,
        schema=schema,
        manager=write.options.manager,
        subresource=write.subresource,
        api_version=gvk.api_version,
        now=write.moment,
        reset_fields=kind.strategy.reset_fields.get(write.subresource, ()),
    )


def _refuse(kind: Kind, name: str, errors: list[FieldError]) -> None:
    if errors:
        raise Invalid.of(kind.group, kind.kind, name, errors)


def _check_escalation(write: Write, new: Json, old: Json | None) -> None:
    """Nobody hands out more rights than they have. Raises Forbidden."""
    rbac = write.server.extras.get("rbac")
    if write.kind.group == RBAC_GROUP and rbac is not None:
        user, plural = write.call.user, write.kind.plural
        check_escalation(write.server.authorizer, rbac, user, plural, write.namespace, new, old)


def _expiry(write: Write) -> int | None:
    ttl = write.kind.strategy.ttl_s
    return None if ttl is None else microseconds(write.moment) + ttl * 1_000_000


def _put(write: Write, value: Json, body: bytes | None = None, renewal: bool = False) -> Put:
    return Put(normal(value) if body is None else body, value, _expiry(write), renewal)


def _is_service(write: Write) -> bool:
    return write.kind.resource == SERVICES and not write.subresource


def _allocated(write: Write, value: Json, old: Json | None, attributes: AdmissionAttributes) -> Plan:
    """The plan of a Service: its addresses are chosen now, its node ports in the writer."""
    allocator, dry_run = write.server.allocator, write.options.dry_run
    found, companions = allocator.addresses(value, old, write.server.store, write.moment, dry_run)

    def finish(head: Head) -> Put:
        return _put(write, allocator.ports(found, old, head))

    return Plan(_put(write, found), attributes, finish, companions=companions)


def leaving_with(write: Write, obj: Json) -> Sequence[Companion]:
    """What goes when this object goes."""
    return releases(obj, write.moment) if write.kind.resource == SERVICES else ()


def authorize_create(write: Write, name: str) -> None:
    """An update or apply that would create asks for the right to. Raises Forbidden."""
    kind = write.kind
    user = write.call.user
    question = Question(
        user=user, verb="create", group=kind.group, version=kind.version, resource=kind.plural,
        subresource=write.subresource, namespace=write.namespace, name=name, path=write.call.info.path,
    )  # fmt: skip
    verdict, reason = write.server.authorizer.authorize(question)
    if verdict == "allow":
        return
    where = f' in the namespace "{write.namespace}"' if write.namespace else " at the cluster scope"
    why = f'User "{user.name}" cannot create resource "{kind.plural}" in API group "{kind.group}"{where}'
    raise Forbidden.of(kind.group, kind.plural, name, f"{why}: {reason}" if reason else why)


def _refuse_revision(write: Write, text: str) -> None:
    """What is created has no revision yet. A POST, other than an update that creates, ignores what is no number at all.

    Source: k8s v1.36 apiserver/pkg/storage/etcd3/store.go Create, apiserver/pkg/registry/generic/registry/store.go Update.
    """
    is_number = text.isascii() and text.isdigit() and int(text) < 2**64
    if (is_number or write.call.info.verb in ("update", "patch")) and object_revision(text):
        raise ApiError("resourceVersion should not be set on objects to be created")


def draft(write: Write, obj: Json) -> Json:
    """The object as it will be created, but for a generated name: a private copy goes in, admission has its say."""
    kind, strategy, server = write.kind, write.kind.strategy, write.server
    metadata = obj["metadata"]
    match_namespace(write, metadata)
    _refuse_revision(write, metadata.get("resourceVersion") or "")
    for field in _SERVER_SET:
        metadata.pop(field, None)
    strategy.default(obj)
    _drop_empty(metadata)
    _drop_duplicate_owners(write, metadata)
    obj = with_managed_fields(write, None, obj)
    attributes = attributes_of(write, "CREATE", metadata.get("name") or "", obj, None)
    if server.admission.mutate(attributes):
        strategy.default(obj)
    if kind.strategy.has_status and not kind.strategy.keeps_status_on_create:
        obj.pop("status", None)
        if _has_status_struct(kind.gvk if kind.to_storage is None else _gvk_of(obj)):
            obj["status"] = {}
    metadata = obj["metadata"]
    metadata["uid"] = server.entropy.uid()
    metadata["creationTimestamp"] = write.now
    if strategy.has_generation:
        metadata["generation"] = 1
    strategy.prepare_create(obj)
    if kind.resource == REQUESTS:
        set_requestor(obj, _requestor(write))
    return obj


@lru_cache(maxsize=1024)
def _has_status_struct(gvk: GroupVersionKind) -> bool:
    """Whether Go writes a status in any case, `{}` when it is empty: a struct, not a pointer to one."""
    schema = schema_for(gvk)
    return schema is not None and "status" in schema.in_zero


def _requestor(write: Write) -> Json:
    """The user in the words of a certificate signing request."""
    user = write.call.user
    extra = {key: list(values) for key, values in user.extra}
    return {"username": user.name, "uid": user.uid, "groups": list(user.groups), "extra": extra}


def _warn(write: Write, new: Json, old: Json | None) -> None:
    """Warnings are for people who type: components in the process and subresources get none."""
    if write.call.request.identity is not None or write.subresource:
        return
    for text in write.kind.strategy.warnings(new, old):
        write.call.warn(text)


def creation(write: Write, obj: Json) -> Planner:
    """The planner for a finished draft with its name set. Raises Invalid or what validating admission raises."""
    kind, metadata = write.kind, obj["metadata"]
    name = metadata.get("name") or ""
    errors = validate_object_meta(metadata, namespaced=kind.namespaced, name_rule=kind.strategy.name_rule)
    if kind.kube_finalizers:
        errors += validate_kube_finalizers(metadata.get("finalizers"), "metadata.finalizers")
    _refuse(kind, name, errors + kind.strategy.validate_create(obj))
    _warn(write, obj, None)
    attributes = attributes_of(write, "CREATE", name, obj, None)
    write.server.admission.validate(attributes)
    _check_escalation(write, obj, None)
    plan = None if _is_service(write) else Plan(_put(write, obj), attributes)

    def planner(current: Record | None, head: Head) -> Plan:
        if current is not None:
            raise AlreadyExists.of(kind.group, kind.plural, name)
        return _allocated(write, obj, None, attributes) if plan is None else plan

    return planner


async def create(write: Write, obj: Json) -> Written:
    """Create an object; `obj` is a private copy in the stored version.

    A collision of a generated name is tried again with another. Raises AlreadyExists, Invalid, Forbidden, …
    """
    name = obj["metadata"].get("name") or ""
    await write.server.admission.wait(attributes_of(write, "CREATE", name, obj, None))
    obj = draft(write, obj)
    metadata = obj["metadata"]
    base = metadata.get("generateName") or ""
    if metadata.get("name") or not base:
        return await transact(write, metadata.get("name") or "", creation(write, obj))
    for _ in range(GENERATE_ATTEMPTS):
        name = generate_name(base, write.server.entropy)
        named = {**obj, "metadata": {**metadata, "name": name}}
        try:
            return await transact(write, name, creation(write, named))
        except AlreadyExists:
            continue
    what = group_resource(write.kind.group, write.kind.plural)
    text = "already exists, the server was not able to generate a unique name for the object"
    raise AlreadyExists(
        f"{what} {go_quote(name)} {text}",
        details={"name": name, "kind": write.kind.plural, "retryAfterSeconds": 1},
    )


def _check_identity(write: Write, metadata: Json, current: Record) -> None:
    """The uid and resourceVersion that the object carries are preconditions. Raises Conflict or Invalid."""
    kind, key = write.kind, current.key
    uid = metadata.get("uid") or ""
    if uid and uid != current.uid:
        path = "/".join(part for part in ("/registry", kind.plural, key.namespace, key.name) if part)
        raise Conflict.of(
            kind.group,
            kind.plural,
            key.name,
            f"StorageError: invalid object, Code: 4, Key: {path}, ResourceVersion: 0, AdditionalErrorMsg:"
            f" Precondition failed: UID in precondition: {uid}, UID in object meta: {current.uid}",
        )
    rv = object_revision(metadata.get("resourceVersion") or "")
    if rv and rv != current.rv:
        raise Conflict.of(kind.group, kind.plural, key.name)
    if not rv and not kind.strategy.allow_unconditional_update:
        error = invalid("metadata.resourceVersion", 0, "must be specified for an update")
        raise Invalid.of(kind.group, kind.plural, key.name, [error])


def _carry(metadata: Json, old: Json) -> None:
    """What an update can never change: set by the server and kept. An unconditional update is one of what is there."""
    metadata["resourceVersion"] = old["resourceVersion"]
    metadata.pop("selfLink", None)
    for field in _KEPT_METADATA:
        if field in old:
            metadata[field] = old[field]
        elif field == "generation":
            metadata.pop(field, None)


def _raise_generation(kind: Kind, new: Json, old: Json) -> None:
    if not kind.strategy.has_generation:
        return
    for field in {**new, **old}:
        if field in ("metadata", "status", "apiVersion", "kind"):
            continue
        if new.get(field) != old.get(field):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
            return


def leaves(new: Json, old: Json, kind: Kind) -> bool:
    """Whether this update takes away the last reason for an object under deletion to stay."""
    metadata, before = new["metadata"], old["metadata"]
    if not before.get("deletionTimestamp") or metadata.get("finalizers"):
        return False
    if before.get("deletionGracePeriodSeconds"):
        return False
    return kind.resource != "namespaces" or not (new.get("spec") or {}).get("finalizers")


def _is_renewal(kind: Kind, new: Json, old: Json) -> bool:
    if kind.resource != LEASES:
        return False
    holder = (new.get("spec") or {}).get("holderIdentity")
    return bool(holder) and holder == (old.get("spec") or {}).get("holderIdentity")


def change_of(write: Write, new: Json, current: Record) -> Plan:
    """Plan to turn `current` into `new` (a private copy in the stored version) through the write's door."""
    kind, strategy, server = write.kind, write.kind.strategy, write.server
    old, name = current.value, current.key.name
    metadata = new["metadata"]
    match_namespace(write, metadata)
    _check_identity(write, metadata, current)
    strategy.default(new)
    _carry(metadata, old["metadata"])
    _drop_empty(metadata)
    _drop_duplicate_owners(write, metadata)
    new = with_managed_fields(write, old, new)
    attributes = attributes_of(write, "UPDATE", name, new, old)
    if server.admission.mutate(attributes):
        strategy.default(new)
    write.rules.prepare(kind, new, old)
    if write.rules.raises_generation:
        _raise_generation(kind, new, old)
    errors = validate_object_meta_update(new["metadata"], old["metadata"])
    if kind.kube_finalizers:
        errors += validate_kube_finalizers(new["metadata"].get("finalizers"), "metadata.finalizers")
    _refuse(kind, name, errors + write.rules.validate(kind, new, old))
    _warn(write, new, old)
    server.admission.validate(attributes)
    _check_escalation(write, new, old)
    return _plan_of(write, new, current, attributes)


def _plan_of(write: Write, new: Json, current: Record, attributes: AdmissionAttributes) -> Plan:
    old = current.value
    if leaves(new, old, write.kind):
        gone = attributes_of(write, "DELETE", current.key.name, None, old)
        return Plan(Remove(), gone, leaving=new, companions=leaving_with(write, old))
    body = normal(new)
    if splice_revision(body, current.rv) == current.document.encoded:
        return Plan(Keep())
    if _is_service(write):
        return _allocated(write, new, old, attributes)
    return Plan(_put(write, new, body, _is_renewal(write.kind, new, old)), attributes)


def updating(write: Write, name: str, make: Callable[[Json], Json]) -> Planner:
    """The planner of an update: `make` gives the wanted object, a private copy, from the stored one."""

    def planner(current: Record | None, head: Head) -> Plan:
        if current is None:
            raise not_found(write.kind, name)
        return change_of(write, make(current.value), current)

    return planner


async def update(write: Write, name: str, make: Callable[[Json], Json]) -> Written:
    """Update an object that exists. Raises NotFound, Conflict, Invalid, Forbidden, …"""
    return await transact(write, name, updating(write, name, make))


def stored_form(kind: Kind, obj: Json) -> Json:
    """From the version of the request to the one that is stored; a new object unless they are the same."""
    return obj if kind.to_storage is None else kind.to_storage(obj)


def served_form(kind: Kind, obj: Json) -> Json:
    return obj if kind.from_storage is None else kind.from_storage(obj)
