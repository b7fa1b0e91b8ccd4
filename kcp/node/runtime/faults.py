"""What a simulated pod is told to suffer, by annotations.

| annotation | value | meaning |
|---|---|---|
| `sim.kcp/exit.<container>` | `CODE[@DURATION][*TIMES]` | exit with CODE, DURATION after each start (the first TIMES starts) |
| `sim.kcp/oom.<container>` | `DURATION[*TIMES]` | killed for want of memory: OOMKilled, 137 |
| `sim.kcp/pull.<container>` | `fail[*TIMES]`, `hang` or DURATION | image pulls fail, never end, or take that long |
| `sim.kcp/start.<container>` | `fail[*TIMES]` or DURATION | StartError, or a slow start |
| `sim.kcp/stop.<container>` | `never` or DURATION | how long it goes on after TERM (`never`: until KILL) |
| `sim.kcp/<kind>.<container>` | `pass|fail[@DURATION],…` | answers of its readiness, liveness or startup probe since its start |
| `sim.kcp/sandbox` | `fail[*TIMES]`, `hang` or DURATION | the same for the pod's sandbox |

Without `.<container>` it holds for every container that has none of its own. Durations are Go's. A value that cannot be read is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

from kcp.base.values import frozen
from kcp.machinery.times import parse_go_duration

PREFIX = "sim.kcp/"
HANG_S = 365 * 86400.0
_EXIT = re.compile(r"([0-9]+)(?:@([^*]+))?(?:\*([0-9]+))?", re.ASCII).fullmatch
_TIMES = re.compile(r"(.*?)(?:\*([0-9]+))?", re.ASCII).fullmatch


@frozen
class Trouble:
    """`fails`: refused; else it takes `takes_s`. Holds for the first `times` tries, None for all."""

    fails: bool
    takes_s: float = 0.0
    times: int | None = None


@frozen
class End:
    """An exit `after_s` seconds after the start."""

    exit_code: int
    after_s: float
    reason: str = ""
    times: int | None = None


@attrs.define(slots=True)
class Faults:
    """The faults of one pod; counts how often each was used."""

    annotations: Mapping[str, str]
    _used: dict[str, int] = attrs.field(factory=dict)

    def _value(self, what: str, container: str) -> str | None:
        found = self.annotations.get(f"{PREFIX}{what}.{container}")
        return found if found is not None else self.annotations.get(PREFIX + what)

    def _spend(self, key: str, times: int | None) -> bool:
        """Whether the fault holds once more."""
        used = self._used.get(key, 0)
        if times is not None and used >= times:
            return False
        self._used[key] = used + 1
        return True

    def end(self, container: str) -> End | None:
        """How this start of the container ends, when it is told to."""
        for what in ("exit", "oom"):
            end = _end(what, self._value(what, container))
            if end is not None and self._spend(f"{what}.{container}", end.times):
                return end
        return None

    def trouble(self, what: str, container: str = "") -> Trouble | None:
        text = self._value(what, container) if container else self.annotations.get(PREFIX + what)
        trouble = _trouble(text)
        if trouble is None or not self._spend(f"{what}.{container}", trouble.times):
            return None
        return trouble

    def stop_s(self, container: str) -> float:
        """Seconds that the container goes on after it was asked to end."""
        text = self._value("stop", container)
        if text is None:
            return 0.0
        return HANG_S if text == "never" else _seconds(text) or 0.0

    def answer(self, kind: str, container: str, age_s: float) -> tuple[bool, bool] | None:
        """(passes, stays so) of a probe of a container of that age; None when nothing is said about it."""
        text = self._value(kind, container)
        if text is None:
            return None
        passes, steady = True, True
        for part in text.split(","):
            word, _, after = part.strip().partition("@")
            since_s = _seconds(after) if after else 0.0
            if since_s is None or word not in ("pass", "fail"):
                continue
            if since_s <= age_s:
                passes = word == "pass"
            else:
                steady = False
        return passes, steady


def faults_of(annotations: Mapping[str, str] | None) -> Faults | None:
    """None for the many pods that have none."""
    if not annotations:
        return None
    own = {key: value for key, value in annotations.items() if key.startswith(PREFIX)}
    return Faults(own) if own else None


def _seconds(text: str) -> float | None:
    try:
        return parse_go_duration(text)
    except ValueError:
        return None


def _end(what: str, text: str | None) -> End | None:
    if text is None:
        return None
    if what == "oom":
        match = _TIMES(text)
        after_s = _seconds(match.group(1)) if match else None
        if match is None or after_s is None:
            return None
        return End(137, after_s, "OOMKilled", int(match.group(2)) if match.group(2) else None)
    match = _EXIT(text)
    after_s = _seconds(match.group(2) or "0") if match else None
    if match is None or after_s is None:
        return None
    return End(int(match.group(1)) & 255, after_s, "", int(match.group(3)) if match.group(3) else None)


def _trouble(text: str | None) -> Trouble | None:
    match = _TIMES(text) if text else None
    if match is None:
        return None
    word, times = match.group(1), int(match.group(2)) if match.group(2) else None
    if word == "fail":
        return Trouble(True, times=times)
    if word == "hang":
        return Trouble(False, HANG_S, times)
    takes_s = _seconds(word)
    return None if takes_s is None else Trouble(False, takes_s, times)
