"""LimitRanger: default requests and limits of a namespace, and its minima, maxima and ratios.

Source: k8s v1.36 plugin/pkg/admission/limitranger/admission.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kcp.api.admission.plugin import Attributes, refused
from kcp.base.values import frozen
from kcp.machinery.quantity import Quantity, parse
from kcp.store.protocol import Head

ANNOTATION = "kubernetes.io/limit-ranger"
_ZERO = parse("0")
_PODS, _CLAIMS = "pods", "persistentvolumeclaims"

Json = dict[str, Any]
Resources = dict[str, Quantity]


def _quantities(values: Json | None) -> Resources:
    return {name: parse(value) for name, value in (values or {}).items()}


def _items(limit_range: Json) -> list[Json]:
    return list((limit_range.get("spec") or {}).get("limits") or ())


def _container_defaults(limit_range: Json) -> tuple[Json, Json]:
    """(requests, limits) that a container without its own gets; later items win."""
    requests: Json = {}
    limits: Json = {}
    for item in _items(limit_range):
        if item.get("type") == "Container":
            requests.update(item.get("defaultRequest") or {})
            limits.update(item.get("default") or {})
    return requests, limits


def _fill(container: Json, defaults: tuple[Json, Json], what: str) -> list[str]:
    """Set what the container leaves open; the texts tell what was set."""
    requests, limits = defaults
    resources = container.get("resources") or {}
    texts = []
    for field, word, values in (("requests", "request", requests), ("limits", "limit", limits)):
        present = resources.get(field) or {}
        missing = sorted(name for name in values if name not in present)
        if missing:
            resources[field] = {**present, **{name: values[name] for name in missing}}
            texts.append(f"{', '.join(missing)} {word} for {what} {container.get('name', '')}")
    if texts:
        container["resources"] = resources
    return texts


def apply_defaults(limit_range: Json, pod: Json) -> None:
    defaults = _container_defaults(limit_range)
    if not defaults[0] and not defaults[1]:
        return
    spec = pod["spec"]
    texts: list[str] = []
    for container in spec.get("containers") or ():
        texts += _fill(container, defaults, "container")
    for container in spec.get("initContainers") or ():
        texts += _fill(container, defaults, "init container")
    if texts:
        annotations = pod["metadata"].get("annotations") or {}
        text = f"LimitRanger plugin set: {'; '.join(texts)}"
        pod["metadata"]["annotations"] = {**annotations, ANNOTATION: text}


def _minimum(kind: str, name: str, least: Quantity, requests: Resources, limits: Resources) -> str | None:
    text = f"minimum {name} usage per {kind} is {least}"
    request, limit = requests.get(name), limits.get(name)
    if request is None:
        return f"{text}.  No request is specified"
    if request < least:
        return f"{text}, but request is {request}"
    if limit is not None and limit < least:
        return f"{text}, but limit is {limit}"
    return None


def _maximum(kind: str, name: str, most: Quantity, requests: Resources, limits: Resources) -> str | None:
    text = f"maximum {name} usage per {kind} is {most}"
    request, limit = requests.get(name), limits.get(name)
    if limit is None:
        return f"{text}.  No limit is specified"
    if limit > most:
        return f"{text}, but limit is {limit}"
    if request is not None and request > most:
        return f"{text}, but request is {request}"
    return None


def _maximum_request(kind: str, name: str, most: Quantity, requests: Resources) -> str | None:
    text = f"maximum {name} usage per {kind} is {most}"
    request = requests.get(name)
    if request is None:
        return f"{text}.  No request is specified"
    return f"{text}, but request is {request}" if request > most else None


def _ratio(kind: str, name: str, most: Quantity, requests: Resources, limits: Resources) -> str | None:
    text = f"{name} max limit to request ratio per {kind} is {most}"
    request, limit = requests.get(name, _ZERO), limits.get(name, _ZERO)
    if request == _ZERO:
        return f"{text}, but no request is specified or request is 0"
    if limit == _ZERO:
        return f"{text}, but no limit is specified or limit is 0"
    ratio = limit.milli_value() / request.milli_value()
    return f"{text}, but provided ratio is {ratio:f}" if ratio * 1000 > most.milli_value() else None


def _faults(item: Json, requests: Resources, limits: Resources) -> Iterator[str]:
    kind = str(item.get("type", ""))
    for field, rule in (("min", _minimum), ("max", _maximum), ("maxLimitRequestRatio", _ratio)):
        for name, bound in sorted(_quantities(item.get(field)).items()):
            fault = rule(kind, name, bound, requests, limits)
            if fault:
                yield fault


def _resources(container: Json) -> tuple[Resources, Resources]:
    resources = container.get("resources") or {}
    return _quantities(resources.get("requests")), _quantities(resources.get("limits"))


def _pod_total(pod: Json, field: str) -> Resources:
    """The sum over containers, at least what the largest init container asks for."""
    total: Resources = {}
    for container in pod["spec"].get("containers") or ():
        for name, amount in _quantities((container.get("resources") or {}).get(field)).items():
            total[name] = total[name] + amount if name in total else amount
    for container in pod["spec"].get("initContainers") or ():
        for name, amount in _quantities((container.get("resources") or {}).get(field)).items():
            if name not in total or total[name] < amount:
                total[name] = amount
    return total


def pod_faults(limit_range: Json, pod: Json) -> list[str]:
    faults: list[str] = []
    spec = pod["spec"]
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    for item in _items(limit_range):
        if item.get("type") == "Container":
            for container in containers:
                faults += _faults(item, *_resources(container))
        elif item.get("type") == "Pod":
            faults += _faults(item, _pod_total(pod, "requests"), _pod_total(pod, "limits"))
    return faults


def claim_faults(limit_range: Json, claim: Json) -> list[str]:
    faults: list[str] = []
    requests = _quantities(((claim.get("spec") or {}).get("resources") or {}).get("requests"))
    for item in _items(limit_range):
        if item.get("type") != "PersistentVolumeClaim":
            continue
        kind = "PersistentVolumeClaim"
        for name, bound in sorted(_quantities(item.get("min")).items()):
            faults.append(_minimum(kind, name, bound, requests, {}) or "")
        for name, bound in sorted(_quantities(item.get("max")).items()):
            faults.append(_maximum_request(kind, name, bound, requests) or "")
    return [fault for fault in faults if fault]


_HANDLED = frozenset({(_PODS, "", "CREATE"), (_PODS, "resize", "UPDATE"), (_CLAIMS, "", "CREATE"), (_CLAIMS, "", "UPDATE")})  # fmt: skip


@frozen
class LimitRanger:
    store: Head
    name: str = "LimitRanger"

    def handles(self, attributes: Attributes) -> bool:
        return (attributes.kind.resource, attributes.subresource, attributes.operation) in _HANDLED

    def admit(self, attributes: Attributes) -> None:
        if attributes.kind.resource == _PODS and attributes.operation == "CREATE":
            for record in self.store.list("limitranges", attributes.namespace):
                apply_defaults(record.value, attributes.new)

    def validate(self, attributes: Attributes) -> None:
        obj = attributes.new
        if obj["metadata"].get("deletionTimestamp"):
            return
        check = pod_faults if attributes.kind.resource == _PODS else claim_faults
        for record in self.store.list("limitranges", attributes.namespace):
            faults = list(dict.fromkeys(check(record.value, obj)))
            if faults:
                raise refused(attributes, faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]")
