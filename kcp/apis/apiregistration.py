"""apiregistration.k8s.io: APIService.

Source: k8s v1.36 kube-aggregator/pkg/apis/apiregistration/validation/validation.go, pkg/registry/apiservice.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kcp.apis.core import checks
from kcp.apis.core.checks import Errors
from kcp.apis.kind import Column, Json, Printer, Strategy
from kcp.apis.preparing import STATUS_RESETS
from kcp.apis.printing import AGE, NAME, age, columns, name_of
from kcp.apis.webhook_clients import default_client
from kcp.machinery import names
from kcp.machinery.errors import FieldError, go_quote, invalid, required, unsupported

_STATUSES = ("True", "False", "Unknown")


def _default_api_service(service: Json) -> None:
    default_client(service.get("spec"))


def _prepare(service: Json) -> None:
    """A local one is available from the start. Source: kube-aggregator/pkg/registry/apiservice/strategy.go."""
    if (service.get("spec") or {}).get("service") is None:
        available = {
            "type": "Available",
            "status": "True",
            "lastTransitionTime": service["metadata"].get("creationTimestamp"),
            "reason": "Local",
            "message": "Local APIServices are always available",
        }
        service["status"] = {"conditions": [available]}


def _check_group(errors: Errors, group: str, version: str) -> None:
    if group:
        checks.texts(errors, names.is_dns1123_subdomain(group), group, "spec.group")
    elif version != "v1":
        text = "only v1 may have an empty group and it better be legacy kube"
        errors.append(required("spec.group", text))


def _check_priorities(errors: Errors, spec: Json) -> None:
    for field, most in (("groupPriorityMinimum", 20_000), ("versionPriority", 1000)):
        value = spec.get(field) or 0
        if not 0 < value <= most:
            errors.append(invalid(f"spec.{field}", value, f"must be positive and less than {most}"))


def _check_local(errors: Errors, spec: Json) -> None:
    bundle = spec.get("caBundle") or ""
    if bundle:
        text = "local APIServices may not have a caBundle"
        errors.append(invalid("spec.caBundle", f"{len(bundle) * 3 // 4 - bundle.count('=')} bytes", text))
    if spec.get("insecureSkipTLSVerify"):
        text = "local APIServices may not have insecureSkipTLSVerify"
        errors.append(invalid("spec.insecureSkipTLSVerify", True, text))


def _check_remote(errors: Errors, spec: Json, service: Json) -> None:
    for field in ("namespace", "name"):
        if not service.get(field):
            errors.append(required(f"spec.service.{field}"))
    port = service.get("port") or 0
    if faults := names.is_port_num(port):
        errors.append(invalid("spec.service.port", port, f"port is not valid: {', '.join(faults)}"))
    if spec.get("insecureSkipTLSVerify") and spec.get("caBundle"):
        errors.append(invalid("spec.insecureSkipTLSVerify", True, "may not be true if caBundle is present"))


def validate_api_service(service: Json) -> list[FieldError]:
    errors: Errors = []
    spec, name = service.get("spec") or {}, service["metadata"].get("name", "")
    group, version = spec.get("group") or "", spec.get("version") or ""
    if name != f"{version}.{group}":
        text = f'must be `spec.version+"."+spec.group`: {go_quote(f"{version}.{group}")}'
        errors.append(invalid("metadata.name", name, text))
    _check_group(errors, group, version)
    checks.texts(errors, names.is_dns1035_label(version), version, "spec.version")
    _check_priorities(errors, spec)
    if spec.get("service") is None:
        _check_local(errors, spec)
    else:
        _check_remote(errors, spec, spec["service"])
    return errors


def validate_api_service_status(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    for index, entry in enumerate((new.get("status") or {}).get("conditions") or ()):
        status = entry.get("status") or ""
        if status not in _STATUSES:
            errors.append(unsupported(f"status.conditions[{index}].status", status, _STATUSES))
    return errors


def _availability(service: Json) -> str:
    for entry in (service.get("status") or {}).get("conditions") or ():
        if entry.get("type") == "Available":
            status = str(entry.get("status", ""))
            reason = entry.get("reason")
            return f"{status} ({reason})" if status != "True" and reason else status
    return "Unknown"


def _api_service_cells(service: Json, now: datetime) -> list[Any]:
    target = (service.get("spec") or {}).get("service")
    host = "Local" if target is None else f"{target.get('namespace', '')}/{target.get('name', '')}"
    return [name_of(service), host, _availability(service), age(service, now)]


STRATEGIES: Mapping[str, Strategy] = {
    "APIService": Strategy(
        default=_default_api_service,
        prepare_create=_prepare,
        validate_create=validate_api_service,
        validate_update=lambda new, old: validate_api_service(new),
        validate_status=validate_api_service_status,
        name_rule="path_segment",
        has_generation=False,
        allow_unconditional_update=False,
        reset_fields=STATUS_RESETS,
    ),
}
PRINTERS: Mapping[str, Printer] = {
    "APIService": Printer(
        columns(
            NAME,
            Column("Service", description="The reference to the service that hosts this API endpoint."),
            Column("Available", description="Whether this service is available."),
            AGE,
        ),
        _api_service_cells,
    ),
}
