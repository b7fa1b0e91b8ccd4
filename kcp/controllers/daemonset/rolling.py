"""RollingUpdate: replace old pods within maxUnavailable, or beside themselves within maxSurge.

Source: k8s v1.36 pkg/controller/daemon/update.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from kcp.controllers.daemonset.manage import Rollcall
from kcp.controllers.daemonset.nodes import is_updated
from kcp.machinery import meta

Json = dict[str, Any]
Pair = tuple[Json | None, Json | None]
"""(new pod, old pod) of a node"""


def roll(call: Rollcall) -> tuple[list[str], list[Json]]:
    """(nodes to create a new pod on, old pods to delete)"""
    surge, unavailable = call.limits()
    return _surge(call, surge) if surge else ([], _replace(call, unavailable))


def _pairs(call: Rollcall) -> Iterator[tuple[str, Pair | None]]:
    """Every node that has or should have pods; None where there are too many to tell."""
    for node in call.nodes:
        name = meta.name(node)
        present = call.pods.get(name)
        if present is not None or call.judged[name][0]:
            yield name, _pair(call, present or ())


def _pair(call: Rollcall, present: Sequence[Json]) -> Pair | None:
    staying = [pod for pod in present if not meta.is_deleting(pod)]
    new = [pod for pod in staying if is_updated(call.daemon_set, pod, call.hash)]
    old = [pod for pod in staying if pod not in new]
    if len(new) > 1 or len(old) > 1:
        return None
    return (new[0] if new else None), (old[0] if old else None)


def _replace(call: Rollcall, max_unavailable: int) -> list[Json]:
    """Old pods that are no use go at once; others as far as availability allows."""
    unavailable = 0
    allowed: list[Json] = []
    candidates: list[Json] = []
    for _, pair in _pairs(call):
        new, old = pair if pair is not None else (None, None)
        if new is not None and old is None:
            unavailable += not call.is_available(new)
        elif old is None or new is not None:
            unavailable += 1
        elif not call.is_available(old):
            allowed.append(old)
            unavailable += 1
        else:
            candidates.append(old)
    return allowed + candidates[: max(0, max_unavailable - unavailable)]


def _surge(call: Rollcall, max_surge: int) -> tuple[list[str], list[Json]]:
    """New pods beside old ones that are available, at most `max_surge`; beside others at once."""
    surging, available = 0, 0
    delete: list[Json] = []
    misplaced: list[Json] = []
    allowed: list[str] = []
    candidates: list[str] = []
    for name, pair in _pairs(call):
        if pair is None:
            surging += 1
            continue
        new, old = pair
        shown = old or new
        available += shown is not None and call.is_available(shown)
        if old is None:
            continue
        if new is not None:
            if call.is_available(new):
                delete.append(old)
            else:
                surging += 1
            continue
        runs, useful = call.judged[name][0], call.is_available(old)
        if runs:
            (candidates if useful else allowed).append(name)
        else:
            (misplaced if useful else delete).append(old)
    # A pod on a node that no longer fits goes only when enough others are available.
    delete += misplaced[: max(0, available - call.desired)]
    return allowed + candidates[: max(0, max_surge - surging)], delete
