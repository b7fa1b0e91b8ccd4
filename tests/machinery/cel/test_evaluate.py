"""What expressions evaluate to: CEL's own functions and operators, values and errors as in cel-spec's tests."""

from __future__ import annotations

import contextlib
from collections import UserDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcp.machinery.cel.environment import compile, environment
from kcp.machinery.cel.types import INT, STRING, TIMESTAMP, Field, object_type
from kcp.machinery.cel.values import CelError
from tests.machinery.cel.support import ALL, VALUES, value

TRUE = """
dyn(1) == 1.0 && dyn(1u) == 1 && dyn(1.0) == dyn(1u)
dyn(1) != dyn('1') && dyn(true) != dyn(1) && dyn(null) != dyn(0)
[1, 2] == [1, 2] && [1] != [1, 2] && [dyn(1)] == [dyn(1.0)]
{'a': 1, 'b': 2} == {'b': 2, 'a': 1} && {'a': 1} != {'a': 2}
double('NaN') != double('NaN') && !(double('NaN') < 1.0)
0.0 == -0.0
'ab' < 'b' && b'a' < b'b' && false < true && 'a' <= 'a' && 2 > 1u && 1.5 >= 1 && 9223372036854775807 < 18446744073709551615u
timestamp('2020-01-01T00:00:00Z') < timestamp('2020-01-01T00:00:01Z')
duration('1h') == duration('60m')
7 / 2 == 3 && -7 / 2 == -3 && 7 % 3 == 1 && -7 % 3 == -1 && 7 % -3 == 1
7u / 2u == 3u && 7u % 2u == 1u && 1.0 / 0.0 > 1e308
-1 - -2 == 1
[1] + [2] == [1, 2] && 'a' + 'b' == 'ab' && b'a' + b'b' == b'ab'
1 in [1, 2] && !(3 in [1, 2]) && 'k' in m && !('z' in m) && dyn(1.0) in [1] && 'a' in names
[1, 2, 3][1] == 2 && {'a': 1}['a'] == 1 && {1: 'x'}[1] == 'x' && {true: 1}[true] == 1 && {1: 2}[dyn(1.0)] == 2
!({1: 2}.exists(k, dyn(k) == true)) && !(dyn(true) in {1: 2})
size('ÿ😀') == 2 && size(b'ÿ') == 2 && [1, 2].size() == 2 && size({'a': 1}) == 1 && ''.size() == 0
int('-12') == -12 && int(1.9) == 1 && int(-7.9) == -7 && int(42u) == 42 && int(timestamp('2004-09-16T23:59:59Z')) == 1095379199
uint('300') == 300u && uint(1e19) == 10000000000000000000u && uint(25.5) == 25u
double('-84.32e7') == -8.432e8 && double(1000000000000) == 1e12 && double('0') == 0.0
string(123) == '123' && string(-4.5e-3) == '-0.0045' && string(123.456) == '123.456' && string(9876u) == '9876' && string(1e6) == '1e+06'
string(b'abc') == 'abc' && string(true) == 'true' && bytes('ÿ') == b'\\303\\277' && bytes('\\377') != b'\\377'
string(timestamp('2009-02-13T23:31:30.5+01:00')) == '2009-02-13T22:31:30.5Z' && string(duration('1h1m1.5s')) == '3661.5s'
bool('true') && !bool('F') && bool(true)
type(1) == int && type(1u) == uint && type(1.0) == double && type('') == string && type(b'') == bytes && type(null) == null_type
type([]) == list && type({}) == map && type(true) == bool && type(int) == type && type(type(1)) == type(type('a'))
type(timestamp('2020-01-01T00:00:00Z')) == google.protobuf.Timestamp && type(duration('1s')) == google.protobuf.Duration
type(optional.none()) == optional_type && type(quantity('1')) == kubernetes.Quantity && type(ip('::1')) == net.IP
'hello'.contains('ell') && 'hello'.startsWith('he') && 'hello'.endsWith('lo') && 'hello'.matches('^h.*o$') && matches('abc', 'b')
!'abc'.matches('^b') && 'a\\nb'.matches('(?m)^b$') && 'ABC'.matches('(?i)abc')
timestamp('2009-02-13T23:31:30Z').getFullYear() == 2009 && timestamp('2009-02-13T23:31:30Z').getMonth() == 1
timestamp('2009-02-13T23:31:30Z').getDate() == 13 && timestamp('2009-02-13T23:31:30Z').getDayOfMonth() == 12
timestamp('2009-02-13T23:31:30Z').getDayOfWeek() == 5 && timestamp('2009-02-13T23:31:30Z').getDayOfYear() == 43
timestamp('2009-02-13T23:31:30Z').getHours('02:00') == 1 && timestamp('2009-02-13T02:00:00Z').getHours('-02:30') == 23
timestamp('2009-02-13T23:31:20.123456789Z').getMilliseconds() == 123 && timestamp('2009-02-13T23:31:30Z').getDate('Australia/Sydney') == 14
timestamp(0) == timestamp('1970-01-01T00:00:00Z') && timestamp('0001-01-01T00:00:00Z') < timestamp(0)
timestamp('2009-02-13T23:31:00Z') - timestamp('2009-02-13T23:29:00Z') == duration('2m')
timestamp('2009-02-13T23:00:00Z') + duration('240s') == timestamp('2009-02-13T23:04:00Z') && duration('1s') + timestamp(0) == timestamp(1)
duration('10000s').getHours() == 2 && duration('3730s').getMinutes() == 62 && duration('-1.5s').getSeconds() == -1 && duration('1.5s').getMilliseconds() == 1500
has(x.a) && !has(x.b) && has({'a': null}.a) && !has({}.a)
(1 / 0 > 0 || true) && !(1 / 0 > 0 && false) && (true || 1 / 0 > 0) && !(false && 1 / 0 > 0)
x.missing == 1 || true
true ? true : 1 / 0 > 0
false ? 1 / 0 > 0 : true
l.all(e, e > 0) && !l.all(e, e > 1) && l.exists(e, e == 2) && !l.exists(e, e > 3) && l.exists_one(e, e == 2) && !l.existsOne(e, e > 1)
[].all(e, false) && ![].exists(e, true) && ![].exists_one(e, true)
[1, 2, 3].exists(e, 1 / (e - 1) > 0 || e == 2) && ![0, 1].all(e, 1 / e > 1)
l.map(e, e * 2) == [2, 4, 6] && l.map(e, e > 1, e) == [2, 3] && l.filter(e, e % 2 == 1) == [1, 3]
{'a': 1, 'b': 2}.map(k, k) == ['a', 'b'] && {'a': 1}.all(k, k == 'a') && {'a': 1, 'b': 2}.filter(k, k > 'a') == ['b']
[[1], [2, 3]].map(e, e.map(f, f + 1)) == [[2], [3, 4]]
[5, 6].all(i, v, i < v) && {'a': 1}.exists(k, v, k == 'a' && v == 1) && [1, 1].existsOne(i, v, i == v) && !{'a': 1}.exists_one(k, v, v == 2)
[3, 4].transformList(i, v, i * v) == [0, 4] && [3, 4].transformList(i, v, v > 3, v) == [4] && {'a': 1}.transformList(k, v, k) == ['a']
{'a': 1, 'b': 2}.transformMap(k, v, v > 1, v + 1) == {'b': 3} && ['x'].transformMap(i, v, v) == {0: 'x'}
{'a': 'b'}.transformMapEntry(k, v, {v: k}) == {'b': 'a'}
cel.bind(v, i * 2, v + v) == 12 && cel.bind(a, 1, cel.bind(b, a + 1, a + b)) == 3
optional.of(null).hasValue() && !optional.ofNonZeroValue(null).hasValue() && optional.none().or(optional.none()).orValue(42) == 42
!{}.?key.optFlatMap(k, k.?subkey).hasValue() && {'key': {'subkey': 'v'}}.?key.optFlatMap(k, k.?subkey).value() == 'v'
!{true: dyn(0)}[?false].absent.hasValue() && !{}.?null_key.invalid.hasValue() && {'n': dyn(null)}.?n.hasValue()
optional.of(42).optMap(y, y + 1).value() == 43 && !optional.none().optMap(y, y + 1).hasValue()
!has({}.?x.y) && has({'x': {'y': 'z'}}.?x.y) && !optional.of([])[?0].hasValue() && optional.of(['foo'])[?0].value() == 'foo'
optional.of({'c': {'index': 'goodbye'}}).c.index.orValue('default') == 'goodbye' && optional.of({'c': {}}).c['missing'].orValue('d') == 'd'
{'c': {'dashed-index': 'goodbye'}}.?c.missing.or({'c': {'dashed-index': 'goodbye'}}.?c['dashed-index']).orValue('').size() == 7
[?{}.?c, ?optional.of(42), ?optional.none()] == [42] && {?'a': optional.none(), 'b': 1} == {'b': 1} && {?'a': optional.of(1)} == {'a': 1}
optional.none() == optional.none() && optional.of(1) == optional.of(1) && optional.of(1) != optional.none() && ['foo'][?1] == optional.none()
{1u: 1.0, 3u: 3.0}[?dyn(3.0)].value() == 3.0 && {true: 1}[?true].value() == 1
optional.unwrap([optional.of(1), optional.none()]) == [1] && [optional.of(1)].unwrapOpt() == [1] && [1, 2].first().value() == 1 && [1, 2].last().value() == 2
x.?a.hasValue() && !x.?b.hasValue() && x[?'a'].orValue(9) == 1
dyn([1, 2]).map(e, e + 1) == [2, 3] && dyn('abc').size() == 3 && dyn(1) + dyn(2) == 3 && dyn({'a': 1}).a == 1
"""


@pytest.mark.parametrize("source", TRUE.strip().splitlines())
def test_what_is_true(source: str) -> None:
    assert value(source) is True


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("1 / 0", "division by zero"), ("1 % 0", "modulus by zero"), ("1u / 0u", "division by zero"),
        ("9223372036854775807 + 1", "integer overflow"), ("-9223372036854775808 - 1", "integer overflow"),
        ("5000000000 * 5000000000", "integer overflow"), ("-(-9223372036854775807 - 1)", "integer overflow"),
        ("(-9223372036854775807 - 1) / -1", "integer overflow"), ("0u - 1u", "unsigned integer overflow"),
        ("int(18446744073709551615u)", "integer overflow"), ("int(1e99)", "integer overflow"),
        ("uint(-1)", "unsigned integer overflow"), ("uint(6.022e23)", "unsigned integer overflow"),
        ("int('abc')", 'strconv.ParseInt: parsing "abc": invalid syntax'),
        ("double('x')", 'strconv.ParseFloat: parsing "x": invalid syntax'),
        ("bool('yes')", "type conversion error from 'string' to 'bool'"),
        ("string(b'\\000\\xff')", "invalid UTF-8 in bytes, cannot convert to string"),
        ("m.z", "no such key: z"), ("m['z']", "no such key: z"), ("{1: 2}[3]", "no such key: 3"), ("x.b.c", "no such key: b"),
        ("l[3]", "index out of bounds: 3"), ("l[-1]", "index out of bounds: -1"), ("x.a.b", "no such overload"),
        ("dyn(1) + dyn('a')", "no such overload"), ("dyn('a') && true", "no such overload"), ("dyn(1) ? 1 : 2", "no such overload"),
        ("dyn(1).all(e, true)", "got 'types.Int', expected iterable type"), ("l.all(e, dyn(e))", "no such overload"),
        ("1 / 0 > 0 || false", "division by zero"), ("l.exists(e, 1 / (e - 1) > 5)", "division by zero"),
        ("{'a': 1, 'a': 2}", "Failed with repeated key: a"), ("optional.none().value()", "optional.none() dereference"),
        ("timestamp('9999-12-31T23:59:59Z') + duration('1s')", "timestamp overflow"),
        ("timestamp(0).getHours('Nowhere/Town')", "unknown time zone Nowhere/Town"),
        ("duration(s)", 'time: invalid duration "hello"'), ("[1, 1].transformMapEntry(i, v, {v: i})", "insert failed: key 1 already exists"),
        ("[?dyn(1)]", "cannot initialize optional entry from non-optional value int"),
        ("s.matches('a' + '(')", "error parsing regexp: missing closing ): `a(`"),
        ("{'null_key': dyn(null)}.?null_key.invalid.hasValue()", "no such key: invalid"),
    ],
)  # fmt: skip
def test_errors(source: str, message: str) -> None:
    with pytest.raises(CelError) as caught:
        value(source)
    assert str(caught.value) == message


INT64 = st.integers(-(2**63), 2**63 - 1)


@given(INT64, INT64, st.sampled_from(["+", "-", "*"]))
def test_integers_overflow_or_are_exact(a: int, b: int, operator: str) -> None:
    exact = {"+": a + b, "-": a - b, "*": a * b}[operator]
    program = _PROGRAMS[operator]
    if -(2**63) <= exact < 2**63:
        assert program({"x": a, "i": b}) == exact
    else:
        with pytest.raises(CelError, match="integer overflow"):
            program({"x": a, "i": b})


_PROGRAMS = {operator: compile(ALL, f"x {operator} i") for operator in "+-*"}
_DIVISION = compile(ALL, "(x / i) * i + x % i == x")


@given(st.integers(-1000, 1000), st.integers(-20, 20).filter(bool))
def test_quotient_and_remainder_belong_together(a: int, b: int) -> None:
    assert _DIVISION({"x": a, "i": b}) is True


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(-5, 5), st.text("ab", max_size=2)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("ab", max_size=2), inner, max_size=3)
    ),
    max_leaves=6,
)
_SAME, _OTHER, _HELD = compile(ALL, "x == x"), compile(ALL, "x[0] == x[1]"), compile(ALL, "x[0] in x")


@given(JSON, JSON)
def test_equality_holds_in_both_directions_and_of_itself(a: Any, b: Any) -> None:
    assert _SAME({"x": a}) is True
    assert _OTHER({"x": [a, b]}) == _OTHER({"x": [b, a]})
    assert _HELD({"x": [a, b]}) is True


_ANYTHING = [
    compile(ALL, source)
    for source in (
        "x + x",
        "x.a",
        "x[0]",
        "x.all(e, e > 0)",
        "size(x) > 0",
        "x < x",
        "x.map(e, e.b)",
        "string(x)",
        "x == 1 || x.a",
    )
]


@given(JSON)
def test_dynamic_values_give_a_value_or_a_cel_error(a: Any) -> None:
    for program in _ANYTHING:
        try:
            program({**VALUES, "x": a})
        except CelError as error:
            assert str(error)


TYPED = environment(
    {
        "self": object_type(
            "object", {"n": Field("n", INT), "s": Field("s", STRING), "t": Field("t", TIMESTAMP)}
        )
    }
)


@pytest.mark.parametrize(
    "source",
    ["self.n + 1 > 0", "self.s.startsWith('a')", "self.t.getHours() > 0", "self.n < 5", "size(self.s) > 0"],
)
@pytest.mark.parametrize("wrong", [None, {}, [], 1.5, "x", True])
def test_documents_that_are_not_of_their_type_give_errors_that_logic_absorbs(source: str, wrong: Any) -> None:
    document = {"self": {"n": wrong, "s": wrong, "t": wrong}}
    assert compile(TYPED, f"{source} || true")(document) is True
    assert compile(TYPED, f"[1].exists(i, {source}) || true")(document) is True
    with contextlib.suppress(CelError):
        compile(TYPED, source)(document)


def test_variables_may_be_computed_when_they_are_asked_for() -> None:
    asked: list[str] = []

    class Variables(UserDict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            asked.append(key)
            return super().__getitem__(key)

    env = environment({"variables": object_type("variables", {"a": Field("a", INT), "b": Field("b", INT)})})
    program = compile(env, "false && variables.b > 0 || variables.a > 0")
    assert program({"variables": Variables(a=1, b=2)}) is True
    assert asked == ["a"]
