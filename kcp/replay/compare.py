"""A divergence, told so that a person sees at once what changed."""

from __future__ import annotations

from typing import Any

import attrs

from kcp import __version__
from kcp.base.clock import moment
from kcp.controllers import effects as fx
from kcp.controllers.sources import Self
from kcp.controllers.table import by_name
from kcp.machinery import meta
from kcp.replay.causes import NoSuchObject, why
from kcp.replay.decisions import Divergence
from kcp.replay.incident import Incident
from kcp.store import history
from kcp.store.history import diff
from kcp.store.protocol import Decision, Event, Key, StoreError

Json = dict[str, Any]
WIDTH = 56


def report(incident: Incident, divergence: Divergence, code_changed: bool) -> str:
    """The decision, why it was taken, both effects side by side, and the fields in which their objects differ."""
    decision = divergence.decision
    lines = [
        f"first divergence: decision {decision.id} of {decision.controller}",
        *(f"  {line}" for line in about(incident, decision, divergence.frontier)),
        f"  code      {_code(incident, code_changed)}",
        f"  settings  {_settings(incident, decision)}",
        "",
        f"  effect {divergence.index + 1} of {len(decision.effects)}",
    ]
    if divergence.error:
        return "\n".join([*lines, f"  the planner raised {divergence.error}"])
    lines += side_by_side(effect_lines(divergence.recorded), effect_lines(divergence.ours))
    lines += [f"  {change}" for change in object_changes(incident, divergence)]
    return "\n".join(lines)


def about(incident: Incident, decision: Decision, frontier: dict[str, int]) -> list[str]:
    """Which key, when, on what it was decided, and the chain of causes back to who asked for it."""
    lines = [
        f"key       {decision.key}",
        f"at        {_time(decision.now_us)}, triggered by {decision.trigger}",
        f"frontier  {_frontier(frontier)}",
        f"because   {_because(incident, frontier)}",
    ]
    return lines + [f"          {line}" for line in chain(incident, decision, frontier)]


def summary(divergence: Divergence) -> str:
    """How a decision differs, without saying which: the name of a group."""
    if divergence.error:
        return f"raised {divergence.error.partition('(')[0]}"
    ours, recorded = _kind(divergence.ours), _kind(divergence.recorded)
    return f"{recorded} says something else" if ours == recorded else f"{recorded} then, {ours} now"


def _kind(effect: Json | None) -> str:
    if effect is None:
        return "nothing"
    return " ".join(str(effect[name]) for name in ("kind", "resource") if effect.get(name))


def chain(incident: Incident, decision: Decision, frontier: dict[str, int]) -> list[str]:
    """Why the object that a decision is about was as it was then: a line per change, newest first."""
    subject = _subject(incident, decision, frontier)
    if subject is None or not incident.place:
        return []
    try:
        with history.reader(incident.place) as connection:
            story = why(connection, *subject, at=max(frontier.values()))
    except (NoSuchObject, StoreError):
        return []
    lines = [f"rv {link.rv}  {_time(link.ts_us)}  {link.who} {link.what}" for link in story.links]
    return [*lines, story.missing] if story.missing else lines


def _subject(incident: Incident, decision: Decision, frontier: dict[str, int]) -> tuple[str, str, str] | None:
    """(resource, namespace, name) of the object that the key names; else of the newest that the caches had seen."""
    namespace, name = meta.split_key(decision.key) if decision.key.count("/") <= 1 else ("", "")
    try:
        sources = by_name(decision.controller).watches.values()
        own = next((source.resource for source in sources if isinstance(source, Self)), "")
    except KeyError:
        own = "pods"
    if own and name:
        return own, namespace, name
    event = _newest(incident, frontier)
    return None if event is None else (event.key.resource, event.key.namespace, event.key.name)


def _newest(incident: Incident, frontier: dict[str, int]) -> Event | None:
    found = (incident.log.event(rv) for rv in sorted(set(frontier.values()), reverse=True))
    return next((event for event in found if event is not None), None)


def _time(ts_us: int) -> str:
    return moment(ts_us).isoformat().replace("+00:00", "Z")


def _code(incident: Incident, changed: bool) -> str:
    if not changed:
        return "as recorded"
    written_by = getattr(incident.reader, "about", {}).get("kcp_version", "")
    return f"changed since the recording{f', which kcp {written_by} exported' if written_by else ''}; this is kcp {__version__}"


def _settings(incident: Incident, decision: Decision) -> str:
    """Those of the recording are used; what this version would set by itself and differs is named."""
    try:
        controller = by_name(decision.controller)
    except KeyError:
        return "those of the recording"
    used = incident.settings_of(decision, controller)
    other = [
        f"{name} {used[name]!r}, by default {default!r}"
        for name, default in sorted(controller.settings.items())
        if name != "resources" and used.get(name) != default
    ]
    return f"those of the recording{': ' if other else ''}{'; '.join(other)[:200]}"


def _frontier(frontier: dict[str, int]) -> str:
    newest = max(frontier.values(), default=0)
    shown = sorted(frontier.items(), key=lambda pair: -pair[1])[:4]
    more = f" and {len(frontier) - len(shown)} more" if len(frontier) > len(shown) else ""
    return f"rv {newest} ({', '.join(f'{r}:{rv}' for r, rv in shown)}{more})"


def _because(incident: Incident, frontier: dict[str, int]) -> str:
    """The newest event of the frontier: what the caches had just seen, and who had caused it."""
    event = _newest(incident, frontier)
    if event is None:
        return "nothing that the log tells"
    cause = event.cause
    via = f" (decision {cause.decision_id})" if cause.decision_id else ""
    return f"rv {event.rv} {event.op.name} {event.key} by {cause.actor.username}{via}"


def effect_lines(effect: Json | None) -> list[str]:
    """What an effect does, for people."""
    if effect is None:
        return ["(nothing)"]
    target = "/".join(str(effect[f]) for f in ("resource", "namespace", "name") if effect.get(f))
    head = f"{effect['kind']} {target or effect.get('generateName', '')}".strip()
    lines = [head]
    if effect["kind"] == "All":
        lines += [f"  {effect_lines(part)[0]}" for part in effect["effects"][:8]]
        if len(effect["effects"]) > 8:
            lines.append(f"  … {len(effect['effects'])} in all")
    lines += [
        f"{name}: {value}"
        for name, value in sorted(effect.get("args", {}).items())
        if name not in ("resource", "namespace", "name")
    ]
    return lines


def side_by_side(
    left: list[str], right: list[str], titles: tuple[str, str] = ("recorded", "now")
) -> list[str]:
    rows = [titles, ("-" * WIDTH, "-" * WIDTH)]
    for index in range(max(len(left), len(right))):
        rows.append((left[index] if index < len(left) else "", right[index] if index < len(right) else ""))
    return [f"  {a[:WIDTH].ljust(WIDTH)} | {b[:WIDTH]}".rstrip() for a, b in rows]


def object_changes(incident: Incident, divergence: Divergence) -> list[str]:
    """Fields in which the object we would write differs from what was written, or else from what was there then."""
    ours, recorded = divergence.effect, divergence.recorded
    wanted = None if ours is None else _object_of(ours)
    if wanted is None:
        return []
    if recorded is not None and recorded.get("rv"):
        written = incident.log.written.get(recorded["rv"])
        return _differences("what was written", None if written is None else written.value, wanted)
    return _differences("what was there", _there(incident, divergence), wanted)


def _there(incident: Incident, divergence: Divergence) -> Json | None:
    target = divergence.ours or {}
    if not target.get("resource") or not target.get("name"):
        return None
    rv = divergence.frontier.get(target["resource"], 0)
    key = Key(target["resource"], target.get("namespace", ""), target["name"])
    record = incident.reader.get_at(key, rv) if rv else None
    return None if record is None else record.value


def _differences(title: str, before: Json | None, wanted: Json) -> list[str]:
    if before is None:
        return []
    changes = [str(change) for change in diff(part_of(before, wanted), wanted)]
    return ["", f"{title} → what would be written now", *changes] if changes else []


def _object_of(effect: fx.Effect) -> Json | None:
    if isinstance(effect, (fx.Create, fx.Update)):
        return effect.object
    if isinstance(effect, fx.Status):
        return {"status": effect.status}
    if isinstance(effect, fx.Patch) and isinstance(effect.patch, dict):
        return dict(attrs.asdict(effect, recurse=False)["patch"])
    return None


def part_of(full: Any, wanted: Any) -> Any:
    """Only the fields of `full` that `wanted` speaks of."""
    if isinstance(full, dict) and isinstance(wanted, dict):
        return {k: part_of(full[k], wanted[k]) for k in wanted if k in full}
    if isinstance(full, list) and isinstance(wanted, list) and len(full) == len(wanted):
        return [part_of(a, b) for a, b in zip(full, wanted, strict=True)]
    return full
