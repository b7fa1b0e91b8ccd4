"""Quantities: the texts that parse, how they print, and what their numbers are."""

from __future__ import annotations

from typing import Any

import pytest

from kcp.machinery.quantity import ZERO, Quantity, QuantityError, canonical, parse, parse_text, total

WRONG_FORMAT = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("0", "0"),
        ("0n", "0"),
        ("0Ki", "0"),
        ("1", "1"),
        ("1000", "1k"),
        ("1000m", "1"),
        ("100m", "100m"),
        ("1.5", "1500m"),
        ("0.1", "100m"),
        (".001", "1m"),
        ("1e3", "1e3"),
        ("1E3", "1E3"),
        ("1000e3", "1e6"),
        ("1E", "1E"),
        ("1.5Gi", "1536Mi"),
        ("1024Ki", "1Mi"),
        ("1024Mi", "1Gi"),
        ("0.5Ki", "512"),
        ("1Ei", "1Ei"),
        ("100Ki", "100Ki"),
        ("0.1Mi", "104857600m"),
        ("-1.5", "-1500m"),
        ("-5Mi", "-5Mi"),
        ("0.1n", "1n"),
        ("1.0000000001", "1000000001n"),
        ("12345678901234567890", "12345678901234567890"),
        ("9Ei", "9223372036854775807"),
        ("1000E", "1000E"),
        ("1e-9", "1e-9"),
        ("1e-12", "1e-9"),
    ],
)
def test_canonical_texts(text: str, printed: str) -> None:
    assert str(parse_text(text)) == printed


@pytest.mark.parametrize("text", ["1.500", "+5Ki", "007Ki", "001", "+1"])
def test_some_texts_print_as_written(text: str) -> None:
    assert str(parse_text(text)) == text


@pytest.mark.parametrize("text", ["-", "+", ".", "Ki", "m", "-.Mi"])
def test_texts_without_digits_are_zero_as_in_kubernetes(text: str) -> None:
    assert parse_text(text) == ZERO


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", WRONG_FORMAT),
        ("aoeu", WRONG_FORMAT),
        ("1.1.M", WRONG_FORMAT),
        (" 1", WRONG_FORMAT),
        ("1 ", WRONG_FORMAT),
        ("1,5", WRONG_FORMAT),
        ("١", WRONG_FORMAT),
        ("1\n", WRONG_FORMAT),
        ("1+1.0M", WRONG_FORMAT),
        ("0.1mi", "unable to parse quantity's suffix"),
        ("1K", "unable to parse quantity's suffix"),
        ("1i", "unable to parse quantity's suffix"),
        ("1e", "unable to parse quantity's suffix"),
        ("-3.01e-", "unable to parse quantity's suffix"),
        ("1MiKi", "unable to parse quantity's suffix"),
        ("1e99999999999999999999", "unable to parse quantity's suffix"),
        ("1" * 2001, "unable to parse numeric part of quantity"),
    ],
)
def test_texts_that_are_no_quantities(text: str, message: str) -> None:
    with pytest.raises(QuantityError) as caught:
        parse_text(text)
    assert str(caught.value) == message


def test_json_values() -> None:
    assert parse(2) == parse("2")
    assert parse(0.5) == parse("500m")
    assert parse(1e-07) == parse("100n")
    assert str(parse(" 1Gi\n")) == "1Gi"
    wrongs: list[Any] = [True, None, [], {}]
    for wrong in wrongs:
        with pytest.raises(QuantityError, match="must match the regular expression"):
            parse(wrong)


@pytest.mark.parametrize(
    ("text", "value", "milli"),
    [
        ("1", 1, 1000),
        ("100m", 1, 100),
        ("1001m", 2, 1001),
        ("0.0001", 1, 1),
        ("-1001m", -2, -1001),
        ("1Ki", 1024, 1024000),
        ("1.5Ki", 1536, 1536000),
        ("0", 0, 0),
        ("8E", 8 * 10**18, 2**63 - 1),
        ("-1e30", -(2**63), -(2**63)),
        ("1e1000000000", 2**63 - 1, 2**63 - 1),
        ("1e-1000000000", 1, 1),
    ],
)
def test_whole_numbers_round_away_from_zero(text: str, value: int, milli: int) -> None:
    assert (parse(text).value(), parse(text).milli_value()) == (value, milli)


def test_as_int64_is_exact_or_nothing() -> None:
    assert parse("2Ki").as_int64() == 2048
    assert parse("2000m").as_int64() == 2
    assert parse("1500m").as_int64() is None
    assert parse("1e30").as_int64() is None


def test_arithmetic() -> None:
    assert str(parse("100m") + parse("900m")) == "1"
    assert str(parse("1Gi") - parse("512Mi")) == "512Mi"
    assert str(parse("1Gi") + parse("1")) == "1073741825"
    assert str(parse("250m") * 4) == "1"
    assert str(-parse("1Ki")) == "-1Ki"
    assert str(total([parse("1"), parse("500m"), parse("1k")])) == "1001500m"
    assert str(total([])) == "0"


def test_zero_takes_the_suffix_family_of_what_is_added() -> None:
    assert str(ZERO + parse("2Mi")) == "2Mi"
    assert str(parse("0") - parse("2Mi")) == "-2Mi"
    assert (parse("1k") - parse("1k") + parse("1Ki")).format == "BinarySI"


def test_order_and_equality_ignore_the_suffix() -> None:
    assert parse("1000m") == parse("1")
    assert hash(parse("1000m")) == hash(parse("1e0"))
    assert parse("1Ki") > parse("1k")
    assert parse("-1") < parse("0") < parse("1n")
    assert sorted([parse("1Gi"), parse("1G"), parse("1m")]) == [parse("1m"), parse("1G"), parse("1Gi")]
    assert parse("1") != 1
    assert not parse("0Gi")
    assert parse("1n")


def test_round_up() -> None:
    assert str(parse("1.2345").round_up(-3)) == "1235m"
    assert str(parse("-9").round_up(1)) == "-10"
    assert str(parse("5k").round_up(0)) == "5k"


def test_hostile_exponents_cost_nothing() -> None:
    huge, tiny = parse("1e2000000000"), parse("1n")
    assert huge > tiny
    assert huge + tiny == huge
    assert tiny - huge == -huge
    assert huge != tiny
    assert canonical(huge) == "100e1999999998"
    assert huge.as_float() == float("inf")


def test_floats() -> None:
    assert parse("1500m").as_float() == 1.5
    assert parse("1Mi").as_float() == 1048576.0


def test_made_from_numbers() -> None:
    assert str(Quantity(1536, 0, "BinarySI")) == "1536"
    assert str(Quantity(2048, 0, "BinarySI")) == "2Ki"
    assert str(Quantity(1500, -3)) == "1500m"
    assert repr(Quantity(1)) == "<Quantity 1>"
