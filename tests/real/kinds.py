"""One small object of every kind of Kubernetes that can be created, and where each is served."""

from __future__ import annotations

import functools
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any

import attrs
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from tests.real.https import Api

FILE = Path(__file__).with_name("ga_kinds.yaml")


@functools.cache
def signing_request() -> str:
    """A certificate signing request, as the API carries it."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "jane")])
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .sign(ec.generate_private_key(ec.SECP256R1()), SHA256())
    )
    return b64encode(request.public_bytes(Encoding.PEM)).decode()


def samples(namespace: str) -> list[dict[str, Any]]:
    text = Template(FILE.read_text(encoding="utf-8")).substitute(
        namespace=namespace, request=signing_request()
    )
    return list(yaml.safe_load_all(text))


def identity(sample: dict[str, Any]) -> str:
    return f"{sample['apiVersion']}/{sample['kind']}"


@attrs.frozen
class Served:
    """One resource of one version, as discovery tells it."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool
    verbs: frozenset[str]

    def path(self, namespace: str) -> str:
        root = "/api/" if "/" not in self.api_version else "/apis/"
        middle = f"/namespaces/{namespace}" if self.namespaced else ""
        return f"{root}{self.api_version}{middle}/{self.plural}"


def served(api: Api) -> Iterator[Served]:
    """Every resource of every served version; no subresources."""
    versions = ["v1"]
    for group in api.get("/apis")["groups"]:
        versions += [version["groupVersion"] for version in group["versions"]]
    for version in versions:
        root = "/api/" if version == "v1" else "/apis/"
        for row in api.get(f"{root}{version}")["resources"]:
            if "/" not in row["name"]:
                yield Served(version, row["kind"], row["name"], row["namespaced"], frozenset(row["verbs"]))
