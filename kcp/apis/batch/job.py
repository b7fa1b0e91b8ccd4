"""Job.

Source: k8s v1.36 pkg/registry/batch/job/strategy.go, pkg/apis/batch/validation/validation.go, v1/defaults.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kcp.apis.apps.workload import name_warnings
from kcp.apis.batch.job_policies import pod_failure_policy, success_policy
from kcp.apis.batch.job_status import is_true, validate_job_status
from kcp.apis.core import checks
from kcp.apis.core.checks import Errors, Json
from kcp.apis.core.pod_warnings import template_warnings
from kcp.apis.core.podspec import default_template, pod_template
from kcp.apis.core.resources import handles_quantities
from kcp.apis.core.strategies import (
    STATUS_RESET,
    empty_status,
    keep,
    metadata_of,
    spec_of,
    status_of,
    text_at,
)
from kcp.apis.kind import Column, Printer, Strategy
from kcp.apis.printing import (
    AGE,
    CONTAINERS,
    IMAGES,
    NAME,
    age,
    format_label_selector,
    name_of,
    since,
    template_cells,
    wide,
)
from kcp.machinery.errors import (
    FieldError,
    invalid,
    required,
    too_long,
    unsupported,
)
from kcp.machinery.labels import SelectorError, from_label_selector
from kcp.machinery.names import is_dns1123_label, is_domain_prefixed_path
from kcp.machinery.times import human_duration, parse_time

NAME_LABELS = ("job-name", "batch.kubernetes.io/job-name")
UID_LABELS = ("controller-uid", "batch.kubernetes.io/controller-uid")
_MODES = ("NonIndexed", "Indexed")
_MAX_INDEXED = 100_000
_MANY = 100_000
_LIMIT_FOR_MANY = 10_000
_MAX_MANAGED_BY = 63


@handles_quantities
def default_job(job: Json) -> None:
    spec = job.setdefault("spec", {})
    default_template(spec)
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = spec["parallelism"] = 1
    if spec.get("parallelism") is None:
        spec["parallelism"] = 1
    if spec.get("backoffLimit") is None:
        spec["backoffLimit"] = 6 if spec.get("backoffLimitPerIndex") is None else checks.MAX_INT32
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    metadata = job.setdefault("metadata", {})
    if labels and not metadata.get("labels"):
        metadata["labels"] = dict(labels)
    for field, value in (("completionMode", "NonIndexed"), ("suspend", False), ("manualSelector", False)):
        if spec.get(field) is None:
            spec[field] = value
    policy = spec.get("podFailurePolicy")
    if spec.get("podReplacementPolicy") is None:
        spec["podReplacementPolicy"] = "TerminatingOrFailed" if policy is None else "Failed"
    for rule in (policy or {}).get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            if not pattern.get("status"):
                pattern["status"] = "True"


# -- create -----------------------------------------------------------------------------------------


def _prepare_create(job: Json) -> None:
    """The selector is made of the job's uid, so the uid must be there already."""
    empty_status(job)
    if not job["spec"].get("manualSelector"):
        _generate_selector(job)


def _generate_selector(job: Json) -> None:
    metadata, spec = metadata_of(job), job["spec"]
    uid, template = metadata.get("uid") or "", spec["template"]
    labels = template.setdefault("metadata", {}).get("labels")
    if labels is None:
        labels = template["metadata"]["labels"] = {}
    for key in NAME_LABELS:
        labels.setdefault(key, metadata.get("name") or "")
    for key in UID_LABELS:
        labels.setdefault(key, uid)
    selector = spec.get("selector")
    if selector is None:
        selector = spec["selector"] = {}
    if selector.get("matchLabels") is None:
        selector["matchLabels"] = {}
    selector["matchLabels"].setdefault(UID_LABELS[1], uid)


def _has_label(errors: Errors, labels: Json, key: str, value: str) -> None:
    path = f"spec.template.metadata.labels[{key}]"
    if key not in labels:
        errors.append(required(path, f"must be '{value}'"))
    elif labels[key] != value:
        errors.append(invalid(path, labels, f"must be '{value}'"))


def _generated_selector(errors: Errors, job: Json, prefixed: bool) -> None:
    """What the server generated must still be there."""
    metadata, spec = metadata_of(job), spec_of(job)
    if spec.get("manualSelector") or spec.get("selector") is None:
        return
    name, uid = metadata.get("name") or "", metadata.get("uid") or ""
    if not uid:
        errors.append(required("metadata.uid"))
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    expected: dict[str, str] = {}
    for i in range(2 if prefixed else 1):
        _has_label(errors, labels, UID_LABELS[i], uid)
        _has_label(errors, labels, NAME_LABELS[i], name)
        expected |= {UID_LABELS[i]: uid, NAME_LABELS[i]: name}
    try:
        fits = from_label_selector(spec["selector"]).matches(expected)
    except SelectorError:
        fits = True
    if not fits:
        errors.append(invalid("spec.selector", spec["selector"], "`selector` not auto-generated"))


def _selector(errors: Errors, spec: Json) -> None:
    found = spec.get("selector")
    if found is None:
        errors.append(required("spec.selector"))
    else:
        checks.label_selector(errors, found, "spec.selector")
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    try:
        fits = from_label_selector(found).matches(labels or {})
    except SelectorError:
        return
    if not fits:
        text = "`selector` does not match template `labels`"
        errors.append(invalid("spec.template.metadata.labels", labels, text))


_NUMBERS = (
    "parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
)  # fmt: skip


def job_spec(errors: Errors, spec: Json, path: str) -> None:
    """The rules that jobs and the templates of CronJobs share."""
    checks.nonnegative_fields(errors, spec, _NUMBERS, path)
    failed = spec.get("maxFailedIndexes")
    if failed is not None:
        checks.nonnegative(errors, failed, f"{path}.maxFailedIndexes")
        if spec.get("backoffLimitPerIndex") is None:
            errors.append(required(f"{path}.backoffLimitPerIndex", "when maxFailedIndexes is specified"))
    if (manager := spec.get("managedBy")) is not None:
        errors.extend(is_domain_prefixed_path(manager, f"{path}.managedBy"))
        if len(manager.encode()) > _MAX_MANAGED_BY:
            errors.append(too_long(f"{path}.managedBy", _MAX_MANAGED_BY))
    mode = spec.get("completionMode")
    if mode is not None and mode not in _MODES:
        errors.append(unsupported(f"{path}.completionMode", mode, _MODES))
    if mode == "Indexed":
        _indexed(errors, spec, path)
    elif mode in (None, "NonIndexed"):
        for field in ("backoffLimitPerIndex", "maxFailedIndexes"):
            if spec.get(field) is not None:
                errors.append(invalid(f"{path}.{field}", spec[field], "requires indexed completion mode"))
    if (policy := spec.get("podFailurePolicy")) is not None:
        pod_failure_policy(errors, policy, spec, f"{path}.podFailurePolicy")
    if (policy := spec.get("successPolicy")) is not None:
        if mode == "Indexed":
            success_policy(errors, policy, spec, f"{path}.successPolicy")
        else:
            errors.append(invalid(f"{path}.successPolicy", policy, "requires indexed completion mode"))
    _replacement(errors, spec, f"{path}.podReplacementPolicy")
    pod_template(errors, spec.get("template") or {}, f"{path}.template")
    _restart_policy(errors, spec, f"{path}.template.spec.restartPolicy")


def _indexed(errors: Errors, spec: Json, path: str) -> None:
    completions, parallelism = spec.get("completions"), spec.get("parallelism")
    failed = spec.get("maxFailedIndexes")
    if completions is None:
        errors.append(required(f"{path}.completions", "when completion mode is Indexed"))
    if parallelism is not None and parallelism > _MAX_INDEXED:
        text = f"must be less than or equal to {_MAX_INDEXED} when completion mode is Indexed"
        errors.append(invalid(f"{path}.parallelism", parallelism, text))
    if completions is not None and failed is not None and failed > completions:
        text = "must be less than or equal to completions"
        errors.append(invalid(f"{path}.maxFailedIndexes", failed, text))
    if failed is not None and failed > _MAX_INDEXED:
        text = f"must be less than or equal to {_MAX_INDEXED}"
        errors.append(invalid(f"{path}.maxFailedIndexes", failed, text))
    if completions is None or completions <= _MANY or spec.get("backoffLimitPerIndex") is None:
        return
    if failed is None:
        text = f"must be specified when completions is above {_MANY}"
        errors.append(required(f"{path}.maxFailedIndexes", text))
    for field, value in (("parallelism", parallelism), ("maxFailedIndexes", failed)):
        if value is not None and value > _LIMIT_FOR_MANY:
            text = (
                f"must be less than or equal to {_LIMIT_FOR_MANY} when completions are above {_MANY} and used with "
                "backoff limit per index"
            )
            errors.append(invalid(f"{path}.{field}", value, text))


def _replacement(errors: Errors, spec: Json, path: str) -> None:
    policy = spec.get("podReplacementPolicy")
    allowed = ("Failed",) if spec.get("podFailurePolicy") is not None else ("Failed", "TerminatingOrFailed")
    if policy is not None and policy not in allowed:
        errors.append(unsupported(path, policy, allowed))


def _restart_policy(errors: Errors, spec: Json, path: str) -> None:
    policy = ((spec.get("template") or {}).get("spec") or {}).get("restartPolicy") or ""
    if policy in ("", "Always"):
        errors.append(required(path, 'valid values: "OnFailure", "Never"'))
    elif policy not in ("OnFailure", "Never"):
        errors.append(unsupported(path, policy, ("OnFailure", "Never")))
    elif spec.get("podFailurePolicy") is not None and policy != "Never":
        text = 'only "Never" is supported when podFailurePolicy is specified'
        errors.append(invalid(path, policy, text))


def _validate_job(job: Json, prefixed: bool) -> list[FieldError]:
    errors: Errors = []
    spec = spec_of(job)
    _generated_selector(errors, job, prefixed)
    job_spec(errors, spec, "spec")
    _selector(errors, spec)
    completions = spec.get("completions")
    if spec.get("completionMode") == "Indexed" and completions:
        name = metadata_of(job).get("name") or ""
        host = f"{name}-{completions - 1}"
        if is_dns1123_label(host):
            text = f"will not able to create pod with invalid DNS label: {host}"
            errors.append(invalid("metadata.name", name, text))
    return errors


# -- update -----------------------------------------------------------------------------------------


def _completions(errors: Errors, after: Json, before: Json) -> None:
    """An indexed job may grow or shrink, with its parallelism."""
    new, old = after.get("completions"), before.get("completions")
    if after.get("completionMode") != "Indexed":
        checks.same(errors, new, old, "spec.completions")
    elif new != old and (new is None or new != after.get("parallelism")):
        text = "can only be modified in tandem with spec.parallelism"
        errors.append(invalid("spec.completions", new, text))


def _may_move(job: Json) -> bool:
    """Whether a stored job's template may be told where to run: suspended, and never started or at rest again."""
    if not spec_of(job).get("suspend"):
        return False
    return not status_of(job).get("startTime") or _is_at_rest(job)


def _is_at_rest(job: Json) -> bool:
    """Suspended, as its controller confirmed, without active pods."""
    return is_true(job, "Suspended") and not status_of(job).get("active")


def _template_update(errors: Errors, new: Json, old: Json) -> None:
    """The template is fixed, but a suspended job may be told where to run and what it needs.

    Source: k8s v1.36 validatePodTemplateUpdate, and validationOptionsForJob as corrected in v1.36's patch releases.
    """
    after, before = spec_of(new).get("template") or {}, spec_of(old).get("template") or {}
    if after == before:
        return
    if _may_move(old):
        before = _with_directives(before, after)
    if spec_of(old).get("suspend") and _is_at_rest(old):
        now, was = after.get("spec") or {}, before.get("spec") or {}
        checks.same(errors, now, _with_new_resources(was, now), "spec.template.spec")
    else:
        checks.same(errors, after, before, "spec.template")


def _with_directives(before: Json, after: Json) -> Json:
    """The old template with what the new one says of labels, annotations and scheduling."""
    metadata, spec = dict(before.get("metadata") or {}), dict(before.get("spec") or {})
    now = after.get("spec") or {}
    for field in ("labels", "annotations"):
        keep(metadata, after.get("metadata") or {}, field)
    for field in ("nodeSelector", "tolerations", "schedulingGates"):
        keep(spec, now, field)
    affinity = dict(spec.get("affinity") or {})
    keep(affinity, now.get("affinity") or {}, "nodeAffinity")
    spec["affinity"] = affinity
    return {**before, "metadata": metadata, "spec": spec}


def _with_new_resources(was: Json, now: Json) -> Json:
    spec = dict(was)
    for field in ("containers", "initContainers"):
        before, after = was.get(field) or [], now.get(field) or []
        if len(before) == len(after):
            spec[field] = [
                {**old, "resources": new.get("resources") or {}}
                if old.get("name") == new.get("name")
                else old
                for old, new in zip(before, after, strict=True)
            ]
    return spec


_FIXED = (
    "selector",
    "completionMode",
    "podFailurePolicy",
    "backoffLimitPerIndex",
    "managedBy",
    "successPolicy",
)


def _validate_update(new: Json, old: Json) -> list[FieldError]:
    labels = ((spec_of(old).get("template") or {}).get("metadata") or {}).get("labels") or {}
    errors = _validate_job(new, NAME_LABELS[1] in labels and UID_LABELS[1] in labels)
    after, before = spec_of(new), spec_of(old)
    _completions(errors, after, before)
    checks.same(errors, after.get("selector"), before.get("selector"), "spec.selector")
    _template_update(errors, new, old)
    for field in _FIXED[1:]:
        checks.same(errors, after.get(field), before.get(field), f"spec.{field}")
    return errors


# -- the rest ---------------------------------------------------------------------------------------


def _warnings(new: Json, old: Json | None) -> list[str]:
    spec = spec_of(new)
    if old is not None and spec == spec_of(old):
        return []
    found = name_warnings(new) if old is None else []
    completions, parallelism = spec.get("completions"), spec.get("parallelism") or 0
    indexed = spec.get("completionMode") == "Indexed"
    if indexed and (completions or 0) > _MANY and parallelism > _LIMIT_FOR_MANY:
        found.append(
            f"spec.parallelism: In Indexed Jobs with a number of completions higher than {_MANY} and a "
            f"parallelism higher than {_LIMIT_FOR_MANY}, Kubernetes might not be able to track completedIndexes "
            "when a big number of indexes fail"
        )
    return found + template_warnings(spec.get("template"), "spec.template")


_STATUS_WORDS = (("Complete", "Complete"), ("Failed", "Failed"))
_LATER_WORDS = (("Suspended", "Suspended"), ("FailureTarget", "FailureTarget"))


def _status_word(job: Json) -> str:
    for condition, word in _STATUS_WORDS:
        if is_true(job, condition):
            return word
    if metadata_of(job).get("deletionTimestamp"):
        return "Terminating"
    for condition, word in _LATER_WORDS:
        if is_true(job, condition):
            return word
    return "Running"


def _progress(job: Json) -> str:
    spec, succeeded = spec_of(job), status_of(job).get("succeeded") or 0
    if spec.get("completions") is not None:
        return f"{succeeded}/{spec['completions']}"
    parallelism = spec.get("parallelism") or 0
    return f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"


def _duration(job: Json, now: datetime) -> str:
    start, end = status_of(job).get("startTime"), status_of(job).get("completionTime")
    if not start:
        return ""
    if not end:
        return since(start, now)
    return human_duration((parse_time(end) - parse_time(start)).total_seconds())


def _cells(job: Json, now: datetime) -> list[Any]:
    spec = spec_of(job)
    return [
        name_of(job),
        _status_word(job),
        _progress(job),
        _duration(job, now),
        age(job, now),
        *template_cells(spec.get("template")),
        format_label_selector(spec.get("selector")),
    ]


_COLUMNS = (
    NAME,
    Column("Status", "string", "", "Status of the job."),
    Column(
        "Completions", "string", "", "The number of pods which reached phase Succeeded. The value increases monotonically for a given spec. However, it may decrease in reaction to scale down of elastic indexed jobs."
    ),
    Column("Duration", "string", "", "Time required to complete the job."),
    AGE,
    CONTAINERS,
    IMAGES,
    wide("Selector"),
)  # fmt: skip

_succeeded = text_at("status", "succeeded")

STRATEGIES: dict[str, Strategy] = {
    "Job": Strategy(
        default=default_job,
        prepare_create=_prepare_create,
        prepare_update=lambda new, old: keep(new, old, "status"),
        prepare_status=lambda new, old: keep(new, old, "spec"),
        validate_create=lambda job: _validate_job(job, True),
        validate_update=_validate_update,
        validate_status=validate_job_status,
        warnings=_warnings,
        selectable={"status.successful": lambda job: _succeeded(job) or "0"},
        default_propagation="Orphan",
        reset_fields=STATUS_RESET,
    )
}
PRINTERS: dict[str, Printer] = {"Job": Printer(_COLUMNS, _cells)}
