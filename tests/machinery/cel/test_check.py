"""Types: what an expression evaluates to, and what the checker says when parts do not fit."""

from __future__ import annotations

import pytest

from kcp.machinery.cel.environment import WrongType, compile, mentions
from kcp.machinery.cel.source import CompileError
from kcp.machinery.cel.types import BOOL, STRING
from tests.machinery.cel.support import ALL


@pytest.mark.parametrize(
    ("source", "type"),
    [
        ("1 + 2", "int"), ("1u", "uint"), ("1.0 / 2.0", "double"), ("'a' + 'b'", "string"), ("[1, 2]", "list(int)"),
        ("[]", "list(dyn)"), ("{}", "map(dyn, dyn)"), ("{'a': [1u]}", "map(string, list(uint))"), ("x.a", "dyn"),
        ("x.a + 1", "int"), ("x + x", "dyn"), ("l[0]", "int"), ("m.k", "int"), ("m[?'k']", "optional_type(int)"),
        ("l.map(e, string(e))", "list(string)"), ("l.filter(e, e > 1)", "list(int)"), ("m.map(k, k)", "list(string)"),
        ("l.transformMap(i, v, v > 0)", "map(int, bool)"), ("[] + [1]", "list(int)"), ("[[], [1]]", "list(list(int))"),
        ("true ? 1 : x", "dyn"), ("type(1)", "type(int)"), ("optional.of(1).optMap(v, 'a')", "optional_type(string)"),
        ("timestamp('2020-01-01T00:00:00Z')", "google.protobuf.Timestamp"), ("null", "null_type"),
        ("quantity('1')", "kubernetes.Quantity"), ("x.?a.orValue(1)", "dyn"), ("[dyn(1), dyn('a')]", "list(dyn)"),
        ("Object{spec: Object.spec{a: 1}}", "Object"), ("cel.bind(v, 1, [v])", "list(int)"),
    ],
)  # fmt: skip
def test_the_type_of_an_expression(source: str, type: str) -> None:
    assert str(compile(ALL, source).type) == type


@pytest.mark.parametrize(
    ("source", "place", "message"),
    [
        ("i + 'a'", "1:3", "found no matching overload for '_+_' applied to '(int, string)'"),
        ("s.startsWith(1)", "1:13", "found no matching overload for 'startsWith' applied to 'string.(int)'"),
        ("nope", "1:1", "undeclared reference to 'nope' (in container '')"),
        ("s.nope()", "1:7", "undeclared reference to 'nope' (in container '')"),
        ("i.a", "1:2", "type 'int' does not support field selection"),
        ("[1, 'a']", "1:5", "expected type 'int' but found 'string'"),
        ("{'a': 1, 'b': true}", "1:15", "expected type 'int' but found 'bool'"),
        ("{'a': 1, 2: 3}", "1:10", "expected type 'string' but found 'int'"),
        ("l.all(e, e)", "1:6", "found no matching overload for '_&&_' applied to '(bool, int)'"),
        ("l.filter(e, s)", "1:9", "found no matching overload for '_?_:_' applied to '(string, list(int), list(int))'"),
        ("i.all(e, true)", "1:1", "expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)"),
        ("i ? 1 : 2", "1:3", "found no matching overload for '_?_:_' applied to '(int, int, int)'"),
        ("true ? 1 : 's'", "1:6", "found no matching overload for '_?_:_' applied to '(bool, int, string)'"),
        ("i == s", "1:3", "found no matching overload for '_==_' applied to '(int, string)'"),
        ("i && true", "1:3", "found no matching overload for '_&&_' applied to '(int, bool)'"),
        ("!i", "1:1", "found no matching overload for '!_' applied to '(int)'"),
        ("1 in s", "1:3", "found no matching overload for '@in' applied to '(int, string)'"),
        ("size(1)", "1:5", "found no matching overload for 'size' applied to '(int)'"),
        ("m[1]", "1:2", "found no matching overload for '_[_]' applied to '(map(string, int), int)'"),
        ("duration('x')", "1:10", "invalid duration argument"),
        ("timestamp('2020')", "1:11", "invalid timestamp argument"),
        ("s.matches('(')", "1:11", "invalid matches argument"),
        ("i.optMap(v, v)", "1:9", "found no matching overload for 'hasValue' applied to 'int.()'"),
        ("[?1]", "1:3", "expected type 'optional_type(int)' but found 'int'"),
        ("Nope{a: 1}", "1:5", "undeclared reference to 'Nope' (in container '')"),
        ("int{a: 1}", "1:4", "'int' is not a message type"),
        ("JSONPatch{nope: 1}", "1:15", "undefined field 'nope'"),
        ("JSONPatch{op: 1}", "1:13", "expected type of field 'op' is 'string' but provided type is 'int'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_as_cel_go_says_it(source: str, place: str, message: str) -> None:
    with pytest.raises(CompileError) as caught:
        compile(ALL, source)
    assert str(caught.value).startswith(f"ERROR: <input>:{place}: {message}\n | {source}\n")


def test_all_that_is_wrong_is_listed_from_left_to_right() -> None:
    with pytest.raises(CompileError) as caught:
        compile(ALL, "a + b")
    assert str(caught.value) == (
        "ERROR: <input>:1:1: undeclared reference to 'a' (in container '')\n | a + b\n | ^\n"
        "ERROR: <input>:1:5: undeclared reference to 'b' (in container '')\n | a + b\n | ....^"
    )


def test_the_result_must_be_what_the_caller_asks_for() -> None:
    assert compile(ALL, "i > 1", BOOL).type == BOOL
    assert compile(ALL, "x", BOOL)
    with pytest.raises(WrongType, match=r"^must evaluate to bool$"):
        compile(ALL, "i", BOOL)
    with pytest.raises(WrongType, match="must evaluate to bool or string"):
        compile(ALL, "i", BOOL, STRING)


def test_a_variable_of_a_macro_hides_the_outer_one() -> None:
    assert compile(ALL, "names.all(i, i.size() > 0)", BOOL)({"names": ["a"], "i": 3}) is True
    assert compile(ALL, "cel.bind(s, i, s + 1)")({"i": 3, "s": "x"}) == 4


def test_which_variables_an_expression_uses() -> None:
    assert mentions(compile(ALL, "l.all(e, e > i)"), "i")
    assert not mentions(compile(ALL, "l.all(i, i > 1) && has(x.i)"), "i")
    assert mentions(compile(ALL, "i > 1 && l.all(i, i > 1)"), "i")
