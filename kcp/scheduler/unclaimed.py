"""Pods that name a scheduler which is not there: Kubernetes says nothing about them; we do, after a while.

A pod is left alone once any scheduler gave a verdict on it, which its condition PodScheduled tells.
"""

from __future__ import annotations

from typing import Any

import attrs

from kcp.machinery import meta

Json = dict[str, Any]
DELAY_US = 60_000_000
MAX_WATCHED = 10_000


@attrs.define
class Unclaimed:
    """Owned by the scheduler's task. `due` hands each pod out once."""

    _since: dict[str, tuple[int, Json]] = attrs.field(factory=dict)

    def see(self, pod: Json, now_us: int) -> None:
        """A pod of another scheduler is there, or changed."""
        uid = meta.uid(pod)
        if pod["spec"].get("schedulingGates") or meta.condition(pod, "PodScheduled") is not None:
            self._since.pop(uid, None)
        elif uid in self._since:
            self._since[uid] = (self._since[uid][0], pod)
        elif len(self._since) < MAX_WATCHED:
            self._since[uid] = (now_us, pod)

    def forget(self, uid: str) -> None:
        self._since.pop(uid, None)

    def due_us(self) -> int | None:
        first = next(iter(self._since.values()), None)
        return first[0] + DELAY_US if first is not None else None

    def due(self, now_us: int) -> list[Json]:
        """The pods that have waited long enough; they are in the order in which they came."""
        found = []
        while (first := next(iter(self._since.items()), None)) is not None and first[1][
            0
        ] + DELAY_US <= now_us:
            found.append(first[1][1])
            del self._since[first[0]]
        return found


def text_for(pod: Json, serving: list[str]) -> str:
    wanted = pod["spec"].get("schedulerName", "")
    return (
        f'no scheduler named "{wanted}" has looked at the pod for 1m0s; the one that says so serves '
        f"{', '.join(serving)}"
    )
