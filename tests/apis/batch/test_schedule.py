import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcp.apis.batch.schedule import schedule_fault, time_zone_faults


@pytest.mark.parametrize(
    "schedule",
    [
        "* * * * *",
        "*/5 0-23/2 1,15 jan-mar MON-fri",
        "0 0 ? * 0",
        "@hourly",
        "@every 1h30m",
        "TZ=UTC 0 0 * * *",
    ],
)
def test_schedules_that_can_be_used(schedule: str) -> None:
    assert schedule_fault(schedule) == ""


@pytest.mark.parametrize(
    ("schedule", "fault"),
    [
        ("", "empty spec string"),
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("@sometimes", "unrecognized descriptor: @sometimes"),
        ("TZ=Mars/Base 0 0 * * *", "provided bad location Mars/Base: unknown time zone Mars/Base"),
    ],
)
def test_schedules_that_cannot(schedule: str, fault: str) -> None:
    assert schedule_fault(schedule) == fault


@given(
    st.tuples(
        st.integers(0, 59), st.integers(0, 23), st.integers(1, 31), st.integers(1, 12), st.integers(0, 6)
    ),
    st.lists(st.booleans(), min_size=5, max_size=5),
)
def test_numbers_in_range_make_a_schedule(numbers: tuple[int, ...], stars: list[bool]) -> None:
    fields = ["*" if star else str(number) for number, star in zip(numbers, stars, strict=True)]
    assert schedule_fault(" ".join(fields)) == ""


@pytest.mark.parametrize(
    ("zone", "faults"),
    [
        ("Europe/Berlin", []),
        ("UTC", []),
        ("Mars/Base", ["unknown time zone Mars/Base"]),
        ("", ["timeZone must be nil or non-empty string"]),
    ],
)
def test_time_zones(zone: str, faults: list[str]) -> None:
    assert time_zone_faults(zone) == faults


def test_the_local_zone_is_not_explicit() -> None:
    assert time_zone_faults("Local")[0] == (
        "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
    )
