"""storage.k8s.io: classes, CSI objects, attachments.

Source: k8s v1.36 pkg/apis/storage/validation/validation.go, pkg/apis/storage/v1/defaults.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kcp.apis.core import checks, resources
from kcp.apis.core.checks import Errors
from kcp.apis.core.volume import csi_driver_name
from kcp.apis.kind import Column, Json, Printer, Strategy
from kcp.apis.preparing import STATUS_AND_METADATA_RESETS, keep_metadata, zero_status
from kcp.apis.printing import AGE, NAME, NONE, UNSET, age, columns, name_of
from kcp.apis.semantics.volumes import is_default_class
from kcp.apis.zero_values import write_topology_keys
from kcp.machinery import names
from kcp.machinery.errors import FieldError, duplicate, forbidden, invalid, required, too_long, unsupported
from kcp.machinery.quantity import parse

MAX_PARAMETERS = 512
MAX_PARAMETER_BYTES = 256 * 1024
MAX_NODE_ID_LENGTH = 256
MAX_ERROR_BYTES = 1024
MIN_TOKEN_S = 600
MIN_ALLOCATABLE_PERIOD_S = 10
DEFAULT_ATTRIBUTES_CLASS = "storageclass.kubernetes.io/is-default-class"

_RECLAIM_POLICIES = ("Delete", "Retain")
_BINDING_MODES = ("Immediate", "WaitForFirstConsumer")
_GROUP_POLICIES = ("File", "None", "ReadWriteOnceWithFSType")
_LIFECYCLE_MODES = ("Persistent", "Ephemeral")


def _default_storage_class(storage_class: Json) -> None:
    storage_class.setdefault("reclaimPolicy", "Delete")
    storage_class.setdefault("volumeBindingMode", "Immediate")


def _check_provisioner(errors: Errors, provisioner: str, path: str) -> None:
    if not provisioner:
        errors.append(required(path))
    else:
        checks.qualified_name(errors, provisioner.lower(), path)


def _check_parameters(errors: Errors, parameters: Mapping[str, str] | None, *, needed: bool) -> None:
    entries = parameters or {}
    if len(entries) > MAX_PARAMETERS:
        errors.append(too_long("parameters", MAX_PARAMETERS))
        return
    if "" in entries:
        errors.append(invalid("parameters", "", "field can not be empty."))
    if sum(len(key.encode()) + len(value.encode()) for key, value in entries.items()) > MAX_PARAMETER_BYTES:
        errors.append(too_long("parameters", MAX_PARAMETER_BYTES))
    if needed and not entries:
        errors.append(required("parameters", "must contain at least one key/value pair"))


def _check_topology_term(errors: Errors, term: Json, path: str) -> dict[str, frozenset[str]]:
    """A TopologySelectorTerm; gives its keys with their values, to find equal terms."""
    found: dict[str, frozenset[str]] = {}
    for index, expression in enumerate(term.get("matchLabelExpressions") or ()):
        where, key = f"{path}.matchLabelExpressions[{index}]", expression.get("key") or ""
        values = expression.get("values") or []
        if not values:
            errors.append(required(f"{where}.values"))
        for at, value in enumerate(values):
            if value in values[:at]:
                errors.append(duplicate(f"{where}.values[{at}]", value))
        checks.texts(errors, names.is_qualified_name(key), key, f"{where}.key")
        if key in found:
            errors.append(duplicate(f"{where}.key", key))
        found[key] = frozenset(values)
    return found


def _check_topologies(errors: Errors, terms: list[Json]) -> None:
    seen: list[dict[str, frozenset[str]]] = []
    for index, term in enumerate(terms):
        path = f"allowedTopologies[{index}]"
        found = _check_topology_term(errors, term, path)
        if found in seen:
            errors.append(duplicate(f"{path}.matchLabelExpressions", ""))
        seen.append(found)


def validate_storage_class(storage_class: Json) -> list[FieldError]:
    errors: Errors = []
    _check_provisioner(errors, storage_class.get("provisioner") or "", "provisioner")
    _check_parameters(errors, storage_class.get("parameters"), needed=False)
    policy, mode = storage_class.get("reclaimPolicy"), storage_class.get("volumeBindingMode")
    if policy and policy not in _RECLAIM_POLICIES:
        errors.append(unsupported("reclaimPolicy", policy, _RECLAIM_POLICIES))
    if mode is None:
        errors.append(required("volumeBindingMode"))
    elif mode not in _BINDING_MODES:
        errors.append(unsupported("volumeBindingMode", mode, _BINDING_MODES))
    _check_topologies(errors, storage_class.get("allowedTopologies") or [])
    return errors


def _check_frozen(errors: Errors, new: Json, old: Json, field: str) -> None:
    if (new.get(field) or None) != (old.get(field) or None):
        errors.append(forbidden(field, f"updates to {field} are forbidden."))


def validate_storage_class_update(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    for field in ("parameters", "provisioner", "reclaimPolicy"):
        _check_frozen(errors, new, old, field)
    checks.same(errors, new.get("volumeBindingMode"), old.get("volumeBindingMode"), "volumeBindingMode")
    return errors


def _default_marked(obj: Json) -> str:
    return f"{name_of(obj)} (default)" if is_default_class(obj) else name_of(obj)


def _storage_class_cells(storage_class: Json, now: datetime) -> list[Any]:
    return [
        _default_marked(storage_class),
        storage_class.get("provisioner", ""),
        storage_class.get("reclaimPolicy") or "Delete",
        storage_class.get("volumeBindingMode") or "Immediate",
        bool(storage_class.get("allowVolumeExpansion")),
        age(storage_class, now),
    ]


def validate_attributes_class(attributes_class: Json) -> list[FieldError]:
    errors: Errors = []
    _check_provisioner(errors, attributes_class.get("driverName") or "", "driverName")
    _check_parameters(errors, attributes_class.get("parameters"), needed=True)
    return errors


def validate_attributes_class_update(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    _check_frozen(errors, new, old, "driverName")
    _check_frozen(errors, new, old, "parameters")
    return errors + validate_attributes_class(new)


def _attributes_class_cells(attributes_class: Json, now: datetime) -> list[Any]:
    return [
        _default_marked(attributes_class),
        attributes_class.get("driverName", ""),
        age(attributes_class, now),
    ]


def _check_attachment_source(errors: Errors, source: Json, path: str) -> None:
    text = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
    inline, name = source.get("inlineVolumeSpec"), source.get("persistentVolumeName")
    if inline is None and name is None:
        errors.append(required(path, text))
    elif inline is not None and name is not None:
        errors.append(forbidden(path, text))
    elif name == "":
        errors.append(required(f"{path}.persistentVolumeName", "must specify non empty persistentVolumeName"))


def _check_attachment_status(errors: Errors, status: Json) -> None:
    metadata = status.get("attachmentMetadata") or {}
    if sum(len(key.encode()) + len(value.encode()) for key, value in metadata.items()) > MAX_PARAMETER_BYTES:
        errors.append(too_long("status.attachmentMetadata", MAX_PARAMETER_BYTES))
    for field in ("attachError", "detachError"):
        error = status.get(field) or {}
        if len((error.get("message") or "").encode()) > MAX_ERROR_BYTES:
            errors.append(too_long(f"status.{field}.message", MAX_PARAMETER_BYTES))
        code = error.get("errorCode")
        if code is not None and code < 0:
            text = names.inclusive_range_text(0, checks.MAX_INT32)
            errors.append(invalid(f"status.{field}.errorCode", code, text))


def _check_attachment(errors: Errors, attachment: Json) -> None:
    spec = attachment.get("spec") or {}
    csi_driver_name(errors, spec.get("attacher") or "", "spec.attacher")
    _check_attachment_source(errors, spec.get("source") or {}, "spec.source")
    node = spec.get("nodeName") or ""
    checks.texts(errors, names.is_dns1123_subdomain(node), node, "spec.nodeName")
    name = (spec.get("source") or {}).get("persistentVolumeName")
    if name is not None:
        checks.texts(errors, names.is_dns1123_subdomain(name), name, "spec.source.persistentVolumeName")
    _check_attachment_status(errors, attachment.get("status") or {})


def validate_attachment(attachment: Json) -> list[FieldError]:
    errors: Errors = []
    _check_attachment(errors, attachment)
    return errors


def validate_attachment_update(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    _check_attachment(errors, new)
    checks.same(errors, new.get("spec"), old.get("spec"), "spec")
    return errors


def _attachment_cells(attachment: Json, now: datetime) -> list[Any]:
    spec = attachment.get("spec") or {}
    return [
        name_of(attachment),
        spec.get("attacher", ""),
        (spec.get("source") or {}).get("persistentVolumeName") or "",
        spec.get("nodeName", ""),
        bool((attachment.get("status") or {}).get("attached")),
        age(attachment, now),
    ]


def _check_node_driver(
    errors: Errors, driver: Json, path: str, *, lenient_length: int, seen: set[str]
) -> None:
    name = driver.get("name") or ""
    csi_driver_name(errors, name, f"{path}.name")
    node_id = driver.get("nodeID") or ""
    if not node_id:
        errors.append(required(f"{path}.nodeID"))
    if len(node_id) > max(MAX_NODE_ID_LENGTH, lenient_length):
        errors.append(invalid(f"{path}.nodeID", node_id, f"must be {MAX_NODE_ID_LENGTH} characters or less"))
    checks.nonnegative(errors, (driver.get("allocatable") or {}).get("count"), f"{path}.allocatable.count")
    if name in seen:
        errors.append(duplicate(f"{path}.name", name))
    seen.add(name)
    keys = driver.get("topologyKeys") or []
    for index, key in enumerate(keys):
        if not key:
            errors.append(required(path))
        if key in keys[:index]:
            errors.append(duplicate(path, key))
        checks.qualified_name(errors, key, path)


def _drivers(node: Json) -> list[Json]:
    found: list[Json] = (node.get("spec") or {}).get("drivers") or []
    return found


def _check_csi_node(errors: Errors, node: Json, old: Json | None) -> None:
    longest = max((len(driver.get("nodeID") or "") for driver in _drivers(old or {})), default=0)
    seen: set[str] = set()
    for index, driver in enumerate(_drivers(node)):
        _check_node_driver(errors, driver, f"spec.drivers[{index}]", lenient_length=longest, seen=seen)


def validate_csi_node(node: Json) -> list[FieldError]:
    errors: Errors = []
    _check_csi_node(errors, node, None)
    return errors


def validate_csi_node_update(new: Json, old: Json) -> list[FieldError]:
    """A driver that stays may change nothing but its allocatable count."""
    errors: Errors = []
    _check_csi_node(errors, new, old)
    before = {driver.get("name"): driver for driver in _drivers(old)}
    for driver in _drivers(new):
        known = before.get(driver.get("name"))
        if known is not None:
            checks.same(errors, _fixed(driver), _fixed(known), "spec.drivers")
    return errors


def _fixed(driver: Json) -> Json:
    return {key: value for key, value in driver.items() if key != "allocatable" and value is not None}


def _csi_node_cells(node: Json, now: datetime) -> list[Any]:
    return [name_of(node), len(_drivers(node)), age(node, now)]


_DRIVER_DEFAULTS: Mapping[str, Any] = {
    "attachRequired": True,
    "podInfoOnMount": False,
    "storageCapacity": False,
    "fsGroupPolicy": "ReadWriteOnceWithFSType",
    "requiresRepublish": False,
    "seLinuxMount": False,
}


def _default_csi_driver(driver: Json) -> None:
    spec = driver.setdefault("spec", {})
    for field, value in _DRIVER_DEFAULTS.items():
        if spec.get(field) is None:
            spec[field] = value
    if not spec.get("volumeLifecycleModes"):
        spec["volumeLifecycleModes"] = ["Persistent"]


def _check_tokens(errors: Errors, tokens: list[Json], path: str) -> None:
    seen: set[str] = set()
    for index, token in enumerate(tokens):
        where, audience, seconds = (
            f"{path}[{index}]",
            token.get("audience") or "",
            token.get("expirationSeconds"),
        )
        if audience in seen:
            errors.append(duplicate(f"{where}.audience", audience))
            continue
        seen.add(audience)
        if seconds is not None and seconds < MIN_TOKEN_S:
            text = "may not specify a duration less than 10 minutes"
            errors.append(invalid(f"{where}.expirationSeconds", seconds, text))
        if seconds is not None and seconds > 1 << 32:
            text = "may not specify a duration larger than 2^32 seconds"
            errors.append(invalid(f"{where}.expirationSeconds", seconds, text))


def validate_csi_driver(driver: Json) -> list[FieldError]:
    errors: Errors = []
    spec = driver.get("spec") or {}
    needed = (("attachRequired", "attachedRequired"), ("podInfoOnMount", "podInfoOnMount"), ("storageCapacity", "storageCapacity"), ("seLinuxMount", "seLinuxMount"))  # fmt: skip
    for field, shown in needed:
        if spec.get(field) is None:
            errors.append(required(f"spec.{shown}"))
    policy = spec.get("fsGroupPolicy")
    if policy is not None and policy not in _GROUP_POLICIES:
        errors.append(unsupported("spec.fsGroupPolicy", policy, _GROUP_POLICIES))
    _check_tokens(errors, spec.get("tokenRequests") or [], "spec.tokenRequests")
    for mode in spec.get("volumeLifecycleModes") or ():
        if mode not in _LIFECYCLE_MODES:
            errors.append(unsupported("spec.volumeLifecycleModes", mode, _LIFECYCLE_MODES))
    period = spec.get("nodeAllocatableUpdatePeriodSeconds")
    if period is not None and period < MIN_ALLOCATABLE_PERIOD_S:
        text = f"must be greater than or equal to {MIN_ALLOCATABLE_PERIOD_S} seconds"
        errors.append(invalid("spec.nodeAllocatableUpdatePeriodSeconds", period, text))
    in_secrets = spec.get("serviceAccountTokenInSecrets")
    if in_secrets is not None and not spec.get("tokenRequests"):
        text = "serviceAccountTokenInSecrets is set but no tokenRequests are specified"
        errors.append(invalid("spec.serviceAccountTokenInSecrets", in_secrets, text))
    return errors


def validate_csi_driver_update(new: Json, old: Json) -> list[FieldError]:
    errors = validate_csi_driver(new)
    after, before = new.get("spec") or {}, old.get("spec") or {}
    checks.same(errors, after.get("attachRequired"), before.get("attachRequired"), "spec.attachedRequired")
    modes = "volumeLifecycleModes"
    checks.same(errors, after.get(modes), before.get(modes), f"spec.{modes}")
    return errors


def _csi_driver_cells(driver: Json, now: datetime) -> list[Any]:
    spec = driver.get("spec") or {}
    tokens = spec.get("tokenRequests")
    audiences = UNSET if tokens is None else ",".join(token.get("audience", "") for token in tokens)
    return [
        name_of(driver),
        spec.get("attachRequired", True),
        bool(spec.get("podInfoOnMount")),
        bool(spec.get("storageCapacity")),
        audiences,
        bool(spec.get("requiresRepublish")),
        ",".join(spec.get("volumeLifecycleModes") or ()) or NONE,
        age(driver, now),
    ]


@resources.handles_quantities
def _default_capacity(capacity: Json) -> None:
    resources.canonical_field(capacity, "capacity")
    resources.canonical_field(capacity, "maximumVolumeSize")


def validate_capacity(capacity: Json) -> list[FieldError]:
    errors: Errors = []
    checks.label_selector(errors, capacity.get("nodeTopology"), "nodeTopology")
    name, amount = capacity.get("storageClassName") or "", capacity.get("capacity")
    checks.texts(errors, names.is_dns1123_subdomain(name), name, "storageClassName")
    if amount is not None and parse(amount).sign() < 0:
        errors.append(invalid("capacity", amount, checks.NOT_NEGATIVE))
    return errors


def validate_capacity_update(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    for field in ("nodeTopology", "storageClassName"):
        checks.same(errors, new.get(field), old.get(field), field)
    return errors


def _capacity_cells(capacity: Json, now: datetime) -> list[Any]:
    del now
    return [name_of(capacity), capacity.get("storageClassName", ""), capacity.get("capacity") or UNSET]


STRATEGIES: Mapping[str, Strategy] = {
    "StorageClass": Strategy(
        default=_default_storage_class,
        validate_create=validate_storage_class,
        validate_update=validate_storage_class_update,
        has_status=False,
        has_generation=False,
    ),
    "VolumeAttributesClass": Strategy(
        validate_create=validate_attributes_class,
        validate_update=validate_attributes_class_update,
        has_status=False,
        has_generation=False,
    ),
    "VolumeAttachment": Strategy(
        prepare_create=zero_status(attached=False),
        prepare_status=keep_metadata,
        validate_create=validate_attachment,
        validate_update=validate_attachment_update,
        validate_status=validate_attachment_update,
        has_generation=False,
        allow_unconditional_update=False,
        reset_fields=STATUS_AND_METADATA_RESETS,
    ),
    "CSINode": Strategy(
        prepare_create=write_topology_keys,
        prepare_update=lambda new, old: write_topology_keys(new),
        validate_create=validate_csi_node,
        validate_update=validate_csi_node_update,
        has_status=False,
        has_generation=False,
        allow_unconditional_update=False,
    ),
    "CSIDriver": Strategy(
        default=_default_csi_driver,
        validate_create=validate_csi_driver,
        validate_update=validate_csi_driver_update,
        has_status=False,
        has_generation=False,
        allow_unconditional_update=False,
    ),
    "CSIStorageCapacity": Strategy(
        default=_default_capacity,
        validate_create=validate_capacity,
        validate_update=validate_capacity_update,
        has_status=False,
        has_generation=False,
        allow_unconditional_update=False,
    ),
}
PRINTERS: Mapping[str, Printer] = {
    "StorageClass": Printer(
        columns(NAME, "Provisioner", "ReclaimPolicy", "VolumeBindingMode", "AllowVolumeExpansion", AGE),
        _storage_class_cells,
    ),
    "VolumeAttributesClass": Printer(columns(NAME, "DriverName", AGE), _attributes_class_cells),
    "VolumeAttachment": Printer(
        columns(NAME, Column("Attacher", "string", "name"), "PV", "Node", ("Attached", "boolean"), AGE),
        _attachment_cells,
    ),
    "CSINode": Printer(columns(NAME, ("Drivers", "integer"), AGE), _csi_node_cells),
    "CSIDriver": Printer(
        columns(
            NAME,
            ("AttachRequired", "boolean"),
            ("PodInfoOnMount", "boolean"),
            ("StorageCapacity", "boolean"),
            "TokenRequests",
            ("RequiresRepublish", "boolean"),
            "Modes",
            AGE,
        ),
        _csi_driver_cells,
    ),
    "CSIStorageCapacity": Printer(columns(NAME, "StorageClassName", "Capacity"), _capacity_cells),
}
