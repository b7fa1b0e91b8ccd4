"""What the status of a Job may say. A rule is asked only when a field it reads has changed, so that a status that
is wrong already can still be written otherwise.

Source: k8s v1.36 pkg/apis/batch/validation/validation.go (validateJobStatus, ValidateJobStatusUpdate),
pkg/registry/batch/job/strategy.go (getStatusValidationOptions).
"""

from __future__ import annotations

from typing import Any

from kcp.apis.batch.job_policies import count_indexes, first_overlap
from kcp.apis.core import checks
from kcp.apis.core.checks import Errors, Json
from kcp.apis.core.strategies import spec_of, status_of
from kcp.machinery.errors import OMITTED, FieldError, duplicate, invalid, required
from kcp.machinery.times import parse_time

_COUNTS = ("active", "succeeded", "failed", "ready", "terminating")


def is_true(job: Json, condition_type: str) -> bool:
    """Whether a condition holds."""
    return any(
        condition.get("type") == condition_type and condition.get("status") == "True"
        for condition in status_of(job).get("conditions") or ()
    )


def is_finished(job: Json) -> bool:
    return is_true(job, "Complete") or is_true(job, "Failed")


def _is_indexed(job: Json) -> bool:
    return bool(spec_of(job).get("completionMode") == "Indexed")


def _differ(new: Json, old: Json, *fields: str) -> bool:
    after, before = status_of(new), status_of(old)
    return any((after.get(field) or None) != (before.get(field) or None) for field in fields)


def _turned(new: Json, old: Json, *conditions: str) -> bool:
    return any(is_true(new, kind) != is_true(old, kind) for kind in conditions)


def _conditions_fault(errors: Errors, text: str) -> None:
    errors.append(FieldError("Invalid value", "status.conditions", OMITTED, text))


def _uncounted(errors: Errors, status: Json) -> None:
    seen: set[str] = set()
    for field in ("succeeded", "failed"):
        for i, uid in enumerate((status.get("uncountedTerminatedPods") or {}).get(field) or ()):
            where = f"status.uncountedTerminatedPods.{field}[{i}]"
            if not uid:
                errors.append(invalid(where, uid, "must not be empty"))
            elif uid in seen:
                errors.append(duplicate(where, uid))
            seen.add(uid)


def _completion(errors: Errors, new: Json, old: Json) -> None:
    """Complete, with a completionTime and without Failed or FailureTarget."""
    status, complete = status_of(new), is_true(new, "Complete")
    start, end = status.get("startTime"), status.get("completionTime")
    for other, shown in (("Failed", "Failed=true"), ("FailureTarget", "FailureTarget=true")):
        if complete and is_true(new, other) and _turned(new, old, "Complete", other):
            _conditions_fault(errors, f"cannot set Complete=True and {shown} conditions")
    if _turned(new, old, "Complete") or _differ(new, old, "completionTime"):
        if end and not complete:
            text = "cannot set completionTime when there is no Complete=True condition"
            errors.append(invalid("status.completionTime", end, text))
        if complete and not end:
            text = "completionTime is required for Complete jobs"
            errors.append(required("status.completionTime", text))
    moved = _differ(new, old, "startTime", "completionTime")
    if moved and start and end and parse_time(end) < parse_time(start):
        errors.append(invalid("status.completionTime", end, "must be equal to or after `startTime`"))


def _interim(errors: Errors, new: Json, old: Json) -> None:
    """A job that ends says first that it is about to."""
    failed = is_true(new, "Failed") and not is_true(new, "FailureTarget")
    if failed and (_turned(new, old, "Failed") or _differ(new, old, "failedIndexes")):
        text = "cannot set Failed=True condition without the FailureTarget=true condition"
        _conditions_fault(errors, text)
    complete = is_true(new, "Complete") and not is_true(new, "SuccessCriteriaMet")
    if complete and _turned(new, old, "Complete", "SuccessCriteriaMet"):
        text = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition"
        _conditions_fault(errors, text)


def _finished(errors: Errors, new: Json, old: Json) -> None:
    """A finished job has a start, no pods and nothing left to count."""
    if not is_finished(new):
        return
    status, turned = status_of(new), not is_finished(old)
    if (turned or _differ(new, old, "active")) and (status.get("active") or 0) > 0:
        errors.append(invalid("status.active", status["active"], "active>0 is invalid for finished job"))
    if (turned or _differ(new, old, "startTime")) and not status.get("startTime"):
        errors.append(required("status.startTime", "startTime is required for finished job"))
    pods = status.get("uncountedTerminatedPods") or {}
    left = pods.get("succeeded") or pods.get("failed")
    if left and (turned or not checks.semantic_equal(pods, status_of(old).get("uncountedTerminatedPods"))):
        errors.append(invalid("status.uncountedTerminatedPods", pods, "must be empty for finished job"))


def _parse(errors: Errors, field: str, text: str, completions: int) -> None:
    try:
        count_indexes(text, completions)
    except ValueError as error:
        errors.append(invalid(f"status.{field}", text, f"error parsing {field}: {error}"))


def _indexes(errors: Errors, new: Json, old: Json) -> None:
    status, spec = status_of(new), spec_of(new)
    completions: Any = spec.get("completions")
    done, failed = status.get("completedIndexes") or "", status.get("failedIndexes")
    done_moved, failed_moved = _differ(new, old, "completedIndexes"), _differ(new, old, "failedIndexes")
    per_index = spec.get("backoffLimitPerIndex") is not None
    if done_moved and completions is not None:
        _parse(errors, "completedIndexes", done, completions)
    if failed_moved and completions is not None and per_index and failed is not None:
        _parse(errors, "failedIndexes", failed, completions)
    if done_moved and done and not _is_indexed(new):
        text = "cannot set non-empty completedIndexes when non-indexed completion mode"
        errors.append(invalid("status.completedIndexes", done, text))
    if failed_moved and failed is not None and not per_index:
        text = "cannot set non-null failedIndexes when backoffLimitPerIndex is null"
        errors.append(invalid("status.failedIndexes", failed, text))
    if (done_moved or failed_moved) and completions is not None and failed:
        index = first_overlap(done, failed, completions)
        if index is not None:
            text = f"failedIndexes and completedIndexes overlap at index: {index}"
            errors.append(invalid("status.failedIndexes", failed, text))


def _pods(errors: Errors, new: Json, old: Json) -> None:
    status = status_of(new)
    terminating, ready, active = status.get("terminating"), status.get("ready"), status.get("active") or 0
    turned = is_finished(new) and not is_finished(old)
    if is_finished(new) and (turned or _differ(new, old, "terminating")) and (terminating or 0) > 0:
        text = "terminating>0 is invalid for finished job"
        errors.append(invalid("status.terminating", terminating, text))
    if _differ(new, old, "ready", "active") and ready is not None and ready > active:
        errors.append(invalid("status.ready", ready, "cannot set more ready pods than active"))


def _success(errors: Errors, new: Json) -> None:
    met = is_true(new, "SuccessCriteriaMet")
    for other in ("Failed", "FailureTarget"):
        if met and is_true(new, other):
            _conditions_fault(errors, f"cannot set SuccessCriteriaMet=True and {other}=true conditions")
    if spec_of(new).get("successPolicy") is not None and not met and is_true(new, "Complete"):
        text = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True"
        _conditions_fault(errors, text)


def _progress(errors: Errors, new: Json, old: Json) -> None:
    """What may only go forward."""
    after, before, spec = status_of(new), status_of(old), spec_of(new)
    for kind in ("Failed", "Complete", "FailureTarget"):
        if is_true(old, kind) and not is_true(new, kind):
            _conditions_fault(errors, f"cannot disable the terminal {kind}=True condition")
    elastic = _is_indexed(new) and spec.get("completions") == spec.get("parallelism")
    for field in ("failed", "succeeded"):
        value = after.get(field) or 0
        if value < (before.get(field) or 0) and not (elastic and field == "succeeded"):
            errors.append(invalid(f"status.{field}", value, f"cannot decrease the {field} counter"))
    end, was = after.get("completionTime"), before.get("completionTime")
    if end and was and end != was:
        errors.append(invalid("status.completionTime", end, checks.IMMUTABLE))
    start = before.get("startTime")
    if start and start != after.get("startTime") and not spec.get("suspend"):
        text = "field is immutable for unsuspended job once set"
        errors.append(invalid("status.startTime", after.get("startTime"), text))
    met = "SuccessCriteriaMet"
    if is_true(old, met) and not is_true(new, met):
        _conditions_fault(errors, f"cannot disable the {met}=True condition")
    if is_true(old, "Complete") and not is_true(old, met) and is_true(new, met):
        _conditions_fault(errors, f"cannot set {met}=True for Job already has Complete=true conditions")


def validate_job_status(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    checks.nonnegative_fields(errors, status_of(new), _COUNTS, "status")
    _uncounted(errors, status_of(new))
    _completion(errors, new, old)
    _interim(errors, new, old)
    _finished(errors, new, old)
    _indexes(errors, new, old)
    _pods(errors, new, old)
    _success(errors, new)
    _progress(errors, new, old)
    return errors
