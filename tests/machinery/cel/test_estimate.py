"""The most that an expression may cost, before it runs.

The selectors' figures are facts of k8s v1.36 dynamic-resource-allocation/cel/compile_test.go.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcp.machinery.cel.device import COST_LIMIT, compile_selector, device_environment, max_cost
from kcp.machinery.cel.environment import compile, environment
from kcp.machinery.cel.estimate import estimate
from kcp.machinery.cel.schema_types import openapi_type
from kcp.machinery.cel.types import DYN
from kcp.machinery.cel.values import CelError

TEN = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"
OURS = 'device.attributes["dra.example.com"]'
LISTS = device_environment(list_attributes=True)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("true", 0), (f'{OURS}.noSuchAttr.isGreaterThan(quantity("0"))', 6), ('"no-such-domain" in device.attributes', 3),
        ('device.driver == ""', 2), ('device.driver == "dra.example.com"', 4), (f"{OURS}.name", 4), (f'{OURS}["name"]', 4),
        (f"cel.bind(dra, {OURS}, dra.name)", 15), (f"{OURS}.name > 0", 5), (f'{OURS}.name == "fish"', 5),
        (f"{OURS}.name.exists(x, x > 0)", 5 + 6 * 64), (f'{OURS}.name.exists(x, x == "fish")', 5 + 6 * 64),
        (f"{OURS}.name.exists(x, x == true)", 5 + 6 * 64), (f'{OURS}.names.all(x, x != "")', 5 + 4 * 64),
        (f'{OURS}.names.all(x, x.isGreaterThan(semver("0.0.1")))', 5 + 6 * 64), (f'{OURS}.name.includes("fish")', 52),
        (f'{OURS}.name.includes(semver("1.0.0"))', 53), (f"1 in {OURS}.names", 68), (f"{OURS}.names.size() == 2", 6),
        (f'{OURS}.name.isGreaterThan(semver("v0.0.1", true)) && isSemver("v1.0.0", true)', 7),
        ("device.attributes.exists_one(x, x == 'dra.example.com')", 164), (f'{OURS}.exists_one(x, x == "services")', 133),
        (f'{OURS}.services.split("example").size() >= 2', 19), (f'{OURS}.services.matches("[^a]?sym")', 18),
        ('"name" in device.capacity["a"] && device.capacity["a"].name.isGreaterThan(quantity("1Ki"))', 10),
        ('!("name" in device.capacity["a"]) || device.capacity["a"].name.isGreaterThan(quantity("1Ki"))', 11),
        ("device.allowMultipleAllocations == true", 3),
        ("".join(f"{TEN}.all({v}, " for v in "abcdefg") + "int('1'.find('[0-9]*')) < 100" + ")" * 7, 85555551),
    ],
)  # fmt: skip
def test_selectors_are_estimated_as_in_kubernetes(expression: str, expected: int) -> None:
    assert max_cost(compile_selector(expression, LISTS)) == expected


def test_what_could_be_too_expensive_is_known_before_it_runs() -> None:
    program = compile_selector("".join(f"{TEN}.all({v}, " for v in "abcdefg") + "true" + ")" * 7)
    assert max_cost(program) > COST_LIMIT


SCHEMA = {
    "type": "object",
    "properties": {
        "l": {"type": "array", "maxItems": 5, "items": {"type": "string", "maxLength": 5}},
        "m": {"type": "object", "maxProperties": 3, "additionalProperties": {"type": "string", "maxLength": 3}},
        "s": {"type": "string", "maxLength": 10}, "n": {"type": "integer"}, "u": {"type": "array", "items": {"type": "string"}},
    },
}  # fmt: skip
SELF = environment({"self": openapi_type(SCHEMA) or DYN})
RULES = [
    "self.l.all(x, x.startsWith('a'))", "self.l.exists(x, x == self.s)", "self.l.map(x, x + self.s).join(',').contains('ab')",
    "self.m.all(k, self.m[k] != 'x')", "self.l.filter(x, x.size() > 2).exists_one(x, x == 'abc')", "self.s in self.l",
    "self.l.all(x, self.l.exists(y, x == y))", "self.s.replace('a', 'bb').matches('^a*$')", "self.n > 3 ? self.s == 'a' : self.l == []",
    "self.l.transformMap(i, x, x.upperAscii()).size() > 1", "(self.l + self.l).isSorted()",
    "self.s.split('').all(c, c == 'a')", "sets.contains(self.l, ['a', 'b'])",
]  # fmt: skip


@given(
    st.sampled_from(RULES),
    st.lists(st.text("ab", max_size=5), max_size=5),
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.text("x", max_size=3), max_size=3),
    st.text("ab", max_size=10),
    st.integers(0, 9),
)
def test_no_evaluation_costs_more_than_estimated(
    rule: str, items: list[str], m: dict[str, str], s: str, n: int
) -> None:
    program = compile(SELF, rule)
    most = estimate(program).high
    value: dict[str, Any] = {"self": {"l": items, "m": m, "s": s, "n": n}}
    try:
        cost = program.run(value)[1]
    except CelError as error:
        cost = error.cost
    assert cost <= most < 2**63


def test_what_is_not_bounded_is_as_large_as_a_request() -> None:
    bounded, open_ended = (
        estimate(compile(SELF, f"self.{name}.all(x, x == 'abc')")).high for name in ("l", "u")
    )
    assert bounded == 2 + 5 * 5 + 1
    assert open_ended > 1_000_000
