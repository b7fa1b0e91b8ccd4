"""References to container images: `image("registry.k8s.io/pause:3.10").tag()`.

Source: k8s v1.36 apiserver/pkg/cel/library/image.go; github.com/google/go-containerregistry pkg/name.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

from kcp.base.values import frozen
from kcp.machinery.cel.functions import Functions, member, overload, walk
from kcp.machinery.cel.types import BOOL, STRING, opaque
from kcp.machinery.cel.values import CelError

IMAGE: Final = opaque("kubernetes.Image")
_HUB: Final = "index.docker.io"
_REPOSITORY: Final = re.compile(r"[a-z0-9_\-./]{2,255}", re.ASCII)
_TAG: Final = re.compile(r"[A-Za-z0-9_\-.]{1,128}", re.ASCII)
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_REGISTRY: Final = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(?::[0-9]+)?", re.ASCII)


@frozen
class Image:
    cel_type: ClassVar[str] = "kubernetes.Image"
    registry: str
    repository: str
    tag: str
    digest: str


def parse_image(text: str) -> Image:
    """Raises CelError."""
    found = _parse(text)
    if found is None:
        raise CelError(f"could not parse reference: {text}")
    return found


def _parse(text: str) -> Image | None:
    name, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        return None
    head, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        head, tag = name, ""
    elif not _TAG.fullmatch(tag):
        return None
    registry, slash, repository = head.partition("/")
    if not slash or not (any(mark in registry for mark in ".:") or registry == "localhost"):
        registry, repository = _HUB, head
    if (
        not _REGISTRY.fullmatch(registry)
        or not _REPOSITORY.fullmatch(repository)
        or "" in repository.split("/")
    ):
        return None
    if registry == _HUB and "/" not in repository:
        repository = f"library/{repository}"
    return Image(registry, repository, "" if digest else tag or "latest", digest)


LIBRARY: Final[Functions] = {
    "image": (overload("string_to_image", (STRING,), IMAGE, parse_image, walk),),
    "isImage": (overload("is_image_string", (STRING,), BOOL, lambda text: _parse(text) is not None, walk),),
    "containsDigest": (member("image_contains_digest", (IMAGE,), BOOL, lambda image: bool(image.digest)),),
    "registry": (member("image_registry", (IMAGE,), STRING, lambda image: image.registry),),
    "repository": (member("image_repository", (IMAGE,), STRING, lambda image: image.repository),),
    "identifier": (member("image_identifier", (IMAGE,), STRING, lambda image: image.digest or image.tag),),
    "tag": (member("image_tag", (IMAGE,), STRING, lambda image: image.tag),),
    "digest": (member("image_digest", (IMAGE,), STRING, lambda image: image.digest),),
}
