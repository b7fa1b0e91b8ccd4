"""The spec of a PersistentVolumeClaim, which ephemeral volumes and StatefulSets embed as a template.

Source: k8s v1.36 pkg/apis/core/validation/validation.go (ValidatePersistentVolumeClaimSpec).
"""

from __future__ import annotations

from kcp.apis.core import checks
from kcp.apis.core.checks import Errors, Json
from kcp.apis.core.resources import default_list, positive
from kcp.machinery.errors import FieldError, forbidden, invalid, required, unsupported

ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
VOLUME_MODES = ("Block", "Filesystem")


def default_claim_spec(spec: Json) -> None:
    if not spec.get("volumeMode"):
        spec["volumeMode"] = "Filesystem"
    resources = spec.get("resources")
    if resources is None:
        spec["resources"] = {}
    else:
        default_list(resources.get("limits"))
        default_list(resources.get("requests"))


def default_claim_template(template: Json) -> None:
    default_claim_spec(template.setdefault("spec", {}))


def claim_template(errors: Errors, template: Json, path: str) -> None:
    metadata = template.get("metadata") or {}
    checks.annotation_map(errors, metadata.get("annotations"), f"{path}.metadata.annotations")
    checks.label_map(errors, metadata.get("labels"), f"{path}.metadata.labels")
    allowed = ("annotations", "labels", "creationTimestamp")
    checks.only_fields(errors, metadata, allowed, "cannot be set", f"{path}.metadata")
    claim_spec(errors, template.get("spec") or {}, f"{path}.spec")


def access_modes(errors: Errors, modes: list[str], path: str) -> None:
    single = others = False
    for mode in modes:
        if mode not in ACCESS_MODES:
            errors.append(unsupported(path, mode, ACCESS_MODES))
        elif mode == "ReadWriteOncePod":
            single = True
        else:
            others = True
    if single and others:
        errors.append(forbidden(path, "may not use ReadWriteOncePod with other access modes"))


def volume_mode(errors: Errors, mode: str | None, path: str) -> None:
    if mode is not None and mode not in VOLUME_MODES:
        errors.append(unsupported(path, mode, VOLUME_MODES))


def claim_spec(errors: Errors, spec: Json, path: str) -> None:
    modes = spec.get("accessModes") or []
    if not modes:
        errors.append(required(f"{path}.accessModes", "at least 1 access mode is required"))
    checks.label_selector(errors, spec.get("selector"), f"{path}.selector")
    access_modes(errors, modes, f"{path}.accessModes")
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if storage is None:
        errors.append(required(f"{path}.resources[storage]"))
    else:
        positive(errors, storage, f"{path}.resources[storage]")
    if spec.get("storageClassName"):
        checks.dns_subdomain(errors, spec["storageClassName"], f"{path}.storageClassName")
    volume_mode(errors, spec.get("volumeMode"), f"{path}.volumeMode")
    _data_sources(errors, spec, path)
    if spec.get("volumeAttributesClassName"):
        where = f"{path}.volumeAttributesClassName"
        checks.dns_subdomain(errors, spec["volumeAttributesClassName"], where)


def _data_source(errors: Errors, source: Json, path: str) -> None:
    for field in ("name", "kind"):
        if not source.get(field):
            errors.append(required(f"{path}.{field}"))
    group, kind = source.get("apiGroup") or "", source.get("kind") or ""
    if not group and kind != "PersistentVolumeClaim":
        text = "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
        errors.append(invalid(path, kind, text))
    if group:
        checks.dns_subdomain(errors, group, f"{path}.apiGroup")


def _data_sources(errors: Errors, spec: Json, path: str) -> None:
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    if source is not None:
        _data_source(errors, source, f"{path}.dataSource")
    if reference is not None:
        _data_source(errors, reference, f"{path}.dataSourceRef")
        if reference.get("namespace"):
            where = f"{path}.dataSourceRef.namespace"
            checks.dns_label(errors, reference["namespace"], where)
    if source is None or reference is None:
        return
    if reference.get("namespace"):
        text = "may not be specified when dataSourceRef.namespace is specified"
        errors.append(FieldError("Invalid value", path, {}, text))
    elif any(source.get(field) != reference.get(field) for field in ("apiGroup", "kind", "name")):
        errors.append(FieldError("Invalid value", path, {}, "must match dataSourceRef"))
