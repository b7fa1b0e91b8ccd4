"""When schedules fire, in UTC and elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcp.controllers.cron_schedule import ScheduleError, most_recent, parse, until_next_s


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "zone", "after", "expected"),
    [
        ("* * * * *", "", "2026-01-01T00:00:30", "2026-01-01T00:01:00"),
        ("*/15 * * * *", "", "2026-01-01T00:00:00", "2026-01-01T00:15:00"),
        ("5/20 * * * *", "", "2026-01-01T00:06:00", "2026-01-01T00:25:00"),
        ("0 9 * * mon-fri", "", "2026-01-02T10:00:00", "2026-01-05T09:00:00"),
        ("0 0 ? jan *", "", "2026-01-31T00:00:00", "2027-01-01T00:00:00"),
        ("@hourly", "", "2026-01-01T00:00:00", "2026-01-01T01:00:00"),
        ("@weekly", "", "2026-01-01T00:00:00", "2026-01-04T00:00:00"),
        ("@every 90s", "", "2026-01-01T00:00:10", "2026-01-01T00:01:40"),
        ("0 9 * * *", "America/New_York", "2026-01-01T00:00:00", "2026-01-01T14:00:00"),
        ("0 9 * * *", "America/New_York", "2026-07-01T00:00:00", "2026-07-01T13:00:00"),
        ("TZ=Asia/Tokyo 0 9 * * *", "", "2026-01-01T00:00:01", "2026-01-02T00:00:00"),
    ],
)
def test_the_next_moment(schedule: str, zone: str, after: str, expected: str) -> None:
    assert parse(schedule, zone).next(at(after)) == at(expected)


def test_day_of_month_and_day_of_week_are_alternatives_unless_one_is_a_bare_star() -> None:
    both = parse("0 0 13 * 5", "")  # the 13th, and every Friday
    assert both.next(at("2026-01-01T00:00:00")) == at("2026-01-02T00:00:00")
    stepped = parse("0 0 */30 * 3", "")  # the 1st and the 31st, and every Wednesday
    assert stepped.next(at("2026-01-01T00:00:00")) == at("2026-01-07T00:00:00")
    assert parse("0 0 13 * *", "").next(at("2026-01-01T00:00:00")) == at("2026-01-13T00:00:00")


def test_a_day_that_never_comes_has_no_moment() -> None:
    assert parse("0 0 31 2 *", "").next(at("2026-01-01T00:00:00")) is None
    assert until_next_s(parse("0 0 31 2 *", ""), at("2026-01-01T00:00:00"), at("2026-02-01T00:00:00")) is None


def test_what_cannot_be_read_is_told_in_the_parsers_words() -> None:
    with pytest.raises(ScheduleError, match=r"expected exactly 5 fields, found 2: \[a b\]"):
        parse("a b", "")


@given(st.integers(1, 59), st.integers(0, 5000))
def test_the_latest_moment_is_the_last_one_that_has_passed(step: int, minutes: int) -> None:
    schedule = parse(f"*/{step} * * * *", "")
    start = at("2026-01-01T00:00:00")
    now = start + timedelta(minutes=minutes, seconds=7)
    latest = most_recent(schedule, start, now).latest
    if latest is None:
        following = schedule.next(start)
        assert following is not None and following > now
    else:
        following = schedule.next(latest)
        assert start < latest <= now and following is not None and following > now


def test_missed_moments_are_counted_roughly() -> None:
    schedule = parse("* * * * *", "")
    start = at("2026-01-01T00:00:00")
    assert most_recent(schedule, start, start).count == 0
    assert most_recent(schedule, start, start + timedelta(minutes=3)).count == 3
    assert most_recent(schedule, start, start + timedelta(minutes=150)).count == 150


def test_the_next_look_is_a_little_after_the_moment() -> None:
    start = at("2026-01-01T00:00:00")
    assert until_next_s(parse("* * * * *", ""), start, start) == pytest.approx(60.1)
