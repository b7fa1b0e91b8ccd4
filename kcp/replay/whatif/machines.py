"""Which nodes there are in a what-if: `5`, `+3`, `-node-1`, a file with Nodes; several with commas.

New nodes are like the last one of the log, by name: they come when it comes and change as it does until it is ready for the
first time; what befalls it afterwards is its own. What DaemonSets run on that one they run on them. A node of a file is as the file says from the start, whatever the log says
of one of that name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from kcp.apis.semantics import pods, taints
from kcp.base.values import frozen
from kcp.machinery import meta
from kcp.replay.fitting import documents_of
from kcp.replay.whatif.arrivals import Arrivals, Change

Json = dict[str, Any]
LIFECYCLE = "node.kubernetes.io/"
_HOSTNAME = "kubernetes.io/hostname"
_NUMBERED = re.compile(r"(.*?)(\d+)")
Version = tuple[Json | None, Json | None]


@frozen
class Machines:
    """What is to be different. `copies` are made of the node `like`; `given` are those of files, by name."""

    without: frozenset[str] = frozenset()
    given: dict[str, Json] = attrs.field(factory=dict)
    like: str = ""
    copies: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self != Machines()

    @property
    def at_start(self) -> list[Json]:
        return [self.given[name] for name in sorted(self.given)]

    def versions(self, change: Change, ready: set[str]) -> Iterator[Version]:
        """What a change of a node means here: (old, new) of none, one or more nodes. `ready` is kept between calls."""
        name = meta.name(change.object)
        if name == self.like and name not in ready:
            for copy in self.copies:
                yield _copied(change.old, copy), _copied(change.new, copy)
            if change.new is not None and not _in_transition(change.new):
                ready.add(name)
        if name not in self.without and name not in self.given:
            yield change.old, change.new

    def mirrored(self, pod: Json | None) -> list[Json]:
        """For a pod of a DaemonSet that runs on the node `like`: those that the copies of the node have."""
        if pod is None or not self.copies or pods.node_name(pod) != self.like:
            return []
        owner = meta.controller_of(pod)
        if owner is None or owner.get("kind") != "DaemonSet":
            return []
        metadata = pod["metadata"]
        return [
            {
                **pod,
                "metadata": {
                    **metadata,
                    "name": f"{metadata['name']}@{name}",
                    "uid": f"{metadata['uid']}@{name}",
                },
                "spec": {**pod["spec"], "nodeName": name},
            }
            for name in self.copies
        ]


def _in_transition(node: Json) -> bool:
    return any(str(taint.get("key", "")).startswith(LIFECYCLE) for taint in taints.taints(node))


def _copied(node: Json | None, name: str) -> Json | None:
    if node is None:
        return None
    labels = {**meta.labels(node), _HOSTNAME: name}
    return {**node, "metadata": {**node["metadata"], "name": name, "uid": f"whatif/{name}", "labels": labels}}


def parse_machines(texts: Sequence[str], arrivals: Arrivals) -> Machines:
    """Raises ValueError for what cannot be meant."""
    known = node_names(arrivals)
    without: list[str] = []
    given: dict[str, Json] = {}
    more = 0
    for part in filter(None, (part.strip() for text in texts for part in text.split(","))):
        if part.isdecimal():
            more = int(part) - len(known)
            without += known[int(part) :]
        elif part.startswith("+") and part[1:].isdecimal():
            more += int(part[1:])
        elif part.startswith("-") and part[1:] in known:
            without.append(part[1:])
        elif part.startswith("-"):
            raise ValueError(f"there is no node {part[1:]!r} in this part of the log")
        elif Path(part).is_file():
            given |= _nodes_of(Path(part))
        else:
            raise ValueError(f"{part!r} says nothing about nodes: want N, +N, -NAME or a file")
    if more > 0 and not known:
        raise ValueError("the log has no node that new ones could be like")
    like = known[-1] if more > 0 else ""
    return Machines(frozenset(without), given, like, tuple(_names(like, more, known)))


def node_names(arrivals: Arrivals) -> list[str]:
    """Every node that is there at some time, numbers in names ordered as numbers."""
    names = {meta.name(obj) for resource, obj in arrivals.base if resource == "nodes"}
    for item in arrivals.items:
        if isinstance(item, Change) and item.resource == "nodes":
            names.add(meta.name(item.object))
    return sorted(names, key=_natural)


def _natural(name: str) -> tuple[str, int, str]:
    found = _NUMBERED.fullmatch(name)
    return (found[1], int(found[2]), name) if found else (name, -1, name)


def _names(like: str, count: int, taken: Sequence[str]) -> Iterator[str]:
    """They go on counting."""
    found = _NUMBERED.fullmatch(like)
    stem, number = (found[1], int(found[2])) if found else (f"{like}-", 1)
    while count > 0:
        number += 1
        if f"{stem}{number}" not in taken:
            count -= 1
            yield f"{stem}{number}"


def _nodes_of(path: Path) -> dict[str, Json]:
    """A node of a file is complete: what it does not say, it does not have. `capacity` stands in for `allocatable`."""
    found = {}
    for document in documents_of(path.read_text(encoding="utf-8")):
        name = (document.get("metadata") or {}).get("name")
        if document["kind"] != "Node" or not name:
            raise ValueError(f"{path}: want Nodes with names, not {document['kind']}")
        status = document.get("status") or {}
        room = status.get("allocatable") or status.get("capacity")
        if not room:
            raise ValueError(f"{path}: node {name!r} has no status.allocatable")
        labels = {_HOSTNAME: name, **meta.labels(document)}
        metadata = {**document["metadata"], "labels": labels, "uid": f"whatif/{name}"}
        found[name] = {
            **document,
            "metadata": metadata,
            "spec": document.get("spec") or {},
            "status": {**status, "allocatable": room},
        }
    return found
