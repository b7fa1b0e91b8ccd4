"""Rules about devices that claims, classes and slices share, and ResourceSlice itself.

Source: k8s v1.36 pkg/apis/resource/validation/validation.go, pkg/apis/resource/types.go.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kcp.apis.core import checks, resources
from kcp.apis.core.checks import Errors
from kcp.apis.core.scheduling import node_selector
from kcp.apis.core.volume import csi_driver_name
from kcp.apis.kind import Json
from kcp.machinery import names
from kcp.machinery.errors import (
    FieldError,
    duplicate,
    forbidden,
    invalid,
    required,
    too_long,
    too_many,
    unsupported,
)
from kcp.machinery.quantity import parse

MAX_POOL_NAME = 253
MAX_ID_LENGTH = 32
MAX_DEVICES = 128
MAX_ADVANCED_DEVICES = 64
MAX_ATTRIBUTES_AND_CAPACITIES = 32
MAX_ATTRIBUTE_VALUES = 48
MAX_VALUE_LENGTH = 64
MAX_TAINTS = 16
MAX_COUNTER_SETS = 8
MAX_COUNTERS = 32
MAX_CONSUMPTIONS = 2
MAX_BINDING_CONDITIONS = 4
MAX_PARAMETERS_LENGTH = 10 * 1024
MAX_VALID_VALUES = 10

EFFECTS = ("NoExecute", "NoSchedule", "None")
_OPERATORS = ("Equal", "Exists")
_NUMBER = r"(0|[1-9]\d*)"
_PRERELEASE = r"(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
_BUILD = r"[0-9a-zA-Z-]+"
_SEMVER = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(-{_PRERELEASE}(\.{_PRERELEASE})*)?(\+{_BUILD}(\.{_BUILD})*)?"
)

Check = Callable[[Errors, Any, str], None]


def check_items(errors: Errors, items: Sequence[Any], limit: int, check: Check, path: str) -> bool:
    """Each item, unless there are too many, which alone is reported then. Whether the number was fine."""
    if 0 <= limit < len(items):
        errors.append(too_many(path, len(items), limit))
        return False
    for index, item in enumerate(items):
        check(errors, item, f"{path}[{index}]")
    return True


def check_set(
    errors: Errors, items: Sequence[Any], limit: int, check: Check, key: Callable[[Any], str], path: str
) -> None:
    """`check_items`, and no key twice."""
    if not check_items(errors, items, limit, check, path):
        return
    seen: set[str] = set()
    for index, item in enumerate(items):
        own = key(item)
        if own in seen:
            errors.append(duplicate(f"{path}[{index}]", own))
        seen.add(own)


def name_key(item: Json) -> str:
    return str(item.get("name") or "")


def check_pool_name(errors: Errors, name: str, path: str) -> None:
    if not name:
        errors.append(required(path))
        return
    if len(name.encode()) > MAX_POOL_NAME:
        errors.append(too_long(path, MAX_POOL_NAME))
    for part in name.split("/"):
        checks.dns_subdomain(errors, part, path)


def _check_identifier(errors: Errors, identifier: str, path: str) -> None:
    if len(identifier.encode()) > MAX_ID_LENGTH:
        errors.append(too_long(path, MAX_ID_LENGTH))
    checks.texts(errors, names.is_c_identifier(identifier), identifier, path)


def check_qualified_name(errors: Errors, name: str, path: str) -> None:
    """`id` or `domain/id`: how attributes and capacities are named."""
    parts = name.split("/")
    if len(parts) > 2:
        errors.append(invalid(path, name, "must not contain more than one slash"))
        return
    if len(parts) == 2:
        if not parts[0]:
            errors.append(invalid(path, "", "the domain must not be empty"))
        else:
            csi_driver_name(errors, parts[0], path)
        if not parts[1]:
            errors.append(invalid(path, "", "the name must not be empty"))
            return
    _check_identifier(errors, parts[-1], path)


def check_fully_qualified_name(errors: Errors, name: str, path: str) -> None:
    check_qualified_name(errors, name, path)
    if "/" not in name:
        text = "a fully qualified name must be a domain and a name separated by a slash"
        errors.append(invalid(path, name, text))


def check_raw_object(errors: Errors, value: Any, limit: int, path: str) -> None:
    """Free-form JSON that has to be an object of bounded size."""
    if value is None:
        errors.append(required(path))
    elif len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()) > limit:
        errors.append(too_long(path, limit))
    elif not isinstance(value, dict):
        errors.append(invalid(path, "<value omitted>", "must be a valid JSON object"))


def check_toleration(errors: Errors, toleration: Json, path: str) -> None:
    key, operator, value, effect = (
        toleration.get(field) or "" for field in ("key", "operator", "value", "effect")
    )
    if key:
        checks.qualified_name(errors, key, f"{path}.key")
    if operator == "Exists":
        if value:
            errors.append(invalid(f"{path}.value", value, "must be empty for operator `Exists`"))
    elif operator == "Equal":
        checks.texts(errors, names.is_label_value(value), value, f"{path}.value")
    else:
        checks.one_of(errors, operator, _OPERATORS, f"{path}.operator")
    if effect and effect not in EFFECTS:
        errors.append(unsupported(f"{path}.effect", effect, EFFECTS))


def check_binding_conditions(errors: Errors, holder: Json, path: str) -> None:
    wanted, failed = holder.get("bindingConditions") or [], holder.get("bindingFailureConditions") or []
    for field, found in (("bindingConditions", wanted), ("bindingFailureConditions", failed)):
        where = f"{path}.{field}"
        check_items(errors, found, MAX_BINDING_CONDITIONS, checks.qualified_name, where)
        errors.extend(
            duplicate(f"{where}[{index}]", name) for index, name in enumerate(found) if name in found[:index]
        )
    for index, name in enumerate(failed):
        if name in wanted:
            text = "bindingFailureConditions must not overlap with bindingConditions"
            errors.append(invalid(f"{path}.bindingFailureConditions[{index}]", name, text))
    if failed and not wanted:
        text = "bindingConditions are required to use bindingFailureConditions"
        errors.append(invalid(f"{path}.bindingConditions", wanted, text))
    if wanted and not failed:
        text = "bindingFailureConditions are required to use bindingConditions"
        errors.append(invalid(f"{path}.bindingFailureConditions", failed, text))


_TEXT_ATTRIBUTES = ("string", "version")
_SCALARS = ("bool", "int", "string", "version")
_LISTS = ("bools", "ints", "strings", "versions")


def _check_attribute_text(errors: Errors, kind: str, value: str, path: str) -> None:
    if kind == "version" and not _SEMVER.fullmatch(value):
        errors.append(invalid(path, value, "must be a string compatible with semver.org spec 2.0.0"))
    if len(value.encode()) > MAX_VALUE_LENGTH:
        errors.append(too_long(path, MAX_VALUE_LENGTH))


def _check_attribute(errors: Errors, attribute: Json, path: str) -> None:
    present = [field for field in (*_SCALARS, *_LISTS) if attribute.get(field) is not None]
    for field in present:
        value = attribute[field]
        if field in _TEXT_ATTRIBUTES:
            _check_attribute_text(errors, field, value, f"{path}.{field}")
        elif field in _LISTS:
            if not value:
                errors.append(invalid(f"{path}.{field}", value, "must not be empty if specified"))
            if field[:-1] in _TEXT_ATTRIBUTES:
                for index, item in enumerate(value):
                    _check_attribute_text(errors, field[:-1], item, f"{path}.{field}[{index}]")
    if len(present) != 1:
        errors.append(invalid(path, attribute if present else "", "exactly one value must be specified"))


def _check_valid_values(errors: Errors, policy: Json, most: str, path: str) -> None:
    values, default = [parse(value) for value in policy["validValues"]], policy.get("default")
    if default is None:
        errors.append(required(f"{path}.default", "required when validValues is defined"))
        return
    where = f"{path}.validValues"
    for index in range(1, len(values)):
        if values[index] < values[index - 1]:
            errors.append(
                invalid(f"{where}[{index}]", str(values[index]), "values must be sorted in ascending order")
            )
    if len(values) > MAX_VALID_VALUES:
        errors.append(too_many(where, len(values), MAX_VALID_VALUES))
        return
    for index, value in enumerate(values):
        if value > parse(most):
            text = f"option is larger than capacity value: {parse(most)}"
            errors.append(invalid(f"{where}[{index}]", str(value), text))
        if value in values[:index]:
            errors.append(duplicate(f"{where}[{index}]", str(value)))
    if parse(default) not in values:
        text = "default value is not valid according to the requestPolicy"
        errors.append(invalid(where, str(parse(default)), text))


def _check_valid_range(errors: Errors, policy: Json, most: str, path: str) -> None:
    bounds, default, where = policy["validRange"], policy.get("default"), f"{path}.validRange"
    if default is None:
        errors.append(required(f"{path}.default", "required when validRange is defined"))
        return
    if bounds.get("min") is None:
        errors.append(required(f"{where}.min", "required when validRange is defined"))
        return
    low, value, capacity = parse(bounds["min"]), parse(default), parse(most)
    high = None if bounds.get("max") is None else parse(bounds["max"])
    faults = [
        (low > capacity, "min", low, f"min is larger than capacity value: {capacity}"),
        (value < low, "default", value, f"default is less than min: {low}"),
    ]
    if high is not None:
        faults += [
            (low > high, "max", low, f"min is larger than max: {high}"),
            (high > capacity, "max", high, f"max is larger than capacity value: {capacity}"),
            (value > high, "default", value, f"default is more than max: {high}"),
        ]
    errors.extend(invalid(f"{where}.{field}", str(bad), text) for wrong, field, bad, text in faults if wrong)
    if bounds.get("step") is not None:
        _check_step(errors, bounds, default, most, f"{where}.step")


def _check_step(errors: Errors, bounds: Json, default: str, most: str, path: str) -> None:
    step, low = parse(bounds["step"]), parse(bounds["min"])
    if step.sign() <= 0:
        errors.append(invalid(path, str(step), checks.NOT_POSITIVE))
        return
    if low + step > parse(most):
        text = f"one step {low + step} is larger than capacity value: {parse(most)}"
        errors.append(invalid(path, str(step), text))
    for bound in (default, bounds.get("max")):
        if bound is not None and (parse(bound).value() - low.value()) % step.value():
            text = f"value is not a multiple of a given step ({step}) from ({low})"
            errors.append(invalid(path, str(parse(bound)), text))


def _check_capacity(several: bool) -> Check:
    """Of a device that several requests may share, or of one that only one may have."""

    def check(errors: Errors, capacity: Json, path: str) -> None:
        policy, most = capacity.get("requestPolicy"), capacity.get("value", "0")
        where = f"{path}.requestPolicy"
        if policy is None:
            return
        if not several:
            errors.append(forbidden(where, "allowMultipleAllocations must be true"))
        elif policy.get("validValues") and policy.get("validRange") is not None:
            text = 'exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time'
            errors.append(forbidden(where, text))
        elif policy.get("validValues"):
            _check_valid_values(errors, policy, most, where)
        elif policy.get("validRange") is not None:
            _check_valid_range(errors, policy, most, where)

    return check


def _check_map(errors: Errors, found: Mapping[str, Any], check: Check, path: str) -> None:
    for key, value in found.items():
        check_qualified_name(errors, key, path)
        check(errors, value, f"{path}[{key}]")


def check_taint(errors: Errors, taint: Json, path: str) -> None:
    checks.qualified_name(errors, taint.get("key") or "", f"{path}.key")
    if taint.get("value"):
        checks.texts(errors, names.is_label_value(taint["value"]), taint["value"], f"{path}.value")
    checks.one_of(errors, taint.get("effect"), EFFECTS, f"{path}.effect")


def _check_counters(errors: Errors, holder: Json, name_field: str, path: str) -> None:
    """A set of counters, or what a device takes of it."""
    name, counters = holder.get(name_field) or "", holder.get("counters") or {}
    if not name:
        errors.append(required(f"{path}.{name_field}"))
    else:
        checks.dns_label(errors, name, f"{path}.{name_field}")
    if not counters:
        errors.append(required(f"{path}.counters"))
    elif len(counters) > MAX_COUNTERS:
        errors.append(too_many(f"{path}.counters", len(counters), MAX_COUNTERS))
    else:
        for key in counters:
            checks.dns_label(errors, key, f"{path}.counters")


def _check_counter_set(errors: Errors, counter_set: Json, path: str) -> None:
    _check_counters(errors, counter_set, "name", path)


def _check_consumption(errors: Errors, consumption: Json, path: str) -> None:
    _check_counters(errors, consumption, "counterSet", path)


def _check_node_name(errors: Errors, name: str, empty: str, path: str) -> None:
    if not name:
        errors.append(invalid(path, name, empty))
    else:
        checks.dns_subdomain(errors, name, path)


def _nodes_chosen(errors: Errors, holder: Json, empty: str, path: str) -> list[str]:
    """Which of the ways to say where something is available are used."""
    chosen: list[str] = []
    if holder.get("nodeName") is not None:
        _check_node_name(errors, holder["nodeName"], empty, f"{path}.nodeName")
        chosen += ["`nodeName`"] if holder["nodeName"] else []
    if holder.get("nodeSelector") is not None:
        chosen.append("`nodeSelector`")
        node_selector(errors, holder["nodeSelector"], f"{path}.nodeSelector")
    for field in ("allNodes", "perDeviceNodeSelection"):
        value = holder.get(field)
        if value:
            chosen.append(f"`{field}`")
        elif value is not None:
            errors.append(invalid(f"{path}.{field}", value, "must be either unset or set to true"))
    return chosen


def _check_device_nodes(errors: Errors, device: Json, per_device: bool, path: str) -> None:
    fields = ("nodeName", "nodeSelector", "allNodes")
    if not per_device:
        if any(device.get(field) is not None for field in fields):
            text = (
                "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to"
                " true in the ResourceSlice spec"
            )
            errors.append(invalid(path, None, text))
        return
    chosen = _nodes_chosen(errors, device, "must not be empty", path)
    text = (
        "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set"
        " to true in the ResourceSlice spec"
    )
    if not chosen:
        errors.append(required(path, text))
    elif len(chosen) > 1:
        errors.append(invalid(path, f"{{{', '.join(chosen)}}}", text))


def _count_values(device: Json) -> int:
    return sum(
        sum(len(attribute.get(field) or ()) for field in _LISTS) or 1
        for attribute in (device.get("attributes") or {}).values()
    )


def _check_device(errors: Errors, device: Json, old: Json | None, per_device: bool, path: str) -> None:
    attributes, capacity = device.get("attributes") or {}, device.get("capacity") or {}
    checks.dns_label(errors, device.get("name") or "", f"{path}.name")
    total = len(attributes) + len(capacity)
    if total > MAX_ATTRIBUTES_AND_CAPACITIES:
        text = (
            f"the total number of attributes and capacities must not exceed {MAX_ATTRIBUTES_AND_CAPACITIES}"
        )
        errors.append(invalid(path, total, text))
    if (values := _count_values(device)) > MAX_ATTRIBUTE_VALUES:
        text = f"the total number of attribute values must not exceed {MAX_ATTRIBUTE_VALUES}"
        errors.append(invalid(path, values, text))
    _check_map(errors, attributes, _check_attribute, f"{path}.attributes")
    if old is None or old.get("capacity") != device.get("capacity"):
        check = _check_capacity(bool(device.get("allowMultipleAllocations")))
        _check_map(errors, capacity, check, f"{path}.capacity")
    if old is None or old.get("taints") != device.get("taints"):
        check_items(errors, device.get("taints") or [], MAX_TAINTS, check_taint, f"{path}.taints")
    consumed = device.get("consumesCounters") or []
    where = f"{path}.consumesCounters"
    check_set(
        errors,
        consumed,
        MAX_CONSUMPTIONS,
        _check_consumption,
        lambda item: str(item.get("counterSet")),
        where,
    )
    _check_device_nodes(errors, device, per_device, path)
    check_binding_conditions(errors, device, path)


def _max_devices(devices: Sequence[Json]) -> int:
    """Slices with taints, counters or lists may hold fewer devices."""
    for device in devices:
        attributes = (device.get("attributes") or {}).values()
        if device.get("taints") or device.get("consumesCounters"):
            return MAX_ADVANCED_DEVICES
        if any(attribute.get(field) is not None for attribute in attributes for field in _LISTS):
            return MAX_ADVANCED_DEVICES
    return MAX_DEVICES


def _check_pool(errors: Errors, pool: Json, path: str) -> None:
    check_pool_name(errors, pool.get("name") or "", f"{path}.name")
    count, generation = pool.get("resourceSliceCount") or 0, pool.get("generation") or 0
    if count <= 0:
        errors.append(invalid(f"{path}.resourceSliceCount", count, checks.NOT_POSITIVE))
    if generation < 0:
        errors.append(invalid(f"{path}.generation", generation, "must be greater than or equal to zero"))


def _check_slice_nodes(errors: Errors, spec: Json) -> None:
    empty = "must be either unset or set to a non-empty string"
    chosen = _nodes_chosen(errors, spec, empty, "spec")
    terms = (spec.get("nodeSelector") or {}).get("nodeSelectorTerms") or []
    if spec.get("nodeSelector") is not None and len(terms) != 1:
        text = "must have exactly one node selector term"
        errors.append(invalid("spec.nodeSelector.nodeSelectorTerms", terms, text))
    text = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
    if not chosen:
        errors.append(required("spec", text))
    elif len(chosen) > 1:
        errors.append(invalid("spec", f"{{{', '.join(chosen)}}}", f"{text}, but multiple fields are set"))


def _check_slice(errors: Errors, spec: Json, old: Json) -> None:
    csi_driver_name(errors, spec.get("driver") or "", "spec.driver")
    _check_pool(errors, spec.get("pool") or {}, "spec.pool")
    _check_slice_nodes(errors, spec)
    devices, counters = spec.get("devices"), spec.get("sharedCounters")
    if devices and counters:
        errors.append(invalid("spec", "", "only one of `sharedCounters` or `devices` is allowed"))
    known = {device.get("name"): device for device in old.get("devices") or ()}
    per_device = bool(spec.get("perDeviceNodeSelection"))

    def check_device(errors: Errors, device: Json, path: str) -> None:
        _check_device(errors, device, known.get(device.get("name")), per_device, path)

    check_set(errors, devices or [], _max_devices(devices or []), check_device, name_key, "spec.devices")
    check_set(errors, counters or [], MAX_COUNTER_SETS, _check_counter_set, name_key, "spec.sharedCounters")


def validate_slice(resource_slice: Json) -> list[FieldError]:
    errors: Errors = []
    _check_slice(errors, resource_slice.get("spec") or {}, {})
    return errors


def validate_slice_update(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    after, before = new.get("spec") or {}, old.get("spec") or {}
    _check_slice(errors, after, before)
    pools = [(spec.get("pool") or {}).get("name") for spec in (after, before)]
    checks.same(errors, pools[0], pools[1], "spec.pool.name")
    for field in ("driver", "nodeName"):
        checks.same(errors, after.get(field), before.get(field), f"spec.{field}")
    return errors


@resources.handles_quantities
def default_slice(resource_slice: Json) -> None:
    spec = resource_slice.setdefault("spec", {})
    for device in spec.get("devices") or ():
        for capacity in (device.get("capacity") or {}).values():
            resources.canonical_field(capacity, "value")
        for consumption in device.get("consumesCounters") or ():
            _canonical_counters(consumption)
    for counter_set in spec.get("sharedCounters") or ():
        _canonical_counters(counter_set)


def _canonical_counters(holder: Json) -> None:
    for counter in (holder.get("counters") or {}).values():
        resources.canonical_field(counter, "value")
