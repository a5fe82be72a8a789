"""How many turns at a time a server bears, learned from its refusals. Pure.

Theory of operation
    There is no limit until the server says "too many" (429, overloaded). Then it is half of what was in flight,
    and with every round of successes at the limit (as many as the limit itself) it grows by one. Slowness alone
    never lowers it: a long answer is no overload.

    Refusals come in volleys: those of turns that were in flight when the limit was cut tell nothing new. So each
    turn carries the epoch in which it was granted, a cut ends the epoch, and a refusal counts once an epoch.

    When the server says how long to wait, everybody waits: the limit holds all grants back until then.

    The limit is forgotten when it binds nobody and nothing was refused for `QUIET` seconds, so that the evening's
    load does not begin at what the morning's storm left over.
"""

from __future__ import annotations

import math

from attrs import define, field

CUT = 0.5
FLOOR = 1.0
QUIET = 300.0  # s; limits are counted by the minute


@define(eq=False)
class AdaptiveLimit:
    """The in-flight limit of one key and model. Times are seconds on one clock of the caller's."""

    enabled: bool = True
    limit: float = field(default=math.inf, init=False)
    held_until: float = field(default=-math.inf, init=False)
    epoch: int = field(default=0, init=False)
    cuts: int = field(default=0, init=False)
    _cut_at: float = field(default=-math.inf, init=False)

    @property
    def idle(self) -> bool:
        """It limits nothing."""
        return self.limit == math.inf and self.held_until == -math.inf

    def ready_at(self, in_flight: int, now: float) -> float:
        """Return when one more may be in flight: `now`, later, or `math.inf` for when another has ended."""
        if in_flight < self.limit - 1:
            self._relax(now)
        elif in_flight > self.limit - 1:
            return math.inf
        if self.held_until > now:
            return self.held_until
        self.held_until = -math.inf
        return now

    def succeeded(self, in_flight: int, now: float) -> None:
        """A turn has completed; `in_flight` still counts it."""
        if self.limit < math.inf:
            if in_flight > self.limit - 1:
                self.limit += 1 / self.limit
            else:
                self._relax(now)

    def limited(self, *, epoch: int, in_flight: int, retry_after: float | None, now: float) -> None:
        """The server refused a turn that was granted in `epoch`; `in_flight` still counts it."""
        if not self.enabled:
            return
        if retry_after is not None:
            self.held_until = max(self.held_until, now + retry_after)
        self._cut_at = now
        if epoch == self.epoch:
            self.limit = max(FLOOR, math.floor(min(self.limit, in_flight) * CUT))
            self.epoch += 1
            self.cuts += 1

    def _relax(self, now: float) -> None:
        if now - self._cut_at >= QUIET:
            self.limit = math.inf
