"""Regular expressions with RE2's meaning and in time linear in the text, whatever the pattern.

`matches` builds a deterministic automaton as it goes and remembers it; `find` runs the threads of the program side by
side in order of preference, so that of all matches that begin first the one that a backtracking search prefers wins.

Source: Russ Cox, "Regular Expression Matching: the Virtual Machine Approach"; RE2.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from kcp.machinery.cel.regex_syntax import CharClass, Instruction, PatternError, parse_pattern, program
from kcp.machinery.cel.values import CelError

_MAX_STATES: Final = 2000
_BEGIN, _WORD, _NEWLINE, _OTHER = range(4)
_WORDS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


@lru_cache(maxsize=512)
def compiled(pattern: str) -> Regex:
    """The machine of a pattern; the last 512 are remembered. Raises CelError with Go's text."""
    try:
        return Regex(program(parse_pattern(pattern)))
    except PatternError as error:
        raise CelError(str(error)) from None


class _State:
    """A set of places in the program and what kind of character was read last."""

    __slots__ = ("after", "places", "previous")

    def __init__(self, places: tuple[int, ...], previous: int) -> None:
        self.places = places
        self.previous = previous
        self.after: dict[str, _State | None] = {}


class Regex:
    """A pattern's program, and the states that the automaton met."""

    def __init__(self, code: list[Instruction]) -> None:
        self._code = code
        self._start = len(code) - 1
        self._states: dict[tuple[tuple[int, ...], int], _State] = {}

    def matches(self, text: str) -> bool:
        """Whether some part of the text matches."""
        state: _State | None = self._state((self._start,), _BEGIN)
        for char in text:
            assert state is not None
            state = state.after[char] if char in state.after else self._step(state, char)
            if state is None:
                return True
        assert state is not None
        return state.after[""] is None if "" in state.after else self._step(state, "") is None

    def find(self, text: str, start: int = 0) -> tuple[int, int] | None:
        """Where the first match from `start` on begins and ends."""
        threads: list[tuple[int, int]] = []
        found: tuple[int, int] | None = None
        for at in range(start, len(text) + 1):
            char = text[at] if at < len(text) else ""
            if found is None:
                threads.append((self._start, at))
            elif not threads:
                break
            ready, end = self._ready(threads, _kind(text[at - 1]) if at else _BEGIN, char)
            if end is not None:
                found = (end, at)
            threads = [(then, begun) for then, begun, chars in ready if char and chars.has(char)]
        return found

    def find_all(self, text: str) -> Iterator[tuple[int, int]]:
        """All matches from left to right that do not overlap; an empty one right behind another does not count."""
        at, last = 0, -1
        while at <= len(text):
            found = self.find(text, at)
            if found is None:
                return
            begin, end = found
            if begin < end or begin != last:
                yield found
            last = end
            at = end if end > begin else end + 1

    def _state(self, places: tuple[int, ...], previous: int) -> _State:
        key = (places, previous)
        state = self._states.get(key)
        if state is None:
            if len(self._states) >= _MAX_STATES:
                self._states.clear()
            state = self._states[key] = _State(places, previous)
        return state

    def _step(self, state: _State, char: str) -> _State | None:
        """The state after a character, or after the end of the text for ""; None when there is a match."""
        ready, end = self._ready([(place, 0) for place in state.places], state.previous, char)
        result: _State | None = None
        if end is None:
            then = [place for place, _, chars in ready if char and chars.has(char)]
            result = self._state(tuple(dict.fromkeys((*then, self._start))), _kind(char) if char else _OTHER)
        if len(state.after) < _MAX_STATES:
            state.after[char] = result
        return result

    def _ready(
        self, threads: list[tuple[int, int]], previous: int, char: str
    ) -> tuple[list[tuple[int, int, CharClass]], int | None]:
        """The threads that wait for a character, in order of preference, up to the first that matched.

        Each is (place to go on, where it began, the characters it takes); the second part is where the one that
        matched began.
        """
        code = self._code
        seen: set[int] = set()
        ready: list[tuple[int, int, CharClass]] = []
        for place, begun in threads:
            stack = [place]
            while stack:
                at = stack.pop()
                if at in seen:
                    continue
                seen.add(at)
                kind, first, second = code[at]
                if kind == "char":
                    ready.append((second, begun, first))
                elif kind == "split":
                    stack.append(second)
                    stack.append(first)
                elif kind == "match":
                    return ready, begun
                elif _holds(first, previous, char):
                    stack.append(second)
        return ready, None


def _kind(char: str) -> int:
    return _WORD if char in _WORDS else _NEWLINE if char == "\n" else _OTHER


def _holds(assertion: str, previous: int, char: str) -> bool:
    match assertion:
        case "A":
            return previous == _BEGIN
        case "z":
            return not char
        case "^":
            return previous in (_BEGIN, _NEWLINE)
        case "$":
            return char in ("", "\n")
        case _:
            boundary = (previous == _WORD) != (bool(char) and char in _WORDS)
            return boundary == (assertion == "b")
