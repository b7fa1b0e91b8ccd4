"""resource.k8s.io (dynamic resource allocation): claims, templates, classes, slices.

Source: k8s v1.36 pkg/apis/resource/validation/validation.go, pkg/apis/resource/v1/defaults.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from kcp.apis.core import checks, resources
from kcp.apis.core.checks import Errors
from kcp.apis.core.scheduling import node_selector
from kcp.apis.core.volume import csi_driver_name
from kcp.apis.device_selectors import check_selector
from kcp.apis.devices import (
    check_binding_conditions,
    check_fully_qualified_name,
    check_items,
    check_pool_name,
    check_raw_object,
    check_set,
    check_toleration,
    default_slice,
    name_key,
    validate_slice,
    validate_slice_update,
)
from kcp.apis.kind import Json, Printer, Strategy
from kcp.apis.preparing import STATUS_AND_METADATA_RESETS, keep_metadata
from kcp.apis.printing import AGE, NAME, NAME_AGE, age, columns, name_of
from kcp.machinery.errors import FieldError, forbidden, invalid, required, too_many, unsupported
from kcp.machinery.labels import validate_labels
from kcp.machinery.meta import validate_annotations, validate_conditions

MAX_REQUESTS = 32
MAX_SUBREQUESTS = 8
MAX_SELECTORS = 32
MAX_CONSTRAINTS = 32
MAX_CONFIGS = 32
MAX_RESULTS = 32
MAX_RESERVED_FOR = 256
MAX_PARAMETERS_LENGTH = 10 * 1024
MAX_DEVICE_CONDITIONS = 8

_ALLOCATION_MODES = ("All", "ExactCount")
_CONFIG_SOURCES = ("FromClaim", "FromClass")
_UNKNOWN_REQUEST = (
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
)
_ONE_KIND = "exactly one of `exactly` or `firstAvailable` is required"


def _sub_requests(claim_spec: Json) -> Iterator[Json]:
    for request in (claim_spec.get("devices") or {}).get("requests") or ():
        if request.get("exactly") is not None:
            yield request["exactly"]
        yield from request.get("firstAvailable") or ()


@resources.handles_quantities
def _default_claim_spec(spec: Json) -> None:
    for request in _sub_requests(spec):
        if not request.get("allocationMode"):
            request["allocationMode"] = "ExactCount"
        if request["allocationMode"] == "ExactCount" and not request.get("count"):
            request["count"] = 1
        for toleration in request.get("tolerations") or ():
            toleration["operator"] = toleration.get("operator") or "Equal"
        resources.default_list((request.get("capacity") or {}).get("requests"))


def _default_claim(claim: Json) -> None:
    _default_claim_spec(claim.setdefault("spec", {}))


def _default_template(template: Json) -> None:
    _default_claim_spec(template.setdefault("spec", {}).setdefault("spec", {}))


def _check_allocation_mode(errors: Errors, request: Json, path: str) -> None:
    mode, count = request.get("allocationMode") or "", request.get("count") or 0
    if mode == "All":
        if count:
            text = f"must not be specified when allocationMode is '{mode}'"
            errors.append(invalid(f"{path}.count", count, text))
    elif mode == "ExactCount":
        if count <= 0:
            errors.append(invalid(f"{path}.count", count, checks.NOT_POSITIVE))
    else:
        errors.append(unsupported(f"{path}.allocationMode", mode, _ALLOCATION_MODES))


def _check_exact(errors: Errors, request: Json, path: str) -> None:
    class_name = request.get("deviceClassName") or ""
    if not class_name:
        errors.append(required(f"{path}.deviceClassName"))
    else:
        checks.dns_subdomain(errors, class_name, f"{path}.deviceClassName")
    check_items(errors, request.get("selectors") or [], MAX_SELECTORS, check_selector, f"{path}.selectors")
    _check_allocation_mode(errors, request, path)
    check_items(errors, request.get("tolerations") or [], -1, check_toleration, f"{path}.tolerations")


def _check_sub_request(errors: Errors, request: Json, path: str) -> None:
    checks.dns_label(errors, request.get("name") or "", f"{path}.name")
    _check_exact(errors, request, path)


def _check_request(errors: Errors, request: Json, path: str) -> None:
    checks.dns_label(errors, request.get("name") or "", f"{path}.name")
    exactly, available = request.get("exactly"), request.get("firstAvailable") or []
    if exactly is None and not available:
        errors.append(required(path, _ONE_KIND))
    elif exactly is not None and available:
        errors.append(invalid(path, None, f"{_ONE_KIND}, but multiple fields are set"))
    elif available:
        where = f"{path}.firstAvailable"
        check_set(errors, available, MAX_SUBREQUESTS, _check_sub_request, name_key, where)
    else:
        _check_exact(errors, exactly or {}, f"{path}.exactly")


def _request_names(devices: Json) -> frozenset[str]:
    """What constraints, configurations and results may refer to: `request` and `request/subrequest`."""
    found: list[str] = []
    for request in devices.get("requests") or ():
        found.append(name_key(request))
        found += [f"{found[-1]}/{name_key(sub)}" for sub in request.get("firstAvailable") or ()]
    return frozenset(found)


def _check_reference(known: frozenset[str]) -> Callable[[Errors, str, str], None]:
    def check(errors: Errors, name: str, path: str) -> None:
        parts = name.split("/")
        if len(parts) > 2:
            errors.append(invalid(path, name, _UNKNOWN_REQUEST))
            return
        for part in parts:
            checks.dns_label(errors, part, path)
        if name not in known:
            errors.append(invalid(path, name, _UNKNOWN_REQUEST))

    return check


def _check_references(errors: Errors, holder: Json, known: frozenset[str], path: str) -> None:
    found = holder.get("requests") or []
    check_set(errors, found, MAX_REQUESTS, _check_reference(known), str, f"{path}.requests")


def _check_constraint(known: frozenset[str]) -> Callable[[Errors, Json, str], None]:
    def check(errors: Errors, constraint: Json, path: str) -> None:
        _check_references(errors, constraint, known, path)
        for field in ("matchAttribute", "distinctAttribute"):
            if constraint.get(field) is not None:
                check_fully_qualified_name(errors, constraint[field], f"{path}.{field}")
                return
        text = (
            'exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set'
        )
        errors.append(required(path, text))

    return check


def _check_opaque(errors: Errors, config: Json, path: str) -> None:
    opaque = config.get("opaque")
    if opaque is None:
        errors.append(required(f"{path}.opaque"))
        return
    csi_driver_name(errors, opaque.get("driver") or "", f"{path}.opaque.driver")
    check_raw_object(errors, opaque.get("parameters"), MAX_PARAMETERS_LENGTH, f"{path}.opaque.parameters")


def _check_claim_config(known: frozenset[str]) -> Callable[[Errors, Json, str], None]:
    def check(errors: Errors, config: Json, path: str) -> None:
        _check_references(errors, config, known, path)
        _check_opaque(errors, config, path)

    return check


def _check_claim_spec(errors: Errors, spec: Json, path: str) -> None:
    devices, where = spec.get("devices") or {}, f"{path}.devices"
    known = _request_names(devices)
    requests = devices.get("requests") or []
    check_set(errors, requests, MAX_REQUESTS, _check_request, name_key, f"{where}.requests")
    constraints = devices.get("constraints") or []
    check_items(errors, constraints, MAX_CONSTRAINTS, _check_constraint(known), f"{where}.constraints")
    check_items(
        errors, devices.get("config") or [], MAX_CONFIGS, _check_claim_config(known), f"{where}.config"
    )


def validate_claim(claim: Json) -> list[FieldError]:
    errors: Errors = []
    _check_claim_spec(errors, claim.get("spec") or {}, "spec")
    return errors


def validate_spec_unchanged(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    checks.same(errors, new.get("spec"), old.get("spec"), "spec")
    return errors


def _check_consumer(errors: Errors, consumer: Json, path: str) -> None:
    errors.extend(
        required(f"{path}.{field}") for field in ("resource", "name", "uid") if not consumer.get(field)
    )


def _check_result(known: frozenset[str]) -> Callable[[Errors, Json, str], None]:
    def check(errors: Errors, result: Json, path: str) -> None:
        _check_reference(known)(errors, result.get("request") or "", f"{path}.request")
        _check_device_id(errors, result, path)
        check_binding_conditions(errors, result, path)
        check_items(errors, result.get("tolerations") or [], -1, check_toleration, f"{path}.tolerations")

    return check


def _check_device_id(errors: Errors, holder: Json, path: str) -> None:
    csi_driver_name(errors, holder.get("driver") or "", f"{path}.driver")
    check_pool_name(errors, holder.get("pool") or "", f"{path}.pool")
    checks.dns_label(errors, holder.get("device") or "", f"{path}.device")


def _check_allocation_config(known: frozenset[str]) -> Callable[[Errors, Json, str], None]:
    def check(errors: Errors, config: Json, path: str) -> None:
        checks.one_of(errors, config.get("source"), _CONFIG_SOURCES, f"{path}.source")
        _check_references(errors, config, known, path)
        _check_opaque(errors, config, path)

    return check


def _check_allocation(errors: Errors, allocation: Json, known: frozenset[str], path: str) -> None:
    devices = allocation.get("devices") or {}
    results, configs = devices.get("results") or [], devices.get("config") or []
    check_items(errors, results, MAX_RESULTS, _check_result(known), f"{path}.devices.results")
    check = _check_allocation_config(known)
    check_items(errors, configs, 2 * MAX_CONFIGS, check, f"{path}.devices.config")
    if allocation.get("nodeSelector") is not None:
        node_selector(errors, allocation["nodeSelector"], f"{path}.nodeSelector")


def _device_id(holder: Json) -> tuple[str, str, str]:
    return holder.get("driver") or "", holder.get("pool") or "", holder.get("device") or ""


def _device_key(device: Json) -> str:
    parts = [str(device.get(field) or "") for field in ("driver", "pool", "device", "shareID")]
    return "/".join(part for part in parts if part)


def _check_device_status(allocated: frozenset[str]) -> Callable[[Errors, Json, str], None]:
    def check(errors: Errors, device: Json, path: str) -> None:
        _check_device_id(errors, device, path)
        if _device_key(device) not in allocated:
            errors.append(invalid(path, _device_key(device), "must be an allocated device in the claim"))
        conditions = device.get("conditions") or []
        if len(conditions) > MAX_DEVICE_CONDITIONS:
            errors.append(too_many(f"{path}.conditions", len(conditions), MAX_DEVICE_CONDITIONS))
        errors += validate_conditions(conditions, f"{path}.conditions")
        if device.get("data") is not None:
            check_raw_object(errors, device["data"], MAX_PARAMETERS_LENGTH, f"{path}.data")

    return check


def _check_reservations(errors: Errors, claim: Json, status: Json, before: Json) -> None:
    path, reserved = "status.reservedFor", status.get("reservedFor") or []
    check_set(
        errors, reserved, MAX_RESERVED_FOR, _check_consumer, lambda item: str(item.get("uid") or ""), path
    )
    if not reserved:
        return
    if status.get("allocation") is None:
        errors.append(forbidden(path, "may not be specified when `allocated` is not set"))
    elif claim["metadata"].get("deletionTimestamp"):
        known = before.get("reservedFor") or []
        if any(consumer not in known for consumer in reserved):
            text = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"
            errors.append(forbidden(path, text))


def _results(status: Json) -> list[Json]:
    return ((status.get("allocation") or {}).get("devices") or {}).get("results") or []


def _prepare_claim_status(new: Json, old: Json) -> None:
    """What drivers said of a device goes when the device is taken off the claim. Source: dropDeallocatedStatusDevices."""
    keep_metadata(new, old)
    status: Json = new.get("status") or {}
    kept = {_device_id(result) for result in _results(status)}
    gone = {_device_id(result) for result in _results(old.get("status") or {})} - kept
    devices = status.get("devices")
    if devices and gone:
        status["devices"] = [device for device in devices if _device_id(device) not in gone]
        if not status["devices"]:
            del status["devices"]


def validate_claim_status(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    status, before = new.get("status") or {}, old.get("status") or {}
    allocation, known = status.get("allocation"), (new.get("spec") or {}).get("devices") or {}
    allocated = frozenset(_device_key(result) for result in _results(status))
    _check_reservations(errors, new, status, before)
    devices = status.get("devices") or []
    check_set(errors, devices, -1, _check_device_status(allocated), _device_key, "status.devices")
    if allocation is not None and before.get("allocation") is not None:
        checks.same(errors, allocation, before["allocation"], "status.allocation")
    elif allocation is not None:
        _check_allocation(errors, allocation, _request_names(known), "status.allocation")
    return errors


def validate_template(template: Json) -> list[FieldError]:
    errors: Errors = []
    spec = template.get("spec") or {}
    metadata = spec.get("metadata") or {}
    errors += validate_annotations(metadata.get("annotations"), "spec.metadata.annotations")
    errors += validate_labels(metadata.get("labels"), "spec.metadata.labels")
    allowed = ("annotations", "labels", "creationTimestamp")
    checks.only_fields(errors, metadata, allowed, "cannot be set", "spec.metadata")
    _check_claim_spec(errors, spec.get("spec") or {}, "spec.spec")
    return errors


def validate_class(device_class: Json) -> list[FieldError]:
    errors: Errors = []
    spec = device_class.get("spec") or {}
    check_items(errors, spec.get("selectors") or [], MAX_SELECTORS, check_selector, "spec.selectors")
    check_items(errors, spec.get("config") or [], MAX_CONFIGS, _check_opaque, "spec.config")
    name = spec.get("extendedResourceName")
    if name is not None and not resources.is_extended(name):
        errors.append(invalid("spec.extendedResourceName", name, "must be a valid extended resource name"))
    return errors


def _claim_state(claim: Json) -> str:
    status = claim.get("status") or {}
    deleted = bool(claim["metadata"].get("deletionTimestamp"))
    states = ["deleted"] if deleted else []
    if status.get("allocation") is None:
        states += [] if deleted else ["pending"]
    else:
        states += ["allocated", "reserved"] if status.get("reservedFor") else ["allocated"]
    return ",".join(states)


def _claim_cells(claim: Json, now: datetime) -> list[Any]:
    return [name_of(claim), _claim_state(claim), age(claim, now)]


def _slice_cells(resource_slice: Json, now: datetime) -> list[Any]:
    spec = resource_slice.get("spec") or {}
    pool = (spec.get("pool") or {}).get("name", "")
    return [
        name_of(resource_slice),
        spec.get("nodeName"),
        spec.get("driver", ""),
        pool,
        age(resource_slice, now),
    ]


def _spec_field(field: str) -> Callable[[Json], str]:
    return lambda obj: (obj.get("spec") or {}).get(field) or ""


STRATEGIES: Mapping[str, Strategy] = {
    "ResourceClaim": Strategy(
        default=_default_claim,
        prepare_status=_prepare_claim_status,
        validate_create=validate_claim,
        validate_update=validate_spec_unchanged,
        validate_status=validate_claim_status,
        has_generation=False,
        reset_fields=STATUS_AND_METADATA_RESETS,
    ),
    "ResourceClaimTemplate": Strategy(
        default=_default_template,
        validate_create=validate_template,
        validate_update=validate_spec_unchanged,
        has_status=False,
        has_generation=False,
    ),
    "DeviceClass": Strategy(
        validate_create=validate_class,
        validate_update=lambda new, old: validate_class(new),
        has_status=False,
    ),
    "ResourceSlice": Strategy(
        default=default_slice,
        validate_create=validate_slice,
        validate_update=validate_slice_update,
        selectable={"spec.nodeName": _spec_field("nodeName"), "spec.driver": _spec_field("driver")},
        has_status=False,
    ),
}
PRINTERS: Mapping[str, Printer] = {
    "DeviceClass": NAME_AGE,
    "ResourceClaimTemplate": NAME_AGE,
    "ResourceClaim": Printer(columns(NAME, "State", AGE), _claim_cells),
    "ResourceSlice": Printer(columns(NAME, "Node", "Driver", "Pool", AGE), _slice_cells),
}
