"""CronJob.

Source: k8s v1.36 pkg/registry/batch/cronjob/strategy.go, pkg/apis/batch/validation/validation.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kcp.apis.batch.job import job_spec
from kcp.apis.batch.schedule import schedule_fault, time_zone_faults
from kcp.apis.core import checks
from kcp.apis.core.checks import Errors, Json
from kcp.apis.core.pod_warnings import template_warnings
from kcp.apis.core.podspec import default_template
from kcp.apis.core.resources import handles_quantities
from kcp.apis.core.strategies import STATUS_RESET, empty_status, keep, metadata_of, spec_of, status_of
from kcp.apis.kind import Column, Printer, Strategy
from kcp.apis.printing import (
    AGE,
    CONTAINERS,
    IMAGES,
    NAME,
    age,
    format_label_selector,
    name_of,
    or_none,
    or_unset,
    since,
    template_cells,
    wide,
)
from kcp.machinery.errors import FieldError, invalid, required, unsupported
from kcp.machinery.names import is_dns1123_label

_POLICIES = ("Allow", "Forbid", "Replace")
_MAX_NAME = 52
"""A job's name is the CronJob's with eleven characters more."""
_ZONE_IN_SCHEDULE = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
_TWO_ZONES = "cannot use both timeZone field and TZ or CRON_TZ in schedule"


@handles_quantities
def default_cron_job(cron_job: Json) -> None:
    spec = cron_job.setdefault("spec", {})
    template = spec.setdefault("jobTemplate", {})
    if template.get("metadata") is None:
        template["metadata"] = {}
    default_template(template.setdefault("spec", {}))
    if not spec.get("concurrencyPolicy"):
        spec["concurrencyPolicy"] = "Allow"
    for field, value in (
        ("suspend", False),
        ("successfulJobsHistoryLimit", 3),
        ("failedJobsHistoryLimit", 1),
    ):
        if spec.get(field) is None:
            spec[field] = value


def _job_template(spec: Json) -> Json:
    found: Json = (spec.get("jobTemplate") or {}).get("spec") or {}
    return found


def _spec(errors: Errors, spec: Json, before: Json | None) -> None:
    schedule = spec.get("schedule") or ""
    if not schedule:
        errors.append(required("spec.schedule"))
    else:
        _schedule(errors, schedule, spec.get("timeZone"), before)
    checks.nonnegative(errors, spec.get("startingDeadlineSeconds"), "spec.startingDeadlineSeconds")
    zone = spec.get("timeZone")
    if zone is not None and (before is None or before.get("timeZone") != zone):
        for text in time_zone_faults(zone):
            errors.append(invalid("spec.timeZone", zone, text))
    checks.one_of(errors, spec.get("concurrencyPolicy"), _POLICIES, "spec.concurrencyPolicy")
    job = _job_template(spec)
    path = "spec.jobTemplate.spec"
    job_spec(errors, job, path)
    if job.get("selector") is not None:
        errors.append(invalid(f"{path}.selector", job["selector"], "`selector` will be auto-generated"))
    if job.get("manualSelector"):
        errors.append(unsupported(f"{path}.manualSelector", True, ("nil", "false")))
    limits = ("successfulJobsHistoryLimit", "failedJobsHistoryLimit")
    checks.nonnegative_fields(errors, spec, limits, "spec")


def _schedule(errors: Errors, schedule: str, zone: str | None, before: Json | None) -> None:
    """A zone inside the schedule is refused, unless it was there before."""
    if fault := schedule_fault(schedule):
        errors.append(invalid("spec.schedule", schedule, fault))
    if "TZ" not in schedule:
        return
    if "TZ" not in ((before or {}).get("schedule") or ""):
        errors.append(invalid("spec.schedule", schedule, _ZONE_IN_SCHEDULE))
    elif zone is not None:
        errors.append(invalid("spec.schedule", schedule, _TWO_ZONES))


def _validate(cron_job: Json) -> list[FieldError]:
    errors: Errors = []
    _spec(errors, spec_of(cron_job), None)
    name = metadata_of(cron_job).get("name") or ""
    if len(name) > _MAX_NAME:
        errors.append(invalid("metadata.name", name, f"must be no more than {_MAX_NAME} characters"))
    return errors


def _validate_update(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    _spec(errors, spec_of(new), spec_of(old))
    return errors


def _warnings(new: Json, old: Json | None) -> list[str]:
    spec = spec_of(new)
    if old is not None and spec == spec_of(old):
        return []
    found = []
    if old is None and (faults := is_dns1123_label(metadata_of(new).get("name") or "")):
        found.append(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS "
            f"label is recommended: [{' '.join(faults)}]"
        )
    found += template_warnings(_job_template(spec).get("template"), "spec.jobTemplate.spec.template")
    if "TZ" in (spec.get("schedule") or ""):
        found.append(
            "spec.schedule: cannot use TZ or CRON_TZ in schedule, use timeZone field instead; support will be removed"
        )
    return found


_COLUMNS = (
    NAME,
    Column("Schedule", "string", "", "The schedule in Cron format, see https://en.wikipedia.org/wiki/Cron."),
    Column("Timezone"),
    Column("Suspend", "boolean"),
    Column("Active", "integer", "", "A list of pointers to currently running jobs."),
    Column(
        "Last Schedule",
        "string",
        "",
        "Information when was the last time the job was successfully scheduled.",
    ),
    AGE,
    CONTAINERS,
    IMAGES,
    wide("Selector"),
)


def _cells(cron_job: Json, now: datetime) -> list[Any]:
    spec, status = spec_of(cron_job), status_of(cron_job)
    job = _job_template(spec)
    suspend = spec.get("suspend")
    last = status.get("lastScheduleTime")
    return [
        name_of(cron_job),
        spec.get("schedule") or "",
        or_none(spec.get("timeZone")),
        or_unset(None) if suspend is None else str(bool(suspend)),
        len(status.get("active") or ()),
        since(last, now) if last else "<none>",
        age(cron_job, now),
        *template_cells(job.get("template")),
        format_label_selector(job.get("selector")),
    ]


STRATEGIES: dict[str, Strategy] = {
    "CronJob": Strategy(
        default=default_cron_job,
        prepare_create=empty_status,
        prepare_update=lambda new, old: keep(new, old, "status"),
        prepare_status=lambda new, old: keep(new, old, "spec"),
        validate_create=_validate,
        validate_update=_validate_update,
        warnings=_warnings,
        reset_fields=STATUS_RESET,
    )
}
PRINTERS: dict[str, Printer] = {"CronJob": Printer(_COLUMNS, _cells)}
