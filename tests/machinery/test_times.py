"""Times, durations and ages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from kcp.machinery import times


def test_times_print_whole_seconds_and_micro_times_six_digits() -> None:
    moment = datetime(2026, 1, 31, 23, 59, 59, 5, UTC)
    assert times.format_time(moment) == "2026-01-31T23:59:59Z"
    assert times.format_micro_time(moment) == "2026-01-31T23:59:59.000005Z"
    assert times.format_micro_time(moment.replace(microsecond=0)) == "2026-01-31T23:59:59.000000Z"


def test_other_zones_become_utc() -> None:
    moment = datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    assert times.format_time(moment) == "2025-12-31T23:00:00Z"
    assert times.format_micro_time(moment) == "2025-12-31T23:00:00.000000Z"
    assert times.format_time(datetime(1, 1, 1, tzinfo=UTC)) == "0001-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-01T00:00:00Z", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T02:30:00+02:30", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2025-12-31T23:00:00-01:00", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T00:00:00.5Z", datetime(2026, 1, 1, 0, 0, 0, 500000, UTC)),
        ("2026-01-01T00:00:00.123456789Z", datetime(2026, 1, 1, 0, 0, 0, 123456, UTC)),
        ("2024-02-29T1:00:00Z", datetime(2024, 2, 29, 1, tzinfo=UTC)),
    ],
)
def test_times_that_parse(text: str, moment: datetime) -> None:
    assert times.parse_time(text) == moment
    assert times.parse_time(text).tzinfo is UTC


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'parsing time "" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "2006"'),
        ("soon", 'parsing time "soon" as "2006-01-02T15:04:05Z07:00": cannot parse "soon" as "2006"'),
        ("2026-01-01", 'parsing time "2026-01-01" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "T"'),
        ("2026-01-01T00:00:00", 'parsing time "2026-01-01T00:00:00" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "Z07:00"'),
        ("2026-01-01T00:00:00Z ", 'parsing time "2026-01-01T00:00:00Z ": extra text: " "'),
        ("2026-13-01T00:00:00Z", 'parsing time "2026-13-01T00:00:00Z": month out of range'),
        ("2025-02-29T00:00:00Z", 'parsing time "2025-02-29T00:00:00Z": day out of range'),
        ("2026-01-01T24:00:00Z", 'parsing time "2026-01-01T24:00:00Z": hour out of range'),
        ("2026-01-01T00:00:60Z", 'parsing time "2026-01-01T00:00:60Z": second out of range'),
        ("0001-01-01T00:00:00+01:00", 'parsing time "0001-01-01T00:00:00+01:00": year out of range'),
    ],
)  # fmt: skip
def test_times_that_do_not_parse(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        times.parse_time(text)
    assert str(caught.value) == message


MINUTE, HOUR, DAY, YEAR = 60, 3600, 86400, 365 * 86400


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-2, "<invalid>"),
        (-1.9, "0s"),
        (0, "0s"),
        (0.999, "0s"),
        (119.9, "119s"),
        (2 * MINUTE, "2m"),
        (2 * MINUTE + 5, "2m5s"),
        (10 * MINUTE + 59, "10m"),
        (3 * HOUR - 1, "179m"),
        (3 * HOUR, "3h"),
        (7 * HOUR + 5 * MINUTE, "7h5m"),
        (8 * HOUR + 59 * MINUTE, "8h"),
        (2 * DAY - 1, "47h"),
        (2 * DAY, "2d"),
        (2 * DAY + 3 * HOUR, "2d3h"),
        (8 * DAY + 3 * HOUR, "8d"),
        (2 * YEAR - 1, "729d"),
        (2 * YEAR, "2y"),
        (2 * YEAR + 3 * DAY, "2y3d"),
        (8 * YEAR + 3 * DAY, "8y"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    assert times.human_duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-2, "<invalid>"), (-1, "0s"), (59, "59s"), (60, "1m"), (HOUR, "1h"), (DAY - 1, "23h"), (YEAR - 1, "364d"), (YEAR, "1y")],
)  # fmt: skip
def test_short_ages(seconds: float, text: str) -> None:
    assert times.short_human_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "nanoseconds", "printed"),
    [
        ("0", 0, "0s"),
        ("1h", 3_600_000_000_000, "1h0m0s"),
        ("1h15m30.918s", 4_530_918_000_000, "1h15m30.918s"),
        ("-1.5s", -1_500_000_000, "-1.5s"),
        ("+5m", 300_000_000_000, "5m0s"),
        (".5ms", 500_000, "500µs"),
        ("1us", 1_000, "1µs"),
        ("3ns", 3, "3ns"),
        ("1m1ms", 60_001_000_000, "1m0.001s"),
        ("9223372036854775807ns", 2**63 - 1, "2562047h47m16.854775807s"),
    ],
)
def test_go_durations(text: str, nanoseconds: int, printed: str) -> None:
    assert times.parse_go_duration_ns(text) == nanoseconds
    assert times.format_go_duration_ns(nanoseconds) == printed


def test_go_durations_in_seconds() -> None:
    assert times.parse_go_duration("90s") == 90.0
    assert times.format_go_duration(0.1) == "100ms"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'time: invalid duration ""'),
        ("3", 'time: missing unit in duration "3"'),
        (".s", 'time: invalid duration ".s"'),
        ("s", 'time: invalid duration "s"'),
        ("3 h", 'time: unknown unit " h" in duration "3 h"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'),
        ("9999999h", 'time: invalid duration "9999999h"'),
    ],
)
def test_no_go_durations(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        times.parse_go_duration_ns(text)
    assert str(caught.value) == message


def test_a_moment_has_its_own_text_however_often_and_in_whatever_order_it_is_asked_for() -> None:
    one, other = datetime(2026, 1, 31, 12, tzinfo=UTC), datetime(2026, 1, 31, 12, 0, 1, tzinfo=UTC)
    texts = [times.format_time(moment) for moment in (one, one, other, one)]
    assert [text[-3:-1] for text in texts] == ["00", "00", "01", "00"]
