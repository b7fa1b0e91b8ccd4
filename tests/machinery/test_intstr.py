"""IntOrString."""

from __future__ import annotations

from typing import Any

import pytest

from kcp.machinery.intstr import scaled_value, validate_at_most_100_percent, validate_int_or_percent


@pytest.mark.parametrize(
    ("value", "total", "up", "down"),
    [(3, 10, 3, 3), ("25%", 10, 3, 2), ("25%", 4, 1, 1), ("0%", 5, 0, 0), ("100%", 7, 7, 7), ("150%", 3, 5, 4), ("-10%", 5, 0, -1)],
)  # fmt: skip
def test_percentages_are_rounded(value: int | str, total: int, up: int, down: int) -> None:
    assert scaled_value(value, total, round_up=True) == up
    assert scaled_value(value, total, round_up=False) == down


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("25", "invalid value for IntOrString: invalid type: string is not a percentage"),
        ("", "invalid value for IntOrString: invalid type: string is not a percentage"),
        ("a%", 'invalid value for IntOrString: invalid value "a%": strconv.Atoi: parsing "a": invalid syntax'),
        ("1.5%", 'invalid value for IntOrString: invalid value "1.5%": strconv.Atoi: parsing "1.5": invalid syntax'),
        (f"{2**63}%", f'invalid value for IntOrString: invalid value "{2**63}%": strconv.Atoi: parsing "{2**63}": value out of range'),
    ],
)  # fmt: skip
def test_strings_that_are_no_percentages(value: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        scaled_value(value, 10, round_up=True)
    assert str(caught.value) == message


@pytest.mark.parametrize("value", [0, 5, "0%", "250%"])
def test_valid_values(value: Any) -> None:
    assert validate_int_or_percent(value, "p") == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-1, "p: Invalid value: -1: must be greater than or equal to 0"),
        ("5", "p: Invalid value: \"5\": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"),
        (None, "p: Invalid value: null: must be an integer or percentage (e.g '5%%')"),
        (True, "p: Invalid value: true: must be an integer or percentage (e.g '5%%')"),
    ],
)  # fmt: skip
def test_invalid_values(value: Any, text: str) -> None:
    assert [str(e) for e in validate_int_or_percent(value, "p")] == [text]


def test_more_than_a_hundred_percent() -> None:
    for fine in (500, "100%", "0100%", "nonsense"):
        assert validate_at_most_100_percent(fine, "p") == []
    assert [str(e) for e in validate_at_most_100_percent("101%", "p")] == [
        'p: Invalid value: "101%": must not be greater than 100%'
    ]
