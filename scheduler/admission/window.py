"""So much in any sixty seconds, to the letter. Pure.

Theory of operation
    A log of what was charged and until when it counts. What is to be charged fits when the charges that still
    count leave room for it. A token bucket would be smaller, but it lets twice its size through in the minute
    that begins with it full, and a refund for a turn of ten minutes ago would let the present minute overdraw.

    A charge is an estimate until the real usage is known. A lower figure corrects the charge where it stands in
    the log; the excess of a higher one is charged now, when it is known: later grants wait for it.

    An amount above the whole limit goes alone: it fits when nothing else counts, and counts as the limit.
"""

from __future__ import annotations

import math
from collections import deque

from attrs import define, field

SPAN = 60.0  # s


@define(eq=False)
class Charge:
    """One line of the log."""

    amount: int
    expires: float


@define(eq=False)
class Window:
    """At most `limit` in any `span` seconds. Times are seconds on one clock of the caller's."""

    limit: int
    span: float = SPAN
    used: int = field(default=0, init=False)  # the sum of the log
    _log: deque[Charge] = field(factory=deque, init=False)

    def forget(self, now: float) -> None:
        """Drop what no longer counts."""
        log = self._log
        while log and log[0].expires <= now:
            self.used -= log.popleft().amount

    def fits(self, amount: int, now: float) -> bool:
        """Return whether so much may be charged now."""
        self.forget(now)
        return self.used + min(amount, self.limit) <= self.limit

    def next_change(self) -> float:
        """Return when the next charge stops counting; `math.inf` when none counts."""
        return self._log[0].expires if self._log else math.inf

    def ready_at(self, amount: int, now: float) -> float:
        """Return when so much would fit if nothing else were charged: `now` if at once. Linear in the log."""
        self.forget(now)
        excess = self.used + min(amount, self.limit) - self.limit
        for charge in self._log:
            if excess <= 0:
                break
            excess -= charge.amount
            now = charge.expires
        return now

    def charge(self, amount: int, now: float) -> Charge:
        """Charge so much. Call it only when it `fits`, or when it is spent already."""
        self.forget(now)
        charge = Charge(min(amount, self.limit), now + self.span)
        self._log.append(charge)
        self.used += charge.amount
        return charge

    def correct(self, charge: Charge, amount: int, now: float) -> None:
        """The charge turned out to be `amount`."""
        excess = amount - charge.amount
        if excess > 0:
            self.charge(excess, now)
        elif charge.expires > now:
            self.forget(now)
            charge.amount += excess
            self.used += excess
