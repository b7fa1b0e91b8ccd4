"""One pod's questions to the extenders, and what their answers mean for the decision that follows.

Extenders are asked about the nodes that are feasible at one moment; the decision is taken at a later one, on the state as
it is then. A node that nobody was asked about does not count, one that is no longer feasible neither.
Source: k8s v1.36 pkg/scheduler/schedule_one.go (findNodesThatPassExtenders, prioritizeNodes), framework/preemption.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import anyio
import attrs
import structlog

from kcp.machinery.errors import go_quote
from kcp.scheduler.cycle import Answers
from kcp.scheduler.extender import Extender, ExtenderCalls, ExtenderFailed, Victims

Json = dict[str, Any]
log = structlog.get_logger()


@attrs.define
class Said:
    """What the extenders said of the nodes they were asked about."""

    passed: dict[str, Json]
    failed: dict[str, tuple[str, bool]] = attrs.field(factory=dict)
    scores: dict[str, int] = attrs.field(factory=dict)


async def ask(
    calls: ExtenderCalls, extenders: Sequence[Extender], pod: Json, nodes: Mapping[str, Json]
) -> Said:
    """Filter one after the other, each on what the one before it left; then prioritize side by side.

    Raises ExtenderFailed when one fails that may not be ignored. Failures to prioritize are always ignored.
    """
    said = Said(dict(nodes))
    for extender in extenders:
        if extender.filter_verb and said.passed:
            await _filter(calls, extender, pod, said)
    if len(said.passed) > 1:
        async with anyio.create_task_group() as group:
            for extender in extenders:
                if extender.prioritize_verb:
                    group.start_soon(_prioritize, calls, extender, pod, said)
    return said


async def _filter(calls: ExtenderCalls, extender: Extender, pod: Json, said: Said) -> None:
    try:
        found = await calls.filter(extender, pod, said.passed)
    except ExtenderFailed as error:
        if not extender.ignorable:
            raise
        log.info("extender skipped", extender=extender.url, error=str(error))
        return
    kept = set(found.passed)
    for node in [name for name in said.passed if name not in kept]:
        if node in found.unresolvable:
            said.failed[node] = (found.unresolvable[node], True)
        else:
            said.failed[node] = (found.failed.get(node, ""), node not in found.failed)
        del said.passed[node]


async def _prioritize(calls: ExtenderCalls, extender: Extender, pod: Json, said: Said) -> None:
    try:
        scores = await calls.prioritize(extender, pod, said.passed)
    except ExtenderFailed as error:
        log.info("extender does not prioritize", extender=extender.url, error=str(error))
        return
    for node, score in scores.items():
        said.scores[node] = said.scores.get(node, 0) + score


def answers_for(
    said: Said, feasible: Sequence[str], victims: Mapping[str, tuple[Sequence[str], int]] | None = None
) -> Answers:
    """The answers as they count for a decision among these nodes."""
    lost = {node: said.failed.get(node, ("", True)) for node in feasible if node not in said.passed}
    scores = {node: said.scores[node] for node in feasible if node in said.passed and said.scores.get(node)}
    return Answers(lost, scores, victims)


async def ask_about_victims(
    calls: ExtenderCalls, extenders: Sequence[Extender], pod: Json, victims: Victims
) -> dict[str, tuple[list[str], int]]:
    """node -> (uids, broken budgets) of the candidates that every extender leaves. Raises ExtenderFailed."""
    pods = {p["metadata"]["uid"]: p for there, _ in victims.values() for p in there}
    for extender in extenders:
        if not victims:
            break
        try:
            left = await calls.preempt(extender, pod, victims)
        except ExtenderFailed as error:
            if not extender.ignorable:
                raise
            log.info("extender skipped", extender=extender.url, error=str(error))
            continue
        victims = {
            node: ([pods[uid] for uid in uids], broken)
            for node, (uids, broken) in left.items()
            if _makes_sense(extender, node, uids, victims)
        }
    return {
        node: ([p["metadata"]["uid"] for p in there], broken) for node, (there, broken) in victims.items()
    }


def _makes_sense(extender: Extender, node: str, uids: Sequence[str], asked: Victims) -> bool:
    there = [p["metadata"]["uid"] for p in asked[node][0]] if node in asked else []
    missing = next((uid for uid in uids if uid not in there), None)
    if uids and missing is None:
        return True
    if extender.ignorable:
        return False
    if not uids:
        raise ExtenderFailed(f"expected at least one victim pod on node {go_quote(node)}")
    raise ExtenderFailed(
        f"extender: {extender.url} claims to preempt pod (UID: {missing}) on node: {node}, but the pod is not found "
        "on that node"
    )
