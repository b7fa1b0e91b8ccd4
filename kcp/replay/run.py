"""Re-makes everything a log recorded, whoever decided it: controllers and schedulers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kcp.controllers.table import CONTROLLERS, OFF_BY_DEFAULT
from kcp.replay.decisions import Result, replay
from kcp.replay.incident import Incident
from kcp.replay.scheduling import replay_scheduler


def remake_all(incident: Incident, only: Sequence[str] = ()) -> Iterator[Result]:
    """Results in a fixed order: controllers in the order of their table, then schedulers by name.

    Raises ValueError for a name that the log does not have.
    """
    unknown = sorted(set(only) - set(incident.controllers))
    if unknown:
        raise ValueError(
            f"the log has no decisions of {', '.join(unknown)}; it has {', '.join(incident.controllers)}"
        )
    known = {c.name: c for c in (*CONTROLLERS, *OFF_BY_DEFAULT)}
    chosen = {name: c for name, c in known.items() if not only or name in only}
    yield from replay(incident, chosen)
    for name in incident.controllers:
        if name not in known and (not only or name in only):
            yield from replay_scheduler(incident, name)
