"""Says whether a text matches a regular expression, in bounded time, whatever the expression is. Pure.

Theory of operation
    The standard library's engine tries one way after the other and goes back; `^(a|a)*(?=x)$` takes it 2^n steps for
    n letters. A linear engine (RE2) knows no look-around and no references, which schemas have, and would be a
    dependency for an emulator's sake. So here the tree that the standard library parses is walked with a set of
    places instead of one: each part is asked once for each place where it may begin, and gives the places where it
    may end. Ways that lead to the same place are one way, so the work is at most the square of the text's length for
    each part of the expression; and it is counted, see `Effort`. A `{4000000000}` ends when no new place is found.

    Where an expression refers back to a group, what the group holds is part of the place. Atomic groups and
    possessive repeats are taken for plain ones: they may match more here than they should.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib import import_module
from typing import Any

from attrs import define, field

from pool.emulator.effort import Effort, Exhausted

# The tree of a pattern is what the standard library itself compiles; it has no public name.
op: Any = import_module("re._constants")
parser: Any = import_module("re._parser")

LONGEST = 2000  # characters of a pattern
_Place = tuple[
    int, tuple[tuple[int, int, int], ...]
]  # in the text, and (group, begin, end) of what is referred to


@lru_cache(maxsize=512)
def parsed(pattern: str) -> Any:
    """Return the tree of a pattern; None when it cannot be read, or is too long."""
    if len(pattern) > LONGEST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return parser.parse(pattern)
    except (re.error, RecursionError, OverflowError, ValueError):
        return None


def matches(pattern: str, text: str, effort: Effort) -> bool:
    """Whether a pattern is found in a text, as `re.search` finds it.

    Raises:
        Exhausted: that takes too many steps, or the pattern cannot be read, or has what is not known here.
    """
    tree = parsed(pattern)
    if tree is None:
        raise Exhausted
    try:
        matcher = _Matcher(text, effort, frozenset(_referred(tree)))
        starts: Iterable[_Place] = ((start, ()) for start in range(len(text) + 1))
        return bool(matcher.sequence(tree, set(starts), tree.state.flags))
    except RecursionError:
        raise Exhausted from None


def _referred(tree: Any) -> Iterable[int]:
    """Give the groups that are referred to."""
    for kind, value in tree:
        if kind is op.GROUPREF:
            yield value
        for part in value if isinstance(value, tuple | list) else (value,):
            for inner in part if isinstance(part, list) else (part,):
                if isinstance(inner, parser.SubPattern):
                    yield from _referred(inner)


@define(eq=False)
class _Matcher:
    text: str
    effort: Effort
    referred: frozenset[int] = field(factory=frozenset)

    def sequence(self, tree: Any, places: set[_Place], flags: int) -> set[_Place]:
        """Return where a sequence may end that begins at one of these places."""
        for kind, value in tree:
            self.effort.spend(1 + len(places))
            if not places:
                break
            places = self._one(kind, value, places, flags)
        return places

    def _one(self, kind: Any, value: Any, places: set[_Place], flags: int) -> set[_Place]:
        if kind in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
            low, high, inner = value
            return self._repeat(low, high, inner, places, flags)
        if kind is op.SUBPATTERN:
            return self._group(value, places, flags)
        if kind is op.BRANCH:
            return set[_Place]().union(*(self.sequence(one, places, flags) for one in value[1]))
        if kind is op.ATOMIC_GROUP:
            return self.sequence(value, places, flags)
        if kind in (op.ASSERT, op.ASSERT_NOT):
            wanted = kind is op.ASSERT
            direction, inner = value
            return {place for place in places if self._looks(direction, inner, place, flags) is wanted}
        if kind is op.GROUPREF:
            return {end for place in places for end in self._again(value, place, flags)}
        if kind is op.AT:
            return {place for place in places if self._at(value, place[0], flags)}
        if kind is op.FAILURE:
            return set()
        if kind in _CHARACTERS:
            text, end = self.text, len(self.text)
            return {
                (at + 1, groups) for at, groups in places if at < end and fits(kind, value, text[at], flags)
            }
        raise Exhausted  # a condition

    def _repeat(self, low: int, high: Any, inner: Any, places: set[_Place], flags: int) -> set[_Place]:
        count = 0
        while count < low:
            after = self.sequence(inner, places, flags)
            if after == places:
                break  # so they stay, however often
            places, count = after, count + 1
        found, fresh = set(places), places
        while fresh and (high is op.MAXREPEAT or count < high):
            fresh = self.sequence(inner, fresh, flags) - found
            found |= fresh
            count += 1
        return found

    def _group(self, value: Any, places: set[_Place], flags: int) -> set[_Place]:
        group, more, fewer, inner = value
        flags = (flags | more) & ~fewer
        if group not in self.referred:
            return self.sequence(inner, places, flags)
        found: set[_Place] = set()
        for at, groups in places:
            others = tuple(one for one in groups if one[0] != group)
            for end, within in self.sequence(inner, {(at, others)}, flags):
                kept = [one for one in within if one[0] != group]
                found.add((end, tuple(sorted([*kept, (group, at, end)]))))
        return found

    def _again(self, group: int, place: _Place, flags: int) -> Iterable[_Place]:
        at, groups = place
        for number, start, end in groups:
            if number == group:
                self.effort.spend(1 + end - start)
                said, here = self.text[start:end], self.text[at : at + end - start]
                if said == here or (flags & re.IGNORECASE and said.lower() == here.lower()):
                    yield at + end - start, groups

    def _looks(self, direction: int, inner: Any, place: _Place, flags: int) -> bool:
        at, groups = place
        if direction > 0:
            return bool(self.sequence(inner, {place}, flags))
        start = at - inner.getwidth()[0]  # what is looked back at has one width
        return start >= 0 and any(end == at for end, _ in self.sequence(inner, {(start, groups)}, flags))

    def _at(self, where: Any, at: int, flags: int) -> bool:
        text, end = self.text, len(self.text)
        if where in (op.AT_BEGINNING, op.AT_BEGINNING_STRING):
            lines = where is op.AT_BEGINNING and flags & re.MULTILINE
            return at == 0 or bool(lines and text[at - 1] == "\n")
        if where is op.AT_END_STRING:
            return at == end
        if where is op.AT_END:
            return at == end or ((at == end - 1 or bool(flags & re.MULTILINE)) and text[at] == "\n")
        before, after = at > 0 and is_word(text[at - 1]), at < end and is_word(text[at])
        return (before is not after) is (where is op.AT_BOUNDARY)


def fits(kind: Any, value: Any, letter: str, flags: int = 0) -> bool:
    """Whether a letter is one that a part of a pattern stands for."""
    if kind is op.ANY:
        return letter != "\n" or bool(flags & re.DOTALL)
    ways = {letter, letter.lower()[:1], letter.upper()[:1]} if flags & re.IGNORECASE else (letter,)
    if kind in (op.LITERAL, op.NOT_LITERAL):
        return (kind is op.LITERAL) is any(ord(one) == value for one in ways)
    negated = bool(value) and value[0][0] is op.NEGATE
    parts = value[negated:]
    return negated is not any(_holds(part, argument, one) for part, argument in parts for one in ways)


def _holds(kind: Any, value: Any, letter: str) -> bool:
    if kind is op.LITERAL:
        return bool(ord(letter) == value)
    if kind is op.RANGE:
        return bool(value[0] <= ord(letter) <= value[1])
    holds: Callable[[str], bool] = CATEGORIES.get(value, str.isalnum)
    return holds(letter)


def is_word(letter: str) -> bool:
    """Whether a letter is one of a word."""
    return letter.isalnum() or letter == "_"


_CHARACTERS = frozenset({op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN})
CATEGORIES: dict[Any, Callable[[str], bool]] = {
    op.CATEGORY_DIGIT: str.isdecimal,
    op.CATEGORY_NOT_DIGIT: lambda letter: not letter.isdecimal(),
    op.CATEGORY_SPACE: str.isspace,
    op.CATEGORY_NOT_SPACE: lambda letter: not letter.isspace(),
    op.CATEGORY_WORD: is_word,
    op.CATEGORY_NOT_WORD: lambda letter: not is_word(letter),
}
