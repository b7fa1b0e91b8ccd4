"""`kcp fit`: how many more pods like these the cluster has room for, where, and what runs out first."""

from __future__ import annotations

from typing import Any, TextIO

import click
import orjson

from kcp.base.clock import SystemClock
from kcp.cli.options import log_options, one_line_errors
from kcp.cli.refusal_lines import first_refusal
from kcp.cli.tables import aligned
from kcp.replay.fitting import Fitted, documents_of, fit_documents
from kcp.replay.incident import Incident
from kcp.scheduler.explain import NodeVerdict
from kcp.scheduler.profiles import read_configuration
from kcp.store.query import parse_at

Json = dict[str, Any]


@click.command("fit")
@click.option(
    "--file", "-f", "files", type=click.File("r", encoding="utf-8"), multiple=True, required=True, metavar="FILE",
    help="A Pod, or what makes pods: Deployment, StatefulSet, Job …; - for standard input.",
)  # fmt: skip
@click.option("--namespace", "-n", default="default", show_default=True, help="For documents without one.")
@click.option(
    "--at", metavar="RV|TIME", help="The cluster at a revision, a time, or a span back such as 10m."
)
@click.option(
    "--scheduler-config", metavar="FILE", help="Another configuration than that of the newest decision."
)
@click.option("--most", type=click.IntRange(1), metavar="N", help="Do not look for more than N.")
@click.option("--format", "form", type=click.Choice(("text", "json")), default="text", show_default=True)
@log_options
def command(
    files: tuple[TextIO, ...], namespace: str, at: str | None, scheduler_config: str | None, most: int | None,
    form: str, source: str,
) -> None:  # fmt: skip
    """How many more pods fit: one by one onto the cluster of the log, until one finds no node.

    Each document is asked about alone. Nothing is created, nobody is evicted.
    """
    with one_line_errors(), Incident.open(source) as incident:
        found = list(
            fit_documents(
                incident,
                [document for file in files for document in documents_of(file.read())],
                namespace=namespace,
                at=None if at is None else parse_at(at, SystemClock()),
                configuration=None if scheduler_config is None else read_configuration(scheduler_config),
                most=most,
            )
        )
    if form == "json":
        click.echo(orjson.dumps([_document(each) for each in found], option=orjson.OPT_INDENT_2).decode())
    else:
        click.echo("\n\n".join(_text(each) for each in found))


def _text(found: Fitted) -> str:
    fit = found.fit
    if not fit.complete:
        return f"{found.pod}: at least {fit.count} more fit\n\n{_table(found, {})}"
    lines = [
        f"{found.pod}: {fit.count or 'no'} more {'fits' if fit.count < 2 else 'fit'}",
        f"then: {fit.text}",
    ]
    if fit.victims:
        lines.append(f"one more would evict, on {fit.nominated}: {', '.join(fit.victims)}")
    return "\n".join([*lines, "", _table(found, {verdict.node: verdict for verdict in fit.verdicts})])


def _table(found: Fitted, verdicts: dict[str, NodeVerdict]) -> str:
    """Most pods first."""
    nodes = sorted(found.fit.placed.items(), key=lambda item: (-item[1], item[0]))
    if not verdicts:
        return aligned(("node", "fit"), [[node, str(count)] for node, count in nodes])
    return aligned(
        ("node", "fit", "what stops the next"),
        [[node, str(count), _why(verdicts[node])] for node, count in nodes],
    )


def _why(verdict: NodeVerdict) -> str:
    if not verdict.refusals:
        return "nothing but pods that are nominated to it"
    return first_refusal(verdict)


def _document(found: Fitted) -> Json:
    fit = found.fit
    verdicts = {verdict.node: verdict for verdict in fit.verdicts}
    return {
        "kind": found.kind,
        "pod": found.pod,
        "rv": found.rv,
        "scheduler": found.scheduler,
        "fit": fit.count,
        "complete": fit.complete,
        "message": fit.text,
        "reasons": dict(sorted(fit.histogram.items())),
        "victims": list(fit.victims),
        "nodes": [
            {"node": node, "fit": count, "refusals": _refusals(verdicts.get(node))}
            for node, count in fit.placed.items()
        ],
    }


def _refusals(verdict: NodeVerdict | None) -> list[Json]:
    return [
        {"plugin": r.plugin, "reasons": list(r.reasons), "details": r.details}
        for r in (verdict.refusals if verdict is not None else ())
    ]
