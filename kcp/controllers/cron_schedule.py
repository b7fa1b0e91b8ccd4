"""When a CronJob is due: the schedule's moments, the latest one missed, how long until the next.

Five fields follow robfig/cron: `*/2` in a day field is a list, so that day of month and day of week are alternatives;
only a bare `*` makes them both necessary. Source: k8s v1.36 pkg/controller/cronjob/utils.go.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from kcp.apis.batch.schedule import schedule_fault
from kcp.base.values import frozen
from kcp.machinery.times import parse_go_duration

MANY_MISSED = 100
NEXT_DELTA = timedelta(milliseconds=100)
"""A plan at the very moment of a schedule might come too early by a clock's grain."""

_DESCRIPTORS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_RANGES = ("0-59", "0-23", "1-31", "1-12", "0-6")


class ScheduleError(ValueError):
    """Raised with the parser's words for a schedule that cannot be used."""


class Schedule(Protocol):
    def next(self, after: datetime) -> datetime | None:
        """The first moment after that one; None when there is none in fifty years."""
        ...


@frozen
class Every:
    """`@every 90s`: counted from wherever one starts, in whole seconds."""

    delay: timedelta

    def next(self, after: datetime) -> datetime | None:
        return after.replace(microsecond=0) + self.delay


@frozen
class Fields:
    """Five fields in a time zone."""

    expression: str
    zone: ZoneInfo

    def next(self, after: datetime) -> datetime | None:
        try:
            return next(CronSim(self.expression, after.astimezone(self.zone))).astimezone(UTC)
        except (CronSimError, StopIteration):
            return None


@lru_cache(1024)
def parse(schedule: str, zone: str) -> Schedule:
    """A schedule in a time zone; one named inside the schedule wins. Raises ScheduleError."""
    fault = schedule_fault(schedule)
    if fault:
        raise ScheduleError(fault)
    if schedule.startswith(("TZ=", "CRON_TZ=")):
        named, _, schedule = schedule.partition(" ")
        zone, schedule = named.partition("=")[2], schedule.strip()
    if schedule.startswith("@every "):
        seconds = max(1, int(parse_go_duration(schedule.removeprefix("@every "))))
        return Every(timedelta(seconds=seconds))
    fields = _DESCRIPTORS.get(schedule, schedule).split()
    spelled = (_field(text, span) for text, span in zip(fields, _RANGES, strict=True))
    return Fields(" ".join(spelled), ZoneInfo("UTC" if zone in ("", "Local") else zone))


def _field(text: str, span: str) -> str:
    return ",".join(_part(part, span) for part in text.split(",") if part)


def _part(text: str, span: str) -> str:
    """One entry in cronsim's words: `?` is `*`, steps run over a spelled-out range."""
    base, slash, step = text.partition("/")
    base = base.replace("?", "*")
    if not slash or (int(step) == 1 and base == "*"):
        return base
    if base == "*":
        base = span
    elif "-" not in base:
        base = f"{base}-{span.partition('-')[2]}"
    return f"{base}/{step}"


@frozen
class Missed:
    """What is due: `latest` is the most recent moment that has passed, None when none has."""

    earliest: datetime
    latest: datetime | None = None
    count: int = 0


def most_recent(schedule: Schedule, earliest: datetime, now: datetime) -> Missed:
    """The latest moment in (earliest, now], and about how many there were.

    The count divides the time by the first interval: good enough to tell a few from very many.
    Raises ScheduleError for a schedule that fires more than once a second.
    """
    first = schedule.next(earliest)
    if first is None or now < first:
        return Missed(earliest)
    second = schedule.next(first)
    if second is None or now < second:
        return Missed(earliest, first)
    interval_s = round((second - first).total_seconds())
    if interval_s < 1:
        raise ScheduleError("time difference between two schedules is less than 1 second")
    count = int((now - first).total_seconds()) // interval_s + 1
    return Missed(earliest, _latest(schedule, first, now, interval_s, count), count)


def _latest(schedule: Schedule, first: datetime, now: datetime, interval_s: int, count: int) -> datetime:
    """The last moment up to now, looked for from near the end; an irregular schedule needs a longer run-up."""
    run_up = 2
    while True:
        start = first + timedelta(seconds=max(0, count - run_up) * interval_s)
        latest = first if start == first else None
        moment = schedule.next(start)
        while moment is not None and moment <= now:
            latest, moment = moment, schedule.next(moment)
        if latest is not None:
            return latest
        run_up *= 2


def until_next_s(schedule: Schedule, earliest: datetime, now: datetime) -> float | None:
    """Seconds until the schedule wants attention again; None when it never does."""
    try:
        missed = most_recent(schedule, earliest, now)
        start = missed.latest or missed.earliest
    except ScheduleError:
        start = now
    following = schedule.next(start)
    return None if following is None else max(0.0, (following + NEXT_DELTA - now).total_seconds())
