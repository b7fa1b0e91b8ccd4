"""How the API server may be told to reach a webhook: by URL or by Service. Shared by admission and conversion.

Source: k8s v1.36 apiserver/pkg/util/webhook/validation.go.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from kcp.apis.core.checks import Errors
from kcp.apis.kind import Json
from kcp.machinery import names
from kcp.machinery.errors import invalid, required

_FORM = "; desired format: https://host[/path]"


def default_client(client: Json | None) -> None:
    service = (client or {}).get("service")
    if service is not None and service.get("port") is None:
        service["port"] = 443


def _check_url(errors: Errors, url: str, path: str) -> None:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        errors.append(required(path, f"url must be a valid URL: {error}{_FORM}"))
        return
    user, _, host = parts.netloc.rpartition("@")
    if parts.scheme != "https":
        errors.append(invalid(path, parts.scheme, f"'https' is the only allowed URL scheme{_FORM}"))
    if not host:
        errors.append(invalid(path, host, f"host must be specified{_FORM}"))
    if user:
        errors.append(invalid(path, user, "user information is not permitted in the URL"))
    if parts.fragment:
        errors.append(invalid(path, parts.fragment, "fragments are not permitted in the URL"))
    if parts.query:
        errors.append(invalid(path, parts.query, "query parameters are not permitted in the URL"))


def _check_path(errors: Errors, url_path: str, path: str) -> None:
    if url_path in ("", "/"):
        return
    if url_path == "//":
        errors.append(invalid(path, url_path, "segment[0] may not be empty"))
        return
    if not url_path.startswith("/"):
        errors.append(invalid(path, url_path, "must start with a '/'"))
    for index, segment in enumerate(url_path[1:].removesuffix("/").split("/")):
        if not segment:
            errors.append(invalid(path, url_path, f"segment[{index}] may not be empty"))
            continue
        for fault in names.is_dns1123_subdomain(segment):
            errors.append(invalid(path, url_path, f"segment[{index}]: {fault}"))


def _check_service(errors: Errors, service: Json, path: str) -> None:
    for field in ("name", "namespace"):
        if not service.get(field):
            errors.append(required(f"{path}.{field}", f"service {field} is required"))
    port = service.get("port") or 0
    if faults := names.is_port_num(port):
        errors.append(invalid(f"{path}.port", port, f"port is not valid: {','.join(faults)}"))
    if service.get("path") is not None:
        _check_path(errors, service["path"], f"{path}.path")


def check_client(errors: Errors, client: Json, path: str) -> None:
    """A WebhookClientConfig."""
    url, service = client.get("url"), client.get("service")
    if (url is None) == (service is None):
        errors.append(required(path, "exactly one of url or service is required"))
    elif url is not None:
        _check_url(errors, url, f"{path}.url")
    else:
        _check_service(errors, service or {}, f"{path}.service")


def check_review_versions(
    errors: Errors, versions: list[str], path: str, *, strict: bool, missing: str
) -> None:
    """The review versions that a webhook understands; `strict`: one of ours has to be among them."""
    if not versions:
        errors.append(required(path, missing))
        return
    for index, version in enumerate(versions):
        if version in versions[:index]:
            errors.append(invalid(f"{path}[{index}]", version, "duplicate version"))
            continue
        errors.extend(
            invalid(f"{path}[{index}]", version, fault) for fault in names.is_dns1035_label(version)
        )
    if strict and not has_known_version(versions):
        errors.append(invalid(path, versions, f"must include at least one of {', '.join(REVIEW_VERSIONS)}"))


REVIEW_VERSIONS = ("v1", "v1beta1")


def has_known_version(versions: list[str]) -> bool:
    return any(version in REVIEW_VERSIONS for version in versions)
