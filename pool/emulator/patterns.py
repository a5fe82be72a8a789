"""A string that matches a regular expression, for the patterns that schemas really use; bounded for all others."""

from __future__ import annotations

import random
from typing import Any

from attrs import define, field

from pool.emulator.effort import Effort, Exhausted
from pool.emulator.matcher import CATEGORIES, matches, op, parsed

MOST_LETTERS = 65_536  # of a string that is made
_STRETCHES = 24
_EACH = 2_000  # steps to make one string
_SAMPLE = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-_./ "


def matching(
    pattern: str,
    rng: random.Random,
    shortest: int = 0,
    longest: int = 1 << 20,
    effort: Effort | None = None,
) -> str:
    """Return a string that matches `pattern` (searched, as JSON Schema does) and has a length in the range.

    Falls back to filler when the pattern cannot be read, the lengths cannot be met, or either takes too many steps.
    """
    effort = effort or Effort(100_000)
    shortest = min(shortest, MOST_LETTERS)
    tree = parsed(pattern)
    for stretch in range(_STRETCHES) if tree is not None else ():
        try:
            text = _Walk(rng, stretch if stretch < 12 else stretch * stretch, Effort(min(_EACH, effort.left)))
            made = text.sequence(tree)
            effort.spend(_EACH // 20)
            if len(made) < shortest and not pattern.endswith("$"):
                made += "x" * (shortest - len(made))
            if shortest <= len(made) <= longest and matches(pattern, made, effort):
                return made
        except (Exhausted, RecursionError):
            break  # a longer one would take more
    return "x" * shortest


@define(eq=False)
class _Walk:
    """Builds one string; `stretch` is how much longer than the least each repetition is made."""

    rng: random.Random
    stretch: int
    effort: Effort
    groups: dict[int, str] = field(factory=dict, init=False)

    def sequence(self, tree: Any) -> str:
        return "".join(self.one(kind, value) for kind, value in tree)

    def one(self, kind: Any, value: Any) -> str:
        self.effort.spend()
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
            parts: list[str] = []
            for _ in range(max(low, times)):
                self.effort.spend()  # even for what is empty
                parts.append(self.sequence(inner))
            return "".join(parts)
        if kind is op.SUBPATTERN:
            self.groups[value[0]] = self.sequence(value[-1])
            return self.groups[value[0]]
        if kind is op.BRANCH:
            return self.sequence(self.rng.choice(value[1]))
        if kind is op.GROUPREF:
            said = self.groups.get(value, "")
            self.effort.spend(len(said) // 16)
            return said
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
            found.extend(filter(CATEGORIES.get(value, str.isalnum), _SAMPLE))
    if negated:
        return "".join(letter for letter in _SAMPLE if letter not in found) or "\u2603"
    return "".join(found) or "a"
