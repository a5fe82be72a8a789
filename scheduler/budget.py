"""How much may be said again: a budget of replayed tokens a minute. Pure.

Theory of operation
    Recovery sends contexts again that the server has read, and charged for, before. One lost connection costs
    little, but a storm over many long conversations multiplies: the budget bounds what that may cost. It is a
    bucket that holds one minute's tokens and refills continuously. What a try costs is known only roughly before
    it is placed, so it may begin while anything is left, and the bucket goes into debt; the next one waits until
    the debt is paid. First tries are never counted, whatever they replay.
"""

from __future__ import annotations

import math

from attrs import define, field


@define(eq=False)
class ReplayBudget:
    """The budget of one scheduler. Times are in seconds on one clock of the caller's."""

    per_minute: float  # tokens; `math.inf` for no bound
    spent: int = field(default=0, init=False)  # tokens, since the beginning
    _level: float = field(init=False)
    _at: float = field(default=-math.inf, init=False)

    def __attrs_post_init__(self) -> None:
        self._level = self.per_minute

    def wait(self, now: float) -> float:
        """Return the seconds until something may be said again; 0 when at once."""
        self._fill(now)
        if self._level > 0:
            return 0.0
        # A token more than the debt, so that whoever waits as long as told finds the bucket above zero.
        return (1.0 - self._level) * 60.0 / self.per_minute

    def spend(self, tokens: int, now: float) -> None:
        """A context of so many tokens is sent again."""
        self._fill(now)
        self.spent += tokens
        self._level -= tokens

    def _fill(self, now: float) -> None:
        if math.isinf(self.per_minute):
            self._level = math.inf
        elif self._at > -math.inf:
            self._level = min(self.per_minute, self._level + (now - self._at) * self.per_minute / 60.0)
        self._at = now
