"""Volume sources: defaults and rules, as tables of source kinds.

Pods and PersistentVolumes share most sources; each table lists the ones its kind knows in Kubernetes' order.
Source: k8s v1.36 pkg/apis/core/validation/validation.go (ValidateVolumes and what it calls).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kcp.apis.core import checks
from kcp.apis.core.checks import Errors, Json
from kcp.apis.core.claim_spec import claim_template, default_claim_template
from kcp.apis.core.resources import canonical_field, is_negative
from kcp.base.values import frozen
from kcp.machinery import names
from kcp.machinery.errors import FieldError, duplicate, forbidden, invalid, required, unsupported

FILE_MODE = "must be a number between 0 and 0777 (octal), both inclusive"
ONE_TYPE = "may not specify more than 1 volume type"
_DEFAULT_MODE = 0o644
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")


@frozen
class VolumeContext:
    """What the rules of a volume must know about its surroundings."""

    name: str = ""
    pod_name: str = ""
    is_pod: bool = False
    """Whether the spec belongs to a Pod rather than to a template."""


SourceCheck = Callable[[Errors, Json, str, VolumeContext], None]


def default_volumes(volumes: Iterable[Json], pull_policy: Callable[[str], str]) -> None:
    for volume in volumes:
        known = False
        for field, source in tuple(volume.items()):
            if field == "name" or source is None:
                continue
            known = True
            if default := _DEFAULTS.get(field):
                default(source)
        if not known:
            volume["emptyDir"] = {}
        image = volume.get("image")
        if image is not None and not image.get("pullPolicy"):
            image["pullPolicy"] = pull_policy(image.get("reference") or "")


def _default_mode(source: Json) -> None:
    if source.get("defaultMode") is None:
        source["defaultMode"] = _DEFAULT_MODE


def default_field_ref(holder: Json) -> None:
    """apiVersion of a fieldRef, divisor of a resourceFieldRef."""
    if (reference := holder.get("fieldRef")) is not None and not reference.get("apiVersion"):
        reference["apiVersion"] = "v1"
    if (reference := holder.get("resourceFieldRef")) is not None:
        if reference.get("divisor") is None:
            reference["divisor"] = "0"
        else:
            canonical_field(reference, "divisor")


def _default_downward_api(source: Json) -> None:
    _default_mode(source)
    for item in source.get("items") or ():
        default_field_ref(item)


def _default_projected(source: Json) -> None:
    _default_mode(source)
    for part in source.get("sources") or ():
        token = part.get("serviceAccountToken")
        if token is not None and token.get("expirationSeconds") is None:
            token["expirationSeconds"] = 3600
        for item in (part.get("downwardAPI") or {}).get("items") or ():
            default_field_ref(item)
        certificate = part.get("podCertificate")
        if certificate is not None and certificate.get("maxExpirationSeconds") is None:
            certificate["maxExpirationSeconds"] = 86400


def _default_host_path(source: Json) -> None:
    source.setdefault("type", "")


def default_iscsi(source: Json) -> None:
    if not source.get("iscsiInterface"):
        source["iscsiInterface"] = "default"


def default_rbd(source: Json) -> None:
    for field, value in (("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring")):
        if not source.get(field):
            source[field] = value


def default_azure_disk(source: Json) -> None:
    for field, value in (("cachingMode", "ReadWrite"), ("kind", "Shared"), ("fsType", "ext4")):
        if source.get(field) is None:
            source[field] = value
    if source.get("readOnly") is None:
        source["readOnly"] = False


def default_scale_io(source: Json) -> None:
    if not source.get("storageMode"):
        source["storageMode"] = "ThinProvisioned"
    if not source.get("fsType"):
        source["fsType"] = "xfs"


def _default_ephemeral(source: Json) -> None:
    if (template := source.get("volumeClaimTemplate")) is not None:
        default_claim_template(template)


_DEFAULTS: Mapping[str, Callable[[Json], None]] = {
    "secret": _default_mode,
    "configMap": _default_mode,
    "downwardAPI": _default_downward_api,
    "projected": _default_projected,
    "hostPath": _default_host_path,
    "emptyDir": lambda source: canonical_field(source, "sizeLimit"),
    "iscsi": default_iscsi,
    "rbd": default_rbd,
    "azureDisk": default_azure_disk,
    "scaleIO": default_scale_io,
    "ephemeral": _default_ephemeral,
}
PV_DEFAULTS: Mapping[str, Callable[[Json], None]] = {
    "hostPath": _default_host_path,
    "iscsi": default_iscsi,
    "rbd": default_rbd,
    "azureDisk": default_azure_disk,
    "scaleIO": default_scale_io,
}


def need(errors: Errors, source: Json, fields: Iterable[str], path: str) -> None:
    """Required non-empty fields."""
    for field in fields:
        if not source.get(field):
            errors.append(required(f"{path}.{field}"))


def needs(*fields: str) -> SourceCheck:
    """The rule of a source that only needs some fields to be set."""

    def check(errors: Errors, source: Json, path: str, context: VolumeContext) -> None:
        need(errors, source, fields, path)

    return check


def no_backsteps(errors: Errors, target: str, path: str) -> None:
    if ".." in target and ".." in target.split("/"):
        errors.append(invalid(path, target, "must not contain '..'"))


def local_descending_path(errors: Errors, target: str, path: str) -> None:
    if target.startswith("/"):
        errors.append(invalid(path, target, "must be a relative path"))
    no_backsteps(errors, target, path)


def local_non_reserved_path(errors: Errors, target: str, path: str) -> None:
    local_descending_path(errors, target, path)
    if target.startswith("..") and not target.startswith("../"):
        errors.append(invalid(path, target, "must not start with '..'"))


def _mode(errors: Errors, holder: Json, field: str, path: str) -> None:
    mode = holder.get(field)
    if mode is not None and not 0 <= mode <= 0o777:
        errors.append(invalid(f"{path}.{field}", mode, FILE_MODE))


def _key_to_path(errors: Errors, item: Json, path: str) -> None:
    need(errors, item, ("key", "path"), path)
    local_non_reserved_path(errors, item.get("path") or "", f"{path}.path")
    _mode(errors, item, "mode", path)


def _keys_to_paths(errors: Errors, source: Json, path: str) -> None:
    for i, item in enumerate(source.get("items") or ()):
        _key_to_path(errors, item, f"{path}.items[{i}]")


def _empty_dir(errors: Errors, source: Json, path: str, context: VolumeContext) -> None:
    limit = source.get("sizeLimit")
    if limit is not None and is_negative(limit):
        text = "SizeLimit field must be a valid resource quantity"
        errors.append(forbidden(f"{path}.sizeLimit", text))


_HOST_PATH_TYPES = (
    "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket",
)  # fmt: skip


def host_path(errors: Errors, source: Json, path: str, context: VolumeContext) -> None:
    target = source.get("path") or ""
    if not target:
        errors.append(required(f"{path}.path"))
        return
    no_backsteps(errors, target, f"{path}.path")
    kind = source.get("type")
    if kind is not None and kind not in _HOST_PATH_TYPES:
        errors.append(unsupported(f"{path}.type", kind, _HOST_PATH_TYPES))


def _git_repo(errors: Errors, source: Json, path: str, context: VolumeContext) -> None:
    need(errors, source, ("repository",), path)
    local_descending_path(errors, source.get("directory") or "", f"{path}.directory")


def _secret(errors: Errors, source: Json, path: str, context: VolumeContext) -> None:
    need(errors, source, ("secretName",), path)
    _mode(errors, source, "defaultMode", path)
    _keys_to_paths(errors, source, path)


def _config_map(errors: Errors, source: Json, path: str, context: VolumeContext) -> None:
    need(errors, source, ("name",), path)
    _mode(errors, source, "defaultMode", path)
    _keys_to_paths(errors, source, path)


def partitioned(name_field: str) -> SourceCheck:
    """A disk with a partition number."""

    def check(errors: Errors, source: Json, path: str, context: VolumeContext) -> None:
        need(errors, source, (name_field,), path)
        partition = source.get("partition") or 0
        if not 0 <= partition <= 255:
            text = "must be between 1 and 255, inclusive"
            errors.append(invalid(f"{path}.partition", partition, text))

    return check


def nfs(errors: Errors, source: Json, path: str, context: VolumeContext) -> None:
    need(errors, source, ("server", "path"), path)
    target = source.get("path") or ""
    if not target.startswith("/"):
        errors.append(invalid(f"{path}.path", target, "must be an absolute path"))


_IQN = {
    "iqn": re.compile(r"iqn\.\d{4}-\d{2}\.([A-Za-z0-9\-.]+)(:[^,;*&$|\s]+)\Z"),
    "eui": re.compile(r"eui.[A-Za-z0-9]{16}\Z"),
    "naa": re.compile(r"naa.[A-Za-z0-9]{32}\Z"),
}
LUN_RANGE = "must be between 0 and 255, inclusive"
_TARGET_TOO_LONG = (
    "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if "
    "iscsi.initiatorName is specified."
)


def _iqn(errors: Errors, value: str, path: str, text: str) -> None:
    pattern = _IQN.get(value[:3])
    if pattern is None:
        errors.append(invalid(path, value, text))
    elif not pattern.search(value):
        errors.append(invalid(path, value, "must be valid format"))


def iscsi_common(errors: Errors, source: Json, path: str, text: str) -> None:
    """`text` is what an unknown kind of name is told."""
    if source.get("iqn"):
        _iqn(errors, source["iqn"], f"{path}.iqn", text)
    else:
        errors.append(required(f"{path}.iqn"))
    lun = source.get("lun") or 0
    if not 0 <= lun <= 255:
        errors.append(invalid(f"{path}.lun", lun, LUN_RANGE))
    chap = source.get("chapAuthDiscovery") or source.get("chapAuthSession")
    if chap and source.get("secretRef") is None:
        errors.append(required(f"{path}.secretRef"))
    if (initiator := source.get("initiatorName")) is not None:
        _iqn(errors, initiator, f"{path}.initiatorname", text)


def _iscsi(errors: Errors, source: Json, path: str, context: VolumeContext) -> None:
    need(errors, source, ("targetPortal",), path)
    iscsi_common(errors, source, path, "must be valid format starting with iqn, eui, or naa")
    joined = f"{context.name}:{source.get('targetPortal') or ''}"
    if source.get("initiatorName") is not None and len(joined) > 64:
        parent = path.rpartition(".")[0]
        errors.append(invalid(f"{parent}.name", context.name, _TARGET_TOO_LONG))


def pv_iscsi(errors: Errors, source: Json, path: str, context: VolumeContext) -> None:
    need(errors, source, ("targetPortal",), path)
    portal = source.get("targetPortal") or ""
    if source.get("initiatorName") is not None and len(f"{context.name}:{portal}") > 64:
        errors.append(invalid(f"{path}.targetportal", portal, _TARGET_TOO_LONG))
    iscsi_common(errors, source, path, "must be valid format")
    reference = source.get("secretRef")
    if reference is not None:
        need(errors, reference, ("name",), f"{path}.secretRef")


def flocker(errors: Errors, source: Json, path: str, context: VolumeContext) -> None:
    name, uuid = source.get("datasetName") or "", source.get("datasetUUID") or ""
    if not name and not uuid:
        errors.append(required(path, "one of datasetName and datasetUUID is required"))
    if name and uuid:
        text = "datasetName and datasetUUID can not be specified simultaneously"
        errors.append(invalid(path, "resource", text))
    if "/" in name:
        errors.append(invalid(f"{path}.datasetName", name, "must not contain '/'"))


def with_secret(*fields: str, secret: tuple[str, ...] = ("name",)) -> SourceCheck:
    """A source that needs some fields and, when it names a secret, those of the reference."""

    def check(errors: Errors, source: Json, path: str, context: VolumeContext) -> None:
        need(errors, source, fields, path)
        if (reference := source.get("secretRef")) is not None:
            need(errors, reference, secret, f"{path}.secretRef")

    return check


def quobyte(errors: Errors, source: Json, path: str, context: VolumeContext) -> None:
    registry = source.get("registry") or ""
    text = "must be a host:port pair or multiple pairs separated by commas"
    if not registry:
        errors.append(required(f"{path}.registry", text))
    elif len(source.get("tenant") or "") >= 65:
        why = "must be a UUID and may not exceed a length of 64 characters"
        errors.append(required(f"{path}.tenant", why))
    else:
        for pair in registry.split(","):
            if pair.count(":") != 1:
                errors.append(invalid(f"{path}.registry", registry, text))
    need(errors, source, ("volume",), path)


VOLUME_FIELD_PATHS = (
    "metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid",
)  # fmt: skip
ENV_FIELD_PATHS = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
    "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
)  # fmt: skip
_KNOWN_FIELD_LABELS = frozenset((*VOLUME_FIELD_PATHS, *ENV_FIELD_PATHS, "spec.restartPolicy", "status.phase"))
_RESOURCE_FIELDS = (
    "limits.cpu", "limits.ephemeral-storage", "limits.memory",
    "requests.cpu", "requests.ephemeral-storage", "requests.memory",
)  # fmt: skip
_HUGE_PREFIXES = ("limits.hugepages-", "requests.hugepages-")
_BYTE_DIVISORS = (
    "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
)  # fmt: skip
_DIVISORS: tuple[tuple[tuple[str, ...], tuple[str, ...], str], ...] = (
    (("limits.cpu", "requests.cpu"), ("1m", "1"), "cpu"),
    (("limits.memory", "requests.memory"), _BYTE_DIVISORS, "memory"),
    (
        ("limits.ephemeral-storage", "requests.ephemeral-storage"),
        _BYTE_DIVISORS,
        "local ephemeral storage",
    ),
    (_HUGE_PREFIXES, _BYTE_DIVISORS, "hugepages"),
)


def _subscript(field_path: str) -> tuple[str, str] | None:
    """`metadata.labels['a']` -> (`metadata.labels`, `a`)."""
    if not field_path.endswith("']"):
        return None
    path, found, key = field_path[:-2].partition("['")
    return (path, key) if found and path else None


def object_field_selector(errors: Errors, reference: Json, allowed: tuple[str, ...], path: str) -> None:
    """A fieldRef of the downward API."""
    version, field = reference.get("apiVersion") or "", reference.get("fieldPath") or ""
    if not version or not field:
        errors.append(required(f"{path}.{'fieldPath' if version else 'apiVersion'}"))
        return
    split = _subscript(field)
    if version != "v1" or not (field in _KNOWN_FIELD_LABELS or split):
        why = f"field label not supported: {field}"
        if version != "v1":
            why = f"unsupported pod version: {version}"
        errors.append(invalid(f"{path}.fieldPath", field, f"error converting fieldPath: {why}"))
    elif split:
        _subscripted(errors, *split, path)
    elif field not in allowed:
        errors.append(unsupported(f"{path}.fieldPath", field, allowed))


def _subscripted(errors: Errors, field: str, key: str, path: str) -> None:
    if field == "metadata.annotations":
        checks.qualified_name(errors, key.lower(), path)
    elif field == "metadata.labels":
        checks.qualified_name(errors, key, path)
    else:
        errors.append(invalid(path, field, "does not support subscript"))


def resource_field_selector(errors: Errors, reference: Json, path: str, *, in_volume: bool) -> None:
    """A resourceFieldRef of the downward API."""
    resource = reference.get("resource") or ""
    if in_volume and not reference.get("containerName"):
        errors.append(required(f"{path}.containerName"))
    elif not resource:
        errors.append(required(f"{path}.resource"))
    elif resource not in _RESOURCE_FIELDS and not resource.startswith(_HUGE_PREFIXES):
        errors.append(unsupported(f"{path}.resource", resource, _RESOURCE_FIELDS))
    divisor = reference.get("divisor") or "0"
    if divisor == "0":
        return
    for prefixes, allowed, what in _DIVISORS:
        if resource.startswith(prefixes) and divisor not in allowed:
            joined = " and ".join(allowed) if what == "cpu" else ", ".join(allowed)
            text = f"only divisor's values {joined} are supported with the {what} resource"
            errors.append(invalid(f"{path}.divisor", resource, text))


def _downward_file(errors: Errors, item: Json, path: str) -> None:
    need(errors, item, ("path",), path)
    local_non_reserved_path(errors, item.get("path") or "", f"{path}.path")
    field, resource = item.get("fieldRef"), item.get("resourceFieldRef")
    if field is not None:
        object_field_selector(errors, field, VOLUME_FIELD_PATHS, f"{path}.fieldRef")
        if resource is not None:
            text = "fieldRef and resourceFieldRef can not be specified simultaneously"
            errors.append(invalid(path, "resource", text))
    elif resource is not None:
        resource_field_selector(errors, resource, f"{path}.resourceFieldRef", in_volume=True)
    else:
        errors.append(required(path, "one of fieldRef and resourceFieldRef is required"))
    _mode(errors, item, "mode", path)


def _downward_api(errors: Errors, source: Json, path: str, context: VolumeContext) -> None:
    _mode(errors, source, "defaultMode", path)
    for item in source.get("items") or ():
        _downward_file(errors, item, path)


def _projected(errors: Errors, source: Json, path: str, context: VolumeContext) -> None:
    _mode(errors, source, "defaultMode", path)
    paths: set[str] = set()
    for i, part in enumerate(source.get("sources") or ()):
        here = f"{path}.sources[{i}]"
        count = 0
        for field, check in _PROJECTIONS:
            if (projection := part.get(field)) is not None:
                count += 1
                check(errors, projection, f"{here}.{field}", path, paths)
        if count > 1:
            errors.append(forbidden(here, "may not specify more than 1 volume type per source"))


def _unique(errors: Errors, target: str, value: str, path: str, paths: set[str]) -> None:
    if target in paths:
        errors.append(invalid(path, value, "conflicting duplicate paths"))
    paths.add(target)


def _projected_keys(errors: Errors, part: Json, here: str, volume: str, paths: set[str]) -> None:
    need(errors, part, ("name",), here)
    for i, item in enumerate(part.get("items") or ()):
        _key_to_path(errors, item, f"{here}.items[{i}]")
        if item.get("path"):
            _unique(errors, item["path"], part.get("name") or "", volume, paths)


def _projected_downward(errors: Errors, part: Json, here: str, volume: str, paths: set[str]) -> None:
    for item in part.get("items") or ():
        _downward_file(errors, item, here)
        if item.get("path"):
            _unique(errors, item["path"], item["path"], volume, paths)


def _projected_token(errors: Errors, part: Json, here: str, volume: str, paths: set[str]) -> None:
    seconds = part.get("expirationSeconds") or 0
    if seconds < 600:
        text = "may not specify a duration less than 10 minutes"
        errors.append(invalid(f"{here}.expirationSeconds", seconds, text))
    if seconds > 1 << 32:
        text = "may not specify a duration larger than 2^32 seconds"
        errors.append(invalid(f"{here}.expirationSeconds", seconds, text))
    target = part.get("path") or ""
    if not target:
        errors.append(required(f"{volume}.path"))
    else:
        local_non_reserved_path(errors, target, f"{volume}.path")


def _projected_bundle(errors: Errors, part: Json, here: str, volume: str, paths: set[str]) -> None:
    name, signer = part.get("name"), part.get("signerName")
    if name is not None and signer is not None:
        errors.append(invalid(here, part, "only one of name and signerName may be used"))
    elif name is not None:
        if not name:
            errors.append(required(f"{here}.name", "must be a valid object name"))
        for text in names.is_dns1123_subdomain(name.rpartition(":")[2]):
            errors.append(invalid(f"{here}.name", name, f"not a valid clustertrustbundlename: {text}"))
        if part.get("labelSelector") is not None:
            text = "labelSelector must be unset if name is specified"
            errors.append(invalid(f"{here}.labelSelector", part["labelSelector"], text))
    elif signer is not None:
        if not signer:
            errors.append(required(f"{here}.signerName", "must be a valid signer name"))
        checks.label_selector(errors, part.get("labelSelector"), f"{here}.labelSelector")
    else:
        errors.append(required(here, "either name or signerName must be specified"))
    need(errors, part, ("path",), here)
    target = part.get("path") or ""
    local_non_reserved_path(errors, target, f"{here}.path")
    _unique(errors, target, target, volume, paths)


_KEY_TYPES = ("ED25519", "ECDSAP256", "ECDSAP384", "ECDSAP521", "RSA3072", "RSA4096")
_CERTIFICATE_PATHS = ("credentialBundlePath", "keyPath", "certificateChainPath")


def _projected_certificate(errors: Errors, part: Json, here: str, volume: str, paths: set[str]) -> None:
    need(errors, part, ("signerName",), here)
    if part.get("keyType") not in _KEY_TYPES:
        errors.append(unsupported(f"{here}.keyType", part.get("keyType") or "", _KEY_TYPES))
    seconds = part.get("maxExpirationSeconds")
    if seconds is not None and seconds < 3600:
        text = "if provided, maxExpirationSeconds must be >= 3600"
        errors.append(invalid(f"{here}.maxExpirationSeconds", seconds, text))
    used = [field for field in _CERTIFICATE_PATHS if part.get(field)]
    if not used:
        errors.append(
            required(here, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath")
        )
    for field in used:
        local_non_reserved_path(errors, part[field], f"{here}.{field}")
        _unique(errors, part[field], part[field], volume, paths)


_PROJECTIONS: tuple[tuple[str, Callable[[Errors, Json, str, str, set[str]], None]], ...] = (
    ("secret", _projected_keys),
    ("configMap", _projected_keys),
    ("downwardAPI", _projected_downward),
    ("serviceAccountToken", _projected_token),
    ("clusterTrustBundle", _projected_bundle),
    ("podCertificate", _projected_certificate),
)


def fibre_channel(errors: Errors, source: Json, path: str, context: VolumeContext) -> None:
    targets, wwids = source.get("targetWWNs") or [], source.get("wwids") or []
    here = f"{path}.targetWWNs"
    if not targets and not wwids:
        errors.append(required(here, "must specify either targetWWNs or wwids, but not both"))
    if targets and wwids:
        text = "targetWWNs and wwids can not be specified simultaneously"
        errors.append(invalid(here, targets, text))
    lun = source.get("lun")
    if targets and lun is None:
        errors.append(required(f"{path}.lun", "lun is required if targetWWNs is specified"))
    elif targets and not 0 <= (lun or 0) <= 255:
        errors.append(invalid(f"{path}.lun", lun, LUN_RANGE))


def flex(errors: Errors, source: Json, path: str, context: VolumeContext) -> None:
    need(errors, source, ("driver",), path)
    for key in source.get("options") or {}:
        namespace = "." + key.partition("/")[0].lower()
        if namespace.endswith((".kubernetes.io", ".k8s.io")):
            text = "kubernetes.io and k8s.io namespaces are reserved"
            errors.append(invalid(f"{path}.options[{key}]", key, text))


_DISK_KINDS = ("Dedicated", "Managed", "Shared")
_CACHING = ("None", "ReadOnly", "ReadWrite")
_MANAGED_URI = (
    "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
)
_BLOB_URI = ("https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd",)


def azure_disk(errors: Errors, source: Json, path: str, context: VolumeContext) -> None:
    need(errors, source, ("diskName", "diskURI"), path)
    uri, kind, caching = source.get("diskURI") or "", source.get("kind"), source.get("cachingMode")
    if caching is not None and caching not in _CACHING:
        errors.append(unsupported(f"{path}.cachingMode", caching, _CACHING))
    if kind is not None and kind not in _DISK_KINDS:
        errors.append(unsupported(f"{path}.kind", kind, _DISK_KINDS))
    if kind == "Managed" and not uri.startswith("/subscriptions/"):
        errors.append(unsupported(f"{path}.diskURI", uri, _MANAGED_URI))
    if kind not in (None, "Managed") and not uri.startswith("https://"):
        errors.append(unsupported(f"{path}.diskURI", uri, _BLOB_URI))


def storage_os(secret: tuple[str, ...]) -> SourceCheck:
    def check(errors: Errors, source: Json, path: str, context: VolumeContext) -> None:
        name = source.get("volumeName") or ""
        if not name:
            errors.append(required(f"{path}.volumeName"))
        else:
            checks.dns_label(errors, name, f"{path}.volumeName")
        if source.get("volumeNamespace"):
            checks.dns_label(errors, source["volumeNamespace"], f"{path}.volumeNamespace")
        if (reference := source.get("secretRef")) is not None:
            need(errors, reference, secret, f"{path}.secretRef")

    return check


def csi_driver_name(errors: Errors, name: str, path: str) -> None:
    if not name:
        errors.append(required(path))
    if len(name) > 63:
        errors.append(FieldError("Too long", path, "", "may not be more than 63 bytes"))
    checks.texts(errors, checks.dns_subdomain_texts(name.lower()), name, path)


def _csi(errors: Errors, source: Json, path: str, context: VolumeContext) -> None:
    csi_driver_name(errors, source.get("driver") or "", f"{path}.driver")
    if (reference := source.get("nodePublishSecretRef")) is not None:
        name = reference.get("name") or ""
        if not name:
            errors.append(required(f"{path}.nodePublishSecretRef.name"))
        else:
            checks.dns_subdomain(errors, name, f"{path}.name")


def _ephemeral(errors: Errors, source: Json, path: str, context: VolumeContext) -> None:
    template = source.get("volumeClaimTemplate")
    if template is None:
        errors.append(required(f"{path}.volumeClaimTemplate"))
    else:
        claim_template(errors, template, f"{path}.volumeClaimTemplate")
    if context.pod_name and context.name:
        claim = f"{context.pod_name}-{context.name}"
        parent = path.rpartition(".")[0]
        for text in checks.dns_subdomain_texts(claim):
            errors.append(invalid(f"{parent}.name", context.name, f'PVC name "{claim}": {text}'))


def _image(errors: Errors, source: Json, path: str, context: VolumeContext) -> None:
    if context.is_pod:
        need(errors, source, ("reference",), path)
    checks.one_of(errors, source.get("pullPolicy"), _PULL_POLICIES, f"{path}.pullPolicy")


SourceTable = tuple[tuple[str, str, SourceCheck], ...]
"""Field, the name of the field in the paths of the source's own errors, and the rule."""

_POD_SOURCES: SourceTable = (
    ("emptyDir", "emptyDir", _empty_dir),
    ("hostPath", "hostPath", host_path),
    ("gitRepo", "gitRepo", _git_repo),
    ("gcePersistentDisk", "persistentDisk", partitioned("pdName")),
    ("awsElasticBlockStore", "awsElasticBlockStore", partitioned("volumeID")),
    ("secret", "secret", _secret),
    ("nfs", "nfs", nfs),
    ("iscsi", "iscsi", _iscsi),
    ("glusterfs", "glusterfs", needs("endpoints", "path")),
    ("flocker", "flocker", flocker),
    ("persistentVolumeClaim", "persistentVolumeClaim", needs("claimName")),
    ("rbd", "rbd", needs("monitors", "image")),
    ("cinder", "cinder", with_secret("volumeID")),
    ("cephfs", "cephfs", needs("monitors")),
    ("quobyte", "quobyte", quobyte),
    ("downwardAPI", "downwardAPI", _downward_api),
    ("fc", "fc", fibre_channel),
    ("flexVolume", "flexVolume", flex),
    ("configMap", "configMap", _config_map),
    ("azureFile", "azureFile", needs("secretName", "shareName")),
    ("vsphereVolume", "vsphereVolume", needs("volumePath")),
    ("photonPersistentDisk", "photonPersistentDisk", needs("pdID")),
    ("portworxVolume", "portworxVolume", needs("volumeID")),
    ("azureDisk", "azureDisk", azure_disk),
    ("storageos", "storageos", storage_os(("name",))),
    ("projected", "projected", _projected),
    ("scaleIO", "scaleIO", needs("gateway", "system", "volumeName")),
    ("csi", "csi", _csi),
    ("ephemeral", "ephemeral", _ephemeral),
    ("image", "image", _image),
)
_POD_SOURCE_CHECKS: Mapping[str, tuple[str, SourceCheck]] = {f: (p, c) for f, p, c in _POD_SOURCES}


def check_sources(
    errors: Errors, holder: Json, table: SourceTable, path: str, context: VolumeContext
) -> None:
    """Exactly one source; each checked by its rule."""
    found = 0
    for field, path_name, check in table:
        source = holder.get(field)
        if source is None:
            continue
        found += 1
        if found > 1:
            errors.append(forbidden(f"{path}.{field}", ONE_TYPE))
        else:
            check(errors, source, f"{path}.{path_name}", context)
    if not found:
        errors.append(required(path, "must specify a volume type"))


def _one_source(errors: Errors, volume: Json, path: str, context: VolumeContext) -> None:
    """The common case, one source beside the name, without walking the table."""
    if len(volume) == 2:
        for field, source in volume.items():
            found = _POD_SOURCE_CHECKS.get(field)
            if found is not None and source is not None:
                found[1](errors, source, f"{path}.{found[0]}", context)
                return
    check_sources(errors, volume, _POD_SOURCES, path, context)


def check_volumes(
    errors: Errors, volumes: list[Json], path: str, pod_name: str, is_pod: bool
) -> dict[str, Json]:
    """Check the volumes of a pod; gives the valid ones by name."""
    valid: dict[str, Json] = {}
    created = {
        f"{pod_name}-{volume.get('name') or ''}"
        for volume in volumes
        if pod_name and volume.get("ephemeral") is not None
    }
    for i, volume in enumerate(volumes):
        here = f"{path}[{i}]"
        name = volume.get("name") or ""
        before = len(errors)
        _one_source(errors, volume, here, VolumeContext(name, pod_name, is_pod))
        if not name:
            errors.append(required(f"{here}.name"))
        else:
            checks.dns_label(errors, name, f"{here}.name")
        if name in valid:
            errors.append(duplicate(f"{here}.name", name))
        if len(errors) == before:
            valid[name] = volume
        claim: Any = volume.get("persistentVolumeClaim")
        if created and claim and claim.get("claimName") in created:
            text = "must not reference a PVC that gets created for an ephemeral volume"
            where = f"{here}.persistentVolumeClaim.claimName"
            errors.append(invalid(where, claim["claimName"], text))
    return valid
