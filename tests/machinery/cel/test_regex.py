"""Regular expressions: RE2's language and meaning, in linear time."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from kcp.machinery.cel.regex import compiled
from kcp.machinery.cel.values import CelError

PIECES = st.sampled_from(
    ["a", "b", ".", "[ab]", "[^a]", r"\d", r"\w", r"\s", "^", "$", r"\b", r"\B", "0", "-", r"\.", "(?:ab)"]
)
PATTERNS = st.recursive(
    PIECES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.tuples(inner, inner).map("|".join),
        inner.map(lambda part: f"({part})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "*?", "+?", "??", "{2}", "{1,2}", "{0,1}?"])).map(
            lambda parts: f"(?:{parts[0]}){parts[1]}"
        ),
    ),
    max_leaves=6,
)
TEXTS = st.text("ab0-. \n", max_size=8)


@settings(max_examples=300, deadline=None)
@given(PATTERNS, TEXTS)
@example("a*?b", "aab")
def test_a_pattern_matches_where_python_says_so(pattern: str, text: str) -> None:
    """Python's `$` also matches before a final line end, and its `\\B` not in an empty text; RE2's the other way."""
    assume(text or "\\B" not in pattern)
    python = re.compile(pattern.replace("$", r"\Z"), re.ASCII)
    assert compiled(pattern).matches(text) == (python.search(text) is not None)


@settings(max_examples=200, deadline=None)
@given(
    PATTERNS.filter(
        lambda pattern: not any(mark in pattern for mark in ("^", "$", "\\b", "\\B", "?)", "*)"))
    ),
    TEXTS,
)
def test_the_first_match_is_the_one_that_is_preferred(pattern: str, text: str) -> None:
    python = re.compile(pattern, re.ASCII).search(text)
    found = compiled(pattern).find(text)
    assert (found is None) == (python is None)
    if found is not None and python is not None:
        assert found[0] == python.start()


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("(a|ab)(c|bcd)", "abcd", (0, 4)), ("a*?b", "aab", (0, 3)), ("a??", "a", (0, 0)), ("(?i)straße", "STRAßE", (0, 6)),
        (r"(?P<year>\d{4})", "in 2024", (3, 7)), (r"\x41\x{42}\103", "ABC", (0, 3)), (r"\Qa.b\E", "a.b", (0, 3)),
        ("[[:alpha:]]+", "12ab", (2, 4)), (r"\pL+", "1éa", (1, 3)), (r"\P{L}+", "a1-", (1, 3)), ("(?s).", "\n", (0, 1)),
        ("(?m)^b$", "a\nb\nc", (2, 3)), ("(?U)a+", "aaa", (0, 1)), ("[]a]+", "]a", (0, 2)), ("[^]a]", "]ab", (2, 3)), ("x{,2}", "x{,2}", (0, 5)),
        (r"[\d\-x]+", "a1-x", (1, 4)), (".", "\n", None), (r"\w", "é", None), (r"a\z", "a\n", None),
    ],
)  # fmt: skip
def test_what_re2_finds(pattern: str, text: str, found: tuple[int, int] | None) -> None:
    assert compiled(pattern).find(text) == found
    assert compiled(pattern).matches(text) == (found is not None)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a(", "missing closing ): `a(`"), ("a)", "unexpected ): `a)`"), ("[a", "missing closing ]: `[a`"),
        ("*a", "missing argument to repetition operator: `*`"), ("a**", "invalid nested repetition operator: `**`"),
        ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"), ("(?!a)", "invalid or unsupported Perl syntax: `(?!`"),
        (r"(a)\1", r"invalid escape sequence: `\1`"), ("a{1001}", "invalid repeat count: `{1001}`"),
        ("(a{100}){100}", "invalid repeat count: `(a{100}){100}`"), ("[b-a]", "invalid character class range: `b-a`"),
        ("\\", "trailing backslash at end of expression"), (r"\y", r"invalid escape sequence: `\y`"),
        (r"\p{Greek}", r"invalid character class range: `\p{Greek}`"), ("[[:foo:]]", "invalid character class range: `[:foo:]`"),
    ],
)  # fmt: skip
def test_what_re2_refuses_is_refused_in_its_words(pattern: str, message: str) -> None:
    with pytest.raises(CelError) as caught:
        compiled(pattern)
    assert str(caught.value) == f"error parsing regexp: {message}"


@settings(max_examples=300, deadline=None)
@given(st.text("ab(|)*+?{}1,[]^-\\dpLQE$.:iP<>", max_size=12), TEXTS)
def test_any_pattern_works_or_is_refused(pattern: str, text: str) -> None:
    try:
        machine = compiled(pattern)
    except CelError:
        return
    found = machine.find(text)
    assert machine.matches(text) == (found is not None)
    assert found is None or 0 <= found[0] <= found[1] <= len(text)


def test_patterns_that_explode_elsewhere_take_linear_time() -> None:
    text = "a" * 50_000
    for pattern in ("(a*)*b", "(a|a)*b", "(a|aa)+$b", "a*a*a*a*a*b", "(?:a?){30}a{30}b"):
        assert not compiled(pattern).matches(text)
    with pytest.raises(CelError, match="expression nests too deeply"):
        compiled("(" * 500 + ")" * 500)
    with pytest.raises(CelError, match="expression too large"):
        compiled("(?:" + "a" * 500 + "){1000}")
