"""PersistentVolume and PersistentVolumeClaim.

Source: k8s v1.36 pkg/registry/core/{persistentvolume,persistentvolumeclaim}/strategy.go,
pkg/apis/core/validation/validation.go.
"""

from __future__ import annotations

import posixpath
from datetime import datetime
from typing import Any

from kcp.apis.core import checks
from kcp.apis.core.checks import Errors, Json
from kcp.apis.core.claim_spec import access_modes, claim_spec, default_claim_spec, volume_mode
from kcp.apis.core.resources import (
    basic_resource,
    canonical,
    default_list,
    handles_quantities,
    is_native,
    positive,
    quantity_value,
)
from kcp.apis.core.scheduling import node_selector
from kcp.apis.core.strategies import STATUS_RESET, keep, metadata_of, spec_of, status_of, text_at
from kcp.apis.core.volume import (
    ONE_TYPE,
    PV_DEFAULTS,
    SourceTable,
    VolumeContext,
    azure_disk,
    csi_driver_name,
    fibre_channel,
    flex,
    flocker,
    host_path,
    needs,
    nfs,
    no_backsteps,
    partitioned,
    pv_iscsi,
    quobyte,
    storage_os,
    with_secret,
)
from kcp.apis.kind import Column, Printer, Strategy
from kcp.apis.printing import AGE, NAME, age, name_of, or_unset, wide
from kcp.apis.semantics import volumes
from kcp.machinery.errors import FieldError, forbidden, invalid, required, unsupported
from kcp.machinery.quantity import parse

_RECLAIM = ("Delete", "Recycle", "Retain")
_BETA_CLASS = "volume.beta.kubernetes.io/storage-class"


# -- PersistentVolume -------------------------------------------------------------------------------


@handles_quantities
def default_volume(volume: Json) -> None:
    spec = volume.setdefault("spec", {})
    status = volume.get("status")
    if status is None:
        status = volume["status"] = {}
    if not status.get("phase"):
        status["phase"] = "Pending"
    if not spec.get("persistentVolumeReclaimPolicy"):
        spec["persistentVolumeReclaimPolicy"] = "Retain"
    if not spec.get("volumeMode"):
        spec["volumeMode"] = "Filesystem"
    default_list(spec.get("capacity"))
    for field, default in PV_DEFAULTS.items():
        if (source := spec.get(field)) is not None:
            default(source)


def _local(errors: Errors, source: Json, path: str, context: VolumeContext) -> None:
    target = source.get("path") or ""
    if not target:
        errors.append(required(f"{path}.path"))
    else:
        no_backsteps(errors, target, f"{path}.path")


def _azure_file(errors: Errors, source: Json, path: str, context: VolumeContext) -> None:
    for field in ("secretName", "shareName"):
        if not source.get(field):
            errors.append(required(f"{path}.{field}"))
    if source.get("secretNamespace") == "":
        errors.append(required(f"{path}.secretNamespace"))


def _glusterfs(errors: Errors, source: Json, path: str, context: VolumeContext) -> None:
    needs("endpoints", "path")(errors, source, path, context)
    namespace = source.get("endpointsNamespace")
    if namespace == "":
        text = "if the endpointnamespace is set, it must be a valid namespace name"
        errors.append(invalid(f"{path}.endpointsNamespace", namespace, text))
    elif namespace is not None:
        checks.dns_label(errors, namespace, f"{path}.endpointsNamespace")


_CSI_SECRETS = (
    "controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef",
)  # fmt: skip


def _csi(errors: Errors, source: Json, path: str, context: VolumeContext) -> None:
    csi_driver_name(errors, source.get("driver") or "", f"{path}.driver")
    if not source.get("volumeHandle"):
        errors.append(required(f"{path}.volumeHandle"))
    for field in _CSI_SECRETS:
        if (reference := source.get(field)) is not None:
            _secret_reference(errors, reference, f"{path}.{field}")


def _secret_reference(errors: Errors, reference: Json, path: str) -> None:
    name, namespace = reference.get("name") or "", reference.get("namespace") or ""
    if not name:
        errors.append(required(f"{path}.name"))
    else:
        checks.dns_subdomain(errors, name, f"{path}.name")
    if not namespace:
        errors.append(required(f"{path}.namespace"))
    else:
        checks.dns_label(errors, namespace, f"{path}.namespace")


_BOTH = ("name", "namespace")
_SOURCES: SourceTable = (
    ("hostPath", "hostPath", host_path),
    ("gcePersistentDisk", "persistentDisk", partitioned("pdName")),
    ("awsElasticBlockStore", "awsElasticBlockStore", partitioned("volumeID")),
    ("glusterfs", "glusterfs", _glusterfs),
    ("flocker", "flocker", flocker),
    ("nfs", "nfs", nfs),
    ("rbd", "rbd", needs("monitors", "image")),
    ("quobyte", "quobyte", quobyte),
    ("cephfs", "cephfs", needs("monitors")),
    ("iscsi", "iscsi", pv_iscsi),
    ("cinder", "cinder", with_secret("volumeID", secret=_BOTH)),
    ("fc", "fc", fibre_channel),
    ("flexVolume", "flexVolume", flex),
    ("azureFile", "azureFile", _azure_file),
    ("vsphereVolume", "vsphereVolume", needs("volumePath")),
    ("photonPersistentDisk", "photonPersistentDisk", needs("pdID")),
    ("portworxVolume", "portworxVolume", needs("volumeID")),
    ("azureDisk", "azureDisk", azure_disk),
    ("scaleIO", "scaleIO", needs("gateway", "system", "volumeName")),
    ("local", "local", _local),
    ("storageos", "storageos", storage_os(_BOTH)),
    ("csi", "csi", _csi),
)
_SOURCE_FIELDS = tuple(field for field, _, _ in _SOURCES)


def _sources(errors: Errors, spec: Json, name: str) -> None:
    found = 0
    for field, path_name, check in _SOURCES:
        if (source := spec.get(field)) is None:
            continue
        found += 1
        if found > 1 and field != "flexVolume":
            errors.append(forbidden(f"spec.{field}", ONE_TYPE))
            continue
        check(errors, source, f"spec.{path_name}", VolumeContext(name))
        if field == "local" and spec.get("nodeAffinity") is None:
            errors.append(required("spec.nodeAffinity", "Local volume requires node affinity"))
    if not found:
        errors.append(required("spec", "must specify a volume type"))


def _capacity(errors: Errors, capacity: Json) -> None:
    path = "spec.capacity"
    if not capacity:
        errors.append(required(path))
    if "storage" not in capacity or len(capacity) > 1:
        errors.append(unsupported(path, capacity or None, ("storage",)))
    for name, value in capacity.items():
        basic_resource(errors, value, f"{path}[{name}]")
        positive(errors, value, f"{path}[{name}]")


def _volume_node_affinity(errors: Errors, affinity: Json | None) -> None:
    if affinity is None:
        return
    if (selector := affinity.get("required")) is None:
        text = "must specify required node constraints"
        errors.append(required("spec.nodeAffinity.required", text))
    else:
        node_selector(errors, selector, "spec.nodeAffinity.required")


def _validate_volume(volume: Json) -> list[FieldError]:
    errors: Errors = []
    spec = spec_of(volume)
    modes = spec.get("accessModes") or []
    if not modes:
        errors.append(required("spec.accessModes"))
    access_modes(errors, modes, "spec.accessModes")
    _capacity(errors, spec.get("capacity") or {})
    reclaim = spec.get("persistentVolumeReclaimPolicy")
    if reclaim and reclaim not in _RECLAIM:
        errors.append(unsupported("spec.persistentVolumeReclaimPolicy", reclaim, _RECLAIM))
    _volume_node_affinity(errors, spec.get("nodeAffinity"))
    _sources(errors, spec, metadata_of(volume).get("name") or "")
    host = spec.get("hostPath")
    if host is not None and reclaim == "Recycle" and posixpath.normpath(host.get("path") or ".") == "/":
        text = "may not be 'recycle' for a hostPath mount of '/'"
        errors.append(forbidden("spec.persistentVolumeReclaimPolicy", text))
    if spec.get("storageClassName"):
        checks.dns_subdomain(errors, spec["storageClassName"], "spec.storageClassName")
    volume_mode(errors, spec.get("volumeMode"), "spec.volumeMode")
    if (name := spec.get("volumeAttributesClassName")) is not None:
        _attributes_class(errors, name, spec)
    return errors


def _attributes_class(errors: Errors, name: str, spec: Json) -> None:
    path = "spec.volumeAttributesClassName"
    if not name:
        errors.append(required(path, "an empty string is disallowed"))
    else:
        checks.dns_subdomain(errors, name, path)
    if spec.get("csi") is None:
        text = "has to be specified when using volumeAttributesClassName"
        errors.append(required("spec.csi", text))


_GA_LABELS = {
    "failure-domain.beta.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
    "beta.kubernetes.io/os": "kubernetes.io/os",
    "beta.kubernetes.io/arch": "kubernetes.io/arch",
    "beta.kubernetes.io/instance-type": "node.kubernetes.io/instance-type",
}


def _with_ga_labels(affinity: Any) -> Any:
    """The affinity with beta label keys replaced, for comparison."""
    if isinstance(affinity, dict):
        return {
            key: _GA_LABELS.get(value, value) if key == "key" else _with_ga_labels(value)
            for key, value in affinity.items()
        }
    if isinstance(affinity, list):
        return [_with_ga_labels(item) for item in affinity]
    return affinity


def _validate_volume_update(new: Json, old: Json) -> list[FieldError]:
    errors = _validate_volume(new)
    after, before = spec_of(new), spec_of(old)
    sources = [
        {field: spec[field] for field in _SOURCE_FIELDS if spec.get(field)} for spec in (after, before)
    ]
    csi = [source.get("csi") or {} for source in sources]
    if csi[0].get("controllerExpandSecretRef") and csi[1] and not csi[1].get("controllerExpandSecretRef"):
        trimmed = {key: value for key, value in csi[0].items() if key != "controllerExpandSecretRef"}
        sources[0]["csi"] = trimmed
    if not checks.semantic_equal(*sources):
        change = checks.diff(sources[1], sources[0])
        text = f"spec.persistentvolumesource is immutable after creation\n{change}"
        errors.append(forbidden("spec.persistentvolumesource", text))
    checks.same(errors, after.get("volumeMode"), before.get("volumeMode"), "volumeMode")
    if before.get("nodeAffinity") is not None:
        pair = after.get("nodeAffinity"), before["nodeAffinity"]
        if pair[0] != pair[1] and not checks.semantic_equal(
            _with_ga_labels(pair[1]), _with_ga_labels(pair[0])
        ):
            text = f"{checks.IMMUTABLE}, except for updating from beta label to GA"
            errors.append(invalid("nodeAffinity", pair[0], text))
    was, now = before.get("volumeAttributesClassName"), after.get("volumeAttributesClassName")
    if was is not None and now is None:
        path = "spec.volumeAttributesClassName"
        errors.append(forbidden(path, "update from non-nil value to nil is forbidden"))
    return errors


def _prepare_volume(volume: Json) -> None:
    status = volume["status"] = {"phase": "Pending"}
    if created := metadata_of(volume).get("creationTimestamp"):
        status["lastPhaseTransitionTime"] = created


_VOLUME_COLUMNS = (
    NAME,
    Column("Capacity"),
    Column("Access Modes"),
    Column("Reclaim Policy"),
    Column("Status"),
    Column("Claim"),
    Column("StorageClass", "string", "", "StorageClass of the pv"),
    Column("VolumeAttributesClass"),
    Column("Reason"),
    AGE,
    wide("VolumeMode"),
)


def _phase(obj: Json) -> str:
    if metadata_of(obj).get("deletionTimestamp"):
        return "Terminating"
    return status_of(obj).get("phase") or ""


def _volume_cells(volume: Json, now: datetime) -> list[Any]:
    spec, claim = spec_of(volume), spec_of(volume).get("claimRef")
    return [
        name_of(volume),
        canonical((spec.get("capacity") or {}).get("storage") or "0"),
        volumes.access_modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy") or "",
        _phase(volume),
        f"{claim.get('namespace') or ''}/{claim.get('name') or ''}" if claim else "",
        volumes.volume_class(volume),
        or_unset(spec.get("volumeAttributesClassName")),
        status_of(volume).get("reason") or "",
        age(volume, now),
        or_unset(spec.get("volumeMode")),
    ]


# -- PersistentVolumeClaim --------------------------------------------------------------------------


@handles_quantities
def default_claim(claim: Json) -> None:
    default_claim_spec(claim.setdefault("spec", {}))
    status = claim.get("status")
    if status is None:
        status = claim["status"] = {}
    if not status.get("phase"):
        status["phase"] = "Pending"
    default_list(status.get("capacity"))
    default_list(status.get("allocatedResources"))


_VOLUME_KINDS = (("", "PersistentVolumeClaim"), ("snapshot.storage.k8s.io", "VolumeSnapshot"))


def _is_volume_source(source: Json) -> bool:
    return ((source.get("apiGroup") or ""), source.get("kind") or "") in _VOLUME_KINDS


def _match_data_sources(spec: Json) -> None:
    """dataSource and dataSourceRef mean the same; each fills in the other.

    Source: k8s v1.36 pkg/api/persistentvolumeclaim (NormalizeDataSources, EnforceDataSourceBackwardsCompatibility).
    """
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    if source is not None and not _is_volume_source(source):
        del spec["dataSource"]
        source = None
    if source is not None and reference is None:
        spec["dataSourceRef"] = dict(source)
    if source is not None or reference is None or reference.get("namespace"):
        return
    if _is_volume_source(reference):
        fields = ("apiGroup", "kind", "name")
        spec["dataSource"] = {key: reference[key] for key in fields if key in reference}


def _prepare_claim(claim: Json) -> None:
    claim["status"] = {"phase": "Pending"}
    _match_data_sources(claim["spec"])


def _prepare_claim_update(new: Json, old: Json) -> None:
    keep(new, old, "status")
    spec, before = new["spec"], spec_of(old)
    source = spec.get("dataSource")
    if source is not None and not _is_volume_source(source) and before.get("dataSource") is None:
        del spec["dataSource"]
    if spec.get("dataSourceRef") is None and spec.get("dataSource") == before.get("dataSource"):
        keep(spec, before, "dataSourceRef")
    if spec.get("dataSource") is None and spec.get("dataSourceRef") == before.get("dataSourceRef"):
        keep(spec, before, "dataSource")


def _validate_claim(claim: Json) -> list[FieldError]:
    errors: Errors = []
    claim_spec(errors, spec_of(claim), "spec")
    return errors


def _munged(new: Json, old: Json) -> tuple[Json, Json]:
    """Both specs as they must be equal: what may change of a claim is made the same."""
    after, before = dict(spec_of(new)), dict(spec_of(old))
    if not before.get("volumeName"):
        keep(before, after, "volumeName")
    if before.get("storageClassName") is None and after.get("storageClassName") is not None:
        beta = (metadata_of(old).get("annotations") or {}).get(_BETA_CLASS)
        if beta is None or beta == after["storageClassName"]:
            before["storageClassName"] = after["storageClassName"]
    if status_of(new).get("phase") == "Bound":
        resources = after.get("resources") or {}
        if resources.get("requests") is not None:
            storage = ((before.get("resources") or {}).get("requests") or {}).get("storage")
            after["resources"] = {**resources, "requests": {**resources["requests"], "storage": storage}}
        if after.get("volumeAttributesClassName") is not None:
            keep(after, before, "volumeAttributesClassName")
    return after, before


def _storage(obj: Json) -> Any:
    return parse(((obj.get("resources") or {}).get("requests") or {}).get("storage") or "0")


def _validate_claim_update(new: Json, old: Json) -> list[FieldError]:
    errors = _validate_claim(new)
    annotations = [(metadata_of(obj).get("annotations") or {}).get(_BETA_CLASS) or "" for obj in (new, old)]
    upgraded = annotations[1] and spec_of(new).get("storageClassName") == annotations[1]
    if annotations[0] != annotations[1] and not (upgraded and not annotations[0]):
        path = f"metadata.annotations.{_BETA_CLASS}"
        errors.append(invalid(path, annotations[0], checks.IMMUTABLE))
    after, before = _munged(new, old)
    if not checks.semantic_equal(after, before):
        text = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound "
            f"claims\n{checks.diff(before, after)}"
        )
        errors.append(forbidden("spec", text))
    wanted, was = _storage(spec_of(new)), _storage(spec_of(old))
    if wanted < was and wanted <= parse((status_of(old).get("capacity") or {}).get("storage") or "0"):
        text = "field can not be less than status.capacity"
        errors.append(forbidden("spec.resources.requests.storage", text))
    modes = spec_of(new).get("volumeMode"), spec_of(old).get("volumeMode")
    checks.same(errors, *modes, "volumeMode")
    _class_removed(errors, spec_of(new), spec_of(old))
    return errors


def _class_removed(errors: Errors, after: Json, before: Json) -> None:
    path = "spec.volumeAttributesClassName"
    was, now = before.get("volumeAttributesClassName"), after.get("volumeAttributesClassName")
    if was is None or now:
        return
    what = "nil" if now is None else "an empty string"
    if was != now:
        errors.append(forbidden(path, f"update from non-nil value to {what} is forbidden"))


_RESIZE_STATUSES = (
    "ControllerResizeInProgress", "ControllerResizeInfeasible", "NodeResizeInProgress", "NodeResizeInfeasible",
    "NodeResizePending",
)  # fmt: skip


def _resource_key(errors: Errors, name: str, path: str) -> bool:
    before = len(errors)
    checks.qualified_name(errors, name, path)
    if len(errors) == before and is_native(name) and name != "storage":
        errors.append(unsupported(path, name, ("storage",)))
    return len(errors) == before


def _validate_claim_status(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    status = status_of(new)
    if not spec_of(new).get("accessModes"):
        errors.append(required("Spec.accessModes"))
    for name, value in (status.get("capacity") or {}).items():
        basic_resource(errors, value, f"status.capacity[{name}]")
    path = "status.allocatedResourceStatus"
    for name, state in (status.get("allocatedResourceStatuses") or {}).items():
        _resource_key(errors, name, path)
        if state not in _RESIZE_STATUSES:
            errors.append(unsupported(path, name, _RESIZE_STATUSES))
    path = "status.allocatedResources"
    for name, value in (status.get("allocatedResources") or {}).items():
        if _resource_key(errors, name, path):
            quantity_value(errors, "storage", value, f"{path}[{name}]")
    return errors


def _claim_warnings(new: Json, old: Json | None) -> list[str]:
    requests = (spec_of(new).get("resources") or {}).get("requests") or {}
    value = requests.get("storage")
    if value is None or parse(value).milli_value() % 1000 == 0:
        return []
    text = f'fractional byte value "{canonical(value)}" is invalid, must be an integer'
    return [f"spec.resources.requests[storage]: {text}"]


_CLAIM_COLUMNS = (
    NAME,
    Column("Status"),
    Column("Volume"),
    Column("Capacity"),
    Column("Access Modes"),
    Column("StorageClass", "string", "", "StorageClass of the pvc"),
    Column("VolumeAttributesClass"),
    AGE,
    wide("VolumeMode"),
)


def _claim_cells(claim: Json, now: datetime) -> list[Any]:
    spec, status = spec_of(claim), status_of(claim)
    volume = spec.get("volumeName") or ""
    return [
        name_of(claim),
        _phase(claim),
        volume,
        canonical((status.get("capacity") or {}).get("storage") or "0") if volume else "",
        volumes.access_modes(status.get("accessModes")) if volume else "",
        volumes.claim_class(claim),
        or_unset(spec.get("volumeAttributesClassName")),
        age(claim, now),
        or_unset(spec.get("volumeMode")),
    ]


def _keep_spec(new: Json, old: Json) -> None:
    keep(new, old, "spec")


STRATEGIES: dict[str, Strategy] = {
    "PersistentVolume": Strategy(
        default=default_volume,
        prepare_create=_prepare_volume,
        prepare_update=lambda new, old: keep(new, old, "status"),
        prepare_status=_keep_spec,
        validate_create=_validate_volume,
        validate_update=_validate_volume_update,
        selectable={"name": text_at("metadata", "name")},
        has_generation=False,
        reset_fields=STATUS_RESET,
    ),
    "PersistentVolumeClaim": Strategy(
        default=default_claim,
        prepare_create=_prepare_claim,
        prepare_update=_prepare_claim_update,
        prepare_status=_keep_spec,
        validate_create=_validate_claim,
        validate_update=_validate_claim_update,
        validate_status=_validate_claim_status,
        warnings=_claim_warnings,
        selectable={"name": text_at("metadata", "name")},
        has_generation=False,
        reset_fields=STATUS_RESET,
    ),
}
PRINTERS: dict[str, Printer] = {
    "PersistentVolume": Printer(_VOLUME_COLUMNS, _volume_cells),
    "PersistentVolumeClaim": Printer(_CLAIM_COLUMNS, _claim_cells),
}
