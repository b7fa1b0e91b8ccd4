"""Random requests from a seed: valid objects and what mutations make of them, objects grown from schemas, plain junk."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

import attrs
import yaml

from kcp.apis.catalog import build_catalog
from kcp.apis.kind import Kind
from kcp.machinery.codec.protobuf_encode import encode_protobuf
from kcp.machinery.schema.compile import Schema, schema_for
from tests.real.kinds import samples

Json = dict[str, Any]
NAMES = (
    "sample",
    "a",
    "b",
    "kubernetes",
    "default",
    "kube-system",
    "no-such",
    "A_B",
    "x" * 300,
    "..",
    "%",
    "é",
    "a:b",
)
NAMESPACES = ("default", "fuzz", "kube-system", "no-such", "", "A_B")
WEIRD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 2**70, 1.5, -0.0, 1e300, "", " ", "a", "\x00", "é", "💥",
    "a" * 300, "1", "-1", "1Gi", "100m", "1e9999999999", "0x10", "99999999999999999999999", "10.0.0.1", "::1", "10.0.0.0/33",
    "2026-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-13-45T00:00:00Z", "* * * * *", "*/0 * * * *", "CRON_TZ=x * * * * *",
    "[", "(", "\\", "{{", "$(A)", "$", "../..", "/", "a/b", "a/b/c", "=", "!", "a in (", "None", "Always", "100%", "-5%", "1%1",
    "-----BEGIN CERTIFICATE-----", "dmFsdWU=", "not base64 !", [], {}, [[]], [None], [{}], [1, "a"], {"": ""}, {"a": None},
    {"matchLabels": {"a": "b"}}, [{"name": "a"}, {"name": "a"}], [""] * 3,
)  # fmt: skip
QUERIES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("limit", ("0", "1", "5", "-1", "x", "99999999999999999999", "")),
    ("continue", ("", "x", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhIn0", "bnVsbA", "W10", "e30")),
    ("resourceVersion", ("0", "1", "5", "-1", "x", "999999999999", "")),
    ("resourceVersionMatch", ("Exact", "NotOlderThan", "x", "")),
    ("labelSelector", ("a=b", "a in (b,c)", "!a", "a>1", "a=b=c", "(", ",", "a notin ()", "a" * 400, "é=1", "a==")),
    ("fieldSelector", ("metadata.name=sample", "spec.nodeName=", "status.phase!=x", "x=y", "=", "a\\=b", "metadata.namespace=\\", "spec.x.y=z")),
    ("timeoutSeconds", ("1", "0", "-1", "x", "1.5", "99999999999999999999")),
    ("sendInitialEvents", ("true", "false", "x")),
    ("allowWatchBookmarks", ("true", "x")),
    ("dryRun", ("All", "x", "")),
    ("fieldManager", ("me", "", "x" * 200, "\x01", "é")),
    ("fieldValidation", ("Strict", "Warn", "Ignore", "x")),
    ("force", ("true", "false", "x", "1")),
    ("pretty", ("true", "false", "x")),
    ("timeout", ("1s", "0", "-1s", "x", "100h", "1e9s")),
    ("propagationPolicy", ("Foreground", "Background", "Orphan", "x")),
    ("gracePeriodSeconds", ("0", "-1", "x", "30", "99999999999999999999")),
    ("orphanDependents", ("true", "x")),
    ("includeObject", ("None", "Metadata", "Object", "x")),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", ("true", "x")),
    ("container", ("a", "")), ("follow", ("x", "false")), ("tailLines", ("-1", "x")), ("command", ("ls",)),
    ("verify", ("x",)), ("verbose", ("true",)), ("\x00", ("",)), ("a[]", ("1",)),
)  # fmt: skip
ACCEPTS = (
    "application/json", "*/*", "", "application/yaml", "application/json;as=Table;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", "application/json;as=Table;v=v9;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json", "text/html", "x", ";;;", "a/b;q=x",
    "application/json;stream=watch", "application/vnd.kubernetes.protobuf", "application/json;q=0", "," * 50,
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", "application/cbor",
)  # fmt: skip
PATCH_TYPES = (
    "application/merge-patch+json", "application/strategic-merge-patch+json", "application/json-patch+json",
    "application/apply-patch+yaml",
)  # fmt: skip
BODY_TYPES = (
    "application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "", "text/plain", "application/json; charset=x",
    "application/cbor", "multipart/form-data", *PATCH_TYPES,
)  # fmt: skip
OTHER_PATHS = (
    "/", "/api", "/apis", "/api/", "/apis/", "/api/v1", "/apis/apps", "/apis/apps/v1", "/version", "/healthz", "/livez",
    "/readyz", "/readyz/ping", "/readyz/x", "/metrics", "/openapi/v2", "/openapi/v3", "/openapi/v3/api/v1", "/openapi/v3/apis/apps/v1",
    "/.well-known/openid-configuration", "/openid/v1/jwks", "/logs", "/ui", "/apis/x/y/z", "/api/v1/watch/pods", "//", "/../etc",
    "/api/v1/watch/namespaces/default/pods", "/api/v1/proxy/x", "/api/v9/pods", "/apis/apps/v9/deployments", "/api/v1/namespaces/",
    "/api/v1//pods", "/api/v1/namespaces/default/pods/sample/status/x/y", "/debug/pprof", "/flagz", "/statusz",
)  # fmt: skip
FOCUS = 4
GROUPS = ("", "system:masters", "x")


@attrs.frozen
class Shot:
    """One request, printable."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


@cache
def kinds() -> tuple[Kind, ...]:
    return tuple(build_catalog().kinds())


def _root(kind: Kind) -> str:
    return f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"


@cache
def _samples() -> dict[tuple[str, str], Json]:
    return {(_group(each), each["kind"]): each for each in samples("default")}


def _group(obj: Json) -> str:
    return str(obj["apiVersion"]).rpartition("/")[0]


def shots(seed: int, count: int) -> list[Shot]:
    """The requests of a seed: mostly about a few kinds, of which there is a valid object to begin with."""
    chance = random.Random(seed)
    focus = chance.sample(
        [kind for kind in kinds() if kind.stored and (kind.group, kind.kind) in _samples()], FOCUS
    )
    first = [Maker(chance, focus).valid(kind) for kind in focus]
    return first + [
        Maker(random.Random(f"{seed} {number}"), focus).shot() for number in range(count - len(first))
    ]


@attrs.frozen
class Maker:
    chance: random.Random
    focus: list[Kind]

    def valid(self, kind: Kind) -> Shot:
        """The creation of the kind's sample."""
        body = json.dumps(_samples()[(kind.group, kind.kind)]).encode()
        path = _root(kind) + ("/namespaces/default" if kind.namespaced else "") + f"/{kind.plural}"
        return Shot("POST", path, "", {"content-type": "application/json"}, body)

    def shot(self) -> Shot:
        pick = self.chance
        if pick.random() < 0.06:
            path = pick.choice(OTHER_PATHS)
            return Shot(self._method(), path, self._query(), self._headers(""), self._junk(b"{}"))
        kind = pick.choice(self.focus if pick.random() < 0.75 else kinds())
        method = self._method()
        path = self._path(
            kind, named=method in ("PUT", "PATCH") or (method != "POST" and pick.random() < 0.6)
        )
        media_type = self._media_type(method)
        body = self._body(kind, method, media_type) if method in ("POST", "PUT", "PATCH", "DELETE") else b""
        return Shot(method, path, self._query(), self._headers(media_type), body)

    def _method(self) -> str:
        usual = ["POST"] * 8 + ["PUT"] * 4 + ["PATCH"] * 6 + ["GET"] * 5 + ["DELETE"] * 3
        return self.chance.choice([*usual, "HEAD", "OPTIONS", "TRACE", "LIST", "post"])

    def _path(self, kind: Kind, named: bool) -> str:
        pick = self.chance
        parts = [_root(kind)]
        if kind.namespaced and pick.random() < 0.9:
            namespace = pick.choice(NAMESPACES) if pick.random() < 0.3 else "default"
            parts.append(f"namespaces/{quote(namespace, safe='%')}")
        parts.append(kind.plural)
        if named:
            own = str(_samples().get((kind.group, kind.kind), {}).get("metadata", {}).get("name") or "sample")
            parts.append(pick.choice(NAMES) if pick.random() < 0.2 else own)
            subresources = [each.name for each in kind.subresources]
            if subresources and pick.random() < 0.35:
                parts.append(pick.choice([*subresources, "nope"]))
        return "/".join(parts)

    def _query(self) -> str:
        pick = self.chance
        chosen = pick.sample(QUERIES, pick.choice((0, 0, 0, 0, 0, 1, 1, 2, 4)))
        pairs = [(name, pick.choice(values)) for name, values in chosen]
        if pick.random() < 0.08:
            pairs += [("watch", pick.choice(("true", "1", "x"))), ("timeoutSeconds", "1")]
        return urlencode(pairs) if pick.random() < 0.97 else "&&=%zz;%" + urlencode(pairs)

    def _headers(self, media_type: str) -> dict[str, str]:
        pick = self.chance
        headers = {"accept": pick.choice(ACCEPTS) if pick.random() < 0.12 else "application/json"}
        if media_type:
            headers["content-type"] = media_type
        if pick.random() < 0.02:
            headers["impersonate-user"] = pick.choice(("x", "", "system:serviceaccount:default:default", "é"))
            headers["impersonate-group"] = pick.choice(GROUPS)
        if pick.random() < 0.03:
            headers["impersonate-extra-%zz"] = "x"
        if pick.random() < 0.05:
            headers["user-agent"] = pick.choice(("", "é", "x" * 2000, "kubectl/v1.20 (linux/amd64)", "a/b/c"))
        if pick.random() < 0.03:
            headers["accept-encoding"] = "gzip"
        return headers

    def _media_type(self, method: str) -> str:
        if self.chance.random() < 0.06:
            return self.chance.choice(BODY_TYPES)
        if method == "PATCH":
            return self.chance.choice(PATCH_TYPES)
        usual = ("application/json",) * 6 + ("application/yaml", "application/vnd.kubernetes.protobuf")
        return self.chance.choice(usual)

    def _body(self, kind: Kind, method: str, media_type: str) -> bytes:
        if method == "DELETE":
            options = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
            return self.chance.choice((b"", b"", self._encoded(self._mutated(options), media_type)))
        if media_type == "application/json-patch+json":
            return json.dumps(self._operations(kind)).encode()
        return self._junk(self._encoded(self._object(kind), media_type))

    def _object(self, kind: Kind) -> Any:
        pick = self.chance
        sample = _samples().get((kind.group, kind.kind))
        if sample is not None and pick.random() < 0.7:
            value: Any = copy.deepcopy(sample)
            for _ in range(pick.choice((0, 1, 1, 1, 2, 3, 6))):
                value = self._mutated(value)
            return value
        schema = schema_for(kind.gvk)
        grown = {} if schema is None else self._grown(schema, 6)
        named = {"apiVersion": kind.gvk.api_version, "kind": kind.kind, "metadata": {"name": "sample"}}
        return {**grown, **named} if isinstance(grown, dict) and pick.random() < 0.9 else grown

    def _grown(self, schema: Schema, depth: int) -> Any:
        """A value of a schema, now and then of none."""
        pick = self.chance
        if pick.random() < 0.03 or depth == 0:
            return pick.choice(WEIRD)
        if schema.fields:
            share = pick.choice((0.1, 0.3, 0.6)) if len(schema.fields) < 30 else 0.15
            chosen = [name for name in schema.fields if name in schema.required or pick.random() < share]
            return {name: self._grown(schema.fields[name], depth - 1) for name in chosen}
        if schema.items is not None:
            return [self._grown(schema.items, depth - 1) for _ in range(pick.choice((0, 1, 1, 2)))]
        if schema.additional is not None:
            return {
                name: self._grown(schema.additional, depth - 1)
                for name in pick.sample(("a", "cpu", "x/y", "é"), 2)
            }
        return self._scalar(schema)

    def _scalar(self, schema: Schema) -> Any:
        if schema.type == "integer":
            return self.chance.choice((0, 1, 2, 80, 443, -1, 100, 65536, 2**31 - 1))
        if schema.type == "boolean":
            return self.chance.random() < 0.5
        texts = [value for value in WEIRD if isinstance(value, str)]
        return self.chance.choice(texts)

    def _mutated(self, value: Any) -> Any:
        """One change somewhere inside."""
        places = _places(value)
        if not places or self.chance.random() < 0.02:
            return self.chance.choice(WEIRD)
        holder, key = self.chance.choice(places)
        change = self.chance.choice(_CHANGES)
        change(self.chance, holder, key)
        return value

    def _operations(self, kind: Kind) -> Any:
        pick = self.chance
        sample = _samples().get((kind.group, kind.kind)) or {}
        pointers = [
            "",
            "/",
            "/metadata/labels",
            "/metadata",
            "/spec",
            "/status",
            "/data/x",
            "/spec/0",
            "/a~2",
            "x",
            "/kind",
        ]
        pointers += [
            f"/{one}/{two}" for one, inner in sample.items() if isinstance(inner, dict) for two in inner
        ]
        operations: list[Any] = []
        for _ in range(pick.choice((0, 1, 1, 2, 4))):
            op = pick.choice(("add", "remove", "replace", "move", "copy", "test", "x"))
            one = {
                "op": op,
                "path": pick.choice(pointers),
                "from": pick.choice(pointers),
                "value": pick.choice(WEIRD),
            }
            operations.append(one if pick.random() < 0.9 else pick.choice(WEIRD))
        return operations if pick.random() < 0.95 else pick.choice(WEIRD)

    def _encoded(self, value: Any, media_type: str) -> bytes:
        if "yaml" in media_type:
            return yaml.safe_dump(_printable(value), allow_unicode=True).encode()
        if media_type.endswith("protobuf") and isinstance(value, dict):
            try:
                return encode_protobuf(value)
            except Exception:  # noqa: BLE001  what has no protobuf form goes as JSON
                return json.dumps(value).encode()
        return json.dumps(value).encode("utf-8", "surrogatepass")

    def _junk(self, body: bytes) -> bytes:
        """The body, now and then damaged."""
        pick = self.chance
        if not body or pick.random() < 0.93:
            return body
        at = pick.randrange(len(body))
        return pick.choice(
            (
                body[:at],
                body[:at] + bytes([pick.randrange(256)]) + body[at + 1 :],
                body * 2,
                b"",
                b"\xff\xfe",
                b"null",
                b"[]",
            )
        )


Change = Callable[[random.Random, Any, Any], None]


def _replace(chance: random.Random, holder: Any, key: Any) -> None:
    holder[key] = copy.deepcopy(chance.choice(WEIRD))


def _remove(chance: random.Random, holder: Any, key: Any) -> None:
    del chance, holder[key]


def _wrap(chance: random.Random, holder: Any, key: Any) -> None:
    holder[key] = [holder[key]] if chance.random() < 0.5 else {"x": holder[key]}


def _repeat(chance: random.Random, holder: Any, key: Any) -> None:
    if isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    else:
        holder[f"{key}x"] = copy.deepcopy(holder[key])
    del chance


_CHANGES: tuple[Change, ...] = (_replace, _replace, _replace, _remove, _wrap, _repeat)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) inside, the value's own members first."""
    found: list[tuple[Any, Any]] = []
    stack = [value]
    while stack:
        one = stack.pop()
        members = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
        for key, member in members:
            found.append((one, key))
            stack.append(member)
    return found


def _printable(value: Any) -> Any:
    """YAML has no NUL."""
    if isinstance(value, dict):
        return {_printable(key): _printable(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_printable(member) for member in value]
    return value.replace("\x00", "0") if isinstance(value, str) else value
