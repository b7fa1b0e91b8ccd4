"""Named formats: `format.dns1123Label().validate(name)`, none when valid, else the list of faults.

Source: k8s v1.36 apiserver/pkg/cel/library/format.go.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from datetime import date
from typing import ClassVar, Final

from kcp.base.values import frozen
from kcp.machinery import names
from kcp.machinery.cel.functions import Functions, Overload, member, overload, tenth
from kcp.machinery.cel.libraries.urls import parse_url
from kcp.machinery.cel.times import parse_timestamp
from kcp.machinery.cel.types import STRING, list_of, opaque, optional_of
from kcp.machinery.cel.values import ABSENT, CelError, Optional

FORMAT: Final = opaque("kubernetes.NamedFormat")
_UUID: Final = re.compile(
    r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", re.I | re.ASCII
)
_URL_ERROR: Final = "URL parse error during conversion from string: "


@frozen
class Format:
    """A rule for texts; `pattern_length` is what its check is charged as."""

    cel_type: ClassVar[str] = "kubernetes.NamedFormat"
    name: str
    faults: Callable[[str], list[str]]
    pattern_length: int


def _name(rule: names.NameRule, prefix: bool) -> Callable[[str], list[str]]:
    return lambda text: names.validate_name(rule, text, prefix)


def _uri(text: str) -> list[str]:
    try:
        parse_url(text)
    except CelError as error:
        return [str(error).removeprefix(_URL_ERROR)]
    return []


def _uuid(text: str) -> list[str]:
    return [] if _UUID.fullmatch(text) else ["does not match the UUID format"]


def _byte(text: str) -> list[str]:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return ["invalid base64"]
    return []


def _date(text: str) -> list[str]:
    try:
        date.fromisoformat(text)
    except ValueError:
        return ["invalid date"]
    return [] if len(text) == 10 else ["invalid date"]


def _datetime(text: str) -> list[str]:
    try:
        parse_timestamp(text)
    except CelError:
        return ["invalid datetime"]
    return []


FORMATS: Final[dict[str, Format]] = {
    "dns1123Label": Format("DNS1123Label", _name("dns_label", False), 30),
    "dns1123Subdomain": Format("DNS1123Subdomain", _name("dns_subdomain", False), 60),
    "dns1035Label": Format("DNS1035Label", _name("dns_1035_label", False), 30),
    "qualifiedName": Format("QualifiedName", names.is_qualified_name, 60),
    "dns1123LabelPrefix": Format("DNS1123LabelPrefix", _name("dns_label", True), 30),
    "dns1123SubdomainPrefix": Format("DNS1123SubdomainPrefix", _name("dns_subdomain", True), 60),
    "dns1035LabelPrefix": Format("DNS1035LabelPrefix", _name("dns_1035_label", True), 30),
    "labelValue": Format("LabelValue", names.is_label_value, 40),
    "uri": Format("URI", _uri, 1000),
    "uuid": Format("uuid", _uuid, 100),
    "byte": Format("byte", _byte, 60),
    "date": Format("date", _date, 90),
    "datetime": Format("datetime", _datetime, 90),
}


def _validate(format: Format, text: str) -> Optional:
    faults = format.faults(text)
    return Optional(faults) if faults else ABSENT


def _named(name: str) -> Optional:
    found = FORMATS.get(name)
    return ABSENT if found is None else Optional(found)


def _cost(format: Format, text: str) -> int:
    return tenth(1 + len(text)) * -(-format.pattern_length // 4)


def _constant(format: Format) -> Callable[[], Format]:
    return lambda: format


_CONSTANTS: Final[dict[str, tuple[Overload, ...]]] = {
    f"format.{name}": (overload(f"format.{name}", (), FORMAT, _constant(format)),)
    for name, format in FORMATS.items()
}
LIBRARY: Final[Functions] = {
    **_CONSTANTS,
    "format.named": (overload("format-named", (STRING,), optional_of(FORMAT), _named),),
    "validate": (
        member("format-validate", (FORMAT, STRING), optional_of(list_of(STRING)), _validate, _cost),
    ),
}
