"""IP addresses and networks: `cidr("10.0.0.0/8").containsIP("10.1.2.3")`.

Source: k8s v1.36 apiserver/pkg/cel/library/{ip,cidr}.go; Go net/netip.
"""

from __future__ import annotations

import ipaddress
from typing import ClassVar, Final

from kcp.base.values import frozen
from kcp.machinery.cel.functions import Functions, member, overload, tenth, walk, walk_twice
from kcp.machinery.cel.types import BOOL, INT, STRING, opaque
from kcp.machinery.cel.values import CelError
from kcp.machinery.errors import go_quote

IP: Final = opaque("net.IP")
CIDR: Final = opaque("net.CIDR")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_BROADCAST: Final = ipaddress.IPv4Address("255.255.255.255")


@frozen
class Ip:
    """An address; its length, which costs are computed from, is that of its bytes."""

    cel_type: ClassVar[str] = "net.IP"
    address: Address

    def __len__(self) -> int:
        return self.address.max_prefixlen // 8


@frozen
class Cidr:
    """An address with the length of its network's prefix."""

    cel_type: ClassVar[str] = "net.CIDR"
    address: Address
    bits: int

    def __len__(self) -> int:
        return -(-self.bits // 8)

    def masked(self) -> Cidr:
        return Cidr(_masked(self.address, self.bits), self.bits)

    def __str__(self) -> str:
        return f"{self.address}/{self.bits}"


def _masked(address: Address, bits: int) -> Address:
    shift = address.max_prefixlen - bits
    return type(address)(int(address) >> shift << shift)


def parse_ip(text: str) -> Ip:
    """Raises CelError."""
    try:
        return Ip(_address(text, "ParseAddr"))
    except ValueError as error:
        raise CelError(
            f"IP Address {go_quote(text)} parse error during conversion from string: {error}"
        ) from None


def _address(text: str, function: str) -> Address:
    """An address without zone that is no IPv4 address in IPv6's clothes. Raises ValueError."""
    if "%" in text and ":" in text:
        raise ValueError(f"IP address {go_quote(text)} with zone value is not allowed")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{function}({go_quote(text)}): unable to parse IP") from None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        raise ValueError(f"IPv4-mapped IPv6 address {go_quote(text)} is not allowed")
    return address


def parse_cidr(text: str) -> Cidr:
    """Raises CelError."""
    try:
        return _cidr(text)
    except ValueError as error:
        raise CelError(f"network address parse error during conversion from string: {error}") from None


def _cidr(text: str) -> Cidr:
    head, slash, tail = text.rpartition("/")
    if not slash:
        raise ValueError(f"netip.ParsePrefix({go_quote(text)}): no '/'")
    address = _address(head, "netip.ParsePrefix")
    if not (tail.isascii() and tail.isdigit()) or (len(tail) > 1 and tail[0] == "0"):
        raise ValueError(f"netip.ParsePrefix({go_quote(text)}): bad bits after slash: {go_quote(tail)}")
    if len(tail) > 3 or int(tail) > address.max_prefixlen:
        raise ValueError(f"netip.ParsePrefix({go_quote(text)}): prefix length out of range")
    return Cidr(address, int(tail))


def _is_ip(text: str) -> bool:
    try:
        _address(text, "ParseAddr")
    except ValueError:
        return False
    return True


def _is_cidr(text: str) -> bool:
    try:
        _cidr(text)
    except ValueError:
        return False
    return True


def _is_canonical(text: str) -> bool:
    return str(parse_ip(text).address) == text


def _is_global_unicast(ip: Ip) -> bool:
    address = ip.address
    return not (
        address.is_unspecified
        or address.is_loopback
        or address.is_multicast
        or address.is_link_local
        or address == _BROADCAST
    )


def _is_link_local_multicast(ip: Ip) -> bool:
    network = "224.0.0.0/24" if ip.address.version == 4 else "ff02::/16"
    first = ipaddress.ip_network(network)
    if ip.address.version == 6:
        return int(ip.address) >> 112 & 0xFF0F == 0xFF02
    return ip.address in first


def _contains_ip(cidr: Cidr, ip: Ip) -> bool:
    return cidr.address.version == ip.address.version and _masked(ip.address, cidr.bits) == _masked(
        cidr.address, cidr.bits
    )


def _contains_cidr(cidr: Cidr, other: Cidr) -> bool:
    return cidr.bits <= other.bits and _contains_ip(cidr, Ip(other.address))


def _contains_cost(cidr: Cidr, _: object) -> int:
    return tenth(2 * len(cidr))


def _contains_text_cost(cidr: Cidr, other: str) -> int:
    return tenth(2 * len(cidr)) + tenth(len(other))


def _within_cost(cidr: Cidr, other: Cidr | str) -> int:
    text = tenth(len(other)) if isinstance(other, str) else 0
    return tenth(2 * len(cidr)) + tenth(len(cidr)) + 1 + text


LIBRARY: Final[Functions] = {
    "ip": (
        overload("string_to_ip", (STRING,), IP, parse_ip, walk),
        member("cidr_ip", (CIDR,), IP, lambda cidr: Ip(cidr.address)),
    ),
    "isIP": (overload("is_ip", (STRING,), BOOL, _is_ip, walk),),
    "ip.isCanonical": (overload("ip_is_canonical", (STRING,), BOOL, _is_canonical, walk_twice),),
    "family": (member("ip_family", (IP,), INT, lambda ip: ip.address.version),),
    "isUnspecified": (member("ip_is_unspecified", (IP,), BOOL, lambda ip: ip.address.is_unspecified),),
    "isLoopback": (member("ip_is_loopback", (IP,), BOOL, lambda ip: ip.address.is_loopback),),
    "isLinkLocalMulticast": (member("ip_is_link_local_multicast", (IP,), BOOL, _is_link_local_multicast),),
    "isLinkLocalUnicast": (
        member("ip_is_link_local_unicast", (IP,), BOOL, lambda ip: ip.address.is_link_local),
    ),
    "isGlobalUnicast": (member("ip_is_global_unicast", (IP,), BOOL, _is_global_unicast),),
    "string": (
        overload("ip_to_string", (IP,), STRING, lambda ip: str(ip.address)),
        overload("cidr_to_string", (CIDR,), STRING, str),
    ),
    "cidr": (overload("string_to_cidr", (STRING,), CIDR, parse_cidr, walk),),
    "isCIDR": (overload("is_cidr", (STRING,), BOOL, _is_cidr, walk),),
    "containsIP": (
        member(
            "cidr_contains_ip_string",
            (CIDR, STRING),
            BOOL,
            lambda cidr, text: _contains_ip(cidr, parse_ip(text)),
            _contains_text_cost,
        ),
        member("cidr_contains_ip_ip", (CIDR, IP), BOOL, _contains_ip, _contains_cost),
    ),
    "containsCIDR": (
        member(
            "cidr_contains_cidr_string",
            (CIDR, STRING),
            BOOL,
            lambda cidr, text: _contains_cidr(cidr, parse_cidr(text)),
            _within_cost,
        ),
        member("cidr_contains_cidr", (CIDR, CIDR), BOOL, _contains_cidr, _within_cost),
    ),
    "masked": (member("cidr_masked", (CIDR,), CIDR, Cidr.masked),),
    "prefixLength": (member("cidr_prefix_length", (CIDR,), INT, lambda cidr: cidr.bits),),
}
