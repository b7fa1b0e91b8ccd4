"""URLs: `url("https://example.com:80/a?k=v").getHostname()`.

Source: k8s v1.36 apiserver/pkg/cel/library/urls.go; Go net/url (ParseRequestURI).
"""

from __future__ import annotations

import re
from typing import ClassVar, Final
from urllib.parse import quote, unquote_to_bytes

from kcp.base.values import frozen
from kcp.machinery.cel.functions import Functions, member, overload, walk
from kcp.machinery.cel.types import BOOL, STRING, list_of, map_of, opaque
from kcp.machinery.cel.values import CelError
from kcp.machinery.errors import go_quote

URL: Final = opaque("kubernetes.URL")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*", re.ASCII)
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2}).{0,2}", re.DOTALL)
_HOST: Final = re.compile(r"(?:\[[^\]]*\]|[^\[\]:]*)(?::(?P<port>.*))?", re.DOTALL)
_HOST_CHARS: Final = re.compile(r"[^A-Za-z0-9\-._~!$&'()*+,;=:\[\]<>\"%\x80-\U0010ffff]")
_PATH_SAFE: Final = "/$&+,:;=@-_.~"
_PATH_VALID: Final = re.compile(r"(?:[A-Za-z0-9\-_.~$&+,/:;=@!'()*\[\]]|%[0-9A-Fa-f]{2})*", re.ASCII)


@frozen
class Url:
    """A parsed URL; `path` is escaped, `query` is as written."""

    cel_type: ClassVar[str] = "kubernetes.URL"
    scheme: str
    host: str
    path: str
    query: str


def parse_url(text: str) -> Url:
    """An absolute URL or absolute path. Raises CelError with Go's text."""
    try:
        return _parse(text)
    except ValueError as error:
        raise CelError(
            f"URL parse error during conversion from string: parse {go_quote(text)}: {error}"
        ) from None


def _parse(text: str) -> Url:
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise ValueError("net/url: invalid control character in URL")
    if not text:
        raise ValueError("empty url")
    scheme, rest = _scheme(text)
    rest, _, query = rest.partition("?")
    if not rest.startswith("/"):
        if scheme:
            return Url(scheme, "", "", query)
        raise ValueError("invalid URI for request")
    host = ""
    if scheme and rest.startswith("//") and not rest.startswith("///"):
        authority, slash, path = rest[2:].partition("/")
        host, rest = _host(authority.rpartition("@")[2]), slash + path
    elif rest.startswith("//") and scheme:
        rest = rest[2:]
    return Url(scheme, host, _path(rest), query)


def _scheme(text: str) -> tuple[str, str]:
    if text.startswith(":"):
        raise ValueError("missing protocol scheme")
    match = _SCHEME.match(text)
    if match is not None and text[match.end() : match.end() + 1] == ":":
        return match[0].lower(), text[match.end() + 1 :]
    head, colon, _ = text.partition(":")
    if colon and "/" not in head and not match and "?" not in head:
        raise ValueError("first path segment in URL cannot contain colon")
    return "", text


def _host(authority: str) -> str:
    bad = _HOST_CHARS.search(authority)
    if bad is not None:
        raise ValueError(f"invalid character {go_quote(bad[0])} in host name")
    match = _HOST.fullmatch(authority)
    if match is None:
        raise ValueError(
            "missing ']' in host"
            if authority.startswith("[")
            else f"invalid port {go_quote(':' + authority.rpartition(':')[2])} after host"
        )
    port = match["port"]
    if port and not (port.isascii() and port.isdigit()):
        raise ValueError(f"invalid port {go_quote(':' + port)} after host")
    return authority


def _path(text: str) -> str:
    """The path escaped, as written where that is valid."""
    bad = _BAD_ESCAPE.search(text)
    if bad is not None:
        raise ValueError(f"invalid URL escape {go_quote(bad[0])}")
    return text if _PATH_VALID.fullmatch(text) else quote(unquote_to_bytes(text), safe=_PATH_SAFE)


def _is_url(text: str) -> bool:
    try:
        _parse(text)
    except ValueError:
        return False
    return True


def _hostname(url: Url) -> str:
    if url.host.startswith("["):
        return url.host[1:].partition("]")[0]
    return url.host.partition(":")[0]


def _port(url: Url) -> str:
    match = _HOST.fullmatch(url.host)
    return (match["port"] or "") if match else ""


def _query(url: Url) -> dict[str, list[str]]:
    """The parameters of the query; what cannot be read is left out."""
    found: dict[str, list[str]] = {}
    for part in url.query.split("&"):
        name, _, value = part.partition("=")
        if part and ";" not in part and not _BAD_ESCAPE.search(part):
            found.setdefault(_unescaped(name), []).append(_unescaped(value))
    return found


def _unescaped(text: str) -> str:
    return unquote_to_bytes(text.replace("+", " ")).decode(errors="replace")


LIBRARY: Final[Functions] = {
    "url": (overload("string_to_url", (STRING,), URL, parse_url, walk),),
    "isURL": (overload("is_url_string", (STRING,), BOOL, _is_url, walk),),
    "getScheme": (member("url_get_scheme", (URL,), STRING, lambda url: url.scheme),),
    "getHost": (member("url_get_host", (URL,), STRING, lambda url: url.host),),
    "getHostname": (member("url_get_hostname", (URL,), STRING, _hostname),),
    "getPort": (member("url_get_port", (URL,), STRING, _port),),
    "getEscapedPath": (member("url_get_escaped_path", (URL,), STRING, lambda url: url.path),),
    "getQuery": (member("url_get_query", (URL,), map_of(STRING, list_of(STRING)), _query),),
}
