"""What a failed pod means, and when the indexes that succeeded are enough.

Source: k8s v1.36 pkg/controller/job/{pod_failure_policy,success_policy}.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kcp.base.values import frozen
from kcp.controllers.job import indexes
from kcp.machinery import meta

Json = dict[str, Any]


@frozen
class Verdict:
    """The rule that a failed pod met. `message` is set when the whole Job fails by it."""

    counts: bool = True
    action: str = ""
    message: str = ""


def judge_failure(job: Json, pod: Json) -> Verdict:
    """The first rule that matches decides; without one the failure counts."""
    for number, rule in enumerate((job["spec"].get("podFailurePolicy") or {}).get("rules") or ()):
        why = _why(rule, pod)
        if why is None:
            continue
        action = rule["action"]
        if action == "FailIndex" and job["spec"].get("backoffLimitPerIndex") is None:
            continue
        if action == "FailJob":
            return Verdict(True, action, f"{why} matching {action} rule at index {number}")
        if action in ("Ignore", "Count", "FailIndex"):
            return Verdict(action != "Ignore", action)
    return Verdict()


def _why(rule: Json, pod: Json) -> str | None:
    """The beginning of the message; None when the rule does not match."""
    if rule.get("onExitCodes") is not None:
        status = _exited(rule["onExitCodes"], pod)
        if status is None:
            return None
        code = status["state"]["terminated"]["exitCode"]
        return f"Container {status['name']} for pod {meta.key_of(pod)} failed with exit code {code}"
    for condition in (pod.get("status") or {}).get("conditions") or ():
        for pattern in rule.get("onPodConditions") or ():
            if condition["type"] == pattern["type"] and condition["status"] == pattern.get("status", "True"):
                return f"Pod {meta.key_of(pod)} has condition {condition['type']}"
    return None


def _exited(requirement: Json, pod: Json) -> Json | None:
    """The first container that ended with a code the requirement names; regular containers come first."""
    status = pod.get("status") or {}
    for field in ("containerStatuses", "initContainerStatuses"):
        for entry in status.get(field) or ():
            ended = (entry.get("state") or {}).get("terminated")
            code = (ended or {}).get("exitCode") or 0
            named = requirement.get("containerName") in (None, entry["name"])
            if code and named and (code in requirement["values"]) == (requirement["operator"] == "In"):
                found: Json = entry
                return found
    return None


def success_message(job: Json, succeeded: indexes.Intervals) -> str:
    """The message of the success policy's rule that is met; empty when none is."""
    completions = job["spec"].get("completions") or 0
    for number, rule in enumerate((job["spec"].get("successPolicy") or {}).get("rules") or ()):
        if succeeded and _is_met(rule, succeeded, completions):
            return f"Matched rules at index {number}"
    return ""


def _is_met(rule: Mapping[str, Any], succeeded: indexes.Intervals, completions: int) -> bool:
    count = rule.get("succeededCount")
    if rule.get("succeededIndexes") is None:
        return count is not None and indexes.total(succeeded) >= count
    required = indexes.parse(rule["succeededIndexes"], completions)
    if not required:
        return False
    found = indexes.overlap(required, succeeded)
    return found == indexes.total(required) or (count is not None and found >= count)
