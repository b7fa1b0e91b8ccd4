"""The environment of a container: from its spec, its pod, and the ConfigMaps and Secrets that it names.

    envFrom first, then env in order; later names win
    $(NAME)            a variable that came before; what is not known stays as it is
    $$(NAME)           $(NAME), literally

Source: k8s v1.36 pkg/kubelet/kubelet_pods.go (makeEnvironmentVariables, makeMounts), third_party/forked/golang/expansion/expand.go,
pkg/api/v1/resource/helpers.go (ExtractContainerResourceValue).
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from kcp.apis.semantics.pods import containers, init_containers
from kcp.base.values import frozen
from kcp.client.client import Client
from kcp.machinery import meta
from kcp.machinery.errors import ApiError, NotFound
from kcp.machinery.quantity import parse

Json = dict[str, Any]
Fetch = Callable[[str, str], Awaitable[Json]]
"""(resource, name) -> the object of the pod's namespace. Raises ApiError."""
REASON = "CreateContainerConfigError"
_KINDS = {"configMap": ("configmaps", "ConfigMap"), "secret": ("secrets", "Secret")}
_REFERENCE = re.compile(r"\$(\$|\(([^()]*)\))")
_SERVICES = re.compile(r"\b(?:print)?env\b|_SERVICE_|_PORT\b|_PORT_")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.*)'\]").fullmatch


class ConfigError(Exception):
    """Raised when a container cannot be configured; the text is the kubelet's."""


@frozen
class Place:
    """Where a pod runs, as far as its containers may know it."""

    host_ip: str
    pod_ips: Sequence[str]
    allocatable: Mapping[str, str]
    """Of the node: the limits of containers that have none."""


class Node(Protocol):
    """What is asked of the node's agent."""

    @property
    def client(self) -> Client: ...
    @property
    def node(self) -> Json: ...
    @property
    def host_ip(self) -> str: ...


async def of_container(node: Node, pod: Json, container: Json, pod_ips: Sequence[str]) -> dict[str, str]:
    """What the container finds set. Raises ConfigError for that, and for paths of mounts that depend on it."""
    found = await _of_services(node, pod) if _looks_for_services(container) else {}
    if container.get("env") or container.get("envFrom"):
        allocatable = (node.node.get("status") or {}).get("allocatable") or {}

        async def fetch(resource: str, name: str) -> Json:
            return await node.client.get(resource, name, meta.namespace(pod))

        place = Place(node.host_ip, pod_ips, allocatable)
        found = await environment(pod, container, place, fetch, found)
    check_mounts(container, found)
    return found


def _looks_for_services(container: Json) -> bool:
    """Whether the command prints its environment, or something names a variable of a Service: the others cost no list."""
    words = [*(container.get("command") or ()), *(container.get("args") or ())]
    words += [variable.get("value") or "" for variable in container.get("env") or ()]
    return any(_SERVICES.search(word) for word in words)


async def _of_services(node: Node, pod: Json) -> dict[str, str]:
    """Where the Services of the namespace are, and the API always."""
    namespace, linked = meta.namespace(pod), pod["spec"].get("enableServiceLinks", True)
    found: dict[str, str] = {}
    try:
        api = await node.client.get("services", "kubernetes", "default")
        others = (await node.client.list("services", namespace)).items if linked else ()
    except ApiError as error:
        raise ConfigError(
            f"services have not yet been read at least once, cannot construct envvars: {error}"
        ) from None
    for service in (api, *others):
        if (service["spec"].get("clusterIP") or "None") != "None":
            found.update(_of_service(service))
    return found


def _of_service(service: Json) -> dict[str, str]:
    """Source: k8s v1.36 pkg/kubelet/envvars/envvars.go."""
    spec, name = service["spec"], meta.name(service).upper().replace("-", "_")
    ip = spec["clusterIP"]
    host = f"[{ip}]" if ":" in ip else ip
    found = {f"{name}_SERVICE_HOST": ip}
    for at, port in enumerate(spec.get("ports") or ()):
        number, protocol = str(port["port"]), port.get("protocol") or "TCP"
        url = f"{protocol.lower()}://{host}:{number}"
        if at == 0:
            found.update({f"{name}_SERVICE_PORT": number, f"{name}_PORT": url})
        if port.get("name"):
            found[f"{name}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = number
        link = f"{name}_PORT_{number}_{protocol}"
        found.update(
            {link: url, f"{link}_PROTO": protocol.lower(), f"{link}_PORT": number, f"{link}_ADDR": ip}
        )
    return found


async def environment(
    pod: Json, container: Json, place: Place, fetch: Fetch, services: Mapping[str, str] = {}
) -> dict[str, str]:
    """Name to value. Raises ConfigError."""
    found = dict(services)
    for source in container.get("envFrom") or ():
        prefix = source.get("prefix") or ""
        for key, value in (await _all_of(source, fetch)).items():
            found[prefix + key] = value
    for variable in container.get("env") or ():
        text = await _value(pod, container, variable, found, place, fetch)
        if text is not None:
            found[variable["name"]] = text
    return found


def expand(text: str, variables: Mapping[str, str]) -> str:
    """With `$(NAME)` replaced."""

    def replace(match: re.Match[str]) -> str:
        if match.group(1) == "$":
            return "$"
        return variables.get(match.group(2), match.group(0))

    return _REFERENCE.sub(replace, text) if "$" in text else text


def check_mounts(container: Json, variables: Mapping[str, str]) -> None:
    """Raises ConfigError for a mount whose path inside the volume leads out of it or cannot be worked out."""
    for mount in container.get("volumeMounts") or ():
        expression, path = mount.get("subPathExpr") or "", mount.get("subPath") or ""
        if expression:
            names = [match.group(2) for match in _REFERENCE.finditer(expression) if match.group(1) != "$"]
            missing = sorted({name for name in names if not variables.get(name)})
            if missing:
                raise ConfigError(f"missing value for {', '.join(missing)}")
            path = expand(expression, variables)
        if path.startswith("/"):
            raise ConfigError(f"error SubPath `{path}` must not be an absolute path")
        if ".." in path.split("/"):
            raise ConfigError(f"unable to provision SubPath `{path}`: must not contain '..'")


async def _value(
    pod: Json, container: Json, variable: Json, before: Mapping[str, str], place: Place, fetch: Fetch
) -> str | None:
    """None: an optional reference to what is not there."""
    source = variable.get("valueFrom") or {}
    if "fieldRef" in source:
        return of_field(pod, source["fieldRef"]["fieldPath"], place)
    if "resourceFieldRef" in source:
        return of_amount(pod, container, source["resourceFieldRef"], place)
    for kind in _KINDS:
        if f"{kind}KeyRef" in source:
            return await _of_key(pod, kind, source[f"{kind}KeyRef"], fetch)
    return expand(variable.get("value") or "", before)


async def _object(kind: str, reference: Json, fetch: Fetch) -> Json | None:
    """None: it is not there and need not be."""
    resource, name = _KINDS[kind][0], reference.get("name") or ""
    try:
        return await fetch(resource, name)
    except NotFound:
        if reference.get("optional"):
            return None
        raise ConfigError(f'{kind.lower()} "{name}" not found') from None
    except ApiError as error:
        raise ConfigError(str(error)) from None


def _texts(kind: str, obj: Json) -> dict[str, str]:
    data: Json = obj.get("data") or {}
    if kind == "configMap":
        return data
    return {key: base64.b64decode(value).decode("utf-8", "replace") for key, value in data.items()}


async def _all_of(source: Json, fetch: Fetch) -> dict[str, str]:
    for kind in _KINDS:
        reference = source.get(f"{kind}Ref")
        if reference is not None:
            obj = await _object(kind, reference, fetch)
            return _texts(kind, obj) if obj is not None else {}
    return {}


async def _of_key(pod: Json, kind: str, reference: Json, fetch: Fetch) -> str | None:
    obj = await _object(kind, reference, fetch)
    if obj is None:
        return None
    key = reference["key"]
    value = _texts(kind, obj).get(key)
    if value is None and not reference.get("optional"):
        where = f"{meta.namespace(pod)}/{reference.get('name') or ''}"
        raise ConfigError(f"couldn't find key {key} in {_KINDS[kind][1]} {where}")
    return value


def of_field(pod: Json, path: str, place: Place) -> str:
    """What a fieldRef names. Raises ConfigError."""
    metadata, spec = pod["metadata"], pod["spec"]
    subscript = _SUBSCRIPT(path)
    if subscript is not None:
        return str((metadata.get(subscript.group(1)) or {}).get(subscript.group(2), ""))
    fields = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "status.hostIP": place.host_ip,
        "status.hostIPs": place.host_ip,
        "status.podIP": place.pod_ips[0] if place.pod_ips else "",
        "status.podIPs": ",".join(place.pod_ips),
    }
    if path not in fields:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return str(fields[path])


def of_amount(pod: Json, container: Json, reference: Json, place: Place) -> str:
    """In whole divisors, rounded up. A limit that is not set is what the node can allocate."""
    name = reference.get("containerName") or container["name"]
    of = next((each for each in (*containers(pod), *init_containers(pod)) if each["name"] == name), container)
    field, _, resource = reference["resource"].partition(".")
    text = ((of.get("resources") or {}).get(field) or {}).get(resource)
    if text is None:
        text = place.allocatable.get(resource, "0") if field == "limits" else "0"
    divisor = parse(reference.get("divisor") or "1")
    if resource == "cpu":
        return str(math.ceil(parse(text).milli_value() / (divisor.milli_value() or 1000)))
    return str(math.ceil(parse(text).value() / (divisor.value() or 1)))
