"""Resource names, lists and requirements: defaults, rules and sums.

Quantities are kept in canonical form (`0.5` becomes `500m`), as Kubernetes' types print them.
Source: k8s v1.36 pkg/apis/core/helper, pkg/apis/core/v1/defaults.go, component-helpers/resource.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, wraps
from typing import Any

from kcp.apis.core.checks import Errors, Json, dns_label, qualified_name_texts, texts
from kcp.machinery.errors import (
    BadRequest,
    FieldError,
    duplicate,
    forbidden,
    invalid,
    required,
    unsupported,
)
from kcp.machinery.quantity import Quantity, QuantityError, parse

NameCheck = Callable[[Errors, str, str], None]

CONTAINER_RESOURCES = frozenset({"cpu", "memory", "ephemeral-storage"})
_COUNTED = frozenset(
    {
        "pods", "resourcequotas", "services", "replicationcontrollers", "secrets", "configmaps",
        "persistentvolumeclaims", "services.nodeports", "services.loadbalancers",
    }
)  # fmt: skip
_COMPUTE = frozenset(
    prefix + name
    for prefix in ("", "requests.", "limits.")
    for name in ("cpu", "memory", "ephemeral-storage")
)
QUOTA_RESOURCES = _COUNTED | _COMPUTE | {"requests.storage"}
STANDARD_RESOURCES = QUOTA_RESOURCES | {"storage"}
_HUGE = "hugepages-"
_POD_LEVEL = ("cpu", "memory", "hugepages-")


def is_huge_page(name: str) -> bool:
    return name.startswith(_HUGE)


def is_native(name: str) -> bool:
    """In the kubernetes.io namespace, where unprefixed names are too."""
    return "/" not in name or "kubernetes.io/" in name


def is_overcommit_allowed(name: str) -> bool:
    return is_native(name) and not name.startswith(_HUGE)


@lru_cache(4096)
def is_extended(name: str) -> bool:
    if is_native(name) or name.startswith("requests."):
        return False
    return not qualified_name_texts("requests." + name)


def is_integer(name: str) -> bool:
    return name in _COUNTED or is_extended(name)


def is_quota_resource(name: str) -> bool:
    return name in QUOTA_RESOURCES or name.startswith((_HUGE, "requests.hugepages-"))


def is_standard(name: str) -> bool:
    return name in STANDARD_RESOURCES or name.startswith((_HUGE, "requests.hugepages-"))


def is_pod_level(name: str) -> bool:
    return name.startswith(_POD_LEVEL) and (name in ("cpu", "memory") or is_huge_page(name))


@lru_cache(65_536)
def canonical(value: str | int | float) -> str:
    """A quantity as Kubernetes prints it. Raises QuantityError."""
    return str(parse(value))


@lru_cache(65_536)
def _rounded(value: str | int | float) -> str:
    """Canonical, rounded up to thousandths."""
    quantity = parse(value)
    thousandths = parse(f"{quantity.milli_value()}m")
    return str(quantity if thousandths == quantity else thousandths)


def default_list(resources: Json | None) -> None:
    """Bring the quantities of a resource list into canonical form, in place."""
    if resources:
        for name, value in resources.items():
            resources[name] = _rounded(value)


def canonical_field(obj: Json | None, field: str) -> None:
    """Bring one quantity into canonical form, in place."""
    if obj and (value := obj.get(field)) is not None:
        obj[field] = canonical(value)


def handles_quantities(default: Callable[[Json], None]) -> Callable[[Json], None]:
    """Turn a quantity that does not parse into the answer of a body that cannot be decoded."""

    @wraps(default)
    def wrapped(obj: Json) -> None:
        try:
            default(obj)
        except QuantityError as error:
            kind = obj.get("kind", "")
            version = str(obj.get("apiVersion", "")).rpartition("/")[2]
            text = f'{kind} in version "{version}" cannot be handled as a {kind}: {error}'
            raise BadRequest(text) from error

    return wrapped


def default_requests(container: Json) -> None:
    """Requests that are not given are the limits. Only on pods, not on templates."""
    resources: Json = container.get("resources") or {}
    limits = resources.get("limits")
    if not limits:
        return
    requests = resources.get("requests")
    if requests is None:
        requests = resources["requests"] = {}
    for name, value in limits.items():
        requests.setdefault(name, value)


def resource_name(errors: Errors, name: str, path: str) -> None:
    """A name that is standard or fully qualified."""
    if found := qualified_name_texts(name):
        texts(errors, found, name, path)
    elif "/" not in name and not is_standard(name):
        errors.append(invalid(path, name, "must be a standard resource type or fully qualified"))


def container_resource_name(errors: Errors, name: str, path: str) -> None:
    if name in CONTAINER_RESOURCES:
        return
    resource_name(errors, name, path)
    if "/" not in name:
        if not is_huge_page(name):
            errors.append(invalid(path, name, "must be a standard resource for containers"))
    elif not is_native(name) and not is_extended(name):
        errors.append(invalid(path, name, "doesn't follow extended resource name standard"))


def pod_resource_name(errors: Errors, name: str, path: str) -> None:
    before = len(errors)
    resource_name(errors, name, path)
    if len(errors) == before and not is_pod_level(name):
        sizes = ("64Ki", "2Mi", "32Mi", "1Gi")
        errors.append(unsupported(path, name, ("cpu", *(f"hugepages-{s}" for s in sizes), "memory")))


def quota_resource_name(errors: Errors, name: str, path: str) -> None:
    resource_name(errors, name, path)
    if "/" not in name and not is_quota_resource(name):
        errors.append(invalid(path, name, "must be a standard resource for quota"))


@lru_cache(65_536)
def _facts(value: str | int | float) -> tuple[bool, bool]:
    """Whether a quantity is negative, and whether it is a whole number."""
    quantity = parse(value)
    return quantity < parse(0), quantity.milli_value() % 1000 == 0


def is_negative(value: str | int | float) -> bool:
    return _facts(value)[0]


def is_whole(value: str | int | float) -> bool:
    return _facts(value)[1]


def quantity_value(errors: Errors, name: str, value: str, path: str) -> None:
    """A quantity that the named resource may have."""
    negative, whole = _facts(value)
    if negative:
        errors.append(invalid(path, canonical(value), "must be greater than or equal to 0"))
    if not whole and is_integer(name):
        errors.append(invalid(path, canonical(value), "must be an integer"))


def positive(errors: Errors, value: str, path: str) -> None:
    if not parse(value) > parse(0):
        errors.append(invalid(path, canonical(value), "must be greater than zero"))


def basic_resource(errors: Errors, value: str, path: str) -> None:
    whole = parse(value).value()
    if whole < 0:
        errors.append(invalid(path, whole, "must be a valid resource quantity"))


def _huge_page_value(errors: Errors, name: str, value: str, path: str) -> None:
    try:
        size = parse(name.removeprefix(_HUGE)).value()
    except QuantityError:
        size = 0
    if size <= 0 or parse(value).value() % size:
        text = f"{canonical(value)} is not positive integer multiple of {name}"
        errors.append(invalid(path, canonical(value), text))


def _request_against_limit(errors: Errors, name: str, value: str, limits: Json, path: str) -> None:
    limit = limits.get(name)
    if limit is None:
        if not is_overcommit_allowed(name):
            text = "Limit must be set for non overcommitable resources"
            errors.append(required(f"{path}.limits", text))
        return
    if value == limit:
        return
    request, most = parse(value), parse(limit)
    if request != most and not is_overcommit_allowed(name):
        text = f"must be equal to {name} limit of {most}"
    elif request > most:
        text = f"must be less than or equal to {name} limit of {most}"
    else:
        return
    errors.append(invalid(f"{path}.requests", str(request), text))


def _resource_list(
    errors: Errors, found: Json, check_name: NameCheck, path: str, field: str, limits: Json | None = None
) -> None:
    """One list of a container's resources; with `limits`, of its requests."""
    for name, value in found.items():
        here = f"{path}.{field}[{name}]"
        check_name(errors, name, here)
        quantity_value(errors, name, value, here)
        if limits is not None:
            _request_against_limit(errors, name, value, limits, path)
        if name.startswith(_HUGE):
            _huge_page_value(errors, name, value, here)


def requirements(
    errors: Errors,
    found: Json | None,
    path: str,
    claim_names: Iterable[str] = (),
    check_name: NameCheck = container_resource_name,
) -> None:
    """The `resources` of a container or a pod."""
    if not found:
        return
    limits: Json = found.get("limits") or {}
    requests: Json = found.get("requests") or {}
    if limits:
        _resource_list(errors, limits, check_name, path, "limits")
    if requests:
        _resource_list(errors, requests, check_name, path, "requests", limits)
    used = {*limits, *requests}
    if any(map(is_huge_page, used)) and not used & {"cpu", "memory"}:
        errors.append(forbidden(path, "HugePages require cpu or memory"))
    if claims := found.get("claims"):
        _claims(errors, claims, tuple(claim_names), f"{path}.claims")


def _claims(errors: Errors, claims: list[Json], known: tuple[str, ...], path: str) -> None:
    seen: list[str] = []
    for i, claim in enumerate(claims):
        here = f"{path}[{i}]"
        name = claim.get("name") or ""
        if not name:
            errors.append(required(here))
            continue
        _claim_unique(errors, claim, name, seen, here)
        if name not in known:
            text = "must be one of the names in pod.spec.resourceClaims"
            text += ": " + ", ".join(sorted(known)) if known else " which is empty"
            errors.append(FieldError("Not found", here, name, text))


def _claim_unique(errors: Errors, claim: Json, name: str, seen: list[str], path: str) -> None:
    if name in seen:
        errors.append(duplicate(path, name))
        return
    key, request = name, claim.get("request")
    if request:
        dns_label(errors, request, f"{path}.request")
        key = f"{name}/{request}"
    if key in seen:
        errors.append(duplicate(path, key))
    elif not request:
        errors.extend(duplicate(path, name) for other in seen if other.startswith(f"{name}/"))
    seen.append(key)


def is_sidecar(container: Json) -> bool:
    """An init container that keeps running."""
    return container.get("restartPolicy") == "Always"


def _add(total: dict[str, Quantity], more: Mapping[str, Any]) -> None:
    for name, value in more.items():
        quantity = value if isinstance(value, Quantity) else parse(value)
        total[name] = total[name] + quantity if name in total else quantity


def _raise_to(total: dict[str, Quantity], more: Mapping[str, Quantity]) -> None:
    for name, quantity in more.items():
        if name not in total or quantity > total[name]:
            total[name] = quantity


def sum_containers(spec: Json, which: str) -> dict[str, Quantity]:
    """What the containers of a pod need together: `which` is `requests` or `limits`.

    Init containers run one by one before the others, sidecars beside everything that comes after them.
    """
    total: dict[str, Quantity] = {}
    for container in spec.get("containers") or ():
        _add(total, (container.get("resources") or {}).get(which) or {})
    sidecars: dict[str, Quantity] = {}
    highest: dict[str, Quantity] = {}
    for container in spec.get("initContainers") or ():
        own = (container.get("resources") or {}).get(which) or {}
        if is_sidecar(container):
            _add(total, own)
            _add(sidecars, own)
            _raise_to(highest, sidecars)
        else:
            step = dict(sidecars)
            _add(step, own)
            _raise_to(highest, step)
    _raise_to(total, highest)
    return total


def default_pod_level(spec: Json) -> None:
    """Fill in pod-level requests and limits from each other and from the containers.

    Source: k8s v1.36 defaultHugePagePodLimits, defaultPodRequests, defaultPodLimits.
    """
    resources = spec.get("resources")
    if not resources or not (resources.get("limits") or resources.get("requests")):
        return
    _default_huge_page_limits(spec, resources)
    if resources.get("limits"):
        _default_pod_requests(spec, resources)
    elif resources.get("requests"):
        _default_pod_limits(spec, resources)


def _default_huge_page_limits(spec: Json, resources: Json) -> None:
    requests = resources.get("requests") or {}
    for name, quantity in sum_containers(spec, "limits").items():
        if is_huge_page(name) and name not in requests:
            resources.setdefault("limits", {}).setdefault(name, str(quantity))


def _default_pod_requests(spec: Json, resources: Json) -> None:
    requests = resources.setdefault("requests", {})
    for name, quantity in sum_containers(spec, "requests").items():
        if is_pod_level(name) and is_overcommit_allowed(name):
            requests.setdefault(name, str(quantity))
    for name, limit in resources["limits"].items():
        if is_pod_level(name):
            requests.setdefault(name, limit)


def _default_pod_limits(spec: Json, resources: Json) -> None:
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    for name, quantity in sum_containers(spec, "limits").items():
        everywhere = all(name in ((c.get("resources") or {}).get("limits") or {}) for c in containers)
        if name in ("cpu", "memory") and everywhere:
            resources.setdefault("limits", {})[name] = str(quantity)


def pod_level(errors: Errors, spec: Json, path: str) -> None:
    """Rules of `spec.resources`. Source: k8s v1.36 validatePodResources."""
    resources = spec.get("resources")
    if not resources:
        return
    if resources.get("claims"):
        errors.append(forbidden(f"{path}.claims", "claims cannot be set for Resources at pod-level"))
    requirements(errors, resources, path, (), pod_resource_name)
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for name, needed in sum_containers(spec, "requests").items():
        if is_pod_level(name) and needed > parse(requests.get(name, "0")):
            text = f"must be greater than or equal to aggregate container requests of {needed}"
            errors.append(invalid(f"{path}.requests[{name}]", canonical(requests.get(name, "0")), text))
    for i, container in enumerate(spec.get("containers") or ()):
        for name, value in ((container.get("resources") or {}).get("limits") or {}).items():
            if name in limits and parse(value) > parse(limits[name]):
                text = f"must be less than or equal to pod limits of {canonical(limits[name])}"
                here = f"{path}.containers[{i}][{name}].limits"
                errors.append(invalid(here, canonical(value), text))
