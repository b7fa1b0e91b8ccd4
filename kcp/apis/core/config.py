"""ConfigMap and Secret: keys, sizes, immutability, types of secrets.

Source: k8s v1.36 pkg/apis/core/validation/validation.go, pkg/registry/core/{configmap,secret}/strategy.go.
"""

from __future__ import annotations

import base64
import binascii
import json
from datetime import datetime
from typing import Any

from kcp.apis.core import checks
from kcp.apis.core.checks import Errors, Json
from kcp.apis.core.strategies import metadata_of, text_at
from kcp.apis.kind import Column, Printer, Strategy
from kcp.apis.printing import AGE, NAME, age, name_of
from kcp.machinery.errors import FieldError, forbidden, invalid, required, too_long

MAX_BYTES = 1024 * 1024
_IMMUTABLE_SET = "field is immutable when `immutable` is set"
_REDACTED = "<secret contents redacted>"


def _decoded_size(text: str) -> int:
    """Bytes that base64 text stands for."""
    return max(0, len(text) * 3 // 4 - text[-2:].count("="))


def _immutable(errors: Errors, new: Json, old: Json, fields: tuple[str, ...]) -> None:
    if not old.get("immutable"):
        return
    if not new.get("immutable"):
        errors.append(forbidden("immutable", _IMMUTABLE_SET))
    for field in fields:
        if (new.get(field) or {}) != (old.get(field) or {}):
            errors.append(forbidden(field, _IMMUTABLE_SET))


# -- ConfigMap --------------------------------------------------------------------------------------


def _validate_config_map(config_map: Json) -> list[FieldError]:
    errors: Errors = []
    data, binary = config_map.get("data") or {}, config_map.get("binaryData") or {}
    total = 0
    for key, value in data.items():
        checks.config_key(errors, key, f"data[{key}]")
        if key in binary:
            errors.append(invalid(f"data[{key}]", key, "duplicate of key present in binaryData"))
        total += len((value or "").encode())
    for key, value in binary.items():
        checks.config_key(errors, key, f"binaryData[{key}]")
        total += _decoded_size(value or "")
    if total > MAX_BYTES:
        # The path names the whole object; Kubernetes prints an empty one as []
        errors.append(too_long("[]", MAX_BYTES))
    return errors


def _validate_config_map_update(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    _immutable(errors, new, old, ("data", "binaryData"))
    return errors + _validate_config_map(new)


def _config_map_cells(config_map: Json, now: datetime) -> list[Any]:
    count = len(config_map.get("data") or ()) + len(config_map.get("binaryData") or ())
    return [name_of(config_map), count, age(config_map, now)]


# -- Secret -----------------------------------------------------------------------------------------


def _default_secret(secret: Json) -> None:
    if not secret.get("type"):
        secret["type"] = "Opaque"
    plain = secret.pop("stringData", None)
    if plain:
        data = secret.get("data")
        if data is None:
            data = secret["data"] = {}
        for key, value in plain.items():
            data[key] = base64.b64encode((value or "").encode()).decode()


def _json_fault(text: str) -> str:
    """Why base64 text is no JSON object, or nothing."""
    try:
        value = json.loads(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error) as error:
        if not text:
            return "unexpected end of JSON input"
        return _go_json_fault(text, error)
    if isinstance(value, dict) or value is None:
        return ""
    found = {bool: "bool", str: "string", list: "array"}.get(type(value), "number")
    return f"json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"


def _go_json_fault(text: str, error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError) and error.pos < len(error.doc):
        character = error.doc[error.pos]
        where = "beginning of value" if error.msg.startswith("Expecting value") else "object key"
        if error.msg.startswith("Extra data"):
            return f"invalid character '{character}' after top-level value"
        if where == "object key":
            return f"invalid character '{character}' looking for beginning of object key string"
        return f"invalid character '{character}' looking for beginning of value"
    return "unexpected end of JSON input"


def _docker(key: str) -> Any:
    def check(errors: Errors, data: Json, secret: Json) -> None:
        if key not in data:
            errors.append(required(f"data[{key}]"))
        elif fault := _json_fault(data[key] or ""):
            errors.append(invalid(f"data[{key}]", _REDACTED, fault))

    return check


def _token(errors: Errors, data: Json, secret: Json) -> None:
    key = "kubernetes.io/service-account.name"
    if not (metadata_of(secret).get("annotations") or {}).get(key):
        errors.append(required(f"metadata.annotations[{key}]"))


def _basic_auth(errors: Errors, data: Json, secret: Json) -> None:
    if "username" not in data and "password" not in data:
        errors += [required("data[username]"), required("data[password]")]


def _ssh_auth(errors: Errors, data: Json, secret: Json) -> None:
    if not data.get("ssh-privatekey"):
        errors.append(required("data[ssh-privatekey]"))


def _tls(errors: Errors, data: Json, secret: Json) -> None:
    errors += [required(f"data[{key}]") for key in ("tls.crt", "tls.key") if key not in data]


_SECRET_TYPES = {
    "kubernetes.io/service-account-token": _token,
    "kubernetes.io/dockercfg": _docker(".dockercfg"),
    "kubernetes.io/dockerconfigjson": _docker(".dockerconfigjson"),
    "kubernetes.io/basic-auth": _basic_auth,
    "kubernetes.io/ssh-auth": _ssh_auth,
    "kubernetes.io/tls": _tls,
}


def _validate_secret(secret: Json) -> list[FieldError]:
    errors: Errors = []
    data = secret.get("data") or {}
    for key in data:
        checks.config_key(errors, key, f"data[{key}]")
    if sum(_decoded_size(value or "") for value in data.values()) > MAX_BYTES:
        errors.append(too_long("data", MAX_BYTES))
    if check := _SECRET_TYPES.get(secret.get("type") or ""):
        check(errors, data, secret)
    return errors


def _prepare_secret_update(new: Json, old: Json) -> None:
    """An update that leaves out the type keeps it, as Kubernetes does for very old clients."""
    if not new.get("type") and old.get("type"):
        new["type"] = old["type"]


def _validate_secret_update(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    checks.same(errors, new.get("type") or "", old.get("type") or "", "type")
    _immutable(errors, new, old, ("data",))
    return errors + _validate_secret(new)


def _secret_cells(secret: Json, now: datetime) -> list[Any]:
    return [name_of(secret), secret.get("type") or "", len(secret.get("data") or ()), age(secret, now)]


STRATEGIES: dict[str, Strategy] = {
    "ConfigMap": Strategy(
        validate_create=_validate_config_map,
        validate_update=_validate_config_map_update,
        has_status=False,
        has_generation=False,
    ),
    "Secret": Strategy(
        default=_default_secret,
        prepare_update=_prepare_secret_update,
        validate_create=_validate_secret,
        validate_update=_validate_secret_update,
        selectable={"type": text_at("type")},
        has_status=False,
        has_generation=False,
    ),
}
PRINTERS: dict[str, Printer] = {
    "ConfigMap": Printer((NAME, Column("Data"), AGE), _config_map_cells),
    "Secret": Printer((NAME, Column("Type"), Column("Data"), AGE), _secret_cells),
}
