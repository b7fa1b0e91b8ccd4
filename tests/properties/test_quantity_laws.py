"""Laws of quantities, against exact fractions as the oracle."""

from __future__ import annotations

import math
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from kcp.machinery.quantity import INT64_MAX, Quantity, QuantityError, canonical, parse, parse_text

LAWS = settings(max_examples=200, deadline=None)

SUFFIXES: dict[str, Fraction] = {
    "": Fraction(1),
    **{suffix: Fraction(10) ** exponent for suffix, exponent in zip("numkMGTPE", (-9, -6, -3, 3, 6, 9, 12, 15, 18), strict=True)},
    **{suffix: Fraction(2) ** (10 * (i + 1)) for i, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))},
    "e3": Fraction(1000),
    "E-3": Fraction(1, 1000),
    "e+2": Fraction(100),
}  # fmt: skip
numbers = st.one_of(
    st.integers(0, 10**6).map(str),
    st.integers(0, 10**22).map(str),
    st.tuples(st.integers(0, 10**6), st.integers(0, 10**12)).map(lambda p: f"{p[0]}.{p[1]}"),
)
texts = st.tuples(st.sampled_from(["", "-", "+"]), numbers, st.sampled_from(sorted(SUFFIXES)))
quantities = st.one_of(
    texts.map(lambda t: parse("".join(t))),
    st.builds(Quantity, st.integers(-(10**25), 10**25), st.integers(-9, 20), st.sampled_from(["DecimalSI", "BinarySI", "DecimalExponent"])),
)  # fmt: skip


def exact(quantity: Quantity) -> Fraction:
    return Fraction(quantity.unscaled) * Fraction(10) ** quantity.scale


def ceil_away(value: Fraction) -> int:
    return math.ceil(value) if value >= 0 else math.floor(value)


@given(texts)
@LAWS
def test_a_text_means_its_number_rounded_away_to_nanos_and_capped(parts: tuple[str, str, str]) -> None:
    sign, number, suffix = parts
    value = Fraction(number) * SUFFIXES[suffix]
    value = Fraction(ceil_away(value * 10**9), 10**9)
    if suffix.endswith("i"):
        value = min(value, Fraction(INT64_MAX))
    assert exact(parse_text("".join(parts))) == (-value if sign == "-" else value)


@given(quantities)
@LAWS
def test_the_canonical_text_means_the_same_number_and_is_stable(quantity: Quantity) -> None:
    again = parse_text(canonical(quantity))
    if quantity.format == "BinarySI" and abs(exact(quantity)) > INT64_MAX:
        return
    assert exact(again) == exact(quantity)
    if again.format == quantity.format:
        assert canonical(again) == canonical(quantity)
    assert "." not in canonical(quantity)


@given(texts)
@LAWS
def test_printing_keeps_the_number(parts: tuple[str, str, str]) -> None:
    quantity = parse_text("".join(parts))
    assert parse_text(str(quantity)) == quantity
    assert str(parse_text(str(quantity))) == str(quantity)


@given(quantities, quantities)
@LAWS
def test_order_is_that_of_the_numbers(a: Quantity, b: Quantity) -> None:
    x, y = exact(a), exact(b)
    assert (a == b, a < b, a <= b, a > b, a >= b) == (x == y, x < y, x <= y, x > y, x >= y)
    if a == b:
        assert hash(a) == hash(b)


@given(quantities, quantities, st.integers(-(2**63), 2**63))
@LAWS
def test_arithmetic_is_exact(a: Quantity, b: Quantity, factor: int) -> None:
    assert exact(a + b) == exact(a) + exact(b)
    assert exact(a - b) == exact(a) - exact(b)
    assert exact(a * factor) == exact(a) * factor
    assert exact(-a) == -exact(a)
    assert (a + b).format == (a if a else b).format


@given(quantities, st.integers(-12, 12))
@LAWS
def test_scaled_values_round_away_from_zero_and_saturate(quantity: Quantity, scale: int) -> None:
    true = ceil_away(exact(quantity) / Fraction(10) ** scale)
    assert quantity.scaled_value(scale) == max(-(2**63), min(INT64_MAX, true))
    assert exact(quantity.round_up(scale)) == (
        exact(quantity) if quantity.scale >= scale else true * Fraction(10) ** scale
    )


@given(quantities)
@LAWS
def test_as_int64_answers_for_whole_numbers_only(quantity: Quantity) -> None:
    value = exact(quantity)
    fits = value.denominator == 1 and -(2**63) <= value <= INT64_MAX
    assert quantity.as_int64() == (int(value) if fits else None)


@given(st.text(alphabet="0123456789+-.eEinumkKMGTP \n", max_size=12))
@settings(max_examples=400, deadline=None)
def test_any_text_is_a_quantity_or_an_error(text: str) -> None:
    try:
        quantity = parse_text(text)
    except QuantityError:
        return
    assert not text.startswith(" ")
    assert parse_text(str(quantity)) == quantity
