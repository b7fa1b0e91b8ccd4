"""Time, MicroTime and Duration as they stand on the wire, and ages as kubectl prints them.

A datetime here always has a zone; what is parsed comes back in UTC.
Source: k8s v1.36 apimachinery/pkg/apis/meta/v1/{time,micro_time,duration}.go, pkg/util/duration; Go's time package.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from kcp.machinery.errors import go_quote

_LAYOUT = "2006-01-02T15:04:05Z07:00"
_RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{1,2}):([0-9]{2}):([0-9]{2})(?:[.,]([0-9]+))?"
    r"(?:Z|([+-])([0-9]{2}):([0-9]{2}))",
    re.ASCII,
).fullmatch
_ELEMENTS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(pattern, re.ASCII))
    for name, pattern in (
        ("2006", "[0-9]{4}"),
        ("-", "-"),
        ("01", "[0-9]{2}"),
        ("-", "-"),
        ("02", "[0-9]{2}"),
        ("T", "T"),
        ("15", "[0-9]{1,2}"),
        (":", ":"),
        ("04", "[0-9]{2}"),
        (":", ":"),
        ("05", "[0-9]{2}(?:[.,][0-9]+)?"),
        ("Z07:00", "Z|[+-][0-9]{2}:[0-9]{2}"),
    )
)
_MONTH_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


_formatted: list[tuple[datetime, str]] = [(datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00Z")]
"""The moment that was formatted last: a write notes its own in several places."""


def format_time(moment: datetime) -> str:
    """Whole seconds, as metav1.Time: `2026-01-31T12:00:00Z`."""
    last, text = _formatted[0]
    if last is not moment:
        text = _format_time(moment)
        _formatted[0] = (moment, text)
    return text


def _format_time(moment: datetime) -> str:
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat()[:19] + "Z"


def format_micro_time(moment: datetime) -> str:
    """Six digits, as metav1.MicroTime: `2026-01-31T12:00:00.000000Z`."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds")[:26] + "Z"


@lru_cache(maxsize=8192)
def parse_time(text: str) -> datetime:
    """An RFC 3339 time, in UTC; digits below a microsecond are cut.

    Raises ValueError with the text of Go's time.Parse: `parsing time "x" as "2006-…": cannot parse "x" as "2006"`.
    """
    match = _RFC3339(text)
    if match is None:
        raise ValueError(_parse_fault(text))
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction, sign, zone_hour, zone_minute = match.groups()[6:]
    if fault := _range_fault(year, month, day, hour, minute, second, zone_hour, zone_minute):
        raise ValueError(f"parsing time {go_quote(text)}: {fault} out of range")
    micro = int(fraction[:6].ljust(6, "0")) if fraction else 0
    moment = datetime(year, month, day, hour, minute, second, micro, UTC)
    if not sign:
        return moment
    offset = timedelta(hours=int(zone_hour), minutes=int(zone_minute))
    try:
        return moment - offset if sign == "+" else moment + offset
    except OverflowError:
        raise ValueError(f"parsing time {go_quote(text)}: year out of range") from None


def _range_fault(
    year: int,
    month: int,
    day: int,
    hour: int,
    minute: int,
    second: int,
    zone_hour: str | None,
    zone_minute: str | None,
) -> str:
    """The element that is out of range; `year` alone is ours: Go takes the year 0, Python does not."""
    if not 1 <= month <= 12:
        return "month"
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if not 1 <= day <= _MONTH_DAYS[month - 1] or (month == 2 and day == 29 and not leap):
        return "day"
    faults = (
        ("hour", hour > 23),
        ("minute", minute > 59),
        ("second", second > 59),
        ("time zone offset hour", zone_hour is not None and int(zone_hour) > 24),
        ("time zone offset minute", zone_minute is not None and int(zone_minute) > 60),
        ("year", year < 1),
    )
    return next((name for name, wrong in faults if wrong), "")


def _parse_fault(text: str) -> str:
    head = f"parsing time {go_quote(text)}"
    rest = text
    for name, pattern in _ELEMENTS:
        match = pattern.match(rest)
        if match is None:
            return f"{head} as {go_quote(_LAYOUT)}: cannot parse {go_quote(rest)} as {go_quote(name)}"
        rest = rest[match.end() :]
    return f"{head}: extra text: {go_quote(rest)}"


def human_duration(seconds: float) -> str:
    """An age with two or three significant figures: `45s`, `3m20s`, `5h10m`, `3d4h`, `2y30d`.

    More than a second in the future gives `<invalid>`. Source: k8s duration.HumanDuration.
    """
    total = int(seconds)
    if total < -1:
        return "<invalid>"
    if total < 120:
        return f"{max(total, 0)}s"
    minutes, hours = total // 60, total // 3600
    if minutes < 10:
        return _two(minutes, "m", total % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 365 * 2:
        return f"{days}d"
    if days < 365 * 8:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def short_human_duration(seconds: float) -> str:
    """An age with one unit: `59s`, `59m`, `23h`, `364d`, `1y`."""
    total = int(seconds)
    if total < -1:
        return "<invalid>"
    if total < 60:
        return f"{max(total, 0)}s"
    if total < 3600:
        return f"{total // 60}m"
    if total < 86400:
        return f"{total // 3600}h"
    days = total // 86400
    return f"{days}d" if days < 365 else f"{days // 365}y"


_UNIT_NS: dict[str, int] = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_DURATION_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^.0-9]*)", re.ASCII)
_INT64_MAX = (1 << 63) - 1


def parse_go_duration(text: str) -> float:
    """Seconds of a Go duration such as `1h30m` or `-1.5s`; raises ValueError with Go's text."""
    return parse_go_duration_ns(text) / 1e9


@lru_cache(maxsize=1024)
def parse_go_duration_ns(text: str) -> int:
    """Nanoseconds of a Go duration, digits below one cut. Source: Go time.ParseDuration."""
    quoted = go_quote(text)
    sign = -1 if text.startswith("-") else 1
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0
    if not rest or len(rest) > 1000:
        raise ValueError(f"time: invalid duration {quoted}")
    total = 0
    while rest:
        match = _DURATION_PART.match(rest)
        whole, fraction, unit = match.groups() if match else ("", None, "")
        if not whole and not fraction:
            raise ValueError(f"time: invalid duration {quoted}")
        if not unit:
            raise ValueError(f"time: missing unit in duration {quoted}")
        if unit not in _UNIT_NS:
            raise ValueError(f"time: unknown unit {go_quote(unit)} in duration {quoted}")
        scale = _UNIT_NS[unit]
        total += int(whole or "0") * scale
        if fraction:
            total += int(fraction) * scale // 10 ** len(fraction)
        if total > _INT64_MAX + (sign < 0):
            raise ValueError(f"time: invalid duration {quoted}")
        rest = rest[match.end() :] if match else ""
    return sign * total


def format_go_duration(seconds: float) -> str:
    """As Go's Duration.String: `1h0m0s`, `1.5s`, `100ms`, `0s`."""
    return format_go_duration_ns(round(seconds * 1e9))


def format_go_duration_ns(nanoseconds: int) -> str:
    sign = "-" if nanoseconds < 0 else ""
    left = abs(nanoseconds)
    if not left:
        return "0s"
    if left < 1_000_000_000:
        unit, scale = ("ns", 1) if left < 1_000 else ("µs", 1_000) if left < 1_000_000 else ("ms", 1_000_000)
        return f"{sign}{_decimal(left, scale)}{unit}"
    minutes, left = divmod(left, _UNIT_NS["m"])
    text = f"{_decimal(left, _UNIT_NS['s'])}s"
    if minutes:
        hours, minutes = divmod(minutes, 60)
        text = f"{minutes}m{text}"
        if hours:
            text = f"{hours}h{text}"
    return sign + text


def _decimal(value: int, scale: int) -> str:
    whole, rest = divmod(value, scale)
    if not rest:
        return str(whole)
    return f"{whole}.{str(rest + scale)[1:].rstrip('0')}"
