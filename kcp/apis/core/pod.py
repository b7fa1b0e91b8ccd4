"""Pod: defaults, rules of creation and update, status, graceful deletion.

Source: k8s v1.36 pkg/registry/core/pod/strategy.go, pkg/apis/core/validation/validation.go, pkg/apis/core/v1/defaults.go.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import orjson

from kcp.apis.core import checks, podspec, scheduling, security
from kcp.apis.core.checks import Errors, Json
from kcp.apis.core.container import default_host_ports, images
from kcp.apis.core.pod_printing import POD_PRINTER
from kcp.apis.core.pod_warnings import pod_warnings
from kcp.apis.core.resources import (
    default_pod_level,
    default_requests,
    handles_quantities,
    is_sidecar,
)
from kcp.apis.kind import Printer, Strategy
from kcp.apis.semantics.pods import compute_qos_class
from kcp.machinery.errors import FieldError, duplicate, forbidden, invalid, required
from kcp.machinery.names import is_dns1123_label
from kcp.machinery.quantity import parse


@handles_quantities
def default_pod(pod: Json) -> None:
    spec = pod.setdefault("spec", {})
    podspec.default_pod_spec(spec)
    init = spec.get("initContainers") or ()
    for container in spec.get("containers") or ():
        default_requests(container)
    for container in init:
        default_requests(container)
    if spec.get("resources"):
        default_pod_level(spec)
    if spec.get("enableServiceLinks") is None:
        spec["enableServiceLinks"] = True
    if spec.get("hostNetwork"):
        default_host_ports(spec.get("containers") or ())
        default_host_ports(init)
    if status := pod.get("status"):
        _pair_addresses(status)


def _pair_addresses(status: Json) -> None:
    """podIP is the first of podIPs; who sets only one of them sets both. Source: k8s v1.36 pkg/apis/core/v1/conversion.go."""
    single, several = status.get("podIP"), status.get("podIPs")
    if single and (not several or several[0].get("ip") != single):
        status["podIPs"] = [{"ip": single}]
    elif several and not single:
        status["podIP"] = several[0].get("ip") or ""


# -- create -----------------------------------------------------------------------------------------


def prepare_pod(pod: Json) -> None:
    """A new pod is Pending, with its quality-of-service class."""
    spec = pod["spec"]
    status: Json = {"phase": "Pending", "qosClass": compute_qos_class(pod)}
    pod["status"] = status
    if spec.get("schedulingGates"):
        status["conditions"] = [_gated_condition(pod["metadata"].get("creationTimestamp"))]
    if "affinity" in spec or "topologySpreadConstraints" in spec:
        scheduling.merge_label_keys(spec, pod["metadata"].get("labels") or {})
    if annotations := pod["metadata"].get("annotations"):
        _apply_apparmor_annotations(spec, annotations)


def _gated_condition(created: str | None) -> Json:
    return {
        "type": "PodScheduled",
        "status": "False",
        "lastProbeTime": None,
        "lastTransitionTime": created,
        "reason": "SchedulingGated",
        "message": "Scheduling is blocked due to non-empty scheduling gates",
    }


def _apply_apparmor_annotations(spec: Json, annotations: Mapping[str, str]) -> None:
    """Older clients ask for AppArmor by annotation; the field follows it."""
    if (spec.get("os") or {}).get("name") == "windows":
        return
    pod_profile = (spec.get("securityContext") or {}).get("appArmorProfile")
    for container, _ in security.all_containers(spec, ""):
        annotation = annotations.get(security.APPARMOR + (container.get("name") or ""))
        if annotation is None or (container.get("securityContext") or {}).get("appArmorProfile"):
            continue
        profile = security.apparmor_field(annotation)
        if profile is not None and profile != pod_profile:
            context = container.get("securityContext") or {}
            container["securityContext"] = {**context, "appArmorProfile": profile}


_TOKEN_VOLUME = re.compile(rb'"kube-api-access-[bcdfghjklmnpqrstvwxz2456789]{5}"')
"""The name that admission makes up for the volume with the token: what tells pods of one template apart."""
SOUND_SPECS = 2048


@attrs.define(eq=False)
class _Sound:
    """What is known of a valid spec. `warnings` are those of a pod without annotations, once they were asked for."""

    warnings: list[str] | None = None


_sound_specs: dict[bytes, _Sound] = {}
"""Specs that were found valid, by digest. Pods come from templates: most specs were seen before."""
_newest: list[tuple[Json, _Sound]] = []
"""The spec that was found valid last, since its warnings are asked for next."""


def _digest(spec: Json) -> bytes | None:
    """What stands for a spec's validity; None where it depends on more than the spec (names of ephemeral claims)."""
    try:
        encoded = orjson.dumps(spec)
    except TypeError:  # integers beyond 64 bits, half characters
        return None
    if b'"ephemeral"' in encoded:
        return None
    names = set(_TOKEN_VOLUME.findall(encoded))
    if len(names) == 1:
        encoded = encoded.replace(names.pop(), b"\x00")
    return hashlib.blake2b(encoded, digest_size=16).digest()


def _metadata_and_spec(errors: Errors, pod: Json) -> None:
    """What every write of a pod checks."""
    metadata, spec = pod.get("metadata") or {}, pod.get("spec") or {}
    podspec.pod_annotations(errors, metadata.get("annotations"), spec, "metadata.annotations")
    digest = _digest(spec)
    sound = _sound_specs.get(digest) if digest is not None else None
    if sound is None:
        before = len(errors)
        _spec(errors, spec, metadata.get("name") or "")
        if digest is None or len(errors) > before:
            return
        while len(_sound_specs) >= SOUND_SPECS:
            del _sound_specs[next(iter(_sound_specs))]
        sound = _sound_specs[digest] = _Sound()
    _newest[:] = ((spec, sound),)


def _spec(errors: Errors, spec: Json, pod_name: str) -> None:
    podspec.pod_spec(errors, spec, "spec", pod_name=pod_name, is_pod=True)
    if not spec.get("serviceAccountName"):
        _no_token_volumes(errors, spec)
    images(errors, spec.get("containers") or (), "spec.containers")
    images(errors, spec.get("initContainers") or (), "spec.initContainers")


def _no_token_volumes(errors: Errors, spec: Json) -> None:
    for i, volume in enumerate(spec.get("volumes") or ()):
        for j, source in enumerate((volume.get("projected") or {}).get("sources") or ()):
            if source.get("serviceAccountToken") is not None:
                path = f"spec.volumes[{i}].projected.sources[{j}].serviceAccountToken"
                text = "must not be specified when serviceAccountName is not set"
                errors.append(forbidden(path, text))


def validate_create(pod: Json) -> list[FieldError]:
    errors: Errors = []
    _metadata_and_spec(errors, pod)
    spec = pod.get("spec") or {}
    if spec.get("ephemeralContainers"):
        errors.append(forbidden("spec.ephemeralContainers", "cannot be set on create"))
    if spec.get("nodeName") and spec.get("schedulingGates"):
        text = "cannot be set until all schedulingGates have been cleared"
        errors.append(forbidden("spec.nodeName", text))
    if annotations := (pod.get("metadata") or {}).get("annotations"):
        security.profiles_match(errors, annotations, spec, "spec")
    return errors


# -- update -----------------------------------------------------------------------------------------

_UPDATABLE = (
    "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` "
    "(only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it "
    "was previously negative)"
)


def prepare_update(new: Json, old: Json) -> None:
    new["status"] = old.get("status") or {}


def _annotation_updates(errors: Errors, new: Json, old: Json) -> None:
    """AppArmor and mirror-pod annotations may not change."""
    path = "metadata.annotations"
    after = (new.get("metadata") or {}).get("annotations") or {}
    before = (old.get("metadata") or {}).get("annotations") or {}
    if after == before:
        return
    for key, value in before.items():
        if after.get(key) == value:
            continue
        if key.startswith(security.APPARMOR):
            errors.append(forbidden(f"{path}[{key}]", "may not remove or update AppArmor annotations"))
        if key == podspec.MIRROR_POD:
            errors.append(forbidden(f"{path}[{key}]", "may not remove or update mirror pod annotation"))
    for key in after:
        if key in before:
            continue
        if key.startswith(security.APPARMOR):
            errors.append(forbidden(f"{path}[{key}]", "may not add AppArmor annotations"))
        if key == podspec.MIRROR_POD:
            errors.append(forbidden(f"{path}[{key}]", "may not add mirror pod annotation"))


def _container_updates(errors: Errors, new: list[Json], old: list[Json], path: str) -> bool:
    """Whether the rest of the update can be compared at all."""
    if len(new) != len(old):
        errors.append(forbidden(path, "pod updates may not add or remove containers"))
        return False
    for i, container in enumerate(new):
        if not container.get("image"):
            errors.append(required(f"{path}[{i}].image"))
    images(errors, new, path)
    return True


def _deadline_update(errors: Errors, new: int | None, old: int | None) -> bool:
    path = "spec.activeDeadlineSeconds"
    if new is None:
        if old is not None:
            text = "must not update from a positive integer to nil value"
            errors.append(invalid(path, None, text))
        return True
    if not 0 <= new <= checks.MAX_INT32:
        text = f"must be between 0 and {checks.MAX_INT32}, inclusive"
        errors.append(invalid(path, new, text))
        return False
    if old is not None and old < new:
        errors.append(invalid(path, new, "must be less than or equal to previous value"))
        return False
    return True


def validate_update(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    _metadata_and_spec(errors, new)
    _annotation_updates(errors, new, old)
    after, before = new.get("spec") or {}, old.get("spec") or {}
    for field in ("containers", "initContainers"):
        pair = after.get(field) or [], before.get(field) or []
        if not _container_updates(errors, *pair, f"spec.{field}"):
            return errors
    deadlines = after.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds")
    if not _deadline_update(errors, *deadlines):
        return errors
    tolerations = after.get("tolerations") or [], before.get("tolerations") or []
    scheduling.only_added_tolerations(errors, *tolerations, "spec.tolerations")
    gates = after.get("schedulingGates") or [], before.get("schedulingGates") or []
    scheduling.only_deleted_gates(errors, *gates, "spec.schedulingGates")
    if after != before:
        _other_changes(errors, after, before)
    return errors


def _other_changes(errors: Errors, after: Json, before: Json) -> None:
    """Nothing but the updatable fields may differ."""
    munged = dict(after)
    for field in ("containers", "initContainers"):
        if munged.get(field):
            pairs = zip(munged[field], before[field], strict=True)
            munged[field] = [{**container, "image": was.get("image")} for container, was in pairs]
    for field in ("activeDeadlineSeconds", "schedulingGates", "tolerations"):
        _restore(munged, before, field)
    grace = before.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0 and munged.get("terminationGracePeriodSeconds") == 1:
        _restore(munged, before, "terminationGracePeriodSeconds")
    if before.get("schedulingGates"):
        _gated_changes(errors, munged, before)
    if not checks.semantic_equal(munged, before):
        text = f"pod updates may not change fields other than {_UPDATABLE}\n{checks.diff(before, munged)}"
        errors.append(forbidden("spec", text))


def _restore(munged: Json, before: Json, field: str) -> None:
    munged.pop(field, None)
    if field in before:
        munged[field] = before[field]


def _gated_changes(errors: Errors, munged: Json, before: Json) -> None:
    """A pod that waits at a gate may become stricter about its node."""
    selectors = munged.get("nodeSelector") or {}, before.get("nodeSelector") or {}
    if selectors[0] != selectors[1]:
        scheduling.selector_mutation(errors, *selectors, "spec.nodeSelector")
        _restore(munged, before, "nodeSelector")
    old_affinity = before.get("affinity") or {}
    new_affinity = munged.get("affinity") or {}
    old_node, new_node = old_affinity.get("nodeAffinity") or {}, new_affinity.get("nodeAffinity") or {}
    if not checks.semantic_equal(old_node, new_node):
        path = "spec.affinity.nodeAffinity"
        scheduling.node_affinity_mutation(errors, new_node, old_node, path)
        munged["affinity"] = {**new_affinity, "nodeAffinity": old_affinity.get("nodeAffinity")}


# -- status -----------------------------------------------------------------------------------------


def prepare_status(new: Json, old: Json) -> None:
    """Only the status changes; owners and the class of service stay, observed generations are remembered."""
    new["spec"] = old.get("spec")
    metadata, old_metadata = new["metadata"], old["metadata"]
    for field in ("ownerReferences", "deletionTimestamp"):
        metadata.pop(field, None)
        if field in old_metadata:
            metadata[field] = old_metadata[field]
    status, old_status = new.setdefault("status", {}), old.get("status") or {}
    for field in ("qosClass", "observedGeneration"):
        if not status.get(field) and field in old_status:
            status[field] = old_status[field]
    _keep_observed_generations(status, old_status)


def _keep_observed_generations(status: Json, old_status: Json) -> None:
    remembered: dict[str, list[int]] = {}
    for condition in old_status.get("conditions") or ():
        generation = condition.get("observedGeneration") or 0
        remembered.setdefault(condition.get("type") or "", []).append(generation)
    for condition in status.get("conditions") or ():
        generations = remembered.get(condition.get("type") or "")
        generation = generations.pop(0) if generations else 0
        if generation and not condition.get("observedGeneration"):
            condition["observedGeneration"] = generation


_STATUS_LISTS = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")


def validate_status(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    _annotation_updates(errors, new, old)
    status, old_status, spec = new.get("status") or {}, old.get("status") or {}, old.get("spec") or {}
    for i, condition in enumerate(status.get("conditions") or ()):
        checks.qualified_name(errors, condition.get("type") or "", f"metadata.conditions[{i}].Type")
    if (new.get("spec") or {}).get("nodeName") != spec.get("nodeName"):
        errors.append(forbidden("status.nodeName", "may not be changed directly"))
    nominated = status.get("nominatedNodeName")
    if nominated and nominated != old_status.get("nominatedNodeName"):
        checks.dns_subdomain(errors, nominated, "status.nominatedNodeName")
    checks.same(errors, status.get("qosClass") or "", old_status.get("qosClass") or "", "status.qosClass")
    _state_transitions(errors, status, old_status, spec)
    _claim_statuses(errors, status, spec)
    _addresses(errors, status, old.get("status") or {})
    for field in _STATUS_LISTS:
        _container_users(errors, status.get(field) or (), spec, f"status.{field}")
    return errors


def _state_transitions(errors: Errors, status: Json, old_status: Json, spec: Json) -> None:
    restarting = {c.get("name") for c in spec.get("initContainers") or () if is_sidecar(c)}
    own_rules = {
        c.get("name")
        for field in ("containers", "initContainers")
        for c in spec.get(field) or ()
        if c.get("restartPolicy") or c.get("restartPolicyRules")
    }
    policy = spec.get("restartPolicy") or ""
    for field in _STATUS_LISTS:
        rule = "Never" if field == "ephemeralContainerStatuses" else policy
        if rule == "Always":
            continue
        free = restarting | own_rules if field != "ephemeralContainerStatuses" else set()
        for i, was in enumerate(old_status.get(field) or ()):
            ended = (was.get("state") or {}).get("terminated")
            if ended is None or was.get("name") in free or (rule == "OnFailure" and ended.get("exitCode")):
                continue
            for now in status.get(field) or ():
                if now.get("name") == was.get("name") and not (now.get("state") or {}).get("terminated"):
                    text = "may not be transitioned to non-terminated state"
                    errors.append(forbidden(f"status.{field}[{i}].state", text))


def _claim_statuses(errors: Errors, status: Json, spec: Json) -> None:
    known = {claim.get("name") for claim in spec.get("resourceClaims") or ()}
    seen: set[str] = set()
    for i, claim in enumerate(status.get("resourceClaimStatuses") or ()):
        path, name = f"status.resourceClaimStatuses[{i}].name", claim.get("name") or ""
        if name not in known:
            text = "must match the name of an entry in `spec.resourceClaims`"
            errors.append(invalid(path, name, text))
        if name in seen:
            errors.append(duplicate(path, name))
        seen.add(name)
        if (claim_name := claim.get("resourceClaimName")) is not None:
            checks.dns_subdomain(errors, claim_name, path)


def _addresses(errors: Errors, status: Json, before: Json) -> None:
    hosts = status.get("hostIPs") or []
    _address_list(errors, status.get("podIPs") or [], "status.podIPs", before.get("podIPs") or ())
    if hosts and hosts[0].get("ip") != status.get("hostIP"):
        text = "must be equal to `hostIP`"
        errors.append(invalid("status.hostIPs[0].ip", hosts[0].get("ip") or "", text))
    _address_list(errors, hosts, "status.hostIPs", before.get("hostIPs") or ())


def _address_list(errors: Errors, found: list[Json], path: str, before: Iterable[Json]) -> None:
    ips, stored = [entry.get("ip") or "" for entry in found], [entry.get("ip") or "" for entry in before]
    for i, ip in enumerate(ips):
        checks.ip(errors, ip, f"{path}[{i}]", stored)
    if len(ips) < 2:
        return
    if len(ips) > 2 or not checks.is_dual_stack(ips):
        text = "may specify no more than one IP for each IP family"
        errors.append(invalid(path, found, text))
    for i, ip in enumerate(ips):
        if ip in ips[:i]:
            errors.append(duplicate(f"{path}[{i}]", found[i]))


def _container_users(errors: Errors, statuses: Any, spec: Json, path: str) -> None:
    windows = (spec.get("os") or {}).get("name") == "windows"
    for i, status in enumerate(statuses):
        linux = (status.get("user") or {}).get("linux")
        if linux is None:
            continue
        if windows:
            errors.append(forbidden(f"{path}[{i}].linux", "cannot be set for a windows pod"))
            continue
        for field in ("uid", "gid"):
            value = linux.get(field) or 0
            if not 0 <= value <= checks.MAX_INT32:
                text = f"must be between 0 and {checks.MAX_INT32}, inclusive"
                errors.append(invalid(f"{path}[{i}].linux.{field}", value, text))


# -- subresources -----------------------------------------------------------------------------------


def prepare_ephemeral_containers(new: Json, old: Json) -> None:
    """For pods/ephemeralcontainers: only that list may change."""
    wanted = (new.get("spec") or {}).get("ephemeralContainers")
    new["status"] = old.get("status")
    new["spec"] = {**(old.get("spec") or {}), "ephemeralContainers": wanted or []}


def validate_ephemeral_containers(new: Json, old: Json) -> list[FieldError]:
    if podspec.MIRROR_POD in ((old.get("metadata") or {}).get("annotations") or {}):
        return [forbidden("[]", "static pods do not support ephemeral containers")]
    errors: Errors = []
    _metadata_and_spec(errors, new)
    _annotation_updates(errors, new, old)
    path = "spec.ephemeralContainers"
    after = {c.get("name"): c for c in (new.get("spec") or {}).get("ephemeralContainers") or ()}
    for was in (old.get("spec") or {}).get("ephemeralContainers") or ():
        name = was.get("name")
        if name not in after:
            text = f'existing ephemeral containers "{name}" may not be removed\n'
            errors.append(forbidden(path, text))
        elif not checks.semantic_equal(was, after[name]):
            change = checks.diff(was, after[name])
            text = f'existing ephemeral containers "{name}" may not be changed\n{change}'
            errors.append(forbidden(path, text))
    return errors


_RESIZABLE = ("resources", "resizePolicy")


def prepare_resize(new: Json, old: Json) -> None:
    """For pods/resize: only the resources of the containers and of the pod may change."""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    spec = dict(before)
    for field in ("containers", "initContainers"):
        pair = after.get(field) or [], before.get(field) or []
        names = [[container.get("name") for container in side] for side in pair]
        if names[0] != names[1]:
            return
        spec[field] = [_resized(now, was) for now, was in zip(*pair, strict=True)]
        if not pair[1] and field not in before:
            del spec[field]
    if after.get("resources") is not None:
        spec["resources"] = after["resources"]
    new["spec"], new["status"] = spec, old.get("status")


def _resized(now: Json, was: Json) -> Json:
    container = {key: value for key, value in was.items() if key not in _RESIZABLE}
    container.update({field: now[field] for field in _RESIZABLE if field in now})
    return container


def validate_resize(new: Json, old: Json) -> list[FieldError]:
    """Source: k8s v1.36 ValidatePodResize."""
    if podspec.MIRROR_POD in ((old.get("metadata") or {}).get("annotations") or {}):
        return [forbidden("[]", "static pods cannot be resized")]
    after, before = new.get("spec") or {}, old.get("spec") or {}
    if (before.get("os") or {}).get("name") == "windows":
        return [forbidden("[]", "windows pods cannot be resized")]
    errors: Errors = []
    _metadata_and_spec(errors, new)
    qos = (old.get("status") or {}).get("qosClass") or compute_qos_class(old)
    if qos != compute_qos_class(new):
        text = "Pod QOS Class may not change as a result of resizing"
        errors.append(invalid("spec", (new.get("status") or {}).get("qosClass") or "", text))
    if _runs_without_resize(old):
        errors.append(forbidden("spec", "Pod running on node without support for resize"))
    for field in ("initContainers", "containers"):
        pair = after.get(field) or [], before.get(field) or []
        if len(pair[0]) != len(pair[1]):
            return [*errors, forbidden("spec", "only cpu and memory resources are mutable")]
        for i, (now, was) in enumerate(zip(*pair, strict=True)):
            _resize_container(errors, now, was, field, f"spec.{field}[{i}].resources")
    return errors


def _runs_without_resize(pod: Json) -> bool:
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        if (status.get("state") or {}).get("running") is not None:
            return status.get("resources") is None
    return False


def _resize_container(errors: Errors, now: Json, was: Json, field: str, path: str) -> None:
    init = field == "initContainers"
    if init and not is_sidecar(was):
        if not checks.semantic_equal(now, was):
            text = "resources for non-sidecar init containers are immutable"
            errors.append(forbidden("spec", text))
        return
    new, old = now.get("resources") or {}, was.get("resources") or {}
    for which in ("requests", "limits"):
        if set(old.get(which) or ()) - set(new.get(which) or ()):
            text = f"resource {which} cannot be removed"
            errors.append(forbidden(f"{path}.{which}", text))
        changed = {
            name
            for name in {*(new.get(which) or ()), *(old.get(which) or ())} - {"cpu", "memory"}
            if parse((new.get(which) or {}).get(name, "0")) != parse((old.get(which) or {}).get(name, "0"))
        }
        if changed:
            what = " for sidecar containers" if init else ""
            text = f"only cpu and memory resources{what} are mutable"
            errors.append(forbidden("spec", text))


# -- deletion, selection ----------------------------------------------------------------------------


def graceful(pod: Json, requested_s: int | None) -> int:
    """The grace period of a deletion: none for pods that do not run. Source: CheckGracefulDelete."""
    spec = pod.get("spec") or {}
    if not spec.get("nodeName") or (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded"):
        return 0
    period = spec.get("terminationGracePeriodSeconds") if requested_s is None else requested_s
    period = period or 0
    return 1 if period < 0 else int(period)


def _warnings(new: Json, old: Json | None) -> list[str]:
    if old is not None:
        return []
    found = []
    if wrong := is_dns1123_label((new.get("metadata") or {}).get("name") or ""):
        found.append(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS "
            f"label is recommended: [{' '.join(wrong)}]"
        )
    return found + _spec_warnings(new.get("metadata") or {}, new.get("spec") or {})


def _spec_warnings(metadata: Json, spec: Json) -> list[str]:
    sound = _newest.pop()[1] if _newest and _newest[0][0] is spec else None
    if sound is None or metadata.get("annotations"):
        return pod_warnings(metadata, spec, "")
    if sound.warnings is None:
        sound.warnings = pod_warnings(metadata, spec, "")
    return sound.warnings


def _spec_text(field: str) -> Any:
    return lambda pod: str((pod.get("spec") or {}).get(field) or "")


def _status_text(field: str) -> Any:
    return lambda pod: str((pod.get("status") or {}).get(field) or "")


def _pod_ip(pod: Json) -> str:
    ips = (pod.get("status") or {}).get("podIPs") or ()
    return str(ips[0].get("ip") or "") if ips else ""


def _host_network(pod: Json) -> str:
    return "true" if (pod.get("spec") or {}).get("hostNetwork") else "false"


POD_STRATEGY = Strategy(
    default=default_pod,
    prepare_create=prepare_pod,
    prepare_update=prepare_update,
    prepare_status=prepare_status,
    validate_create=validate_create,
    validate_update=validate_update,
    validate_status=validate_status,
    warnings=_warnings,
    selectable={
        "spec.nodeName": _spec_text("nodeName"),
        "spec.host": _spec_text("nodeName"),
        "spec.restartPolicy": _spec_text("restartPolicy"),
        "spec.schedulerName": _spec_text("schedulerName"),
        "spec.serviceAccountName": _spec_text("serviceAccountName"),
        "spec.hostNetwork": _host_network,
        "status.phase": _status_text("phase"),
        "status.podIP": _pod_ip,
        "status.podIPs": _pod_ip,
        "status.nominatedNodeName": _status_text("nominatedNodeName"),
    },
    graceful=graceful,
    reset_fields={
        "": (("status",),),
        "status": (("spec",), ("metadata", "deletionTimestamp"), ("metadata", "ownerReferences")),
    },
)


# -- Binding ----------------------------------------------------------------------------------------


def _validate_binding(binding: Json) -> list[FieldError]:
    target = binding.get("target") or {}
    errors: Errors = []
    kind = target.get("kind")
    if kind and kind != "Node":
        text = 'supported values: "Node", "<empty>"'
        errors.append(FieldError("Unsupported value", "target.kind", kind, text))
    if not target.get("name"):
        errors.append(required("target.name"))
    return errors


BINDING_STRATEGY = Strategy(validate_create=_validate_binding, has_status=False, has_generation=False)

STRATEGIES: dict[str, Strategy] = {"Pod": POD_STRATEGY, "Binding": BINDING_STRATEGY}
PRINTERS: dict[str, Printer] = {"Pod": POD_PRINTER}
