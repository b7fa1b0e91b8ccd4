"""/openapi/v2 and /openapi/v3: built when first asked for, kept as bytes until the catalog changes.

The hash in the index's addresses follows from what a document is made of, so that the index costs nothing; clients
keep documents on disk under that hash.
Source: k8s v1.36 kube-openapi/pkg/handler, kube-openapi/pkg/handler3.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from typing import Any

import attrs
import orjson

import kcp
from kcp.api import openapi_documents, openapi_protobuf
from kcp.api.context import Call
from kcp.api.discovery import cached_response, etag, groups_of
from kcp.api.negotiation import JSON_TYPE, parse_accept
from kcp.apis.kind import Catalog, Kind
from kcp.base.values import frozen
from kcp.machinery.errors import NotAcceptable
from kcp.wire.http import Request, Response

Json = dict[str, Any]

_PROTOBUF_V2 = (
    "com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "com.github.proto-openapi.spec.v2.v1.0+protobuf",
)
GZIP_LEVEL = 1


def no_schema(kind: Kind) -> Json | None:
    del kind
    return None


@frozen
class Body:
    """A document as bytes, plain and compressed, with its ETag."""

    plain: bytes
    packed: bytes
    tag: str

    @classmethod
    def of(cls, plain: bytes) -> Body:
        return cls(plain, gzip.compress(plain, GZIP_LEVEL, mtime=0), etag(plain))

    def response(self, request: Request, content_type: str) -> Response:
        response = cached_response(request, self.plain, self.tag, content_type)
        if response.status == 200 and "gzip" in request.header("accept-encoding"):
            response.body = self.packed
            response.headers.append(("content-encoding", "gzip"))
            response.headers = [
                (k, "Accept, Accept-Encoding" if k == "vary" else v) for k, v in response.headers
            ]
        return response


def _address(name: str, hash: str) -> str:
    return f"/openapi/v3/{name}?hash={hash}"


@attrs.define
class OpenApi:
    catalog: Catalog
    git_version: str
    custom_schema: Callable[[Kind], Json | None] = no_schema
    """Where the schemas of custom kinds come from."""
    _revision: int = -1
    _kinds: dict[str, list[Kind]] = attrs.field(factory=dict)
    _bodies: dict[str, Body] = attrs.field(factory=dict)

    def serve(self, call: Call) -> Response | None:
        """The answer for a path below /openapi; None when there is no such document. Raises NotAcceptable."""
        self._refresh()
        path = call.info.path.rstrip("/")
        if path == "/openapi/v2":
            return self._serve_v2(call.request)
        if path == "/openapi/v3":
            return self._body("index", self._index).response(call.request, JSON_TYPE)
        if path.startswith("/openapi/v3/"):
            return self._serve_v3(call, path.removeprefix("/openapi/v3/"))
        return None

    def _refresh(self) -> None:
        if self._revision == self.catalog.revision:
            return
        self._revision = self.catalog.revision
        self._bodies.clear()
        self._kinds = {
            f"apis/{group}/{version}" if group else f"api/{version}": kinds
            for group, versions in groups_of(self.catalog).items()
            for version, kinds in versions.items()
        }

    def _body(self, name: str, make: Callable[[], bytes]) -> Body:
        body = self._bodies.get(name)
        if body is None:
            body = self._bodies[name] = Body.of(make())
        return body

    def _index(self) -> bytes:
        paths = {name: {"serverRelativeURL": _address(name, self._hash(name))} for name in self._kinds}
        return orjson.dumps({"paths": paths})

    def _hash(self, name: str) -> str:
        """Stands for everything that the document of a group version is made of."""
        made_of = [kcp.__version__, self.git_version]
        for kind in self._kinds[name]:
            schema = self.custom_schema(kind) if kind.custom else None
            row = (kind.gvk, kind.plural, kind.verbs, kind.namespaced, kind.subresources)
            made_of.append(repr(row) + orjson.dumps(schema, option=orjson.OPT_SORT_KEYS).decode())
        return hashlib.sha512("\n".join(made_of).encode()).hexdigest().upper()

    def _serve_v3(self, call: Call, name: str) -> Response | None:
        kinds = self._kinds.get(name)
        if kinds is None:
            return None
        wanted, current = call.params.get("hash"), self._hash(name)
        if wanted and wanted != current:
            return Response(301, [("location", _address(name, current))], b"")
        body = self._body(name, lambda: self._document_3(kinds))
        response = body.response(call.request, JSON_TYPE)
        if wanted:
            response.headers = [
                (key, "public, immutable, max-age=31536000" if key == "cache-control" else value)
                for key, value in response.headers
            ]
        return response

    def _document_3(self, kinds: list[Kind]) -> bytes:
        return orjson.dumps(openapi_documents.version_3(kinds, self.git_version, self.custom_schema))

    def _serve_v2(self, request: Request) -> Response:
        for clause in parse_accept(request.header("accept", "*/*")):
            if clause.type in ("application", "*") and clause.subtype in ("json", "*"):
                return self._body("v2", self._json_2).response(request, JSON_TYPE)
            if clause.type == "application" and clause.subtype in _PROTOBUF_V2:
                return self._body("v2pb", self._protobuf_2).response(request, openapi_protobuf.CONTENT_TYPE)
        accepted = f"{JSON_TYPE}, {openapi_protobuf.CONTENT_TYPE}"
        raise NotAcceptable(f"only the following media types are accepted: {accepted}")

    def _document_2(self) -> Json:
        every = [kind for kinds in self._kinds.values() for kind in kinds]
        return openapi_documents.version_2(every, self.git_version, self.custom_schema)

    def _json_2(self) -> bytes:
        return orjson.dumps(self._document_2())

    def _protobuf_2(self) -> bytes:
        return openapi_protobuf.document(self._document_2())
