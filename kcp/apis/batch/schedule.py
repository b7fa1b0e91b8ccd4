"""The schedules of CronJobs: which texts are valid, and what is said about the others.

Five fields (minute, hour, day of month, month, day of week), a descriptor such as `@daily`, or `@every 1h30m`.
Source: github.com/robfig/cron/v3 parser.go, as k8s v1.36 uses it; pkg/apis/batch/validation (time zones).
"""

from __future__ import annotations

import re
import zoneinfo
from functools import lru_cache

from kcp.machinery.times import parse_go_duration

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[int, int, dict[str, int]], ...] = (
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, {name: i for i, name in enumerate(_MONTHS, 1)}),
    (0, 6, {name: i for i, name in enumerate(_DAYS)}),
)
_DESCRIPTORS = frozenset(
    {"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"}
)  # fmt: skip
_ZONE_PART = re.compile(r"[A-Za-z.\-_0-9+]{1,14}")


class _Fault(ValueError):
    """Raised with the text of what is wrong with a schedule."""


def schedule_fault(schedule: str) -> str:
    """Why a schedule cannot be used, in the parser's words; empty when it can."""
    try:
        _parse(schedule)
    except _Fault as fault:
        return str(fault)
    return ""


def _parse(schedule: str) -> None:
    if not schedule:
        raise _Fault("empty spec string")
    if schedule.startswith(("TZ=", "CRON_TZ=")):
        zone, _, schedule = schedule.partition(" ")
        zone = zone.partition("=")[2]
        if not _is_zone(zone):
            raise _Fault(f"provided bad location {zone}: unknown time zone {zone}")
        schedule = schedule.strip()
    if schedule.startswith("@"):
        _descriptor(schedule)
        return
    fields = schedule.split()
    if len(fields) != 5:
        raise _Fault(f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]")
    for field, (low, high, names) in zip(fields, _FIELDS, strict=True):
        for part in filter(None, field.split(",")):
            _range(part, low, high, names)


def _descriptor(schedule: str) -> None:
    if schedule in _DESCRIPTORS:
        return
    if not schedule.startswith("@every "):
        raise _Fault(f"unrecognized descriptor: {schedule}")
    try:
        parse_go_duration(schedule.removeprefix("@every "))
    except ValueError as error:
        raise _Fault(f"failed to parse duration {schedule}: {error}") from error


def _range(text: str, low: int, high: int, names: dict[str, int]) -> None:
    """`*`, `5`, `1-5`, `*/15`, `1-30/2`, with names for months and days."""
    span, *steps = text.split("/")
    ends = span.split("-")
    if len(ends) > 2:
        raise _Fault(f"too many hyphens: {text}")
    if ends[0] in ("*", "?"):
        start, end = low, high
    else:
        start = _number(ends[0], names)
        end = _number(ends[1], names) if len(ends) == 2 else start
    if len(steps) > 1:
        raise _Fault(f"too many slashes: {text}")
    step = 1
    if steps:
        step = _number(steps[0], {})
        if len(ends) == 1 and ends[0] not in ("*", "?"):
            end = high
    if start < low:
        raise _Fault(f"beginning of range ({start}) below minimum ({low}): {text}")
    if end > high:
        raise _Fault(f"end of range ({end}) above maximum ({high}): {text}")
    if start > end:
        raise _Fault(f"beginning of range ({start}) beyond end of range ({end}): {text}")
    if step == 0:
        raise _Fault(f"step of range should be a positive number: {text}")


def _number(text: str, names: dict[str, int]) -> int:
    if (named := names.get(text.lower())) is not None:
        return named
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise _Fault(f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax')
    value = int(text)
    if value < 0:
        raise _Fault(f"negative number ({value}) not allowed: {text}")
    return value


@lru_cache(1)
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def _is_zone(name: str) -> bool:
    return name in ("", "UTC", "Local") or name in _zones()


def time_zone_faults(name: str) -> list[str]:
    """What is wrong with spec.timeZone."""
    if not name:
        return ["timeZone must be nil or non-empty string"]
    faults = []
    if name.lower() == "local":
        faults.append("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones")
    if not all(map(_ZONE_PART.fullmatch, name.split("/"))) or not _is_zone(name):
        faults.append(f"unknown time zone {name}")
    return faults
