"""What was inferred about an imported log, told: a line per controller, and each decision that would have been another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kcp.base.clock import moment
from kcp.controllers import effects as fx
from kcp.replay.incident import Incident
from kcp.replay.inferred import Inference, Planned, by_controller, imported_from, infer, target_of
from kcp.store.protocol import Event, Op

WIDTH = 56
SHOWN = 3
"""So many decisions of a controller are shown unless all are wanted."""
LINES = 12
_VERBS = {Op.ADDED: "created", Op.MODIFIED: "changed", Op.DELETED: "removed"}


def told(incident: Incident, only: Sequence[str] = (), *, everything: bool = False) -> Iterator[str]:
    """Paragraphs. Empty for a log of kcp itself."""
    title = imported_from(incident)
    if not title:
        return
    yield (
        f"This log was imported ({title}): nobody recorded how its changes were decided, so nothing can be re-made.\n"
        "What follows is inferred: which writes belong to one decision, and what kcp's controller would have decided on all\n"
        "that the log had just before the first of them. The caches of then may have been older."
    )
    found = by_controller(list(infer(incident, only)))
    if not found:
        yield "No write in it is of a controller that kcp knows, by user name or user agent."
        return
    yield "\n".join(_count(name, members) for name, members in found.items())
    for members in found.values():
        yield from _others(members, len(members) if everything else SHOWN)


def _count(name: str, members: Sequence[Inference]) -> str:
    counts = {verdict: sum(1 for each in members if each.verdict == verdict) for verdict in _WORDS}
    words = [f"{count} {_WORDS[verdict]}" for verdict, count in counts.items() if count]
    return f"{name}: {len(members)} inferred decision{'s' if len(members) > 1 else ''}: {', '.join(words)}"


_WORDS = {
    "same": "kcp would have decided the same",
    "older": "the same on an older cache",
    "other": "something else",
    "unclear": "cannot be told",
}


def _others(members: Sequence[Inference], limit: int) -> Iterator[str]:
    for verdict in ("other", "unclear"):
        chosen = [each for each in members if each.verdict == verdict]
        for each in chosen[:limit]:
            yield "\n".join(_paragraph(each))
        if len(chosen) > limit:
            yield f"… and {len(chosen) - limit} more of {chosen[0].controller} ({_WORDS[verdict]}); --continue shows all"


def _paragraph(each: Inference) -> list[str]:
    when = moment(each.ts_us).isoformat().replace("+00:00", "Z")
    lines = [
        f"inferred decision of {each.controller}",
        f"  key       {each.key}",
        f"  at        {when}, first write rv {each.writes[0].rv if each.writes else each.latest_rv + 1}",
        f"  frontier  inferred: latest plausible rv {each.latest_rv}, earliest rv {each.earliest_rv}",
    ]
    if each.verdict == "unclear":
        return [*lines, f"  kcp's controller: cannot be told: {each.guess.unclear}"]
    lines += _two(["was written", *_limited([_write(e) for e in each.writes])], ["kcp's controller would have decided", *_limited(_ours(each))])  # fmt: skip
    return lines + [f"  {change}" for planned in each.guess.planned for change in planned.changes[:LINES]]


def _write(event: Event) -> str:
    return f"{_VERBS[event.op]} {event.key} (rv {event.rv})"


def _ours(each: Inference) -> list[str]:
    return [_effect(planned) for planned in each.guess.planned] or ["(nothing)"]


def _effect(planned: Planned) -> str:
    if planned.text:
        return planned.text
    effect = planned.effect
    assert isinstance(effect, (fx.Create, fx.Update, fx.Status, fx.Patch, fx.Delete))
    resource, namespace, name = target_of(effect)
    if not name and isinstance(effect, fx.Create):
        name = f"{(effect.object.get('metadata') or {}).get('generateName', '')}…"
    mark = "" if planned.written is None else ", with other fields" if planned.changes else ", as written"
    return f"{type(effect).__name__} {'/'.join(part for part in (resource, namespace, name) if part)}{mark}"


def _limited(lines: list[str]) -> list[str]:
    return lines if len(lines) <= LINES else [*lines[: LINES - 1], f"… {len(lines)} in all"]


def _two(left: list[str], right: list[str]) -> list[str]:
    left, right = [left[0], "-" * WIDTH, *left[1:]], [right[0], "-" * WIDTH, *right[1:]]
    height = max(len(left), len(right))
    left, right = left + [""] * (height - len(left)), right + [""] * (height - len(right))
    return [
        f"  {a[:WIDTH].ljust(WIDTH)} | {b[: 2 * WIDTH]}".rstrip() for a, b in zip(left, right, strict=True)
    ]
