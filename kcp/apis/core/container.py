"""Containers: defaults and rules of images, ports, environment, mounts, probes and life-cycle hooks.

Regular, init and ephemeral containers share `container_common`; what differs stands in `containers`,
`init_containers` and `ephemeral_containers`.
Source: k8s v1.36 pkg/apis/core/validation/validation.go (validateContainers and its relatives), v1/defaults.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from kcp.apis.core import checks
from kcp.apis.core.checks import Errors, Json
from kcp.apis.core.resources import default_list, is_sidecar, requirements
from kcp.apis.core.security import container_security_context
from kcp.apis.core.volume import (
    ENV_FIELD_PATHS,
    default_field_ref,
    local_descending_path,
    no_backsteps,
    object_field_selector,
    resource_field_selector,
)
from kcp.base.values import frozen
from kcp.machinery import names
from kcp.machinery.errors import duplicate, forbidden, invalid, not_found, required, too_many, unsupported

PULL_POLICIES = ("Always", "IfNotPresent", "Never")
PROTOCOLS = ("SCTP", "TCP", "UDP")
_MESSAGE_POLICIES = ("File", "FallbackToLogsOnError")
_PULL_POLICY_SET = frozenset(PULL_POLICIES)
_PROTOCOL_SET = frozenset(PROTOCOLS)


@frozen
class PodContext:
    """What the rules of a container must know about its pod."""

    volumes: Mapping[str, Json]
    claim_names: tuple[str, ...]
    grace_period_s: int | None
    restart_policy: str
    host_users: bool


# -- defaults ---------------------------------------------------------------------------------------

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_DOMAIN = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*"
_REFERENCE = re.compile(
    rf"(?:(?:{_DOMAIN}|\[[a-fA-F0-9:]+\])(?::[0-9]+)?/)?{_COMPONENT}(?:/{_COMPONENT})*"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?P<digest>@[A-Za-z][\w.+-]*:[0-9a-fA-F]{32,})?"
)


@lru_cache(16_384)
def default_pull_policy(image: str) -> str:
    """Always for the tag latest, given or implied; IfNotPresent for all else, unparsable names included.

    Source: k8s v1.36 pkg/util/parsers/parsers.go.
    """
    match = _REFERENCE.fullmatch(image)
    if match is None:
        return "IfNotPresent"
    tag = match["tag"] or ("" if match["digest"] else "latest")
    return "Always" if tag == "latest" else "IfNotPresent"


def default_containers(found: Iterable[Json]) -> None:
    for container in found:
        _default_container(container)


def _default_container(container: Json) -> None:
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = default_pull_policy(container.get("image") or "")
    if not container.get("terminationMessagePath"):
        container["terminationMessagePath"] = "/dev/termination-log"
    if not container.get("terminationMessagePolicy"):
        container["terminationMessagePolicy"] = "File"
    resources = container.get("resources")
    if resources is None:
        container["resources"] = {}
    elif resources:
        default_list(resources.get("limits"))
        default_list(resources.get("requests"))
    for port in container.get("ports") or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"
    for variable in container.get("env") or ():
        if (source := variable.get("valueFrom")) is not None:
            default_field_ref(source)
    _default_handlers(container)
    context = container.get("securityContext")
    if context and context.get("procMount") == "":
        del context["procMount"]


def _default_handlers(container: Json) -> None:
    for field in ("livenessProbe", "readinessProbe", "startupProbe"):
        if (probe := container.get(field)) is not None:
            _default_probe(probe)
    if (lifecycle := container.get("lifecycle")) is not None:
        for hook in ("postStart", "preStop"):
            _default_http_get((lifecycle.get(hook) or {}).get("httpGet"))


def _default_probe(probe: Json) -> None:
    for field, value in (
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ):
        if not probe.get(field):
            probe[field] = value
    _default_http_get(probe.get("httpGet"))
    if (grpc := probe.get("grpc")) is not None and grpc.get("service") is None:
        grpc["service"] = ""


def _default_http_get(action: Json | None) -> None:
    if action is not None:
        if not action.get("path"):
            action["path"] = "/"
        if not action.get("scheme"):
            action["scheme"] = "HTTP"


def default_host_ports(found: Iterable[Json]) -> None:
    """With host networking every port of a container is a port of the host."""
    for container in found:
        for port in container.get("ports") or ():
            if not port.get("hostPort"):
                port["hostPort"] = port.get("containerPort")


# -- ports and environment --------------------------------------------------------------------------


def _ports(errors: Errors, ports: list[Json], path: str) -> None:
    seen: set[str] = set()
    for i, port in enumerate(ports):
        number, host = port.get("containerPort"), port.get("hostPort")
        if name := port.get("name"):
            if found := checks.port_name_texts(name):
                checks.texts(errors, found, name, f"{path}[{i}].name")
            elif name in seen:
                errors.append(duplicate(f"{path}[{i}].name", name))
            seen.add(name)
        if not number:
            errors.append(required(f"{path}[{i}].containerPort"))
        elif not 0 < number < 65536:
            errors.append(invalid(f"{path}[{i}].containerPort", number, checks.PORT_RANGE))
        if host and not 0 < host < 65536:
            errors.append(invalid(f"{path}[{i}].hostPort", host, checks.PORT_RANGE))
        if port.get("protocol") not in _PROTOCOL_SET:
            checks.one_of(errors, port.get("protocol"), PROTOCOLS, f"{path}[{i}].protocol")


def _relaxed_env_name(errors: Errors, name: str, path: str) -> None:
    if found := names.is_relaxed_env_var_name(name):
        checks.texts(errors, found, name, path)


def _env(errors: Errors, variables: list[Json], path: str) -> None:
    for i, variable in enumerate(variables):
        name = variable.get("name")
        if not name:
            errors.append(required(f"{path}[{i}].name"))
        else:
            _relaxed_env_name(errors, name, f"{path}[{i}].name")
        if (source := variable.get("valueFrom")) is not None:
            _value_from(errors, source, variable.get("value") or "", f"{path}[{i}].valueFrom")


def _key_ref(errors: Errors, reference: Json, path: str) -> None:
    name, key = reference.get("name") or "", reference.get("key") or ""
    checks.dns_subdomain(errors, name, f"{path}.name")
    if not key:
        errors.append(required(f"{path}.key"))
    else:
        checks.config_key(errors, key, f"{path}.key")


def _file_ref(errors: Errors, reference: Json, path: str) -> None:
    for field in ("key", "volumeName", "path"):
        if not reference.get(field):
            errors.append(required(f"{path}.{field}"))
    if key := reference.get("key"):
        _relaxed_env_name(errors, key, f"{path}.key")
    if target := reference.get("path"):
        local_descending_path(errors, target, f"{path}.path")


_ENV_SOURCES: tuple[tuple[str, Callable[[Errors, Json, str], None]], ...] = (
    ("fieldRef", lambda errors, ref, path: object_field_selector(errors, ref, ENV_FIELD_PATHS, path)),
    (
        "resourceFieldRef",
        lambda errors, ref, path: resource_field_selector(errors, ref, path, in_volume=False),
    ),
    ("configMapKeyRef", _key_ref),
    ("secretKeyRef", _key_ref),
    ("fileKeyRef", _file_ref),
)


def _value_from(errors: Errors, source: Json, value: str, path: str) -> None:
    count = 0
    for field, check in _ENV_SOURCES:
        if (reference := source.get(field)) is not None:
            count += 1
            check(errors, reference, f"{path}.{field}")
    if not count:
        text = (
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` "
            "or `fileKeyRef`"
        )
        errors.append(invalid(path, "", text))
    elif value:
        errors.append(invalid(path, "", "may not be specified when `value` is not empty"))
    elif count > 1:
        errors.append(invalid(path, "", "may not have more than one field specified at a time"))


def _env_from(errors: Errors, sources: list[Json], path: str) -> None:
    for i, source in enumerate(sources):
        if source.get("prefix"):
            _relaxed_env_name(errors, source["prefix"], f"{path}[{i}].prefix")
        count = 0
        for field in ("configMapRef", "secretRef"):
            if (reference := source.get(field)) is None:
                continue
            count += 1
            name = reference.get("name") or ""
            if not name:
                errors.append(required(f"{path}[{i}].{field}.name"))
            else:
                found = checks.dns_subdomain_texts(name.removesuffix("-") or name)
                checks.texts(errors, found, name, f"{path}[{i}].{field}.name")
        if not count:
            errors.append(invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif count > 1:
            errors.append(invalid(path, "", "may not have more than one field specified at a time"))


# -- mounts -----------------------------------------------------------------------------------------

_PROPAGATIONS = ("Bidirectional", "HostToContainer", "None")
_RECURSIVE = ("Disabled", "Enabled", "IfPossible")


def _mounts(errors: Errors, container: Json, mounts: list[Json], path: str, context: PodContext) -> None:
    devices = {d.get("name"): d.get("devicePath") for d in container.get("volumeDevices") or ()}
    seen: set[str] = set()
    for i, mount in enumerate(mounts):
        name, target = mount.get("name") or "", mount.get("mountPath") or ""
        if not name:
            errors.append(required(f"{path}[{i}].name"))
        volume = context.volumes.get(name)
        if volume is None:
            errors.append(not_found(f"{path}[{i}].name", name))
        if not target:
            errors.append(required(f"{path}[{i}].mountPath"))
        if target in seen:
            errors.append(invalid(f"{path}[{i}].mountPath", target, "must be unique"))
        seen.add(target)
        if devices:
            _mount_against_devices(errors, name, target, devices, f"{path}[{i}]")
        if len(mount) > 2:
            _mount_options(errors, mount, volume, container, f"{path}[{i}]", path)


def _mount_against_devices(
    errors: Errors, name: str, target: str, devices: Mapping[str | None, str | None], path: str
) -> None:
    if name in devices:
        errors.append(invalid(f"{path}.name", name, "must not already exist in volumeDevices"))
    if target in devices.values():
        text = "must not already exist as a path in volumeDevices"
        errors.append(invalid(f"{path}.mountPath", target, text))


def _mount_options(
    errors: Errors, mount: Json, volume: Json | None, container: Json, here: str, path: str
) -> None:
    sub_path, expression = mount.get("subPath") or "", mount.get("subPathExpr") or ""
    if volume is not None and volume.get("image") is not None and expression:
        text = "not allowed in image volume sources"
        errors.append(invalid(f"{here}.subPathExpr", expression, text))
    if sub_path:
        local_descending_path(errors, sub_path, f"{path}.subPath")
    if expression:
        if sub_path:
            text = "subPathExpr and subPath are mutually exclusive"
            errors.append(invalid(f"{here}.subPathExpr", expression, text))
        local_descending_path(errors, expression, f"{path}.subPathExpr")
    propagation = mount.get("mountPropagation")
    if propagation is not None:
        _propagation(errors, propagation, container, f"{path}.mountPropagation")
    if (recursive := mount.get("recursiveReadOnly")) is not None:
        _recursive(errors, recursive, mount, f"{path}.recursiveReadOnly")


def _propagation(errors: Errors, mode: str, container: Json, path: str) -> None:
    if mode not in _PROPAGATIONS:
        errors.append(unsupported(path, mode, _PROPAGATIONS))
    privileged = (container.get("securityContext") or {}).get("privileged")
    if mode == "Bidirectional" and not privileged:
        text = "Bidirectional mount propagation is available only to privileged containers"
        errors.append(forbidden(path, text))


def _recursive(errors: Errors, mode: str, mount: Json, path: str) -> None:
    if mode not in _RECURSIVE:
        errors.append(unsupported(path, mode, _RECURSIVE))
    elif mode != "Disabled":
        if not mount.get("readOnly"):
            errors.append(forbidden(path, "may only be specified when readOnly is true"))
        if (mount.get("mountPropagation") or "None") != "None":
            text = "may only be specified when mountPropagation is None or not specified"
            errors.append(forbidden(path, text))


def _devices(errors: Errors, container: Json, devices: list[Json], path: str, context: PodContext) -> None:
    mounts = {m.get("name"): m.get("mountPath") for m in container.get("volumeMounts") or ()}
    seen: set[str] = set()
    targets: set[str] = set()
    for i, device in enumerate(devices):
        name, target = device.get("name") or "", device.get("devicePath") or ""
        here = f"{path}[{i}]"
        if not name:
            errors.append(required(f"{here}.name"))
        if name in seen:
            errors.append(invalid(f"{here}.name", name, "must be unique"))
        _device_volume(errors, name, context.volumes.get(name), here)
        if not target:
            errors.append(required(f"{here}.devicePath"))
        if target in targets:
            errors.append(invalid(f"{here}.devicePath", target, "must be unique"))
        _device_path(errors, target, here)
        if name in mounts:
            errors.append(invalid(f"{here}.name", name, "must not already exist in volumeMounts"))
        if target in mounts.values():
            text = "must not already exist as a path in volumeMounts"
            errors.append(invalid(f"{here}.devicePath", target, text))
        seen.add(name)
        targets.add(target)


def _device_path(errors: Errors, target: str, path: str) -> None:
    wrong: Errors = []
    no_backsteps(wrong, target, path)
    if wrong:
        errors.append(invalid(f"{path}.devicePath", target, "can not contain backsteps ('..')"))


def _device_volume(errors: Errors, name: str, volume: Json | None, path: str) -> None:
    if volume is None:
        errors.append(not_found(f"{path}.name", name))
    elif volume.get("persistentVolumeClaim") is None and volume.get("ephemeral") is None:
        text = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
        errors.append(invalid(f"{path}.name", name, text))


# -- handlers ---------------------------------------------------------------------------------------


def _exec(errors: Errors, action: Json, path: str, grace_s: int | None) -> None:
    if not action.get("command"):
        errors.append(required(f"{path}.command"))


def _http_get(errors: Errors, action: Json, path: str, grace_s: int | None) -> None:
    if not action.get("path"):
        errors.append(required(f"{path}.path"))
    checks.port(errors, action.get("port"), f"{path}.port")
    scheme = action.get("scheme") or ""
    if scheme not in ("HTTP", "HTTPS"):
        errors.append(unsupported(f"{path}.scheme", scheme, ("HTTP", "HTTPS")))
    for header in action.get("httpHeaders") or ():
        name = header.get("name") or ""
        checks.texts(errors, names.is_http_header_name(name), name, f"{path}.httpHeaders")


def _port_action(errors: Errors, action: Json, path: str, grace_s: int | None) -> None:
    checks.port(errors, action.get("port"), f"{path}.port")


def _sleep(errors: Errors, action: Json, path: str, grace_s: int | None) -> None:
    seconds = action.get("seconds") or 0
    if grace_s is not None and not 0 <= seconds <= grace_s:
        text = f"must be non-negative and less than terminationGracePeriodSeconds ({grace_s})"
        errors.append(invalid(path, seconds, text))


_HANDLERS: tuple[tuple[str, Callable[[Errors, Json, str, int | None], None]], ...] = (
    ("exec", _exec),
    ("httpGet", _http_get),
    ("tcpSocket", _port_action),
    ("grpc", _port_action),
    ("sleep", _sleep),
)


def _handler(errors: Errors, handler: Json, path: str, grace_s: int | None) -> None:
    count = 0
    for field, check in _HANDLERS:
        if (action := handler.get(field)) is None:
            continue
        count += 1
        if count > 1:
            errors.append(forbidden(f"{path}.{field}", "may not specify more than 1 handler type"))
        else:
            check(errors, action, f"{path}.{field}", grace_s)
    if not count:
        errors.append(required(path, "must specify a handler type"))


_PROBE_NUMBERS = (
    "initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold",
)  # fmt: skip


def _probe(errors: Errors, probe: Json, path: str, grace_s: int | None) -> None:
    _handler(errors, probe, path, grace_s)
    checks.nonnegative_fields(errors, probe, _PROBE_NUMBERS, path)
    grace = probe.get("terminationGracePeriodSeconds")
    if grace is not None and grace <= 0:
        where = f"{path}.terminationGracePeriodSeconds"
        errors.append(invalid(where, grace, "must be greater than 0"))


def _probes(errors: Errors, container: Json, path: str, grace_s: int | None) -> None:
    """Life-cycle hooks and probes of a container that may have them."""
    if (lifecycle := container.get("lifecycle")) is not None:
        for hook in ("postStart", "preStop"):
            if (handler := lifecycle.get(hook)) is not None:
                _handler(errors, handler, f"{path}.lifecycle.{hook}", grace_s)
    for field in ("livenessProbe", "readinessProbe", "startupProbe"):
        if (probe := container.get(field)) is None:
            continue
        here = f"{path}.{field}"
        _probe(errors, probe, here, grace_s)
        if field == "readinessProbe":
            if (grace := probe.get("terminationGracePeriodSeconds")) is not None:
                where = f"{here}.terminationGracePeriodSeconds"
                errors.append(invalid(where, grace, "must not be set for readinessProbes"))
        elif probe.get("successThreshold") != 1:
            value = probe.get("successThreshold") or 0
            errors.append(invalid(f"{here}.successThreshold", value, "must be 1"))


# -- containers -------------------------------------------------------------------------------------

_RESIZE_RESOURCES = ("cpu", "memory")
_RESIZE_POLICIES = ("NotRequired", "RestartContainer")


def _resize_policy(errors: Errors, policies: list[Json], path: str, restart_policy: str) -> None:
    seen: set[str] = set()
    for i, policy in enumerate(policies):
        name, restart = policy.get("resourceName") or "", policy.get("restartPolicy") or ""
        if name in seen:
            errors.append(duplicate(f"{path}[{i}]", name))
        seen.add(name)
        checks.one_of(errors, name, _RESIZE_RESOURCES, path)
        checks.one_of(errors, restart, _RESIZE_POLICIES, path)
        if restart_policy == "Never" and restart != "NotRequired":
            text = "must be 'NotRequired' when `restartPolicy` is 'Never'"
            errors.append(invalid(path, restart, text))


_RESTART_POLICIES = ("Always", "OnFailure", "Never")
_RULE_ACTIONS = ("Restart", "RestartAllContainers")
_RULE_OPERATORS = ("In", "NotIn")


def _restart_policy(errors: Errors, container: Json, path: str) -> None:
    """Restart policy and rules of one container."""
    policy, rules = container.get("restartPolicy"), container.get("restartPolicyRules") or []
    if policy is not None:
        if policy not in _RESTART_POLICIES:
            errors.append(unsupported(f"{path}.restartPolicy", policy, _RESTART_POLICIES))
    elif rules:
        text = "must specify restartPolicy when restart rules are used"
        errors.append(required(f"{path}.restartPolicy", text))
    if len(rules) > 20:
        errors.append(too_many(f"{path}.restartPolicyRules", len(rules), 20))
    for i, rule in enumerate(rules):
        _restart_rule(errors, rule, f"{path}.restartPolicyRules[{i}]")


def _restart_rule(errors: Errors, rule: Json, path: str) -> None:
    if rule.get("action") not in _RULE_ACTIONS:
        errors.append(unsupported(f"{path}.action", rule.get("action") or "", _RULE_ACTIONS))
    codes = rule.get("exitCodes")
    if codes is None:
        errors.append(required(f"{path}.exitCodes", "must be specified"))
        return
    if codes.get("operator") not in _RULE_OPERATORS:
        where = f"{path}.exitCodes.operator"
        errors.append(unsupported(where, codes.get("operator") or "", _RULE_OPERATORS))
    values = codes.get("values") or []
    if len(values) > 255:
        errors.append(too_many(f"{path}.exitCodes.values", len(values), 255))


def _image(errors: Errors, container: Json, path: str) -> None:
    """Only on pods: templates may have a blank image to be filled in later."""
    image = container.get("image") or ""
    if image != image.strip():
        errors.append(invalid(f"{path}.image", image, "must not have leading or trailing whitespace"))


def images(errors: Errors, found: Iterable[Json], path: str) -> None:
    for i, container in enumerate(found):
        _image(errors, container, f"{path}[{i}]")


def container_common(errors: Errors, container: Json, path: str, context: PodContext) -> None:
    """Rules of every kind of container."""
    name = container.get("name")
    if not name:
        errors.append(required(f"{path}.name"))
    elif found := checks.dns_label_texts(name):
        checks.texts(errors, found, name, f"{path}.name")
    if not container.get("image"):
        errors.append(required(f"{path}.image"))
    policy = container.get("terminationMessagePolicy")
    if policy not in _MESSAGE_POLICIES:
        checks.one_of(errors, policy, _MESSAGE_POLICIES, f"{path}.terminationMessagePolicy")
    if ports := container.get("ports"):
        _ports(errors, ports, f"{path}.ports")
    if env := container.get("env"):
        _env(errors, env, f"{path}.env")
    if env_from := container.get("envFrom"):
        _env_from(errors, env_from, f"{path}.envFrom")
    if mounts := container.get("volumeMounts"):
        _mounts(errors, container, mounts, f"{path}.volumeMounts", context)
    if devices := container.get("volumeDevices"):
        _devices(errors, container, devices, f"{path}.volumeDevices", context)
    if container.get("imagePullPolicy") not in _PULL_POLICY_SET:
        checks.one_of(errors, container.get("imagePullPolicy"), PULL_POLICIES, f"{path}.imagePullPolicy")
    if resources := container.get("resources"):
        requirements(errors, resources, f"{path}.resources", context.claim_names)
    if policies := container.get("resizePolicy"):
        _resize_policy(errors, policies, f"{path}.resizePolicy", context.restart_policy)
    if (security := container.get("securityContext")) is not None:
        container_security_context(errors, security, f"{path}.securityContext", context.host_users)


def containers(errors: Errors, found: list[Json], path: str, context: PodContext) -> None:
    """The regular containers."""
    if not found:
        errors.append(required(path))
        return
    seen: set[str] = set()
    for i, container in enumerate(found):
        here = f"{path}[{i}]"
        container_common(errors, container, here, context)
        name = container.get("name") or ""
        if name in seen:
            errors.append(duplicate(f"{here}.name", name))
        seen.add(name)
        _probes(errors, container, here, context.grace_period_s)
        if "restartPolicy" in container or "restartPolicyRules" in container:
            _restart_policy(errors, container, here)
    _host_port_conflicts(errors, found, path)


def _host_port_conflicts(errors: Errors, found: list[Json], path: str) -> None:
    seen: set[str] = set()
    for i, container in enumerate(found):
        for j, port in enumerate(container.get("ports") or ()):
            if not port.get("hostPort"):
                continue
            key = f"{port.get('protocol')}/{port.get('hostIP') or ''}/{port['hostPort']}"
            if key in seen:
                errors.append(duplicate(f"{path}[{i}].ports[{j}].hostPort", key))
            seen.add(key)


_NOT_FOR_INIT = ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe")


def init_containers(
    errors: Errors, found: list[Json], regular: list[Json], path: str, context: PodContext
) -> None:
    seen = {container.get("name") for container in regular}
    for i, container in enumerate(found):
        here = f"{path}[{i}]"
        container_common(errors, container, here, context)
        _restart_policy(errors, container, here)
        name = container.get("name")
        if name and name in seen:
            errors.append(duplicate(f"{here}.name", name))
        seen.add(name)
        _host_port_conflicts(errors, [container], path)
        if is_sidecar(container):
            _probes(errors, container, here, context.grace_period_s)
        else:
            for field in _NOT_FOR_INIT:
                if container.get(field) is not None:
                    text = "may not be set for init containers without restartPolicy=Always"
                    errors.append(forbidden(f"{here}.{field}", text))
            _no_restart_on_resize(errors, container.get("resizePolicy") or (), f"{here}.resizePolicy")


def _no_restart_on_resize(errors: Errors, policies: Iterable[Json], path: str) -> None:
    """An init container that runs to its end cannot be restarted for other resources."""
    for i, policy in enumerate(policies):
        if policy.get("restartPolicy") == "RestartContainer":
            text = "must not be set to 'RestartContainer' for non-sidecar initContainers"
            errors.append(invalid(f"{path}[{i}].restartPolicy", "RestartContainer", text))


_EPHEMERAL_FIELDS = frozenset(
    {
        "name", "image", "command", "args", "workingDir", "envFrom", "env", "volumeMounts", "volumeDevices",
        "terminationMessagePath", "terminationMessagePolicy", "imagePullPolicy", "securityContext", "stdin",
        "stdinOnce", "tty", "targetContainerName",
    }
)  # fmt: skip
_NOT_FOR_EPHEMERAL = "cannot be set for an Ephemeral Container"


def ephemeral_containers(errors: Errors, spec: Json, path: str, context: PodContext) -> None:
    others = {
        container.get("name")
        for field in ("containers", "initContainers")
        for container in spec.get(field) or ()
    }
    seen = set(others)
    for i, container in enumerate(spec.get("ephemeralContainers") or ()):
        here = f"{path}[{i}]"
        container_common(errors, container, here, context)
        _image(errors, container, here)
        name = container.get("name")
        if name in seen:
            errors.append(duplicate(f"{here}.name", name or ""))
        seen.add(name)
        target = container.get("targetContainerName")
        if target and target not in others:
            errors.append(not_found(f"{here}.targetContainerName", target))
        checks.only_fields(errors, container, _EPHEMERAL_FIELDS, _NOT_FOR_EPHEMERAL, here)
        for j, mount in enumerate(container.get("volumeMounts") or ()):
            for field in ("subPath", "subPathExpr"):
                if mount.get(field):
                    errors.append(forbidden(f"{here}.volumeMounts[{j}].{field}", _NOT_FOR_EPHEMERAL))
