"""Which names, keys and values Kubernetes takes, and what it says about the others.

Every `is_*` function returns the list of faults, empty when the text is valid; the texts are Kubernetes' own, to be
put into a field error. Lengths count bytes. Valid input costs one regular expression.
Source: k8s v1.36 apimachinery/pkg/util/validation/{validation,ip}.go, pkg/api/validate/content.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Literal, Protocol

from kcp.machinery.errors import FieldError, invalid, required

NameRule = Literal["dns_subdomain", "dns_label", "dns_1035_label", "path_segment", "any"]
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

DNS_LABEL_MAX = 63
DNS_SUBDOMAIN_MAX = 253
LABEL_VALUE_MAX = 63
GENERATED_BASE_MAX = 58
"""generateName is cut to this length before its five random characters are appended."""

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_LABEL_UNDERSCORE = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_SUBDOMAIN_UNDERSCORE = rf"{_LABEL_UNDERSCORE}(\.{_LABEL_UNDERSCORE})*"
_WILDCARD = rf"\*\.{_SUBDOMAIN}"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_KEY = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE = f"({_KEY})?"
_C_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"
_HTTP_PATH = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"
_HTTP_HEADER = "[-A-Za-z0-9]+"
_ENV_VAR = "[-._a-zA-Z][-._a-zA-Z0-9]*"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"
_PERCENT = "[0-9]+%"
_CONDITION_REASON = "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?"


class _Suffixes(Protocol):
    def name_suffix(self, length: int = 5) -> str: ...


def max_length_text(limit: int) -> str:
    return f"must be no more than {limit} characters"


def max_bytes_text(limit: int) -> str:
    return f"must be no more than {limit} bytes"


def inclusive_range_text(low: int, high: int) -> str:
    return f"must be between {low} and {high}, inclusive"


def regex_text(message: str, regex: str, *examples: str) -> str:
    """`<message> (e.g. 'a',  or 'b', regex used for validation is '…')`, with Kubernetes' odd spacing."""
    if not examples:
        return f"{message} (regex used for validation is '{regex}')"
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{message} (e.g. {shown}regex used for validation is '{regex}')"


def _matcher(regex: str) -> Callable[[str], object]:
    return re.compile(regex, re.ASCII).fullmatch


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


_label_matches = _matcher(_LABEL)
_subdomain_matches = _matcher(_SUBDOMAIN)
_subdomain_underscore_matches = _matcher(_SUBDOMAIN_UNDERSCORE)
_wildcard_matches = _matcher(_WILDCARD)
_label_1035_matches = _matcher(_LABEL_1035)
_key_matches = _matcher(_KEY)
_value_matches = _matcher(_VALUE)
_c_identifier_matches = _matcher(_C_IDENTIFIER)
_http_path_matches = _matcher(_HTTP_PATH)
_http_header_matches = _matcher(_HTTP_HEADER)
_env_var_matches = _matcher(_ENV_VAR)
_config_key_matches = _matcher(_CONFIG_KEY)
_percent_matches = _matcher(_PERCENT)
_condition_reason_matches = _matcher(_CONDITION_REASON)
_port_name_matches = _matcher("[-a-z0-9]+")
_has_letter = re.compile("[a-z]").search

_LABEL_TEXT = regex_text(
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character",
    _LABEL,
    "my-name",
    "123-abc",
)
_SUBDOMAIN_TEXT = regex_text(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character",
    _SUBDOMAIN,
    "example.com",
)
_SUBDOMAIN_UNDERSCORE_TEXT = regex_text(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must "
    "start and end with an alphanumeric character",
    _SUBDOMAIN_UNDERSCORE,
    "example.com",
)
_WILDCARD_TEXT = regex_text(
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of "
    "lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
    _WILDCARD,
    "*.example.com",
)
_LABEL_1035_TEXT = regex_text(
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character",
    _LABEL_1035,
    "my-name",
    "abc-123",
)
_KEY_TEXT = regex_text(
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
    _KEY,
    "MyName",
    "my.name",
    "123-abc",
)
_VALUE_TEXT = regex_text(
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
    "and end with an alphanumeric character",
    _VALUE,
    "MyValue",
    "my_value",
    "12345",
)
_C_IDENTIFIER_TEXT = regex_text(
    "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric "
    "characters or '_'",
    _C_IDENTIFIER,
    "my_name",
    "MY_NAME",
    "MyName",
)
_HTTP_HEADER_TEXT = regex_text(
    "a valid HTTP header must consist of alphanumeric characters or '-'", _HTTP_HEADER, "X-Header-Name"
)
_ENV_VAR_TEXT = regex_text(
    "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not "
    "start with a digit",
    _ENV_VAR,
    "my.env-name",
    "MY_ENV.NAME",
    "MyEnvName1",
)
_RELAXED_ENV_VAR_TEXT = (
    "a valid environment variable name must consist only of printable ASCII characters other than '='"
)
_CONFIG_KEY_TEXT = regex_text(
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
    _CONFIG_KEY,
    "key.name",
    "KEY_NAME",
    "key-name",
)
_PERCENT_TEXT = regex_text(
    "a valid percent string must be a numeric string followed by an ending '%'", _PERCENT, "1%", "93%"
)
_CONDITION_REASON_TEXT = regex_text(
    "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric "
    "characters or '_,:', and must end with an alphanumeric character or '_'",
    _CONDITION_REASON,
    "my_name",
    "MY_NAME",
    "MyName",
    "ReasonA,ReasonB",
    "ReasonA:ReasonB",
)


def is_dns1123_label(text: str) -> list[str]:
    valid = _label_matches(text)
    if valid and len(text) <= DNS_LABEL_MAX:
        return []
    faults = [max_length_text(DNS_LABEL_MAX)] if _length(text) > DNS_LABEL_MAX else []
    if not valid:
        faults.append("must not contain dots" if _subdomain_matches(text) else _LABEL_TEXT)
    return faults


def is_dns1123_subdomain(text: str) -> list[str]:
    return _shaped(text, DNS_SUBDOMAIN_MAX, _subdomain_matches, _SUBDOMAIN_TEXT)


def is_dns1123_subdomain_with_underscore(text: str) -> list[str]:
    return _shaped(text, DNS_SUBDOMAIN_MAX, _subdomain_underscore_matches, _SUBDOMAIN_UNDERSCORE_TEXT)


def is_wildcard_dns1123_subdomain(text: str) -> list[str]:
    """One leading `*.`, as an Ingress host may have."""
    return _shaped(text, DNS_SUBDOMAIN_MAX, _wildcard_matches, _WILDCARD_TEXT)


def is_dns1035_label(text: str) -> list[str]:
    """A DNS label that starts with a letter."""
    return _shaped(text, DNS_LABEL_MAX, _label_1035_matches, _LABEL_1035_TEXT)


def _shaped(text: str, limit: int, matches: Callable[[str], object], fault: str) -> list[str]:
    valid = matches(text)
    if valid and len(text) <= limit:
        return []
    faults = [max_length_text(limit)] if _length(text) > limit else []
    if not valid:
        faults.append(fault)
    return faults


def is_qualified_name(text: str) -> list[str]:
    """A label key: an optional DNS subdomain and `/`, then a name of at most 63 bytes."""
    prefix, slash, name = text.rpartition("/")
    if not slash:
        return _name_part(name)
    if "/" in prefix:
        tail = " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        return [f"a valid label key {_KEY_TEXT}{tail}"]
    return [*_prefix_part(prefix), *_name_part(name)]


def _prefix_part(prefix: str) -> list[str]:
    if not prefix:
        return ["prefix part must be non-empty"]
    valid = _subdomain_matches(prefix)
    if valid and len(prefix) <= DNS_SUBDOMAIN_MAX:
        return []
    faults = []
    if _length(prefix) > DNS_SUBDOMAIN_MAX:
        faults.append(f"prefix part {max_bytes_text(DNS_SUBDOMAIN_MAX)}")
    if not valid:
        faults.append(f"prefix part {_SUBDOMAIN_TEXT}")
    return faults


def _name_part(name: str) -> list[str]:
    valid = _key_matches(name)
    if valid and len(name) <= LABEL_VALUE_MAX:
        return []
    faults = []
    if not name:
        faults.append("name part must be non-empty")
    elif _length(name) > LABEL_VALUE_MAX:
        faults.append(f"name part {max_bytes_text(LABEL_VALUE_MAX)}")
    if not valid:
        faults.append(f"name part {_KEY_TEXT}")
    return faults


def is_label_value(text: str) -> list[str]:
    valid = _value_matches(text)
    if valid and len(text) <= LABEL_VALUE_MAX:
        return []
    faults = [max_bytes_text(LABEL_VALUE_MAX)] if _length(text) > LABEL_VALUE_MAX else []
    if not valid:
        faults.append(_VALUE_TEXT)
    return faults


def is_c_identifier(text: str) -> list[str]:
    return [] if _c_identifier_matches(text) else [_C_IDENTIFIER_TEXT]


def is_condition_reason(text: str) -> list[str]:
    return [] if _condition_reason_matches(text) else [_CONDITION_REASON_TEXT]


def is_http_header_name(text: str) -> list[str]:
    return [] if _http_header_matches(text) else [_HTTP_HEADER_TEXT]


def is_percent(text: str) -> list[str]:
    return [] if _percent_matches(text) else [_PERCENT_TEXT]


def is_config_map_key(text: str) -> list[str]:
    """A key of a ConfigMap or Secret: it becomes a file name."""
    faults = _shaped(text, DNS_SUBDOMAIN_MAX, _config_key_matches, _CONFIG_KEY_TEXT)
    return faults + _leaves_directory(text)


def is_env_var_name(text: str) -> list[str]:
    faults = [] if _env_var_matches(text) else [_ENV_VAR_TEXT]
    return faults + _leaves_directory(text)


def is_relaxed_env_var_name(text: str) -> list[str]:
    """The rule for container environments since 1.34: any printable ASCII but `=`."""
    if not text:
        return ["environment variable name must be non-empty"]
    if text.isascii() and text.isprintable() and "=" not in text:
        return []
    return [_RELAXED_ENV_VAR_TEXT]


def _leaves_directory(text: str) -> list[str]:
    if not text.startswith("."):
        return []
    if text in (".", ".."):
        return [f"must not be '{text}'"]
    return ["must not start with '..'"] if text.startswith("..") else []


def is_port_name(text: str) -> list[str]:
    """An IANA service name: at most 15 of `[-a-z0-9]` with a letter in it."""
    faults = []
    if _length(text) > 15:
        faults.append(max_length_text(15))
    if not _port_name_matches(text):
        faults.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not _has_letter(text):
        faults.append("must contain at least one letter (a-z)")
    if "--" in text:
        faults.append("must not contain consecutive hyphens")
    if text.startswith("-") or text.endswith("-"):
        faults.append("must not begin or end with a hyphen")
    return faults


def is_port_num(port: int) -> list[str]:
    return is_in_range(port, 1, 65535)


def is_in_range(value: int, low: int, high: int) -> list[str]:
    return [] if low <= value <= high else [inclusive_range_text(low, high)]


def is_user_id(uid: int) -> list[str]:
    return is_in_range(uid, 0, 0x7FFFFFFF)


is_group_id = is_user_id


def is_path_segment_name(text: str) -> list[str]:
    """A name that stands as it is between two slashes of a URL."""
    if text in (".", ".."):
        return [f"may not be '{text}'"]
    return is_path_segment_prefix(text)


def is_path_segment_prefix(text: str) -> list[str]:
    return [f"may not contain '{char}'" for char in "/%" if char in text]


@lru_cache(maxsize=4096)
def parse_ip(text: str) -> IpAddress | None:
    """The address; leading zeros of IPv4 octets are read as decimal; None when it is none (a zone is none).

    An IPv4-mapped IPv6 address stays IPv6. Source: k8s v1.36 k8s.io/utils/net ParseIPSloppy.
    """
    if "%" in text or not text.isascii():
        return None
    head, colon, tail = text.rpartition(":")
    if "." in tail:
        octets = tail.split(".")
        if not all(octet.isdigit() and len(octet) <= 1000 for octet in octets):
            return None
        text = f"{head}{colon}{'.'.join(str(int(octet)) for octet in octets)}"
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def is_ip(text: str, *, strict: bool = False) -> list[str]:
    """Fields older than 1.33 take what `parse_ip` takes; `strict` refuses leading zeros and IPv4-mapped forms."""
    ip = parse_ip(text)
    if ip is None:
        return ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
    if not strict:
        return []
    if _has_leading_zeros(text):
        return ["must not have leading 0s"]
    if _is_mapped(ip):
        return ["must not be an IPv4-mapped IPv6 address"]
    return []


def is_canonical_ip(text: str) -> list[str]:
    """The rule for new fields: strict, and spelled as RFC 5952 says."""
    faults = is_ip(text, strict=True)
    ip = parse_ip(text)
    if not faults and str(ip) != text:
        return [f'must be in canonical form ("{ip}")']
    return faults


def is_ipv4(text: str) -> list[str]:
    ip = parse_ip(text)
    valid = ip is not None and (ip.version == 4 or _is_mapped(ip))
    return [] if valid else ["must be a valid IPv4 address"]


def is_ipv6(text: str) -> list[str]:
    ip = parse_ip(text)
    valid = ip is not None and ip.version == 6 and not _is_mapped(ip)
    return [] if valid else ["must be a valid IPv6 address"]


def _is_mapped(ip: IpAddress) -> bool:
    return isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None


def _has_leading_zeros(address: str) -> bool:
    tail = address.rpartition(":")[2]
    return "." in tail and any(len(octet) > 1 and octet[0] == "0" for octet in tail.split("."))


@lru_cache(maxsize=1024)
def parse_cidr(text: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface | None:
    """Address and prefix length, read as leniently as `parse_ip`; None when it is no CIDR."""
    address, slash, length = text.partition("/")
    ip = parse_ip(address)
    if ip is None or not slash or not (length.isascii() and length.isdigit() and len(length) <= 1000):
        return None
    if int(length) > ip.max_prefixlen:
        return None
    return ipaddress.ip_interface(f"{ip}/{int(length)}")


def is_cidr(text: str, *, strict: bool = False) -> list[str]:
    """As `is_ip`; `strict` also refuses address bits beyond the prefix."""
    interface = parse_cidr(text)
    if interface is None:
        return ["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"]
    if not strict:
        return []
    address, _, length = text.partition("/")
    if _has_leading_zeros(address) or (len(length) > 1 and length[0] == "0"):
        return ["must not have leading 0s in IP or prefix length"]
    if _is_mapped(interface.ip):
        return ["must not have an IPv4-mapped IPv6 address"]
    if interface.ip != interface.network.network_address:
        return ["must not have bits set beyond the prefix length"]
    return []


def is_fully_qualified_name(text: str, path: str) -> list[FieldError]:
    """A DNS subdomain of at least three segments, such as a finalizer's or condition's domain."""
    if not text:
        return [required(path)]
    if faults := is_dns1123_subdomain(text):
        return [invalid(path, text, ",".join(faults))]
    if text.count(".") < 2:
        return [invalid(path, text, "should be a domain with at least three segments separated by dots")]
    return []


def is_fully_qualified_domain_name(text: str, path: str) -> list[FieldError]:
    """At least two segments; one trailing dot is taken."""
    if not text:
        return [required(path)]
    name = text.removesuffix(".")
    if faults := is_dns1123_subdomain(name):
        return [invalid(path, name, ",".join(faults))]
    if "." not in name:
        return [invalid(path, name, "should be a domain with at least two segments separated by dots")]
    for label in name.split("."):
        if faults := is_dns1123_label(label):
            return [invalid(path, label, ",".join(faults))]
    return []


def is_domain_prefixed_path(text: str, path: str) -> list[FieldError]:
    """`example.com/anything`, as a CSR's signerName."""
    if not text:
        return [required(path)]
    host, _, rest = text.partition("/")
    if not host or not rest:
        return [invalid(path, text, 'must be a domain-prefixed path (such as "acme.io/foo")')]
    errors = [invalid(path, host, fault) for fault in is_dns1123_subdomain(host)]
    if not _http_path_matches(rest):
        errors.append(invalid(path, rest, regex_text("Invalid path", _HTTP_PATH)))
    return errors


def is_domain_prefixed_key(text: str, path: str) -> list[FieldError]:
    """A qualified name that has its prefix."""
    if not text:
        return [required(path)]
    errors = [invalid(path, text, fault) for fault in is_qualified_name(text)]
    if not errors and "/" not in text:
        errors.append(invalid(path, text, 'must be a domain-prefixed key (such as "acme.io/foo")'))
    return errors


_NAME_RULES: dict[str, Callable[[str], list[str]]] = {
    "dns_subdomain": is_dns1123_subdomain,
    "dns_label": is_dns1123_label,
    "dns_1035_label": is_dns1035_label,
    "path_segment": is_path_segment_name,
    "any": lambda _: [],
}


def validate_name(rule: NameRule, name: str, prefix: bool = False) -> list[str]:
    """The faults of an object's name; with `prefix`, of a generateName, where a trailing dash is fine."""
    if prefix:
        if rule == "path_segment":
            return is_path_segment_prefix(name)
        if rule != "any" and len(name) > 1 and name.endswith("-"):
            name = name[:-2] + "a"
    return _NAME_RULES[rule](name)


def generate_name(base: str, entropy: _Suffixes) -> str:
    """A name for an object that has only generateName. It may already be taken: then draw again."""
    return base[:GENERATED_BASE_MAX] + entropy.name_suffix(5)
