"""apiextensions.k8s.io: CustomResourceDefinition: its names, versions and conversion.

Whether the schemas inside are structural is the business of whoever serves the custom resource.
Source: k8s v1.36 apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go, v1/defaults.go,
pkg/registry/customresourcedefinition/strategy.go.
"""

from __future__ import annotations

from collections.abc import Mapping

from kcp.apis.core import checks
from kcp.apis.core.checks import Errors
from kcp.apis.kind import Json, Printer, Strategy
from kcp.apis.preparing import STATUS_AND_METADATA_RESETS, keep_metadata
from kcp.apis.webhook_clients import (
    check_client,
    check_review_versions,
    default_client,
    has_known_version,
)
from kcp.apis.zero_values import write_definition_status
from kcp.machinery import names
from kcp.machinery.errors import FieldError, duplicate, forbidden, invalid, required, too_many

MAX_SELECTABLE_FIELDS = 8
MAX_WARNING_LENGTH = 256
APPROVAL_ANNOTATION = "api-approved.kubernetes.io"

_SCOPES = ("Cluster", "Namespaced")
_CONVERSIONS = ("None", "Webhook")
_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_NOT_A_WEBHOOK = "should not be set when strategy is not set to Webhook"


def _default_definition(definition: Json) -> None:
    spec = definition.setdefault("spec", {})
    own = spec.setdefault("names", {})
    kind = own.get("kind") or ""
    if not own.get("singular"):
        own["singular"] = kind.lower()
    if not own.get("listKind") and kind:
        own["listKind"] = f"{kind}List"
    conversion = spec.setdefault("conversion", {})
    if not conversion.get("strategy"):
        conversion["strategy"] = "None"
    default_client((conversion.get("webhook") or {}).get("clientConfig"))


def storage_version(definition: Json) -> str:
    """The name of the version in which objects are stored; empty when none is marked."""
    versions = (definition.get("spec") or {}).get("versions") or ()
    return next((version.get("name", "") for version in versions if version.get("storage")), "")


def is_established(definition: Json) -> bool:
    conditions = (definition.get("status") or {}).get("conditions") or ()
    return any(entry.get("type") == "Established" and entry.get("status") == "True" for entry in conditions)


def remember_storage_version(definition: Json) -> None:
    """Add the storage version to status.storedVersions."""
    status, current = definition.get("status") or {}, storage_version(definition)
    stored = status.get("storedVersions") or []
    if current and current not in stored:
        definition["status"] = {**status, "storedVersions": [*stored, current]}


def _prepare_create(definition: Json) -> None:
    remember_storage_version(definition)
    write_definition_status(definition)


def _prepare_update(new: Json, old: Json) -> None:
    remember_storage_version(new)


def _check_group(errors: Errors, group: str) -> None:
    if not group:
        errors.append(required("spec.group"))
    elif faults := names.is_dns1123_subdomain(group):
        errors.append(invalid("spec.group", group, ",".join(faults)))
    elif "." not in group:
        errors.append(invalid("spec.group", group, "should be a domain with at least one dot"))


def _check_label(errors: Errors, value: str, path: str) -> None:
    if faults := names.is_dns1035_label(value):
        errors.append(invalid(path, value, ",".join(faults)))


def _check_mixed_case(errors: Errors, value: str, path: str) -> None:
    if faults := names.is_dns1035_label(value.lower()):
        text = f"may have mixed case, but should otherwise match: {','.join(faults)}"
        errors.append(invalid(path, value, text))


def _check_names(errors: Errors, own: Json, path: str) -> None:
    """For spec.names and status.acceptedNames: what is there has to be well-formed."""
    for field in ("plural", "singular"):
        if own.get(field):
            _check_label(errors, own[field], f"{path}.{field}")
    for field in ("kind", "listKind"):
        if own.get(field):
            _check_mixed_case(errors, own[field], f"{path}.{field}")
    for index, name in enumerate(own.get("shortNames") or ()):
        _check_label(errors, name, f"{path}.shortNames[{index}]")
    if own.get("kind") and own.get("kind") == own.get("listKind"):
        errors.append(invalid(f"{path}.listKind", own["listKind"], "kind and listKind may not be the same"))
    for index, category in enumerate(own.get("categories") or ()):
        _check_label(errors, category, f"{path}.categories[{index}]")


def _check_warning(errors: Errors, version: Json, path: str) -> None:
    warning = version.get("deprecationWarning")
    if warning is None:
        return
    if not version.get("deprecated"):
        errors.append(invalid(path, warning, "can only be set for deprecated versions"))
        return
    if len(warning.encode()) > MAX_WARNING_LENGTH:
        errors.append(invalid(path, warning, f"must be <= {MAX_WARNING_LENGTH} characters long"))
    if not warning:
        errors.append(invalid(path, warning, "must not be an empty string"))
    unprintable = next((index for index, char in enumerate(warning) if not char.isprintable()), None)
    if unprintable is not None:
        text = f"must only contain printable UTF-8 characters; non-printable character found at index {unprintable}"
        errors.append(invalid(path, warning, text))


def _check_column(errors: Errors, column: Json, path: str) -> None:
    kind, form, types = column.get("type") or "", column.get("format") or "", ",".join(_COLUMN_TYPES)
    if not column.get("name"):
        errors.append(required(f"{path}.name"))
    if not kind:
        errors.append(required(f"{path}.type", f"must be one of {types}"))
    elif kind not in _COLUMN_TYPES:
        errors.append(invalid(f"{path}.type", kind, f"must be one of {types}"))
    if form and form not in _COLUMN_FORMATS:
        errors.append(invalid(f"{path}.format", form, f"must be one of {','.join(_COLUMN_FORMATS)}"))
    _check_json_path(errors, column.get("jsonPath") or "", f"{path}.JSONPath")


def _check_json_path(errors: Errors, json_path: str, path: str) -> None:
    if not json_path:
        errors.append(required(path))
    elif not json_path.startswith("."):
        errors.append(invalid(path, json_path, "must be a simple json path starting with ."))


def _check_scale(errors: Errors, scale: Json, path: str) -> None:
    for field, root, needed in (
        ("specReplicasPath", ".spec.", True),
        ("statusReplicasPath", ".status.", True),
        ("labelSelectorPath", (".spec.", ".status."), False),
    ):
        value = scale.get(field) or ""
        if not value:
            if needed:
                errors.append(required(f"{path}.{field}"))
        elif not value.startswith("."):
            _check_json_path(errors, value, f"{path}.{field}")
        elif not value.startswith(root):
            where = "either .spec or .status" if field == "labelSelectorPath" else str(root).rstrip(".")
            errors.append(invalid(f"{path}.{field}", value, f"should be a json path under {where}"))


def _check_selectable(errors: Errors, fields: list[Json], path: str) -> None:
    seen: set[str] = set()
    for index, field in enumerate(fields):
        where, json_path = f"{path}[{index}].jsonPath", field.get("jsonPath") or ""
        if not json_path:
            errors.append(required(where))
            continue
        if json_path.startswith(".metadata"):
            errors.append(invalid(where, json_path, "must not point to fields in metadata"))
        if json_path in seen:
            errors.append(duplicate(where, json_path))
        seen.add(json_path)
    if len(seen) > MAX_SELECTABLE_FIELDS:
        errors.append(too_many(path, len(seen), MAX_SELECTABLE_FIELDS))


def _shared(versions: list[Json], field: str) -> bool:
    """Whether all versions agree on a field. Then Kubernetes reports faults of it once, at the top of spec."""
    first = versions[0].get(field) if versions else None
    return first is not None and all(version.get(field) == first for version in versions)


def _check_version(errors: Errors, version: Json, path: str) -> None:
    _check_label(errors, version.get("name") or "", f"{path}.name")
    _check_warning(errors, version, f"{path}.deprecationWarning")


def _check_version_parts(errors: Errors, version: Json, path: str, fields: tuple[str, ...]) -> None:
    scale = (version.get("subresources") or {}).get("scale")
    if "subresources" in fields and scale is not None:
        _check_scale(errors, scale, f"{path}.subresources.scale")
    if "additionalPrinterColumns" in fields:
        for index, column in enumerate(version.get("additionalPrinterColumns") or ()):
            _check_column(errors, column, f"{path}.additionalPrinterColumns[{index}]")
    if "selectableFields" in fields:
        _check_selectable(errors, version.get("selectableFields") or [], f"{path}.selectableFields")


_PARTS = ("subresources", "additionalPrinterColumns", "selectableFields")


def _check_versions(errors: Errors, versions: list[Json]) -> None:
    common = tuple(field for field in _PARTS if _shared(versions, field))
    own = tuple(field for field in _PARTS if field not in common)
    for index, version in enumerate(versions):
        path = f"spec.versions[{index}]"
        if ((version.get("schema") or {}).get("openAPIV3Schema")) is None:
            errors.append(required(f"{path}.schema.openAPIV3Schema", "schemas are required"))
        _check_version(errors, version, path)
        _check_version_parts(errors, version, path, own)
    if common:
        _check_version_parts(errors, versions[0], "spec", common)
    found = [version.get("name") for version in versions]
    if len(dict.fromkeys(found)) != len(found):
        errors.append(invalid("spec.versions", versions, "must contain unique version names"))
    if sum(bool(version.get("storage")) for version in versions) != 1:
        text = "must have exactly one version marked as storage version"
        errors.append(invalid("spec.versions", versions, text))


def _check_conversion(errors: Errors, conversion: Json | None, *, strict: bool) -> None:
    if conversion is None:
        return
    strategy, webhook = conversion.get("strategy"), conversion.get("webhook") or {}
    path, client = "spec.conversion", webhook.get("clientConfig")
    versions = webhook.get("conversionReviewVersions") or []
    checks.one_of(errors, strategy, _CONVERSIONS, f"{path}.strategy")
    if strategy == "Webhook":
        if client is None:
            errors.append(required(f"{path}.webhookClientConfig", "required when strategy is set to Webhook"))
        else:
            check_client(errors, client, f"{path}.webhookClientConfig")
        check_review_versions(errors, versions, f"{path}.conversionReviewVersions", strict=strict, missing="")
        return
    if client is not None:
        errors.append(forbidden(f"{path}.webhookClientConfig", _NOT_A_WEBHOOK))
    if versions:
        errors.append(forbidden(f"{path}.conversionReviewVersions", _NOT_A_WEBHOOK))


def _check_spec(errors: Errors, spec: Json, *, strict_reviews: bool) -> None:
    _check_group(errors, spec.get("group") or "")
    checks.one_of(errors, spec.get("scope"), _SCOPES, "spec.scope")
    if spec.get("preserveUnknownFields"):
        text = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        errors.append(invalid("spec.preserveUnknownFields", True, text))
    _check_versions(errors, spec.get("versions") or [])
    own = spec.get("names") or {}
    for field in ("plural", "singular", "kind", "listKind"):
        if not own.get(field):
            errors.append(required(f"spec.names.{field}"))
    _check_names(errors, own, "spec.names")
    _check_conversion(errors, spec.get("conversion"), strict=strict_reviews)


def _check_stored(errors: Errors, definition: Json) -> None:
    path, stored = "status.storedVersions", (definition.get("status") or {}).get("storedVersions") or []
    if not stored:
        errors.append(invalid(path, stored, "must have at least one stored version"))
        return
    versions = (definition.get("spec") or {}).get("versions") or []
    known = [version.get("name") for version in versions]
    for version in versions:
        if version.get("storage") and version.get("name") not in stored:
            errors.append(invalid(path, stored, f"must have the storage version {version.get('name')}"))
    for index, name in enumerate(stored):
        if name not in known:
            text = (
                f"missing from spec.versions; {name} was previously a storage version, and must remain in"
                f" spec.versions until a storage migration ensures no data remains persisted in {name} and removes"
                f" {name} from status.storedVersions"
            )
            errors.append(invalid(f"{path}[{index}]", name, text))


def _check_approval(errors: Errors, definition: Json) -> None:
    """CRDs in Kubernetes' own groups carry the pull request that approved them. Source: apihelpers."""
    group = (definition.get("spec") or {}).get("group") or ""
    if not (group in ("k8s.io", "kubernetes.io") or group.endswith((".k8s.io", ".kubernetes.io"))):
        return
    path, value = (
        f"metadata.annotations[{APPROVAL_ANNOTATION}]",
        (definition["metadata"].get("annotations") or {}).get(APPROVAL_ANNOTATION),
    )
    url = "https://github.com/kubernetes/enhancements/pull/1111"
    if not value:
        text = f'protected groups must have approval annotation "{APPROVAL_ANNOTATION}", see {url}'
        errors.append(required(path, text))
    elif not value.startswith(("unapproved", "http://", "https://")):
        text = (
            f'protected groups must have approval annotation "{APPROVAL_ANNOTATION}" with either a URL or a reason'
            f' starting with "unapproved", see {url}'
        )
        errors.append(invalid(path, value, text))


def validate_definition(definition: Json) -> list[FieldError]:
    errors: Errors = []
    spec, name = definition.get("spec") or {}, definition["metadata"].get("name", "")
    if name != f"{(spec.get('names') or {}).get('plural', '')}.{spec.get('group', '')}":
        errors.append(invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
    _check_spec(errors, spec, strict_reviews=True)
    _check_stored(errors, definition)
    _check_approval(errors, definition)
    return errors


def validate_definition_update(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    after, before = new.get("spec") or {}, old.get("spec") or {}
    reviews = ((before.get("conversion") or {}).get("webhook") or {}).get("conversionReviewVersions") or []
    _check_spec(errors, after, strict_reviews=not reviews or has_known_version(reviews))
    new_names, old_names = after.get("names") or {}, before.get("names") or {}
    if is_established(old):
        checks.same(errors, after.get("scope"), before.get("scope"), "spec.scope")
        checks.same(errors, new_names.get("kind"), old_names.get("kind"), "spec.names.kind")
    checks.same(errors, after.get("group"), before.get("group"), "spec.group")
    checks.same(errors, new_names.get("plural"), old_names.get("plural"), "spec.names.plural")
    _check_names(errors, (new.get("status") or {}).get("acceptedNames") or {}, "status.acceptedNames")
    _check_stored(errors, new)
    if after.get("group") != before.get("group"):
        _check_approval(errors, new)
    return errors


def validate_definition_status(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    _check_names(errors, (new.get("status") or {}).get("acceptedNames") or {}, "status.acceptedNames")
    return errors


STRATEGIES: Mapping[str, Strategy] = {
    "CustomResourceDefinition": Strategy(
        default=_default_definition,
        prepare_create=_prepare_create,
        prepare_update=_prepare_update,
        prepare_status=keep_metadata,
        validate_create=validate_definition,
        validate_update=validate_definition_update,
        validate_status=validate_definition_status,
        allow_unconditional_update=False,
        reset_fields=STATUS_AND_METADATA_RESETS,
    ),
}
PRINTERS: Mapping[str, Printer] = {}
