"""Checks that the validators of several kinds share.

A check appends to `errors`; it builds paths and texts only when something is wrong, because almost nothing is.
Values have passed the schema: types are right, and null is the same as absent.
Source: k8s v1.36 pkg/apis/core/validation/validation.go, apimachinery/pkg/api/validation.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from kcp.machinery import names
from kcp.machinery.errors import FieldError, forbidden, invalid, required, unsupported
from kcp.machinery.labels import validate_label_selector
from kcp.machinery.meta import validate_annotations

Json = dict[str, Any]
Errors = list[FieldError]

IMMUTABLE = "field is immutable"
NOT_NEGATIVE = "must be greater than or equal to 0"
NOT_POSITIVE = "must be greater than zero"
PORT_RANGE = "must be between 1 and 65535, inclusive"
MAX_INT32 = 2**31 - 1

_CACHED_NAMES = 65_536

label_value_texts = lru_cache(_CACHED_NAMES)(lambda value: tuple(names.is_label_value(value)))
qualified_name_texts = lru_cache(_CACHED_NAMES)(lambda value: tuple(names.is_qualified_name(value)))
dns_label_texts = lru_cache(_CACHED_NAMES)(lambda value: tuple(names.is_dns1123_label(value)))
dns_subdomain_texts = lru_cache(_CACHED_NAMES)(lambda value: tuple(names.is_dns1123_subdomain(value)))
config_key_texts = lru_cache(_CACHED_NAMES)(lambda value: tuple(names.is_config_map_key(value)))
port_name_texts = lru_cache(4096)(lambda value: tuple(names.is_port_name(value)))


def texts(errors: Errors, found: Iterable[str], value: Any, path: str) -> None:
    """One Invalid per text."""
    for text in found:
        errors.append(invalid(path, value, text))


def dns_label(errors: Errors, value: str, path: str) -> None:
    if found := dns_label_texts(value):
        texts(errors, found, value, path)


def dns_subdomain(errors: Errors, value: str, path: str) -> None:
    if found := dns_subdomain_texts(value):
        texts(errors, found, value, path)


def qualified_name(errors: Errors, value: str, path: str) -> None:
    if found := qualified_name_texts(value):
        texts(errors, found, value, path)


def config_key(errors: Errors, value: str, path: str) -> None:
    if found := config_key_texts(value):
        texts(errors, found, value, path)


def nonnegative(errors: Errors, value: int | None, path: str) -> None:
    if value is not None and value < 0:
        errors.append(invalid(path, value, NOT_NEGATIVE))


def nonnegative_fields(errors: Errors, obj: Json, fields: Iterable[str], path: str) -> None:
    """`nonnegative` for several integers of one object."""
    for field in fields:
        value = obj.get(field)
        if value is not None and value < 0:
            errors.append(invalid(f"{path}.{field}", value, NOT_NEGATIVE))


def one_of(errors: Errors, value: str | None, allowed: Sequence[str], path: str, why: str = "") -> None:
    """A required enumeration; `allowed` in the order Kubernetes lists it."""
    if not value:
        errors.append(required(path, why))
    elif value not in allowed:
        errors.append(unsupported(path, value, allowed))


def port_number(errors: Errors, value: int | None, path: str) -> None:
    if value is None or not 0 < value < 65536:
        errors.append(invalid(path, value or 0, PORT_RANGE))


def port(errors: Errors, value: int | str | None, path: str) -> None:
    """A port as number or as name."""
    if isinstance(value, str):
        texts(errors, port_name_texts(value), value, path)
    else:
        port_number(errors, value, path)


def same(errors: Errors, new: Any, old: Any, path: str) -> None:
    """An immutable field."""
    if new != old and not semantic_equal(new, old):
        errors.append(invalid(path, new, IMMUTABLE))


def label_map(errors: Errors, found: Mapping[str, str] | None, path: str) -> None:
    for key, value in (found or {}).items():
        qualified_name(errors, key, path)
        if wrong := label_value_texts(value):
            texts(errors, wrong, value, path)


def annotation_map(errors: Errors, found: Mapping[str, str] | None, path: str) -> None:
    if found:
        errors.extend(validate_annotations(found, path))


def label_selector(errors: Errors, selector: Json | None, path: str) -> None:
    if selector:
        errors.extend(validate_label_selector(selector, path))


def ip(errors: Errors, value: str, path: str, stored: Collection[str] = ()) -> None:
    """An address without leading zeros; one among the `stored` object's may stay as it is.

    Source: k8s v1.36 IsValidIPForLegacyField, with the gate StrictIPCIDRValidation on.
    """
    if value not in stored:
        texts(errors, names.is_ip(value, strict=True), value, path)


def cidr(errors: Errors, value: str, path: str, stored: Collection[str] = ()) -> None:
    """As `ip`, for a CIDR without bits beyond its prefix."""
    if value not in stored:
        texts(errors, names.is_cidr(value, strict=True), value, path)


def is_ipv6(value: str) -> bool:
    return ":" in value


def is_dual_stack(values: Sequence[str]) -> bool:
    """Whether at least one address (or CIDR) of each family is there."""
    return any(map(is_ipv6, values)) and not all(map(is_ipv6, values))


_LINK_LOCAL_MULTICAST = (ipaddress.ip_network("224.0.0.0/24"), ipaddress.ip_network("ff02::/16"))
_SPECIAL_RANGES: tuple[tuple[str, Callable[[Any], bool]], ...] = (
    ("may not be in the loopback range (127.0.0.0/8, ::1/128)", lambda address: address.is_loopback),
    (
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        lambda address: address.is_link_local,
    ),
    (
        "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        lambda address: any(address in network for network in _LINK_LOCAL_MULTICAST),
    ),
)


def non_special_ip(errors: Errors, value: str, path: str) -> None:
    """An address that endpoints and external IPs may have."""
    address = names.parse_ip(value)
    if address is None:
        errors.append(invalid(path, value, "must be a valid IP address"))
        return
    if address.is_unspecified:
        errors.append(invalid(path, value, f"may not be unspecified ({value})"))
    for text, matches in _SPECIAL_RANGES:
        if matches(address):
            errors.append(invalid(path, value, text))


def only_fields(errors: Errors, obj: Json, allowed: Iterable[str], text: str, path: str) -> None:
    """Forbid every set field of `obj` outside `allowed`."""
    for field, value in obj.items():
        if field not in allowed and value not in (None, "", [], {}, False, 0):
            errors.append(forbidden(f"{path}.{field}", text))


_ZERO_IS_ABSENT = frozenset(
    {
        "hostNetwork", "hostPID", "hostIPC", "stdin", "stdinOnce", "tty", "readOnly", "hostPort", "paused",
        "initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold",
        "minReadySeconds", "unschedulable", "nodePort", "healthCheckNodePort", "publishNotReadyAddresses",
    }
)  # fmt: skip
"""Integers and booleans that are no pointers in Kubernetes' types: 0 and false are the same as absent."""


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: kept
            for key, item in value.items()
            if (kept := _without_empty(item)) not in (None, "", [], {})
            and not (key in _ZERO_IS_ABSENT and kept in (0, False))
        }
    if isinstance(value, list):
        return [_without_empty(item) for item in value]
    return value


def semantic_equal(a: Any, b: Any) -> bool:
    """Equal as apiequality.Semantic sees it: absent, null and empty are the same. Both sides are defaulted."""
    return bool(a == b) or _without_empty(a) == _without_empty(b)


def diff(old: Any, new: Any) -> str:
    """What changed, as lines of JSON with `-` and `+`: stands where Kubernetes prints its structural diff."""
    lines = difflib.unified_diff(_lines(old), _lines(new), lineterm="", n=1)
    return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


def _lines(value: Any) -> list[str]:
    return json.dumps(value, indent=2, sort_keys=True).splitlines()


def decremented(new: int | None, old: int | None) -> bool:
    if old is None:
        return False
    return new is None or new < old
