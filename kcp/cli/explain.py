"""`kcp explain`: why a pod was put where it is, or nowhere: every node, every plugin, with numbers."""

from __future__ import annotations

from typing import Any

import click
import orjson

from kcp.base.clock import SystemClock, moment
from kcp.cli.options import kind_and_name, log_options, one_line_errors
from kcp.cli.refusal_lines import first_refusal, refusal_lines
from kcp.cli.tables import aligned
from kcp.replay.bisecting import Loss, find_loss
from kcp.replay.explaining import Explained, explain_pod
from kcp.replay.incident import Incident
from kcp.scheduler.explain import NodeVerdict
from kcp.store.query import parse_at

Json = dict[str, Any]
PODS = ("pod", "pods", "po")


@click.command("explain")
@click.argument("target", metavar="pod/NAME | pod NAME", nargs=-1, required=True)
@click.option("--namespace", "-n", default="default", show_default=True, help="Namespace of the pod.")
@click.option(
    "--at",
    metavar="RV|TIME",
    help="The last decision not after a revision, a time, or a span back such as 10m.",
)
@click.option("--node", metavar="NAME", help="Only this node, in detail.")
@click.option(
    "--bisect", is_flag=True, help="Since when no node takes the pod, and what took the last one away."
)
@click.option("--format", "form", type=click.Choice(("text", "json")), default="text", show_default=True)
@log_options
def command(
    target: tuple[str, ...],
    namespace: str,
    at: str | None,
    node: str | None,
    bisect: bool,
    form: str,
    source: str,
) -> None:
    """Take the last scheduling decision about the pod NAME apart: what each plugin said of each node.

    The pod may be deleted long since. Without a recorded decision, the state of the moment answers.
    """
    kind, name = kind_and_name(target)
    if kind not in PODS:
        raise click.UsageError(f"only the scheduling of pods can be explained, not that of {kind!r}")
    with one_line_errors(), Incident.open(source) as incident:
        when = None if at is None else parse_at(at, SystemClock())
        found = explain_pod(incident, f"{namespace}/{name}", at=when)
        verdicts = found.ranked if node is None else [found.on(node)]
        loss = find_loss(incident, found) if bisect else None
    if loss is not None:
        click.echo(
            _loss(loss)
            if form == "text"
            else orjson.dumps(_loss_document(loss), option=orjson.OPT_INDENT_2).decode()
        )
        return
    if form == "json":
        click.echo(orjson.dumps(_document(found, verdicts), option=orjson.OPT_INDENT_2).decode())
        return
    click.echo(_head(found, incident.skipped))
    click.echo(_table(found, verdicts) if node is None else _detail(found, verdicts[0]))


def _loss(loss: Loss) -> str:
    event = loss.event
    if event is None:
        return f"no node has been feasible since the log begins, at revision {loss.rv}"
    when = moment(event.ts_us).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    decision = f", decision {event.cause.decision_id}" if event.cause.decision_id is not None else ""
    rows = [[verdict.node, first_refusal(verdict)] for verdict in loss.verdicts]
    gone = [[name, "is not there any more"] for name in loss.nodes if name not in {row[0] for row in rows}]
    return "\n".join([
        f"no node is feasible since revision {loss.rv}, {when}: {loss.what}",
        f"by {event.cause.actor.username or 'the system'}{decision}",
        "",
        aligned(("feasible until then", "since then"), [*rows, *gone]),
    ])  # fmt: skip


def _loss_document(loss: Loss) -> Json:
    event = loss.event
    if event is None:
        return {"rv": loss.rv, "event": None, "nodes": []}
    return {
        "rv": loss.rv,
        "event": {
            "at": moment(event.ts_us).isoformat().replace("+00:00", "Z"),
            "what": loss.what,
            "resource": event.key.resource,
            "namespace": event.key.namespace,
            "name": event.key.name,
            "by": event.cause.actor.username,
            "decision": event.cause.decision_id,
        },
        "nodes": list(loss.nodes),
        "verdicts": [_verdict(verdict) for verdict in loss.verdicts],
    }


def _head(found: Explained, skipped: int) -> str:
    lines = [f"{found.pod} {_outcome(found)}"]
    if found.decision is None:
        unplaced = f" ({skipped} at the start of the file could not be placed)" if skipped else ""
        lines.append(f"no decision recorded{unplaced}; the state at revision {found.rv} answers")
    else:
        when = moment(found.decision.now_us).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        lines.append(f"decision {found.decision.id} at {when} on revision {found.rv}")
    if not found.agrees:
        lines.append("this version of kcp decides otherwise: what follows need not be the reason of then")
    return "\n".join(lines) + "\n"


def _outcome(found: Explained) -> str:
    effect, nodes = found.recorded, len(found.explanation.nodes)
    if effect is None:
        return _undecided(found)
    if effect["kind"] == "Wait":
        place = effect.get("node") or effect["nominated"]
        return f"waits, though it would go to {place}: its gang {effect['gang']} does not fit as a whole"
    if effect["kind"] != "Bind":
        return f"unschedulable: {effect['text']}{_room(effect)}"
    node, feasible, ties = effect["node"], effect["feasible"], effect["ties"]
    if node == found.nominated:
        return f"bound to {node}: it was nominated to it, and passes every filter there"
    if feasible == 1:
        return f"bound to {node}: the only feasible node of {nodes}"
    tied = f"; {ties} nodes have it, the seed took this one" if ties > 1 else ""
    return f"bound to {node}: score {effect['total']} is the highest of {feasible} feasible nodes of {nodes}{tied}"


def _undecided(found: Explained) -> str:
    verdicts, best = found.explanation.nodes, found.explanation.best
    passing = sum(verdict.feasible for verdict in verdicts)
    state = f"runs on {found.node}; if it did not, " if found.node else ""
    if found.kept_out:
        state = f"is kept out of the queue: {found.kept_out}. If it were not, "
    if found.gates:
        state = f"is held by its scheduling gates {', '.join(found.gates)}; without them "
    highest = f", the highest score is that of {', '.join(best)}" if best else ""
    return f"{state}{passing} of {len(verdicts)} nodes are feasible{highest}"


def _room(effect: Json) -> str:
    if "victims" not in effect:
        return ""
    victims = ", ".join(victim["key"] for victim in effect["victims"])
    return f"\nroom is made on {effect['nominated']}: {victims}"


def _table(found: Explained, verdicts: list[NodeVerdict]) -> str:
    rows = [[v.node, "" if v.total is None else str(v.total), _why(found, v)] for v in verdicts]
    return aligned(("node", "score", "why"), rows)


def _why(found: Explained, verdict: NodeVerdict) -> str:
    if not verdict.refusals:
        scored = [f"{plugin} {score}" for plugin, score in verdict.scores.items() if score]
        return ", ".join(scored) if verdict.total is not None else _unscored(found)
    return first_refusal(verdict)


def _unscored(found: Explained) -> str:
    if found.nominated:
        return f"passes every filter, but the pod is nominated to {found.nominated}"
    if found.explanation.enough:
        return f"passes every filter, but {found.explanation.enough} other nodes were enough to choose from"
    return "passes every filter, but not beside the pods that are nominated to it"


def _detail(found: Explained, verdict: NodeVerdict) -> str:
    lines = [f"node {verdict.node}{' (chosen)' if verdict.node == found.chosen else ''}"]
    for refusal in verdict.refusals:
        hopeless = "; removing pods would not help" if refusal.unresolvable else ""
        lines.append(f"    {refusal.plugin} refuses: {', '.join(refusal.reasons)}{hopeless}")
        lines += [f"        {line}" for line in refusal_lines(refusal, only_short=False)]
    if not verdict.refusals and verdict.total is None:
        lines.append(f"    {_unscored(found)}")
    lines += [f"    {plugin:<32}{score:>6}" for plugin, score in verdict.scores.items()]
    if verdict.total is not None:
        lines.append(f"    {'total':<32}{verdict.total:>6}")
    return "\n".join(lines)


def _document(found: Explained, verdicts: list[NodeVerdict]) -> Json:
    decision = found.decision
    return {
        "pod": found.pod,
        "rv": found.rv,
        "decision": None
        if decision is None
        else {
            "id": decision.id,
            "at": moment(decision.now_us).isoformat().replace("+00:00", "Z"),
            "effect": found.recorded,
            "agrees": found.agrees,
        },
        "node": found.node,
        "nominated": found.nominated,
        "gates": list(found.gates),
        "kept out": found.kept_out,
        "best": list(found.explanation.best),
        "nodes": [_verdict(verdict) for verdict in verdicts],
    }


def _verdict(verdict: NodeVerdict) -> Json:
    refusals = [
        {"plugin": r.plugin, "reasons": list(r.reasons), "unresolvable": r.unresolvable, "details": r.details}
        for r in verdict.refusals
    ]
    return {
        "node": verdict.node,
        "feasible": verdict.feasible,
        "total": verdict.total,
        "scores": verdict.scores,
        "refusals": refusals,
    }
