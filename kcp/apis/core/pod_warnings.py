"""Warnings about pods and pod templates: fields that are deprecated, contradictory or useless.

Source: k8s v1.36 pkg/api/pod/warnings.go, pkg/api/node/util.go.
"""

from __future__ import annotations

from collections.abc import Iterable

from kcp.apis.core.checks import Json
from kcp.apis.core.resources import canonical, is_whole
from kcp.apis.core.security import APPARMOR, SECCOMP_CONTAINER, SECCOMP_POD, all_containers
from kcp.machinery.errors import go_quote

_DEPRECATED_LABELS = {
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": 'deprecated since v1.17; use "topology.kubernetes.io/region" instead',
    "failure-domain.beta.kubernetes.io/zone": 'deprecated since v1.17; use "topology.kubernetes.io/zone" instead',
    "beta.kubernetes.io/instance-type": 'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead',
}
_DEPRECATED_ANNOTATIONS = {
    "scheduler.alpha.kubernetes.io/critical-pod": (
        'non-functional in v1.16+; use the "priorityClassName" field instead'
    ),
    "security.alpha.kubernetes.io/sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
    "security.alpha.kubernetes.io/unsafe-sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
}
_DEPRECATED_VOLUMES = {
    "photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
    "gitRepo": "deprecated in v1.11, and disabled by default in v1.33+",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "flocker": "deprecated in v1.22, non-functional in v1.25+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
    "quobyte": "deprecated in v1.22, non-functional in v1.25+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
}
_NULL_SELECTOR = "a null labelSelector results in matching no pod"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def template_warnings(template: Json | None, path: str) -> list[str]:
    """Warnings of a workload's template; `path` is that of the template."""
    template = template or {}
    return pod_warnings(template.get("metadata") or {}, template.get("spec") or {}, f"{path}.")


def pod_warnings(metadata: Json, spec: Json, prefix: str) -> list[str]:
    """`prefix` comes before `spec` and `metadata` in the paths: empty for a pod, `spec.template.` for a template."""
    found: list[str] = []
    annotations = metadata.get("annotations") or {}
    here = f"{prefix}spec"
    if "nodeSelector" in spec or "affinity" in spec:
        _node_labels(found, spec, here)
    for i, constraint in enumerate(spec.get("topologySpreadConstraints") or ()):
        _spread(found, constraint, f"{here}.topologySpreadConstraints[{i}]")
    for key, message in _DEPRECATED_ANNOTATIONS.items():
        if key in annotations:
            found.append(f"{prefix}metadata.annotations[{key}]: {message}")
    _volumes(found, spec.get("volumes") or (), f"{here}.volumes")
    _duplicates(found, spec, here)
    _fractions(found, spec.get("overhead"), f"{here}.overhead")
    if annotations:
        _profile_annotations(found, annotations, spec, prefix)
    for container, path in all_containers(spec, here):
        resources = container.get("resources") or {}
        for which in ("limits", "requests"):
            _fractions(found, resources.get(which), f"{path}.resources.{which}")
        if len(container.get("env") or ()) > 1:
            _environment(found, container["env"], f"{path}.env")
    _ports(found, spec, here)
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0:
        text = "must be >= 0; negative values are invalid and will be treated as 1"
        found.append(f"{here}.terminationGracePeriodSeconds: {text}")
    _affinity_terms(found, spec.get("affinity") or {}, f"{here}.affinity")
    return found


def _node_labels(found: list[str], spec: Json, path: str) -> None:
    for key in spec.get("nodeSelector") or ():
        if message := _DEPRECATED_LABELS.get(key):
            found.append(f"{path}.nodeSelector[{key}]: {message}")
    node = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    base = f"{path}.affinity.nodeAffinity"
    terms = [
        (term, f"{base}.{_REQUIRED}.nodeSelectorTerms[{i}]")
        for i, term in enumerate((node.get(_REQUIRED) or {}).get("nodeSelectorTerms") or ())
    ]
    terms += [
        (term.get("preference") or {}, f"{base}.{_PREFERRED}[{i}].preference")
        for i, term in enumerate(node.get(_PREFERRED) or ())
    ]
    for term, where in terms:
        for i, expression in enumerate(term.get("matchExpressions") or ()):
            key = expression.get("key") or ""
            if message := _DEPRECATED_LABELS.get(key):
                found.append(f"{where}.matchExpressions[{i}].key: {key} is {message}")


def _spread(found: list[str], constraint: Json, path: str) -> None:
    key = constraint.get("topologyKey") or ""
    if message := _DEPRECATED_LABELS.get(key):
        found.append(f"{path}.topologyKey: {key} is {message}")
    if constraint.get("labelSelector") is None:
        found.append(f"{path}.labelSelector: {_NULL_SELECTOR}")


def _volumes(found: list[str], volumes: Iterable[Json], path: str) -> None:
    for i, volume in enumerate(volumes):
        for field in volume:
            if message := _DEPRECATED_VOLUMES.get(field):
                shown = "storageOS" if field == "storageos" else field
                found.append(f"{path}[{i}].{shown}: {message}")


def _duplicates(found: list[str], spec: Json, path: str) -> None:
    for field, key in (("hostAliases", "ip"), ("imagePullSecrets", "name")):
        seen: set[str] = set()
        for i, entry in enumerate(spec.get(field) or ()):
            value = entry.get(key) or ""
            if value in seen:
                found.append(f"{path}.{field}[{i}].{key}: duplicate {key} {go_quote(value)}")
            seen.add(value)
    for i, secret in enumerate(spec.get("imagePullSecrets") or ()):
        if not secret.get("name"):
            found.append(f'{path}.imagePullSecrets[{i}].name: invalid empty name ""')


def _fractions(found: list[str], resources: Json | None, path: str) -> None:
    for name in ("memory", "ephemeral-storage"):
        value = (resources or {}).get(name)
        if value is not None and not is_whole(value):
            shown = go_quote(canonical(value))
            found.append(f"{path}[{name}]: fractional byte value {shown} is invalid, must be an integer")


def _profile_annotations(found: list[str], annotations: Json, spec: Json, prefix: str) -> None:
    path = f"{prefix}metadata.annotations"
    old = 'non-functional in v1.27+; use the "seccompProfile" field instead'
    context = spec.get("securityContext") or {}
    if SECCOMP_POD in annotations and not context.get("seccompProfile"):
        found.append(f"{path}[{SECCOMP_POD}]: {old}")
    for container, _ in all_containers(spec, ""):
        own = container.get("securityContext") or {}
        key = SECCOMP_CONTAINER + (container.get("name") or "")
        if key in annotations and not own.get("seccompProfile"):
            found.append(f"{path}[{key}]: {old}")
        key = APPARMOR + (container.get("name") or "")
        has_field = own.get("appArmorProfile") or context.get("appArmorProfile")
        if key in annotations and not has_field:
            found.append(f'{path}[{key}]: deprecated since v1.30; use the "appArmorProfile" field instead')


def _environment(found: list[str], variables: list[Json], path: str) -> None:
    """A later variable may extend an earlier one of its name, but not hide it."""
    seen: set[str] = set()
    for i, variable in enumerate(variables):
        name, value = variable.get("name") or "", variable.get("value") or ""
        reference = f"$({name})"
        if name in seen and (variable.get("valueFrom") or value == reference or reference not in value):
            text = f"hides previous definition of {go_quote(name)}, which may be dropped when using apply"
            found.append(f"{path}[{i}]: {text}")
        seen.add(name)


def _ports(found: list[str], spec: Json, path: str) -> None:
    seen: dict[str, list[tuple[Json, str]]] = {}
    for container, where in all_containers(spec, path):
        for i, port in enumerate(container.get("ports") or ()):
            here = f"{where}.ports[{i}]"
            others = seen.setdefault(f"{port.get('containerPort')}/{port.get('protocol')}", [])
            for other, there in others:
                if clash := _clash(port, other):
                    found.append(f"{here}: {clash} port definition with {there}")
            others.append((port, here))


def _clash(one: Json, other: Json) -> str:
    ips = one.get("hostIP") or "", other.get("hostIP") or ""
    ports = one.get("hostPort") or 0, other.get("hostPort") or 0
    if ips[0] == ips[1] and ports[0] == ports[1]:
        return "duplicate"
    if not ports[0] or not ports[1]:
        return "overlapping"
    if ports[0] == ports[1] and bool(ips[0]) != bool(ips[1]):
        return "dangerously ambiguous"
    return ""


def _affinity_terms(found: list[str], affinity: Json, path: str) -> None:
    for field in ("podAffinity", "podAntiAffinity"):
        pod = affinity.get(field) or {}
        for i, term in enumerate(pod.get(_REQUIRED) or ()):
            if term.get("labelSelector") is None:
                found.append(f"{path}.{field}.{_REQUIRED}[{i}].labelSelector: {_NULL_SELECTOR}")
        for i, weighted in enumerate(pod.get(_PREFERRED) or ()):
            if (weighted.get("podAffinityTerm") or {}).get("labelSelector") is None:
                where = f"{path}.{field}.{_PREFERRED}[{i}].podAffinityTerm.labelSelector"
                found.append(f"{where}: {_NULL_SELECTOR}")
