"""Timestamps and durations: text to value, and the fields of both.

Source: cel-go v0.26 common/types/{timestamp,duration}.go; Go's time package.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from kcp.machinery.cel.values import (
    SECOND,
    CelError,
    Duration,
    Timestamp,
    as_duration,
    as_timestamp,
)
from kcp.machinery.times import parse_go_duration_ns, parse_time

_FRACTION: Final = re.compile(r"[.,]([0-9]+)")
_OFFSET: Final = re.compile(r"([+-]?)([0-9]{1,2}):([0-9]{2})", re.ASCII)
_ZONED: Final = re.compile(r"(?:[zZ]|[+-][0-9]{2}:[0-9]{2})$", re.ASCII)
_DATE_LENGTH: Final = 10
_WORDS: Final = re.compile(r"(-?[0-9]+)\s*([A-Za-zµ]+)")
_UNITS: Final[tuple[tuple[int, tuple[str, ...]], ...]] = (
    (1, ("ns", "nano")),
    (1_000, ("us", "µs", "micro")),
    (1_000_000, ("ms", "milli")),
    (SECOND, ("s",)),
    (60 * SECOND, ("m",)),
    (3600 * SECOND, ("h",)),
    (86400 * SECOND, ("d",)),
    (7 * 86400 * SECOND, ("w",)),
)
"""Nanoseconds of a unit, and what its names begin with; the first that fits counts."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def parse_timestamp(text: str) -> Timestamp:
    """An RFC 3339 time. Raises CelError with Go's text."""
    try:
        moment = parse_time(text)
    except ValueError as error:
        raise CelError(str(error)) from None
    fraction = _FRACTION.search(text)
    seconds = (moment.replace(microsecond=0) - _EPOCH) // timedelta(seconds=1)
    return as_timestamp(seconds * SECOND + (int(fraction[1][:9].ljust(9, "0")) if fraction else 0))


def parse_date(text: str) -> Timestamp:
    """A day as its first moment. Raises CelError."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise CelError(f'parsing time "{text}" as "2006-01-02"') from None
    return Timestamp((day.toordinal() - 719163) * 86400 * SECOND)


def parse_duration(text: str) -> Duration:
    """A Go duration. Raises CelError with Go's text."""
    try:
        return as_duration(parse_go_duration_ns(text))
    except ValueError as error:
        raise CelError(str(error)) from None


def parse_format_duration(text: str) -> Duration:
    """The value of a field of the format duration: a Go duration, or words such as `3 days`. Raises CelError.

    Source: kube-openapi pkg/validation/strfmt/duration.go.
    """
    try:
        return parse_duration(text)
    except CelError:
        parts = [(int(number), _unit(word)) for number, word in _WORDS.findall(text)]
        if not parts or any(unit is None for _, unit in parts):
            raise
    return as_duration(sum(number * (unit or 0) for number, unit in parts))


def _unit(word: str) -> int | None:
    return next((ns for ns, names in _UNITS if word.lower().startswith(names)), None)


def parse_format_time(text: str) -> Timestamp:
    """The value of a field of the formats date and date-time; without a zone it is UTC. Raises CelError."""
    if len(text) == _DATE_LENGTH:
        return parse_date(text)
    try:
        return parse_timestamp(text)
    except CelError:
        if _ZONED.search(text):
            raise
    return parse_timestamp(f"{text}Z")


@lru_cache(maxsize=256)
def zone(name: str) -> tzinfo:
    """A time zone by its name or as `+hh:mm`. Raises CelError."""
    match = _OFFSET.fullmatch(name)
    if match is not None:
        offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
        if offset < timedelta(days=1):
            return timezone(-offset if match[1] == "-" else offset)
    elif ":" not in name:
        try:
            return UTC if name in ("", "UTC") else ZoneInfo(name)
        except (OSError, ValueError, KeyError):
            pass
    raise CelError(f"unknown time zone {name}")


def local(moment: Timestamp, name: str) -> datetime:
    """The moment in that zone, to the microsecond below."""
    try:
        return (_EPOCH + timedelta(microseconds=moment.ns // 1000)).astimezone(zone(name))
    except OverflowError:
        raise CelError("timestamp overflow") from None


TIMESTAMP_FIELDS: Final[dict[str, Callable[[datetime], int]]] = {
    "getFullYear": lambda moment: moment.year,
    "getMonth": lambda moment: moment.month - 1,
    "getDayOfYear": lambda moment: moment.timetuple().tm_yday - 1,
    "getDayOfMonth": lambda moment: moment.day - 1,
    "getDate": lambda moment: moment.day,
    "getDayOfWeek": lambda moment: moment.isoweekday() % 7,
    "getHours": lambda moment: moment.hour,
    "getMinutes": lambda moment: moment.minute,
    "getSeconds": lambda moment: moment.second,
    "getMilliseconds": lambda moment: moment.microsecond // 1000,
}
DURATION_FIELDS: Final[dict[str, int]] = {
    "getHours": 3600 * SECOND,
    "getMinutes": 60 * SECOND,
    "getSeconds": SECOND,
    "getMilliseconds": SECOND // 1000,
}


def whole(duration: Duration, unit: int) -> int:
    """How many units fit, cut towards zero."""
    return abs(duration.ns) // unit * (1 if duration.ns >= 0 else -1)
