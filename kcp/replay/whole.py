"""A log run again as a whole, and told: whether it comes to the same, or what a change would have made of it.

    asked = Whole("incident.kcplog", Changes(swaps=("deployment=my.module:plan",)))
    for paragraph in tell(asked, Path(directory)): ...

A change is held against a second run without it, not against the recording: then nothing but the change is different.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from kcp.base.values import frozen
from kcp.controllers.sources import Controller
from kcp.controllers.table import by_name
from kcp.replay.changes import Changes, Prepared
from kcp.replay.compare import report
from kcp.replay.decisions import Remaker, Result
from kcp.replay.equality import (
    Comparison,
    Course,
    Difference,
    Pair,
    compare,
    first_difference,
    first_other_step,
)
from kcp.replay.incident import Incident
from kcp.replay.inferred import imported_from
from kcp.replay.outcome import Outcome, outcome, table
from kcp.replay.parting import Parting, parting
from kcp.replay.parting import told as parting_told
from kcp.replay.reexecution import Again, rerun, simulated
from kcp.store.reader import LogReader

Json = dict[str, Any]
LISTED = 8
IMPORTED = "The log was imported: only what its source told could be asked for again, by whom it told."
RECORDED, AGAIN, CHANGED = "recorded", "again", "changed"


@frozen
class Whole:
    """What is asked: which log, what is to be different, up to which revision."""

    source: str
    changes: Changes = Changes()
    until: int | None = None


@frozen
class Found:
    """`runs` and `outcomes` by name: RECORDED, AGAIN, CHANGED. `otherwise` has what recorded decisions would have been."""

    asked: Whole
    runs: Mapping[str, Again]
    outcomes: Mapping[str, Outcome]
    imported: bool = False
    difference: Difference | None = None
    """Of a simulated log and its second run without a change."""
    comparison: Comparison | None = None
    """Of any other log and that run."""
    parting: Parting | None = None
    otherwise: Mapping[str, Sequence[Result]] = attrs.field(factory=dict)

    @property
    def same(self) -> bool:
        """Whether the second run came to the same as it should: as recorded, or, with a change, as without it."""
        if self.asked.changes:
            return self.parting is None and not any(_diverged(results) for results in self.otherwise.values())
        return self.difference is None and (self.comparison is None or self.comparison.equal)


def find(asked: Whole, directory: Path, *, parallel: bool = True) -> Found:
    """Run what has to be run, into logs in `directory`, on two cores if allowed. Raises ValueError and StoreError."""
    prepared = asked.changes.prepare()
    with LogReader(asked.source) as reader:
        exact = simulated(reader) is not None
    wanted = [(AGAIN, Changes()), *([(CHANGED, asked.changes)] if asked.changes else [])]
    runs = dict(zip((name for name, _ in wanted), _run(asked, wanted, directory, parallel), strict=True))
    with Incident.open(asked.source) as incident:
        imported = bool(imported_from(incident))
    found = Found(asked, runs, _outcomes(asked, runs), imported)
    with LogReader(asked.source) as one, LogReader(runs[AGAIN].place) as other:
        if exact:
            last = one.last_rv if asked.until is None else min(one.last_rv, asked.until)
            found = attrs.evolve(found, difference=first_difference(one, other, last))
        else:
            found = attrs.evolve(found, comparison=compare(one, other, asked.until))
    if CHANGED in runs:
        with LogReader(runs[AGAIN].place) as one, LogReader(runs[CHANGED].place) as other:
            found = attrs.evolve(found, parting=parting(one, other))
        found = attrs.evolve(found, otherwise=decided_otherwise(asked.source, prepared))
    return found


Wanted = tuple[str, Changes]


def _run(asked: Whole, wanted: Sequence[Wanted], directory: Path, parallel: bool) -> list[Again]:
    work = [(asked.source, directory / f"{name}.kcp", changes, asked.until) for name, changes in wanted]
    if len(work) == 1 or not parallel:
        return [_one(each) for each in work]
    context = multiprocessing.get_context("spawn")
    with context.Pool(len(work), _quiet) as pool:
        return pool.map(_one, work)


def _one(work: tuple[str, Path, Changes, int | None]) -> Again:
    source, target, changes, until = work
    return rerun(source, target, changes, until=until)


def _quiet() -> None:
    from kcp.base import logs

    logs.configure(level="critical")


def _outcomes(asked: Whole, runs: Mapping[str, Again]) -> dict[str, Outcome]:
    found = {}
    with LogReader(asked.source) as reader:
        found[RECORDED] = outcome(reader, asked.until)
    for name, run in runs.items():
        with LogReader(run.place) as reader:
            found[name] = outcome(reader)
    return found


# --- recorded decisions, made again by what is to be different ---


def decided_otherwise(source: str, prepared: Prepared) -> dict[str, list[Result]]:
    """Every recorded decision of each controller that is another one, or has other settings, made again."""
    found: dict[str, list[Result]] = {}
    with Incident.open(source) as incident, prepared.in_force():
        for name in dict.fromkeys([*prepared.controllers, *prepared.settings]):
            controller: Controller = prepared.controllers.get(name) or by_name(name)
            remaker = Remaker(incident, controller, prepared.settings.get(name))
            found[name] = [remaker.remake(*row) for row in incident.decisions_of(name)]
    return found


def _diverged(results: Sequence[Result]) -> list[Result]:
    return [result for result in results if result.divergence is not None]


# --- for people ---


def tell(found: Found) -> Iterator[str]:
    """Paragraphs. The same for the same log and change, whatever the machine and the time."""
    yield from _told_again(found)
    if found.asked.changes:
        yield f"with the change: {found.asked.changes}"
        yield from _told_decisions(found)
    yield _told_outcomes(found)
    yield from _told_runs(found)
    if found.asked.changes:
        yield _told_parting(found)


def _told_again(found: Found) -> Iterator[str]:
    run, comparison = found.runs[AGAIN], found.comparison
    if comparison is not None:
        yield "\n".join([f"run again: {_asked(run)}", *_told_comparison(comparison)])
        if found.imported:
            yield IMPORTED
    elif found.difference is None:
        yield "run again from its seed, operations and faults: every event is the same, byte for byte"
    else:
        one, other = found.difference.one, found.difference.other
        sides = (f"  {name}  {_side(event)}" for name, event in ((RECORDED, one), (AGAIN.ljust(8), other)))
        yield "\n".join(["run again from its seed, operations and faults: not the same", *sides])


def _side(event: Any) -> str:
    return "nothing more" if event is None else f"rv {event.rv} {event.op.name} {event.key}"


def _asked(run: Again) -> str:
    refused = f", {len(run.refused)} of them refused" if run.refused else ""
    untold = f"; {run.untold} of which nobody knows what was asked were left out" if run.untold else ""
    return f"{_many(run.asked, 'request')} from outside{refused}{untold}"


def _told_comparison(comparison: Comparison) -> Iterator[str]:
    others = (comparison.otherwise, comparison.elsewhere, comparison.different)
    many = comparison.alike + sum(map(len, others))
    yield f"  {many} objects in both, {comparison.alike} of them with the same wishes in the same order"
    yield from _listed(
        f"{len(comparison.otherwise)} came to the same end by other steps", map(_steps, comparison.otherwise)
    )
    yield from _listed(f"{len(comparison.elsewhere)} are on other nodes", map(_ends, comparison.elsewhere))
    yield from _listed(f"{len(comparison.different)} ended otherwise", map(_ends, comparison.different))
    for what, courses in (
        ("came and went in one of both", comparison.passing),
        ("are only in the recording", comparison.only_one),
        ("are only in the second run", comparison.only_other),
    ):
        yield from _listed(f"{len(courses)} {what}", map(str, courses))
    if comparison.by_server:
        yield f"  {len(comparison.by_server)} more are in one of both, as every API server of its version makes them"


def _listed(title: str, items: Any) -> Iterator[str]:
    lines = list(items)
    if not lines:
        return
    yield f"  {title}"
    yield from (f"    {line}" for line in lines[:LISTED])
    if len(lines) > LISTED:
        yield f"    and {len(lines) - LISTED} more"


def _steps(pair: Pair) -> str:
    steps = f"{_many(len(pair.one.wishes), 'step')} then, {len(pair.other.wishes)} now"
    return f"{pair.one}: {steps}; the first that differs: {first_other_step(pair)}"


def _ends(pair: Pair) -> str:
    return f"{pair.one}: {'; '.join(pair.changes)}"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _told_decisions(found: Found) -> Iterator[str]:
    """Effect diffs: what the recorded decisions would have been on the same state."""
    with Incident.open(found.asked.source) as incident:
        for name, results in found.otherwise.items():
            if not results:
                yield f"{name} decided nothing in the recording"
                continue
            diverged = _diverged(results)
            text = f"{_many(len(results), 'recorded decision')} of {name}, made again with it: "
            text += f"{len(results) - len(diverged)} identical, {len(diverged)} not"
            if diverged and diverged[0].divergence is not None:
                text += "\n" + report(incident, diverged[0].divergence, diverged[0].code_changed)
            yield text


def _told_outcomes(found: Found) -> str:
    names = [name for name in (RECORDED, AGAIN, CHANGED) if name in found.outcomes]
    if found.comparison is None and found.difference is None:
        names.remove(AGAIN)
    columns, rows = table(names, [found.outcomes[name] for name in names])
    widths = [max(len(row[at]) for row in [columns, *rows]) for at in range(len(columns))]
    lines = []
    for row in [columns, *rows]:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _told_runs(found: Found) -> Iterator[str]:
    """What waits at the end, what was refused, what broke; of the changed run what the other one does not have."""
    last = CHANGED if CHANGED in found.runs else AGAIN
    run, ended = found.runs[last], found.outcomes[last]
    before = found.outcomes[AGAIN if last == CHANGED else RECORDED]
    known = {wait.key for wait in before.pending}
    parts = [
        *_listed("pending at the end, unlike before", (
            f"{wait.key}: {wait.why}" for wait in ended.pending if wait.key not in known
        )),
        *_listed("rollouts that did not come through", (
            str(rollout.key) for rollout in ended.unfinished
            if rollout.key not in {each.key for each in before.unfinished}
        )),
        *_listed("requests that were refused", run.refused if not run.exact else ()),
        *_listed("decisions of swapped controllers that failed", _failed(found)),
        *_listed("what must hold and did not", run.broken),
    ]  # fmt: skip
    if parts:
        yield "\n".join(line.removeprefix("  ") for line in parts)


def _failed(found: Found) -> Iterator[str]:
    """What swapped code raised, by controller: how often, and what first."""
    names = found.asked.changes.prepare().controllers if CHANGED in found.runs else {}
    if not names:
        return
    with LogReader(found.runs[CHANGED].place) as reader:
        raised: dict[str, list[str]] = {}
        for _, decision in reader.decisions():
            if decision.controller in names and decision.effects[-1]["kind"] == "Exception":
                raised.setdefault(decision.controller, []).append(str(decision.effects[-1]["outcome"]))
    for name, texts in raised.items():
        yield f"{name}: {len(texts)}, the first with {texts[0]}"


def _told_parting(found: Found) -> str:
    if found.parting is None:
        return "the change makes no difference: both runs are the same, event for event"
    with (
        Incident.open(found.runs[AGAIN].place) as one,
        Incident.open(found.runs[CHANGED].place) as other,
    ):
        return "\n".join(parting_told(found.parting, one, other, (AGAIN, CHANGED)))


# --- for programs ---


def as_json(found: Found) -> Json:
    comparison = found.comparison
    told: Json = {
        "changes": attrs.asdict(found.asked.changes),
        "same": found.same,
        "outcomes": {name: each.as_json() for name, each in found.outcomes.items()},
        "refused": {name: list(run.refused) for name, run in found.runs.items()},
        "decisions": {
            name: {"made_again": len(results), "different": len(_diverged(results))}
            for name, results in found.otherwise.items()
        },
    }
    if comparison is not None:
        told["objects"] = {
            "alike": comparison.alike,
            "otherwise": [str(pair.one) for pair in comparison.otherwise],
            "elsewhere": [str(pair.one) for pair in comparison.elsewhere],
            "different": {str(pair.one): list(pair.changes) for pair in comparison.different},
            "passing": _keys(comparison.passing),
            "only_recorded": _keys(comparison.only_one),
            "only_again": _keys(comparison.only_other),
        }
    if found.parting is not None:
        events = found.parting.events
        told["first_divergence"] = {
            "without": None if events.one is None else _side(events.one),
            "with": None if events.other is None else _side(events.other),
            "at_us": None if found.parting.first is None else found.parting.first.ts_us,
            "decisions": [
                None if each is None else each.id for each in (found.parting.one, found.parting.other)
            ],
        }
    return told


def _keys(courses: Sequence[Course]) -> list[str]:
    return [str(course) for course in courses]
