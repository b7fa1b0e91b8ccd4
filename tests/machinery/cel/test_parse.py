"""Syntax: what parses to what, and what cel-go says of the rest."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcp.machinery.cel.parse import MAX_NESTING, MAX_SIZE, parse
from kcp.machinery.cel.source import CompileError
from kcp.machinery.cel.syntax import Literal, unparse
from kcp.machinery.cel.values import Uint

START = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"


@pytest.mark.parametrize(
    ("source", "same"),
    [
        ("1 + 2 * 3 - 1 / 2 == 6 % 1", "((1 + (2 * 3)) - (1 / 2)) == (6 % 1)"),
        ("a || b && c", "a || (b && c)"),
        ("a ? b : c ? d : e", "a ? b : (c ? d : e)"),
        ("!a.b", "!(a.b)"),
        ("-a.b * c", "(-(a.b)) * c"),
        ("a in b == c", "(a in b) == c"),
        ("a - b - c", "(a - b) - c"),
        ("a < b == c", "(a < b) == c"),
        ("!!a", "a"),
        ("- -a", "a"),
        ("a.b[0].c(d)[e]", "((((a).b)[0]).c(d))[e]"),
        ("[1, 2,]", "[1, 2]"),
        ("{'a': 1,}", "{'a': 1}"),
        ("a // to the end\n + b", "a + b"),
        ("x.exists_one(i, i > 1)", "(x).exists_one(i, (i > 1))"),
        ("a && b && c && d", "(a && b) && (c && d)"),
    ],
)
def test_operators_bind_as_in_cel(source: str, same: str) -> None:
    assert unparse(parse(source)) == unparse(parse(same))


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("42", 42), ("0x2A", 42), ("-42", -42), ("42u", Uint(42)), ("0xFFu", Uint(255)), ("1.5", 1.5), ("1e3", 1000.0),
        (".5", 0.5), ("-1.5e-1", -0.15), ("true", True), ("null", None), ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)), ("18446744073709551615u", Uint(2**64 - 1)), (r"'a\nb'", "a\nb"),
        (r'"\x41é\U0001F600\101"', "Aé😀A"), (r"r'a\nb'", "a\\nb"), ("'''a\n'b'''", "a\n'b"),
        ('"""x"""', "x"), (r"R'''\d'''", "\\d"), (r"b'\xff\101'", b"\xffA"), ("b'ÿ'", "ÿ".encode()), (r"br'\x'", b"\\x"),
        (r"'\a\b\f\n\r\t\v\\\?\"\'\`'", "\a\b\f\n\r\t\v\\?\"'`"), ('""', ""), ("''''''", ""),
    ],
)  # fmt: skip
def test_literals(source: str, value: object) -> None:
    node = parse(source)
    assert isinstance(node, Literal)
    assert node.value == value and type(node.value) is type(value)


@pytest.mark.parametrize(
    ("source", "listing"),
    [
        (
            "*@a | b",
            f"ERROR: <input>:1:1: Syntax error: extraneous input '*' expecting {START}\n | *@a | b\n | ^\n"
            "ERROR: <input>:1:2: Syntax error: token recognition error at: '@'\n | *@a | b\n | .^\n"
            "ERROR: <input>:1:5: Syntax error: token recognition error at: '| '\n | *@a | b\n | ....^\n"
            "ERROR: <input>:1:7: Syntax error: extraneous input 'b' expecting <EOF>\n | *@a | b\n | ......^",
        ),
        (
            "1 + $",
            "ERROR: <input>:1:5: Syntax error: token recognition error at: '$'\n | 1 + $\n | ....^\n"
            f"ERROR: <input>:1:6: Syntax error: mismatched input '<EOF>' expecting {START}\n | 1 + $\n | .....^",
        ),
        (
            "-",
            "ERROR: <input>:1:2: Syntax error: no viable alternative at input '-'\n | -\n | .^\n"
            f"ERROR: <input>:1:2: Syntax error: mismatched input '<EOF>' expecting {START}\n | -\n | .^",
        ),
        ("1 + 2\n3 +", "ERROR: <input>:2:1: Syntax error: mismatched input '3' expecting <EOF>\n | 3 +\n | ^"),
        ("1.all(2, 3)", "ERROR: <input>:1:7: argument must be a simple name\n | 1.all(2, 3)\n | ......^"),
        ("A(){b: 1}", "ERROR: <input>:1:2: expected a qualified name\n | A(){b: 1}\n | .^"),
        ("while", "ERROR: <input>:1:1: reserved identifier: while\n | while\n | ^"),
        ("has(a)", "ERROR: <input>:1:5: invalid argument to has() macro\n | has(a)\n | ....^"),
        ("9223372036854775808", "ERROR: <input>:1:1: invalid int literal\n | 9223372036854775808\n | ^"),
        ("-1u", f"ERROR: <input>:1:1: found{''} no"),
        ("'😀' x", "ERROR: <input>:1:5: Syntax error: extraneous input 'x' expecting <EOF>\n | '😀' x\n | .．..^"),
        ("foo(1", "ERROR: <input>:1:6: Syntax error: missing ')' at '<EOF>'\n | foo(1\n | .....^"),
        ("a ? b", "ERROR: <input>:1:6: Syntax error: mismatched input '<EOF>' expecting ':'\n | a ? b\n | .....^"),
    ],
)  # fmt: skip
def test_errors_read_as_those_of_cel_go(source: str, listing: str) -> None:
    if source == "-1u":
        assert unparse(parse(source)) == "-(1u)"
        return
    with pytest.raises(CompileError) as caught:
        parse(source)
    assert str(caught.value) == listing


@pytest.mark.parametrize(
    "source",
    [
        "",
        "(",
        "a.",
        "[1",
        "{a",
        "'",
        '"""',
        "a b c",
        "1 +",
        "a ? b :",
        "&",
        "\\",
        "#",
        "b'",
        "a.b{c:",
        "r'\n'",
    ],
)
def test_what_is_no_expression_is_refused(source: str) -> None:
    with pytest.raises(CompileError):
        parse(source)


def test_nesting_and_size_have_limits() -> None:
    assert parse("(" * (MAX_NESTING - 1) + "1" + ")" * (MAX_NESTING - 1))
    for source in (
        "(" * 9000 + "1" + ")" * 9000,
        "[" * 5000,
        "!" * 9 + "-" * 5000 + "(" * 5000,
        "a" + ".b" * 5000,
        "1" + "+1" * 5000,
    ):
        with pytest.raises(CompileError, match=r"expression recursion limit exceeded|Syntax error"):
            parse(source)
    with pytest.raises(
        CompileError,
        match=f"expression code point size exceeds limit: size: {MAX_SIZE + 1}, limit {MAX_SIZE}",
    ):
        parse("1" * (MAX_SIZE + 1))
    assert parse("&&".join(["a"] * 5000))
    assert parse("a ? b : " * 140 + "c")


NAMES = st.sampled_from(["a", "b", "size", "x1", "_y"])
LEAVES = st.one_of(
    NAMES,
    st.integers(-(2**63), 2**63 - 1).map(str),
    st.integers(0, 2**64 - 1).map(lambda value: f"{value}u"),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda value: repr(value)),
    st.text(max_size=5).filter(lambda text: "\r" not in text and text.isprintable()).map(lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'),
    st.sampled_from(["true", "false", "null", "b'\\xff'", "r'\\d'"]),
)  # fmt: skip


def _wider(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    operators = st.sampled_from(["+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "in", "&&", "||"])
    return st.one_of(
        st.tuples(inner, operators, inner).map(lambda parts: f"({parts[0]}) {parts[1]} ({parts[2]})"),
        st.tuples(inner, operators, inner).map(lambda parts: f"{parts[0]} {parts[1]} {parts[2]}"),
        st.tuples(inner, inner, inner).map(lambda parts: f"{parts[0]} ? ({parts[1]}) : {parts[2]}"),
        st.tuples(inner, NAMES).map(lambda parts: f"({parts[0]}).{parts[1]}"),
        st.tuples(inner, NAMES).map(lambda parts: f"has(({parts[0]}).{parts[1]})"),
        st.tuples(inner, NAMES).map(lambda parts: f"({parts[0]}).?{parts[1]}"),
        st.tuples(inner, inner).map(lambda parts: f"({parts[0]})[{parts[1]}]"),
        st.tuples(inner, inner).map(lambda parts: f"({parts[0]})[?{parts[1]}]"),
        st.tuples(inner, inner).map(lambda parts: f"[{parts[0]}, ?{parts[1]}]"),
        st.tuples(inner, inner).map(lambda parts: f"{{{parts[0]}: {parts[1]}}}"),
        st.tuples(inner, inner).map(lambda parts: f"({parts[0]}).f({parts[1]})"),
        st.tuples(inner, inner).map(lambda parts: f"({parts[0]}).map(i, {parts[1]}, i)"),
        st.tuples(inner, inner).map(lambda parts: f"cel.bind(v, {parts[0]}, {parts[1]})"),
        st.tuples(inner).map(lambda parts: f"!({parts[0]})"),
        st.tuples(inner).map(lambda parts: f"-({parts[0]})"),
        st.tuples(inner).map(lambda parts: f"A.B{{c: {parts[0]}, ?d: {parts[0]}}}"),
    )


@settings(max_examples=300, deadline=None)
@given(st.recursive(LEAVES, _wider, max_leaves=8))
def test_unparsed_text_parses_to_the_same_tree(source: str) -> None:
    try:
        once = unparse(parse(source))
    except CompileError:
        return
    assert unparse(parse(once)) == once


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab.()[]{}?:,=!<>&|+-*/%'\"\\rbu01xe \n", max_size=30))
def test_any_text_parses_or_is_refused(source: str) -> None:
    try:
        unparse(parse(source))
    except CompileError as error:
        assert error.issues and str(error).startswith("ERROR: <input>:")
