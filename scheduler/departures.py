"""Which conversations may leave for another lane now, and which had better wait. Pure.

Theory of operation
    A move that the conversation's next turn overtakes is thrown away, and with it all that the server has read. So
    who still has its lane departs only when it is expected to stay away for as long as the move takes, judged by
    the time that its tools have taken so far; or once it has been away for twice as long as the move takes, so that
    those estimates are wrong and it will probably stay as long again. A conversation that has been overtaken `TRIES`
    times stays until its lane is gone. Who has no lane any more departs at once: its next turn has to wait until
    the transcript is read in any case, and a move is a head start.

    Few depart at a time. Those without a lane come first, then those with the most time to spare.
"""

from __future__ import annotations

import heapq
import math
from typing import Generic, TypeVar

from attrs import define, field

from pool.slots import Hold, Lane
from scheduler.policy import stays_away

TRIES = 3  # moves in vain of one conversation from one lane
# One at a time for so many responses that the pool can carry, but never fewer than these
EACH, AT_LEAST = 8, 4


def at_once(capacity: int) -> int:
    """Return how many may be on their way in a pool that carries so many responses."""
    return max(AT_LEAST, capacity // EACH)


@define(eq=False)
class Departure:
    """One conversation's wish to leave its lane, kept over all its moves. Times are seconds on the caller's clock."""

    hold: Hold = field(factory=Hold)  # whose lane it would leave
    since: float = field(default=0.0, init=False)  # its last turn ended
    takes: float = field(default=0.0, init=False)  # the move, as is to be expected
    _left: Lane | None = field(default=None, init=False)
    _vain: int = field(default=0, init=False)

    def ask(self, hold: Hold, *, since: float, takes: float) -> None:
        """It would leave this lane, if it has one still."""
        if hold.lane is not self._left:
            self._left, self._vain = hold.lane, 0
        self.hold, self.since, self.takes = hold, since, takes

    def overtaken(self) -> None:
        """A turn came while the server was reading, and took the old lane."""
        self._vain += 1

    def spare(self, now: float) -> float:
        """Return the seconds that a move begun now would probably have left; negative: it would be overtaken."""
        if self.hold.lane is None:
            return math.inf
        return -math.inf if self._vain >= TRIES else stays_away(self.hold.gap, now - self.since) - self.takes

    def due(self, now: float) -> float:
        """Return when to look again at one that had better wait; `math.inf`: not before something happens."""
        again = self.since + 2 * self.takes
        return again if self._vain < TRIES and again > now else math.inf


AnyDeparture = TypeVar("AnyDeparture", bound=Departure)


@define(eq=False)
class Departures(Generic[AnyDeparture]):
    """Those who would leave. A conversation is here once at most, and not while it is on its way or has a turn."""

    _waiting: dict[AnyDeparture, None] = field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, one: AnyDeparture) -> None:
        """It would leave, from now on."""
        self._waiting[one] = None

    def discard(self, one: AnyDeparture) -> None:
        """It would not any more, if it was here."""
        self._waiting.pop(one, None)

    def take(self, room: int, now: float) -> list[AnyDeparture]:
        """Remove and return up to `room` of those who should depart now, the most urgent first."""
        if room <= 0:
            return []
        ready = [(one.spare(now), one) for one in self._waiting]
        best = heapq.nlargest(room, (pair for pair in ready if pair[0] >= 0), key=lambda pair: pair[0])
        for _spare, one in best:
            del self._waiting[one]
        return [one for _spare, one in best]

    def due(self, now: float) -> float:
        """Return when one of those who are left will be worth another look."""
        return min((one.due(now) for one in self._waiting), default=math.inf)
