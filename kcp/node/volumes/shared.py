"""What the containers of a simulated pod leave for each other in its empty volumes.

A container finds what those before it have written; what it writes itself is there for those that start later.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kcp.node.environment import expand

Json = dict[str, Any]
Contents = dict[str, dict[str, str]]
"""By volume: path in it -> content."""
MODE = 0o644


def found(
    contents: Contents, pod: Json, container: Json, variables: Mapping[str, str]
) -> dict[str, tuple[str, int]]:
    """The files that lie in the container's mounts of empty volumes."""
    files: dict[str, tuple[str, int]] = {}
    for volume, at, inside in _mounts(pod, container, variables):
        start = f"{inside}/" if inside else ""
        for path, content in contents.get(volume, {}).items():
            if path.startswith(start):
                files[posixpath.join(at, path[len(start) :])] = content, MODE
    return files


def leave(
    contents: Contents,
    pod: Json,
    container: Json,
    variables: Mapping[str, str],
    written: Sequence[tuple[str, str]],
) -> None:
    """Keep what was written into mounts of empty volumes."""
    if not written:
        return
    for volume, at, inside in _mounts(pod, container, variables):
        for path, content in written:
            if path.startswith(f"{at}/"):
                name = posixpath.join(inside, path[len(at) + 1 :])
                contents.setdefault(volume, {})[name] = content


def _mounts(pod: Json, container: Json, variables: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """(volume, path of the mount, path in the volume)"""
    mounts = container.get("volumeMounts") or ()
    if not mounts:
        return
    empty = {volume["name"] for volume in pod["spec"].get("volumes") or () if "emptyDir" in volume}
    for mount in mounts:
        if mount["name"] in empty:
            inside = mount.get("subPath") or expand(mount.get("subPathExpr") or "", variables)
            yield mount["name"], mount["mountPath"].rstrip("/"), inside.strip("/")
