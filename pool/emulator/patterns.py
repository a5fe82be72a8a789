"""A string that matches a regular expression, for the patterns that schemas really use."""

from __future__ import annotations

import random
import re
from importlib import import_module
from typing import Any

# The tree of a pattern is what the standard library itself compiles; it has no public name.
op: Any = import_module("re._constants")
parser: Any = import_module("re._parser")

_SAMPLE = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-_./ "


def matching(pattern: str, rng: random.Random, shortest: int = 0, longest: int = 1 << 20) -> str:
    """Return a string that matches `pattern` (searched, as JSON Schema does) and has a length in the range.

    Falls back to filler when the pattern cannot be read or the lengths cannot be met.
    """
    try:
        tree = parser.parse(pattern)
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        return "x" * shortest
    for stretch in range(24):
        text = _Walk(rng, stretch if stretch < 12 else stretch * stretch).sequence(tree)
        if len(text) < shortest and not pattern.endswith("$"):
            text += "x" * (shortest - len(text))
        if shortest <= len(text) <= longest and compiled.search(text):
            return text
    return "x" * shortest


class _Walk:
    """Builds one string; `stretch` is how much longer than the least each repetition is made."""

    def __init__(self, rng: random.Random, stretch: int) -> None:
        self.rng, self.stretch = rng, stretch
        self.groups: dict[int, str] = {}

    def sequence(self, tree: Any) -> str:
        return "".join(self.one(kind, value) for kind, value in tree)

    def one(self, kind: Any, value: Any) -> str:
        if kind is op.LITERAL:
            return chr(value)
        if kind is op.NOT_LITERAL:
            return "a" if value != ord("a") else "b"
        if kind is op.ANY:
            return "a"
        if kind is op.IN:
            return self.rng.choice(_members(value))
        if kind in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
            low, high, inner = value
            times = min(low + self.stretch, 4096 if high is op.MAXREPEAT else high)
            return "".join(self.sequence(inner) for _ in range(max(low, times)))
        if kind is op.SUBPATTERN:
            self.groups[value[0]] = self.sequence(value[-1])
            return self.groups[value[0]]
        if kind is op.BRANCH:
            return self.sequence(self.rng.choice(value[1]))
        if kind is op.GROUPREF:
            return self.groups.get(value, "")
        if kind is op.ATOMIC_GROUP:
            return self.sequence(value)
        return ""  # anchors and look-arounds add nothing; the caller checks the whole


def _members(parts: Any) -> str:
    """Return the characters of a set, from a plain alphabet where the set is open."""
    negated = bool(parts) and parts[0][0] is op.NEGATE
    found: list[str] = []
    for kind, value in parts:
        if kind is op.LITERAL:
            found.append(chr(value))
        elif kind is op.RANGE:
            low, high = value
            found.extend(map(chr, range(low, min(high, low + 127) + 1)))
        elif kind is op.CATEGORY:
            found.extend(filter(_CATEGORIES.get(value, str.isalnum), _SAMPLE))
    if negated:
        return "".join(letter for letter in _SAMPLE if letter not in found) or "\u2603"
    return "".join(found) or "a"


def _is_word(letter: str) -> bool:
    return letter.isalnum() or letter == "_"


_CATEGORIES = {
    op.CATEGORY_DIGIT: str.isdecimal,
    op.CATEGORY_NOT_DIGIT: lambda letter: not letter.isdecimal(),
    op.CATEGORY_SPACE: str.isspace,
    op.CATEGORY_NOT_SPACE: lambda letter: not letter.isspace(),
    op.CATEGORY_WORD: _is_word,
    op.CATEGORY_NOT_WORD: lambda letter: not _is_word(letter),
}
