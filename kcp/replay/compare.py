"""A divergence, told so that a person sees at once what changed."""

from __future__ import annotations

from typing import Any

import attrs

from kcp.base.clock import moment
from kcp.controllers import effects as fx
from kcp.replay.decisions import Divergence
from kcp.replay.incident import Incident
from kcp.store.history import diff
from kcp.store.protocol import Decision

Json = dict[str, Any]
WIDTH = 56


def report(incident: Incident, divergence: Divergence, code_changed: bool) -> str:
    """The decision, why it was taken, both effects side by side, and the fields in which their objects differ."""
    decision = divergence.decision
    lines = [
        f"first divergence: decision {decision.id} of {decision.controller}",
        f"  key       {decision.key}",
        f"  at        {moment(decision.now_us).isoformat().replace('+00:00', 'Z')}, triggered by {decision.trigger}",
        f"  frontier  {_frontier(divergence.frontier)}",
        f"  because   {_because(incident, decision, divergence.frontier)}",
        f"  code      {'changed since the recording' if code_changed else 'as recorded'}",
        "",
        f"  effect {divergence.index + 1} of {len(decision.effects)}",
    ]
    if divergence.error:
        return "\n".join([*lines, f"  the planner raised {divergence.error}"])
    lines += side_by_side(_lines(divergence.recorded), _lines(divergence.ours))
    lines += [f"  {change}" for change in object_changes(incident, divergence)]
    return "\n".join(lines)


def _frontier(frontier: dict[str, int]) -> str:
    newest = max(frontier.values(), default=0)
    shown = sorted(frontier.items(), key=lambda pair: -pair[1])[:4]
    more = f" and {len(frontier) - len(shown)} more" if len(frontier) > len(shown) else ""
    return f"rv {newest} ({', '.join(f'{r}:{rv}' for r, rv in shown)}{more})"


def _because(incident: Incident, decision: Decision, frontier: dict[str, int]) -> str:
    """The newest event of the frontier: what the caches had just seen, and who had caused it."""
    rv = max((rv for rv in frontier.values() if rv in incident.log.written), default=0)
    record = incident.log.written.get(rv)
    if record is None:
        return "nothing that the log tells"
    event = next(iter(incident.reader.events(after=rv - 1, until=rv)), None)
    if event is None:
        return f"rv {rv}"
    cause = event.cause
    via = f" (decision {cause.decision_id})" if cause.decision_id else ""
    return f"rv {rv} {event.op.name} {record.key} by {cause.actor.username}{via}"


def _lines(effect: Json | None) -> list[str]:
    if effect is None:
        return ["(nothing)"]
    target = "/".join(str(effect[f]) for f in ("resource", "namespace", "name") if effect.get(f))
    head = f"{effect['kind']} {target or effect.get('generateName', '')}".strip()
    lines = [head]
    if effect["kind"] == "All":
        lines += [f"  {_lines(part)[0]}" for part in effect["effects"][:8]]
        if len(effect["effects"]) > 8:
            lines.append(f"  … {len(effect['effects'])} in all")
    lines += [
        f"{name}: {value}"
        for name, value in sorted(effect.get("args", {}).items())
        if name not in ("resource", "namespace", "name")
    ]
    return lines


def side_by_side(left: list[str], right: list[str]) -> list[str]:
    rows = [("recorded", "now"), ("-" * WIDTH, "-" * WIDTH)]
    for index in range(max(len(left), len(right))):
        rows.append((left[index] if index < len(left) else "", right[index] if index < len(right) else ""))
    return [f"  {a[:WIDTH].ljust(WIDTH)} | {b[:WIDTH]}".rstrip() for a, b in rows]


def object_changes(incident: Incident, divergence: Divergence) -> list[str]:
    """Fields in which the object we would write differs from what was written, among those that we would set."""
    ours, recorded = divergence.effect, divergence.recorded
    if ours is None or recorded is None or not recorded.get("rv"):
        return []
    written = incident.log.written.get(recorded["rv"])
    wanted = _object_of(ours)
    if written is None or wanted is None:
        return []
    changes = diff(_restrict(written.value, wanted), wanted)
    return (
        ["", "what was written → what would be written now", *(str(change) for change in changes)]
        if changes
        else []
    )


def _object_of(effect: fx.Effect) -> Json | None:
    if isinstance(effect, (fx.Create, fx.Update)):
        return effect.object
    if isinstance(effect, fx.Status):
        return {"status": effect.status}
    if isinstance(effect, fx.Patch) and isinstance(effect.patch, dict):
        return dict(attrs.asdict(effect, recurse=False)["patch"])
    return None


def _restrict(full: Any, wanted: Any) -> Any:
    """Only the fields of `full` that `wanted` speaks of."""
    if isinstance(full, dict) and isinstance(wanted, dict):
        return {k: _restrict(full[k], wanted[k]) for k in wanted if k in full}
    if isinstance(full, list) and isinstance(wanted, list) and len(full) == len(wanted):
        return [_restrict(a, b) for a, b in zip(full, wanted, strict=True)]
    return full
