"""Plugins that keep pods out of the active queue, and what is said about such a pod after a while.

gates = Gates({"default-scheduler": (gangs,)}, now_us)
queue = SchedulingQueue(…, gate=gates)
for uid in gates.due(now_us): …                 # still kept out: say why
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from kcp.machinery import meta

Json = dict[str, Any]
DEFAULT_PROFILE = "default-scheduler"
MAX_WATCHED = 100_000


class PreEnqueue(Protocol):
    name: str
    patience_us: int
    """How long a pod may be kept out before that is said."""

    def gate(self, pod: Json) -> str:
        """Why the pod must not be tried yet; "" when it may."""
        ...


class Gates:
    """By profile. Owned by the scheduler's task."""

    def __init__(self, plugins: Mapping[str, Sequence[PreEnqueue]], now_us: Callable[[], int]) -> None:
        self._plugins = plugins
        self._now_us = now_us
        self._due: dict[str, tuple[int, str]] = {}
        self._next_us: int | None = None

    def __call__(self, pod: Json) -> tuple[str, str] | None:
        for plugin in self._plugins.get(pod["spec"].get("schedulerName") or DEFAULT_PROFILE, ()):
            why = plugin.gate(pod)
            if why:
                self._watch(meta.uid(pod), why, plugin.patience_us)
                return plugin.name, why
        self._due.pop(meta.uid(pod), None)
        return None

    def _watch(self, uid: str, why: str, patience_us: int) -> None:
        """The clock starts when a reason is new."""
        known = self._due.get(uid)
        if known is not None and known[1] == why:
            return
        if known is None and len(self._due) >= MAX_WATCHED:
            return
        due = self._now_us() + patience_us
        self._due[uid] = (due, why)
        self._next_us = due if self._next_us is None else min(self._next_us, due)

    def forget(self, uid: str) -> None:
        self._due.pop(uid, None)

    def due_us(self) -> int | None:
        """When somebody may have waited long enough; None while nobody waits."""
        return self._next_us

    def due(self, now_us: int) -> list[str]:
        """The pods about which it is time to say why they are kept out; each reason once."""
        if self._next_us is None or now_us < self._next_us:
            return []
        found = [uid for uid, (due, _) in self._due.items() if due and due <= now_us]
        for uid in found:
            self._due[uid] = (0, self._due[uid][1])
        waiting = [due for due, _ in self._due.values() if due]
        self._next_us = min(waiting) if waiting else None
        return found
