"""What the server serves: /api, /apis and below, legacy and aggregated, made from the catalog.

Documents are built once per revision of the catalog and kept as bytes with their ETag.
Source: k8s v1.36 apiserver/pkg/endpoints/discovery, apiserver/pkg/endpoints/discovery/aggregated.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import attrs
import orjson

from kcp.api.negotiation import JSON_TYPE, YAML_TYPE, choose_format, parse_accept
from kcp.apis.kind import Catalog, Kind, Subresource
from kcp.base.values import frozen
from kcp.machinery.codec.yaml import encode_yaml
from kcp.machinery.gvk import GroupVersion, GroupVersionKind
from kcp.wire.http import Request, Response

Json = dict[str, Any]

AGGREGATED_VERSIONS = ("v2", "v2beta1")
_STORAGE_VERSIONS: dict[tuple[str, str], str] = {
    ("events.k8s.io", "Event"): "/v1/Event",
    ("autoscaling", "HorizontalPodAutoscaler"): "autoscaling/v2/HorizontalPodAutoscaler",
    (
        "apiextensions.k8s.io",
        "CustomResourceDefinition",
    ): "apiextensions.k8s.io/v1beta1/CustomResourceDefinition",
    (
        "admissionregistration.k8s.io",
        "MutatingAdmissionPolicy",
    ): "admissionregistration.k8s.io/v1beta1/MutatingAdmissionPolicy",
    (
        "admissionregistration.k8s.io",
        "MutatingAdmissionPolicyBinding",
    ): "admissionregistration.k8s.io/v1beta1/MutatingAdmissionPolicyBinding",
}
"""Where Kubernetes stores another version than it serves; clients compare the hash of the text."""


def storage_version_hash(kind: Kind) -> str:
    """Empty for kinds that are not stored."""
    if not kind.stored or "list" not in kind.verbs or kind.kind == "ComponentStatus":
        return ""
    own = f"{kind.group}/{kind.version}/{kind.kind}"
    text = _STORAGE_VERSIONS.get((kind.group, kind.kind), own)
    return base64.b64encode(hashlib.sha256(text.encode()).digest()[:8]).decode()


def etag(body: bytes) -> str:
    return f'"{hashlib.sha512(body).hexdigest().upper()}"'


def cached_response(request: Request, body: bytes, tag: str, content_type: str) -> Response:
    """The body, or 304 when the client has it already."""
    headers = [("etag", tag), ("vary", "Accept"), ("cache-control", "public")]
    if tag in request.header("if-none-match"):
        return Response(304, headers)
    return Response(200, [("content-type", content_type), *headers], body)


@frozen
class _Documents:
    """Everything about one revision of the catalog: path -> legacy document; root -> aggregated (body, etag)."""

    revision: int
    group_versions: frozenset[GroupVersion]
    legacy: dict[str, bytes]
    aggregated: dict[tuple[str, str], tuple[bytes, str]]


@attrs.define
class Discovery:
    catalog: Catalog
    address: str
    """host:port that clients of any network should use."""
    _documents: _Documents | None = None

    def serves(self, group: str, version: str) -> bool:
        return GroupVersion(group, version) in self._current().group_versions

    def paths(self) -> list[str]:
        """The discovery paths there are, for the list at `/`."""
        return list(self._current().legacy)

    def serve(self, request: Request) -> Response | None:
        """The answer for a discovery path; None when there is no such group or version.

        Raises NotAcceptable.
        """
        documents = self._current()
        path = request.path.rstrip("/")
        if path in ("/api", "/apis"):
            version = _aggregated_version(request)
            if version:
                body, tag = documents.aggregated[path, version]
                kind = f"{JSON_TYPE};g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
                return cached_response(request, body, tag, kind)
        form = choose_format(request)
        found = documents.legacy.get(path)
        if found is None:
            return None
        if form.media == "yaml":
            return Response(200, [("content-type", YAML_TYPE)], encode_yaml(orjson.loads(found)))
        return Response(200, [("content-type", JSON_TYPE)], found)

    def _current(self) -> _Documents:
        documents = self._documents
        if documents is None or documents.revision != self.catalog.revision:
            documents = self._documents = _build(self.catalog, self.address)
        return documents


def _aggregated_version(request: Request) -> str:
    """The version of the aggregated form that the client likes best; "" when it prefers the legacy form."""
    for clause in parse_accept(request.header("accept")):
        if clause.param("as") == "APIGroupDiscoveryList":
            version = clause.param("v")
            if clause.param("g") == "apidiscovery.k8s.io" and version in AGGREGATED_VERSIONS:
                return version
        elif not clause.params and clause.subtype in ("json", "yaml", "*"):
            return ""
    return ""


Groups = dict[str, dict[str, list[Kind]]]
"""group -> version -> kinds, all in order of priority."""


def groups_of(catalog: Catalog) -> Groups:
    groups: Groups = {}
    for kind in catalog.kinds():
        groups.setdefault(kind.group, {}).setdefault(kind.version, []).append(kind)
    return groups


def _build(catalog: Catalog, address: str) -> _Documents:
    groups = groups_of(catalog)
    named = {group: versions for group, versions in groups.items() if group}
    core = groups.get("", {})
    legacy = {
        "/api": _encode(_api_versions(list(core), address)),
        "/apis": _encode(_group_list(named)),
    }
    for group, versions in groups.items():
        if group:
            legacy[f"/apis/{group}"] = _encode(
                {"kind": "APIGroup", "apiVersion": "v1", **_group(group, list(versions))}
            )
        for version, kinds in versions.items():
            path = f"/apis/{group}/{version}" if group else f"/api/{version}"
            legacy[path] = _encode(_resource_list(GroupVersion(group, version), kinds))
    aggregated: dict[tuple[str, str], tuple[bytes, str]] = {}
    for version in AGGREGATED_VERSIONS:
        for root, chosen in (("/api", {"": core}), ("/apis", named)):
            body = _encode(_aggregated(chosen, version))
            aggregated[root, version] = (body, etag(body))
    known = frozenset(
        GroupVersion(group, version) for group, versions in groups.items() for version in versions
    )
    return _Documents(catalog.revision, known, legacy, aggregated)


def _encode(value: Json) -> bytes:
    return orjson.dumps(value)


def _api_versions(versions: list[str], address: str) -> Json:
    return {
        "kind": "APIVersions",
        "versions": versions,
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def _group_list(groups: Groups) -> Json:
    rows = [_group(group, list(versions)) for group, versions in groups.items()]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": rows}


def _group(group: str, versions: list[str]) -> Json:
    rows = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"name": group, "versions": rows, "preferredVersion": rows[0]}


def _resource_list(served: GroupVersion, kinds: list[Kind]) -> Json:
    rows: list[Json] = []
    for kind in kinds:
        rows.append(_resource(kind))
        rows.extend(_subresource(kind, sub) for sub in kind.subresources)
    rows.sort(key=lambda row: str(row["name"]))
    head: Json = {"kind": "APIResourceList"}
    if served.group:
        head["apiVersion"] = "v1"
    return {**head, "groupVersion": str(served), "resources": rows}


def _resource(kind: Kind) -> Json:
    row: Json = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": sorted(kind.verbs),
    }
    if kind.short_names:
        row["shortNames"] = list(kind.short_names)
    if kind.categories:
        row["categories"] = list(kind.categories)
    if version_hash := storage_version_hash(kind):
        row["storageVersionHash"] = version_hash
    return row


def _subresource(kind: Kind, sub: Subresource) -> Json:
    row: Json = {"name": f"{kind.plural}/{sub.name}", "singularName": "", "namespaced": kind.namespaced}
    answer = sub.kind or kind.gvk
    if answer.group_version != kind.gvk.group_version:
        row |= {"group": answer.group, "version": answer.version}
    return {**row, "kind": answer.kind, "verbs": sorted(sub.verbs)}


def _aggregated(groups: Groups, version: str) -> Json:
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": [
            {
                "metadata": {"name": group, "creationTimestamp": None}
                if group
                else {"creationTimestamp": None},
                "versions": [_aggregated_version_row(name, kinds) for name, kinds in versions.items()],
            }
            for group, versions in groups.items()
        ],
    }


def _aggregated_version_row(version: str, kinds: list[Kind]) -> Json:
    ordered = sorted(kinds, key=lambda kind: kind.plural)
    return {
        "version": version,
        "resources": [_aggregated_resource(kind) for kind in ordered],
        "freshness": "Current",
    }


def _aggregated_resource(kind: Kind) -> Json:
    row: Json = {
        "resource": kind.plural,
        "responseKind": _response_kind(kind.gvk, kind),
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": sorted(kind.verbs),
    }
    if kind.short_names:
        row["shortNames"] = list(kind.short_names)
    if kind.categories:
        row["categories"] = list(kind.categories)
    if kind.subresources:
        row["subresources"] = [
            {
                "subresource": sub.name,
                "responseKind": _response_kind(sub.kind or kind.gvk, kind),
                "verbs": sorted(sub.verbs),
            }
            for sub in kind.subresources
        ]
    return row


def _response_kind(answer: GroupVersionKind, kind: Kind) -> Json:
    """Empty group and version stand for those of the document; only foreign kinds are spelled out."""
    if answer.group_version == kind.gvk.group_version:
        return {"group": "", "version": "", "kind": answer.kind}
    return {"group": answer.group, "version": answer.version, "kind": answer.kind}
