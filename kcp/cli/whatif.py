"""`kcp whatif`: the arrivals of a log again, with another scheduler configuration or other nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import click
import orjson

from kcp.base import interpreter
from kcp.base.clock import SystemClock, moment
from kcp.cli.options import one_line_errors
from kcp.cli.refusal_lines import first_refusal
from kcp.cli.tables import aligned
from kcp.replay.explaining import revision_at
from kcp.replay.incident import Incident
from kcp.replay.outcome import percentile, shown
from kcp.replay.scheduling import Profiles, newest_scheduling
from kcp.replay.whatif.arrivals import read_arrivals
from kcp.replay.whatif.comparison import (
    Comparison,
    Course,
    Difference,
    First,
    Side,
    Weighed,
    compare,
    configured_as_recorded,
)
from kcp.replay.whatif.deciding import decide_by
from kcp.replay.whatif.machines import node_names, parse_machines
from kcp.scheduler.profiles import Configuration, read_configuration
from kcp.store.query import parse_at

Json = dict[str, Any]
LISTED = 20
"""So many pods of a group are named; JSON has all."""


@click.command("whatif")
@click.argument("log")
@click.option(
    "--scheduler-config", "--config", "configs", multiple=True, metavar="FILE",
    help="A KubeSchedulerConfiguration to decide by; two of them are compared with each other.",
)  # fmt: skip
@click.option(
    "--nodes", multiple=True, metavar="CHANGE", help="`5`, `+3`, `-node-1` or a file with Nodes; several with commas."
)  # fmt: skip
@click.option("--from", "first", metavar="RV|TIME", help="Begin with the state of a revision or a time.")
@click.option("--to", "last", metavar="RV|TIME", help="Go no further than a revision or a time.")
@click.option("--format", "form", type=click.Choice(("text", "json")), default="text", show_default=True)
def command(
    log: str, configs: tuple[str, ...], nodes: tuple[str, ...], first: str | None, last: str | None, form: str
) -> None:
    """Which pods of LOG would have landed elsewhere, which would have waited, and why.

    LOG is a file from `kcp export` or an import, a data directory, or the URL of a store. The pods and nodes that came, changed
    and went are those of the log; only the scheduler, or the nodes, are others. Without any option the log's own configuration
    decides again, and nothing should differ.
    """
    if len(configs) > 2:
        raise click.UsageError("At most two configurations can be compared.")
    interpreter.settle()
    with one_line_errors(), Incident.open(log) as incident:
        found = _compared(incident, configs, nodes, first, last)
    if form == "json":
        click.echo(orjson.dumps(_document(found), option=orjson.OPT_INDENT_2).decode())
    else:
        click.echo("\n\n".join(_parts(found)))


def _compared(
    incident: Incident, configs: Sequence[str], nodes: Sequence[str], first: str | None, last: str | None
) -> Comparison:
    given = [(Path(config).name, read_configuration(config)) for config in configs]
    arrivals = read_arrivals(
        incident,
        _revision(incident, first),
        _revision(incident, last),
        whole=_may_look_at_anything(incident, given),
    )
    machines = parse_machines(nodes, arrivals)
    sides = [
        Side(name, decide_by(configuration), machines=machines, configuration=configuration)
        for name, configuration in given
    ]
    recorded = configured_as_recorded(incident)
    if not sides:
        sides = [Side(f"nodes {','.join(nodes)}" if nodes else "again", recorded, machines=machines)]
    if len(sides) < 2:
        sides.insert(0, Side("recorded", recorded, follows=True))
    elif sides[0].name == sides[1].name:
        sides = [attrs.evolve(side, name=config) for side, config in zip(sides, configs, strict=True)]
    return compare(arrivals, sides[0], sides[1])


def _revision(incident: Incident, at: str | None) -> int | None:
    return None if at is None else revision_at(incident, parse_at(at, SystemClock()))


def _may_look_at_anything(incident: Incident, given: Sequence[tuple[str, Configuration]]) -> bool:
    """Plugins of users may ask about what no plugin of ours looks at."""
    newest = newest_scheduling(incident, incident.log.last_rv)
    recorded = [] if newest is None else [Profiles(incident).configuration(newest)]
    configurations = [*(configuration for _, configuration in given), *recorded]
    return any(profile.user_plugins for each in configurations for profile in each.profiles)


# --- for people ---


def _parts(found: Comparison) -> Iterator[str]:
    yield _head(found)
    yield aligned(("", found.before.name, found.after.name), list(_rows(found)))
    if found.first is not None:
        yield _first(found, found.first)
    columns = ("pod", found.before.name, found.after.name)
    if found.elsewhere:
        yield f"elsewhere: {_listed(columns, found.elsewhere)}"
    for course, other in ((found.after, found.before), (found.before, found.after)):
        waiting = [(name, text) for name, text in course.waiting.items() if name not in other.waiting]
        if waiting:
            rows = [[name, text or "it was not looked at"] for name, text in waiting[:LISTED]]
            table = aligned(("pod", "why"), rows)
            yield f"pending at the end with {course.name}: {_many(len(waiting))}\n{table}{_more(len(waiting))}"
    for course, differences in ((found.after, found.only_before), (found.before, found.only_after)):
        ended = [each for each in differences if each.pod not in course.waiting]
        if ended:
            yield f"never placed with {course.name}: {_listed((*columns, 'why'), ended)}"
    for course, names in ((found.before, found.evicted_only_before), (found.after, found.evicted_only_after)):
        if names:
            yield f"evicted with {course.name} only: {_named(names)}"
    if found.same:
        yield "Nothing differs: every pod is where it was."


def _head(found: Comparison) -> str:
    arrivals = found.arrivals
    begin, end = (moment(us).strftime("%Y-%m-%d %H:%M:%S") for us in (arrivals.start_us, arrivals.end_us))
    lines = [
        f"{arrivals.attempts} recorded decisions, {len(arrivals.lives)} pods, {len(node_names(arrivals))} nodes; "
        f"revisions {arrivals.first_rv} to {arrivals.last_rv}, {begin} to {end}"
    ]
    if not arrivals.schedulers:
        lines.append(
            "the log has no decisions, only what came of them: each pod is decided about when it comes"
        )
    if found.after.left_out:
        lines.append(f"{found.after.left_out} pods are left out: they are meant for nodes that are not there")
    return "\n".join(lines)


def _rows(found: Comparison) -> Iterator[list[str]]:
    courses = found.before, found.after
    yield ["pods placed", *(str(course.placed) for course in courses)]
    yield ["  elsewhere", "", str(len(found.elsewhere))]
    yield ["pods pending at the end", *(str(len(course.waiting)) for course in courses)]
    yield ["decisions", *(str(course.decisions) for course in courses)]
    yield ["preemptions", *(str(course.preemptions) for course in courses)]
    yield ["pods evicted", *(str(course.evicted) for course in courses)]
    for share in (50, 99):
        yield [
            f"time to schedule, p{share}",
            *(shown(percentile(course.waited_us, share)) for course in courses),
        ]
    yield ["nodes in use, mean", *(f"{course.busy_nodes[0]:.1f}" for course in courses)]
    yield ["nodes in use, peak", *(str(course.busy_nodes[1]) for course in courses)]
    for name in dict.fromkeys(name for course in courses for name in course.usage):
        for what, which in (
            ("requested", "mean"),
            ("requested", "peak"),
            ("stranded", "mean"),
            ("stranded", "peak"),
        ):
            yield [f"{name} {what}, {which}", *(_share(course, name, what, which) for course in courses)]


def _share(course: Course, resource: str, what: str, which: str) -> str:
    usage = course.usage.get(resource)
    return "-" if usage is None else f"{getattr(getattr(usage, what), which):.1%}"


def _first(found: Comparison, first: First) -> str:
    at = moment(first.at_us).strftime("%H:%M:%S.%f")[:-3]
    decision = f", decision {first.decision}" if first.decision is not None else ""
    lines = [f"first difference: {first.pod} at {at}{decision}"]
    for course, made in ((found.before, first.before), (found.after, first.after)):
        lines.append(f"    {course.name}: {'no decision then' if made is None else _outcome(made)}")
    return "\n".join([*lines, *(("", _scores(first.weighed)) if first.weighed else ())])


def _outcome(made: Any) -> str:
    if made.node:
        return f"on {made.node}"
    room = f"; evicts {', '.join(made.victims)}" if made.victims else ""
    return f"{made.text or 'on no node'}{room}"


def _scores(weighed: Sequence[Weighed]) -> str:
    """A column for each side and node; plugins that say nothing anywhere are left out."""
    plugins = dict.fromkeys(plugin for each in weighed if each.verdict for plugin in each.verdict.scores)
    rows = []
    for plugin in plugins:
        given = [each.verdict.scores.get(plugin, 0) if each.verdict else 0 for each in weighed]
        if any(given):
            rows.append([plugin, *map(str, given)])
    rows.append(["total", *(_total(each) for each in weighed)])
    rows.insert(0, ["", *(each.node for each in weighed)])
    refusals = [line for each in weighed for line in _refused(each)]
    return "\n".join(
        [aligned(("plugin", *(each.side for each in weighed)), rows), *(("", *refusals) if refusals else ())]
    )


def _total(each: Weighed) -> str:
    if each.verdict is None:
        return "not there"
    if each.verdict.refusals:
        return "refused"
    return "not scored" if each.verdict.total is None else str(each.verdict.total)


def _refused(each: Weighed) -> Iterator[str]:
    if each.verdict is not None and each.verdict.refusals:
        yield f"{each.side}: {each.node}: {first_refusal(each.verdict)}"


def _listed(columns: Sequence[str], differences: Sequence[Difference]) -> str:
    rows = [
        [each.pod, each.before or "-", each.after or "-", each.before_text or each.after_text][: len(columns)]
        for each in differences[:LISTED]
    ]
    return f"{_many(len(differences))}\n{aligned(tuple(columns), rows)}{_more(len(differences))}"


def _named(names: Sequence[str]) -> str:
    return "\n".join([_many(len(names)), *names[:LISTED]]) + _more(len(names))


def _many(count: int) -> str:
    return f"{count} pod{'' if count == 1 else 's'}"


def _more(count: int) -> str:
    return f"\nand {count - LISTED} more" if count > LISTED else ""


# --- for programs ---


def _document(found: Comparison) -> Json:
    arrivals = found.arrivals
    return {
        "log": {
            "decisions": arrivals.attempts,
            "pods": len(arrivals.lives),
            "nodes": len(node_names(arrivals)),
            "revisions": [arrivals.first_rv, arrivals.last_rv],
            "from": _time(arrivals.start_us),
            "to": _time(arrivals.end_us),
        },
        "same": found.same,
        "courses": [_course(course) for course in (found.before, found.after)],
        "first": None if found.first is None else _first_document(found.first),
        "elsewhere": [attrs.asdict(each) for each in found.elsewhere],
        "only_before": [attrs.asdict(each) for each in found.only_before],
        "only_after": [attrs.asdict(each) for each in found.only_after],
        "evicted_only_before": list(found.evicted_only_before),
        "evicted_only_after": list(found.evicted_only_after),
    }


def _time(us: int) -> str:
    return moment(us).isoformat().replace("+00:00", "Z")


def _course(course: Course) -> Json:
    found: Json = attrs.asdict(course)
    del found["waited_us"], found["busy_nodes"]
    seconds = {share: percentile(course.waited_us, share) for share in (50, 99)}
    found["time_to_schedule"] = {
        f"p{share}_s": None if us is None else us / 1e6 for share, us in seconds.items()
    }
    found["nodes_in_use"] = {"mean": course.busy_nodes[0], "peak": course.busy_nodes[1]}
    return found


def _first_document(first: First) -> Json:
    return {
        "pod": first.pod,
        "at": _time(first.at_us),
        "decision": first.decision,
        **{
            name: None
            if made is None
            else {"node": made.node, "victims": list(made.victims), "message": made.text}
            for name, made in (("before", first.before), ("after", first.after))
        },
        "weighed": [
            {
                "side": each.side,
                "node": each.node,
                "total": None if each.verdict is None else each.verdict.total,
                "scores": {} if each.verdict is None else each.verdict.scores,
                "refusals": [
                    {"plugin": r.plugin, "reasons": list(r.reasons), "details": r.details}
                    for r in (() if each.verdict is None else each.verdict.refusals)
                ],
            }
            for each in first.weighed
        ],
    }
